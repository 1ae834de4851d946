/* SPDX-License-Identifier: BSD-2-Clause */
/* The guards' table as one transaction of nftables. */
#ifndef EXIT_GUARD_BATCH_H
#define EXIT_GUARD_BATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "conf/conf.h"

/* Names of counters, by the exit's index. */
#define GUARD_PACKETS "e%zu_packets"
#define GUARD_REJECTS "e%zu_rejects"

struct mnl_socket;

struct batch_params {
	const struct conf *conf; /* NULL: the table goes */
	const char *comment; /* of the table */
	uint32_t flags; /* likewise */
	uint32_t generation; /* of the rules that this counts on */
	bool adopt; /* the table is as wanted, but nobody's: it becomes ours */
	bool dry; /* the kernel checks it and does nothing */
	uint32_t *sequence; /* of messages on this socket */
};

/* Room on the socket for a transaction with many prefixes. */
void batch_room(struct mnl_socket *socket);
/*
 * 0; -ERESTART: somebody else was faster; -EINVAL, -EOPNOTSUPP: perhaps for the
 * flags; or another negative errno.
 */
int batch_send(struct mnl_socket *socket, const struct batch_params *params);

#endif
