/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random walks: clients of every kind do what comes to their minds, right or wrong,
 * while settings change, memory fails and operators kick. Nothing is asked of the
 * answers; the sanitizers watch, and in the end nothing may be left. CULVERT_SEED
 * repeats a walk, CULVERT_STEPS sets its length.
 */
#include "base/random.h"
#include "turn/worker.h"
#include "unit/open_files.h"
#include "unit/turn_rig.h"

#define STEPS   10000
#define CLIENTS 6
#define POOL    8

/* Clients that have gone are not waited for. */
#define BRIEF "[limits]\nunauthenticated_timeout = 100ms\n"
#define BOTH  "[relay]\nmobility = yes\naddress = 127.0.0.1, ::1\n"

static const char *const settings[] = {
	BOTH BRIEF,
	BOTH BRIEF,
	BOTH "ports = 20700-20703\n" BRIEF,
	BOTH BRIEF "[peers]\nallow = 127.0.0.0/8\ndeny = ::1\n",
	BOTH BRIEF "default_lifetime = 1\nmax_lifetime = 1\n"
		   "pending_binds = 2\nchannels_per_allocation = 3\n"
		   "permissions_per_allocation = 3\nallocations_per_user = 2\n",
	"[relay]\naddress = 127.0.0.1, 2001:db8::77\n" BRIEF,
	"[relay]\naddress = 192.0.2.77, ::1\nmobility = yes\n" BRIEF,
};

#define SETTINGS (sizeof(settings) / sizeof(settings[0]))

/* What was told to anybody, for anybody to use: the last few of each. */
struct bytes {
	uint8_t bytes[64];
	size_t len;
};

static struct rig rig;
static uint32_t seed;
static struct tc clients[CLIENTS];
static bool allocated[CLIENTS]; /* as far as it knows */
static struct bytes tickets[2], tokens[2];
static union addr relayed[POOL];
static uint32_t ids[2];
static union addr peers[2][2]; /* by family: of UDP, of TCP */
static int peer_fds[2][2];
static int dialled[POOL];
static uint8_t buf[65536];

static uint32_t chance(uint32_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 17;
	seed ^= seed << 5;
	return seed % below;
}

static void learn(struct tc *tc)
{
	const bool mine = tc->msg.method == STUN_ALLOCATE ||
			  tc->msg.method == STUN_REFRESH;

	struct stun_attr attr;
	union addr addr;
	size_t at = 0;
	uint32_t id;

	if (tc->msg.class == STUN_SUCCESS && mine)
		allocated[tc - clients] = true;
	if (tc->msg.class == STUN_ERROR && tc_code(tc) == 437)
		allocated[tc - clients] = tc->msg.method == STUN_ALLOCATE;
	while (stun_next(&tc->msg, &at, &attr)) {
		struct bytes *kept = NULL;

		if (attr.type == STUN_ATTR_XOR_RELAYED_ADDRESS &&
		    !stun_get_xor_address(&tc->msg, &attr, &addr))
			relayed[chance(POOL)] = addr;
		if (attr.type == STUN_ATTR_CONNECTION_ID &&
		    !stun_get_u32(&attr, &id))
			ids[chance(2)] = id;
		if (attr.type == STUN_ATTR_MOBILITY_TICKET)
			kept = &tickets[chance(2)];
		if (attr.type == STUN_ATTR_RESERVATION_TOKEN)
			kept = &tokens[chance(2)];
		if (kept && attr.len <= sizeof(kept->bytes)) {
			memcpy(kept->bytes, attr.value, attr.len);
			kept->len = attr.len;
		}
	}
	tc_learn(tc);
}

/* Whatever has come; what is no STUN is of no interest. */
static void hear(struct tc *tc)
{
	ssize_t len, n;

	while (tc->fd >= 0 && (n = recv(tc->fd, buf, sizeof(buf), 0)) > 0)
		for (uint8_t *at = buf;
		     (len = stun_frame(at, (size_t)n)) > 0 && len <= n &&
		     !stun_parse(at, (size_t)len, &tc->msg);
		     at += len, n -= len)
			learn(tc);
}

static void drain(int fd)
{
	while (fd >= 0 && recv(fd, buf, sizeof(buf), 0) > 0)
		;
}

static void go_on(void)
{
	rig_tick(&rig, 0);
	rig_tick(&rig, 0);
	for (size_t i = 0; i < CLIENTS; i++)
		hear(&clients[i]);
	drain(peer_fds[0][0]);
	drain(peer_fds[1][0]);
}

static void client_open(struct tc *tc)
{
	tc_close(tc);
	allocated[tc - clients] = false;
	if (chance(2))
		tc_open(tc, &rig, chance(rig.count));
	else
		tc_open_udp(tc, &rig, chance(rig.count));
	if (chance(4) == 0) {
		tc->user = "bob";
		tc->password = "builder";
	}
	tc_begin(tc, STUN_ALLOCATE);
	tc_send(tc);
	go_on();
}

static void family_put(struct tc *tc, uint16_t type)
{
	stun_put_u8(&tc->w, type, (uint8_t)(1 + chance(2)));
}

static void kept_put(struct tc *tc, uint16_t type, const struct bytes *pool)
{
	const struct bytes *kept = &pool[chance(2)];

	stun_put(&tc->w, type, kept->bytes, kept->len);
}

static void allocate(struct tc *tc)
{
	const uint8_t even = chance(2) ? 0x80 : 0;

	tc_begin(tc, STUN_ALLOCATE);
	stun_put_u8(&tc->w, STUN_ATTR_REQUESTED_TRANSPORT,
		    !udp_is(tc->fd) && chance(3) ? STUN_TRANSPORT_TCP :
						   STUN_TRANSPORT_UDP);
	if (chance(2))
		stun_put_u8(&tc->w, STUN_ATTR_ADDITIONAL_ADDRESS_FAMILY,
			    STUN_FAMILY_IPV6);
	else if (chance(4) == 0)
		family_put(tc, STUN_ATTR_REQUESTED_ADDRESS_FAMILY);
	if (chance(4) == 0)
		stun_put(&tc->w, STUN_ATTR_EVEN_PORT, &even, 1);
	else if (chance(6) == 0)
		kept_put(tc, STUN_ATTR_RESERVATION_TOKEN, tokens);
	if (chance(2))
		stun_put(&tc->w, STUN_ATTR_MOBILITY_TICKET, "", 0);
	tc_send(tc);
}

static void refresh(struct tc *tc)
{
	tc_begin(tc, STUN_REFRESH);
	if (chance(2))
		stun_put_u32(&tc->w, STUN_ATTR_LIFETIME, chance(4) * 300);
	if (chance(3))
		family_put(tc, STUN_ATTR_REQUESTED_ADDRESS_FAMILY);
	if (chance(6) == 0)
		kept_put(tc, STUN_ATTR_MOBILITY_TICKET, tickets);
	tc_send(tc);
}

static const union addr *peer_any(bool tcp)
{
	return chance(8) ? &peers[chance(2)][tcp] : &relayed[chance(POOL)];
}

static void move(struct tc *tc)
{
	tc_begin(tc, STUN_REFRESH);
	kept_put(tc, STUN_ATTR_MOBILITY_TICKET, tickets);
	if (chance(3) == 0)
		stun_put_u32(&tc->w, STUN_ATTR_LIFETIME, chance(2) * 300);
	if (chance(6) == 0)
		family_put(tc, STUN_ATTR_REQUESTED_ADDRESS_FAMILY);
	tc_send(tc);
}

static void permit(struct tc *tc)
{
	tc_begin(tc, STUN_CREATE_PERMISSION);
	for (uint32_t i = chance(4) + 1; i; i--) {
		const union addr *peer = peer_any(chance(2));

		if (addr_family(peer) != AF_UNSPEC)
			stun_put_xor_address(&tc->w, STUN_ATTR_XOR_PEER_ADDRESS,
					     peer);
	}
	tc_send(tc);
}

static void channel_bind(struct tc *tc)
{
	tc_begin_peer(tc, STUN_CHANNEL_BIND, &peers[chance(2)][0]);
	stun_put_u32(&tc->w, STUN_ATTR_CHANNEL_NUMBER,
		     (0x4000 + chance(6)) << 16);
	tc_send(tc);
}

static void data_send(struct tc *tc)
{
	uint8_t data[STUN_CHANNEL_HEADER + 4] = { 0 };

	if (chance(2)) {
		stun_channel_begin(data, (uint16_t)(0x4000 + chance(6)), 4);
		tc_write(tc, data, sizeof(data));
		return;
	}
	stun_begin(&tc->w, tc->out, sizeof(tc->out), STUN_INDICATION, STUN_SEND,
		   NULL);
	stun_put_xor_address(&tc->w, STUN_ATTR_XOR_PEER_ADDRESS,
			     &peers[chance(2)][0]);
	stun_put(&tc->w, STUN_ATTR_DATA, "data", 4);
	if (chance(3) == 0)
		stun_put(&tc->w, STUN_ATTR_DONT_FRAGMENT, "", 0);
	tc_write(tc, tc->out, (size_t)stun_end(&tc->w));
}

static void connect_out(struct tc *tc)
{
	const union addr *peer = peer_any(true);

	if (addr_family(peer) == AF_UNSPEC)
		return;
	tc_begin_peer(tc, STUN_CONNECT, peer);
	tc_send(tc);
}

static void bind_data(struct tc *tc)
{
	tc_begin_bind(tc, ids[chance(2)]);
	tc_send(tc);
}

/* The last request once more, as if its answer had been lost. */
static void repeat(struct tc *tc)
{
	if (tc->w.len && !tc->w.error)
		tc_write(tc, tc->out, tc->w.len);
}

/* What one does who has an allocation, or not; some are done more often. */
static void (*const deeds[])(struct tc *tc) = {
	allocate,     refresh,      refresh,     refresh,   permit,
	permit,       permit,       move,        repeat,    data_send,
	channel_bind, channel_bind, data_send,   data_send, bind_data,
	connect_out,  connect_out,  connect_out,
};

static void (*const wishes[])(struct tc *tc) = {
	allocate, allocate, move, bind_data, repeat,
};

static void client_acts(void)
{
	struct tc *tc = &clients[chance(CLIENTS)];

	if (tc->fd < 0 || !tc->nonce[0] || chance(40) == 0)
		client_open(tc);
	else if (allocated[tc - clients])
		deeds[chance(sizeof(deeds) / sizeof(deeds[0]))](tc);
	else
		wishes[chance(sizeof(wishes) / sizeof(wishes[0]))](tc);
}

/* Sends to a relayed address, or connects to it and hangs up some time. */
static void peer_acts(void)
{
	const union addr *to = &relayed[chance(POOL)];
	int *fd = &dialled[chance(POOL)];
	size_t i = addr_family(to) == AF_INET6;

	if (addr_family(to) == AF_UNSPEC)
		return;
	sendto(peer_fds[i][0], "peer", 4, MSG_DONTWAIT, &to->sa, addr_len(to));
	fd_close(fd);
	*fd = chance(3) ?
		      socket(addr_family(to),
			     SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) :
		      accept4(peer_fds[i][1], NULL, NULL,
			      SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (*fd >= 0)
		connect(*fd, &to->sa, addr_len(to));
}

static bool row_take(void *arg, const struct turn_allocation_info *info)
{
	assert_int_not_equal(addr_family(&info->relayed), AF_UNSPEC);
	memcpy(arg, info->id, sizeof(info->id));
	return chance(3);
}

static bool connection_take(void *arg, const struct turn_connection_info *info)
{
	memcpy(arg, info->id, sizeof(info->id));
	return chance(3);
}

static void operator_acts(unsigned int worker)
{
	struct turn_cursor cursor = { 0 };
	char id[TURN_ID_LEN] = "";

	if (chance(2))
		turn_worker_each_allocation(rig.worker[worker], row_take, id);
	else
		turn_worker_each_connection(rig.worker[worker], &cursor, 100,
					    connection_take, id);
	if (id[0])
		turn_worker_kick(rig.worker[worker], id);
}

static void step(void)
{
	const uint32_t what = chance(100);
	const bool poor = chance(8) == 0;

	if (what == 0) {
		rig_reload(&rig, settings[chance(SETTINGS)]);
		return;
	}
	if (poor)
		failalloc_arm((long)chance(12) + 1);
	if (what < 3)
		operator_acts(chance(rig.count));
	else if (what < 15)
		peer_acts();
	else
		client_acts();
	go_on();
	failalloc_disarm();
}

static void peers_open(void)
{
	static const char *const hosts[2] = { "127.0.0.2", "::1" };

	for (size_t i = 0; i < 2; i++) {
		socklen_t len = sizeof(peers[i][0]);

		peer_fds[i][1] = peer_listen(hosts[i], &peers[i][1]);
		assert_int_equal(addr_parse(hosts[i], 0, &peers[i][0]), 0);
		peer_fds[i][0] = udp_open(&peers[i][0]);
		assert_true(peer_fds[i][0] >= 0);
		assert_int_equal(
			getsockname(peer_fds[i][0], &peers[i][0].sa, &len), 0);
	}
}

static void all_leave(void)
{
	for (size_t i = 0; i < CLIENTS; i++)
		tc_close(&clients[i]);
	for (size_t i = 0; i < POOL; i++)
		fd_close(&dialled[i]);
}

/* What was asked last may still make an allocation that waits for its client. */
static bool all_is_over(void)
{
	for (unsigned int i = 0; i < rig.count; i++)
		operator_acts(i);
	return rig_is_idle(&rig);
}

static void nothing_is_left_of_a_walk(void **state)
{
	const char *given = getenv("CULVERT_SEED"),
		   *length = getenv("CULVERT_STEPS");
	const size_t files = open_files();

	(void)state;
	seed = given ? (uint32_t)strtoul(given, NULL, 10) : random_u32() | 1;
	printf("# CULVERT_SEED=%u\n", seed);
	assert_int_equal(rig_open(&rig, RIG_WORKERS, settings[0]), 0);
	rig_udp(&rig);
	peers_open();
	for (size_t i = 0; i < CLIENTS; i++)
		clients[i].fd = -1;
	for (size_t i = 0; i < POOL; i++)
		dialled[i] = -1;
	for (long i = length ? strtol(length, NULL, 10) : STEPS; i; i--)
		step();
	all_leave();
	RIG_UNTIL(&rig, all_is_over());
	assert_int_equal(rig_counters(&rig).channels, 0);
	assert_int_equal(rig.worker[0]->permissions.count, 0);
	for (size_t i = 0; i < 2; i++)
		for (size_t k = 0; k < 2; k++)
			fd_close(&peer_fds[i][k]);
	rig_close(&rig);
	assert_int_equal(open_files(), files);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_left_of_a_walk),
	};

	if (!rig_has_ipv6()) {
		puts("1..0 # SKIP this host has no IPv6");
		return 0;
	}
	return cmocka_run_group_tests_name("turn_walk", tests, NULL, NULL);
}
