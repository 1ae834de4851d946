/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * culvert.conf as one typed structure. A file is checked whole before any of it
 * is used; every error is reported, not only the first.
 */
#ifndef CONF_CONF_H
#define CONF_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/addr.h"
#include "base/log.h"

#define CONF_NAME_MAX    64 /* bytes of a section's name with its NUL */
#define CONF_ENGINES_MAX 8 /* names in [engine] order */
#define CONF_DEVICES_MAX 32 /* names in [engine] wire_devices */
#define CONF_FILES_MAX   16 /* files of one key */
#define CONF_MAX_WORKERS 64
#define CONF_SECRETS_MAX 4 /* of a realm */
#define CONF_EXITS_MAX   64

enum conf_transport {
	CONF_TRANSPORT_TCP,
	CONF_TRANSPORT_UDP,
	CONF_TRANSPORT_TLS,
	CONF_TRANSPORT_DTLS,
};

/* [listener] tls_version */
enum conf_tls_version {
	CONF_TLS_1_2,
	CONF_TLS_1_3,
};

/* What says whether an exit can be left by. */
enum conf_health {
	CONF_HEALTH_LINK,
	CONF_HEALTH_ANYCAST,
	CONF_HEALTH_PROBE,
};

/* What packets are tunnelled in. */
enum conf_tunnel {
	CONF_TUNNEL_GPE,
	CONF_TUNNEL_IP6,
};

/* A file that a key names, read along with the configuration. */
struct conf_file {
	char *path;
	char *text; /* NULL before it is read; wiped by conf_unref */
	size_t len;
};

/* [listener NAME] */
struct conf_listener {
	char *name;
	enum conf_transport transport;
	union addr *addresses;
	size_t address_count;
	uint64_t portless; /* bits of the addresses given without a port */
	/*
	 * One of a family at most, for behaviour discovery: its host and port
	 * and those of the family's first address make four, all of them among
	 * `addresses` after parsing. None but for UDP.
	 */
	union addr *alternates;
	size_t alternate_count;
	struct conf_file certificates[CONF_FILES_MAX]; /* if it is sealed */
	size_t certificate_count;
	struct conf_file private_keys[CONF_FILES_MAX]; /* one to each */
	size_t private_key_count;
	enum conf_tls_version tls_version; /* the lowest */
	char *ciphers;
	char *realm; /* offered in challenges; NULL: the first realm */
	unsigned int backlog;
	unsigned int mss; /* bytes announced to clients; 0: the kernel's */
	struct prefix *proxies; /* who may speak for clients; none: nobody */
	size_t proxy_count;
	/* Where those keys stand in the file; 0: nowhere. */
	unsigned int certificate_line, private_key_line, ciphers_line;
};

/* Peers that `allow` or `deny` names. */
struct conf_rule {
	struct prefix prefix;
	uint16_t port_min, port_max; /* 0 and 65535: any */
};

/* Both lists of a user, of a realm or of [peers]. */
struct conf_rules {
	struct conf_rule *allow, *deny;
	size_t allow_count, deny_count;
};

/* Is it for TLS or DTLS? */
static inline bool conf_listener_sealed(const struct conf_listener *listener)
{
	return listener->transport == CONF_TRANSPORT_TLS ||
	       listener->transport == CONF_TRANSPORT_DTLS;
}

/* Is it for datagrams, and not for streams? */
static inline bool conf_listener_datagrams(const struct conf_listener *listener)
{
	return listener->transport == CONF_TRANSPORT_UDP ||
	       listener->transport == CONF_TRANSPORT_DTLS;
}

/* Names of engines in order of preference; none: not given. */
struct conf_engines {
	char *order[CONF_ENGINES_MAX];
	size_t count;
};

/* What a user or a realm may have at a time; 0: no limit. */
struct conf_quota {
	unsigned int allocations;
	unsigned int connections; /* of peers */
	uint64_t bandwidth; /* bits a second, each way */
	uint64_t allocation_bandwidth; /* so, of each allocation of a user */
};

/* [realm NAME] */
struct conf_realm {
	char *name;
	struct conf_quota quota; /* of all its users together */
	struct conf_quota per_user; /* unless the user has one of his own */
	/* With any its users are made with one of these; wiped by conf_unref. */
	char *secrets[CONF_SECRETS_MAX];
	size_t secret_count;
	/* Access tokens (RFC 7635): for whom they are, and what seals them. */
	char *oauth; /* NULL: none are taken */
	char *oauth_keys[CONF_SECRETS_MAX]; /* "ID:HEX"; wiped so, too */
	size_t oauth_key_count;
	uint64_t oauth_skew_ms;
	struct conf_engines engines;
	struct conf_rules rules;
};

/* Keys instead of a password, by the algorithm of their digest. */
struct conf_ha1 {
	bool has_md5, has_sha256;
	uint8_t md5[16];
	uint8_t sha256[32];
};

/* [user NAME] */
struct conf_user {
	char *name; /* the TURN USERNAME */
	char *realm; /* never NULL after parsing */
	char *password; /* NULL when ha1 is given; wiped by conf_unref */
	struct conf_ha1 ha1; /* none with a password */
	struct conf_quota quota;
	struct conf_engines engines; /* before those of the realm */
	struct conf_rules rules; /* so, too */
};

/*
 * [exit NAME]: a way out of this site, and what may leave by it. With a link it is
 * this host's own; with a next hop alone it is that router's.
 */
struct conf_exit {
	char *name;
	char *link; /* a device's name; NULL: not given */
	union addr *next_hops; /* at most one of each family */
	size_t next_hop_count;
	struct prefix *prefixes; /* its own: sources that belong to it */
	size_t prefix_count;
	struct prefix *authorised; /* sources that may leave there, too */
	size_t authorised_count;
	bool unchecked; /* any source may leave there */
	union addr *anycast; /* at most one of each family */
	size_t anycast_count;
	union addr anycast_suffix; /* of IPv6: the bits behind a prefix */
	enum conf_health health;
	uint64_t probe_interval_ms;
	unsigned int probe_losses; /* unanswered in a row */
	enum conf_tunnel tunnel; /* the same of all exits that have tunnels */
	union addr *tunnel_peers;
	size_t tunnel_peer_count;
	struct prefix *discovery_hosts; /* of IPv6 */
	size_t discovery_host_count;
	bool discover; /* this host learns where to tunnel to */
	unsigned int discover_entries;
	uint64_t discover_time_ms;
	unsigned int weight;
	struct conf_engines engines; /* behind those of user and realm */
	unsigned int link_line; /* where that stands in the file; 0: nowhere */
};

/* [alternate NAME]: another server that clients may be sent to. */
struct conf_alternate {
	char *name;
	union addr *addresses; /* one of a family at most */
	size_t address_count;
	enum conf_transport transport;
	char *domain; /* that its certificate is for; NULL: not told */
	unsigned int weight;
};

/* [relay] */
struct conf_relay {
	union addr *addresses; /* relayed addresses; none: the dialled one */
	size_t address_count;
	uint16_t port_min, port_max;
	bool udp; /* UDP allocations may be had */
	bool old_channels; /* channel numbers of RFC 5766, too */
	bool mobility; /* allocations may follow their clients */
};

/* [database] */
struct conf_database {
	char *url; /* "none", or of a user database; wiped by conf_unref */
	uint64_t timeout_ms;
	unsigned int waiting; /* requests */
	unsigned int waiting_per_source; /* of them; 0: no limit */
	unsigned int cache_users;
	uint64_t cache_ms;
	uint64_t cache_absent_ms;
	unsigned int url_line; /* where it stands in the file; 0: nowhere */
};

/* [peers] */
struct conf_peers {
	struct conf_rules rules;
	struct prefix *nat64; /* of translators near by (RFC 6052 2.2) */
	size_t nat64_count;
	bool relayed;
	bool require_permission;
};

/* [engine] wire: which connections go on wire. */
enum conf_wire {
	CONF_WIRE_AUTO, /* those on whose paths it pays */
	CONF_WIRE_ALWAYS, /* all that can */
	CONF_WIRE_NEVER,
};

/* [engine] */
struct conf_engine {
	char *order[CONF_ENGINES_MAX]; /* as written: checked against names */
	size_t order_count;
	size_t pipe_size; /* bytes */
	unsigned int pipes; /* per worker */
	size_t copy_buffer; /* bytes */
	size_t receive_buffer; /* bytes of kernel memory; 0: autotuning's */
	enum conf_wire wire;
	unsigned int wire_pairs; /* places for pairs */
	bool wire_datagrams; /* channels of UDP allocations go on wire */
	unsigned int wire_channels; /* places for those; 0: none */
	char *wire_devices[CONF_DEVICES_MAX]; /* none: found by the broker */
	size_t wire_device_count;
	char *pin; /* directory in a BPF file system */
	uint64_t wire_max_rtt_ms; /* of auto, both legs together; 0: any */
	uint64_t wire_max_growth_ms; /* of auto; 0: any */
	unsigned int wire_max_loss; /* of auto, parts per million */
	bool ktls; /* TLS of data connections may go to the kernel */
};

/* [limits]; durations in milliseconds, sizes in bytes, 0 as documented */
struct conf_limits {
	unsigned int connections;
	unsigned int unauthenticated;
	uint64_t unauthenticated_timeout_ms;
	unsigned int handshakes; /* of TLS and DTLS, not complete yet */
	unsigned int handshakes_per_source; /* of them; 0: no limit */
	uint64_t handshake_timeout_ms;
	unsigned int auth_failures; /* of a source, a minute */
	unsigned int bind_failures; /* CONNECTION-IDs, alike */
	size_t reflection; /* bytes a second, to a network */
	size_t reflection_total; /* and to all together */
	unsigned int allocations;
	struct conf_quota per_user;
	unsigned int permissions_per_allocation;
	unsigned int channels_per_allocation;
	unsigned int pending_binds;
	unsigned int connections_per_allocation;
	uint64_t default_lifetime_ms;
	uint64_t max_lifetime_ms;
	uint64_t permission_lifetime_ms;
	uint64_t channel_lifetime_ms;
	uint64_t bind_timeout_ms;
	uint64_t connect_timeout_ms;
	uint64_t nonce_lifetime_ms;
	size_t send_queue;
	uint64_t keepalive_ms;
	uint64_t idle_timeout_ms;
	unsigned int control_clients;
};

/* What becomes of a system call that a role does not make by itself. */
enum conf_seccomp {
	CONF_SECCOMP_ON, /* the process ends */
	CONF_SECCOMP_LOG, /* the kernel logs it */
	CONF_SECCOMP_OFF,
};

struct conf {
	_Atomic unsigned int refs;
	char *user;
	unsigned int workers; /* 0: one per core */
	char *control; /* path of the control socket */
	enum log_level log_level;
	enum conf_seccomp seccomp;
	bool software;
	bool mixed_transports; /* in one allocation: with TLS and without */
	struct conf_listener *listeners;
	size_t listener_count; /* 1 at least */
	struct conf_realm *realms;
	size_t realm_count; /* 1 at least; the first is the default */
	struct conf_user *users;
	size_t user_count;
	struct conf_exit *exits; /* by name */
	size_t exit_count;
	struct conf_sources *sources; /* of all exits: conf_exit_of */
	struct conf_alternate *alternates;
	size_t alternate_count;
	unsigned int weight; /* this server's among them; 0: keeps clients */
	unsigned int redirect_above; /* parts per million of a limit */
	struct conf_relay relay;
	struct conf_database database;
	struct conf_peers peers;
	struct conf_engine engine;
	struct conf_limits limits;
};

/*
 * Receives one problem: where ("culvert.conf:12"), and what: key, what was
 * found, what is allowed. is_error is false for a warning; line is 0 when the
 * file as a whole is meant. No message holds a password.
 */
typedef void (*conf_report_fn)(void *arg, bool is_error, const char *file,
			       unsigned int line, const char *message);

/*
 * Parses a configuration text. Returns 0 and *out (one reference), or
 * -EINVAL after reporting every error, or -ENOMEM (reported too). `file` only
 * names the text in reports.
 */
int conf_parse(const char *text, size_t len, const char *file,
	       conf_report_fn report, void *arg, struct conf **out);

/* Reads and parses a file; -ENOENT, -EACCES, -EFBIG (over 4 MiB), ... are
 * reported as well. *text_out (may be NULL) receives the text, NUL-terminated,
 * to be wiped and freed by the caller. The files that it names are read, too.
 */
int conf_load(const char *path, conf_report_fn report, void *arg,
	      struct conf **out, char **text_out, size_t *text_len);

/*
 * The contents of all files that keys name, one after the other, to be wiped and
 * freed by the caller; conf_files_unpack puts them into a configuration parsed
 * from the same text, where those files may not be readable. 0, -ENOMEM, or
 * -EBADMSG when they do not fit the configuration.
 */
int conf_files_pack(const struct conf *conf, uint8_t **out, size_t *len);
int conf_files_unpack(struct conf *conf, const uint8_t *data, size_t len);

/*
 * Does any connection want this engine: by [engine] order, by its user, realm or
 * exit, or, of "copy", by a TLS listener or a bandwidth? For "wire" false, too, when [engine] wire is
 * never.
 */
bool conf_engine_wanted(const struct conf *conf, const char *name);

/*
 * The exit that an address of ours leaves by: the one with the longest prefix
 * that holds it. NULL: none has one.
 */
const struct conf_exit *conf_exit_of(const struct conf *conf,
				     const union addr *addr);
/* Does it let such a source pass: its own, authorised, or unchecked? */
bool conf_exit_lets(const struct conf_exit *exit, const union addr *source);

/* Is there a [database] url? And which file is it; NULL: none. */
bool conf_database_wanted(const struct conf *conf);
const char *conf_database_file(const struct conf *conf);
/* Is it on a server? */
bool conf_database_remote(const struct conf *conf);

/*
 * Wipes passwords, their digests, secrets and the contents of files: for who has
 * made keys of them, or needs none. The database's stays, for it is asked again.
 */
void conf_secrets_forget(struct conf *conf);
/* The database's, too: for who asks it nothing. There is none any more. */
void conf_database_forget(struct conf *conf);

struct conf *conf_ref(struct conf *conf);
void conf_unref(struct conf *conf); /* accepts NULL; wipes passwords */

/* Writes the key reference: roff for culvert.conf(5), from the one key table. */
int conf_write_reference(FILE *out);

#endif
