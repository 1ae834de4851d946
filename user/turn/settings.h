/* SPDX-License-Identifier: BSD-2-Clause */
/* One configuration as the request handlers read it. */
#ifndef TURN_SETTINGS_H
#define TURN_SETTINGS_H

#include "auth/auth.h"
#include "base/table.h"
#include "conf/conf.h"
#include "turn/turn.h"

struct turn_settings {
	_Atomic unsigned int refs;
	struct conf *conf;
	struct auth *auth;
	struct store *store; /* the user database; NULL: none */
	struct tls_server **tls; /* of each listener; NULL: not sealed */
	struct table owners; /* what the file says of users and realms */
};

/* What the file says of a user and of the realm; NULL: nothing. */
struct turn_access {
	const struct conf_user *user;
	const struct conf_realm *realm;
};

/* Good as long as the settings are. */
struct turn_access turn_settings_access(const struct turn_settings *settings,
					const struct auth_account *account);

/* The engines for a connection, and whose they are. */
struct turn_pin {
	const struct conf_engines *engines; /* NULL: those of [engine] */
	enum wire_reason why; /* it is not on wire, if they do not have that */
};

/*
 * Those of the user; if none, of the realm; if none, of the exit that the relayed
 * address leaves by.
 */
struct turn_pin turn_settings_pin(const struct turn_settings *settings,
				  const struct turn_access *access,
				  const union addr *relayed);

/* The realm that a [listener] offers; never NULL. The name may be gone. */
const char *turn_settings_realm(const struct turn_settings *settings,
				const char *listener);
/* What its new connections need; NULL: it is not for TLS. */
struct tls_server *turn_settings_tls(const struct turn_settings *settings,
				     const char *listener);
/* The [listener] of this name; NULL: there is none. */
const struct conf_listener *
turn_settings_listener(const struct turn_settings *settings, const char *name);
/* The largest segment its clients are asked to send; 0: the kernel's. */
unsigned int turn_settings_mss(const struct turn_settings *settings,
			       const char *listener);
/* Does that listener listen on this address, of UDP or of TCP? Port 0 there is
 * any port.
 */
bool turn_settings_has_address(const struct turn_settings *settings,
			       const char *listener, const union addr *addr,
			       bool udp);

/* Is the [engine] section the same? */
bool turn_settings_same_engines(const struct turn_settings *a,
				const struct turn_settings *b);

#endif
