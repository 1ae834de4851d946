/* SPDX-License-Identifier: BSD-2-Clause */
/* What two snapshots say: may this pair be joined, and with which offsets. */
#include "broker/checks.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#define HEADERS_IPV4 40 /* bytes of the IP and TCP headers without options */
#define HEADERS_IPV6 60

/*
 * How far translated timestamps run ahead of our clock at the join. What the relay
 * itself still sends (the bind's answer) is stamped a little after the snapshot,
 * while the other end's next segment may bear the very stamp it bore before: without
 * this the receiver, having seen the answer, would discard it as old (PAWS). All
 * that the relay sends precedes in sequence what is forwarded, so the other way
 * round nothing is discarded.
 */
#define TIMESTAMP_AHEAD 64

/* Sequence order, RFC 9293 section 3.4. */
static bool before(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

/* The largest payload the remote end may send to us as far as we announced. */
static bool segments_fit(const struct wire_snapshot *from,
			 const struct wire_snapshot *to, uint32_t headers)
{
	return from->advmss <= to->mss_clamp &&
	       from->advmss + headers <= to->pmtu;
}

static uint8_t shift_in(const struct wire_snapshot *leg)
{
	return leg->window_scaling ? (uint8_t)leg->snd_wscale : 0;
}

static uint8_t shift_out(const struct wire_snapshot *leg)
{
	return leg->window_scaling ? (uint8_t)leg->rcv_wscale : 0;
}

/* A window rounded down must still hold a segment (RFC 7323 section 2.4). */
static bool scale_fine(const struct wire_snapshot *leg)
{
	uint32_t mss = leg->advmss < leg->mss_clamp ? leg->advmss :
						      leg->mss_clamp;

	return shift_in(leg) <= 14 && shift_out(leg) <= 14 &&
	       1u << shift_out(leg) <= mss;
}

/* What was negotiated, once for the life of the connections. */
static enum wire_reason check_options(const struct wire_snapshot *client,
				      const struct wire_snapshot *peer,
				      uint32_t family)
{
	uint32_t headers = family == AF_INET ? HEADERS_IPV4 : HEADERS_IPV6;

	if (!client->timestamps != !peer->timestamps)
		return WIRE_NO_TIMESTAMPS;
	if (!client->sack != !peer->sack)
		return WIRE_NO_SACK;
	if (!scale_fine(client) || !scale_fine(peer))
		return WIRE_NO_SCALE;
	if (client->ecn || peer->ecn)
		return WIRE_NO_ECN;
	if (client->md5 || peer->md5)
		return WIRE_NO_MD5;
	if (!segments_fit(client, peer, headers) ||
	    !segments_fit(peer, client, headers))
		return WIRE_NO_MSS;
	return WIRE_OK;
}

/*
 * What is still owed to a remote end must fit into its window: one that reads slowly
 * would else keep the pair latched for as long as it likes.
 */
static bool owed_fits(const struct wire_snapshot *leg, uint32_t more)
{
	return leg->write_seq - leg->snd_una + more <= leg->snd_wnd;
}

enum wire_reason check_pair(const struct wire_snapshot legs[WIRE_LEGS],
			    uint32_t family, uint32_t to_client,
			    uint32_t unread)
{
	const uint32_t left[WIRE_LEGS] = { [WIRE_PEER] = unread };
	enum wire_reason reason;

	for (int i = 0; i < WIRE_LEGS; i++)
		if (!legs[i].found || legs[i].state != TCP_ESTABLISHED)
			return WIRE_NO_STATE;
	reason = check_options(&legs[WIRE_CLIENT], &legs[WIRE_PEER], family);
	if (reason)
		return reason;
	for (int i = 0; i < WIRE_LEGS; i++)
		if (legs[i].urgent)
			return WIRE_NO_URGENT;
	if (!owed_fits(&legs[WIRE_CLIENT], to_client) ||
	    !owed_fits(&legs[WIRE_PEER], 0))
		return WIRE_NO_EARLY;
	for (int i = 0; i < WIRE_LEGS; i++)
		if (legs[i].copied_seq + left[i] != legs[i].rcv_nxt ||
		    legs[i].out_of_order)
			return WIRE_AGAIN;
	return WIRE_OK;
}

bool check_quiet(const struct wire_snapshot before_[WIRE_LEGS],
		 const struct wire_snapshot after[WIRE_LEGS])
{
	for (int i = 0; i < WIRE_LEGS; i++)
		if (!after[i].found || after[i].socket != before_[i].socket ||
		    after[i].state != before_[i].state ||
		    after[i].rcv_nxt != before_[i].rcv_nxt ||
		    after[i].copied_seq != before_[i].copied_seq ||
		    after[i].write_seq != before_[i].write_seq ||
		    after[i].out_of_order || after[i].urgent)
			return false;
	return true;
}

/* Packets from `from` leave on `to`; sent[]: where our sending ends on each. */
static void leg_offsets(const struct wire_snapshot *from,
			const struct wire_snapshot *to, uint32_t from_sent,
			uint32_t to_sent, struct wire_leg *leg)
{
	leg->seq_delta = to_sent - from->rcv_nxt;
	leg->ack_delta = to->rcv_nxt - from_sent;
	leg->latch = from_sent;
	leg->received = from->rcv_nxt;
	leg->offered = from->rcv_wup + from->rcv_wnd;
	if (before(leg->offered, leg->received))
		leg->offered = leg->received;
	leg->window_shift_in = shift_in(from);
	leg->window_shift_out = shift_out(from);
	leg->sent_end = from->rcv_nxt;
	leg->fin_end = 0;
	leg->packets = 0;
	leg->flags = (from->timestamps ? WIRE_LEG_TIMESTAMPS : 0) |
		     (from->sack ? WIRE_LEG_SACK : 0);
}

void check_offsets(const struct wire_snapshot legs[WIRE_LEGS],
		   uint32_t to_client, struct wire_pair *pair)
{
	const struct wire_snapshot *client = &legs[WIRE_CLIENT];
	const struct wire_snapshot *peer = &legs[WIRE_PEER];
	uint32_t client_sent = client->write_seq + to_client;

	leg_offsets(client, peer, client_sent, peer->write_seq,
		    &pair->leg[WIRE_CLIENT]);
	leg_offsets(peer, client, peer->write_seq, client_sent,
		    &pair->leg[WIRE_PEER]);
	check_refresh(legs, pair);
}

void check_refresh(const struct wire_snapshot legs[WIRE_LEGS],
		   struct wire_pair *pair)
{
	for (int i = 0; i < WIRE_LEGS; i++) {
		struct wire_leg *leg = &pair->leg[i];
		const struct wire_snapshot *from = &legs[i], *to = &legs[!i];

		leg->tsval_delta =
			to->timestamp + TIMESTAMP_AHEAD - from->ts_recent;
		leg->tsecr_delta =
			to->ts_recent - from->timestamp - TIMESTAMP_AHEAD;
		leg->tsval = from->ts_recent + leg->tsval_delta;
		/* One turn ahead: nothing older ever falls below zero. */
		leg->acked = (1ull << 32) + legs[i].snd_una;
		pair->started[i] =
			leg->acked + (uint32_t)(leg->latch - legs[i].snd_una);
		leg->right = legs[i].snd_una + legs[i].snd_wnd;
		leg->window = legs[i].snd_wnd;
		leg->flags &= ~WIRE_LEG_LATCHED;
		if (leg->latch != legs[i].snd_una)
			leg->flags |= WIRE_LEG_LATCHED;
	}
}

bool check_latched(const struct wire_pair *pair)
{
	return (__atomic_load_n(&pair->leg[WIRE_CLIENT].flags,
				__ATOMIC_ACQUIRE) |
		__atomic_load_n(&pair->leg[WIRE_PEER].flags,
				__ATOMIC_ACQUIRE)) &
	       WIRE_LEG_LATCHED;
}

uint64_t check_bytes(const struct wire_pair *pair, enum wire_leg_name name)
{
	const struct wire_leg *leg = &pair->leg[name];
	const struct wire_leg *other = &pair->leg[!name];
	uint64_t acked = __atomic_load_n(&leg->acked, __ATOMIC_RELAXED);

	if (acked <= pair->started[name])
		return 0;
	acked -= pair->started[name];
	/* The other end's FIN, translated, takes a number but is no byte. */
	if (other->flags & WIRE_LEG_FIN &&
	    (uint32_t)leg->acked == other->fin_end + other->seq_delta)
		acked--;
	return acked;
}

struct reset_numbers check_reset(const struct wire_pair *pair,
				 enum wire_leg_name name)
{
	const struct wire_leg *leg = &pair->leg[name];
	const struct wire_leg *other = &pair->leg[!name];
	uint32_t sent = other->sent_end + other->seq_delta;
	struct reset_numbers numbers = {
		.seq = (uint32_t)leg->acked,
		.ack = leg->sent_end,
	};

	/*
	 * Segments under way reach it before the reset does. One that was lost
	 * makes it ask (RFC 5961 section 3.2), and the kernel, which knows no
	 * such connection any more, answers with exactly the number asked for.
	 */
	if (before(numbers.seq, sent))
		numbers.seq = sent;
	/* Beyond its window it would be ignored; at the edge it asks. */
	if (before(leg->right, numbers.seq) &&
	    !before(leg->right, (uint32_t)leg->acked))
		numbers.seq = leg->right;
	return numbers;
}

void check_key(const struct wire_pair *pair, enum wire_leg_name name,
	       struct wire_key *out)
{
	const struct wire_leg *leg = &pair->leg[name];

	memset(out, 0, sizeof(*out));
	memcpy(out->remote, leg->remote, sizeof(out->remote));
	memcpy(out->local, leg->local, sizeof(out->local));
	out->remote_port = leg->remote_port;
	out->local_port = leg->local_port;
	out->family = (__u8)pair->family;
}
