/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Data of UDP allocations: Send and Data indications (RFC 8656 11), ChannelData
 * (12.5 to 12.7), and what ICMP says of what was sent (11.5).
 *
 * All of it is datagrams: what may not pass, or finds no room, is dropped and
 * counted, and nobody is told. A client on a connection that does not read loses
 * data, not its connection: the upper half of its queue is kept for answers.
 */
#include "turn/data.h"

#include <errno.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <string.h>

#include "base/bytes.h"
#include "turn/access.h"
#include "turn/channel.h"
#include "turn/datagram.h"
#include "turn/lane.h"
#include "turn/mobile.h"
#include "turn/outlet.h"
#include "turn/permission.h"
#include "turn/request.h"

/* Of a Data indication, beside the data: header, an IPv6 address, DATA's own. */
#define INDICATION_EXTRA (STUN_HEADER_LEN + 24 + 4 + 4)
#define PAYLOAD_MAX      65535u
#define ICMP_LEN         8 /* of ICMP (RFC 8656 18.13) */

static void dropped(struct turn_worker *worker)
{
	worker->counters.datagrams_dropped++;
}

/* One that is sent; what the kernel does not take is among udp_unsent, too. */
static void to_peer_count(struct allocation *allocation, size_t len)
{
	struct counters *counters = &allocation->worker->counters;

	counters->datagrams_to_peers++;
	counters->bytes_to_peers += len;
	allocation->bytes_to_peers += len;
}

/* To a peer that a permission holds for. */
static void peer_send(struct outlet *outlet, const union addr *peer,
		      const uint8_t *data, size_t len)
{
	const struct udp_path path = { .remote = *peer };
	uint8_t *at = udp_send(outlet->udp, &path, len);

	if (!at) {
		dropped(outlet->allocation->worker);
		return;
	}
	memcpy(at, data, len);
	to_peer_count(outlet->allocation, len);
}

/* The same in one piece (DONT-FRAGMENT). */
static void peer_send_whole(struct outlet *outlet, const union addr *peer,
			    const uint8_t *data, size_t len)
{
	to_peer_count(outlet->allocation, len);
	udp_send_whole(outlet->udp, peer, data, len);
}

/* Comprehension-required attributes that a Send may have, ascending. */
static const uint16_t send_known[] = {
	STUN_ATTR_XOR_PEER_ADDRESS,
	STUN_ATTR_DATA,
	STUN_ATTR_DONT_FRAGMENT,
};

/* Is there a permission, does the policy still agree, and is there bandwidth? */
static bool data_passes(const struct allocation *allocation, enum rate_way way,
			struct channel *channel, const union addr *peer,
			size_t len)
{
	return turn_permission_holds(allocation, peer) &&
	       (channel ? turn_access_allows_channel(channel) :
			  turn_access_allows(allocation, peer)) &&
	       turn_access_passes(allocation, way, len);
}

/* Whom it is for and what: false: it is to be dropped (RFC 8656 11.2). */
static bool send_read(const struct allocation *allocation,
		      const struct stun_msg *msg, union addr *peer,
		      struct stun_attr *data)
{
	struct stun_attr attr;
	uint16_t unknown;

	return stun_find(msg, STUN_ATTR_XOR_PEER_ADDRESS, &attr) &&
	       stun_find(msg, STUN_ATTR_DATA, data) &&
	       !stun_unknown(msg, send_known,
			     sizeof(send_known) / sizeof(send_known[0]),
			     &unknown, 1) &&
	       stun_get_xor_address(msg, &attr, peer) == 0 && addr_port(peer) &&
	       data_passes(allocation, RATE_TO_PEER, NULL, peer, data->len);
}

void turn_data_send(struct client *client, const struct stun_msg *msg)
{
	struct allocation *allocation = client->allocation;
	struct outlet *outlet;
	struct stun_attr data;
	union addr peer;

	turn_mobile_confirm(client);
	if (!allocation || allocation->transport != STUN_TRANSPORT_UDP ||
	    !send_read(allocation, msg, &peer, &data)) {
		dropped(client->worker);
		return;
	}
	/* Where there is a permission there is one. */
	outlet = turn_outlet_of(allocation, addr_family(&peer));
	if (stun_has(msg, STUN_ATTR_DONT_FRAGMENT))
		peer_send_whole(outlet, &peer, data.value, data.len);
	else
		peer_send(outlet, &peer, data.value, data.len);
}

int turn_data_channel(struct client *client, const uint8_t *data, size_t len)
{
	struct allocation *allocation = client->allocation;
	struct stun_channel_data message;
	struct channel *channel;

	if (stun_channel_parse(data, len, &message))
		return -EBADMSG;
	turn_mobile_confirm(client);
	channel = allocation ?
			  turn_channel_of_number(allocation, message.number) :
			  NULL;
	if (!channel || !data_passes(allocation, RATE_TO_PEER, channel,
				     &channel->peer, message.len)) {
		dropped(client->worker);
		return 0;
	}
	peer_send(turn_outlet_of(allocation, addr_family(&channel->peer)),
		  &channel->peer, message.data, message.len);
	turn_lane_used(channel);
	return 0;
}

/* ChannelData; padded in streams alone. false: no room. */
static bool channel_data_send(struct client *client, uint16_t number,
			      const uint8_t *data, size_t len)
{
	uint8_t buf[STUN_CHANNEL_HEADER + PAYLOAD_MAX + 3] BYTES_UNSET;
	const size_t whole = STUN_CHANNEL_HEADER + len;
	const size_t padding = client->stream ? -whole & 3 : 0;
	const bool copied = turn_client_connected(client);
	uint8_t *at = copied ? buf : turn_datagram_room(client, whole);

	if (!at)
		return false;
	stun_channel_begin(at, number, (uint16_t)len);
	memcpy(at + STUN_CHANNEL_HEADER, data, len);
	if (!copied)
		return true;
	memset(at + whole, 0, padding);
	return turn_client_send_data(client, at, whole + padding);
}

static bool indication_send(struct client *client, const union addr *peer,
			    const uint8_t *data, size_t len)
{
	uint8_t buf[INDICATION_EXTRA + PAYLOAD_MAX] BYTES_UNSET;
	struct stun_writer w;
	ssize_t written;

	stun_begin(&w, buf, sizeof(buf), STUN_INDICATION, STUN_DATA, NULL);
	stun_put_xor_address(&w, STUN_ATTR_XOR_PEER_ADDRESS, peer);
	stun_put(&w, STUN_ATTR_DATA, data, len);
	written = stun_end(&w);
	return written > 0 &&
	       turn_client_send_data(client, buf, (size_t)written);
}

void turn_data_received(void *arg, const struct udp_path *path,
			const uint8_t *data, size_t len)
{
	const struct outlet *outlet = arg;
	struct allocation *allocation = outlet->allocation;
	struct counters *counters = &allocation->worker->counters;
	struct client *client = turn_mobile_receiver(allocation);
	struct channel *channel =
		turn_channel_of_peer(allocation, &path->remote);
	bool sent;

	if (!data_passes(allocation, RATE_TO_CLIENT, channel, &path->remote,
			 len)) {
		dropped(allocation->worker);
		return;
	}
	sent = channel ? channel_data_send(client, channel->number, data, len) :
			 indication_send(client, &path->remote, data, len);
	if (!sent) {
		dropped(allocation->worker);
		return;
	}
	counters->datagrams_to_clients++;
	counters->bytes_to_clients += len;
	allocation->bytes_to_client += len;
	if (channel)
		turn_lane_used(channel);
}

/* Unreachable, too big, took too long: of others nobody is told. */
static bool failure_tells(const struct udp_failure *failure)
{
	if (addr_family(&failure->remote) == AF_INET)
		return failure->type == ICMP_DEST_UNREACH ||
		       failure->type == ICMP_TIME_EXCEEDED;
	return failure->type == ICMP6_DST_UNREACH ||
	       failure->type == ICMP6_PACKET_TOO_BIG ||
	       failure->type == ICMP6_TIME_EXCEEDED;
}

void turn_data_failed(void *arg, const struct udp_failure *failure)
{
	const struct outlet *outlet = arg;
	struct allocation *allocation = outlet->allocation;
	struct counters *counters = &allocation->worker->counters;
	uint8_t buf[INDICATION_EXTRA + ICMP_LEN], icmp[ICMP_LEN] = { 0 };
	struct stun_writer w;
	ssize_t len;

	if (!failure_tells(failure) ||
	    !turn_permission_holds(allocation, &failure->remote))
		return;
	/* 16 reserved bits, 7 of the type, 9 of the code; the MTU. */
	put_be16(icmp + 2, (uint16_t)(failure->type << 9 | failure->code));
	put_be32(icmp + 4, failure->mtu);
	stun_begin(&w, buf, sizeof(buf), STUN_INDICATION, STUN_DATA, NULL);
	stun_put_xor_address(&w, STUN_ATTR_XOR_PEER_ADDRESS, &failure->remote);
	stun_put(&w, STUN_ATTR_ICMP, icmp, sizeof(icmp));
	len = stun_end(&w);
	if (len > 0 && turn_client_send_data(turn_mobile_receiver(allocation),
					     buf, (size_t)len))
		counters->icmp_to_clients++;
	else
		dropped(allocation->worker);
}
