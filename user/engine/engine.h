/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Engines carry the bytes of a joined pair of TCP sockets. One interface; the
 * stream engines splice, uring, sockmap and copy behind it. The pair room decides what an
 * end of stream or an error means; an engine only moves bytes and says so.
 *
 * A link is two flows. Each flow moves what `from` sends to `to`, and ends once,
 * after everything that was read has been written. Engines never close, shut
 * down or otherwise change a descriptor, but for the bound on its receive buffer:
 * that is the pair's. A seal's own end of stream is written by the engine, as the
 * last bytes of its flow: it, too, may have to wait for the socket.
 */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/rate.h"
#include "base/seal.h"
#include "loop/loop.h"

struct engine;
struct engine_ops;

/* How a flow ended. */
enum flow_end {
	FLOW_OPEN, /* still moving */
	FLOW_FIN, /* `from` sent its end of stream; all was written */
	FLOW_FROM_ERROR, /* reading failed (reset); all read before was written */
	FLOW_TO_ERROR, /* writing failed: what was read and not written is lost */
};

struct flow {
	int from, to; /* descriptors, borrowed */
	struct seal *from_seal, *to_seal; /* theirs, borrowed; NULL: none */
	const struct rates *rates; /* how fast; borrowed; NULL: any */
	uint64_t bytes; /* written to `to` */
	enum flow_end end;
	int error; /* negative errno for the two error ends */
};

/* One attached pair. Embedded in its owner. */
struct engine_link {
	struct flow flow[2];
	/* Loop time when bytes last moved, or will: when a flow's turn comes. */
	uint64_t active_ms;
	/* A flow has ended: its end and error say how. May detach the link. */
	void (*on_end)(struct engine_link *link, struct flow *flow);
	/* Answer to detach: the engine holds nothing of the link any more. */
	void (*on_detached)(struct engine_link *link);
	const struct engine_ops *ops; /* NULL while not attached */
	void *state; /* the engine's own, per link */
};

struct engine_params {
	size_t pipe_size; /* bytes wanted in a bulk pipe */
	unsigned int pipes; /* pipes this worker may hold */
	size_t copy_buffer; /* bytes of the worker's shared copy buffer */
	/*
	 * Kernel memory one bulk flow may fill with received bytes; 0: what the
	 * kernel's autotuning makes of it. Takes effect where that may exceed it.
	 */
	size_t receive_buffer;
	/* Opened, too, but taken only by pairs that prefer them. */
	const char *const *extra;
	size_t extra_count;
	/*
	 * SOCKMAP_MAPS descriptors of the sockmap engine's maps, this worker's own,
	 * in the order of enum sockmap_map; borrowed while engines are opened.
	 * NULL: there are none.
	 */
	const int *sockmap_fds;
	bool ktls; /* seals may be handed to the kernel */
	uint64_t *seals; /* counts them by enum seal_place; NULL: nobody does */
};

/* What an engine does with sealed sockets. */
enum engine_seals {
	ENGINE_SEALS_NONE, /* it does not take them */
	ENGINE_SEALS_KERNEL, /* when the kernel seals */
	ENGINE_SEALS_ANY, /* it calls their functions */
};

struct engine_ops {
	const char *name;
	enum engine_seals seals;
	bool paces; /* heeds flow.rates; with a limit the others are not asked */
	/*
	 * Makes the worker's instance: the probe of what this kernel and these
	 * privileges allow. 0, or a negative errno (-EPERM, -ENOSYS, -ENOMEM).
	 */
	int (*open)(struct loop *loop, const struct engine_params *params,
		    struct engine **out);
	void (*close)(struct engine *engine); /* no link is attached */
	/*
	 * Starts moving both flows of link. 0, or a negative errno with nothing
	 * moved and nothing held: the next engine may try.
	 * Never calls on_end or on_detached from inside.
	 */
	int (*attach)(struct engine *engine, struct engine_link *link);
	/*
	 * Stops moving; what an engine holds unwritten is dropped. on_detached
	 * follows, never from inside this call; until then descriptors stay open.
	 */
	void (*detach)(struct engine *engine, struct engine_link *link);
	/* Read from `from` but not yet written to `to`: bytes held by the engine. */
	size_t (*held)(const struct engine_link *link, const struct flow *flow);
	/* Brings flow.bytes and active_ms up to date. NULL: they always are. */
	void (*refresh)(const struct engine_link *link);
};

/* All engines of this build, NULL-terminated. */
extern const struct engine_ops *const engine_all[];

/* The engines of one worker, in the configured order. */
struct engine_set;

/*
 * Opens each engine named in `order`. One that cannot be opened is left out:
 * `unavailable` hears of it (may be NULL). Returns 0; -EINVAL for an unknown
 * name; -ENODEV when none is left; -ENOMEM.
 */
int engine_set_new(struct loop *loop, const struct engine_params *params,
		   const char *const *order, size_t count,
		   void (*unavailable)(void *arg, const char *name, int error),
		   void *arg, struct engine_set **out);
void engine_set_free(struct engine_set *set); /* accepts NULL */

/*
 * Attaches to the first engine that takes the link. 0 or the last errno. A link
 * with a seal or a rate may go to an extra one, if none in the order takes it. For an
 * engine that does not unseal the kernel is asked to, once for each seal.
 */
int engine_set_attach(struct engine_set *set, struct engine_link *link);
/*
 * The same, but those named are asked first. Names the set does not have are
 * passed over. What engine_set_prefer returns holds for this set; 0: nothing.
 */
uint32_t engine_set_prefer(const struct engine_set *set,
			   const char *const *names, size_t count);
int engine_set_attach_prefer(struct engine_set *set, struct engine_link *link,
			     uint32_t prefer);
/*
 * Stops; on_detached follows later. The link must be attached.
 * With on_detached NULL nothing follows: the engine forgets the link inside this
 * call, even after an earlier call that is not answered yet, and the link may be
 * freed at once. For shutting a worker down; not from inside on_end. What the
 * kernel still holds of the descriptors goes with engine_set_free.
 */
void engine_link_detach(struct engine_link *link);
size_t engine_link_held(const struct engine_link *link, const struct flow *f);
/*
 * Where the kernel moves the bytes nobody counts along: to be called before
 * flow.bytes or active_ms are looked at. They belong to the engine, which is why
 * the link may be const.
 */
void engine_link_refresh(const struct engine_link *link);
/* The engine's name, "-" when not attached. */
const char *engine_link_name(const struct engine_link *link);

/* Row i of the set's engines: false past the end. */
struct engine_usage {
	const char *name;
	unsigned int position; /* in the configured order from 1; 0: extra */
	int error; /* 0: available; else why not */
	uint64_t links_now, links_total;
};
bool engine_set_usage(const struct engine_set *set, size_t i,
		      struct engine_usage *out);

/* 0, or why seals stay here: -ECANCELED without engine_params.ktls. */
int engine_set_ktls(const struct engine_set *set);
/* Links whose seals the kernel has. */
uint64_t engine_set_sealed(const struct engine_set *set);

/*
 * 0, or a negative errno: -ENOENT without TLS in this kernel, -EOPNOTSUPP when it
 * is too old for it. With CAP_NET_ADMIN its module is loaded, if there is one.
 */
int engine_ktls_probe(void);

#endif
