/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Links, rules and routes by rtnetlink: one request after the other, on a socket of
 * its own, so that what we change ourselves is known by its port.
 *
 * Dumps are filtered by the kernel (NETLINK_GET_STRICT_CHK): a router with the
 * routes of the whole Internet would take a second for all of them.
 */
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "base/syscalls.h"
#include "exit/internal.h"
#include "exit/tunnel.h"

SYSCALLS_SOCKET(SYSCALLS_EXIT, AF_NETLINK, NETLINK_ROUTE);
SYSCALLS(SYSCALLS_EXIT, "bind getsockname sendto recvmsg setsockopt close");

#define REQUEST_SIZE 512
#define TICKS        100 /* of the kernel's times, in a second: USER_HZ */
#define ANSWER_SIZE  32768

struct rtnl {
	struct mnl_socket *socket;
	uint32_t port, sequence;
	char answer[ANSWER_SIZE];
};

int rtnl_open(struct rtnl **out)
{
	struct rtnl *rtnl = calloc(1, sizeof(*rtnl));
	int on = 1, err;

	if (!rtnl)
		return -ENOMEM;
	rtnl->sequence = (uint32_t)time(NULL);
	rtnl->socket = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	if (!rtnl->socket ||
	    mnl_socket_bind(rtnl->socket, 0, MNL_SOCKET_AUTOPID) < 0 ||
	    mnl_socket_setsockopt(rtnl->socket, NETLINK_GET_STRICT_CHK, &on,
				  sizeof(on)) < 0) {
		err = -errno;
		rtnl_close(rtnl);
		return err;
	}
	rtnl->port = mnl_socket_get_portid(rtnl->socket);
	*out = rtnl;
	return 0;
}

void rtnl_close(struct rtnl *rtnl)
{
	if (rtnl && rtnl->socket)
		mnl_socket_close(rtnl->socket);
	free(rtnl);
}

uint32_t rtnl_port(const struct rtnl *rtnl)
{
	return rtnl->port;
}

int rtnl_exchange(struct rtnl *rtnl, struct nlmsghdr *request, mnl_cb_t each,
		  void *arg)
{
	int more = MNL_CB_OK;

	request->nlmsg_seq = ++rtnl->sequence;
	request->nlmsg_flags |= NLM_F_REQUEST;
	if (mnl_socket_sendto(rtnl->socket, request, request->nlmsg_len) < 0)
		return -errno;
	while (more > MNL_CB_STOP) {
		ssize_t len = mnl_socket_recvfrom(rtnl->socket, rtnl->answer,
						  sizeof(rtnl->answer));

		if (len < 0)
			return -errno;
		more = mnl_cb_run(rtnl->answer, (size_t)len, rtnl->sequence,
				  rtnl->port, each, arg);
		if (more < 0) {
			int err = -errno;

			exit_rest_drop(rtnl->socket, rtnl->answer,
				       sizeof(rtnl->answer), len);
			return err;
		}
	}
	return 0;
}

/* libmnl's way to tell of a lack of memory from within a dump. */
static int out_of_memory(void)
{
	errno = ENOMEM;
	return MNL_CB_ERROR;
}

/* Attributes by their number; what is longer than known is passed over. */
struct attributes {
	const struct nlattr *at[FRA_MAX + RTA_MAX + IFLA_MAX];
	uint16_t max;
};

static int attribute_take(const struct nlattr *attr, void *arg)
{
	struct attributes *attributes = arg;
	uint16_t type = mnl_attr_get_type(attr);

	if (type <= attributes->max)
		attributes->at[type] = attr;
	return MNL_CB_OK;
}

static uint32_t number(const struct attributes *attributes, uint16_t type,
		       uint32_t other)
{
	const struct nlattr *attr = attributes->at[type];

	if (!attr || mnl_attr_get_payload_len(attr) < sizeof(uint32_t))
		return other;
	return mnl_attr_get_u32(attr);
}

static size_t width(sa_family_t family)
{
	return family == AF_INET6 ? 16 : 4;
}

/* The prefix of that many bits; without the attribute it is all addresses. */
static void prefix_take(const struct attributes *attributes, uint16_t type,
			uint8_t family, uint8_t bits, struct prefix *out)
{
	const struct nlattr *attr = attributes->at[type];

	*out = (struct prefix){ .family = family };
	if (!attr || mnl_attr_get_payload_len(attr) != width(family) ||
	    bits > width(family) * 8)
		return;
	out->bits = bits;
	memcpy(out->bytes, mnl_attr_get_payload(attr), width(family));
}

static bool ip_family(uint8_t family)
{
	return family == AF_INET || family == AF_INET6;
}

static int rule_take(const struct nlmsghdr *msg, void *arg)
{
	const struct fib_rule_hdr *head = mnl_nlmsg_get_payload(msg);
	struct attributes attributes = { .max = FRA_MAX };
	struct exit_state *state = arg;
	const struct nlattr *owner;
	struct exit_rule *rule;

	mnl_attr_parse(msg, sizeof(*head), attribute_take, &attributes);
	owner = attributes.at[FRA_PROTOCOL];
	if (!ip_family(head->family) || !owner ||
	    !mnl_attr_get_payload_len(owner) ||
	    mnl_attr_get_u8(owner) != EXIT_PROTOCOL)
		return MNL_CB_OK;
	rule = exit_array_add((void **)&state->rules, &state->rule_count,
			      sizeof(*rule));
	if (!rule)
		return out_of_memory();
	prefix_take(&attributes, FRA_SRC, head->family, head->src_len,
		    &rule->from);
	prefix_take(&attributes, FRA_DST, head->family, head->dst_len,
		    &rule->to);
	rule->skip_to = number(&attributes, FRA_GOTO, 0);
	rule->priority = number(&attributes, FRA_PRIORITY, 0);
	rule->mark = number(&attributes, FRA_FWMARK, 0);
	rule->site = number(&attributes, FRA_SUPPRESS_IFGROUP, UINT32_MAX) !=
		     UINT32_MAX;
	if (head->action == FR_ACT_TO_TBL && !rule->site)
		rule->table = number(&attributes, FRA_TABLE, head->table);
	return MNL_CB_OK;
}

/* False: no memory. */
/* As the kernel's are to be put into a request again: more than it has. */
#define METRICS_MOST 256

static bool metrics_take(const struct attributes *attributes,
			 struct exit_metrics **list,
			 const struct exit_metrics **out)
{
	const struct nlattr *attr = attributes->at[RTA_METRICS];

	if (!attr || !mnl_attr_get_payload_len(attr) ||
	    mnl_attr_get_payload_len(attr) > METRICS_MOST)
		return true;
	*out = exit_metrics_keep(list, mnl_attr_get_payload(attr),
				 mnl_attr_get_payload_len(attr));
	return *out != NULL;
}

static uint8_t preference(const struct attributes *attributes)
{
	const struct nlattr *attr = attributes->at[RTA_PREF];

	return attr && mnl_attr_get_payload_len(attr) ? mnl_attr_get_u8(attr) :
							0;
}

static int route_parse(const struct nlmsghdr *msg, struct exit_state *state,
		       uint8_t protocol)
{
	const struct rtmsg *head = mnl_nlmsg_get_payload(msg);
	struct attributes attributes = { .max = RTA_MAX };
	const struct nlattr *gateway;
	struct exit_route *route;

	/* A kernel that does not filter sends all. */
	if (!ip_family(head->rtm_family) || head->rtm_flags & RTM_F_CLONED ||
	    head->rtm_protocol != protocol)
		return MNL_CB_OK;
	mnl_attr_parse(msg, sizeof(*head), attribute_take, &attributes);
	route = exit_array_add((void **)&state->routes, &state->route_count,
			       sizeof(*route));
	if (!route)
		return out_of_memory();
	prefix_take(&attributes, RTA_DST, head->rtm_family, head->rtm_dst_len,
		    &route->to);
	prefix_take(&attributes, RTA_SRC, head->rtm_family, head->rtm_src_len,
		    &route->from);
	route->table = number(&attributes, RTA_TABLE, head->rtm_table);
	route->metric = number(&attributes, RTA_PRIORITY, 0);
	route->preference = preference(&attributes);
	if (!metrics_take(&attributes, &state->metrics, &route->metrics))
		return out_of_memory();
	gateway = attributes.at[RTA_GATEWAY];
	route->local = head->rtm_type == RTN_LOCAL;
	if (head->rtm_type != RTN_UNICAST && !route->local)
		return MNL_CB_OK;
	route->link = (int)number(&attributes, RTA_OIF, 0);
	tunnel_encap_take(attributes.at[RTA_ENCAP], route);
	if (gateway &&
	    mnl_attr_get_payload_len(gateway) == width(head->rtm_family))
		addr_from_bytes(&route->gateway, head->rtm_family,
				mnl_attr_get_payload(gateway), 0);
	return MNL_CB_OK;
}

static int route_take(const struct nlmsghdr *msg, void *arg)
{
	return route_parse(msg, arg, EXIT_PROTOCOL);
}

static int expires_take(const struct nlattr *attr, void *arg)
{
	const struct rta_cacheinfo *info = mnl_attr_get_payload(attr);

	if (mnl_attr_get_type(attr) == RTA_CACHEINFO &&
	    mnl_attr_get_payload_len(attr) >= sizeof(*info) &&
	    info->rta_expires > 0)
		*(uint32_t *)arg = (uint32_t)info->rta_expires;
	return MNL_CB_OK;
}

static int learnt_take(const struct nlmsghdr *msg, void *arg)
{
	struct exit_state *state = arg;
	size_t before = state->route_count;
	uint32_t ticks = 0;
	int taken = route_parse(msg, state, EXIT_LEARNT);

	mnl_attr_parse(msg, sizeof(struct rtmsg), expires_take, &ticks);
	/* One that has just expired is learnt all the same. */
	if (state->route_count > before)
		state->routes[before].expires_s = ticks < TICKS ? 1 :
								  ticks / TICKS;
	return taken;
}

int rtnl_rules(struct rtnl *rtnl, sa_family_t family, mnl_cb_t each, void *arg)
{
	char buf[REQUEST_SIZE] = "";
	struct nlmsghdr *request = mnl_nlmsg_put_header(buf);
	struct fib_rule_hdr *head;

	request->nlmsg_type = RTM_GETRULE;
	request->nlmsg_flags = NLM_F_DUMP;
	head = mnl_nlmsg_put_extra_header(request, sizeof(*head));
	head->family = (uint8_t)family;
	return rtnl_exchange(rtnl, request, each, arg);
}

/* table 0: of all tables. */
static int routes_dump(struct rtnl *rtnl, uint8_t family, uint8_t protocol,
		       uint32_t table, mnl_cb_t each, void *arg)
{
	char buf[REQUEST_SIZE] = "";
	struct nlmsghdr *request = mnl_nlmsg_put_header(buf);
	struct rtmsg *head;

	request->nlmsg_type = RTM_GETROUTE;
	request->nlmsg_flags = NLM_F_DUMP;
	head = mnl_nlmsg_put_extra_header(request, sizeof(*head));
	head->rtm_family = family;
	head->rtm_protocol = protocol;
	if (table)
		mnl_attr_put_u32(request, RTA_TABLE, table);
	return rtnl_exchange(rtnl, request, each, arg);
}

static int state_dump(struct rtnl *rtnl, struct exit_state *out)
{
	static const uint8_t families[] = { AF_INET, AF_INET6 };
	struct exit_state state = { 0 };
	int err = 0;

	for (size_t i = 0; i < 2 && !err; i++) {
		err = rtnl_rules(rtnl, families[i], rule_take, &state);
		if (!err)
			err = routes_dump(rtnl, families[i], EXIT_PROTOCOL, 0,
					  route_take, &state);
		/* A kernel without IPv6 has nothing there. */
		if (err == -EOPNOTSUPP || err == -EAFNOSUPPORT)
			err = 0;
	}
	if (err) {
		exit_state_clear(&state);
		return err;
	}
	exit_state_sort(&state);
	*out = state;
	return 0;
}

int rtnl_state(struct rtnl *rtnl, struct exit_state *out)
{
	int tries = 0, err;

	do
		err = state_dump(rtnl, out);
	while (exit_read_again(err, &tries));
	return err;
}

static int learnt_dump(struct rtnl *rtnl, struct exit_state *out)
{
	struct exit_state state = { 0 };
	int err = routes_dump(rtnl, AF_INET6, EXIT_LEARNT, 0, learnt_take,
			      &state);

	if (err && err != -EOPNOTSUPP && err != -EAFNOSUPPORT) {
		exit_state_clear(&state);
		return err;
	}
	*out = state;
	return 0;
}

int rtnl_learnt(struct rtnl *rtnl, struct exit_state *out)
{
	int tries = 0, err;

	do
		err = learnt_dump(rtnl, out);
	while (exit_read_again(err, &tries));
	return err;
}

bool exit_flags_up(unsigned int flags)
{
	return (flags & (IFF_UP | IFF_RUNNING)) == (IFF_UP | IFF_RUNNING);
}

/* Is a device of this kind? */
static bool kind_is(const struct nlattr *info, const char *kind)
{
	const struct nlattr *attr;

	if (info)
		mnl_attr_for_each_nested(
			attr,
			info) if (mnl_attr_get_type(attr) == IFLA_INFO_KIND &&
				  mnl_attr_validate(attr,
						    MNL_TYPE_NUL_STRING) >=
					  0) return !strcmp(mnl_attr_get_str(attr),
							    kind);
	return false;
}

static int link_take(const struct nlmsghdr *msg, void *arg)
{
	const struct ifinfomsg *head = mnl_nlmsg_get_payload(msg);
	struct attributes attributes = { .max = IFLA_GROUP };
	struct exit_host *host = arg;
	const struct nlattr *name;
	struct exit_link *link;

	mnl_attr_parse(msg, sizeof(*head), attribute_take, &attributes);
	name = attributes.at[IFLA_IFNAME];
	if (!name || mnl_attr_validate(name, MNL_TYPE_NUL_STRING) < 0)
		return MNL_CB_OK;
	link = exit_array_add((void **)&host->links, &host->link_count,
			      sizeof(*link));
	if (!link)
		return out_of_memory();
	snprintf(link->name, sizeof(link->name), "%s", mnl_attr_get_str(name));
	link->index = head->ifi_index;
	link->group = number(&attributes, IFLA_GROUP, 0);
	link->mtu = number(&attributes, IFLA_MTU, 0);
	link->up = exit_flags_up(head->ifi_flags);
	link->ip6tnl = kind_is(attributes.at[IFLA_LINKINFO], "ip6tnl");
	return MNL_CB_OK;
}

/* Of several next hops the first: they lead to the same place. */
static void hops_take(const struct nlattr *hops, uint8_t family,
		      struct exit_way *way)
{
	const struct rtnexthop *hop = mnl_attr_get_payload(hops);
	const struct nlattr *attr;
	size_t len = mnl_attr_get_payload_len(hops);

	if (len < sizeof(*hop) || hop->rtnh_len < sizeof(*hop) ||
	    hop->rtnh_len > len)
		return;
	way->link = hop->rtnh_ifindex;
	mnl_attr_for_each_payload((const void *)RTNH_DATA(hop),
				  hop->rtnh_len - sizeof(*hop))
		if (mnl_attr_get_type(attr) == RTA_GATEWAY &&
		    mnl_attr_get_payload_len(attr) == width(family))
			addr_from_bytes(&way->gateway, family,
					mnl_attr_get_payload(attr), 0);
}

bool exit_way_concerns(uint8_t protocol)
{
	return protocol == RTPROT_KERNEL || protocol == RTPROT_BOOT ||
	       protocol == RTPROT_STATIC;
}

static int way_take(const struct nlmsghdr *msg, void *arg)
{
	const struct rtmsg *head = mnl_nlmsg_get_payload(msg);
	struct attributes attributes = { .max = RTA_MAX };
	struct exit_host *host = arg;
	const struct nlattr *gateway;
	struct exit_way *way;

	if (!ip_family(head->rtm_family) || head->rtm_flags & RTM_F_CLONED ||
	    !head->rtm_dst_len || head->rtm_src_len)
		return MNL_CB_OK;
	mnl_attr_parse(msg, sizeof(*head), attribute_take, &attributes);
	/* A kernel that does not filter sends all. */
	if (number(&attributes, RTA_TABLE, head->rtm_table) != RT_TABLE_MAIN ||
	    (head->rtm_family == AF_INET &&
	     !exit_way_concerns(head->rtm_protocol)))
		return MNL_CB_OK;
	way = exit_array_add((void **)&host->ways, &host->way_count,
			     sizeof(*way));
	if (!way)
		return out_of_memory();
	prefix_take(&attributes, RTA_DST, head->rtm_family, head->rtm_dst_len,
		    &way->to);
	way->metric = number(&attributes, RTA_PRIORITY, 0);
	way->kernel = head->rtm_protocol == RTPROT_KERNEL;
	way->preference = preference(&attributes);
	if (!metrics_take(&attributes, &host->metrics, &way->metrics))
		return out_of_memory();
	if (head->rtm_type != RTN_UNICAST)
		return MNL_CB_OK;
	gateway = attributes.at[RTA_GATEWAY];
	way->link = (int)number(&attributes, RTA_OIF, 0);
	if (gateway &&
	    mnl_attr_get_payload_len(gateway) == width(head->rtm_family))
		addr_from_bytes(&way->gateway, head->rtm_family,
				mnl_attr_get_payload(gateway), 0);
	if (attributes.at[RTA_MULTIPATH])
		hops_take(attributes.at[RTA_MULTIPATH], head->rtm_family, way);
	return MNL_CB_OK;
}

static int local_take(const struct nlmsghdr *msg, void *arg)
{
	const struct rtmsg *head = mnl_nlmsg_get_payload(msg);
	struct attributes attributes = { .max = RTA_MAX };
	struct exit_host *host = arg;
	struct prefix *local;

	mnl_attr_parse(msg, sizeof(*head), attribute_take, &attributes);
	/* Not the anycast addresses, which we have made ourselves. */
	if (!ip_family(head->rtm_family) || head->rtm_type != RTN_LOCAL ||
	    head->rtm_protocol == EXIT_PROTOCOL ||
	    (host->tunnel &&
	     number(&attributes, RTA_OIF, 0) == (uint32_t)host->tunnel) ||
	    number(&attributes, RTA_TABLE, head->rtm_table) != RT_TABLE_LOCAL)
		return MNL_CB_OK;
	local = exit_array_add((void **)&host->locals, &host->local_count,
			       sizeof(*local));
	if (!local)
		return out_of_memory();
	prefix_take(&attributes, RTA_DST, head->rtm_family, head->rtm_dst_len,
		    local);
	return MNL_CB_OK;
}

static int links_dump(struct rtnl *rtnl, struct exit_host *host)
{
	char buf[REQUEST_SIZE] = "";
	struct nlmsghdr *request = mnl_nlmsg_put_header(buf);
	struct ifinfomsg *head;

	request->nlmsg_type = RTM_GETLINK;
	request->nlmsg_flags = NLM_F_DUMP;
	head = mnl_nlmsg_put_extra_header(request, sizeof(*head));
	head->ifi_family = AF_UNSPEC;
	return rtnl_exchange(rtnl, request, link_take, host);
}

static int ways_dump(struct rtnl *rtnl, struct exit_host *host)
{
	static const uint8_t protocols[] = { RTPROT_KERNEL, RTPROT_BOOT,
					     RTPROT_STATIC };
	int err = 0;

	for (size_t i = 0; i < sizeof(protocols); i++)
		if (!err || err == -ENOENT)
			err = routes_dump(rtnl, AF_INET, protocols[i],
					  RT_TABLE_MAIN, way_take, host);
	if (!err || err == -ENOENT)
		err = routes_dump(rtnl, AF_INET6, RTPROT_UNSPEC, RT_TABLE_MAIN,
				  way_take, host);
	/* A table without any route, or a kernel without IPv6. */
	return err == -EOPNOTSUPP || err == -ENOENT ? 0 : err;
}

static int locals_dump(struct rtnl *rtnl, const struct conf *conf,
		       struct exit_host *host)
{
	static const uint8_t families[] = { AF_INET, AF_INET6 };
	struct exit_order order;
	int err = exit_order_make(conf, &order);

	if (err)
		return err;
	for (size_t i = 0; i < 2 && !err; i++)
		if (exit_mapped(&order, families[i]))
			err = routes_dump(rtnl, families[i], RTPROT_UNSPEC,
					  RT_TABLE_LOCAL, local_take, host);
	exit_order_clear(&order);
	return err == -ENOENT ? 0 : err;
}

static int host_dump(struct rtnl *rtnl, const struct conf *conf,
		     struct exit_host *out)
{
	struct exit_host host = { 0 };
	int err = links_dump(rtnl, &host);

	if (!err && conf)
		err = ways_dump(rtnl, &host);
	if (!err && conf)
		err = tunnel_look(rtnl, conf, &host);
	if (!err && conf)
		err = locals_dump(rtnl, conf, &host);
	if (err)
		exit_host_clear(&host);
	else
		*out = host;
	return err;
}

int rtnl_host(struct rtnl *rtnl, const struct conf *conf, struct exit_host *out)
{
	int tries = 0, err;

	do
		err = host_dump(rtnl, conf, out);
	while (exit_read_again(err, &tries));
	return err;
}

static void prefix_put(struct nlmsghdr *request, uint16_t type,
		       const struct prefix *prefix)
{
	if (prefix->bits)
		mnl_attr_put(request, type, width(prefix->family),
			     prefix->bytes);
}

static int found_take(const struct nlmsghdr *msg, void *arg)
{
	const struct rtmsg *head = mnl_nlmsg_get_payload(msg);
	struct attributes attributes = { .max = RTA_MAX };
	const struct nlattr *gateway;
	struct rtnl_way *way = arg;

	mnl_attr_parse(msg, sizeof(*head), attribute_take, &attributes);
	way->local = head->rtm_type == RTN_LOCAL;
	way->link = (int)number(&attributes, RTA_OIF, 0);
	way->table = number(&attributes, RTA_TABLE, head->rtm_table);
	gateway = attributes.at[RTA_GATEWAY];
	if (gateway &&
	    mnl_attr_get_payload_len(gateway) == width(head->rtm_family))
		addr_from_bytes(&way->gateway, head->rtm_family,
				mnl_attr_get_payload(gateway), 0);
	/* One answer, and no acknowledgement behind it. */
	return MNL_CB_STOP;
}

static uint8_t address_put(struct nlmsghdr *request, uint16_t type,
			   const union addr *addr)
{
	size_t len;
	const uint8_t *bytes = addr_bytes(addr, &len);

	mnl_attr_put(request, type, len, bytes);
	return (uint8_t)(len * 8);
}

int rtnl_find(struct rtnl *rtnl, const union addr *from, const union addr *to,
	      int link, uint32_t mark, struct rtnl_way *out)
{
	char buf[REQUEST_SIZE] = "";
	struct nlmsghdr *request = mnl_nlmsg_put_header(buf);
	struct rtnl_way way = { .link = 0 };
	struct rtmsg *head;
	int err;

	request->nlmsg_type = RTM_GETROUTE;
	head = mnl_nlmsg_put_extra_header(request, sizeof(*head));
	head->rtm_family = (uint8_t)addr_family(to);
	/* The table that has it; IPv6 tells it anyway and knows no such flag. */
	if (head->rtm_family == AF_INET)
		head->rtm_flags = RTM_F_LOOKUP_TABLE;
	head->rtm_dst_len = address_put(request, RTA_DST, to);
	if (from)
		head->rtm_src_len = address_put(request, RTA_SRC, from);
	if (link)
		mnl_attr_put_u32(request, RTA_IIF, (uint32_t)link);
	if (mark)
		mnl_attr_put_u32(request, RTA_MARK, mark);
	err = rtnl_exchange(rtnl, request, found_take, &way);
	if (!err)
		*out = way;
	return err;
}

/* Is it a route to one address alone, by which packets go? */
static bool host_route_leads(const struct rtmsg *head)
{
	return head->rtm_dst_len == width(head->rtm_family) * 8 &&
	       (head->rtm_type == RTN_UNICAST || head->rtm_type == RTN_LOCAL) &&
	       !(head->rtm_flags & (RTNH_F_DEAD | RTNH_F_LINKDOWN));
}

static int host_route_take(const struct nlmsghdr *msg, void *arg)
{
	*(bool *)arg = host_route_leads(mnl_nlmsg_get_payload(msg));
	return MNL_CB_STOP;
}

struct host_look {
	struct prefix to;
	bool any, leads; /* of those to it the one with the least metric */
	uint32_t metric;
};

static int host_look_take(const struct nlmsghdr *msg, void *arg)
{
	const struct rtmsg *head = mnl_nlmsg_get_payload(msg);
	struct attributes attributes = { .max = RTA_MAX };
	struct host_look *look = arg;
	struct prefix to;
	uint32_t metric;

	mnl_attr_parse(msg, sizeof(*head), attribute_take, &attributes);
	prefix_take(&attributes, RTA_DST, head->rtm_family, head->rtm_dst_len,
		    &to);
	metric = number(&attributes, RTA_PRIORITY, 0);
	if (head->rtm_src_len || prefix_compare(&to, &look->to) != 0 ||
	    (look->any && look->metric <= metric))
		return MNL_CB_OK;
	look->any = true;
	look->metric = metric;
	look->leads = host_route_leads(head);
	return MNL_CB_OK;
}

/*
 * An answer is a page, and a route with hundreds of next hops, which may be the one to
 * the address or any that covers it, does not fit. A dump has more room.
 */
static int host_route_search(struct rtnl *rtnl, const union addr *to,
			     bool *there)
{
	struct host_look look = { .to = { .family = addr_family(to) } };
	size_t len;
	const uint8_t *bytes = addr_bytes(to, &len);
	int tries = 0, err;

	memcpy(look.to.bytes, bytes, len);
	look.to.bits = (uint8_t)(len * 8);
	do {
		look.any = look.leads = false;
		err = routes_dump(rtnl, (uint8_t)look.to.family, 0,
				  RT_TABLE_MAIN, host_look_take, &look);
	} while (exit_read_again(err, &tries));
	if (!err)
		*there = look.leads;
	return err;
}

int rtnl_host_route(struct rtnl *rtnl, const union addr *to, bool *there)
{
	char buf[REQUEST_SIZE] = "";
	struct nlmsghdr *request = mnl_nlmsg_put_header(buf);
	struct rtmsg *head;
	bool found = false;
	int err;

	request->nlmsg_type = RTM_GETROUTE;
	head = mnl_nlmsg_put_extra_header(request, sizeof(*head));
	head->rtm_family = (uint8_t)addr_family(to);
	head->rtm_flags = RTM_F_FIB_MATCH;
	head->rtm_dst_len = address_put(request, RTA_DST, to);
	if (head->rtm_family == AF_INET6)
		mnl_attr_put_u32(request, RTA_MARK, MARK_LOOK);
	err = rtnl_exchange(rtnl, request, host_route_take, &found);
	switch (err) {
	case 0:
	/* No route, and routes that say so, by unreachable, prohibit, blackhole. */
	case -EHOSTUNREACH:
	case -ENETUNREACH:
	case -EACCES:
	case -EINVAL:
	case -EAGAIN:
		*there = found;
		return 0;
	case -EMSGSIZE:
		return host_route_search(rtnl, to, there);
	default:
		return err;
	}
}

static int flags_take(const struct nlmsghdr *msg, void *arg)
{
	const struct ifinfomsg *head = mnl_nlmsg_get_payload(msg);

	*(bool *)arg = exit_flags_up(head->ifi_flags);
	return MNL_CB_STOP;
}

int rtnl_link_up(struct rtnl *rtnl, const char *name, bool *up)
{
	char buf[REQUEST_SIZE] = "";
	struct nlmsghdr *request = mnl_nlmsg_put_header(buf);
	struct ifinfomsg *head;
	bool found = false;
	int err;

	request->nlmsg_type = RTM_GETLINK;
	head = mnl_nlmsg_put_extra_header(request, sizeof(*head));
	head->ifi_family = AF_UNSPEC;
	mnl_attr_put_strz(request, IFLA_IFNAME, name);
	err = rtnl_exchange(rtnl, request, flags_take, &found);
	if (err && err != -ENODEV)
		return err;
	*up = found;
	return 0;
}

int rtnl_rule(struct rtnl *rtnl, const struct exit_rule *rule, bool there)
{
	char buf[REQUEST_SIZE] = "";
	struct nlmsghdr *request = mnl_nlmsg_put_header(buf);
	struct fib_rule_hdr *head;
	int err;

	request->nlmsg_type = there ? RTM_NEWRULE : RTM_DELRULE;
	request->nlmsg_flags = NLM_F_ACK;
	if (there)
		request->nlmsg_flags |= NLM_F_CREATE | NLM_F_EXCL;
	head = mnl_nlmsg_put_extra_header(request, sizeof(*head));
	head->family = (uint8_t)rule->from.family;
	head->src_len = rule->from.bits;
	head->dst_len = rule->to.bits;
	head->action = rule->skip_to             ? FR_ACT_GOTO :
		       rule->table || rule->site ? FR_ACT_TO_TBL :
						   FR_ACT_UNREACHABLE;
	prefix_put(request, FRA_SRC, &rule->from);
	prefix_put(request, FRA_DST, &rule->to);
	if (rule->skip_to)
		mnl_attr_put_u32(request, FRA_GOTO, rule->skip_to);
	mnl_attr_put_u32(request, FRA_PRIORITY, rule->priority);
	mnl_attr_put_u8(request, FRA_PROTOCOL, EXIT_PROTOCOL);
	if (rule->mark) {
		mnl_attr_put_u32(request, FRA_FWMARK, rule->mark);
		mnl_attr_put_u32(request, FRA_FWMASK, EXIT_MARKS);
	}
	if (rule->site) {
		mnl_attr_put_u32(request, FRA_TABLE, RT_TABLE_MAIN);
		mnl_attr_put_u32(request, FRA_SUPPRESS_PREFIXLEN, 0);
		mnl_attr_put_u32(request, FRA_SUPPRESS_IFGROUP, EXIT_GROUP);
	} else if (rule->table) {
		mnl_attr_put_u32(request, FRA_TABLE, rule->table);
	}
	err = rtnl_exchange(rtnl, request, NULL, NULL);
	return err == (there ? -EEXIST : -ENOENT) ? 0 : err;
}

int rtnl_route(struct rtnl *rtnl, const struct exit_route *route, bool there)
{
	char buf[REQUEST_SIZE] = "";
	struct nlmsghdr *request = mnl_nlmsg_put_header(buf);
	bool tunnel = addr_family(&route->remote) != AF_UNSPEC;
	const uint8_t *gateway;
	struct rtmsg *head;
	size_t len;
	int err;

	gateway = addr_bytes(&route->gateway, &len);
	request->nlmsg_type = there ? RTM_NEWROUTE : RTM_DELROUTE;
	request->nlmsg_flags = NLM_F_ACK;
	/* One prefix may be on several links, but not by several gateways. */
	if (there)
		request->nlmsg_flags |= NLM_F_CREATE |
					(gateway || tunnel || !route->link ?
						 NLM_F_REPLACE :
						 NLM_F_APPEND);
	head = mnl_nlmsg_put_extra_header(request, sizeof(*head));
	head->rtm_family = (uint8_t)route->to.family;
	head->rtm_dst_len = route->to.bits;
	head->rtm_src_len = route->from.bits;
	head->rtm_protocol = route->expires_s ? EXIT_LEARNT : EXIT_PROTOCOL;
	head->rtm_type = route->local ? RTN_LOCAL :
			 route->link  ? RTN_UNICAST :
					RTN_UNREACHABLE;
	head->rtm_scope = route->local            ? RT_SCOPE_HOST :
			  gateway || !route->link ? RT_SCOPE_UNIVERSE :
						    RT_SCOPE_LINK;
	prefix_put(request, RTA_DST, &route->to);
	prefix_put(request, RTA_SRC, &route->from);
	mnl_attr_put_u32(request, RTA_TABLE, route->table);
	mnl_attr_put_u32(request, RTA_PRIORITY, route->metric);
	if (gateway) {
		/* Nobody need have a route to it. */
		head->rtm_flags = RTNH_F_ONLINK;
		mnl_attr_put(request, RTA_GATEWAY, len, gateway);
	}
	/* Unreachable ones of IPv6 are by lo; without it any other is taken away, too. */
	if (route->link)
		mnl_attr_put_u32(request, RTA_OIF, (uint32_t)route->link);
	else if (!there && route->to.family == AF_INET6)
		mnl_attr_put_u32(request, RTA_OIF, LOOPBACK);
	if (tunnel)
		tunnel_encap_put(request, route);
	if (route->metrics)
		mnl_attr_put(request, RTA_METRICS, route->metrics->len,
			     route->metrics->bytes);
	if (route->preference)
		mnl_attr_put_u8(request, RTA_PREF, route->preference);
	if (route->expires_s && there)
		mnl_attr_put_u32(request, RTA_EXPIRES, route->expires_s);
	err = rtnl_exchange(rtnl, request, NULL, NULL);
	return err == (there ? -EEXIST : -ESRCH) ? 0 : err;
}

int rtnl_group(struct rtnl *rtnl, const struct exit_link *link, uint32_t group)
{
	char buf[REQUEST_SIZE] = "";
	struct nlmsghdr *request = mnl_nlmsg_put_header(buf);
	struct ifinfomsg *head;

	request->nlmsg_type = RTM_SETLINK;
	request->nlmsg_flags = NLM_F_ACK;
	head = mnl_nlmsg_put_extra_header(request, sizeof(*head));
	head->ifi_family = AF_UNSPEC;
	head->ifi_index = link->index;
	mnl_attr_put_u32(request, IFLA_GROUP, group);
	return rtnl_exchange(rtnl, request, NULL, NULL);
}
