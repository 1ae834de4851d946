/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A real broker asked for lanes, honestly and otherwise, by this program in the place of
 * a relay's worker; client and peer are in namespaces of their own. What a relay may name
 * is what its own sockets could do.
 */
#include <poll.h>
#include <sys/mman.h>
#include <time.h>

#include "wire_lab.h"

#include "base/addr.h"
#include "base/clock.h"
#include "base/message.h"
#include "broker/broker.h"
#include "engine/wire_proto.h"
#include "loop/loop.h"
#include "unit/packets.h"

#define LANES   4
#define WAIT_MS 5000
#define CHANNEL 0x4001
#define SECOND  1000000000ull

static char pin[64];

static struct rig {
	struct lab lab;
	struct loop *loop;
	struct broker *broker;
	int channel;
	unsigned int channels;
	int lanes_fd; /* of the map, to be read */
	uint64_t id;
	int listener, relayed, client, peer;
	union addr at_listener, at_relayed, at_client, at_peer;
} rig;

static bool hear(uint32_t type, void *out, size_t len, int fds[2])
{
	struct packet_message message;
	uint64_t start = clock_ms();

	while (packet_next(rig.channel, MSG_DONTWAIT, &message)) {
		if (clock_ms() - start > WAIT_MS)
			return false;
		loop_tick(rig.loop, 10);
	}
	if (fds)
		memcpy(fds, message.fds, 2 * sizeof(int));
	memcpy(out, &message.body, len);
	return message.len == len && message.body.type == type &&
	       message.fd_count == (fds ? 2 : 0);
}

/* The broker has closed the channel. */
static bool is_closed(void)
{
	uint64_t start = clock_ms();
	char byte;

	while (recv(rig.channel, &byte, 1, MSG_DONTWAIT) != 0) {
		if (clock_ms() - start > WAIT_MS)
			return false;
		loop_tick(rig.loop, 10);
	}
	return true;
}

static void channel_open(void)
{
	struct broker_hello hello = { .type = BROKER_HELLO,
				      .version = BROKER_PROTOCOL };
	struct broker_welcome welcome;
	int pair[2], fds[2];

	if (rig.channel >= 0)
		close(rig.channel);
	if (rig.lanes_fd >= 0)
		close(rig.lanes_fd);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) ||
	    broker_serve(rig.broker, rig.channels++, pair[1]))
		lab_die("channel");
	rig.channel = pair[0];
	message_send(rig.channel, &hello, sizeof(hello), NULL, 0, 0);
	if (!hear(BROKER_WELCOME, &welcome, sizeof(welcome), fds) ||
	    welcome.lanes != LANES)
		lab_die("WELCOME");
	close(fds[0]);
	rig.lanes_fd = fds[1];
}

/* A socket of datagrams bound to an address, port 0: any; lab_die() if it cannot. */
static int bound_at(const char *host, uint16_t port, int option, union addr *at)
{
	socklen_t len;
	int on = 1, fd;

	if (addr_parse(host, port, at))
		lab_die(host);
	len = addr_len(at);
	fd = socket(addr_family(at), SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (option == IP_FREEBIND)
		setsockopt(fd, IPPROTO_IP, option, &on, sizeof(on));
	else if (option)
		setsockopt(fd, SOL_SOCKET, option, &on, sizeof(on));
	if (fd < 0 || bind(fd, &at->sa, len) || getsockname(fd, &at->sa, &len))
		lab_die(host);
	if (port)
		return fd;
	/* The relay binds by number, which a socket keeps when it is disconnected. */
	port = addr_port(at);
	close(fd);
	return bound_at(host, port, option, at);
}

static int bound_in(pid_t pid, const char *host, union addr *at)
{
	int back = lab_enter(pid), fd = bound_at(host, 0, 0, at);

	lab_leave(back);
	return fd;
}

static void bytes_put(uint8_t out[16], const union addr *addr)
{
	size_t len;
	const uint8_t *bytes = addr_bytes(addr, &len);

	memset(out, 0, 16);
	memcpy(out, bytes, len);
}

static struct broker_lane lane_usual(void)
{
	struct broker_lane msg = {
		.type = BROKER_LANE,
		.channel = CHANNEL,
		.id = ++rig.id,
		.expires_ns = clock_ns() + 100 * SECOND,
		.client_port = htons(addr_port(&rig.at_client)),
		.peer_port = htons(addr_port(&rig.at_peer)),
	};

	bytes_put(msg.client, &rig.at_client);
	bytes_put(msg.local, &rig.at_listener);
	bytes_put(msg.peer, &rig.at_peer);
	return msg;
}

static void lane_send(const struct broker_lane *msg, int listener, int relayed)
{
	const int fds[2] = { listener, relayed };

	message_send(rig.channel, msg, sizeof(*msg), fds, 2, 0);
}

/* WIRE_REASONS: no answer. */
static enum wire_reason asked(const struct broker_lane *msg, int listener,
			      int relayed)
{
	struct broker_lane_answer told;

	lane_send(msg, listener, relayed);
	if (!hear(BROKER_LANE_ANSWER, &told, sizeof(told), NULL) ||
	    told.id != msg->id)
		return WIRE_REASONS;
	return (enum wire_reason)told.reason;
}

static void lane_over(uint64_t id)
{
	struct broker_lane_end end = { .type = BROKER_LANE_END, .id = id };
	uint64_t start = clock_ms();

	message_send(rig.channel, &end, sizeof(end), NULL, 0, 0);
	/* A place rests for a tenth of a second. */
	while (clock_ms() - start < 150)
		loop_tick(rig.loop, 10);
}

static bool gets(int fd, const void *data, size_t len)
{
	struct pollfd ready = { .fd = fd, .events = POLLIN };
	char got[2048];

	return poll(&ready, 1, WAIT_MS) == 1 &&
	       recv(fd, got, sizeof(got), 0) == (ssize_t)len &&
	       !memcmp(got, data, len);
}

static bool is_empty(int fd)
{
	struct pollfd ready = { .fd = fd, .events = POLLIN };

	return poll(&ready, 1, 100) == 0;
}

static const uint8_t channel_data[] = { 0x40, 1, 0, 3, 'a', 'b', 'c' };

static void client_sends(void)
{
	if (sendto(rig.client, channel_data, sizeof(channel_data), 0,
		   &rig.at_listener.sa, addr_len(&rig.at_listener)) < 0)
		lab_die("sendto");
}

/* From client to peer and back without anybody in between. */
static bool crosses(void)
{
	client_sends();
	if (!gets(rig.peer, "abc", 3) ||
	    sendto(rig.peer, "abc", 3, 0, &rig.at_relayed.sa,
		   addr_len(&rig.at_relayed)) < 0)
		return false;
	return gets(rig.client, channel_data, sizeof(channel_data)) &&
	       is_empty(rig.listener) && is_empty(rig.relayed);
}

static void ends_of_open(bool client_v4, bool peer_v4)
{
	rig.listener = bound_at(client_v4 ? "10.1.0.1" : "fd01::1", 0, 0,
				&rig.at_listener);
	rig.relayed = bound_at(peer_v4 ? "10.2.0.1" : "fd02::1", 0, 0,
			       &rig.at_relayed);
	rig.client = bound_in(rig.lab.client,
			      client_v4 ? "10.1.0.2" : "fd01::2",
			      &rig.at_client);
	rig.peer = bound_in(rig.lab.peer, peer_v4 ? "10.2.0.2" : "fd02::2",
			    &rig.at_peer);
}

static void ends_open(void)
{
	ends_of_open(true, true);
}

static void ends_close(void)
{
	close(rig.listener);
	close(rig.relayed);
	close(rig.client);
	close(rig.peer);
}

static void test_life(bool client_v4, bool peer_v4)
{
	struct broker_lane msg;
	union addr taken;
	struct wire_lane lane = { 0 };
	uint32_t zero = 0;
	char name[32];
	int next;

	snprintf(name, sizeof(name), "IPv%d to IPv%d", client_v4 ? 4 : 6,
		 peer_v4 ? 4 : 6);
	ends_of_open(client_v4, peer_v4);
	msg = lane_usual();
	lab_check(asked(&msg, rig.listener, rig.relayed) == WIRE_OK &&
			  crosses(),
		  "%s: the kernel relays both ways", name);
	lab_check(bpf_map_update_elem(rig.lanes_fd, &zero, &lane, 0) &&
			  mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, rig.lanes_fd,
			       0) == MAP_FAILED &&
			  !bpf_map_lookup_elem(rig.lanes_fd, &zero, &lane),
		  "%s: a relay may read lanes and not write them", name);
	/* The relay closes its own: nobody else gets the port. */
	close(rig.relayed);
	taken = rig.at_relayed;
	next = socket(addr_family(&taken), SOCK_DGRAM | SOCK_CLOEXEC, 0);
	lab_check(bind(next, &taken.sa, addr_len(&taken)) < 0 &&
			  errno == EADDRINUSE,
		  "%s: the relayed port stays taken", name);
	lane_over(msg.id);
	lab_check(bind(next, &taken.sa, addr_len(&taken)) == 0,
		  "%s: and is free at the end", name);
	client_sends();
	lab_check(gets(rig.listener, channel_data, sizeof(channel_data)) &&
			  is_empty(rig.peer),
		  "%s: then the listener gets what comes", name);
	rig.relayed = next;
	ends_close();
}

static void refused(const char *what, const struct broker_lane *msg,
		    int listener, int relayed, enum wire_reason why)
{
	enum wire_reason got = asked(msg, listener, relayed);

	lab_check(got == why, "refused: %s", what);
	if (got != why)
		printf("# reason %d\n", got);
	if (got == WIRE_OK)
		lane_over(msg->id);
}

static void test_addresses(void)
{
	struct broker_lane msg;
	union addr any, at;
	int wide, narrow;

	ends_open();
	wide = bound_at("0.0.0.0", 0, SO_REUSEADDR, &any);
	msg = lane_usual();
	lab_check(asked(&msg, wide, rig.relayed) == WIRE_OK,
		  "a listener at all addresses has this one, too");
	lane_over(msg.id);
	msg = lane_usual();
	memcpy(msg.local, (uint8_t[]){ 10, 9, 9, 9 }, 4);
	refused("an address that is not this host's", &msg, wide, rig.relayed,
		WIRE_NO_STATE);
	msg = lane_usual();
	narrow = bound_at("10.1.0.1", addr_port(&any), SO_REUSEADDR, &at);
	refused("one that another socket has", &msg, wide, rig.relayed,
		WIRE_NO_STATE);
	close(narrow);
	msg = lane_usual();
	memcpy(msg.local, (uint8_t[]){ 10, 2, 0, 1 }, 4);
	refused("another address than the listener's", &msg, rig.listener,
		rig.relayed, WIRE_NO_STATE);
	msg = lane_usual();
	refused("a relayed socket without an address", &msg, rig.listener, wide,
		WIRE_NO_LOCAL);
	narrow = bound_at("10.9.9.9", 0, IP_FREEBIND, &at);
	msg = lane_usual();
	refused("a relayed address that is another host's", &msg, rig.listener,
		narrow, WIRE_NO_STATE);
	msg = lane_usual();
	bytes_put(msg.local, &at);
	refused("a listener at another host's address", &msg, narrow,
		rig.relayed, WIRE_NO_STATE);
	close(narrow);
	msg = lane_usual();
	memcpy(msg.peer, (uint8_t[]){ 10, 1, 0, 1 }, 4);
	refused("a peer on this host", &msg, rig.listener, rig.relayed,
		WIRE_NO_DEVICE);
	msg = lane_usual();
	memcpy(msg.peer, (uint8_t[]){ 10, 2, 0, 255 }, 4);
	refused("a broadcast", &msg, rig.listener, rig.relayed, WIRE_NO_DEVICE);
	msg = lane_usual();
	memcpy(msg.peer, (uint8_t[]){ 192, 0, 2, 1 }, 4);
	refused("a peer that no route leads to", &msg, rig.listener,
		rig.relayed, WIRE_NO_DEVICE);
	close(wide);
	ends_close();
}

static void breach(const char *what, int listener, int relayed)
{
	struct broker_lane msg = lane_usual();

	lane_send(&msg, listener, relayed);
	lab_check(is_closed(), "closes the channel: %s", what);
	channel_open();
}

static void test_hostile_descriptors(void)
{
	union addr at;
	int tcp, local, unbound, chosen, foreign, connected, back;

	ends_open();
	tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	local = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	unbound = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	chosen = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	addr_parse("10.2.0.1", 0, &at);
	if (bind(chosen, &at.sa, addr_len(&at)))
		lab_die("bind");
	/* Its address is the relay's, but in another network namespace. */
	back = lab_enter(rig.lab.client);
	lab_run("ip addr add 10.2.0.1/32 dev lo");
	foreign = bound_at("10.2.0.1", addr_port(&rig.at_relayed), 0, &at);
	lab_leave(back);
	connected = bound_at("10.2.0.1", 0, 0, &at);
	if (connect(connected, &rig.at_peer.sa, addr_len(&rig.at_peer)))
		lab_die("connect");
	breach("a TCP socket", tcp, rig.relayed);
	breach("a socket of no network", rig.listener, local);
	breach("an unbound one", rig.listener, unbound);
	breach("one whose port it can give up", rig.listener, chosen);
	breach("one of another namespace", rig.listener, foreign);
	breach("a connected one", rig.listener, connected);
	breach("a file", STDIN_FILENO, rig.relayed);
	close(tcp);
	close(local);
	close(unbound);
	close(chosen);
	close(foreign);
	close(connected);
	back = lab_enter(rig.lab.client);
	lab_run("ip addr del 10.2.0.1/32 dev lo");
	lab_leave(back);
	ends_close();
}

/* Datagrams that this host itself changes must pass its stack. */
static void test_altered(void)
{
	struct broker_lane msg;

	ends_open();
	if (system("ip xfrm policy add dir out src 10.2.0.1 dst 10.2.0.9 "
		   "tmpl proto esp mode transport 2>/dev/null") == 0) {
		msg = lane_usual();
		refused("IPsec is used here", &msg, rig.listener, rig.relayed,
			WIRE_NO_LOCAL);
		lab_run("ip xfrm policy flush");
	} else {
		puts("# no IPsec: not tried");
	}
	if (system("command -v nft >/dev/null")) {
		puts("# no nft: translated addresses are not tried");
		ends_close();
		return;
	}
	lab_run("nft add table ip t");
	lab_run("nft \"add chain ip t out { type nat hook postrouting priority "
		"100; }\"");
	if (sendto(rig.relayed, "x", 1, 0, &rig.at_peer.sa,
		   addr_len(&rig.at_peer)) < 0)
		lab_die("sendto");
	msg = lane_usual();
	lab_check(asked(&msg, rig.listener, rig.relayed) == WIRE_OK,
		  "tracked, but not translated");
	lane_over(msg.id);
	ends_close();
	ends_open();
	lab_run("nft add rule ip t out oifname vp meta l4proto "
		"udp snat to 10.2.0.1:20000-20999");
	if (sendto(rig.relayed, "x", 1, 0, &rig.at_peer.sa,
		   addr_len(&rig.at_peer)) < 0)
		lab_die("sendto");
	msg = lane_usual();
	refused("a source that this host translates", &msg, rig.listener,
		rig.relayed, WIRE_NO_LOCAL);
	lab_run("nft delete table ip t");
	ends_close();
}

static void broker_open(void)
{
	struct broker_params params = {
		.loop = rig.loop, .pin = pin, .pairs = 16, .lanes = LANES
	};

	if (broker_new(&params, &rig.broker) || broker_error(rig.broker))
		lab_die("broker");
	channel_open();
}

/* As of one that was killed: what is pinned stays, and with it the programs. */
static void test_left(void)
{
	struct broker_lane msg;

	ends_open();
	msg = lane_usual();
	lab_check(asked(&msg, rig.listener, rig.relayed) == WIRE_OK &&
			  crosses(),
		  "a lane of a broker that goes away");
	broker_free(rig.broker);
	client_sends();
	lab_check(gets(rig.listener, channel_data, sizeof(channel_data)) &&
			  is_empty(rig.peer),
		  "is not used any more");
	broker_open();
	client_sends();
	lab_check(gets(rig.listener, channel_data, sizeof(channel_data)) &&
			  is_empty(rig.peer),
		  "nor by the next broker, who begins with none");
	msg = lane_usual();
	lab_check(asked(&msg, rig.listener, rig.relayed) == WIRE_OK &&
			  crosses(),
		  "until it is asked for again");
	ends_close();
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	lab_begin(&rig.lab);
	rig.channel = rig.lanes_fd = -1;
	snprintf(pin, sizeof(pin), "/sys/fs/bpf/culvert-lanes-%d", getpid());
	if (loop_new(&rig.loop))
		lab_die("loop");
	broker_open();
	for (int form = 0; form < 4; form++)
		test_life(!(form & 1), !(form & 2));
	test_addresses();
	test_hostile_descriptors();
	test_altered();
	test_left();
	broker_end(rig.broker);
	broker_free(rig.broker);
	close(rig.channel);
	close(rig.lanes_fd);
	loop_free(rig.loop);
	broker_pin_remove(pin);
	return lab_end(&rig.lab);
}
