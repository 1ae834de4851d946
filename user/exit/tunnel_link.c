/* SPDX-License-Identifier: BSD-2-Clause */
/* Tunnels in the kernel, by rtnetlink (see tunnel.h). */
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/if_link.h>
#include <linux/lwtunnel.h>
#include <linux/rtnetlink.h>
#include <string.h>

#include "exit/tunnel.h"

#define REQUEST_SIZE 512
#define MTU_USUAL    1500 /* of an Ethernet */
#define MTU_LEAST    1280 /* of IPv6 */
/* Of linux/if_tunnel.h, which does not get on with net/if.h. */
#define IPTUN_PROTO            9
#define IPTUN_COLLECT_METADATA 19
#define ENCAP_CSUM             0x0001 /* TUNNEL_CSUM of the kernel: RFC 8200 wants one */

/* By enum conf_tunnel. */
static const struct {
	const char *kind;
	const char *words; /* of ip(8) */
	uint32_t overhead; /* around an IP packet */
} kinds[] = {
	/* IPv6, UDP and the header. */
	[CONF_TUNNEL_GPE] = { "vxlan", "vxlan external gpe dstport 4790", 56 },
	[CONF_TUNNEL_IP6] = { "ip6tnl", "ip6tnl mode any external", 40 },
};

void tunnel_encap_take(const struct nlattr *attr, struct exit_route *route)
{
	const struct nlattr *nested;

	if (!attr)
		return;
	mnl_attr_for_each_nested(nested, attr)
	{
		uint16_t type = mnl_attr_get_type(nested);

		if (mnl_attr_get_payload_len(nested) != 16)
			continue;
		if (type == LWTUNNEL_IP6_DST)
			addr_from_bytes(&route->remote, AF_INET6,
					mnl_attr_get_payload(nested), 0);
		if (type == LWTUNNEL_IP6_SRC)
			addr_from_bytes(&route->source, AF_INET6,
					mnl_attr_get_payload(nested), 0);
	}
	/* The kernel tells of none as of zeros. */
	if (addr_is_any(&route->source))
		route->source = (union addr){ .sa.sa_family = AF_UNSPEC };
}

void tunnel_encap_put(struct nlmsghdr *request, const struct exit_route *route)
{
	struct nlattr *encap;
	const uint8_t *bytes;
	size_t len;

	mnl_attr_put_u16(request, RTA_ENCAP_TYPE, LWTUNNEL_ENCAP_IP6);
	encap = mnl_attr_nest_start(request, RTA_ENCAP);
	mnl_attr_put_u64(request, LWTUNNEL_IP6_ID, 0);
	bytes = addr_bytes(&route->remote, &len);
	mnl_attr_put(request, LWTUNNEL_IP6_DST, len, bytes);
	bytes = addr_bytes(&route->source, &len);
	if (bytes)
		mnl_attr_put(request, LWTUNNEL_IP6_SRC, len, bytes);
	mnl_attr_put_u16(request, LWTUNNEL_IP6_FLAGS, htons(ENCAP_CSUM));
	mnl_attr_nest_end(request, encap);
}

const char *tunnel_encap_format(const struct exit_route *route,
				char out[TUNNEL_TEXT])
{
	char to[ADDR_STRLEN], from[ADDR_STRLEN];
	bool source = addr_family(&route->source) != AF_UNSPEC;

	out[0] = '\0';
	if (addr_family(&route->remote) != AF_UNSPEC)
		snprintf(out, TUNNEL_TEXT, " encap ip6 id 0%s%s dst %s csum",
			 source ? " src " : "",
			 source ? addr_format_host(&route->source, from) : "",
			 addr_format_host(&route->remote, to));
	return out;
}

/* One of the tunnel peers may be this host. */
static void source_look(struct rtnl *rtnl, const struct conf *conf,
			struct exit_host *host)
{
	for (size_t i = 0; i < conf->exit_count; i++) {
		const struct conf_exit *exit = &conf->exits[i];

		for (size_t k = 0; k < exit->tunnel_peer_count; k++) {
			struct rtnl_way way = { .link = 0 };

			if (rtnl_find(rtnl, NULL, &exit->tunnel_peers[k], 0, 0,
				      &way) ||
			    !way.local)
				continue;
			host->tunnel_source = exit->tunnel_peers[k];
			return;
		}
	}
}

int tunnel_look(struct rtnl *rtnl, const struct conf *conf,
		struct exit_host *host)
{
	const struct exit_link *device = exit_link_named(host, EXIT_TUNNEL);

	if (device && device->up)
		host->tunnel = device->index;
	source_look(rtnl, conf, host);
	return tunnel_ends(conf, host);
}

/* What fits by every link that leads to another end; 0: there is none now. */
static uint32_t mtu_fitting(const struct exit_host *host, uint32_t overhead)
{
	uint32_t least = 0;

	for (size_t i = 0; i < host->end_count; i++)
		for (size_t k = 0; k < host->link_count; k++) {
			const struct exit_link *link = &host->links[k];

			if (link->index == host->ends[i].link &&
			    (!least || link->mtu < least))
				least = link->mtu;
		}
	if (!least)
		return 0;
	return least < MTU_LEAST + overhead ? MTU_LEAST : least - overhead;
}

static struct nlmsghdr *device_request(char *buf, uint16_t type, int index)
{
	struct nlmsghdr *request = mnl_nlmsg_put_header(buf);
	struct ifinfomsg *head;

	request->nlmsg_type = type;
	request->nlmsg_flags = NLM_F_ACK;
	head = mnl_nlmsg_put_extra_header(request, sizeof(*head));
	head->ifi_family = AF_UNSPEC;
	head->ifi_index = index;
	if (type != RTM_DELLINK)
		head->ifi_flags = head->ifi_change = IFF_UP;
	return request;
}

static int device_add(struct rtnl *rtnl, enum conf_tunnel kind, uint32_t mtu)
{
	char buf[REQUEST_SIZE] = "";
	struct nlmsghdr *request = device_request(buf, RTM_NEWLINK, 0);
	struct nlattr *info, *data;

	request->nlmsg_flags |= NLM_F_CREATE | NLM_F_EXCL;
	mnl_attr_put_strz(request, IFLA_IFNAME, EXIT_TUNNEL);
	mnl_attr_put_u32(request, IFLA_MTU, mtu);
	info = mnl_attr_nest_start(request, IFLA_LINKINFO);
	mnl_attr_put_strz(request, IFLA_INFO_KIND, kinds[kind].kind);
	data = mnl_attr_nest_start(request, IFLA_INFO_DATA);
	switch (kind) {
	case CONF_TUNNEL_GPE:
		mnl_attr_put_u8(request, IFLA_VXLAN_COLLECT_METADATA, 1);
		mnl_attr_put_u8(request, IFLA_VXLAN_LEARNING, 0);
		mnl_attr_put_u16(request, IFLA_VXLAN_PORT, htons(TUNNEL_PORT));
		mnl_attr_put(request, IFLA_VXLAN_GPE, 0, NULL);
		break;
	case CONF_TUNNEL_IP6:
		/* Of IPv4 and IPv6. */
		mnl_attr_put_u8(request, IPTUN_PROTO, 0);
		mnl_attr_put(request, IPTUN_COLLECT_METADATA, 0, NULL);
		break;
	}
	mnl_attr_nest_end(request, data);
	mnl_attr_nest_end(request, info);
	return rtnl_exchange(rtnl, request, NULL, NULL);
}

static int device_set(struct rtnl *rtnl, int index, uint32_t mtu)
{
	char buf[REQUEST_SIZE] = "";
	struct nlmsghdr *request = device_request(buf, RTM_SETLINK, index);

	mnl_attr_put_u32(request, IFLA_MTU, mtu);
	return rtnl_exchange(rtnl, request, NULL, NULL);
}

static int device_make(struct rtnl *rtnl, enum conf_tunnel kind,
		       const struct exit_link *device, uint32_t mtu,
		       struct exit_change *change)
{
	char text[120];
	int err = 0;

	if (device)
		snprintf(text, sizeof(text), "ip link set %s mtu %u up",
			 EXIT_TUNNEL, mtu);
	else
		snprintf(text, sizeof(text), "ip link add %s up mtu %u type %s",
			 EXIT_TUNNEL, mtu, kinds[kind].words);
	if (!change->dry)
		err = device ? device_set(rtnl, device->index, mtu) :
			       device_add(rtnl, kind, mtu);
	exit_change_note(change, true, text, err);
	return err;
}

static void device_remove(struct rtnl *rtnl, const struct exit_link *device,
			  struct exit_change *change)
{
	char buf[REQUEST_SIZE] = "";
	int err = 0;

	if (!change->dry)
		err = rtnl_exchange(
			rtnl, device_request(buf, RTM_DELLINK, device->index),
			NULL, NULL);
	exit_change_note(change, false, "ip link " EXIT_TUNNEL, err);
}

int tunnel_make(struct rtnl *rtnl, const struct conf *conf,
		struct exit_host *host, struct exit_change *change)
{
	const struct exit_link *device = exit_link_named(host, EXIT_TUNNEL);
	struct exit_host anew = { 0 };
	enum conf_tunnel kind;
	uint32_t mtu;
	int err;

	if (!conf || !tunnel_wanted(conf))
		return 0;
	kind = tunnel_kind(conf);
	mtu = mtu_fitting(host, kinds[kind].overhead);
	if (device && device->ip6tnl != (kind == CONF_TUNNEL_IP6)) {
		device_remove(rtnl, device, change);
		device = NULL;
	}
	if (device && device->up && (!mtu || device->mtu == mtu))
		return 0;
	if (!mtu)
		mtu = device ? device->mtu : MTU_USUAL - kinds[kind].overhead;
	/* Without it the sources of the tunnels are unreachable; the rest holds. */
	if (device_make(rtnl, kind, device, mtu, change))
		return 0;
	if (change->dry) {
		host->tunnel = TUNNEL_PLANNED;
		return 0;
	}
	err = rtnl_host(rtnl, conf, &anew);
	if (err)
		return err;
	anew.health = host->health;
	exit_host_clear(host);
	*host = anew;
	return 0;
}

void tunnel_unmake(struct rtnl *rtnl, const struct conf *conf,
		   const struct exit_host *host, struct exit_change *change)
{
	const struct exit_link *device = exit_link_named(host, EXIT_TUNNEL);

	if (device && !(conf && tunnel_wanted(conf)))
		device_remove(rtnl, device, change);
}
