/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * When wire pays.
 *
 * On wire the two ends control congestion between them: round trips add up and a
 * loss on either side slows both, while two connections recover each by itself
 * and sooner. Measured against the splice engine (20 Mbit/s, both sides alike):
 * without loss never more than 5 % apart at any round trip up to 100 ms; with
 * 0.1 % loss 1.1 times slower at 5 ms, 1.5 times at 20 ms, 2 times at 50 ms; with
 * 0.5 % 1.5 times slower at 5 ms already.
 *
 * An end that has had bytes acknowledged knows the round trip to us. By the join it
 * grows by the other side's, which a congestion control that watches the delay
 * (HyStart of CUBIC, Linux's default) takes for a queue: it leaves slow start with
 * some 16 segments under way, and a fast path stays empty for seconds. That happens
 * from a growth of 4 ms on, or of an eighth if that is more: with 40 ms and 10 ms
 * the first second of a client carried 6 Mbit/s of 20 on wire, 16 with splice; with
 * 45 ms and 5 ms 16 and 15. A client has sent its bind at least, a peer nothing
 * unless its protocol lets it speak first.
 *
 * A data connection at its bind has sent some five segments: loss shows there only
 * when the handshake itself met it, which is evidence enough. The client's
 * control connection, which is older and has the same path, knows more. A path
 * about which nothing is known counts as clean, so the round trip has to bound
 * what it costs to be wrong.
 */
#include "pair/policy.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

#include "base/syscalls.h"

SYSCALLS(SYSCALLS_RELAY, "getsockopt");

#define MILLION 1000000u

static bool path_loses(const struct pair_path *path, uint32_t max_loss)
{
	return (uint64_t)path->again * MILLION >
	       (uint64_t)path->segments * max_loss;
}

/* 0: nobody has measured it. */
static uint32_t rtt_known(uint32_t rtt_us)
{
	return rtt_us == UINT32_MAX ? 0 : rtt_us;
}

static uint32_t rtt_least(const struct pair_path *a, const struct pair_path *b)
{
	return b && b->rtt_us < a->rtt_us ? b->rtt_us : a->rtt_us;
}

enum wire_reason pair_policy_decide(const struct pair_policy *policy,
				    const struct pair_path *client,
				    const struct pair_path *peer,
				    const struct pair_path *control)
{
	uint32_t near = rtt_known(rtt_least(client, control));
	uint32_t far = rtt_known(peer->rtt_us);
	uint32_t growth = peer->heard && near > far ? near : far;

	if (path_loses(client, policy->max_loss) ||
	    path_loses(peer, policy->max_loss) ||
	    (control && path_loses(control, policy->max_loss)))
		return WIRE_NO_POLICY_LOSS;
	if (policy->max_rtt_us && (uint64_t)near + far > policy->max_rtt_us)
		return WIRE_NO_POLICY_RTT;
	if (policy->max_growth_us && growth > policy->max_growth_us)
		return WIRE_NO_POLICY_GROWTH;
	return WIRE_OK;
}

void pair_path_read(int fd, struct pair_path *out)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	memset(&info, 0, sizeof(info));
	*out = (struct pair_path){ .rtt_us = UINT32_MAX };
	/* A kernel that knows fewer fields leaves the others zero. */
	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
		return;
	if (info.tcpi_min_rtt && info.tcpi_min_rtt != UINT32_MAX)
		out->rtt_us = info.tcpi_min_rtt;
	else if (info.tcpi_rtt)
		out->rtt_us = info.tcpi_rtt;
	out->segments = info.tcpi_segs_out;
	out->again = info.tcpi_total_retrans;
	out->heard = info.tcpi_bytes_received > 0;
}
