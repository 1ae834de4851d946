/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What systemd-networkd is told of rules and routes that it does not know
 * (networkd.conf(5)): unless it is told otherwise it takes them away.
 *
 * Its files are read as it reads them: the first networkd.conf of the directories, then
 * the drop-ins of all of them in the order of their names; of two with one name the
 * first directory's counts.
 */
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "exit/check.h"

#define RUNS "/run/systemd/netif/state" /* networkd writes it */

static const char *const directories[] = {
	"/etc/systemd",
	"/run/systemd",
	"/usr/local/lib/systemd",
	"/usr/lib/systemd",
};

#define DIRECTORIES (sizeof(directories) / sizeof(directories[0]))

static const char *const keys[] = { "ManageForeignRoutes",
				    "ManageForeignRoutingPolicyRules" };

#define KEYS (sizeof(keys) / sizeof(keys[0]))

/* By key; true unless it is told otherwise. */
struct takes {
	bool network; /* in the section of that name */
	bool key[KEYS];
};

static bool is_no(const char *value)
{
	static const char *const words[] = {
		"0", "no", "n", "false", "f", "off"
	};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (!strcasecmp(value, words[i]))
			return true;
	return false;
}

/* Cuts the blanks at both ends off. */
static char *trimmed(char *text)
{
	size_t len;

	text += strspn(text, " \t\r\n");
	len = strlen(text);
	while (len && strchr(" \t\r\n", text[len - 1]))
		text[--len] = '\0';
	return text;
}

static void line_take(struct takes *takes, char *line)
{
	char *text = trimmed(line), *value = strchr(text, '=');

	if (*text == '[')
		takes->network = !strcmp(text, "[Network]");
	if (!takes->network || !value || *text == '#' || *text == ';')
		return;
	*value++ = '\0';
	for (size_t i = 0; i < KEYS; i++)
		if (!strcmp(trimmed(text), keys[i]))
			takes->key[i] = !is_no(trimmed(value));
}

static bool file_take(struct takes *takes, const char *path)
{
	FILE *file = fopen(path, "re");
	char line[512];

	if (!file)
		return false;
	takes->network = false;
	while (fgets(line, sizeof(line), file))
		line_take(takes, line);
	fclose(file);
	return true;
}

static const char *name_of(const char *path)
{
	return strrchr(path, '/') + 1;
}

/* By name; of those with one name in the order of the directories. */
static int path_compare(const void *left, const void *right)
{
	const char *const *a = left, *const *b = right;
	int order = strcmp(name_of(*a), name_of(*b));

	for (size_t i = 0; i < DIRECTORIES && !order; i++) {
		size_t len = strlen(directories[i]);

		order = !strncmp(*b, directories[i], len) -
			!strncmp(*a, directories[i], len);
	}
	return order;
}

static void drop_ins_take(struct takes *takes)
{
	glob_t found = { .gl_pathc = 0 };

	for (size_t i = 0; i < DIRECTORIES; i++) {
		char pattern[80];

		snprintf(pattern, sizeof(pattern), "%s/networkd.conf.d/*.conf",
			 directories[i]);
		glob(pattern, i ? GLOB_APPEND : 0, NULL, &found);
	}
	if (found.gl_pathc)
		qsort(found.gl_pathv, found.gl_pathc, sizeof(char *),
		      path_compare);
	for (size_t i = 0; i < found.gl_pathc; i++)
		if (!i || strcmp(name_of(found.gl_pathv[i - 1]),
				 name_of(found.gl_pathv[i])) != 0)
			file_take(takes, found.gl_pathv[i]);
	globfree(&found);
}

void networkd_check(const struct exit_checking *checking)
{
	struct takes takes = { .key = { true, true } };
	bool read = false;

	if (access(RUNS, F_OK) < 0)
		return;
	for (size_t i = 0; i < DIRECTORIES && !read; i++) {
		char path[80];

		snprintf(path, sizeof(path), "%s/networkd.conf",
			 directories[i]);
		read = file_take(&takes, path);
	}
	drop_ins_take(&takes);
	for (size_t i = 0; i < KEYS; i++) {
		struct exit_finding finding = { .name = "networkd",
						.wrong = true };

		if (!takes.key[i])
			continue;
		snprintf(finding.where, sizeof(finding.where),
			 "systemd-networkd");
		snprintf(finding.what, sizeof(finding.what),
			 "it takes the %s of exits away when it starts and "
			 "when a link comes",
			 i ? "rules" : "routes");
		snprintf(finding.hint, sizeof(finding.hint),
			 "%s=no in [Network] of /etc/systemd/networkd.conf",
			 keys[i]);
		checking->fn(checking->arg, &finding);
	}
}
