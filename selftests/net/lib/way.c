/* SPDX-License-Identifier: BSD-2-Clause */
/* What happens to each frame of one direction. */
#include "lib/way.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>

#include "lib/pattern.h"

/* Where the TCP segment of a frame lies; tcp NULL: not TCP. */
struct segment {
	uint8_t *tcp;
	size_t len; /* header and payload */
	size_t payload;
	size_t packet; /* bytes of the IP packet */
	unsigned int parts; /* of a super-packet; else 1 */
	uint16_t ports[2];
	uint8_t flags;
};

static bool chance(struct way *way, uint64_t of_2_32)
{
	return of_2_32 && (draw_next(&way->random) >> 32) < of_2_32;
}

void way_init(struct way *way, uint64_t seed)
{
	memset(way, 0, sizeof(*way));
	way->random = seed;
	way->conf.gap_ns = 2000000;
	way->conf.queue = 1 << 20;
}

void way_free(struct way *way)
{
	for (size_t i = 0; i < way->heap_count; i++)
		free(way->heap[i]);
	free(way->heap);
	free(way->answer);
	way->answer = NULL;
	way->heap = NULL;
	way->heap_count = way->heap_room = 0;
}

/* The TCP header inside an IP packet of `len` bytes: its offset, 0 for none. */
static size_t tcp_offset(const uint8_t *ip, size_t len, size_t *packet)
{
	struct iphdr v4;
	struct ip6_hdr v6;

	if (len >= sizeof(v4) && ip[0] >> 4 == 4) {
		memcpy(&v4, ip, sizeof(v4));
		*packet = ntohs(v4.tot_len);
		if (v4.protocol != IPPROTO_TCP || v4.frag_off & htons(0x1fff))
			return 0;
		return v4.ihl * 4u;
	}
	if (len >= sizeof(v6) && ip[0] >> 4 == 6) {
		memcpy(&v6, ip, sizeof(v6));
		*packet = sizeof(v6) + ntohs(v6.ip6_plen);
		return v6.ip6_nxt == IPPROTO_TCP ? sizeof(v6) : 0;
	}
	return 0;
}

static void segment_find(uint8_t *bytes, size_t len, struct segment *out)
{
	size_t head = WAY_HEADER + ETH_HLEN, at;
	struct virtio_net_hdr virtio;
	struct tcphdr tcp;

	memset(out, 0, sizeof(*out));
	if (len < head)
		return;
	at = tcp_offset(bytes + head, len - head, &out->packet);
	if (!at || out->packet > len - head || at + sizeof(tcp) > out->packet)
		return;
	memcpy(&virtio, bytes, sizeof(virtio));
	memcpy(&tcp, bytes + head + at, sizeof(tcp));
	out->tcp = bytes + head + at;
	out->len = out->packet - at;
	if (tcp.doff * 4u <= out->len)
		out->payload = out->len - tcp.doff * 4u;
	out->parts = 1;
	if (virtio.gso_type != VIRTIO_NET_HDR_GSO_NONE && virtio.gso_size)
		out->parts =
			(unsigned int)((out->payload + virtio.gso_size - 1) /
				       virtio.gso_size);
	out->ports[0] = ntohs(tcp.source);
	out->ports[1] = ntohs(tcp.dest);
	out->flags = out->tcp[13];
}

static enum way_match segment_kind(const struct segment *segment)
{
	if (segment->flags & TH_RST)
		return MATCH_RST;
	if (segment->flags & TH_SYN)
		return segment->flags & TH_ACK ? MATCH_SYNACK : MATCH_SYN;
	if (segment->flags & TH_FIN)
		return MATCH_FIN;
	return segment->payload ? MATCH_DATA : MATCH_ACK;
}

static bool rule_meets(struct way_rule *rule, const struct segment *segment)
{
	enum way_match kind = segment_kind(segment);
	/* A FIN on the last data is data, too. */
	bool fits = rule->match == MATCH_ANY || rule->match == kind ||
		    (rule->match == MATCH_DATA && segment->payload);

	if (!fits || (rule->port && rule->port != segment->ports[0] &&
		      rule->port != segment->ports[1]))
		return false;
	rule->seen++;
	return rule->seen >= rule->first &&
	       rule->seen - rule->first < rule->count;
}

/* Every rule counts; the first that meets the segment decides. */
static const struct way_rule *rules_ask(struct way *way,
					const struct segment *segment)
{
	const struct way_rule *found = NULL;

	for (size_t i = 0; i < way->rule_count; i++)
		if (rule_meets(&way->rules[i], segment) && !found)
			found = &way->rules[i];
	return found;
}

int way_rule_add(struct way *way, const struct way_rule *rule)
{
	if (way->rule_count == WAY_RULES)
		return -ENOSPC;
	way->rules[way->rule_count++] = *rule;
	return 0;
}

static uint16_t sum_fold(uint32_t sum, const uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		sum += i % 2 ? bytes[i] : (uint32_t)bytes[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

/*
 * A checksum left to the hardware would be made to fit what we changed: it is
 * finished first. The field holds the pseudo-header's part already.
 */
static void checksum_finish(uint8_t *bytes, size_t len)
{
	struct virtio_net_hdr virtio;
	size_t start, field;
	uint16_t sum;

	memcpy(&virtio, bytes, sizeof(virtio));
	if (!(virtio.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
		return;
	start = WAY_HEADER + virtio.csum_start;
	field = start + virtio.csum_offset;
	if (field + 2 > len)
		return;
	sum = htons(sum_fold(0, bytes + start, len - start));
	memcpy(bytes + field, &sum, sizeof(sum));
	virtio.flags = 0;
	virtio.csum_start = virtio.csum_offset = 0;
	memcpy(bytes, &virtio, sizeof(virtio));
}

/* One bit, anywhere in the segment: a checksum always notices that. */
static void segment_corrupt(struct way *way, uint8_t *bytes, size_t len,
			    const struct segment *segment)
{
	uint64_t where = draw_next(&way->random);

	if (segment->parts > 1)
		return; /* its checksums are made from what it holds */
	checksum_finish(bytes, len);
	segment->tcp[(where >> 3) % segment->len] ^= (uint8_t)(1u << where % 8);
	way->stats.corrupted++;
}

#define QUOTED4 (sizeof(struct iphdr) + 8)
#define QUOTED6 (sizeof(struct ip6_hdr) + 20)

/* Fragmentation needed, from the far end's address; its length. */
static size_t too_big4(uint8_t *out, const uint8_t *ip, uint16_t mtu)
{
	struct iphdr inner, outer = {
		.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_ICMP
	};
	struct icmphdr icmp = { .type = ICMP_DEST_UNREACH,
				.code = ICMP_FRAG_NEEDED };
	size_t len = sizeof(outer) + sizeof(icmp) + QUOTED4;

	memcpy(&inner, ip, sizeof(inner));
	outer.tot_len = htons((uint16_t)len);
	outer.saddr = inner.daddr;
	outer.daddr = inner.saddr;
	outer.check = htons(sum_fold(0, (uint8_t *)&outer, sizeof(outer)));
	icmp.un.frag.mtu = htons(mtu);
	memcpy(out, &outer, sizeof(outer));
	memcpy(out + sizeof(outer) + sizeof(icmp), ip, QUOTED4);
	memcpy(out + sizeof(outer), &icmp, sizeof(icmp));
	icmp.checksum =
		htons(sum_fold(0, out + sizeof(outer), sizeof(icmp) + QUOTED4));
	memcpy(out + sizeof(outer), &icmp, sizeof(icmp));
	return len;
}

static size_t too_big6(uint8_t *out, const uint8_t *ip, uint16_t mtu)
{
	struct ip6_hdr inner,
		outer = { .ip6_hlim = 64, .ip6_nxt = IPPROTO_ICMPV6 };
	struct icmp6_hdr icmp = { .icmp6_type = ICMP6_PACKET_TOO_BIG };
	size_t len = sizeof(icmp) + QUOTED6;
	uint32_t pseudo = (uint32_t)len + IPPROTO_ICMPV6;
	uint8_t *from = out + offsetof(struct ip6_hdr, ip6_src);

	memcpy(&inner, ip, sizeof(inner));
	outer.ip6_vfc = 0x60;
	outer.ip6_plen = htons((uint16_t)len);
	outer.ip6_src = inner.ip6_dst;
	outer.ip6_dst = inner.ip6_src;
	icmp.icmp6_mtu = htonl(mtu);
	memcpy(out, &outer, sizeof(outer));
	memcpy(out + sizeof(outer), &icmp, sizeof(icmp));
	memcpy(out + sizeof(outer) + sizeof(icmp), ip, QUOTED6);
	/* The addresses and what follows them are summed in one go. */
	icmp.icmp6_cksum = htons(sum_fold(pseudo, from, 32 + len));
	memcpy(out + sizeof(outer), &icmp, sizeof(icmp));
	return sizeof(outer) + len;
}

/* Answers a frame that does not fit, as the router at a narrow link would. */
static void answer_too_big(struct way *way, const uint8_t *bytes)
{
	const uint8_t *eth = bytes + WAY_HEADER, *ip = eth + ETH_HLEN;
	struct way_frame *frame = calloc(1, sizeof(*frame) + 256);
	uint8_t *out;

	if (!frame)
		return;
	out = frame->bytes + WAY_HEADER;
	memcpy(out, eth + ETH_ALEN, ETH_ALEN);
	memcpy(out + ETH_ALEN, eth, ETH_ALEN);
	memcpy(out + 2 * ETH_ALEN, eth + 2 * ETH_ALEN, 2);
	frame->len =
		WAY_HEADER + ETH_HLEN +
		(ip[0] >> 4 == 4 ?
			 too_big4(out + ETH_HLEN, ip, (uint16_t)way->conf.mtu) :
			 too_big6(out + ETH_HLEN, ip, (uint16_t)way->conf.mtu));
	free(way->answer);
	way->answer = frame;
	way->stats.told++;
}

struct way_frame *way_answer(struct way *way)
{
	struct way_frame *frame = way->answer;

	way->answer = NULL;
	return frame;
}

static bool heap_before(const struct way_frame *a, const struct way_frame *b)
{
	return a->due < b->due || (a->due == b->due && a->order < b->order);
}

static void heap_rise(struct way *way, size_t at)
{
	struct way_frame **heap = way->heap;

	while (at && heap_before(heap[at], heap[(at - 1) / 2])) {
		struct way_frame *moved = heap[at];

		heap[at] = heap[(at - 1) / 2];
		heap[(at - 1) / 2] = moved;
		at = (at - 1) / 2;
	}
}

static void heap_sink(struct way *way)
{
	struct way_frame **heap = way->heap;
	size_t at = 0;

	for (;;) {
		size_t least = at, child = 2 * at + 1;
		struct way_frame *moved = heap[at];

		for (size_t i = child; i < child + 2; i++)
			if (i < way->heap_count &&
			    heap_before(heap[i], heap[least]))
				least = i;
		if (least == at)
			return;
		heap[at] = heap[least];
		heap[least] = moved;
		at = least;
	}
}

static bool heap_grow(struct way *way)
{
	size_t room = way->heap_room ? 2 * way->heap_room : 1024;
	struct way_frame **heap = realloc(way->heap, room * sizeof(*heap));

	if (!heap)
		return false;
	way->heap = heap;
	way->heap_room = room;
	return true;
}

/* Keeps a copy until `due`. Without memory the frame is lost, and counted. */
static void frame_keep(struct way *way, const uint8_t *bytes, size_t len,
		       uint64_t due)
{
	struct way_frame *frame = malloc(sizeof(*frame) + len);

	if (!frame || (way->heap_count == way->heap_room && !heap_grow(way))) {
		free(frame);
		way->stats.overflow++;
		return;
	}
	frame->due = due;
	frame->order = way->order++;
	frame->len = len;
	memcpy(frame->bytes, bytes, len);
	way->heap[way->heap_count] = frame;
	heap_rise(way, way->heap_count++);
	way->stats.late++;
}

uint64_t way_next(const struct way *way)
{
	return way->heap_count ? way->heap[0]->due : UINT64_MAX;
}

struct way_frame *way_due(struct way *way, uint64_t now)
{
	struct way_frame *first;

	if (!way->heap_count || way->heap[0]->due > now)
		return NULL;
	first = way->heap[0];
	way->heap[0] = way->heap[--way->heap_count];
	heap_sink(way);
	way->stats.late--;
	return first;
}

/* When a frame that leaves in its turn arrives; 0: the queue is full. */
static uint64_t frame_due(struct way *way, size_t len, uint64_t now)
{
	const struct way_conf *conf = &way->conf;
	uint64_t due = now;

	if (conf->rate) {
		uint64_t start = way->link_free > now ? way->link_free : now;
		uint64_t waiting = (start - now) * conf->rate / 8000000000u;

		if (waiting > conf->queue) {
			way->stats.overflow++;
			return 0;
		}
		way->link_free = start + len * 8000000000u / conf->rate;
		due = way->link_free;
	}
	due += conf->delay_ns;
	if (conf->jitter_ns)
		due += draw_next(&way->random) % conf->jitter_ns;
	if (due < way->last_due)
		due = way->last_due;
	way->last_due = due;
	return due;
}

/* What the chances make of a segment that no rule decides. */
static enum way_action chances_ask(struct way *way)
{
	const struct way_conf *conf = &way->conf;

	if (chance(way, conf->loss)) {
		way->stats.lost++;
		return ACTION_DROP;
	}
	if (chance(way, conf->corrupt))
		return ACTION_CORRUPT;
	if (chance(way, conf->reorder)) {
		way->stats.reordered++;
		return ACTION_HOLD;
	}
	if (chance(way, conf->dup)) {
		way->stats.duplicated++;
		return ACTION_DUP;
	}
	return ACTION_PASS;
}

/* Sends now or keeps: see way_take. */
static bool frame_pass(struct way *way, const uint8_t *bytes, size_t len,
		       uint64_t now)
{
	uint64_t due = frame_due(way, len, now);

	if (!due)
		return false;
	if (due <= now && way_next(way) > now)
		return true;
	frame_keep(way, bytes, len, due);
	return false;
}

bool way_take(struct way *way, uint8_t *bytes, size_t len, uint64_t now)
{
	const struct way_rule *rule;
	struct segment segment;
	enum way_action action;
	uint64_t hold = way->conf.gap_ns;

	way->stats.frames++;
	segment_find(bytes, len, &segment);
	if (!segment.tcp)
		return true;
	way->stats.segments += segment.parts;
	way->stats.super += segment.parts > 1;
	way->stats.data += segment.payload;
	if (way->conf.mtu && segment.parts == 1 &&
	    segment.packet > way->conf.mtu) {
		way->stats.too_long++;
		if (way->conf.tell)
			answer_too_big(way, bytes);
		return false;
	}
	rule = rules_ask(way, &segment);
	way->stats.ruled += rule != NULL;
	action = rule ? rule->action : chances_ask(way);
	if (rule)
		hold = rule->hold_ns;
	switch (action) {
	case ACTION_DROP:
		return false;
	case ACTION_HOLD:
		frame_keep(way, bytes, len, now + way->conf.delay_ns + hold);
		return false;
	case ACTION_CORRUPT:
		segment_corrupt(way, bytes, len, &segment);
		break;
	case ACTION_DUP:
		/* The twin first: it must not miss what keeps the order. */
		frame_keep(way, bytes, len, frame_due(way, len, now));
		break;
	case ACTION_PASS:
		break;
	}
	return frame_pass(way, bytes, len, now);
}
