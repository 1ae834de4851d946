/* SPDX-License-Identifier: BSD-2-Clause */
/* Listeners and message streams over real sockets. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fd.h"
#include "transport/transport.h"
#include "unit/failalloc.h"
#include "unit/until.h"

static struct loop *loop;

static int setup(void **state)
{
	(void)state;
	return loop_new(&loop);
}

static int teardown(void **state)
{
	(void)state;
	loop_free(loop);
	return 0;
}

static union addr loopback(uint16_t port)
{
	union addr addr;

	assert_int_equal(addr_parse("127.0.0.1", port, &addr), 0);
	return addr;
}

static union addr bound_to(int fd)
{
	union addr addr;
	socklen_t len = sizeof(addr);

	assert_int_equal(getsockname(fd, &addr.sa, &len), 0);
	return addr;
}

static int dial(const union addr *addr)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, &addr->sa, addr_len(addr)), 0);
	return fd;
}

static int option(int fd, int level, int name)
{
	int value = -1;
	socklen_t len = sizeof(value);

	assert_int_equal(getsockopt(fd, level, name, &value, &len), 0);
	return value;
}

/* Listeners */

struct catcher {
	int fds[8];
	int count, exhausted, error;
	struct listener *listener; /* to be freed by the first accept */
	union addr remote;
};

static void caught(void *arg, int fd, const union addr *remote)
{
	struct catcher *catcher = arg;

	assert_true(catcher->count < 8);
	catcher->fds[catcher->count++] = fd;
	catcher->remote = *remote;
	if (catcher->listener)
		listener_free(catcher->listener);
	catcher->listener = NULL;
}

static void was_exhausted(void *arg, int error)
{
	struct catcher *catcher = arg;

	catcher->exhausted++;
	catcher->error = error;
}

static const struct listener_ops catcher_ops = { caught, was_exhausted };

static void catcher_close(struct catcher *catcher)
{
	for (int i = 0; i < catcher->count; i++)
		close(catcher->fds[i]);
}

static void accepts_connections_ready_to_use(void **state)
{
	union addr addr = loopback(0), from;
	struct catcher catcher = { 0 };
	struct listener *listener;
	int fd, client;

	(void)state;
	fd = listener_open(&addr, 16);
	assert_true(fd >= 0);
	fd_keepalive(fd, 61500);
	addr = bound_to(fd);
	assert_int_equal(listener_new(loop, fd, true, &catcher_ops, &catcher,
				      &listener),
			 0);
	assert_int_equal(listener_fd(listener), fd);
	client = dial(&addr);
	UNTIL(loop, catcher.count == 1);
	from = bound_to(client);
	assert_true(addr_equal(&catcher.remote, &from));
	assert_true(fcntl(catcher.fds[0], F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(catcher.fds[0], F_GETFD) & FD_CLOEXEC);
	assert_int_equal(option(catcher.fds[0], IPPROTO_TCP, TCP_NODELAY), 1);
	assert_int_equal(option(catcher.fds[0], IPPROTO_TCP, TCP_QUICKACK), 0);
	assert_int_equal(option(catcher.fds[0], SOL_SOCKET, SO_KEEPALIVE), 1);
	assert_int_equal(option(catcher.fds[0], IPPROTO_TCP, TCP_KEEPIDLE), 62);
	fd_keepalive(catcher.fds[0], 0);
	assert_int_equal(option(catcher.fds[0], SOL_SOCKET, SO_KEEPALIVE), 0);
	close(client);
	listener_free(listener);
	catcher_close(&catcher);
}

static void shares_a_port_with_those_it_let_in_only(void **state)
{
	union addr addr = loopback(0);
	int first, second;

	(void)state;
	first = listener_claim(&addr, 16);
	assert_true(first >= 0);
	addr = bound_to(first);
	second = listener_open(&addr, 16);
	assert_true(second >= 0);
	assert_int_equal(listener_claim(&addr, 16), -EADDRINUSE);
	close(first);
	close(second);
}

static void reports_an_address_it_cannot_have(void **state)
{
	union addr addr;

	(void)state;
	assert_int_equal(addr_parse("192.0.2.77", 1, &addr), 0);
	assert_int_equal(listener_open(&addr, 16), -EADDRNOTAVAIL);
}

static void may_be_freed_by_what_it_accepts(void **state)
{
	union addr addr = loopback(0);
	struct catcher catcher = { 0 };
	int clients[3], fd;

	(void)state;
	fd = listener_open(&addr, 16);
	addr = bound_to(fd);
	for (int i = 0; i < 3; i++)
		clients[i] = dial(&addr);
	assert_int_equal(listener_new(loop, fd, false, &catcher_ops, &catcher,
				      &catcher.listener),
			 0);
	UNTIL(loop, !catcher.listener);
	assert_int_equal(catcher.count, 1);
	for (int i = 0; i < 3; i++)
		close(clients[i]);
	catcher_close(&catcher);
}

/* The lowest limit that leaves no descriptor; the old one is returned. */
static struct rlimit files_none_left(void)
{
	struct rlimit old, none;
	int fd = dup(STDERR_FILENO);

	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = old;
	none.rlim_cur = (rlim_t)fd;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	return old;
}

/* Without descriptors one connection per rest is turned away; no spinning. */
static void rests_without_descriptors_and_recovers(void **state)
{
	union addr addr = loopback(0);
	struct catcher catcher = { 0 };
	struct listener *listener;
	struct rlimit old;
	int clients[2], fd;
	uint64_t start;
	char c;

	(void)state;
	fd = listener_open(&addr, 16);
	addr = bound_to(fd);
	clients[0] = dial(&addr);
	clients[1] = dial(&addr);
	assert_int_equal(listener_new(loop, fd, true, &catcher_ops, &catcher,
				      &listener),
			 0);
	old = files_none_left();
	start = clock_ms();
	UNTIL(loop, catcher.exhausted == 1);
	assert_int_equal(catcher.error, -EMFILE);
	assert_int_equal(recv(clients[0], &c, 1, 0), 0); /* turned away */
	UNTIL(loop, catcher.exhausted == 2);
	assert_true(clock_ms() >= start + 90);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	close(clients[0]);
	clients[0] = dial(&addr);
	UNTIL(loop, catcher.count == 1);
	close(clients[0]);
	close(clients[1]);
	listener_free(listener);
	catcher_close(&catcher);
}

/* Without a spare the connection waits until there is a descriptor again. */
static void keeps_connections_waiting_without_a_spare(void **state)
{
	union addr addr = loopback(0);
	struct catcher catcher = { 0 };
	struct listener *listener;
	struct rlimit old;
	int client, fd;

	(void)state;
	fd = listener_open(&addr, 16);
	addr = bound_to(fd);
	client = dial(&addr);
	assert_int_equal(listener_new(loop, fd, false, &catcher_ops, &catcher,
				      &listener),
			 0);
	old = files_none_left();
	UNTIL(loop, catcher.exhausted == 1);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	UNTIL(loop, catcher.count == 1);
	close(client);
	listener_free(listener);
	catcher_close(&catcher);
}

/* Streams: messages are lines, "!" is a protocol error. */

struct reader {
	struct stream *stream;
	char got[4096];
	size_t len;
	int closed;
	enum stream_close why;
	bool detach; /* at the first line */
	struct stream_parts parts;
	int error; /* of the detach */
};

static ssize_t line_received(void *arg, const uint8_t *data, size_t len)
{
	struct reader *reader = arg;
	const uint8_t *end = memchr(data, '\n', len);
	size_t n;

	if (data[0] == '!')
		return -EBADMSG;
	if (!end)
		return 0;
	n = (size_t)(end - data) + 1;
	if (reader->len + n <= sizeof(reader->got))
		memcpy(reader->got + reader->len, data, n);
	reader->len += n;
	if (!reader->detach)
		return (ssize_t)n;
	reader->error =
		transport_stream_detach(reader->stream, n, &reader->parts);
	return reader->error ? (ssize_t)n : 0;
}

static void reader_closed(void *arg, enum stream_close why)
{
	struct reader *reader = arg;

	reader->closed++;
	reader->why = why;
}

static const struct stream_ops reader_ops = {
	.received = line_received,
	.closed = reader_closed,
};

/* A stream on one end, a plain descriptor at the other. */
static int reader_open(struct reader *reader, const char *initial)
{
	const struct stream_params params = {
		.loop = loop,
		.ops = &reader_ops,
		.arg = reader,
		.message_max = 64,
		.queue_max = 65536,
		.initial = (const uint8_t *)initial,
		.initial_len = initial ? strlen(initial) : 0,
	};
	int fds[2], small = 4096;

	memset(reader, 0, sizeof(*reader));
	reader->parts.fd = -1;
	assert_int_equal(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	fcntl(fds[0], F_SETFL, O_NONBLOCK);
	fcntl(fds[1], F_SETFL, O_NONBLOCK);
	setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	if (transport_stream_new(&params, fds[0], &reader->stream)) {
		assert_true(failalloc_hit());
		close(fds[0]);
	}
	return fds[1];
}

static void type(int fd, const char *text)
{
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static void reader_is(const struct reader *reader, const char *text)
{
	assert_int_equal(reader->len, strlen(text));
	assert_memory_equal(reader->got, text, reader->len);
}

static void hands_over_whole_messages(void **state)
{
	struct reader reader;
	int fd = reader_open(&reader, NULL);

	(void)state;
	assert_true(transport_stream_fd(reader.stream) >= 0);
	type(fd, "one\ntwo\nthr");
	UNTIL(loop, reader.len == 8);
	loop_tick(loop, 0);
	type(fd, "e");
	loop_tick(loop, 50);
	reader_is(&reader, "one\ntwo\n");
	type(fd, "e\nfour\n");
	UNTIL(loop, reader.len == 19);
	reader_is(&reader, "one\ntwo\nthree\nfour\n");
	transport_stream_free(reader.stream);
	close(fd);
}

static void takes_initial_bytes_first(void **state)
{
	struct reader reader;
	int fd = reader_open(&reader, "early\nand la");

	(void)state;
	type(fd, "te\n");
	UNTIL(loop, reader.len == 15);
	reader_is(&reader, "early\nand late\n");
	transport_stream_free(reader.stream);
	close(fd);
}

static void tells_an_end_of_stream(void **state)
{
	struct reader reader;
	int fd = reader_open(&reader, NULL);

	(void)state;
	type(fd, "last\n");
	close(fd);
	UNTIL(loop, reader.closed);
	reader_is(&reader, "last\n");
	assert_int_equal(reader.why, STREAM_CLOSE_EOF);
	assert_int_equal(transport_stream_send(reader.stream, "x", 1), -EPIPE);
	transport_stream_free(reader.stream);
	assert_int_equal(reader.closed, 1);
}

static void closes_on_a_protocol_error(void **state)
{
	struct reader reader;
	int fd = reader_open(&reader, NULL);
	char c;

	(void)state;
	type(fd, "good\n!bad\n");
	UNTIL(loop, reader.closed);
	reader_is(&reader, "good\n");
	assert_int_equal(reader.why, STREAM_CLOSE_PROTOCOL);
	assert_true(recv(fd, &c, 1, 0) <= 0);
	transport_stream_free(reader.stream);
	close(fd);
}

static void closes_on_an_unfinished_message_too_long(void **state)
{
	struct reader reader;
	int fd = reader_open(&reader, NULL);
	char text[64];

	(void)state;
	memset(text, 'x', sizeof(text));
	assert_int_equal(write(fd, text, 63), 63);
	loop_tick(loop, 50);
	assert_false(reader.closed);
	type(fd, "x");
	UNTIL(loop, reader.closed);
	assert_int_equal(reader.why, STREAM_CLOSE_PROTOCOL);
	transport_stream_free(reader.stream);
	close(fd);
}

static void queues_what_is_not_taken_at_once(void **state)
{
	struct reader reader;
	int fd = reader_open(&reader, NULL);
	size_t sent = 0, got = 0;
	char out[512], in[4096];

	(void)state;
	/* Until the kernel is full and something waits here. */
	for (int i = 0; i < 100; i++) {
		memset(out, 'a' + i % 26, sizeof(out));
		assert_int_equal(transport_stream_send(reader.stream, out,
						       sizeof(out)),
				 0);
		sent += sizeof(out);
	}
	assert_false(reader.closed);
	while (got < sent) {
		ssize_t n = recv(fd, in, sizeof(in), 0);

		if (n < 0) {
			assert_int_equal(errno, EAGAIN);
			loop_tick(loop, 5);
			continue;
		}
		for (ssize_t i = 0; i < n; i++)
			assert_int_equal(in[i], 'a' + (int)((got + (size_t)i) /
							    512 % 26));
		got += (size_t)n;
	}
	transport_stream_free(reader.stream);
	close(fd);
}

static void closes_when_nobody_reads(void **state)
{
	struct reader reader;
	int fd = reader_open(&reader, NULL);
	char out[1024] = { 0 };
	int err = 0;

	(void)state;
	for (int i = 0; i < 10000 && !err; i++)
		err = transport_stream_send(reader.stream, out, sizeof(out));
	assert_int_equal(err, -ENOBUFS);
	assert_false(reader.closed); /* not from inside */
	UNTIL(loop, reader.closed);
	assert_int_equal(reader.why, STREAM_CLOSE_QUEUE_FULL);
	transport_stream_free(reader.stream);
	close(fd);
}

static void closes_on_a_reset(void **state)
{
	struct reader reader;
	int fd = reader_open(&reader, NULL);

	(void)state;
	/* Unread data makes the close of a UNIX socket a reset. */
	assert_int_equal(transport_stream_send(reader.stream, "x", 1), 0);
	close(fd);
	UNTIL(loop, reader.closed);
	assert_int_equal(reader.why, STREAM_CLOSE_ERROR);
	transport_stream_free(reader.stream);
}

static void is_closed_by_its_owner(void **state)
{
	struct reader reader;
	int fd = reader_open(&reader, NULL);
	char c;

	(void)state;
	transport_stream_close(reader.stream, STREAM_CLOSE_EOF);
	transport_stream_close(reader.stream, STREAM_CLOSE_ERROR);
	assert_false(reader.closed);
	assert_int_equal(recv(fd, &c, 1, 0), 0);
	UNTIL(loop, reader.closed);
	assert_int_equal(reader.why, STREAM_CLOSE_EOF);
	transport_stream_free(reader.stream);
	close(fd);
	/* Freed before it could tell: it does not. */
	fd = reader_open(&reader, NULL);
	transport_stream_close(reader.stream, STREAM_CLOSE_EOF);
	transport_stream_free(reader.stream);
	loop_tick(loop, 0);
	assert_int_equal(reader.closed, 0);
	close(fd);
	transport_stream_free(NULL);
}

static void gives_its_descriptor_away(void **state)
{
	struct reader reader;
	int fd = reader_open(&reader, NULL);
	char buf[8];

	(void)state;
	reader.detach = true;
	type(fd, "bind\nbehind");
	UNTIL(loop, reader.parts.fd >= 0);
	assert_int_equal(reader.error, 0);
	assert_int_equal(reader.parts.rest_len, 6);
	assert_memory_equal(reader.parts.rest, "behind", 6);
	type(fd, "more");
	loop_tick(loop, 20);
	assert_int_equal(recv(reader.parts.fd, buf, sizeof(buf), 0), 4);
	assert_int_equal(reader.closed, 0);
	free(reader.parts.rest);
	close(reader.parts.fd);
	transport_stream_free(reader.stream);
	close(fd);
}

static void keeps_its_descriptor_while_answers_wait(void **state)
{
	struct reader reader;
	int fd = reader_open(&reader, NULL);
	char out[1024] = { 0 };

	(void)state;
	for (int i = 0; i < 50; i++)
		assert_int_equal(transport_stream_send(reader.stream, out,
						       sizeof(out)),
				 0);
	reader.detach = true;
	type(fd, "bind\n");
	UNTIL(loop, reader.len == 5);
	assert_int_equal(reader.error, -EAGAIN);
	assert_int_equal(reader.parts.fd, -1);
	transport_stream_free(reader.stream);
	close(fd);
}

static void conversation(void *arg)
{
	struct reader reader;
	int fd = reader_open(&reader, "ear");
	char out[30000] = { 0 };
	uint8_t sink[4096];

	(void)arg;
	if (reader.stream) {
		type(fd, "ly\nunfi");
		UNTIL(loop, reader.closed || reader.len == 6);
		transport_stream_send(reader.stream, out, sizeof(out));
		reader.detach = true;
		while (recv(fd, sink, sizeof(sink), 0) > 0)
			loop_tick(loop, 0);
		if (!reader.closed)
			type(fd, "nished\nbehind");
		UNTIL(loop, reader.closed || reader.len == 17);
		loop_tick(loop, 0);
		if (reader.closed)
			assert_int_equal(reader.why, STREAM_CLOSE_ERROR);
		fd_close(&reader.parts.fd);
		free(reader.parts.rest);
		transport_stream_free(reader.stream);
	}
	close(fd);
}

static void survives_every_allocation_failure(void **state)
{
	(void)state;
	assert_true(failalloc_sweep(conversation, NULL) > 3);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(accepts_connections_ready_to_use),
		TEST(shares_a_port_with_those_it_let_in_only),
		TEST(reports_an_address_it_cannot_have),
		TEST(may_be_freed_by_what_it_accepts),
		TEST(rests_without_descriptors_and_recovers),
		TEST(keeps_connections_waiting_without_a_spare),
		TEST(hands_over_whole_messages),
		TEST(takes_initial_bytes_first),
		TEST(tells_an_end_of_stream),
		TEST(closes_on_a_protocol_error),
		TEST(closes_on_an_unfinished_message_too_long),
		TEST(queues_what_is_not_taken_at_once),
		TEST(closes_when_nobody_reads),
		TEST(closes_on_a_reset),
		TEST(is_closed_by_its_owner),
		TEST(gives_its_descriptor_away),
		TEST(keeps_its_descriptor_while_answers_wait),
		TEST(survives_every_allocation_failure),
	};

	return cmocka_run_group_tests_name("transport", tests, NULL, NULL);
}
