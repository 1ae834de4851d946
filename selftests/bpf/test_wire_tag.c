/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Frames with a VLAN tag, from packet sockets, for a test run has none: a tag of
 * VLAN 0 is a priority alone, does not cross, and is not on an answer either; a
 * tag of a VLAN is another device's.
 */
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <poll.h>
#include <sys/ioctl.h>

#include "wire_packet.h"

#define PATIENCE 5000 /* milliseconds for a frame to come */

/* A packet socket on eth0 of the namespace of `pid`. */
static int port_open(pid_t pid)
{
	struct sockaddr_ll where = { .sll_family = AF_PACKET,
				     .sll_protocol = htons(ETH_P_ALL) };
	int back = lab_enter(pid), on = 1, fd;

	fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL));
	where.sll_ifindex = (int)if_nametoindex("eth0");
	if (fd < 0 || bind(fd, (struct sockaddr *)&where, sizeof(where)) ||
	    setsockopt(fd, SOL_PACKET, PACKET_AUXDATA, &on, sizeof(on)) ||
	    setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)))
		lab_die("packet socket");
	lab_leave(back);
	return fd;
}

static void device_address(const char *device, uint8_t *to)
{
	struct ifreq request = { 0 };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", device);
	if (fd < 0 || ioctl(fd, SIOCGIFHWADDR, &request))
		lab_die(device);
	memcpy(to, request.ifr_hwaddr.sa_data, ETH_ALEN);
	close(fd);
}

/* w->in from the client's port with this tag, to the relay. */
static void frame_send(struct world *w, int port, uint16_t tag)
{
	uint8_t tagged[FRAME_MOST + 4];
	size_t head = 2 * ETH_ALEN;

	device_address("vc", w->in.data);
	memcpy(tagged, w->in.data, head);
	frame_put16(tagged + head, ETH_P_8021Q);
	frame_put16(tagged + head + 2, tag);
	memcpy(tagged + head + 4, w->in.data + head, w->in.size - head);
	if (send(port, tagged, w->in.size + 4, 0) != (ssize_t)w->in.size + 4)
		lab_die("send");
}

/* Whether the frame in w->out came with a tag, by what the kernel says aside. */
static bool tagged(struct msghdr *message)
{
	struct tpacket_auxdata aux = { 0 };
	struct cmsghdr *c;

	for (c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c))
		if (c->cmsg_level == SOL_PACKET &&
		    c->cmsg_type == PACKET_AUXDATA)
			memcpy(&aux, CMSG_DATA(c), sizeof(aux));
	return aux.tp_status & TP_STATUS_VLAN_VALID;
}

/* The next TCP or packet-too-big from the relay into w->out: untagged and whole. */
static bool arrives(struct world *w, int port)
{
	char control[CMSG_SPACE(sizeof(struct tpacket_auxdata))];
	struct iovec part = { w->out.data, sizeof(w->out.data) };
	struct pollfd ready = { .fd = port, .events = POLLIN };
	bool v4 = w->family == AF_INET;
	uint8_t *ip = w->out.data + HEAD_L3;

	while (poll(&ready, 1, PATIENCE) == 1) {
		struct msghdr message = { .msg_iov = &part,
					  .msg_iovlen = 1,
					  .msg_control = control,
					  .msg_controllen = sizeof(control) };
		ssize_t got = recvmsg(port, &message, MSG_TRUNC);

		if (got < HEAD_L3 + 40 || got > FRAME_MOST)
			continue;
		w->out.size = (size_t)got;
		if (frame_get16(w->out.data + 12) !=
		    (v4 ? ETH_P_IP : ETH_P_IPV6))
			continue;
		if (v4 ? ip[9] == IPPROTO_TCP || frame_l4(&w->out)[0] == 3 :
			 ip[6] == IPPROTO_TCP || frame_l4(&w->out)[0] == 2)
			return !tagged(&message) && frame_right(&w->out);
	}
	return false;
}

/* The client's data at `offset`, as long as `payload`. */
static void data_make(struct world *w, uint32_t offset, size_t payload)
{
	struct craft c = world_craft(w, WIRE_CLIENT);

	c.seq = 2000000 + offset;
	c.payload = payload;
	frame_tcp(&w->in, &c);
}

static uint32_t number(struct world *w)
{
	return frame_get32(frame_l4(&w->out) + 4);
}

static void test_crosses(struct world *w, int near, int far)
{
	const char *name = family_name(w);

	world_join(w, w->family, &spaces_plain);
	data_make(w, 0, 100);
	frame_send(w, near, 5 << 13);
	lab_check(arrives(w, far) && number(w) == 3000000,
		  "%s: with a priority tag, and none on the other side", name);
	data_make(w, 100, 100);
	frame_send(w, near, 1 << 12);
	lab_check(arrives(w, far) && number(w) == 3000100,
		  "%s: one that may be dropped", name);
	data_make(w, 200, 100);
	frame_send(w, near, 5 << 13 | 5);
	data_make(w, 300, 100);
	frame_send(w, near, 0);
	lab_check(arrives(w, far) && number(w) == 3000300,
		  "%s: one of a VLAN does not", name);
}

static void test_answers(struct world *w, int near)
{
	const char *name = family_name(w);
	struct craft c;

	world_join(w, w->family, &spaces_plain);
	data_make(w, 0, 1400);
	frame_send(w, near, 5 << 13);
	lab_check(arrives(w, near) && w->out.size < HEAD_L3 + 100 &&
			  frame_l4(&w->out)[0] ==
				  (w->family == AF_INET ? 3 : 2),
		  "%s: its sender is told of its length", name);
	c = world_craft(w, WIRE_CLIENT);
	c.seq += 1000;
	c.flags = RST;
	frame_tcp(&w->in, &c);
	frame_send(w, near, 5 << 13);
	lab_check(arrives(w, near) && frame_l4(&w->out)[13] == ACK &&
			  frame_get32(frame_l4(&w->out) + 8) == 2000000,
		  "%s: and challenged", name);
}

int main(void)
{
	struct world w;
	int near, far;

	world_open(&w);
	lab_attach(&w.lab, "vc");
	/* The ends' own stacks know nothing of the pair and say nothing. */
	near = port_open(w.lab.client);
	far = port_open(w.lab.peer);
	while (world_next_family(&w)) {
		lab_run("ip link set vp mtu 1500");
		test_crosses(&w, near, far);
		lab_run("ip link set vp mtu 1400");
		test_answers(&w, near);
	}
	close(near);
	close(far);
	return lab_end(&w.lab);
}
