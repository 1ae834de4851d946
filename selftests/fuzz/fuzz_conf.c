/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Configuration texts: whatever they hold, they are refused with an error or
 * give a configuration that is whole.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/conf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Unlike assert() it stays in every build. */
static void must(bool truth)
{
	if (!truth)
		abort();
}

struct tally {
	unsigned int errors, warnings;
	unsigned int lines; /* sum of line numbers: were they the same? */
};

static void report(void *arg, bool is_error, const char *file,
		   unsigned int line, const char *message)
{
	struct tally *tally = arg;

	must(!strcmp(file, "fuzz.conf"));
	must(*message);
	for (const char *p = message; *p; p++)
		must((unsigned char)*p >= 0x20 || *p == '\t');
	tally->errors += is_error;
	tally->warnings += !is_error;
	tally->lines += line;
}

static void check_listeners(const struct conf *conf)
{
	must(conf->listener_count >= 1 && conf->listener_count <= 64);
	for (size_t i = 0; i < conf->listener_count; i++) {
		const struct conf_listener *l = &conf->listeners[i];

		must(l->name && *l->name);
		must(l->address_count >= 1 && l->address_count <= 64);
		must(l->backlog >= 1);
		must(!l->realm || *l->realm);
	}
}

static void check_users(const struct conf *conf)
{
	must(conf->realm_count >= 1);
	for (size_t i = 0; i < conf->realm_count; i++)
		must(strlen(conf->realms[i].name) < CONF_NAME_MAX &&
		     conf->realms[i].secret_count <= CONF_SECRETS_MAX);
	for (size_t i = 0; i < conf->user_count; i++) {
		const struct conf_user *u = &conf->users[i];
		bool found = false;

		must(*u->name && strlen(u->name) <= 508);
		must(!u->password == (u->ha1.has_md5 || u->ha1.has_sha256));
		for (size_t r = 0; r < conf->realm_count; r++)
			found |= !strcmp(conf->realms[r].name, u->realm) &&
				 !conf->realms[r].secret_count;
		must(found);
	}
}

/* The exit with the longest prefix around an address, the slow way. */
static const struct conf_exit *exit_search(const struct conf *conf,
					   const union addr *addr)
{
	const struct conf_exit *best = NULL;
	int longest = -1;

	for (size_t i = 0; i < conf->exit_count; i++)
		for (size_t k = 0; k < conf->exits[i].prefix_count; k++) {
			const struct prefix *prefix =
				&conf->exits[i].prefixes[k];

			if (prefix->bits <= longest ||
			    !prefix_contains(prefix, addr))
				continue;
			longest = prefix->bits;
			best = &conf->exits[i];
		}
	return best;
}

static void check_exits(const struct conf *conf)
{
	must(conf->exit_count <= 64);
	for (size_t i = 0; i < conf->exit_count; i++) {
		const struct conf_exit *exit = &conf->exits[i];
		union addr addr;

		must(exit->prefix_count || exit->unchecked);
		must(exit->next_hop_count <= 2 && exit->anycast_count <= 2);
		for (size_t k = 0; k < exit->prefix_count && k < 100; k++) {
			addr_from_bytes(&addr, exit->prefixes[k].family,
					exit->prefixes[k].bytes, 0);
			must(conf_exit_of(conf, &addr) ==
			     exit_search(conf, &addr));
		}
	}
}

static void check(const struct conf *conf)
{
	const struct conf_limits *l = &conf->limits;
	size_t pipe = conf->engine.pipe_size;

	check_listeners(conf);
	check_users(conf);
	check_exits(conf);
	must(conf->workers <= CONF_MAX_WORKERS);
	must(conf->control[0] == '/');
	must(conf->relay.port_min >= 1);
	must(conf->relay.port_min <= conf->relay.port_max);
	must(conf->engine.order_count >= 1);
	must(pipe >= 4096 && !(pipe & (pipe - 1)));
	must(l->default_lifetime_ms <= l->max_lifetime_ms);
	must(l->unauthenticated >= 1 && l->control_clients >= 1);
	must(l->connect_timeout_ms && l->bind_timeout_ms);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct tally first = { 0, 0, 0 }, second = { 0, 0, 0 };
	struct conf *conf = NULL;
	int err = conf_parse((const char *)data, len, "fuzz.conf", report,
			     &first, &conf);

	must(err == 0 || err == -EINVAL);
	must(!err == !first.errors);
	must(!err == (conf != NULL));
	if (conf)
		check(conf);
	conf_unref(conf);
	conf = NULL;
	/* Nothing of one parse is left to the next. */
	must(conf_parse((const char *)data, len, "fuzz.conf", report, &second,
			&conf) == err);
	must(!memcmp(&first, &second, sizeof(first)));
	conf_unref(conf);
	return 0;
}
