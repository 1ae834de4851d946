/* SPDX-License-Identifier: BSD-2-Clause */
/* What the exits' helper says, on its way to the workers. */
#include <string.h>

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
	exit_notice_clear(&notice);
}
