/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which exits of other routers can be reached.
 *
 * What is looked for is a route to the anycast address and to no other (RFC 4291's
 * host route, as draft-bagnulo-shim6-ingress-filtering 5.2.2 has it): a network of
 * the site that happens to cover the address says nothing of the exit. The kernel's
 * answer to a look-up is what counts, not the text of the news, so that several
 * routes, metrics and routing daemons come out as packets would see them. A daemon
 * may take a route back by one that is unreachable; that is as if it were gone.
 *
 *   there --(no route)--> lost --(route)--> there, at once or after having stayed
 *
 * A loss counts at once, always. A route that comes back counts at once, too, but not
 * when the last loss came within CALM_MS of the last return: then it must stay for
 * HOLD_MS first, twice as long each time, up to HOLD_MAX_MS. A route that flaps thus
 * leaves the exit lost.
 *
 * The links of this host's own exits are held back the same way. Of them the text of the
 * news counts: between two of them a link may have been lost and back, with all its routes.
 */
#include "exit/health.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "exit/internal.h"
#include "exit/probe.h"
#include "exit/tunnel.h"

#define CALM_MS     10000
#define HOLD_MS     1000
#define HOLD_MAX_MS 32000

/* A link, a route to an anycast address, or who answers there. */
struct watched {
	enum conf_health kind;
	union addr anycast; /* but of a link */
	char link[IFNAMSIZ]; /* of that alone */
	bool asked; /* to be looked at */
	bool there; /* when we looked last */
	bool lost; /* what counts */
	unsigned int losses; /* in a row */
	uint64_t back_ms; /* when it was last there again, as it counts */
	uint64_t due_ms; /* there but lost: when it counts */
};

struct health {
	struct watched *all; /* by kind, link and address */
	size_t count;
	bool changed; /* by news, what counts of a link */
};

bool exit_anycast(const struct conf_exit *exit, const struct prefix *prefix,
		  union addr *out)
{
	const uint8_t *suffix = exit->anycast_suffix.in6.sin6_addr.s6_addr;
	uint8_t bytes[16];

	for (size_t i = 0; i < exit->anycast_count; i++)
		if (addr_family(&exit->anycast[i]) == prefix->family) {
			*out = exit->anycast[i];
			return true;
		}
	/* The last address of an IPv4 subnet is its broadcast address. */
	if (prefix->family != AF_INET6)
		return false;
	for (unsigned int i = 0; i < sizeof(bytes); i++) {
		unsigned int taken =
			prefix->bits > i * 8 ? prefix->bits - i * 8 : 0;
		uint8_t mask = taken >= 8 ? 0 : (uint8_t)(0xff >> taken);

		bytes[i] = prefix->bytes[i] | (suffix[i] & mask);
	}
	addr_from_bytes(out, AF_INET6, bytes, 0);
	return true;
}

bool exit_watched(const struct conf_exit *exit, const struct prefix *prefix,
		  union addr *out)
{
	if (probe_anycast(exit, out))
		return true;
	if (exit->health != CONF_HEALTH_ANYCAST || exit->link ||
	    !exit_leads(exit))
		return false;
	return tunnel_leads(exit) ? tunnel_anycast(exit, prefix, out) :
				    exit_anycast(exit, prefix, out);
}

static int watched_compare(const void *left, const void *right)
{
	const struct watched *a = left, *b = right;
	int order = (a->kind > b->kind) - (a->kind < b->kind);

	if (!order)
		order = strcmp(a->link, b->link);
	return order ? order : addr_compare_host(&a->anycast, &b->anycast);
}

static struct watched *key_find(const struct health *health,
				const struct watched *key)
{
	return health && health->count ?
		       bsearch(key, health->all, health->count, sizeof(*key),
			       watched_compare) :
		       NULL;
}

static struct watched *watched_find(const struct health *health,
				    enum conf_health kind,
				    const union addr *anycast)
{
	const struct watched key = { .kind = kind, .anycast = *anycast };

	return key_find(health, &key);
}

static struct watched *link_find(const struct health *health, const char *link)
{
	struct watched key = { .kind = CONF_HEALTH_LINK };

	snprintf(key.link, sizeof(key.link), "%s", link);
	return key_find(health, &key);
}

static struct watched *watched_add(struct health *health, enum conf_health kind)
{
	struct watched *one = exit_array_add((void **)&health->all,
					     &health->count, sizeof(*one));

	if (!one)
		return NULL;
	one->kind = kind;
	/* Nobody is silent before he was asked. */
	one->there = kind == CONF_HEALTH_PROBE;
	one->asked = one->lost = !one->there;
	return one;
}

static int link_watch(struct health *health, const char *link)
{
	struct watched *one = watched_add(health, CONF_HEALTH_LINK);

	if (!one)
		return -ENOMEM;
	snprintf(one->link, sizeof(one->link), "%s", link);
	return 0;
}

static int exit_watch(struct health *health, const struct conf_exit *exit)
{
	union addr anycast;

	if (exit->link)
		return link_watch(health, exit->link);
	for (size_t i = 0; i < exit->prefix_count; i++) {
		struct watched *one;

		if (!exit_watched(exit, &exit->prefixes[i], &anycast))
			continue;
		one = watched_add(health, exit->health);
		if (!one)
			return -ENOMEM;
		one->anycast = anycast;
	}
	return 0;
}

/* One address may stand for many prefixes, and one link lead to several exits. */
static void duplicates_drop(struct health *health)
{
	size_t kept = 0;

	if (!health->count)
		return;
	qsort(health->all, health->count, sizeof(health->all[0]),
	      watched_compare);
	for (size_t i = 1; i < health->count; i++)
		if (watched_compare(&health->all[kept], &health->all[i]) != 0)
			health->all[++kept] = health->all[i];
	health->count = kept + 1;
}

int health_new(const struct conf *conf, struct health **out)
{
	struct health *health = calloc(1, sizeof(*health));
	int err = health ? 0 : -ENOMEM;

	for (size_t i = 0; i < conf->exit_count && !err; i++)
		err = exit_watch(health, &conf->exits[i]);
	if (err) {
		health_free(health);
		return err;
	}
	duplicates_drop(health);
	*out = health;
	return 0;
}

void health_free(struct health *health)
{
	if (health)
		free(health->all);
	free(health);
}

bool health_watches(const struct health *health, sa_family_t family)
{
	for (size_t i = 0; i < health->count; i++)
		if (health->all[i].kind == CONF_HEALTH_ANYCAST &&
		    addr_family(&health->all[i].anycast) == family)
			return true;
	return false;
}

static uint64_t hold_ms(unsigned int losses)
{
	uint64_t hold = 0;

	if (losses > 1)
		hold = losses > 6 ? HOLD_MAX_MS :
				    (uint64_t)HOLD_MS << (losses - 2);
	return hold < HOLD_MAX_MS ? hold : HOLD_MAX_MS;
}

static bool watched_back(struct watched *one, uint64_t now)
{
	if (!one->there || !one->lost || now < one->due_ms)
		return false;
	one->lost = false;
	one->back_ms = now;
	return true;
}

static bool watched_tell(struct watched *one, bool there, uint64_t now)
{
	if (one->there == there)
		return false;
	one->there = there;
	one->due_ms = now + hold_ms(one->losses);
	if (there)
		return watched_back(one, now);
	if (one->lost)
		return false;
	one->losses = now - one->back_ms < CALM_MS ? one->losses + 1 : 1;
	one->lost = true;
	return true;
}

bool health_tell(struct health *health, const union addr *anycast, bool there,
		 uint64_t now_ms)
{
	struct watched *one =
		watched_find(health, CONF_HEALTH_ANYCAST, anycast);

	return one && watched_tell(one, there, now_ms);
}

void health_answer(struct health *health, const union addr *anycast, bool there,
		   uint64_t now_ms)
{
	struct watched *one = watched_find(health, CONF_HEALTH_PROBE, anycast);

	if (one)
		health->changed |= watched_tell(one, there, now_ms);
}

bool health_tell_link(struct health *health, const char *link, bool up,
		      uint64_t now_ms)
{
	struct watched *one = link_find(health, link);

	if (!one)
		return false;
	one->asked = false;
	return watched_tell(one, up, now_ms);
}

static int destination_take(const struct nlattr *attr, void *arg)
{
	if (mnl_attr_get_type(attr) == RTA_DST)
		*(const struct nlattr **)arg = attr;
	return MNL_CB_OK;
}

static bool route_news(struct health *health, const struct nlmsghdr *msg)
{
	const struct rtmsg *route = mnl_nlmsg_get_payload(msg);
	size_t len = route->rtm_family == AF_INET6 ? 16 : 4;
	const struct nlattr *dst = NULL;
	struct watched *one;
	union addr addr;

	if (route->rtm_dst_len != len * 8 ||
	    route->rtm_protocol == EXIT_PROTOCOL)
		return false;
	mnl_attr_parse(msg, sizeof(*route), destination_take, &dst);
	if (!dst || mnl_attr_get_payload_len(dst) != len)
		return false;
	addr_from_bytes(&addr, route->rtm_family, mnl_attr_get_payload(dst), 0);
	one = watched_find(health, CONF_HEALTH_ANYCAST, &addr);
	if (one)
		one->asked = true;
	return one != NULL;
}

void health_ask(struct health *health)
{
	for (size_t i = 0; i < health->count; i++)
		health->all[i].asked = health->all[i].kind != CONF_HEALTH_PROBE;
}

static int name_take(const struct nlattr *attr, void *arg)
{
	if (mnl_attr_get_type(attr) == IFLA_IFNAME &&
	    mnl_attr_validate(attr, MNL_TYPE_NUL_STRING) >= 0)
		*(const char **)arg = mnl_attr_get_str(attr);
	return MNL_CB_OK;
}

/* True: there are any. */
static bool routes_ask(struct health *health)
{
	bool any = false;

	for (size_t i = 0; i < health->count; i++)
		if (health->all[i].kind == CONF_HEALTH_ANYCAST)
			any = health->all[i].asked = true;
	return any;
}

static bool link_news(struct health *health, const struct nlmsghdr *msg)
{
	const struct ifinfomsg *head = mnl_nlmsg_get_payload(msg);
	const char *name = "";
	bool up = msg->nlmsg_type == RTM_NEWLINK &&
		  exit_flags_up(head->ifi_flags);

	/* A port that leaves its bridge is reported as a deleted AF_BRIDGE link. */
	if (head->ifi_family != AF_UNSPEC)
		return false;
	mnl_attr_parse(msg, sizeof(*head), name_take, &name);
	health->changed |= health_tell_link(health, name, up, clock_ms());
	/* Routes of IPv4 go with it without a word. */
	return routes_ask(health) || link_find(health, name);
}

bool health_news(struct health *health, const struct nlmsghdr *msg)
{
	switch (msg->nlmsg_type) {
	case RTM_NEWROUTE:
	case RTM_DELROUTE:
		return route_news(health, msg);
	case RTM_NEWLINK:
	case RTM_DELLINK:
		return link_news(health, msg);
	case RTM_DELNEXTHOP:
		return routes_ask(health);
	default:
		return false;
	}
}

bool health_settle(struct health *health, uint64_t now_ms)
{
	bool any = false;

	for (size_t i = 0; i < health->count; i++)
		any |= watched_back(&health->all[i], now_ms);
	return any;
}

uint64_t health_due(const struct health *health)
{
	uint64_t due = UINT64_MAX;

	for (size_t i = 0; i < health->count; i++) {
		const struct watched *one = &health->all[i];

		if (one->there && one->lost && one->due_ms < due)
			due = one->due_ms;
	}
	return due;
}

int health_look(struct health *health, struct rtnl *rtnl, uint64_t now_ms,
		bool *changed)
{
	int first = 0;

	for (size_t i = 0; i < health->count; i++) {
		struct watched *one = &health->all[i];
		bool there;
		int err;

		if (!one->asked)
			continue;
		err = one->link[0] ?
			      rtnl_link_up(rtnl, one->link, &there) :
			      rtnl_host_route(rtnl, &one->anycast, &there);
		if (err) {
			first = first ? first : err;
			continue;
		}
		one->asked = false;
		health->changed |= watched_tell(one, there, now_ms);
	}
	*changed = health->changed;
	health->changed = false;
	return first;
}

bool health_link_lost(const struct health *health, const char *link)
{
	const struct watched *one = link_find(health, link);

	return one && one->lost;
}

bool health_lost(const struct health *health, const union addr *anycast)
{
	const struct watched *one =
		watched_find(health, CONF_HEALTH_ANYCAST, anycast);

	return one && one->lost;
}

static const struct watched *prefix_find(const struct health *health,
					 const struct conf_exit *exit,
					 const struct prefix *prefix)
{
	union addr anycast;

	if (exit->link)
		return link_find(health, exit->link);
	if (!exit_watched(exit, prefix, &anycast))
		return NULL;
	return watched_find(health, exit->health, &anycast);
}

bool health_exit_lost(const struct health *health, const struct conf_exit *exit,
		      const struct prefix *prefix)
{
	const struct watched *one = prefix_find(health, exit, prefix);

	return one && one->lost;
}

static bool is_held(const struct watched *one)
{
	return one->lost && one->there;
}

static bool is_silent(const struct watched *one)
{
	return one->kind == CONF_HEALTH_PROBE && !one->there;
}

bool health_silent(const struct health *health, const union addr *anycast)
{
	const struct watched *one =
		watched_find(health, CONF_HEALTH_PROBE, anycast);

	return one && is_silent(one);
}

const char *health_why(const struct health *health,
		       const struct conf_exit *exit,
		       const struct prefix *prefix, uint64_t now_ms,
		       uint64_t *held_ms)
{
	const struct watched *one = prefix_find(health, exit, prefix);

	if (!one || !one->lost)
		return NULL;
	if (is_held(one))
		*held_ms = one->due_ms > now_ms ? one->due_ms - now_ms : 0;
	return is_held(one) ? "held" : is_silent(one) ? "silent" : NULL;
}

static void watched_name(const struct watched *one, char out[ADDR_STRLEN])
{
	if (one->kind == CONF_HEALTH_LINK)
		snprintf(out, ADDR_STRLEN, "%s", one->link);
	else
		addr_format_host(&one->anycast, out);
}

int health_losses(const struct health *health, struct exit_losses *out)
{
	struct exit_losses losses = { .all = NULL };

	for (size_t i = 0; i < health->count; i++) {
		const struct watched *one = &health->all[i];
		struct exit_loss *loss;

		if (!is_held(one) && !is_silent(one))
			continue;
		loss = exit_array_add((void **)&losses.all, &losses.count,
				      sizeof(*loss));
		if (!loss) {
			free(losses.all);
			return -ENOMEM;
		}
		watched_name(one, loss->what);
		loss->silent = is_silent(one);
		loss->until_ms = loss->silent ? 0 : one->due_ms;
	}
	*out = losses;
	return 0;
}

static void loss_recall(struct watched *one, const struct exit_loss *loss)
{
	if (loss->silent && one->kind == CONF_HEALTH_PROBE)
		one->there = false;
	else if (loss->silent || !one->there)
		return;
	one->lost = true;
	one->due_ms = loss->until_ms;
	/* The next loss in a row is no first one. */
	one->losses = one->losses ? one->losses : 1;
}

void health_recall(struct health *health, const struct exit_losses *losses)
{
	char name[ADDR_STRLEN];

	for (size_t i = 0; i < health->count && losses->count; i++) {
		watched_name(&health->all[i], name);
		for (size_t k = 0; k < losses->count; k++)
			if (!strcmp(losses->all[k].what, name))
				loss_recall(&health->all[i], &losses->all[k]);
	}
}

int exit_health(const struct conf *conf, struct rtnl *rtnl,
		const struct exit_losses *losses, struct health **out)
{
	struct health *health = NULL;
	bool changed;
	int err = health_new(conf, &health);

	if (!err)
		err = health_look(health, rtnl, clock_ms(), &changed);
	if (!err && losses)
		health_recall(health, losses);
	if (err)
		health_free(health);
	else
		*out = health;
	return err;
}
