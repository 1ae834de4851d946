/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * UDP sockets.
 *
 * A readable socket is read once per tick, up to RECEIVE_BATCH messages with one
 * recvmmsg(2): the epoll is level triggered, so what is left comes in the next
 * tick, after everybody else. A message is a datagram, or, where the owner lets it,
 * a train: what one sender has sent at once, all of one length but for the last, in
 * one piece of at most 64 KB, as a network device or a sender on this machine has
 * joined it (UDP_GRO); while trains come, so many fewer are read that a tick has about
 * TICK_DATAGRAMS. What is sent is collected in one piece of memory
 * for all sockets of the loop and leaves at the end of the tick, or when that is
 * full, with one sendmmsg(2) per socket that has something to send; datagrams of
 * the same length to the same address go into it as one message that the kernel
 * cuts (UDP_SEGMENT). Nothing waits longer: a datagram that the kernel does not
 * take is dropped and counted, as a router would.
 *
 * A socket that wants to know of failures has an error queue in the kernel. What comes
 * there, from wherever, is also the error of the next call to send, whose own datagram
 * has nothing to do with it: that is tried again, once.
 *
 * A socket bound to a wildcard address asks for the address that each datagram
 * was sent to, so that the answer can leave from there.
 */
#include "transport/udp.h"

#include <errno.h>
#include <linux/errqueue.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/list.h"
#include "base/syscalls.h"

SYSCALLS_SOCKET(SYSCALLS_SUPERVISOR | SYSCALLS_RELAY, AF_INET, 0);
SYSCALLS_SOCKET(SYSCALLS_SUPERVISOR | SYSCALLS_RELAY, AF_INET6, 0);
SYSCALLS(SYSCALLS_SUPERVISOR | SYSCALLS_RELAY,
	 "bind setsockopt getsockopt getsockname");
SYSCALLS(SYSCALLS_RELAY, "recvmmsg recvmsg recvfrom sendmmsg sendmsg sendto");

#define RECEIVE_BATCH 64
#define SEND_BATCH    128
/* More would have others wait for milliseconds, fewer would cost calls. */
#define TICK_DATAGRAMS 256u
#define FAILURE_BATCH  64
#define DATAGRAM_MAX   65535u
/* Not a power of two: the starts shall not share one set of the cache. */
#define RECEIVE_STRIDE (DATAGRAM_MAX + 193u)
#define SEND_BYTES     (256u << 10)
#define SEGMENTS_MAX   64u /* UDP_MAX_SEGMENTS of kernels before 6.9 */
#define SEGMENTED_MAX  65000u /* bytes of one message that is cut */
/* Clients' sockets, best effort: a burst waits here while others are served. */
#define BUFFER_BYTES (4 << 20)
/* Datagrams that a buffer of this size can hold: each counts for more than that. */
#define BUFFER_DATAGRAMS (BUFFER_BYTES / 256)

/* Room for what the kernel says of, or is told about, a datagram. */
#define CONTROL_MAX \
	(CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(sizeof(int)))

struct udp_socket {
	struct watch watch;
	struct udp *udp;
	struct list waiting; /* struct out */
	struct list dirty; /* of udp->dirty while anything waits */
	udp_received_fn received;
	udp_failed_fn failed; /* NULL: nobody wants to know */
	void *arg;
	union addr addr;
	bool wildcard;
	bool trains; /* the kernel may hand over many of one sender as one */
	unsigned int batch; /* messages that the next tick reads at most */
	bool whole; /* the kernel has refused to cut here */
};

/* A datagram that waits to be sent. */
struct out {
	struct list link; /* of socket->waiting */
	struct udp_path path;
	struct iovec bytes;
};

/* A control buffer, aligned as its header must be. */
union control {
	struct cmsghdr align;
	uint8_t bytes[CONTROL_MAX];
};

struct udp {
	struct loop *loop;
	struct list dirty; /* struct udp_socket */
	struct deferred flush;
	uint64_t unsent;

	struct out out[SEND_BATCH];
	size_t out_count, out_bytes;

	/* Of the call to the kernel that is being made. */
	struct mmsghdr messages[SEND_BATCH];
	struct iovec pieces[SEND_BATCH];
	union addr addresses[RECEIVE_BATCH];
	union control controls[SEND_BATCH];

	uint8_t sent[SEND_BYTES];
	uint8_t arrived[(size_t)RECEIVE_BATCH * RECEIVE_STRIDE];
};

static int option_set(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof(value)) < 0 ? -errno :
									0;
}

/* Only root may go beyond the system's limit. */
static void buffer_set(int fd, int forced, int name)
{
	if (option_set(fd, SOL_SOCKET, forced, BUFFER_BYTES))
		option_set(fd, SOL_SOCKET, name, BUFFER_BYTES);
}

/* A claimant asks for SO_REUSEPORT when it is bound, as listener_claim does. */
static int socket_bind(int fd, const union addr *addr, bool claim)
{
	int err = 0;

	if (addr_family(addr) == AF_INET6)
		err = option_set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	if (!err && !claim)
		err = option_set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	if (!err && bind(fd, &addr->sa, addr_len(addr)) < 0)
		err = -errno;
	if (!err && claim)
		err = option_set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	return err;
}

static int socket_make(const union addr *addr, bool claim)
{
	int fd = socket(addr_family(addr),
			SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int err;

	if (fd < 0)
		return -errno;
	err = socket_bind(fd, addr, claim);
	if (err) {
		fd_close(&fd);
		return err;
	}
	buffer_set(fd, SO_RCVBUFFORCE, SO_RCVBUF);
	buffer_set(fd, SO_SNDBUFFORCE, SO_SNDBUF);
	return fd;
}

int udp_open(const union addr *addr)
{
	return socket_make(addr, false);
}

int udp_claim(const union addr *addr)
{
	return socket_make(addr, true);
}

bool udp_is(int fd)
{
	int type = 0;
	socklen_t len = sizeof(type);

	return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 &&
	       type == SOCK_DGRAM;
}

int udp_new(struct loop *loop, struct udp **out)
{
	/* Pages that are never touched are never there. */
	struct udp *udp = calloc(1, sizeof(*udp));

	if (!udp)
		return -ENOMEM;
	udp->loop = loop;
	list_init(&udp->dirty);
	*out = udp;
	return 0;
}

void udp_free(struct udp *udp)
{
	if (!udp)
		return;
	loop_undefer(&udp->flush);
	free(udp);
}

uint64_t udp_unsent(const struct udp *udp)
{
	return udp->unsent;
}

int udp_socket_fd(const struct udp_socket *socket)
{
	return socket->watch.fd;
}

const union addr *udp_socket_addr(const struct udp_socket *socket)
{
	return &socket->addr;
}

/* The address that a datagram was sent to, if it is a host's; its port is the socket's. */
static void local_read(const struct udp_socket *socket, struct msghdr *message,
		       union addr *out)
{
	uint16_t port = addr_port(&socket->addr);
	struct cmsghdr *c;

	*out = socket->addr;
	for (c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
			struct in_pktinfo info;

			memcpy(&info, CMSG_DATA(c), sizeof(info));
			addr_from_bytes(out, AF_INET,
					(uint8_t *)&info.ipi_spec_dst, port);
			/* They differ where it was for more hosts than this. */
			if (info.ipi_addr.s_addr != info.ipi_spec_dst.s_addr)
				*out = (union addr){ 0 };
		} else if (c->cmsg_level == IPPROTO_IPV6 &&
			   c->cmsg_type == IPV6_PKTINFO) {
			struct in6_pktinfo info;

			memcpy(&info, CMSG_DATA(c), sizeof(info));
			addr_from_bytes(out, AF_INET6,
					(uint8_t *)&info.ipi6_addr, port);
			if (IN6_IS_ADDR_MULTICAST(&info.ipi6_addr))
				*out = (union addr){ 0 };
			else if (IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr))
				out->in6.sin6_scope_id = info.ipi6_ifindex;
		}
	}
}

/* The length of each but the last in a train; of a datagram alone its own. */
static size_t stride_read(struct msghdr *message, size_t len)
{
	struct cmsghdr *c;

	for (c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		int size;

		if (c->cmsg_level != SOL_UDP || c->cmsg_type != UDP_GRO)
			continue;
		memcpy(&size, CMSG_DATA(c), sizeof(size));
		if (size > 0)
			return (size_t)size;
	}
	return len;
}

/* Buffers for one batch. */
static void batch_prepare(const struct udp_socket *socket)
{
	const bool asks = socket->wildcard || socket->trains;
	struct udp *udp = socket->udp;

	for (size_t i = 0; i < socket->batch; i++) {
		udp->pieces[i].iov_base = udp->arrived + i * RECEIVE_STRIDE;
		udp->pieces[i].iov_len = DATAGRAM_MAX;
		udp->messages[i].msg_hdr = (struct msghdr){
			.msg_name = &udp->addresses[i],
			.msg_namelen = sizeof(udp->addresses[i]),
			.msg_iov = &udp->pieces[i],
			.msg_iovlen = 1,
			.msg_control = asks ? &udp->controls[i] : NULL,
			.msg_controllen = asks ? sizeof(udp->controls[i]) : 0,
		};
	}
}

/* Is it of ICMP, or ICMPv6? Errors of this host have another origin. */
static bool failure_read(struct msghdr *message, struct udp_failure *out)
{
	struct cmsghdr *c;

	for (c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		struct sock_extended_err said;

		if (!(c->cmsg_level == IPPROTO_IP &&
		      c->cmsg_type == IP_RECVERR) &&
		    !(c->cmsg_level == IPPROTO_IPV6 &&
		      c->cmsg_type == IPV6_RECVERR))
			continue;
		memcpy(&said, CMSG_DATA(c), sizeof(said));
		out->type = said.ee_type;
		out->code = said.ee_code;
		out->mtu = 0;
		if (said.ee_origin == SO_EE_ORIGIN_ICMP &&
		    said.ee_type == ICMP_DEST_UNREACH &&
		    said.ee_code == ICMP_FRAG_NEEDED)
			out->mtu = said.ee_info;
		if (said.ee_origin == SO_EE_ORIGIN_ICMP6 &&
		    said.ee_type == ICMP6_PACKET_TOO_BIG)
			out->mtu = said.ee_info;
		return said.ee_origin == SO_EE_ORIGIN_ICMP ||
		       said.ee_origin == SO_EE_ORIGIN_ICMP6;
	}
	return false;
}

/* What the error queue has. The message headers are for datagrams. */
static void failures_read(struct udp_socket *socket)
{
	union {
		struct cmsghdr align;
		uint8_t bytes[512];
	} control;

	for (int i = 0; i < FAILURE_BATCH; i++) {
		struct udp_failure failure = { .mtu = 0 };
		struct msghdr message = {
			.msg_name = &failure.remote,
			.msg_namelen = sizeof(failure.remote),
			.msg_control = &control,
			.msg_controllen = sizeof(control),
		};

		if (recvmsg(socket->watch.fd, &message,
			    MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
			return;
		if (failure_read(&message, &failure))
			socket->failed(socket->arg, &failure);
	}
}

/* One message's datagrams: one, which may be empty, or a train. */
static void train_handle(struct udp_socket *socket, const struct udp_path *path,
			 const uint8_t *data, size_t len, size_t stride)
{
	for (; len > stride; data += stride, len -= stride)
		socket->received(socket->arg, path, data, stride);
	socket->received(socket->arg, path, data, len);
}

/* As many messages as have a tick's share, judged by these; twice as many at most. */
static void batch_adapt(struct udp_socket *socket, const size_t *lengths,
			const size_t *strides, int count)
{
	size_t datagrams = 0, batch;

	for (int i = 0; i < count; i++)
		datagrams += lengths[i] / (strides[i] ? strides[i] : 1);
	batch = datagrams > TICK_DATAGRAMS ?
			TICK_DATAGRAMS * (size_t)count / datagrams :
			2u * socket->batch;
	socket->batch = batch > RECEIVE_BATCH ? RECEIVE_BATCH :
			batch                 ? (unsigned int)batch :
						1;
}

static void socket_ready(struct watch *watch, uint32_t events)
{
	struct udp_socket *socket = list_entry(watch, struct udp_socket, watch);
	struct udp *udp = socket->udp;
	size_t lengths[RECEIVE_BATCH], strides[RECEIVE_BATCH];
	struct udp_path paths[RECEIVE_BATCH];
	int count;

	if (events & EPOLLERR && socket->failed)
		failures_read(socket);
	batch_prepare(socket);
	count = recvmmsg(watch->fd, udp->messages, socket->batch, MSG_DONTWAIT,
			 NULL);
	/* What is sent meanwhile takes the same message headers. */
	for (int i = 0; i < count; i++) {
		lengths[i] = udp->messages[i].msg_len;
		strides[i] = stride_read(&udp->messages[i].msg_hdr, lengths[i]);
		paths[i].remote = udp->addresses[i];
		local_read(socket, &udp->messages[i].msg_hdr, &paths[i].local);
	}
	if (count > 0)
		batch_adapt(socket, lengths, strides, count);
	for (int i = 0; i < count; i++)
		train_handle(socket, &paths[i],
			     udp->arrived + (size_t)i * RECEIVE_STRIDE,
			     lengths[i], strides[i]);
}

/* Learns what it is bound to, and asks for what it must know of datagrams. */
static int socket_learn(struct udp_socket *socket, int fd)
{
	socklen_t len = sizeof(socket->addr), int_len = sizeof(int);
	int trains = 0;

	if (getsockname(fd, &socket->addr.sa, &len) < 0)
		return -errno;
	/* A descriptor may have been somebody else's before. */
	if (!getsockopt(fd, SOL_UDP, UDP_GRO, &trains, &int_len))
		socket->trains = trains;
	socket->wildcard = addr_is_any(&socket->addr);
	if (!socket->wildcard)
		return 0;
	return addr_family(&socket->addr) == AF_INET6 ?
		       option_set(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1) :
		       option_set(fd, IPPROTO_IP, IP_PKTINFO, 1);
}

int udp_socket_new(struct udp *udp, int fd, udp_received_fn received, void *arg,
		   struct udp_socket **out)
{
	struct udp_socket *socket = calloc(1, sizeof(*socket));
	int err;

	if (!socket)
		return -ENOMEM;
	socket->udp = udp;
	socket->received = received;
	socket->batch = RECEIVE_BATCH;
	socket->arg = arg;
	list_init(&socket->waiting);
	list_init(&socket->dirty);
	err = socket_learn(socket, fd);
	if (!err)
		err = watch_add(udp->loop, &socket->watch, fd, EPOLLIN,
				socket_ready);
	if (err) {
		free(socket);
		return err;
	}
	*out = socket;
	return 0;
}

void udp_socket_free(struct udp_socket *socket)
{
	if (!socket)
		return;
	if (!list_empty(&socket->waiting))
		udp_flush(socket->udp);
	watch_close(socket->udp->loop, &socket->watch);
	free(socket);
}

int udp_socket_failures(struct udp_socket *socket, udp_failed_fn failed)
{
	bool v6 = addr_family(&socket->addr) == AF_INET6;
	int err = option_set(socket->watch.fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP,
			     v6 ? IPV6_RECVERR : IP_RECVERR, 1);

	if (!err)
		socket->failed = failed;
	return err;
}

/* Where the trains among them are to be cut the kernel no longer says. */
static void waiting_drop(const struct udp_socket *socket)
{
	uint8_t byte;

	for (int i = 0; i < BUFFER_DATAGRAMS; i++)
		if (recv(socket->watch.fd, &byte, 1, MSG_DONTWAIT) < 0 &&
		    errno == EAGAIN)
			return;
}

void udp_socket_trains(struct udp_socket *socket, bool on)
{
	/* Kernels before 5.0 hand over each by itself. */
	if (on == socket->trains ||
	    option_set(socket->watch.fd, SOL_UDP, UDP_GRO, on))
		return;
	socket->trains = on;
	if (!on)
		waiting_drop(socket);
}

static void flush_deferred(struct deferred *deferred)
{
	udp_flush(list_entry(deferred, struct udp, flush));
}

uint8_t *udp_send(struct udp_socket *socket, const struct udp_path *path,
		  size_t len)
{
	struct udp *udp = socket->udp;
	struct out *out;

	if (len > DATAGRAM_MAX)
		return NULL;
	if (udp->out_count == SEND_BATCH || udp->out_bytes + len > SEND_BYTES)
		udp_flush(udp);
	if (!udp->out_count)
		loop_defer(udp->loop, &udp->flush, flush_deferred);
	out = &udp->out[udp->out_count++];
	out->path = *path;
	out->bytes.iov_base = udp->sent + udp->out_bytes;
	out->bytes.iov_len = len;
	udp->out_bytes += len;
	if (list_empty(&socket->waiting))
		list_add_tail(&socket->dirty, &udp->dirty);
	list_add_tail(&out->link, &socket->waiting);
	return out->bytes.iov_base;
}

/* Of the socket's own family: a value both families share. */
static int discover_set(const struct udp_socket *socket, int value)
{
	return addr_family(&socket->addr) == AF_INET6 ?
		       option_set(socket->watch.fd, IPPROTO_IPV6,
				  IPV6_MTU_DISCOVER, value) :
		       option_set(socket->watch.fd, IPPROTO_IP, IP_MTU_DISCOVER,
				  value);
}

/*
 * IPv4: with IP_PMTUDISC_DONT the kernel would keep to itself that a datagram sent whole
 * was too big. IPv6 must learn of it: no router cuts there.
 */
void udp_socket_fragments(struct udp_socket *socket)
{
	discover_set(socket, addr_family(&socket->addr) == AF_INET6 ?
				     IPV6_PMTUDISC_DONT :
				     IP_PMTUDISC_OMIT);
}

static ssize_t whole_send(const struct udp_socket *socket, const union addr *to,
			  const uint8_t *data, size_t len)
{
	return sendto(socket->watch.fd, data, len, MSG_NOSIGNAL, &to->sa,
		      addr_len(to));
}

void udp_send_whole(struct udp_socket *socket, const union addr *to,
		    const uint8_t *data, size_t len)
{
	/* What waits may be cut, and comes first. */
	if (!list_empty(&socket->waiting))
		udp_flush(socket->udp);
	/* Not IP_PMTUDISC_DO: what ICMP claims of a path is not to be believed
	 * on behalf of everybody.
	 */
	if (discover_set(socket, IP_PMTUDISC_PROBE) ||
	    (whole_send(socket, to, data, len) < 0 &&
	     (!socket->failed || whole_send(socket, to, data, len) < 0)))
		socket->udp->unsent++;
	udp_socket_fragments(socket);
}

static struct cmsghdr *control_add(struct msghdr *message, int level, int type,
				   const void *data, size_t len)
{
	struct cmsghdr *c = (struct cmsghdr *)((uint8_t *)message->msg_control +
					       message->msg_controllen);

	c->cmsg_level = level;
	c->cmsg_type = type;
	c->cmsg_len = CMSG_LEN(len);
	memcpy(CMSG_DATA(c), data, len);
	message->msg_controllen += CMSG_SPACE(len);
	return c;
}

/* Which address it shall leave from. */
static void local_write(struct msghdr *message, const union addr *local)
{
	if (addr_family(local) == AF_INET) {
		const struct in_pktinfo info = {
			.ipi_spec_dst = local->in4.sin_addr,
		};

		control_add(message, IPPROTO_IP, IP_PKTINFO, &info,
			    sizeof(info));
	} else if (addr_family(local) == AF_INET6) {
		const struct in6_pktinfo info = {
			.ipi6_addr = local->in6.sin6_addr,
			.ipi6_ifindex = local->in6.sin6_scope_id,
		};

		control_add(message, IPPROTO_IPV6, IPV6_PKTINFO, &info,
			    sizeof(info));
	}
}

static bool path_equal(const struct udp_path *a, const struct udp_path *b)
{
	return addr_equal(&a->remote, &b->remote) &&
	       addr_family(&a->local) == addr_family(&b->local) &&
	       (addr_family(&a->local) == AF_UNSPEC ||
		addr_same_host(&a->local, &b->local));
}

/* How many datagrams from `first` on can go as one message that is cut. */
static size_t run_length(const struct udp_socket *socket,
			 const struct out *first)
{
	const size_t size = first->bytes.iov_len;
	size_t count = 1, bytes = size;
	const struct list *pos = first->link.next;

	if (socket->whole || !size)
		return 1;
	for (; pos != &socket->waiting && count < SEGMENTS_MAX;
	     pos = pos->next) {
		const struct out *out = list_entry(pos, struct out, link);

		if (!out->bytes.iov_len || out->bytes.iov_len > size ||
		    bytes + out->bytes.iov_len > SEGMENTED_MAX ||
		    !path_equal(&first->path, &out->path))
			break;
		bytes += out->bytes.iov_len;
		count++;
		if (out->bytes.iov_len < size) /* only the last may be short */
			break;
	}
	return count;
}

/*
 * Makes messages of what waits on a socket; each takes its datagrams off the list.
 * Returns how many messages.
 */
static size_t messages_make(struct udp_socket *socket)
{
	struct udp *udp = socket->udp;
	size_t count = 0, piece = 0;

	while (!list_empty(&socket->waiting)) {
		struct out *out =
			list_entry(socket->waiting.next, struct out, link);
		struct msghdr *message = &udp->messages[count].msg_hdr;
		size_t run = run_length(socket, out);
		uint16_t size = (uint16_t)out->bytes.iov_len;

		*message = (struct msghdr){
			.msg_name = &out->path.remote,
			.msg_namelen = addr_len(&out->path.remote),
			.msg_iov = &udp->pieces[piece],
			.msg_iovlen = run,
			.msg_control = &udp->controls[count],
		};
		if (socket->wildcard)
			local_write(message, &out->path.local);
		if (run > 1)
			control_add(message, SOL_UDP, UDP_SEGMENT, &size,
				    sizeof(size));
		if (!message->msg_controllen)
			message->msg_control = NULL;
		for (size_t i = 0; i < run; i++) {
			out = list_entry(socket->waiting.next, struct out,
					 link);
			udp->pieces[piece++] = out->bytes;
			list_del(&out->link);
		}
		count++;
	}
	return count;
}

/* The kernel will not cut: its datagrams one by one. */
static void run_send(struct udp_socket *socket, const struct msghdr *message)
{
	struct udp *udp = socket->udp;

	for (size_t i = 0; i < message->msg_iovlen; i++) {
		struct msghdr one = *message;

		one.msg_iov = &message->msg_iov[i];
		one.msg_iovlen = 1;
		/* UDP_SEGMENT stands last. */
		one.msg_controllen -= CMSG_SPACE(sizeof(uint16_t));
		if (!one.msg_controllen)
			one.msg_control = NULL;
		if (sendmsg(socket->watch.fd, &one, MSG_NOSIGNAL) < 0 &&
		    (!socket->failed ||
		     sendmsg(socket->watch.fd, &one, MSG_NOSIGNAL) < 0))
			udp->unsent++;
	}
}

/* Of one that was not sent. true: the others would not be either. */
static bool unsent_handle(struct udp_socket *socket, struct mmsghdr *message)
{
	struct udp *udp = socket->udp;
	bool full = errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM;

	if (!full && message->msg_hdr.msg_iovlen > 1) {
		/* EIO: the device cannot sum what is cut, and will not learn
		 * to. Else it is this path's MTU.
		 */
		socket->whole = errno == EIO;
		run_send(socket, &message->msg_hdr);
		return false;
	}
	udp->unsent += message->msg_hdr.msg_iovlen;
	return full;
}

static void socket_flush(struct udp_socket *socket)
{
	struct udp *udp = socket->udp;
	size_t count = messages_make(socket), at = 0, again = SIZE_MAX;
	bool full = false;

	while (at < count && !full) {
		int sent = sendmmsg(socket->watch.fd, udp->messages + at,
				    (unsigned int)(count - at), MSG_NOSIGNAL);

		if (sent > 0) {
			at += (size_t)sent;
			continue;
		}
		if (socket->failed && errno != EAGAIN && again != at) {
			again = at;
			continue;
		}
		full = unsent_handle(socket, &udp->messages[at++]);
	}
	for (; at < count; at++)
		udp->unsent += udp->messages[at].msg_hdr.msg_iovlen;
}

void udp_flush(struct udp *udp)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &udp->dirty) {
		list_del(pos);
		socket_flush(list_entry(pos, struct udp_socket, dirty));
	}
	udp->out_count = 0;
	udp->out_bytes = 0;
}
