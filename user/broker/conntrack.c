/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Does this host translate the addresses of a connection (NAT)? Then its packets
 * bear others at the device than the socket knows: the programs would not know
 * them, and what they were to stop would pass. Such a pair must not be joined.
 *
 * On most hosts connection tracking knows no connection at all, which its count of
 * them says, once for all joins of a tick. Else SO_ORIGINAL_DST tells cheaply whether
 * it knows this one; only then ctnetlink is asked for both directions of the entry,
 * which without NAT are each other's inverse. Of datagrams no socket can be asked:
 * ctnetlink is, wherever there is connection tracking at all.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/syscalls.h"
#include "broker/kernel.h"

SYSCALLS_SOCKET(SYSCALLS_BROKER, AF_NETLINK, NETLINK_NETFILTER);
SYSCALLS_SOCKET(SYSCALLS_BROKER, AF_INET, 0);
SYSCALLS_SOCKET(SYSCALLS_BROKER, AF_INET6, 0);
SYSCALLS(SYSCALLS_BROKER_START, "openat");
SYSCALLS(SYSCALLS_BROKER,
	 "sendto recvfrom getsockopt setsockopt pread64 close");

#define COUNT                "/proc/sys/net/netfilter/nf_conntrack_count"
#define ORIGINAL_DESTINATION 80 /* SO_ORIGINAL_DST, IP6T_SO_ORIGINAL_DST */

struct request {
	struct nlmsghdr head;
	struct nfgenmsg netfilter;
	char attributes[128];
};

/* One direction of an entry. */
struct tuple {
	uint8_t source[16], destination[16];
	__be16 source_port, destination_port;
};

int conntrack_open(struct kernel *kernel)
{
	const struct timeval limit = { .tv_sec = 1 };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);

	/* A kernel without netfilter translates nothing. */
	if (fd < 0)
		return errno == EPROTONOSUPPORT ? 0 : -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	kernel->conntrack_fd = fd;
	kernel->conntrack_count_fd = open(COUNT, O_RDONLY | O_CLOEXEC);
	return 0;
}

/*
 * Has it no entry of any connection, of this network namespace? Without the file, for
 * it was loaded later, or is none, that is not known.
 */
static bool tracks_nothing(struct kernel *kernel)
{
	uint64_t now = loop_now(kernel->loop);
	char text[16];

	if (kernel->conntrack_count_fd < 0)
		return false;
	if (kernel->conntrack_ms == now)
		return kernel->conntrack_empty;
	kernel->conntrack_ms = now;
	kernel->conntrack_empty =
		pread(kernel->conntrack_count_fd, text, sizeof(text), 0) == 2 &&
		text[0] == '0';
	return kernel->conntrack_empty;
}

/* Is there an entry? Every error but these is taken for a yes. */
static bool is_tracked(int fd, const struct wire_key *key)
{
	struct sockaddr_storage original;
	socklen_t len = key->family == AF_INET ? sizeof(struct sockaddr_in) :
						 sizeof(struct sockaddr_in6);

	return getsockopt(fd, key->family == AF_INET ? SOL_IP : SOL_IPV6,
			  ORIGINAL_DESTINATION, &original, &len) == 0 ||
	       (errno != ENOENT && errno != ENOPROTOOPT && errno != EOPNOTSUPP);
}

static struct nlattr *end_of(struct request *request)
{
	return (struct nlattr *)((char *)request +
				 NLMSG_ALIGN(request->head.nlmsg_len));
}

static void attribute_add(struct request *request, uint16_t type,
			  const void *data, size_t len)
{
	struct nlattr *attribute = end_of(request);

	attribute->nla_type = type;
	attribute->nla_len = (uint16_t)(NLA_HDRLEN + len);
	memcpy((char *)attribute + NLA_HDRLEN, data, len);
	request->head.nlmsg_len = NLMSG_ALIGN(request->head.nlmsg_len) +
				  NLA_ALIGN(attribute->nla_len);
}

static struct nlattr *nest_begin(struct request *request, uint16_t type)
{
	struct nlattr *nest = end_of(request);

	nest->nla_type = type | NLA_F_NESTED;
	request->head.nlmsg_len += NLA_HDRLEN;
	return nest;
}

static void nest_end(struct request *request, struct nlattr *nest)
{
	nest->nla_len = (uint16_t)((char *)end_of(request) - (char *)nest);
}

static void request_fill(struct request *request, uint32_t seq,
			 uint8_t protocol, const struct wire_key *key)
{
	bool ipv4 = key->family == AF_INET;
	size_t len = ipv4 ? 4 : 16;
	struct nlattr *tuple, *part;

	memset(request, 0, sizeof(*request));
	request->head.nlmsg_len = NLMSG_LENGTH(sizeof(request->netfilter));
	request->head.nlmsg_type = NFNL_SUBSYS_CTNETLINK << 8 |
				   IPCTNL_MSG_CT_GET;
	request->head.nlmsg_flags = NLM_F_REQUEST;
	request->head.nlmsg_seq = seq;
	request->netfilter.nfgen_family = key->family;
	request->netfilter.version = NFNETLINK_V0;
	tuple = nest_begin(request, CTA_TUPLE_ORIG);
	part = nest_begin(request, CTA_TUPLE_IP);
	attribute_add(request, ipv4 ? CTA_IP_V4_SRC : CTA_IP_V6_SRC, key->local,
		      len);
	attribute_add(request, ipv4 ? CTA_IP_V4_DST : CTA_IP_V6_DST,
		      key->remote, len);
	nest_end(request, part);
	part = nest_begin(request, CTA_TUPLE_PROTO);
	attribute_add(request, CTA_PROTO_NUM, &protocol, sizeof(protocol));
	attribute_add(request, CTA_PROTO_SRC_PORT, &key->local_port, 2);
	attribute_add(request, CTA_PROTO_DST_PORT, &key->remote_port, 2);
	nest_end(request, part);
	nest_end(request, tuple);
}

/* The attribute of this type among `len` bytes of them; NULL. */
static const struct nlattr *attribute_find(const void *from, size_t len,
					   uint16_t type)
{
	const char *at = from;

	while (len >= NLA_HDRLEN) {
		const struct nlattr *attribute = (const void *)at;
		size_t size = NLA_ALIGN(attribute->nla_len);

		if (attribute->nla_len < NLA_HDRLEN || attribute->nla_len > len)
			return NULL;
		if ((attribute->nla_type & NLA_TYPE_MASK) == type)
			return attribute;
		if (size > len)
			return NULL;
		at += size;
		len -= size;
	}
	return NULL;
}

static const struct nlattr *inner_find(const struct nlattr *outer,
				       uint16_t type)
{
	if (!outer)
		return NULL;
	return attribute_find((const char *)outer + NLA_HDRLEN,
			      outer->nla_len - (size_t)NLA_HDRLEN, type);
}

static bool value_copy(const struct nlattr *outer, uint16_t type, void *out,
		       size_t len)
{
	const struct nlattr *attribute = inner_find(outer, type);

	if (!attribute || attribute->nla_len != NLA_HDRLEN + len)
		return false;
	memcpy(out, (const char *)attribute + NLA_HDRLEN, len);
	return true;
}

static bool tuple_read(const struct nlattr *from, bool ipv4, struct tuple *out)
{
	const struct nlattr *ip = inner_find(from, CTA_TUPLE_IP);
	const struct nlattr *protocol = inner_find(from, CTA_TUPLE_PROTO);
	size_t len = ipv4 ? 4 : 16;

	memset(out, 0, sizeof(*out));
	return value_copy(ip, ipv4 ? CTA_IP_V4_SRC : CTA_IP_V6_SRC, out->source,
			  len) &&
	       value_copy(ip, ipv4 ? CTA_IP_V4_DST : CTA_IP_V6_DST,
			  out->destination, len) &&
	       value_copy(protocol, CTA_PROTO_SRC_PORT, &out->source_port, 2) &&
	       value_copy(protocol, CTA_PROTO_DST_PORT, &out->destination_port,
			  2);
}

static bool is_inverse(const struct tuple *a, const struct tuple *b)
{
	return a->source_port == b->destination_port &&
	       a->destination_port == b->source_port &&
	       memcmp(a->source, b->destination, sizeof(a->source)) == 0 &&
	       memcmp(a->destination, b->source, sizeof(a->source)) == 0;
}

/* Also what cannot be understood is not called plain. */
static bool answer_plain(const struct nlmsghdr *head, size_t len, bool ipv4)
{
	const size_t skip = NLMSG_HDRLEN + NLMSG_ALIGN(sizeof(struct nfgenmsg));
	const char *at = (const char *)head + skip;
	struct tuple original, reply;

	if (head->nlmsg_type == NLMSG_ERROR) {
		const struct nlmsgerr *error = NLMSG_DATA(head);

		return len >= NLMSG_LENGTH(sizeof(*error)) &&
		       error->error == -ENOENT;
	}
	if (head->nlmsg_len > len || head->nlmsg_len < skip)
		return false;
	len = head->nlmsg_len - skip;
	return tuple_read(attribute_find(at, len, CTA_TUPLE_ORIG), ipv4,
			  &original) &&
	       tuple_read(attribute_find(at, len, CTA_TUPLE_REPLY), ipv4,
			  &reply) &&
	       is_inverse(&original, &reply);
}

/* Asks for the entry. What is not understood counts as translated. */
static bool entry_translates(struct kernel *kernel, uint8_t protocol,
			     const struct wire_key *key)
{
	union {
		struct nlmsghdr head;
		char bytes[4096];
	} answer;
	struct request request;
	ssize_t n;

	request_fill(&request, ++kernel->conntrack_seq, protocol, key);
	if (send(kernel->conntrack_fd, &request, request.head.nlmsg_len, 0) < 0)
		return true;
	do
		n = recv(kernel->conntrack_fd, &answer, sizeof(answer), 0);
	while ((n < 0 && errno == EINTR) ||
	       (n >= (ssize_t)sizeof(answer.head) &&
		answer.head.nlmsg_seq != kernel->conntrack_seq));
	return n < (ssize_t)sizeof(answer.head) ||
	       !answer_plain(&answer.head, (size_t)n, key->family == AF_INET);
}

bool conntrack_translates(struct kernel *kernel, int fd,
			  const struct wire_key *key)
{
	return kernel->conntrack_fd >= 0 && !tracks_nothing(kernel) &&
	       is_tracked(fd, key) &&
	       entry_translates(kernel, IPPROTO_TCP, key);
}

/* Connection tracking is loaded: it knows the socket option at least. */
static bool tracking_is_there(int family)
{
	struct sockaddr_storage original;
	socklen_t len = sizeof(original);
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool none;

	if (fd < 0)
		return true;
	none = getsockopt(fd, family == AF_INET ? SOL_IP : SOL_IPV6,
			  ORIGINAL_DESTINATION, &original, &len) < 0 &&
	       (errno == ENOPROTOOPT || errno == EOPNOTSUPP);
	close(fd);
	return !none;
}

bool conntrack_translates_datagrams(struct kernel *kernel,
				    const struct wire_lane_key *key)
{
	struct wire_key ends;

	if (kernel->conntrack_fd < 0 || !tracking_is_there(key->family))
		return false;
	_Static_assert(sizeof(ends) == sizeof(*key), "a key of a lane");
	memcpy(&ends, key, sizeof(ends));
	return entry_translates(kernel, IPPROTO_UDP, &ends);
}
