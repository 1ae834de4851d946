/* SPDX-License-Identifier: BSD-2-Clause */
/* Allocations that follow their clients: between workers, and without memory. */
#include <netinet/udp.h>

#include "unit/open_files.h"
#include "unit/turn_rig.h"

#define MOBILE                      \
	"[relay]\nmobility = yes\n" \
	"[limits]\nunauthenticated_timeout = 200ms\n"

static struct rig rig;

struct ticket {
	uint8_t bytes[64];
	size_t len;
};

static bool ticket_take(const struct tc *tc, struct ticket *out)
{
	struct stun_attr attr;

	if (!stun_find(&tc->msg, STUN_ATTR_MOBILITY_TICKET, &attr))
		return false;
	assert_in_range(attr.len, 1, sizeof(out->bytes));
	memcpy(out->bytes, attr.value, attr.len);
	out->len = attr.len;
	return true;
}

/* A mobile allocation of UDP. The code; *relayed on success. */
static int allocate_at(struct tc *tc, struct ticket *out, union addr *relayed)
{
	int code = tc_challenge(tc);

	if (code != 401)
		return code ? code : 1;
	tc_begin_allocate_udp(tc);
	stun_put(&tc->w, STUN_ATTR_MOBILITY_TICKET, "", 0);
	code = tc_ask(tc);
	if (!code)
		assert_true(
			ticket_take(tc, out) &&
			tc_address(tc, STUN_ATTR_XOR_RELAYED_ADDRESS, relayed));
	return code;
}

static int allocate(struct tc *tc, struct ticket *out)
{
	union addr relayed;

	return allocate_at(tc, out, &relayed);
}

/* Shows a ticket. The code; the next ticket on success. */
static int show(struct tc *tc, struct ticket *ticket)
{
	int code = tc->nonce[0] ? 401 : tc_challenge(tc);

	if (code != 401)
		return code ? code : 1;
	tc_begin(tc, STUN_REFRESH);
	stun_put(&tc->w, STUN_ATTR_MOBILITY_TICKET, ticket->bytes, ticket->len);
	code = tc_ask(tc);
	if (!code)
		assert_true(ticket_take(tc, ticket));
	return code;
}

static int refresh(struct tc *tc, uint32_t lifetime_s)
{
	tc_begin(tc, STUN_REFRESH);
	stun_put_u32(&tc->w, STUN_ATTR_LIFETIME, lifetime_s);
	return tc_ask(tc);
}

static bool kick(void *arg, const struct turn_allocation_info *info)
{
	memcpy(arg, info->id, sizeof(info->id));
	return false;
}

/* Whatever is left of a story that broke off. */
static void kick_all(void)
{
	char id[TURN_ID_LEN];

	for (unsigned int i = 0; i < rig.count; i++)
		for (;;) {
			id[0] = '\0';
			turn_worker_each_allocation(rig.worker[i], kick, id);
			if (!id[0])
				break;
			turn_worker_kick(rig.worker[i], id);
		}
}

/* By datagrams, a connection to the other worker, a third one, and back. */
static bool story_told(struct tc tc[4])
{
	struct ticket ticket;

	tc_open_udp(&tc[0], &rig, 0);
	tc_open(&tc[1], &rig, 1);
	tc_open(&tc[2], &rig, 0);
	tc_open_udp(&tc[3], &rig, 0);
	return !allocate(&tc[0], &ticket) && !show(&tc[1], &ticket) &&
	       !refresh(&tc[0], 600) && !refresh(&tc[1], 600) &&
	       refresh(&tc[0], 600) == 437 && !show(&tc[2], &ticket) &&
	       !show(&tc[3], &ticket) && !refresh(&tc[3], 600) &&
	       refresh(&tc[2], 600) == 437 && !refresh(&tc[3], 0);
}

static void story(void *arg)
{
	static struct tc tc[4];
	bool told;

	(void)arg;
	for (size_t i = 0; i < 4; i++)
		tc[i].fd = -1;
	told = story_told(tc);
	if (!failalloc_hit())
		assert_true(told);
	for (size_t i = 0; i < 4; i++)
		tc_close(&tc[i]);
	kick_all();
	RIG_UNTIL(&rig, rig_is_idle(&rig));
}

static void goes_from_worker_to_worker(void **state)
{
	(void)state;
	assert_int_equal(rig_open(&rig, 2, MOBILE), 0);
	rig_udp(&rig);
	story(NULL);
	assert_int_equal(rig_counters(&rig).allocations_moved, 3);
	rig_close(&rig);
}

/* Its connection ends, again and again, and it comes back by another one. */
static void waits_for_its_client(void **state)
{
	struct ticket ticket;
	struct tc first, second;

	(void)state;
	assert_int_equal(rig_open(&rig, 2, MOBILE), 0);
	tc_open(&first, &rig, 0);
	assert_int_equal(allocate(&first, &ticket), 0);
	tc_close(&first);
	for (unsigned int i = 0; i < 4; i++) {
		tc_open(&second, &rig, i & 1);
		assert_int_equal(show(&second, &ticket), 0);
		tc_close(&second);
	}
	assert_int_equal(rig_counters(&rig).allocations, 1);
	kick_all();
	rig_finish(&rig);
}

/* May what peers send at once come in one piece? */
static bool trains(const union addr *relayed)
{
	int value = -1;

	for (int fd = 3; fd < 1024 && value < 0; fd++) {
		socklen_t len = sizeof(union addr), value_len = sizeof(value);
		union addr addr;

		if (!getsockname(fd, &addr.sa, &len) &&
		    addr_equal(&addr, relayed))
			getsockopt(fd, SOL_UDP, UDP_GRO, &value, &value_len);
	}
	assert_in_range(value, 0, 1);
	return value;
}

/* Where a channel may go on wire, they may not: a program there takes no trains. */
static void trains_follow_the_transport(void **state)
{
	struct tc tcp, udp, other;
	struct ticket ticket;
	union addr relayed;

	(void)state;
	assert_int_equal(rig_open(&rig, 1, MOBILE), 0);
	rig_udp(&rig);
	tc_open(&tcp, &rig, 0);
	tc_open_udp(&udp, &rig, 0);
	tc_open(&other, &rig, 0);
	assert_int_equal(allocate_at(&tcp, &ticket, &relayed), 0);
	assert_true(trains(&relayed));
	assert_int_equal(show(&udp, &ticket), 0);
	assert_false(trains(&relayed));
	rig_reload(&rig, MOBILE "[engine]\norder = splice, copy\n");
	assert_true(trains(&relayed));
	rig_reload(&rig, MOBILE);
	assert_false(trains(&relayed));
	assert_int_equal(show(&other, &ticket), 0);
	assert_true(trains(&relayed));
	tc_close(&tcp);
	tc_close(&udp);
	tc_close(&other);
	kick_all();
	rig_finish(&rig);
}

static void survives_every_allocation_failure(void **state)
{
	size_t files;

	(void)state;
	assert_int_equal(rig_open(&rig, 2, MOBILE), 0);
	rig_udp(&rig);
	story(NULL); /* tables have grown, caches are warm */
	files = open_files();
	assert_true(failalloc_sweep(story, NULL) > 5);
	assert_int_equal(open_files(), files);
	rig_close(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(goes_from_worker_to_worker),
		cmocka_unit_test(waits_for_its_client),
		cmocka_unit_test(trains_follow_the_transport),
		cmocka_unit_test(survives_every_allocation_failure),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
