/* SPDX-License-Identifier: BSD-2-Clause */
/* Allocate (RFC 8656 7.2 with RFC 6062 5.1). */
#include <sys/socket.h>

#include "turn/allocation.h"
#include "turn/request.h"

/* REQUESTED-TRANSPORT: 0 for TCP, else the code that refuses. */
static int transport_check(const struct request *req)
{
	struct stun_attr attr;

	if (!stun_find(req->msg, STUN_ATTR_REQUESTED_TRANSPORT, &attr) ||
	    attr.len != 4)
		return STUN_CODE_BAD_REQUEST;
	switch (attr.value[0]) {
	case STUN_TRANSPORT_TCP: /* over a connection alone: RFC 6062 5.1 */
		return req->client->stream ? 0 : STUN_CODE_BAD_REQUEST;
	case STUN_TRANSPORT_UDP: /* forbidden by policy: RFC 6062 5.1, 1 */
		return STUN_CODE_FORBIDDEN;
	default:
		return STUN_CODE_UNSUPPORTED_TRANSPORT;
	}
}

/* What only makes sense for UDP is refused, though it is understood. */
static int attributes_check(const struct request *req)
{
	if (stun_has(req->msg, STUN_ATTR_DONT_FRAGMENT) ||
	    stun_has(req->msg, STUN_ATTR_EVEN_PORT) ||
	    stun_has(req->msg, STUN_ATTR_RESERVATION_TOKEN))
		return STUN_CODE_BAD_REQUEST;
	return 0;
}

/* The address that the client has dialled, if it is of this family. */
static bool dialled_host(const struct client *client, sa_family_t family,
			 union addr *out)
{
	union addr local = client->local;
	socklen_t len = sizeof(local);

	if ((client->stream && getsockname(transport_stream_fd(client->stream),
					   &local.sa, &len) < 0) ||
	    addr_family(&local) != family)
		return false;
	addr_set_port(&local, 0);
	*out = local;
	return true;
}

/* The host of the relayed address: 0, or 440 when there is none. */
static int host_choose(const struct request *req, sa_family_t family,
		       union addr *out)
{
	const struct conf_relay *relay = &turn_conf(req->worker)->relay;

	/* RFC 8656 7.2: IPv4 unless another one is asked for. */
	if (family == AF_UNSPEC)
		family = AF_INET;
	for (size_t i = 0; i < relay->address_count; i++) {
		if (addr_family(&relay->addresses[i]) != family)
			continue;
		*out = relay->addresses[i];
		return 0;
	}
	if (!relay->address_count && dialled_host(req->client, family, out))
		return 0;
	return STUN_CODE_ADDRESS_FAMILY_NOT_SUPPORTED;
}

/* Everything that can be refused without making anything. */
static int request_check(const struct request *req, union addr *host,
			 uint64_t *lifetime_ms)
{
	sa_family_t family;
	int code;

	if (req->client->allocation)
		return STUN_CODE_ALLOCATION_MISMATCH;
	code = transport_check(req);
	if (!code)
		code = attributes_check(req);
	if (!code)
		code = turn_request_family(req, &family);
	if (!code)
		code = turn_request_lifetime(req, false, lifetime_ms);
	if (code)
		return code;
	if (turn_shared_draining(req->worker->shared))
		return STUN_CODE_INSUFFICIENT_CAPACITY;
	return host_choose(req, family, host);
}

int turn_allocate(struct request *req)
{
	uint64_t lifetime_ms;
	union addr host;
	int code = turn_request_in_time(req);

	if (!code)
		code = request_check(req, &host, &lifetime_ms);
	if (!code)
		code = turn_allocation_new(req, &host, lifetime_ms);
	if (code)
		return code;
	stun_put_xor_address(&req->answer, STUN_ATTR_XOR_RELAYED_ADDRESS,
			     &req->client->allocation->relayed.addr);
	stun_put_u32(&req->answer, STUN_ATTR_LIFETIME,
		     (uint32_t)(lifetime_ms / 1000));
	stun_put_xor_address(&req->answer, STUN_ATTR_XOR_MAPPED_ADDRESS,
			     &req->client->remote);
	return 0;
}
