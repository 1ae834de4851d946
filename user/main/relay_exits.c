/* SPDX-License-Identifier: BSD-2-Clause */
/* What the exits' helper says, on its way to the workers and to control clients. */
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

void relay_exits_show(const struct relay *relay, struct control_reply *reply)
{
	const struct exit_notice *notice = &relay->exits;
	struct control_exit rows[CONF_EXITS_MAX];
	const struct control_exits exits = {
		.rows = rows,
		.count = notice->exit_count,
		.tunnel_refused = notice->tunnels.refused,
		.hosts_told = notice->tunnels.told,
		.told = notice->tunnels.heard,
		.forged = notice->tunnels.forged,
	};
	uint64_t now = clock_ms();

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
		};
	}
	control_reply_exits(reply, &exits);
}
