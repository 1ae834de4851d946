/* SPDX-License-Identifier: BSD-2-Clause */
/* What tests of UDP allocations share: the rig, peers, and data both ways. */
#ifndef UNIT_UDP_RIG_H
#define UNIT_UDP_RIG_H

#include "unit/turn_rig.h"

static struct rig rig;

/* One worker, with a listener for datagrams; `more` as in rig_open(). */
static inline int udp_rig_open(const char *more)
{
	if (rig_open(&rig, 1, more))
		return -1;
	rig_udp(&rig);
	return 0;
}

static inline int udp_rig_close(void **state)
{
	(void)state;
	RIG_UNTIL(&rig, rig_is_idle(&rig));
	rig_close(&rig);
	return 0;
}

/* A peer's datagram socket and its address. */
struct peer {
	int fd;
	union addr addr;
};

static inline void peer_open(struct peer *peer, const char *host)
{
	socklen_t len = sizeof(peer->addr);

	assert_int_equal(addr_parse(host, 0, &peer->addr), 0);
	peer->fd = socket(addr_family(&peer->addr),
			  SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_true(peer->fd >= 0);
	assert_int_equal(bind(peer->fd, &peer->addr.sa, addr_len(&peer->addr)),
			 0);
	assert_int_equal(getsockname(peer->fd, &peer->addr.sa, &len), 0);
}

static inline void peer_send(const struct peer *peer, const union addr *to,
			     const char *text)
{
	assert_int_equal(sendto(peer->fd, text, strlen(text), 0, &to->sa,
				addr_len(to)),
			 strlen(text));
}

/* The next datagram must be this one, from there. */
static inline void peer_hears(const struct peer *peer, const union addr *from,
			      const char *text)
{
	union addr source = { 0 };
	socklen_t len = sizeof(source);
	char buf[2048];
	ssize_t n;

	RIG_UNTIL(&rig, (n = recvfrom(peer->fd, buf, sizeof(buf), 0, &source.sa,
				      &len)) >= 0);
	assert_int_equal(n, strlen(text));
	assert_memory_equal(buf, text, (size_t)n);
	assert_true(addr_equal(&source, from));
}

static inline void channel_write(struct tc *tc, uint16_t number,
				 const char *text, size_t padding)
{
	uint8_t buf[2048] = { 0 };
	const size_t len = strlen(text);

	stun_channel_begin(buf, number, (uint16_t)len);
	memcpy(buf + STUN_CHANNEL_HEADER, text, len);
	tc_write(tc, buf, STUN_CHANNEL_HEADER + len + padding);
}

static inline int channel_bind(struct tc *tc, const union addr *peer,
			       unsigned number)
{
	tc_begin_peer(tc, STUN_CHANNEL_BIND, peer);
	stun_put_u32(&tc->w, STUN_ATTR_CHANNEL_NUMBER, number << 16);
	return tc_ask(tc);
}

/* A Send indication; more attributes may be added before tc_write. */
static inline void send_begin(struct tc *tc, const union addr *peer,
			      const char *text)
{
	stun_begin(&tc->w, tc->out, sizeof(tc->out), STUN_INDICATION, STUN_SEND,
		   NULL);
	stun_put_xor_address(&tc->w, STUN_ATTR_XOR_PEER_ADDRESS, peer);
	stun_put(&tc->w, STUN_ATTR_DATA, text, strlen(text));
}

static inline void send_to(struct tc *tc, const union addr *peer,
			   const char *text)
{
	send_begin(tc, peer, text);
	tc_write(tc, tc->out, (size_t)stun_end(&tc->w));
}

/* The next message must be a Data indication with this, from there. */
static inline void data_hears(struct tc *tc, const union addr *peer,
			      const char *text)
{
	struct stun_attr attr;
	union addr from;

	assert_int_equal(tc_next(tc), 0);
	assert_int_equal(tc->msg.class, STUN_INDICATION);
	assert_int_equal(tc->msg.method, STUN_DATA);
	assert_true(tc_address(tc, STUN_ATTR_XOR_PEER_ADDRESS, &from));
	assert_true(addr_equal(&from, peer));
	assert_true(stun_find(&tc->msg, STUN_ATTR_DATA, &attr));
	assert_int_equal(attr.len, strlen(text));
	assert_memory_equal(attr.value, text, attr.len);
}

#endif
