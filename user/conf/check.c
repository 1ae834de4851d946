/* SPDX-License-Identifier: BSD-2-Clause */
/* Checks that concern more than one key, and fields derived from others. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/parser.h"

#define REALM_DEFAULT "culvert" /* of a file with neither realms nor users */

/* What a section does not say is as in another. */
static void count_inherit(const struct section *s, const char *key,
			  unsigned int *to, unsigned int from)
{
	if (!conf_key_line(s, key))
		*to = from;
}

static void rate_inherit(const struct section *s, const char *key, uint64_t *to,
			 uint64_t from)
{
	if (!conf_key_line(s, key))
		*to = from;
}

static void realms_derive(struct parser *p)
{
	const struct conf_quota *from = &p->conf->limits.per_user;
	struct section *s = NULL;

	while ((s = conf_section_next(p, s, SECTION_REALM)) != NULL) {
		struct conf_quota *to = &p->conf->realms[s->index].per_user;

		count_inherit(s, "allocations_per_user", &to->allocations,
			      from->allocations);
		count_inherit(s, "connections_per_user", &to->connections,
			      from->connections);
		rate_inherit(s, "bandwidth_per_user", &to->bandwidth,
			     from->bandwidth);
		rate_inherit(s, "bandwidth_per_allocation",
			     &to->allocation_bandwidth,
			     from->allocation_bandwidth);
	}
}

/* When each user's realm is known. */
static void users_derive(struct parser *p)
{
	struct section *s = NULL, *realm;

	while ((s = conf_section_next(p, s, SECTION_USER)) != NULL) {
		struct conf_user *user = &p->conf->users[s->index];
		const struct conf_quota *from;

		realm = user->realm ? conf_section_find(p, SECTION_REALM,
							user->realm) :
				      NULL;
		if (!realm)
			continue;
		from = &p->conf->realms[realm->index].per_user;
		count_inherit(s, "allocations", &user->quota.allocations,
			      from->allocations);
		count_inherit(s, "connections", &user->quota.connections,
			      from->connections);
		rate_inherit(s, "bandwidth", &user->quota.bandwidth,
			     from->bandwidth);
		rate_inherit(s, "bandwidth_per_allocation",
			     &user->quota.allocation_bandwidth,
			     from->allocation_bandwidth);
	}
}

/* Consumers may count on one listener and one realm at least. */
static void defaults_derive(struct parser *p)
{
	struct conf *conf = p->conf;

	if (!conf->listener_count) {
		conf->listeners = conf_array_add(NULL, &conf->listener_count,
						 sizeof(*conf->listeners));
		if (!conf->listeners ||
		    !(conf->listeners[0].name = strdup("default"))) {
			conf_no_memory(p);
			return;
		}
		conf_value_presets(p, SECTION_LISTENER, conf->listeners);
	}
	if (!conf->realm_count) {
		conf->realms = conf_array_add(NULL, &conf->realm_count,
					      sizeof(*conf->realms));
		if (!conf->realms ||
		    !(conf->realms[0].name = strdup(REALM_DEFAULT))) {
			conf_no_memory(p);
			return;
		}
		conf->realms[0].per_user = conf->limits.per_user;
	}
}

static void realm_unknown(struct parser *p, const struct section *s,
			  const char *realm)
{
	char label[CONF_LABEL_MAX];

	conf_error(p, conf_key_line(s, "realm"),
		   "%s realm: found \"%s\", for which there is no section; "
		   "allowed: the name of a [realm NAME] such as \"%s\"",
		   conf_label(s->kind, s, label), realm,
		   p->conf->realm_count ? p->conf->realms[0].name : realm);
}

static void listeners_check_realm(struct parser *p)
{
	struct section *s = NULL;

	while ((s = conf_section_next(p, s, SECTION_LISTENER)) != NULL) {
		const char *realm = p->conf->listeners[s->index].realm;

		if (realm && !conf_section_find(p, SECTION_REALM, realm))
			realm_unknown(p, s, realm);
	}
}

static void user_check_secret(struct parser *p, const struct section *s)
{
	bool password = conf_key_line(s, "password");
	bool ha1 = conf_key_line(s, "ha1");
	char label[CONF_LABEL_MAX];

	if (password != ha1)
		return;
	conf_error(p, s->line, "%s: found %s; allowed: exactly one of them",
		   conf_label(s->kind, s, label),
		   password ? "both password and ha1" :
			      "neither password nor ha1");
}

/* What a secret makes and what the file says could be one name. */
static void user_check_secrets(struct parser *p, const struct section *s,
			       const struct conf_realm *realm)
{
	char label[CONF_LABEL_MAX];

	if (realm->secret_count)
		conf_error(p, s->line,
			   "%s: found a user of realm \"%.40s\", which has a "
			   "secret; allowed: a realm without",
			   conf_label(s->kind, s, label), realm->name);
}

static void user_check_realm(struct parser *p, const struct section *s)
{
	struct conf_user *user = &p->conf->users[s->index];
	const struct section *realm;
	char label[CONF_LABEL_MAX];

	if (user->realm) {
		realm = conf_section_find(p, SECTION_REALM, user->realm);
		if (!realm)
			realm_unknown(p, s, user->realm);
		else
			user_check_secrets(p, s,
					   &p->conf->realms[realm->index]);
		return;
	}
	if (!p->conf->realm_count) {
		conf_error(p, s->line,
			   "%s: found no realm for this user; "
			   "allowed: a section such as [realm example.org]",
			   conf_label(s->kind, s, label));
		return;
	}
	user_check_secrets(p, s, &p->conf->realms[0]);
	user->realm = strdup(p->conf->realms[0].name);
	if (!user->realm)
		conf_no_memory(p);
}

static void user_check_unique(struct parser *p, struct table *users,
			      struct section *s)
{
	const struct conf_user *user = &p->conf->users[s->index];
	char label[CONF_LABEL_MAX];
	struct table_node *node;
	uint64_t hash;

	if (!user->realm)
		return;
	hash = table_hash(user->name, strlen(user->name)) * 31 +
	       table_hash(user->realm, strlen(user->realm));
	for (node = table_first(users, hash); node; node = table_next(node)) {
		struct section *o = list_entry(node, struct section, by_user);
		const struct conf_user *other = &p->conf->users[o->index];

		/* Equal section names are reported as such. */
		if (strcmp(other->name, user->name) != 0 ||
		    strcmp(other->realm, user->realm) != 0 ||
		    !strcmp(o->name, s->name))
			continue;
		conf_error(p, s->line,
			   "%s: found user \"%.40s\" of realm \"%s\" twice, "
			   "first in line %u; allowed: once",
			   conf_label(s->kind, s, label), user->name,
			   user->realm, o->line);
		return;
	}
	table_insert(users, &s->by_user, hash);
}

/*
 * SHA-256 cannot be offered to one user alone: who is asked for credentials is not
 * known yet.
 */
static void user_check_digest(struct parser *p, const struct section *s)
{
	const struct conf_user *user = &p->conf->users[s->index];
	const struct section *realm;
	char label[CONF_LABEL_MAX];

	if (!user->realm || !user->ha1.has_sha256 || user->ha1.has_md5)
		return;
	realm = conf_section_find(p, SECTION_REALM, user->realm);
	if (realm && realm->md5_only)
		conf_error(
			p, conf_key_line(s, "ha1"),
			"%s ha1: found a SHA-256 digest alone, but the realm "
			"can only offer MD5, which is all that the user in "
			"line %u has; allowed: the MD5 digest, too",
			conf_label(s->kind, s, label), realm->md5_only->line);
}

static void users_check_digests(struct parser *p)
{
	struct section *s = NULL;

	while ((s = conf_section_next(p, s, SECTION_USER)) != NULL) {
		const struct conf_user *user = &p->conf->users[s->index];
		struct section *realm;

		if (!user->realm || !user->ha1.has_md5 || user->ha1.has_sha256)
			continue;
		realm = conf_section_find(p, SECTION_REALM, user->realm);
		if (realm && !realm->md5_only)
			realm->md5_only = s;
	}
	while ((s = conf_section_next(p, s, SECTION_USER)) != NULL)
		user_check_digest(p, s);
}

static bool realms_have_secret(const struct conf *conf)
{
	for (size_t i = 0; i < conf->realm_count; i++)
		if (conf->realms[i].secret_count)
			return true;
	return false;
}

static void users_check(struct parser *p)
{
	struct section *s = NULL;
	struct table users;

	if (!p->conf->user_count) {
		if (!realms_have_secret(p->conf))
			conf_warn(p, 0,
				  "no [user NAME] section and no secret: only "
				  "users of the database (culvertctl user add) "
				  "can use this server");
		return;
	}
	if (table_init(&users)) {
		conf_no_memory(p);
		return;
	}
	while ((s = conf_section_next(p, s, SECTION_USER)) != NULL &&
	       !p->no_memory) {
		user_check_secret(p, s);
		user_check_realm(p, s);
		if (!p->no_memory)
			user_check_unique(p, &users, s);
	}
	table_destroy(&users);
	if (!p->no_memory)
		users_check_digests(p);
}

/* A port of UDP is another than the same one of TCP. */
static bool protocols_differ(const struct conf_listener *a,
			     const struct conf_listener *b)
{
	return conf_listener_datagrams(a) != conf_listener_datagrams(b);
}

/* Port 0 is a new port each time. */
static bool addresses_overlap(const union addr *a, const union addr *b)
{
	return addr_family(a) == addr_family(b) && addr_port(a) &&
	       addr_port(a) == addr_port(b) &&
	       (addr_is_any(a) || addr_is_any(b) || addr_same_host(a, b));
}

static void address_check(struct parser *p, const struct section *s,
			  size_t position)
{
	const struct conf_listener *mine = &p->conf->listeners[s->index];
	char label[CONF_LABEL_MAX], text[ADDR_STRLEN], other_text[ADDR_STRLEN];
	unsigned int line = conf_key_line(s, "address");

	for (size_t l = 0; l <= s->index; l++) {
		const struct conf_listener *other = &p->conf->listeners[l];
		size_t count = l == s->index ? position : other->address_count;

		if (protocols_differ(mine, other))
			continue;
		for (size_t i = 0; i < count; i++) {
			if (!addresses_overlap(&mine->addresses[position],
					       &other->addresses[i]))
				continue;
			conf_error(
				p, line ? line : s->line,
				"%s address: found %s, which overlaps %s of "
				"[listener %s]; allowed: each address and "
				"port once",
				conf_label(s->kind, s, label),
				addr_format(&mine->addresses[position], text),
				addr_format(&other->addresses[i], other_text),
				other->name);
			return;
		}
	}
}

static void listeners_check_addresses(struct parser *p)
{
	struct section *s = NULL;

	while ((s = conf_section_next(p, s, SECTION_LISTENER)) != NULL) {
		struct conf_listener *l = &p->conf->listeners[s->index];

		/* Its default stands there, which is not to blame later. */
		if (conf_key_refused(s, "address"))
			l->address_count = 0;
		for (size_t i = 0; i < l->address_count; i++)
			address_check(p, s, i);
	}
}

static bool files_missing(struct parser *p, const struct section *s,
			  const char *key, size_t count)
{
	char label[CONF_LABEL_MAX];

	if (count || conf_key_refused(s, key))
		return false;
	conf_error(p, s->line,
		   "%s %s: found none; allowed: with transport = tls or dtls, "
		   "the path of a file in PEM form",
		   conf_label(s->kind, s, label), key);
	return true;
}

static void files_check(struct parser *p, const struct section *s,
			const struct conf_listener *l)
{
	char label[CONF_LABEL_MAX];

	if (files_missing(p, s, "certificate", l->certificate_count) ||
	    files_missing(p, s, "private_key", l->private_key_count) ||
	    conf_key_refused(s, "certificate") ||
	    conf_key_refused(s, "private_key") ||
	    l->certificate_count == l->private_key_count)
		return;
	conf_error(p, l->private_key_line,
		   "%s private_key: found %zu for %zu certificates; allowed: "
		   "one for each, in the same order",
		   conf_label(s->kind, s, label), l->private_key_count,
		   l->certificate_count);
}

/* Without TLS nobody would notice that these do nothing. */
static void files_refuse(struct parser *p, const struct section *s)
{
	static const char *const keys[] = { "certificate", "private_key",
					    "tls_version", "ciphers" };
	char label[CONF_LABEL_MAX];

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		if (conf_key_line(s, keys[i]))
			conf_error(p, conf_key_line(s, keys[i]),
				   "%s %s: found without TLS; allowed: with "
				   "transport = tls or dtls",
				   conf_label(s->kind, s, label), keys[i]);
}

/* DTLS 1.3 there is none of. */
static void version_check(struct parser *p, const struct section *s,
			  const struct conf_listener *l)
{
	char label[CONF_LABEL_MAX];

	if (l->transport == CONF_TRANSPORT_DTLS &&
	    l->tls_version == CONF_TLS_1_3)
		conf_error(p, conf_key_line(s, "tls_version"),
			   "%s tls_version: found 1.3; allowed: with transport "
			   "= dtls, 1.2",
			   conf_label(s->kind, s, label));
}

/* Datagrams have no beginning to say it at. */
static void proxies_check(struct parser *p, const struct section *s,
			  const struct conf_listener *l)
{
	char label[CONF_LABEL_MAX];

	if (l->proxy_count && conf_listener_datagrams(l))
		conf_error(p, conf_key_line(s, "proxy_protocol"),
			   "%s proxy_protocol: found with datagrams; allowed: "
			   "with transport = tcp or tls",
			   conf_label(s->kind, s, label));
}

static void listeners_check_tls(struct parser *p)
{
	struct section *s = NULL;

	while ((s = conf_section_next(p, s, SECTION_LISTENER)) != NULL) {
		struct conf_listener *l = &p->conf->listeners[s->index];

		l->certificate_line = conf_key_line(s, "certificate");
		l->private_key_line = conf_key_line(s, "private_key");
		l->ciphers_line = conf_key_line(s, "ciphers");
		version_check(p, s, l);
		proxies_check(p, s, l);
		if (conf_listener_sealed(l))
			files_check(p, s, l);
		else if (!conf_key_refused(s, "transport"))
			files_refuse(p, s);
	}
}

/* The first address of the alternate's family, which it goes with. */
static const union addr *first_of(const struct conf_listener *l,
				  const union addr *alternate)
{
	for (size_t i = 0; i < l->address_count; i++)
		if (addr_family(&l->addresses[i]) == addr_family(alternate))
			return &l->addresses[i];
	return NULL;
}

/* What is wrong with an alternate, in words; NULL: nothing. */
static const char *alternate_fault(const struct conf_listener *l,
				   const union addr *alternate)
{
	const union addr *first = first_of(l, alternate);

	for (const union addr *a = l->alternates; a < alternate; a++)
		if (addr_family(a) == addr_family(alternate))
			return "one of a family";
	if (!first || addr_is_any(first) || !addr_port(first))
		return "beside an address of its family that is no wildcard";
	if (addr_same_host(first, alternate) ||
	    addr_port(first) == addr_port(alternate))
		return "another address and another port than the first one "
		       "of its family in address";
	return NULL;
}

/* Adds the three that an alternate brings. */
static void alternate_derive(struct parser *p, struct conf_listener *l,
			     const union addr *alternate)
{
	const union addr first = *first_of(l, alternate);
	union addr *grown = reallocarray(l->addresses, l->address_count + 3,
					 sizeof(*grown));

	if (!grown) {
		conf_no_memory(p);
		return;
	}
	l->addresses = grown;
	grown += l->address_count;
	grown[0] = first;
	addr_set_port(&grown[0], addr_port(alternate));
	grown[1] = *alternate;
	addr_set_port(&grown[1], addr_port(&first));
	grown[2] = *alternate;
	l->address_count += 3;
}

static void alternates_check(struct parser *p, const struct section *s,
			     struct conf_listener *l)
{
	char label[CONF_LABEL_MAX], text[ADDR_STRLEN];
	const char *fault;

	if (l->alternate_count && l->transport != CONF_TRANSPORT_UDP &&
	    !conf_key_refused(s, "transport")) {
		conf_error(p, conf_key_line(s, "alternate"),
			   "%s alternate: found without UDP; allowed: with "
			   "transport = udp",
			   conf_label(s->kind, s, label));
		return;
	}
	for (size_t i = 0; i < l->alternate_count && !p->no_memory; i++) {
		fault = alternate_fault(l, &l->alternates[i]);
		if (fault)
			conf_error(p, conf_key_line(s, "alternate"),
				   "%s alternate: found %s; allowed: %s",
				   conf_label(s->kind, s, label),
				   addr_format(&l->alternates[i], text), fault);
		else
			alternate_derive(p, l, &l->alternates[i]);
	}
}

static void listeners_check_alternates(struct parser *p)
{
	struct section *s = NULL;

	while ((s = conf_section_next(p, s, SECTION_LISTENER)) != NULL)
		if (!conf_key_refused(s, "address") && !p->no_memory)
			alternates_check(p, s, &p->conf->listeners[s->index]);
}

/* Before addresses are compared. */
static void listeners_derive_ports(struct parser *p)
{
	for (size_t i = 0; i < p->conf->listener_count; i++) {
		struct conf_listener *l = &p->conf->listeners[i];

		if (!conf_listener_sealed(l))
			continue;
		for (size_t k = 0; k < l->address_count; k++)
			if (l->portless >> k & 1)
				addr_set_port(&l->addresses[k], CONF_PORT_TLS);
	}
}

/* An id, a colon, and 16 or 32 bytes in hexadecimal. */
static bool oauth_key_ok(const char *text)
{
	const char *colon = strrchr(text, ':');
	size_t digits = colon ? strspn(colon + 1, "0123456789abcdefABCDEF") : 0;

	return colon && colon > text && colon - text <= 32 &&
	       !colon[1 + digits] && (digits == 32 || digits == 64);
}

/* Of two with one id the second would never be tried. */
static bool oauth_id_repeats(const struct conf_realm *realm, size_t i)
{
	const char *key = realm->oauth_keys[i], *colon = strrchr(key, ':');
	size_t len = colon ? (size_t)(colon - key) + 1 : 0;

	for (size_t k = 0; len && k < i; k++)
		if (!strncmp(realm->oauth_keys[k], key, len) &&
		    strrchr(realm->oauth_keys[k], ':') ==
			    realm->oauth_keys[k] + len - 1)
			return true;
	return false;
}

static void oauth_keys_check(struct parser *p, const struct section *s,
			     const char *label)
{
	const struct conf_realm *realm = &p->conf->realms[s->index];
	unsigned int line = conf_key_line(s, "oauth_key");

	for (size_t i = 0; i < realm->oauth_key_count; i++)
		if (!oauth_key_ok(realm->oauth_keys[i]))
			conf_error(p, line,
				   "%s oauth_key: found one that is none (not "
				   "shown); allowed: an id of 1 to 32 bytes, a "
				   "colon, and 32 or 64 hexadecimal digits",
				   label);
		else if (oauth_id_repeats(realm, i))
			conf_error(p, line,
				   "%s oauth_key: found two with the same id; "
				   "allowed: another id for each key",
				   label);
}

static void oauth_check(struct parser *p, const struct section *s)
{
	const struct conf_realm *realm = &p->conf->realms[s->index];
	char label[CONF_LABEL_MAX];

	conf_label(s->kind, s, label);
	if (!realm->oauth != !realm->oauth_key_count &&
	    !conf_key_refused(s, "oauth") && !conf_key_refused(s, "oauth_key"))
		conf_error(
			p, s->line,
			"%s: found %s; allowed: both oauth and oauth_key, or "
			"neither",
			label, realm->oauth ? "oauth" : "oauth_key");
	oauth_keys_check(p, s, label);
}

static void realms_check_oauth(struct parser *p)
{
	struct section *s = NULL;

	while ((s = conf_section_next(p, s, SECTION_REALM)) != NULL)
		oauth_check(p, s);
}

/* What the URL says is judged where the databases are known. */
static void database_derive(struct parser *p)
{
	const struct section *s = conf_section_find(p, SECTION_DATABASE, "");

	p->conf->database.url_line = s ? conf_key_line(s, "url") : 0;
}

static void lifetimes_check(struct parser *p)
{
	const struct conf_limits *limits = &p->conf->limits;
	const struct section *s = conf_section_find(p, SECTION_LIMITS, "");
	char lower[32], upper[32];
	unsigned int line;

	if (limits->default_lifetime_ms <= limits->max_lifetime_ms)
		return;
	if (s && (conf_key_refused(s, "default_lifetime") ||
		  conf_key_refused(s, "max_lifetime")))
		return;
	line = s ? conf_key_line(s, "default_lifetime") : 0;
	if (s && !line)
		line = conf_key_line(s, "max_lifetime");
	conf_format_duration(limits->default_lifetime_ms, lower);
	conf_format_duration(limits->max_lifetime_ms, upper);
	conf_error(p, line,
		   "[limits] default_lifetime: found %s; "
		   "allowed: at most max_lifetime, which is %s",
		   lower, upper);
}

/* Whatever cannot go on wire needs another engine. */
static void order_check(struct parser *p)
{
	const struct conf_engine *engine = &p->conf->engine;
	const struct section *s = conf_section_find(p, SECTION_ENGINE, "");

	if (engine->order_count == 1 && !strcmp(engine->order[0], "wire"))
		conf_error(p, s ? conf_key_line(s, "order") : 0,
			   "[engine] order: found wire alone; allowed: with "
			   "one more at least, for what cannot go on wire");
}

void conf_check(struct parser *p)
{
	if (p->no_memory)
		return;
	realms_derive(p);
	listeners_check_realm(p);
	users_check(p);
	users_derive(p);
	listeners_check_tls(p);
	listeners_derive_ports(p);
	listeners_check_alternates(p);
	listeners_check_addresses(p);
	lifetimes_check(p);
	realms_check_oauth(p);
	database_derive(p);
	order_check(p);
	conf_alternates_check(p);
	conf_exits_check(p);
	if (!p->no_memory)
		defaults_derive(p);
}
