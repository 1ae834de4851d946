/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of the exit room share. */
#ifndef EXIT_INTERNAL_H
#define EXIT_INTERNAL_H

#include <libmnl/libmnl.h>
#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/addr.h"
#include "conf/conf.h"
#include "exit/exit.h"
#include "exit/health.h"
#include "exit/nft.h"
#include "exit/order.h"

#define ROOM "exit"

#define EXIT_TEXT    400 /* bytes of a rule or route in words, with NUL */
#define NETLINK_ROOM 8192 /* bytes of messages read at a time */

/*
 * Of what is ours in marks of packets, one value each. Only those of look-ups and of
 * forwarded packets bear them, and only the bits of the mask are changed.
 */
#define EXIT_MARKS 0x7fff0000u
#define MARK_SHIFT 16 /* below: a table's number less EXIT_TABLE */
#define MARK_DEAD  0x7ffe0000u /* forwarded, and there is no way for it */
#define MARK_LOOK  0x7fff0000u /* of a look at main alone */

/* Behind EXIT_TABLE that nftables may choose from, some of them for several exits. */
#define TABLES_MOST 128

/* Order of rules, from EXIT_PRIORITY on. */
#define RULE_LOOK   EXIT_PRIORITY /* IPv6: MARK_LOOK */
#define RULE_BEYOND EXIT_PRIORITY /* IPv4: passes over the next one */
#define RULE_SITE   (EXIT_PRIORITY + 1) /* what the site reaches otherwise */
#define RULE_DEAD   (EXIT_PRIORITY + 2) /* MARK_DEAD: nothing behind is tried */
#define RULE_SOURCE (EXIT_PRIORITY + 3) /* + width - bits, longest first */
#define RULE_MARK   (EXIT_PRIORITY + 140) /* of forwarded packets */
#define RULE_LOST   (EXIT_PRIORITY + 150) /* nothing behind is tried */

/*
 * Prefixes of a family up to which a packet is compared with each (IPv4: a rule) or
 * has its own routes (IPv6). Above, nftables finds the exit (steer.c).
 *
 * Nanoseconds that a router takes for a packet, Linux 6.18, and without exits 550
 * (IPv4) and 640; of a map with a hash (sets.h) from 64 on. Guards have become cheaper
 * since, and make bench-exits has its hosts reached: now 570 (IPv4) and 160 less.
 *
 *   prefixes      4     10    100    300   1000  10000
 *   IPv4, rules   2124  2470  6856  16346  50672     -
 *   IPv4, map     2082  2114  1943   1937   1940  1927
 *   IPv6, routes  1501  1601  1648   1675   1639     -
 *   IPv6, map        -  1776  1611   1591   1625  1620
 *
 * Routes hold for look-ups without a packet, too, but each is a request: 3000 prefixes
 * take 140 ms to be there, 10,000 in a map 41 to 93.
 */
#define FEW_V4 4
#define FEW_V6 1000

#define LOOPBACK 1 /* index of lo in every network namespace */

#define METRIC_LINK    256 /* of the link's own subnets */
#define METRIC_DEFAULT 1024
#define METRIC_MEANWHILE \
	(UINT32_MAX - 1) /* while another is changed (apply.c) */
#define METRIC_LOST UINT32_MAX /* of what is there when all else is not */

/*
 * Metrics of a route (MTU, ...) as the kernel has told of them, to be told back to it.
 * Each once, in a list of whoever has the routes.
 */
struct exit_metrics {
	struct exit_metrics *next;
	size_t len;
	uint8_t bytes[];
};

/* Rules and routes as they are wanted or found, without what the kernel chooses. */
struct exit_rule {
	struct prefix from, to; /* bits 0: anywhere */
	uint32_t priority;
	uint32_t skip_to; /* the priority of the rule that is next; 0: as they stand */
	uint32_t mark; /* of EXIT_MARKS; 0: any */
	uint32_t table; /* 0: nothing is tried any more (unreachable) */
	bool site; /* main, but for default routes and links of EXIT_GROUP */
};

struct exit_route {
	struct prefix to, from; /* from: of IPv6 */
	union addr gateway; /* AF_UNSPEC: on the link */
	union addr
		remote; /* IPv6: the tunnel's other end; AF_UNSPEC: no tunnel */
	union addr
		source; /* of what is tunnelled; AF_UNSPEC: the kernel's choice */
	const struct exit_metrics *metrics; /* NULL: none */
	uint32_t table, metric;
	uint32_t expires_s; /* > 0: learnt, not of the configuration */
	int link; /* index; 0: unreachable */
	uint8_t preference; /* of IPv6 (RFC 4191), among those of one metric */
	bool local; /* it ends here */
};

/* One that is wanted has metrics of the host, which it must not outlive. */
struct exit_state {
	struct exit_rule *rules;
	struct exit_route *routes;
	struct exit_metrics *metrics; /* of routes that were found */
	size_t rule_count, route_count;
};

/* A network device as far as it matters here. */
struct exit_link {
	char name[IFNAMSIZ];
	int index;
	uint32_t group;
	bool up; /* administratively, and there is a carrier */
	bool ip6tnl; /* RFC 2473's kind of device */
	uint32_t mtu;
};

/* A route of the main table, but for default routes. IPv4: no routing protocol's. */
struct exit_way {
	struct prefix to;
	union addr gateway; /* AF_UNSPEC: on the link */
	const struct exit_metrics *metrics; /* NULL: none */
	uint32_t metric;
	int link; /* index; 0: unreachable */
	uint8_t preference; /* as in struct exit_route */
	bool kernel; /* made by the kernel, for an address */
};

/* The anycast address of another exit router, to which packets are tunnelled. */
struct exit_end {
	union addr addr;
	int link; /* by which it is reached; 0: it is not */
};

/* What of the host the wanted state is made from. */
struct exit_host {
	struct exit_link *links;
	struct exit_way *ways;
	struct exit_metrics *metrics; /* of ways */
	struct exit_end *ends; /* by address */
	struct prefix *locals; /* this host's addresses, and networks like them */
	size_t link_count, way_count, end_count, local_count;
	union addr tunnel_source; /* AF_UNSPEC: the kernel's choice */
	int tunnel; /* index of the tunnels' device; 0: there is none */
	const struct health *health; /* of exits of other routers; NULL: well */
};

/* One more zeroed element, or NULL: as conf's arrays grow (state.c). */
void *exit_array_add(void **array, size_t *count, size_t size);

/*
 * Is what was read to be read once more, for somebody has changed it meanwhile (-EINTR)?
 * Not for ever; *tries begins at 0.
 */
bool exit_read_again(int err, int *tries);
/*
 * Reads a dump that broke off (routes changed meanwhile, no memory) to its end: the
 * kernel begins no other before that, and its rest would be taken for the answer to
 * the next request.
 */
void exit_rest_drop(struct mnl_socket *socket, char *answer, size_t room,
		    ssize_t len);

/* One of the list with these bytes, maybe a new one. NULL: no memory. */
const struct exit_metrics *exit_metrics_keep(struct exit_metrics **list,
					     const void *bytes, size_t len);
void exit_state_clear(struct exit_state *state);
void exit_host_clear(struct exit_host *host);
/* Sorts, so that states can be compared; what is there twice is there once then. */
void exit_state_sort(struct exit_state *state);
/* Of a sorted one. */
bool exit_route_there(const struct exit_state *state,
		      const struct exit_route *route);
/* Of a sorted one: that to and from there, by the same way, with any metrics; or NULL. */
const struct exit_route *exit_route_like(const struct exit_state *state,
					 const struct exit_route *route);
/* Called for what is missing, or too much; both states are sorted. */
struct exit_differ {
	void (*rule)(void *arg, const struct exit_rule *rule);
	void (*route)(void *arg, const struct exit_route *route);
	void *arg;
};
void exit_state_missing(const struct exit_state *want,
			const struct exit_state *have,
			const struct exit_differ *differ);
/* Backwards: "unreachable" stands behind what it is for, and is to go before it. */
void exit_state_surplus(const struct exit_state *want,
			const struct exit_state *have,
			const struct exit_differ *differ);
/*
 * FNV-1a, which begins with EXIT_DIGEST: to tell one thing from another, against no
 * adversary.
 */
#define EXIT_DIGEST UINT64_C(0xcbf29ce484222325)
uint64_t exit_digest(uint64_t digest, const void *data, size_t len);
/* Of what they mean: what lies between their members is anything. */
uint64_t exit_digest_prefixes(uint64_t digest, const struct prefix *prefixes,
			      size_t count);
uint64_t exit_digest_addrs(uint64_t digest, const union addr *addrs,
			   size_t count);

/* Of libmnl: the socket's queue, or the buffer for one message, was too small. */
bool exit_news_lost(int err);
/* In the words of ip(8). */
void exit_rule_format(const struct exit_rule *rule, char out[EXIT_TEXT]);
void exit_route_format(const struct exit_route *route, char out[EXIT_TEXT]);

/* By which looks for host routes of IPv6 are at main alone; wanted with them. */
extern const struct exit_rule exit_rule_look;

/* Is it another router's, to which packets are handed? (want.c) */
bool exit_hands(const struct conf_exit *exit);
/* Is it the link of an exit? */
bool exit_link_is(const struct conf *conf, const char *name);
/* Of a device: is it up, and has it a carrier? Pure. */
bool exit_flags_up(unsigned int flags);
/* Of that name; NULL: there is none. */
const struct exit_link *exit_link_named(const struct exit_host *host,
					const char *name);
/* The link of an exit; NULL: it has none, or that is not there. */
const struct exit_link *exit_link_find(const struct exit_host *host,
				       const struct conf_exit *exit);
/* The link by which an exit is left, 0 while there is none; pure. */
int exit_link_index(const struct exit_host *host, const struct conf_exit *exit,
		    sa_family_t family);
/*
 * As struct exit_row has it, *held_ms only of "held". want, have NULL: routes are taken
 * for there.
 */
const char *exit_state_name(const struct conf_exit *exit,
			    const struct exit_host *host,
			    const struct exit_state *want,
			    const struct exit_state *have, uint64_t *held_ms);
/* Does nftables find the exits of a family's forwarded packets? Pure. */
bool exit_mapped(const struct exit_order *order, sa_family_t family);
/* The table that a source takes then; 0: there is no way for it. Pure. */
uint32_t exit_source_table(const struct conf *conf,
			   const struct exit_host *host,
			   const struct exit_order *order,
			   const struct exit_source *source);
/* Can a prefix of it leave there? Pure. */
bool exit_dead(const struct exit_host *host, const struct conf_exit *exit,
	       const struct prefix *prefix);
/* What the configuration wants on this host; pure. 0 or -ENOMEM. */
int exit_want(const struct conf *conf, const struct exit_host *host,
	      struct exit_state *out);

/* Requests by rtnetlink, one after the other (rtnl.c). */
struct rtnl;

int rtnl_open(struct rtnl **out);
void rtnl_close(struct rtnl *rtnl); /* accepts NULL */
uint32_t rtnl_port(const struct rtnl *rtnl); /* notes of ours bear it */
/* What of the kernel is ours, sorted. */
int rtnl_state(struct rtnl *rtnl, struct exit_state *out);
/* Everybody's rules of a family, as the kernel tells of them. */
int rtnl_rules(struct rtnl *rtnl, sa_family_t family, mnl_cb_t each, void *arg);
/* What was learnt (learn.h), likewise. */
int rtnl_learnt(struct rtnl *rtnl, struct exit_state *out);
/* Links, and what of the main table the configuration has to do with. */
int rtnl_host(struct rtnl *rtnl, const struct conf *conf,
	      struct exit_host *out);
/* Of IPv4: the kernel's own routes, and those made by hand. */
bool exit_way_concerns(uint8_t protocol);
/* A route that the kernel would take now. */
struct rtnl_way {
	int link;
	uint32_t table;
	union addr gateway; /* AF_UNSPEC: none */
	bool local; /* it ends here */
};
/*
 * from NULL: none; link 0: of a packet of this host, else of one that arrives there;
 * mark: what nftables has put on it.
 * 0; -EHOSTUNREACH, -ENETUNREACH, ...: there is none.
 */
int rtnl_find(struct rtnl *rtnl, const union addr *from, const union addr *to,
	      int link, uint32_t mark, struct rtnl_way *out);
/* Is there a way for packets to this very address, and to no other? */
int rtnl_host_route(struct rtnl *rtnl, const union addr *to, bool *there);
/* Is a link up? One that is not there is not. */
int rtnl_link_up(struct rtnl *rtnl, const char *name, bool *up);
/* `there` is what it shall be. What is so already is no failure. */
int rtnl_rule(struct rtnl *rtnl, const struct exit_rule *rule, bool there);
int rtnl_route(struct rtnl *rtnl, const struct exit_route *route, bool there);
int rtnl_group(struct rtnl *rtnl, const struct exit_link *link, uint32_t group);
/* Sends any request and takes the whole answer. 0, or what the kernel says. */
int rtnl_exchange(struct rtnl *rtnl, struct nlmsghdr *request, mnl_cb_t each,
		  void *arg);

/* The difference between kernel and configuration, told or undone (apply.c). */
struct exit_change {
	FILE *out; /* a line each; NULL: none */
	bool dry; /* tells, changes nothing */
	char *failed; /* EXIT_TEXT bytes for the first that failed; NULL: logged */
	size_t count;
	int error; /* the first */
};

/* As it is now, but for what others remember (health.c). 0 or a negative errno. */
int exit_health(const struct conf *conf, struct rtnl *rtnl,
		const struct exit_losses *losses, struct health **out);

/* One is done, or told of in a plan; err: it has failed, which is logged. */
void exit_change_note(struct exit_change *change, bool there, const char *what,
		      int err);
/* All of it at once (helper.c). conf NULL: everything goes. */
int exit_once(const struct conf *conf, const struct exit_losses *losses,
	      struct rtnl *rtnl, struct nft *nft, struct exit_change *change);

/* Rules and routes as they shall be and as they were found. */
struct exit_difference {
	struct exit_state want, have;
};

/*
 * What is missing, and, with the difference that came of that, what is too much
 * (apply.c). conf NULL: nothing is wanted. The host's tunnel device is made, if need be.
 * `told`: nftables leads packets as it shall; else what they may need yet stays.
 * 0 or a negative errno, the second one's of the first change that failed.
 */
int exit_apply_new(struct rtnl *rtnl, const struct conf *conf,
		   struct exit_host *host, struct exit_difference *out,
		   struct exit_change *change);
int exit_apply_old(struct rtnl *rtnl, const struct conf *conf,
		   struct exit_host *host, struct exit_difference *difference,
		   bool told, struct exit_change *change);

/* The sets of a table of nftables, as far as we know them (sets.h). */
struct range_sets {
	struct range_set *all;
	size_t count;
	enum sets_state {
		SETS_UNKNOWN,
		SETS_NONE, /* there is no such table */
		SETS_NOBODYS, /* it is there, but not ours */
		SETS_KNOWN,
	} state;
	bool exact; /* known, and as the configuration has it */
};

void sets_clear(struct range_sets *sets);

/*
 * The guards (guard.c). `again`: what we know may be wrong. Opened, they let out what
 * they did and what the configuration allows: for as long as routes change.
 */
int guard_open(struct nft *nft, struct range_sets *guard,
	       const struct conf *conf, bool again, struct exit_change *change);
/* Exactly what the configuration allows. conf NULL: no table is wanted. */
int guard_apply(struct nft *nft, struct range_sets *guard,
		const struct conf *conf, bool again,
		struct exit_change *change);
/* Packets let out and rejected by the exit with this index in the configuration. */
int guard_counters(struct nft *nft, size_t exit, uint64_t *packets,
		   uint64_t *rejects);

/*
 * Which chain forwarded packets go to by their source (steer.c). conf NULL: no table is
 * wanted. `again`: what we know may be wrong.
 */
int steer_apply(struct nft *nft, struct range_sets *steer,
		const struct conf *conf, const struct exit_host *host,
		bool again, struct exit_change *change);
/* What the maps should be; for sets_clear, also after a failure. Pure. 0 or -ENOMEM. */
int steer_maps(const struct conf *conf, const struct exit_host *host,
	       struct range_sets *out);
/* What it refuses, for the caller to free, in order; pure. 0 or -ENOMEM. */
int steer_dead(const struct range_sets *steer, struct addr_span **out,
	       size_t *count);
/* Packets refused since their exit died, by its index. */
int steer_counter(struct nft *nft, size_t exit, uint64_t *rejects);
/* What the map should be, for the caller to free; pure. 0 or -ENOMEM. */
int steer_want(const struct conf *conf, const struct exit_host *host,
	       sa_family_t family, struct addr_range **out, size_t *count);
/* The mark that it puts on what comes from there, 0: none; pure. 0 or -ENOMEM. */
int steer_mark(const struct conf *conf, const struct exit_host *host,
	       const union addr *from, uint32_t *mark);

/* Is it one of our tables of nftables? */
bool exit_nftable_is(const char *name);

/*
 * What nftables have counted of the exit with this index; `guarded`, NULL or: it has a
 * guard's counters. 0 or a negative errno (show.c).
 */
int exit_counts_read(struct nft *nft, size_t exit, struct exit_counts *out,
		     bool *guarded);
int exit_tunnels_read(struct nft *nft, struct exit_tunnels *out);

/*
 * What has become of the exits (history.c); before: of those of the same names. 0 or
 * -ENOMEM.
 */
int history_new(const struct conf *conf, const struct exit_notice *before,
		uint64_t now_ms, struct exit_history **out, size_t *count);
/* Logs those that are in another state than before. */
void history_look(struct exit_history *all, size_t count,
		  const struct conf *conf, const struct exit_host *host,
		  uint64_t now_ms);
void history_count(struct exit_history *all, size_t count, struct nft *nft);
/*
 * Before anything of another configuration is in the kernel: what is counted there is of
 * exits as they stood before.
 */
void history_begin(struct exit_history *all, size_t count,
		   const struct exit_notice *before, struct nft *nft);
/* Adds what has come since it was seen last; pure. */
void history_add(struct exit_history *one, const struct exit_counts *now);
/* Of that name; NULL: there is none, or no notice. Pure. */
const struct exit_history *history_find(const struct exit_notice *notice,
					const char *name);

#endif
