/* SPDX-License-Identifier: BSD-2-Clause */
/* A pair over real TCP, its ends in the test's hands: see rig.h. */
#ifndef UNIT_PAIR_RIG_H
#define UNIT_PAIR_RIG_H

#include "unit/rig.h"

#include "pair/pair.h"
#include "unit/failalloc.h"

struct rig {
	struct loop *loop;
	struct engine_set *set;
	struct end end[2];
	int leg[2];
	struct pair *pair;
	struct pair_params params;
	int closed; /* calls of on_closed */
	enum pair_end how;
	struct pair_info last; /* taken in on_closed */
	bool inside; /* a call into the pair is running */
};

static inline void rig_on_closed(void *owner, enum pair_end how)
{
	struct rig *rig = owner;

	assert_false(rig->inside);
	rig->closed++;
	rig->how = how;
	pair_get_info(rig->pair, &rig->last);
	assert_int_equal(rig->last.state, PAIR_CLOSED);
	rig->pair = NULL;
}

/* Connections and parameters for a pair that is yet to be made; NULL: none. */
static inline struct rig *rig_new(const char *engine)
{
	struct engine_params params = rig_params();
	struct rig *rig = calloc(1, sizeof(*rig));
	int err;

	if (!rig || loop_new(&rig->loop))
		return NULL;
	rig->set = rig_set(rig->loop, engine, &params, &err);
	if (!rig->set)
		return NULL;
	ends_init(rig->end, rig->leg);
	rig->params = (struct pair_params){
		.loop = rig->loop,
		.engines = rig->set,
		.half = { { .fd = rig->leg[0] }, { .fd = rig->leg[1] } },
		.linger_ms = 10000,
		.on_closed = rig_on_closed,
		.owner = rig,
	};
	return rig;
}

/* New connections in place of those of a pair that is no more. */
static inline void rig_reconnect(struct rig *rig)
{
	fd_close(&rig->end[0].fd);
	fd_close(&rig->end[1].fd);
	ends_init(rig->end, rig->leg);
	rig->params.half[0].fd = rig->leg[0];
	rig->params.half[1].fd = rig->leg[1];
}

/* The pair first: what it was given goes afterwards. */
static inline void rig_pair_destroy(struct rig *rig)
{
	failalloc_disarm();
	if (rig->pair)
		pair_destroy(rig->pair);
	rig->pair = NULL;
}

static inline void rig_free(struct rig *rig)
{
	rig_pair_destroy(rig);
	engine_set_free(rig->set);
	loop_free(rig->loop);
	fd_close(&rig->end[0].fd);
	fd_close(&rig->end[1].fd);
	free(rig);
}

static inline void join(struct rig *rig)
{
	rig->inside = true;
	assert_int_equal(pair_new(&rig->params, &rig->pair), 0);
	rig->inside = false;
}

static inline enum pair_state state_of(const struct rig *rig)
{
	struct pair_info info;

	pair_get_info(rig->pair, &info);
	return info.state;
}

#endif
