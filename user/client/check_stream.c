/* SPDX-License-Identifier: BSD-2-Clause */
/* Trying out the two ends of one relayed stream. */
#include "client/check_stream.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/random.h"

#define BLOCK      4096
#define ROUNDS_MAX 256

/* Waits for fd while the loop goes on, which may be what moves the bytes (TLS). */
static int fd_wait(struct culvert_loop *loop, int fd, short events,
		   int timeout_ms)
{
	struct pollfd ready[2] = {
		{ .fd = fd, .events = events },
		{ .fd = culvert_loop_fd(loop), .events = POLLIN },
	};
	uint64_t give_up = clock_ms() + (uint64_t)timeout_ms;

	while (clock_ms() < give_up) {
		int wait = (int)(give_up - clock_ms());
		int tick = culvert_loop_timeout(loop), err;

		if (poll(ready, 2, tick >= 0 && tick < wait ? tick : wait) <
			    0 &&
		    errno != EINTR)
			return -errno;
		if (ready[0].revents)
			return 0;
		err = culvert_loop_dispatch(loop, 0);
		if (err)
			return err;
	}
	return -ETIMEDOUT;
}

static int write_all(struct culvert_loop *loop, int fd, const uint8_t *data,
		     size_t len, int timeout_ms)
{
	while (len) {
		ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
		int err;

		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		if (n > 0) {
			data += n;
			len -= (size_t)n;
			continue;
		}
		err = fd_wait(loop, fd, POLLOUT, timeout_ms);
		if (err)
			return err;
	}
	return 0;
}

/* Reads len bytes: how many came before the end of stream, or -errno. */
static ssize_t read_all(struct culvert_loop *loop, int fd, uint8_t *data,
			size_t len, int timeout_ms)
{
	size_t got = 0;

	while (got < len) {
		ssize_t n = recv(fd, data + got, len - got, 0);
		int err;

		if (n == 0)
			break;
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		if (n > 0) {
			got += (size_t)n;
			continue;
		}
		err = fd_wait(loop, fd, POLLIN, timeout_ms);
		if (err)
			return err;
	}
	return (ssize_t)got;
}

/* Carries one block across and compares what arrives. */
static int block_carry(struct culvert_loop *loop, int from, int to,
		       const uint8_t *block, int timeout_ms)
{
	uint8_t arrived[BLOCK];
	ssize_t n;
	int err = write_all(loop, from, block, BLOCK, timeout_ms);

	if (err)
		return err;
	n = read_all(loop, to, arrived, BLOCK, timeout_ms);
	if (n < 0)
		return (int)n;
	if (n < BLOCK)
		return -EPIPE;
	return memcmp(arrived, block, BLOCK) ? -EBADMSG : 0;
}

static int time_compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int client_check_echo(struct culvert_loop *loop, int caller, int callee,
		      unsigned int rounds, int timeout_ms,
		      struct client_echo *echo)
{
	double ms[ROUNDS_MAX];
	uint8_t block[BLOCK];
	uint64_t start;
	int err;

	memset(echo, 0, sizeof(*echo));
	if (!rounds || rounds > ROUNDS_MAX)
		return -EINVAL;
	for (unsigned int i = 0; i < rounds; i++) {
		random_bytes(block, sizeof(block));
		start = clock_ns();
		err = block_carry(loop, caller, callee, block, timeout_ms);
		if (!err)
			err = block_carry(loop, callee, caller, block,
					  timeout_ms);
		if (err)
			return err;
		ms[i] = (double)(clock_ns() - start) / 1e6;
		echo->bytes += BLOCK;
	}
	qsort(ms, rounds, sizeof(ms[0]), time_compare);
	echo->p50_ms = ms[rounds / 2];
	echo->worst_ms = ms[rounds - 1];
	return 0;
}

/* The end of stream, and nothing before it. */
static int end_await(struct culvert_loop *loop, int fd, int timeout_ms)
{
	uint8_t byte;
	ssize_t n = read_all(loop, fd, &byte, 1, timeout_ms);

	if (n < 0)
		return (int)n;
	return n ? -EBADMSG : 0;
}

int client_check_half_close(struct culvert_loop *loop, int caller, int callee,
			    int timeout_ms)
{
	uint8_t block[BLOCK];
	int err;

	if (shutdown(caller, SHUT_WR))
		return -errno;
	err = end_await(loop, callee, timeout_ms);
	if (err)
		return err;
	random_bytes(block, sizeof(block));
	err = block_carry(loop, callee, caller, block, timeout_ms);
	if (err)
		return err;
	if (shutdown(callee, SHUT_WR))
		return -errno;
	return end_await(loop, caller, timeout_ms);
}
