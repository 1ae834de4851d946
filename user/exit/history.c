/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What has become of each exit since there was one of its name: looked at after each change of
 * the kernel's state, and counted now and then. Routes that somebody has taken away are
 * no change, for they are back before anybody asks.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "exit/internal.h"

static const struct exit_history *named(const struct exit_notice *before,
					const char *name)
{
	for (size_t i = 0; before && i < before->exit_count; i++)
		if (!strcmp(before->exits[i].name, name))
			return &before->exits[i];
	return NULL;
}

int history_new(const struct conf *conf, const struct exit_notice *before,
		uint64_t now_ms, struct exit_history **out, size_t *count)
{
	struct exit_history *all = calloc(conf->exit_count + 1, sizeof(*all));
	size_t used = 0;

	if (!all)
		return -ENOMEM;
	for (size_t i = 0; i < conf->exit_count; i++) {
		const struct exit_history *old =
			named(before, conf->exits[i].name);
		struct exit_history *one = &all[used];

		if (!exit_leads(&conf->exits[i]))
			continue;
		if (old)
			*one = *old;
		else
			one->changed_ms = now_ms;
		snprintf(one->name, sizeof(one->name), "%s",
			 conf->exits[i].name);
		one->index = (uint32_t)i;
		used++;
	}
	*out = all;
	*count = used;
	return 0;
}

static void changed(struct exit_history *one, const char *state,
		    uint64_t now_ms)
{
	if (*one->state) {
		memcpy(one->was, one->state, sizeof(one->was));
		one->changes++;
		one->changed_ms = now_ms;
		log_info(ROOM, "event=exit_changed exit=%s was=%s now=%s",
			 one->name, one->was, state);
	}
	snprintf(one->state, sizeof(one->state), "%s", state);
}

void history_look(struct exit_history *all, size_t count,
		  const struct conf *conf, const struct exit_host *host,
		  uint64_t now_ms)
{
	for (size_t i = 0; i < count; i++) {
		uint64_t held_ms;
		const char *state = exit_state_name(&conf->exits[all[i].index],
						    host, NULL, NULL, &held_ms);

		if (strcmp(all[i].state, state) != 0)
			changed(&all[i], state, now_ms);
	}
}

void history_count(struct exit_history *all, size_t count, struct nft *nft)
{
	for (size_t i = 0; i < count; i++) {
		struct exit_row row = { .exit = NULL };

		/* What cannot be read now stays what it was. */
		if (exit_row_count(nft, all[i].index, &row))
			continue;
		all[i].packets = row.packets;
		all[i].rejects = row.rejects;
	}
}
