/* SPDX-License-Identifier: BSD-2-Clause */
/* Descriptors of this process, for tests of what must not grow. */
#ifndef UNIT_OPEN_FILES_H
#define UNIT_OPEN_FILES_H

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* To be compared with an earlier count: there is always the same too much. */
static inline size_t open_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	size_t count = 0;

	assert_non_null(dir);
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

#endif
