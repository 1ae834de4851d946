/* SPDX-License-Identifier: BSD-2-Clause */
/* What the exits' helper says, on its way to the workers and to control clients. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "exit/exit.h"
#include "main/relay_internal.h"

void relay_exits(struct relay *relay, int fd)
{
	struct exit_notice notice = { .dead = NULL };
	int err = exit_notice_unpack(fd, &notice);

	if (!err)
		err = turn_shared_dead(relay->shared, notice.dead,
				       notice.dead_count);
	if (err)
		log_error(
			"main",
			"event=exits_not_heard reason=\"what the exits' "
			"helper has said cannot be read\" error=\"%s\" "
			"effect=\"new allocations go by what it said before\" "
			"hint=\"the next change of an exit tells it again\"",
			strerror(-err));
	if (err) {
		exit_notice_clear(&notice);
		return;
	}
	exit_notice_clear(&relay->exits);
	relay->exits = notice;
}

/* NULL: there are none, or no memory. */
static struct control_loss *losses_make(const struct exit_losses *losses,
					uint64_t now)
{
	struct control_loss *rows =
		losses->count ? calloc(losses->count, sizeof(*rows)) : NULL;

	for (size_t i = 0; rows && i < losses->count; i++) {
		const struct exit_loss *loss = &losses->all[i];

		rows[i] = (struct control_loss){
			.what = loss->what,
			.silent = loss->silent,
			.held_ms = loss->until_ms > now ? loss->until_ms - now :
							  0,
		};
	}
	return rows;
}

void relay_exits_show(const struct relay *relay, struct control_reply *reply)
{
	const struct exit_notice *notice = &relay->exits;
	uint64_t now = clock_ms();
	struct control_loss *losses = losses_make(&notice->losses, now);
	struct control_exit rows[CONF_EXITS_MAX];
	const struct control_exits exits = {
		.rows = rows,
		.count = notice->exit_count,
		.losses = losses,
		.loss_count = losses ? notice->losses.count : 0,
		.tunnel_refused = notice->tunnels.refused,
		.hosts_told = notice->tunnels.told,
		.told = notice->tunnels.heard,
		.forged = notice->tunnels.forged,
	};

	for (size_t i = 0; i < notice->exit_count; i++) {
		const struct exit_history *exit = &notice->exits[i];

		rows[i] = (struct control_exit){
			.name = exit->name,
			.state = exit->state,
			.was = exit->was,
			.since_ms = now > exit->changed_ms ?
					    now - exit->changed_ms :
					    0,
			.changes = exit->changes,
			.packets = exit->packets,
			.rejected = exit->rejects,
			.place = exit->index,
			.seen_packets = exit->seen.packets,
			.seen_rejected = exit->seen.rejects,
			.seen_dead = exit->seen.dead,
		};
	}
	control_reply_exits(reply, &exits);
	free(losses);
}
