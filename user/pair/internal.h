/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of the pair room share. Private to the room. */
#ifndef PAIR_INTERNAL_H
#define PAIR_INTERNAL_H

#include "pair/pair.h"

/*
 * pair_finish: the most one flow may still deliver beyond what has arrived here.
 * More than the send queue of a client that has closed can hold, so nothing that
 * was sent in good faith is cut; yet who keeps sending does not go on for
 * linger_ms.
 */
#define FINISH_BYTES   (16u << 20)
#define QUIET_MS       100 /* pair_finish: nothing moved for so long */
#define FINISH_LOOK_MS 10 /* and looks so often */

enum stop_how {
	STOP_NOT,
	STOP_CLOSE, /* close both */
	STOP_DRAIN_CLOSE, /* close both when all is acknowledged */
	STOP_DRAIN_RESET, /* reset both when all is acknowledged */
	STOP_RESET, /* reset both */
};

struct half {
	int fd;
	struct seal *seal; /* NULL: none; such a pair never goes on wire */
	bool dead; /* writing to it failed */
	bool failed; /* reading from it failed */
	uint8_t *preface; /* what is left of it; NULL: all written */
	size_t preface_len, preface_off, preface_room;
	struct watch watch; /* while the preface waits */
};

/* What a pair has while two sockets of this process carry it. */
struct streams {
	struct pair *pair;
	struct engine_link link;
	struct half half[2];
	struct engine_set *engines;
	uint32_t prefer; /* of engine_set_prefer */
	const char *engine; /* name, kept for pair_get_info after the detach */
	struct deferred stopped; /* no engine to detach from */
	uint64_t quiet_bytes; /* moved in all at the last look for quiet */
	uint64_t quiet_ms; /* since when nothing has moved */
	uint64_t finish_bytes[2]; /* a flow that comes so far is cut off */
	unsigned int drain_ms; /* between two looks at the queues */
	bool detaching;
	/* Of the join. */
	struct wire *wire;
	void (*on_active)(void *owner);
	unsigned int tries;
	size_t unread; /* bytes of the peer, copied and still in its socket */
	uint64_t keepalive_ms;
	bool early; /* copies of them are sent before the next try */
	uint64_t allocation;
	uint64_t (*expires_ns)(void *owner);
	void (*on_decided)(void *owner, enum wire_reason why);
	void (*label)(void *owner, char out[WIRE_LABEL]);
};

/* Small: there may be very many on wire, of which nothing else is left. */
struct pair {
	struct loop *loop;
	struct streams *streams; /* NULL: active on wire */
	struct wire_link link;
	struct timer timer;
	void (*on_closed)(void *owner, enum pair_end end);
	void *owner;
	/* Delivered by prefaces, and by wire once that has ended. */
	uint64_t bytes[2];
	uint64_t deadline_ms; /* of finishing or draining */
	uint64_t finish_moved; /* by wire: both ways' bytes that cut it off */
	uint32_t idle_timeout_ms, linger_ms;
	uint8_t state; /* enum pair_state */
	uint8_t end; /* enum pair_end */
	uint8_t how; /* enum stop_how */
	uint8_t why; /* enum wire_reason */
	bool finishing;
};

/* pair.c */

/* The one way out of relaying by streams. A later call may only be harder. */
void pair_stop(struct pair *pair, enum pair_end end, enum stop_how how);
/* Sends the prefaces, then an engine takes the pair. */
void pair_flush(struct pair *pair);
/* Sends what it can of a preface. */
void pair_half_flush(struct half *half);
/* Goes on with that when the socket takes more. 0, -ENOMEM or -ENOSPC. */
int pair_half_wait(struct pair *pair, int i);
/* Adds to a preface. 0 or -ENOMEM. */
int pair_half_append(struct half *half, const uint8_t *data, size_t len);
/* Bytes that a socket has received and nobody has read. */
size_t pair_socket_unread(int fd);
/* Arms the pair's timer. */
void pair_look_in(struct pair *pair, uint64_t ms);
/* Closes what there is and tells the owner; frees the pair. */
void pair_close(struct pair *pair, bool reset);
/* Both sockets' part of the pair is not needed any more. */
void pair_streams_free(struct pair *pair, bool reset);

/* join.c */

/* Asks for the join, or goes on without. */
void pair_join(struct pair *pair, const struct pair_params *params);
/* The client has been sent what its window did not hold: asks again. */
void pair_join_sent(struct pair *pair);
/* The pair's timer while it is joined. */
void pair_wire_look(struct pair *pair);
/* pair_finish of a joined one. */
void pair_wire_finish(struct pair *pair);
/* Resets a joined one; `end` is what the owner will hear. */
void pair_wire_end(struct pair *pair, enum pair_end end);
/* Adds what a joined one has done. */
void pair_wire_info(const struct pair *pair, struct pair_info *out);
/* Has the join succeeded, and not ended? */
bool pair_on_wire(const struct pair *pair);

#endif
