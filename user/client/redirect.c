/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Being sent to another server (RFC 8489 10).
 *
 * Who follows anybody's word gives his traffic, and a guess at his password, to
 * anybody: the answer must be signed with our key, or have come over TLS. Over TLS
 * the other server must show a certificate for ALTERNATE-DOMAIN, or for the name
 * that the first one had. It has a realm and nonces of its own.
 */
#include <errno.h>
#include <string.h>

#include "client/turn_client.h"

static bool was_visited(const struct culvert_client *client,
			const union addr *addr)
{
	if (addr_equal(&client->server[client->server_index], addr))
		return true;
	for (unsigned int i = 0; i < client->redirects; i++)
		if (addr_equal(&client->visited[i], addr))
			return true;
	return false;
}

/* 0 or -EBADMSG. */
static int name_take(struct culvert_client *client, const struct stun_msg *msg)
{
	struct stun_attr domain;

	if (!client->tls ||
	    !stun_find(msg, STUN_ATTR_ALTERNATE_DOMAIN, &domain))
		return 0;
	if (!domain.len || domain.len >= sizeof(client->tls_name) ||
	    memchr(domain.value, 0, domain.len))
		return -EBADMSG;
	memcpy(client->tls_name, domain.value, domain.len);
	client->tls_name[domain.len] = '\0';
	return 0;
}

static void redirect_now(struct deferred *deferred)
{
	struct culvert_client *client =
		list_entry(deferred, struct culvert_client, redirect);

	client_control_stop(client);
	client_auth_forget(&client->auth);
	client->software[0] = '\0';
	client->state = CLIENT_DIALING;
	client_control_dial(client);
}

int client_redirect(struct culvert_client *client,
		    const struct client_transaction *t,
		    const struct stun_msg *msg)
{
	struct stun_attr attr;
	union addr to;
	const char *reason;
	size_t len;
	int code;

	if (!stun_find(msg, STUN_ATTR_ERROR_CODE, &attr) ||
	    stun_get_error(&attr, &code, &reason, &len) ||
	    code != STUN_CODE_TRY_ALTERNATE ||
	    !stun_find(msg, STUN_ATTR_ALTERNATE_SERVER, &attr) ||
	    stun_get_address(&attr, &to) || !addr_port(&to))
		return -ENOENT;
	if (client->options.manual ||
	    !(t->request.authenticated || client->tls))
		return -EPERM;
	if (client->redirects == CLIENT_REDIRECTS || was_visited(client, &to))
		return -ELOOP;
	if (name_take(client, msg))
		return -ENOENT;
	client->visited[client->redirects++] =
		client->server[client->server_index];
	client->server[0] = to;
	client->server_count = 1;
	client->server_index = 0;
	client->state = CLIENT_REDIRECTED;
	loop_defer(client->loop, &client->redirect, redirect_now);
	return 0;
}
