/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One direction of the impairment box: decides what happens to each frame, and
 * keeps those that are late on purpose.
 *
 * Only TCP over IPv4 or IPv6 is impaired: ARP, neighbour discovery and ICMP pass
 * at once, so that a test sees loss where it asked for it. A frame carries the
 * virtio header of its packet socket in front.
 */
#ifndef NET_WAY_H
#define NET_WAY_H

#include <linux/virtio_net.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WAY_RULES  16
#define WAY_HEADER sizeof(struct virtio_net_hdr)

/* What a rule counts. */
enum way_match {
	MATCH_ANY,
	MATCH_DATA, /* carries bytes */
	MATCH_ACK, /* carries none, nor SYN, FIN or RST */
	MATCH_SYN,
	MATCH_SYNACK,
	MATCH_FIN,
	MATCH_RST,
};

enum way_action {
	ACTION_PASS,
	ACTION_DROP,
	ACTION_DUP,
	ACTION_HOLD, /* late by hold_ns; those behind overtake it */
	ACTION_CORRUPT, /* one bit of the segment */
};

/* Counted from its making: the frames first .. first + count - 1 are met. */
struct way_rule {
	enum way_action action;
	enum way_match match;
	uint64_t first, count; /* first from 1 */
	uint64_t seen;
	uint64_t hold_ns;
	uint16_t port; /* of either end; 0: every flow */
};

/* Chances are of 2^32. */
struct way_conf {
	uint64_t loss, dup, reorder, corrupt;
	uint64_t gap_ns; /* how late a reordered frame is */
	uint64_t delay_ns, jitter_ns;
	uint64_t rate; /* bits a second; 0: unlimited */
	uint64_t queue; /* bytes that wait for the rate */
	uint64_t mtu; /* bytes of an IP packet; 0: any */
	uint64_t tag; /* 1: frames leave with a priority tag, VLAN 0 (impair) */
	uint64_t tell; /* 1: the sender of a longer one is told, as routers do */
};

struct way_stats {
	uint64_t frames, segments; /* seen; TCP, super-packets by their parts */
	uint64_t data; /* TCP payload bytes seen */
	uint64_t lost, duplicated, reordered, corrupted, ruled;
	uint64_t too_long, overflow; /* dropped by mtu, by queue */
	uint64_t told; /* of too_long: answered with packet-too-big */
	uint64_t super; /* frames of more than one segment */
	uint64_t late; /* waiting now */
};

struct way_frame {
	uint64_t due, order;
	size_t len;
	uint8_t bytes[];
};

struct way {
	struct way_conf conf;
	struct way_stats stats;
	struct way_rule rules[WAY_RULES];
	size_t rule_count;
	uint64_t random; /* state of the generator */
	uint64_t order; /* frames queued so far */
	uint64_t last_due; /* in-order frames do not overtake */
	uint64_t link_free; /* when the rate lets the next one leave */
	struct way_frame **heap;
	size_t heap_count, heap_room;
	struct way_frame *answer; /* to go back where the last frame came from */
};

void way_init(struct way *way, uint64_t seed);
void way_free(struct way *way);

/*
 * Judges a frame. True: send it now, as it is in `bytes` (which may have been
 * corrupted). False: it is gone, or kept until it is due.
 */
bool way_take(struct way *way, uint8_t *bytes, size_t len, uint64_t now);

/* What the last frame is answered with, NULL: nothing. The caller frees it. */
struct way_frame *way_answer(struct way *way);

/* When the next late frame is due, UINT64_MAX without one. */
uint64_t way_next(const struct way *way);
/* A frame that is due; the caller frees it. NULL: none. */
struct way_frame *way_due(struct way *way, uint64_t now);

/* 0, or -ENOSPC. */
int way_rule_add(struct way *way, const struct way_rule *rule);

#endif
