/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Real TCP through a pair that was joined by hand, without a broker: bytes and
 * half-closes arrive whole both ways, in both families, with and without
 * offloads, timestamps, SACK and window scaling; the pair ends by itself.
 */
#include <pthread.h>

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

static int on_event(void *context, void *data, size_t size)
{
	const struct wire_event *event = data;
	uint32_t *seen = context;

	(void)size;
	if (event->kind <= WIRE_EVENT_ENDED)
		seen[event->kind]++;
	if (event->kind == WIRE_EVENT_ENDED && event->end != WIRE_END_FIN)
		printf("# ended by %u\n", event->end);
	return 0;
}

/* Until the event has come at least once. */
static bool await(struct ring_buffer *ring, const uint32_t *seen, uint32_t kind)
{
	for (int i = 0; i < EVENT_WAIT / 100 && !seen[kind]; i++)
		ring_buffer__poll(ring, 100);
	return seen[kind] > 0;
}

static void bulk(struct ends *e, size_t up, size_t down, bool *whole)
{
	struct flow flows[4] = {
		{ .fd = e->client, .seed = 1, .length = up },
		{ .fd = e->peer, .seed = 1, .length = up },
		{ .fd = e->peer, .seed = 2, .length = down },
		{ .fd = e->client, .seed = 2, .length = down },
	};
	pthread_t threads[4];

	for (int i = 0; i < 4; i++)
		if (pthread_create(&threads[i], NULL, i & 1 ? receiver : sender,
				   &flows[i]))
			lab_die("thread");
	*whole = true;
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], NULL);
		*whole = *whole && flows[i].good;
	}
}

static void print_counters(struct lab *lab)
{
	for (uint32_t i = 0; i < WIRE_COUNTERS; i++)
		if (lab_counter(lab, i))
			printf("# counter %u: %llu\n", i,
			       (unsigned long long)lab_counter(lab, i));
}

static void transfer(struct lab *lab, uint32_t index, int family,
		     const char *name)
{
	uint8_t answer[ANSWER] = "the answer", got[ANSWER];
	uint32_t seen[2] = { 0, 0 };
	struct wire_pair pair;
	struct ring_buffer *ring;
	struct ends e;
	bool whole = false;

	connect_ends(lab, family, &e);
	ring = ring_buffer__new(bpf_map__fd(lab->wire->maps.wire_events),
				on_event, seen, NULL);
	lab_check(lab_join(lab, index, e.client_leg, e.peer_leg, ANSWER),
		  "%s: joined", name);
	if (send(e.client_leg, answer, ANSWER, 0) != ANSWER ||
	    recv(e.client, got, ANSWER, MSG_WAITALL) != ANSWER)
		lab_die("answer");
	lab_check(!memcmp(answer, got, ANSWER), "%s: the answer came", name);
	bulk(&e, BULK, BULK / 2, &whole);
	lab_check(whole, "%s: whole both ways, half-closed", name);
	lab_check(await(ring, seen, WIRE_EVENT_UNLATCHED), "%s: unlatched",
		  name);
	lab_check(await(ring, seen, WIRE_EVENT_ENDED), "%s: ended", name);
	lab_pair_read(lab, index, &pair);
	lab_check(pair.state == WIRE_ENDED && pair.end == WIRE_END_FIN &&
			  seen[0] == 1 && seen[1] == 1,
		  "%s: by FINs, said once", name);
	lab_silence(e.client_leg);
	lab_silence(e.peer_leg);
	close(e.client);
	close(e.peer);
	ring_buffer__free(ring);
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

int main(void)
{
	struct lab lab;

	if (geteuid() != 0) {
		puts("1..0 # SKIP namespaces and BPF need root");
		return 0;
	}
	lab_links(&lab);
	lab_load(&lab, 16);
	lab_attach(&lab, "vc");
	lab_attach(&lab, "vp");
	transfer(&lab, 0, AF_INET, "IPv4");
	transfer(&lab, 1, AF_INET6, "IPv6");
	everywhere(&lab, "tcp_timestamps", "0");
	transfer(&lab, 2, AF_INET, "IPv4 without timestamps");
	everywhere(&lab, "tcp_sack", "0");
	transfer(&lab, 3, AF_INET6, "IPv6 without timestamps and SACK");
	everywhere(&lab, "tcp_window_scaling", "0");
	transfer(&lab, 4, AF_INET, "IPv4 without any option");
	printf("1..%d\n", lab_number);
	lab_end(&lab);
	return lab_failed;
}
