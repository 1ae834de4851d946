/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * NAT behavior discovery (RFC 5780 6).
 *
 * A listener with an alternate has four sockets of a family: two hosts, each with
 * two ports. A client may ask for the answer to leave from another of them, to
 * come to another port of its own host, or to be padded beyond the path's MTU.
 *
 * The source of a request may be forged, so nothing here makes more of it than a
 * plain Binding does: the answer goes to the source's host alone, padding is never
 * longer than the request's, and the answer counts as every stranger's (excess.h).
 */
#include "turn/discovery.h"

#include <string.h>

#include "base/bytes.h"
#include "turn/datagram.h"

#define CHANGE_IP   0x4u
#define CHANGE_PORT 0x2u
/* RFC 5780 6.1: the outgoing interface's MTU, a multiple of four. */
#define PADDING_MAX 1500u

/* What a request asks for. */
struct wish {
	uint32_t change; /* CHANGE_IP, CHANGE_PORT */
	uint16_t port; /* 0: the one it came from */
	size_t padding; /* bytes */
};

static bool type_is_ours(uint16_t type)
{
	return type == STUN_ATTR_CHANGE_REQUEST || type == STUN_ATTR_PADDING ||
	       type == STUN_ATTR_RESPONSE_PORT;
}

static const union addr *family_first(const union addr *list, size_t count,
				      sa_family_t family)
{
	for (size_t i = 0; i < count; i++)
		if (addr_family(&list[i]) == family)
			return &list[i];
	return NULL;
}

/* The first address of the local one's family, and its alternate. */
static bool both_find(const struct client *client, union addr *first,
		      union addr *alternate)
{
	const struct conf_listener *conf = client->listener->conf;
	const sa_family_t family = addr_family(&client->local);
	const union addr *one, *other;

	if (turn_client_connected(client) || !conf || !conf->alternate_count)
		return false;
	one = family_first(conf->addresses, conf->address_count, family);
	other = family_first(conf->alternates, conf->alternate_count, family);
	if (!one || !other)
		return false;
	*first = *one;
	*alternate = *other;
	return true;
}

/* The address that differs from the local one in what `change` says. */
static union addr changed(const union addr *local, const union addr *first,
			  const union addr *alternate, uint32_t change)
{
	const bool at_first = addr_same_host(local, first);
	union addr out = *local;

	if (change & CHANGE_IP)
		out = at_first ? *alternate : *first;
	addr_set_port(&out, addr_port(local));
	if (change & CHANGE_PORT)
		addr_set_port(&out, addr_port(local) == addr_port(first) ?
					    addr_port(alternate) :
					    addr_port(first));
	return out;
}

size_t turn_discovery_known(const struct request *req, uint16_t *types,
			    size_t count)
{
	union addr first, alternate;
	size_t left = 0;

	if (!count || req->msg->method != STUN_BINDING ||
	    !both_find(req->client, &first, &alternate))
		return count;
	for (size_t i = 0; i < count; i++)
		if (!type_is_ours(types[i]))
			types[left++] = types[i];
	return left;
}

/* 0 or 400. */
static int wish_read(const struct stun_msg *msg, struct wish *out)
{
	struct stun_attr attr;

	*out = (struct wish){ 0 };
	if (stun_find(msg, STUN_ATTR_CHANGE_REQUEST, &attr) &&
	    stun_get_u32(&attr, &out->change))
		return STUN_CODE_BAD_REQUEST;
	if (stun_find(msg, STUN_ATTR_PADDING, &attr))
		out->padding = attr.len < PADDING_MAX ? attr.len & ~3u :
							PADDING_MAX;
	if (!stun_find(msg, STUN_ATTR_RESPONSE_PORT, &attr))
		return 0;
	/* Two bytes, or with the padding counted in. */
	if ((attr.len != 2 && attr.len != 4) ||
	    stun_has(msg, STUN_ATTR_PADDING))
		return STUN_CODE_BAD_REQUEST;
	out->port = get_be16(attr.value);
	return out->port ? 0 : STUN_CODE_BAD_REQUEST;
}

static void answer_put(struct stun_writer *w, const struct client *client,
		       const union addr *origin, const union addr *other,
		       const struct wish *wish)
{
	static const uint8_t padding[PADDING_MAX];

	stun_put_xor_address(w, STUN_ATTR_XOR_MAPPED_ADDRESS, &client->remote);
	stun_put_address(w, STUN_ATTR_MAPPED_ADDRESS, &client->remote);
	stun_put_address(w, STUN_ATTR_RESPONSE_ORIGIN, origin);
	stun_put_address(w, STUN_ATTR_OTHER_ADDRESS, other);
	if (wish->padding)
		stun_put(w, STUN_ATTR_PADDING, padding, wish->padding);
}

int turn_discovery_answer(struct request *req)
{
	struct client *client = req->client, sender;
	uint8_t buf[TURN_ANSWER_MAX + PADDING_MAX];
	union addr first, alternate, origin, other;
	struct stun_writer w;
	struct wish wish;
	int code;

	if (!both_find(client, &first, &alternate))
		return 0;
	code = wish_read(req->msg, &wish);
	if (code)
		return code;
	origin = changed(&client->local, &first, &alternate, wish.change);
	other = changed(&client->local, &first, &alternate,
			CHANGE_IP | CHANGE_PORT);
	sender = *client;
	sender.local = origin;
	sender.port = turn_listener_port(client->listener, &origin);
	/* Not all of them are open, as while a reload is under way. */
	if (!sender.port)
		return STUN_CODE_SERVER_ERROR;
	if (wish.port)
		addr_set_port(&sender.remote, wish.port);
	stun_begin(&w, buf, sizeof(buf), STUN_SUCCESS, req->tx.method,
		   req->tx.txid);
	answer_put(&w, client, &origin, &other, &wish);
	turn_answer_send(&sender, &w, &req->tx);
	return TURN_LATER;
}
