/* SPDX-License-Identifier: BSD-2-Clause */
/* What the two files of wire share. Private to the room. */
#ifndef ENGINE_WIRE_INTERNAL_H
#define ENGINE_WIRE_INTERNAL_H

#include "engine/wire.h"

#define WIRE_FDS_MAX 8 /* descriptors that come with one message */

/* A message that waits to be sent. */
struct wire_message {
	struct list list; /* of wire->messages; self-linked: not waiting */
	size_t len;
	union {
		uint32_t type;
		struct broker_join join;
		struct broker_reset reset;
		struct broker_expire expire;
		struct broker_sockmap sockmap;
		struct broker_lane lane;
		struct broker_lane_expire lane_expire;
		struct broker_lane_end lane_end;
	} body;
	int fds[WIRE_LEGS]; /* borrowed; of a join or a lane only */
};

/* A join asked for and not answered: outlives the link that asked. */
struct wire_ask {
	struct wire_message message; /* first: freed by its address */
	struct table_node node; /* of wire->asks, by ticket */
	struct list list; /* of wire->asked, oldest first, when sent */
	struct wire_link *link; /* NULL: abandoned */
	uint64_t since_ms; /* it was asked for, then sent */
};

/* wire_link.reset */
enum wire_reset_state {
	WIRE_RESET_NOT,
	WIRE_RESET_WANTED,
	WIRE_RESET_SENT,
};

struct wire {
	struct wire_params params;
	struct watch watch; /* of the channel; its fd is -1 without one */
	struct timer timer; /* the oldest answer is overdue */
	struct deferred pump; /* sends what waits */
	bool welcome; /* has come on this channel */
	bool ready;
	bool overdue; /* was ready; an answer has been awaited for too long */
	char why[96]; /* why not ready */

	int map; /* wire_pairs, to be read; kept without a broker; -1: none */
	uint32_t capacity; /* of the map */

	struct table links; /* joined, by place */
	struct list latched, active; /* joined links */
	struct list claims; /* active ones that a new broker must hear of */
	struct list resets; /* whose reset is to be sent */

	struct table asks; /* struct wire_ask, by ticket */
	struct list asked; /* sent ones, oldest first */
	unsigned int sent; /* of them */
	struct list messages; /* struct wire_message */
	struct list unsent; /* joins among them, when the channel is lost */
	uint32_t ticket;

	int lane_map; /* wire_lanes, to be read; -1: none */
	uint32_t lane_capacity;
	struct table lanes; /* struct wire_lane_link asked for or on, by id */
	struct list lane_list; /* the same */
	unsigned int lanes_sent; /* unanswered */
	uint64_t lane_id; /* the last one given */

	bool sockmap_asked;
	int sockmap[SOCKMAP_MAPS]; /* -1: none */

	uint64_t joins, tries;
};

/* wire.c: what messages do. Each returns false when it breaks a rule. */
bool wire_answer(struct wire *wire, const struct broker_answer *msg);
bool wire_active(struct wire *wire, const struct broker_active *msg);
bool wire_ended(struct wire *wire, const struct broker_ended *msg);
/* Takes the descriptors (of the maps, -1: none) over. */
bool wire_welcome(struct wire *wire, const struct broker_welcome *msg,
		  int pairs, int lanes);
/* Takes the descriptors over. */
bool wire_sockmap_maps(struct wire *wire, const struct broker_sockmap_maps *msg,
		       const int *fds, size_t count);
/* The channel has gone: everything that hung on it ends. */
void wire_lost(struct wire *wire, const char *why);

/* wire_lane.c */
int wire_lanes_init(struct wire *wire);
void wire_lanes_free(struct wire *wire);
/* Takes fd over; -1: there are none. */
void wire_lanes_welcome(struct wire *wire, uint32_t capacity, int fd);
bool wire_lane_answer(struct wire *wire, const struct broker_lane_answer *msg);
bool wire_lane_ended(struct wire *wire, const struct broker_lane_end *msg);
void wire_lane_sent(struct wire *wire, const struct wire_message *message);
void wire_lanes_lost(struct wire *wire);

/* The broker hangs, or has come to again. */
void wire_overdue(struct wire *wire, bool overdue);

/* wire_channel.c */
void wire_channel_flush(struct wire *wire); /* sends what waits, if it can */
void wire_channel_pump(struct wire *wire); /* the same at the end of the tick */
void wire_channel_post(struct wire *wire, struct wire_message *message);
void wire_channel_close(struct wire *wire, const char *why);

#endif
