/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tunnels between the exit routers of a site (virtual DMZ, section 5.2.2).
 *
 * One device serves all of them, VXLAN-GPE over IPv6 or RFC 2473's packets in IPv6
 * ([exit] tunnel), and each route says where to: to
 * the anycast address that the exit router with the right link has for the prefix.
 * What cannot be reached there has no such route, and the unreachable one behind it
 * tells the host.
 */
#ifndef EXIT_TUNNEL_H
#define EXIT_TUNNEL_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#include "exit/internal.h"

#define TUNNEL_PORT    4790 /* of VXLAN-GPE, IANA */
#define TUNNEL_PLANNED INT_MAX /* index of a device that is not there yet */
#define TUNNEL_TEXT    200 /* bytes of an encapsulation in words, with NUL */

/* Is it another router's, to which packets are tunnelled? */
bool tunnel_leads(const struct conf_exit *exit);
/* Is there anybody to tunnel to, or from? */
bool tunnel_wanted(const struct conf *conf);
/* In what? */
enum conf_tunnel tunnel_kind(const struct conf *conf);
/*
 * The address of the routers that serve a prefix of an exit: of IPv6, for IPv4 that
 * of the first prefix of IPv6. False: there is none.
 */
bool tunnel_anycast(const struct conf_exit *exit, const struct prefix *prefix,
		    union addr *out);
/*
 * Makes host's ends of all anycast addresses that are tunnelled to, and by which link
 * main leads to each. 0 or -ENOMEM.
 */
int tunnel_ends(const struct conf *conf, struct exit_host *host);
/* The other end for a prefix; NULL: there is none that can be reached. */
const struct exit_end *tunnel_end(const struct exit_host *host,
				  const struct conf_exit *exit,
				  const struct prefix *prefix);
/* Has the route go there. */
void tunnel_encap(const struct exit_host *host, const struct conf_exit *exit,
		  const struct prefix *prefix, struct exit_route *route);
/* The device, if an end for a prefix of that family can be reached; else 0. */
int tunnel_link(const struct exit_host *host, const struct conf_exit *exit,
		sa_family_t family);

/* Who may tunnel to us, in order, for the caller to free. 0 or -ENOMEM. */
int tunnel_sources(const struct conf *conf, struct addr_range **out,
		   size_t *count);

/* A counter of the guards' table. */
#define TUNNEL_REFUSED "tunnel_refused"
/* The tunnels' part of that table (tunnel_guard.c). */
void tunnel_guard_put(struct nft_batch *batch, const struct conf *conf);

/* Encapsulation as a part of a route (tunnel_link.c). attr may be NULL. */
void tunnel_encap_take(const struct nlattr *attr, struct exit_route *route);
void tunnel_encap_put(struct nlmsghdr *request, const struct exit_route *route);
/* In the words of ip(8), a space before; "": there is none. */
const char *tunnel_encap_format(const struct exit_route *route,
				char out[TUNNEL_TEXT]);

/* Looks for the device and the other ends. 0 or a negative errno. */
int tunnel_look(struct rtnl *rtnl, const struct conf *conf,
		struct exit_host *host);
/* Makes the device if it is wanted; what fails is noted in change. */
int tunnel_make(struct rtnl *rtnl, const struct conf *conf,
		struct exit_host *host, struct exit_change *change);
/*
 * Has the device have the addresses without which it takes nothing, and no other of
 * ours (tunnel_addr.c). conf NULL: none. 0 or a negative errno; what fails is noted.
 */
int tunnel_addresses(struct rtnl *rtnl, const struct conf *conf,
		     const struct exit_host *host,
		     const struct exit_state *want, struct exit_change *change);
/* Removes it if not, when no route leads there any more. conf NULL: it is not. */
void tunnel_unmake(struct rtnl *rtnl, const struct conf *conf,
		   const struct exit_host *host, struct exit_change *change);

#endif
