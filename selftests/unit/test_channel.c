/* SPDX-License-Identifier: BSD-2-Clause */
/* The channel between supervisor and relay: exact messages, descriptors, refusal. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "main/channel.h"

static int setup(void **state)
{
	static int fds[2];

	*state = fds;
	return channel_new(fds);
}

static int teardown(void **state)
{
	int *fds = *state;

	close(fds[0]);
	close(fds[1]);
	return 0;
}

static void carries_text_and_result(void **state)
{
	int *fds = *state, got[CHANNEL_FDS_MAX];
	struct channel_msg msg;
	size_t count = 9;

	assert_int_equal(channel_send(fds[0], CHANNEL_TAKEN, -EINVAL, "why",
				      NULL, 0),
			 0);
	assert_int_equal(channel_recv(fds[1], &msg, got, &count), 0);
	assert_int_equal(msg.type, CHANNEL_TAKEN);
	assert_int_equal(msg.result, -EINVAL);
	assert_string_equal(msg.text, "why");
	assert_int_equal(count, 0);
}

static void carries_descriptors_closed_on_exec(void **state)
{
	int *fds = *state, sent[CHANNEL_FDS_MAX], got[CHANNEL_FDS_MAX];
	struct channel_msg msg;
	size_t count;

	for (int i = 0; i < CHANNEL_FDS_MAX; i++)
		sent[i] = STDIN_FILENO;
	assert_int_equal(channel_send(fds[0], CHANNEL_LISTENER, 0, "public",
				      sent, CHANNEL_FDS_MAX),
			 0);
	assert_int_equal(channel_recv(fds[1], &msg, got, &count), 0);
	assert_int_equal(count, CHANNEL_FDS_MAX);
	for (size_t i = 0; i < count; i++) {
		assert_true(fcntl(got[i], F_GETFD) & FD_CLOEXEC);
		close(got[i]);
	}
}

static void refuses_too_many_descriptors(void **state)
{
	int *fds = *state, sent[CHANNEL_FDS_MAX + 1] = { 0 };

	assert_int_equal(channel_send(fds[0], CHANNEL_LISTENER, 0, "", sent,
				      CHANNEL_FDS_MAX + 1),
			 -EINVAL);
}

static void cuts_overlong_text(void **state)
{
	int *fds = *state, got[CHANNEL_FDS_MAX];
	char text[1000];
	struct channel_msg msg;
	size_t count;

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	assert_int_equal(
		channel_send(fds[0], CHANNEL_REFUSED, 0, text, NULL, 0), 0);
	assert_int_equal(channel_recv(fds[1], &msg, got, &count), 0);
	assert_int_equal(strlen(msg.text), sizeof(msg.text) - 1);
}

static void refuses(int *fds, const void *data, size_t len)
{
	int got[CHANNEL_FDS_MAX];
	struct channel_msg msg;
	size_t count;

	assert_int_equal(send(fds[0], data, len, 0), len);
	assert_int_equal(channel_recv(fds[1], &msg, got, &count), -EBADMSG);
}

static void refuses_what_is_not_a_message(void **state)
{
	struct channel_msg msg = { .type = CHANNEL_STOP };
	char long_one[sizeof(msg) + 1] = { CHANNEL_STOP };
	int *fds = *state;

	refuses(fds, &msg, sizeof(msg) - 1);
	refuses(fds, long_one, sizeof(long_one));
	msg.type = CHANNEL_TYPES;
	refuses(fds, &msg, sizeof(msg));
	msg.type = 0;
	refuses(fds, &msg, sizeof(msg));
	msg.type = CHANNEL_STOP;
	memset(msg.text, 'x', sizeof(msg.text));
	refuses(fds, &msg, sizeof(msg));
}

static void tells_that_the_other_side_has_gone(void **state)
{
	int *fds = *state, pair[2], got[CHANNEL_FDS_MAX];
	struct channel_msg msg;
	size_t count;

	(void)fds;
	assert_int_equal(channel_new(pair), 0);
	close(pair[0]);
	assert_int_equal(channel_recv(pair[1], &msg, got, &count), -EPIPE);
	assert_int_equal(channel_send(pair[1], CHANNEL_STOP, 0, "", NULL, 0),
			 -EPIPE);
	close(pair[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(carries_text_and_result, setup,
						teardown),
		cmocka_unit_test_setup_teardown(
			carries_descriptors_closed_on_exec, setup, teardown),
		cmocka_unit_test_setup_teardown(refuses_too_many_descriptors,
						setup, teardown),
		cmocka_unit_test_setup_teardown(cuts_overlong_text, setup,
						teardown),
		cmocka_unit_test_setup_teardown(refuses_what_is_not_a_message,
						setup, teardown),
		cmocka_unit_test_setup_teardown(
			tells_that_the_other_side_has_gone, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
