/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * wire_egress on what our own sockets say, and wire_snapshot on real sockets:
 * the numbers are those that TCP_INFO and TCP_REPAIR show.
 */
#include "wire_packet.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>

static void run_out(struct world *w, const struct craft *c)
{
	frame_tcp(&w->in, c);
	world_run(w, w->lab.wire->progs.wire_egress, NULL);
}

/* An ACK of ours to the client with the latch 500 bytes ahead. */
static struct craft ours(struct world *w, uint32_t state)
{
	const struct wire_leg *leg = &w->pair.leg[0];
	struct craft c;

	world_join(w, w->family, &spaces_plain);
	w->pair.state = state;
	w->pair.leg[0].latch += 500;
	w->pair.leg[0].flags |= WIRE_LEG_LATCHED;
	world_set(w);
	c = world_craft(w, WIRE_CLIENT);
	c.from = leg->local;
	c.to = leg->remote;
	c.from_port = leg->local_port;
	c.to_port = leg->remote_port;
	c.seq = 1000000;
	c.ack = 2000000;
	return c;
}

static void test_joining(struct world *w)
{
	const char *name = family_name(w);
	struct craft c = ours(w, WIRE_JOINING);

	run_out(w, &c);
	lab_check(world_up(w), "%s: joining, an ACK of what was received",
		  name);
	c.ack++;
	run_out(w, &c);
	lab_check(world_dropped(w, WIRE_DROP_LOCAL), "%s: of more", name);
	c.payload = 500;
	run_out(w, &c);
	lab_check(w->verdict == TC_ACT_UNSPEC && frame_right(&w->out) &&
			  frame_get32(frame_l4(&w->out) + 8) == 2000000 &&
			  frame_get16(frame_l4(&w->out) + 14) == 500,
		  "%s: with payload it is lowered", name);
	c.ack--;
	run_out(w, &c);
	lab_check(world_up(w), "%s: payload as it is", name);
}

/* Whether it went out with this acknowledgement and window field. */
static bool said(struct world *w, uint32_t ack, uint16_t window)
{
	uint8_t *tcp = frame_l4(&w->out);

	return w->verdict == TC_ACT_UNSPEC && frame_right(&w->out) &&
	       world_counted(w, WIRE_COUNTERS) &&
	       frame_get32(tcp + 4) == 1000000 && frame_get32(tcp + 8) == ack &&
	       frame_get16(tcp + 14) == window;
}

/* The client's leg has shift 8 for what the client reads. */
static void test_joined(struct world *w, uint32_t state, const char *when)
{
	const char *name = family_name(w);
	struct craft c = ours(w, state);

	run_out(w, &c);
	lab_check(said(w, 2000000, 100000 >> 8),
		  "%s %s: an ACK with the other end's window", name, when);
	c.ack++;
	run_out(w, &c);
	lab_check(world_dropped(w, WIRE_DROP_LOCAL), "%s %s: of more", name,
		  when);
	c.payload = 500;
	run_out(w, &c);
	lab_check(said(w, 2000000, 100000 >> 8), "%s %s: lowered with payload",
		  name, when);
	w->pair.leg[1].acked += 3000000;
	w->pair.leg[1].right += 3000000 + (20 << 20);
	world_set(w);
	c.ack--;
	run_out(w, &c);
	lab_check(said(w, 5000000, 65535),
		  "%s %s: raised to what the other end has acknowledged", name,
		  when);
	w->pair.leg[1].right = (uint32_t)w->pair.leg[1].acked - 1;
	world_set(w);
	run_out(w, &c);
	lab_check(said(w, 5000000, 0), "%s %s: no window below", name, when);
	w->pair.leg[1].acked = 3000000 - 400;
	world_set(w);
	run_out(w, &c);
	lab_check(said(w, 2000000, (5000000 - 1 - 2000000) >> 8),
		  "%s %s: our own bytes are not the other end's", name, when);
}

/* A data segment of ours stamped `own`; the TSval that leaves, TSecr untouched. */
static uint32_t stamped(struct world *w, uint32_t state, uint32_t own)
{
	uint8_t options[] = { 1, 1, 8, 10, 0, 0, 0, 0, 5, 6, 7, 8 },
		*at = frame_l4(&w->out) + 20;
	struct wire_pair was = w->pair;
	struct craft c = ours(w, state);

	w->pair.leg[1].tsval = was.leg[1].tsval;
	world_set(w);
	frame_put32(options + 4, own);
	c.options = options;
	c.options_size = sizeof(options);
	c.payload = 10;
	c.ack++;
	run_out(w, &c);
	if (w->verdict != TC_ACT_UNSPEC || !frame_right(&w->out) ||
	    memcmp(at, options, 4) || memcmp(at + 8, options + 8, 4))
		return 0;
	return frame_get32(at + 4);
}

/* Whether a segment of the peer with these options leaves `tsval` as the last. */
static bool learns(struct world *w, const uint8_t *options, size_t size,
		   uint32_t tsval)
{
	struct craft c = world_craft(w, WIRE_PEER);

	c.options = options;
	c.options_size = size;
	world_send(w, &c);
	return world_forwarded(w, WIRE_CLIENT) && w->pair.leg[1].tsval == tsval;
}

/* The client reads the peer's stamps 300000 lower, 500000 at the join. */
static void test_stamps(struct world *w)
{
	static const uint32_t own[] = { 499000, 500000, 777777, 1u << 31 };
	/* 800010, then in another layout 800009 and 800011. */
	static const uint8_t
		usual[] = { 1, 1, 8, 10, 0, 12, 0x35, 10, 0, 0, 0, 9 },
		older[] = { 8, 10, 0, 12, 0x35, 9, 0, 0, 0, 9, 1, 1 },
		newer[] = { 8, 10, 0, 12, 0x35, 11, 0, 0, 0, 9, 1, 1 };
	const char *name = family_name(w);
	bool kept = true, same = true;

	ours(w, WIRE_JOINED);
	for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++) {
		same = same && stamped(w, WIRE_JOINED, own[i]) == 500000 &&
		       stamped(w, WIRE_ENDED, own[i]) == 500000;
		kept = kept && stamped(w, WIRE_JOINING, own[i]) == own[i];
	}
	lab_check(same, "%s: our TSval is the other end's last", name);
	lab_check(kept, "%s: but not while joining", name);
	world_join(w, w->family, &spaces_plain);
	lab_check(learns(w, usual, 12, 500010) &&
			  learns(w, older, 12, 500010) &&
			  learns(w, NULL, 0, 500010) &&
			  learns(w, newer, 12, 500011),
		  "%s: that is the highest sent on", name);
	lab_check(stamped(w, WIRE_JOINED, 1) == 500011, "%s: and is said",
		  name);
}

/* What the client refuses as received before tells it neither stamp nor window. */
static void test_old_stamps(struct world *w)
{
	/* 2^31 - 1 beyond the peer's last. */
	static const uint8_t options[] = { 1,    1,    8, 10, 0x80, 12,
					   0x34, 0xff, 0, 0,  0,    9 };
	static const struct {
		uint32_t back, payload;
	} old[] = { { 1, 0 }, { 700, 699 }, { 65535, 0 } };
	const char *name = family_name(w);
	bool good = true;

	for (size_t i = 0; i < sizeof(old) / sizeof(old[0]); i++) {
		struct craft c;

		world_join(w, w->family, &spaces_plain);
		c = world_craft(w, WIRE_PEER);
		c.seq -= old[i].back;
		c.payload = old[i].payload;
		c.options = options;
		c.options_size = sizeof(options);
		world_send(w, &c);
		good = good && world_forwarded(w, WIRE_CLIENT) &&
		       w->pair.leg[1].tsval == 500000 &&
		       w->pair.leg[1].right == 3100000 &&
		       w->pair.leg[1].window == 100000;
	}
	lab_check(good, "%s: nothing is learned from an old duplicate", name);
	/* Numbered low by a window's rounding it is put right, and taken. */
	world_join(w, w->family, &spaces_plain);
	w->pair.leg[1].sent_end += 10;
	w->pair.leg[0].acked += 5;
	world_set(w);
	struct craft c = world_craft(w, WIRE_PEER);

	c.seq -= 10;
	c.options = options;
	c.options_size = sizeof(options);
	world_send(w, &c);
	lab_check(world_forwarded(w, WIRE_CLIENT) &&
			  w->pair.leg[1].tsval == 500000u + INT32_MAX &&
			  w->pair.leg[1].right == 3000000 + (500 << 9) &&
			  w->pair.leg[1].window == 500 << 9,
		  "%s: but from one that is put right", name);
}

static void test_sacks(struct world *w)
{
	static const uint8_t sack[] = { 1, 1, 8, 10, 0, 7, 161, 32, 5, 6, 7, 8,
					1, 1, 5, 10, 0, 1, 2,   3,  0, 1, 2, 4 };
	const char *name = family_name(w);
	struct craft c = ours(w, WIRE_JOINED);
	uint8_t *tcp;

	c.options = sack;
	c.options_size = sizeof(sack);
	run_out(w, &c);
	lab_check(world_dropped(w, WIRE_DROP_LOCAL), "%s: a bare SACK", name);
	c.payload = 10;
	run_out(w, &c);
	tcp = frame_l4(&w->out) + 20;
	lab_check(w->verdict == TC_ACT_UNSPEC && frame_right(&w->out) &&
			  !memcmp(tcp, sack, 14) &&
			  !memcmp(tcp + 14, "\1\1\1\1\1\1\1\1\1\1", 10),
		  "%s: blanked with payload, timestamps stay", name);
	c.options_size = 12;
	run_out(w, &c);
	lab_check(w->verdict == TC_ACT_UNSPEC && !memcmp(tcp, sack, 12),
		  "%s: timestamps alone stay", name);
}

static void test_ends(struct world *w)
{
	static const uint8_t flags[] = { RST, RST | ACK, FIN | ACK, SYN,
					 SYN | ACK };
	const char *name = family_name(w);
	bool good = true;
	struct craft c;

	for (size_t i = 0; i < sizeof(flags); i++) {
		c = ours(w, WIRE_JOINED);
		c.flags = flags[i];
		run_out(w, &c);
		good = good && world_dropped(w, WIRE_DROP_LOCAL);
		c = ours(w, WIRE_JOINING);
		c.flags = flags[i];
		run_out(w, &c);
		good = good && world_up(w);
	}
	lab_check(good, "%s: no end and no begin once joined", name);
	c = ours(w, WIRE_JOINED);
	c.payload = 501;
	run_out(w, &c);
	lab_check(world_dropped(w, WIRE_DROP_LOCAL),
		  "%s: no payload beyond the latch", name);
	c = ours(w, WIRE_JOINED);
	c.payload = 500;
	c.flags = FIN | ACK;
	run_out(w, &c);
	lab_check(w->verdict == TC_ACT_UNSPEC && frame_right(&w->out) &&
			  frame_l4(&w->out)[13] == ACK,
		  "%s: a FIN is taken off the last bytes", name);
	c = ours(w, WIRE_JOINING);
	c.payload = 500;
	c.ack++;
	c.flags = FIN | ACK;
	run_out(w, &c);
	lab_check(w->verdict == TC_ACT_UNSPEC && frame_right(&w->out) &&
			  frame_get32(frame_l4(&w->out) + 8) == 2000000 &&
			  frame_l4(&w->out)[13] == (FIN | ACK),
		  "%s: but not while joining", name);
	c = ours(w, WIRE_ENDED);
	c.flags = RST;
	run_out(w, &c);
	lab_check(world_dropped(w, WIRE_DROP_LOCAL), "%s: ended: no reset",
		  name);
	c.flags = SYN | ACK;
	run_out(w, &c);
	lab_check(world_dropped(w, WIRE_DROP_LOCAL), "%s: ended: no answer",
		  name);
	c.flags = SYN;
	run_out(w, &c);
	lab_check(world_up(w), "%s: ended: another connection begins", name);
	c.flags = RST;
	run_out(w, &c);
	lab_check(world_up(w), "%s: and is its own", name);
}

static void test_others(struct world *w)
{
	const char *name = family_name(w);
	struct __sk_buff ctx = { .ingress_ifindex = 1 };
	struct craft c = ours(w, WIRE_JOINED);

	c.flags = RST;
	frame_tcp(&w->in, &c);
	world_run(w, w->lab.wire->progs.wire_egress, &ctx);
	lab_check(world_up(w), "%s: what was forwarded passes", name);
	c.to_port++;
	run_out(w, &c);
	lab_check(world_up(w), "%s: another tuple passes", name);
	c = ours(w, WIRE_FREE);
	c.flags = RST;
	run_out(w, &c);
	lab_check(world_up(w), "%s: a free place's flows are none", name);
}

/* What TCP_REPAIR tells of a queue. */
static uint32_t queue_number(int fd, int queue)
{
	int on = 1, off = 0;
	uint32_t number = 0;
	socklen_t size = sizeof(number);

	if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)) ||
	    setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, &queue,
		       sizeof(queue)) ||
	    getsockopt(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, &number, &size))
		lab_die("repair");
	off = TCP_REPAIR_OFF_NO_WP;
	if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &off, sizeof(off)))
		lab_die("repair off");
	return number;
}

/* A connected pair of sockets over lo: ends[0] has dialled ends[1]. */
static void connect_lo(int family, int *ends)
{
	struct sockaddr_storage where = { .ss_family = (sa_family_t)family };
	socklen_t size = family == AF_INET ? sizeof(struct sockaddr_in) :
					     sizeof(struct sockaddr_in6);
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (family == AF_INET)
		((struct sockaddr_in *)&where)->sin_addr.s_addr =
			htonl(INADDR_LOOPBACK);
	else
		((struct sockaddr_in6 *)&where)->sin6_addr = in6addr_loopback;
	ends[0] = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || ends[0] < 0 ||
	    bind(fd, (struct sockaddr *)&where, size) || listen(fd, 1) ||
	    getsockname(fd, (struct sockaddr *)&where, &size) ||
	    connect(ends[0], (struct sockaddr *)&where, size))
		lab_die("connect");
	ends[1] = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	if (ends[1] < 0)
		lab_die("accept");
	close(fd);
}

static void test_snapshot(struct world *w)
{
	const char *name = family_name(w);
	const struct wire_snapshot *s, *t;
	struct wire_call call = { 0 };
	struct tcp_info info;
	socklen_t size = sizeof(info);
	uint8_t bytes[100] = { 0 };
	int ends[2];

	connect_lo(w->family, ends);
	if (send(ends[0], bytes, 100, 0) != 100 ||
	    recv(ends[1], bytes, 40, MSG_WAITALL) != 40 ||
	    getsockopt(ends[0], IPPROTO_TCP, TCP_INFO, &info, &size))
		lab_die("send");
	const struct wire_key keys[] = { lab_key(ends[0]), lab_key(ends[1]) };

	call.describe = 1;
	memcpy(call.fd, ends, sizeof(call.fd));
	lab_snapshot(&w->lab, &call);
	s = &call.snapshot[0];
	t = &call.snapshot[1];
	lab_check(!memcmp(call.key, keys, sizeof(keys)),
		  "%s: descriptors lead to their ends", name);
	lab_check(s->found && t->found && s->state == 1 &&
			  s->socket == call.socket[0] &&
			  t->socket == call.socket[1] && s->socket != t->socket,
		  "%s: both sockets are found, and the right ones", name);
	call.describe = 0;
	lab_check(s->write_seq == queue_number(ends[0], TCP_SEND_QUEUE) &&
			  s->rcv_nxt == queue_number(ends[0], TCP_RECV_QUEUE) &&
			  t->rcv_nxt == s->write_seq &&
			  t->copied_seq == t->rcv_nxt - 60 &&
			  s->snd_nxt == s->write_seq,
		  "%s: numbers as TCP_REPAIR shows them", name);
	lab_check(s->timestamps && s->sack && s->window_scaling &&
			  s->snd_wscale == info.tcpi_snd_wscale &&
			  s->rcv_wscale == info.tcpi_rcv_wscale && !s->ecn &&
			  !s->md5 && !s->urgent && !s->out_of_order,
		  "%s: what was negotiated", name);
	lab_check(s->pmtu == info.tcpi_pmtu && s->advmss == info.tcpi_advmss &&
			  s->mss_clamp > 1000 && s->rcv_wnd && s->snd_wnd,
		  "%s: sizes", name);
	lab_check((int32_t)(s->timestamp - t->ts_recent) >= 0 &&
			  s->timestamp - t->ts_recent < 5000,
		  "%s: the clock is that of TSval", name);
	if (send(ends[0], bytes, 1, MSG_OOB) != 1)
		lab_die("urgent");
	lab_snapshot(&w->lab, &call);
	lab_check(t->urgent, "%s: urgent data", name);
	close(ends[1]);
	lab_snapshot(&w->lab, &call);
	lab_check(!t->found, "%s: a closed socket is not found", name);
	close(ends[0]);
}

/* A client over IPv4 of a listener that takes both families. */
static void test_mapped(struct lab *lab)
{
	struct sockaddr_in6 both = { .sin6_family = AF_INET6 };
	struct sockaddr_in where = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	struct wire_call call = { .describe = 1 };
	int listener = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int ends[2] = { socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), -1 };
	socklen_t size = sizeof(both);
	struct wire_key key;

	if (listener < 0 || ends[0] < 0 ||
	    bind(listener, (struct sockaddr *)&both, sizeof(both)) ||
	    listen(listener, 1) ||
	    getsockname(listener, (struct sockaddr *)&both, &size))
		lab_die("listen");
	where.sin_port = both.sin6_port;
	if (connect(ends[0], (struct sockaddr *)&where, sizeof(where)))
		lab_die("connect");
	ends[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	key = lab_key(ends[0]);
	memcpy(call.fd, ends, sizeof(call.fd));
	lab_snapshot(lab, &call);
	lab_check(call.snapshot[1].found &&
			  call.snapshot[1].socket == call.socket[1] &&
			  call.key[1].family == AF_INET &&
			  !memcmp(call.key[1].local, key.remote, 16) &&
			  !memcmp(call.key[1].remote, key.local, 16) &&
			  call.key[1].local_port == key.remote_port,
		  "a mapped IPv4 connection has the key of one");
	close(ends[0]);
	close(ends[1]);
	close(listener);
}

/* Whatever it is, what is found is not it. */
static void test_no_socket(struct lab *lab)
{
	int pair[2], pipes[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) ||
	    pipe2(pipes, O_CLOEXEC))
		lab_die("socketpair");
	const int fds[] = {
		pair[0],
		pipes[0],
		socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0),
		socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0),
		epoll_create1(EPOLL_CLOEXEC),
		bpf_map__fd(lab->wire->maps.wire_flows),
		open("/proc/self/maps", O_RDONLY | O_CLOEXEC),
		open("/", O_PATH | O_CLOEXEC),
		-1,
		1 << 30,
		INT32_MIN,
	};
	bool found = false;

	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
		struct wire_call call = { .describe = 1,
					  .fd = { fds[i], fds[i] } };

		lab_snapshot(lab, &call);
		for (int leg = 0; leg < WIRE_LEGS; leg++)
			found |= call.snapshot[leg].found &&
				 call.snapshot[leg].socket == call.socket[leg];
	}
	lab_check(!found, "what is no connection is not found as one");
	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		if (fds[i] >= 0 && fds[i] < 1 << 20 && i != 5)
			close(fds[i]);
	close(pair[1]);
	close(pipes[1]);
}

/* A connection's own file, and what is beside it or above it. */
static void test_beside(struct lab *lab)
{
	struct sockaddr_in where = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t size = sizeof(where);
	struct wire_call call = { .describe = 1 };
	/* MPTCP, whose connection is made of TCP sockets of its own. */
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 262);
	int ends[2] = { socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 262), -1 };
	char path[64];

	if (listener < 0 || ends[0] < 0) {
		lab_check(true, "no MPTCP here");
	} else {
		if (bind(listener, (struct sockaddr *)&where, sizeof(where)) ||
		    listen(listener, 1) ||
		    getsockname(listener, (struct sockaddr *)&where, &size) ||
		    connect(ends[0], (struct sockaddr *)&where, sizeof(where)))
			lab_die("MPTCP");
		ends[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		memcpy(call.fd, ends, sizeof(call.fd));
		lab_snapshot(lab, &call);
		lab_check(ends[1] >= 0 && call.snapshot[0].found &&
				  call.snapshot[1].found &&
				  call.snapshot[0].socket != call.socket[0] &&
				  call.snapshot[1].socket != call.socket[1],
			  "a subflow is not the MPTCP socket above it");
	}
	close(listener);
	close(ends[0]);
	close(ends[1]);
	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ends[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	where.sin_port = 0;
	if (bind(listener, (struct sockaddr *)&where, sizeof(where)) ||
	    listen(listener, 1) ||
	    getsockname(listener, (struct sockaddr *)&where, &size) ||
	    connect(ends[0], (struct sockaddr *)&where, sizeof(where)))
		lab_die("connect");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", ends[0]);
	ends[1] = open(path, O_PATH | O_CLOEXEC);
	call.fd[0] = listener;
	call.fd[1] = ends[1];
	lab_snapshot(lab, &call);
	lab_check(!call.snapshot[0].found && ends[1] >= 0 && !call.socket[1] &&
			  !call.snapshot[1].found,
		  "neither a listener nor a path to a socket is a connection");
	close(ends[0]);
	close(ends[1]);
	close(listener);
}

#define SIGNALFDS 512

/*
 * A signalfd is the eight bytes of its mask, in memory beside those of others: read
 * as if it were a socket it names the one that its owner has chosen. No memory that a
 * descriptor leads to is believed, unless the descriptor is a socket's.
 */
static void test_counterfeit(struct lab *lab)
{
	struct wire_call call = { .describe = 1 };
	int ends[2], fds[SIGNALFDS];
	bool taken = false;
	uint64_t mask;

	connect_lo(AF_INET, ends);
	memcpy(call.fd, ends, sizeof(call.fd));
	lab_snapshot(lab, &call);
	mask = ~call.socket[0];
	for (int i = 0; i < SIGNALFDS; i++)
		fds[i] = (int)syscall(SYS_signalfd4, -1, &mask, sizeof(mask),
				      SFD_CLOEXEC);
	for (int i = 0; i < SIGNALFDS; i++) {
		call.fd[0] = call.fd[1] = fds[i];
		lab_snapshot(lab, &call);
		taken |= call.socket[0] || call.socket[1];
		close(fds[i]);
	}
	lab_check(~mask && !taken, "a socket's address is taken from sockets");
	close(ends[0]);
	close(ends[1]);
}

int main(void)
{
	struct world w;

	world_open(&w);
	while (world_next_form(&w)) {
		test_joining(&w);
		test_joined(&w, WIRE_JOINED, "joined");
		test_joined(&w, WIRE_ENDED, "ended");
		test_stamps(&w);
		test_old_stamps(&w);
		test_sacks(&w);
		test_ends(&w);
		test_others(&w);
		test_snapshot(&w);
	}
	test_mapped(&w.lab);
	test_beside(&w.lab);
	test_no_socket(&w.lab);
	test_counterfeit(&w.lab);
	return lab_end(&w.lab);
}
