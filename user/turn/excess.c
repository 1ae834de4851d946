/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The limit on what can be reflected and amplified (RFC 8656 21.1.1 to 21.1.3).
 *
 * Somebody who forges the source of small requests has us send larger answers to
 * a victim. Who is asked for credentials has shown none, so a 401 with its nonce
 * cannot be as small as the request; but it can be rare. Each network, an IPv4 /24
 * or an IPv6 /48, for a victim's lines carry the whole of it, has a debt: the
 * bytes it was sent beyond those that came in its name. Time pays it off; with
 * TURN_EXCESS_BURST_S seconds' worth of debt, requests whose answer would be
 * longer are not answered.
 *
 * Somebody who names a victim of another network with each request would have as
 * much for every one of them. All together have a debt, too; it is also paid off by
 * requests that are not answered, a byte for a byte. Whatever is forged, no more goes
 * out than comes in and these seconds' worth; and while that lasts, clients without
 * credentials get their turn by repeating their requests, one in some.
 *
 * The table has a fixed size, whoever comes: a network has a place in each row by
 * a keyed hash, shared with others, and the least of its debts counts. To fill the
 * places of all networks takes PLACES times the rate.
 */
#include "turn/excess.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/table.h"

#define ROWS      2
#define PLACES    32768 /* of a row; a power of two */
#define SECOND_US UINT64_C(1000000)
#define KEY_LEN   8 /* row, family, 3 or 6 bytes of address */

struct turn_excess {
	/* When the debt will be paid, in microseconds of the loop's clock. */
	_Atomic uint64_t until_us[ROWS][PLACES];
	_Atomic uint64_t all_until_us;
};

int turn_excess_new(struct turn_excess **out)
{
	struct turn_excess *excess = calloc(1, sizeof(*excess));

	if (!excess)
		return -ENOMEM;
	*out = excess;
	return 0;
}

void turn_excess_free(struct turn_excess *excess)
{
	free(excess);
}

static _Atomic uint64_t *place_of(struct turn_excess *excess, uint8_t row,
				  const union addr *to)
{
	uint8_t key[KEY_LEN] = { row };
	size_t len;
	const uint8_t *bytes = addr_bytes(to, &len);

	key[1] = (uint8_t)len;
	memcpy(key + 2, bytes, len == 4 ? 3 : 6);
	return &excess->until_us[row][table_hash(key, KEY_LEN) & (PLACES - 1)];
}

static void debt_add(_Atomic uint64_t *place, uint64_t now_us, uint64_t cost_us)
{
	uint64_t old = atomic_load_explicit(place, memory_order_relaxed), new;

	do {
		new = (old > now_us ? old : now_us) + cost_us;
	} while (!atomic_compare_exchange_weak_explicit(
		place, &old, new, memory_order_relaxed, memory_order_relaxed));
}

static void debt_pay(_Atomic uint64_t *place, uint64_t now_us, uint64_t paid_us)
{
	uint64_t old = atomic_load_explicit(place, memory_order_relaxed), new;

	do {
		if (old <= now_us)
			return;
		new = old - now_us > paid_us ? old - paid_us : now_us;
	} while (!atomic_compare_exchange_weak_explicit(
		place, &old, new, memory_order_relaxed, memory_order_relaxed));
}

static uint64_t debt_of(const _Atomic uint64_t *place, uint64_t now_us)
{
	uint64_t until = atomic_load_explicit(place, memory_order_relaxed);

	return until > now_us ? until - now_us : 0;
}

static uint64_t time_of(size_t bytes, size_t rate)
{
	return rate ? (uint64_t)bytes * SECOND_US / rate : 0;
}

enum turn_excess_limit turn_excess_take(struct turn_excess *excess,
					const struct turn_excess_ask *ask,
					uint64_t now_ms)
{
	const uint64_t now_us = now_ms * 1000;
	const uint64_t burst_us = TURN_EXCESS_BURST_S * SECOND_US;
	const size_t bytes = ask->answer - ask->request;
	uint64_t cost_us = time_of(bytes, ask->rate), debt_us = UINT64_MAX;
	uint64_t cost_all_us = time_of(bytes, ask->rate_all);
	enum turn_excess_limit limit = TURN_EXCESS_NONE;
	_Atomic uint64_t *places[ROWS];

	if (!ask->rate)
		return TURN_EXCESS_NONE;
	for (uint8_t row = 0; row < ROWS; row++) {
		uint64_t debt;

		places[row] = place_of(excess, row, ask->to);
		debt = debt_of(places[row], now_us);
		if (debt < debt_us)
			debt_us = debt;
	}
	if (debt_us + cost_us > burst_us)
		limit = TURN_EXCESS_NETWORK;
	else if (debt_of(&excess->all_until_us, now_us) + cost_all_us >
		 burst_us)
		limit = TURN_EXCESS_ALL;
	if (limit) {
		debt_pay(&excess->all_until_us, now_us,
			 time_of(ask->request, ask->rate_all));
		return limit;
	}
	for (size_t row = 0; row < ROWS; row++)
		debt_add(places[row], now_us, cost_us);
	debt_add(&excess->all_until_us, now_us, cost_all_us);
	return TURN_EXCESS_NONE;
}
