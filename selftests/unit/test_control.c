/* SPDX-License-Identifier: BSD-2-Clause */
/* The control socket: requests, the server over a real socket, the asking side. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "control/client.h"
#include "control/control.h"
#include "failalloc.h"

#define PATIENCE_MS 20000
#define STATUS      "{\"v\":1,\"cmd\":\"status\"}\n"

#define OK(cmd) "{\"v\":1,\"ok\":true,\"cmd\":\"" cmd "\",\"data\":{}}"

/* A server on a socket of its own, and a handler that does what it is told. */
struct fixture {
	char dir[64], path[100];
	struct loop *loop;
	struct control_server *server;
	unsigned int calls;
	struct control_request last;
	bool hold; /* keep replies instead of answering */
	struct control_reply *held; /* the one kept */
	size_t rows; /* connections to answer with */
};

static struct fixture fx;

static void rows_reply(struct control_reply *reply, size_t count)
{
	struct control_connection *rows = calloc(count, sizeof(*rows));

	assert_non_null(rows);
	for (size_t i = 0; i < count; i++) {
		snprintf(rows[i].id, sizeof(rows[i].id), "c0.%zu", i);
		rows[i].user = strdup("alice");
		rows[i].state = "relaying";
		rows[i].engine = "splice";
	}
	/* In two parts, as a long one is written. */
	control_reply_connections(reply, rows, count / 2, count + 5);
	control_reply_connections(reply, rows + count / 2, count - count / 2,
				  count + 5);
	control_reply_end(reply);
	control_connections_free(rows, count);
}

static void handle(void *arg, const struct control_request *request,
		   struct control_reply *reply)
{
	assert_ptr_equal(arg, &fx);
	fx.calls++;
	fx.last = *request;
	if (fx.hold) {
		assert_null(fx.held);
		fx.held = reply;
	} else if (request->command == CONTROL_CONNECTIONS) {
		rows_reply(reply, fx.rows);
	} else if (request->command == CONTROL_KICK) {
		control_reply_error(reply, "no \"%s\" here", request->id);
	} else {
		control_reply_ok(reply);
	}
}

static void server_start(unsigned int max_clients)
{
	int fd = control_listen(fx.path);

	assert_true(fd >= 0);
	assert_int_equal(control_server_new(fx.loop, fd, max_clients, handle,
					    &fx, &fx.server),
			 0);
}

static int setup(void **state)
{
	(void)state;
	memset(&fx, 0, sizeof(fx));
	strcpy(fx.dir, "/tmp/culvert-control-XXXXXX");
	assert_non_null(mkdtemp(fx.dir));
	snprintf(fx.path, sizeof(fx.path), "%s/control.sock", fx.dir);
	fx.rows = 1;
	assert_int_equal(loop_new(&fx.loop), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	control_server_free(fx.server);
	loop_free(fx.loop);
	unlink(fx.path);
	assert_int_equal(rmdir(fx.dir), 0);
	return 0;
}

static int dial_path(const char *path)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	strcpy(sun.sun_path, path);
	assert_int_equal(connect(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	return fd;
}

static int dial(void)
{
	return dial_path(fx.path);
}

static void say(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL),
			 strlen(text));
}

/*
 * Turns the loop until fd has a line for us, which is returned without its end
 * and to be freed; NULL: the server has closed.
 */
static char *hear(int fd)
{
	uint64_t give_up = clock_ms() + PATIENCE_MS;
	size_t len = 0, room = 65536;
	char *line = malloc(room);

	while (line && clock_ms() < give_up) {
		ssize_t n = read(fd, line + len, 1);

		if (n == 1 && line[len] == '\n') {
			line[len] = '\0';
			return line;
		}
		if (n == 1 && ++len == room) {
			char *grown = realloc(line, room *= 2);

			assert_non_null(grown);
			line = grown;
		}
		if (n == 0 || (n < 0 && errno == ECONNRESET)) {
			assert_int_equal(len, 0);
			free(line);
			return NULL;
		}
		if (n < 0)
			assert_int_equal(loop_tick(fx.loop, 10), 0);
	}
	fail_msg("nothing heard");
	return NULL;
}

static void assert_heard(int fd, const char *expected)
{
	char *line = hear(fd);

	if (!expected) {
		assert_null(line);
		return;
	}
	assert_non_null(line);
	assert_string_equal(line, expected);
	free(line);
}

/* Turns the loop until the handler was called so many times. */
static void await_calls(unsigned int calls)
{
	uint64_t give_up = clock_ms() + PATIENCE_MS;

	while (fx.calls < calls && clock_ms() < give_up)
		assert_int_equal(loop_tick(fx.loop, 10), 0);
	assert_int_equal(fx.calls, calls);
}

/* Lets the server do all it can at once. */
static void settle(void)
{
	for (int i = 0; i < 10; i++)
		assert_int_equal(loop_tick(fx.loop, 0), 0);
}

static int parse(const char *line, struct control_request *out,
		 const char **error)
{
	return control_parse_request(line, strlen(line), out, error);
}

static void requests_are_understood(void **state)
{
	static const struct {
		const char *line;
		enum control_command command;
		size_t limit;
		const char *id;
	} lines[] = {
		{ "{\"v\":1,\"cmd\":\"status\"}", CONTROL_STATUS, 1000, "" },
		{ " { \"cmd\" : \"allocations\" , \"v\" : 1 } \r",
		  CONTROL_ALLOCATIONS, 1000, "" },
		{ "{\"v\":1,\"cmd\":\"connections\",\"limit\":100000}",
		  CONTROL_CONNECTIONS, 100000, "" },
		{ "{\"v\":1,\"cmd\":\"engines\",\"later\":{\"x\":[]}}",
		  CONTROL_ENGINES, 1000, "" },
		{ "{\"v\":1,\"cmd\":\"kick\",\"id\":\"a12.7\"}", CONTROL_KICK,
		  1000, "a12.7" },
		{ "{\"v\":1,\"cmd\":\"kick\",\"id\":\"c0.1\"}", CONTROL_KICK,
		  1000, "c0.1" },
		{ "{\"v\":1,\"cmd\":\"drain\"}", CONTROL_DRAIN, 1000, "" },
		{ "{\"v\":1,\"cmd\":\"undrain\"}", CONTROL_UNDRAIN, 1000, "" },
		{ "{\"v\":1,\"cmd\":\"reload\"}", CONTROL_RELOAD, 1000, "" },
		{ "{\"v\":1,\"cmd\":\"stop\"}", CONTROL_STOP, 1000, "" },
	};
	struct control_request request;
	const char *error;

	(void)state;
	for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
		assert_int_equal(parse(lines[i].line, &request, &error), 0);
		assert_int_equal(request.command, lines[i].command);
		assert_int_equal(request.limit, lines[i].limit);
		assert_string_equal(request.id, lines[i].id);
	}
}

static void wrong_requests_are_refused_with_a_reason(void **state)
{
	static const struct {
		const char *line, *reason;
	} lines[] = {
		{ "", "one JSON object" },
		{ "hello", "one JSON object" },
		{ "[1]", "one JSON object" },
		{ "{\"v\":1,\"cmd\":\"status\"} {}", "one JSON object" },
		{ "{\"v\":1,\"v\":1,\"cmd\":\"status\"}", "one JSON object" },
		{ "{\"v\":1,\"cmd\":\"sta\\u0000tus\"}", "one JSON object" },
		{ "{\"v\":1,\"cmd\":\"\xff\"}", "one JSON object" },
		{ "{\"cmd\":\"status\"}", "\"v\" is missing" },
		{ "{\"v\":\"1\",\"cmd\":\"status\"}", "\"v\" is missing" },
		{ "{\"v\":2,\"cmd\":\"status\"}", "version 1 only" },
		{ "{\"v\":1}", "\"cmd\" is missing" },
		{ "{\"v\":1,\"cmd\":7}", "\"cmd\" is missing" },
		{ "{\"v\":1,\"cmd\":\"Status\"}", "unknown command" },
		{ "{\"v\":1,\"cmd\":\"connections\",\"limit\":0}",
		  "\"limit\"" },
		{ "{\"v\":1,\"cmd\":\"connections\",\"limit\":100001}",
		  "\"limit\"" },
		{ "{\"v\":1,\"cmd\":\"connections\",\"limit\":1.5}",
		  "\"limit\"" },
		{ "{\"v\":1,\"cmd\":\"connections\",\"limit\":-1}",
		  "\"limit\"" },
		{ "{\"v\":1,\"cmd\":\"kick\"}", "\"id\"" },
		{ "{\"v\":1,\"cmd\":\"kick\",\"id\":7}", "\"id\"" },
		{ "{\"v\":1,\"cmd\":\"kick\",\"id\":\"a1\"}", "\"id\"" },
		{ "{\"v\":1,\"cmd\":\"kick\",\"id\":\"b1.2\"}", "\"id\"" },
		{ "{\"v\":1,\"cmd\":\"kick\",\"id\":\"a1.2 \"}", "\"id\"" },
		{ "{\"v\":1,\"cmd\":\"kick\",\"id\":\"a.2\"}", "\"id\"" },
		{ "{\"v\":1,\"cmd\":\"kick\",\"id\":\"a1.\"}", "\"id\"" },
		{ "{\"v\":1,\"cmd\":\"kick\",\"id\":"
		  "\"a1.234567890123456789012345678901234567\"}",
		  "\"id\"" },
	};
	struct control_request request;
	const char *error;

	(void)state;
	for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
		error = NULL;
		assert_int_equal(parse(lines[i].line, &request, &error),
				 -EINVAL);
		assert_non_null(error);
		if (!strstr(error, lines[i].reason))
			fail_msg("%s: %s", lines[i].line, error);
	}
}

static void the_socket_is_made_for_its_group_only(void **state)
{
	static const mode_t masks[] = { 0, 022, 077 };
	char nested[120], sub[100];
	struct stat st;

	(void)state;
	snprintf(sub, sizeof(sub), "%s/sub", fx.dir);
	snprintf(nested, sizeof(nested), "%s/c.sock", sub);
	for (size_t i = 0; i < sizeof(masks) / sizeof(*masks); i++) {
		mode_t before = umask(masks[i]);
		int fd = control_listen(nested);

		umask(before);
		assert_true(fd >= 0);
		assert_int_equal(stat(nested, &st), 0);
		assert_int_equal(st.st_mode & 0777, 0660);
		assert_int_equal(stat(sub, &st), 0);
		assert_int_equal(st.st_mode & 0777, 0755);
		assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
		assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
		close(fd);
		unlink(nested);
		rmdir(sub);
	}
}

static void a_stale_socket_is_replaced_and_a_live_one_kept(void **state)
{
	int first = control_listen(fx.path), second;

	(void)state;
	assert_true(first >= 0);
	assert_int_equal(control_listen(fx.path), -EADDRINUSE);
	close(first);
	second = control_listen(fx.path);
	assert_true(second >= 0);
	close(dial()); /* somebody is there */
	close(second);
}

static void other_files_and_paths_are_refused(void **state)
{
	char path[200];
	int fd = open(fx.path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	(void)state;
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(control_listen(fx.path), -ENOTSOCK);
	assert_int_equal(access(fx.path, F_OK), 0);
	memset(path, 'x', sizeof(path) - 1);
	path[0] = '/';
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(control_listen(path), -ENAMETOOLONG);
	assert_int_equal(control_listen(""), -EINVAL);
	snprintf(path, sizeof(path), "%s/missing/too/c.sock", fx.dir);
	assert_int_equal(control_listen(path), -ENOENT);
}

static void requests_are_answered_one_after_the_other(void **state)
{
	int fd;

	(void)state;
	server_start(4);
	fd = dial();
	say(fd, STATUS);
	assert_heard(fd, OK("status"));
	say(fd, "{\"v\":1,\"cmd\":\"drain\"}\n");
	assert_heard(fd, OK("drain"));
	say(fd, "{\"v\":1,\"cmd\":\"kick\",\"id\":\"c1.2\"}\n");
	assert_heard(fd, "{\"v\":1,\"ok\":false,\"error\":\"no \\\"c1.2\\\" "
			 "here\"}");
	close(fd);
}

static void pipelined_requests_are_answered_in_order(void **state)
{
	int fd;

	(void)state;
	server_start(4);
	fd = dial();
	say(fd, STATUS "\n\n{\"v\":1,\"cmd\":\"reload\"}\nnonsense\n" STATUS
		       "{\"v\":1,\"cmd\":\"stop\"}\n");
	assert_heard(fd, OK("status"));
	assert_heard(fd, OK("reload"));
	assert_heard(fd,
		     "{\"v\":1,\"ok\":false,\"error\":\"a request is one JSON "
		     "object on one line, without repeated keys\"}");
	assert_heard(fd, OK("status"));
	assert_heard(fd, OK("stop"));
	close(fd);
}

static void partial_lines_are_put_together(void **state)
{
	static const char request[] = STATUS;
	int fd;

	(void)state;
	server_start(4);
	fd = dial();
	for (size_t i = 0; i < sizeof(request) - 1; i++) {
		char byte[2] = { request[i], '\0' };

		assert_int_equal(fx.calls, 0);
		say(fd, byte);
		settle();
	}
	assert_heard(fd, OK("status"));
	close(fd);
}

static void the_last_line_needs_no_end(void **state)
{
	int fd;

	(void)state;
	server_start(4);
	fd = dial();
	say(fd, STATUS "{\"v\":1,\"cmd\":\"drain\"}");
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	assert_heard(fd, OK("status"));
	assert_heard(fd, OK("drain"));
	assert_heard(fd, NULL);
	close(fd);
}

static void the_longest_request_fits_and_a_longer_one_ends(void **state)
{
	char line[4200];
	int fd;

	(void)state;
	server_start(4);
	memset(line, ' ', sizeof(line));
	memcpy(line, STATUS, strlen(STATUS) - 1);
	line[4096] = '\n';
	line[4097] = '\0';
	fd = dial();
	say(fd, line);
	assert_heard(fd, OK("status"));
	line[4096] = ' ';
	say(fd, line);
	assert_heard(fd, "{\"v\":1,\"ok\":false,\"error\":\"the request is "
			 "longer than 4096 bytes: send a shorter one\"}");
	assert_heard(fd, NULL);
	close(fd);
	assert_int_equal(fx.calls, 1);
}

static void later_requests_wait_for_a_late_answer(void **state)
{
	struct control_reply *reply;
	int fd;

	(void)state;
	server_start(4);
	fx.hold = true;
	fd = dial();
	say(fd, STATUS "{\"v\":1,\"cmd\":\"drain\"}\n");
	await_calls(1);
	settle();
	assert_int_equal(fx.calls, 1);
	reply = fx.held;
	fx.held = NULL;
	control_reply_ok(reply);
	assert_heard(fd, OK("status"));
	await_calls(2);
	control_reply_ok(fx.held);
	assert_heard(fd, OK("drain"));
	close(fd);
}

static void a_reply_outlives_its_client(void **state)
{
	int fd, other;

	(void)state;
	server_start(1);
	fx.hold = true;
	fd = dial();
	say(fd, STATUS);
	await_calls(1);
	close(fd);
	settle();
	fx.hold = false;
	/* Its place is free, so it is really gone. */
	other = dial();
	say(other, STATUS);
	assert_heard(other, OK("status"));
	control_reply_error(fx.held, "too late");
	settle();
	close(other);
}

static void a_reply_outlives_the_server(void **state)
{
	int fd;

	(void)state;
	server_start(1);
	fx.hold = true;
	fd = dial();
	say(fd, STATUS);
	await_calls(1);
	control_server_free(fx.server);
	fx.server = NULL;
	rows_reply(fx.held, 10);
	assert_heard(fd, NULL);
	close(fd);
}

static void a_half_closed_client_gets_its_late_answer(void **state)
{
	int fd;

	(void)state;
	server_start(1);
	fx.hold = true;
	fd = dial();
	say(fd, STATUS);
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	await_calls(1);
	settle();
	control_reply_ok(fx.held);
	assert_heard(fd, OK("status"));
	assert_heard(fd, NULL);
	close(fd);
}

static void one_client_too_many_is_told_so(void **state)
{
	int first, second, third;

	(void)state;
	server_start(1);
	first = dial();
	say(first, STATUS);
	assert_heard(first, OK("status"));
	second = dial();
	assert_heard(second,
		     "{\"v\":1,\"ok\":false,\"error\":\"too many control "
		     "connections: close some, or raise control_clients in "
		     "[limits]\"}");
	assert_heard(second, NULL);
	close(second);
	close(first);
	settle();
	third = dial();
	say(third, STATUS);
	assert_heard(third, OK("status"));
	close(third);
}

static void an_idle_client_is_closed_but_not_a_waiting_one(void **state)
{
	int idle, waiting;

	(void)state;
	server_start(4);
	control_server_set_idle(fx.server, 50);
	fx.hold = true;
	waiting = dial();
	say(waiting, STATUS);
	await_calls(1);
	idle = dial();
	say(idle, "{\"v\":");
	assert_heard(idle, NULL);
	control_reply_ok(fx.held);
	assert_heard(waiting, OK("status"));
	assert_heard(waiting, NULL);
	close(idle);
	close(waiting);
}

static void a_client_that_does_not_read_delays_nobody(void **state)
{
	unsigned int calls;
	int slow, quick;
	char *line;

	(void)state;
	server_start(4);
	fx.rows = 20000;
	slow = dial();
	for (int i = 0; i < 50; i++)
		say(slow, "{\"v\":1,\"cmd\":\"connections\"}\n");
	settle();
	/* One answer is on its way; the other requests are not even begun. */
	assert_int_equal(fx.calls, 1);
	quick = dial();
	say(quick, STATUS);
	assert_heard(quick, OK("status"));
	calls = fx.calls;
	assert_int_equal(calls, 2);
	line = hear(slow);
	assert_non_null(line);
	assert_true(strlen(line) > 2000000);
	assert_memory_equal(line + strlen(line) - 4, "}]}}", 4);
	free(line);
	close(slow);
	close(quick);
	settle();
}

static void a_client_that_never_reads_is_closed(void **state)
{
	uint64_t give_up = clock_ms() + PATIENCE_MS;
	char byte;
	ssize_t n = 1;
	int fd;

	(void)state;
	server_start(1);
	control_server_set_idle(fx.server, 50);
	fx.rows = 20000;
	fd = dial();
	say(fd, "{\"v\":1,\"cmd\":\"connections\"}\n");
	await_calls(1);
	/* Room for another one shows that it is gone. */
	while (clock_ms() < give_up) {
		int other = dial();

		say(other, STATUS);
		char *line = hear(other);

		close(other);
		settle();
		n = line ? strcmp(line, OK("status")) : 1;
		free(line);
		if (!n)
			break;
	}
	assert_int_equal(n, 0);
	while ((n = read(fd, &byte, 1)) == 1)
		;
	assert_true(n == 0 || errno == ECONNRESET);
	close(fd);
}

/* What is written to standard error while fn runs. */
static void log_capture(void (*fn)(void), char *out, size_t size)
{
	int saved = dup(STDERR_FILENO), pipes[2];
	ssize_t n;

	assert_int_equal(pipe2(pipes, O_CLOEXEC | O_NONBLOCK), 0);
	assert_true(dup2(pipes[1], STDERR_FILENO) >= 0);
	fn();
	assert_true(dup2(saved, STDERR_FILENO) >= 0);
	n = read(pipes[0], out, size - 1);
	out[n > 0 ? n : 0] = '\0';
	close(saved);
	close(pipes[0]);
	close(pipes[1]);
}

static void commands_for_the_log(void)
{
	int fd = dial();
	char *line;

	say(fd, STATUS "{\"v\":1,\"cmd\":\"kick\",\"id\":\"c3.4\"}\n"
		       "{\"v\":1,\"cmd\":\"drain\"}\n");
	for (int i = 0; i < 3; i++) {
		line = hear(fd);
		free(line);
	}
	close(fd);
}

static void changes_are_logged_with_who_asked(void **state)
{
	char log[2000], expected[400];

	(void)state;
	server_start(4);
	log_capture(commands_for_the_log, log, sizeof(log));
	snprintf(expected, sizeof(expected),
		 "level=info room=control event=command cmd=kick id=c3.4 "
		 "uid=%u pid=%d\n"
		 "level=info room=control event=command cmd=drain uid=%u "
		 "pid=%d\n",
		 (unsigned int)getuid(), (int)getpid(), (unsigned int)getuid(),
		 (int)getpid());
	assert_string_equal(log, expected);
}

static void ask_status(int fd)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };

	strcpy(sun.sun_path, fx.path);
	assert_int_equal(connect(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	say(fd, STATUS);
	settle();
}

static void exhaust_and_recover(void)
{
	struct rlimit before, tight;
	int first, second, probe, calls[2];

	first = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	second = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	probe = dup(second);
	close(probe);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	tight = before;
	tight.rlim_cur = (rlim_t)probe; /* none is free below it */
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
	ask_status(first);
	calls[0] = fx.calls;
	ask_status(second);
	calls[1] = fx.calls;
	/* Before anything can fail: later tests need descriptors. */
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_int_equal(calls[0], 1); /* by the descriptor in reserve */
	assert_int_equal(calls[1], 1);
	await_calls(2);
	close(first);
	close(second);
}

static void a_lack_of_descriptors_passes(void **state)
{
	char log[2000];

	(void)state;
	server_start(4);
	log_capture(exhaust_and_recover, log, sizeof(log));
	assert_non_null(strstr(log, "event=accept_failed"));
	/* Once, though the listening socket was ready all the time. */
	assert_null(strstr(strstr(log, "accept_failed") + 1, "accept_failed"));
}

/* One client's life, in which an allocation may fail anywhere. */
static void life_without_memory(void *arg)
{
	uint64_t give_up = clock_ms() + PATIENCE_MS;
	char got[70000];
	ssize_t n = -1;
	int fd = dial();

	(void)arg;
	say(fd, "{\"v\":1,\"cmd\":\"kick\",\"id\":\"c3.4\"}\n");
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	while (clock_ms() < give_up) {
		n = read(fd, got, sizeof(got) - 1);
		if (n >= 0)
			break;
		loop_tick(fx.loop, 10);
	}
	/* An answer, if only that there is none. */
	assert_true(n > 0);
	got[n] = '\0';
	assert_non_null(strstr(got, "\"ok\":false"));
	close(fd);
	settle();
}

static void the_server_survives_a_lack_of_memory(void **state)
{
	(void)state;
	server_start(1);
	assert_true(failalloc_sweep(life_without_memory, NULL) >= 3);
}

/* The asking side blocks: the server turns in a thread of its own. */
static void *server_thread(void *arg)
{
	loop_run(arg);
	return NULL;
}

static struct loop *stopping;

static void stop_letter(struct letter *letter)
{
	(void)letter;
	loop_stop(stopping);
}

static void thread_stop(pthread_t thread)
{
	struct letter letter;

	stopping = fx.loop;
	loop_post(fx.loop, &letter, stop_letter);
	pthread_join(thread, NULL);
}

static struct control_answer *ask(struct control_client *client,
				  enum control_command command)
{
	struct control_request request = { .command = command };
	struct control_answer *answer = NULL;

	assert_int_equal(
		control_client_ask(client, &request, PATIENCE_MS, &answer), 0);
	assert_non_null(answer);
	return answer;
}

static void the_asking_side_gets_answers(void **state)
{
	struct control_client *client = NULL;
	struct control_request kick = { .command = CONTROL_KICK, .id = "c1.2" };
	struct control_answer *answer;
	struct control_connection *rows;
	size_t count, total;
	pthread_t thread;
	char *json;

	(void)state;
	server_start(4);
	fx.rows = 3000;
	pthread_create(&thread, NULL, server_thread, fx.loop);
	assert_int_equal(control_client_new(fx.path, &client), 0);
	answer = ask(client, CONTROL_DRAIN);
	assert_null(control_answer_error(answer));
	json = control_answer_json(answer);
	assert_string_equal(json, "{\"v\":1}");
	free(json);
	control_answer_free(answer);
	answer = ask(client, CONTROL_CONNECTIONS);
	assert_int_equal(
		control_answer_connections(answer, &rows, &count, &total), 0);
	assert_int_equal(count, 3000);
	assert_int_equal(total, 3005);
	assert_string_equal(rows[2999].id, "c0.2999");
	assert_string_equal(rows[2999].user, "alice");
	control_connections_free(rows, count);
	control_answer_free(answer);
	assert_int_equal(
		control_client_ask(client, &kick, PATIENCE_MS, &answer), 0);
	assert_string_equal(control_answer_error(answer), "no \"c1.2\" here");
	control_answer_free(answer);
	control_client_free(client);
	thread_stop(thread);
}

static void the_asking_side_does_not_wait_for_ever(void **state)
{
	struct control_client *client = NULL;
	struct control_request request = { .command = CONTROL_STATUS };
	struct control_answer *answer = NULL;
	pthread_t thread;

	(void)state;
	server_start(4);
	fx.hold = true;
	pthread_create(&thread, NULL, server_thread, fx.loop);
	assert_int_equal(control_client_new(fx.path, &client), 0);
	assert_int_equal(control_client_ask(client, &request, 50, &answer),
			 -ETIMEDOUT);
	assert_null(answer);
	thread_stop(thread);
	control_server_free(fx.server);
	fx.server = NULL;
	assert_int_equal(control_client_ask(client, &request, 50, &answer),
			 -ECONNRESET);
	control_client_free(client);
	if (fx.held)
		control_reply_ok(fx.held);
}

static void nobody_there_is_told_apart(void **state)
{
	struct control_client *client = NULL;
	char path[200];
	int fd;

	(void)state;
	assert_int_equal(control_client_new(fx.path, &client), -ENOENT);
	fd = control_listen(fx.path);
	close(fd);
	assert_int_equal(control_client_new(fx.path, &client), -ECONNREFUSED);
	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(control_client_new(path, &client), -ENAMETOOLONG);
	assert_null(client);
}

/* Sends a reply through a real connection and understands it again. */
static struct control_reply *reply_await(int *fd, const char *request)
{
	server_start(1);
	fx.hold = true;
	*fd = dial();
	say(*fd, request);
	await_calls(1);
	return fx.held;
}

static struct control_answer *answer_hear(int fd)
{
	struct control_answer *answer = NULL;
	char *line = hear(fd);

	assert_non_null(line);
	assert_int_equal(control_answer_parse(line, strlen(line), &answer), 0);
	free(line);
	close(fd);
	return answer;
}

static void status_goes_through_whole(void **state)
{
	struct counters workers[2];
	struct control_status sent = { .version = "1.2.3",
				       .uptime_ms = 123456789,
				       .workers = 2,
				       .draining = true,
				       .config_loads = 4,
				       .per_worker = workers },
			      got;
	uint64_t *numbers = (uint64_t *)workers;
	struct control_answer *answer;
	int fd;

	(void)state;
	for (size_t i = 0; i < sizeof(workers) / (sizeof(*numbers)); i++)
		numbers[i] = i * 1000000007u;
	sent.total = workers[1];
	sent.total.clients = UINT64_MAX; /* more than JSON carries */
	control_reply_status(reply_await(&fd, STATUS), &sent);
	answer = answer_hear(fd);
	assert_int_equal(control_answer_status(answer, &got), 0);
	assert_string_equal(got.version, "1.2.3");
	assert_int_equal(got.uptime_ms, sent.uptime_ms);
	assert_int_equal(got.workers, 2);
	assert_true(got.draining);
	assert_int_equal(got.config_loads, 4);
	assert_true(got.total.clients == INT64_MAX);
	assert_int_equal(got.total.pair_errors, sent.total.pair_errors);
	assert_memory_equal(got.per_worker, workers, sizeof(workers));
	free(got.per_worker);
	control_answer_free(answer);
}

static void allocations_go_through_whole(void **state)
{
	struct control_allocation sent = { .id = "a0.1",
					   .client = "[2001:db8::1]:1234",
					   .client_transport = "udp",
					   .relayed = "192.0.2.1:50000",
					   .transport = "tcp",
					   .user = (char *)"al\"ic\xc3\xa9",
					   .realm = (char *)"example.org",
					   .age_ms = 1,
					   .expires_in_ms = 2,
					   .permissions = 3,
					   .pending = 4,
					   .connections = 5,
					   .channels = 7,
					   .bytes_to_peers = 1ull << 40,
					   .bytes_to_client = 9,
					   .worker = 6 },
				  *got;
	struct control_answer *answer;
	size_t count, total;
	int fd;

	(void)state;
	control_reply_allocations(
		reply_await(&fd, "{\"v\":1,\"cmd\":\"allocations\"}\n"), &sent,
		1, 9);
	control_reply_end(fx.held);
	answer = answer_hear(fd);
	assert_int_equal(
		control_answer_allocations(answer, &got, &count, &total), 0);
	assert_int_equal(count, 1);
	assert_int_equal(total, 9);
	assert_string_equal(got->id, sent.id);
	assert_string_equal(got->client, sent.client);
	assert_string_equal(got->client_transport, "udp");
	assert_string_equal(got->relayed, sent.relayed);
	assert_string_equal(got->transport, "tcp");
	assert_string_equal(got->user, sent.user);
	assert_string_equal(got->realm, sent.realm);
	assert_int_equal(got->age_ms, 1);
	assert_int_equal(got->expires_in_ms, 2);
	assert_int_equal(got->permissions, 3);
	assert_int_equal(got->pending, 4);
	assert_int_equal(got->connections, 5);
	assert_int_equal(got->channels, 7);
	assert_int_equal(got->bytes_to_peers, sent.bytes_to_peers);
	assert_int_equal(got->bytes_to_client, 9);
	assert_int_equal(got->worker, 6);
	control_allocations_free(got, count);
	control_answer_free(answer);
}

static void connections_go_through_whole(void **state)
{
	/* A name that is no UTF-8 must not make the whole list unreadable. */
	struct control_connection sent = { .id = "c0.1",
					   .allocation = "a0.7",
					   .client = "192.0.2.2:1",
					   .peer = "192.0.2.3:2",
					   .user = (char *)"odd\xff",
					   .state = "held",
					   .engine = "-",
					   .why = "a long path",
					   .expires_in_ms = 6,
					   .bytes_to_peer = 1,
					   .bytes_to_client = 2,
					   .age_ms = 3,
					   .idle_ms = 4,
					   .worker = 5 },
				  *got;
	struct control_answer *answer;
	size_t count, total;
	int fd;

	(void)state;
	control_reply_connections(
		reply_await(&fd, "{\"v\":1,\"cmd\":\"connections\"}\n"), &sent,
		1, 1);
	control_reply_end(fx.held);
	answer = answer_hear(fd);
	assert_int_equal(
		control_answer_connections(answer, &got, &count, &total), 0);
	assert_int_equal(count, 1);
	assert_string_equal(got->id, sent.id);
	assert_string_equal(got->allocation, sent.allocation);
	assert_string_equal(got->client, sent.client);
	assert_string_equal(got->peer, sent.peer);
	assert_string_equal(got->user, "odd?");
	assert_string_equal(got->state, "held");
	assert_string_equal(got->engine, "-");
	assert_string_equal(got->why, "a long path");
	assert_int_equal(got->expires_in_ms, 6);
	assert_int_equal(got->bytes_to_peer, 1);
	assert_int_equal(got->bytes_to_client, 2);
	assert_int_equal(got->age_ms, 3);
	assert_int_equal(got->idle_ms, 4);
	assert_int_equal(got->worker, 5);
	control_connections_free(got, count);
	control_answer_free(answer);
}

static void engines_go_through_whole(void **state)
{
	struct control_engine sent[2] = {
		{ .name = "uring",
		  .reason = "io_uring is forbidden",
		  .position = 2 },
		{ .name = "splice",
		  .available = true,
		  .position = 1,
		  .pairs_now = 3,
		  .pairs_total = 44,
		  .needs = "nothing",
		  .fallbacks = { { "mss", "too large", 7 },
				 { "ecn", "negotiated", 8 } },
		  .fallback_count = 2 },
	};
	struct control_engine *got;
	struct control_answer *answer;
	size_t count;
	int fd;

	(void)state;
	control_reply_engines(
		reply_await(&fd, "{\"v\":1,\"cmd\":\"engines\"}\n"), sent, 2);
	answer = answer_hear(fd);
	assert_int_equal(control_answer_engines(answer, &got, &count), 0);
	assert_int_equal(count, 2);
	assert_string_equal(got[0].name, "uring");
	assert_false(got[0].available);
	assert_string_equal(got[0].reason, "io_uring is forbidden");
	assert_true(got[1].available);
	assert_int_equal(got[1].pairs_now, 3);
	assert_int_equal(got[1].pairs_total, 44);
	assert_string_equal(got[1].needs, "nothing");
	assert_int_equal(got[0].fallback_count, 0);
	assert_int_equal(got[1].fallback_count, 2);
	assert_string_equal(got[1].fallbacks[0].reason, "mss");
	assert_string_equal(got[1].fallbacks[1].text, "negotiated");
	assert_int_equal(got[1].fallbacks[1].count, 8);
	free(got);
	control_answer_free(answer);
}

static void exits_go_through_whole(void **state)
{
	const struct control_exit sent[2] = {
		{ .name = "isp-a", .state = "up", .was = "" },
		{ .name = "isp-b",
		  .state = "dead",
		  .was = "up",
		  .since_ms = 7,
		  .changes = 3,
		  .packets = 44,
		  .rejected = 5,
		  .seen_packets = 40,
		  .seen_rejected = 3,
		  .seen_dead = 2,
		  .place = 7 },
	};
	const struct control_loss lost[2] = {
		{ .what = "wan0", .held_ms = 900 },
		{ .what = "2001:db8::1", .silent = true },
	};
	const struct control_exits exits = { .rows = sent,
					     .count = 2,
					     .losses = lost,
					     .loss_count = 2,
					     .tunnel_refused = 1,
					     .hosts_told = 2,
					     .told = 3,
					     .forged = 4 };
	struct control_exit *got;
	struct control_loss *losses;
	struct control_answer *answer;
	char *json;
	size_t count;
	int fd;

	(void)state;
	control_reply_exits(reply_await(&fd, "{\"v\":1,\"cmd\":\"exits\"}\n"),
			    &exits);
	answer = answer_hear(fd);
	assert_int_equal(control_answer_exits(answer, &got, &count), 0);
	assert_int_equal(count, 2);
	assert_string_equal(got[0].name, "isp-a");
	assert_string_equal(got[0].was, "");
	assert_string_equal(got[1].state, "dead");
	assert_string_equal(got[1].was, "up");
	assert_int_equal(got[1].since_ms, 7);
	assert_int_equal(got[1].changes, 3);
	assert_int_equal(got[1].packets, 44);
	assert_int_equal(got[1].rejected, 5);
	assert_int_equal(got[1].seen_packets, 40);
	assert_int_equal(got[1].seen_rejected, 3);
	assert_int_equal(got[1].seen_dead, 2);
	assert_int_equal(got[1].place, 7);
	assert_int_equal(control_answer_losses(answer, &losses, &count), 0);
	assert_int_equal(count, 2);
	assert_string_equal(losses[0].what, "wan0");
	assert_int_equal(losses[0].held_ms, 900);
	assert_false(losses[0].silent);
	assert_string_equal(losses[1].what, "2001:db8::1");
	assert_true(losses[1].silent);
	free(losses);
	json = control_answer_json(answer);
	assert_non_null(strstr(json, "\"tunnel_refused\":1,\"hosts_told\":2,"
				     "\"told\":3,\"forged\":4"));
	free(json);
	free(got);
	control_answer_free(answer);
}

static void long_lists_are_cut_not_lost(void **state)
{
	/* Names long enough for the longest reply to be reached. */
	size_t count = 80000;
	struct control_connection *rows = calloc(count, sizeof(*rows));
	char name[900];
	char *line;
	int fd;

	(void)state;
	assert_non_null(rows);
	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	for (size_t i = 0; i < count; i++) {
		rows[i].user = name;
		rows[i].state = rows[i].engine = "-";
	}
	control_reply_connections(
		reply_await(&fd, "{\"v\":1,\"cmd\":\"connections\"}\n"), rows,
		count, count);
	control_reply_end(fx.held);
	free(rows);
	/* All of it need not be read: the beginning tells. */
	line = malloc(100000);
	assert_non_null(line);
	ssize_t n = -1;

	for (int i = 0; i < 1000 && n < 0; i++) {
		loop_tick(fx.loop, 10);
		n = read(fd, line, 99999);
	}
	assert_true(n > 100);
	line[n] = '\0';
	assert_memory_equal(line, "{\"v\":1,\"ok\":true", 16);
	assert_non_null(strstr(line, "\"total\":80000"));
	free(line);
	close(fd);
	settle();
}

static void odd_replies_are_not_trusted(void **state)
{
	static const char *const lines[] = {
		"",
		"x",
		"[]",
		"{}",
		"{\"v\":1}",
		"{\"v\":1,\"ok\":true}",
		"{\"v\":1,\"ok\":true,\"data\":[]}",
		"{\"v\":2,\"ok\":true,\"data\":{}}",
		"{\"v\":1,\"ok\":1,\"data\":{}}",
		"{\"v\":1,\"ok\":false}",
		"{\"v\":1,\"ok\":false,\"error\":5}",
	};
	static const char *const data[] = {
		"{}",
		"{\"total\":1,\"connections\":{},\"allocations\":{}}",
		"{\"total\":-1,\"connections\":[],\"allocations\":[],"
		"\"engines\":{}}",
		"{\"total\":1,\"connections\":[{}],\"allocations\":[7],"
		"\"engines\":[{}]}",
		"{\"version\":\"1\",\"uptime_ms\":1,\"workers\":4000000000,"
		"\"draining\":false,\"config_loads\":1,\"total\":{},"
		"\"per_worker\":[]}",
		"{\"version\":\"1\",\"uptime_ms\":1,\"workers\":1,"
		"\"draining\":false,\"config_loads\":1,\"total\":{},"
		"\"per_worker\":[3]}",
	};
	struct control_answer *answer = NULL;
	struct control_status status;
	struct control_allocation *allocations;
	struct control_connection *connections;
	struct control_engine *engines;
	size_t count, total;
	char line[1000];

	(void)state;
	for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++)
		assert_int_equal(control_answer_parse(
					 lines[i], strlen(lines[i]), &answer),
				 -EPROTO);
	for (size_t i = 0; i < sizeof(data) / sizeof(*data); i++) {
		snprintf(line, sizeof(line),
			 "{\"v\":1,\"ok\":true,\"data\":%s}", data[i]);
		assert_int_equal(
			control_answer_parse(line, strlen(line), &answer), 0);
		assert_int_equal(control_answer_status(answer, &status),
				 -EPROTO);
		assert_int_equal(control_answer_allocations(
					 answer, &allocations, &count, &total),
				 -EPROTO);
		assert_int_equal(control_answer_connections(
					 answer, &connections, &count, &total),
				 -EPROTO);
		assert_int_equal(control_answer_engines(answer, &engines,
							&count),
				 -EPROTO);
		control_answer_free(answer);
	}
}

static void decode_without_memory(void *arg)
{
	const char *line = arg;
	struct control_answer *answer = NULL;
	struct control_connection *rows;
	size_t count, total;
	int err = control_answer_parse(line, strlen(line), &answer);

	if (!err) {
		err = control_answer_connections(answer, &rows, &count, &total);
		if (!err)
			control_connections_free(rows, count);
		control_answer_free(answer);
	}
	assert_int_equal(err, failalloc_hit() ? -ENOMEM : 0);
}

static void decoding_survives_a_lack_of_memory(void **state)
{
	static char line[] =
		"{\"v\":1,\"ok\":true,\"data\":{\"total\":1,\"connections\":"
		"[{\"id\":\"c\",\"allocation\":\"a\",\"client\":\"\","
		"\"peer\":\"\",\"user\":\"u\",\"state\":\"\",\"engine\":\"\","
		"\"bytes_to_peer\":0,\"bytes_to_client\":0,\"age_ms\":0,"
		"\"idle_ms\":0,\"worker\":0}]}}";

	(void)state;
	assert_int_equal(failalloc_sweep(decode_without_memory, line), 3);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(requests_are_understood),
		cmocka_unit_test(wrong_requests_are_refused_with_a_reason),
		TEST(the_socket_is_made_for_its_group_only),
		TEST(a_stale_socket_is_replaced_and_a_live_one_kept),
		TEST(other_files_and_paths_are_refused),
		TEST(requests_are_answered_one_after_the_other),
		TEST(pipelined_requests_are_answered_in_order),
		TEST(partial_lines_are_put_together),
		TEST(the_last_line_needs_no_end),
		TEST(the_longest_request_fits_and_a_longer_one_ends),
		TEST(later_requests_wait_for_a_late_answer),
		TEST(a_reply_outlives_its_client),
		TEST(a_reply_outlives_the_server),
		TEST(a_half_closed_client_gets_its_late_answer),
		TEST(one_client_too_many_is_told_so),
		TEST(an_idle_client_is_closed_but_not_a_waiting_one),
		TEST(a_client_that_does_not_read_delays_nobody),
		TEST(a_client_that_never_reads_is_closed),
		TEST(changes_are_logged_with_who_asked),
		TEST(a_lack_of_descriptors_passes),
		TEST(the_server_survives_a_lack_of_memory),
		TEST(the_asking_side_gets_answers),
		TEST(the_asking_side_does_not_wait_for_ever),
		TEST(nobody_there_is_told_apart),
		TEST(status_goes_through_whole),
		TEST(allocations_go_through_whole),
		TEST(connections_go_through_whole),
		TEST(engines_go_through_whole),
		TEST(exits_go_through_whole),
		TEST(long_lists_are_cut_not_lost),
		cmocka_unit_test(odd_replies_are_not_trusted),
		cmocka_unit_test(decoding_survives_a_lack_of_memory),
	};

	return cmocka_run_group_tests_name("control", tests, NULL, NULL);
}
