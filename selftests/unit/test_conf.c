/* SPDX-License-Identifier: BSD-2-Clause */
/* culvert.conf: values, errors, warnings, secrets, files, and the manual. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/opaque.h"
#include "conf/conf.h"
#include "failalloc.h"

#define MANUAL       "user/man/culvert.conf.5"
#define MANUAL_BEGIN ".\\\" The key reference: written by the conf unit test.\n"
#define MANUAL_END   ".\\\" End of the key reference.\n"

#define HEX32 "00112233445566778899aabbccddeeff"
#define USABLE                  \
	"[realm example.org]\n" \
	"[user alice]\n"        \
	"password = secret\n"

/* What a parse reported, a line each: "12 error: message". */
struct reports {
	char text[400000];
	size_t len;
	unsigned int errors, warnings;
};

static struct reports reports;

static void collect(void *arg, bool is_error, const char *file,
		    unsigned int line, const char *message)
{
	struct reports *r = arg;
	int n = snprintf(r->text + r->len, sizeof(r->text) - r->len,
			 "%u %s: %s\n", line, is_error ? "error" : "warning",
			 message);

	assert_non_null(file);
	assert_true(n > 0 && (size_t)n < sizeof(r->text) - r->len);
	r->len += (size_t)n;
	r->errors += is_error;
	r->warnings += !is_error;
}

static int parse_bytes(const char *text, size_t len, struct conf **out)
{
	reports.len = 0;
	reports.text[0] = '\0';
	reports.errors = reports.warnings = 0;
	return conf_parse(text, len, "test.conf", collect, &reports, out);
}

/* Parses what must be right. */
static struct conf *accepted(const char *text)
{
	struct conf *conf = NULL;
	int err = parse_bytes(text, strlen(text), &conf);

	if (err)
		fail_msg("%d for:\n%s%s", err, text, reports.text);
	assert_int_equal(reports.errors, 0);
	return conf;
}

/* Parses what must be wrong, with exactly these errors. */
static void refused(const char *text, const char *expected)
{
	struct conf *conf = (struct conf *)(uintptr_t)1;
	int err = parse_bytes(text, strlen(text), &conf);

	if (err != -EINVAL || strcmp(reports.text, expected) != 0)
		fail_msg("%d for:\n%s\nfound:\n%s\nexpected:\n%s", err, text,
			 reports.text, expected);
	assert_true(conf == (struct conf *)(uintptr_t)1);
}

/* Parses what is right but draws this warning. */
static void warned(const char *text, const char *expected)
{
	struct conf *conf = accepted(text);

	if (!strstr(reports.text, expected))
		fail_msg("for:\n%s\nfound:\n%s\nexpected:\n%s", text,
			 reports.text, expected);
	conf_unref(conf);
}

static void assert_address(const union addr *addr, const char *expected)
{
	char text[ADDR_STRLEN];

	assert_string_equal(addr_format(addr, text), expected);
}

static void an_empty_text_gives_a_server_nobody_can_use(void **state)
{
	struct conf *conf = accepted("");

	(void)state;
	assert_string_equal(
		reports.text,
		"0 warning: no [user NAME] section and no secret: only users of the "
		"database (culvertctl user add) can "
		"use this server\n");
	assert_int_equal(conf->listener_count, 1);
	assert_string_equal(conf->listeners[0].name, "default");
	assert_int_equal(conf->listeners[0].address_count, 2);
	assert_address(&conf->listeners[0].addresses[0], "0.0.0.0:3478");
	assert_address(&conf->listeners[0].addresses[1], "[::]:3478");
	assert_null(conf->listeners[0].realm);
	assert_int_equal(conf->listeners[0].backlog, 4096);
	assert_int_equal(conf->realm_count, 1);
	assert_int_equal(conf->realms[0].per_user.allocations, 1024);
	assert_int_equal(conf->user_count, 0);
	conf_unref(conf);
}

static void defaults_are_the_documented_ones(void **state)
{
	struct conf *conf = accepted(USABLE);
	const struct conf_limits *l = &conf->limits;

	(void)state;
	assert_int_equal(reports.warnings, 0);
	assert_string_equal(conf->user, "culvert");
	assert_int_equal(conf->workers, 0);
	assert_string_equal(conf->control, "/run/culvert/control.sock");
	assert_int_equal(conf->log_level, LOG_LEVEL_INFO);
	assert_int_equal(conf->seccomp, CONF_SECCOMP_ON);
	assert_true(conf->software);
	assert_int_equal(conf->relay.address_count, 0);
	assert_int_equal(conf->relay.port_min, 49152);
	assert_int_equal(conf->relay.port_max, 65535);
	assert_int_equal(conf->peers.rules.allow_count, 0);
	assert_int_equal(conf->peers.rules.deny_count, 0);
	assert_true(conf->peers.relayed);
	assert_false(conf->peers.require_permission);
	assert_int_equal(conf->engine.order_count, 4);
	assert_string_equal(conf->engine.order[0], "wire");
	assert_string_equal(conf->engine.order[1], "splice");
	assert_string_equal(conf->engine.order[2], "uring");
	assert_string_equal(conf->engine.order[3], "copy");
	assert_int_equal(conf->engine.wire, CONF_WIRE_AUTO);
	assert_int_equal(conf->engine.wire_pairs, 32768);
	assert_int_equal(conf->engine.wire_device_count, 0);
	assert_true(conf->engine.wire_datagrams);
	assert_int_equal(conf->engine.wire_channels, 8192);
	assert_string_equal(conf->engine.pin, "/sys/fs/bpf/culvert");
	assert_int_equal(conf->engine.wire_max_rtt_ms, 20);
	assert_int_equal(conf->engine.wire_max_growth_ms, 4);
	assert_int_equal(conf->engine.wire_max_loss, 1000);
	assert_true(conf->engine.ktls);
	assert_int_equal(conf->users[0].engines.count, 0);
	assert_int_equal(conf->realms[0].engines.count, 0);
	assert_int_equal(conf->engine.pipe_size, 1 << 20);
	assert_int_equal(conf->engine.pipes, 256);
	assert_int_equal(conf->engine.copy_buffer, 256 << 10);
	assert_int_equal(l->connections, 0);
	assert_int_equal(l->unauthenticated, 1024);
	assert_int_equal(l->unauthenticated_timeout_ms, 15000);
	assert_int_equal(l->allocations, 0);
	assert_int_equal(l->per_user.allocations, 1024);
	assert_int_equal(l->permissions_per_allocation, 256);
	assert_int_equal(l->pending_binds, 128);
	assert_int_equal(l->connections_per_allocation, 16384);
	assert_int_equal(l->default_lifetime_ms, 600000);
	assert_int_equal(l->max_lifetime_ms, 3600000);
	assert_int_equal(l->permission_lifetime_ms, 300000);
	assert_int_equal(l->bind_timeout_ms, 30000);
	assert_int_equal(l->connect_timeout_ms, 30000);
	assert_int_equal(l->nonce_lifetime_ms, 3600000);
	assert_int_equal(l->send_queue, 65536);
	assert_int_equal(l->keepalive_ms, 60000);
	assert_int_equal(l->idle_timeout_ms, 0);
	assert_int_equal(l->control_clients, 16);
	conf_unref(conf);
}

static const char every_key[] = "[server]\n"
				"user = relay\n"
				"workers = 8\n"
				"control = /tmp/c.sock\n"
				"log_level = debug\n"
				"seccomp = log\n"
				"software = no\n"
				"[listener public]\n"
				"transport = tcp\n"
				"address = 192.0.2.1, [2001:db8::1]:443\n"
				"realm = example.net\n"
				"backlog = 100\n"
				"[relay]\n"
				"address = 192.0.2.9, 2001:db8::9\n"
				"ports = 50000-50999\n"
				"[realm example.org]\n"
				"[realm example.net]\n"
				"allocations_per_user = 7\n"
				"[user alice]\n"
				"password = secret\n"
				"[user bob]\n"
				"realm = example.net\n"
				"ha1 = 00112233445566778899aAbBcCdDeEfF\n"
				"[user alice-net]\n"
				"name = alice\n"
				"realm = example.net\n"
				"password = other\n"
				"[peers]\n"
				"allow = 127.0.0.1, 10.0.0.0/8\n"
				"deny = 2001:db8:bad::/48\n"
				"relayed = no\n"
				"require_permission = yes\n"
				"[engine]\n"
				"order = copy, splice\n"
				"pipe_size = 64K\n"
				"pipes = 32\n"
				"copy_buffer = 1M\n"
				"[limits]\n"
				"connections = 5000\n"
				"unauthenticated = 10\n"
				"unauthenticated_timeout = 500ms\n"
				"allocations = 2000\n"
				"allocations_per_user = 3\n"
				"permissions_per_allocation = 4\n"
				"pending_binds = 5\n"
				"connections_per_allocation = 6\n"
				"default_lifetime = 11m\n"
				"max_lifetime = 2h\n"
				"permission_lifetime = 6m\n"
				"bind_timeout = 31\n"
				"connect_timeout = 32s\n"
				"nonce_lifetime = 33s\n"
				"send_queue = 8K\n"
				"keepalive = 0\n"
				"idle_timeout = 1h\n"
				"control_clients = 2\n";

static void check_sections(const struct conf *conf)
{
	char text[ADDR_STRLEN];

	assert_string_equal(conf->user, "relay");
	assert_int_equal(conf->workers, 8);
	assert_string_equal(conf->control, "/tmp/c.sock");
	assert_int_equal(conf->log_level, LOG_LEVEL_DEBUG);
	assert_int_equal(conf->seccomp, CONF_SECCOMP_LOG);
	assert_false(conf->software);
	assert_int_equal(conf->listener_count, 1);
	assert_string_equal(conf->listeners[0].name, "public");
	assert_int_equal(conf->listeners[0].address_count, 2);
	assert_address(&conf->listeners[0].addresses[0], "192.0.2.1:3478");
	assert_address(&conf->listeners[0].addresses[1], "[2001:db8::1]:443");
	assert_string_equal(conf->listeners[0].realm, "example.net");
	assert_int_equal(conf->listeners[0].backlog, 100);
	assert_int_equal(conf->relay.address_count, 2);
	assert_address(&conf->relay.addresses[0], "192.0.2.9:0");
	assert_address(&conf->relay.addresses[1], "[2001:db8::9]:0");
	assert_int_equal(conf->relay.port_min, 50000);
	assert_int_equal(conf->relay.port_max, 50999);
	assert_int_equal(conf->peers.rules.allow_count, 2);
	assert_string_equal(prefix_format(&conf->peers.rules.allow[0].prefix,
					  text),
			    "127.0.0.1/32");
	assert_string_equal(prefix_format(&conf->peers.rules.allow[1].prefix,
					  text),
			    "10.0.0.0/8");
	assert_int_equal(conf->peers.rules.deny_count, 1);
	assert_false(conf->peers.relayed);
	assert_true(conf->peers.require_permission);
	assert_int_equal(conf->engine.order_count, 2);
	assert_string_equal(conf->engine.order[0], "copy");
	assert_string_equal(conf->engine.order[1], "splice");
	assert_int_equal(conf->engine.pipe_size, 65536);
	assert_int_equal(conf->engine.pipes, 32);
	assert_int_equal(conf->engine.copy_buffer, 1 << 20);
}

static void check_limits(const struct conf_limits *l)
{
	assert_int_equal(l->connections, 5000);
	assert_int_equal(l->unauthenticated, 10);
	assert_int_equal(l->unauthenticated_timeout_ms, 500);
	assert_int_equal(l->allocations, 2000);
	assert_int_equal(l->per_user.allocations, 3);
	assert_int_equal(l->permissions_per_allocation, 4);
	assert_int_equal(l->pending_binds, 5);
	assert_int_equal(l->connections_per_allocation, 6);
	assert_int_equal(l->default_lifetime_ms, 660000);
	assert_int_equal(l->max_lifetime_ms, 7200000);
	assert_int_equal(l->permission_lifetime_ms, 360000);
	assert_int_equal(l->bind_timeout_ms, 31000);
	assert_int_equal(l->connect_timeout_ms, 32000);
	assert_int_equal(l->nonce_lifetime_ms, 33000);
	assert_int_equal(l->send_queue, 8192);
	assert_int_equal(l->keepalive_ms, 0);
	assert_int_equal(l->idle_timeout_ms, 3600000);
	assert_int_equal(l->control_clients, 2);
}

static void every_key_is_read(void **state)
{
	struct conf *conf = accepted(every_key);

	(void)state;
	assert_int_equal(reports.warnings, 0);
	check_sections(conf);
	check_limits(&conf->limits);
	conf_unref(conf);
}

static void users_get_realm_name_and_secret(void **state)
{
	static const uint8_t ha1[16] = { 0x00, 0x11, 0x22, 0x33, 0x44, 0x55,
					 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb,
					 0xcc, 0xdd, 0xee, 0xff };
	struct conf *conf = accepted(every_key);

	(void)state;
	assert_int_equal(conf->user_count, 3);
	assert_string_equal(conf->users[0].name, "alice");
	assert_string_equal(conf->users[0].realm, "example.org");
	assert_string_equal(conf->users[0].password, "secret");
	assert_false(conf->users[0].ha1.has_md5);
	assert_string_equal(conf->users[1].realm, "example.net");
	assert_null(conf->users[1].password);
	assert_true(conf->users[1].ha1.has_md5);
	assert_false(conf->users[1].ha1.has_sha256);
	assert_memory_equal(conf->users[1].ha1.md5, ha1, sizeof(ha1));
	assert_string_equal(conf->users[2].name, "alice");
	assert_string_equal(conf->users[2].realm, "example.net");
	conf_unref(conf);
}

static void realms_and_users_inherit_quotas(void **state)
{
	struct conf *conf = accepted(every_key);

	(void)state;
	assert_int_equal(conf->realm_count, 2);
	assert_string_equal(conf->realms[0].name, "example.org");
	assert_int_equal(conf->realms[0].per_user.allocations, 3);
	assert_int_equal(conf->realms[1].per_user.allocations, 7);
	conf_unref(conf);
	/* The user from his realm, that from all. */
	conf = accepted("[limits]\nallocations_per_user = 4\n"
			"connections_per_user = 5\n"
			"[realm r]\nconnections_per_user = 6\n"
			"allocations = 100\nconnections = 200\n"
			"[user a]\npassword = x\nallocations = 7\n"
			"[user b]\npassword = x\nconnections = 0\n");
	assert_int_equal(conf->realms[0].quota.allocations, 100);
	assert_int_equal(conf->realms[0].quota.connections, 200);
	assert_int_equal(conf->realms[0].per_user.connections, 6);
	assert_int_equal(conf->users[0].quota.allocations, 7);
	assert_int_equal(conf->users[0].quota.connections, 6);
	assert_int_equal(conf->users[1].quota.allocations, 4);
	assert_int_equal(conf->users[1].quota.connections, 0);
	conf_unref(conf);
	conf = accepted("[limits]\nbandwidth_per_user = 10M\n"
			"bandwidth_per_allocation = 64K\n"
			"[realm r]\nbandwidth = 2G\n"
			"[user a]\npassword = x\nbandwidth = 64001\n"
			"[user b]\npassword = x\n"
			"bandwidth_per_allocation = 0\n");
	assert_int_equal(conf->realms[0].quota.bandwidth, 2000000000);
	assert_int_equal(conf->realms[0].per_user.bandwidth, 10000000);
	assert_int_equal(conf->users[0].quota.bandwidth, 64001);
	assert_int_equal(conf->users[0].quota.allocation_bandwidth, 64000);
	assert_int_equal(conf->users[1].quota.bandwidth, 10000000);
	assert_int_equal(conf->users[1].quota.allocation_bandwidth, 0);
	assert_true(conf_engine_wanted(conf, "copy"));
	conf_unref(conf);
	refused(USABLE "[limits]\nbandwidth_per_user = 1K\n",
		"5 error: [limits] bandwidth_per_user: found \"1K\"; allowed: "
		"bits a second, alone or with K, M or G, 0 or 64K to 1000G\n");
	/* Wherever [limits] stands. */
	conf = accepted("[limits]\nallocations_per_user = 9\n" USABLE);
	assert_int_equal(conf->realms[0].per_user.allocations, 9);
	conf_unref(conf);
}

static void durations_and_sizes_take_units(void **state)
{
	static const struct {
		const char *text;
		uint64_t ms;
	} durations[] = {
		{ "45", 45000 },  { "45s", 45000 },        { "1500ms", 1500 },
		{ "2m", 120000 }, { "1h", 3600000 },       { "0", 0 },
		{ "0s", 0 },      { "0720h", 2592000000 },
	};
	static const struct {
		const char *text;
		size_t bytes;
	} sizes[] = { { "4096", 4096 }, { "4K", 4096 }, { "16M", 16 << 20 } };
	char text[200];
	struct conf *conf;

	(void)state;
	for (size_t i = 0; i < sizeof(durations) / sizeof(*durations); i++) {
		snprintf(text, sizeof(text), "[limits]\nidle_timeout=%s\n",
			 durations[i].text);
		conf = accepted(text);
		assert_int_equal(conf->limits.idle_timeout_ms, durations[i].ms);
		conf_unref(conf);
	}
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		snprintf(text, sizeof(text), "[limits]\nsend_queue = %s\n",
			 sizes[i].text);
		conf = accepted(text);
		assert_int_equal(conf->limits.send_queue, sizes[i].bytes);
		conf_unref(conf);
	}
}

static void wrong_values_are_refused_with_what_is_allowed(void **state)
{
	static const struct {
		const char *section, *key, *value, *allowed;
	} wrong[] = {
#define NUMBER   "a whole number, "
#define DURATION "a time in seconds, or with ms, s, m or h, "
#define SIZE     "a size in bytes, or with K, M or G, "
#define DEVICES  "a list of up to 32 different device names of 1 to 15 bytes"
#define PERCENT  "a share of 0% to 100% with up to 4 decimals"
		{ "server", "workers", "65", NUMBER "0 to 64" },
		{ "server", "workers", "-1", NUMBER "0 to 64" },
		{ "server", "workers", "1x", NUMBER "0 to 64" },
		{ "server", "workers", "99999999999999999999",
		  NUMBER "0 to 64" },
		{ "server", "log_level", "loud", "error, warn, info or debug" },
		{ "server", "seccomp", "yes", "on, log or off" },
		{ "server", "software", "true", "yes or no" },
		{ "server", "control", "run/c.sock",
		  "an absolute path of at most 107 bytes" },
		{ "limits", "keepalive", "999ms", DURATION "0 or 1s to 9h" },
		{ "limits", "keepalive", "10h", DURATION "0 or 1s to 9h" },
		{ "limits", "keepalive", "1d", DURATION "0 or 1s to 9h" },
		{ "limits", "keepalive", "1 m", DURATION "0 or 1s to 9h" },
		{ "limits", "keepalive", "18446744073709551615",
		  DURATION "0 or 1s to 9h" },
		{ "limits", "max_lifetime", "0", DURATION "1s to 24h" },
		{ "limits", "send_queue", "4095", SIZE "4K to 16M" },
		{ "limits", "send_queue", "1G", SIZE "4K to 16M" },
		{ "limits", "send_queue", "64KB", SIZE "4K to 16M" },
		{ "engine", "order", "splice, magic",
		  "a list of different engines: wire, splice, uring, sockmap, "
		  "copy" },
		{ "engine", "wire", "sometimes", "auto, always or never" },
		{ "engine", "wire_pairs", "15", NUMBER "16 to 1000000" },
		{ "engine", "wire_channels", "1000001", NUMBER "0 to 1000000" },
		{ "engine", "wire_datagrams", "perhaps", "yes or no" },
		{ "engine", "wire_max_rtt", "2m", DURATION "0 or 1ms to 1m" },
		{ "engine", "wire_devices", "eth0, a/b", DEVICES },
		{ "engine", "wire_devices", "eth0, eth0", DEVICES },
		{ "engine", "wire_devices", "eth0, abcdefghijklmnop", DEVICES },
		{ "engine", "wire_devices", "..", DEVICES },
		{ "engine", "wire_max_loss", "100.1%", PERCENT },
		{ "engine", "wire_max_loss", "1.", PERCENT },
		{ "engine", "wire_max_loss", "0.00001%", PERCENT },
		{ "engine", "wire_max_loss", "-1%", PERCENT },
		{ "engine", "pin", "sys/fs/bpf",
		  "an absolute path of at most 107 bytes" },
		{ "listener a", "mss", "535", NUMBER "0 or 536 to 32767" },
		{ "relay", "ports", "0-9",
		  "a port or a range LOWEST-HIGHEST within 1 to 65535" },
		{ "relay", "ports", "20-10",
		  "a port or a range LOWEST-HIGHEST within 1 to 65535" },
		{ "relay", "ports", "1-65536",
		  "a port or a range LOWEST-HIGHEST within 1 to 65535" },
		{ "listener a", "transport", "sctp", "tcp, udp, tls or dtls" },
	};
	char text[300], expected[400], label[40];
	const char *found;

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		snprintf(text, sizeof(text), USABLE "[%s]\n%s = %s\n",
			 wrong[i].section, wrong[i].key, wrong[i].value);
		snprintf(label, sizeof(label), "[%s]", wrong[i].section);
		/* Of a list the wrong item is shown. */
		found = strrchr(wrong[i].value, ',');
		snprintf(expected, sizeof(expected),
			 "5 error: %s %s: found \"%s\"; allowed: %s\n", label,
			 wrong[i].key, found ? found + 2 : wrong[i].value,
			 wrong[i].allowed);
		refused(text, expected);
	}
}

static void wrong_addresses_are_refused(void **state)
{
	static const char *const listen[] = {
		"1.2.3",      "1.2.3.4:65536", "[::1",
		"::1:",       "localhost",     "[1.2.3.4]:5",
		"fe80::1%lo", "1.2.3.4,,",     ",",
	};
	static const char *const hosts[] = { "0.0.0.0", "::", "192.0.2.1:5",
					     "192.0.2.0/24",
					     "192.0.2.1, 192.0.2.1" };
	static const char *const prefixes[] = {
		"10.0.0.0/33", "10.0.0/8",  "::/129",
		"/8",          "10.0.0.0/", "2001:db8::1/-1"
	};
	char text[200];
	struct conf *conf;

	(void)state;
	for (size_t i = 0; i < sizeof(listen) / sizeof(*listen); i++) {
		snprintf(text, sizeof(text), "[listener a]\naddress = %s\n",
			 listen[i]);
		assert_int_equal(parse_bytes(text, strlen(text), &conf),
				 -EINVAL);
		assert_int_equal(reports.errors, 1);
	}
	for (size_t i = 0; i < sizeof(hosts) / sizeof(*hosts); i++) {
		snprintf(text, sizeof(text), "[relay]\naddress = %s\n",
			 hosts[i]);
		assert_int_equal(parse_bytes(text, strlen(text), &conf),
				 -EINVAL);
	}
	for (size_t i = 0; i < sizeof(prefixes) / sizeof(*prefixes); i++) {
		snprintf(text, sizeof(text), "[peers]\ndeny = %s\n",
			 prefixes[i]);
		assert_int_equal(parse_bytes(text, strlen(text), &conf),
				 -EINVAL);
	}
}

static void empty_lists_mean_none_where_that_makes_sense(void **state)
{
	struct conf *conf = accepted(USABLE "[peers]\nallow =\ndeny = ; all\n"
					    "[relay]\naddress =\n");

	(void)state;
	assert_int_equal(conf->peers.rules.allow_count, 0);
	assert_int_equal(conf->peers.rules.deny_count, 0);
	assert_int_equal(conf->relay.address_count, 0);
	conf_unref(conf);
	refused(USABLE "[engine]\norder =\n",
		"5 error: [engine] order: found nothing; allowed: a list of "
		"different engines: wire, splice, uring, sockmap, copy\n");
}

static void engines_are_pinned_by_realm_and_user(void **state)
{
	struct conf *conf = accepted("[realm example.org]\n"
				     "engine = copy\n"
				     "[user alice]\n"
				     "password = secret\n"
				     "engine = wire, sockmap\n"
				     "[user bob]\n"
				     "password = secret\n"
				     "[engine]\n"
				     "order = splice\n");

	(void)state;
	assert_int_equal(conf->realms[0].engines.count, 1);
	assert_string_equal(conf->realms[0].engines.order[0], "copy");
	assert_int_equal(conf->users[0].engines.count, 2);
	assert_string_equal(conf->users[0].engines.order[0], "wire");
	assert_string_equal(conf->users[0].engines.order[1], "sockmap");
	assert_int_equal(conf->users[1].engines.count, 0);
	assert_true(conf_engine_wanted(conf, "wire"));
	assert_true(conf_engine_wanted(conf, "sockmap"));
	assert_true(conf_engine_wanted(conf, "copy"));
	assert_true(conf_engine_wanted(conf, "splice"));
	assert_false(conf_engine_wanted(conf, "uring"));
	conf_unref(conf);
}

/* Everything an [exit] may have. */
static void exits_are_read(void **state)
{
	struct conf *conf =
		accepted(USABLE "[exit isp-a]\n"
				"link = lo\n"
				"next_hop = 192.0.2.1, fe80::1\n"
				"prefix = 198.51.100.0/24, 2001:db8:a::/48\n"
				"prefix = 203.0.113.7\n"
				"anycast = 198.51.100.254\n"
				"anycast_suffix = ::ffff\n"
				"health = anycast\n"
				"tunnel_peer = 2001:db8:a::7, 2001:db8:a::8\n"
				"weight = 10\n"
				"engine = splice, copy\n"
				"[exit isp-b]\n"
				"unchecked = yes\n"
				"[exit isp-c]\n"
				"authorised = 198.51.100.0/24\n"
				"authorised = 192.0.2.0/24\n");
	const struct conf_exit *exit = &conf->exits[0];

	(void)state;
	assert_int_equal(conf->exit_count, 3);
	assert_string_equal(exit->name, "isp-a");
	assert_string_equal(exit->link, "lo");
	assert_int_equal(exit->next_hop_count, 2);
	assert_int_equal(exit->prefix_count, 3);
	assert_false(exit->unchecked);
	assert_int_equal(exit->anycast_count, 1);
	assert_int_equal(exit->anycast_suffix.in6.sin6_addr.s6_addr[15], 0xff);
	assert_int_equal(exit->anycast_suffix.in6.sin6_addr.s6_addr[0], 0);
	assert_int_equal(exit->health, CONF_HEALTH_ANYCAST);
	assert_int_equal(exit->tunnel_peer_count, 2);
	assert_int_equal(exit->weight, 10);
	assert_int_equal(exit->engines.count, 2);
	exit = &conf->exits[1];
	assert_null(exit->link);
	assert_true(exit->unchecked);
	assert_int_equal(exit->health, CONF_HEALTH_LINK);
	assert_int_equal(exit->anycast_suffix.in6.sin6_addr.s6_addr[0], 0xff);
	assert_int_equal(exit->weight, 1);
	assert_int_equal(conf->exits[2].prefix_count, 0);
	assert_int_equal(conf->exits[2].authorised_count, 2);
	assert_true(conf_engine_wanted(conf, "copy"));
	conf_unref(conf);
}

static const char *exit_name(const struct conf *conf, const char *host)
{
	const struct conf_exit *exit;
	union addr addr;

	assert_int_equal(addr_parse(host, 3478, &addr), 0);
	exit = conf_exit_of(conf, &addr);
	return exit ? exit->name : "none";
}

static void an_address_leaves_by_the_longest_prefix(void **state)
{
	struct conf *conf = accepted(
		USABLE "[exit wide]\n"
		       "prefix = 10.0.0.0/8, 2001:db8::/32, 192.0.2.0/25\n"
		       "[exit narrow]\n"
		       "prefix = 10.9.0.0/16, 2001:db8:9::/48, 10.1.2.3\n"
		       "prefix = 10.5.0.0/16, 10.200.0.0/16\n"
		       "[exit open]\n"
		       "unchecked = yes\n");

	(void)state;
	assert_string_equal(exit_name(conf, "10.8.255.255"), "wide");
	assert_string_equal(exit_name(conf, "10.9.0.1"), "narrow");
	assert_string_equal(exit_name(conf, "10.10.0.0"), "wide");
	assert_string_equal(exit_name(conf, "10.5.255.255"), "narrow");
	assert_string_equal(exit_name(conf, "10.200.1.1"), "narrow");
	assert_string_equal(exit_name(conf, "10.1.2.3"), "narrow");
	assert_string_equal(exit_name(conf, "10.1.2.4"), "wide");
	assert_string_equal(exit_name(conf, "192.0.2.127"), "wide");
	assert_string_equal(exit_name(conf, "192.0.2.128"), "none");
	assert_string_equal(exit_name(conf, "9.255.255.255"), "none");
	assert_string_equal(exit_name(conf, "2001:db8:8::1"), "wide");
	assert_string_equal(exit_name(conf, "2001:db8:9:8::1"), "narrow");
	assert_string_equal(exit_name(conf, "2001:db9::1"), "none");
	conf_unref(conf);
	conf = accepted(USABLE);
	assert_string_equal(exit_name(conf, "10.1.2.3"), "none");
	conf_unref(conf);
}

static void exits_that_contradict_themselves_are_refused(void **state)
{
	(void)state;
	refused(USABLE "[exit a]\nlink = lo\n",
		"4 error: [exit a]: found neither prefix, authorised nor "
		"unchecked = yes; "
		"allowed: one of them at least\n");
	refused(USABLE "[exit a]\nprefix = 2001:db8::/32\nnext_hop = fe80::1\n",
		"6 error: [exit a] next_hop: found fe80::1, a link-local "
		"address, without link; allowed: with it\n");
	refused(USABLE "[exit a]\nprefix = 10.0.0.0/8\nlink = lo\n"
		       "next_hop = 10.0.0.1, 10.0.0.2\n",
		"7 error: [exit a] next_hop: found 10.0.0.2, the second "
		"address of its family; allowed: one of IPv4 and one of "
		"IPv6\n");
	refused(USABLE "[exit a]\nprefix = 10.0.0.0/8\n"
		       "anycast = 2001:db8::1\n",
		"6 error: [exit a] anycast: found 2001:db8::1, but no prefix "
		"of its family; allowed: with such a prefix\n");
	refused(USABLE "[exit a]\nprefix = 10.0.0.0/8\n"
		       "health = anycast\n",
		"6 error: [exit a] health: found anycast, but neither anycast "
		"nor a prefix of IPv6; allowed: with one of them\n");
	refused(USABLE "[exit a]\nprefix = 2001:db8::/32\nunchecked = yes\n"
		       "health = probe\ntunnel_peer = 2001:db8::1\n",
		"7 error: [exit a] health: found probe with unchecked = yes, "
		"an exit that any other may stand in for; allowed: link or "
		"anycast\n");
	refused(USABLE "[exit a]\nprefix = 2001:db8::/32\ntunnel = ip6tnl\n"
		       "tunnel_peer = 2001:db8::1\n"
		       "[exit b]\nprefix = 2001:db8:b::/48\n"
		       "tunnel_peer = 2001:db8::2\n"
		       "[exit c]\nprefix = 2001:db8:c::/48\n",
		"8 error: [exit b] tunnel: found another one than [exit a] "
		"has; allowed: one for all exits with tunnels\n");
	refused(USABLE "[exit a]\nprefix = 2001:db8::/32\nhealth = probe\n"
		       "[exit b]\nprefix = 2001:db8:b::/48\n"
		       "next_hop = 2001:db8::2\nhealth = probe\n"
		       "tunnel_peer = 2001:db8::1\n",
		"6 error: [exit a] health: found probe, but no tunnel leads to "
		"it; allowed: with tunnel_peer, and next_hop only with link\n"
		"10 error: [exit b] health: found probe, but no tunnel leads "
		"to it; allowed: with tunnel_peer, and next_hop only with "
		"link\n");
	refused(USABLE "[exit a]\nprefix = 2001:db8::/32\n"
		       "probe_interval = 99ms\nprobe_losses = 0\n",
		"6 error: [exit a] probe_interval: found \"99ms\"; allowed: "
		"a time in seconds, or with ms, s, m or h, 100ms to 1m\n"
		"7 error: [exit a] probe_losses: found \"0\"; allowed: a "
		"whole number, 1 to 100\n");
	refused(USABLE "[exit a]\nprefix = 10.0.0.0/8\n"
		       "tunnel_peer = 192.0.2.1\n"
		       "discovery_host = 10.0.0.0/8\n"
		       "discover = yes\n",
		"6 error: [exit a] tunnel_peer: found 192.0.2.1; allowed: "
		"addresses of IPv6, which tunnels go over\n"
		"7 error: [exit a] discovery_host: found 10.0.0.0/8; allowed: "
		"addresses and prefixes of IPv6, which alone has an error for "
		"it\n"
		"8 error: [exit a] discover: found yes without a prefix of "
		"IPv6; allowed: with one\n"
		"6 error: [exit a] tunnel_peer: found without a prefix of IPv6 "
		"and without an anycast address of IPv6; allowed: with one of "
		"them, which is tunnelled to\n");
	refused(USABLE "[exit a]\nprefix = 10.0.0.0/8\n"
		       "[exit b]\nprefix = 10.0.0.0/16, 10.0.0.0/8\n",
		"7 error: [exit b] prefix: found 10.0.0.0/8, which [exit a] "
		"has, too; allowed: each prefix once\n");
	refused(USABLE "[exit a]\nprefix = 10.0.0.0/8\nlink = a/b\n"
		       "anycast_suffix = 192.0.2.1\n",
		"6 error: [exit a] link: found \"a/b\"; allowed: a device "
		"name of 1 to 15 bytes\n"
		"7 error: [exit a] anycast_suffix: found \"192.0.2.1\"; "
		"allowed: an IPv6 address such as ::ffff:ffff:ffff:ffff\n");
}

static void wire_is_set_up_as_told(void **state)
{
	struct conf *conf = accepted(USABLE "[engine]\n"
					    "wire = always\n"
					    "wire_pairs = 100000\n"
					    "wire_datagrams = no\n"
					    "wire_channels = 0\n"
					    "wire_devices = eth0, wan.7\n"
					    "pin = /run/bpf/culvert\n"
					    "wire_max_rtt = 0\n"
					    "wire_max_growth = 0\n"
					    "wire_max_loss = 1.25\n"
					    "ktls = no\n"
					    "[listener public]\n"
					    "mss = 1340\n");

	(void)state;
	assert_int_equal(conf->engine.wire, CONF_WIRE_ALWAYS);
	assert_int_equal(conf->engine.wire_pairs, 100000);
	assert_false(conf->engine.wire_datagrams);
	assert_int_equal(conf->engine.wire_channels, 0);
	assert_int_equal(conf->engine.wire_device_count, 2);
	assert_string_equal(conf->engine.wire_devices[0], "eth0");
	assert_string_equal(conf->engine.wire_devices[1], "wan.7");
	assert_string_equal(conf->engine.pin, "/run/bpf/culvert");
	assert_int_equal(conf->engine.wire_max_rtt_ms, 0);
	assert_int_equal(conf->engine.wire_max_growth_ms, 0);
	assert_int_equal(conf->engine.wire_max_loss, 12500);
	assert_false(conf->engine.ktls);
	assert_int_equal(conf->listeners[0].mss, 1340);
	assert_true(conf_engine_wanted(conf, "wire"));
	conf_unref(conf);
	conf = accepted(USABLE "[engine]\nwire = never\nwire_devices =\n");
	assert_false(conf_engine_wanted(conf, "wire"));
	assert_int_equal(conf->engine.wire_device_count, 0);
	conf_unref(conf);
	refused(USABLE "[engine]\norder = wire\n",
		"5 error: [engine] order: found wire alone; allowed: with one "
		"more at least, for what cannot go on wire\n");
}

static void lists_of_prefixes_add_up(void **state)
{
	struct conf *conf = accepted(USABLE
				     "[peers]\ndeny = 10.0.0.0/8\n"
				     "deny = 192.0.2.1, 2001:db8::/32\n");

	(void)state;
	assert_int_equal(conf->peers.rules.deny_count, 3);
	conf_unref(conf);
}

static void assert_rule(const struct conf_rule *rule, const char *prefix,
			unsigned int min, unsigned int max)
{
	char text[ADDR_STRLEN];

	assert_string_equal(prefix_format(&rule->prefix, text), prefix);
	assert_int_equal(rule->port_min, min);
	assert_int_equal(rule->port_max, max);
}

static void peers_are_named_by_prefix_and_port(void **state)
{
	struct conf *conf =
		accepted("[realm example.org]\nallow = 10.0.0.0/8:80-90\n"
			 "deny = [2001:db8::/32]:443, [2001:db8::1]:1 - 2\n"
			 "[user alice]\npassword = secret\n"
			 "allow = 192.0.2.1:25, ::1, 2001:db8::/33\n"
			 "[peers]\nnat64 = 2001:db8:1::/48, 64:ff9c::/96\n");
	const struct conf_rules *realm = &conf->realms[0].rules;
	const struct conf_rules *user = &conf->users[0].rules;

	(void)state;
	assert_int_equal(realm->allow_count, 1);
	assert_rule(&realm->allow[0], "10.0.0.0/8", 80, 90);
	assert_int_equal(realm->deny_count, 2);
	assert_rule(&realm->deny[0], "2001:db8::/32", 443, 443);
	assert_rule(&realm->deny[1], "2001:db8::1/128", 1, 2);
	assert_int_equal(user->allow_count, 3);
	assert_rule(&user->allow[0], "192.0.2.1/32", 25, 25);
	assert_rule(&user->allow[1], "::1/128", 0, 65535);
	assert_rule(&user->allow[2], "2001:db8::/33", 0, 65535);
	assert_int_equal(user->deny_count, 0);
	assert_int_equal(conf->peers.nat64_count, 2);
	assert_int_equal(conf->peers.nat64[0].bits, 48);
	conf_unref(conf);
}

static void peers_and_translators_are_checked(void **state)
{
	static const char *const rules[] = {
		"10.0.0.0/8:",
		"10.0.0.0/8:0",
		"10.0.0.0/8:90-80",
		"10.0.0.0:80/8",
		"[10.0.0.0/8]:80",
		"[2001:db8::/32]",
		"[2001:db8::/32:1",
		"[2001:db8::/32]:x",
		"10.0.0.0/33",
		":80",
		"[]:80",
		"10.0.0.0/8:65536",
	};
	static const char *const prefixes[] = {
		"10.0.0.0/8",        "2001:db8::/24", "2001:db8::/44",
		"2001:db8::/72",     "2001:db8::",    "2001:db8::/128",
		"[2001:db8::/96]:1",
	};
	char text[512], want[512];

	(void)state;
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
		snprintf(text, sizeof(text), "%s[peers]\ndeny = %s\n", USABLE,
			 rules[i]);
		snprintf(
			want, sizeof(want),
			"5 error: [peers] deny: found \"%s\"; allowed: a list "
			"of up to 32768 addresses and prefixes, with ports or without, "
			"such as 192.0.2.1, 192.0.2.0/24:80-90 or "
			"[2001:db8::/32]:443\n",
			rules[i]);
		refused(text, want);
	}
	for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
		snprintf(text, sizeof(text), "%s[peers]\nnat64 = %s\n", USABLE,
			 prefixes[i]);
		snprintf(
			want, sizeof(want),
			"5 error: [peers] nat64: found \"%s\"; allowed: a list "
			"of IPv6 prefixes of 32, 40, 48, 56, 64 or 96 bits\n",
			prefixes[i]);
		refused(text, want);
	}
}

static void all_errors_are_reported_at_once(void **state)
{
	(void)state;
	refused("early = 1\n"
		"[server]\n"
		"worker = 3\n"
		"workers = 99\n"
		"send_queue = 3\n"
		"colour = blue\n"
		"[limit]\n"
		"ignored = here\n"
		"[colour]\n"
		"[user bob]\n"
		"realm = example.com\n"
		"[listener]\n"
		"[server x]\n"
		"[server\n"
		"[relay] oops\n"
		"[realm example.org]\n"
		"just words\n"
		"= 3\n",
		"1 error: found a line before any section; allowed: [section] "
		"first\n"
		"3 error: [server] worker: unknown key; did you mean "
		"\"workers\"?\n"
		"4 error: [server] workers: found \"99\"; allowed: a whole "
		"number, 0 to 64\n"
		"5 error: [server] send_queue: unknown key here; it belongs to "
		"[limits]\n"
		"6 error: [server] colour: unknown key; allowed: user, "
		"workers, control, log_level, seccomp, software, "
		"mixed_transports, weight, redirect_above\n"
		"7 error: [limit]: unknown section; did you mean [limits]?\n"
		"9 error: [colour]: unknown section; allowed: server, "
		"listener, relay, realm, user, exit, alternate, database, peers, "
		"engine, limits\n"
		"12 error: [listener]: found no name; allowed: [listener "
		"NAME]\n"
		"13 error: [server]: found a name, \"x\"; allowed: [server]\n"
		"14 error: found \"[\" without \"]\"; allowed: [section] or "
		"[section NAME]\n"
		"15 error: found text behind \"]\"; allowed: a comment\n"
		"17 error: found a line that is neither a section nor a key; "
		"allowed: [section] or key = value\n"
		"18 error: [realm example.org] : unknown key; allowed: "
		"allocations, connections, bandwidth, allocations_per_user, "
		"connections_per_user, bandwidth_per_user, "
		"bandwidth_per_allocation, secret, oauth, oauth_key, oauth_skew, "
		"engine, allow, deny\n"
		"10 error: [user bob]: found neither password nor ha1; "
		"allowed: exactly one of them\n"
		"11 error: [user bob] realm: found \"example.com\", for which "
		"there is no section; allowed: the name of a [realm NAME] such "
		"as \"example.org\"\n");
}

static void repeats_are_refused(void **state)
{
	(void)state;
	refused(USABLE "[server]\nworkers = 1\nworkers = 2\n",
		"6 error: [server] workers: found twice, first in line 5; "
		"allowed: once\n");
	refused(USABLE "[server]\n[limits]\n[server]\nworkers = 99\n",
		"6 error: [server]: found twice, first in line 4; allowed: "
		"once\n"
		"7 error: [server] workers: found \"99\"; allowed: a whole "
		"number, 0 to 64\n");
	refused(USABLE "[user alice]\npassword = x\n",
		"4 error: [user alice]: found twice, first in line 2; "
		"allowed: once\n");
	refused(USABLE "[realm example.org]\n",
		"4 error: [realm example.org]: found twice, first in line 1; "
		"allowed: once\n");
	refused(USABLE "[user a2]\nname = alice\npassword = x\n",
		"4 error: [user a2]: found user \"alice\" of realm "
		"\"example.org\" twice, first in line 2; allowed: once\n");
}

static void realms_must_fit_users_and_listeners(void **state)
{
	struct conf *conf;

	(void)state;
	refused("[user bob]\npassword = x\n",
		"1 error: [user bob]: found no realm for this user; allowed: a "
		"section such as [realm example.org]\n");
	refused(USABLE "[listener a]\nrealm = example.com\n",
		"5 error: [listener a] realm: found \"example.com\", for which "
		"there is no section; allowed: the name of a [realm NAME] such "
		"as \"example.org\"\n");
	conf = accepted("[user bob]\npassword = x\nrealm = later.example\n"
			"[realm later.example]\n");
	assert_string_equal(conf->users[0].realm, "later.example");
	conf_unref(conf);
}

#define TLS "[listener t]\ntransport = tls\n"

static void a_tls_listener_has_a_key_for_each_certificate(void **state)
{
	struct conf *conf;

	(void)state;
	conf = accepted(USABLE TLS "address = 192.0.2.1, ::1, [::2]:443\n"
				   "certificate = /a.crt, /b.crt\n"
				   "private_key = /a.key\n"
				   "private_key = /a.key\n"
				   "tls_version = 1.3\n");
	assert_int_equal(conf->listeners[0].transport, CONF_TRANSPORT_TLS);
	assert_address(&conf->listeners[0].addresses[0], "192.0.2.1:5349");
	assert_address(&conf->listeners[0].addresses[1], "[::1]:5349");
	assert_address(&conf->listeners[0].addresses[2], "[::2]:443");
	assert_int_equal(conf->listeners[0].certificate_count, 2);
	assert_string_equal(conf->listeners[0].certificates[1].path, "/b.crt");
	assert_int_equal(conf->listeners[0].private_key_count, 2);
	assert_int_equal(conf->listeners[0].tls_version, CONF_TLS_1_3);
	/* What no order names is still needed. */
	assert_true(conf_engine_wanted(conf, "copy"));
	conf_unref(conf);
	refused(USABLE TLS,
		"4 error: [listener t] certificate: found none; allowed: with "
		"transport = tls or dtls, the path of a file in PEM form\n");
	refused(USABLE TLS "certificate = /a\n",
		"4 error: [listener t] private_key: found none; allowed: with "
		"transport = tls or dtls, the path of a file in PEM form\n");
	refused(USABLE TLS "certificate = /a, /b\nprivate_key = /a\n",
		"7 error: [listener t] private_key: found 1 for 2 "
		"certificates; allowed: one for each, in the same order\n");
	refused(USABLE TLS "certificate = a.crt\nprivate_key = /a\n",
		"6 error: [listener t] certificate: found \"a.crt\"; allowed: "
		"a list of up to 16 absolute paths of at most 255 bytes\n");
	refused(USABLE "[listener t]\ncertificate = /a\n",
		"5 error: [listener t] certificate: found without TLS; "
		"allowed: with transport = tls or dtls\n");
}

static void a_dtls_listener_is_one_for_datagrams(void **state)
{
	struct conf *conf;

	(void)state;
	conf = accepted(USABLE "[listener t]\ntransport = dtls\n"
			       "address = 192.0.2.1\ncertificate = /a.crt\n"
			       "private_key = /a.key\n"
			       "[listener u]\ntransport = tls\n"
			       "address = 192.0.2.1\ncertificate = /a.crt\n"
			       "private_key = /a.key\n");
	assert_int_equal(conf->listeners[0].transport, CONF_TRANSPORT_DTLS);
	assert_address(&conf->listeners[0].addresses[0], "192.0.2.1:5349");
	conf_unref(conf);
	refused(USABLE "[listener t]\ntransport = dtls\naddress = ::1\n"
		       "certificate = /a\nprivate_key = /a\n"
		       "tls_version = 1.3\n",
		"9 error: [listener t] tls_version: found 1.3; allowed: with "
		"transport = dtls, 1.2\n");
	refused(USABLE "[listener t]\ntransport = udp\n"
		       "proxy_protocol = 10.0.0.0/8\n",
		"6 error: [listener t] proxy_protocol: found with datagrams; "
		"allowed: with transport = tcp or tls\n");
	conf = accepted(USABLE "[listener t]\n"
			       "proxy_protocol = 10.0.0.0/8, ::1\n");
	assert_int_equal(conf->listeners[0].proxy_count, 2);
	conf_unref(conf);
	refused(USABLE "[listener a]\ntransport = udp\naddress = ::1\n"
		       "[listener t]\ntransport = dtls\n"
		       "address = [::1]:3478\n"
		       "certificate = /a\nprivate_key = /a\n",
		"9 error: [listener t] address: found [::1]:3478, which "
		"overlaps [::1]:3478 of [listener a]; allowed: each "
		"address and port once\n");
}

static void a_user_has_exactly_one_secret(void **state)
{
	(void)state;
	refused(USABLE "[user bob]\n",
		"4 error: [user bob]: found neither password nor ha1; "
		"allowed: exactly one of them\n");
	refused(USABLE "[user bob]\npassword = x\n"
		       "ha1 = 00112233445566778899aabbccddeeff\n",
		"4 error: [user bob]: found both password and ha1; allowed: "
		"exactly one of them\n");
	refused(USABLE "[user bob]\nha1 = 0011\n",
		"5 error: [user bob] ha1: found a value of 4 bytes (not "
		"shown); allowed: 32 hexadecimal digits (MD5), 64 (SHA-256)\n");
	refused(USABLE "[user bob]\nha1 = " HEX32 "\nha1 = " HEX32 "\n",
		"6 error: [user bob] ha1: found a value of 32 bytes (not "
		"shown); allowed: 32 hexadecimal digits (MD5), 64 (SHA-256)\n");
	refused(USABLE "[user bob]\nha1 = " HEX32 HEX32 "\n"
		       "ha1 = " HEX32 HEX32 "\n",
		"6 error: [user bob] ha1: found a value of 64 bytes (not "
		"shown); allowed: 32 hexadecimal digits (MD5), 64 (SHA-256)\n");
	refused(USABLE "[user bob]\nha1 = " HEX32 "0011\n",
		"5 error: [user bob] ha1: found a value of 36 bytes (not "
		"shown); allowed: 32 hexadecimal digits (MD5), 64 (SHA-256)\n");
	refused(USABLE "[user bob]\npassword =\n",
		"5 error: [user bob] password: found a value of 0 bytes (not "
		"shown); allowed: text of 1 to 900 bytes of " OPAQUE_ALLOWED
		"\n");
}

static void a_digest_may_be_of_either_kind_or_of_both(void **state)
{
	struct conf *conf = accepted(USABLE
				     "[user bob]\nha1 = " HEX32 HEX32 "\n"
				     "ha1 = " HEX32 "\n"
				     "[user carol]\nha1 = " HEX32 HEX32 "\n");

	(void)state;
	assert_true(conf->users[1].ha1.has_md5);
	assert_true(conf->users[1].ha1.has_sha256);
	assert_int_equal(conf->users[1].ha1.md5[15], 0xff);
	assert_int_equal(conf->users[1].ha1.sha256[31], 0xff);
	assert_false(conf->users[2].ha1.has_md5);
	conf_unref(conf);
}

/* MD5 is then all that the realm can offer, and carol has no such key. */
static void a_realm_with_each_digest_alone_is_refused(void **state)
{
	struct conf *conf;

	(void)state;
	refused(USABLE "[user carol]\nha1 = " HEX32 HEX32 "\n"
		       "[user bob]\nha1 = " HEX32 "\n",
		"5 error: [user carol] ha1: found a SHA-256 digest alone, but "
		"the realm can only offer MD5, which is all that the user in "
		"line 6 has; allowed: the MD5 digest, too\n");
	conf = accepted(USABLE "[realm other]\n"
			       "[user carol]\nha1 = " HEX32 HEX32 "\n"
			       "[user bob]\nrealm = other\nha1 = " HEX32 "\n");
	conf_unref(conf);
}

static void udp_and_tcp_may_have_the_same_port(void **state)
{
	struct conf *conf;

	(void)state;
	conf = accepted(USABLE "[listener a]\naddress = 192.0.2.1\n"
			       "[listener b]\ntransport = udp\n"
			       "address = 0.0.0.0\n");
	assert_int_equal(conf->listeners[0].transport, CONF_TRANSPORT_TCP);
	assert_int_equal(conf->listeners[1].transport, CONF_TRANSPORT_UDP);
	conf_unref(conf);
	refused(USABLE "[listener a]\ntransport = udp\naddress = 192.0.2.1\n"
		       "[listener b]\ntransport = udp\naddress = 0.0.0.0\n",
		"9 error: [listener b] address: found 0.0.0.0:3478, which "
		"overlaps 192.0.2.1:3478 of [listener a]; allowed: each "
		"address and port once\n");
}

static void an_alternate_makes_four_sockets_of_one(void **state)
{
	static const char *const all[] = { "192.0.2.1:1000",
					   "[2001:db8::1]:1000",
					   "192.0.2.1:2000", "192.0.2.2:1000",
					   "192.0.2.2:2000" };
	char text[ADDR_STRLEN];
	struct conf *conf;

	(void)state;
	conf = accepted(USABLE "[listener a]\ntransport = udp\n"
			       "address = 192.0.2.1:1000, [2001:db8::1]:1000\n"
			       "alternate = 192.0.2.2:2000\n");
	assert_int_equal(conf->listeners[0].alternate_count, 1);
	assert_int_equal(conf->listeners[0].address_count, 5);
	for (size_t i = 0; i < 5; i++)
		assert_string_equal(
			addr_format(&conf->listeners[0].addresses[i], text),
			all[i]);
	conf_unref(conf);
}

#define DISCOVERY "[listener a]\ntransport = udp\naddress = 192.0.2.1:1000\n"

static void an_alternate_must_differ_in_both(void **state)
{
	(void)state;
	refused(USABLE DISCOVERY "alternate = 192.0.2.2:1000\n",
		"7 error: [listener a] alternate: found 192.0.2.2:1000; "
		"allowed: another address and another port than the first one "
		"of its family in address\n");
	refused(USABLE DISCOVERY "alternate = 192.0.2.1:2000\n",
		"7 error: [listener a] alternate: found 192.0.2.1:2000; "
		"allowed: another address and another port than the first one "
		"of its family in address\n");
	refused(USABLE DISCOVERY "alternate = [2001:db8::1]:2000\n",
		"7 error: [listener a] alternate: found [2001:db8::1]:2000; "
		"allowed: beside an address of its family that is no "
		"wildcard\n");
	refused(USABLE DISCOVERY "alternate = 192.0.2.2:2000, 192.0.2.3:3000\n",
		"7 error: [listener a] alternate: found 192.0.2.3:3000; "
		"allowed: one of a family\n");
	refused(USABLE DISCOVERY "alternate = 192.0.2.2\n",
		"7 error: [listener a] alternate: found \"192.0.2.2\"; "
		"allowed: a list of up to 64 addresses with a port, such as "
		"192.0.2.1:3478 or [2001:db8::1]:3478\n");
	refused(USABLE "[listener a]\naddress = 192.0.2.1:1000\n"
		       "alternate = 192.0.2.2:2000\n",
		"6 error: [listener a] alternate: found without UDP; allowed: "
		"with transport = udp\n");
	refused(USABLE "[listener a]\ntransport = udp\n"
		       "alternate = 192.0.2.2:2000\n",
		"6 error: [listener a] alternate: found 192.0.2.2:2000; "
		"allowed: beside an address of its family that is no "
		"wildcard\n");
	refused(USABLE DISCOVERY "alternate = 192.0.2.2:2000\n"
				 "[listener b]\ntransport = udp\n"
				 "address = 192.0.2.2:1000\n",
		"10 error: [listener b] address: found 192.0.2.2:1000, which "
		"overlaps 192.0.2.2:1000 of [listener a]; allowed: each "
		"address and port once\n");
}

static void alternates_are_read_and_judged(void **state)
{
	struct conf *conf;

	(void)state;
	conf = accepted(USABLE "[server]\nweight = 3\nredirect_above = 80%\n"
			       "[alternate a]\n"
			       "address = 192.0.2.1:3478, [2001:db8::1]:3478\n"
			       "[alternate b]\naddress = 192.0.2.2:5349\n"
			       "transport = tls\ndomain = b.example.org\n"
			       "weight = 7\n");
	assert_int_equal(conf->weight, 3);
	assert_int_equal(conf->redirect_above, 800000);
	assert_int_equal(conf->alternate_count, 2);
	assert_int_equal(conf->alternates[0].address_count, 2);
	assert_int_equal(conf->alternates[0].transport, CONF_TRANSPORT_TCP);
	assert_int_equal(conf->alternates[0].weight, 1);
	assert_null(conf->alternates[0].domain);
	assert_int_equal(conf->alternates[1].transport, CONF_TRANSPORT_TLS);
	assert_string_equal(conf->alternates[1].domain, "b.example.org");
	assert_int_equal(conf->alternates[1].weight, 7);
	conf_unref(conf);
	refused(USABLE "[alternate a]\nweight = 2\n",
		"4 error: [alternate a] address: found none; allowed: where "
		"that server listens, such as 192.0.2.1:3478\n");
	refused(USABLE "[alternate a]\n"
		       "address = 192.0.2.1:1, 192.0.2.2:1\n",
		"5 error: [alternate a] address: found 192.0.2.2:1; allowed: "
		"one of a family\n");
	refused(USABLE "[alternate a]\naddress = 192.0.2.1:1\n"
		       "domain = a.example.org\n",
		"6 error: [alternate a] domain: found without TLS; allowed: "
		"with a transport that has a certificate\n");
}

static void a_realm_has_users_or_secrets(void **state)
{
	struct conf *conf = accepted("[realm a]\nsecret = one\n"
				     "secret = \" ;two\"\nsecret = 3\n"
				     "secret = 4\n[realm b]\n"
				     "[user u]\nrealm = b\npassword = x\n");

	(void)state;
	assert_int_equal(conf->realms[0].secret_count, 4);
	assert_string_equal(conf->realms[0].secrets[0], "one");
	assert_string_equal(conf->realms[0].secrets[1], " ;two");
	assert_string_equal(conf->realms[0].secrets[3], "4");
	assert_int_equal(conf->realms[1].secret_count, 0);
	conf_unref(conf);
	refused("[realm a]\nsecret = x\n[user u]\npassword = x\n"
		"[user v]\nrealm = a\npassword = x\n",
		"3 error: [user u]: found a user of realm \"a\", which has a "
		"secret; allowed: a realm without\n"
		"5 error: [user v]: found a user of realm \"a\", which has a "
		"secret; allowed: a realm without\n");
	refused("[realm a]\nsecret = x\nsecret = y\nsecret = x\n",
		"4 error: [realm a] secret: found a value of 1 bytes (not "
		"shown); allowed: text of 1 to 900 bytes\n");
	refused("[realm a]\nsecret = 1\nsecret = 2\nsecret = 3\nsecret = 4\n"
		"secret = 5\n",
		"6 error: [realm a] secret: found a value of 1 bytes (not "
		"shown); allowed: text of 1 to 900 bytes\n");
	refused("[realm a]\nsecret = x ; or a comment?\n",
		"2 error: [realm a] secret: found a semicolon after a space, "
		"which may be meant as a comment; allowed: the value in double "
		"quotes, or the comment on its own line\n"
		"0 warning: no [user NAME] section and no secret: only users of the "
		"database (culvertctl user add) can "
		"use this server\n");
}

static void overlapping_listeners_are_refused(void **state)
{
	struct conf *conf;

	(void)state;
	refused(USABLE "[listener a]\naddress = 0.0.0.0:5000\n"
		       "[listener b]\naddress = 192.0.2.1:5000\n",
		"7 error: [listener b] address: found 192.0.2.1:5000, which "
		"overlaps 0.0.0.0:5000 of [listener a]; allowed: each address "
		"and port once\n");
	refused(USABLE "[listener a]\naddress = ::1, [::1]:3478\n",
		"5 error: [listener a] address: found [::1]:3478, which "
		"overlaps [::1]:3478 of [listener a]; allowed: each address "
		"and port once\n");
	/* The default of one that names no address. */
	refused(USABLE "[listener a]\naddress = 192.0.2.1\n[listener b]\n",
		"6 error: [listener b] address: found 0.0.0.0:3478, which "
		"overlaps 192.0.2.1:3478 of [listener a]; allowed: each "
		"address and port once\n");
	/* Refused itself: nobody else is to blame. */
	refused(USABLE "[listener a]\naddress = nonsense\n"
		       "[listener b]\naddress = 0.0.0.0\n",
		"5 error: [listener a] address: found \"nonsense\"; allowed: a "
		"list of up to 64 addresses such as 192.0.2.1, 192.0.2.1:3478 "
		"or [2001:db8::1]:3478\n");
	conf = accepted(USABLE "[listener a]\naddress = 0.0.0.0, 127.0.0.1:0\n"
			       "[listener b]\naddress = ::, 127.0.0.1:0\n");
	conf_unref(conf);
}

static void lifetimes_must_be_in_order(void **state)
{
	(void)state;
	refused(USABLE "[limits]\ndefault_lifetime = 2h\n",
		"5 error: [limits] default_lifetime: found 2h; allowed: at "
		"most max_lifetime, which is 1h\n");
	refused(USABLE "[limits]\nmax_lifetime = 5m\n",
		"5 error: [limits] default_lifetime: found 10m; allowed: at "
		"most max_lifetime, which is 5m\n");
	refused(USABLE "[limits]\nmax_lifetime = x\ndefault_lifetime = 2h\n",
		"5 error: [limits] max_lifetime: found \"x\"; allowed: a time "
		"in seconds, or with ms, s, m or h, 1s to 24h\n");
}

static void odd_but_possible_values_draw_a_warning(void **state)
{
	struct conf *conf;

	(void)state;
	warned(USABLE "[limits]\nconnect_timeout = 5s\n",
	       "5 warning: [limits] connect_timeout: found \"5s\": a peer "
	       "must be given 30 seconds (RFC 6062, 5.2)\n");
	warned(USABLE "[limits]\nbind_timeout = 500ms\n",
	       "5 warning: [limits] bind_timeout: found \"500ms\"");
	warned(USABLE "[limits]\npermission_lifetime = 2s\n",
	       "5 warning: [limits] permission_lifetime: found \"2s\"");
	warned(USABLE "[peers]\ndeny = 10.1.2.3/8\n",
	       "5 warning: [peers] deny: found \"10.1.2.3/8\", an address "
	       "inside a prefix; 10.0.0.0/8 is taken\n");
	warned(USABLE "[engine]\npipe_size = 5000\n",
	       "5 warning: [engine] pipe_size: found \"5000\", which is no "
	       "power of two; 8K is taken\n");
	conf = accepted(USABLE "[engine]\npipe_size = 5000\n");
	assert_int_equal(conf->engine.pipe_size, 8192);
	conf_unref(conf);
}

static void passwords_survive_or_are_refused(void **state)
{
	static const struct {
		const char *line, *password; /* NULL: refused */
	} lines[] = {
		{ "password = plain", "plain" },
		{ "password=plain", "plain" },
		{ "  password \t=\t plain \t", "plain" },
		{ "password: with:colon", "with:colon" },
		{ "password = a;b#c", "a;b#c" },
		{ "password = #hash", "#hash" },
		{ "password =;semi", ";semi" },
		{ "password = a = b", "a = b" },
		{ "password = a #b", "a #b" },
		{ "password = \"a ;b\"", "a ;b" },
		{ "password = \"  spaces  \"", "  spaces  " },
		{ "password = \"\"quoted\"\"", "\"quoted\"" },
		{ "password = in\"side", "in\"side" },
		{ "password = end\"", "end\"" },
		{ "password = \xc3\xa4\xe2\x82\xac\xf0\x9f\x94\x91",
		  "\xc3\xa4\xe2\x82\xac\xf0\x9f\x94\x91" },
		{ "password = a ;b", NULL },
		{ "password = ;b", NULL },
		{ "password = a\t; comment", NULL },
		{ "password = \"a", NULL },
		{ "password = \"", NULL },
		{ "password = \"a\" ; comment", NULL },
		{ "password = \"\"", NULL },
	};
	char text[200];
	struct conf *conf;

	(void)state;
	for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
		snprintf(text, sizeof(text), "[realm r]\n[user u]\n%s\n",
			 lines[i].line);
		if (!lines[i].password) {
			assert_int_equal(parse_bytes(text, strlen(text), &conf),
					 -EINVAL);
			assert_int_equal(reports.errors, 1);
			continue;
		}
		conf = accepted(text);
		assert_string_equal(conf->users[0].password, lines[i].password);
		conf_unref(conf);
	}
}

static void no_report_shows_a_password(void **state)
{
	static const char *const texts[] = {
		"[user u]\npassword = SECRET\npassword = SECRET\n",
		"[user u]\npassword = SECRET ; SECRET\n",
		"[user u]\npassword = \"SECRET\n",
		"[user u]\npasword = SECRET\n",
		"[user u]\nha1 = SECRET\n",
		"[user u]\npassword SECRET\n",
		"[users u]\npassword = SECRET\n",
		"password = SECRET\n",
		"[server]\npassword = SECRET\n",
		"[user u]\npassword = SECRET\x01\n",
		"[user u]\npassword = SECRET\xff\n",
	};
	struct conf *conf;

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		assert_int_equal(parse_bytes(texts[i], strlen(texts[i]), &conf),
				 -EINVAL);
		assert_null(strstr(reports.text, "SECRET"));
	}
}

static void comments_and_white_space_are_passed_over(void **state)
{
	struct conf *conf = accepted("\xef\xbb\xbf; a comment\r\n"
				     "# another\r\n"
				     "\r\n"
				     "  [realm example.org]  ; one\r\n"
				     "\t[ user   alice in chains ] # two\r\n"
				     "\tpassword = secret\r\n"
				     "[server]\r\n"
				     "workers=3\t; three");

	(void)state;
	assert_string_equal(conf->users[0].name, "alice in chains");
	assert_string_equal(conf->users[0].password, "secret");
	assert_int_equal(conf->workers, 3);
	conf_unref(conf);
}

static void comments_need_white_space_before_them(void **state)
{
	struct conf *conf;

	(void)state;
	refused(USABLE "[server]\nworkers = 3;4\n",
		"5 error: [server] workers: found \"3;4\"; allowed: a whole "
		"number, 0 to 64\n");
	conf = accepted(USABLE "[server]\nworkers = 3 ; or 4\n");
	assert_int_equal(conf->workers, 3);
	conf_unref(conf);
}

static void indented_lines_are_keys_of_their_own(void **state)
{
	(void)state;
	refused(USABLE "[peers]\ndeny = 10.0.0.0/8,\n",
		"5 error: [peers] deny: found nothing; allowed: a list of up "
		"to 32768 addresses and prefixes, with ports or without, such as "
		"192.0.2.1, 192.0.2.0/24:80-90 or [2001:db8::/32]:443\n");
	refused(USABLE "[peers]\ndeny = 10.0.0.0/8\n\t192.0.2.0/24\n",
		"6 error: found a line that is neither a section nor a key; "
		"allowed: [section] or key = value\n");
}

static void long_lines_are_refused_and_counted_once(void **state)
{
	char text[4000], fill[2000];
	struct conf *conf;

	(void)state;
	memset(fill, 'x', sizeof(fill));
	snprintf(text, sizeof(text), USABLE "; %.998s\n[server]\nworkers=65\n",
		 fill);
	refused(text, "6 error: [server] workers: found \"65\"; allowed: a "
		      "whole number, 0 to 64\n");
	snprintf(text, sizeof(text), USABLE "[user b]\npassword=%.991s\n",
		 fill);
	refused(text,
		"5 error: [user b] password: found a value of 991 bytes "
		"(not shown); allowed: text of 1 to 900 bytes of " OPAQUE_ALLOWED
		"\n");
	snprintf(text, sizeof(text), USABLE "[user b]\npassword=%.900s\n",
		 fill);
	conf = accepted(text);
	assert_int_equal(strlen(conf->users[1].password), 900);
	conf_unref(conf);
	snprintf(text, sizeof(text), USABLE "; %.999s\n[server]\nworkers=65\n",
		 fill);
	refused(text, "4 error: found a line of 1001 bytes; allowed: up to "
		      "1000\n"
		      "6 error: [server] workers: found \"65\"; allowed: a "
		      "whole number, 0 to 64\n");
}

static void odd_bytes_are_refused(void **state)
{
	static const struct {
		const char *line;
		size_t len;
		const char *expected;
	} lines[] = {
#define LINE(text) text, sizeof(text) - 1
		{ LINE("user = a\0b"),
		  "1 error: found control character 0x00" },
		{ LINE("user = a\x1b["),
		  "1 error: found control character 0x1b" },
		{ LINE("user = a\x7f"),
		  "1 error: found control character 0x7f" },
		{ LINE("user = a\rb"),
		  "1 error: found control character 0x0d" },
		{ LINE("user = \xe4"), "1 error: found byte 0xe4" },
		{ LINE("user = \xc0\x80"), "1 error: found byte 0xc0" },
		{ LINE("user = \xe0\x80\x80"), "1 error: found byte 0xe0" },
		{ LINE("user = \xed\xa0\x80"), "1 error: found byte 0xed" },
		{ LINE("user = \xf4\x90\x80\x80"), "1 error: found byte 0xf4" },
		{ LINE("user = \xe2\x82"), "1 error: found byte 0xe2" },
	};
	struct conf *conf;

	(void)state;
	for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
		assert_int_equal(parse_bytes(lines[i].line, lines[i].len,
					     &conf),
				 -EINVAL);
		assert_int_equal(reports.errors, 1);
		assert_memory_equal(reports.text, lines[i].expected,
				    strlen(lines[i].expected));
	}
}

static void long_wrong_values_are_cut_between_characters(void **state)
{
	char text[400] = "[server]\nlog_level = ";
	struct conf *conf;

	(void)state;
	/* 59 bytes, then characters of two bytes: the cut is at one. */
	memset(text + strlen(text), 'x', 59);
	for (int i = 0; i < 20; i++)
		strcat(text, "\xc3\xa4");
	assert_int_equal(parse_bytes(text, strlen(text), &conf), -EINVAL);
	assert_non_null(strstr(reports.text, "xxx...\"; allowed"));
}

static void names_of_sections_have_their_limit(void **state)
{
	char text[300], name[100];
	struct conf *conf;

	(void)state;
	memset(name, 'n', sizeof(name));
	snprintf(text, sizeof(text), "[realm %.63s]\n[user u]\npassword = x\n",
		 name);
	conf = accepted(text);
	assert_int_equal(strlen(conf->realms[0].name), 63);
	conf_unref(conf);
	snprintf(text, sizeof(text), "[realm %.64s]\n", name);
	refused(text,
		"1 error: [realm]: found a name of 64 bytes; allowed: up "
		"to 63\n"
		"0 warning: no [user NAME] section and no secret: only users of the "
		"database (culvertctl user add) can use this "
		"server\n");
}

static void errors_without_end_are_cut(void **state)
{
	char *text = malloc(40000);
	struct conf *conf;
	size_t len = 0;

	(void)state;
	assert_non_null(text);
	len += (size_t)sprintf(text, USABLE "[server]\n");
	for (int i = 0; i < 2000; i++)
		len += (size_t)sprintf(text + len, "k%d=1\n", i);
	assert_int_equal(parse_bytes(text, len, &conf), -EINVAL);
	assert_int_equal(reports.errors, 1001);
	assert_non_null(strstr(reports.text, "more errors than can be shown"));
	free(text);
}

static void many_listeners_are_refused(void **state)
{
	char text[4000];
	struct conf *conf;
	size_t len = 0;

	(void)state;
	for (int i = 0; i < 65; i++)
		len += (size_t)sprintf(text + len,
				       "[listener l%d]\naddress = ::1:%d\n", i,
				       i + 1);
	assert_int_equal(parse_bytes(text, len, &conf), -EINVAL);
	assert_non_null(strstr(reports.text,
			       "129 error: [listener l64]: found one more; "
			       "allowed: at most 64\n"));
}

static void references_keep_it_alive(void **state)
{
	struct conf *conf = accepted(USABLE);

	(void)state;
	assert_ptr_equal(conf_ref(conf), conf);
	conf_unref(conf);
	assert_string_equal(conf->users[0].name, "alice");
	conf_unref(conf);
	conf_unref(NULL);
}

static void file_write(char path[40], const char *text, mode_t mode)
{
	int fd;

	strcpy(path, "/tmp/culvert-conf-XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
}

static int load(const char *path, struct conf **out, char **text, size_t *len)
{
	reports.len = 0;
	reports.text[0] = '\0';
	reports.errors = reports.warnings = 0;
	return conf_load(path, collect, &reports, out, text, len);
}

/* What a TLS listener names is read with it, and fits into another process. */
static void files_that_keys_name_come_along(void **state)
{
	char path[40], certificate[40], key[40], text[400];
	struct conf *conf = NULL, *again;
	uint8_t *packed;
	size_t len;

	(void)state;
	file_write(certificate, "a certificate", 0644);
	file_write(key, "a key", 0600);
	snprintf(text, sizeof(text),
		 USABLE TLS "certificate = %s\nprivate_key = %s\n", certificate,
		 key);
	file_write(path, text, 0600);
	assert_int_equal(load(path, &conf, NULL, NULL), 0);
	assert_int_equal(reports.warnings, 0);
	assert_string_equal(conf->listeners[0].certificates[0].text,
			    "a certificate");
	assert_int_equal(conf->listeners[0].private_keys[0].len, 5);
	again = accepted(text);
	assert_null(again->listeners[0].private_keys[0].text);
	assert_int_equal(conf_files_pack(conf, &packed, &len), 0);
	assert_int_equal(conf_files_unpack(again, packed, len), 0);
	assert_string_equal(again->listeners[0].private_keys[0].text, "a key");
	conf_unref(again);
	for (size_t cut = 0; cut < len; cut++) {
		again = accepted(text);
		assert_int_equal(conf_files_unpack(again, packed, cut),
				 -EBADMSG);
		conf_unref(again);
	}
	free(packed);
	conf_unref(conf);
	assert_int_equal(chmod(key, 0604), 0);
	assert_int_equal(load(path, &conf, NULL, NULL), 0);
	assert_non_null(strstr(reports.text, "7 warning: [listener t] "
					     "private_key: found \""));
	conf_unref(conf);
	unlink(key);
	assert_int_equal(load(path, &conf, NULL, NULL), -ENOENT);
	assert_non_null(strstr(reports.text, "cannot be read: No such file"));
	unlink(certificate);
	unlink(path);
}

static void files_are_loaded_with_their_text(void **state)
{
	char path[40], *text = NULL;
	struct conf *conf = NULL;
	size_t len = 0;

	(void)state;
	file_write(path, USABLE, 0600);
	assert_int_equal(load(path, &conf, &text, &len), 0);
	assert_int_equal(reports.warnings, 0);
	assert_int_equal(len, strlen(USABLE));
	assert_string_equal(text, USABLE);
	free(text);
	conf_unref(conf);
	assert_int_equal(load(path, &conf, NULL, NULL), 0);
	conf_unref(conf);
	unlink(path);
}

static void passwords_open_to_all_draw_a_warning(void **state)
{
	char path[40];
	struct conf *conf = NULL;

	(void)state;
	file_write(path, USABLE, 0644);
	assert_int_equal(load(path, &conf, NULL, NULL), 0);
	assert_string_equal(reports.text,
			    "0 warning: every user of this system can read the "
			    "passwords in this file: chmod o-r it\n");
	conf_unref(conf);
	unlink(path);
}

static void unreadable_files_are_reported(void **state)
{
	char path[40], *text = (char *)(uintptr_t)1;
	struct conf *conf = NULL;

	(void)state;
	assert_int_equal(load("/nonexistent/culvert.conf", &conf, NULL, NULL),
			 -ENOENT);
	assert_string_equal(reports.text, "0 error: cannot be read: No such "
					  "file or directory\n");
	assert_int_equal(load("/tmp", &conf, NULL, NULL), -EISDIR);
	file_write(path, "[nonsense]\n", 0600);
	assert_int_equal(load(path, &conf, &text, NULL), -EINVAL);
	assert_true(text == (char *)(uintptr_t)1);
	assert_int_equal(truncate(path, (4 << 20) + 1), 0);
	assert_int_equal(load(path, &conf, NULL, NULL), -EFBIG);
	assert_int_equal(reports.errors, 1);
	assert_null(conf);
	unlink(path);
}

static void parse_without_memory(void *arg)
{
	struct conf *conf = NULL;
	int err = parse_bytes(every_key, strlen(every_key), &conf);

	(void)arg;
	if (failalloc_hit()) {
		/* A table that cannot grow still works. */
		if (!err) {
			conf_unref(conf);
			return;
		}
		assert_int_equal(err, -ENOMEM);
		assert_int_equal(reports.errors, 1);
		assert_non_null(strstr(reports.text, "no memory"));
		assert_null(conf);
		return;
	}
	assert_int_equal(err, 0);
	conf_unref(conf);
}

static void a_lack_of_memory_is_reported_and_leaks_nothing(void **state)
{
	(void)state;
	assert_true(failalloc_sweep(parse_without_memory, NULL) > 40);
}

static void load_without_memory(void *path)
{
	struct conf *conf = NULL;
	int err = load(path, &conf, NULL, NULL);

	assert_true(err == 0 || (failalloc_hit() && err == -ENOMEM));
	if (!err)
		conf_unref(conf);
}

static void loading_survives_a_lack_of_memory(void **state)
{
	char path[40];

	(void)state;
	file_write(path, USABLE, 0600);
	assert_true(failalloc_sweep(load_without_memory, path) > 10);
	unlink(path);
}

/* A whole file in memory; the caller frees it. */
static char *slurp(const char *path)
{
	FILE *file = fopen(path, "r");
	char *text = calloc(1, 200000);

	assert_non_null(text);
	if (!file)
		fail_msg("%s: %s (run in the top folder)", path,
			 strerror(errno));
	assert_true(fread(text, 1, 199999, file) > 0);
	fclose(file);
	return text;
}

static void the_manual_has_the_reference_of_the_key_table(void **state)
{
	char *manual = slurp(MANUAL), *begin, *end, *made = NULL;
	size_t len = 0;
	FILE *memory = open_memstream(&made, &len);

	(void)state;
	assert_non_null(memory);
	assert_int_equal(conf_write_reference(memory), 0);
	fclose(memory);
	begin = strstr(manual, MANUAL_BEGIN);
	end = strstr(manual, MANUAL_END);
	assert_true(begin && end && begin < end);
	begin += strlen(MANUAL_BEGIN);
	if (getenv("CULVERT_UPDATE")) {
		FILE *file = fopen(MANUAL, "w");

		assert_non_null(file);
		fprintf(file, "%.*s%s%s", (int)(begin - manual), manual, made,
			end);
		fclose(file);
	} else if (strlen(made) != (size_t)(end - begin) ||
		   memcmp(begin, made, len) != 0) {
		fail_msg("%s is not up to date: run this test again with "
			 "CULVERT_UPDATE=1",
			 MANUAL);
	}
	free(made);
	free(manual);
}

static void the_examples_of_the_manual_are_right(void **state)
{
	static const char begin[] = ".Bd -literal -offset indent\n";
	char *manual = slurp(MANUAL), *at = manual;
	unsigned int examples = 0;

	(void)state;
	while ((at = strstr(at, begin)) != NULL) {
		char *text = at + strlen(begin), *end = strstr(text, ".Ed\n");
		struct conf *conf = NULL;

		assert_non_null(end);
		if (parse_bytes(text, (size_t)(end - text), &conf) ||
		    reports.warnings)
			fail_msg("%s", reports.text);
		conf_unref(conf);
		examples++;
		at = end;
	}
	assert_true(examples >= 2);
	free(manual);
}

/* As clients send them (RFC 8489 9.2.2), however they were typed. */
static void names_and_passwords_are_prepared(void **state)
{
	struct conf *conf;

	(void)state;
	conf = accepted("[listener a]\nrealm = E\u0301.org\n"
			"[realm \u00c9.org]\n"
			"[user Ame\u0301lie]\nrealm = E\u0301.org\n"
			"password = open\u00a0se\u0301same\n"
			"[user x]\nname = o\u0308\npassword = \ufb01\n");
	assert_string_equal(conf->listeners[0].realm, "\u00c9.org");
	assert_string_equal(conf->users[0].name, "Am\u00e9lie");
	assert_string_equal(conf->users[0].realm, conf->realms[0].name);
	assert_string_equal(conf->users[0].password, "open s\u00e9same");
	assert_string_equal(conf->users[1].name, "\u00f6");
	assert_string_equal(conf->users[1].password, "\ufb01");
	conf_unref(conf);
	refused("[realm a]\n[user e\u0301]\npassword = x\n"
		"[user \u00e9]\npassword = x\n",
		"4 error: [user \u00e9]: found twice, first in line 2; "
		"allowed: once\n");
	refused("[realm a\u200b]\n[user b]\npassword = x\n",
		"1 error: [realm]: found \"a\u200b\" as the name; allowed: up "
		"to 63 bytes of " OPAQUE_ALLOWED "\n"
		"2 error: [user b]: found no realm for this user; allowed: a "
		"section such as [realm example.org]\n");
	refused("[realm a]\n[user b]\npassword = x\ty\n",
		"3 error: [user b] password: found a value of 3 bytes (not "
		"shown); allowed: text of 1 to 900 bytes of " OPAQUE_ALLOWED
		"\n");
}

/* An id may have a colon; the last one ends it. */
static void each_key_of_tokens_has_an_id_of_its_own(void **state)
{
	struct conf *conf;

	(void)state;
	conf = accepted(USABLE "[realm b]\noauth = x\n"
			       "oauth_key = a:" HEX32 "\n"
			       "oauth_key = a:b:" HEX32 "\n");
	assert_int_equal(conf->realms[1].oauth_key_count, 2);
	conf_unref(conf);
	refused(USABLE "[realm b]\noauth = x\n"
		       "oauth_key = a:" HEX32 "\n"
		       "oauth_key = a:" HEX32 HEX32 "\n",
		"6 error: [realm b] oauth_key: found two with the same id; "
		"allowed: another id for each key\n");
	refused(USABLE "[realm b]\noauth = x\noauth_key = :" HEX32 HEX32 "\n",
		"6 error: [realm b] oauth_key: found one that is none (not "
		"shown); allowed: an id of 1 to 32 bytes, a colon, and 32 or "
		"64 hexadecimal digits\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_and_passwords_are_prepared),
		cmocka_unit_test(each_key_of_tokens_has_an_id_of_its_own),
		cmocka_unit_test(an_empty_text_gives_a_server_nobody_can_use),
		cmocka_unit_test(defaults_are_the_documented_ones),
		cmocka_unit_test(every_key_is_read),
		cmocka_unit_test(users_get_realm_name_and_secret),
		cmocka_unit_test(realms_and_users_inherit_quotas),
		cmocka_unit_test(durations_and_sizes_take_units),
		cmocka_unit_test(wrong_values_are_refused_with_what_is_allowed),
		cmocka_unit_test(wrong_addresses_are_refused),
		cmocka_unit_test(empty_lists_mean_none_where_that_makes_sense),
		cmocka_unit_test(lists_of_prefixes_add_up),
		cmocka_unit_test(peers_are_named_by_prefix_and_port),
		cmocka_unit_test(peers_and_translators_are_checked),
		cmocka_unit_test(all_errors_are_reported_at_once),
		cmocka_unit_test(repeats_are_refused),
		cmocka_unit_test(realms_must_fit_users_and_listeners),
		cmocka_unit_test(a_tls_listener_has_a_key_for_each_certificate),
		cmocka_unit_test(a_dtls_listener_is_one_for_datagrams),
		cmocka_unit_test(files_that_keys_name_come_along),
		cmocka_unit_test(a_user_has_exactly_one_secret),
		cmocka_unit_test(an_alternate_makes_four_sockets_of_one),
		cmocka_unit_test(an_alternate_must_differ_in_both),
		cmocka_unit_test(alternates_are_read_and_judged),
		cmocka_unit_test(a_realm_has_users_or_secrets),
		cmocka_unit_test(a_digest_may_be_of_either_kind_or_of_both),
		cmocka_unit_test(a_realm_with_each_digest_alone_is_refused),
		cmocka_unit_test(udp_and_tcp_may_have_the_same_port),
		cmocka_unit_test(overlapping_listeners_are_refused),
		cmocka_unit_test(lifetimes_must_be_in_order),
		cmocka_unit_test(odd_but_possible_values_draw_a_warning),
		cmocka_unit_test(passwords_survive_or_are_refused),
		cmocka_unit_test(no_report_shows_a_password),
		cmocka_unit_test(comments_and_white_space_are_passed_over),
		cmocka_unit_test(comments_need_white_space_before_them),
		cmocka_unit_test(indented_lines_are_keys_of_their_own),
		cmocka_unit_test(long_lines_are_refused_and_counted_once),
		cmocka_unit_test(odd_bytes_are_refused),
		cmocka_unit_test(long_wrong_values_are_cut_between_characters),
		cmocka_unit_test(names_of_sections_have_their_limit),
		cmocka_unit_test(errors_without_end_are_cut),
		cmocka_unit_test(many_listeners_are_refused),
		cmocka_unit_test(references_keep_it_alive),
		cmocka_unit_test(files_are_loaded_with_their_text),
		cmocka_unit_test(passwords_open_to_all_draw_a_warning),
		cmocka_unit_test(engines_are_pinned_by_realm_and_user),
		cmocka_unit_test(exits_are_read),
		cmocka_unit_test(an_address_leaves_by_the_longest_prefix),
		cmocka_unit_test(exits_that_contradict_themselves_are_refused),
		cmocka_unit_test(wire_is_set_up_as_told),
		cmocka_unit_test(unreadable_files_are_reported),
		cmocka_unit_test(
			a_lack_of_memory_is_reported_and_leaks_nothing),
		cmocka_unit_test(loading_survives_a_lack_of_memory),
		cmocka_unit_test(the_manual_has_the_reference_of_the_key_table),
		cmocka_unit_test(the_examples_of_the_manual_are_right),
	};

	return cmocka_run_group_tests_name("conf", tests, NULL, NULL);
}
