/* SPDX-License-Identifier: BSD-2-Clause */
/* Lanes and the real kernel: datagram sockets, flows, what else alters datagrams. */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/netlink.h>
#include <linux/xfrm.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <wire.skel.h>

#include "base/addr.h"
#include "base/log.h"
#include "base/syscalls.h"
#include "broker/internal.h"
#include "broker/kernel.h"
#include "broker/socket.h"

SYSCALLS(SYSCALLS_BROKER, "bpf");
SYSCALLS_SOCKET(SYSCALLS_BROKER, AF_NETLINK, NETLINK_XFRM);
SYSCALLS_SOCKET(SYSCALLS_BROKER, AF_INET, 0);
SYSCALLS_SOCKET(SYSCALLS_BROKER, AF_INET6, 0);
SYSCALLS(SYSCALLS_BROKER,
	 "bind connect getpeername getsockname getsockopt setsockopt");
SYSCALLS(SYSCALLS_BROKER, "sendto recvfrom close");

/*
 * A port that bind(2) has chosen a socket gives up when it is disconnected: then that
 * is done now, not later. One of several would leave them by it, and is not tried.
 */
static bool port_stays(int fd, bool several)
{
	const struct sockaddr none = { .sa_family = AF_UNSPEC };
	int shared = 0;
	socklen_t len = sizeof(shared);

	if (getsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &shared, &len) < 0)
		return false;
	return shared ? several : connect(fd, &none, sizeof(none)) == 0;
}

int lane_ops_bound(struct broker *broker, int fd, bool several,
		   struct wire_lane_key *out)
{
	union addr local = { .sa = { .sa_family = AF_UNSPEC } }, remote = local;
	socklen_t len = sizeof(local), remote_len = sizeof(remote);
	const uint8_t *bytes;
	size_t size;

	if (!socket_is_datagrams(fd, broker->kernel->header.netns) ||
	    getpeername(fd, &remote.sa, &remote_len) == 0 ||
	    !port_stays(fd, several))
		return -EBADMSG;
	if (getsockname(fd, &local.sa, &len) < 0 || !addr_port(&local))
		return -EBADMSG;
	bytes = addr_bytes(&local, &size);
	*out = (struct wire_lane_key){
		.family = (__u8)addr_family(&local),
		.local_port = htons(addr_port(&local)),
	};
	memcpy(out->local, bytes, size);
	return 0;
}

bool lane_ops_ours(const struct wire_lane_key *key)
{
	int fd = socket(key->family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	union addr local;
	bool ours;

	if (fd < 0)
		return false;
	addr_from_bytes(&local, key->family, key->local, 0);
	ours = bind(fd, &local.sa, addr_len(&local)) == 0;
	close(fd);
	return ours;
}

int lane_ops_look(struct broker *broker,
		  const struct wire_lane_key keys[WIRE_LEGS],
		  struct wire_lane_look out[WIRE_LEGS])
{
	struct kernel *kernel = broker->kernel;
	char packet[64] = { 0 }; /* the program wants one, and ignores it */
	struct bpf_test_run_opts run = { .sz = sizeof(run),
					 .data_in = packet,
					 .data_size_in = sizeof(packet),
					 .repeat = 1 };
	int err;

	memset(kernel->lane_call, 0, sizeof(*kernel->lane_call));
	memcpy(kernel->lane_call->key, keys, sizeof(kernel->lane_call->key));
	err = bpf_prog_test_run_opts(
		bpf_program__fd(kernel->bpf->progs.wire_lane_look), &run);
	if (err) {
		log_error("broker", "event=lane_look_failed error=\"%s\"",
			  strerror(-err));
		return err;
	}
	memcpy(out, kernel->lane_call->look, sizeof(kernel->lane_call->look));
	return 0;
}

/*
 * How many policies of IPsec this namespace has: which datagrams they are for is not
 * asked. A kernel without them has none; one that does not say is taken to have some.
 */
static bool policies_there(void)
{
	struct {
		struct nlmsghdr head;
		uint32_t flags;
	} ask = {
		.head = { .nlmsg_len = sizeof(ask),
			  .nlmsg_type = XFRM_MSG_GETSPDINFO,
			  .nlmsg_flags = NLM_F_REQUEST },
		.flags = UINT32_MAX,
	};
	struct {
		struct nlmsghdr head;
		uint32_t flags;
		struct nlattr attribute;
		struct xfrmu_spdinfo info;
		char more[256];
	} told;
	const struct timeval limit = { .tv_sec = 1 };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_XFRM);
	ssize_t n;

	if (fd < 0)
		return errno != EPROTONOSUPPORT;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	n = send(fd, &ask, sizeof(ask), 0);
	if (n >= 0)
		n = recv(fd, &told, sizeof(told), 0);
	close(fd);
	return n < (ssize_t)(sizeof(told) - sizeof(told.more)) ||
	       told.head.nlmsg_type != XFRM_MSG_NEWSPDINFO ||
	       (told.attribute.nla_type & NLA_TYPE_MASK) != XFRMA_SPD_INFO ||
	       told.info.incnt || told.info.outcnt;
}

bool lane_ops_altered(struct broker *broker, const struct wire_lane_key *key)
{
	return conntrack_translates_datagrams(broker->kernel, key) ||
	       policies_there();
}

static int flows_fd(const struct broker *broker)
{
	return bpf_map__fd(broker->kernel->bpf->maps.wire_lane_flows);
}

int lane_ops_hook(struct broker *broker, const struct wire_lane_key *key,
		  uint32_t index, uint32_t leg)
{
	const struct wire_flow flow = { .pair = index, .leg = leg };

	return bpf_map_update_elem(flows_fd(broker), key, &flow, BPF_NOEXIST);
}

void lane_ops_unhook(struct broker *broker, const struct wire_lane_key *key)
{
	bpf_map_delete_elem(flows_fd(broker), key);
}

int lane_ops_lanes(struct broker *broker)
{
	return broker->kernel->lanes_fd;
}
