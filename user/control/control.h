/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The control socket: JSON requests and replies, one a line, over a UNIX stream
 * socket. This room knows the wire format and the socket; what the answers say
 * comes from a provider (user/main), which may answer later.
 */
#ifndef CONTROL_CONTROL_H
#define CONTROL_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/counters.h"
#include "loop/loop.h"

#define CONTROL_VERSION       1
#define CONTROL_REQUEST_MAX   4096 /* bytes of a request line */
#define CONTROL_LIMIT_DEFAULT 1000 /* rows of a list unless asked otherwise */
#define CONTROL_LIMIT_MAX     100000
#define CONTROL_REPLY_MAX     ((size_t)64 << 20) /* bytes of a reply line */
#define CONTROL_IDLE_MS       60000 /* a client that does nothing is closed */

enum control_command {
	CONTROL_STATUS,
	CONTROL_ALLOCATIONS,
	CONTROL_CONNECTIONS,
	CONTROL_ENGINES,
	CONTROL_EXITS,
	CONTROL_KICK,
	CONTROL_DRAIN,
	CONTROL_UNDRAIN,
	CONTROL_RELOAD,
	CONTROL_FORGET, /* what is remembered of the user database */
	CONTROL_STOP,
};

/* "status" ...; the protocol's name of a command. */
const char *control_command_name(enum control_command command);

struct control_request {
	enum control_command command;
	size_t limit; /* rows, for lists */
	char id[32]; /* kick: "a12.7" allocation or "c12.7" connection */
};

struct control_status {
	char version[32];
	uint64_t uptime_ms;
	unsigned int workers;
	bool draining;
	uint64_t config_loads; /* configurations taken since start */
	struct counters total;
	struct counters *per_worker; /* `workers` of them; owned */
};

struct control_allocation {
	char id[32];
	char client[80], relayed[80];
	char additional[80]; /* the relayed one of the other family; or empty */
	/* "tcp", "tls", "udp" or "dtls": of the client, and to peers */
	char client_transport[8], transport[8];
	char *user, *realm; /* owned */
	uint64_t age_ms, expires_in_ms;
	unsigned int permissions, pending, connections, channels;
	uint64_t bytes_to_peers, bytes_to_client; /* of a UDP one */
	unsigned int worker;
};

struct control_connection {
	char id[32], allocation[32];
	char client[80], peer[80];
	char *user; /* owned */
	/* connecting, held, joining, flushing, relaying, closing, adopted */
	const char *state;
	const char *engine; /* "-" before one is attached */
	const char *why; /* it is not on wire, in words; "" when it is */
	uint64_t expires_in_ms; /* of an adopted one; 0: never */
	uint64_t bytes_to_peer, bytes_to_client;
	uint64_t age_ms, idle_ms;
	unsigned int worker;
};

#define CONTROL_FALLBACKS_MAX 32

/* Connections that an engine did not take, for one reason. */
struct control_fallback {
	const char *reason, *text; /* "early", and the same in words */
	uint64_t count;
};

struct control_engine {
	const char *name;
	const char *needs; /* in words */
	bool available;
	char reason[96]; /* why not, when not available */
	unsigned int position; /* in the configured order from 1; 0: not in it */
	uint64_t pairs_now, pairs_total;
	struct control_fallback fallbacks[CONTROL_FALLBACKS_MAX];
	size_t fallback_count;
};

/* An exit as its helper has told of it, every five seconds and at each change. */
struct control_exit {
	const char *name;
	const char *state, *was; /* was empty: it has not changed */
	uint64_t since_ms; /* of that state, or from the helper's start */
	uint64_t changes, packets, rejected;
	uint64_t place; /* among the configuration's exits, from 0: its counters' name */
	/* What the kernel's counters had of them: of the guard, and of dead exits. */
	uint64_t seen_packets, seen_rejected, seen_dead;
};

/* A link or an anycast address that is lost although the kernel has it. */
struct control_loss {
	const char *what;
	bool silent; /* it answers no probe; else: it flapped, and is held back */
	uint64_t held_ms; /* held back: for so long, if it stays */
};

struct control_exits {
	const struct control_exit *rows;
	size_t count;
	const struct control_loss *losses;
	size_t loss_count;
	uint64_t tunnel_refused, hosts_told, told, forged;
};

/* Free an array and what its rows own; accept NULL. */
void control_allocations_free(struct control_allocation *rows, size_t count);
void control_connections_free(struct control_connection *rows, size_t count);

/* An answer under way. Finish it exactly once with one of control_reply_*; a list
 * with control_reply_end(), or control_reply_error() whatever was written.
 */
struct control_reply;

void control_reply_ok(struct control_reply *reply);
void control_reply_error(struct control_reply *reply, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
void control_reply_status(struct control_reply *reply,
			  const struct control_status *status);
/*
 * The next rows of a list, which control_reply_end() finishes: many are written some
 * at a time. total counts rows before the limit cut them, and is the same each time.
 */
void control_reply_allocations(struct control_reply *reply,
			       const struct control_allocation *rows,
			       size_t count, size_t total);
void control_reply_connections(struct control_reply *reply,
			       const struct control_connection *rows,
			       size_t count, size_t total);
void control_reply_end(struct control_reply *reply);
void control_reply_engines(struct control_reply *reply,
			   const struct control_engine *rows, size_t count);

void control_reply_exits(struct control_reply *reply,
			 const struct control_exits *exits);

/*
 * Called on the server's loop for each valid request. The reply may be finished
 * later, but on the same loop's thread; it stays valid when the client has gone.
 */
typedef void (*control_handler_fn)(void *arg,
				   const struct control_request *request,
				   struct control_reply *reply);

struct control_server;

/*
 * Makes the socket at `path` (its directory is created with mode 0755 when
 * missing, a stale socket is replaced, a live one is -EADDRINUSE) with mode 0660
 * without serving it yet: call while still privileged. Returns the descriptor or
 * a negative errno; -ENOTSOCK when something else than a socket is at `path`.
 */
int control_listen(const char *path);

/* Serves an fd of control_listen on the loop; takes the descriptor over. */
int control_server_new(struct loop *loop, int fd, unsigned int max_clients,
		       control_handler_fn handler, void *arg,
		       struct control_server **out);
/*
 * Accepts NULL. Not from within the handler. Replies still under way stay valid
 * and are dropped when finished.
 */
void control_server_free(struct control_server *server);
/* Instead of CONTROL_IDLE_MS; for clients that come from now on. */
void control_server_set_idle(struct control_server *server, uint64_t idle_ms);

/* Parses one request line; pure. Returns 0 or -EINVAL with *error set to a
 * static text that says what is wrong.
 */
int control_parse_request(const char *line, size_t len,
			  struct control_request *out, const char **error);

#endif
