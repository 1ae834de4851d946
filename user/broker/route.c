/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which device leads to a remote end: the kernel is asked as for a packet of this
 * host. BPF asks for every packet anew; this is the answer at the join.
 */
#include <errno.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "broker/kernel.h"

struct request {
	struct nlmsghdr head;
	struct rtmsg route;
	char attributes[64];
};

int route_open(struct kernel *kernel)
{
	const struct timeval limit = { .tv_sec = 1 };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	kernel->route_fd = fd;
	return 0;
}

static void attribute_add(struct request *request, uint16_t type,
			  const void *data, size_t len)
{
	struct rtattr *attribute =
		(struct rtattr *)((char *)request +
				  NLMSG_ALIGN(request->head.nlmsg_len));

	attribute->rta_type = type;
	attribute->rta_len = (unsigned short)RTA_LENGTH(len);
	memcpy(RTA_DATA(attribute), data, len);
	request->head.nlmsg_len = NLMSG_ALIGN(request->head.nlmsg_len) +
				  (uint32_t)RTA_ALIGN(RTA_LENGTH(len));
}

static void request_fill(struct request *request, uint32_t seq,
			 const struct wire_key *key)
{
	size_t len = key->family == AF_INET ? 4 : 16;
	uint8_t protocol = IPPROTO_TCP;

	memset(request, 0, sizeof(*request));
	request->head.nlmsg_len = NLMSG_LENGTH(sizeof(request->route));
	request->head.nlmsg_type = RTM_GETROUTE;
	request->head.nlmsg_flags = NLM_F_REQUEST;
	request->head.nlmsg_seq = seq;
	request->route.rtm_family = key->family;
	request->route.rtm_dst_len = (uint8_t)(len * 8);
	request->route.rtm_src_len = (uint8_t)(len * 8);
	attribute_add(request, RTA_DST, key->remote, len);
	attribute_add(request, RTA_SRC, key->local, len);
	attribute_add(request, RTA_IP_PROTO, &protocol, sizeof(protocol));
}

/* The answer's device; 0: none, or one that is no answer to use. */
static enum wire_reason answer_read(const struct kernel *kernel,
				    struct nlmsghdr *head, size_t len)
{
	struct rtmsg *route = NLMSG_DATA(head);
	int left = (int)head->nlmsg_len - (int)NLMSG_LENGTH(sizeof(*route));
	int index = 0;

	if (!NLMSG_OK(head, len) || head->nlmsg_type != RTM_NEWROUTE ||
	    left < 0)
		return WIRE_NO_DEVICE;
	if (route->rtm_type == RTN_LOCAL)
		return WIRE_NO_LOCAL;
	if (route->rtm_type != RTN_UNICAST)
		return WIRE_NO_DEVICE;
	for (struct rtattr *a = RTM_RTA(route); RTA_OK(a, left);
	     a = RTA_NEXT(a, left))
		if (a->rta_type == RTA_OIF && RTA_PAYLOAD(a) == sizeof(index))
			memcpy(&index, RTA_DATA(a), sizeof(index));
	const struct device *device = device_find(kernel, index);

	return device && device->attached ? WIRE_OK : WIRE_NO_DEVICE;
}

enum wire_reason route_check(struct kernel *kernel, const struct wire_key *key)
{
	union {
		struct nlmsghdr head;
		char bytes[2048];
	} answer;
	struct request request;
	ssize_t n;

	request_fill(&request, ++kernel->route_seq, key);
	if (send(kernel->route_fd, &request, request.head.nlmsg_len, 0) < 0)
		return WIRE_NO_ERROR;
	do
		n = recv(kernel->route_fd, &answer, sizeof(answer), 0);
	while ((n < 0 && errno == EINTR) ||
	       (n >= (ssize_t)sizeof(answer.head) &&
		answer.head.nlmsg_seq != kernel->route_seq));
	if (n < (ssize_t)sizeof(answer.head))
		return WIRE_NO_ERROR;
	return answer_read(kernel, &answer.head, (size_t)n);
}
