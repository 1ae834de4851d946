/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * wire, seen from a worker: its channel to the broker, which joins two sockets of
 * a pair in the kernel. No engine of a set: it moves no flows, and a pair goes on
 * it before the engines are asked, or never.
 *
 * A link is the worker's hold on one pair: first asked for, then joined (latched
 * until the client has acknowledged all the relay itself sends), then active:
 * nothing in this process is needed any more but to hear of its end.
 */
#ifndef ENGINE_WIRE_H
#define ENGINE_WIRE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/table.h"
#include "engine/wire_proto.h"
#include "loop/loop.h"

struct wire;
struct wire_ask;
struct wire_link;

struct wire_stats {
	uint64_t bytes[WIRE_LEGS]; /* by wire and acknowledged: to client, peer */
	uint64_t idle_ns; /* since the last packet */
};

enum wire_link_state {
	WIRE_LINK_OUT, /* the channel knows nothing of it */
	WIRE_LINK_ASKED,
	WIRE_LINK_LATCHED, /* joined; the sockets are still needed */
	WIRE_LINK_ACTIVE, /* joined; the sockets are to be closed */
};

/*
 * All are called from the loop or from wire_channel(), never from inside another
 * function of this header.
 */
struct wire_link_ops {
	/*
	 * WIRE_OK: joined. Else the link is out and the sockets are as they were;
	 * it may be asked for again.
	 */
	void (*answered)(struct wire_link *link, enum wire_reason reason);
	void (*active)(struct wire_link *link);
	/*
	 * The link is out. With WIRE_END_ORPHAN it may never have been joined: the
	 * broker has gone, and who owns the connections now is not known; reset
	 * them.
	 */
	void (*ended)(struct wire_link *link, enum wire_end end,
		      const struct wire_stats *stats);
};

/* Embedded in its owner; zero-initialise. */
struct wire_link {
	struct table_node node; /* of the joined ones, by place */
	struct list list;
	const struct wire_link_ops *ops;
	struct wire *wire;
	union {
		struct wire_ask *ask; /* while asked */
		struct {
			uint32_t place, generation; /* when joined */
		};
	};
	uint8_t state; /* enum wire_link_state */
	uint8_t reset; /* private */
};

struct wire_params {
	struct loop *loop;
	unsigned int worker;
	/* While the broker takes longer nothing is asked of it; 0: 5 s. */
	uint64_t answer_ms;
	/*
	 * This one takes over pairs nobody knows: `orphan` hears of each, and may
	 * wire_adopt() it. NULL: it does not.
	 */
	void (*orphan)(void *arg, uint32_t place, const struct wire_pair *pair);
	/* It can join now, or not any more: wire_why() says the rest. */
	void (*changed)(void *arg);
	/* The channel has ended by the broker or its fault; NULL: whatever. */
	void (*lost)(void *arg);
	/* Reads place `place` of the map; NULL: as a BPF map. 0 or an errno. */
	int (*read)(int map, uint32_t place, struct wire_pair *out);
	/* Reads lane `lane` of the map; NULL: as a BPF map. 0 or an errno. */
	int (*read_lane)(int map, uint32_t lane, struct wire_lane *out);
	/* What wire_sockmap() asked for: 0, or a negative errno. */
	void (*sockmap)(void *arg, int error);
	void *arg;
};

/* 0 or -ENOMEM. There is no channel yet. */
int wire_new(const struct wire_params *params, struct wire **out);
/* Accepts NULL. Every link must be out. The broker keeps the active pairs. */
void wire_free(struct wire *wire);

/*
 * Takes over a channel to a broker instead of the one before, or -1: there is
 * none. Pairs that are not active end, the active ones are claimed. 0 or -ENOMEM,
 * -ENOSPC with the descriptor closed and no channel.
 */
int wire_channel(struct wire *wire, int fd);

/* Can it join? */
bool wire_ready(const struct wire *wire);
/* Why not, in words; "" when it can. */
const char *wire_why(const struct wire *wire);
/* Places for pairs, of all workers; 0: not known. */
uint32_t wire_capacity(const struct wire *wire);

struct wire_join {
	int client, peer; /* borrowed until the answer */
	uint32_t to_client; /* bytes the relay sends to the client after it */
	uint32_t unread; /* the peer's, looked at and left in its socket */
	uint64_t allocation; /* for wire_expire */
	uint64_t expires_ns; /* CLOCK_MONOTONIC; 0: never */
	const char *label; /* for lists; cut */
};

/*
 * Asks for the join of two connected sockets, quiet and, but for what the peer's
 * holds as `unread`, read to the end. 0:
 * `answered` follows; from now on until then, neither may be used. Otherwise
 * a negative errno and nothing has happened.
 */
int wire_join(struct wire *wire, struct wire_link *link,
	      const struct wire_join *join);

/* Ends a joined pair by resets to both ends; `ended` follows. */
void wire_reset(struct wire_link *link);

/*
 * The owner goes away without waiting for an end. One that is asked for will be
 * reset should it be joined, and one that wire_reset() was called for still is;
 * any other that is joined stays: of use only for a worker that ends.
 */
void wire_forget(struct wire_link *link);

/* Takes over an orphan: `active` (perhaps) and `ended` follow. */
void wire_adopt(struct wire *wire, struct wire_link *link, uint32_t place,
		uint32_t generation);

/* All this worker's pairs of an allocation have another end of life. */
void wire_expire(struct wire *wire, uint64_t allocation, uint64_t expires_ns);

/* What a joined pair has done; false when it has ended meanwhile. */
bool wire_link_stats(const struct wire_link *link, struct wire_stats *out);
/* The same of all that is known of it. */
bool wire_link_read(const struct wire_link *link, struct wire_pair *out);

/*
 * Asks the broker for the maps of the sockmap engine; `sockmap` follows. 0, or
 * -ENOTCONN without a broker.
 */
int wire_sockmap(struct wire *wire);
/* The maps, SOCKMAP_MAPS descriptors, this side's; NULL: there are none. */
const int *wire_sockmap_fds(const struct wire *wire);

/*
 * Lanes (engine/wire_lane.c): channels of UDP allocations on wire. A lane is asked
 * for, then on; it is off again when its time is up or the broker has gone, and may
 * then be asked for anew.
 */
struct wire_lane_link;

struct wire_lane_ops {
	/*
	 * WIRE_OK: it is on. Else it is off, refused or over, and what it has
	 * carried is all there is to wire_lane_read(). Not called from inside a
	 * function of this header but wire_channel().
	 */
	void (*changed)(struct wire_lane_link *link, enum wire_reason why);
};

/* Embedded in its owner; zero-initialise. */
struct wire_lane_link {
	struct table_node node; /* of those asked for or on, by id */
	struct list list;
	const struct wire_lane_ops *ops;
	struct wire *wire;
	struct wire_message *ask; /* not sent yet; or NULL */
	struct wire_message *end; /* there is memory for it from the start */
	uint64_t id;
	uint64_t expires_ns; /* as the broker was told */
	uint32_t lane, generation; /* since it was on last */
	uint8_t state; /* private */
};

/* Are there any? */
bool wire_lanes_ready(const struct wire *wire);

struct wire_lane_wish {
	int listener,
		relayed; /* sockets; borrowed until `changed`, or the end */
	uint16_t channel; /* its number */
	/*
	 * Each is of its socket's family. IPv4: the first 4 bytes, then zeroes. Ports
	 * in network order.
	 */
	uint8_t client[16], local[16], peer[16];
	__be16 client_port, peer_port;
	uint64_t expires_ns; /* CLOCK_MONOTONIC */
};

/* 0: `changed` follows; else a negative errno and nothing has happened. */
int wire_lane_ask(struct wire *wire, struct wire_lane_link *link,
		  const struct wire_lane_wish *wish);
/* It is asked for or on. */
bool wire_lane_is_used(const struct wire_lane_link *link);
/* It ends then, on its own. */
void wire_lane_expire(struct wire_lane_link *link, uint64_t expires_ns);
/* It is off; `changed` does not follow. */
void wire_lane_end(struct wire_lane_link *link);
/* What is known of it, within `changed` also when it is over; false: nothing. */
bool wire_lane_read(const struct wire_lane_link *link, struct wire_lane *out);

struct wire_usage {
	uint64_t pairs_now; /* joined */
	uint64_t lanes_now; /* on, or asked for */
	uint64_t joins; /* that have succeeded */
	uint64_t asked; /* of the broker, tries included */
};
void wire_get_usage(const struct wire *wire, struct wire_usage *out);

/* "loss on a leg": the reason in words, for lists; "" for WIRE_OK. */
const char *wire_reason_text(enum wire_reason reason);
/* "policy_loss": for logs and counters. */
const char *wire_reason_name(enum wire_reason reason);
const char *wire_end_name(enum wire_end end);

#endif
