/* SPDX-License-Identifier: BSD-2-Clause */
/* The `culvert` command's own parts: options, addresses, progress, JSON, files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/backoff.h"
#include "client/check_stream.h"
#include "client/command.h"
#include "client/file.h"
#include "client/place.h"
#include "client/progress.h"
#include "client/report.h"

#define ARGS_MAX 16

/* The arguments as a process has them: writable copies. */
static int config_read(struct client_config *config, const char *const *args)
{
	static char copy[ARGS_MAX][64];
	static char *argv[ARGS_MAX + 1]; /* operands point into it */
	int argc = 0;

	for (; args[argc]; argc++) {
		snprintf(copy[argc], sizeof(copy[argc]), "%s", args[argc]);
		argv[argc] = copy[argc];
	}
	argv[argc] = NULL;
	return client_config_read(config, argc, argv);
}

#define READ(config, ...)   \
	config_read(config, \
		    (const char *const[]){ "culvert", __VA_ARGS__, NULL })

static void environment_clear(void)
{
	unsetenv("CULVERT_SERVER");
	unsetenv("CULVERT_USER");
	unsetenv("CULVERT_PASSWORD");
}

static void test_options_before_and_behind_operands(void **state)
{
	struct client_config config;

	(void)state;
	environment_clear();
	assert_int_equal(READ(&config, "-s", "host:1", "forward", "8080", "-4",
			      "peer:80", "--warm=9", "-u", "me", "-p",
			      "secret"),
			 0);
	assert_string_equal(config.command->name, "forward");
	assert_string_equal(config.server, "host:1");
	assert_string_equal(config.user, "me");
	assert_string_equal(config.password, "secret");
	assert_int_equal(config.warm, 9);
	assert_int_equal(config.family, AF_INET);
	assert_int_equal(config.operands, 2);
	assert_string_equal(config.operand[0], "8080");
	assert_string_equal(config.operand[1], "peer:80");
}

static void test_password_sources(void **state)
{
	char path[] = "/tmp/culvert-password-XXXXXX";
	struct client_config config;
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "from file\r\nmore\n", 16), 16);
	close(fd);
	environment_clear();
	setenv("CULVERT_PASSWORD", "from environment", 1);
	setenv("CULVERT_SERVER", "host", 1);
	setenv("CULVERT_USER", "me", 1);
	assert_int_equal(READ(&config, "check", "--password-file", path), 0);
	assert_string_equal(config.password, "from file");
	assert_int_equal(READ(&config, "check"), 0);
	assert_string_equal(config.password, "from environment");
	assert_string_equal(getenv("CULVERT_PASSWORD"), "");
	fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	assert_int_equal(write(fd, "from\0file\n", 10), 10);
	close(fd);
	assert_int_equal(READ(&config, "check", "--password-file", path),
			 -EINVAL);
	unlink(path);
	assert_int_equal(READ(&config, "check", "--password-file", path),
			 -EINVAL);
	environment_clear();
}

static void test_password_is_wiped_from_the_arguments(void **state)
{
	char secret[] = "secret";
	char *argv[] = { "culvert", "check", "-s",   "h", "-u",
			 "me",      "-p",    secret, NULL };
	struct client_config config;

	(void)state;
	environment_clear();
	assert_int_equal(client_config_read(&config, 8, argv), 0);
	assert_string_equal(config.password, "secret");
	assert_string_equal(secret, "xxxxxx");
}

static void test_wrong_usage(void **state)
{
	struct client_config config;

	(void)state;
	environment_clear();
	assert_int_equal(config_read(&config,
				     (const char *const[]){ "culvert", NULL }),
			 -EINVAL);
	assert_int_equal(READ(&config, "fly"), -EINVAL);
	assert_int_equal(READ(&config, "check"), -EINVAL);
	assert_int_equal(READ(&config, "check", "-s"), -EINVAL);
	assert_int_equal(READ(&config, "check", "-s", "h", "-u", "me"),
			 -EINVAL);
	assert_int_equal(READ(&config, "check", "-s", "h", "extra"), -EINVAL);
	assert_int_equal(READ(&config, "check", "-s", "h", "--warm", "1"),
			 -EINVAL);
	assert_int_equal(READ(&config, "check", "-s", "h", "--nonsense"),
			 -EINVAL);
	assert_int_equal(READ(&config, "forward", "-s", "h", "80"), -EINVAL);
	assert_int_equal(READ(&config, "forward", "-s", "h", "80", "p:80",
			      "--warm", "1x"),
			 -EINVAL);
	assert_int_equal(READ(&config, "forward", "-s", "h", "80", "p:80",
			      "--warm", "257"),
			 -EINVAL);
	assert_int_equal(READ(&config, "listen", "-s", "h", "80"), -EINVAL);
	assert_int_equal(READ(&config, "send", "-s", "h"), -EINVAL);
}

static void test_endpoints(void **state)
{
	char text[ADDR_STRLEN];
	union addr addr;

	(void)state;
	assert_int_equal(client_endpoint_find("x", "80", "127.0.0.1", &addr),
			 0);
	assert_string_equal(addr_format(&addr, text), "127.0.0.1:80");
	assert_int_equal(client_endpoint_find("x", "*:80", "127.0.0.1", &addr),
			 0);
	assert_string_equal(addr_format(&addr, text), "0.0.0.0:80");
	assert_int_equal(client_endpoint_find("x", "[::1]:80", NULL, &addr), 0);
	assert_string_equal(addr_format(&addr, text), "[::1]:80");
	assert_int_equal(client_endpoint_find("x", "0", "127.0.0.1", &addr), 0);
	assert_int_equal(client_endpoint_find("x", "80", NULL, &addr), -EINVAL);
	assert_int_equal(client_endpoint_find("x", "h:0", NULL, &addr),
			 -EINVAL);
	assert_int_equal(client_endpoint_find("x", "", "127.0.0.1", &addr),
			 -EINVAL);
}

static void test_allow_lists(void **state)
{
	union addr allow[3];
	size_t count = 0;

	(void)state;
	assert_int_equal(client_allow_read("192.0.2.1,::ffff:192.0.2.2", allow,
					   3, &count),
			 0);
	assert_int_equal(count, 2);
	assert_int_equal(addr_family(&allow[1]), AF_INET);
	assert_int_equal(client_allow_read("2001:db8::1", allow, 3, &count), 0);
	assert_int_equal(count, 1);
	assert_int_equal(client_allow_read("", allow, 3, &count), -EINVAL);
	assert_int_equal(client_allow_read("host", allow, 3, &count), -EINVAL);
	assert_int_equal(client_allow_read("192.0.2.1:80", allow, 3, &count),
			 -EINVAL);
	assert_int_equal(client_allow_read("192.0.2.1,,", allow, 3, &count),
			 -EINVAL);
	assert_int_equal(client_allow_read("192.0.2.1,2001:db8::1", allow, 3,
					   &count),
			 -EINVAL);
	assert_int_equal(client_allow_read("192.0.2.1,192.0.2.2,192.0.2.3,"
					   "192.0.2.4",
					   allow, 3, &count),
			 -EINVAL);
	assert_int_equal(count, 1);
}

static void test_sizes_and_times(void **state)
{
	char text[16];

	(void)state;
	assert_string_equal(client_size_format(0, text), "0 B");
	assert_string_equal(client_size_format(999, text), "999 B");
	assert_string_equal(client_size_format(1000, text), "1.0 KiB");
	assert_string_equal(client_size_format(1536, text), "1.5 KiB");
	assert_string_equal(client_size_format(150.0 * 1024, text), "150 KiB");
	assert_string_equal(client_size_format(1024.0 * 1024 * 1024, text),
			    "1.0 GiB");
	assert_int_equal(strlen(client_size_format(1e30, text)), 15);
	assert_string_equal(client_time_format(0, text), "0:00");
	assert_string_equal(client_time_format(67, text), "1:07");
	assert_string_equal(client_time_format(3723, text), "1:02:03");
	assert_string_equal(client_time_format(UINT64_MAX, text), "--:--");
}

static void test_progress_lines(void **state)
{
	struct client_progress progress = {
		.name = "data.bin",
		.total = 100 << 20,
		.done = 25 << 20,
		.rate = 5 << 20,
	};
	char line[256];

	(void)state;
	assert_string_equal(
		client_progress_format(&progress, 5000, 80, line, sizeof(line)),
		"data.bin   25% [=======>                      ] 25.0 MiB   "
		"5.0 MiB/s  0:15 left");
	/* However narrow: never as wide as the terminal, never a crash. */
	for (unsigned int columns = 1; columns < 200; columns++) {
		client_progress_format(&progress, 5000, columns, line,
				       sizeof(line));
		assert_true(strlen(line) < columns);
	}
	progress.done = progress.total * 2;
	assert_non_null(strstr(client_progress_format(&progress, 5000, 80, line,
						      sizeof(line)),
			       "100%"));
	progress.total = 0;
	progress.rate = 0;
	assert_string_equal(client_progress_format(&progress, 5000, 80, line,
						   sizeof(line)),
			    "data.bin   200 MiB       0 B/s  0:05");
}

static void test_json_strings(void **state)
{
	char text[64], small[16];

	(void)state;
	assert_string_equal(client_json_string("a\"b\\c\n\x7f", text,
					       sizeof(text)),
			    "\"a\\\"b\\\\c\\u000a\\u007f\"");
	assert_string_equal(client_json_string("", text, sizeof(text)), "\"\"");
	client_json_string("0123456789012345", small, sizeof(small));
	assert_int_equal(small[strlen(small) - 1], '"');
}

static void test_backoff_doubles_with_jitter(void **state)
{
	struct client_backoff backoff = { 0 };
	uint32_t step = CLIENT_BACKOFF_MIN_MS;

	(void)state;
	for (int i = 0; i < 12; i++) {
		assert_in_range(client_backoff_next(&backoff), step / 2, step);
		step = step * 2 > CLIENT_BACKOFF_MAX_MS ?
			       CLIENT_BACKOFF_MAX_MS :
			       step * 2;
	}
	client_backoff_reset(&backoff);
	assert_true(client_backoff_next(&backoff) <= CLIENT_BACKOFF_MIN_MS);
}

static void test_files(void **state)
{
	char path[] = "/tmp/culvert-file-XXXXXX";
	struct client_file file;
	char text[16];
	int fd = mkstemp(path);

	(void)state;
	assert_int_equal(write(fd, "old content", 11), 11);
	close(fd);
	assert_int_equal(client_file_open_sink(&file, path), 0);
	assert_int_equal(file.kind, CLIENT_FILE_REGULAR);
	assert_int_equal(client_file_truncate(&file), 0);
	assert_int_equal(client_file_write(&file, "new", 3), 3);
	assert_int_equal(client_file_sync(&file), 0);
	client_file_close(&file);
	assert_int_equal(client_file_open_source(&file, path), 0);
	assert_int_equal(file.size, 3);
	assert_int_equal(client_file_read(&file, text, sizeof(text)), 3);
	assert_int_equal(client_file_read(&file, text, sizeof(text)), 0);
	client_file_close(&file);
	unlink(path);
	assert_int_equal(client_file_open_source(&file, path), -ENOENT);
	assert_int_equal(client_file_open_source(&file, "/tmp"), -EISDIR);
	assert_int_equal(client_file_open_sink(&file, "/tmp/no/such"), -ENOENT);
}

static void test_full_disk_is_an_error(void **state)
{
	struct client_file file;

	(void)state;
	assert_int_equal(client_file_open_sink(&file, "/dev/full"), 0);
	assert_int_equal(client_file_write(&file, "x", 1), -ENOSPC);
	client_file_close(&file);
}

static void stream_pair(int fds[2])
{
	assert_int_equal(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
}

static void test_check_of_a_stream(void **state)
{
	struct culvert_loop *loop;
	struct client_echo echo;
	int fds[2];

	(void)state;
	assert_int_equal(culvert_loop_new(&loop), 0);
	stream_pair(fds);
	assert_int_equal(
		client_check_echo(loop, fds[0], fds[1], 8, 1000, &echo), 0);
	assert_int_equal(echo.bytes, 8 * 4096);
	assert_true(echo.p50_ms <= echo.worst_ms);
	assert_int_equal(client_check_half_close(loop, fds[0], fds[1], 1000),
			 0);
	close(fds[0]);
	close(fds[1]);
	culvert_loop_free(loop);
}

static void test_check_of_a_broken_stream(void **state)
{
	struct culvert_loop *loop;
	struct client_echo echo;
	int fds[2];

	(void)state;
	assert_int_equal(culvert_loop_new(&loop), 0);
	stream_pair(fds);
	/* Bytes that are none of ours come first. */
	assert_int_equal(write(fds[0], "x", 1), 1);
	assert_int_equal(client_check_echo(loop, fds[0], fds[1], 8, 100, &echo),
			 -EBADMSG);
	close(fds[1]);
	assert_true(client_check_half_close(loop, fds[0], fds[0], 100) < 0);
	close(fds[0]);
	culvert_loop_free(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_options_before_and_behind_operands),
		cmocka_unit_test(test_password_sources),
		cmocka_unit_test(test_password_is_wiped_from_the_arguments),
		cmocka_unit_test(test_wrong_usage),
		cmocka_unit_test(test_endpoints),
		cmocka_unit_test(test_allow_lists),
		cmocka_unit_test(test_sizes_and_times),
		cmocka_unit_test(test_progress_lines),
		cmocka_unit_test(test_json_strings),
		cmocka_unit_test(test_backoff_doubles_with_jitter),
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_full_disk_is_an_error),
		cmocka_unit_test(test_check_of_a_stream),
		cmocka_unit_test(test_check_of_a_broken_stream),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
