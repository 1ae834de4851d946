/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which system calls code makes, said beside it.
 *
 * culvertd's processes run behind seccomp filters that let pass what these lines
 * name and nothing else (main/filter.c). Every file states the calls that its own
 * code and the libraries it uses make; the lines of all files that are linked lie
 * in one section, and a role's filter is made of those that name the role.
 * tools/syscalls compares the lines with what the objects import.
 */
#ifndef BASE_SYSCALLS_H
#define BASE_SYSCALLS_H

#include <stdint.h>

/* Who makes the call, once its filter is in force. */
enum syscalls_role {
	SYSCALLS_BEFORE = 0, /* before the first filter */
	SYSCALLS_SUPERVISOR = 1 << 0, /* and its children before their own */
	SYSCALLS_BROKER_START = 1 << 1, /* a broker before its own */
	SYSCALLS_BROKER = 1 << 2,
	SYSCALLS_RELAY = 1 << 3,
	SYSCALLS_URING = 1 << 4, /* a relay that has the engine uring */
	SYSCALLS_STORE = 1 << 5, /* a relay that has a user database */
	SYSCALLS_EXIT = 1 << 6,
	SYSCALLS_REMOTE = 1 << 7, /* a relay that has one on a server */
	SYSCALLS_ALL = SYSCALLS_SUPERVISOR | SYSCALLS_BROKER | SYSCALLS_RELAY |
		       SYSCALLS_EXIT,
};

struct syscalls {
	unsigned int roles;
	const char *names; /* one or more, a space between two */
	int argument; /* from 0, which is judged; -1: none is */
	uint64_t mask, value; /* pass when (argument & mask) == value */
	int also; /* another argument that is judged, 0: none is */
	uint32_t also_value; /* what its lower 32 bits must be */
};

/*
 * Names of system calls, not of functions of the C library. Those that this
 * architecture does not have are left out.
 */
#define SYSCALLS(roles, names) SYSCALLS_WHERE(roles, names, -1, 0, 0)
/* With several lines for a call it passes when one of them holds. */
#define SYSCALLS_WHERE(roles, names, argument, mask, value)                    \
	SYSCALLS_LINE(__LINE__, (roles), (names), (argument), (mask), (value), \
		      0, 0)
#define SYSCALLS_EQUAL(roles, names, argument, value) \
	SYSCALLS_WHERE(roles, names, argument, UINT32_MAX, value)
/* A pointer that must be none; memory may well lie where the lower half of one is 0. */
#define SYSCALLS_NULL(roles, names, argument) \
	SYSCALLS_WHERE(roles, names, argument, UINT64_MAX, 0)
/* socket(2) of one protocol: who asks for another has the kernel load its module. */
#define SYSCALLS_SOCKET(roles, family, protocol)                               \
	SYSCALLS_LINE(__LINE__, (roles), "socket", 0, UINT32_MAX, (family), 2, \
		      (protocol))

/* What lies in the section is pointers: structures there might have gaps. */
#define SYSCALLS_LINE(line, ...) SYSCALLS_LINE_(line, __VA_ARGS__)
#define SYSCALLS_LINE_(line, ...)                                       \
	static const struct syscalls syscalls_##line = { __VA_ARGS__ }; \
	static const struct syscalls *const syscalls_at_##line          \
		__attribute__((section("culvert_syscalls"), used)) =    \
			&syscalls_##line

#endif
