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

static uint32_t rtt_least(const struct pair_path *a, const struct pair_path *b)
{
	return b && b->rtt_us < a->rtt_us ? b->rtt_us : a->rtt_us;
}

enum wire_reason pair_policy_decide(const struct pair_policy *policy,
				    const struct pair_path *client,
				    const struct pair_path *peer,
				    const struct pair_path *control)
{
	uint32_t near = rtt_least(client, control), far = peer->rtt_us;
	uint64_t rtt = 0;

	if (path_loses(client, policy->max_loss) ||
	    path_loses(peer, policy->max_loss) ||
	    (control && path_loses(control, policy->max_loss)))
		return WIRE_NO_POLICY_LOSS;
	rtt += near == UINT32_MAX ? 0 : near;
	rtt += far == UINT32_MAX ? 0 : far;
	if (policy->max_rtt_us && rtt > policy->max_rtt_us)
		return WIRE_NO_POLICY_RTT;
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
}
