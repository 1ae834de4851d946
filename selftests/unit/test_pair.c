/* SPDX-License-Identifier: BSD-2-Clause */
/* The splice pair, with every engine: no byte lost, every end passed on. */
#include "unit/pair_rig.h"

#include <fcntl.h>
#include <sys/resource.h>

#include "unit/open_files.h"

#define MIB (1u << 20)

static int setup(void **state)
{
	*state = rig_new(*state);
	return *state ? 0 : -1;
}

static int teardown(void **state)
{
	rig_free(*state);
	return 0;
}

static void until_closed(struct rig *rig)
{
	RIG_UNTIL(rig->loop, rig->end, rig->closed);
	assert_int_equal(rig->closed, 1);
	/* Neither the pair nor the engine comes back once more. */
	for (int i = 0; i < 3; i++)
		loop_tick(rig->loop, 0);
	assert_int_equal(rig->closed, 1);
}

static void relays_bulk_both_ways_at_once(void **state)
{
	struct rig *rig = *state;

	rig->end[0].to_send = 12 * MIB + 12345;
	rig->end[1].to_send = 9 * MIB + 1;
	rig->end[0].fin = rig->end[1].fin = true;
	join(rig);
	until_closed(rig);
	assert_int_equal(rig->how, PAIR_END_FIN);
	RIG_UNTIL(rig->loop, rig->end, rig->end[0].eof && rig->end[1].eof);
	assert_int_equal(rig->end[0].got, rig->end[1].to_send);
	assert_int_equal(rig->end[1].got, rig->end[0].to_send);
	assert_int_equal(rig->last.bytes[PAIR_CLIENT], rig->end[1].to_send);
	assert_int_equal(rig->last.bytes[PAIR_PEER], rig->end[0].to_send);
}

static void relays_tiny_writes_as_they_come(void **state)
{
	struct rig *rig = *state;
	struct pair_info info;

	join(rig);
	for (unsigned int i = 0; i < 300; i++) {
		struct end *from = &rig->end[i & 1], *to = &rig->end[!(i & 1)];

		from->to_send += 1 + i % 7;
		RIG_UNTIL(rig->loop, rig->end, to->got == from->to_send);
	}
	pair_get_info(rig->pair, &info);
	assert_int_equal(info.state, PAIR_RELAYING);
	assert_string_not_equal(info.engine, "-");
	assert_true(info.idle_ms < WAIT_MS);
}

/* Sizes around every threshold, so that copying and splicing alternate. */
static void relays_bursts_of_mixed_sizes(void **state)
{
	static const size_t sizes[] = { 1,     100,    16383, 16384,  16385,
					65536, 200000, 10,    300000, 3,
					5,     7,      11,    13,     500000 };
	struct rig *rig = *state;

	join(rig);
	for (size_t i = 0; i < 4 * sizeof(sizes) / sizeof(sizes[0]); i++) {
		size_t size = sizes[i % (sizeof(sizes) / sizeof(sizes[0]))];

		rig->end[0].to_send += size;
		rig->end[1].to_send += size / 2;
		RIG_UNTIL(rig->loop, rig->end,
			  rig->end[1].got == rig->end[0].to_send &&
				  rig->end[0].got == rig->end[1].to_send);
	}
}

/* Every write is short: what is left of it goes first next time. */
static void relays_through_small_send_buffers(void **state)
{
	struct rig *rig = *state;
	const int size = 16000;

	for (int i = 0; i < 2; i++) {
		setsockopt(rig->leg[i], SOL_SOCKET, SO_SNDBUF, &size,
			   sizeof(size));
		rig->end[i].to_send = 2 * MIB + 77;
		rig->end[i].fin = true;
	}
	/* What queues up before the join is then read in one go. */
	rig_stuff(rig->loop, rig->end);
	join(rig);
	until_closed(rig);
	assert_int_equal(rig->how, PAIR_END_FIN);
	RIG_UNTIL(rig->loop, rig->end, rig->end[0].eof && rig->end[1].eof);
	assert_int_equal(rig->end[0].got, 2 * MIB + 77);
	assert_int_equal(rig->end[1].got, 2 * MIB + 77);
}

static void half_close(struct rig *rig, int i)
{
	rig->end[i].to_send = 3 * MIB;
	rig->end[i].fin = true;
	join(rig);
	RIG_UNTIL(rig->loop, rig->end, rig->end[!i].eof);
	assert_int_equal(rig->end[!i].got, 3 * MIB);
	assert_int_equal(state_of(rig), PAIR_CLOSING);
	rig->end[!i].to_send = 4 * MIB; /* the answer */
	RIG_UNTIL(rig->loop, rig->end, rig->end[i].got == 4 * MIB);
	assert_false(rig->end[i].eof);
	rig->end[!i].fin = true;
	until_closed(rig);
	assert_int_equal(rig->how, PAIR_END_FIN);
	RIG_UNTIL(rig->loop, rig->end, rig->end[i].eof);
	assert_int_equal(rig->end[i].error, 0);
}

static void answers_after_the_client_half_closed(void **state)
{
	half_close(*state, PAIR_CLIENT);
}

static void answers_after_the_peer_half_closed(void **state)
{
	half_close(*state, PAIR_PEER);
}

static void takes_data_and_fin_from_before_the_join(void **state)
{
	struct rig *rig = *state;

	for (int i = 0; i < 2; i++) {
		rig->end[i].to_send = 30000;
		assert_true(end_send(&rig->end[i], 30000));
		shutdown(rig->end[i].fd, SHUT_WR);
		rig->end[i].fin_done = true;
		wait_poll(rig->leg[i], POLLRDHUP);
	}
	join(rig);
	until_closed(rig);
	assert_int_equal(rig->how, PAIR_END_FIN);
	RIG_UNTIL(rig->loop, rig->end, rig->end[0].eof && rig->end[1].eof);
	assert_int_equal(rig->end[0].got, 30000);
	assert_int_equal(rig->end[1].got, 30000);
}

static void takes_any_amount_from_before_the_join(void **state)
{
	struct rig *rig = *state;

	/* As much as the kernels take while nobody reads. */
	rig->end[1].to_send = 64 * MIB;
	rig_stuff(rig->loop, rig->end);
	rig->end[1].to_send = rig->end[1].sent;
	assert_true(rig->end[1].sent > MIB / 8);
	join(rig);
	RIG_UNTIL(rig->loop, rig->end, rig->end[0].got == rig->end[1].sent);
}

/* A preface is the pattern's beginning: what is relayed then continues it. */
static uint8_t *preface_make(size_t len, uint8_t salt)
{
	uint8_t *data = malloc(len);

	assert_non_null(data);
	for (size_t i = 0; i < len; i++)
		data[i] = pattern(i, salt);
	return data;
}

static void join_with_prefaces(struct rig *rig, size_t to_client,
			       size_t to_peer)
{
	const size_t len[2] = { to_client, to_peer };
	uint8_t *preface[2];

	for (int i = 0; i < 2; i++) {
		preface[i] = preface_make(len[i] + 1, rig->end[!i].salt);
		rig->params.half[i].preface = preface[i];
		rig->params.half[i].preface_len = len[i];
		rig->end[!i].sent = rig->end[!i].to_send = len[i];
	}
	join(rig);
	free(preface[0]); /* it was copied */
	free(preface[1]);
}

static void sends_both_prefaces_before_relayed_bytes(void **state)
{
	struct rig *rig = *state;

	/* What the ends send is there before the prefaces are. */
	rig->end[0].sent = rig->end[1].sent = 100;
	rig->end[0].to_send = rig->end[1].to_send = 5100;
	end_send(&rig->end[0], 5000);
	end_send(&rig->end[1], 5000);
	wait_poll(rig->leg[0], POLLIN);
	wait_poll(rig->leg[1], POLLIN);
	join_with_prefaces(rig, 100, 100);
	assert_int_equal(state_of(rig), PAIR_RELAYING);
	RIG_UNTIL(rig->loop, rig->end,
		  rig->end[0].got == 5100 && rig->end[1].got == 5100);
}

static void waits_for_a_preface_nobody_reads(void **state)
{
	struct rig *rig = *state;
	uint64_t mine;

	rig->end[1].deaf = true;
	join_with_prefaces(rig, 50, 12 * MIB);
	assert_int_equal(state_of(rig), PAIR_FLUSHING);
	rig->end[0].to_send = 13 * MIB;
	rig->end[1].to_send = 1000;
	assert_true(ticks_in(rig->loop, 50) < 50);
	rig_tick(rig->loop, rig->end);
	assert_int_equal(state_of(rig), PAIR_FLUSHING);
	mine = rig->end[0].sent - 12 * MIB;
	assert_true(mine < MIB); /* the loop did not read it */
	assert_int_equal(rig->end[0].got, 50);
	rig->end[1].deaf = false;
	RIG_UNTIL(rig->loop, rig->end,
		  rig->end[1].got == 13 * MIB && rig->end[0].got == 1000);
	assert_int_equal(state_of(rig), PAIR_RELAYING);
}

static void waits_for_the_slower_of_two_prefaces(void **state)
{
	struct rig *rig = *state;

	rig->end[0].deaf = rig->end[1].deaf = true;
	join_with_prefaces(rig, 12 * MIB, 12 * MIB);
	rig->end[0].to_send = rig->end[1].to_send = 12 * MIB + 1000;
	rig->end[0].deaf = false;
	RIG_UNTIL(rig->loop, rig->end, rig->end[0].got == 12 * MIB);
	for (int i = 0; i < 20; i++)
		rig_tick(rig->loop, rig->end);
	assert_int_equal(state_of(rig), PAIR_FLUSHING);
	assert_int_equal(rig->end[0].got, 12 * MIB);
	rig->end[1].deaf = false;
	RIG_UNTIL(rig->loop, rig->end,
		  rig->end[0].got == 12 * MIB + 1000 &&
			  rig->end[1].got == 12 * MIB + 1000);
	assert_int_equal(state_of(rig), PAIR_RELAYING);
}

static void delivers_what_a_half_sent_before_it_died_unjoined(void **state)
{
	struct rig *rig = *state;

	rig->end[1].to_send = 20000;
	end_send(&rig->end[1], 20000);
	wait_acked(rig->end[1].fd);
	end_reset(&rig->end[1]);
	wait_poll(rig->leg[1], POLLHUP);
	join_with_prefaces(rig, 0, 500);
	rig->end[1].sent = 20000;
	until_closed(rig);
	assert_int_equal(rig->how, PAIR_END_RESET);
	RIG_UNTIL(rig->loop, rig->end, rig->end[0].error || rig->end[0].eof);
	assert_int_equal(rig->end[0].got, 20000);
	assert_int_equal(rig->end[0].error, ECONNRESET);
}

static void delivers_what_a_half_sent_before_it_died_flushing(void **state)
{
	struct rig *rig = *state;

	rig->end[1].to_send = 20000;
	end_send(&rig->end[1], 20000);
	wait_acked(rig->end[1].fd);
	rig->end[1].deaf = true;
	join_with_prefaces(rig, 0, 12 * MIB);
	assert_int_equal(state_of(rig), PAIR_FLUSHING);
	rig->end[0].to_send = rig->end[0].sent;
	rig->end[1].to_send = rig->end[1].sent = 20000;
	end_reset(&rig->end[1]);
	until_closed(rig);
	assert_int_equal(rig->how, PAIR_END_RESET);
	RIG_UNTIL(rig->loop, rig->end, rig->end[0].error || rig->end[0].eof);
	assert_int_equal(rig->end[0].got, 20000);
	assert_int_equal(rig->end[0].error, ECONNRESET);
}

static void passes_on_a_reset_after_the_bytes_before_it(struct rig *rig, int i)
{
	rig->end[i].to_send = 60000;
	join(rig);
	while (rig->end[i].sent < 60000)
		end_send(&rig->end[i], 60000);
	wait_acked(rig->end[i].fd);
	end_reset(&rig->end[i]);
	wait_poll(rig->leg[i], POLLHUP);
	until_closed(rig);
	assert_int_equal(rig->how, PAIR_END_RESET);
	RIG_UNTIL(rig->loop, rig->end, rig->end[!i].error || rig->end[!i].eof);
	assert_int_equal(rig->end[!i].got, 60000);
	assert_int_equal(rig->end[!i].error, ECONNRESET);
}

static void passes_on_the_clients_reset(void **state)
{
	passes_on_a_reset_after_the_bytes_before_it(*state, PAIR_CLIENT);
}

static void passes_on_the_peers_reset(void **state)
{
	passes_on_a_reset_after_the_bytes_before_it(*state, PAIR_PEER);
}

/* The reset must wait until the other side has taken what came before. */
static void holds_a_reset_back_behind_a_slow_reader(void **state)
{
	struct rig *rig = *state;

	rig->end[1].deaf = true;
	rig->end[0].to_send = 2 * MIB;
	join(rig);
	RIG_UNTIL(rig->loop, rig->end, rig->end[0].sent == 2 * MIB);
	RIG_UNTIL(rig->loop, rig->end, !fd_unsent(rig->end[0].fd));
	for (int i = 0; i < 50; i++)
		rig_tick(rig->loop, rig->end);
	end_reset(&rig->end[0]);
	assert_true(ticks_in(rig->loop, 200) < 100);
	assert_int_equal(rig->closed, 0);
	rig->end[1].deaf = false;
	until_closed(rig);
	RIG_UNTIL(rig->loop, rig->end, rig->end[1].error || rig->end[1].eof);
	assert_int_equal(rig->end[1].got, 2 * MIB);
	assert_int_equal(rig->end[1].error, ECONNRESET);
}

/* Nothing is left to wait for when the slow reader dies, too. */
static void stops_draining_when_the_reader_dies(void **state)
{
	struct rig *rig = *state;
	uint64_t start;

	rig->params.linger_ms = WAIT_MS;
	rig->end[1].deaf = true;
	rig->end[0].to_send = 2 * MIB;
	join(rig);
	RIG_UNTIL(rig->loop, rig->end, rig->end[0].sent == 2 * MIB);
	RIG_UNTIL(rig->loop, rig->end, !fd_unsent(rig->end[0].fd));
	for (int i = 0; i < 50; i++)
		rig_tick(rig->loop, rig->end);
	end_reset(&rig->end[0]);
	for (int i = 0; i < 50; i++)
		rig_tick(rig->loop, rig->end);
	assert_int_equal(rig->closed, 0);
	end_reset(&rig->end[1]);
	start = clock_ms();
	until_closed(rig);
	assert_true(clock_ms() - start < WAIT_MS / 4);
}

static void resets_after_linger_when_the_reader_is_stuck(void **state)
{
	struct rig *rig = *state;
	uint64_t start;

	rig->params.linger_ms = 200;
	rig->end[1].deaf = true;
	rig->end[0].to_send = 2 * MIB;
	join(rig);
	RIG_UNTIL(rig->loop, rig->end, rig->end[0].sent == 2 * MIB);
	RIG_UNTIL(rig->loop, rig->end, !fd_unsent(rig->end[0].fd));
	for (int i = 0; i < 50; i++)
		rig_tick(rig->loop, rig->end);
	end_reset(&rig->end[0]);
	start = clock_ms();
	until_closed(rig);
	assert_true(clock_ms() - start >= 200);
	assert_int_equal(rig->how, PAIR_END_RESET);
}

/* The peer answers, then dies while the client still sends. */
static void write_error_resets_after_the_answer(void **state)
{
	struct rig *rig = *state;

	join(rig);
	rig->end[1].to_send = 50000;
	while (rig->end[1].sent < 50000)
		end_send(&rig->end[1], 50000);
	wait_acked(rig->end[1].fd);
	end_reset(&rig->end[1]);
	wait_poll(rig->leg[1], POLLHUP);
	/* The relay meets the client's bytes and the reset in one tick. */
	rig->end[0].to_send = 30000;
	end_send(&rig->end[0], 30000);
	wait_poll(rig->leg[0], POLLIN);
	until_closed(rig);
	assert_int_equal(rig->how, PAIR_END_RESET);
	RIG_UNTIL(rig->loop, rig->end, rig->end[0].error || rig->end[0].eof);
	assert_int_equal(rig->end[0].got, 50000);
	assert_int_equal(rig->end[0].error, ECONNRESET);
}

/* The client has half-closed; nobody reads from or writes to it meanwhile. */
static void notices_the_reset_of_a_half_closed_side(void **state)
{
	struct rig *rig = *state;

	rig->end[0].to_send = 1000;
	rig->end[0].fin = true;
	join(rig);
	RIG_UNTIL(rig->loop, rig->end, rig->end[1].eof);
	assert_true(ticks_in(rig->loop, 50) < 20);
	end_reset(&rig->end[0]);
	until_closed(rig);
	assert_int_equal(rig->how, PAIR_END_RESET);
	rig->end[1].eof = false;
	wait_poll(rig->end[1].fd, POLLHUP);
}

static void slow_reader_holds_the_sender_back(void **state)
{
	struct rig *rig = *state;

	rig->end[1].deaf = true;
	rig->end[0].to_send = 256 * (uint64_t)MIB;
	join(rig);
	rig_stuff(rig->loop, rig->end);
	assert_true(rig->end[0].sent < 64 * MIB);
	assert_true(ticks_in(rig->loop, 200) < 40);
	rig->end[0].to_send = rig->end[0].sent;
	rig->end[0].fin = true;
	rig->end[1].deaf = false;
	RIG_UNTIL(rig->loop, rig->end, rig->end[1].eof);
	assert_int_equal(rig->end[1].got, rig->end[0].sent);
}

/* As above, but the slow side has half-closed: a trap for poll interest. */
static void slow_reader_that_half_closed_costs_nothing(void **state)
{
	struct rig *rig = *state;

	rig->end[1].fin = true;
	join(rig);
	RIG_UNTIL(rig->loop, rig->end, rig->end[0].eof);
	rig->end[1].deaf = true;
	rig->end[0].to_send = 256 * (uint64_t)MIB;
	rig_stuff(rig->loop, rig->end);
	assert_true(ticks_in(rig->loop, 200) < 40);
	rig->end[0].to_send = rig->end[0].sent;
	rig->end[0].fin = true;
	rig->end[1].deaf = false;
	until_closed(rig);
	assert_int_equal(rig->how, PAIR_END_FIN);
	RIG_UNTIL(rig->loop, rig->end, rig->end[1].eof);
	assert_int_equal(rig->end[1].got, rig->end[0].sent);
}

/* Sends until the relay cannot take more, with an end of stream behind it. */
static void stuff_and_end(struct rig *rig, int i)
{
	int unread = 0;

	rig->end[!i].deaf = true;
	while (!unread) {
		rig->end[i].to_send += 100000;
		RIG_UNTIL(rig->loop, rig->end,
			  rig->end[i].sent == rig->end[i].to_send);
		for (int k = 0; k < 5; k++)
			rig_tick(rig->loop, rig->end);
		ioctl(rig->leg[i], SIOCINQ, &unread);
	}
	rig->end[i].fin = true;
	rig_tick(rig->loop, rig->end);
	wait_poll(rig->leg[i], POLLRDHUP);
}

/* Both ways stuck, and the ends of both streams wait to be read. */
static void both_ways_stuck_and_ended_costs_nothing(void **state)
{
	struct rig *rig = *state;

	join(rig);
	stuff_and_end(rig, 0);
	stuff_and_end(rig, 1);
	assert_true(ticks_in(rig->loop, 200) < 40);
	rig->end[0].deaf = rig->end[1].deaf = false;
	until_closed(rig);
	assert_int_equal(rig->how, PAIR_END_FIN);
	RIG_UNTIL(rig->loop, rig->end, rig->end[0].eof && rig->end[1].eof);
	assert_int_equal(rig->end[0].got, rig->end[1].sent);
	assert_int_equal(rig->end[1].got, rig->end[0].sent);
}

/* The sender is gone and its bytes stuck: EPOLLHUP must not spin. */
static void dead_sender_behind_a_slow_reader_costs_nothing(void **state)
{
	struct rig *rig = *state;

	rig->end[1].deaf = true;
	rig->end[0].to_send = 256 * (uint64_t)MIB;
	join(rig);
	rig_stuff(rig->loop, rig->end);
	end_reset(&rig->end[0]);
	wait_poll(rig->leg[0], POLLHUP);
	assert_true(ticks_in(rig->loop, 200) < 60);
	rig->end[1].deaf = false;
	until_closed(rig);
	assert_int_equal(rig->how, PAIR_END_RESET);
}

static void delivers_all_when_the_sender_closes_at_once(void **state)
{
	struct rig *rig = *state;
	uint64_t sent;

	rig->end[1].deaf = true;
	rig->end[0].to_send = 3 * MIB;
	join(rig);
	RIG_UNTIL(rig->loop, rig->end, rig->end[0].sent == 3 * MIB);
	sent = rig->end[0].sent;
	fd_close(&rig->end[0].fd); /* no half-close: gone */
	for (int i = 0; i < 20; i++)
		rig_tick(rig->loop, rig->end);
	rig->end[1].deaf = false;
	RIG_UNTIL(rig->loop, rig->end, rig->end[1].eof);
	assert_int_equal(rig->end[1].got, sent);
	fd_close(&rig->end[1].fd);
	until_closed(rig);
	assert_int_equal(rig->how, PAIR_END_FIN);
}

static void carries_urgent_data_in_line(void **state)
{
	struct rig *rig = *state;

	join(rig);
	for (int round = 0; round < 3; round++) {
		/* Big enough that the splicing engines splice. */
		rig->end[0].to_send += 100000;
		RIG_UNTIL(rig->loop, rig->end,
			  rig->end[0].sent == rig->end[0].to_send);
		uint8_t byte = pattern(rig->end[0].sent, rig->end[0].salt);

		assert_int_equal(send(rig->end[0].fd, &byte, 1, MSG_OOB), 1);
		rig->end[0].sent++;
		rig->end[0].to_send += 50001;
		RIG_UNTIL(rig->loop, rig->end,
			  rig->end[1].got == rig->end[0].to_send);
		assert_true(ticks_in(rig->loop, 50) < 20);
	}
}

/* Sends in one go, with nothing relayed meanwhile. */
static void send_now(struct end *end, size_t len)
{
	uint64_t start = clock_ms();

	end->to_send += len;
	while (end->sent < end->to_send) {
		assert_true(clock_ms() - start < WAIT_MS);
		end_send(end, PUMP_CHUNK);
	}
}

/* Queues bytes before, at and behind an urgent one in the relay's socket. */
static void send_around_urgent(struct rig *rig)
{
	struct end *end = &rig->end[0];
	uint8_t byte;

	join(rig);
	/* Big enough that the splicing engines splice. */
	end->to_send = 400000;
	RIG_UNTIL(rig->loop, rig->end, rig->end[1].got == 400000);
	send_now(end, 30000);
	byte = pattern(end->sent, end->salt);
	assert_int_equal(send(end->fd, &byte, 1, MSG_OOB), 1);
	end->to_send = ++end->sent;
	send_now(end, 30000);
}

/* splice(2) says "end of stream" at urgent data with a FIN behind it. */
static void ends_behind_urgent_data_and_not_before(void **state)
{
	struct rig *rig = *state;

	send_around_urgent(rig);
	shutdown(rig->end[0].fd, SHUT_WR);
	wait_acked(rig->end[0].fd);
	RIG_UNTIL(rig->loop, rig->end, rig->end[1].eof);
	assert_int_equal(rig->end[1].got, rig->end[0].sent);
	assert_int_equal(rig->end[1].error, 0);
}

static void is_reset_behind_urgent_data_and_not_before(void **state)
{
	struct rig *rig = *state;

	send_around_urgent(rig);
	wait_acked(rig->end[0].fd);
	end_reset(&rig->end[0]);
	RIG_UNTIL(rig->loop, rig->end, rig->end[1].eof || rig->end[1].error);
	assert_int_equal(rig->end[1].got, rig->end[0].sent);
	assert_int_equal(rig->end[1].error, ECONNRESET);
	until_closed(rig);
	assert_int_equal(rig->how, PAIR_END_RESET);
}

/* Data connection and control connection closed one behind the other. */
static void finish_loses_nothing_in_flight(void **state)
{
	struct rig *rig = *state;

	rig->end[1].deaf = true;
	rig->end[0].to_send = 3 * MIB;
	join(rig);
	RIG_UNTIL(rig->loop, rig->end, rig->end[0].sent == 3 * MIB);
	fd_close(&rig->end[0].fd);
	pair_finish(rig->pair);
	pair_finish(rig->pair);
	assert_true(ticks_in(rig->loop, 300) < 100);
	assert_int_equal(rig->closed, 0);
	rig->end[1].deaf = false;
	until_closed(rig);
	RIG_UNTIL(rig->loop, rig->end, rig->end[1].eof);
	assert_int_equal(rig->end[1].got, 3 * MIB);
	assert_int_equal(rig->end[1].error, 0);
}

static void finish_of_an_open_pair_delivers_then_ends_both(void **state)
{
	struct rig *rig = *state;

	rig->end[0].to_send = 5 * MIB;
	rig->end[1].to_send = 4 * MIB;
	join(rig);
	RIG_UNTIL(rig->loop, rig->end, rig->end[0].sent == 5 * MIB);
	rig->inside = true;
	pair_finish(rig->pair);
	rig->inside = false;
	assert_int_equal(state_of(rig), PAIR_CLOSING);
	until_closed(rig);
	assert_int_equal(rig->how, PAIR_END_FINISHED);
	RIG_UNTIL(rig->loop, rig->end, rig->end[0].eof && rig->end[1].eof);
	assert_int_equal(rig->end[1].got, 5 * MIB);
	assert_int_equal(rig->end[0].got, rig->end[1].sent);
}

/* A sender with pauses shorter than the look for quiet is not cut short. */
static void finish_waits_while_bytes_trickle(void **state)
{
	struct rig *rig = *state;
	uint64_t start;

	join(rig);
	rig_tick(rig->loop, rig->end);
	start = clock_ms();
	pair_finish(rig->pair);
	while (clock_ms() - start < 400) {
		rig->end[0].to_send++;
		rig_tick(rig->loop, rig->end);
		assert_int_equal(rig->closed, 0);
		assert_false(rig->end[1].eof);
	}
	until_closed(rig);
	assert_int_equal(rig->how, PAIR_END_FINISHED);
	RIG_UNTIL(rig->loop, rig->end, rig->end[1].eof);
	assert_int_equal(rig->end[1].got, rig->end[0].to_send);
}

static void finish_resets_what_stays_stuck(void **state)
{
	struct rig *rig = *state;
	uint64_t start;

	rig->params.linger_ms = 300;
	rig->end[1].deaf = true;
	rig->end[0].to_send = 256 * (uint64_t)MIB;
	join(rig);
	rig_stuff(rig->loop, rig->end);
	start = clock_ms();
	pair_finish(rig->pair);
	until_closed(rig);
	assert_true(clock_ms() - start >= 300);
	assert_int_equal(rig->how, PAIR_END_FINISHED);
	RIG_UNTIL(rig->loop, rig->end, rig->end[0].error);
}

static void finish_while_flushing_waits_for_the_preface(void **state)
{
	struct rig *rig = *state;

	rig->end[1].deaf = true;
	join_with_prefaces(rig, 0, 12 * MIB);
	assert_int_equal(state_of(rig), PAIR_FLUSHING);
	pair_finish(rig->pair);
	assert_true(ticks_in(rig->loop, 250) < 50);
	assert_int_equal(rig->closed, 0);
	rig->end[1].deaf = false;
	until_closed(rig);
	assert_int_equal(rig->how, PAIR_END_FINISHED);
	RIG_UNTIL(rig->loop, rig->end, rig->end[1].eof);
	assert_int_equal(rig->end[1].got, 12 * MIB);
}

static void reset_kicks_both_sides(void **state)
{
	struct rig *rig = *state;

	join(rig);
	rig->end[0].to_send = 256 * (uint64_t)MIB;
	rig->end[1].deaf = true;
	rig_stuff(rig->loop, rig->end);
	rig->inside = true;
	pair_reset(rig->pair);
	pair_reset(rig->pair);
	rig->inside = false;
	until_closed(rig);
	assert_int_equal(rig->how, PAIR_END_KICKED);
	rig->end[1].deaf = false;
	RIG_UNTIL(rig->loop, rig->end, rig->end[0].error && rig->end[1].error);
	assert_int_equal(rig->end[1].error, ECONNRESET);
}

static void reset_overtakes_a_lingering_end(void **state)
{
	struct rig *rig = *state;

	rig->end[1].deaf = true;
	rig->end[0].to_send = 2 * MIB;
	join(rig);
	RIG_UNTIL(rig->loop, rig->end, rig->end[0].sent == 2 * MIB);
	for (int i = 0; i < 50; i++)
		rig_tick(rig->loop, rig->end);
	end_reset(&rig->end[0]);
	for (int i = 0; i < 50; i++)
		rig_tick(rig->loop, rig->end);
	assert_int_equal(rig->closed, 0);
	pair_reset(rig->pair);
	until_closed(rig);
	assert_int_equal(rig->how, PAIR_END_KICKED);
}

static void reset_while_flushing_kicks(void **state)
{
	struct rig *rig = *state;

	rig->end[1].deaf = true;
	join_with_prefaces(rig, 0, 12 * MIB);
	pair_reset(rig->pair);
	until_closed(rig);
	assert_int_equal(rig->how, PAIR_END_KICKED);
}

static void destroy_is_safe_in_every_state(void **state)
{
	struct rig *rig = *state;

	for (int stage = 0; stage < 8; stage++) {
		if (stage)
			rig_reconnect(rig);
		rig->end[1].deaf = true;
		rig->params.half[1].preface_len = 0;
		if (stage == 0)
			join_with_prefaces(rig, 0, 12 * MIB);
		else
			join(rig);
		rig->params.half[1].preface_len = 0;
		rig->end[0].to_send = stage > 1 ? 256 * (uint64_t)MIB : 0;
		if (stage > 2)
			rig_stuff(rig->loop, rig->end);
		if (stage == 4 || stage == 5) /* detach in flight */
			pair_reset(rig->pair);
		if (stage == 5)
			pair_finish(rig->pair);
		if (stage >= 6)
			end_reset(&rig->end[0]);
		for (int i = 0; stage == 7 && i < 20; i++)
			rig_tick(rig->loop, rig->end);
		rig_pair_destroy(rig);
		loop_tick(rig->loop, 0);
		loop_tick(rig->loop, 0);
	}
	assert_int_equal(rig->closed, 0);
}

static void idle_pair_is_ended_in_order(void **state)
{
	struct rig *rig = *state;

	/* The kernel's worker has to have carried the bytes by then (sockmap). */
	rig->params.idle_timeout_ms = 300;
	rig->end[0].to_send = 3000;
	join(rig);
	until_closed(rig);
	assert_int_equal(rig->how, PAIR_END_IDLE);
	RIG_UNTIL(rig->loop, rig->end, rig->end[0].eof && rig->end[1].eof);
	assert_int_equal(rig->end[1].got, 3000);
}

static void idle_pair_with_stuck_bytes_is_reset(void **state)
{
	struct rig *rig = *state;

	rig->params.idle_timeout_ms = 300;
	rig->end[1].deaf = true;
	rig->end[0].to_send = 256 * (uint64_t)MIB;
	join(rig);
	until_closed(rig);
	assert_int_equal(rig->how, PAIR_END_IDLE);
	rig->end[1].deaf = false;
	RIG_UNTIL(rig->loop, rig->end, rig->end[1].error);
	assert_int_equal(rig->end[1].error, ECONNRESET);
}

static void traffic_keeps_a_pair_from_idling(void **state)
{
	struct rig *rig = *state;
	uint64_t start = clock_ms();

	rig->params.idle_timeout_ms = 200;
	join(rig);
	while (clock_ms() - start < 500) {
		rig->end[0].to_send++;
		rig_tick(rig->loop, rig->end);
		assert_int_equal(rig->closed, 0);
	}
	until_closed(rig);
	assert_int_equal(rig->how, PAIR_END_IDLE);
}

/* Its turn is further away than the idle timeout, and comes. */
static void waiting_for_its_turn_is_not_idling(void **state)
{
	struct rig *rig = *state;
	struct rate_bucket bucket = { .until_ns = clock_ns() + 900000000 };
	struct rates rates = { 0 };
	struct pair_info info;

	rates_add(&rates, &bucket, 8 * MIB);
	rig->params.rates[1] = &rates;
	rig->params.idle_timeout_ms = 200;
	rig->end[0].to_send = 3000;
	join(rig);
	while (rig->end[1].got < 3000) {
		rig_tick(rig->loop, rig->end);
		assert_int_equal(rig->closed, 0);
		pair_get_info(rig->pair, &info);
		assert_true(info.idle_ms < 200);
	}
	assert_true(clock_ns() > bucket.until_ns - 100000000);
	until_closed(rig);
	assert_int_equal(rig->how, PAIR_END_IDLE);
}

struct many {
	struct end end[2];
	struct pair *pair;
	int *closed;
};

static void many_closed(void *owner, enum pair_end how)
{
	struct many *one = owner;

	assert_int_equal(how, PAIR_END_FIN);
	one->pair = NULL;
	(*one->closed)++;
}

#define MANY 200

static void relays_two_hundred_pairs_at_once(void **state)
{
	struct rig *rig = *state;
	struct many *many = calloc(MANY, sizeof(*many));
	int closed = 0, leg[2];

	assert_non_null(many);
	for (int i = 0; i < MANY; i++) {
		struct pair_params params = rig->params;
		struct many *one = &many[i];

		ends_init(one->end, leg);
		one->closed = &closed;
		params.half[0].fd = leg[0];
		params.half[1].fd = leg[1];
		params.on_closed = many_closed;
		params.owner = one;
		one->end[0].to_send = 100000 + 13 * (unsigned int)i;
		one->end[1].to_send = 1000 + (unsigned int)i;
		one->end[0].fin = one->end[1].fin = true;
		assert_int_equal(pair_new(&params, &one->pair), 0);
	}
	RIG_UNTIL(rig->loop, many[0].end, ({
			  for (int i = 1; i < MANY; i++)
				  for (int k = 0; k < 2; k++)
					  end_pump(&many[i].end[k]);
			  closed == MANY;
		  }));
	for (int i = 0; i < MANY; i++) {
		RIG_UNTIL(rig->loop, many[i].end,
			  many[i].end[0].eof && many[i].end[1].eof);
		assert_int_equal(many[i].end[1].got, many[i].end[0].to_send);
		assert_int_equal(many[i].end[0].got, many[i].end[1].to_send);
		fd_close(&many[i].end[0].fd);
		fd_close(&many[i].end[1].fd);
	}
	free(many);
	fd_close(&rig->leg[0]);
	fd_close(&rig->leg[1]);
}

/* No descriptor left for a pipe: the flow copies. */
static void relays_without_a_descriptor_left(void **state)
{
	struct rig *rig = *state;
	struct rlimit was, none;
	int probe = open("/dev/null", O_RDONLY | O_CLOEXEC);

	assert_true(probe >= 0);
	close(probe);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
	join(rig);
	none = was;
	none.rlim_cur = (rlim_t)probe;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	rig->end[0].to_send = 8 * MIB;
	rig->end[1].to_send = 8 * MIB;
	rig->end[0].fin = rig->end[1].fin = true;
	until_closed(rig);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
	assert_int_equal(rig->how, PAIR_END_FIN);
	RIG_UNTIL(rig->loop, rig->end, rig->end[0].eof && rig->end[1].eof);
	assert_int_equal(rig->end[0].got, 8 * MIB);
	assert_int_equal(rig->end[1].got, 8 * MIB);
}

/* Whatever allocation fails: refused whole, or ended once, or relayed whole. */
static void sweep_one(void *arg)
{
	struct rig *rig = arg;
	int err;

	rig_reconnect(rig);
	rig->end[0].to_send = rig->end[1].to_send = MIB;
	rig->end[0].fin = rig->end[1].fin = true;
	rig->closed = 0;
	err = pair_new(&rig->params, &rig->pair);
	if (err) {
		assert_int_equal(err, -ENOMEM);
		assert_true(failalloc_hit());
		assert_true(fcntl(rig->leg[0], F_GETFD) >= 0);
		assert_true(fcntl(rig->leg[1], F_GETFD) >= 0);
		fd_close(&rig->leg[0]);
		fd_close(&rig->leg[1]);
	} else {
		RIG_UNTIL(rig->loop, rig->end, rig->closed);
		assert_true(failalloc_hit() || rig->how == PAIR_END_FIN);
		if (rig->how == PAIR_END_FIN) {
			RIG_UNTIL(rig->loop, rig->end,
				  rig->end[0].eof && rig->end[1].eof);
			assert_int_equal(rig->end[0].got, MIB);
			assert_int_equal(rig->end[1].got, MIB);
		} else {
			RIG_UNTIL(rig->loop, rig->end,
				  (rig->end[0].error || rig->end[0].eof) &&
					  (rig->end[1].error ||
					   rig->end[1].eof));
			assert_true(rig->end[0].error || rig->end[1].error);
		}
	}
}

static void survives_every_failing_allocation(void **state)
{
	struct rig *rig = *state;

	fd_close(&rig->leg[0]);
	fd_close(&rig->leg[1]);
	assert_true(failalloc_sweep(sweep_one, rig) >= 2);
}

static void sweep_preface(void *arg)
{
	struct rig *rig = arg;
	uint8_t *preface = calloc(1, 8 * MIB);

	if (!preface)
		return;
	rig_reconnect(rig);
	rig->params.half[1].preface = preface;
	rig->params.half[1].preface_len = 8 * MIB;
	rig->params.linger_ms = 100;
	rig->closed = 0;
	rig->end[1].deaf = true;
	if (pair_new(&rig->params, &rig->pair) == 0) {
		struct pair_info info;

		pair_get_info(rig->pair, &info);
		assert_true(failalloc_hit() || info.state == PAIR_FLUSHING);
		if (info.state == PAIR_FLUSHING)
			pair_reset(rig->pair);
		RIG_UNTIL(rig->loop, rig->end, rig->closed);
	} else {
		close(rig->leg[0]);
		close(rig->leg[1]);
	}
	free(preface);
	rig->params.half[1].preface_len = 0;
}

static void survives_failing_allocations_for_a_preface(void **state)
{
	struct rig *rig = *state;

	fd_close(&rig->leg[0]);
	fd_close(&rig->leg[1]);
	assert_true(failalloc_sweep(sweep_preface, rig) >= 2);
}

/* Two descriptors a pair and nothing else, also after bulk. */
static void leaks_no_descriptor(void **state)
{
	struct rig *rig = *state;
	size_t before = 0, now;

	/* The pool keeps a pipe: the first rounds warm it up. */
	for (int round = 0; round < 4; round++, before = now) {
		if (round)
			rig_reconnect(rig);
		rig->closed = 0;
		rig->end[0].to_send = rig->end[1].to_send = 2 * MIB;
		rig->end[0].fin = round & 1;
		join(rig);
		RIG_UNTIL(rig->loop, rig->end,
			  rig->end[0].got == 2 * MIB &&
				  rig->end[1].got == 2 * MIB);
		pair_reset(rig->pair);
		until_closed(rig);
		fd_close(&rig->end[0].fd);
		fd_close(&rig->end[1].fd);
		now = open_files();
		if (round > 1)
			assert_int_equal(now, before);
	}
}

static void names_every_state_and_end(void **state)
{
	(void)state;
	for (enum pair_state s = PAIR_FLUSHING; s <= PAIR_CLOSED; s++)
		assert_string_not_equal(pair_state_name(s), "?");
	for (enum pair_end e = PAIR_END_FIN; e <= PAIR_END_ERROR; e++)
		assert_string_not_equal(pair_end_name(e), "?");
	assert_string_equal(pair_state_name(PAIR_RELAYING), "relaying");
	assert_string_equal(pair_end_name(PAIR_END_KICKED), "kicked");
}

/* A seal whose key is used up. */
static ssize_t spent_recv(struct seal *seal, void *data, size_t len)
{
	(void)seal;
	(void)data;
	(void)len;
	return -EAGAIN;
}

static ssize_t spent_send(struct seal *seal, const void *data, size_t len)
{
	(void)seal;
	(void)data;
	(void)len;
	return -EKEYEXPIRED;
}

static size_t spent_unsent(struct seal *seal)
{
	(void)seal;
	return 0;
}

static void spent_free(struct seal *seal)
{
	(void)seal;
}

static void a_key_used_up_is_a_reason_of_its_own(void **state)
{
	static const struct seal_ops ops = { .recv = spent_recv,
					     .send = spent_send,
					     .unsent = spent_unsent,
					     .free = spent_free };
	struct seal seal = { .ops = &ops, .open = true };
	struct rig *rig = rig_new("copy");

	(void)state;
	assert_non_null(rig);
	rig->params.half[PAIR_CLIENT].seal = &seal;
	join(rig);
	rig->end[PAIR_PEER].to_send = 1000;
	until_closed(rig);
	assert_string_equal(pair_end_name(rig->how), "key");
	rig_free(rig);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest plain[] = {
		cmocka_unit_test(names_every_state_and_end),
		cmocka_unit_test(a_key_used_up_is_a_reason_of_its_own),
	};
	const struct CMUnitTest cases[] = {
		CASE(relays_bulk_both_ways_at_once),
		CASE(relays_tiny_writes_as_they_come),
		CASE(relays_bursts_of_mixed_sizes),
		CASE(relays_through_small_send_buffers),
		CASE(answers_after_the_client_half_closed),
		CASE(answers_after_the_peer_half_closed),
		CASE(takes_data_and_fin_from_before_the_join),
		CASE(takes_any_amount_from_before_the_join),
		CASE(sends_both_prefaces_before_relayed_bytes),
		CASE(waits_for_a_preface_nobody_reads),
		CASE(waits_for_the_slower_of_two_prefaces),
		CASE(delivers_what_a_half_sent_before_it_died_unjoined),
		CASE(delivers_what_a_half_sent_before_it_died_flushing),
		CASE(passes_on_the_clients_reset),
		CASE(passes_on_the_peers_reset),
		CASE(holds_a_reset_back_behind_a_slow_reader),
		CASE(stops_draining_when_the_reader_dies),
		CASE(resets_after_linger_when_the_reader_is_stuck),
		CASE(write_error_resets_after_the_answer),
		CASE(notices_the_reset_of_a_half_closed_side),
		CASE(slow_reader_holds_the_sender_back),
		CASE(slow_reader_that_half_closed_costs_nothing),
		CASE(both_ways_stuck_and_ended_costs_nothing),
		CASE(dead_sender_behind_a_slow_reader_costs_nothing),
		CASE(delivers_all_when_the_sender_closes_at_once),
		CASE(carries_urgent_data_in_line),
		CASE(ends_behind_urgent_data_and_not_before),
		CASE(is_reset_behind_urgent_data_and_not_before),
		CASE(finish_loses_nothing_in_flight),
		CASE(finish_of_an_open_pair_delivers_then_ends_both),
		CASE(finish_waits_while_bytes_trickle),
		CASE(finish_resets_what_stays_stuck),
		CASE(finish_while_flushing_waits_for_the_preface),
		CASE(reset_kicks_both_sides),
		CASE(reset_overtakes_a_lingering_end),
		CASE(reset_while_flushing_kicks),
		CASE(destroy_is_safe_in_every_state),
		CASE(idle_pair_is_ended_in_order),
		CASE(idle_pair_with_stuck_bytes_is_reset),
		CASE(traffic_keeps_a_pair_from_idling),
		CASE(waiting_for_its_turn_is_not_idling),
		CASE(relays_two_hundred_pairs_at_once),
		CASE(relays_without_a_descriptor_left),
		CASE(survives_every_failing_allocation),
		CASE(survives_failing_allocations_for_a_preface),
		CASE(leaks_no_descriptor),
	};

	return rig_run("pair", plain, 2, cases,
		       sizeof(cases) / sizeof(cases[0]));
}
