/* SPDX-License-Identifier: BSD-2-Clause */
/* Clients over UDP and UDP allocations: answers, silence, data both ways. */
#include "turn/reservation.h"
#include "unit/udp_rig.h"

static int setup(void **state)
{
	(void)state;
	return udp_rig_open("");
}

static void answers_binding_with_the_clients_address(void **state)
{
	union addr mine, seen;
	socklen_t len = sizeof(mine);
	struct tc tc;

	(void)state;
	tc_open_udp(&tc, &rig, 0);
	assert_int_equal(getsockname(tc.fd, &mine.sa, &len), 0);
	tc_begin(&tc, STUN_BINDING);
	assert_int_equal(tc_ask(&tc), 0);
	assert_true(tc_address(&tc, STUN_ATTR_XOR_MAPPED_ADDRESS, &seen));
	assert_true(addr_equal(&mine, &seen));
	assert_int_equal(rig_counters(&rig).clients, 0);
	tc_close(&tc);
}

/* A forged source must not become worth forging. */
static void strangers_get_no_more_than_they_must(void **state)
{
	struct tc tc;

	(void)state;
	tc_open_udp(&tc, &rig, 0);
	tc.no_fingerprint = true;
	tc_begin(&tc, STUN_BINDING);
	assert_int_equal(tc_ask(&tc), 0);
	assert_int_equal(tc.msg.len, STUN_HEADER_LEN + 12);
	assert_int_equal(tc_challenge(&tc), 401);
	assert_false(stun_has(&tc.msg, STUN_ATTR_SOFTWARE));
	assert_true(stun_has(&tc.msg, STUN_ATTR_REALM));
	assert_int_equal(rig_counters(&rig).clients, 0);
	assert_int_equal(rig_counters(&rig).unauthenticated, 0);
	/* Who is known gets it. */
	tc_begin(&tc, STUN_REFRESH);
	assert_int_equal(tc_ask(&tc), 437);
	assert_true(stun_has(&tc.msg, STUN_ATTR_SOFTWARE));
	tc_close(&tc);
}

/* Sends what gets no answer; then a Binding, whose answer must come first. */
static void unanswered(struct tc *tc, const void *data, size_t len)
{
	tc_write(tc, data, len);
	tc_begin(tc, STUN_BINDING);
	assert_int_equal(tc_ask(tc), 0);
}

static void nothing_but_requests_is_answered(void **state)
{
	static const enum stun_class classes[] = { STUN_INDICATION,
						   STUN_SUCCESS, STUN_ERROR };
	uint8_t longer[64] = { 0 };
	struct tc tc;
	size_t len;

	(void)state;
	tc_open_udp(&tc, &rig, 0);
	for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++) {
		stun_begin(&tc.w, tc.out, sizeof(tc.out), classes[i],
			   STUN_BINDING, NULL);
		len = tc_end(&tc);
		unanswered(&tc, tc.out, len);
	}
	tc_begin(&tc, STUN_BINDING);
	len = tc_end(&tc);
	tc.out[len - 1] ^= 1; /* FINGERPRINT */
	unanswered(&tc, tc.out, len);
	assert_int_equal(rig_counters(&rig).bad_fingerprints, 1);
	assert_int_equal(rig_counters(&rig).datagrams_ignored, 0);
	assert_int_equal(send(tc.fd, "", 0, 0), 0);
	unanswered(&tc, "GET / HTTP/1.0\r\n\r\n", 18);
	unanswered(&tc, "\x40\x00\x00\x05haha", 8);
	/* One byte short, and bytes behind the message. */
	tc_begin(&tc, STUN_BINDING);
	unanswered(&tc, tc.out, STUN_HEADER_LEN - 1);
	tc_begin(&tc, STUN_BINDING);
	memcpy(longer, tc.out, STUN_HEADER_LEN);
	unanswered(&tc, longer, STUN_HEADER_LEN + 4);
	assert_int_equal(rig_counters(&rig).datagrams_ignored, 5);
	tc_close(&tc);
}

/*
 * Once too much was guessed from here. A 438 would tell that the key was right; who has
 * none to show is challenged, and the owner goes on by that.
 */
static void a_guess_is_not_judged_by_its_nonce(void **state)
{
	const unsigned int most = 3;
	struct counters now;
	union addr relayed;
	struct tc tc;

	(void)state;
	rig_reload(&rig, "[limits]\nauth_failures = 3\n");
	tc_open_udp(&tc, &rig, 0);
	assert_int_equal(tc_allocate_udp(&tc, &relayed), 0);
	tc.password = "guess";
	for (unsigned int i = 0; i < most; i++) {
		tc_begin(&tc, STUN_REFRESH);
		assert_int_equal(tc_ask(&tc), 401);
	}
	tc.password = "wonderland";
	memset(tc.nonce, '0', strlen(tc.nonce));
	tc_begin(&tc, STUN_REFRESH);
	tc_send(&tc);
	RIG_UNTIL(&rig, (now = rig_counters(&rig), now.auth_limited == 1));
	assert_int_equal(tc_challenge(&tc), 401);
	tc_begin(&tc, STUN_REFRESH);
	stun_put_u32(&tc.w, STUN_ATTR_LIFETIME, 0);
	assert_int_equal(tc_ask(&tc), 0);
	tc_close(&tc);
}

static void tcp_is_not_to_be_had_over_udp(void **state)
{
	union addr relayed;
	struct tc tc;

	(void)state;
	tc_open_udp(&tc, &rig, 0);
	assert_int_equal(tc_allocate(&tc, &relayed), 400);
	tc_begin_bind(&tc, 0);
	assert_int_equal(tc_ask(&tc), 400);
	tc_close(&tc);
}

static void a_socket_that_is_not_configured_any_more_closes(void **state)
{
	struct tc tc;
	char byte;

	(void)state;
	tc_open_udp(&tc, &rig, 0);
	rig_reload(&rig, "");
	tc_begin(&tc, STUN_BINDING);
	assert_int_equal(tc_ask(&tc), 0);
	/* The same address and name, but of TCP. */
	rig_reload(&rig, "[listener datagrams]\naddress = 127.0.0.1:0\n");
	tc_begin(&tc, STUN_BINDING);
	tc_send(&tc);
	RIG_UNTIL(&rig, recv(tc.fd, &byte, 1, 0) < 0 && errno == ECONNREFUSED);
	tc_close(&tc);
}

/* One bare message to the client: over UDP a datagram, else what is there. */
static size_t raw_next(struct tc *tc, uint8_t *out, size_t size)
{
	ssize_t n;

	assert_int_equal(tc->in_len, tc->used);
	RIG_UNTIL(&rig, (n = recv(tc->fd, out, size, 0)) >= 0);
	return (size_t)n;
}

/* The next thing must be ChannelData with this, padded or not. */
static void channel_hears(struct tc *tc, uint16_t number, const char *text,
			  size_t padding)
{
	struct stun_channel_data data;
	uint8_t buf[2048];
	size_t n = raw_next(tc, buf, sizeof(buf));

	assert_int_equal(n, STUN_CHANNEL_HEADER + strlen(text) + padding);
	assert_int_equal(stun_channel_parse(buf, n, &data), 0);
	assert_int_equal(data.number, number);
	assert_int_equal(data.len, strlen(text));
	assert_memory_equal(data.data, text, data.len);
}

/* A client with a UDP allocation, over UDP or over TCP. */
static union addr allocated(struct tc *tc, bool over_tcp)
{
	union addr relayed = { 0 };

	if (over_tcp)
		tc_open(tc, &rig, 0);
	else
		tc_open_udp(tc, &rig, 0);
	assert_int_equal(tc_allocate_udp(tc, &relayed), 0);
	return relayed;
}

static void done(struct tc *tc)
{
	tc_begin(tc, STUN_REFRESH);
	stun_put_u32(&tc->w, STUN_ATTR_LIFETIME, 0);
	assert_int_equal(tc_ask(tc), 0);
	tc_close(tc);
}

static uint64_t drops(void)
{
	return rig_counters(&rig).datagrams_dropped;
}

static void relays_by_indications(bool over_tcp)
{
	struct peer peer;
	struct tc tc;
	union addr relayed = allocated(&tc, over_tcp);

	peer_open(&peer, "127.0.0.2");
	/* Neither way without a permission. */
	send_to(&tc, &peer.addr, "too early");
	RIG_UNTIL(&rig, drops() == 1);
	peer_send(&peer, &relayed, "too early");
	RIG_UNTIL(&rig, drops() == 2);
	assert_int_equal(tc_peer(&tc, STUN_CREATE_PERMISSION, &peer.addr), 0);
	send_to(&tc, &peer.addr, "hello");
	peer_hears(&peer, &relayed, "hello");
	send_to(&tc, &peer.addr, "");
	peer_hears(&peer, &relayed, "");
	peer_send(&peer, &relayed, "good day");
	data_hears(&tc, &peer.addr, "good day");
	assert_int_equal(rig_counters(&rig).datagrams_to_peers, 2);
	assert_int_equal(rig_counters(&rig).datagrams_to_clients, 1);
	assert_int_equal(rig_counters(&rig).bytes_to_clients, 8);
	close(peer.fd);
	done(&tc);
}

static void relays_indications(void **state)
{
	(void)state;
	relays_by_indications(false);
}

static void relays_indications_of_a_connection(void **state)
{
	(void)state;
	relays_by_indications(true);
}

static void relays_by_channel(bool over_tcp)
{
	const size_t padding = over_tcp ? 3 : 0;
	struct peer peer;
	struct tc tc;
	union addr relayed = allocated(&tc, over_tcp);

	peer_open(&peer, "127.0.0.2");
	assert_int_equal(channel_bind(&tc, &peer.addr, 0x4000), 0);
	channel_write(&tc, 0x4000, "hello", padding);
	peer_hears(&peer, &relayed, "hello");
	peer_send(&peer, &relayed, "hello");
	channel_hears(&tc, 0x4000, "hello", padding);
	/* Indications go on beside it. */
	send_to(&tc, &peer.addr, "by Send");
	peer_hears(&peer, &relayed, "by Send");
	channel_write(&tc, 0x4001, "nobody", over_tcp ? 2 : 0);
	RIG_UNTIL(&rig, drops() == 1);
	close(peer.fd);
	done(&tc);
}

static void relays_channel_data(void **state)
{
	(void)state;
	relays_by_channel(false);
}

static void relays_channel_data_of_a_connection(void **state)
{
	(void)state;
	relays_by_channel(true);
}

/* One port of a host is on a channel, another comes by indication. */
static void a_channel_is_for_one_port(void **state)
{
	struct peer a, b;
	struct tc tc;
	union addr relayed = allocated(&tc, false);

	(void)state;
	peer_open(&a, "127.0.0.2");
	peer_open(&b, "127.0.0.2");
	assert_int_equal(channel_bind(&tc, &a.addr, 0x4fff), 0);
	peer_send(&b, &relayed, "beside");
	data_hears(&tc, &b.addr, "beside");
	tc.in_len = tc.used = 0;
	peer_send(&a, &relayed, "on it");
	channel_hears(&tc, 0x4fff, "on it", 0);
	close(a.fd);
	close(b.fd);
	done(&tc);
}

static void channels_bind_one_number_to_one_peer(void **state)
{
	struct peer a, b;
	union addr other;
	struct tc tc;

	(void)state;
	allocated(&tc, false);
	peer_open(&a, "127.0.0.2");
	peer_open(&b, "127.0.0.3");
	assert_int_equal(channel_bind(&tc, &a.addr, 0x3fff), 400);
	assert_int_equal(channel_bind(&tc, &a.addr, 0x8000), 400);
	assert_int_equal(tc_peer(&tc, STUN_CHANNEL_BIND, &a.addr), 400);
	tc_begin(&tc, STUN_CHANNEL_BIND);
	stun_put_u32(&tc.w, STUN_ATTR_CHANNEL_NUMBER, 0x4000 << 16);
	assert_int_equal(tc_ask(&tc), 400);
	other = a.addr;
	addr_set_port(&other, 0);
	assert_int_equal(channel_bind(&tc, &other, 0x4000), 400);
	assert_int_equal(addr_parse("[2001:db8::1]:9", 0, &other), 0);
	assert_int_equal(channel_bind(&tc, &other, 0x4000), 443);
	assert_int_equal(addr_parse("224.0.0.1:9", 0, &other), 0);
	assert_int_equal(channel_bind(&tc, &other, 0x4000), 403);
	assert_int_equal(channel_bind(&tc, &a.addr, 0x4000), 0);
	assert_int_equal(channel_bind(&tc, &a.addr, 0x4000), 0);
	assert_int_equal(channel_bind(&tc, &b.addr, 0x4000), 400);
	assert_int_equal(channel_bind(&tc, &a.addr, 0x4001), 400);
	assert_int_equal(channel_bind(&tc, &b.addr, 0x4001), 0);
	assert_int_equal(rig_counters(&rig).channels, 2);
	/* The range of RFC 5766, by the switch. */
	rig_reload(&rig, "[relay]\nold_channels = no\n");
	assert_int_equal(addr_parse("127.0.0.4:9", 0, &other), 0);
	assert_int_equal(channel_bind(&tc, &other, 0x5000), 400);
	rig_reload(&rig, "");
	assert_int_equal(channel_bind(&tc, &other, 0x7fff), 0);
	close(a.fd);
	close(b.fd);
	done(&tc);
	assert_int_equal(rig_counters(&rig).channels, 0);
}

static void channels_and_their_permissions_expire(void **state)
{
	struct peer peer;
	struct tc tc;
	union addr relayed;
	uint64_t before;

	(void)state;
	rig_reload(&rig, "[limits]\nchannel_lifetime = 3\n"
			 "permission_lifetime = 1\n");
	relayed = allocated(&tc, false);
	peer_open(&peer, "127.0.0.2");
	assert_int_equal(channel_bind(&tc, &peer.addr, 0x4000), 0);
	/* First the permission: the channel is there and nothing passes. */
	do {
		peer_send(&peer, &relayed, "?");
		rig_tick(&rig, 20);
	} while (!drops());
	send_to(&tc, &peer.addr, "!");
	channel_write(&tc, 0x4000, "!", 0);
	before = drops();
	RIG_UNTIL(&rig, drops() >= before + 2);
	assert_int_equal(recv(peer.fd, tc.in, sizeof(tc.in), 0), -1);
	while (recv(tc.fd, tc.in, sizeof(tc.in), 0) >= 0)
		;
	tc.in_len = tc.used = 0;
	/* Then the channel: with a permission, data come by indication. */
	do {
		assert_int_equal(
			tc_peer(&tc, STUN_CREATE_PERMISSION, &peer.addr), 0);
		tc.in_len = tc.used = 0;
		peer_send(&peer, &relayed, "?");
		RIG_UNTIL(&rig, (tc_fill(&tc)) > 0);
	} while (stun_is_channel_data(tc.in, tc.in_len) &&
		 (tc.in_len = 0, true));
	data_hears(&tc, &peer.addr, "?");
	before = drops();
	channel_write(&tc, 0x4000, "!", 0);
	RIG_UNTIL(&rig, drops() == before + 1);
	close(peer.fd);
	done(&tc);
}

static void channels_and_permissions_are_bounded(void **state)
{
	union addr peer;
	struct tc tc;

	(void)state;
	rig_reload(&rig, "[limits]\nchannels_per_allocation = 2\n"
			 "permissions_per_allocation = 1\n");
	allocated(&tc, false);
	assert_int_equal(addr_parse("127.0.0.2:1", 0, &peer), 0);
	assert_int_equal(channel_bind(&tc, &peer, 0x4000), 0);
	addr_set_port(&peer, 2);
	assert_int_equal(channel_bind(&tc, &peer, 0x4001), 0);
	addr_set_port(&peer, 3);
	assert_int_equal(channel_bind(&tc, &peer, 0x4002), 508);
	addr_set_port(&peer, 2);
	assert_int_equal(channel_bind(&tc, &peer, 0x4001), 0);
	done(&tc);
	/* No permission, no channel. */
	allocated(&tc, false);
	assert_int_equal(channel_bind(&tc, &peer, 0x4000), 0);
	assert_int_equal(addr_parse("127.0.0.3:1", 0, &peer), 0);
	assert_int_equal(channel_bind(&tc, &peer, 0x4001), 508);
	assert_int_equal(rig_counters(&rig).channels, 1);
	done(&tc);
}

/* The answer was lost; the same request must not find its own work in the way. */
static void a_repeated_allocate_is_answered_alike(void **state)
{
	union addr relayed, again;
	struct stun_attr attr;
	uint8_t request[512], answer[512];
	size_t len, answer_len;
	struct tc tc;

	(void)state;
	tc_open_udp(&tc, &rig, 0);
	assert_int_equal(tc_challenge(&tc), 401);
	tc_begin_allocate_udp(&tc);
	stun_put(&tc.w, STUN_ATTR_EVEN_PORT, "\x80", 1);
	len = tc_end(&tc);
	memcpy(request, tc.out, len);
	tc_write(&tc, request, len);
	assert_int_equal(tc_answer(&tc), 0);
	assert_true(tc_address(&tc, STUN_ATTR_XOR_RELAYED_ADDRESS, &relayed));
	assert_true(stun_find(&tc.msg, STUN_ATTR_RESERVATION_TOKEN, &attr));
	answer_len = tc.msg.len;
	memcpy(answer, tc.msg.data, answer_len);
	tc_write(&tc, request, len);
	assert_int_equal(tc_answer(&tc), 0);
	assert_true(tc_address(&tc, STUN_ATTR_XOR_RELAYED_ADDRESS, &again));
	assert_true(addr_equal(&relayed, &again));
	assert_int_equal(tc.msg.len, answer_len);
	assert_memory_equal(tc.msg.data, answer, answer_len);
	assert_int_equal(rig_counters(&rig).allocations_made, 1);
	/* Another one is another matter, and so is another user's. */
	assert_int_equal(tc_allocate_udp(&tc, &again), 437);
	tc.user = "bob";
	tc.password = "builder";
	tc_begin_allocate_udp(&tc);
	memcpy(tc.txid, request + 8, sizeof(tc.txid));
	memcpy(tc.out + 8, tc.txid, sizeof(tc.txid));
	assert_int_equal(tc_ask(&tc), 437);
	tc.user = "alice";
	tc.password = "wonderland";
	done(&tc);
}

static void the_5_tuple_is_the_client(void **state)
{
	union addr relayed, other;
	struct tc a, b;

	(void)state;
	relayed = allocated(&a, false);
	other = allocated(&b, false);
	assert_false(addr_equal(&relayed, &other));
	assert_int_equal(rig_counters(&rig).clients, 2);
	assert_int_equal(rig_counters(&rig).allocations, 2);
	/* Another user there: 441, also for what was already theirs. */
	b.user = "bob";
	b.password = "builder";
	tc_begin(&b, STUN_REFRESH);
	assert_int_equal(tc_ask(&b), 441);
	b.user = "alice";
	b.password = "wonderland";
	done(&a);
	assert_int_equal(rig_counters(&rig).clients, 1);
	tc_begin(&b, STUN_REFRESH);
	assert_int_equal(tc_ask(&b), 0);
	done(&b);
}

static void nothing_is_kept_of_who_is_refused(void **state)
{
	union addr relayed;
	struct tc first, second;

	(void)state;
	rig_reload(&rig, "[limits]\nallocations_per_user = 1\n");
	allocated(&first, false);
	tc_open_udp(&second, &rig, 0);
	assert_int_equal(tc_allocate_udp(&second, &relayed), 486);
	assert_int_equal(rig_counters(&rig).clients, 1);
	tc_begin(&second, STUN_REFRESH);
	assert_int_equal(tc_ask(&second), 437);
	tc_close(&second);
	assert_int_equal(turn_worker_kick(rig.worker[0], "a0.1"), 0);
	assert_int_equal(rig_counters(&rig).clients, 0);
	tc_close(&first);
}

static void even_ports_and_their_neighbours(void **state)
{
	uint8_t token[TURN_TOKEN_LEN];
	union addr relayed, next;
	struct stun_attr attr;
	struct tc a, b;

	(void)state;
	tc_open_udp(&a, &rig, 0);
	tc_challenge(&a);
	tc_begin_allocate_udp(&a);
	stun_put(&a.w, STUN_ATTR_EVEN_PORT, "\x80\0", 2);
	assert_int_equal(tc_ask(&a), 400);
	tc_begin_allocate_udp(&a);
	stun_put(&a.w, STUN_ATTR_EVEN_PORT, "\x80", 1);
	stun_put(&a.w, STUN_ATTR_RESERVATION_TOKEN, "12345678", 8);
	assert_int_equal(tc_ask(&a), 400);
	tc_begin_allocate_udp(&a);
	stun_put(&a.w, STUN_ATTR_EVEN_PORT, "\x80", 1);
	assert_int_equal(tc_ask(&a), 0);
	assert_true(tc_address(&a, STUN_ATTR_XOR_RELAYED_ADDRESS, &relayed));
	assert_int_equal(addr_port(&relayed) % 2, 0);
	assert_true(stun_find(&a.msg, STUN_ATTR_RESERVATION_TOKEN, &attr));
	assert_int_equal(attr.len, sizeof(token));
	memcpy(token, attr.value, sizeof(token));
	/* Not for others, nor for a guess; and not twice. */
	tc_open_udp(&b, &rig, 0);
	b.user = "bob";
	b.password = "builder";
	tc_challenge(&b);
	tc_begin_allocate_udp(&b);
	stun_put(&b.w, STUN_ATTR_RESERVATION_TOKEN, token, sizeof(token));
	assert_int_equal(tc_ask(&b), 508);
	b.user = "alice";
	b.password = "wonderland";
	tc_begin_allocate_udp(&b);
	stun_put(&b.w, STUN_ATTR_RESERVATION_TOKEN, "12345678", 8);
	assert_int_equal(tc_ask(&b), 508);
	tc_begin_allocate_udp(&b);
	stun_put(&b.w, STUN_ATTR_RESERVATION_TOKEN, token, sizeof(token));
	stun_put_u8(&b.w, STUN_ATTR_REQUESTED_ADDRESS_FAMILY, STUN_FAMILY_IPV4);
	assert_int_equal(tc_ask(&b), 400);
	tc_begin_allocate_udp(&b);
	stun_put(&b.w, STUN_ATTR_RESERVATION_TOKEN, token, sizeof(token));
	assert_int_equal(tc_ask(&b), 0);
	assert_true(tc_address(&b, STUN_ATTR_XOR_RELAYED_ADDRESS, &next));
	assert_int_equal(addr_port(&next), addr_port(&relayed) + 1);
	done(&b);
	tc_open_udp(&b, &rig, 0);
	tc_challenge(&b);
	tc_begin_allocate_udp(&b);
	stun_put(&b.w, STUN_ATTR_RESERVATION_TOKEN, token, sizeof(token));
	assert_int_equal(tc_ask(&b), 508);
	tc_close(&b);
	done(&a);
}

/* Without R no neighbour is kept, and one that is goes with its allocation. */
static void reservations_end_with_who_made_them(void **state)
{
	union addr relayed;
	struct tc tc;

	(void)state;
	rig_reload(&rig, "[relay]\nports = 20500-20501\n");
	for (int i = 0; i < 3; i++) {
		tc_open_udp(&tc, &rig, 0);
		tc_challenge(&tc);
		tc_begin_allocate_udp(&tc);
		stun_put(&tc.w, STUN_ATTR_EVEN_PORT, i ? "\x80" : "", 1);
		assert_int_equal(tc_ask(&tc), 0);
		assert_int_equal(stun_has(&tc.msg, STUN_ATTR_RESERVATION_TOKEN),
				 i > 0);
		assert_int_equal(rig.shared->relayed.count, 1 + (i > 0));
		done(&tc);
		assert_int_equal(rig.shared->relayed.count, 0);
	}
	/* Of three ports, one alone is even with a neighbour. */
	rig_reload(&rig, "[relay]\nports = 20500-20500\n");
	tc_open_udp(&tc, &rig, 0);
	tc_challenge(&tc);
	tc_begin_allocate_udp(&tc);
	stun_put(&tc.w, STUN_ATTR_EVEN_PORT, "\x80", 1);
	assert_int_equal(tc_ask(&tc), 508);
	assert_int_equal(tc_allocate_udp(&tc, &relayed), 0);
	assert_int_equal(addr_port(&relayed), 20500);
	done(&tc);
	/* And of one that is odd, none. */
	rig_reload(&rig, "[relay]\nports = 20501-20501\n");
	tc_open_udp(&tc, &rig, 0);
	tc_challenge(&tc);
	tc_begin_allocate_udp(&tc);
	stun_put(&tc.w, STUN_ATTR_EVEN_PORT, "", 1);
	assert_int_equal(tc_ask(&tc), 508);
	tc_close(&tc);
}

static void whole_to(struct tc *tc, const union addr *peer, const char *text)
{
	send_begin(tc, peer, text);
	stun_put(&tc->w, STUN_ATTR_DONT_FRAGMENT, "", 0);
	tc_write(tc, tc->out, (size_t)stun_end(&tc->w));
}

static void send_obeys_policy_and_family(void **state)
{
	union addr peer;
	struct peer good;
	struct tc tc;
	union addr relayed = allocated(&tc, false);
	uint64_t before = 0, sent;

	(void)state;
	peer_open(&good, "127.0.0.2");
	assert_int_equal(tc_peer(&tc, STUN_CREATE_PERMISSION, &good.addr), 0);
	assert_int_equal(addr_parse("224.0.0.1:9", 0, &peer), 0);
	send_to(&tc, &peer, "x");
	before++;
	RIG_UNTIL(&rig, drops() == before);
	assert_int_equal(addr_parse("[::1]:9", 0, &peer), 0);
	send_to(&tc, &peer, "x");
	before++;
	RIG_UNTIL(&rig, drops() == before);
	peer = good.addr;
	addr_set_port(&peer, 0);
	send_to(&tc, &peer, "x");
	before++;
	RIG_UNTIL(&rig, drops() == before);
	send_begin(&tc, &good.addr, "x");
	stun_put(&tc.w, 0x7f01, "x", 1); /* comprehension required */
	tc_write(&tc, tc.out, (size_t)stun_end(&tc.w));
	before++;
	RIG_UNTIL(&rig, drops() == before);
	sent = rig_counters(&rig).bytes_to_peers;
	whole_to(&tc, &good.addr, "whole");
	peer_hears(&good, &relayed, "whole");
	assert_int_equal(rig_counters(&rig).bytes_to_peers, sent + 5);
	/* What a reload forbids ends there and then, both ways. */
	rig_reload(&rig, "[peers]\nallow = 127.0.0.3\n");
	send_to(&tc, &good.addr, "x");
	before++;
	RIG_UNTIL(&rig, drops() == before);
	peer_send(&good, &relayed, "x");
	before++;
	RIG_UNTIL(&rig, drops() == before);
	close(good.fd);
	done(&tc);
}

/* The next message must be a Data indication with this ICMP, about that peer. */
static void icmp_hears(struct tc *tc, const union addr *peer, unsigned int type,
		       unsigned int code)
{
	const uint8_t want[8] = {
		[2] = (uint8_t)(type << 1 | code >> 8), [3] = (uint8_t)code
	};
	struct stun_attr attr;
	union addr from;

	assert_int_equal(tc_next(tc), 0);
	assert_int_equal(tc->msg.class, STUN_INDICATION);
	assert_int_equal(tc->msg.method, STUN_DATA);
	assert_true(tc_address(tc, STUN_ATTR_XOR_PEER_ADDRESS, &from));
	assert_true(addr_equal(&from, peer));
	assert_false(stun_has(&tc->msg, STUN_ATTR_DATA));
	assert_true(stun_find(&tc->msg, STUN_ATTR_ICMP, &attr));
	assert_int_equal(attr.len, sizeof(want));
	assert_memory_equal(attr.value, want, sizeof(want));
}

/* And what is sent next, to whomever, is not what it costs. */
static void icmp_comes_as_indication(bool over_tcp)
{
	const size_t padding = over_tcp ? 3 : 0;
	struct peer good, gone;
	struct tc tc;
	union addr relayed = allocated(&tc, over_tcp);

	peer_open(&good, "127.0.0.2");
	peer_open(&gone, "127.0.0.2");
	close(gone.fd);
	assert_int_equal(tc_peer(&tc, STUN_CREATE_PERMISSION, &good.addr), 0);
	for (int i = 0; i < 3; i++) {
		send_to(&tc, &gone.addr, "anybody?");
		icmp_hears(&tc, &gone.addr, 3, 3);
		send_to(&tc, &good.addr, "still here");
		peer_hears(&good, &relayed, "still here");
	}
	/* One may stand in the way of what leaves in the same tick. */
	send_to(&tc, &gone.addr, "anybody?");
	send_to(&tc, &good.addr, "and here");
	peer_hears(&good, &relayed, "and here");
	icmp_hears(&tc, &gone.addr, 3, 3);
	whole_to(&tc, &gone.addr, "anybody?");
	whole_to(&tc, &good.addr, "and here");
	peer_hears(&good, &relayed, "and here");
	icmp_hears(&tc, &gone.addr, 3, 3);
	/* Of a channel, too, by an indication. */
	assert_int_equal(channel_bind(&tc, &gone.addr, 0x4000), 0);
	channel_write(&tc, 0x4000, "hello", padding);
	icmp_hears(&tc, &gone.addr, 3, 3);
	assert_int_equal(rig_counters(&rig).icmp_to_clients, 6);
	assert_int_equal(rig_counters(&rig).datagrams_unsent, 0);
	close(good.fd);
	done(&tc);
}

static void tells_of_icmp(void **state)
{
	(void)state;
	icmp_comes_as_indication(false);
}

static void tells_of_icmp_over_a_connection(void **state)
{
	(void)state;
	icmp_comes_as_indication(true);
}

/* The permission ended when the datagram was on its way. */
static void tells_of_no_icmp_without_permission(void **state)
{
	struct peer gone;
	struct tc tc;

	(void)state;
	allocated(&tc, false);
	peer_open(&gone, "127.0.0.2");
	close(gone.fd);
	assert_int_equal(tc_peer(&tc, STUN_CREATE_PERMISSION, &gone.addr), 0);
	send_to(&tc, &gone.addr, "anybody?");
	RIG_UNTIL(&rig, rig_counters(&rig).datagrams_to_peers == 1);
	rig_reload(&rig, "[peers]\nallow = 127.0.0.1\n");
	/* Its answer comes behind what there is to tell. */
	tc_begin(&tc, STUN_REFRESH);
	assert_int_equal(tc_ask(&tc), 0);
	assert_int_equal(rig_counters(&rig).icmp_to_clients, 0);
	done(&tc);
}

static void tcp_methods_are_not_for_udp_allocations(void **state)
{
	struct peer peer;
	union addr relayed;
	struct tc tc;

	(void)state;
	allocated(&tc, true);
	peer_open(&peer, "127.0.0.2");
	assert_int_equal(tc_peer(&tc, STUN_CONNECT, &peer.addr), 403);
	tc_close(&tc);
	RIG_UNTIL(&rig, rig_is_idle(&rig));
	/* And the other way round. */
	tc_open(&tc, &rig, 0);
	assert_int_equal(tc_allocate(&tc, &relayed), 0);
	assert_int_equal(channel_bind(&tc, &peer.addr, 0x4000), 403);
	assert_int_equal(tc_peer(&tc, STUN_CREATE_PERMISSION, &peer.addr), 0);
	send_to(&tc, &peer.addr, "x");
	RIG_UNTIL(&rig, drops() == 1);
	close(peer.fd);
	tc_close(&tc);
}

/* It loses data and keeps its connection and its answers. */
static void a_connection_that_does_not_read_loses_data_alone(void **state)
{
	static char text[1201];
	struct peer peer;
	struct tc tc;
	union addr relayed;
	const int small = 4096;

	(void)state;
	memset(text, 'x', sizeof(text) - 1);
	tc_init(&tc, &rig);
	tc.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(tc.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	assert_int_equal(
		connect(tc.fd, &rig.addr[0].sa, addr_len(&rig.addr[0])), 0);
	tc_nonblocking(tc.fd);
	assert_int_equal(tc_allocate_udp(&tc, &relayed), 0);
	peer_open(&peer, "127.0.0.2");
	assert_int_equal(tc_peer(&tc, STUN_CREATE_PERMISSION, &peer.addr), 0);
	while (!drops()) {
		peer_send(&peer, &relayed, text);
		rig_tick(&rig, 0);
	}
	tc_begin(&tc, STUN_REFRESH);
	tc_send(&tc);
	do
		assert_int_equal(tc_next(&tc), 0);
	while (tc.msg.class == STUN_INDICATION);
	assert_memory_equal(tc.msg.txid, tc.txid, sizeof(tc.txid));
	assert_int_equal(rig_counters(&rig).send_queue_full, 0);
	close(peer.fd);
	tc_close(&tc);
}

static void allocations_of_a_socket_that_closes_end(void **state)
{
	struct tc tc;

	(void)state;
	allocated(&tc, false);
	rig_reload(&rig, "[listener datagrams]\naddress = 127.0.0.1:0\n");
	assert_true(rig_is_idle(&rig));
	tc_close(&tc);
}

static void expires_without_refresh(void **state)
{
	struct tc tc;

	(void)state;
	rig_reload(&rig, "[limits]\ndefault_lifetime = 1\n");
	allocated(&tc, false);
	RIG_UNTIL(&rig, rig_is_idle(&rig));
	tc_begin(&tc, STUN_REFRESH);
	assert_int_equal(tc_ask(&tc), 437);
	tc_close(&tc);
}

/* All that a client may do, with any allocation of memory failing. */
static void story(void *arg)
{
	union addr relayed, peer;
	struct tc tc;

	(void)arg;
	tc_open_udp(&tc, &rig, 0);
	if (tc_allocate_udp(&tc, &relayed) == 0) {
		assert_int_equal(addr_parse("127.0.0.2:9", 0, &peer), 0);
		channel_bind(&tc, &peer, 0x4000);
		tc_begin(&tc, STUN_REFRESH);
		stun_put_u32(&tc.w, STUN_ATTR_LIFETIME, 0);
		assert_int_equal(tc_ask(&tc), 0);
	}
	tc_begin_allocate_udp(&tc);
	stun_put(&tc.w, STUN_ATTR_EVEN_PORT, "\x80", 1);
	if (tc_ask(&tc) == 0) {
		tc_begin(&tc, STUN_REFRESH);
		stun_put_u32(&tc.w, STUN_ATTR_LIFETIME, 0);
		assert_int_equal(tc_ask(&tc), 0);
	}
	tc_close(&tc);
	RIG_UNTIL(&rig, rig_is_idle(&rig));
	assert_int_equal(rig.shared->relayed.count, 0);
}

static void survives_every_allocation_failure(void **state)
{
	(void)state;
	story(NULL); /* tables have grown */
	assert_true(failalloc_sweep(story, NULL) > 8);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, udp_rig_close)
	const struct CMUnitTest tests[] = {
		TEST(answers_binding_with_the_clients_address),
		TEST(strangers_get_no_more_than_they_must),
		TEST(nothing_but_requests_is_answered),
		TEST(a_guess_is_not_judged_by_its_nonce),
		TEST(tcp_is_not_to_be_had_over_udp),
		TEST(a_socket_that_is_not_configured_any_more_closes),
		TEST(relays_indications),
		TEST(relays_indications_of_a_connection),
		TEST(relays_channel_data),
		TEST(relays_channel_data_of_a_connection),
		TEST(a_channel_is_for_one_port),
		TEST(channels_bind_one_number_to_one_peer),
		TEST(channels_and_their_permissions_expire),
		TEST(channels_and_permissions_are_bounded),
		TEST(a_repeated_allocate_is_answered_alike),
		TEST(the_5_tuple_is_the_client),
		TEST(nothing_is_kept_of_who_is_refused),
		TEST(even_ports_and_their_neighbours),
		TEST(reservations_end_with_who_made_them),
		TEST(send_obeys_policy_and_family),
		TEST(tells_of_icmp),
		TEST(tells_of_icmp_over_a_connection),
		TEST(tells_of_no_icmp_without_permission),
		TEST(tcp_methods_are_not_for_udp_allocations),
		TEST(a_connection_that_does_not_read_loses_data_alone),
		TEST(allocations_of_a_socket_that_closes_end),
		TEST(expires_without_refresh),
		TEST(survives_every_allocation_failure),
	};

	return cmocka_run_group_tests_name("turn_udp", tests, NULL, NULL);
}
