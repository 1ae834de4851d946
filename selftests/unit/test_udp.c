/* SPDX-License-Identifier: BSD-2-Clause */
/* UDP sockets: batches both ways, and the address an answer leaves from. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fd.h"
#include "transport/udp.h"
#include "unit/failalloc.h"
#include "unit/until.h"

static struct loop *loop;
static struct udp *udp;

/* What a socket under test has received. */
struct inbox {
	struct udp_socket *socket;
	struct udp_path path; /* of the last one */
	size_t count, bytes;
	uint8_t first; /* byte of the last one */
	bool echo;
};

static int setup(void **state)
{
	(void)state;
	return loop_new(&loop) || udp_new(loop, &udp);
}

static int teardown(void **state)
{
	(void)state;
	udp_free(udp);
	loop_free(loop);
	return 0;
}

static union addr address(const char *text)
{
	union addr addr;

	assert_int_equal(addr_parse(text, 0, &addr), 0);
	return addr;
}

static union addr bound_to(int fd)
{
	union addr addr = { 0 };
	socklen_t len = sizeof(addr);

	assert_int_equal(getsockname(fd, &addr.sa, &len), 0);
	return addr;
}

static void received(void *arg, const struct udp_path *path,
		     const uint8_t *data, size_t len)
{
	struct inbox *inbox = arg;

	inbox->path = *path;
	inbox->count++;
	inbox->bytes += len;
	inbox->first = len ? data[0] : 0;
	if (inbox->echo)
		memcpy(udp_send(inbox->socket, path, len), data, len);
}

/* A socket under test on this address. */
static void inbox_open(struct inbox *inbox, const char *text)
{
	const union addr addr = address(text);
	int fd = udp_claim(&addr);

	assert_true(fd >= 0);
	*inbox = (struct inbox){ 0 };
	assert_int_equal(
		udp_socket_new(udp, fd, received, inbox, &inbox->socket), 0);
}

/* The other side: a plain socket on this address. */
static int plain(const char *text)
{
	const union addr addr = address(text);
	int fd = socket(addr_family(&addr), SOCK_DGRAM | SOCK_CLOEXEC, 0);
	const int room = 4 << 20;

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, &addr.sa, addr_len(&addr)), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
	return fd;
}

static void plain_send(int fd, const void *data, size_t len,
		       const union addr *to)
{
	assert_int_equal(sendto(fd, data, len, 0, &to->sa, addr_len(to)), len);
}

/* Receives one within the tests' patience; -1: none is there. */
static ssize_t plain_receive(int fd, uint8_t *out, size_t size,
			     union addr *from)
{
	socklen_t len = sizeof(*from);

	return recvfrom(fd, out, size, MSG_DONTWAIT, &from->sa, &len);
}

/* With a wildcard the answer must leave from the address that was asked. */
static void answers_from(const char *bound, const char *asked)
{
	union addr from, to = address(asked);
	const bool v6 = addr_family(&to) == AF_INET6;
	int fd = plain(v6 ? "::1" : "127.0.0.9");
	struct inbox inbox;
	uint8_t bytes[8];

	inbox_open(&inbox, bound);
	inbox.echo = true;
	addr_set_port(&to, addr_port(udp_socket_addr(inbox.socket)));
	plain_send(fd, "hello", 5, &to);
	UNTIL(loop, inbox.count == 1);
	assert_true(addr_equal(&inbox.path.local, &to));
	from = bound_to(fd);
	assert_true(addr_equal(&inbox.path.remote, &from));
	assert_int_equal(plain_receive(fd, bytes, sizeof(bytes), &from), 5);
	assert_memory_equal(bytes, "hello", 5);
	assert_true(addr_equal(&from, &to));
	udp_socket_free(inbox.socket);
	close(fd);
}

static void answers_leave_from_the_address_that_was_asked(void **state)
{
	(void)state;
	answers_from("127.0.0.3", "127.0.0.3");
	answers_from("0.0.0.0", "127.0.0.3");
	answers_from("0.0.0.0", "127.0.0.1");
	answers_from("::", "::1");
}

static void more_than_one_batch_is_received(void **state)
{
	int fd = plain("127.0.0.2");
	struct inbox inbox;
	union addr to;

	(void)state;
	inbox_open(&inbox, "127.0.0.1");
	to = *udp_socket_addr(inbox.socket);
	for (uint8_t i = 0; i < 200; i++)
		plain_send(fd, &i, 1, &to);
	plain_send(fd, "", 0, &to);
	UNTIL(loop, inbox.count == 201);
	assert_int_equal(inbox.bytes, 200);
	udp_socket_free(inbox.socket);
	close(fd);
}

/* Lengths that can go as one message, cannot, end one, and are nothing. */
static size_t length_of(size_t i)
{
	return i % 50 == 49 ? 0 : i % 10 == 9 ? 100 : 1200;
}

static void datagrams_stay_apart_and_in_order(void **state)
{
	struct udp_path path = { 0 };
	uint8_t bytes[2048];
	struct inbox inbox;
	union addr from;
	int fds[2] = { plain("127.0.0.2"), plain("127.0.0.4") };

	(void)state;
	inbox_open(&inbox, "127.0.0.1");
	for (size_t i = 0; i < 600; i++) {
		path.remote = bound_to(fds[i / 25 % 2]);
		memset(udp_send(inbox.socket, &path, length_of(i)), (uint8_t)i,
		       length_of(i));
	}
	assert_null(udp_send(inbox.socket, &path, 65536));
	assert_int_equal(loop_tick(loop, 0), 0);
	for (size_t i = 0; i < 600; i++) {
		ssize_t len = plain_receive(fds[i / 25 % 2], bytes,
					    sizeof(bytes), &from);

		assert_int_equal(len, length_of(i));
		for (ssize_t j = 0; j < len; j++)
			assert_int_equal(bytes[j], (uint8_t)i);
	}
	assert_int_equal(udp_unsent(udp), 0);
	udp_socket_free(inbox.socket);
	close(fds[0]);
	close(fds[1]);
}

static void what_cannot_be_sent_is_counted_alone(void **state)
{
	struct udp_path good = { 0 }, bad = { 0 };
	int fd = plain("127.0.0.2");
	struct inbox inbox;
	uint8_t bytes[8];
	union addr from;

	(void)state;
	inbox_open(&inbox, "127.0.0.1");
	good.remote = bound_to(fd);
	bad.remote = address("127.0.0.2"); /* port 0 */
	for (int i = 0; i < 3; i++) {
		*udp_send(inbox.socket, &good, 1) = 'g';
		*udp_send(inbox.socket, &bad, 1) = 'b';
	}
	udp_socket_free(inbox.socket); /* sends what waits */
	for (int i = 0; i < 3; i++)
		assert_int_equal(plain_receive(fd, bytes, sizeof(bytes), &from),
				 1);
	assert_int_equal(plain_receive(fd, bytes, sizeof(bytes), &from), -1);
	assert_int_equal(udp_unsent(udp), 3);
	close(fd);
}

static void a_claimed_address_is_shared_with_its_own_alone(void **state)
{
	union addr addr = address("127.0.0.1");
	int first = udp_claim(&addr), second;

	(void)state;
	assert_true(first >= 0);
	assert_true(udp_is(first));
	addr = bound_to(first);
	assert_int_equal(udp_claim(&addr), -EADDRINUSE);
	second = udp_open(&addr);
	assert_true(second >= 0);
	close(first);
	close(second);
}

/* The kernel must not spread one client over workers. */
static void one_5_tuple_comes_to_one_socket(void **state)
{
	union addr addr = address("127.0.0.1");
	int fds[3], clients[16];
	uint8_t bytes[8];
	union addr from;

	(void)state;
	for (int i = 0; i < 3; i++) {
		fds[i] = i ? udp_open(&addr) : udp_claim(&addr);
		assert_true(fds[i] >= 0);
		addr = bound_to(fds[i]);
	}
	for (int i = 0; i < 16; i++) {
		int takers = 0;

		clients[i] = plain("127.0.0.2");
		for (int j = 0; j < 8; j++)
			plain_send(clients[i], "x", 1, &addr);
		for (int j = 0; j < 3; j++) {
			int count = 0;

			while (plain_receive(fds[j], bytes, sizeof(bytes),
					     &from) == 1)
				count++;
			assert_true(count == 0 || count == 8);
			takers += count == 8;
		}
		assert_int_equal(takers, 1);
		close(clients[i]);
	}
	for (int i = 0; i < 3; i++)
		close(fds[i]);
}

static void open_or_fail(void *arg)
{
	const union addr addr = address("127.0.0.1");
	struct udp_socket *socket;
	struct udp *mine;
	int fd;

	(void)arg;
	if (udp_new(loop, &mine))
		return;
	fd = udp_open(&addr);
	assert_true(fd >= 0);
	if (udp_socket_new(mine, fd, received, NULL, &socket))
		close(fd);
	else
		udp_socket_free(socket);
	udp_free(mine);
}

/* Datagrams of a train: where each lies, and a byte of it. */
struct train {
	const uint8_t *at[64];
	size_t len[64], count;
	uint16_t from;
};

static void train_received(void *arg, const struct udp_path *path,
			   const uint8_t *data, size_t len)
{
	struct train *train = arg;

	train->at[train->count] = data;
	train->len[train->count++] = len;
	train->from = addr_port(&path->remote);
}

/* `count` of `size` bytes and one of 7 as one message of the sender's. */
static void train_send(int fd, const union addr *to, size_t count,
		       uint16_t size)
{
	union {
		struct cmsghdr head;
		uint8_t bytes[CMSG_SPACE(sizeof(size))];
	} control = { .head = { CMSG_LEN(sizeof(size)), SOL_UDP,
				UDP_SEGMENT } };
	static uint8_t bytes[65536];
	struct iovec iov = { bytes, count * size + 7 };
	struct msghdr message = {
		.msg_name = (void *)&to->sa,
		.msg_namelen = addr_len(to),
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};

	for (size_t i = 0; i <= count; i++)
		memset(bytes + i * size, (int)i, i < count ? size : 7);
	memcpy(CMSG_DATA(&control.head), &size, sizeof(size));
	assert_int_equal(sendmsg(fd, &message, 0), iov.iov_len);
}

/* With a wildcard there are two things that the kernel tells of each message. */
static void train_arrives(const char *bound, const char *to_text, bool on)
{
	const union addr addr = address(bound);
	union addr to = address(to_text);
	const bool v6 = addr_family(&to) == AF_INET6;
	int fd = plain(v6 ? "::1" : "127.0.0.9");
	const union addr from = bound_to(fd);
	struct train train = { .count = 0 };
	struct udp_socket *socket;

	assert_int_equal(udp_socket_new(udp, udp_claim(&addr), train_received,
					&train, &socket),
			 0);
	udp_socket_trains(socket, true);
	udp_socket_trains(socket, on);
	addr_set_port(&to, addr_port(udp_socket_addr(socket)));
	train_send(fd, &to, 40, 1200);
	plain_send(fd, "", 0, &to);
	plain_send(fd, "alone", 5, &to);
	UNTIL(loop, train.count == 43);
	for (size_t i = 0; i < 41; i++) {
		assert_int_equal(train.len[i], i < 40 ? 1200 : 7);
		for (size_t j = 0; j < train.len[i]; j++)
			assert_int_equal(train.at[i][j], i);
		/* In one piece they have come as one. */
		assert_int_equal(i && train.at[i] == train.at[i - 1] + 1200,
				 on && i);
	}
	assert_int_equal(train.len[41], 0);
	assert_memory_equal(train.at[42], "alone", 5);
	assert_int_equal(train.from, addr_port(&from));
	udp_socket_free(socket);
	close(fd);
}

static void trains_are_seen_one_by_one(void **state)
{
	(void)state;
	train_arrives("127.0.0.1", "127.0.0.1", true);
	train_arrives("0.0.0.0", "127.0.0.3", true);
	train_arrives("::", "::1", true);
	train_arrives("0.0.0.0", "127.0.0.3", false);
}

/* Who would hand it on, would as one long datagram. What comes then comes one by one. */
static void a_train_that_waits_is_not_taken_for_one(void **state)
{
	const union addr addr = address("127.0.0.1");
	int fd = plain("127.0.0.9"), claimed = udp_claim(&addr), yes = 1;
	struct train train = { .count = 0 };
	struct udp_socket *socket;

	(void)state;
	/* As from a process before this one. */
	assert_int_equal(
		setsockopt(claimed, SOL_UDP, UDP_GRO, &yes, sizeof(yes)), 0);
	assert_int_equal(udp_socket_new(udp, claimed, train_received, &train,
					&socket),
			 0);
	for (int i = 0; i < 3; i++)
		train_send(fd, udp_socket_addr(socket), 20, 1000);
	udp_socket_trains(socket, false);
	train_send(fd, udp_socket_addr(socket), 20, 1000);
	UNTIL(loop, train.count == 21);
	for (size_t i = 0; i < 21; i++)
		assert_int_equal(train.len[i], i < 20 ? 1000 : 7);
	udp_socket_free(socket);
	close(fd);
}

#define FLOOD 64 /* trains of 61 datagrams */

static void counted(void *arg, const struct udp_path *path, const uint8_t *data,
		    size_t len)
{
	size_t *count = arg;

	(void)path;
	(void)data;
	(void)len;
	(*count)++;
}

/* The most that one tick has taken of a flood. */
static size_t flood_taken(int fd, const struct udp_socket *socket,
			  size_t *count)
{
	size_t most = 0;

	for (int i = 0; i < FLOOD; i++)
		train_send(fd, udp_socket_addr(socket), 60, 100);
	for (*count = 0; *count < FLOOD * 61;) {
		const size_t before = *count;

		UNTIL(loop, *count > before);
		if (*count - before > most)
			most = *count - before;
	}
	return most;
}

/* Others have their turn, and datagrams that come one by one make full batches again. */
static void a_flood_of_trains_takes_its_share_of_a_tick(void **state)
{
	const union addr addr = address("127.0.0.1");
	struct udp_socket *socket;
	int fd = plain("127.0.0.9");
	size_t count = 0;

	(void)state;
	assert_int_equal(udp_socket_new(udp, udp_claim(&addr), counted, &count,
					&socket),
			 0);
	udp_socket_trains(socket, true);
	flood_taken(fd, socket, &count);
	assert_in_range(flood_taken(fd, socket, &count), 61, 512);
	udp_socket_trains(socket, false);
	for (size_t ticks = 0; ticks < 7; ticks++) {
		for (int i = 0; i < FLOOD; i++)
			plain_send(fd, "alone", 5, udp_socket_addr(socket));
		count = 0;
		UNTIL(loop, count >= FLOOD);
	}
	for (int i = 0; i < FLOOD; i++)
		plain_send(fd, "alone", 5, udp_socket_addr(socket));
	count = 0;
	UNTIL(loop, count);
	assert_int_equal(count, FLOOD);
	udp_socket_free(socket);
	close(fd);
}

static void out_of_memory_leaves_nothing(void **state)
{
	(void)state;
	assert_true(failalloc_sweep(open_or_fail, NULL) >= 2);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(answers_leave_from_the_address_that_was_asked),
		TEST(more_than_one_batch_is_received),
		TEST(datagrams_stay_apart_and_in_order),
		TEST(what_cannot_be_sent_is_counted_alone),
		TEST(a_claimed_address_is_shared_with_its_own_alone),
		TEST(one_5_tuple_comes_to_one_socket),
		TEST(trains_are_seen_one_by_one),
		TEST(a_train_that_waits_is_not_taken_for_one),
		TEST(a_flood_of_trains_takes_its_share_of_a_tick),
		TEST(out_of_memory_leaves_nothing),
	};

	return cmocka_run_group_tests_name("udp", tests, NULL, NULL);
}
