/* SPDX-License-Identifier: BSD-2-Clause */
/* culvertctl against a real control server with made-up answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pthread.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "control/control.h"
#include "ctl/ctl.h"
#include "ctl/grid.h"
#include "failalloc.h"

#define PATIENCE_MS 20000
#define ARGS_MAX    16

/* A daemon in a thread, and what culvertctl printed last. */
struct fixture {
	char dir[64], path[100];
	struct loop *loop;
	struct control_server *server;
	pthread_t thread;
	bool running;
	/* Of the server's thread, while it runs. */
	struct control_request last;
	unsigned int calls;
	char *out, *err;
};

static struct fixture fx;
static struct loop *stopping;

static void status_answer(struct control_reply *reply)
{
	struct counters workers[2];
	struct control_status status = { .version = "9.8.7",
					 .uptime_ms = 93784000,
					 .workers = 2,
					 .config_loads = 1,
					 .per_worker = workers };

	memset(workers, 0, sizeof(workers));
	workers[0].clients = 1;
	workers[1].clients = 41;
	workers[0].bytes_to_peers = 1536 + (uint64_t)fx.calls * 1000000;
	status.total = workers[0];
	status.total.clients = 42;
	control_reply_status(reply, &status);
}

static void allocations_answer(struct control_reply *reply)
{
	struct control_allocation rows[2] = {
		{ .id = "a0.7",
		  .client = "192.0.2.1:1234",
		  .client_transport = "tcp",
		  .relayed = "198.51.100.1:50000",
		  .transport = "tcp",
		  .user = (char *)"alice",
		  .realm = (char *)"example.org",
		  .age_ms = 400,
		  .expires_in_ms = 599600,
		  .permissions = 1,
		  .connections = 1000 },
		{ .id = "a1.12",
		  .client = "[2001:db8::1]:9",
		  .client_transport = "udp",
		  .relayed = "[2001:db8::2]:50001",
		  .transport = "udp",
		  .channels = 17,
		  .user = (char *)"\xc3\xa9mile\x1b[2J",
		  .realm = (char *)"",
		  .age_ms = 7500000,
		  .expires_in_ms = 12000,
		  .pending = 2,
		  .worker = 1 },
	};

	control_reply_allocations(reply, rows, 2, 2);
	control_reply_end(reply);
}

static void connections_answer(struct control_reply *reply)
{
	struct control_connection rows[2] = {
		{ .id = "c0.1",
		  .allocation = "a0.7",
		  .client = "192.0.2.1:1235",
		  .peer = "203.0.113.5:80",
		  .user = (char *)"alice",
		  .state = "relaying",
		  .engine = "splice",
		  .why = "an end is on this host",
		  .bytes_to_peer = 1023,
		  .bytes_to_client = 1288490189,
		  .age_ms = 61000,
		  .idle_ms = 300 },
		{ .id = "c0.2",
		  .allocation = "a0.7",
		  .client = "-",
		  .peer = "203.0.113.6:8080",
		  .user = (char *)"alice",
		  .state = "held",
		  .engine = "-",
		  .expires_in_ms = 61000,
		  .worker = 1 },
	};

	/* Only the second one moves. */
	rows[1].bytes_to_peer = (uint64_t)fx.calls * 1000000;
	control_reply_connections(reply, rows, 2, 7);
	control_reply_end(reply);
}

static void engines_answer(struct control_reply *reply)
{
	struct control_engine rows[3] = {
		{ .name = "splice",
		  .needs = "nothing",
		  .available = true,
		  .position = 1,
		  .pairs_now = 12,
		  .pairs_total = 3456 },
		{ .name = "uring",
		  .position = 2,
		  .reason = "io_uring_setup: Operation not permitted" },
		{ .name = "copy",
		  .available = true,
		  .pairs_total = 1,
		  .fallbacks = { { "early", "too many bytes", 3 } },
		  .fallback_count = 1 },
	};

	control_reply_engines(reply, rows, 3);
}

static void handle(void *arg, const struct control_request *request,
		   struct control_reply *reply)
{
	(void)arg;
	fx.calls++;
	fx.last = *request;
	switch (request->command) {
	case CONTROL_STATUS:
		status_answer(reply);
		break;
	case CONTROL_ALLOCATIONS:
		allocations_answer(reply);
		break;
	case CONTROL_CONNECTIONS:
		connections_answer(reply);
		break;
	case CONTROL_ENGINES:
		engines_answer(reply);
		break;
	case CONTROL_RELOAD:
		control_reply_error(reply, "culvert.conf:3: something wrong");
		break;
	case CONTROL_EXITS:
	case CONTROL_KICK:
	case CONTROL_DRAIN:
	case CONTROL_UNDRAIN:
	case CONTROL_FORGET:
	case CONTROL_STOP:
		control_reply_ok(reply);
		break;
	}
}

static void *daemon_run(void *arg)
{
	loop_run(arg);
	return NULL;
}

static void stop_letter(struct letter *letter)
{
	(void)letter;
	loop_stop(stopping);
}

static void thread_start(void)
{
	assert_int_equal(pthread_create(&fx.thread, NULL, daemon_run, fx.loop),
			 0);
	fx.running = true;
}

static void thread_stop(void)
{
	struct letter letter;

	if (!fx.running)
		return;
	stopping = fx.loop;
	loop_post(fx.loop, &letter, stop_letter);
	pthread_join(fx.thread, NULL);
	fx.running = false;
}

static void daemon_stop(void)
{
	thread_stop();
	control_server_free(fx.server);
	fx.server = NULL;
}

static int setup(void **state)
{
	int fd;

	(void)state;
	memset(&fx, 0, sizeof(fx));
	log_set_level(LOG_LEVEL_WARN);
	unsetenv("CULVERT_CONTROL");
	strcpy(fx.dir, "/tmp/culvert-ctl-XXXXXX");
	assert_non_null(mkdtemp(fx.dir));
	assert_int_equal(chmod(fx.dir, 0755), 0);
	snprintf(fx.path, sizeof(fx.path), "%s/control.sock", fx.dir);
	assert_int_equal(loop_new(&fx.loop), 0);
	fd = control_listen(fx.path);
	assert_true(fd >= 0);
	assert_int_equal(control_server_new(fx.loop, fd, 4, handle, NULL,
					    &fx.server),
			 0);
	thread_start();
	return 0;
}

/* A test that failed may have left its child behind. */
static pid_t child;

static int teardown(void **state)
{
	(void)state;
	if (child > 0) {
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
	}
	child = 0;
	daemon_stop();
	loop_free(fx.loop);
	unlink(fx.path);
	rmdir(fx.dir);
	free(fx.out);
	free(fx.err);
	return 0;
}

static int args_split(char *line, char *argv[ARGS_MAX])
{
	int argc = 0;
	char *save = NULL;

	argv[argc++] = (char *)"culvertctl";
	for (char *word = strtok_r(line, " ", &save);
	     word && argc < ARGS_MAX - 1; word = strtok_r(NULL, " ", &save))
		argv[argc++] = word;
	argv[argc] = NULL;
	return argc;
}

/* Runs culvertctl with these words; its output is in fx.out and fx.err. */
static int run(const char *words)
{
	char line[300], *argv[ARGS_MAX];
	size_t out_len, err_len;
	FILE *out, *err;
	int argc, code;

	free(fx.out);
	free(fx.err);
	fx.out = fx.err = NULL;
	out = open_memstream(&fx.out, &out_len);
	err = open_memstream(&fx.err, &err_len);
	assert_true(out && err);
	snprintf(line, sizeof(line), "%s", words);
	argc = args_split(line, argv);
	code = (int)ctl_run(argc, argv, out, err);
	fclose(out);
	fclose(err);
	return code;
}

/* The same, at this test's daemon. */
static int run_here(const char *words)
{
	char line[300];

	snprintf(line, sizeof(line), "--socket %s %s", fx.path, words);
	return run(line);
}

static void assert_begins(const char *text, const char *with)
{
	if (strncmp(text, with, strlen(with)) != 0)
		fail_msg("%s does not begin with %s", text, with);
}

static void help_tells_every_command_and_option(void **state)
{
	static const char *const words[] = {
		"status",        "allocations", "connections",
		"top",           "kick ID",     "drain",
		"reload",        "stop",        "engines",
		"--socket PATH", "--json",      "--limit N",
		"--undo",        "--count N",   "--interval SECONDS",
		"--help",        "--version",
	};

	(void)state;
	assert_int_equal(run("--help"), CTL_OK);
	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
		if (!strstr(fx.out, words[i]))
			fail_msg("%s is missing in:\n%s", words[i], fx.out);
	assert_string_equal(fx.err, "");
	assert_int_equal(run("top -h"), CTL_OK);
	assert_int_equal(run("--version"), CTL_OK);
	assert_string_equal(fx.out, "culvertctl " CULVERT_VERSION "\n");
}

static void messages_say_what_would_be_right(void **state)
{
	static const struct {
		const char *words, *said;
	} cases[] = {
		{ "--json=1 status",
		  "culvertctl: this option takes no value: \"--json=1\"; see" },
		{ "user", "culvertctl: unknown command \"user\"; there is "
			  "user add, user list, user remove; see" },
		{ "user ad bob", "\"user ad\"; there is user add, user list" },
		{ "exits foo", "\"exits foo\"; there is exits, exits plan, "
			       "exits trace, exits check, exits remove; see" },
		{ "use add", "unknown command \"use\"; see" },
		{ "-l 0 connections",
		  "--limit does not take \"0\"; allowed: 1 to 100000; see" },
		{ "-i 0.01 top", "allowed: seconds, 0.1 to 3600; see" },
		{ "-p x flush", "allowed: an absolute path; see" },
		{ "exits trace x 1.2.3.4",
		  "culvertctl: the source \"x\" is no IP address\n" },
		{ "exits trace ::1 y",
		  "culvertctl: the destination \"y\" is no IP address\n" },
		{ "exits trace 192.0.2.1 2001:db8::1",
		  "192.0.2.1 and 2001:db8::1 are of two families: a packet" },
		{ "-c /nonexistent/a user list",
		  "culvertctl: /nonexistent/a: cannot be read: No such file or "
		  "directory\nculvertctl: give the path of culvertd's "
		  "configuration with --config\n" },
		{ "-c /nonexistent/a exits plan",
		  "culvertctl: /nonexistent/a: cannot be read: No such file or "
		  "directory\nculvertctl: give the path of culvertd's "
		  "configuration with --config\n" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		assert_true(run_here(cases[i].words) != CTL_OK);
		if (!strstr(fx.err, cases[i].said))
			fail_msg("%s: %s", cases[i].words, fx.err);
	}
}

static void a_missing_database_is_told_with_who_makes_it(void **state)
{
	char path[100], words[200];
	FILE *file;

	(void)state;
	snprintf(path, sizeof(path), "%s/conf", fx.dir);
	file = fopen(path, "w");
	assert_non_null(file);
	fprintf(file, "[realm r]\n[database]\nurl = sqlite:%s/none.db\n",
		fx.dir);
	fclose(file);
	snprintf(words, sizeof(words), "-c %s user list", path);
	assert_int_equal(run_here(words), CTL_FAILED);
	unlink(path);
	assert_non_null(strstr(fx.err, "/none.db: No such file or directory; "
				       "culvertctl user add makes it\n"));
}

static void wrong_usage_is_told_from_failure(void **state)
{
	static const char *const lines[] = {
		"",
		"frobnicate",
		"--frobnicate status",
		"-x status",
		"status extra",
		"kick",
		"kick a1.2 a1.3",
		"--limit",
		"--limit 0 connections",
		"--limit 100001 connections",
		"--limit 5 status",
		"--undo status",
		"--workers top",
		"-n 0 top",
		"-n x top",
		"-i 0.01 top",
		"-i nan top",
		"-i 1s top",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
		assert_int_equal(run_here(lines[i]), CTL_USAGE);
		assert_string_equal(fx.out, "");
		if (!strstr(fx.err, "see culvertctl --help\n"))
			fail_msg("%s: %s", lines[i], fx.err);
	}
	assert_int_equal(fx.calls, 0);
}

static void the_socket_comes_from_option_or_environment(void **state)
{
	(void)state;
	setenv("CULVERT_CONTROL", fx.path, 1);
	assert_int_equal(run("drain"), CTL_OK);
	assert_int_equal(run("--socket /nonexistent/c.sock drain"), CTL_FAILED);
	setenv("CULVERT_CONTROL", "/nonexistent/c.sock", 1);
	assert_int_equal(run("drain"), CTL_FAILED);
	assert_int_equal(run_here("drain"), CTL_OK);
	unsetenv("CULVERT_CONTROL");
}

static void a_missing_daemon_is_explained(void **state)
{
	(void)state;
	assert_int_equal(run("-s /nonexistent/c.sock status"), CTL_FAILED);
	assert_string_equal(fx.err,
			    "culvertctl: there is no /nonexistent/c.sock: "
			    "culvertd does not run, or its `control` key has "
			    "another path (give that with --socket)\n");
	daemon_stop();
	assert_int_equal(run_here("status"), CTL_FAILED);
	assert_non_null(strstr(fx.err, "culvertd has ended; start it again\n"));
}

static void a_lack_of_permission_is_explained(void **state)
{
	int status = -1;

	(void)state;
	if (geteuid() != 0) {
		print_message("# needs root: one's own socket is allowed\n");
		skip();
	}
	thread_stop();
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		if (setgroups(0, NULL) || setgid(65534) || setuid(65534) ||
		    run_here("status") != CTL_FAILED ||
		    !strstr(fx.err, "no permission to use ") ||
		    !strstr(fx.err, "try as root"))
			_exit(1);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	child = 0;
	assert_int_equal(status, 0);
}

static void status_is_a_table_of_counters(void **state)
{
	(void)state;
	assert_int_equal(run_here("status"), CTL_OK);
	assert_string_equal(fx.err, "");
	assert_begins(
		fx.out,
		"culvertd 9.8.7, up 1d02h, 2 workers, serving, configuration "
		"read 1 time\n\n");
	assert_non_null(strstr(fx.out, "\n    TOTAL  COUNTER\n"
				       "       42  client connections now\n"
				       "        0  client connections not "));
	assert_non_null(strstr(fx.out, "\n978.1 KiB  bytes relayed from"));
	assert_int_equal(run_here("status --workers"), CTL_OK);
	assert_non_null(strstr(fx.out,
			       "\n  TOTAL  WORKER 0  WORKER 1  COUNTER\n"
			       "     42         1        41  client conn"));
}

static void allocations_are_an_aligned_table(void **state)
{
	(void)state;
	assert_int_equal(run_here("allocations"), CTL_OK);
	assert_string_equal(
		fx.out,
		"ID     CLIENT           BY   RELAYED              TO   "
		"USER       "
		"REALM          AGE  EXPIRES  PERMITTED  PENDING  CONNS  "
		"CHANNELS  WORKER\n"
		"a0.7   192.0.2.1:1234   tcp  198.51.100.1:50000   tcp  "
		"alice      "
		"example.org   0.4s    9m59s          1        0   1000  "
		"       0       0\n"
		"a1.12  [2001:db8::1]:9  udp  [2001:db8::2]:50001  udp  "
		"\xc3\xa9mile?[2J  -            2h05m      12s          0      "
		"  2      0        17       1\n");
}

static void connections_are_an_aligned_table(void **state)
{
	(void)state;
	fx.calls = 0;
	assert_int_equal(run_here("--limit 2 connections"), CTL_OK);
	assert_int_equal(fx.last.limit, 2);
	assert_string_equal(
		fx.out,
		"ID    ALLOCATION  CLIENT          PEER              USER   "
		"STATE     ENGINE    TO PEER  TO CLIENT    AGE  IDLE  WORKER  "
		"WHY NOT WIRE\n"
		"c0.1  a0.7        192.0.2.1:1235  203.0.113.5:80    alice  "
		"relaying  splice     1023 B    1.2 GiB  1m01s  0.3s       0  "
		"an end is on this host\n"
		"c0.2  a0.7        -               203.0.113.6:8080  alice  "
		"held      -       976.6 KiB        0 B   0.0s  0.0s       1  "
		"expires in 1m01s\n"
		"2 of 7 shown; --limit N shows more\n");
}

static void engines_say_why_they_do_not_work(void **state)
{
	(void)state;
	assert_int_equal(run_here("engines"), CTL_OK);
	assert_string_equal(
		fx.out,
		"ENGINE  ORDER  WORKS  NOW  TOTAL  NEEDS    WHY NOT\n"
		"splice      1  yes     12   3456  nothing  -\n"
		"uring       2  no       0      0  -        io_uring_setup: "
		"Operation not permitted\n"
		"copy        -  yes      0      1  -        -\n"
		"\n"
		"ENGINE  NOT TAKEN  BECAUSE\n"
		"copy            3  too many bytes\n");
}

static void json_is_the_data_with_its_version(void **state)
{
	(void)state;
	assert_int_equal(run_here("--json engines"), CTL_OK);
	assert_string_equal(
		fx.out,
		"{\"v\":1,\"total\":3,\"engines\":["
		"{\"name\":\"splice\",\"needs\":\"nothing\","
		"\"available\":true,\"reason\":\"\",\"position\":1,"
		"\"pairs_now\":12,\"pairs_total\":3456,\"fallbacks\":[]},"
		"{\"name\":\"uring\",\"needs\":\"\",\"available\":false,"
		"\"reason\":\"io_uring_setup: Operation not permitted\","
		"\"position\":2,\"pairs_now\":0,\"pairs_total\":0,"
		"\"fallbacks\":[]},"
		"{\"name\":\"copy\",\"needs\":\"\",\"available\":true,"
		"\"reason\":\"\",\"position\":0,\"pairs_now\":0,"
		"\"pairs_total\":1,\"fallbacks\":[{\"reason\":\"early\","
		"\"text\":\"too many bytes\",\"count\":3}]}]}\n");
	assert_int_equal(run_here("--json drain"), CTL_OK);
	assert_string_equal(fx.out, "{\"v\":1}\n");
	assert_int_equal(run_here("--json connections"), CTL_OK);
	assert_begins(fx.out, "{\"v\":1,\"total\":7,\"connections\":[");
	assert_int_equal(run_here("--json status"), CTL_OK);
	assert_begins(fx.out, "{\"v\":1,\"version\":\"9.8.7\",");
	assert_int_equal(run_here("--json allocations"), CTL_OK);
	assert_begins(fx.out, "{\"v\":1,\"total\":2,\"allocations\":[");
}

static void orders_are_sent_and_confirmed(void **state)
{
	static const struct {
		const char *words;
		enum control_command command;
		const char *out;
	} orders[] = {
		{ "drain", CONTROL_DRAIN,
		  "draining: no new allocations; those there are go on\n" },
		{ "drain --undo", CONTROL_UNDRAIN,
		  "serving: new allocations are taken again\n" },
		{ "kick c0.1", CONTROL_KICK, "closed c0.1\n" },
		{ "stop", CONTROL_STOP, "stopping\n" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(orders) / sizeof(*orders); i++) {
		assert_int_equal(run_here(orders[i].words), CTL_OK);
		assert_int_equal(fx.last.command, orders[i].command);
		assert_string_equal(fx.out, orders[i].out);
		assert_string_equal(fx.err, "");
	}
	assert_int_equal(run_here("kick c0.1"), CTL_OK);
	assert_string_equal(fx.last.id, "c0.1");
}

static void refusals_are_shown_and_fail(void **state)
{
	(void)state;
	assert_int_equal(run_here("reload"), CTL_FAILED);
	assert_string_equal(fx.out, "");
	assert_string_equal(fx.err,
			    "culvertctl: culvert.conf:3: something wrong\n");
	assert_int_equal(run_here("kick nonsense"), CTL_FAILED);
	assert_non_null(strstr(fx.err, "\"id\" must name what to kick"));
	assert_int_equal(run_here("kick a\"b"), CTL_FAILED);
	assert_non_null(strstr(fx.err, "is not the id of"));
}

static void output_that_cannot_be_written_fails(void **state)
{
	FILE *full = fopen("/dev/full", "w");
	char *argv[] = { (char *)"culvertctl", (char *)"-s", fx.path,
			 (char *)"status", NULL };
	size_t len;
	FILE *err = open_memstream(&fx.err, &len);

	(void)state;
	assert_true(full && err);
	assert_int_equal(ctl_run(4, argv, full, err), CTL_FAILED);
	fclose(err);
	fclose(full);
	assert_non_null(strstr(fx.err, "cannot write the output"));
}

static void numbers_get_human_units(void **state)
{
	static const struct {
		uint64_t value;
		const char *text;
	} sizes[] = {
		{ 0, "0 B" },
		{ 1023, "1023 B" },
		{ 1024, "1.0 KiB" },
		{ 1536, "1.5 KiB" },
		{ 1048575, "1.0 MiB" },
		{ 1048576, "1.0 MiB" },
		{ UINT64_C(1) << 40, "1.0 TiB" },
		{ UINT64_MAX, "16.0 EiB" },
	}, times[] = {
		{ 0, "0.0s" },
		{ 9999, "9.9s" },
		{ 10000, "10s" },
		{ 59999, "59s" },
		{ 60000, "1m00s" },
		{ 3599999, "59m59s" },
		{ 3600000, "1h00m" },
		{ 86400000, "1d00h" },
		{ UINT64_MAX, "213503982334d14h" },
	};
	char text[HUMAN_LEN];

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
		assert_string_equal(human_bytes(sizes[i].value, text),
				    sizes[i].text);
	for (size_t i = 0; i < sizeof(times) / sizeof(*times); i++)
		assert_string_equal(human_duration(times[i].value, text),
				    times[i].text);
}

static size_t count_of(const char *text, const char *what)
{
	size_t count = 0;

	while ((text = strstr(text, what)) != NULL) {
		count++;
		text += strlen(what);
	}
	return count;
}

static void top_prints_snapshots_without_a_terminal(void **state)
{
	const char *second, *fast, *idle;

	(void)state;
	assert_int_equal(run_here("-n 3 -i 0.1 top"), CTL_OK);
	assert_string_equal(fx.err, "");
	assert_int_equal(fx.last.limit, 10000);
	assert_int_equal(count_of(fx.out, "culvertd 9.8.7, up 1d02h"), 3);
	assert_int_equal(count_of(fx.out, "ID    USER   CLIENT"), 3);
	assert_null(strstr(fx.out, "\033"));
	/* No rate before the second snapshot; then the busiest comes first. */
	second = strstr(fx.out, "\n\nculvertd");
	assert_non_null(second);
	fast = strstr(second, "c0.2");
	idle = strstr(second, "c0.1");
	assert_true(fast && idle && fast < idle);
	assert_non_null(strstr(second, "MiB/s"));
	assert_true(strstr(fx.out, "MiB/s") > second);
}

static void top_prints_json_lines(void **state)
{
	(void)state;
	assert_int_equal(run_here("-n 2 -i 0.1 --json top"), CTL_OK);
	assert_int_equal(count_of(fx.out, "\n"), 2);
	assert_int_equal(count_of(fx.out, "{\"v\":1,\"total\":7,"
					  "\"connections\":["),
			 2);
}

/* culvertctl in a child on a terminal of its own. */
struct terminal {
	int fd;
	char text[200000];
	size_t len;
};

static struct terminal tty;

static void tty_start(const char *words)
{
	struct winsize size = { .ws_row = 10, .ws_col = 60 };
	char line[300], *argv[ARGS_MAX];
	int argc;

	snprintf(line, sizeof(line), "-s %s %s", fx.path, words);
	argc = args_split(line, argv);
	tty.len = 0;
	tty.text[0] = '\0';
	/* A child of a process with threads might inherit a lock of malloc's. */
	thread_stop();
	child = forkpty(&tty.fd, NULL, NULL, &size);
	assert_true(child >= 0);
	if (child == 0)
		_exit((int)ctl_run(argc, argv, stdout, stderr));
	thread_start();
}

/* Reads what the terminal shows; false when nobody writes to it any more. */
static bool tty_read(int timeout_ms)
{
	struct pollfd ready = { .fd = tty.fd, .events = POLLIN };
	ssize_t n;

	if (poll(&ready, 1, timeout_ms) <= 0)
		return true;
	n = read(tty.fd, tty.text + tty.len, sizeof(tty.text) - 1 - tty.len);
	if (n <= 0)
		return false;
	tty.len += (size_t)n;
	tty.text[tty.len] = '\0';
	return true;
}

static void tty_await(const char *text, size_t times)
{
	uint64_t give_up = clock_ms() + PATIENCE_MS;

	while (count_of(tty.text, text) < times) {
		if (clock_ms() > give_up || !tty_read(100))
			fail_msg("not seen: %s in:\n%s", text, tty.text);
	}
}

/* Waits for the end of it; returns the exit code. */
static int tty_end(void)
{
	uint64_t give_up = clock_ms() + PATIENCE_MS;
	struct termios mode;
	int status = -1;

	while (clock_ms() < give_up && tty_read(100))
		;
	assert_int_equal(waitpid(child, &status, 0), child);
	child = 0;
	/* A terminal as it was before. */
	assert_int_equal(tcgetattr(tty.fd, &mode), 0);
	assert_true((mode.c_lflag & (ICANON | ECHO)) == (ICANON | ECHO));
	assert_int_equal(count_of(tty.text, "\033[?1049h"), 1);
	assert_int_equal(count_of(tty.text, "\033[?25h\033[?1049l"), 1);
	close(tty.fd);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void top_refreshes_a_terminal_until_q(void **state)
{
	(void)state;
	tty_start("-i 0.1 top");
	tty_await("\033[H", 3);
	tty_await("c0.2", 3);
	/* Lines are cut to the terminal's width: AGE would be beyond it. */
	assert_null(strstr(tty.text, "AGE"));
	assert_int_equal(write(tty.fd, "q", 1), 1);
	assert_int_equal(tty_end(), CTL_OK);
}

/* Signals come while an answer is waited for, too. */
static void top_outlives_a_storm_of_resizes(void **state)
{
	uint64_t end;

	(void)state;
	tty_start("-i 0.1 top");
	tty_await("c0.2", 1);
	for (end = clock_ms() + 1000; clock_ms() < end;) {
		assert_int_equal(kill(child, SIGWINCH), 0);
		if (tty.len > sizeof(tty.text) / 2)
			tty.len = 0;
		assert_true(tty_read(0));
	}
	/* The screen was entered once, before what was forgotten. */
	tty.len = 0;
	tty.len += (size_t)snprintf(tty.text, sizeof(tty.text), "\033[?1049h");
	assert_int_equal(write(tty.fd, "q", 1), 1);
	assert_int_equal(tty_end(), CTL_OK);
}

static void top_ends_on_interrupt_and_hangup(void **state)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP };

	(void)state;
	for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++) {
		tty_start("top");
		tty_await("c0.2", 1);
		assert_int_equal(kill(child, signals[i]), 0);
		assert_int_equal(tty_end(), CTL_OK);
	}
	tty_start("top");
	tty_await("c0.2", 1);
	assert_int_equal(write(tty.fd, "\003", 1), 1);
	assert_int_equal(tty_end(), CTL_OK);
}

static void top_follows_the_size_of_the_terminal(void **state)
{
	struct winsize size = { .ws_row = 5, .ws_col = 200 };

	(void)state;
	tty_start("-i 3600 top");
	tty_await("c0.1", 1);
	assert_int_equal(ioctl(tty.fd, TIOCSWINSZ, &size), 0);
	tty_await("AGE", 1);
	assert_int_equal(write(tty.fd, "Q", 1), 1);
	assert_int_equal(tty_end(), CTL_OK);
	/* Five rows hold but one connection: it was not drawn twice. */
	assert_int_equal(
		count_of(tty.text, "c0.1") + count_of(tty.text, "c0.2"), 3);
}

static void top_complains_on_the_screen_it_gives_back(void **state)
{
	const char *left, *complaint;

	(void)state;
	tty_start("-i 0.1 top");
	tty_await("c0.2", 1);
	daemon_stop();
	assert_int_equal(tty_end(), CTL_FAILED);
	left = strstr(tty.text, "\033[?1049l");
	complaint = strstr(tty.text, "culvertctl: culvertd closed the "
				     "connection");
	assert_true(left && complaint && left < complaint);
}

static void run_without_memory(void *words)
{
	int code = run_here(words);

	/* The daemon's allocations count, too: any failure must be told. */
	if (failalloc_hit())
		assert_true(code == CTL_OK || *fx.err);
	else
		assert_int_equal(code, CTL_OK);
}

static void a_lack_of_memory_is_told(void **state)
{
	(void)state;
	failalloc_sweep(run_without_memory, (void *)"status");
	failalloc_sweep(run_without_memory, (void *)"allocations");
	failalloc_sweep(run_without_memory, (void *)"--json connections");
	failalloc_sweep(run_without_memory, (void *)"engines");
	failalloc_sweep(run_without_memory, (void *)"-n 1 top");
}

static void the_manual_names_every_counter_and_command(void **state)
{
	static const char path[] = "user/man/culvertctl.8";
	char *manual = calloc(1, 100000), name[64];
	FILE *file = fopen(path, "r");

	(void)state;
	assert_non_null(manual);
	if (!file)
		fail_msg("%s: %s (run in the top folder)", path,
			 strerror(errno));
	assert_true(fread(manual, 1, 99999, file) > 0);
	fclose(file);
#define X(counter, help)                               \
	snprintf(name, sizeof(name), " %s", #counter); \
	if (!strstr(manual, name))                     \
		fail_msg("%s does not name %s", path, #counter);
	COUNTERS(X)
#undef X
	for (size_t i = 0; i < ctl_command_count; i++) {
		snprintf(name, sizeof(name), ".It Cm %s", ctl_commands[i].name);
		assert_non_null(strstr(manual, name));
	}
	free(manual);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(help_tells_every_command_and_option),
		TEST(messages_say_what_would_be_right),
		TEST(a_missing_database_is_told_with_who_makes_it),
		TEST(wrong_usage_is_told_from_failure),
		TEST(the_socket_comes_from_option_or_environment),
		TEST(a_missing_daemon_is_explained),
		TEST(a_lack_of_permission_is_explained),
		TEST(status_is_a_table_of_counters),
		TEST(allocations_are_an_aligned_table),
		TEST(connections_are_an_aligned_table),
		TEST(engines_say_why_they_do_not_work),
		TEST(json_is_the_data_with_its_version),
		TEST(orders_are_sent_and_confirmed),
		TEST(refusals_are_shown_and_fail),
		TEST(output_that_cannot_be_written_fails),
		cmocka_unit_test(numbers_get_human_units),
		TEST(top_prints_snapshots_without_a_terminal),
		TEST(top_prints_json_lines),
		TEST(top_refreshes_a_terminal_until_q),
		TEST(top_outlives_a_storm_of_resizes),
		TEST(top_ends_on_interrupt_and_hangup),
		TEST(top_follows_the_size_of_the_terminal),
		TEST(top_complains_on_the_screen_it_gives_back),
		TEST(a_lack_of_memory_is_told),
		cmocka_unit_test(the_manual_names_every_counter_and_command),
	};

	return cmocka_run_group_tests_name("ctl", tests, NULL, NULL);
}
