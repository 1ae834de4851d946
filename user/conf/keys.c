/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of sections and keys, and the words made from it. */
#include "conf/keys.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/opaque.h"
#include "conf/conf.h"

#define SECOND (UINT64_C(1000))
#define MINUTE (60 * SECOND)
#define HOUR   (60 * MINUTE)
#define KIB    (UINT64_C(1024))
#define MIB    (1024 * KIB)

/* Bits a second. */
#define RATE_MIN UINT64_C(64000)
#define RATE_MAX UINT64_C(1000000000000)

/* Longest USERNAME, RFC 8489 14.3. */
#define USERNAME_BYTES 508

const char *const conf_engine_names[] = { "wire",    "splice", "uring",
					  "sockmap", "copy",   NULL };

static const char *const transport_names[] = {
	[CONF_TRANSPORT_TCP] = "tcp",
	[CONF_TRANSPORT_UDP] = "udp",
	[CONF_TRANSPORT_TLS] = "tls",
	[CONF_TRANSPORT_DTLS] = "dtls",
	NULL,
};

static const char *const tls_names[] = {
	[CONF_TLS_1_2] = "1.2",
	[CONF_TLS_1_3] = "1.3",
	NULL,
};

static const char *const seccomp_names[] = {
	[CONF_SECCOMP_ON] = "on",
	[CONF_SECCOMP_LOG] = "log",
	[CONF_SECCOMP_OFF] = "off",
	NULL,
};

static const char *const tunnel_names[] = {
	[CONF_TUNNEL_GPE] = "vxlan-gpe",
	[CONF_TUNNEL_IP6] = "ip6tnl",
	NULL,
};
static const char *const health_names[] = {
	[CONF_HEALTH_LINK] = "link",
	[CONF_HEALTH_ANYCAST] = "anycast",
	[CONF_HEALTH_PROBE] = "probe",
	NULL,
};

static const char *const wire_names[] = {
	[CONF_WIRE_AUTO] = "auto",
	[CONF_WIRE_ALWAYS] = "always",
	[CONF_WIRE_NEVER] = "never",
	NULL,
};

const struct section_info conf_sections[SECTION_COUNT] = {
	[SECTION_SERVER] = {
		.name = "server",
		.help = "The daemon itself.",
	},
	[SECTION_LISTENER] = {
		.name = "listener",
		.named = true,
		.max = 64,
		.help = "A set of addresses on which clients are served.\n"
			"There may be up to 64 of these sections.\n"
			"Without any, one named\n"
			".Dq default\n"
			"exists and has the values below.",
	},
	[SECTION_RELAY] = {
		.name = "relay",
		.help = "Where allocations get their relayed transport\n"
			"addresses.",
	},
	[SECTION_REALM] = {
		.name = "realm",
		.named = true,
		.help = "A realm of long-term credentials (RFC 8489, 9.2).\n"
			"The first one in the file is the default realm.",
	},
	[SECTION_USER] = {
		.name = "user",
		.named = true,
		.help = "A user of one realm.\n"
			"Exactly one of\n"
			".Cm password\n"
			"and\n"
			".Cm ha1\n"
			"must be given.",
	},
	[SECTION_EXIT] = {
		.name = "exit",
		.named = true,
		.max = CONF_EXITS_MAX,
		.help = "A way out of this site, with the source addresses that\n"
			"may leave by it, for a site with several providers of\n"
			"which each drops what does not come from its own prefix.\n"
			"There may be up to 64 of these sections.\n"
			".Pp\n"
			"A connection belongs to the exit with the longest\n"
			".Cm prefix\n"
			"around its relayed address, and takes that exit's\n"
			".Cm engine .\n"
			".Pp\n"
			"With a\n"
			".Cm link ,\n"
			"a\n"
			".Cm next_hop\n"
			"or a\n"
			".Cm tunnel_peer\n"
			"packets are routed by their source: see\n"
			".Xr culvertd 8 ,\n"
			".Dq Exits .\n"
			"An address whose exit has a link that is down gets no new\n"
			"allocation (508 when there is no other of its family).",
	},
	[SECTION_ALTERNATE] = {
		.name = "alternate",
		.named = true,
		.max = 64,
		.help = "Another server with the same realms and users, at one\n"
			"transport, to which a client that asks for an allocation may\n"
			"be sent (300, ALTERNATE-SERVER).\n"
			"Those of the client's transport and address family are\n"
			"chosen among by weight: while this server drains, above\n"
			".Cm redirect_above ,\n"
			"or always, with a\n"
			".Cm weight\n"
			"in\n"
			".Ic [server] .\n"
			"A choice depends on user and client address alone, so that\n"
			"servers that know each other by the same addresses and\n"
			"weights agree.\n"
			"There may be up to 64 of these sections.",
	},
	[SECTION_DATABASE] = {
		.name = "database",
		.help = "Where users are looked for that have no section here; see\n"
			".Sx USER DATABASE .",
	},
	[SECTION_PEERS] = {
		.name = "peers",
		.help = "Which peers clients may reach through the relay, and be\n"
			"reached by.\n"
			"The first of these that names a peer decides:\n"
			".Cm allow ,\n"
			"then\n"
			".Cm deny\n"
			"of the user; both of the realm; both of this section.\n"
			"What none names is refused by default when it is a\n"
			"loopback, link-local or multicast address, in 0.0.0.0/8\n"
			"or 240.0.0.0/4, the unspecified address, an address of\n"
			"this server or the broadcast address of one of its\n"
			"networks (a change of these is seen within a second), and\n"
			"in every way of spelling one of these as an IPv6 address;\n"
			"anything else is allowed.\n"
			".Pp\n"
			"A permission is for a host: it is refused when none of the\n"
			"host's ports may be reached.\n"
			"A connection, a channel and each datagram is judged with\n"
			"its port, that of the peer.\n"
			"A reload takes away permissions that would be refused now\n"
			"and drops the data of such channels; connections that are\n"
			"established go on.",
	},
	[SECTION_ENGINE] = {
		.name = "engine",
		.help = "How the bytes of relayed connections are carried.",
	},
	[SECTION_LIMITS] = {
		.name = "limits",
		.help = "Bounds in number, space and time.",
	},
};

#define SERVER(field) SECTION_SERVER, .offset = offsetof(struct conf, field)
#define LISTENER(field) \
	SECTION_LISTENER, .offset = offsetof(struct conf_listener, field)
#define REALM(field) SECTION_REALM, .offset = offsetof(struct conf_realm, field)
#define USER(field)  SECTION_USER, .offset = offsetof(struct conf_user, field)
#define ALTERNATE(field) \
	SECTION_ALTERNATE, .offset = offsetof(struct conf_alternate, field)
#define EXIT(field)  SECTION_EXIT, .offset = offsetof(struct conf_exit, field)
#define RELAY(field) SECTION_RELAY, .offset = offsetof(struct conf, relay.field)
#define DATABASE(field) \
	SECTION_DATABASE, .offset = offsetof(struct conf, database.field)
#define PEERS(field) SECTION_PEERS, .offset = offsetof(struct conf, peers.field)
#define ENGINE(field) \
	SECTION_ENGINE, .offset = offsetof(struct conf, engine.field)
#define LIMITS(field) \
	SECTION_LIMITS, .offset = offsetof(struct conf, limits.field)

/* Keys of one section stand together: conf_keys_of depends on it. */
const struct key conf_keys[] = {
	{ SERVER(user), .name = "user", .type = KEY_TEXT, .min = 1,
	  .max = CONF_NAME_MAX - 1, .preset = "culvert",
	  .help = "The system user the relay runs as when\n"
		  ".Xr culvertd 8\n"
		  "is started as root.\n"
		  "When it does not exist,\n"
		  ".Dq nobody\n"
		  "is taken and a warning logged." },
	{ SERVER(workers), .name = "workers", .type = KEY_COUNT,
	  .max = CONF_MAX_WORKERS, .preset = "0",
	  .help = "Threads that serve clients; 0 means one per core." },
	{ SERVER(control), .name = "control", .type = KEY_PATH,
	  .preset = "/run/culvert/control.sock",
	  .help = "Path of the control socket that\n"
		  ".Xr culvertctl 8\n"
		  "talks to." },
	{ SERVER(log_level), .name = "log_level", .type = KEY_WORD,
	  .words = log_level_names, .preset = "info",
	  .help = "The least important messages logged." },
	{ SERVER(seccomp), .name = "seccomp", .type = KEY_WORD,
	  .words = seccomp_names, .preset = "on",
	  .help = "Whether each process makes only the system calls that its\n"
		  "code states.\n"
		  "With\n"
		  ".Cm on\n"
		  "one that makes another call logs which one and ends; with\n"
		  ".Cm log\n"
		  "the call is made and the kernel logs its number (type=1326 in\n"
		  "its audit messages).\n"
		  "A change needs a restart; so does the engine\n"
		  ".Cm uring\n"
		  "where nothing used it, for what is asked of an io_uring no\n"
		  "filter sees." },
	{ SERVER(software), .name = "software", .type = KEY_BOOL,
	  .preset = "yes",
	  .help = "Whether answers name this software and its version." },
	{ SERVER(mixed_transports), .name = "mixed_transports",
	  .type = KEY_BOOL, .preset = "no",
	  .help = "Whether a data connection may come over TLS for an\n"
		  "allocation made without, or without for one made over TLS.\n"
		  "RFC 6062, section 4.3, has both go to the same server\n"
		  "address, and who asked for encryption would lose it unseen." },

	{ SERVER(weight), .name = "weight", .type = KEY_COUNT, .max = 100,
	  .preset = "0",
	  .help = "This server's share of the clients, beside the weights of\n"
		  "the\n"
		  ".Ic [alternate]\n"
		  "servers; with 0 it keeps all that it has room for." },
	{ SERVER(redirect_above), .name = "redirect_above", .type = KEY_PERCENT,
	  .max = 1000000, .preset = "100%",
	  .help = "The share of\n"
		  ".Ic [limits]\n"
		  ".Cm allocations ,\n"
		  "or of the descriptors there may be, above which clients are\n"
		  "sent to an\n"
		  ".Ic [alternate]\n"
		  "server." },

	{ LISTENER(transport), .name = "transport", .type = KEY_WORD,
	  .words = transport_names, .preset = "tcp",
	  .help = "What carries the STUN messages; TLS is TLS over TCP, DTLS is\n"
		  "DTLS 1.2 over UDP.\n"
		  "TCP allocations cannot be had over\n"
		  ".Cm udp\n"
		  "and\n"
		  ".Cm dtls .\n"
		  "Data connections to a TLS listener are encrypted, too:\n"
		  "see\n"
		  ".Cm ktls\n"
		  "in\n"
		  ".Ic [engine] ." },
	{ LISTENER(addresses), .name = "address", .type = KEY_LISTEN,
	  .second = offsetof(struct conf_listener, address_count),
	  .preset = "0.0.0.0, ::", .shown = "0.0.0.0, ::",
	  .help = "Addresses to listen on; the port is 3478, with TLS and DTLS\n"
		  "5349, unless given.\n"
		  "An IPv6 address with a port needs brackets." },
	{ LISTENER(alternates), .name = "alternate", .type = KEY_ENDPOINTS,
	  .second = offsetof(struct conf_listener, alternate_count),
	  .preset = "",
	  .help = "A second address of this host with a second port, for UDP\n"
		  "and at most one of a family: turns NAT behavior discovery\n"
		  "(RFC 5780) on.\n"
		  "With\n"
		  ".Cm address\n"
		  "192.0.2.1:3478 and\n"
		  ".Cm alternate\n"
		  "192.0.2.2:3479 four sockets are opened, for either address\n"
		  "with either port; clients may ask for an answer from another\n"
		  "one of them (CHANGE-REQUEST), to another of their own ports\n"
		  "(RESPONSE-PORT), or with as much padding as they send\n"
		  "(PADDING, up to 1500 bytes).\n"
		  "Answers to Binding are more than twice as long then: see\n"
		  ".Cm reflection\n"
		  "in\n"
		  ".Sx [limits] ." },
	{ LISTENER(certificates), .name = "certificate", .type = KEY_FILES,
	  .flags = KEY_REPEAT,
	  .second = offsetof(struct conf_listener, certificate_count),
	  .preset = "", .shown = "none",
	  .help = "Files in PEM form, each with a certificate of this server\n"
		  "and behind it those that vouch for it; for TLS\n"
		  "and DTLS.\n"
		  "A client that names the server it wants (SNI) is shown the\n"
		  "first with that name, any other client the first.\n"
		  "Of two for the same names, one with an RSA and one with an\n"
		  "ECDSA key, it is shown the one that it can verify.\n"
		  "They are read with the configuration: when they are renewed,\n"
		  "reload.\n"
		  "Established connections go on with what they have." },
	{ LISTENER(private_keys), .name = "private_key", .type = KEY_FILES,
	  .flags = KEY_REPEAT,
	  .second = offsetof(struct conf_listener, private_key_count),
	  .preset = "", .shown = "none",
	  .help = "Files in PEM form with the private keys, without a\n"
		  "passphrase, in the order of the certificates.\n"
		  "They are read by the supervisor: the relay's user need not\n"
		  "be able to.\n"
		  "A reload reads them as root without root's privileges, so\n"
		  "they should belong to root." },
	{ LISTENER(tls_version), .name = "tls_version", .type = KEY_WORD,
	  .words = tls_names, .preset = "1.2",
	  .help = "The lowest version of TLS spoken; with\n"
		  ".Cm dtls\n"
		  "it is 1.2." },
	{ LISTENER(ciphers), .name = "ciphers", .type = KEY_TEXT, .min = 1,
	  .max = 900, .preset = "ECDHE+AESGCM:ECDHE+CHACHA20",
	  .help = "Ciphers of TLS and DTLS 1.2 in the words of\n"
		  ".Xr openssl-ciphers 1ssl ,\n"
		  "and names of TLS 1.3 (they begin with\n"
		  ".Dq TLS_ ) ,\n"
		  "apart by colons.\n"
		  "Without any of TLS 1.3 all of that version are offered." },
	{ LISTENER(realm), .name = "realm", .type = KEY_TEXT,
	  .flags = KEY_OPAQUE, .min = 1, .max = CONF_NAME_MAX - 1,
	  .shown = "the first realm",
	  .help = "The realm offered to clients that come without\n"
		  "credentials." },
	{ LISTENER(backlog), .name = "backlog", .type = KEY_COUNT, .min = 1,
	  .max = 65535, .preset = "4096",
	  .help = "Connections the kernel completes before they are\n"
		  "accepted; it may lower this to\n"
		  ".Pa /proc/sys/net/core/somaxconn ." },
	{ LISTENER(mss), .name = "mss", .type = KEY_COUNT, .flags = KEY_ZERO,
	  .min = 536, .max = 32767, .preset = "0",
	  .help = "The largest TCP segment clients are asked to send, in\n"
		  "bytes; 0 leaves it to the kernel.\n"
		  "A connection can go on wire only when what one side sends\n"
		  "fits the path to the other.\n"
		  "Where peers are behind a tunnel of, say, 1400 bytes, 1340\n"
		  "here lets their connections qualify." },
	{ LISTENER(proxies), .name = "proxy_protocol", .type = KEY_PREFIXES,
	  .flags = KEY_REPEAT,
	  .second = offsetof(struct conf_listener, proxy_count), .preset = "",
	  .shown = "none: clients connect themselves",
	  .help = "Proxies, by address, that say by the PROXY protocol, version\n"
		  "1 or 2, where each connection really comes from; for TCP and\n"
		  "TLS.\n"
		  "Then nobody else may connect here, and a connection without\n"
		  "such a header is closed; see\n"
		  ".Xr culvertd 8 ." },

	{ RELAY(addresses), .name = "address", .type = KEY_HOSTS,
	  .second = offsetof(struct conf, relay.address_count),
	  .shown = "the address the client has connected to",
	  .help = "Addresses of this host for relayed transport addresses,\n"
		  "IPv4 and IPv6, without a port.\n"
		  "Of several of a family the best after RFC 6724 is taken, for\n"
		  "peers of the Internet at large: no deprecated one, one of the\n"
		  "exit that the client comes by, no temporary one; of equal ones\n"
		  "the first, or with exits by their\n"
		  ".Cm weight .\n"
		  "A client that asks for both families gets one address of\n"
		  "each; what is not to be had, ADDRESS-ERROR-CODE names." },
	{ RELAY(port_min), .name = "ports", .type = KEY_PORTS,
	  .second = offsetof(struct conf, relay.port_max), .min = 1,
	  .max = 65535, .preset = "49152-65535",
	  .help = "Ports of relayed transport addresses." },
	{ RELAY(udp), .name = "udp", .type = KEY_BOOL, .preset = "yes",
	  .help = "Whether clients may have UDP allocations; those of TCP they\n"
		  "may have always." },
	{ RELAY(old_channels), .name = "old_channels", .type = KEY_BOOL,
	  .preset = "yes",
	  .help = "Whether channel numbers go up to 0x7FFF, as in RFC 5766, and\n"
		  "not only to 0x4FFF, as in RFC 8656." },
	{ RELAY(mobility), .name = "mobility", .type = KEY_BOOL, .preset = "no",
	  .help = "Whether a client that asks for it when it allocates may move\n"
		  "to another address, or another connection, and keep the\n"
		  "allocation (RFC 8016).\n"
		  "It shows a ticket, good for once, beside its credentials.\n"
		  "Such an allocation outlives its control connection, to the end\n"
		  "of its lifetime.\n"
		  "Otherwise, and over DTLS, such requests get 405 (Mobility\n"
		  "Forbidden).\n"
		  "Unless\n"
		  ".Cm mixed_transports\n"
		  "allows it, nobody moves from TLS to plain connections or back." },

	{ REALM(quota.allocations), .name = "allocations", .type = KEY_COUNT,
	  .max = 10000000, .preset = "0",
	  .help = "Allocations of all users of this realm; 0 means no limit.\n"
		  "A request beyond this or another quota of the realm or of\n"
		  "the user gets a 486 (Allocation Quota Reached)." },
	{ REALM(quota.connections), .name = "connections", .type = KEY_COUNT,
	  .max = 10000000, .preset = "0",
	  .help = "Peer connections of all users of this realm; 0 means no\n"
		  "limit.\n"
		  "Beyond it a Connect gets a 486, and a connection from a\n"
		  "peer is closed." },
	{ REALM(quota.bandwidth), .name = "bandwidth", .type = KEY_RATE,
	  .flags = KEY_ZERO, .min = RATE_MIN, .max = RATE_MAX, .preset = "0",
	  .help = "Bits of payload a second, each way, that all connections and\n"
		  "datagrams of this realm's users may bring together; 0 means\n"
		  "no limit.\n"
		  "Connections are slowed down, of datagrams those beyond it are\n"
		  "dropped.\n"
		  "With this or another\n"
		  ".Cm bandwidth\n"
		  "connections do not go on wire or sockmap; one that is there\n"
		  "when a reload brings the first limit stays without." },
	{ REALM(per_user.allocations), .name = "allocations_per_user",
	  .type = KEY_COUNT, .max = 10000000, .preset = "0",
	  .shown = "as in [limits]",
	  .help = "Allocations of each user of this realm; 0 means no limit." },
	{ REALM(per_user.connections), .name = "connections_per_user",
	  .type = KEY_COUNT, .max = 10000000, .preset = "0",
	  .shown = "as in [limits]",
	  .help = "Peer connections of each user of this realm; 0 means no\n"
		  "limit." },
	{ REALM(per_user.bandwidth), .name = "bandwidth_per_user",
	  .type = KEY_RATE, .flags = KEY_ZERO, .min = RATE_MIN, .max = RATE_MAX,
	  .preset = "0", .shown = "as in [limits]",
	  .help = "The same of each user of this realm." },
	{ REALM(per_user.allocation_bandwidth),
	  .name = "bandwidth_per_allocation", .type = KEY_RATE,
	  .flags = KEY_ZERO, .min = RATE_MIN, .max = RATE_MAX, .preset = "0",
	  .shown = "as in [limits]",
	  .help = "The same of each allocation in this realm." },
	{ REALM(secrets), .name = "secret", .type = KEY_SECRETS,
	  .flags = KEY_REPEAT,
	  .second = offsetof(struct conf_realm, secret_count), .min = 1,
	  .max = 900, .shown = "none",
	  .help = "A secret shared with a service that hands out time-limited\n"
		  "credentials, as WebRTC services do; see\n"
		  ".Sx TIME-LIMITED CREDENTIALS .\n"
		  "Up to 4, so that a new one can be brought in before the old\n"
		  "one goes.\n"
		  "With it the realm has no\n"
		  ".Ic [user]\n"
		  "sections.\n"
		  "Written as a password." },
	{ REALM(oauth), .name = "oauth", .type = KEY_TEXT, .min = 1, .max = 255,
	  .shown = "none",
	  .help = "The name of this server for authorization servers, told to\n"
		  "clients in THIRD-PARTY-AUTHORIZATION; with it the realm\n"
		  "takes access tokens (RFC 7635) beside its users; see\n"
		  ".Sx ACCESS TOKENS ." },
	{ REALM(oauth_keys), .name = "oauth_key", .type = KEY_SECRETS,
	  .flags = KEY_REPEAT,
	  .second = offsetof(struct conf_realm, oauth_key_count), .min = 34,
	  .max = 97, .shown = "none",
	  .help = "A key shared with an authorization server:\n"
		  ".Ar id : Ns Ar key ,\n"
		  "the key in hexadecimal, 32 digits for A128GCM or 64 for\n"
		  "A256GCM.\n"
		  "Up to 4, so that a new one can be brought in before the old\n"
		  "one goes." },
	{ REALM(oauth_skew_ms), .name = "oauth_skew", .type = KEY_DURATION,
	  .max = 10 * MINUTE, .preset = "5s",
	  .help = "By how much the clock of an authorization server may differ\n"
		  "from this one's." },
	{ REALM(engines.order), .name = "engine", .type = KEY_ENGINES,
	  .second = offsetof(struct conf_realm, engines.count),
	  .shown = "as in [engine]",
	  .help = "Engines for connections of this realm, in order of\n"
		  "preference.\n"
		  "With\n"
		  ".Cm wire\n"
		  "among them every connection that can goes on wire, whatever\n"
		  ".Ic [engine]\n"
		  ".Cm wire\n"
		  "says, unless that is\n"
		  ".Cm never ;\n"
		  "without it none does.\n"
		  "When none of them takes a connection, those of\n"
		  ".Ic [engine]\n"
		  ".Cm order\n"
		  "other than wire are tried." },
	{ REALM(rules.allow), .name = "allow", .type = KEY_RULES,
	  .flags = KEY_REPEAT,
	  .second = offsetof(struct conf_realm, rules.allow_count),
	  .preset = "",
	  .help = "Peers that users of this realm may reach whatever\n"
		  ".Ic [peers]\n"
		  "says; see there." },
	{ REALM(rules.deny), .name = "deny", .type = KEY_RULES,
	  .flags = KEY_REPEAT,
	  .second = offsetof(struct conf_realm, rules.deny_count), .preset = "",
	  .help = "Peers that users of this realm may not reach." },

	{ USER(realm), .name = "realm", .type = KEY_TEXT, .flags = KEY_OPAQUE,
	  .min = 1, .max = CONF_NAME_MAX - 1, .shown = "the first realm",
	  .help = "The realm the user belongs to." },
	{ USER(password), .name = "password", .type = KEY_SECRET,
	  .flags = KEY_OPAQUE, .min = 1, .max = 900, .shown = "none",
	  .help = "The password.\n"
		  "One that begins or ends with a space, begins with a\n"
		  "quotation mark, or has a semicolon after a space must be\n"
		  "put in double quotes; see\n"
		  ".Sx FORMAT ." },
	{ USER(ha1), .name = "ha1", .type = KEY_HA1, .flags = KEY_REPEAT,
	  .shown = "none",
	  .help = "Instead of the password: the MD5 or the SHA-256 digest of\n"
		  ".Ar name : Ns Ar realm : Ns Ar password\n"
		  "in hexadecimal, or both, each on its line.\n"
		  "It is worth as much as the password to a thief.\n"
		  "Clients of RFC 5389 need the MD5 form.\n"
		  "Those of RFC 8489 take the strongest that is offered to all\n"
		  "users of the realm, so a single user with the MD5 form alone\n"
		  "keeps the whole realm on MD5; another one with the SHA-256 form\n"
		  "alone could then not log in, and the file is refused." },
	{ USER(name), .name = "name", .type = KEY_TEXT, .flags = KEY_OPAQUE,
	  .min = 1, .max = USERNAME_BYTES, .shown = "the section's name",
	  .help = "The TURN user name when it differs from the section's\n"
		  "name, as for one user name in two realms." },
	{ USER(quota.allocations), .name = "allocations", .type = KEY_COUNT,
	  .max = 10000000, .preset = "0",
	  .shown = "allocations_per_user of the realm",
	  .help = "Allocations of this user; 0 means no limit." },
	{ USER(quota.connections), .name = "connections", .type = KEY_COUNT,
	  .max = 10000000, .preset = "0",
	  .shown = "connections_per_user of the realm",
	  .help = "Peer connections of this user; 0 means no limit." },
	{ USER(quota.bandwidth), .name = "bandwidth", .type = KEY_RATE,
	  .flags = KEY_ZERO, .min = RATE_MIN, .max = RATE_MAX, .preset = "0",
	  .shown = "bandwidth_per_user of the realm",
	  .help = "Bits of payload a second, each way, of this user; see\n"
		  ".Cm bandwidth\n"
		  "of a realm." },
	{ USER(quota.allocation_bandwidth), .name = "bandwidth_per_allocation",
	  .type = KEY_RATE, .flags = KEY_ZERO, .min = RATE_MIN, .max = RATE_MAX,
	  .preset = "0", .shown = "as in the user's realm",
	  .help = "The same of each of this user's allocations." },
	{ USER(engines.order), .name = "engine", .type = KEY_ENGINES,
	  .second = offsetof(struct conf_user, engines.count),
	  .shown = "as in the user's realm",
	  .help = "Engines for connections of this user, as\n"
		  ".Cm engine\n"
		  "of a realm." },
	{ USER(rules.allow), .name = "allow", .type = KEY_RULES,
	  .flags = KEY_REPEAT,
	  .second = offsetof(struct conf_user, rules.allow_count), .preset = "",
	  .help = "Peers that this user may reach whatever the realm and\n"
		  ".Ic [peers]\n"
		  "say; see there." },
	{ USER(rules.deny), .name = "deny", .type = KEY_RULES,
	  .flags = KEY_REPEAT,
	  .second = offsetof(struct conf_user, rules.deny_count), .preset = "",
	  .help = "Peers that this user may not reach." },

	{ EXIT(link), .name = "link", .type = KEY_DEVICE, .shown = "none",
	  .help = "The network device that leads to the provider.\n"
		  "One that is not there draws a warning, and is taken when it\n"
		  "comes.\n"
		  "With it, packets from the prefixes of this exit leave by this\n"
		  "link, and no others do.\n"
		  "The first one of a configuration needs a restart." },
	{ EXIT(next_hops), .name = "next_hop", .type = KEY_HOSTS,
	  .second = offsetof(struct conf_exit, next_hop_count),
	  .shown = "none: the link has two ends",
	  .help = "The provider's router on the link, one address of each\n"
		  "family.\n"
		  "Without a\n"
		  ".Cm link\n"
		  "it is another exit router on a link of this site, to which\n"
		  "packets from the prefixes of this exit are handed." },
	{ EXIT(prefixes), .name = "prefix", .type = KEY_PREFIXES,
	  .flags = KEY_REPEAT,
	  .second = offsetof(struct conf_exit, prefix_count), .preset = "",
	  .help = "The provider's own: source addresses that it lets pass and\n"
		  "whose answers come by it.\n"
		  "One prefix belongs to one exit; it may lie within that of\n"
		  "another: the longest counts, and the other one lets it pass,\n"
		  "too." },
	{ EXIT(authorised), .name = "authorised", .type = KEY_PREFIXES,
	  .flags = KEY_REPEAT,
	  .second = offsetof(struct conf_exit, authorised_count), .preset = "",
	  .help = "Other source addresses that the provider lets pass, since it\n"
		  "has been told of them: prefixes of other exits, which leave\n"
		  "here while there is no way by their own, or of none, as those\n"
		  "of the site itself, which it announces to each provider.\n"
		  "Any number of exits may have the same one.\n"
		  "Of those that may be taken the one with the greatest\n"
		  ".Cm weight\n"
		  "is, of equal ones the first in the file." },
	{ EXIT(unchecked), .name = "unchecked", .type = KEY_BOOL,
	  .preset = "no",
	  .help = "Whether the provider lets any source address pass: then this\n"
		  "exit is authorised for the prefixes of all others.\n"
		  "Without it at least one\n"
		  ".Cm prefix\n"
		  "or\n"
		  ".Cm authorised\n"
		  "must be given." },
	{ EXIT(anycast), .name = "anycast", .type = KEY_HOSTS,
	  .second = offsetof(struct conf_exit, anycast_count),
	  .shown = "for IPv6 made of prefix and anycast_suffix, for IPv4 none",
	  .help = "The address under which other exit routers of the site\n"
		  "know who serves this exit, one of each family." },
	{ EXIT(anycast_suffix), .name = "anycast_suffix", .type = KEY_SUFFIX,
	  .preset = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
	  .help = "What stands behind the bits of a\n"
		  ".Cm prefix\n"
		  "of IPv6 in its anycast address." },
	{ EXIT(health), .name = "health", .type = KEY_WORD,
	  .words = health_names, .preset = "link",
	  .help = "What says whether packets can leave by this exit.\n"
		  "With link it is the device, or the network that has the\n"
		  ".Cm next_hop .\n"
		  "With anycast it is, for an exit of another router, a host route\n"
		  "to the exit's anycast address as well, from whatever routing\n"
		  "protocol the site has: when it goes, or becomes unreachable,\n"
		  "packets from the prefixes that it stands for are refused at\n"
		  "once.\n"
		  "An exit with a\n"
		  ".Cm link\n"
		  "has that route for others to learn while the link is up.\n"
		  "Prefixes without an anycast address go by the link.\n"
		  "With probe the router of an exit that is reached by a tunnel is\n"
		  "asked (an echo request of ICMPv6 to the anycast address of the\n"
		  "first prefix of IPv6, with a secret in it), for where no routing\n"
		  "protocol notices that it has stopped: one that is silent takes\n"
		  "its exit away.\n"
		  "Here and there an exit with a\n"
		  ".Cm link\n"
		  "is as with link." },
	{ EXIT(probe_interval_ms), .name = "probe_interval",
	  .type = KEY_DURATION, .min = 100, .max = 60000, .preset = "300ms",
	  .help = "How often it is asked." },
	{ EXIT(probe_losses), .name = "probe_losses", .type = KEY_COUNT,
	  .min = 1, .max = 100, .preset = "3",
	  .help = "So many requests in a row without an answer within an interval\n"
		  "take the exit away." },
	{ EXIT(tunnel_peers), .name = "tunnel_peer", .type = KEY_HOSTS,
	  .second = offsetof(struct conf_exit, tunnel_peer_count),
	  .shown = "none",
	  .help = "Exit routers of this site that have this exit, IPv6.\n"
		  "With neither\n"
		  ".Cm link\n"
		  "nor\n"
		  ".Cm next_hop\n"
		  "packets from the prefixes of this exit are tunnelled to its\n"
		  "anycast address of IPv6.\n"
		  "With a\n"
		  ".Cm link\n"
		  "others may tunnel to us.\n"
		  "Packets are taken out of tunnels from the peers of any exit,\n"
		  "and from nobody else; one that is an address of this host is\n"
		  "the source of its own tunnelled packets." },
	{ EXIT(tunnel), .name = "tunnel", .type = KEY_WORD,
	  .words = tunnel_names, .preset = "vxlan-gpe",
	  .help = "What packets are tunnelled in, the same at both ends and in all\n"
		  "exits of a file: vxlan-gpe (UDP port 4790) or ip6tnl (IPv6 and\n"
		  "IPv4 in IPv6 and nothing between, RFC 2473, for routers that\n"
		  "know that alone and for 16 bytes more in each packet).\n"
		  "The kernel takes ip6tnl for addresses of a device alone: then\n"
		  "that of tunnels has the anycast addresses.\n"
		  "Other tunnels of either kind do not pass the link of an exit." },
	{ EXIT(discovery_hosts), .name = "discovery_host", .type = KEY_PREFIXES,
	  .flags = KEY_REPEAT,
	  .second = offsetof(struct conf_exit, discovery_host_count),
	  .preset = "",
	  .help = "Hosts of this site, IPv6, that learn which exit router to\n"
		  "tunnel to by themselves: they are told so, by the ICMPv6 code\n"
		  ".Dq source address failed ingress policy ,\n"
		  "while what they send is tunnelled all the same, at most once a\n"
		  "second for two addresses and 100 times in all, and may tunnel\n"
		  "to the exits with a\n"
		  ".Cm link\n"
		  "here.\n"
		  "Hosts that are told and do not know what it means take the\n"
		  "connection for refused, Linux among them; ::/0 tells all, as\n"
		  "the draft has it." },
	{ EXIT(discover), .name = "discover", .type = KEY_BOOL, .preset = "no",
	  .help = "Whether this host learns from exit routers which of its own\n"
		  "packets from the prefixes of this exit to tunnel to the anycast\n"
		  "address (IPv6; see\n"
		  ".Cm discovery_host\n"
		  "there)." },
	{ EXIT(discover_entries), .name = "discover_entries", .type = KEY_COUNT,
	  .min = 1, .max = 65536, .preset = "1024",
	  .help = "Pairs of addresses that are remembered at most; the oldest\n"
		  "goes." },
	{ EXIT(discover_time_ms), .name = "discover_time", .type = KEY_DURATION,
	  .min = 1000, .max = 24 * HOUR, .preset = "10m",
	  .help = "How long each of them is remembered." },
	{ EXIT(weight), .name = "weight", .type = KEY_COUNT, .max = 1000,
	  .preset = "1",
	  .help = "With several\n"
		  ".Ic [relay]\n"
		  ".Cm address\n"
		  "of a family: this exit's share of new allocations, relative to\n"
		  "the others', of clients that come by none of these exits; those\n"
		  "of the others stay with the exit they come by.\n"
		  "With 0 it is the last resort.\n"
		  "It also orders the exits that are\n"
		  ".Cm authorised\n"
		  "for a source; those of the same weight stand by name." },
	{ EXIT(engines.order), .name = "engine", .type = KEY_ENGINES,
	  .second = offsetof(struct conf_exit, engines.count),
	  .shown = "as in [engine]",
	  .help = "Engines for connections of this exit, as\n"
		  ".Cm engine\n"
		  "of a realm.\n"
		  "Those of the user come first, then those of the realm, then\n"
		  "these." },

	{ ALTERNATE(addresses), .name = "address", .type = KEY_ENDPOINTS,
	  .second = offsetof(struct conf_alternate, address_count),
	  .preset = "",
	  .help = "Where it listens, one address of a family at most." },
	{ ALTERNATE(transport), .name = "transport", .type = KEY_WORD,
	  .words = transport_names, .preset = "tcp",
	  .help = "What it speaks there: clients of that transport alone are\n"
		  "sent to it." },
	{ ALTERNATE(domain), .name = "domain", .type = KEY_TEXT, .min = 1,
	  .max = 255, .shown = "none",
	  .help = "The name that its certificate is for, told to clients of\n"
		  "TLS as ALTERNATE-DOMAIN.\n"
		  "Without it they expect the name they know this server by." },
	{ ALTERNATE(weight), .name = "weight", .type = KEY_COUNT, .min = 1,
	  .max = 100, .preset = "1",
	  .help = "Its share of the clients, beside those of the others." },

	{ DATABASE(url), .name = "url", .type = KEY_SECRET, .min = 1,
	  .max = 900, .preset = "sqlite:/var/lib/culvert/users.db",
	  .shown = "sqlite:/var/lib/culvert/users.db",
	  .help = "The database:\n"
		  ".Cm sqlite: Ns Ar path\n"
		  "of a file on a local disk, which need not exist;\n"
		  ".Cm postgresql:// Ns Ar user : Ns Ar password Ns @ Ns Ar host Ns / Ns Ar database ,\n"
		  "as libpq takes it;\n"
		  ".Cm redis:// Ns Ar user : Ns Ar password Ns @ Ns Ar host : Ns Ar port Ns / Ns Ar number\n"
		  "or\n"
		  ".Cm redis+unix:// Ns Ar user : Ns Ar password Ns @ Ns Ar /path Ns ?db= Ns Ar number ;\n"
		  "or\n"
		  ".Cm none .\n"
		  "A change needs a restart, for the relay may read nothing else.\n"
		  "It may hold a password, so it is never shown." },
	{ DATABASE(timeout_ms), .name = "timeout", .type = KEY_DURATION,
	  .min = 10, .max = MINUTE, .preset = "2s",
	  .help = "How long a request waits for the database before it is\n"
		  "answered with 500." },
	{ DATABASE(waiting), .name = "waiting", .type = KEY_COUNT, .min = 1,
	  .max = 1000000, .preset = "1000",
	  .help = "Requests that may wait for the database at once; one more is\n"
		  "answered with 500, or over UDP not at all, so that it comes\n"
		  "again." },
	{ DATABASE(waiting_per_source), .name = "waiting_per_source",
	  .type = KEY_COUNT, .max = 1000000, .preset = "250",
	  .help = "Those of one IPv4 address, or of the /56 of an IPv6 address;\n"
		  "0 means no limit.\n"
		  "Many users behind one address share its limit." },
	{ DATABASE(cache_users), .name = "cache_users", .type = KEY_COUNT,
	  .min = 1, .max = 10000000, .preset = "10000",
	  .help = "Users of the database that are remembered at most, and as\n"
		  "many names that it does not have; some 300 bytes each." },
	{ DATABASE(cache_ms), .name = "cache", .type = KEY_DURATION,
	  .max = 24 * HOUR, .preset = "1m",
	  .help = "How long a user is remembered.\n"
		  "Who is removed by\n"
		  ".Xr culvertctl 8\n"
		  "is forgotten at once by the daemon of that machine, and by\n"
		  "others after this time." },
	{ DATABASE(cache_absent_ms), .name = "cache_absent",
	  .type = KEY_DURATION, .max = HOUR, .preset = "5s",
	  .help = "How long it is remembered that there is no such user." },

	{ PEERS(rules.allow), .name = "allow", .type = KEY_RULES,
	  .flags = KEY_REPEAT,
	  .second = offsetof(struct conf, peers.rules.allow_count),
	  .preset = "",
	  .help = "Peers that are allowed although they are refused by\n"
		  "default or by\n"
		  ".Cm deny .\n"
		  "A peer is an address or a prefix, with a port or a range of\n"
		  "ports behind a colon or without; an IPv6 one with ports needs\n"
		  "brackets, as in [2001:db8::/32]:443." },
	{ PEERS(rules.deny), .name = "deny", .type = KEY_RULES,
	  .flags = KEY_REPEAT,
	  .second = offsetof(struct conf, peers.rules.deny_count), .preset = "",
	  .help = "More peers to refuse, written alike.\n"
		  "What an IPv6 address is another spelling of is looked up\n"
		  "here, too." },
	{ PEERS(nat64), .name = "nat64", .type = KEY_NAT64, .flags = KEY_REPEAT,
	  .second = offsetof(struct conf, peers.nat64_count), .preset = "",
	  .shown = "none",
	  .help = "Prefixes by which translators near this server turn IPv6\n"
		  "addresses into IPv4 ones (RFC 6052), beside 64:ff9b::/96 and\n"
		  "those within 64:ff9b:1::/48, which are known.\n"
		  "An address below one is refused where the IPv4 address in it\n"
		  "is." },
	{ PEERS(relayed), .name = "relayed", .type = KEY_BOOL, .preset = "yes",
	  .help = "Whether a relayed transport address of this very server\n"
		  "may be a peer even when its address is refused by default." },
	{ PEERS(require_permission), .name = "require_permission",
	  .type = KEY_BOOL, .preset = "no",
	  .help = "Whether Connect requests, too, need a permission for the\n"
		  "peer; RFC 6062 asks for none." },

	{ ENGINE(order), .name = "order", .type = KEY_ENGINES,
	  .second = offsetof(struct conf, engine.order_count),
	  .preset = "wire, splice, uring, copy",
	  .help = "Engines in order of preference; a connection takes the\n"
		  "first that works on this system.\n"
		  "Not every connection can go on\n"
		  ".Cm wire ,\n"
		  "which is always tried first wherever it stands, so one more\n"
		  "must be named.\n"
		  ".Pp\n"
		  ".Cm sockmap\n"
		  "keeps streams whole, with what Linux gets wrong corrected:\n"
		  "it hands on received bytes twice when a duplicate is merged\n"
		  "with new data, which culvert's program cuts off.\n"
		  "It is not in the default because nothing speaks for it:\n"
		  "it takes about twice the processor time of splice for a byte,\n"
		  "and a kernel thread sends, which waits its turn on a busy\n"
		  "machine." },
	{ ENGINE(pipe_size), .name = "pipe_size", .type = KEY_SIZE,
	  .flags = KEY_POWER, .min = 4 * KIB, .max = 64 * MIB, .preset = "1M",
	  .help = "Size of a pipe of the splice and uring engines, rounded\n"
		  "up to a power of two.\n"
		  "Without privilege the kernel allows no more than\n"
		  ".Pa /proc/sys/fs/pipe-max-size ." },
	{ ENGINE(pipes), .name = "pipes", .type = KEY_COUNT, .min = 1,
	  .max = 1000000, .preset = "256",
	  .help = "Pipes one worker may hold." },
	{ ENGINE(copy_buffer), .name = "copy_buffer", .type = KEY_SIZE,
	  .min = 4 * KIB, .max = 16 * MIB, .preset = "256K",
	  .help = "Size of a buffer of the copy engine." },
	{ ENGINE(receive_buffer), .name = "receive_buffer", .type = KEY_SIZE,
	  .max = 512 * MIB, .preset = "6M",
	  .help = "Kernel memory that what one sender of bulk data sent ahead\n"
		  "of a slow reader may fill.\n"
		  "It takes effect where the kernel would allow more, by the\n"
		  "third number of\n"
		  ".Pa /proc/sys/net/ipv4/tcp_rmem ,\n"
		  "and where half of it is within\n"
		  ".Pa /proc/sys/net/core/rmem_max .\n"
		  "With 0 the kernel's own limit holds.\n"
		  "A sender nearer than half a millisecond may fill less, down to\n"
		  "1M: what is read from a short queue is still in the cache.\n"
		  "A long and fast path may need more: half of it is about what\n"
		  "can be under way at a time." },
	{ ENGINE(wire), .name = "wire", .type = KEY_WORD, .words = wire_names,
	  .preset = "auto",
	  .help = "Which connections go on wire, when\n"
		  ".Cm order\n"
		  "names it.\n"
		  "With\n"
		  ".Cm auto\n"
		  "those on whose paths it pays, as measured when they are\n"
		  "bound: see\n"
		  ".Cm wire_max_rtt ,\n"
		  ".Cm wire_max_growth\n"
		  "and\n"
		  ".Cm wire_max_loss .\n"
		  "With\n"
		  ".Cm always\n"
		  "all that can; with\n"
		  ".Cm never\n"
		  "none, and nothing is loaded into the kernel." },
	{ ENGINE(wire_pairs), .name = "wire_pairs", .type = KEY_COUNT,
	  .min = 16, .max = 1000000, .preset = "32768",
	  .help = "Connections that may be on wire at once.\n"
		  "Each place takes about 420 bytes of kernel memory, and 96 of\n"
		  "the broker's, used or not; a connection on it takes some 800\n"
		  "more while it is there.\n"
		  "A change takes effect when the daemon is started again, and\n"
		  "ends connections left by one with another number." },
	{ ENGINE(wire_datagrams), .name = "wire_datagrams", .type = KEY_BOOL,
	  .preset = "yes",
	  .help = "Whether channels of UDP allocations go on wire, when\n"
		  ".Cm order\n"
		  "names it and\n"
		  ".Cm wire\n"
		  "is not\n"
		  ".Cm never :\n"
		  "the ChannelData of a client that speaks UDP, and what its\n"
		  "peer sends, are then relayed by the kernel, before the\n"
		  "firewall: see\n"
		  ".Xr culvertd 8 ,\n"
		  "\"Firewalls and wire\".\n"
		  "Where they do not, and for other clients, the daemon takes\n"
		  "what one sender sends at once as one piece (UDP_GRO)." },
	{ ENGINE(wire_channels), .name = "wire_channels", .type = KEY_COUNT,
	  .max = 1000000, .preset = "8192",
	  .help = "Channels that may be on wire at once; what exceeds them is\n"
		  "relayed by the daemon.\n"
		  "Each place takes 144 bytes of kernel memory, and 96 of the\n"
		  "broker's, used or not; one in use about 300 more, and two of\n"
		  "the broker's descriptors.\n"
		  "With 0 there are none.\n"
		  "A change takes effect when the daemon is started again." },
	{ ENGINE(wire_devices), .name = "wire_devices", .type = KEY_DEVICES,
	  .second = offsetof(struct conf, engine.wire_device_count),
	  .preset = "",
	  .shown = "every Ethernet device but ports of a bridge and members "
		   "of a bond",
	  .help = "Network devices whose packets wire may translate.\n"
		  "Both connections of a pair must come and go by one of\n"
		  "them." },
	{ ENGINE(pin), .name = "pin", .type = KEY_PATH,
	  .preset = "/sys/fs/bpf/culvert",
	  .help = "Directory in a BPF file system for what must outlive the\n"
		  "daemon, so that connections on wire go on without it.\n"
		  "Where there is none, one is mounted: elsewhere than below\n"
		  ".Pa /sys/fs/bpf\n"
		  "on the directory itself, which must then be empty." },
	{ ENGINE(wire_max_rtt_ms), .name = "wire_max_rtt", .type = KEY_DURATION,
	  .flags = KEY_ZERO, .min = 1, .max = MINUTE, .preset = "20ms",
	  .help = "With\n"
		  ".Cm wire\n"
		  "set to\n"
		  ".Cm auto :\n"
		  "the longest round trip, of both sides together, of a\n"
		  "connection that goes on wire; 0 means any." },
	{ ENGINE(wire_max_growth_ms), .name = "wire_max_growth",
	  .type = KEY_DURATION, .flags = KEY_ZERO, .min = 1, .max = MINUTE,
	  .preset = "4ms",
	  .help = "With\n"
		  ".Cm wire\n"
		  "set to\n"
		  ".Cm auto :\n"
		  "by how much the round trip that an end has measured may grow\n"
		  "when its connection goes on wire; 0 means by any.\n"
		  "A client's grows by the peer's; that of a peer which has sent\n"
		  "something before the join, by the client's.\n"
		  "Linux's CUBIC takes 4 ms more, or an eighth if that is more,\n"
		  "for a queue, and then needs seconds to fill a fast path." },
	{ ENGINE(wire_max_loss), .name = "wire_max_loss", .type = KEY_PERCENT,
	  .max = 1000000, .preset = "0.1%",
	  .help = "With\n"
		  ".Cm wire\n"
		  "set to\n"
		  ".Cm auto :\n"
		  "the largest share of segments sent again, on either side,\n"
		  "of a connection that goes on wire." },
	{ ENGINE(ktls), .name = "ktls", .type = KEY_BOOL, .preset = "yes",
	  .help = "Whether the kernel may encrypt and decrypt data connections\n"
		  "over TLS, once they are bound, so that splice and uring\n"
		  "carry them.\n"
		  "It needs Linux 6.12.55 or 6.18 with TLS, whose module\n"
		  "(tls) is loaded when culvertd starts as root, and a cipher\n"
		  "it has: AES-GCM or ChaCha20-Poly1305.\n"
		  "Where there is none, and with\n"
		  ".Cm no ,\n"
		  "the copy engine carries them, which calls OpenSSL.\n"
		  "The kernel cannot follow a client that changes its keys\n"
		  "(a key update of TLS 1.3) in the middle of a stream: the\n"
		  "connection ends with a reset.\n"
		  "Some clients do so after more than 100 GB.\n"
		  "Nor can it change its own: of a connection with AES-GCM,\n"
		  "what goes to the client ends before 2^24 records of at most\n"
		  "16 KiB, 256 GiB where they are full (RFC 8446, section 5.5),\n"
		  "with an alert and a reset, reason \"key\", counter\n"
		  ".Cm tls_keys_spent .\n"
		  "OpenSSL, the copy engine's and that of control connections,\n"
		  "follows such clients, and changes its own keys in time, but\n"
		  "for TLS 1.2, which has no key update: after as much such a\n"
		  "connection ends, too, without an alert.\n"
		  "Whoever sends more over one connection should let clients\n"
		  "use ChaCha20-Poly1305, which has no such limit." },

	{ LIMITS(connections), .name = "connections", .type = KEY_COUNT,
	  .max = 10000000, .preset = "0",
	  .help = "Client and peer connections in all; 0 derives it from the\n"
		  "limit of descriptors (RLIMIT_NOFILE)." },
	{ LIMITS(unauthenticated), .name = "unauthenticated", .type = KEY_COUNT,
	  .min = 1, .max = 10000000, .preset = "1024",
	  .help = "Client connections that have not authenticated yet, in\n"
		  "all." },
	{ LIMITS(unauthenticated_timeout_ms), .name = "unauthenticated_timeout",
	  .type = KEY_DURATION, .min = 100, .max = HOUR, .preset = "15s",
	  .help = "Time a client connection has to authenticate." },
	{ LIMITS(handshakes), .name = "handshakes", .type = KEY_COUNT, .min = 1,
	  .max = 10000000, .preset = "256",
	  .help = "Client connections whose TLS or DTLS handshake is not\n"
		  "complete, in all; they count as not authenticated, too.\n"
		  "Of a DTLS client nothing is kept before it has proven its\n"
		  "address." },
	{ LIMITS(handshakes_per_source), .name = "handshakes_per_source",
	  .type = KEY_COUNT, .max = 10000000, .preset = "64",
	  .help = "Those of one IPv4 address, or of the /56 of an IPv6 address;\n"
		  "0 means no limit.\n"
		  "Many users behind one address share its limit." },
	{ LIMITS(handshake_timeout_ms), .name = "handshake_timeout",
	  .type = KEY_DURATION, .min = 100, .max = HOUR, .preset = "5s",
	  .help = "Time a client connection has for its TLS or DTLS handshake." },
	{ LIMITS(auth_failures), .name = "auth_failures", .type = KEY_COUNT,
	  .max = 60000, .preset = "600",
	  .help = "Requests with wrong credentials that an IPv4 address, or the\n"
		  "/56 of an IPv6 address, may make in a minute; 0 means no\n"
		  "limit.\n"
		  "Beyond it no credentials from there are looked at for a\n"
		  "while, connections that come with some are closed, and the\n"
		  "log says so once; who has an allocation goes on with it.\n"
		  "ConnectionBind and datagrams are counted apart, each with\n"
		  "this limit.\n"
		  "Many users behind one address share its limit." },
	{ LIMITS(bind_failures), .name = "bind_failures", .type = KEY_COUNT,
	  .max = 60000, .preset = "600",
	  .help = "ConnectionBinds with right credentials and a CONNECTION-ID\n"
		  "that is nobody's or another's, which an IPv4 address, or the\n"
		  "/56 of an IPv6 address, may make in a minute; 0 means no\n"
		  "limit.\n"
		  "Beyond it connections that come from there with a\n"
		  "ConnectionBind are closed for a while, and the log says so\n"
		  "once; what is bound goes on.\n"
		  "Many users behind one address share its limit." },
	{ LIMITS(reflection), .name = "reflection", .type = KEY_SIZE,
	  .flags = KEY_ZERO, .min = 256, .max = 1024 * MIB, .preset = "16K",
	  .help = "Bytes a second by which answers to an IPv4 /24 or an IPv6\n"
		  "/48 may exceed the UDP requests without credentials that came\n"
		  "in its name, four seconds' worth at once; 0 means no limit.\n"
		  "Beyond it such requests from there are answered only if the\n"
		  "answer is no longer, and the log says so: whoever forges\n"
		  "source addresses gains nothing.\n"
		  "A Binding costs 12 bytes (IPv6: 24), with an\n"
		  ".Cm alternate\n"
		  "48 (96), asking for an allocation some 120.\n"
		  "Clients with an allocation are not concerned." },
	{ LIMITS(reflection_total), .name = "reflection_total",
	  .type = KEY_SIZE, .flags = KEY_ZERO, .min = 256, .max = 1024 * MIB,
	  .preset = "1M",
	  .help = "The same for all networks together, for whoever forges\n"
		  "addresses of many; 0, or a\n"
		  ".Cm reflection\n"
		  "of 0, means no limit.\n"
		  "Beyond it no more bytes go to clients without credentials than\n"
		  "come from them: of the requests whose answer would be longer\n"
		  "one in some is answered, and clients repeat theirs.\n"
		  "Set it to 12 bytes for each Binding a second, and 120 for each\n"
		  "new client, that the server is to answer." },
	{ LIMITS(allocations), .name = "allocations", .type = KEY_COUNT,
	  .max = 10000000, .preset = "0",
	  .help = "Allocations in all; 0 means no limit but descriptors." },
	{ LIMITS(per_user.bandwidth), .name = "bandwidth_per_user",
	  .type = KEY_RATE, .flags = KEY_ZERO, .min = RATE_MIN, .max = RATE_MAX,
	  .preset = "0",
	  .help = "Bits of payload a second, each way, of one user; 0 means no\n"
		  "limit.\n"
		  "See\n"
		  ".Cm bandwidth\n"
		  "of a realm." },
	{ LIMITS(per_user.allocation_bandwidth),
	  .name = "bandwidth_per_allocation", .type = KEY_RATE,
	  .flags = KEY_ZERO, .min = RATE_MIN, .max = RATE_MAX, .preset = "0",
	  .help = "The same of one allocation." },
	{ LIMITS(per_user.connections), .name = "connections_per_user",
	  .type = KEY_COUNT, .max = 10000000, .preset = "0",
	  .help = "Peer connections of one user; 0 means no limit." },
	{ LIMITS(per_user.allocations), .name = "allocations_per_user",
	  .type = KEY_COUNT, .max = 10000000, .preset = "1024",
	  .help = "Allocations of one user; 0 means no limit.\n"
		  "One with an address of each family is one." },
	{ LIMITS(permissions_per_allocation),
	  .name = "permissions_per_allocation", .type = KEY_COUNT, .min = 1,
	  .max = 65536, .preset = "256",
	  .help = "Permissions of one allocation, and addresses of one\n"
		  "CreatePermission." },
	{ LIMITS(channels_per_allocation), .name = "channels_per_allocation",
	  .type = KEY_COUNT, .min = 1, .max = 16384, .preset = "256",
	  .help = "Channels of one UDP allocation." },
	{ LIMITS(pending_binds), .name = "pending_binds", .type = KEY_COUNT,
	  .min = 1, .max = 65536, .preset = "128",
	  .help = "Peer connections of one allocation that are being opened\n"
		  "or await ConnectionBind." },
	{ LIMITS(connections_per_allocation),
	  .name = "connections_per_allocation", .type = KEY_COUNT, .min = 1,
	  .max = 1000000, .preset = "16384",
	  .help = "Peer connections of one allocation." },
	{ LIMITS(default_lifetime_ms), .name = "default_lifetime",
	  .type = KEY_DURATION, .min = SECOND, .max = 24 * HOUR,
	  .preset = "10m",
	  .help = "Lifetime of an allocation whose client asks for none, or\n"
		  "for a shorter one." },
	{ LIMITS(max_lifetime_ms), .name = "max_lifetime", .type = KEY_DURATION,
	  .min = SECOND, .max = 24 * HOUR, .preset = "1h",
	  .help = "The longest lifetime a client gets." },
	{ LIMITS(permission_lifetime_ms), .name = "permission_lifetime",
	  .type = KEY_DURATION, .flags = KEY_ADVISED, .min = SECOND,
	  .max = HOUR, .advised = 5 * MINUTE,
	  .why = "clients refresh permissions every 5 minutes (RFC 8656, 9)",
	  .preset = "5m",
	  .help = "Lifetime of a permission; RFC 8656, section 9, has 5\n"
		  "minutes, and less draws a warning." },
	{ LIMITS(channel_lifetime_ms), .name = "channel_lifetime",
	  .type = KEY_DURATION, .flags = KEY_ADVISED, .min = SECOND,
	  .max = HOUR, .advised = 10 * MINUTE,
	  .why = "clients refresh channels every 10 minutes (RFC 8656, 12)",
	  .preset = "10m",
	  .help = "Lifetime of a channel's binding; RFC 8656, section 12, has\n"
		  "10 minutes, and less draws a warning." },
	{ LIMITS(bind_timeout_ms), .name = "bind_timeout", .type = KEY_DURATION,
	  .flags = KEY_ADVISED, .min = 100, .max = HOUR, .advised = 30 * SECOND,
	  .why = "clients count on 30 seconds (RFC 6062, 5.2)", .preset = "30s",
	  .help = "Time a client has to bind a peer connection; less than\n"
		  "the 30 seconds of RFC 6062 draws a warning." },
	{ LIMITS(connect_timeout_ms), .name = "connect_timeout",
	  .type = KEY_DURATION, .flags = KEY_ADVISED, .min = 100, .max = HOUR,
	  .advised = 30 * SECOND,
	  .why = "a peer must be given 30 seconds (RFC 6062, 5.2)",
	  .preset = "30s",
	  .help = "Time a peer has to accept a connection; less than the 30\n"
		  "seconds of RFC 6062, section 5.2, draws a warning." },
	{ LIMITS(nonce_lifetime_ms), .name = "nonce_lifetime",
	  .type = KEY_DURATION, .min = SECOND, .max = 24 * HOUR, .preset = "1h",
	  .help = "Time after which clients must take a new nonce." },
	{ LIMITS(send_queue), .name = "send_queue", .type = KEY_SIZE,
	  .min = 4 * KIB, .max = 16 * MIB, .preset = "64K",
	  .help = "Bytes of answers a control connection may leave unread\n"
		  "before it is closed." },
	{ LIMITS(keepalive_ms), .name = "keepalive", .type = KEY_DURATION,
	  .flags = KEY_ZERO, .min = SECOND, .max = 9 * HOUR, .preset = "60s",
	  .help = "Silence on a TCP connection, of client or peer, after\n"
		  "which the kernel checks whether the other side is alive;\n"
		  "0 turns this off." },
	{ LIMITS(idle_timeout_ms), .name = "idle_timeout", .type = KEY_DURATION,
	  .flags = KEY_ZERO, .min = 100, .max = 30 * 24 * HOUR, .preset = "0",
	  .help = "Time without a byte after which a relayed connection is\n"
		  "closed; 0 means never.\n"
		  "Waiting for a turn under a bandwidth limit does not count." },
	{ LIMITS(control_clients), .name = "control_clients", .type = KEY_COUNT,
	  .min = 1, .max = 1024, .preset = "16",
	  .help = "Connections to the control socket at once." },
};

const size_t conf_key_count = sizeof(conf_keys) / sizeof(conf_keys[0]);

const struct key *conf_keys_of(enum section_kind kind, size_t *count)
{
	const struct key *first = NULL;

	*count = 0;
	for (size_t i = 0; i < conf_key_count; i++) {
		if (conf_keys[i].section != kind)
			continue;
		if (!first)
			first = &conf_keys[i];
		++*count;
	}
	return first;
}

void conf_format_size(uint64_t bytes, char out[32])
{
	const char *units[] = { "", "K", "M", "G" };
	unsigned int u = 0;

	while (u < 3 && bytes && bytes % 1024 == 0) {
		bytes /= 1024;
		u++;
	}
	snprintf(out, 32, "%" PRIu64 "%s", bytes, units[u]);
}

void conf_format_duration(uint64_t ms, char out[32])
{
	if (ms % SECOND)
		snprintf(out, 32, "%" PRIu64 "ms", ms);
	else if (!ms || ms % MINUTE)
		snprintf(out, 32, "%" PRIu64 "s", ms / SECOND);
	else if (ms % HOUR)
		snprintf(out, 32, "%" PRIu64 "m", ms / MINUTE);
	else
		snprintf(out, 32, "%" PRIu64 "h", ms / HOUR);
}

void conf_format_rate(uint64_t bits, char out[32])
{
	const char *units[] = { "", "K", "M", "G" };
	unsigned int u = 0;

	while (u < 3 && bits && bits % 1000 == 0) {
		bits /= 1000;
		u++;
	}
	snprintf(out, 32, "%" PRIu64 "%s", bits, units[u]);
}

int conf_word_find(const char *const *words, const char *word)
{
	for (int i = 0; words[i]; i++)
		if (!strcmp(words[i], word))
			return i;
	return -1;
}

static void words_allowed(const char *lead, const char *const *words,
			  const char *before_last, char out[CONF_ALLOWED_MAX])
{
	size_t used = (size_t)snprintf(out, CONF_ALLOWED_MAX, "%s", lead);

	for (size_t i = 0; words[i]; i++)
		used += (size_t)snprintf(out + used, CONF_ALLOWED_MAX - used,
					 "%s%s",
					 !i           ? "" :
					 words[i + 1] ? ", " :
							before_last,
					 words[i]);
}

static const char *number_format(const struct key *key, uint64_t value,
				 char out[32])
{
	if (key->type == KEY_SIZE)
		conf_format_size(value, out);
	else if (key->type == KEY_DURATION)
		conf_format_duration(value, out);
	else if (key->type == KEY_RATE)
		conf_format_rate(value, out);
	else
		snprintf(out, 32, "%" PRIu64, value);
	return out;
}

static void number_allowed(const struct key *key, const char *what,
			   char out[CONF_ALLOWED_MAX])
{
	char min[32], max[32];

	snprintf(out, CONF_ALLOWED_MAX, "%s, %s%s to %s", what,
		 key->flags & KEY_ZERO ? "0 or " : "",
		 number_format(key, key->min, min),
		 number_format(key, key->max, max));
}

/* Of types whose values are written in one way. */
static const char *const allowed_texts[] = {
	[KEY_BOOL] = "yes or no",
	[KEY_PATH] = "an absolute path of at most 107 bytes",
	[KEY_HA1] = "32 hexadecimal digits (MD5), 64 (SHA-256)",
	[KEY_LISTEN] = "a list of up to 64 addresses such as 192.0.2.1, "
		       "192.0.2.1:3478 or [2001:db8::1]:3478",
	[KEY_ENDPOINTS] = "a list of up to 64 addresses with a port, such as "
			  "192.0.2.1:3478 or [2001:db8::1]:3478",
	[KEY_HOSTS] = "a list of up to 64 different addresses without a port, "
		      "such as 192.0.2.1 or 2001:db8::1",
	[KEY_PREFIXES] = "a list of up to 32768 addresses and prefixes such as "
			 "192.0.2.1, 192.0.2.0/24 or 2001:db8::/32",
	[KEY_RULES] =
		"a list of up to 32768 addresses and prefixes, with ports or "
		"without, such as 192.0.2.1, 192.0.2.0/24:80-90 or "
		"[2001:db8::/32]:443",
	[KEY_NAT64] = "a list of IPv6 prefixes of 32, 40, 48, 56, 64 or 96 "
		      "bits",
	[KEY_PORTS] = "a port or a range LOWEST-HIGHEST within 1 to 65535",
	[KEY_DEVICES] = "a list of up to 32 different device names of 1 to 15 "
			"bytes",
	[KEY_DEVICE] = "a device name of 1 to 15 bytes",
	[KEY_SUFFIX] = "an IPv6 address such as ::ffff:ffff:ffff:ffff",
	[KEY_FILES] = "a list of up to 16 absolute paths of at most 255 bytes",
	[KEY_PERCENT] = "a share of 0% to 100% with up to 4 decimals",
};

void conf_key_allowed(const struct key *key, char out[CONF_ALLOWED_MAX])
{
	switch (key->type) {
	case KEY_COUNT:
		number_allowed(key, "a whole number", out);
		return;
	case KEY_SIZE:
		number_allowed(key, "a size in bytes, or with K, M or G", out);
		return;
	case KEY_DURATION:
		number_allowed(key, "a time in seconds, or with ms, s, m or h",
			       out);
		return;
	case KEY_RATE:
		number_allowed(key, "bits a second, alone or with K, M or G",
			       out);
		return;
	case KEY_TEXT:
	case KEY_SECRET:
	case KEY_SECRETS:
		snprintf(out, CONF_ALLOWED_MAX,
			 "text of %" PRIu64 " to %" PRIu64 " bytes%s%s",
			 key->min, key->max,
			 key->flags & KEY_OPAQUE ? " of " : "",
			 key->flags & KEY_OPAQUE ? OPAQUE_ALLOWED : "");
		return;
	case KEY_WORD:
		words_allowed("", key->words, " or ", out);
		return;
	case KEY_ENGINES:
		words_allowed("a list of different engines: ",
			      conf_engine_names, ", ", out);
		return;
	case KEY_BOOL:
	case KEY_PATH:
	case KEY_HA1:
	case KEY_LISTEN:
	case KEY_ENDPOINTS:
	case KEY_HOSTS:
	case KEY_PREFIXES:
	case KEY_RULES:
	case KEY_NAT64:
	case KEY_PORTS:
	case KEY_DEVICES:
	case KEY_DEVICE:
	case KEY_SUFFIX:
	case KEY_FILES:
	case KEY_PERCENT:
		break;
	}
	snprintf(out, CONF_ALLOWED_MAX, "%s", allowed_texts[key->type]);
}

#define NEAREST_BYTES 48

/* Levenshtein distance; both are shorter than NEAREST_BYTES. */
static size_t edit_distance(const char *a, const char *b)
{
	size_t row[NEAREST_BYTES + 1], blen = strlen(b);

	for (size_t j = 0; j <= blen; j++)
		row[j] = j;
	for (size_t i = 1; a[i - 1]; i++) {
		size_t diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= blen; j++) {
			size_t best = diagonal + (a[i - 1] != b[j - 1]);

			diagonal = row[j];
			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			row[j] = best;
		}
	}
	return row[blen];
}

/* A guess is worth telling when fewer than half of its letters changed. */
static void nearest_try(const char *candidate, const char *name,
			const char **best, size_t *best_distance)
{
	size_t distance;

	if (strlen(name) >= NEAREST_BYTES)
		return;
	distance = edit_distance(name, candidate);
	if (distance * 2 < strlen(candidate) && distance < *best_distance) {
		*best = candidate;
		*best_distance = distance;
	}
}

const char *conf_nearest_key(enum section_kind kind, const char *name)
{
	size_t count, distance = NEAREST_BYTES;
	const struct key *keys = conf_keys_of(kind, &count);
	const char *best = NULL;

	for (size_t i = 0; i < count; i++)
		nearest_try(keys[i].name, name, &best, &distance);
	return best;
}

const char *conf_nearest_section(const char *name)
{
	size_t distance = NEAREST_BYTES;
	const char *best = NULL;

	for (size_t i = 0; i < SECTION_COUNT; i++)
		nearest_try(conf_sections[i].name, name, &best, &distance);
	return best;
}
