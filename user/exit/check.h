/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files share that look for what keeps exits from working. */
#ifndef EXIT_CHECK_H
#define EXIT_CHECK_H

#include "exit/exit.h"

/* Who is told of each finding. */
struct exit_checking {
	const struct conf *conf;
	void (*fn)(void *arg, const struct exit_finding *finding);
	void *arg;
};

/* Is there an exit that leads somewhere and has a prefix of this family? */
bool exit_has_family(const struct conf *conf, sa_family_t family);
/* Does this host forward packets of that family? */
bool exit_forwards(sa_family_t family);

/* What systemd-networkd is told, if it runs (networkd.c). */
void networkd_check(const struct exit_checking *checking);

#endif
