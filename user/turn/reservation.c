/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reserved ports.
 *
 * An Allocate with EVEN-PORT may keep the next port, too; the client gets a token
 * and has 30 seconds to make another allocation with it, from another 5-tuple,
 * which may come to another worker: so they are shared. There are never more than
 * allocations: one is dropped with the allocation that made it.
 */
#include "turn/reservation.h"

#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/random.h"
#include "base/secret.h"

void turn_reservation_keep(struct turn_shared *shared,
			   struct reservation *reservation)
{
	random_bytes(reservation->token, sizeof(reservation->token));
	pthread_mutex_lock(&shared->lock);
	list_add_tail(&reservation->link, &shared->reservations);
	pthread_mutex_unlock(&shared->lock);
}

/* account NULL: whoever made it. */
static struct reservation *take_locked(struct turn_shared *shared,
				       const uint8_t token[TURN_TOKEN_LEN],
				       const struct auth_account *account)
{
	struct list *pos;

	list_for_each(pos, &shared->reservations) {
		struct reservation *reservation =
			list_entry(pos, struct reservation, link);

		if (!secret_equal(reservation->token, token, TURN_TOKEN_LEN) ||
		    (account && reservation->account != account))
			continue;
		list_del(pos);
		return reservation;
	}
	return NULL;
}

struct reservation *turn_reservation_take(struct turn_shared *shared,
					  const uint8_t token[TURN_TOKEN_LEN],
					  const struct auth_account *account)
{
	struct reservation *reservation;

	pthread_mutex_lock(&shared->lock);
	reservation = take_locked(shared, token, account);
	pthread_mutex_unlock(&shared->lock);
	return reservation;
}

void turn_reservation_drop(struct turn_shared *shared,
			   const uint8_t token[TURN_TOKEN_LEN])
{
	turn_reservation_free(shared,
			      turn_reservation_take(shared, token, NULL));
}

void turn_reservation_free(struct turn_shared *shared,
			   struct reservation *reservation)
{
	if (!reservation)
		return;
	turn_relayed_remove(shared, &reservation->relayed);
	if (reservation->fd >= 0)
		turn_descriptor_release(shared);
	fd_close(&reservation->fd);
	auth_account_unref(reservation->account);
	free(reservation);
}
