/* SPDX-License-Identifier: BSD-2-Clause */
/* Messages with descriptors: what fits, what is lost, ends, and that none leaks. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/message.h"
#include "unit/open_files.h"

struct ends {
	int from, to;
	size_t open; /* descriptors of this process, without the two */
	int file;
};

static int setup(void **state)
{
	static struct ends ends;
	int pair[2];

	ends.open = open_files();
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return -1;
	ends.from = pair[0];
	ends.to = pair[1];
	ends.file = open("/dev/null", O_RDONLY | O_CLOEXEC);
	*state = &ends;
	return ends.file < 0;
}

/* Whatever a test has sent and received, nothing of it stays open. */
static int teardown(void **state)
{
	struct ends *ends = *state;

	if (ends->from >= 0)
		close(ends->from);
	close(ends->to);
	close(ends->file);
	assert_int_equal(open_files(), ends->open);
	return 0;
}

static void lend(const struct ends *ends, const char *body, size_t count)
{
	int fds[MESSAGE_FDS_MAX];

	for (size_t i = 0; i < count; i++)
		fds[i] = ends->file;
	assert_int_equal(message_send(ends->from, body, strlen(body), fds,
				      count, MSG_DONTWAIT),
			 0);
}

static void carries_a_body_alone(void **state)
{
	struct ends *ends = *state;
	struct message got;
	char body[8] = "";

	lend(ends, "hello", 0);
	assert_int_equal(message_recv(ends->to, body, sizeof(body), 4, 0, &got),
			 0);
	assert_string_equal(body, "hello");
	assert_int_equal(got.len, 5);
	assert_int_equal(got.fd_count, 0);
	assert_false(got.cut);
	assert_false(got.fds_lost);
}

static void carries_descriptors_closed_on_exec(void **state)
{
	struct ends *ends = *state;
	struct stat sent, come;
	struct message got;
	char body[8];

	lend(ends, "x", MESSAGE_FDS_MAX);
	assert_int_equal(message_recv(ends->to, body, sizeof(body),
				      MESSAGE_FDS_MAX, 0, &got),
			 0);
	assert_int_equal(got.fd_count, MESSAGE_FDS_MAX);
	assert_false(got.fds_lost);
	fstat(ends->file, &sent);
	for (size_t i = 0; i < got.fd_count; i++) {
		assert_true(fcntl(got.fds[i], F_GETFD) & FD_CLOEXEC);
		assert_int_equal(fstat(got.fds[i], &come), 0);
		assert_int_equal(come.st_rdev, sent.st_rdev);
	}
	message_close(&got);
	assert_int_equal(got.fd_count, 0);
}

static void says_that_a_body_was_cut(void **state)
{
	struct ends *ends = *state;
	struct message got;
	char body[4];

	lend(ends, "hello", 1);
	assert_int_equal(message_recv(ends->to, body, sizeof(body), 1, 0, &got),
			 0);
	assert_true(got.cut);
	assert_false(got.fds_lost);
	assert_int_equal(got.len, sizeof(body));
	assert_int_equal(got.fd_count, 1);
	message_close(&got);
}

/* As many as were asked for, to the descriptor; odd numbers need no less. */
static void closes_what_was_not_asked_for(void **state)
{
	struct ends *ends = *state;
	struct message got;
	char body[8];

	for (size_t room = 0; room < 6; room++) {
		size_t before = open_files();

		lend(ends, "x", 5);
		assert_int_equal(message_recv(ends->to, body, sizeof(body),
					      room, 0, &got),
				 0);
		assert_int_equal(got.fd_count, room);
		assert_int_equal(got.fds_lost, room < 5);
		message_close(&got);
		assert_int_equal(open_files(), before);
	}
}

static void says_that_this_process_has_no_room_for_descriptors(void **state)
{
	struct ends *ends = *state;
	struct rlimit usual, tight;
	struct message got;
	char body[8];
	int next;

	lend(ends, "x", 3);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &usual), 0);
	next = dup(ends->file);
	close(next);
	tight = usual;
	tight.rlim_cur = (rlim_t)next + 2;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
	assert_int_equal(message_recv(ends->to, body, sizeof(body), 3, 0, &got),
			 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &usual), 0);
	assert_int_equal(got.fd_count, 2);
	assert_true(got.fds_lost);
	message_close(&got);
}

static void refuses_too_many_descriptors(void **state)
{
	int fds[MESSAGE_FDS_MAX + 1] = { 0 };
	struct ends *ends = *state;
	struct message got;
	char body[8];

	assert_int_equal(message_send(ends->from, "x", 1, fds,
				      MESSAGE_FDS_MAX + 1, MSG_DONTWAIT),
			 -EINVAL);
	assert_int_equal(message_recv(ends->to, body, sizeof(body),
				      MESSAGE_FDS_MAX + 1, MSG_DONTWAIT, &got),
			 -EINVAL);
	assert_int_equal(message_recv(ends->to, body, sizeof(body), 0,
				      MSG_DONTWAIT, &got),
			 -EAGAIN);
}

static void says_that_there_is_nothing(void **state)
{
	struct message got = { .len = 99 };
	struct ends *ends = *state;
	char body[8];

	assert_int_equal(message_recv(ends->to, body, sizeof(body), 0,
				      MSG_DONTWAIT, &got),
			 -EAGAIN);
	assert_int_equal(got.len, 99);
}

static void says_that_there_is_no_room(void **state)
{
	struct ends *ends = *state;
	const struct timeval soon = { .tv_usec = 1000 };
	char body[8], big[4096] = "";
	struct message got;
	unsigned int sent = 0;
	int err;

	while (!(err = message_send(ends->from, big, sizeof(big), &ends->file,
				    1, MSG_DONTWAIT)))
		sent++;
	assert_int_equal(err, -EAGAIN);
	assert_true(sent > 0);
	/* One that may wait does so as long as its socket says. */
	setsockopt(ends->from, SOL_SOCKET, SO_SNDTIMEO, &soon, sizeof(soon));
	assert_int_equal(message_send(ends->from, big, 1, NULL, 0, 0), -EAGAIN);
	while (sent--) {
		assert_int_equal(message_recv(ends->to, body, sizeof(body), 1,
					      0, &got),
				 0);
		message_close(&got);
	}
	lend(ends, "x", 0);
}

static void hears_what_came_before_the_end(void **state)
{
	struct ends *ends = *state;
	struct message got;
	char body[8];

	lend(ends, "x", 2);
	close(ends->from);
	ends->from = -1;
	assert_int_equal(message_recv(ends->to, body, sizeof(body), 2, 0, &got),
			 0);
	assert_int_equal(got.fd_count, 2);
	message_close(&got);
	assert_int_equal(message_recv(ends->to, body, sizeof(body), 2, 0, &got),
			 -EPIPE);
	assert_int_equal(message_send(ends->to, "x", 1, NULL, 0, 0), -EPIPE);
}

/* One that closes with unread messages resets the channel. */
static void takes_a_reset_for_an_end(void **state)
{
	struct ends *ends = *state;
	struct message got;
	char body[8];

	assert_int_equal(message_send(ends->to, "x", 1, &ends->file, 1, 0), 0);
	close(ends->from);
	ends->from = -1;
	assert_int_equal(message_recv(ends->to, body, sizeof(body), 2, 0, &got),
			 -EPIPE);
}

static void takes_an_empty_message_for_one_by_its_descriptors(void **state)
{
	struct ends *ends = *state;
	struct message got;
	char body[8];

	lend(ends, "", 1);
	assert_int_equal(message_recv(ends->to, body, sizeof(body), 1, 0, &got),
			 0);
	assert_int_equal(got.len, 0);
	assert_int_equal(got.fd_count, 1);
	message_close(&got);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(carries_a_body_alone),
		TEST(carries_descriptors_closed_on_exec),
		TEST(says_that_a_body_was_cut),
		TEST(closes_what_was_not_asked_for),
		TEST(says_that_this_process_has_no_room_for_descriptors),
		TEST(refuses_too_many_descriptors),
		TEST(says_that_there_is_nothing),
		TEST(says_that_there_is_no_room),
		TEST(hears_what_came_before_the_end),
		TEST(takes_a_reset_for_an_end),
		TEST(takes_an_empty_message_for_one_by_its_descriptors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
