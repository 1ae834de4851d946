/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The privileged half of wire: loads, attaches and pins the BPF programs, joins
 * pairs of sockets the relay hands over, resets them, reports their end. It
 * parses no network input. engine/wire_proto.h is what its clients speak.
 */
#ifndef BROKER_BROKER_H
#define BROKER_BROKER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "loop/loop.h"

struct broker;

struct broker_params {
	struct loop *loop;
	const char *pin; /* directory for pins; its file system may be mounted */
	unsigned int
		pairs; /* places; 0: no wire, for the sockmap engine's maps */
	unsigned int lanes; /* channels of UDP allocations, 0: none */
	const char *const *devices; /* names; none: found */
	size_t device_count;
	bool clsact; /* attach as on a kernel without tcx: for tests */
};

/*
 * Takes over what an earlier broker of this network namespace has left pinned,
 * or removes it. A broker that cannot work is one, too: it tells every client
 * why. 0 or -ENOMEM.
 */
int broker_new(const struct broker_params *params, struct broker **out);

/* 0, or a negative errno (logged): there is no wire. */
int broker_error(const struct broker *broker);

/*
 * Confines this process to the files that the broker still needs, its pins and what
 * the kernel says of its types, and as landlock_confine says.
 */
void broker_confine(const struct broker *broker);

/*
 * A client on a SOCK_SEQPACKET descriptor, taken over: worker `worker` of the relay,
 * whose channel before, if there is one, ends. 0, or -ENOMEM with it closed.
 */
int broker_serve(struct broker *broker, unsigned int worker, int fd);

/* The clean end: resets every pair, removes everything from the kernel. */
void broker_end(struct broker *broker);
/* Without broker_end everything in the kernel stays. Accepts NULL. */
void broker_free(struct broker *broker);

/*
 * Removes what brokers of this network namespace have left below `pin`. 0: it is
 * gone, *found tells whether there was anything; -EBUSY: a broker runs here, the
 * process *holder (base/lock.h).
 */
int broker_flush(const char *pin, bool *found, pid_t *holder);

/* After broker_end: the directories, which the broker cannot remove itself. */
void broker_pin_remove(const char *pin);

#endif
