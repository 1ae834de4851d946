/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * seccomp filters, made by libseccomp of the lines that the files state.
 *
 * A call that no line names is not made: the process logs which one it was and
 * ends by SIGSYS. It says so itself, for the kernel tells nobody else but its
 * audit log. Should what has taken a process over have caught the signal before,
 * the call is refused all the same.
 *
 * Filters add up over fork(): a child of the supervisor makes only calls that
 * both allow. The supervisor's therefore has its children's, too.
 */
#include "main/filter.h"

#include <errno.h>
#include <seccomp.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"

#define NAME_MAX_BYTES 32

#ifndef SYS_SECCOMP
#define SYS_SECCOMP 1 /* si_code, not in the headers of the C library */
#endif

/* The C library by itself: memory, locks, signals, time, the end. */
SYSCALLS(SYSCALLS_ALL, "brk munmap mremap madvise futex sched_yield "
		       "sched_getaffinity sysinfo");
SYSCALLS(SYSCALLS_ALL, "rt_sigreturn rt_sigprocmask restart_syscall exit "
		       "exit_group getpid gettid getrandom");
SYSCALLS(SYSCALLS_ALL, "clock_gettime gettimeofday time");
/* This file: a child's own filter comes behind the supervisor's. */
SYSCALLS(SYSCALLS_SUPERVISOR, "seccomp prctl rt_sigaction");
/* No memory becomes code. */
SYSCALLS_WHERE(SYSCALLS_ALL, "mmap mprotect", 2, PROT_EXEC, 0);

#if defined(__SANITIZE_ADDRESS__)
/* The leak check at the end: a tracer of its own that looks at every thread. */
SYSCALLS(SYSCALLS_ALL, "clone ptrace prctl wait4 kill tgkill getppid prlimit64 "
		       "open openat close read readlink getdents getdents64 "
		       "newfstatat fstat lseek write pipe2 process_vm_readv "
		       "sigaltstack rt_sigaction");
#endif

/* The linker's names of the section's ends. */
extern const struct syscalls *const __start_culvert_syscalls[];
extern const struct syscalls *const __stop_culvert_syscalls[];

/* Of this process; told by the handler. */
static const char *filter_role;

static void refused(int signal_number, siginfo_t *info, void *context)
{
	char *name = NULL;

	(void)context;
	/* kill() sends it, too: then there is no call to tell of. */
	if (info->si_code == SYS_SECCOMP) {
		name = seccomp_syscall_resolve_num_arch(info->si_arch,
							info->si_syscall);
		log_error("main",
			  "event=syscall_refused role=%s call=%s number=%d "
			  "action=\"this process ends\" hint=\"if culvertd or "
			  "a library has made it, report it and set [server] "
			  "seccomp = log; if not, somebody else runs code in "
			  "it\"",
			  filter_role, name ? name : "?", info->si_syscall);
	}
	/* The default action is back: SA_RESETHAND. */
	raise(signal_number);
}

static int handler_set(void)
{
	struct sigaction action = {
		.sa_sigaction = refused,
		.sa_flags = SA_SIGINFO | SA_RESETHAND | SA_NODEFER,
	};

	return sigaction(SIGSYS, &action, NULL) < 0 ? -errno : 0;
}

/* One name of a line. What this architecture does not have needs no rule. */
static int rule_add(scmp_filter_ctx filter, const struct syscalls *line,
		    const char *name)
{
	const struct scmp_arg_cmp judged[] = {
		{ .arg = (unsigned int)line->argument,
		  .op = SCMP_CMP_MASKED_EQ,
		  .datum_a = line->mask,
		  .datum_b = line->value },
		{ .arg = (unsigned int)line->also,
		  .op = SCMP_CMP_MASKED_EQ,
		  .datum_a = UINT32_MAX,
		  .datum_b = line->also_value },
	};
	int number = seccomp_syscall_resolve_name(name);
	unsigned int count = line->argument < 0 ? 0 : line->also ? 2 : 1;
	int err;

	if (number == __NR_SCMP_ERROR)
		return -ENOSYS;
	err = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, number, count,
				     judged);
	return err == -EEXIST ? 0 : err;
}

static int line_add(scmp_filter_ctx filter, const struct syscalls *line)
{
	char name[NAME_MAX_BYTES];
	const char *at = line->names;
	int err = 0;

	while (*at && !err) {
		size_t len = strcspn(at, " ");

		if (len >= sizeof(name))
			return -ENAMETOOLONG;
		memcpy(name, at, len);
		name[len] = '\0';
		err = rule_add(filter, line, name);
		if (err)
			log_error("main",
				  "event=filter_rule_failed call=%s "
				  "error=\"%s\"",
				  name, strerror(-err));
		at += len;
		at += *at == ' ';
	}
	return err;
}

static int lines_add(scmp_filter_ctx filter, unsigned int roles)
{
	const struct syscalls own = {
		.names = "tgkill",
		.argument = 0,
		.mask = UINT32_MAX,
		.value = (uint32_t)getpid(),
	};
	const struct syscalls *line;
	const struct syscalls any = { .names = "tgkill", .argument = -1 };
	/* raise() and abort(); the supervisor's children signal themselves. */
	int err = line_add(filter, roles & SYSCALLS_SUPERVISOR ? &any : &own);

	/* Numbers, for to the compiler these are two arrays. */
	for (uintptr_t at = (uintptr_t)__start_culvert_syscalls;
	     at < (uintptr_t)__stop_culvert_syscalls && !err;
	     at += sizeof(void *)) {
		line = *(const struct syscalls *const *)at;
		if (line->roles & roles)
			err = line_add(filter, line);
	}
	/* Threads are made with clone() then, whose flags can be judged. */
	if (!err)
		err = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS),
				       SCMP_SYS(clone3), 0);
	return err;
}

/* The calling thread alone is there, but a library might have made others. */
static int attributes_set(scmp_filter_ctx filter)
{
	int err = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);

	if (!err)
		err = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH,
				       SCMP_ACT_KILL_PROCESS);
	return err;
}

static int filter_load(unsigned int roles, enum conf_seccomp mode)
{
	scmp_filter_ctx filter = seccomp_init(
		mode == CONF_SECCOMP_LOG ? SCMP_ACT_LOG : SCMP_ACT_TRAP);
	int err;

	if (!filter)
		return -ENOMEM;
	err = attributes_set(filter);
	if (!err)
		err = lines_add(filter, roles);
	if (!err)
		err = handler_set();
	if (!err)
		err = seccomp_load(filter);
	seccomp_release(filter);
	return err;
}

int filter_enter(const char *role, unsigned int roles, enum conf_seccomp mode)
{
	int err;

	if (mode == CONF_SECCOMP_OFF)
		return 0;
	filter_role = role;
	err = filter_load(roles, mode);
	if (err)
		log_error("main",
			  "event=filter_failed role=%s error=\"%s\" hint="
			  "\"a kernel without seccomp filters: set [server] "
			  "seccomp = off\"",
			  role, strerror(-err));
	return err;
}
