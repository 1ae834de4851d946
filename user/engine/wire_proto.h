/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the relay and the broker say to each other, over SOCK_SEQPACKET: one
 * fixed structure a message, exact length, descriptors by SCM_RIGHTS. What either has
 * to say at the end of a tick goes in one packet (base/message.h), but HELLO, EXPIRE
 * and SOCKMAP, and their answers, have one of their own. A message that breaks a rule
 * closes the channel.
 *
 *   relay worker -> broker                 broker -> relay worker
 *   HELLO                                  WELCOME  + wire_pairs and, if there
 *                                          are any, wire_lanes, read-only
 *   JOIN + client fd, peer fd              ANSWER (joined, again, refused)
 *                                          ACTIVE   sockets silenced: close them
 *   RESET, EXPIRE, CLAIM                   ENDED    the pair is no more
 *   SOCKMAP                                SOCKMAP  + its maps
 *   LANE + listener fd, relayed fd         LANE_ANSWER (on, refused)
 *   LANE_EXPIRE, LANE_END                  LANE_ENDED: its time was up
 *
 * A worker reads counts and stamps of its pairs from wire_pairs, by
 * BPF_MAP_LOOKUP_ELEM: the kernel maps no BPF map into memory through a descriptor
 * that can only read, and another would let the relay steer packets.
 * When a channel closes, pairs of it that are not active are reset; active ones
 * become orphans, which the last HELLO with `adopts` set takes over, now or when
 * it comes. CLAIM gives one pair to the channel that asks: a worker's own pairs,
 * when it has another channel or the broker was started anew.
 *
 * A lane goes by the number that the worker gives it, and with the channel.
 */
#ifndef ENGINE_WIRE_PROTO_H
#define ENGINE_WIRE_PROTO_H

#include <stdint.h>

#include <culvert/kern_user.h>

#define BROKER_PROTOCOL 3

enum broker_type {
	BROKER_HELLO = 1,
	BROKER_WELCOME,
	BROKER_JOIN,
	BROKER_ANSWER,
	BROKER_ACTIVE,
	BROKER_RESET,
	BROKER_EXPIRE,
	BROKER_ENDED,
	BROKER_SOCKMAP,
	BROKER_SOCKMAP_MAPS,
	BROKER_CLAIM,
	BROKER_LANE,
	BROKER_LANE_ANSWER,
	BROKER_LANE_EXPIRE,
	BROKER_LANE_END,
	BROKER_LANE_ENDED,
};

/* Why a pair is not on wire. The first block is the broker's and final. */
enum wire_reason {
	WIRE_OK,
	WIRE_AGAIN, /* bytes arrived meanwhile: drain and ask again */
	WIRE_NO_FAMILY, /* IPv4 on one leg, IPv6 on the other */
	WIRE_NO_TIMESTAMPS, /* on one leg only */
	WIRE_NO_SACK, /* on one leg only */
	WIRE_NO_SCALE, /* a window scale coarser than a segment */
	WIRE_NO_ECN, /* negotiated on a leg */
	WIRE_NO_MD5,
	WIRE_NO_MSS, /* one leg's segments do not fit the other */
	WIRE_NO_LOCAL, /* loopback, an end on this host, or one it translates (NAT) */
	WIRE_NO_DEVICE, /* the route's device has no Ethernet header, or no program */
	WIRE_NO_STATE, /* a leg is not established any more */
	WIRE_NO_URGENT,
	WIRE_NO_ROOM, /* wire_pairs is full */
	WIRE_NO_EARLY, /* more early bytes than the join can carry */
	WIRE_NO_ERROR, /* a system call failed; the broker logged it */
	/* The relay's own. */
	WIRE_NO_BROKER, /* no broker, or the kernel lacks what wire needs */
	WIRE_NO_QUIET, /* data kept coming through every try */
	WIRE_NO_POLICY_LOSS, /* auto: a leg loses segments */
	WIRE_NO_POLICY_RTT, /* auto: a long leg */
	WIRE_NO_POLICY_GROWTH, /* auto: an end would take the join for a queue */
	WIRE_NO_PINNED, /* [engine] has other engines */
	WIRE_NO_PINNED_USER, /* so has the user, the realm, the exit */
	WIRE_NO_PINNED_REALM,
	WIRE_NO_PINNED_EXIT,
	WIRE_NO_SEAL, /* a leg is encrypted (TLS) */
	WIRE_NO_RATE, /* its bandwidth has a limit */
	WIRE_REASONS,
};

struct broker_hello {
	uint32_t type, version;
	uint32_t adopts; /* 1: orphans and their events come to this channel */
	uint32_t zero;
};

struct broker_welcome {
	uint32_t type, version;
	uint32_t capacity; /* pairs in the map that comes with this; 0: none */
	int32_t error; /* negative errno: why there is no wire */
	uint32_t lanes; /* lanes in the map that comes second; 0: none */
	uint32_t zero;
	char why[96]; /* in words, for the log and `culvertctl engines` */
};

struct broker_join {
	uint32_t type, ticket; /* the answer carries the ticket */
	uint32_t to_client; /* bytes the relay will send to the client after it */
	uint32_t unread; /* the peer's, on the relay's hands and still in its socket */
	uint64_t allocation;
	uint64_t expires_ns; /* CLOCK_MONOTONIC; 0: never */
	char label[WIRE_LABEL]; /* NUL-terminated */
};

struct broker_answer {
	uint32_t type, ticket;
	uint32_t reason; /* WIRE_OK, WIRE_AGAIN, or why not */
	uint32_t pair, generation; /* with WIRE_OK */
	uint32_t zero;
};

struct broker_active {
	uint32_t type, pair, generation, zero;
};

/* Resets both ends; answered by ENDED. */
struct broker_reset {
	uint32_t type, pair, generation, zero;
};

/*
 * Events of this pair come to this channel from now on. Answered by ACTIVE: close
 * the sockets if you still have them; or, when the pair is no more, by ENDED with
 * WIRE_END_ORPHAN and no counts.
 */
struct broker_claim {
	uint32_t type, pair, generation, zero;
};

/* All pairs of the allocation that this channel owns. */
struct broker_expire {
	uint32_t type, zero;
	uint64_t allocation;
	uint64_t expires_ns;
};

struct broker_ended {
	uint32_t type, pair, generation;
	uint32_t end; /* enum wire_end */
	uint64_t bytes[WIRE_LEGS]; /* delivered to client, to peer */
	uint64_t idle_ns; /* since the last packet */
};

struct broker_sockmap {
	uint32_t type, version;
};

/* With SOCKMAP_MAPS descriptors when error is 0, in the order of enum sockmap_map. */
struct broker_sockmap_maps {
	uint32_t type;
	int32_t error;
};

/*
 * Asks for a lane: between the client, who sends to `local` at the listener's socket,
 * and the peer of the relayed socket. Both are bound, neither is connected; the addresses
 * of each leg are of its socket's family. Ports are in network order. Answered always, by
 * LANE_ANSWER.
 */
struct broker_lane {
	uint32_t type;
	uint16_t channel; /* its number */
	uint16_t zero;
	uint64_t id; /* no two lanes of a channel to the broker are alike */
	uint64_t expires_ns; /* CLOCK_MONOTONIC */
	uint8_t client[16], local[16], peer[16];
	__be16 client_port, peer_port;
	uint32_t zero2;
};

struct broker_lane_answer {
	uint32_t type;
	uint32_t reason; /* WIRE_OK, or why not */
	uint64_t id;
	uint32_t lane, generation; /* with WIRE_OK: in wire_lanes */
};

/* Of one that is not there nothing is said. */
struct broker_lane_expire {
	uint32_t type, zero;
	uint64_t id, expires_ns;
};

/* LANE_END: it is taken out at once. LANE_ENDED: it has been. */
struct broker_lane_end {
	uint32_t type, zero;
	uint64_t id;
};

_Static_assert(sizeof(struct broker_join) == 96, "broker_join");
_Static_assert(sizeof(struct broker_lane) == 80, "broker_lane");
_Static_assert(sizeof(struct broker_ended) == 40, "broker_ended");

#endif
