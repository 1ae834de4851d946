/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The supervisor and its relay as they run: started in a child, driven by signals
 * and by the control socket, watched through the log, /proc and the sockets.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "main/channel.h"
#include "main/privilege.h"
#include "main/supervisor.h"

#define WAIT_MS 20000
#define ONE     "[listener main]\naddress = 127.0.0.1:0\n"
#define TWO     "[listener main]\naddress = 127.0.0.1:0, 127.0.0.2:0\n"
/* The relay is the only child, and nothing happens to this host's devices. */
#define NO_WIRE "[engine]\norder = splice, copy\n"
#define USER    "[realm test]\n[user alice]\npassword = wonderland\n"

struct daemon {
	pid_t pid;
	char dir[32];
	char conf[48], log[48], control[48];
	char text[65536]; /* the log so far */
};

static void conf_write(const struct daemon *d, const char *rest)
{
	FILE *file = fopen(d->conf, "we");

	assert_non_null(file);
	assert_int_equal(fchmod(fileno(file), 0600), 0);
	fprintf(file, "[server]\nworkers = 2\ncontrol = %s\n%s%s", d->control,
		rest, strstr(rest, "[engine]") ? "" : NO_WIRE);
	fclose(file);
}

static const char *log_read(struct daemon *d)
{
	int fd = open(d->log, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	assert_true(fd >= 0);
	n = read(fd, d->text, sizeof(d->text) - 1);
	assert_true(n >= 0);
	d->text[n] = '\0';
	close(fd);
	return d->text;
}

static int count(const char *text, const char *what)
{
	int found = 0;

	while ((text = strstr(text, what)) != NULL) {
		found++;
		text += strlen(what);
	}
	return found;
}

/* A short rest between two looks at a condition. */
static void rest(void)
{
	poll(NULL, 0, 10);
}

static void log_wait(struct daemon *d, const char *what, int times)
{
	uint64_t end = clock_ms() + WAIT_MS;

	while (count(log_read(d), what) < times) {
		if (clock_ms() > end)
			fail_msg("no %d times \"%s\" in the log:\n%s", times,
				 what, d->text);
		rest();
	}
}

/* In the child: what the caller of culvertd may have left behind. */
struct legacy {
	bool ignores_sigchld, closed_stderr, open_file;
	bool no_uring; /* a policy that forbids io_uring */
	size_t files; /* limit of open files; 0: as it is */
};

/* As container runtimes do. */
static void uring_forbid(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog program = { 4, code };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0))
		_exit(98);
}

static void daemon_child(const struct daemon *d, const struct legacy *legacy)
{
	const struct rlimit files = { legacy->files, legacy->files };
	int fd = open(d->log, O_WRONLY | O_APPEND);

	/* A test that fails leaves nothing behind. */
	prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0);
	if (fd < 0 || dup2(fd, STDERR_FILENO) < 0)
		_exit(99);
	if (!legacy->open_file)
		close(fd);
	if (legacy->closed_stderr)
		close(STDERR_FILENO);
	if (legacy->files)
		setrlimit(RLIMIT_NOFILE, &files);
	if (legacy->no_uring)
		uring_forbid();
	if (legacy->ignores_sigchld)
		signal(SIGCHLD, SIG_IGN);
	exit(supervisor_run(d->conf));
}

static void daemon_make(struct daemon *d)
{
	memset(d, 0, sizeof(*d));
	snprintf(d->dir, sizeof(d->dir), "/tmp/culvert-unit-XXXXXX");
	assert_non_null(mkdtemp(d->dir));
	snprintf(d->conf, sizeof(d->conf), "%s/conf", d->dir);
	snprintf(d->log, sizeof(d->log), "%s/log", d->dir);
	snprintf(d->control, sizeof(d->control), "%s/control", d->dir);
	int fd = open(d->log, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	close(fd);
}

static void daemon_run(struct daemon *d, const struct legacy *legacy)
{
	const struct legacy none = { 0 };

	d->pid = fork();
	assert_true(d->pid >= 0);
	if (d->pid == 0)
		daemon_child(d, legacy ? legacy : &none);
}

static void daemon_start(struct daemon *d, const char *conf)
{
	daemon_make(d);
	conf_write(d, conf);
	daemon_run(d, NULL);
	log_wait(d, "event=ready", 1);
}

static int daemon_wait(struct daemon *d)
{
	uint64_t end = clock_ms() + WAIT_MS;
	int status;
	pid_t pid;

	while ((pid = waitpid(d->pid, &status, WNOHANG)) == 0) {
		if (clock_ms() > end) {
			kill(d->pid, SIGKILL);
			fail_msg("it does not end; log:\n%s", log_read(d));
		}
		rest();
	}
	assert_int_equal(pid, d->pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

static void daemon_remove(struct daemon *d)
{
	unlink(d->conf);
	unlink(d->log);
	unlink(d->control);
	assert_int_equal(rmdir(d->dir), 0);
}

static void daemon_stop(struct daemon *d)
{
	int status;

	kill(d->pid, SIGTERM);
	status = daemon_wait(d);
	if (status)
		fail_msg("status %d, log:\n%s", status, log_read(d));
	assert_int_equal(access(d->control, F_OK), -1);
	daemon_remove(d);
}

/* Field of /proc/PID/stat: state ('R', ...) and parent. */
static bool process_stat(pid_t pid, char *state, pid_t *parent)
{
	char path[64], text[512];
	FILE *file;
	size_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	file = fopen(path, "re");
	if (!file)
		return false;
	n = fread(text, 1, sizeof(text) - 1, file);
	fclose(file);
	text[n] = '\0';
	return strrchr(text, ')') &&
	       sscanf(strrchr(text, ')') + 2, "%c %d", state, parent) == 2;
}

/* The broker keeps some privilege, the relay has none. */
static bool process_is_broker(pid_t pid)
{
	char path[64], line[128];
	unsigned long long effective = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "CapEff: %llx", &effective) == 1)
			break;
	if (file)
		fclose(file);
	return effective != 0;
}

/* A child of this kind, or 0. */
static pid_t child_find(pid_t supervisor, bool broker)
{
	DIR *dir = opendir("/proc");
	struct dirent *entry;
	pid_t found = 0, parent;
	char state;

	assert_non_null(dir);
	while (!found && (entry = readdir(dir)) != NULL) {
		pid_t pid = atoi(entry->d_name);

		if (pid > 0 && process_stat(pid, &state, &parent) &&
		    parent == supervisor && state != 'Z' &&
		    (!geteuid() && process_is_broker(pid)) == broker)
			found = pid;
	}
	closedir(dir);
	return found;
}

static pid_t relay_of(const struct daemon *d)
{
	pid_t pid = child_find(d->pid, false);

	assert_true(pid > 0);
	return pid;
}

static void state_wait(pid_t pid, char wanted)
{
	uint64_t end = clock_ms() + WAIT_MS;
	char state = '?';
	pid_t parent;

	while (process_stat(pid, &state, &parent) && state != wanted) {
		assert_true(clock_ms() < end);
		rest();
	}
}

/* Gone, or dead and only not waited for by whoever has inherited it. */
static void end_wait(pid_t pid)
{
	state_wait(pid, 'Z');
}

/* The nth address the log says it listens on, from 0. */
static struct sockaddr_in listening(struct daemon *d, int nth)
{
	struct sockaddr_in addr = { .sin_family = AF_INET };
	const char *at = log_read(d);
	char host[32];
	unsigned int port;

	do {
		at = strstr(at, "event=listening");
		assert_non_null(at);
		at += strlen("event=listening");
	} while (nth--);
	assert_int_equal(sscanf(strstr(at, "address="), "address=%31[^:]:%u",
				host, &port),
			 2);
	assert_int_equal(inet_pton(AF_INET, host, &addr.sin_addr), 1);
	addr.sin_port = htons((uint16_t)port);
	return addr;
}

/* A connection, or -1. */
static int dial(struct sockaddr_in addr)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0)
		return fd;
	close(fd);
	return -1;
}

/*
 * Is every connection served? Binding requests on enough of them to meet every
 * worker's socket, whichever the kernel picks.
 */
static void assert_served(struct sockaddr_in addr)
{
	static const uint8_t binding[20] = { 0,    1,    0, 0, 0x21, 0x12,
					     0xa4, 0x42, 1, 2, 3,    4 };
	const struct timeval limit = { .tv_sec = WAIT_MS / 1000 };
	uint8_t answer[20];

	for (int i = 0; i < 24; i++) {
		int fd = dial(addr);

		assert_true(fd >= 0);
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
		assert_int_equal(send(fd, binding, sizeof(binding), 0),
				 sizeof(binding));
		assert_int_equal(recv(fd, answer, sizeof(answer), MSG_WAITALL),
				 sizeof(answer));
		assert_int_equal(answer[0], 1); /* success */
		close(fd);
	}
}

static void assert_refused(struct sockaddr_in addr)
{
	int fd = dial(addr);

	assert_int_equal(fd, -1);
	assert_int_equal(errno, ECONNREFUSED);
}

static int control_dial(const struct daemon *d)
{
	const struct timeval limit = { .tv_sec = WAIT_MS / 1000 };
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	uint64_t end = clock_ms() + WAIT_MS;

	assert_true(fd >= 0);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", d->control);
	/* One that starts has made its file before it listens. */
	while (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		assert_true(errno == ENOENT || errno == ECONNREFUSED);
		assert_true(clock_ms() < end);
		rest();
	}
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return fd;
}

static void control_ask(int fd, const char *command)
{
	char line[64];
	int len = snprintf(line, sizeof(line), "{\"v\":1,\"cmd\":\"%s\"}\n",
			   command);

	assert_int_equal(send(fd, line, (size_t)len, 0), len);
}

/* The first bytes of the answer; closes. */
static void control_answer(int fd, char out[512])
{
	ssize_t n = recv(fd, out, 511, 0);

	assert_true(n > 0);
	out[n] = '\0';
	close(fd);
}

static size_t descriptors(pid_t pid)
{
	char path[64];
	size_t found = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	if (!dir)
		return 0;
	while (readdir(dir))
		found++;
	closedir(dir);
	return found - 2; /* . and .. */
}

static void a_signal_ends_it_and_the_control_socket(void **state)
{
	struct daemon d;

	(void)state;
	daemon_start(&d, ONE USER);
	assert_served(listening(&d, 0));
	daemon_stop(&d);
}

static void
a_dead_relay_is_noticed_where_the_caller_ignores_sigchld(void **state)
{
	const struct legacy legacy = { .ignores_sigchld = true };
	struct daemon d;

	(void)state;
	daemon_make(&d);
	conf_write(&d, ONE USER);
	daemon_run(&d, &legacy);
	log_wait(&d, "event=ready", 1);
	kill(relay_of(&d), SIGKILL);
	log_wait(&d, "event=ready", 2);
	assert_served(listening(&d, 0));
	daemon_stop(&d);
}

static void what_the_caller_left_open_is_not_for_the_relay(void **state)
{
	const struct legacy legacy = { .open_file = true };
	char path[64], name[64] = "";
	struct daemon d;

	(void)state;
	daemon_make(&d);
	conf_write(&d, ONE USER);
	daemon_run(&d, &legacy);
	log_wait(&d, "event=ready", 1);
	for (int fd = STDERR_FILENO + 1; fd < 64; fd++) {
		snprintf(path, sizeof(path), "/proc/%d/fd/%d",
			 (int)relay_of(&d), fd);
		memset(name, 0, sizeof(name));
		if (readlink(path, name, sizeof(name) - 1) > 0)
			assert_string_not_equal(name, d.log);
	}
	daemon_stop(&d);
}

static void a_closed_standard_error_is_no_socket(void **state)
{
	const struct legacy legacy = { .closed_stderr = true };
	char path[64], name[64] = "", answer[512];
	struct daemon d;
	int fd;

	(void)state;
	daemon_make(&d);
	conf_write(&d, ONE USER);
	daemon_run(&d, &legacy);
	fd = control_dial(&d);
	control_ask(fd, "status");
	control_answer(fd, answer);
	snprintf(path, sizeof(path), "/proc/%d/fd/2", (int)d.pid);
	assert_true(readlink(path, name, sizeof(name) - 1) > 0);
	assert_string_equal(name, "/dev/null");
	daemon_stop(&d);
}

static void the_control_socket_of_another_one_is_left_alone(void **state)
{
	struct daemon a, b;
	char answer[512];
	int fd;

	(void)state;
	daemon_start(&a, ONE USER);
	daemon_make(&b);
	memcpy(b.control, a.control, sizeof(b.control));
	conf_write(&b, ONE USER);
	assert_int_equal(unlink(a.control), 0);
	daemon_run(&b, NULL);
	log_wait(&b, "event=ready", 1);
	kill(a.pid, SIGTERM);
	assert_int_equal(daemon_wait(&a), 0);
	fd = control_dial(&b);
	control_ask(fd, "status");
	control_answer(fd, answer);
	daemon_stop(&b);
	daemon_remove(&a);
}

static void a_relay_that_hangs_is_killed_when_it_ends(void **state)
{
	struct daemon d;
	pid_t relay;

	(void)state;
	daemon_start(&d, ONE USER);
	relay = relay_of(&d);
	kill(relay, SIGSTOP);
	state_wait(relay, 'T');
	kill(d.pid, SIGTERM);
	assert_int_equal(daemon_wait(&d), 1);
	assert_non_null(strstr(log_read(&d), "event=relay_killed"));
	assert_int_equal(access(d.control, F_OK), -1);
	daemon_remove(&d);
}

static void a_relay_that_hangs_dies_with_its_supervisor(void **state)
{
	struct daemon d;
	pid_t relay;

	(void)state;
	daemon_start(&d, ONE USER);
	relay = relay_of(&d);
	kill(relay, SIGSTOP);
	state_wait(relay, 'T');
	kill(d.pid, SIGKILL);
	assert_int_equal(daemon_wait(&d), 256 + SIGKILL);
	end_wait(relay);
	daemon_remove(&d);
}

static void signals_of_a_terminal_do_not_end_the_relay(void **state)
{
	struct daemon d;
	pid_t relay;

	(void)state;
	daemon_start(&d, ONE USER);
	relay = relay_of(&d);
	kill(relay, SIGINT);
	kill(relay, SIGTERM);
	kill(relay, SIGHUP);
	assert_served(listening(&d, 0));
	assert_int_equal(relay_of(&d), relay);
	daemon_stop(&d);
}

static void an_address_goes_and_comes_again(void **state)
{
	struct daemon d;
	struct sockaddr_in second;

	(void)state;
	daemon_start(&d, TWO USER);
	second = listening(&d, 1);
	assert_served(second);
	conf_write(&d, ONE USER);
	kill(d.pid, SIGHUP);
	log_wait(&d, "event=reloaded", 1);
	assert_refused(second);
	assert_served(listening(&d, 0));
	conf_write(&d, TWO USER);
	kill(d.pid, SIGHUP);
	log_wait(&d, "event=reloaded", 2);
	assert_served(listening(&d, 0));
	assert_served(listening(&d, 2));
	daemon_stop(&d);
}

static void a_listener_is_renamed_without_a_gap(void **state)
{
	struct daemon d;

	(void)state;
	daemon_start(&d, ONE USER);
	conf_write(&d, "[listener other]\naddress = 127.0.0.1:0\n" USER);
	kill(d.pid, SIGHUP);
	log_wait(&d, "event=reloaded", 1);
	assert_served(listening(&d, 0));
	/* The relay started again has it under its new name, too. */
	kill(relay_of(&d), SIGKILL);
	log_wait(&d, "event=ready", 2);
	assert_served(listening(&d, 0));
	daemon_stop(&d);
}

static void a_reload_during_a_reload_has_its_turn(void **state)
{
	struct daemon d;
	pid_t relay;

	(void)state;
	daemon_start(&d, ONE USER);
	relay = relay_of(&d);
	kill(relay, SIGSTOP);
	state_wait(relay, 'T');
	/* A new address is logged when the relay has it: not yet. */
	conf_write(&d, TWO USER);
	kill(d.pid, SIGHUP);
	state_wait(d.pid, 'S');
	conf_write(&d, ONE USER "[user bob]\npassword = builder\n");
	kill(d.pid, SIGHUP);
	state_wait(d.pid, 'S');
	kill(relay, SIGCONT);
	log_wait(&d, "users=2", 1);
	assert_served(listening(&d, 0));
	daemon_stop(&d);
}

static void everybody_who_asks_for_a_reload_is_answered(void **state)
{
	struct daemon d;
	char answer[512];
	int fds[3];

	(void)state;
	daemon_start(&d, ONE USER);
	kill(d.pid, SIGSTOP);
	state_wait(d.pid, 'T');
	for (int i = 0; i < 3; i++) {
		fds[i] = control_dial(&d);
		control_ask(fds[i], "reload");
	}
	/* They have arrived when the next one is answered. */
	int other = control_dial(&d);
	control_ask(other, "engines");
	control_answer(other, answer);
	kill(d.pid, SIGCONT);
	for (int i = 0; i < 3; i++) {
		control_answer(fds[i], answer);
		assert_non_null(strstr(answer, "\"ok\":true"));
	}
	daemon_stop(&d);
}

static void a_reload_that_is_refused_says_why(void **state)
{
	struct daemon d;
	char answer[512];
	int fd;

	(void)state;
	daemon_start(&d, ONE USER);
	conf_write(&d, "wrokers = 3\n" ONE USER);
	fd = control_dial(&d);
	control_ask(fd, "reload");
	control_answer(fd, answer);
	assert_non_null(strstr(answer, "\"ok\":false"));
	assert_non_null(strstr(answer, "/conf:4: "));
	assert_non_null(strstr(answer, "workers"));
	assert_int_equal(unlink(d.conf), 0);
	fd = control_dial(&d);
	control_ask(fd, "reload");
	control_answer(fd, answer);
	assert_non_null(strstr(answer, "No such file"));
	assert_served(listening(&d, 0));
	daemon_stop(&d);
}

static void a_drain_outlives_the_relay(void **state)
{
	struct daemon d;
	char answer[512];
	int fd;

	(void)state;
	daemon_start(&d, ONE USER);
	fd = control_dial(&d);
	control_ask(fd, "drain");
	control_answer(fd, answer);
	kill(relay_of(&d), SIGKILL);
	log_wait(&d, "event=ready", 2);
	fd = control_dial(&d);
	control_ask(fd, "status");
	control_answer(fd, answer);
	assert_non_null(strstr(answer, "\"draining\":true"));
	daemon_stop(&d);
}

static void a_reload_to_engines_that_do_not_run_is_refused(void **state)
{
	const struct legacy legacy = { .no_uring = true };
	struct daemon d;

	(void)state;
	daemon_make(&d);
	conf_write(&d, ONE USER "[engine]\norder = uring, copy\n");
	daemon_run(&d, &legacy);
	log_wait(&d, "event=ready", 1);
	conf_write(&d, ONE USER "[engine]\norder = uring\n");
	kill(d.pid, SIGHUP);
	log_wait(&d, "event=reload_failed", 1);
	assert_non_null(strstr(d.text, "no engine of [engine] order"));
	/* The next relay starts with what is in force. */
	kill(relay_of(&d), SIGKILL);
	log_wait(&d, "event=ready", 2);
	assert_served(listening(&d, 0));
	daemon_stop(&d);
}

static void a_reload_does_not_widen_a_filter(void **state)
{
	struct daemon d;

	(void)state;
	daemon_start(&d, ONE USER "[engine]\norder = copy\n");
	conf_write(&d, ONE USER "[engine]\norder = uring, copy\n");
	kill(d.pid, SIGHUP);
	log_wait(&d, "event=reload_refused", 1);
	assert_non_null(strstr(d.text, "(uring is new) has changed"));
	conf_write(&d, "seccomp = off\n" ONE USER "[engine]\norder = copy\n");
	kill(d.pid, SIGHUP);
	log_wait(&d, "[server] seccomp has changed", 1);
	daemon_stop(&d);
}

static void a_reload_without_a_relay_counts(void **state)
{
	struct daemon d;

	(void)state;
	daemon_start(&d, ONE USER);
	conf_write(&d, ONE USER "[user bob]\npassword = builder\n");
	kill(relay_of(&d), SIGKILL);
	log_wait(&d, "event=relay_died", 1);
	kill(d.pid, SIGHUP);
	log_wait(&d, "event=reloaded", 1);
	log_wait(&d, "event=ready", 2);
	assert_non_null(strstr(log_read(&d), "users=2"));
	daemon_stop(&d);
}

/* A process that has just begun holds one or the other for a moment. */
static size_t descriptors_settled(pid_t pid)
{
	size_t last = descriptors(pid);

	for (int same = 0; same < 10; same++) {
		size_t now;

		rest();
		now = descriptors(pid);
		if (now != last)
			same = 0;
		last = now;
	}
	return last;
}

/* Descriptors a relay with this configuration has when nobody is there. */
static size_t relay_descriptors(const char *conf)
{
	struct daemon d;
	size_t found;

	daemon_start(&d, conf);
	found = descriptors_settled(relay_of(&d));
	daemon_stop(&d);
	return found;
}

/* Connects until the relay has so many descriptors. */
static void relay_fill(struct daemon *d, pid_t relay, size_t wanted, int *fds)
{
	uint64_t end = clock_ms() + WAIT_MS;

	for (size_t have = descriptors_settled(relay); have < wanted; have++) {
		*fds = dial(listening(d, 0));
		assert_true(*fds++ >= 0);
		while (descriptors(relay) == have) {
			assert_true(clock_ms() < end);
			rest();
		}
	}
}

/*
 * 0 descriptors are too few for the file, 1 for the sockets, 2 for serving them.
 */
static void a_reload_beyond_descriptors(int available)
{
	struct legacy legacy = { .files = relay_descriptors(ONE USER) + 6 };
	int clients[8] = { -1, -1, -1, -1, -1, -1, -1, -1 };
	struct daemon d;
	pid_t relay;

	daemon_make(&d);
	conf_write(&d, ONE USER);
	daemon_run(&d, &legacy);
	log_wait(&d, "event=ready", 1);
	relay = relay_of(&d);
	relay_fill(&d, relay, legacy.files - (size_t)available, clients);
	conf_write(&d, TWO USER);
	kill(d.pid, SIGHUP);
	log_wait(&d, "event=reload_failed", 1);
	for (int i = 0; i < 8 && clients[i] >= 0; i++)
		close(clients[i]);
	assert_int_equal(relay_of(&d), relay);
	assert_served(listening(&d, 0));
	kill(d.pid, SIGHUP);
	log_wait(&d, "event=reloaded", 1);
	assert_served(listening(&d, 0));
	assert_served(listening(&d, 1));
	daemon_stop(&d);
}

static void a_reload_beyond_descriptors_changes_nothing(void **state)
{
	(void)state;
	for (int available = 0; available < 3; available++)
		a_reload_beyond_descriptors(available);
}

static void reloads_leak_no_descriptor(void **state)
{
	size_t supervisor = 0, relay = 0;
	struct daemon d;

	(void)state;
	daemon_start(&d, ONE USER);
	for (int i = 1; i <= 30; i++) {
		conf_write(&d, i % 2 ? TWO USER : ONE USER);
		kill(d.pid, SIGHUP);
		log_wait(&d, "event=reloaded", i);
		if (i == 2) {
			supervisor = descriptors(d.pid);
			relay = descriptors(relay_of(&d));
		}
	}
	assert_int_equal(descriptors(d.pid), supervisor);
	assert_int_equal(descriptors(relay_of(&d)), relay);
	daemon_stop(&d);
}

/*
 * Copies of a process's ends of channels: those between relay and broker, or its own
 * one to the supervisor. Only the latter waits for room.
 */
static size_t channels_take(pid_t pid, bool broker, int *out, size_t room)
{
	int process = (int)syscall(SYS_pidfd_open, pid, 0);
	size_t found = 0;

	assert_true(process >= 0);
	for (int i = 0; i < 256 && found < room; i++) {
		int fd = (int)syscall(SYS_pidfd_getfd, process, i, 0);
		int type = 0;
		socklen_t len = sizeof(type);

		if (fd < 0)
			continue;
		getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len);
		if (type == SOCK_SEQPACKET &&
		    !(fcntl(fd, F_GETFL) & O_NONBLOCK) == !broker)
			out[found++] = fd;
		else
			close(fd);
	}
	close(process);
	return found;
}

static bool has_ended(int channel)
{
	struct pollfd end = { .fd = channel };

	return poll(&end, 1, 0) > 0;
}

static void channels_close(int channels[2])
{
	close(channels[0]);
	close(channels[1]);
}

/* Exactly two, one of each worker, and neither has ended. */
static void channels_wait(pid_t pid, int out[2])
{
	uint64_t end = clock_ms() + WAIT_MS;
	int fds[8];
	size_t found;

	for (;;) {
		found = channels_take(pid, true, fds, 8);
		if (found == 2 && !has_ended(fds[0]) && !has_ended(fds[1]))
			break;
		while (found)
			close(fds[--found]);
		assert_true(clock_ms() < end);
		rest();
	}
	memcpy(out, fds, 2 * sizeof(int));
}

/* The broker without wire: it loads no program and attaches to nothing. */
static void broker_start(struct daemon *d)
{
	if (geteuid() || !privilege_can_broker())
		skip();
	daemon_start(d, ONE USER "[engine]\norder = sockmap, copy\n");
}

static void a_channel_to_the_broker_that_breaks_is_made_anew(void **state)
{
	char wait[32];
	int channels[2];
	struct daemon d;

	(void)state;
	broker_start(&d);
	for (int i = 0; i < 4; i++) {
		pid_t broker = child_find(d.pid, true), relay = relay_of(&d);

		channels_wait(relay, channels);
		channels_close(channels);
		/* Which of the two breaks a rule is all the same. */
		channels_wait(i % 2 ? broker : relay, channels);
		assert_int_equal(send(channels[0], "x", 1, 0), 1);
		channels_close(channels);
		snprintf(wait, sizeof(wait), "waited_ms=%d", 100 << i);
		log_wait(&d, wait, 1);
		channels_wait(relay, channels);
		channels_close(channels);
		channels_wait(broker, channels);
		channels_close(channels);
	}
	assert_int_equal(count(log_read(&d), "event=channel_bad_message"), 2);
	assert_int_equal(count(d.text, "event=broker_bad_message"), 2);
	assert_null(strstr(d.text, "event=broker_died"));
	daemon_stop(&d);
}

/* Nor does it make the supervisor, or the broker, do much. */
static void a_relay_that_asks_without_end_gets_no_more_channels(void **state)
{
	int channels[2], supervisor, given;
	uint64_t began = clock_ms();
	struct daemon d;

	(void)state;
	broker_start(&d);
	channels_wait(relay_of(&d), channels);
	channels_close(channels);
	assert_int_equal(channels_take(relay_of(&d), false, &supervisor, 1), 1);
	for (int i = 0; i < 3000; i++)
		assert_int_equal(channel_send(supervisor, CHANNEL_WANT_BROKER,
					      i % 2, "", NULL, 0),
				 0);
	channel_send(supervisor, CHANNEL_WANT_BROKER, 2, "", NULL, 0);
	channel_send(supervisor, CHANNEL_WANT_BROKER, -1, "", NULL, 0);
	close(supervisor);
	log_wait(&d, "event=channel_bad_message worker=2", 1);
	log_wait(&d, "event=channel_bad_message worker=-1", 1);
	log_wait(&d, "event=broker_channel_ended workers=0x3", 1);
	/* The first after 100 ms, the second after 200 more, 400 more, ... */
	given = count(log_read(&d), "event=broker_channel_ended");
	assert_in_range(given, 1, 20);
	assert_true(100u * ((1u << given) - 1) <= clock_ms() - began);
	channels_wait(relay_of(&d), channels);
	channels_close(channels);
	channels_wait(child_find(d.pid, true), channels);
	channels_close(channels);
	assert_served(listening(&d, 0));
	daemon_stop(&d);
}

static void start_fails(const char *conf, const char *words)
{
	struct daemon d;

	daemon_make(&d);
	if (conf)
		conf_write(&d, conf);
	daemon_run(&d, NULL);
	assert_int_equal(daemon_wait(&d), 1);
	if (!strstr(log_read(&d), words))
		fail_msg("no \"%s\" in the log:\n%s", words, d.text);
	assert_int_equal(access(d.control, F_OK), -1);
	daemon_remove(&d);
}

static void a_start_that_fails_says_why(void **state)
{
	(void)state;
	start_fails(NULL, "No such file");
	start_fails("[listener a]\naddress = 192.0.2.77:5000\n" USER,
		    "address=192.0.2.77:5000");
	start_fails("[engine]\norder = warp\n" ONE USER, "warp");
}

static void the_relay_never_runs_as_root(void **state)
{
	struct daemon d;

	(void)state;
	if (geteuid() == 0) {
		start_fails("user = root\n" ONE USER, "never runs as root");
		return;
	}
	/* An ordinary user stays what it is, whatever the file says. */
	daemon_start(&d, "user = root\n" ONE USER);
	assert_non_null(strstr(log_read(&d), "event=unprivileged"));
	daemon_stop(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_signal_ends_it_and_the_control_socket),
		cmocka_unit_test(
			a_dead_relay_is_noticed_where_the_caller_ignores_sigchld),
		cmocka_unit_test(
			what_the_caller_left_open_is_not_for_the_relay),
		cmocka_unit_test(a_closed_standard_error_is_no_socket),
		cmocka_unit_test(
			the_control_socket_of_another_one_is_left_alone),
		cmocka_unit_test(a_relay_that_hangs_is_killed_when_it_ends),
		cmocka_unit_test(a_relay_that_hangs_dies_with_its_supervisor),
		cmocka_unit_test(signals_of_a_terminal_do_not_end_the_relay),
		cmocka_unit_test(an_address_goes_and_comes_again),
		cmocka_unit_test(a_listener_is_renamed_without_a_gap),
		cmocka_unit_test(a_reload_during_a_reload_has_its_turn),
		cmocka_unit_test(everybody_who_asks_for_a_reload_is_answered),
		cmocka_unit_test(a_reload_that_is_refused_says_why),
		cmocka_unit_test(a_drain_outlives_the_relay),
		cmocka_unit_test(
			a_reload_to_engines_that_do_not_run_is_refused),
		cmocka_unit_test(a_reload_does_not_widen_a_filter),
		cmocka_unit_test(a_reload_without_a_relay_counts),
		cmocka_unit_test(a_reload_beyond_descriptors_changes_nothing),
		cmocka_unit_test(reloads_leak_no_descriptor),
		cmocka_unit_test(
			a_channel_to_the_broker_that_breaks_is_made_anew),
		cmocka_unit_test(
			a_relay_that_asks_without_end_gets_no_more_channels),
		cmocka_unit_test(a_start_that_fails_says_why),
		cmocka_unit_test(the_relay_never_runs_as_root),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
