/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which exits can be left by: those of other routers by the host routes to their
 * anycast addresses, which those routers have announced while their links are up; this
 * host's own by their links.
 */
#ifndef EXIT_HEALTH_H
#define EXIT_HEALTH_H

#include <stdbool.h>
#include <stdint.h>

#include "conf/conf.h"

struct exit_losses;
struct health;
struct nlmsghdr;
struct rtnl;

/*
 * The anycast address that stands for a prefix of an exit: the one configured for
 * its family or, for IPv6, prefix and suffix together. Pure. False: there is none.
 */
bool exit_anycast(const struct conf_exit *exit, const struct prefix *prefix,
		  union addr *out);
/* Does a route to that address, or who has it, say whether the prefix can leave there? */
bool exit_watched(const struct conf_exit *exit, const struct prefix *prefix,
		  union addr *out);

/* Nothing is known of any yet, and all are taken for lost. */
int health_new(const struct conf *conf, struct health **out);
void health_free(struct health *health); /* accepts NULL */
/* Is there an address to watch? */
bool health_watches(const struct health *health, sa_family_t family);

/* All are to be looked at. */
void health_ask(struct health *health);
/* A message of rtnetlink: true when a look may find something else than before. */
bool health_news(struct health *health, const struct nlmsghdr *msg);
/*
 * Looks for what news were of, all of it at first. 0 or a negative errno, of the first
 * that could not be looked at and will be next time. In any case *changed tells whether
 * another state than before counts now: a loss that is known does not wait for the rest.
 */
int health_look(struct health *health, struct rtnl *rtnl, uint64_t now_ms,
		bool *changed);
/* The route to an address is there now, or is not (health_look does so). */
bool health_tell(struct health *health, const union addr *anycast, bool there,
		 uint64_t now_ms);
/* A router that is probed answers, or does not; health_look tells whether it counts. */
void health_answer(struct health *health, const union addr *anycast, bool there,
		   uint64_t now_ms);
/* The same of a link. */
bool health_tell_link(struct health *health, const char *link, bool up,
		      uint64_t now_ms);
/* Those that have stayed long enough are back. True: there are any. */
bool health_settle(struct health *health, uint64_t now_ms);
/* When that is to be called again; UINT64_MAX: not before there are news. */
uint64_t health_due(const struct health *health);

/* health NULL: nothing is watched, and nothing lost. */
bool health_lost(const struct health *health, const union addr *anycast);
/* What exit_watched gives, by what says so for that exit. */
bool health_exit_lost(const struct health *health, const struct conf_exit *exit,
		      const struct prefix *prefix);
bool health_link_lost(const struct health *health, const char *link);
/*
 * Why a prefix is lost that the kernel has a way for: "silent", or "held", for *held_ms
 * more at least. NULL: it is not, or the kernel has none.
 */
const char *health_why(const struct health *health,
		       const struct conf_exit *exit,
		       const struct prefix *prefix, uint64_t now_ms,
		       uint64_t *held_ms);

/* Does who has that address answer no probe? */
bool health_silent(const struct health *health, const union addr *anycast);

/* All that is lost in that way, its array for the caller to free. 0 or -ENOMEM. */
int health_losses(const struct health *health, struct exit_losses *out);
/* Takes that over, but for what the kernel has no way for (health_look before it). */
void health_recall(struct health *health, const struct exit_losses *losses);

#endif
