/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What has become of each exit since there was one of its name: looked at after each change of
 * the kernel's state, and counted now and then. Routes that somebody has taken away are
 * no change, for they are back before anybody asks.
 *
 * The kernel's counters are named for an exit's place in the configuration, and begin anew
 * with their table. So what is kept is a sum, to which comes what a counter has more than
 * when it was seen last, or all of it when that is less. Where another exit has taken the
 * place, what the counter has is the other's.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "exit/internal.h"

const struct exit_history *history_find(const struct exit_notice *notice,
					const char *name)
{
	for (size_t i = 0; notice && i < notice->exit_count; i++)
		if (!strcmp(notice->exits[i].name, name))
			return &notice->exits[i];
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
			history_find(before, conf->exits[i].name);
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

static uint64_t growth(uint64_t seen, uint64_t now)
{
	return now >= seen ? now - seen : now;
}

void history_add(struct exit_history *one, const struct exit_counts *now)
{
	one->packets += growth(one->seen.packets, now->packets);
	one->rejects += growth(one->seen.rejects, now->rejects) +
			growth(one->seen.dead, now->dead);
	one->seen = *now;
}

/* What cannot be read now stays what it was. */
static void count_at(struct exit_history *one, size_t index, struct nft *nft)
{
	struct exit_counts now;

	if (!exit_counts_read(nft, index, &now, NULL))
		history_add(one, &now);
}

void history_count(struct exit_history *all, size_t count, struct nft *nft)
{
	for (size_t i = 0; i < count; i++)
		count_at(&all[i], all[i].index, nft);
}

void history_begin(struct exit_history *all, size_t count,
		   const struct exit_notice *before, struct nft *nft)
{
	/* Of counters that an earlier process has left only the place is known. */
	if (!before || !before->exit_count)
		return;
	for (size_t i = 0; i < count; i++) {
		const struct exit_history *old =
			history_find(before, all[i].name);

		if (old)
			count_at(&all[i], old->index, nft);
		if (!old || old->index != all[i].index)
			exit_counts_read(nft, all[i].index, &all[i].seen, NULL);
	}
}
