/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A real broker in the relay's place between a client and a peer, all in network
 * namespaces of this program: it takes the relay worker's part itself, honestly
 * and otherwise.
 */
#include <dirent.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>

#include "wire_lab.h"

#include "base/addr.h"
#include "base/fd.h"
#include "base/message.h"
#include "broker/broker.h"
#include "broker/kernel.h"
#include "engine/wire_proto.h"
#include "loop/loop.h"
#include "main/privilege.h"
#include "unit/packets.h"

#define PAIRS   64
#define WAIT_MS 10000
#define ANSWER  48 /* bytes the relay still sends to the client */

static char pin[64];

/* The devices that a broker is told to use; 0: it finds them. */
static const char *const devices[] = { "vc", "vp" };
static size_t device_count;

/* The broker in a child; served over `control`, ended by a byte, left by EOF. */
struct child {
	pid_t pid;
	int control;
};

struct child_state {
	struct loop *loop;
	struct broker *broker;
	struct watch control;
	unsigned int channels; /* so far */
	bool end;
};

static void control_ready(struct watch *watch, uint32_t events)
{
	struct child_state *state =
		list_entry(watch, struct child_state, control);
	struct message came;
	char byte;
	int err = message_recv(watch->fd, &byte, 1, 1, 0, &came);

	(void)events;
	if (!err && came.fd_count) {
		broker_serve(state->broker, state->channels++, came.fds[0]);
		return;
	}
	state->end = !err;
	loop_stop(state->loop);
}

static void child_run(int control, bool clsact, unsigned int pairs)
{
	struct child_state state = { .control = { .fd = -1 } };
	struct broker_params params = { .pin = pin,
					.pairs = pairs,
					.devices = devices,
					.device_count = device_count,
					.clsact = clsact };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* The ends of the connections are not the broker's. */
	if (dup2(control, STDERR_FILENO + 1) < 0 ||
	    close_range(STDERR_FILENO + 2, ~0U, 0))
		_exit(1);
	control = STDERR_FILENO + 1;
	if (loop_new(&state.loop))
		_exit(1);
	params.loop = state.loop;
	if (broker_new(&params, &state.broker))
		_exit(1);
	broker_confine(state.broker);
	watch_add(state.loop, &state.control, control, 1, control_ready);
	loop_run(state.loop);
	if (state.end)
		broker_end(state.broker);
	watch_del(state.loop, &state.control);
	broker_free(state.broker);
	loop_free(state.loop);
	_exit(0);
}

static struct child child_start(bool clsact, unsigned int pairs)
{
	struct child child;
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		lab_die("socketpair");
	fflush(stdout);
	child.pid = fork();
	if (child.pid < 0)
		lab_die("fork");
	if (!child.pid) {
		close(pair[0]);
		child_run(pair[1], clsact, pairs);
	}
	close(pair[1]);
	child.control = pair[0];
	return child;
}

/* How it ended: true for an orderly exit. */
static bool child_wait(struct child *child)
{
	int status = -1;

	close(child->control);
	waitpid(child->pid, &status, 0);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static bool child_end(struct child *child)
{
	if (send(child->control, "q", 1, MSG_NOSIGNAL) != 1)
		return false;
	return child_wait(child);
}

/* A channel to the broker. */
static int channel_open(const struct child *child)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		lab_die("socketpair");
	message_send(child->control, "c", 1, &pair[1], 1, 0);
	close(pair[1]);
	return pair[0];
}

static bool readable(int fd, int ms)
{
	struct pollfd one = { .fd = fd, .events = POLLIN };

	return poll(&one, 1, ms) == 1;
}

/* One message of this type; others on the way are dropped. */
static bool message_wait(int channel, uint32_t type, void *out, size_t len,
			 int *fd)
{
	for (;;) {
		struct packet_message message;

		if ((!packet_waits(channel) && !readable(channel, WAIT_MS)) ||
		    packet_next(channel, 0, &message))
			return false;
		if (message.body.type != type || message.len != len) {
			packet_message_close(&message);
			continue;
		}
		memcpy(out, &message.body, len);
		if (fd && message.fd_count)
			*fd = message.fds[--message.fd_count];
		packet_message_close(&message);
		return true;
	}
}

/* The broker has closed the channel. */
static bool closed(int channel)
{
	char bytes[256];
	ssize_t n;

	while (readable(channel, WAIT_MS)) {
		n = recv(channel, bytes, sizeof(bytes), 0);
		if (n <= 0)
			return true;
	}
	return false;
}

static bool hello(int channel, bool adopts, int *records)
{
	struct broker_hello message = { .type = BROKER_HELLO,
					.version = BROKER_PROTOCOL,
					.adopts = adopts };
	struct broker_welcome welcome;
	int fd = -1;

	send(channel, &message, sizeof(message), MSG_NOSIGNAL);
	if (!message_wait(channel, BROKER_WELCOME, &welcome, sizeof(welcome),
			  &fd)) {
		puts("# no WELCOME");
		return false;
	}
	if (welcome.error || welcome.capacity != PAIRS || fd < 0) {
		printf("# WELCOME: %d %s\n", welcome.error, welcome.why);
		return false;
	}
	if (records)
		*records = fd;
	else
		close(fd);
	return true;
}

static struct wire_pair record(int records, uint32_t index)
{
	struct wire_pair pair = { .state = 99 };

	if (bpf_map_lookup_elem(records, &index, &pair))
		printf("# lookup: %s\n", strerror(errno));
	return pair;
}

/* The relay's own try, with what it is left: pinned, it might be opened anew. */
static bool record_pinnable(int records)
{
	const struct privilege_user user = { .change = false };
	pid_t parent = getpid(), pid;
	char path[80];
	int status = -1;

	snprintf(path, sizeof(path), "%s-stolen", pin);
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		lab_die("fork");
	if (!pid)
		_exit(privilege_relay(&user, NULL, false, parent) ||
		      !bpf_obj_pin(records, path));
	waitpid(pid, &status, 0);
	unlink(path);
	return status != 0;
}

static bool record_writable(int records)
{
	struct wire_pair pair = { 0 };
	uint32_t index = 0;

	return bpf_map_update_elem(records, &index, &pair, BPF_ANY) == 0 ||
	       mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, records,
		    0) != MAP_FAILED;
}

/* The four ends of two connections through this host. */
struct ends {
	int client, client_leg, peer_leg, peer;
	int listener; /* the relay's own, still open */
};

static int listen_on(int family, const char *host, union addr *at)
{
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
	socklen_t size;

	if (addr_parse(host, 0, at))
		lab_die(host);
	size = addr_len(at);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (fd < 0 || bind(fd, &at->sa, size) || listen(fd, 64) ||
	    getsockname(fd, &at->sa, &size))
		lab_die("listen");
	return fd;
}

static int dial(const union addr *to)
{
	int fd = socket(addr_family(to), SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || connect(fd, &to->sa, addr_len(to)))
		lab_die("connect");
	return fd;
}

static void ends_open(struct lab *lab, int family, struct ends *e)
{
	union addr at;
	int back, listener;

	e->listener = listen_on(
		family, family == AF_INET ? "10.1.0.1" : "fd01::1", &at);
	back = lab_enter(lab->client);
	e->client = dial(&at);
	lab_leave(back);
	e->client_leg = accept4(e->listener, NULL, NULL, SOCK_CLOEXEC);
	back = lab_enter(lab->peer);
	listener = listen_on(family, family == AF_INET ? "10.2.0.2" : "fd02::2",
			     &at);
	lab_leave(back);
	e->peer_leg = dial(&at);
	e->peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	close(listener);
}

static void ends_close(struct ends *e)
{
	int *all[] = { &e->client, &e->client_leg, &e->peer_leg, &e->peer,
		       &e->listener };

	for (size_t i = 0; i < 5; i++) {
		if (*all[i] >= 0)
			close(*all[i]);
		*all[i] = -1;
	}
}

static struct broker_join join_message(uint32_t ticket)
{
	struct broker_join join = { .type = BROKER_JOIN,
				    .ticket = ticket,
				    .to_client = ANSWER,
				    .allocation = 7 };

	strcpy(join.label, "alice@test");
	return join;
}

static uint32_t join_send(int channel, const struct broker_join *join,
			  const struct ends *e, struct broker_answer *answer)
{
	int fds[2] = { e->client_leg, e->peer_leg };

	message_send(channel, join, sizeof(*join), fds, 2, 0);
	if (!message_wait(channel, BROKER_ANSWER, answer, sizeof(*answer),
			  NULL) ||
	    answer->ticket != join->ticket)
		return UINT32_MAX;
	return answer->reason;
}

static bool take(int fd, size_t len)
{
	char bytes[4096];

	while (len) {
		size_t part = len < sizeof(bytes) ? len : sizeof(bytes);
		ssize_t n = readable(fd, WAIT_MS) ? recv(fd, bytes, part, 0) :
						    -1;

		if (n <= 0)
			return false;
		len -= (size_t)n;
	}
	return true;
}

/* Joined, the answer sent and acknowledged, both our sockets closed. */
static bool join_whole(int channel, struct ends *e,
		       struct broker_answer *answer)
{
	struct broker_join join = join_message(1);
	struct broker_active active;
	char bytes[ANSWER] = { 0 };
	uint32_t reason = join_send(channel, &join, e, answer);

	if (reason) {
		printf("# join: reason %u\n", reason);
		return false;
	}
	if (send(e->client_leg, bytes, ANSWER, MSG_NOSIGNAL) != ANSWER ||
	    !take(e->client, ANSWER))
		return false;
	if (!message_wait(channel, BROKER_ACTIVE, &active, sizeof(active),
			  NULL) ||
	    active.pair != answer->pair)
		return false;
	close(e->client_leg);
	close(e->peer_leg);
	e->client_leg = -1;
	e->peer_leg = -1;
	return true;
}

/* `len` known bytes from one end to the other. */
static bool transfer(int from, int to, size_t len, uint32_t seed)
{
	uint32_t out = seed, in = seed;
	size_t sent = 0, got = 0;

	while (got < len) {
		struct pollfd both[2] = {
			{ .fd = sent < len ? from : -1, .events = POLLOUT },
			{ .fd = to, .events = POLLIN },
		};
		uint8_t bytes[16384];

		if (poll(both, 2, WAIT_MS) <= 0)
			return false;
		if (both[0].revents) {
			size_t part = len - sent;
			uint32_t state = out;
			ssize_t n;

			if (part > sizeof(bytes))
				part = sizeof(bytes);
			for (size_t i = 0; i < part; i++)
				bytes[i] = (uint8_t)((state = state * 1664525 +
							      1013904223) >>
						     24);
			n = send(from, bytes, part,
				 MSG_DONTWAIT | MSG_NOSIGNAL);
			if (n < 0 && errno != EAGAIN)
				return false;
			for (ssize_t i = 0; i < n; i++)
				out = out * 1664525 + 1013904223;
			sent += n > 0 ? (size_t)n : 0;
		}
		if (both[1].revents) {
			ssize_t n = recv(to, bytes, sizeof(bytes), 0);

			if (n <= 0)
				return false;
			for (ssize_t i = 0; i < n; i++)
				if (bytes[i] != (uint8_t)((in = in * 1664525 +
								1013904223) >>
							  24))
					return false;
			got += (size_t)n;
		}
	}
	return true;
}

static bool at_end(int fd)
{
	char byte;

	return readable(fd, WAIT_MS) && recv(fd, &byte, 1, 0) == 0;
}

static bool is_reset(int fd)
{
	char byte;

	return readable(fd, WAIT_MS) && recv(fd, &byte, 1, 0) < 0 &&
	       errno == ECONNRESET;
}

static bool ended_wait(int channel, uint32_t end, struct broker_ended *out)
{
	struct broker_ended ended;

	if (!message_wait(channel, BROKER_ENDED, &ended, sizeof(ended), NULL)) {
		puts("# no ENDED");
		return false;
	}
	if (ended.end != end)
		printf("# end %u, not %u\n", ended.end, end);
	if (out)
		*out = ended;
	return ended.end == end;
}

static void test_life(struct lab *lab, int channel, int family)
{
	const char *name = family == AF_INET ? "IPv4" : "IPv6";
	struct broker_answer answer;
	struct broker_ended ended = { 0 };
	struct ends e;
	bool joined;

	ends_open(lab, family, &e);
	joined = join_whole(channel, &e, &answer);
	lab_check(joined, "%s: joined and active", name);
	lab_check(joined && transfer(e.client, e.peer, 3 << 20, 1) &&
			  transfer(e.peer, e.client, 5 << 20, 2),
		  "%s: bytes cross both ways", name);
	shutdown(e.client, SHUT_WR);
	lab_check(at_end(e.peer) && transfer(e.peer, e.client, 100000, 3),
		  "%s: half-closed, the other half goes on", name);
	shutdown(e.peer, SHUT_WR);
	lab_check(at_end(e.client) && ended_wait(channel, WIRE_END_FIN, &ended),
		  "%s: ended in order", name);
	lab_check(ended.bytes[WIRE_PEER] == 3 << 20 &&
			  ended.bytes[WIRE_CLIENT] == (5 << 20) + 100000,
		  "%s: the counts are exact (%llu, %llu)", name,
		  (unsigned long long)ended.bytes[0],
		  (unsigned long long)ended.bytes[1]);
	ends_close(&e);
}

static void test_reset(struct lab *lab, int channel, int family)
{
	const char *name = family == AF_INET ? "IPv4" : "IPv6";
	struct broker_answer answer = { 0 };
	struct broker_reset reset = { .type = BROKER_RESET };
	struct linger at_once = { .l_onoff = 1 };
	struct ends e;

	ends_open(lab, family, &e);
	if (!join_whole(channel, &e, &answer) ||
	    !transfer(e.client, e.peer, 1000, 1))
		lab_check(false, "%s: joined for a reset", name);
	reset.pair = answer.pair;
	reset.generation = answer.generation;
	send(channel, &reset, sizeof(reset), MSG_NOSIGNAL);
	lab_check(ended_wait(channel, WIRE_END_RESET, NULL) &&
			  is_reset(e.client) && is_reset(e.peer),
		  "%s: RESET resets both ends, with the listener there", name);
	ends_close(&e);

	ends_open(lab, family, &e);
	lab_check(join_whole(channel, &e, &answer) &&
			  transfer(e.client, e.peer, 1000, 1),
		  "%s: joined for the client's reset", name);
	setsockopt(e.client, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	close(e.client);
	e.client = -1;
	lab_check(is_reset(e.peer) &&
			  ended_wait(channel, WIRE_END_RESET_CLIENT, NULL),
		  "%s: a reset of the client reaches the peer", name);
	ends_close(&e);
}

static void test_reset_latched(struct lab *lab, int channel)
{
	struct broker_join join = join_message(4);
	struct broker_reset reset = { .type = BROKER_RESET };
	struct broker_answer answer = { 0 };
	struct ends e;
	bool joined;

	ends_open(lab, AF_INET, &e);
	joined = !join_send(channel, &join, &e, &answer);
	reset.pair = answer.pair;
	reset.generation = answer.generation;
	send(channel, &reset, sizeof(reset), MSG_NOSIGNAL);
	lab_check(joined && ended_wait(channel, WIRE_END_RESET, NULL) &&
			  is_reset(e.client) && is_reset(e.peer),
		  "one whose answer was never sent can be reset");
	ends_close(&e);
}

/* As a reset leaves it that had come by when the programs began to look. */
static void leg_close(int fd)
{
	struct sockaddr none = { .sa_family = AF_UNSPEC };
	int on = 1;

	if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)) ||
	    connect(fd, &none, sizeof(none)))
		lab_die("repair");
}

static void test_reset_swallowed(struct lab *lab, int channel)
{
	struct broker_join join = join_message(11);
	struct broker_answer answer;
	char bytes[ANSWER] = { 0 };
	struct ends e;
	bool joined;

	ends_open(lab, AF_INET, &e);
	joined = !join_send(channel, &join, &e, &answer);
	leg_close(e.peer_leg);
	send(e.client_leg, bytes, ANSWER, MSG_NOSIGNAL);
	lab_check(joined && take(e.client, ANSWER) &&
			  ended_wait(channel, WIRE_END_RESET_PEER, NULL) &&
			  is_reset(e.client),
		  "a reset that only our socket has seen reaches the client");
	ends_close(&e);
	ends_open(lab, AF_INET6, &e);
	joined = !join_send(channel, &join, &e, &answer);
	leg_close(e.client_leg);
	lab_check(joined && ended_wait(channel, WIRE_END_RESET_CLIENT, NULL) &&
			  is_reset(e.peer),
		  "and the peer, though the client acknowledges nothing");
	ends_close(&e);
}

#define CROWD 6

/* Pairs that are active, and then end all at once. */
static bool crowd_ends(struct lab *lab, int channel, int count)
{
	struct broker_answer answer;
	struct ends e[CROWD];
	bool good = true;

	for (int i = 0; i < count; i++) {
		ends_open(lab, AF_INET, &e[i]);
		good = good && join_whole(channel, &e[i], &answer);
	}
	for (int i = 0; i < count; i++)
		fd_reset(&e[i].client);
	for (int i = 0; i < count; i++) {
		good = good && ended_wait(channel, WIRE_END_RESET_CLIENT, NULL);
		ends_close(&e[i]);
	}
	return good;
}

/* The sweep, which finds what no event told, comes by once a second. */
static void test_events(struct lab *lab, int channel)
{
	struct timespec begin, end;
	bool good = true;

	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (int i = 0; i < 8 && good; i++)
		good = crowd_ends(lab, channel, i % 2 ? CROWD : 1);
	clock_gettime(CLOCK_MONOTONIC, &end);
	lab_check(good && end.tv_sec - begin.tv_sec < 4,
		  "ends are told at once, of one pair and of a crowd");
}

static void test_expiry(struct lab *lab, int channel)
{
	struct broker_expire expire = { .type = BROKER_EXPIRE,
					.allocation = 7 };
	struct broker_answer answer;
	struct timespec now;
	struct ends e;
	bool joined;

	ends_open(lab, AF_INET, &e);
	joined = join_whole(channel, &e, &answer);
	clock_gettime(CLOCK_MONOTONIC, &now);
	expire.expires_ns = (uint64_t)now.tv_sec * 1000000000u;
	send(channel, &expire, sizeof(expire), MSG_NOSIGNAL);
	lab_check(joined && ended_wait(channel, WIRE_END_EXPIRED, NULL) &&
			  is_reset(e.client) && is_reset(e.peer),
		  "an expired pair is reset at both ends");
	ends_close(&e);
}

static void test_unlatched_at_once(struct lab *lab, int channel)
{
	struct broker_join join = join_message(9);
	struct broker_answer answer;
	struct broker_active active;
	struct ends e;

	ends_open(lab, AF_INET, &e);
	join.to_client = 0;
	lab_check(!join_send(channel, &join, &e, &answer) &&
			  message_wait(channel, BROKER_ACTIVE, &active,
				       sizeof(active), NULL),
		  "with nothing left to send the pair is active at once");
	close(e.client_leg);
	close(e.peer_leg);
	e.client_leg = e.peer_leg = -1;
	lab_check(transfer(e.client, e.peer, 100000, 1) &&
			  transfer(e.peer, e.client, 100000, 1),
		  "and carries bytes");
	close(e.client);
	close(e.peer);
	e.client = e.peer = -1;
	lab_check(ended_wait(channel, WIRE_END_FIN, NULL), "and ends");
	ends_close(&e);
}

static void test_adoption(struct lab *lab, struct child *child, int *channel)
{
	struct wire_pair pair;
	int records = -1;
	struct broker_claim claim = { .type = BROKER_CLAIM };
	struct broker_reset reset = { .type = BROKER_RESET };
	struct broker_answer first, second, latched;
	struct broker_join join = join_message(3);
	struct broker_active active;
	struct ends e, f, g;
	bool joined;

	ends_open(lab, AF_INET, &e);
	ends_open(lab, AF_INET6, &f);
	ends_open(lab, AF_INET, &g);
	joined = join_whole(*channel, &e, &first) &&
		 join_whole(*channel, &f, &second) &&
		 !join_send(*channel, &join, &g, &latched);
	lab_check(joined, "two pairs are active, one is latched");
	kill(child->pid, SIGKILL);
	child_wait(child);
	lab_check(closed(*channel), "the broker is killed");
	close(*channel);
	/* As a relay does that loses its broker. */
	fd_reset(&g.client_leg);
	fd_reset(&g.peer_leg);
	lab_check(transfer(e.client, e.peer, 1 << 20, 1) &&
			  transfer(f.peer, f.client, 1 << 20, 1),
		  "pairs go on without it");
	*child = child_start(false, PAIRS);
	*channel = channel_open(child);
	lab_check(hello(*channel, true, &records), "another one welcomes us");
	pair = record(records, first.pair);
	lab_check(pair.state == WIRE_JOINED &&
			  pair.generation == first.generation &&
			  !strcmp(pair.label, "alice@test"),
		  "the first pair is in the records");
	lab_check(!record_writable(records), "which we cannot write");
	lab_check(!record_pinnable(records), "nor a relay by way of a pin");
	lab_check(record(records, latched.pair).state == WIRE_FREE &&
			  is_reset(g.peer),
		  "the latched one was reset");
	lab_check(transfer(e.peer, e.client, 1 << 20, 1) &&
			  transfer(f.client, f.peer, 1 << 20, 1),
		  "pairs go on under the new one");
	claim.pair = first.pair;
	claim.generation = first.generation;
	send(*channel, &claim, sizeof(claim), MSG_NOSIGNAL);
	lab_check(message_wait(*channel, BROKER_ACTIVE, &active, sizeof(active),
			       NULL) &&
			  active.pair == first.pair,
		  "a claimed pair is active");
	claim.generation++;
	send(*channel, &claim, sizeof(claim), MSG_NOSIGNAL);
	lab_check(ended_wait(*channel, WIRE_END_ORPHAN, NULL),
		  "one of another generation has ended");
	reset.pair = second.pair;
	reset.generation = second.generation;
	send(*channel, &reset, sizeof(reset), MSG_NOSIGNAL);
	lab_check(ended_wait(*channel, WIRE_END_RESET, NULL) &&
			  is_reset(f.client) && is_reset(f.peer),
		  "an adopted pair can be reset");
	close(e.client);
	close(e.peer);
	e.client = e.peer = -1;
	joined = ended_wait(*channel, WIRE_END_FIN, NULL);
	if (!joined) {
		pair = record(records, first.pair);
		printf("# state %u, flags %x %x\n", pair.state,
		       pair.leg[0].flags, pair.leg[1].flags);
	}
	close(records);
	lab_check(joined, "an adopted pair's end is reported");
	ends_close(&e);
	ends_close(&f);
	ends_close(&g);
}

static bool is_readable_file(const char *path)
{
	return access(path, F_OK) == 0;
}

static void pin_name(char out[160], const char *name)
{
	struct stat info;

	if (stat("/proc/self/ns/net", &info))
		lab_die("stat");
	snprintf(out, 160, "%s/net-%llu/%s", pin,
		 (unsigned long long)info.st_ino, name);
}

/* Waits until the pin is there, or is not. */
static bool pin_wait(const char *name, bool there)
{
	char path[160];

	pin_name(path, name);
	for (int i = 0; i < WAIT_MS / 10; i++) {
		if (is_readable_file(path) == there)
			return true;
		poll(NULL, 0, 10);
	}
	return false;
}

static unsigned int flows(void)
{
	struct wire_key key, next;
	unsigned int count = 0;
	char path[160];
	int fd;

	pin_name(path, "wire_flows");
	fd = bpf_obj_get(path);
	if (fd < 0)
		lab_die(path);
	for (bool more = !bpf_map_get_next_key(fd, NULL, &next); more;
	     count++) {
		key = next;
		more = !bpf_map_get_next_key(fd, &key, &next);
	}
	close(fd);
	return count;
}

/* Those of pairs that ended in order linger for ten seconds. */
static bool flows_go(void)
{
	for (int i = 0; i < 2 * WAIT_MS / 10; i++) {
		if (!flows())
			return true;
		poll(NULL, 0, 10);
	}
	return false;
}

static int forwarding_of(const char *file)
{
	char text[4] = "";
	int fd = open(file, O_RDONLY);
	ssize_t n = read(fd, text, sizeof(text) - 1);

	close(fd);
	return n > 0 ? atoi(text) : -1;
}

static int forwarding(void)
{
	return forwarding_of("/proc/sys/net/ipv4/conf/lo/forwarding");
}

static void test_forwarding_again(const char *what, const char *of_lo)
{
	bool again = false;

	lab_write(what, "1");
	lab_write(what, "0");
	for (int i = 0; i < WAIT_MS / 10 && !again; i++) {
		again = forwarding_of(of_lo) == 1;
		poll(NULL, 0, 10);
	}
	lab_check(again, "lo forwards again after %s was turned off", what);
}

/* Turned off for all devices it is off for lo, too. */
static void test_forwarding(void)
{
	const char *lo4 = "/proc/sys/net/ipv4/conf/lo/forwarding",
		   *lo6 = "/proc/sys/net/ipv6/conf/lo/forwarding";

	test_forwarding_again("/proc/sys/net/ipv4/ip_forward", lo4);
	test_forwarding_again("/proc/sys/net/ipv6/conf/all/forwarding", lo6);
	test_forwarding_again(lo4, lo4);
	test_forwarding_again(lo6, lo6);
}

#define INDEX_AGAIN 7777

static void device_again(const char *what)
{
	lab_run("ip link %s vx %s", what,
		*what == 'a' ? "index 7777 type veth peer name vy" : "");
}

/* Waits until the programs are on the device that has this index now. */
static bool attached_wait(void)
{
	char name[64], path[160];

	snprintf(name, sizeof(name), "link-%d-ingress", INDEX_AGAIN);
	pin_name(path, name);
	for (int i = 0; i < WAIT_MS / 10; i++) {
		uint32_t info[70] = { 0 }, len = sizeof(info);
		int fd = bpf_obj_get(path);

		if (fd >= 0 && !bpf_obj_get_info_by_fd(fd, (void *)info, &len))
			len = info[4]; /* ifindex; of one that has gone 0 */
		fd_close(&fd);
		if (len == INDEX_AGAIN)
			return true;
		poll(NULL, 0, 10);
	}
	return false;
}

/* More than a socket has room for while nobody reads it. */
static void messages_crowd(void)
{
	lab_run("for i in $(seq 600); do echo link set vc alias a$i; done | "
		"ip -batch -");
}

/* A device gives its index to another, and the messages about it are lost, or some. */
static void test_devices_lost(const struct child *child)
{
	for (int told = 0; told < 2; told++) {
		device_again("add");
		if (!attached_wait())
			lab_die("the first device");
		kill(child->pid, SIGSTOP);
		if (told)
			device_again("del");
		messages_crowd();
		if (!told)
			device_again("del");
		device_again("add");
		kill(child->pid, SIGCONT);
		lab_check(attached_wait(),
			  "a device in the place of another of which %s told",
			  told ? "the end was" : "nothing was");
		device_again("del");
	}
	lab_run("ip link set vc alias ''");
}

static void test_devices(const struct child *child)
{
	char name[64], upper[64], first[64];

	snprintf(first, sizeof(first), "link-%u-ingress", if_nametoindex("vc"));

	if (!pin_wait(first, true)) {
		puts("# no tcx here: what comes and goes is not seen by pins");
		return;
	}
	lab_run("ip link add vx type veth peer name vy");
	snprintf(name, sizeof(name), "link-%u-ingress", if_nametoindex("vx"));
	lab_check(pin_wait(name, true), "a new device gets programs");
	lab_run("ip link add br9 type bridge");
	snprintf(upper, sizeof(upper), "link-%u-egress", if_nametoindex("br9"));
	lab_run("ip link set vx master br9");
	lab_check(pin_wait(name, false) && pin_wait(upper, true),
		  "as a port of a bridge it has none, the bridge has");
	lab_run("ip link set vx nomaster");
	lab_check(pin_wait(name, true), "released it has them again");
	lab_run("ip link del vx");
	lab_run("ip link del br9");
	lab_check(pin_wait(name, false) && pin_wait(upper, false),
		  "gone it leaves no pins");
	test_devices_lost(child);
}

/* In mounts of its own, in case they do hide it. */
static void test_pins_hide_nothing(void)
{
	char dir[] = "/tmp/culvert-pin-XXXXXX", file[64], below[64];
	int status = -1, fd;
	pid_t pid;

	if (!mkdtemp(dir))
		lab_die("mkdtemp");
	snprintf(file, sizeof(file), "%s/.file", dir);
	snprintf(below, sizeof(below), "%s/below", dir);
	fd = open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	if (fd < 0)
		lab_die(file);
	close(fd);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		if (unshare(CLONE_NEWNS) ||
		    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
			_exit(2);
		_exit(pin_dir_make(dir, below) != -ENOTEMPTY ||
		      access(file, F_OK) || unlink(file) ||
		      pin_dir_make(dir, below) || access(below, F_OK));
	}
	waitpid(pid, &status, 0);
	lab_check(status == 0,
		  "a directory that holds files is not mounted on");
	unlink(file);
	rmdir(dir);
}

/* Everything but two fine sockets; each on a channel of its own. */
static void test_hostile_descriptors(struct lab *lab, struct child *child)
{
	struct broker_join join = join_message(5);
	struct broker_answer answer;
	union addr at;
	struct ends e;
	int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
	int udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int raw = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int local = listen_on(AF_INET, "127.0.0.1", &at);
	int loop = dial(&at), accepted = accept(local, NULL, NULL);

	ends_open(lab, AF_INET, &e);
	const struct {
		const char *what;
		int fds[3];
		size_t count;
		uint32_t reason; /* 0: the channel is closed */
	} cases[] = {
		{ "a file", { e.client_leg, file }, 2, 0 },
		{ "a UDP socket", { udp, e.peer_leg }, 2, 0 },
		{ "a socket of another namespace",
		  { e.client, e.peer_leg },
		  2,
		  0 },
		{ "the same twice", { e.peer_leg, e.peer_leg }, 2, 0 },
		{ "three", { e.client_leg, e.peer_leg, udp }, 3, 0 },
		{ "one", { e.client_leg }, 1, 0 },
		{ "none", { 0 }, 0, 0 },
		{ "a listening socket",
		  { e.listener, e.peer_leg },
		  2,
		  WIRE_NO_STATE },
		{ "one that is not connected",
		  { raw, e.peer_leg },
		  2,
		  WIRE_NO_STATE },
		{ "loopback", { loop, accepted }, 2, WIRE_NO_LOCAL },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int channel = channel_open(child);
		bool good = hello(channel, false, NULL);

		message_send(channel, &join, sizeof(join), cases[i].fds,
			     cases[i].count, 0);
		if (cases[i].reason)
			good = good &&
			       message_wait(channel, BROKER_ANSWER, &answer,
					    sizeof(answer), NULL) &&
			       answer.reason == cases[i].reason;
		else
			good = good && closed(channel);
		lab_check(good, "refused: %s", cases[i].what);
		close(channel);
	}
	close(file);
	close(udp);
	close(raw);
	close(local);
	close(loop);
	close(accepted);
	lab_check(transfer(e.client, e.client_leg, 1000, 1) &&
			  transfer(e.peer_leg, e.peer, 1000, 1),
		  "sockets that were refused are as they were");
	ends_close(&e);
}

/* Addresses that this host translates are not those of the packets. */
static void test_translated(struct lab *lab, int channel)
{
	struct broker_join join = join_message(8);
	struct broker_answer answer;
	union addr at;
	socklen_t len = sizeof(at);
	struct ends e;
	bool plain;
	int back;

	if (system("command -v nft >/dev/null")) {
		puts("# no nft: translated addresses are not tried");
		return;
	}
	lab_run("nft add table ip t");
	lab_run("nft \"add chain ip t out { type nat hook postrouting priority "
		"100; }\"");
	ends_open(lab, AF_INET, &e);
	join.to_client = 0;
	plain = join_send(channel, &join, &e, &answer) == WIRE_OK;
	fd_reset(&e.client);
	fd_reset(&e.peer);
	lab_check(plain && ended_wait(channel, WIRE_END_RESET_CLIENT, NULL),
		  "tracked, but not translated: joined");
	ends_close(&e);
	lab_run("nft add rule ip t out oifname vp meta l4proto "
		"tcp snat to 10.2.0.1:20000-20999");
	ends_open(lab, AF_INET, &e);
	lab_check(join_send(channel, &join, &e, &answer) == WIRE_NO_LOCAL,
		  "refused: a leg whose source this host translates");
	ends_close(&e);
	lab_run("nft flush chain ip t out");
	lab_run("nft \"add chain ip t in { type nat hook prerouting priority "
		"-100; }\"");
	ends_open(lab, AF_INET, &e);
	close(e.client);
	close(e.client_leg);
	getsockname(e.listener, &at.sa, &len);
	lab_run("nft add rule ip t in tcp dport 9 redirect to :%u",
		addr_port(&at));
	addr_set_port(&at, 9);
	back = lab_enter(lab->client);
	e.client = dial(&at);
	lab_leave(back);
	e.client_leg = accept4(e.listener, NULL, NULL, SOCK_CLOEXEC);
	lab_check(join_send(channel, &join, &e, &answer) == WIRE_NO_LOCAL,
		  "refused: a client redirected to the listener");
	ends_close(&e);
	lab_run("nft delete table ip t");
}

static uint32_t join_reason(int channel, const struct ends *e)
{
	struct broker_join join = join_message(10);
	struct broker_answer answer;

	return join_send(channel, &join, e, &answer);
}

/* What bpf_fib_lookup() cannot use forwards nothing, whatever the socket does. */
static void test_routes(struct lab *lab, int channel)
{
	const struct {
		const char *what, *route;
		int family;
		uint32_t reason;
	} cases[] = {
		{ "a route with encapsulation",
		  "10.2.0.2/32 encap ip id 5 dst 10.2.0.2 via 10.2.0.2 dev vp",
		  AF_INET, WIRE_NO_DEVICE },
		{ "a route with segment routing",
		  "fd02::2/128 encap seg6 mode inline segs fd02::2 dev vp",
		  AF_INET6, WIRE_NO_DEVICE },
		{ "a route that leads nowhere", "blackhole 10.2.0.2/32",
		  AF_INET, WIRE_NO_DEVICE },
		{ "a route that leads nowhere, IPv6",
		  "unreachable fd02::2/128 dev lo", AF_INET6, WIRE_NO_DEVICE },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char command[128];
		struct ends e;

		ends_open(lab, cases[i].family, &e);
		snprintf(command, sizeof(command), "ip route add %s",
			 cases[i].route);
		if (system(command)) {
			printf("# not to be had here: %s\n", cases[i].what);
		} else {
			lab_check(join_reason(channel, &e) == cases[i].reason,
				  "refused: %s", cases[i].what);
			lab_run("ip route del %s", cases[i].route);
		}
		ends_close(&e);
	}
}

/* By its own address, which is no loopback address. */
static void test_own_address(int channel)
{
	union addr at;
	struct ends e = { .client = -1, .peer = -1 };

	e.listener = listen_on(AF_INET, "10.1.0.1", &at);
	e.client_leg = dial(&at);
	e.peer_leg = accept4(e.listener, NULL, NULL, SOCK_CLOEXEC);
	lab_check(join_reason(channel, &e) == WIRE_NO_LOCAL,
		  "refused: an end on this host");
	ends_close(&e);
}

/* One leaves by a device with programs and arrives by another, without. */
static void test_arrival(struct lab *lab)
{
	struct child child;
	struct ends e;
	int channel;

	lab_run("ip link add vz type veth peer name vw netns %d", lab->client);
	lab_run("ip link set vz up");
	lab_run_in(lab->client, "ip link set vw up");
	lab_run_in(lab->client, "ip route add 10.1.0.1/32 dev vw src 10.1.0.2");
	device_count = 2;
	child = child_start(false, PAIRS);
	device_count = 0;
	channel = channel_open(&child);
	lab_check(hello(channel, false, NULL), "a broker told its devices");
	ends_open(lab, AF_INET, &e);
	lab_check(join_reason(channel, &e) == WIRE_NO_DEVICE,
		  "refused: a leg that arrives by another device");
	ends_close(&e);
	lab_run("ip link del vz");
	ends_open(lab, AF_INET, &e);
	lab_check(join_reason(channel, &e) == WIRE_OK,
		  "joined when it arrives by the one it leaves by");
	lab_check(child_end(&child), "the end of that broker");
	close(channel);
	ends_close(&e);
}

static unsigned int descriptors(pid_t pid)
{
	unsigned int count = 0;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	DIR *open_now = opendir(path);

	while (open_now && readdir(open_now))
		count++;
	closedir(open_now);
	return count;
}

static bool descriptors_wait(pid_t pid, unsigned int count)
{
	for (int i = 0; i < WAIT_MS / 10; i++) {
		if (descriptors(pid) == count)
			return true;
		poll(NULL, 0, 10);
	}
	printf("# %u descriptors, not %u\n", descriptors(pid), count);
	return false;
}

/* Joins and closes at once, many times; the client never acknowledges. */
static void test_hostile_flood(struct lab *lab, struct child *child,
			       unsigned int before)
{
	struct broker_join join = join_message(6);
	bool alive = descriptors_wait(child->pid, before);
	struct ends e;

	for (int i = 0; i < 40; i++) {
		int channel = channel_open(child);
		int fds[2];

		alive = alive && hello(channel, i % 2, NULL);
		ends_open(lab, i % 3 ? AF_INET : AF_INET6, &e);
		fds[0] = e.client_leg;
		fds[1] = e.peer_leg;
		for (int j = 0; j < 50; j++)
			message_send(channel, &join, sizeof(join), fds, 2, 0);
		close(channel);
		/* Else their own end would be what ends the pair. */
		alive = alive && descriptors_wait(child->pid, before);
		ends_close(&e);
	}
	lab_check(alive, "joins on 40 channels, each closed at once");
	lab_check(flows_go(), "no flow is left");
	/* Many messages nobody reads the answers of. */
	int channel = channel_open(child);
	struct broker_claim claim = { .type = BROKER_CLAIM, .pair = 1 };
	unsigned int sent = 0;

	hello(channel, false, NULL);
	while (sent < 100000 && send(channel, &claim, sizeof(claim),
				     MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
		sent++;
	lab_check(sent < 100000, "who does not read is not read either");
	close(channel);
	channel = channel_open(child);
	lab_check(hello(channel, false, NULL), "others do not notice");
	close(channel);
	lab_check(descriptors_wait(child->pid, before),
		  "no descriptor is lost");
}

static void test_end(struct lab *lab, struct child *child, int channel)
{
	struct broker_answer answer;
	char dir[160];
	struct ends e;
	bool joined;

	ends_open(lab, AF_INET, &e);
	joined = join_whole(channel, &e, &answer);
	lab_check(joined && child_end(child), "the broker ends");
	lab_check(is_reset(e.client) && is_reset(e.peer),
		  "which resets what is joined");
	pin_name(dir, "");
	lab_check(rmdir(dir) == 0, "and leaves no pin");
	lab_check(forwarding() == 0, "nor lo forwarding");
	ends_close(&e);
}

/* Another capacity: what is pinned does not fit and goes. */
static void test_other_size(struct lab *lab)
{
	struct child child = child_start(false, PAIRS);
	struct broker_answer answer;
	int channel = channel_open(&child);
	struct ends e;
	bool joined, found = false;
	pid_t holder;

	ends_open(lab, AF_INET, &e);
	joined = hello(channel, false, NULL) &&
		 join_whole(channel, &e, &answer);
	lab_check(joined, "a pair under a broker that is killed");
	kill(child.pid, SIGKILL);
	child_wait(&child);
	close(channel);
	child = child_start(false, 2 * PAIRS);
	channel = channel_open(&child);
	lab_check(!hello(channel, true, NULL), "one of another size starts");
	lab_check(flows() == 0, "and has not taken over what was pinned");
	kill(child.pid, SIGKILL);
	child_wait(&child);
	close(channel);
	lab_check(!broker_flush(pin, &found, &holder) && found &&
			  !is_readable_file(pin),
		  "a flush removes what a killed broker left");
	ends_close(&e);
}

/* An inode number of a namespace that is gone is given to a new one. */
static void test_other_namespace(struct lab *lab)
{
	struct child child = child_start(false, PAIRS);
	struct broker_answer answer;
	int channel = channel_open(&child);
	uint64_t header[3];
	uint32_t zero = 0;
	char path[160];
	struct ends e;
	bool joined;
	int fd;

	ends_open(lab, AF_INET, &e);
	joined = hello(channel, false, NULL) &&
		 join_whole(channel, &e, &answer);
	kill(child.pid, SIGKILL);
	child_wait(&child);
	close(channel);
	pin_name(path, "wire_version");
	fd = bpf_obj_get(path);
	joined = joined && !bpf_map_lookup_elem(fd, &zero, header);
	header[2]++; /* the cookie */
	lab_check(joined && !bpf_map_update_elem(fd, &zero, header, BPF_ANY),
		  "what is pinned is another namespace's");
	close(fd);
	child = child_start(false, PAIRS);
	channel = channel_open(&child);
	lab_check(hello(channel, true, NULL) && flows() == 0,
		  "it is not taken over");
	lab_check(child_end(&child), "an end without pairs");
	close(channel);
	ends_close(&e);
}

static void test_clsact(struct lab *lab)
{
	struct child child = child_start(true, PAIRS);
	struct broker_answer answer;
	int channel = channel_open(&child);
	struct ends e;
	bool joined;

	lab_check(hello(channel, false, NULL), "a broker without tcx");
	test_life(lab, channel, AF_INET);
	test_reset(lab, channel, AF_INET6);
	ends_open(lab, AF_INET, &e);
	joined = join_whole(channel, &e, &answer);
	kill(child.pid, SIGKILL);
	child_wait(&child);
	close(channel);
	lab_check(joined && transfer(e.client, e.peer, 1 << 20, 1),
		  "its filters outlive it");
	child = child_start(true, PAIRS);
	channel = channel_open(&child);
	lab_check(hello(channel, true, NULL) &&
			  transfer(e.peer, e.client, 1 << 20, 1),
		  "and are taken over");
	lab_check(child_end(&child) && is_reset(e.client) && is_reset(e.peer),
		  "the end resets, too");
	close(channel);
	lab_check(system("tc filter show dev vc ingress | grep -q wire") != 0 &&
			  system("tc filter show dev vc egress | grep -q "
				 "wire") != 0,
		  "and leaves no filter");
	ends_close(&e);
}

int main(void)
{
	struct child child;
	struct lab lab = { 0 };
	unsigned int before;
	int channel;

	setvbuf(stdout, NULL, _IOLBF, 0);
	lab_begin(&lab);
	/* The broker's own care. */
	lab_write("/proc/sys/net/ipv4/conf/lo/forwarding", "0");
	lab_write("/proc/sys/net/ipv6/conf/lo/forwarding", "0");
	snprintf(pin, sizeof(pin), "/sys/fs/bpf/culvert-test-%d", getpid());
	child = child_start(false, PAIRS);
	channel = channel_open(&child);
	lab_check(hello(channel, false, NULL), "the broker welcomes us");
	lab_check(forwarding() == 1, "lo forwards");
	before = descriptors(child.pid);
	test_life(&lab, channel, AF_INET);
	test_life(&lab, channel, AF_INET6);
	test_unlatched_at_once(&lab, channel);
	test_reset(&lab, channel, AF_INET);
	test_reset(&lab, channel, AF_INET6);
	test_reset_latched(&lab, channel);
	test_reset_swallowed(&lab, channel);
	test_events(&lab, channel);
	test_expiry(&lab, channel);
	test_forwarding();
	test_devices(&child);
	test_pins_hide_nothing();
	test_hostile_descriptors(&lab, &child);
	test_translated(&lab, channel);
	test_routes(&lab, channel);
	test_own_address(channel);
	test_hostile_flood(&lab, &child, before);
	test_adoption(&lab, &child, &channel);
	test_end(&lab, &child, channel);
	close(channel);
	broker_pin_remove(pin);
	test_other_size(&lab);
	test_other_namespace(&lab);
	test_clsact(&lab);
	test_arrival(&lab);
	broker_pin_remove(pin);
	return lab_end(&lab);
}
