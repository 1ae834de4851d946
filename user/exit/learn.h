/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A host's half of exit router discovery (appendix A): the source exit cache.
 *
 * What is learnt is routes of the kernel, which expire there by themselves.
 */
#ifndef EXIT_LEARN_H
#define EXIT_LEARN_H

#include "exit/internal.h"

struct learner;

/* Does this host learn exits? */
bool learn_wanted(const struct conf *conf);

/*
 * Whose packet an ICMPv6 type 1 code 5 is about: a whole packet of IPv6, as the
 * kernel logs it. Pure. 0 or -EINVAL; the addresses change on success.
 */
int learn_parse(const uint8_t *packet, size_t len, union addr *from,
		union addr *to);

/* The same of a message of the kernel's log that has such a packet. */
int learn_message(const struct nlmsghdr *msg, union addr *from, union addr *to);

/* Forgets what is there, then listens. rtnl stays the caller's. */
int learner_new(struct loop *loop, const struct conf *conf, struct rtnl *rtnl,
		struct learner **out);
/* What was learnt stays until it expires. Accepts NULL. */
void learner_free(struct learner *learner);

/* Removes what was learnt, by whichever process. 0 or a negative errno. */
int learn_forget(struct rtnl *rtnl, struct exit_change *change);

/* Counters of the guards' table. */
#define LEARN_HEARD  "discovery_heard"
#define LEARN_FORGED "discovery_forged"
/* The host's part of that table, in a chain "input" that is there (learn_guard.c). */
void learn_guard_put(struct nft_batch *batch, const struct conf *conf);

#define LEARN_GROUP 20000 /* of packets that the kernel logs to us */
#define LEARN_BYTES 128 /* of each: three headers, and room */
#define LEARN_MOST  100 /* of them a second */

#endif
