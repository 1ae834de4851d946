/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Set-up rates: how often a second can a client begin?
 *
 * Each of `in_flight` slots goes round: allocation (kept, in the case "pairs") ->
 * Connect and ConnectionBind, or a plain connect -> one message there and back
 * -> close. A round that fails is counted and the slot begins anew; when
 * failures are the rule the run ends with the first one's reason. Slots begin
 * from deferred work only: the callback that ended a round may still stand on
 * the session that the next round opens again.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "load.h"

#define ROUNDS_MAX   (1u << 20)
#define FAILURES_MAX 1000
#define STALLED_NS   900000000u

struct slot {
	struct load_conn conn;
	struct dial_session session;
	struct deferred begin;
	struct setup *setup;
	uint64_t began; /* ns */
};

struct setup {
	struct load *load;
	struct slot *slots;
	bool keep; /* the allocation outlives a round */
	uint32_t sequence; /* rounds begun: spreads targets and sources */
	uint64_t rounds, failures;
	struct load_times times; /* us */
	int first_error;
};

static struct setup the_setup;

static void slot_begin(struct deferred *deferred);

static void slot_failed(struct slot *slot, int error)
{
	struct setup *setup = slot->setup;

	if (!setup->failures++)
		setup->first_error = error;
	dial_conn_close(&slot->conn.dial);
	dial_session_close(&slot->session);
	if (setup->failures > FAILURES_MAX && setup->failures > setup->rounds)
		load_fail(setup->load, "set-up", setup->first_error);
	else
		loop_defer(setup->load->loop, &slot->begin, slot_begin);
}

static void slot_finished(struct slot *slot)
{
	struct setup *setup = slot->setup;

	if (setup->load->measuring) {
		setup->rounds++;
		times_add(&setup->times,
			  (uint32_t)((clock_ns() - slot->began) / 1000));
	}
	setup->load->received += setup->load->options.size;
	dial_conn_close(&slot->conn.dial);
	if (!setup->keep)
		dial_session_close(&slot->session);
	loop_defer(setup->load->loop, &slot->begin, slot_begin);
}

static void reply_ready(struct watch *watch, uint32_t events)
{
	struct slot *slot = list_entry(watch, struct slot, conn.dial.watch);
	uint32_t size = slot->setup->load->options.size;
	uint8_t buf[8192];
	ssize_t got = recv(watch->fd, buf, size - slot->conn.got, MSG_DONTWAIT);

	(void)events;
	if (got < 0 && errno == EAGAIN)
		return;
	if (got <= 0) {
		slot_failed(slot, got < 0 ? -errno : -EPIPE);
		return;
	}
	slot->conn.got += (uint32_t)got;
	if (slot->conn.got == size)
		slot_finished(slot);
}

static void slot_connected(struct dial_conn *dial, int error)
{
	struct slot *slot = list_entry(dial, struct slot, conn.dial);
	struct load *load = slot->setup->load;

	if (!error)
		error = pool_hello(&slot->conn, load->options.size);
	if (error) {
		slot_failed(slot, error);
		return;
	}
	dial->watch.fn = reply_ready;
	watch_set(load->loop, &dial->watch, EPOLLIN);
}

static void slot_connect(struct slot *slot, struct dial_session *session)
{
	struct setup *setup = slot->setup;
	struct load *load = setup->load;
	int error;

	slot->conn.load = load;
	slot->conn.got = 0;
	error = dial_conn_open(&slot->conn.dial, load->loop,
			       &load->options.dial, session, setup->sequence,
			       setup->sequence, slot_connected);
	if (error)
		slot_failed(slot, error);
}

static void slot_allocated(struct dial_session *session, int error)
{
	struct slot *slot = list_entry(session, struct slot, session);

	if (error)
		slot_failed(slot, error);
	else
		slot_connect(slot, session);
}

static void slot_begin(struct deferred *deferred)
{
	struct slot *slot = list_entry(deferred, struct slot, begin);
	struct setup *setup = slot->setup;
	struct load *load = setup->load;
	int error;

	slot->began = clock_ns();
	setup->sequence++;
	if (!load->options.dial.turn) {
		slot_connect(slot, NULL);
		return;
	}
	if (slot->session.watch.fd >= 0) {
		slot_connect(slot, &slot->session);
		return;
	}
	error = dial_session_open(&slot->session, load->loop,
				  &load->options.dial, setup->sequence,
				  slot_allocated);
	if (error)
		slot_failed(slot, error);
}

/* A round that lasts this long waits for something that never comes. */
static void stalled_count(struct setup *setup)
{
	uint64_t now = clock_ns();

	for (uint32_t i = 0; i < setup->load->options.in_flight; i++) {
		if (now - setup->slots[i].began < STALLED_NS)
			continue;
		if (!setup->failures++)
			setup->first_error = -ETIMEDOUT;
	}
}

static void setup_done(struct timer *timer)
{
	struct load *load = list_entry(timer, struct load, phase);
	struct setup *setup = &the_setup;
	struct load_sample end;

	load_sample(load, &end);
	stalled_count(setup);
	times_sort(&setup->times);
	load_print_window(load, &end);
	printf(", \"rounds\": %llu, \"failures\": %llu, \"first_failure\": "
	       "\"%s\", \"p50_us\": %u, \"p99_us\": %u}\n",
	       (unsigned long long)setup->rounds,
	       (unsigned long long)setup->failures,
	       setup->failures ? dial_error(setup->first_error) : "",
	       times_quantile(&setup->times, 0.5),
	       times_quantile(&setup->times, 0.99));
	load_end(load);
}

static int setup_begin(struct load *load, bool keep)
{
	struct setup *setup = &the_setup;
	uint32_t count = load->options.in_flight;
	int error = times_new(&setup->times, ROUNDS_MAX);

	setup->slots = calloc(count, sizeof(*setup->slots));
	if (error || !setup->slots)
		return -ENOMEM;
	setup->load = load;
	setup->keep = keep;
	for (uint32_t i = 0; i < count; i++) {
		struct slot *slot = &setup->slots[i];

		slot->setup = setup;
		slot->session.watch.fd = -1;
		slot->conn.dial.watch.fd = -1;
		list_init(&slot->conn.dial.link);
		loop_defer(load->loop, &slot->begin, slot_begin);
	}
	load_window(load, setup_done);
	return 0;
}

int setup_run(struct load *load)
{
	return setup_begin(load, false);
}

int setup_pairs_run(struct load *load)
{
	return setup_begin(load, true);
}
