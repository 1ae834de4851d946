/* SPDX-License-Identifier: BSD-2-Clause */
/* The roles' filters: what is stated passes, anything else ends the process. */
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "main/filter.h"
#include "main/supervisor.h"

#define STATUS_SURVIVED 42

/* What a child tries, behind the filter. */
typedef void (*act_fn)(void);

struct outcome {
	int status;
	char log[2048];
};

/* The whole daemon is linked: its lines are those that count. */
static int (*volatile const daemon_run)(const char *path) = supervisor_run;

static void child_run(int log, const char *role, unsigned int roles,
		      enum conf_seccomp mode, act_fn act)
{
	dup2(log, STDERR_FILENO);
	/* What leaves a core file behind is no news here. */
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (filter_enter(role, roles, mode))
		_exit(1);
	act();
	_exit(STATUS_SURVIVED);
}

static struct outcome attempt(const char *role, unsigned int roles,
			      enum conf_seccomp mode, act_fn act)
{
	struct outcome out = { 0 };
	size_t used = 0;
	int ends[2];
	ssize_t n;
	pid_t pid;

	assert_non_null(daemon_run);
	assert_int_equal(pipe(ends), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		close(ends[0]);
		child_run(ends[1], role, roles, mode, act);
	}
	close(ends[1]);
	while (used < sizeof(out.log) - 1 &&
	       (n = read(ends[0], out.log + used, sizeof(out.log) - 1 - used)) >
		       0)
		used += (size_t)n;
	close(ends[0]);
	assert_int_equal(waitpid(pid, &out.status, 0), pid);
	return out;
}

static void assert_dies(const char *role, unsigned int roles, act_fn act,
			const char *call)
{
	struct outcome out = attempt(role, roles, CONF_SECCOMP_ON, act);
	char said[96];

	snprintf(said, sizeof(said), "event=syscall_refused role=%s call=%s ",
		 role, call);
	if (!WIFSIGNALED(out.status) || WTERMSIG(out.status) != SIGSYS ||
	    !strstr(out.log, said))
		fail_msg("%s in %s: status %#x, log: %s", call, role,
			 (unsigned int)out.status, out.log);
}

static void assert_survives(const char *role, unsigned int roles,
			    enum conf_seccomp mode, act_fn act)
{
	struct outcome out = attempt(role, roles, mode, act);

	if (!WIFEXITED(out.status) ||
	    WEXITSTATUS(out.status) != STATUS_SURVIVED || *out.log)
		fail_msg("%s: status %#x, log: %s", role,
			 (unsigned int)out.status, out.log);
}

static void make_directory(void)
{
	syscall(SYS_mkdir, "/nowhere/at/all", 0700);
}

static void run_program(void)
{
	syscall(SYS_execve, "/nowhere/at/all", NULL, NULL);
}

static void name_host(void)
{
	syscall(SYS_sethostname, NULL, (size_t)-1);
}

static void unix_socket(void)
{
	close(socket(AF_UNIX, SOCK_STREAM, 0));
}

static void inet_socket(void)
{
	close(socket(AF_INET, SOCK_STREAM, 0));
}

static void foreign_protocol(void)
{
	close(socket(AF_INET, SOCK_STREAM, IPPROTO_SCTP));
}

static void netlink_of_filters(void)
{
	close(socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER));
}

static void memory_of_code(void)
{
	mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
	     0);
}

static void uring_new(void)
{
	syscall(SYS_io_uring_setup, 0, NULL);
}

static void map_new(void)
{
	syscall(SYS_bpf, 0 /* BPF_MAP_CREATE */, NULL, 0);
}

static void map_read(void)
{
	syscall(SYS_bpf, 1 /* BPF_MAP_LOOKUP_ELEM */, NULL, 0);
}

static void signal_itself(void)
{
	syscall(SYS_tgkill, getpid(), getpid(), 0);
}

static void a_call_that_nobody_states_ends_every_role(void **state)
{
	static const struct {
		const char *name;
		unsigned int roles;
	} all[] = {
		{ "supervisor", SYSCALLS_SUPERVISOR | SYSCALLS_RELAY |
					SYSCALLS_BROKER_START |
					SYSCALLS_BROKER | SYSCALLS_URING },
		{ "broker", SYSCALLS_BROKER },
		{ "relay", SYSCALLS_RELAY },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		assert_dies(all[i].name, all[i].roles, run_program, "execve");
		assert_dies(all[i].name, all[i].roles, name_host,
			    "sethostname");
		assert_dies(all[i].name, all[i].roles, memory_of_code, "mmap");
		assert_dies(all[i].name, all[i].roles, foreign_protocol,
			    "socket");
		assert_survives(all[i].name, all[i].roles, CONF_SECCOMP_ON,
				inet_socket);
		assert_survives(all[i].name, all[i].roles, CONF_SECCOMP_ON,
				signal_itself);
	}
}

static void a_role_does_not_make_the_calls_of_another(void **state)
{
	(void)state;
	assert_dies("relay", SYSCALLS_RELAY, make_directory, "mkdir");
	assert_dies("relay", SYSCALLS_RELAY, unix_socket, "socket");
	assert_dies("relay", SYSCALLS_RELAY, netlink_of_filters, "socket");
	assert_dies("relay", SYSCALLS_RELAY, uring_new, "io_uring_setup");
	assert_dies("relay", SYSCALLS_RELAY, map_new, "bpf");
	assert_survives("relay", SYSCALLS_RELAY, CONF_SECCOMP_ON, map_read);
	assert_survives("relay", SYSCALLS_RELAY | SYSCALLS_URING,
			CONF_SECCOMP_ON, uring_new);
	assert_survives("broker", SYSCALLS_BROKER, CONF_SECCOMP_ON, map_new);
	assert_dies("broker", SYSCALLS_BROKER, uring_new, "io_uring_setup");
}

static void nothing_ends_where_it_is_only_logged_or_off(void **state)
{
	(void)state;
	assert_survives("relay", SYSCALLS_RELAY, CONF_SECCOMP_LOG,
			make_directory);
	assert_survives("relay", SYSCALLS_RELAY, CONF_SECCOMP_OFF,
			make_directory);
}

static void *thread_dies(void *arg)
{
	(void)arg;
	make_directory();
	return NULL;
}

static void in_a_thread(void)
{
	pthread_t thread;

	if (!pthread_create(&thread, NULL, thread_dies, NULL))
		pthread_join(thread, NULL);
}

static pthread_barrier_t entered;

static void *older_thread(void *arg)
{
	pthread_barrier_wait(&entered);
	make_directory();
	return arg;
}

/* In the child of attempt(): the filter comes when the thread is there already. */
static void behind_an_older_thread(void)
{
	pthread_t thread;

	pthread_barrier_init(&entered, NULL, 2);
	if (pthread_create(&thread, NULL, older_thread, NULL) ||
	    filter_enter("relay", SYSCALLS_RELAY, CONF_SECCOMP_ON))
		return;
	pthread_barrier_wait(&entered);
	pthread_join(thread, NULL);
}

static void threads_are_covered(void **state)
{
	struct outcome out;

	(void)state;
	assert_dies("relay", SYSCALLS_RELAY, in_a_thread, "mkdir");
	out = attempt("relay", 0, CONF_SECCOMP_OFF, behind_an_older_thread);
	assert_true(WIFSIGNALED(out.status));
	assert_int_equal(WTERMSIG(out.status), SIGSYS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_call_that_nobody_states_ends_every_role),
		cmocka_unit_test(a_role_does_not_make_the_calls_of_another),
		cmocka_unit_test(nothing_ends_where_it_is_only_logged_or_off),
		cmocka_unit_test(threads_are_covered),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
