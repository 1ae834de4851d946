/* SPDX-License-Identifier: BSD-2-Clause */
/* What this process may still do to files, to abstract UNIX sockets and by signals. */
#ifndef BASE_LANDLOCK_H
#define BASE_LANDLOCK_H

#include <stddef.h>

enum landlock_use {
	LANDLOCK_READ, /* files below the path; see landlock_confine */
	LANDLOCK_LIST, /* and the directories' names */
	LANDLOCK_KEEP, /* all but running a program */
};

struct landlock_path {
	const char *path;
	enum landlock_use use;
};

/*
 * From here on no path is opened, made, changed or removed, whatever the user may,
 * but for these; where the kernel knows how, no abstract UNIX socket of another is
 * connected to and no process but this one is signalled. What is to be read and is
 * not there yet may be read below the nearest directory above that there is.
 * Logged, by role, where the kernel has no Landlock: then nothing is refused.
 * Needs PR_SET_NO_NEW_PRIVS; holds for this thread and those that it starts.
 */
void landlock_confine(const char *role, const struct landlock_path *paths,
		      size_t count);

#endif
