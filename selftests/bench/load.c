/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * load: the near end of measured connections.
 *
 * `load CASE OPTIONS` opens its connections, warms up, measures one window and
 * prints one JSON line. Both ends of the window are read at one instant:
 * time, bytes that reached the receiving ends, processor time of the relay
 * (--pid) and of the machine. Anything that fails prints {"ok": false, ...}
 * and exits with 1: no figure is better than a wrong one.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "lib/load.h"

static void watchdog_expired(struct timer *timer)
{
	load_fail(list_entry(timer, struct load, watchdog), "run", -ETIMEDOUT);
}

enum option_id {
	OPT_CONNECT = 256,
	OPT_TURN,
	OPT_USER,
	OPT_PASSWORD,
	OPT_PEER,
	OPT_TARGETS,
	OPT_SOURCE,
	OPT_SOURCES,
	OPT_CONNECTIONS,
	OPT_ALLOCATIONS,
	OPT_IN_FLIGHT,
	OPT_WARMUP,
	OPT_DURATION,
	OPT_TIMEOUT,
	OPT_SIZE,
	OPT_BYTES,
	OPT_PID,
	OPT_STATS,
};

static const struct option option_table[] = {
	{ "connect", required_argument, NULL, OPT_CONNECT },
	{ "turn", required_argument, NULL, OPT_TURN },
	{ "user", required_argument, NULL, OPT_USER },
	{ "password", required_argument, NULL, OPT_PASSWORD },
	{ "peer", required_argument, NULL, OPT_PEER },
	{ "targets", required_argument, NULL, OPT_TARGETS },
	{ "source", required_argument, NULL, OPT_SOURCE },
	{ "sources", required_argument, NULL, OPT_SOURCES },
	{ "connections", required_argument, NULL, OPT_CONNECTIONS },
	{ "allocations", required_argument, NULL, OPT_ALLOCATIONS },
	{ "in-flight", required_argument, NULL, OPT_IN_FLIGHT },
	{ "warmup", required_argument, NULL, OPT_WARMUP },
	{ "duration", required_argument, NULL, OPT_DURATION },
	{ "timeout", required_argument, NULL, OPT_TIMEOUT },
	{ "size", required_argument, NULL, OPT_SIZE },
	{ "bytes", required_argument, NULL, OPT_BYTES },
	{ "pid", required_argument, NULL, OPT_PID },
	{ "stats", required_argument, NULL, OPT_STATS },
	{ NULL, 0, NULL, 0 },
};

static int number_parse(const char *text, uint64_t min, uint64_t max,
			uint64_t *out)
{
	char *end;
	unsigned long long value;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno || end == text || *end || value < min || value > max)
		return -EINVAL;
	*out = value;
	return 0;
}

static int u32_parse(const char *text, uint32_t min, uint32_t max,
		     uint32_t *out)
{
	uint64_t value;
	int error = number_parse(text, min, max, &value);

	if (!error)
		*out = (uint32_t)value;
	return error;
}

static int address_option(struct dial_conf *dial, int id, const char *text)
{
	switch (id) {
	case OPT_TURN:
		dial->turn = true;
		return addr_parse(text, 3478, &dial->server);
	case OPT_CONNECT:
		return addr_parse(text, 0, &dial->server);
	case OPT_PEER:
		return addr_parse(text, 0, &dial->peer);
	case OPT_SOURCE:
		return addr_parse(text, 0, &dial->source);
	case OPT_TARGETS:
		return u32_parse(text, 1, 1u << 20, &dial->targets);
	case OPT_SOURCES:
		return u32_parse(text, 1, 1u << 16, &dial->sources);
	case OPT_USER:
		dial->user = text;
		return 0;
	case OPT_PASSWORD:
		dial->password = text;
		return 0;
	}
	return -ENOENT;
}

static int load_option(struct load *load, int id, const char *text)
{
	struct load_options *options = &load->options;

	switch (id) {
	case OPT_CONNECTIONS:
		return u32_parse(text, 1, 19000, &options->connections);
	case OPT_ALLOCATIONS:
		return u32_parse(text, 0, 9000, &options->allocations);
	case OPT_IN_FLIGHT:
		return u32_parse(text, 1, 1024, &options->in_flight);
	case OPT_WARMUP:
		return u32_parse(text, 0, 60000, &options->warmup_ms);
	case OPT_DURATION:
		return u32_parse(text, 10, 600000, &options->duration_ms);
	case OPT_TIMEOUT:
		return u32_parse(text, 10, 3600000, &options->timeout_ms);
	case OPT_SIZE:
		return u32_parse(text, 1, 8192, &options->size);
	case OPT_BYTES:
		return number_parse(text, 1, 1ull << 40, &options->bytes);
	case OPT_PID:
		return cpu_set_parse(text, &options->cpus);
	case OPT_STATS:
		return bench_stats_map(text, 0, &load->stats);
	}
	return address_option(&options->dial, id, text);
}

static int usage(void)
{
	fputs("usage: load CASE --stats FILE (--connect ADDR:PORT | --turn "
	      "ADDR:PORT --user U --password P --peer ADDR:PORT)\n"
	      "            [--targets N] [--source ADDR --sources N] "
	      "[--connections N] [--allocations N] [--in-flight N]\n"
	      "            [--warmup MS] [--duration MS] [--timeout MS] "
	      "[--size BYTES] [--bytes N] [--pid PID,...]\n"
	      "cases:",
	      stderr);
	for (const struct load_case *kind = load_cases; kind->name; kind++)
		fprintf(stderr, " %s", kind->name);
	fputs("\n", stderr);
	return 2;
}

static bool options_complete(const struct load *load)
{
	const struct dial_conf *dial = &load->options.dial;

	if (!load->kind || !load->stats ||
	    addr_family(&dial->server) == AF_UNSPEC)
		return false;
	return !dial->turn || (dial->user && dial->password &&
			       addr_family(&dial->peer) != AF_UNSPEC);
}

static bool options_parse(struct load *load, int argc, char **argv)
{
	int id;

	while ((id = getopt_long(argc, argv, "", option_table, NULL)) != -1) {
		int error = id == '?' ? -EINVAL : load_option(load, id, optarg);

		if (!error)
			continue;
		if (id != '?')
			fprintf(stderr, "load: bad value '%s': %s\n", optarg,
				strerror(-error));
		return false;
	}
	for (const struct load_case *kind = load_cases;
	     optind < argc && kind->name; kind++)
		if (!strcmp(kind->name, argv[optind]))
			load->kind = kind;
	return options_complete(load);
}

int main(int argc, char **argv)
{
	struct load load = {
		.options = {
			.dial = { .targets = 1, .sources = 1 },
			.connections = 1,
			.in_flight = 64,
			.warmup_ms = 500,
			.duration_ms = 3000,
			.timeout_ms = 60000,
			.size = 64,
			.bytes = 1 << 20,
		},
	};
	int error;

	if (!options_parse(&load, argc, argv))
		return usage();
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	error = loop_new(&load.loop);
	if (error) {
		fprintf(stderr, "load: loop: %s\n", strerror(-error));
		return 1;
	}
	timer_arm(load.loop, &load.watchdog, load.options.timeout_ms,
		  watchdog_expired);
	error = load.kind->run(&load);
	if (error)
		load_fail(&load, "start", error);
	else
		error = loop_run(load.loop);
	pool_close(&load);
	loop_free(load.loop);
	return load.status || error ? 1 : 0;
}
