/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A pair and how packets move its state. Several CPUs may carry packets of one
 * leg at once: what only grows is raised by compare-and-swap, a lost update of
 * the rest is made good by the next packet.
 */
#ifndef KERN_PAIR_H
#define KERN_PAIR_H

#include "maps.h"
#include "work.h"

/* Between which legs a packet goes: pointers alone, see struct work. */
struct passage {
	struct work *work;
	struct wire_pair *pair;
	struct wire_leg *from, *to;
};

#define RAISE_TRIES 4

/* a < b in sequence space. */
static __always_inline bool before(__u32 a, __u32 b)
{
	return (__s32)(a - b) < 0;
}

static __always_inline void raise(__u32 *at, __u32 value)
{
	for (int i = 0; i < RAISE_TRIES; i++) {
		__u32 old = *(volatile __u32 *)at;

		if (!before(old, value) ||
		    __sync_val_compare_and_swap(at, old, value) == old)
			return;
	}
}

/* The same in a space of 64 bits, of which `value` is the low half. */
static __always_inline void raise_extended(__u64 *at, __u32 value)
{
	for (int i = 0; i < RAISE_TRIES; i++) {
		__u64 old = *(volatile __u64 *)at;
		__s32 more = value - (__u32)old;

		if (more <= 0 ||
		    __sync_val_compare_and_swap(at, old, old + more) == old)
			return;
	}
}

/* A key begins as a leg does: ends and ports. */
#define ENDS_WORDS (__builtin_offsetof(struct wire_leg, seq_delta) / 4)
_Static_assert(__builtin_offsetof(struct wire_key, local_port) ==
		       __builtin_offsetof(struct wire_leg, local_port),
	       "ends");

static __always_inline bool leg_is(const struct wire_leg *leg,
				   const struct wire_key *key)
{
	const __u32 *a = (const __u32 *)leg, *b = (const __u32 *)key;
	__u32 differ = 0;

	for (__u32 i = 0; i < ENDS_WORDS; i++)
		differ |= a[i] ^ b[i];
	return !differ;
}

/*
 * The pair that work->packet.key belongs to; false: it is none of ours. A flow that
 * is deleted while it is read may be another pair's by now: the leg tells.
 */
static __always_inline bool passage_find(struct passage *t, struct work *work)
{
	struct wire_flow *flow =
		bpf_map_lookup_elem(&wire_flows, &work->packet.key);
	__u64 leg;

	if (!flow)
		return false;
	work->index = flow->pair;
	leg = flow->leg;
	/* By hand: the compiler's own bound is lost on the verifier. */
	asm volatile("%0 &= 1" : "+r"(leg));
	work->leg = leg;
	t->work = work;
	t->pair = bpf_map_lookup_elem(&wire_pairs, &work->index);
	if (!t->pair)
		return false;
	t->from = &t->pair->leg[leg];
	t->to = &t->pair->leg[leg ^ 1];
	if (!leg_is(t->from, &work->packet.key))
		return false;
	work->state = *(volatile __u32 *)&t->pair->state;
	return work->state != WIRE_FREE;
}

static __always_inline bool passage_expired(const struct passage *t)
{
	t->work->now = bpf_ktime_get_coarse_ns();
	return t->pair->expires_ns && t->work->now > t->pair->expires_ns;
}

static __always_inline void pair_tell(const struct passage *t, __u32 kind,
				      __u32 end)
{
	struct wire_event event = {
		.kind = kind,
		.pair = t->work->index,
		.generation = t->pair->generation,
		.end = end,
	};

	/* A full ring loses it: the broker sweeps the states, too. */
	bpf_ringbuf_output(&wire_events, &event, sizeof(event), 0);
}

/* The state changes before the event is sent; only the first end counts. */
static __always_inline void pair_end(const struct passage *t, __u32 end)
{
	if (__sync_val_compare_and_swap(&t->pair->state, WIRE_JOINED,
					WIRE_ENDED) != WIRE_JOINED)
		return;
	t->pair->end = end;
	pair_tell(t, WIRE_EVENT_ENDED, end);
}

/* Both may find the other leg free at once, so the pair knows who was first. */
static __always_inline void pair_unlatch(const struct passage *t)
{
	__u32 old =
		__sync_fetch_and_and(&t->from->flags, ~(__u32)WIRE_LEG_LATCHED);

	if (!(old & WIRE_LEG_LATCHED) ||
	    *(volatile __u32 *)&t->to->flags & WIRE_LEG_LATCHED)
		return;
	if (!__sync_val_compare_and_swap(&t->pair->unlatched, 0, 1))
		pair_tell(t, WIRE_EVENT_UNLATCHED, 0);
}

/* Whether the other end has acknowledged the FIN of `from`'s remote. */
static __always_inline bool leg_finished(const struct wire_leg *from,
					 const struct wire_leg *to)
{
	return from->flags & WIRE_LEG_FIN &&
	       !before((__u32)to->acked, from->fin_end + from->seq_delta);
}

#endif
