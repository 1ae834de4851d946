/* SPDX-License-Identifier: BSD-2-Clause */
/* The sockmap verdict, trap by trap. Prints TAP; skips without root. */
#include <sys/ioctl.h>

#include "bpf/sockmap_lab.h"
#include "bpf/tap.h"

#define LONG 65000

static uint8_t stream[2 * LONG], got[4 * LONG];

struct rig {
	struct sockmap_bpf *bpf;
	int end[2], leg[2];
};

static struct rig rig_make(void)
{
	struct rig rig = { .bpf = sockmap_bpf__open() };

	if (!rig.bpf)
		DIE("sockmap_bpf__open");
	tcp_pair(&rig.end[0], &rig.leg[0], 0);
	tcp_pair(&rig.end[1], &rig.leg[1], 0);
	return rig;
}

static void rig_free(struct rig *rig)
{
	for (int i = 0; i < 2; i++) {
		close(rig->end[i]);
		close(rig->leg[i]);
	}
	sockmap_bpf__destroy(rig->bpf);
}

static struct sockmap_flow flow_of(const struct rig *rig)
{
	struct sockmap_flow flow;
	uint32_t zero = 0;

	MUST(bpf_map_lookup_elem(bpf_map__fd(rig->bpf->maps.sockmap_state),
				 &zero, &flow));
	return flow;
}

/* Exactly the first len bytes of the stream, and nothing behind them. */
static bool arrives_whole(int fd, size_t len)
{
	size_t n = receive(fd, got, len, WAIT_MS);

	n += receive(fd, got + n, sizeof(got) - n, 300);
	return n == len && !memcmp(got, stream, len);
}

/* `first` bytes, then a segment up to `all` whose first `old` are old. */
static bool overlap_is_cut(size_t first, size_t old, size_t all)
{
	struct rig rig = rig_make();
	struct sockmap_flow flow;
	bool whole;

	culvert_join(rig.bpf, rig.leg);
	MUST((int)send(rig.end[0], stream, first, 0));
	whole = receive(rig.end[1], got, first, WAIT_MS) == first &&
		!memcmp(got, stream, first);
	rig.end[0] = sender_rewind(rig.end[0], (uint32_t)old);
	MUST((int)send(rig.end[0], stream + first - old, all - first + old, 0));
	memmove(stream, stream + first, sizeof(stream) - first);
	whole = whole && arrives_whole(rig.end[1], all - first);
	flow = flow_of(&rig);
	rig_free(&rig);
	return whole && flow.overlaps == 1 && flow.overlapped == old &&
	       !(flow.flags & SOCKMAP_BROKEN);
}

static void stream_fill(void)
{
	for (size_t i = 0; i < sizeof(stream); i++)
		stream[i] = (uint8_t)(i * 167 + (i >> 8) * 59 + (i >> 16) * 13);
}

static void old_beginnings_are_cut(void)
{
	stream_fill();
	lab_check(overlap_is_cut(300, 200, 600),
		  "a segment with an old beginning is cut to what is new");
	stream_fill();
	lab_check(overlap_is_cut(1000, 1, 1001),
		  "so is one of a single new byte");
	stream_fill();
	lab_check(overlap_is_cut(30000, 30000, 32000),
		  "so is one with 30,000 old bytes");
}

/* The relay has read a part of it before the join. */
static void read_parts_are_cut(void)
{
	struct rig rig = rig_make();
	uint8_t peeked;

	stream_fill();
	MUST((int)send(rig.end[0], "early", 5, 0));
	MUST((int)send(rig.end[0], stream, 1000, 0));
	receive(rig.leg[0], got, 5, WAIT_MS);
	culvert_join(rig.bpf, rig.leg);
	recv(rig.leg[0], &peeked, 1, MSG_PEEK | MSG_DONTWAIT);
	lab_check(
		arrives_whole(rig.end[1], 1000),
		"what was queued before the join goes, without what was read");
	rig_free(&rig);
}

static void a_bare_fin_breaks_nothing(void)
{
	struct rig rig = rig_make();
	uint8_t byte;

	culvert_join(rig.bpf, rig.leg);
	shutdown(rig.end[0], SHUT_WR);
	receive(rig.leg[0], &byte, 1, WAIT_MS);
	MUST((int)send(rig.leg[1], stream, 100, 0));
	lab_check(arrives_whole(rig.end[1], 100),
		  "after a bare FIN the other socket still writes");
	rig_free(&rig);
}

static void no_target_passes(void)
{
	struct rig rig = rig_make();
	uint32_t one = 1;

	culvert_join(rig.bpf, rig.leg);
	MUST(bpf_map_delete_elem(bpf_map__fd(rig.bpf->maps.sockmap_targets),
				 &one));
	MUST((int)send(rig.end[0], stream, 100, 0));
	lab_check(arrives_whole(rig.leg[0], 100) &&
			  flow_of(&rig).control == 200 + SOCKMAP_PASSING,
		  "without a target all is passed up");
	rig_free(&rig);
}

/* Nobody reads at end[1]: what its leg's send buffer does not take is passed up. */
static void a_full_target_passes(void)
{
	struct rig rig = rig_make();
	struct sockmap_flow flow;
	size_t sent = 0;
	int queued, space;
	socklen_t len = sizeof(space);

	culvert_join(rig.bpf, rig.leg);
	for (ssize_t n = 0; n >= 0; sent += (size_t)n) {
		struct pollfd pollfd = { .fd = rig.end[0], .events = POLLOUT };

		if (poll(&pollfd, 1, 500) <= 0)
			break;
		n = send(rig.end[0], stream, LONG, MSG_DONTWAIT);
		if (n < 0)
			break;
	}
	flow = flow_of(&rig);
	MUST(ioctl(rig.leg[1], TIOCOUTQ, &queued));
	MUST(getsockopt(rig.leg[1], SOL_SOCKET, SO_SNDBUF, &space, &len));
	lab_check(flow.control & SOCKMAP_PASSING && flow.redirected > 0 &&
			  flow.redirected + flow.control / 2 <= sent,
		  "what a full target does not take is passed up");
	lab_check(queued <= space, "and the send buffer holds all of the rest");
	rig_free(&rig);
}

int main(void)
{
	lab_need_root();
	namespaces_make(false);
	options_off();
	old_beginnings_are_cut();
	read_parts_are_cut();
	a_bare_fin_breaks_nothing();
	no_target_passes();
	a_full_target_passes();
	return lab_result();
}
