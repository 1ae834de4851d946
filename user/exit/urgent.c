/* SPDX-License-Identifier: BSD-2-Clause */
/* Real-time scheduling of the helper (see urgent.h). */
#include "exit/urgent.h"

#include <errno.h>
#include <sched.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/syscalls.h"

/* Of this process, and of no other. */
SYSCALLS_EQUAL(SYSCALLS_EXIT, "sched_setscheduler", 0, 0);

#define PRIORITY 1 /* the least: whatever else is real-time goes first */
#define SHORT_US 5000 /* processor time of work that may be done so, too */

static struct {
	clock_t begun;
	bool ordinary; /* the work that is under way */
	bool is_long; /* it was, the last time */
	bool told;
} urgent = { .ordinary = true, .is_long = true };

static int policy_set(int policy, int priority)
{
	const struct sched_param param = { .sched_priority = priority };

	return sched_setscheduler(0, policy, &param) < 0 ? -errno : 0;
}

static void realtime_begin(void)
{
	int err = policy_set(SCHED_FIFO, PRIORITY);

	if (!err || urgent.told)
		return;
	urgent.told = true;
	log_warn("exit",
		 "event=exits_not_urgent reason=\"no real-time scheduling\" "
		 "error=\"%s\" effect=\"while all processors are busy a lost "
		 "exit is refused some milliseconds late\" hint=\"start as "
		 "root, with CAP_SYS_NICE\"",
		 strerror(-err));
}

void urgent_work_begin(void)
{
	urgent.begun = clock();
	if (!urgent.is_long || urgent.ordinary)
		return;
	policy_set(SCHED_OTHER, 0);
	urgent.ordinary = true;
}

void urgent_work_end(void)
{
	urgent.is_long = clock() - urgent.begun >
			 (clock_t)SHORT_US * (CLOCKS_PER_SEC / 1000000);
	if (urgent.ordinary)
		realtime_begin();
	urgent.ordinary = false;
}
