/* SPDX-License-Identifier: BSD-2-Clause */
/* A local connection joined with a data connection, on a pair. */
#include "client/relay.h"

#include "base/fd.h"

#define LINGER_MS 10000

static void relay_closed(void *owner, enum pair_end end)
{
	struct client_relay *relay = owner;

	relay->pair = NULL;
	relay->closed(relay, end);
}

int client_relay_join(struct client_relay *relay,
		      const struct client_session *session, int local_fd,
		      int data_fd, const void *early, size_t early_len,
		      void (*closed)(struct client_relay *relay,
				     enum pair_end end))
{
	struct pair_params params = {
		.loop = session->loop,
		.engines = session->engines,
		.half[PAIR_CLIENT] = { .fd = local_fd,
				       .preface = early,
				       .preface_len = early_len },
		.half[PAIR_PEER] = { .fd = data_fd },
		.linger_ms = LINGER_MS,
		.on_closed = relay_closed,
		.owner = relay,
	};

	fd_inline(local_fd);
	fd_inline(data_fd);
	relay->closed = closed;
	return pair_new(&params, &relay->pair);
}

void client_relay_finish(const struct client_relay *relay)
{
	if (relay->pair)
		pair_finish(relay->pair);
}

void client_relay_destroy(struct client_relay *relay)
{
	if (relay->pair)
		pair_destroy(relay->pair);
	relay->pair = NULL;
}
