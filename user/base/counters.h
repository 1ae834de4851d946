/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The relay's counters, one list for who counts (turn), who sums (main) and who
 * shows (control). Counted since start unless the text says "now".
 */
#ifndef BASE_COUNTERS_H
#define BASE_COUNTERS_H

#include <stdint.h>

/* clang-format off */
#define COUNTERS(X)                                                   \
	X(clients, "client connections now")                                  \
	X(unauthenticated, "client connections not authenticated yet, now")   \
	X(handshakes, "TLS and DTLS handshakes not complete yet, now")        \
	X(allocations, "allocations now")                                     \
	X(pending, "peer connections awaiting ConnectionBind, now")           \
	X(relaying, "relayed connections now")                                \
	X(accepted, "client connections accepted")                            \
	X(rejected_limit, "client connections closed at once: limit reached") \
	X(handshake_rejects, "of them, for too many half-open handshakes")    \
	X(handshake_source_rejects, "of them, for too many of one source")    \
	X(rejected_descriptors, "accepts that failed for lack of descriptors") \
	X(handshake_failures, "client connections closed: no TLS agreed on")  \
	X(proxy_refused, "connections closed: no PROXY header, or from no proxy") \
	X(cookies_sent, "DTLS clients asked to prove their address")          \
	X(timeouts, "client connections closed: never authenticated in time") \
	X(bad_messages, "client connections closed: not STUN")                \
	X(datagrams_ignored, "datagrams of clients that were no message")     \
	X(channels, "channels bound, now")                                    \
	X(datagrams_to_peers, "datagrams relayed from clients to peers")      \
	X(datagrams_to_clients, "datagrams relayed from peers to clients")    \
	X(lanes, "channels on wire, now")                                     \
	X(lanes_made, "channels put on wire")                                 \
	X(lanes_refused, "channels that could not go on wire")                \
	X(datagrams_on_wire, "of all datagrams relayed, those by wire")       \
	X(datagrams_dropped, "datagrams not relayed: no permission, room or bandwidth")  \
	X(icmp_to_clients, "failures of datagrams that clients were told of")  \
	X(datagrams_unsent, "datagrams the kernel did not take")              \
	X(bad_fingerprints, "messages ignored: wrong FINGERPRINT")            \
	X(send_queue_full, "client connections closed: did not read answers") \
	X(requests, "requests")                                               \
	X(errors_answered, "requests answered with an error")                 \
	X(auth_failures, "requests with wrong credentials")                   \
	X(auth_limited, "requests ignored: too many wrong credentials from there") \
	X(answers_withheld, "requests without credentials not answered: limits.reflection, reflection_total") \
	X(auth_expired, "requests with credentials whose time is up")         \
	X(quota_refusals, "allocations and peer connections beyond a quota")  \
	X(lookups, "requests that waited for the user database")              \
	X(lookup_failures, "of them, for nothing: it was down or late")       \
	X(lookups_refused, "requests refused: too many waited for it")        \
	X(lookup_source_refusals, "of them, for too many of one source")      \
	X(rate_delays, "reads put off and datagrams dropped: bandwidth limit") \
	X(allocations_made, "allocations made")                               \
	X(exits_down, "allocations refused: nothing leaves by their exits")  \
	X(allocations_redirected, "requests for one answered with another server") \
	X(allocations_moved, "allocations that followed their clients")       \
	X(peer_connects, "connections to peers asked for")                    \
	X(peer_connect_failures, "connections to peers that failed")          \
	X(peer_accepts, "connections from peers accepted")                    \
	X(peer_accepts_refused, "connections from peers without permission")  \
	X(binds, "connections bound")                                         \
	X(binds_moved, "connections moved to the worker that owns the peer")  \
	X(bind_timeouts, "peer connections closed: not bound in time")        \
	X(bind_failures, "ConnectionBinds with a CONNECTION-ID that is not theirs") \
	X(binds_limited, "ConnectionBinds ignored: too many of these from there") \
	X(bytes_to_peers, "bytes relayed from clients to peers")              \
	X(bytes_to_clients, "bytes relayed from peers to clients")            \
	X(pair_errors, "relayed connections ended by an error or a reset")    \
	X(wire_joined, "connections put on wire")                             \
	X(wire_refused, "connections that could not go on wire")              \
	X(tls_kernel, "connections over TLS that the kernel decrypts")         \
	X(tls_copied, "connections over TLS that culvertd decrypts")           \
	X(tls_keys_spent, "connections over TLS ended: a key was used up") \
	X(adopted, "connections on wire taken over from an earlier relay")
/* clang-format on */

struct counters {
#define X(name, help) uint64_t name;
	COUNTERS(X)
#undef X
};

/* Adds every counter of `from` to `to`. */
static inline void counters_add(struct counters *to,
				const struct counters *from)
{
#define X(name, help) to->name += from->name;
	COUNTERS(X)
#undef X
}

#endif
