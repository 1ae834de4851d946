/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the tests of engines and pairs share: real TCP connections over
 * loopback, and their ends pumped with a pattern between ticks of the loop.
 *
 *   end[0] --- leg[0]  [relay]  leg[1] --- end[1]
 *
 * Nothing sleeps: every wait is a tick of the loop until a condition holds, or
 * the test fails after WAIT_MS.
 */
#ifndef UNIT_RIG_H
#define UNIT_RIG_H

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fd.h"
#include "engine/engine.h"
#include "loop/loop.h"
#include "unit/sockmap_fds.h"

#define WAIT_MS    20000
#define PUMP_CHUNK 65536

/* One test end of a connection; counts and checks what passes. */
struct end {
	int fd;
	uint8_t salt; /* of the pattern this end sends */
	uint8_t other_salt; /* of the pattern it expects */
	uint64_t sent, got;
	uint64_t to_send; /* sends up to here, then nothing */
	bool fin; /* shut down for writing when all is sent */
	bool fin_done;
	bool deaf; /* does not read */
	bool eof;
	int error; /* positive errno of a read or write that failed */
};

static inline uint8_t pattern(uint64_t at, uint8_t salt)
{
	return (uint8_t)(at * 167 + (at >> 8) * 59 + (at >> 16) * 13 + salt);
}

/* A connected pair of nonblocking TCP sockets over loopback. */
static inline void tcp_pair(int *end, int *leg)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(at);
	const int one = 1;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(listener >= 0);
	fd_inline(listener);
	assert_int_equal(bind(listener, (struct sockaddr *)&at, len), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &len),
			 0);
	*end = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(*end >= 0);
	assert_int_equal(connect(*end, (struct sockaddr *)&at, len), 0);
	*leg = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	assert_true(*leg >= 0);
	close(listener);
	ioctl(*end, FIONBIO, &one);
	setsockopt(*end, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(*leg, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static inline void end_init(struct end *end, int fd, uint8_t salt,
			    uint8_t other_salt)
{
	*end = (struct end){ .fd = fd, .salt = salt, .other_salt = other_salt };
}

/* Both ends of a relay: end[0] sends salt 1, end[1] salt 2. */
static inline void ends_init(struct end end[2], int leg[2])
{
	int fd[2];

	tcp_pair(&fd[0], &leg[0]);
	tcp_pair(&fd[1], &leg[1]);
	end_init(&end[0], fd[0], 1, 2);
	end_init(&end[1], fd[1], 2, 1);
}

/* Sends at most max bytes of the pattern. Returns whether any went. */
static inline bool end_send(struct end *end, size_t max)
{
	uint8_t data[PUMP_CHUNK];
	size_t len = end->to_send - end->sent;
	ssize_t n;

	len = len < max ? len : max;
	len = len < sizeof(data) ? len : sizeof(data);
	if (!len || end->error)
		return false;
	for (size_t i = 0; i < len; i++)
		data[i] = pattern(end->sent + i, end->salt);
	n = send(end->fd, data, len, MSG_NOSIGNAL);
	if (n < 0 && errno != EAGAIN)
		end->error = errno;
	if (n <= 0)
		return false;
	end->sent += (size_t)n;
	return true;
}

static inline void end_check(struct end *end, const uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len; i++, end->got++)
		if (data[i] != pattern(end->got, end->other_salt))
			fail_msg("byte %llu is %02x, not %02x",
				 (unsigned long long)end->got, data[i],
				 pattern(end->got, end->other_salt));
}

/* Reads and checks at most max bytes. Returns whether any came. */
static inline bool end_recv(struct end *end, size_t max)
{
	uint8_t data[PUMP_CHUNK];
	ssize_t n;

	if (end->eof || end->error)
		return false;
	n = recv(end->fd, data, max < sizeof(data) ? max : sizeof(data), 0);
	if (n < 0 && errno != EAGAIN)
		end->error = errno;
	if (n == 0)
		end->eof = true;
	if (n <= 0)
		return false;
	end_check(end, data, (size_t)n);
	return true;
}

static inline void end_pump(struct end *end)
{
	if (end->fd < 0)
		return;
	end_send(end, PUMP_CHUNK);
	if (end->fin && !end->fin_done && end->sent == end->to_send) {
		shutdown(end->fd, SHUT_WR);
		end->fin_done = true;
	}
	if (!end->deaf)
		end_recv(end, PUMP_CHUNK);
}

/* Has what was sent into this socket been acknowledged by the other kernel? */
static inline void wait_acked(int fd)
{
	uint64_t start = clock_ms();

	while (fd_unsent(fd)) {
		assert_true(clock_ms() - start < WAIT_MS);
		sched_yield();
	}
}

/* Waits for poll events without running the loop. */
static inline void wait_poll(int fd, short events)
{
	struct pollfd poll_fd = { .fd = fd, .events = events };

	assert_int_equal(poll(&poll_fd, 1, WAIT_MS), 1);
}

/* A tick that pumps both ends; waits a little when nothing is going on. */
static inline void rig_tick(struct loop *loop, struct end end[2])
{
	for (int i = 0; i < 2; i++)
		end_pump(&end[i]);
	loop_tick(loop, 1);
}

#define RIG_UNTIL(loop, end, condition)                            \
	do {                                                       \
		uint64_t rig_start = clock_ms();                   \
		while (!(condition)) {                             \
			if (clock_ms() - rig_start >= WAIT_MS)     \
				fail_msg("never: %s", #condition); \
			rig_tick(loop, end);                       \
		}                                                  \
	} while (0)

/* Ticks the loop needs in `ms` without the ends doing anything. */
static inline unsigned int ticks_in(struct loop *loop, uint64_t ms)
{
	uint64_t end = clock_ms() + ms, now;
	unsigned int count = 0;

	while ((now = clock_ms()) < end) {
		loop_tick(loop, (int)(end - now));
		count++;
	}
	return count;
}

/* Both ends send all they can until neither moves for a while. */
static inline void rig_stuff(struct loop *loop, struct end end[2])
{
	for (int quiet = 0; quiet < 100;) {
		uint64_t before = end[0].sent + end[1].sent;

		rig_tick(loop, end);
		quiet = end[0].sent + end[1].sent == before ? quiet + 1 : 0;
	}
}

static inline void end_reset(struct end *end)
{
	fd_reset(&end->fd);
}

static inline struct engine_params rig_params(void)
{
	return (struct engine_params){ .pipe_size = 1 << 20,
				       .pipes = 64,
				       .copy_buffer = 256 << 10,
				       .sockmap_fds = sockmap_fds() };
}

/*
 * A set with one engine; NULL with the reason in *err. Behind sockmap there is
 * copy, for sockets that have had their end of stream or a reset already.
 */
static inline struct engine_set *rig_set(struct loop *loop, const char *name,
					 const struct engine_params *params,
					 int *err)
{
	const char *const order[] = { name, "copy" };
	size_t count = strcmp(name, "sockmap") ? 1 : 2;
	struct engine_set *set = NULL;

	*err = engine_set_new(loop, params, order, count, NULL, NULL, &set);
	return *err ? NULL : set;
}

/* The cases with one engine, named after it; none where the kernel has it not. */
static inline int rig_run_engine(const char *group, const char *engine,
				 const struct CMUnitTest *cases, size_t count)
{
	struct engine_params params = rig_params();
	struct CMUnitTest *named = calloc(count, sizeof(*named));
	struct engine_set *set;
	struct loop *loop;
	int err, result = 0;
	char *label;

	if (!named || loop_new(&loop))
		return 1;
	set = rig_set(loop, engine, &params, &err);
	engine_set_free(set);
	loop_free(loop);
	if (!set)
		fprintf(stderr, "# engine %s left out: %s\n", engine,
			strerror(-err));
	for (size_t k = 0; set && k < count; k++) {
		if (asprintf(&label, "%s: %s", engine, cases[k].name) < 0)
			return 1;
		named[k] = cases[k];
		named[k].name = label;
		named[k].initial_state = (void *)(uintptr_t)engine;
	}
	if (set)
		result = _cmocka_run_group_tests(group, named, count, NULL,
						 NULL);
	for (size_t k = 0; k < count; k++)
		free((char *)(uintptr_t)named[k].name);
	free(named);
	return result;
}

/* A process whose output is kept until it has ended. */
struct rig_child {
	pid_t pid;
	FILE *said;
};

static inline struct rig_child rig_child_new(const char *group,
					     const char *engine,
					     const struct CMUnitTest *cases,
					     size_t count)
{
	struct rig_child child = { .pid = -1, .said = tmpfile() };

	fflush(NULL);
	if (child.said)
		child.pid = fork();
	if (child.pid)
		return child;
	dup2(fileno(child.said), STDOUT_FILENO);
	dup2(fileno(child.said), STDERR_FILENO);
	exit(rig_run_engine(group, engine, cases, count));
}

/* Waits for it, shows what it has said; 0: all has passed. */
static inline int rig_child_end(struct rig_child child)
{
	int status = 1;
	char data[4096];
	size_t len;

	if (child.pid < 0 || waitpid(child.pid, &status, 0) < 0) {
		printf("# an engine's process cannot be had: %s\n",
		       strerror(errno));
		return 1;
	}
	rewind(child.said);
	while ((len = fread(data, 1, sizeof(data), child.said)))
		fwrite(data, 1, len, stdout);
	fclose(child.said);
	if (WIFSIGNALED(status))
		printf("# ended by signal %d\n", WTERMSIG(status));
	return status != 0;
}

/*
 * Runs every case with every engine this kernel gives; initial_state is then
 * the engine's name. The plain cases run once. The cases wait most of their
 * time: each engine has a process of its own, beside the others.
 */
static inline int rig_run(const char *group, const struct CMUnitTest *plain,
			  size_t plain_count, const struct CMUnitTest *cases,
			  size_t count)
{
	struct rig_child child[8];
	size_t engines = 0;
	int result;

	for (; engine_all[engines]; engines++) {
		assert_true(engines < sizeof(child) / sizeof(child[0]));
		child[engines] = rig_child_new(group, engine_all[engines]->name,
					       cases, count);
	}
	result = _cmocka_run_group_tests(group, plain, plain_count, NULL, NULL);
	for (size_t e = 0; e < engines; e++)
		result |= rig_child_end(child[e]);
	return result;
}

#endif
