/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Routing by source address: what leaves this host or passes through it takes the
 * exit that owns its source. The state in the kernel is made from the [exit]
 * sections and follows them and the links; guards keep a foreign source off a
 * link whatever the routes say.
 */
#ifndef EXIT_EXIT_H
#define EXIT_EXIT_H

#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "conf/conf.h"
#include "loop/loop.h"

/* What of the kernel is ours, all of it documented in culvertd(8). */
#define EXIT_PROTOCOL 200u /* of rules and routes */
#define EXIT_LEARNT   201u /* of routes that a host has learnt */
#define EXIT_TABLE    20000u /* of IPv6; those by exits' names follow (order.h) */
#define EXIT_PRIORITY 20000u /* of the first rule */
#define EXIT_GROUP    20000u /* the interface group of links */
#define EXIT_NFTABLE  "culvert_guard"
#define EXIT_TUNNEL   "culvert_tunnel" /* the device of all tunnels */
#define EXIT_STEERS   "culvert_exits" /* the other one */
#define EXIT_LOCK     "exits" /* base/lock.h */

struct exit_helper;

/* Does it lead somewhere: by a link of ours, to another exit router, by a tunnel? */
bool exit_leads(const struct conf_exit *exit);
/* Does any? */
bool exit_wanted(const struct conf *conf);

/* Tunnels between exit routers, as the guards have counted them. */
struct exit_tunnels {
	uint64_t refused; /* from strangers, or for nobody; 0 without tunnels */
	uint64_t told; /* hosts, that another exit would be the right one */
	uint64_t heard, forged; /* by this host: taken for true, or not */
};

/* Packets of an exit by counters of nftables, each from when its table was made. */
struct exit_counts {
	uint64_t packets, rejects; /* by the guard */
	uint64_t dead; /* rejected since it died, by the other table */
};

/* What has become of an exit since a helper first had one of its name. */
struct exit_history {
	char name[CONF_NAME_MAX];
	uint32_t index; /* in the configuration */
	char state[14]; /* as in struct exit_row, but that routes are not looked at */
	char was[14]; /* before the last change; empty: there was none */
	uint64_t changed_ms; /* clock_ms() of that, or of the start */
	uint64_t changes;
	uint64_t packets, rejects; /* as in struct exit_row */
	struct exit_counts
		seen; /* that they are made from, when we looked last */
};

/*
 * What is lost although the kernel has it: known only to who has watched it for a while.
 */
struct exit_loss {
	char what[ADDR_STRLEN]; /* the link, or the anycast address */
	bool silent; /* who has it answers no probe; else it is held back (health.c) */
	uint64_t until_ms; /* clock_ms(): held back until then, if it stays */
};

struct exit_losses {
	struct exit_loss *all;
	size_t count;
};

/* What others may want to know of the exits. */
struct exit_notice {
	struct exit_losses losses;
	struct addr_span *dead; /* sources without a way out, in order */
	size_t dead_count;
	struct exit_history *exits; /* those that lead somewhere */
	size_t exit_count;
	struct exit_tunnels tunnels;
};

bool exit_notice_same(const struct exit_notice *a, const struct exit_notice *b);
/* A file with it, for another process to read; or a negative errno. */
int exit_notice_pack(const struct exit_notice *notice);
/* For exit_notice_clear. 0; -EBADMSG: that is no such file; or a negative errno. */
int exit_notice_unpack(int fd, struct exit_notice *out);
void exit_notice_clear(struct exit_notice *notice);

/* Is told at the start, and whenever it is another one; owns nothing of it. */
struct exit_listener {
	void (*tell)(void *arg, const struct exit_notice *notice);
	void *arg;
};

/*
 * Who may change what is ours in this network namespace: the descriptor of a lock,
 * for this process alone; -EBUSY: *holder has it, see base/lock.h; or another negative
 * errno.
 */
int exit_lock(pid_t *holder);

/*
 * What other exit routers are asked by (health = probe). Needs CAP_NET_RAW. -ENOENT:
 * none is; or another negative errno.
 */
int exit_probe_socket(const struct conf *conf);

/*
 * Brings the kernel into the state that the configuration wants and keeps it
 * there, on the loop. For who has the lock and CAP_NET_ADMIN. `before`: what the last
 * helper has told, which goes on; NULL: nothing. `probes`: from exit_probe_socket(),
 * taken over; < 0: none. 0 or a negative errno of the first failure, logged.
 */
int exit_new(struct loop *loop, struct conf *conf,
	     const struct exit_listener *listener,
	     const struct exit_notice *before, int probes,
	     struct exit_helper **out);
/* Leaves everything in the kernel. Accepts NULL. */
void exit_free(struct exit_helper *helper);

/*
 * Prints what exit_new would change now, a line each; *changes counts them.
 * Changes nothing. `losses`, here and below: what a helper that runs has told; NULL:
 * nothing. 0 or a negative errno: -EPERM without CAP_NET_ADMIN.
 */
int exit_plan(const struct conf *conf, const struct exit_losses *losses,
	      FILE *out, size_t *changes);

/*
 * Removes everything that is ours, printing a line each (out NULL: none). 0;
 * -EBUSY while *holder keeps it there; or another negative errno.
 */
int exit_remove(FILE *out, size_t *changes, pid_t *holder);

/* An exit as it is in the kernel. */
struct exit_row {
	const struct conf_exit *exit;
	/*
	 * "up"; "down", "missing": its link; "lost": the routes that should be, or
	 * the way to the other router; "dead": the host route to an anycast address;
	 * "held", "silent": as struct exit_loss has it
	 */
	const char *state;
	uint64_t held_ms; /* that it stays "held" at least; else 0 */
	/*
	 * How a packet's exit is found, IPv4's way and IPv6's: "rules" or "subtrees",
	 * which is what few prefixes have, or "map", of nftables
	 */
	const char *by;
	bool guarded; /* what has a link of ours */
	uint64_t packets; /* by the guard */
	uint64_t rejects; /* by it, and of prefixes of the exit while it was dead */
};

/*
 * Calls fn for each exit that leads somewhere. `told`: by a helper that runs, its losses
 * and what it has counted, with which the kernel's counters go on. 0; -EPERM without
 * CAP_NET_ADMIN; ...
 */
int exit_each(const struct conf *conf, const struct exit_notice *told,
	      void (*fn)(void *arg, const struct exit_row *row), void *arg);

/* Something on this host that keeps exits from working, or may. */
struct exit_finding {
	const char *name; /* a word, for programs */
	bool wrong; /* it does; else it may, and somebody should look */
	char where[96], what[160], hint[128];
};

/* Of the settings of the kernel alone. */
void exit_settings_check(const struct conf *conf,
			 void (*fn)(void *arg,
				    const struct exit_finding *finding),
			 void *arg);
/*
 * Of all that is known; needs CAP_SYS_ADMIN, for the kernel is tried in a network
 * namespace of its own. 0 or a negative errno: it was not looked at all of it.
 */
int exit_check(const struct conf *conf,
	       void (*fn)(void *arg, const struct exit_finding *finding),
	       void *arg);

/* What this host has learnt: packets from there to there are tunnelled. */
struct exit_learnt {
	union addr from, to, anycast;
	uint32_t expires_s;
};

/* Calls fn for each of them. 0 or a negative errno. */
int exit_learnt_each(void (*fn)(void *arg, const struct exit_learnt *learnt),
		     void *arg);

/* 0 or a negative errno: -EPERM without CAP_NET_ADMIN. */
int exit_tunnels(struct exit_tunnels *out);

/* The way of a packet from this host or through it. */
struct exit_trace {
	union addr from, to;
	const struct conf_exit *exit; /* whose source it is; NULL: nobody's */
	struct prefix prefix; /* by which it is */
	bool dead; /* that exit cannot be left by with this prefix now */
	const char *why; /* "held", "silent"; NULL: as the kernel has it */
	uint64_t held_ms; /* as in struct exit_row */
	bool no_way_back; /* to the source: by which link it comes is a guess */
	bool dropped; /* for that, by the kernel (rp_filter); then nothing below is set */
	bool unreachable; /* likewise */
	char device[IF_NAMESIZE];
	union addr gateway; /* AF_UNSPEC: none, the destination is on the link */
	union addr
		anycast; /* it is tunnelled to that address; AF_UNSPEC: it is not */
	uint32_t table; /* that has the route; RT_TABLE_MAIN: as without exits */
	const struct conf_exit *guard; /* of that device; NULL: none */
	bool rejected; /* by that guard */
};

/*
 * Asks the kernel. 0; -EAFNOSUPPORT: one is IPv4, the other IPv6; or another
 * negative errno.
 */
int exit_trace(const struct conf *conf, const struct exit_losses *losses,
	       const union addr *from, const union addr *to,
	       struct exit_trace *out);

#endif
