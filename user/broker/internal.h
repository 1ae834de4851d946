/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of the broker share. */
#ifndef BROKER_INTERNAL_H
#define BROKER_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/message.h"
#include "base/table.h"
#include "broker/checks.h"
#include "engine/wire_proto.h"
#include "loop/loop.h"

struct broker;
struct kernel;
struct sockmap_bpf;

/* What the kernel does for the broker (kernel.c, socket.c); tests bring their own. */
struct broker_ops {
	/*
	 * The ends of both connections as keys, which sockets these are, and what
	 * is found under the keys: only where that is the same socket does the
	 * rest mean anything, and proves that it is a TCP socket of this network
	 * namespace. 0 or a negative errno.
	 */
	int (*look)(struct broker *broker, const int fds[WIRE_LEGS],
		    struct wire_key keys[WIRE_LEGS],
		    uint64_t sockets[WIRE_LEGS],
		    struct wire_snapshot out[WIRE_LEGS]);
	/* Is it a TCP socket of this network namespace? */
	bool (*socket_ours)(struct broker *broker, int fd);
	int (*snapshot)(struct broker *broker,
			const struct wire_key keys[WIRE_LEGS],
			struct wire_snapshot out[WIRE_LEGS]);
	/*
	 * The keys become flows of the place, then both sockets are looked at.
	 * 0, or there is neither flow: -EEXIST, -E2BIG, ...
	 */
	int (*hook)(struct broker *broker,
		    const struct wire_key keys[WIRE_LEGS], uint32_t index,
		    struct wire_snapshot out[WIRE_LEGS]);
	/* Are its addresses others on the device than in the socket (NAT)? */
	bool (*translated)(struct broker *broker, int fd,
			   const struct wire_key *key);
	/* Do our programs see the packets of this device? */
	bool (*attached)(struct broker *broker, uint32_t device);
	/* 0, -ENOENT, ... */
	int (*flow_find)(struct broker *broker, const struct wire_key *key,
			 struct wire_flow *out);
	void (*flow_delete)(struct broker *broker, const struct wire_key *key);
	/* Calls fn for each flow there is, which may delete it. */
	void (*flows)(struct broker *broker,
		      void (*fn)(struct broker *broker,
				 const struct wire_key *key,
				 const struct wire_flow *flow));
	/* The first leg whose socket is closed, by a reset; WIRE_LEGS: neither. */
	int (*closed)(const int fds[WIRE_LEGS]);
	void (*acknowledge)(int fd); /* sends an acknowledgement that waits */
	void (*silence)(int fd); /* it never sends anything again */
	void (*disconnect)(int fd); /* silently; the ends are free again */
	/* 0; -EADDRNOTAVAIL: a socket still has these ends. */
	int (*reset)(const struct wire_key *key, uint32_t seq, uint32_t ack);
	/*
	 * What a datagram socket of this network namespace is bound to, as the local
	 * side of a key. -EBADMSG: it is none, or connected, or, unless it may be one
	 * of several (SO_REUSEPORT), can give up its port while it stays open.
	 */
	int (*datagram_bound)(struct broker *broker, int fd, bool several,
			      struct wire_lane_key *out);
	/* May a socket of this host be bound to the local address of this key? */
	bool (*address_ours)(const struct wire_lane_key *key);
	/* What the stack does with datagrams under both keys. 0 or an errno. */
	int (*lane_look)(struct broker *broker,
			 const struct wire_lane_key keys[WIRE_LEGS],
			 struct wire_lane_look out[WIRE_LEGS]);
	/* Is anything of it translated (NAT), or under IPsec? */
	bool (*lane_altered)(struct broker *broker,
			     const struct wire_lane_key *key);
	/* 0, -EEXIST, -E2BIG, ... */
	int (*lane_hook)(struct broker *broker, const struct wire_lane_key *key,
			 uint32_t index, uint32_t leg);
	void (*lane_unhook)(struct broker *broker,
			    const struct wire_lane_key *key);
	/* A descriptor of the lanes that can only be read; borrowed. */
	int (*lanes)(struct broker *broker);
	/* A descriptor of the records that can only be read; borrowed. */
	int (*records)(struct broker *broker);
	/* The sockmap engine's maps, as sockmap.h says. */
	int (*sockmap_load)(struct sockmap_bpf **out, int fds[SOCKMAP_MAPS]);
	void (*sockmap_release)(struct sockmap_bpf *bpf);
};

enum place_state {
	PLACE_FREE,
	PLACE_LATCHED, /* joined; our copies of the sockets are still open */
	PLACE_ACTIVE, /* joined; the sockets are silent */
	PLACE_LINGER, /* ended and reported; the flows stay for a while */
	PLACE_STATES,
};

/* The broker's own side of one wire_pairs record, at the same index. */
struct place {
	struct list owner_link; /* of a session's places, or the orphans */
	struct list queue_link; /* of broker.queues[state], oldest first */
	struct list same; /* latched, active: all of one allocation, in a ring */
	struct table_node node; /* of one in each ring: of allocations */
	struct session *owner; /* NULL: an orphan */
	uint64_t due_ns; /* latched: time-out; lingering: reclaimed */
	int fds[WIRE_LEGS]; /* while latched */
	enum place_state state;
	bool leads; /* its ring is found by it */
};

/* The broker's own side of one wire_lanes record, at the same index (lane.c). */
struct lane {
	struct list link; /* of its session's lanes, or broker.lanes_free */
	struct table_node node; /* of broker.lanes_by_id */
	struct session *owner; /* NULL: free */
	uint64_t id; /* the owner's */
	uint64_t rest_ns; /* free: not to be taken before */
	int fds[WIRE_LEGS]; /* listener, relayed: nobody else gets their ports */
};

/* A reset that waits for its socket's last user to close it. */
struct late_reset {
	struct list link;
	struct wire_key key;
	struct reset_numbers numbers;
	unsigned int tries;
};

/* One client on a channel (session.c, session_out.c, request.c). */
struct session {
	struct watch watch;
	struct list link; /* of broker.sessions */
	struct broker *broker;
	struct list places; /* struct place.owner_link */
	struct list lanes; /* struct lane.link */
	/* What waits for the end of the tick, or for room in the channel. */
	struct list out;
	struct packet packet; /* what is sent next */
	size_t out_count; /* messages in both */
	struct deferred flush; /* sends them */
	bool blocked; /* the channel has no room */
	bool greeted; /* HELLO has come */
	bool sockmap; /* it has asked for its maps */
	struct sockmap_bpf *maps; /* until these are sent; or NULL */
	bool dead; /* freed at the end of the tick */
	unsigned int worker; /* of the relay: the only one of this number */
};

struct broker {
	struct loop *loop;
	const struct broker_ops *ops;
	struct kernel *kernel;
	int error; /* negative errno: there is no wire */
	char why[96]; /* the same in words */
	struct wire_pair *records; /* shared with BPF */
	struct place *places;
	struct table allocations; /* their pairs' rings, by number */
	uint32_t capacity;
	/*
	 * By state. Ended pairs linger in two queues, since those that were reset
	 * linger shorter: [PLACE_LINGER] and lingering_reset.
	 */
	struct list queues[PLACE_STATES];
	struct list lingering_reset;
	uint32_t counts[PLACE_STATES]; /* places in each state */
	unsigned int latched_max;
	struct list orphans;
	struct list sessions;
	struct session *adopter; /* takes orphans; NULL: they wait */
	struct list late_resets;
	unsigned int late_count;
	struct timer late;
	struct timer sweep; /* armed while a place is not free */
	bool sweep_quiet; /* it is far off, for nothing but events is waited for */

	struct wire_lane *lane_records; /* shared with BPF */
	struct wire_lease *lease; /* so, too */
	struct lane *lanes; /* NULL: none */
	uint32_t lane_capacity, lane_count; /* of the table; in use */
	uint32_t lanes_max; /* that descriptors allow */
	struct list lanes_free; /* oldest first */
	struct table lanes_by_id;
	struct timer lanes_sweep; /* armed while there are any */
	struct deferred reap; /* frees dead sessions */
};

/* The place table (place.c). */
int places_new(struct broker *broker, uint32_t capacity);
void places_free(struct broker *broker);
/* Fills the table from records and flows an earlier broker has left. */
void places_adopt(struct broker *broker);
/* Index of a place that is free now, its record blank; -1: none. */
int64_t place_take(struct broker *broker);
void place_release(struct broker *broker, uint32_t index);
void place_latch(struct broker *broker, uint32_t index, struct session *owner,
		 const int fds[WIRE_LEGS]);
void place_own(struct broker *broker, uint32_t index, struct session *owner);
/* The session's pairs of this allocation end then. */
void places_expire(struct session *session, uint64_t allocation,
		   uint64_t expires_ns);
/* The sockets fall silent; the owner hears ACTIVE. */
void place_activate(struct broker *broker, uint32_t index);
/* BPF has set WIRE_ENDED: the owner hears ENDED, the flows stay a while. */
void place_ended(struct broker *broker, uint32_t index);
/* Ends the pair now, by resets to both ends; the owner hears ENDED. */
void place_reset(struct broker *broker, uint32_t index, enum wire_end end);
/* Both flows are out of the map. */
void place_unhook(struct broker *broker, uint32_t index);
/* What BPF reports; also for events of pairs that are gone. */
void place_event(struct broker *broker, const struct wire_event *event);
/* A pair by its number and generation, not free; NULL. */
struct place *place_find(struct broker *broker, uint32_t index,
			 uint32_t generation);
uint32_t place_index(const struct broker *broker, const struct place *place);
/* Time-outs, expiries, what an event that was lost would have told. */
void places_sweep(struct broker *broker);
/* There is something to be looked at that no event tells, or a new time. */
void places_sweep_soon(struct broker *broker);
/* The end: resets every pair. */
void places_reset_all(struct broker *broker);

/* The table of lanes (lane.c). 0 or -ENOMEM; none with capacity 0. */
int lanes_new(struct broker *broker, uint32_t capacity);
void lanes_free(struct broker *broker); /* none is used any more */
/*
 * Makes a lane; the descriptors are taken over with WIRE_OK. 0, or -EBADMSG: nothing
 * a relay may ask for.
 */
int lane_make(struct session *session, const struct broker_lane *msg,
	      const int fds[WIRE_LEGS], struct broker_lane_answer *answer);
/* The session's lane of this number; NULL. */
struct lane *lane_find(const struct session *session, uint64_t id);
void lane_expire(struct lane *lane, uint64_t expires_ns);
void lane_end(struct lane *lane);
void lanes_drop(struct session *session); /* all of them */
/* Ends those whose time is up, and prolongs the lease. */
void lanes_sweep(struct broker *broker);

/* Joins two sockets (join.c). -EBADMSG: nothing a relay may hand over. */
int join_pair(struct broker *broker, struct session *session,
	      const struct broker_join *msg, const int fds[WIRE_LEGS],
	      struct broker_answer *answer);

/* Sessions (session.c, session_out.c). */
int session_new(struct broker *broker, unsigned int worker, int fd);
void session_end(struct session *session); /* dead; freed later */
void sessions_free(struct broker *broker);
void session_active(struct session *session, uint32_t pair,
		    uint32_t generation);
void session_ended(struct session *session, const struct broker_ended *msg);
void session_lane_ended(struct session *session, uint64_t id);

/* The real kernel (kernel.c). */
struct broker_params;
extern const struct broker_ops kernel_ops;
int kernel_new(struct broker *broker, const struct broker_params *params);
void kernel_free(struct kernel *kernel); /* accepts NULL; leaves pins */
void kernel_unpin(struct kernel *kernel); /* removes all but directories */
int kernel_events(struct kernel *kernel);
/* Files only as far as they are needed; NULL: without pins. */
void kernel_confine(const struct kernel *kernel);

#endif
