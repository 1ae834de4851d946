/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Real TCP through a pair that was joined by hand, without a broker: bytes and
 * half-closes arrive whole both ways, in both families, with and without
 * offloads, timestamps, SACK and window scaling, in super-packets beyond 64 KiB
 * and over a path that shrinks after the join; the pair ends by itself.
 */
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <pthread.h>
#include <sys/ioctl.h>

#include "wire_lab.h"

#define ANSWER     48 /* bytes the relay sends to the client after the join */
#define BULK       (8 << 20)
#define EVENT_WAIT 10000 /* milliseconds, at most */

struct flow {
	int fd;
	uint32_t seed;
	size_t length;
	bool good;
};

static void pattern(uint8_t *to, size_t length, uint32_t *state)
{
	for (size_t i = 0; i < length; i++) {
		*state = *state * 1664525 + 1013904223;
		to[i] = *state >> 24;
	}
}

static void *sender(void *arg)
{
	struct flow *flow = arg;
	uint8_t buffer[16384];
	uint32_t state = flow->seed;
	size_t left = flow->length;

	while (left) {
		size_t part = left < sizeof(buffer) ? left : sizeof(buffer);

		pattern(buffer, part, &state);
		for (size_t done = 0; done < part;) {
			ssize_t n = send(flow->fd, buffer + done, part - done,
					 MSG_NOSIGNAL);

			if (n < 0)
				return NULL;
			done += n;
		}
		left -= part;
	}
	flow->good = shutdown(flow->fd, SHUT_WR) == 0;
	return NULL;
}

static void *receiver(void *arg)
{
	struct flow *flow = arg;
	uint8_t buffer[65536], want[65536];
	uint32_t state = flow->seed;
	size_t total = 0;

	for (;;) {
		ssize_t n = recv(flow->fd, buffer, sizeof(buffer), 0);

		if (n < 0) {
			printf("# recv: %s after %zu\n", strerror(errno),
			       total);
			return NULL;
		}
		if (!n)
			break;
		pattern(want, n, &state);
		if (memcmp(want, buffer, n)) {
			printf("# other bytes after %zu\n", total);
			return NULL;
		}
		total += n;
	}
	flow->good = total == flow->length;
	if (!flow->good)
		printf("# %zu bytes of %zu\n", total, flow->length);
	return NULL;
}

/* A listening socket, here; `address` gets where. */
static int listener(int family, const char *host, struct sockaddr_in6 *address,
		    socklen_t *size)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)address;
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memset(address, 0, sizeof(*address));
	address->sin6_family = family;
	*size = family == AF_INET ? sizeof(*v4) : sizeof(*address);
	if (inet_pton(family, host,
		      family == AF_INET ? (void *)&v4->sin_addr :
					  (void *)&address->sin6_addr) != 1 ||
	    fd < 0 || bind(fd, (struct sockaddr *)address, *size) ||
	    listen(fd, 8) || getsockname(fd, (struct sockaddr *)address, size))
		lab_die("listener");
	return fd;
}

static int dial(int family, const struct sockaddr_in6 *to, socklen_t size)
{
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || connect(fd, (const struct sockaddr *)to, size))
		lab_die("connect");
	return fd;
}

struct ends {
	int client, client_leg, peer_leg, peer;
};

static void connect_ends(struct lab *lab, int family, struct ends *e)
{
	const char *ours = family == AF_INET ? "10.1.0.1" : "fd01::1";
	const char *theirs = family == AF_INET ? "10.2.0.2" : "fd02::2";
	struct timeval patience = { .tv_sec = 20 };
	struct sockaddr_in6 address;
	socklen_t size;
	int fd, back;

	fd = listener(family, ours, &address, &size);
	back = lab_enter(lab->client);
	e->client = dial(family, &address, size);
	lab_leave(back);
	e->client_leg = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	close(fd);
	back = lab_enter(lab->peer);
	fd = listener(family, theirs, &address, &size);
	lab_leave(back);
	e->peer_leg = dial(family, &address, size);
	e->peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	close(fd);
	setsockopt(e->client, SOL_SOCKET, SO_RCVTIMEO, &patience,
		   sizeof(patience));
	setsockopt(e->peer, SOL_SOCKET, SO_RCVTIMEO, &patience,
		   sizeof(patience));
	setsockopt(e->client, SOL_SOCKET, SO_SNDTIMEO, &patience,
		   sizeof(patience));
	setsockopt(e->peer, SOL_SOCKET, SO_SNDTIMEO, &patience,
		   sizeof(patience));
}

/* Events of one pair, counted; its end. */
struct news {
	struct ring_buffer *ring;
	uint32_t pair, end;
	uint32_t seen[2];
};

static int on_event(void *context, void *data, size_t size)
{
	const struct wire_event *event = data;
	struct news *news = context;

	(void)size;
	if (event->pair != news->pair || event->kind > WIRE_EVENT_ENDED)
		return 0;
	news->seen[event->kind]++;
	if (event->kind == WIRE_EVENT_ENDED)
		news->end = event->end;
	return 0;
}

static void news_open(struct lab *lab, struct news *news, uint32_t pair)
{
	*news = (struct news){ .pair = pair };
	news->ring = ring_buffer__new(bpf_map__fd(lab->wire->maps.wire_events),
				      on_event, news, NULL);
	if (!news->ring)
		lab_die("ring buffer");
}

/* Until the event has come at least once. */
static bool await(struct news *news, uint32_t kind)
{
	for (int i = 0; i < EVENT_WAIT / 100 && !news->seen[kind]; i++)
		ring_buffer__poll(news->ring, 100);
	return news->seen[kind] > 0;
}

/*
 * Bytes both ways and half-closes, while the relay does its part: it closes
 * both sockets in silence when the last latch is cleared.
 */
static bool bulk(struct ends *e, struct news *news, size_t up, size_t down)
{
	struct flow flows[4] = {
		{ .fd = e->client, .seed = 1, .length = up },
		{ .fd = e->peer, .seed = 1, .length = up },
		{ .fd = e->peer, .seed = 2, .length = down },
		{ .fd = e->client, .seed = 2, .length = down },
	};
	pthread_t threads[4];
	bool whole = true;

	for (int i = 0; i < 4; i++)
		if (pthread_create(&threads[i], NULL, i & 1 ? receiver : sender,
				   &flows[i]))
			lab_die("thread");
	await(news, WIRE_EVENT_UNLATCHED);
	lab_silence(e->client_leg);
	lab_silence(e->peer_leg);
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], NULL);
		whole = whole && flows[i].good;
	}
	return whole;
}

static void print_counters(struct lab *lab)
{
	for (uint32_t i = 0; i < WIRE_COUNTERS; i++)
		if (lab_counter(lab, i))
			printf("# counter %u: %llu\n", i,
			       (unsigned long long)lab_counter(lab, i));
}

/* Connects, joins, sends the answer and BULK bytes. */
static void transfer(struct lab *lab, uint32_t index, int family,
		     const char *name)
{
	uint8_t answer[ANSWER] = "the answer", got[ANSWER];
	struct wire_pair pair;
	struct news news;
	struct ends e;

	connect_ends(lab, family, &e);
	news_open(lab, &news, index);
	lab_check(lab_join(lab, index, e.client_leg, e.peer_leg, ANSWER),
		  "%s: joined", name);
	if (send(e.client_leg, answer, ANSWER, 0) != ANSWER ||
	    recv(e.client, got, ANSWER, MSG_WAITALL) != ANSWER)
		lab_die("answer");
	lab_check(!memcmp(answer, got, ANSWER), "%s: the answer came", name);
	lab_check(bulk(&e, &news, BULK, BULK / 2),
		  "%s: whole both ways, half-closed", name);
	lab_check(await(&news, WIRE_EVENT_ENDED), "%s: ended", name);
	lab_pair_read(lab, index, &pair);
	lab_check(pair.state == WIRE_ENDED && pair.end == WIRE_END_FIN &&
			  news.end == WIRE_END_FIN && news.seen[0] == 1 &&
			  news.seen[1] == 1,
		  "%s: unlatched, then ended by FINs, each said once", name);
	close(e.client);
	close(e.peer);
	ring_buffer__free(news.ring);
	print_counters(lab);
}

/* Both ends and the relay: every socket made from now on. */
static void everywhere(struct lab *lab, const char *key, const char *value)
{
	char command[256];

	snprintf(command, sizeof(command), "echo %s >/proc/sys/net/ipv4/%s",
		 value, key);
	lab_run("%s", command);
	lab_run_in(lab->client, command);
	lab_run_in(lab->peer, command);
}

/* Checksums, segmentation and aggregation by the device, in its namespace. */
static void offload(pid_t pid, const char *device, uint32_t on)
{
	static const uint32_t features[] = { ETHTOOL_STXCSUM, ETHTOOL_SSG,
					     ETHTOOL_STSO, ETHTOOL_SGSO,
					     ETHTOOL_SGRO };
	int back = lab_enter(pid), fd = socket(AF_INET, SOCK_DGRAM, 0);

	for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
		struct ethtool_value value = { features[i], on };
		struct ifreq request = { .ifr_data = (void *)&value };

		snprintf(request.ifr_name, sizeof(request.ifr_name), "%s",
			 device);
		if (ioctl(fd, SIOCETHTOOL, &request))
			lab_die(device);
	}
	close(fd);
	lab_leave(back);
}

static void offload_all(struct lab *lab, uint32_t on)
{
	offload(lab->client, "eth0", on);
	offload(lab->peer, "eth0", on);
	offload(getpid(), "vc", on);
	offload(getpid(), "vp", on);
}

/* Super-packets of more than 64 KiB, where ip(8) and the kernel know them. */
static void test_big(struct lab *lab)
{
	static const char sizes[] = "gso_max_size 200000 gro_max_size 200000 "
				    "gso_ipv4_max_size 200000 "
				    "gro_ipv4_max_size 200000";
	char command[256];

	snprintf(command, sizeof(command),
		 "ip link set vc %s 2>/dev/null && ip link set vp %s", sizes,
		 sizes);
	if (system(command) != 0) {
		snprintf(command, sizeof(command),
			 "ip link set vc %.39s && ip link set vp %.39s", sizes,
			 sizes);
		lab_run("%s", command);
		snprintf(command, sizeof(command), "ip link set eth0 %.39s",
			 sizes);
	} else {
		snprintf(command, sizeof(command), "ip link set eth0 %s",
			 sizes);
	}
	lab_run_in(lab->client, command);
	lab_run_in(lab->peer, command);
	transfer(lab, 7, AF_INET, "IPv4 big");
	transfer(lab, 8, AF_INET6, "IPv6 big");
}

/* The way to the peer narrows when both ends have agreed on 1460. */
static void test_shrinks(struct lab *lab, uint32_t index, int family,
			 const char *name)
{
	uint64_t told = lab_counter(lab, WIRE_COUNT_TOO_BIG_SENT);
	/* In the place of the kernel's own, which has this metric for IPv6. */
	const char *route = family == AF_INET ? "10.2.0.0/24 dev vp" :
						"fd02::/64 dev vp metric 256";

	/* What the client has learnt of earlier. */
	lab_run_in(lab->client,
		   "ip route flush cache; ip -6 route flush cache");
	lab_run("ip route replace %s mtu lock 1300", route);
	transfer(lab, index, family, name);
	told = lab_counter(lab, WIRE_COUNT_TOO_BIG_SENT) - told;
	lab_check(told > 0 && told < 20, "%s: the client was told (%u times)",
		  name, (unsigned int)told);
	lab_run("ip route replace %s", route);
}

/*
 * Our clock runs ahead of the peer's, which is what a slow clock at the peer comes
 * to: what the relay sends late must not make the client refuse what follows.
 */
static void test_clock(struct lab *lab, uint32_t index, int family,
		       const char *name)
{
	int on = 1, off = TCP_REPAIR_OFF_NO_WP;
	socklen_t size = sizeof(uint32_t);
	uint8_t got[ANSWER] = { 0 };
	struct ends e;
	uint32_t now;

	connect_ends(lab, family, &e);
	lab_check(lab_join(lab, index, e.client_leg, e.peer_leg, ANSWER),
		  "%s: joined", name);
	if (setsockopt(e.client_leg, IPPROTO_TCP, TCP_REPAIR, &on,
		       sizeof(on)) ||
	    getsockopt(e.client_leg, IPPROTO_TCP, TCP_TIMESTAMP, &now, &size))
		lab_die("repair");
	now += 3600000;
	if (setsockopt(e.client_leg, IPPROTO_TCP, TCP_TIMESTAMP, &now, size) ||
	    setsockopt(e.client_leg, IPPROTO_TCP, TCP_REPAIR, &off,
		       sizeof(off)))
		lab_die("clock");
	lab_check(send(e.client_leg, got, ANSWER, 0) == ANSWER &&
			  recv(e.client, got, ANSWER, MSG_WAITALL) == ANSWER,
		  "%s: the answer came", name);
	lab_check(send(e.peer, got, ANSWER, 0) == ANSWER &&
			  recv(e.client, got, ANSWER, MSG_WAITALL) == ANSWER,
		  "%s: and the peer's bytes behind it", name);
	lab_silence(e.client_leg);
	lab_silence(e.peer_leg);
	close(e.client);
	close(e.peer);
}

int main(void)
{
	struct lab lab;

	lab_begin(&lab);
	lab_load(&lab, 16);
	lab_attach(&lab, "vc");
	lab_attach(&lab, "vp");
	transfer(&lab, 0, AF_INET, "IPv4");
	transfer(&lab, 1, AF_INET6, "IPv6");
	test_clock(&lab, 13, AF_INET, "IPv4, a clock ahead");
	test_clock(&lab, 14, AF_INET6, "IPv6, a clock ahead");
	test_shrinks(&lab, 5, AF_INET, "IPv4, a path that shrinks");
	test_shrinks(&lab, 6, AF_INET6, "IPv6, a path that shrinks");
	test_big(&lab);
	offload_all(&lab, 0);
	transfer(&lab, 9, AF_INET, "IPv4 without offloads");
	transfer(&lab, 10, AF_INET6, "IPv6 without offloads");
	test_shrinks(&lab, 11, AF_INET, "IPv4, shrinks, without offloads");
	test_shrinks(&lab, 12, AF_INET6, "IPv6, shrinks, without offloads");
	offload_all(&lab, 1);
	everywhere(&lab, "tcp_timestamps", "0");
	transfer(&lab, 2, AF_INET, "IPv4 without timestamps");
	everywhere(&lab, "tcp_sack", "0");
	transfer(&lab, 3, AF_INET6, "IPv6 without timestamps and SACK");
	everywhere(&lab, "tcp_window_scaling", "0");
	transfer(&lab, 4, AF_INET, "IPv4 without any option");
	return lab_end(&lab);
}
