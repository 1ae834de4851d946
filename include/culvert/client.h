/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * culvert's client library: TCP connections through a TURN server (RFC 6062).
 *
 * A client is one control connection with one TCP allocation, and with it one
 * relayed address. Out of it connections to peers are made
 * (culvert_client_connect), and connections of permitted peers come in
 * (culvert_client_permit, culvert_events.accepted). Both end in an ordinary
 * connected TCP descriptor that belongs to the caller; the library never touches
 * its bytes again. The allocation lives, and with it every such descriptor, as
 * long as the client: the library refreshes allocation and permissions itself.
 *
 *   culvert_resolve            name -> addresses (blocks, like getaddrinfo)
 *   culvert_loop_new           an event loop, its own or inside another's
 *   culvert_client_new         dials, authenticates, allocates
 *     events.ready             ... done: culvert_client_info has the address
 *   culvert_client_connect     -> fn(stream) or fn(error)
 *   culvert_client_permit      -> fn(NULL) or fn(error); then events.accepted
 *   culvert_client_close       gives the allocation back -> events.ended(NULL)
 *   culvert_client_free        at once; nothing is called any more
 *
 * Rules that hold for every function:
 * - One thread per loop. Callbacks run inside culvert_loop_dispatch only, never
 *   inside another function of this header; they may call any of them,
 *   culvert_client_free on their own client included, but not
 *   culvert_loop_dispatch and culvert_loop_free.
 * - int results are 0 or a negative errno; out-parameters change on success
 *   only. What is passed in by pointer is copied before the call returns.
 * - Pointers handed to a callback are valid until it returns.
 * - Addresses are struct sockaddr_in or sockaddr_in6.
 * - Link with -lculvert -luring -lssl -lcrypto -lunistring -lpthread.
 * - With TLS (culvert_server.tls) a data connection's descriptor is the end of a
 *   TCP connection on this host, which the loop joins with the encrypted one: it
 *   has bytes only while the loop is dispatched.
 * - A program that uses descriptors it got from here ignores SIGPIPE or sends
 *   with MSG_NOSIGNAL, as with any socket; the library itself does the latter.
 */
#ifndef CULVERT_CLIENT_H
#define CULVERT_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CULVERT_PORT             3478
#define CULVERT_PORT_TLS         5349
#define CULVERT_SERVER_ADDRESSES 16
#define CULVERT_USER_MAX         508 /* bytes of USERNAME (RFC 8489 14.3) */
#define CULVERT_PERMISSIONS_MAX  256 /* per client */

struct culvert_loop;
struct culvert_client;

/* ---- Event loop ---- */

/* 0, -ENOMEM, -EMFILE or -ENFILE. */
int culvert_loop_new(struct culvert_loop **out);
/* Every client of it must have been freed before. Accepts NULL. */
void culvert_loop_free(struct culvert_loop *loop);
/*
 * Delivers what has happened, waiting for it at most timeout_ms (-1: for ever,
 * 0: not at all). Returns 0, also when nothing happened, or a negative errno.
 */
int culvert_loop_dispatch(struct culvert_loop *loop, int timeout_ms);
/*
 * Inside a foreign event loop: wait until culvert_loop_fd is readable, at most
 * culvert_loop_timeout milliseconds (-1: no limit; ask before every wait), then
 * culvert_loop_dispatch(loop, 0).
 */
int culvert_loop_fd(const struct culvert_loop *loop);
int culvert_loop_timeout(struct culvert_loop *loop);

/* ---- Server ---- */

/* Where a TURN server is: its addresses in the order they are tried. */
struct culvert_server {
	char name[300]; /* as given, for messages */
	char host[256]; /* of it, which a certificate is for */
	bool tls;
	size_t count; /* 1 to CULVERT_SERVER_ADDRESSES */
	struct sockaddr_storage address[CULVERT_SERVER_ADDRESSES];
};

/*
 * Reads "HOST", "HOST:PORT", "[IPV6]:PORT" or "turn:HOST:PORT?transport=tcp", or
 * with turns: for TLS (RFC 7065), and looks the host up; blocks while it does.
 * family: AF_INET or AF_INET6 for addresses of that family only, AF_UNSPEC for both.
 * Returns 0; -EINVAL: not such a text; -EPROTONOSUPPORT: a transport other than
 * TCP; -ENOENT: no such name or no address of the family; -EAGAIN: the resolver
 * failed, later it may not; -ENOMEM.
 */
int culvert_resolve(const char *text, int family, struct culvert_server *out);

/* ---- Client ---- */

/* What went wrong. */
struct culvert_error {
	/*
	 * 300 to 699: the server's answer (RFC 8489, 8656, 6062 codes: 300
	 * another server is to be used, and two have said so before, or it is
	 * one of them, or the answer was not to be trusted; 401
	 * wrong credentials, 446 connection already exists, 447 peer not
	 * reached, 486 quota, ...). Negative: an errno of ours, among them
	 * -ETIMEDOUT no answer in time that counts; -EBADMSG one that was not
	 * signed with our password; -EPIPE the server closed the connection;
	 * -EPROTO it answered nonsense; -EKEYREJECTED its challenge
	 * is weaker than it says or than the one before, as if changed on the
	 * way; -ENOTSUP none of its password algorithms is known; -ENOKEY its
	 * TLS certificate was not accepted; -ENOMEM; those of connect(2).
	 */
	int code;
	const char *during; /* "connecting", "Allocate", "ConnectionBind", ... */
	const char *reason; /* for people; printable, never NULL */
};

/* A connection to or from a peer: from here on the caller's. */
struct culvert_stream {
	int fd; /* nonblocking, CLOEXEC, TCP_NODELAY; the caller closes it */
	/*
	 * Bytes of the peer that arrived together with the server's answer:
	 * they come before anything read from fd. Often none.
	 */
	const void *early;
	size_t early_len;
	const struct sockaddr *peer;
};

struct culvert_events {
	/*
	 * The control connection stands. Only with options.manual: nothing
	 * more happens until culvert_client_allocate.
	 */
	void (*connected)(void *arg);
	/* The allocation is there. Called once. Required. */
	void (*ready)(void *arg);
	/*
	 * A permitted peer has connected to the relayed address: accept it?
	 * Optional: all are accepted without.
	 */
	bool (*attempt)(void *arg, const struct sockaddr *peer);
	/* The connection of a peer, ready for use. Without, all are refused. */
	void (*accepted)(void *arg, const struct culvert_stream *stream);
	/* A peer's connection could not be taken over. Optional. */
	void (*attempt_failed)(void *arg, const struct sockaddr *peer,
			       const struct culvert_error *error);
	/*
	 * A permission could not be refreshed: its peers are refused until it
	 * can, which the library goes on trying. Optional.
	 */
	void (*permission_lost)(void *arg, const struct sockaddr *peer,
				const struct culvert_error *error);
	/*
	 * The allocation is gone and with it, on the server, every connection
	 * made from it. error is NULL after culvert_client_close. Callbacks of
	 * requests still in flight have been called with an error before.
	 * Only culvert_client_free and culvert_client_info may follow. Required.
	 */
	void (*ended)(void *arg, const struct culvert_error *error);
};

/* All zero but server: the defaults. */
struct culvert_options {
	const struct culvert_server *server;
	/*
	 * Long-term credentials, user NULL: none. UTF-8 of at most 508 bytes
	 * each, prepared as OpaqueString (RFC 8265) here; wiped with the client.
	 */
	const char *user, *password;
	int family; /* of the relayed address: AF_INET, AF_INET6; 0: IPv4 */
	bool manual; /* connect only, see events.connected */
	/*
	 * With server->tls: a PEM file of who may vouch for the server; NULL:
	 * the system's. The name its certificate must have; NULL: server->host.
	 * tls_unverified takes any certificate: whoever is in between reads all.
	 */
	const char *tls_authorities, *tls_name;
	bool tls_unverified;
	unsigned int lifetime_s; /* asked for; 0: the server's default */
	/* One address of the server is given up after; 0: 10,000. */
	unsigned int dial_timeout_ms;
	/* An answer is waited for; 0: 39,500 (RFC 8489 6.2.2). */
	unsigned int request_timeout_ms;
	/* The same for Connect, where the server waits for the peer, 30 s or
	 * more by RFC 6062 5.2; 0: 60,000.
	 */
	unsigned int connect_timeout_ms;
	/* Permissions last five minutes; they are refreshed after; 0: 240. */
	unsigned int permission_refresh_s;
	/* Connections of peers taken over at a time; more wait. 0: 64. */
	unsigned int accepts_max;
};

/*
 * Starts; events tell how it goes.
 * Returns 0; -EINVAL: options that cannot be (no server, no required event, a
 * user without password, texts too long or with characters that RFC 8265 does not
 * allow, tls_authorities that cannot be read);
 * -ENOMEM.
 */
int culvert_client_new(struct culvert_loop *loop,
		       const struct culvert_options *options,
		       const struct culvert_events *events, void *arg,
		       struct culvert_client **out);
/*
 * Closes the control connection, which ends the allocation and the connections
 * made from it; forgets requests in flight without calling them. Accepts NULL.
 */
void culvert_client_free(struct culvert_client *client);
/*
 * Gives the allocation back (a Refresh with lifetime 0), waits for the answer two
 * seconds at most, then events.ended(arg, NULL).
 */
void culvert_client_close(struct culvert_client *client);

/* For options.manual, after events.connected. 0 or -EINVAL: not the moment. */
int culvert_client_allocate(struct culvert_client *client);

/* error is NULL on success. */
typedef void (*culvert_done_fn)(void *arg, const struct culvert_error *error);
/* One of error and stream is NULL. */
typedef void (*culvert_connect_fn)(void *arg, const struct culvert_error *error,
				   const struct culvert_stream *stream);
/* mapped: our address as the server sees it; NULL with an error. */
typedef void (*culvert_binding_fn)(void *arg, const struct culvert_error *error,
				   const struct sockaddr *mapped);

/*
 * Connects to a peer. Many may be in flight, but one per peer address (RFC 6062
 * 4.3). Returns 0; -ENOTCONN: no allocation (yet, any more); -EALREADY: one to
 * this peer is in flight; -EAGAIN: code 447 for this peer less than ten seconds
 * ago (4.3); -EINVAL: not an address; -ENOBUFS: 1,024 requests are in flight;
 * -ENOMEM.
 * The server has one connection per peer address and allocation: 446.
 */
int culvert_client_connect(struct culvert_client *client,
			   const struct sockaddr *peer, culvert_connect_fn fn,
			   void *arg);
/*
 * Forgets the requests made with this fn argument: their fn is not called any
 * more. A connection that comes of one all the same is closed.
 */
void culvert_client_cancel(struct culvert_client *client, void *arg);
/*
 * Permits a peer's address (any port) to connect, and keeps it permitted. fn may
 * be NULL. Returns 0; -ENOTCONN; -EINVAL; -ENOSPC: CULVERT_PERMISSIONS_MAX are
 * there; -ENOBUFS; -ENOMEM. One that is there is refreshed; -EALREADY when that
 * is under way.
 */
int culvert_client_permit(struct culvert_client *client,
			  const struct sockaddr *peer, culvert_done_fn fn,
			  void *arg);
/*
 * Refreshes the allocation now. A success proves that the server still has it:
 * who reads an end of stream from a peer learns so whether it was the peer's.
 * Returns 0, -ENOTCONN, -ENOBUFS or -ENOMEM.
 */
int culvert_client_refresh(struct culvert_client *client, culvert_done_fn fn,
			   void *arg);
/* STUN Binding on the control connection. 0, -ENOTCONN, -ENOBUFS, -ENOMEM. */
int culvert_client_binding(struct culvert_client *client, culvert_binding_fn fn,
			   void *arg);

/* What is known by now; addresses that are not have ss_family AF_UNSPEC. */
struct culvert_info {
	struct sockaddr_storage server; /* the address in use */
	struct sockaddr_storage local; /* our end of the control connection */
	struct sockaddr_storage mapped; /* the same as the server sees it */
	struct sockaddr_storage relayed; /* where peers connect to */
	uint32_t lifetime_s; /* granted by the last refresh; 0: none */
	/* Printable; "" when unknown. Valid as long as the client. */
	const char *realm;
	const char *software;
};
void culvert_client_info(const struct culvert_client *client,
			 struct culvert_info *out);

#ifdef __cplusplus
}
#endif

#endif
