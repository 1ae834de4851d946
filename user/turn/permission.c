/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * CreatePermission (RFC 8656 10.2) and the look-up of permissions.
 *
 * A request with several addresses is carried out for all or for none: first all
 * are judged, then places are made for the new ones, and only then anything is
 * prolonged.
 */
#include "turn/permission.h"

#include <stdlib.h>
#include <string.h>

#include "turn/access.h"
#include "turn/lane.h"
#include "turn/request.h"

static uint64_t permission_hash(const struct allocation *allocation,
				const union addr *peer)
{
	uint8_t key[sizeof(uint64_t) + 16];
	size_t len;
	const uint8_t *bytes = addr_bytes(peer, &len);

	memcpy(key, &allocation->serial, sizeof(uint64_t));
	memcpy(key + sizeof(uint64_t), bytes, len);
	return table_hash(key, sizeof(uint64_t) + len);
}

static struct permission *permission_find(const struct allocation *allocation,
					  const union addr *peer)
{
	struct table_node *node =
		table_first(&allocation->worker->permissions,
			    permission_hash(allocation, peer));

	for (; node; node = table_next(node)) {
		struct permission *permission =
			list_entry(node, struct permission, node);

		if (permission->allocation == allocation &&
		    addr_same_host(&permission->peer, peer))
			return permission;
	}
	return NULL;
}

static void permission_remove(struct permission *permission)
{
	struct allocation *allocation = permission->allocation;

	table_remove(&allocation->worker->permissions, &permission->node);
	list_del(&permission->link);
	allocation->permission_count--;
	free(permission);
}

static bool holds_now(const struct permission *permission)
{
	return permission->expires_ms >
	       loop_now(permission->allocation->worker->loop);
}

bool turn_permission_holds(const struct allocation *allocation,
			   const union addr *peer)
{
	const struct permission *permission = permission_find(allocation, peer);

	return permission && holds_now(permission);
}

uint64_t turn_permission_expires(const struct allocation *allocation,
				 const union addr *peer)
{
	const struct permission *permission = permission_find(allocation, peer);

	return permission && holds_now(permission) ? permission->expires_ms : 0;
}

/* Those of peers of this family; AF_UNSPEC: all. */
static void permissions_remove(struct list *permissions, sa_family_t family)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, permissions) {
		struct permission *permission =
			list_entry(pos, struct permission, link);

		if (family == AF_UNSPEC ||
		    addr_family(&permission->peer) == family)
			permission_remove(permission);
	}
}

void turn_permissions_clear(struct allocation *allocation, sa_family_t family)
{
	permissions_remove(&allocation->permissions, family);
}

unsigned int turn_permissions_count(const struct allocation *allocation)
{
	unsigned int count = 0;
	struct list *pos;

	list_for_each(pos, &allocation->permissions)
		count += holds_now(list_entry(pos, struct permission, link));
	return count;
}

static void permissions_sweep(struct allocation *allocation)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &allocation->permissions) {
		struct permission *permission =
			list_entry(pos, struct permission, link);

		if (!holds_now(permission))
			permission_remove(permission);
	}
}

/* Adds one to a list that the allocation does not have yet. */
static bool permission_add(struct allocation *allocation, struct list *fresh,
			   const union addr *peer, uint64_t expires_ms)
{
	struct turn_worker *worker = allocation->worker;
	struct permission *permission;

	if (allocation->permission_count >=
	    turn_limits(worker)->permissions_per_allocation)
		return false;
	permission = calloc(1, sizeof(*permission));
	if (!permission)
		return false;
	permission->allocation = allocation;
	permission->peer = *peer;
	addr_set_port(&permission->peer, 0);
	permission->expires_ms = expires_ms;
	table_insert(&worker->permissions, &permission->node,
		     permission_hash(allocation, peer));
	list_add_tail(&permission->link, fresh);
	allocation->permission_count++;
	return true;
}

int turn_permission_grant(struct allocation *allocation, const union addr *peer)
{
	struct turn_worker *worker = allocation->worker;
	const uint64_t expires_ms = loop_now(worker->loop) +
				    turn_limits(worker)->permission_lifetime_ms;
	struct permission *permission;

	permissions_sweep(allocation);
	permission = permission_find(allocation, peer);
	if (permission)
		permission->expires_ms = expires_ms;
	else if (!permission_add(allocation, &allocation->permissions, peer,
				 expires_ms))
		return STUN_CODE_INSUFFICIENT_CAPACITY;
	return 0;
}

void turn_permissions_judge(struct allocation *allocation)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &allocation->permissions) {
		struct permission *permission =
			list_entry(pos, struct permission, link);

		if (!turn_access_allows_host(allocation, &permission->peer))
			permission_remove(permission);
	}
	turn_lanes_refresh(allocation);
}

/* Walks the XOR-PEER-ADDRESSes; all were readable when `judge` has passed. */
static bool peer_next(const struct request *req, size_t *at,
		      struct stun_attr *attr)
{
	while (stun_next(req->msg, at, attr))
		if (attr->type == STUN_ATTR_XOR_PEER_ADDRESS)
			return true;
	return false;
}

/*
 * 0, or why one of the addresses is refused. Judging an address takes a walk through
 * the rules, so no more are judged than could be kept.
 */
static int peers_judge(const struct request *req,
		       const struct allocation *allocation)
{
	struct stun_attr attr;
	union addr peer;
	size_t at = 0, count = 0;
	int code;

	for (; peer_next(req, &at, &attr); count++) {
		if (count >=
		    turn_limits(req->worker)->permissions_per_allocation)
			return STUN_CODE_INSUFFICIENT_CAPACITY;
		code = turn_request_peer(req, allocation, &attr, &peer);
		if (code)
			return code;
		if (!turn_access_allows_host(allocation, &peer))
			return STUN_CODE_FORBIDDEN;
	}
	return count ? 0 : STUN_CODE_BAD_REQUEST;
}

/* Makes the permissions that are missing. 0, or 508 with none made. */
static int peers_add(const struct request *req, struct allocation *allocation,
		     uint64_t expires_ms)
{
	struct list fresh;
	struct stun_attr attr;
	union addr peer;
	size_t at = 0;
	bool done = true;

	list_init(&fresh);
	permissions_sweep(allocation);
	while (done && peer_next(req, &at, &attr))
		if (!turn_request_peer(req, allocation, &attr, &peer) &&
		    !permission_find(allocation, &peer))
			done = permission_add(allocation, &fresh, &peer,
					      expires_ms);
	if (!done)
		permissions_remove(&fresh, AF_UNSPEC);
	list_splice_tail(&fresh, &allocation->permissions);
	return done ? 0 : STUN_CODE_INSUFFICIENT_CAPACITY;
}

static void peers_prolong(const struct request *req,
			  const struct allocation *allocation,
			  uint64_t expires_ms)
{
	struct stun_attr attr;
	union addr peer;
	size_t at = 0;

	while (peer_next(req, &at, &attr))
		if (!turn_request_peer(req, allocation, &attr, &peer))
			permission_find(allocation, &peer)->expires_ms =
				expires_ms;
}

int turn_create_permission(struct request *req)
{
	struct allocation *allocation;
	uint64_t expires_ms;
	int code = turn_request_allocation(req, &allocation);

	if (!code)
		code = peers_judge(req, allocation);
	if (code)
		return code;
	expires_ms = loop_now(req->worker->loop) +
		     turn_limits(req->worker)->permission_lifetime_ms;
	code = peers_add(req, allocation, expires_ms);
	if (code)
		return code;
	peers_prolong(req, allocation, expires_ms);
	turn_lanes_refresh(allocation);
	return 0;
}
