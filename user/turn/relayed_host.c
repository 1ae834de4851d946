/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which of this host's addresses a new allocation gets.
 *
 * An address that nothing leaves by would be a black hole: it is passed over. Which are,
 * the exits' helper says, at once; without one, which the system's routes lead, a link
 * that is down does. So is one that is not certain yet to be this host's. Of the others
 * the best after RFC 6724 is taken (rank.h): by the exit that the client has come in by,
 * for that one works for both. Between equals chance decides, by the weights of their
 * exits; without exits it is the first.
 */
#include "turn/relayed_host.h"

#include "base/random.h"
#include "turn/access.h"
#include "turn/rank.h"

/* The candidates so far. */
struct choice {
	const struct conf_exit *near; /* the client's; NULL: none */
	union addr host;
	bool found;
	unsigned int rank; /* of host */
	unsigned int weights; /* of those of that rank */
	size_t dead;
};

/* The address that the client has dialled. */
static bool dialled_host(const struct client *client, union addr *out)
{
	if (!turn_client_local(client, out))
		return false;
	addr_set_port(out, 0);
	return true;
}

/* By its links alone: one that lets the address pass and is up is enough. */
static bool links_work(const struct turn_worker *worker, const union addr *host)
{
	const struct conf *conf = turn_conf(worker);
	bool any = false;

	for (size_t i = 0; i < conf->exit_count; i++) {
		const struct conf_exit *exit = &conf->exits[i];

		if (!conf_exit_lets(exit, host))
			continue;
		if (!exit->link || turn_own_link_up(&worker->own, exit->link))
			return true;
		any = true;
	}
	return !any;
}

static bool host_works(const struct turn_worker *worker, const union addr *host)
{
	if (!turn_conf(worker)->exit_count)
		return true;
	switch (turn_dead_way(&worker->shared->dead, host)) {
	case TURN_WAY_ALIVE:
		return true;
	case TURN_WAY_DEAD:
		return false;
	case TURN_WAY_UNKNOWN:
		break;
	}
	return links_work(worker, host);
}

static void host_consider(const struct turn_worker *worker,
			  struct choice *choice, const union addr *host)
{
	const struct conf_exit *exit = conf_exit_of(turn_conf(worker), host);
	const unsigned int weight = exit ? exit->weight : 1;
	const struct turn_candidate candidate = {
		.host = host,
		.flags = turn_own_flags(&worker->own, host),
		.near = exit && exit == choice->near,
		.last_resort = !weight,
	};
	unsigned int rank;

	if (!turn_candidate_usable(&candidate) || !host_works(worker, host)) {
		choice->dead++;
		return;
	}
	rank = turn_candidate_rank(&candidate);
	if (choice->found && rank < choice->rank)
		return;
	if (!choice->found || rank > choice->rank)
		choice->weights = 0;
	/* Without exits the first of those that are equal is taken. */
	else if (!turn_conf(worker)->exit_count)
		return;
	choice->weights += weight;
	if (!choice->found || rank > choice->rank ||
	    (weight && random_below(choice->weights) < weight))
		choice->host = *host;
	choice->rank = rank;
	choice->found = true;
}

/* Those configured, or the one that the client has dialled. */
static void hosts_consider(const struct request *req, sa_family_t family,
			   const union addr *dialled, struct choice *choice)
{
	const struct conf_relay *relay = &turn_conf(req->worker)->relay;

	for (size_t i = 0; i < relay->address_count; i++)
		if (addr_family(&relay->addresses[i]) == family)
			host_consider(req->worker, choice,
				      &relay->addresses[i]);
	if (!relay->address_count && dialled && addr_family(dialled) == family)
		host_consider(req->worker, choice, dialled);
}

int turn_relayed_host(const struct request *req, sa_family_t family,
		      union addr *out)
{
	const struct conf *conf = turn_conf(req->worker);
	struct choice choice = { .near = NULL };
	union addr dialled;
	bool known = dialled_host(req->client, &dialled);

	if (conf->exit_count || conf->relay.address_count > 1)
		turn_access_refresh(req->worker);
	if (known)
		choice.near = conf_exit_of(conf, &dialled);
	hosts_consider(req, family, known ? &dialled : NULL, &choice);
	if (choice.found) {
		*out = choice.host;
		return 0;
	}
	if (!choice.dead)
		return STUN_CODE_ADDRESS_FAMILY_NOT_SUPPORTED;
	req->worker->counters.exits_down++;
	return STUN_CODE_INSUFFICIENT_CAPACITY;
}
