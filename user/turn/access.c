/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Access: the policy applied to allocations.
 *
 * Connect, CreatePermission, ChannelBind, connections from peers and every datagram
 * of either direction are judged here. A channel keeps the verdict of its peer until
 * policy_serial says that the settings or this machine's addresses have changed: a
 * list may have thousands of prefixes. Whether a refused address is a relayed one
 * is asked each time, for allocations come and go.
 *
 * Here, too, quotas and rates are put together from what the file says of the user, of
 * his realm and of all; a reload does so anew.
 */
#include "turn/access.h"

#include "base/clock.h"
#include "turn/channel.h"
#include "turn/permission.h"

#define OWN_ADDRESSES_MS 1000 /* how stale the list of them may be */

void turn_access_refresh(struct turn_worker *worker)
{
	uint64_t now = loop_now(worker->loop);
	bool changed = false;

	if (now < worker->own.next_ms)
		return;
	/* On failure the old list is better than none. */
	turn_own_addresses_read(&worker->own, &changed);
	worker->own.next_ms = now + OWN_ADDRESSES_MS;
	worker->policy_serial += changed;
}

static enum turn_verdict peer_judge(const struct allocation *allocation,
				    const union addr *peer)
{
	const struct turn_worker *worker = allocation->worker;
	const struct turn_access *access = &allocation->access;
	const struct conf_peers *peers = &turn_conf(worker)->peers;
	const struct turn_policy policy = {
		.rules = {
			access->user ? &access->user->rules : NULL,
			access->realm ? &access->realm->rules : NULL,
			&peers->rules,
		},
		.peers = peers,
		.own = &worker->own,
	};

	return turn_policy_judge(&policy, peer);
}

static bool verdict_allows(const struct turn_worker *worker,
			   enum turn_verdict verdict, const union addr *peer)
{
	switch (verdict) {
	case TURN_ALLOWED:
	case TURN_UNNAMED:
		return true;
	case TURN_REFUSED:
		return turn_conf(worker)->peers.relayed &&
		       turn_relayed_is(worker->shared, peer);
	case TURN_DENIED:
		break;
	}
	return false;
}

bool turn_access_allows(const struct allocation *allocation,
			const union addr *peer)
{
	turn_access_refresh(allocation->worker);
	return verdict_allows(allocation->worker, peer_judge(allocation, peer),
			      peer);
}

bool turn_access_allows_host(const struct allocation *allocation,
			     const union addr *peer)
{
	union addr host = *peer;

	addr_set_port(&host, 0);
	turn_access_refresh(allocation->worker);
	return verdict_allows(allocation->worker, peer_judge(allocation, &host),
			      peer);
}

bool turn_access_allows_channel(struct channel *channel)
{
	struct turn_worker *worker = channel->allocation->worker;

	turn_access_refresh(worker);
	if (channel->judged != worker->policy_serial) {
		channel->verdict =
			peer_judge(channel->allocation, &channel->peer);
		channel->judged = worker->policy_serial;
	}
	return verdict_allows(worker, channel->verdict, &channel->peer);
}

/* Who is not in the file is bound by what it says of his realm. */
static const struct conf_quota *user_quota(const struct turn_worker *worker,
					   const struct turn_access *access)
{
	if (access->user)
		return &access->user->quota;
	return access->realm ? &access->realm->per_user :
			       &turn_limits(worker)->per_user;
}

static unsigned int quota_limit(const struct conf_quota *quota,
				enum auth_quota what)
{
	if (!quota)
		return 0;
	return what == AUTH_QUOTA_ALLOCATIONS ? quota->allocations :
						quota->connections;
}

int turn_access_take(struct turn_worker *worker, struct auth_account *account,
		     const struct turn_access *access, enum auth_quota what)
{
	const struct conf_quota *user = user_quota(worker, access);
	const struct conf_quota *realm = access->realm ? &access->realm->quota :
							 NULL;

	if (!auth_quota_take(account, what, quota_limit(user, what),
			     quota_limit(realm, what)))
		return 0;
	worker->counters.quota_refusals++;
	return STUN_CODE_ALLOCATION_QUOTA_REACHED;
}

void turn_access_set(struct allocation *allocation)
{
	struct turn_worker *worker = allocation->worker;
	struct auth_account *account = allocation->account;
	const struct turn_access access =
		turn_settings_access(worker->settings, account);
	const struct conf_quota *user = user_quota(worker, &access);

	allocation->access = access;
	for (int way = 0; way < RATE_WAYS; way++) {
		struct rates *rates = &allocation->rates[way];

		*rates =
			(struct rates){ .delays =
						&worker->counters.rate_delays };
		rates_add(rates, &allocation->buckets[way],
			  user->allocation_bandwidth);
		rates_add(rates, auth_account_bucket(account, way),
			  user->bandwidth);
		if (access.realm)
			rates_add(rates,
				  auth_account_bucket(auth_account_all(account),
						      way),
				  access.realm->quota.bandwidth);
	}
}

bool turn_access_limited(const struct allocation *allocation)
{
	return allocation->rates[RATE_TO_CLIENT].count ||
	       allocation->rates[RATE_TO_PEER].count;
}

bool turn_access_passes(const struct allocation *allocation, enum rate_way way,
			size_t len)
{
	const struct rates *rates = &allocation->rates[way];

	return !rates->count || rates_pass(rates, len, clock_ns());
}

static void allocations_reload(struct list *list)
{
	struct list *pos;

	list_for_each(pos, list) {
		struct allocation *allocation =
			list_entry(pos, struct allocation, link);

		turn_access_set(allocation);
		turn_permissions_judge(allocation);
	}
}

void turn_access_reload(struct turn_worker *worker)
{
	worker->policy_serial++;
	allocations_reload(&worker->allocations);
	allocations_reload(&worker->ended);
}
