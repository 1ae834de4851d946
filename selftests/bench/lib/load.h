/* SPDX-License-Identifier: BSD-2-Clause */
/* The load generator's parts: options, the pool of connections, the cases. */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include <stddef.h>
#include <stdint.h>

#include "cpu.h"
#include "dial.h"
#include "flow.h"
#include "proto.h"

struct load;

struct load_options {
	struct dial_conf dial;
	uint32_t connections;
	uint32_t allocations; /* 0: one for each connection */
	uint32_t in_flight; /* set-ups at once */
	uint32_t warmup_ms, duration_ms, timeout_ms;
	uint32_t size; /* bytes of a message */
	uint64_t bytes; /* each way, when checking */
	struct cpu_set cpus; /* the relay's processes */
};

struct load_session {
	struct dial_session dial;
	struct load *load;
};

/* One connection of the pool, with what the cases keep per connection. */
struct load_conn {
	struct dial_conn dial;
	struct load *load;
	struct flow flow;
	uint32_t index;
	uint64_t sent_at; /* ns: when the message under way left */
	uint32_t got; /* bytes of its echo, or of the verdict */
	struct bench_verdict verdict;
};

/* Both ends of the measuring window. */
struct load_sample {
	uint64_t ns;
	uint64_t bytes;
	double relay_seconds, machine_seconds;
};

struct load {
	struct loop *loop;
	struct load_options options;
	const struct load_case *kind;
	struct bench_stats *stats;
	struct load_session *sessions;
	struct load_conn *conns;
	uint32_t sessions_asked, sessions_open;
	uint32_t conns_asked, conns_open;
	struct timer phase; /* end of the warm-up, then of the window */
	struct timer watchdog;
	uint64_t received; /* bytes that came back on all connections */
	uint32_t finished; /* connections through with their work */
	uint32_t broken; /* of these, with wrong bytes */
	struct load_sample begin;
	bool measuring;
	int status; /* the program's exit status */
};

/* A case: how its connections greet and what happens when all are open. */
struct load_case {
	const char *name;
	enum bench_mode mode;
	/* NULL `run`: open the pool, then `start`. */
	int (*run)(struct load *load);
	void (*start)(struct load *load);
};

extern const struct load_case load_cases[];

/* Opens options.connections through options.allocations; then kind->start. */
int pool_open(struct load *load);
void pool_close(struct load *load);
/* Sends the hello of the case and `extra` zero bytes behind it. */
int pool_hello(struct load_conn *conn, uint32_t extra);

/* Ends the run with a reason; the first one counts. */
void load_fail(struct load *load, const char *what, int error);
void load_end(struct load *load);

/* Bytes that reached the receiving ends so far. */
uint64_t load_bytes(const struct load *load);
void load_sample(const struct load *load, struct load_sample *out);
/* Prints the JSON fields every measured window has, without the bracket. */
void load_print_window(const struct load *load, const struct load_sample *end);
/* Warm-up, then `begin` is taken, then `done` is called at the window's end. */
void load_window(struct load *load, void (*done)(struct timer *timer));

/* Set-up rates: a case of its own kind, without a pool. */
int setup_run(struct load *load);
int setup_pairs_run(struct load *load);

/* Times in ns or us, kept while load.measuring; a full store takes no more. */
struct load_times {
	uint32_t *values;
	size_t count, room;
};

int times_new(struct load_times *times, size_t room); /* 0 or -ENOMEM */
void times_free(struct load_times *times);
void times_add(struct load_times *times, uint32_t value);
void times_sort(struct load_times *times);
/* Of sorted values; q in 0..1. 0 without any. */
uint32_t times_quantile(const struct load_times *times, double q);

#endif
