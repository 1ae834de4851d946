/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The table of places: what the broker knows of each record in wire_pairs.
 *
 *   free -> latched -> active -> linger -> free
 *              |          |
 *              +----------+---> (reset) -> free
 *
 * A place is taken by join.c, which makes the record and the flows. Latched, the
 * relay's own bytes to either end are not all acknowledged, and the broker holds
 * copies of both sockets; when BPF says they are, the sockets are silenced and the
 * copies closed. BPF ends a pair itself on FINs or an exact reset: it lingers, its
 * flows in the map, until retransmissions cannot come any more. What the broker
 * ends (expiry, RESET, a latch that never opens, a relay that died) is taken out of
 * the map first and then reset at both ends.
 *
 * A freed place rests: what BPF, on another CPU, still does with a record whose
 * flows were deleted a moment ago meets no new pair.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "broker/internal.h"

#define SECOND_NS        1000000000ull
#define MILLISECOND_NS   1000000ull
#define LATCH_LIMIT_NS   (30 * SECOND_NS)
#define LINGER_FIN_NS    (10 * SECOND_NS)
#define LINGER_RESET_NS  (1 * SECOND_NS)
#define TOLD             2 /* wire_pair.unlatched */
#define REST_NS          (SECOND_NS / 10)
#define SWEEP_MS         1000 /* every place that is in use is looked at */
#define SWEEP_QUIET_MS   10000 /* where events tell all but what is due */
#define SWEEP_FEW        1024 /* in use: more are swept in so many slices */
#define SWEEP_SLICES     10
#define LATE_MS          50
#define LATE_TRIES       100
#define LATE_MAX         4096
#define LATE_A_RUN       64
#define RECLAIMED_A_TICK 4096

uint32_t place_index(const struct broker *broker, const struct place *place)
{
	return (uint32_t)(place - broker->places);
}

int places_new(struct broker *broker, uint32_t capacity)
{
	struct place *places = calloc(capacity, sizeof(*places));

	if (!places || table_init(&broker->allocations)) {
		free(places);
		return -ENOMEM;
	}
	broker->places = places;
	broker->capacity = capacity;
	broker->counts[PLACE_FREE] = capacity;
	for (int i = 0; i < PLACE_STATES; i++)
		list_init(&broker->queues[i]);
	list_init(&broker->lingering_reset);
	list_init(&broker->orphans);
	list_init(&broker->late_resets);
	for (uint32_t i = 0; i < capacity; i++) {
		list_init(&places[i].owner_link);
		list_init(&places[i].queue_link);
		list_add_tail(&places[i].queue_link,
			      &broker->queues[PLACE_FREE]);
		places[i].fds[0] = -1;
		places[i].fds[1] = -1;
	}
	return 0;
}

void places_free(struct broker *broker)
{
	struct list *pos, *tmp;

	timer_cancel(broker->loop, &broker->sweep);
	timer_cancel(broker->loop, &broker->late);
	if (!broker->places)
		return;
	list_for_each_safe(pos, tmp, &broker->late_resets)
		free(list_entry(pos, struct late_reset, link));
	for (uint32_t i = 0; i < broker->capacity; i++) {
		fd_close(&broker->places[i].fds[0]);
		fd_close(&broker->places[i].fds[1]);
	}
	table_destroy(&broker->allocations);
	free(broker->places);
	broker->places = NULL;
	broker->capacity = 0;
}

static void sweep_run(struct timer *timer);

void places_sweep_soon(struct broker *broker)
{
	if (broker->sweep.armed && !broker->sweep_quiet)
		return;
	broker->sweep_quiet = false;
	timer_arm(broker->loop, &broker->sweep, SWEEP_MS, sweep_run);
}

static uint64_t allocation_hash(uint64_t allocation)
{
	return table_hash(&allocation, sizeof(allocation));
}

static uint64_t allocation_of(const struct broker *broker,
			      const struct place *place)
{
	return broker->records[place_index(broker, place)].allocation;
}

/* The ring of an allocation's pairs: one of them; NULL: it has none. */
static struct place *ring_find(const struct broker *broker, uint64_t allocation)
{
	struct table_node *node =
		table_first(&broker->allocations, allocation_hash(allocation));

	for (; node; node = table_next(node)) {
		struct place *place = list_entry(node, struct place, node);

		if (allocation_of(broker, place) == allocation)
			return place;
	}
	return NULL;
}

static void ring_lead(struct broker *broker, struct place *place)
{
	place->leads = true;
	table_insert(&broker->allocations, &place->node,
		     allocation_hash(allocation_of(broker, place)));
}

static void ring_enter(struct broker *broker, struct place *place)
{
	struct place *first = ring_find(broker, allocation_of(broker, place));

	list_init(&place->same);
	if (first)
		list_add_tail(&place->same, &first->same);
	else
		ring_lead(broker, place);
}

/* However many there are: an allocation's end is that of all its pairs. */
static void ring_leave(struct broker *broker, struct place *place)
{
	if (place->leads) {
		place->leads = false;
		table_remove(&broker->allocations, &place->node);
		if (!list_empty(&place->same))
			ring_lead(broker, list_entry(place->same.next,
						     struct place, same));
	}
	list_del(&place->same);
}

static bool is_joined(enum place_state state)
{
	return state == PLACE_LATCHED || state == PLACE_ACTIVE;
}

/* The one place where a state changes. */
static void state_set(struct broker *broker, struct place *place,
		      enum place_state state, struct list *queue)
{
	if (is_joined(state) && !is_joined(place->state))
		ring_enter(broker, place);
	if (is_joined(place->state) && !is_joined(state))
		ring_leave(broker, place);
	broker->counts[place->state]--;
	broker->counts[state]++;
	place->state = state;
	list_del(&place->queue_link);
	list_add_tail(&place->queue_link, queue);
	if (state != PLACE_FREE)
		places_sweep_soon(broker);
}

static void record_state(struct broker *broker, uint32_t index,
			 enum wire_state state)
{
	__atomic_store_n(&broker->records[index].state, state,
			 __ATOMIC_SEQ_CST);
}

/* BPF has ended it, and said how, which is a moment later. */
static bool record_ended(const struct broker *broker, uint32_t index)
{
	const struct wire_pair *record = &broker->records[index];

	return __atomic_load_n(&record->state, __ATOMIC_ACQUIRE) ==
		       WIRE_ENDED &&
	       __atomic_load_n(&record->end, __ATOMIC_ACQUIRE) != WIRE_END_NONE;
}

static struct place *queue_first(const struct list *queue)
{
	return list_empty(queue) ?
		       NULL :
		       list_entry(queue->next, struct place, queue_link);
}

void place_unhook(struct broker *broker, uint32_t index)
{
	for (int leg = 0; leg < WIRE_LEGS; leg++) {
		struct wire_key key;
		struct wire_flow flow;

		check_key(&broker->records[index], leg, &key);
		/* The same ends may belong to a newer pair by now. */
		if (!broker->ops->flow_find(broker, &key, &flow) &&
		    flow.pair == index)
			broker->ops->flow_delete(broker, &key);
	}
}

void place_release(struct broker *broker, uint32_t index)
{
	struct place *place = &broker->places[index];

	record_state(broker, index, WIRE_FREE);
	fd_close(&place->fds[0]);
	fd_close(&place->fds[1]);
	list_del(&place->owner_link);
	place->owner = NULL;
	place->due_ns = clock_ns() + REST_NS;
	state_set(broker, place, PLACE_FREE, &broker->queues[PLACE_FREE]);
}

static void reclaim(struct broker *broker, struct place *place)
{
	uint32_t index = place_index(broker, place);

	place_unhook(broker, index);
	place_release(broker, index);
}

int64_t place_take(struct broker *broker)
{
	struct place *place = queue_first(&broker->queues[PLACE_FREE]);

	if (!place) {
		/* Places run short: who has lingered longest makes room. */
		struct place *oldest = queue_first(&broker->lingering_reset);

		if (!oldest)
			oldest = queue_first(&broker->queues[PLACE_LINGER]);
		if (oldest)
			reclaim(broker, oldest);
		return -1;
	}
	if (place->due_ns > clock_ns())
		return -1;
	uint32_t index = place_index(broker, place);
	struct wire_pair *record = &broker->records[index];
	uint32_t generation = record->generation + 1;

	memset(record, 0, sizeof(*record));
	record->generation = generation;
	return index;
}

void place_own(struct broker *broker, uint32_t index, struct session *owner)
{
	struct place *place = &broker->places[index];

	place->owner = owner;
	list_del(&place->owner_link);
	list_add_tail(&place->owner_link,
		      owner ? &owner->places : &broker->orphans);
}

void place_latch(struct broker *broker, uint32_t index, struct session *owner,
		 const int fds[WIRE_LEGS])
{
	struct place *place = &broker->places[index];

	place->fds[0] = fds[0];
	place->fds[1] = fds[1];
	place->due_ns = clock_ns() + LATCH_LIMIT_NS;
	place_own(broker, index, owner);
	state_set(broker, place, PLACE_LATCHED, &broker->queues[PLACE_LATCHED]);
}

static void place_expire(const struct session *session, struct place *place,
			 uint64_t expires_ns)
{
	struct broker *broker = session->broker;

	if (place->owner == session)
		__atomic_store_n(
			&broker->records[place_index(broker, place)].expires_ns,
			expires_ns, __ATOMIC_RELAXED);
}

void places_expire(struct session *session, uint64_t allocation,
		   uint64_t expires_ns)
{
	struct list *pos;
	struct place *first;

	/* Without wire there is no table. */
	if (list_empty(&session->places))
		return;
	first = ring_find(session->broker, allocation);
	if (!first)
		return;
	place_expire(session, first, expires_ns);
	list_for_each(pos, &first->same)
		place_expire(session, list_entry(pos, struct place, same),
			     expires_ns);
}

static void sockets_silence(struct broker *broker, struct place *place)
{
	for (int leg = 0; leg < WIRE_LEGS; leg++)
		if (place->fds[leg] >= 0)
			broker->ops->silence(place->fds[leg]);
}

static void sockets_close(struct place *place)
{
	for (int leg = 0; leg < WIRE_LEGS; leg++)
		fd_close(&place->fds[leg]);
}

/*
 * A reset that waited in a socket's backlog during the join, behind all that was
 * looked at, has ended that socket and reached nobody else. Who takes the socket's
 * lock has the backlog emptied: to be looked for once more after the last time.
 */
static bool reset_swallowed(struct broker *broker, uint32_t index)
{
	int leg = broker->ops->closed(broker->places[index].fds);

	if (leg == WIRE_LEGS)
		return false;
	place_reset(broker, index,
		    leg == WIRE_CLIENT ? WIRE_END_RESET_CLIENT :
					 WIRE_END_RESET_PEER);
	return true;
}

void place_activate(struct broker *broker, uint32_t index)
{
	struct place *place = &broker->places[index];

	if (place->state != PLACE_LATCHED)
		return;
	/* A short life: the end alone is news. */
	if (record_ended(broker, index)) {
		place_ended(broker, index);
		return;
	}
	sockets_silence(broker, place);
	if (reset_swallowed(broker, index))
		return;
	sockets_close(place);
	state_set(broker, place, PLACE_ACTIVE, &broker->queues[PLACE_ACTIVE]);
	/* Before it is told: a relay that knows the pair finds it again. */
	__atomic_store_n(&broker->records[index].unlatched, TOLD,
			 __ATOMIC_SEQ_CST);
	if (place->owner)
		session_active(place->owner, index,
			       broker->records[index].generation);
}

static uint64_t idle_ns(const struct wire_pair *record, uint64_t now)
{
	uint64_t seen = record->created_ns;

	for (int leg = 0; leg < WIRE_LEGS; leg++)
		if (record->leg[leg].seen_ns > seen)
			seen = record->leg[leg].seen_ns;
	return now > seen ? now - seen : 0;
}

static void ended_tell(struct broker *broker, uint32_t index)
{
	const struct wire_pair *record = &broker->records[index];
	struct broker_ended msg = {
		.type = BROKER_ENDED,
		.pair = index,
		.generation = record->generation,
		.end = record->end,
		.idle_ns = idle_ns(record, clock_ns()),
	};

	for (int leg = 0; leg < WIRE_LEGS; leg++)
		msg.bytes[leg] = check_bytes(record, leg);
	if (broker->places[index].owner)
		session_ended(broker->places[index].owner, &msg);
}

static void linger(struct broker *broker, struct place *place)
{
	bool fin = broker->records[place_index(broker, place)].end ==
		   WIRE_END_FIN;

	place->due_ns = clock_ns() + (fin ? LINGER_FIN_NS : LINGER_RESET_NS);
	state_set(broker, place, PLACE_LINGER,
		  fin ? &broker->queues[PLACE_LINGER] :
			&broker->lingering_reset);
}

void place_ended(struct broker *broker, uint32_t index)
{
	struct place *place = &broker->places[index];

	if (!is_joined(place->state))
		return;
	/* An end that misses bytes of ours has not taken the other's reset. */
	if (check_latched(&broker->records[index])) {
		place_reset(broker, index, broker->records[index].end);
		return;
	}
	sockets_silence(broker, place);
	sockets_close(place);
	ended_tell(broker, index);
	list_del(&place->owner_link);
	place->owner = NULL;
	linger(broker, place);
}

static void late_run(struct timer *timer);

static void reset_late(struct broker *broker, const struct wire_key *key,
		       struct reset_numbers numbers)
{
	struct late_reset *late;

	/* Without it the next packet of that end gets its reset all the same. */
	if (broker->late_count >= LATE_MAX)
		return;
	late = calloc(1, sizeof(*late));
	if (!late)
		return;
	late->key = *key;
	late->numbers = numbers;
	list_add_tail(&late->link, &broker->late_resets);
	broker->late_count++;
	if (!broker->late.armed)
		timer_arm(broker->loop, &broker->late, LATE_MS, late_run);
}

static void late_run(struct timer *timer)
{
	struct broker *broker = list_entry(timer, struct broker, late);
	struct list *pos, *tmp, again;
	unsigned int left = LATE_A_RUN;

	list_init(&again);

	/* A few at a time, each has its turn: others are waiting for us. */
	list_for_each_safe(pos, tmp, &broker->late_resets) {
		struct late_reset *late =
			list_entry(pos, struct late_reset, link);
		struct wire_flow flow;

		if (!left--)
			break;
		bool taken = !broker->ops->flow_find(broker, &late->key, &flow);

		if (!taken && ++late->tries < LATE_TRIES &&
		    broker->ops->reset(&late->key, late->numbers.seq,
				       late->numbers.ack) == -EADDRNOTAVAIL) {
			list_del(&late->link);
			list_add_tail(&late->link, &again);
			continue;
		}
		list_del(&late->link);
		broker->late_count--;
		free(late);
	}
	list_splice_tail(&again, &broker->late_resets);
	if (broker->late_count)
		timer_arm(broker->loop, &broker->late, LATE_MS, late_run);
}

static void ends_reset(struct broker *broker, uint32_t index)
{
	const struct wire_pair *record = &broker->records[index];

	for (int leg = 0; leg < WIRE_LEGS; leg++) {
		struct reset_numbers numbers = check_reset(record, leg);
		struct wire_key key;

		check_key(record, leg, &key);
		/* Silent, but not closed by the relay yet: it will be. */
		if (broker->ops->reset(&key, numbers.seq, numbers.ack) ==
		    -EADDRNOTAVAIL)
			reset_late(broker, &key, numbers);
	}
}

void place_reset(struct broker *broker, uint32_t index, enum wire_end end)
{
	struct place *place = &broker->places[index];

	if (!is_joined(place->state))
		return;
	for (int leg = 0; leg < WIRE_LEGS; leg++)
		if (place->fds[leg] >= 0)
			broker->ops->disconnect(place->fds[leg]);
	place_unhook(broker, index);
	record_state(broker, index, WIRE_FREE);
	broker->records[index].end = end;
	ends_reset(broker, index);
	ended_tell(broker, index);
	place_release(broker, index);
}

struct place *place_find(struct broker *broker, uint32_t index,
			 uint32_t generation)
{
	if (index >= broker->capacity ||
	    broker->places[index].state == PLACE_FREE ||
	    broker->records[index].generation != generation)
		return NULL;
	return &broker->places[index];
}

void place_event(struct broker *broker, const struct wire_event *event)
{
	if (!place_find(broker, event->pair, event->generation))
		return;
	switch (event->kind) {
	case WIRE_EVENT_UNLATCHED:
		place_activate(broker, event->pair);
		break;
	case WIRE_EVENT_ENDED:
		if (record_ended(broker, event->pair))
			place_ended(broker, event->pair);
		break;
	default:
		break;
	}
}

/*
 * Takes over what BPF has not seen: by what is acknowledged it tells a keep-alive,
 * which wants an answer, from other segments. BPF may raise it meanwhile.
 */
static void latch_open(struct wire_pair *record, enum wire_leg_name leg)
{
	__u64 *acked = &record->leg[leg].acked, least = record->started[leg];
	__u64 was = __atomic_load_n(acked, __ATOMIC_RELAXED);

	while (was < least &&
	       !__atomic_compare_exchange_n(acked, &was, least, false,
					    __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
		;
	__atomic_and_fetch(&record->leg[leg].flags, ~WIRE_LEG_LATCHED,
			   __ATOMIC_SEQ_CST);
}

/*
 * An acknowledgement may have reached the socket just before the flows were there:
 * BPF never sees it, and an idle pair sends no other.
 */
static void latch_look(struct broker *broker, uint32_t index)
{
	struct wire_pair *record = &broker->records[index];
	struct wire_snapshot now[WIRE_LEGS];
	struct wire_key keys[WIRE_LEGS];

	if (reset_swallowed(broker, index))
		return;
	check_key(record, WIRE_CLIENT, &keys[WIRE_CLIENT]);
	check_key(record, WIRE_PEER, &keys[WIRE_PEER]);
	if (broker->ops->snapshot(broker, keys, now))
		return;
	for (int leg = 0; leg < WIRE_LEGS; leg++)
		if (now[leg].found &&
		    now[leg].snd_una == record->leg[leg].latch)
			latch_open(record, leg);
	if (!check_latched(record))
		place_activate(broker, index);
}

/* What has to be done about a place without any event. */
static void place_look(struct broker *broker, uint32_t index, uint64_t now)
{
	struct place *place = &broker->places[index];
	const struct wire_pair *record = &broker->records[index];

	if (!is_joined(place->state))
		return;
	if (record_ended(broker, index))
		place_ended(broker, index);
	else if (record->expires_ns && record->expires_ns <= now)
		place_reset(broker, index, WIRE_END_EXPIRED);
	else if (place->state == PLACE_LATCHED && !check_latched(record))
		place_activate(broker, index);
	else if (place->state == PLACE_LATCHED && now >= place->due_ns)
		place_reset(broker, index, WIRE_END_LATCH);
	else if (place->state == PLACE_LATCHED)
		latch_look(broker, index);
}

static void lingering_sweep(struct broker *broker, struct list *queue,
			    uint64_t now)
{
	for (unsigned int i = 0; i < RECLAIMED_A_TICK; i++) {
		struct place *place = queue_first(queue);

		if (!place || place->due_ns > now)
			return;
		reclaim(broker, place);
	}
}

/* Many places are looked at a part at a time: joins do not wait for them all. */
static unsigned int sweep_slices(const struct broker *broker)
{
	uint32_t used = broker->capacity - broker->counts[PLACE_FREE];

	return used > SWEEP_FEW ? SWEEP_SLICES : 1;
}

/* Who has been looked at goes to the end of its queue. */
static void queue_look(struct broker *broker, enum place_state state,
		       uint64_t now)
{
	struct list *queue = &broker->queues[state];
	unsigned int slices = sweep_slices(broker);
	uint32_t count = (broker->counts[state] + slices - 1) / slices;

	for (; count; count--) {
		struct place *place = queue_first(queue);

		if (!place)
			return;
		list_del(&place->queue_link);
		list_add_tail(&place->queue_link, queue);
		place_look(broker, place_index(broker, place), now);
	}
}

void places_sweep(struct broker *broker)
{
	uint64_t now = clock_ns();

	lingering_sweep(broker, &broker->queues[PLACE_LINGER], now);
	lingering_sweep(broker, &broker->lingering_reset, now);
	queue_look(broker, PLACE_LATCHED, now);
	queue_look(broker, PLACE_ACTIVE, now);
}

/* The first pair that expires: when, at most `latest`. */
static uint64_t expiry_first(const struct broker *broker, uint64_t latest)
{
	const struct list *pos;

	list_for_each(pos, &broker->queues[PLACE_ACTIVE]) {
		uint32_t index = place_index(
			broker, list_entry(pos, struct place, queue_link));
		uint64_t expires_ns = broker->records[index].expires_ns;

		if (expires_ns && expires_ns < latest)
			latest = expires_ns;
	}
	return latest;
}

/*
 * Pairs that only carry packets end by an event or by their time. An event is lost
 * where very many come at once; but then others linger, and are swept for.
 */
static bool sweep_is_quiet(const struct broker *broker)
{
	uint32_t used = broker->capacity - broker->counts[PLACE_FREE];

	return used == broker->counts[PLACE_ACTIVE] && used <= SWEEP_FEW;
}

static void sweep_run(struct timer *timer)
{
	struct broker *broker = list_entry(timer, struct broker, sweep);
	uint64_t delay = SWEEP_MS / sweep_slices(broker), now, first;

	places_sweep(broker);
	if (broker->counts[PLACE_FREE] == broker->capacity)
		return;
	broker->sweep_quiet = sweep_is_quiet(broker);
	if (broker->sweep_quiet) {
		now = clock_ns();
		first = expiry_first(broker,
				     now + SWEEP_QUIET_MS * MILLISECOND_NS);
		delay = first > now ? (first - now) / MILLISECOND_NS + 1 : 1;
	}
	timer_arm(broker->loop, timer, delay, sweep_run);
}

/* A flow without a pair, or of one that does not know it. */
static void flow_check(struct broker *broker, const struct wire_key *key,
		       const struct wire_flow *flow)
{
	struct wire_key own;

	if (flow->pair < broker->capacity && flow->leg < WIRE_LEGS &&
	    broker->places[flow->pair].state != PLACE_FREE) {
		check_key(&broker->records[flow->pair], flow->leg, &own);
		if (memcmp(&own, key, sizeof(own)) == 0)
			return;
	}
	broker->ops->flow_delete(broker, key);
}

static void place_adopt(struct broker *broker, uint32_t index)
{
	struct wire_pair *record = &broker->records[index];
	struct place *place = &broker->places[index];

	switch ((enum wire_state)record->state) {
	case WIRE_FREE:
		break;
	case WIRE_JOINING:
		/* No socket was touched yet: the relay keeps them. */
		record_state(broker, index, WIRE_FREE);
		break;
	case WIRE_JOINED:
		place_own(broker, index, NULL);
		state_set(broker, place, PLACE_ACTIVE,
			  &broker->queues[PLACE_ACTIVE]);
		break;
	case WIRE_ENDED:
		linger(broker, place);
		break;
	}
}

void places_adopt(struct broker *broker)
{
	unsigned int kept = 0, lost = 0;

	for (uint32_t i = 0; i < broker->capacity; i++)
		place_adopt(broker, i);
	broker->ops->flows(broker, flow_check);
	for (uint32_t i = 0; i < broker->capacity; i++) {
		if (broker->places[i].state != PLACE_ACTIVE)
			continue;
		/* The relay had not been told that it may close its sockets. */
		if (check_latched(&broker->records[i]) ||
		    broker->records[i].unlatched != TOLD) {
			place_reset(broker, i, WIRE_END_ORPHAN);
			lost++;
		} else {
			kept++;
		}
	}
	if (kept || lost)
		log_info("broker", "event=pairs_adopted pairs=%u reset=%u",
			 kept, lost);
}

void places_reset_all(struct broker *broker)
{
	for (uint32_t i = 0; i < broker->capacity; i++) {
		place_reset(broker, i, WIRE_END_RESET);
		if (broker->places[i].state == PLACE_LINGER)
			reclaim(broker, &broker->places[i]);
	}
}
