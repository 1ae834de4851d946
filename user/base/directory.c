/* SPDX-License-Identifier: BSD-2-Clause */
/* Directories that culvert keeps its own files in. */
#include "base/directory.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/syscalls.h"

SYSCALLS(SYSCALLS_SUPERVISOR, "mkdir chmod lstat newfstatat geteuid");

int directory_make(const char *path)
{
	if (mkdir(path, 0755) < 0)
		return errno == EEXIST ? 0 : -errno;
	/* mkdir() heeds the umask, which is not ours to change here. */
	return chmod(path, 0755) < 0 ? -errno : 0;
}

int directory_own(const char *path)
{
	struct stat info;

	if (lstat(path, &info) < 0)
		return -errno;
	if (!S_ISDIR(info.st_mode) ||
	    (info.st_uid != 0 && info.st_uid != geteuid()) ||
	    info.st_mode & (S_IWGRP | S_IWOTH))
		return -EPERM;
	return 0;
}
