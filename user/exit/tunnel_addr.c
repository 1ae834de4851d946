/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Addresses of the tunnels' device, by rtnetlink. ip6tnl takes out of a tunnel only
 * what is for an address of some device (ip6_tnl_rcv_ctl; Linux 6.18), a local route
 * is not enough: its device has all IPv6 addresses for which want.c has such routes.
 *
 * They bear EXIT_PROTOCOL, so that another's stay. They are deprecated, so that no
 * packet of this host has one as its source unasked, and make no route of main.
 * Whoever deletes one deletes the kernel's local route to it, of which we hear.
 */
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>

#include "exit/tunnel.h"

#define REQUEST_SIZE 512

struct addresses {
	union addr *all;
	size_t count;
};

static int address_keep(struct addresses *addresses, const uint8_t *bytes)
{
	union addr *kept = exit_array_add((void **)&addresses->all,
					  &addresses->count, sizeof(*kept));

	if (!kept)
		return -ENOMEM;
	addr_from_bytes(kept, AF_INET6, bytes, 0);
	return 0;
}

static int address_compare(const void *left, const void *right)
{
	return addr_compare_host(left, right);
}

static void addresses_sort(struct addresses *addresses)
{
	if (addresses->count)
		qsort(addresses->all, addresses->count,
		      sizeof(addresses->all[0]), address_compare);
}

/* Of sorted ones. */
static bool addresses_have(const struct addresses *addresses,
			   const union addr *addr)
{
	return addresses->count &&
	       bsearch(addr, addresses->all, addresses->count, sizeof(*addr),
		       address_compare);
}

static int wanted_find(const struct conf *conf, const struct exit_state *want,
		       struct addresses *out)
{
	int err = 0;

	if (!conf || !tunnel_wanted(conf) ||
	    tunnel_kind(conf) != CONF_TUNNEL_IP6)
		return 0;
	for (size_t i = 0; i < want->route_count && !err; i++) {
		const struct exit_route *route = &want->routes[i];

		if (route->local && route->to.family == AF_INET6)
			err = address_keep(out, route->to.bytes);
	}
	return err;
}

/* What is found, and where; libmnl's callbacks have one argument. */
struct finding {
	struct addresses *addresses;
	uint32_t device;
};

static int address_take(const struct nlmsghdr *msg, void *arg)
{
	const struct ifaddrmsg *head = mnl_nlmsg_get_payload(msg);
	const struct finding *finding = arg;
	const uint8_t *bytes = NULL;
	const struct nlattr *attr;
	uint8_t owner = 0;

	/* A kernel that does not filter sends all. */
	if (head->ifa_family != AF_INET6 || head->ifa_index != finding->device)
		return MNL_CB_OK;
	mnl_attr_for_each(attr, msg, sizeof(*head)) {
		uint16_t type = mnl_attr_get_type(attr);

		if (type == IFA_ADDRESS && mnl_attr_get_payload_len(attr) == 16)
			bytes = mnl_attr_get_payload(attr);
		if (type == IFA_PROTO && mnl_attr_get_payload_len(attr))
			owner = mnl_attr_get_u8(attr);
	}
	if (!bytes || owner != EXIT_PROTOCOL ||
	    !address_keep(finding->addresses, bytes))
		return MNL_CB_OK;
	errno = ENOMEM;
	return MNL_CB_ERROR;
}

static struct nlmsghdr *address_request(char *buf, uint16_t type, int device)
{
	struct nlmsghdr *request = mnl_nlmsg_put_header(buf);
	struct ifaddrmsg *head;

	request->nlmsg_type = type;
	head = mnl_nlmsg_put_extra_header(request, sizeof(*head));
	head->ifa_family = AF_INET6;
	head->ifa_index = (uint32_t)device;
	return request;
}

static int present_dump(struct rtnl *rtnl, int device, struct addresses *out)
{
	struct finding finding = { out, (uint32_t)device };
	char buf[REQUEST_SIZE] = "";
	struct nlmsghdr *request = address_request(buf, RTM_GETADDR, device);
	int err;

	request->nlmsg_flags = NLM_F_DUMP;
	err = rtnl_exchange(rtnl, request, address_take, &finding);
	/* It has just gone, or there is no IPv6. */
	return err == -ENODEV || err == -EOPNOTSUPP ? 0 : err;
}

static int present_find(struct rtnl *rtnl, int device, struct addresses *out)
{
	int tries = 0, err;

	do {
		out->count = 0;
		err = present_dump(rtnl, device, out);
	} while (exit_read_again(err, &tries));
	return err;
}

static int address_set(struct rtnl *rtnl, int device, const union addr *addr,
		       bool there)
{
	const struct ifa_cacheinfo life = { .ifa_prefered = 0,
					    .ifa_valid = UINT32_MAX };
	char buf[REQUEST_SIZE] = "";
	struct nlmsghdr *request =
		address_request(buf, there ? RTM_NEWADDR : RTM_DELADDR, device);
	struct ifaddrmsg *head = mnl_nlmsg_get_payload(request);
	size_t len;
	const uint8_t *bytes = addr_bytes(addr, &len);
	int err;

	request->nlmsg_flags = NLM_F_ACK;
	head->ifa_prefixlen = 128;
	mnl_attr_put(request, IFA_LOCAL, len, bytes);
	if (there) {
		request->nlmsg_flags |= NLM_F_CREATE | NLM_F_EXCL;
		mnl_attr_put(request, IFA_CACHEINFO, sizeof(life), &life);
		mnl_attr_put_u32(request, IFA_FLAGS,
				 IFA_F_NODAD | IFA_F_NOPREFIXROUTE);
		mnl_attr_put_u8(request, IFA_PROTO, EXIT_PROTOCOL);
	}
	err = rtnl_exchange(rtnl, request, NULL, NULL);
	return err == (there ? -EEXIST : -EADDRNOTAVAIL) ? 0 : err;
}

/* `all` but for those that are in `other`, too; both are sorted. */
static void differing_set(struct rtnl *rtnl, int device,
			  const struct addresses *all,
			  const struct addresses *other, bool there,
			  struct exit_change *change)
{
	for (size_t i = 0; i < all->count; i++) {
		char text[ADDR_STRLEN + 64], addr[ADDR_STRLEN];
		int err = 0;

		if ((i && addr_same_host(&all->all[i - 1], &all->all[i])) ||
		    addresses_have(other, &all->all[i]))
			continue;
		if (!change->dry)
			err = address_set(rtnl, device, &all->all[i], there);
		snprintf(text, sizeof(text), "ip -6 address %s/128 dev %s",
			 addr_format_host(&all->all[i], addr), EXIT_TUNNEL);
		exit_change_note(change, there, text, err);
	}
}

int tunnel_addresses(struct rtnl *rtnl, const struct conf *conf,
		     const struct exit_host *host,
		     const struct exit_state *want, struct exit_change *change)
{
	const struct exit_link *device = exit_link_named(host, EXIT_TUNNEL);
	struct addresses wanted = { 0 }, present = { 0 };
	int index = device ? device->index : host->tunnel;
	int err = index ? wanted_find(conf, want, &wanted) : 0;

	if (!err && device)
		err = present_find(rtnl, index, &present);
	if (!err) {
		addresses_sort(&wanted);
		addresses_sort(&present);
		differing_set(rtnl, index, &wanted, &present, true, change);
		differing_set(rtnl, index, &present, &wanted, false, change);
	}
	free(wanted.all);
	free(present.all);
	return err;
}
