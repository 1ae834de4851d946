/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Locks: what one process at a time may do in a network namespace.
 *
 * A lock is one byte of a file: that with the number of the namespace's inode, so that
 * no namespace leaves a file behind. The kernel frees a record lock of a process with
 * the process, and tells the others whose it is. Nobody else can open the file: even a
 * lock for reading would stand in the way.
 */
#include "base/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/directory.h"
#include "base/syscalls.h"

SYSCALLS(SYSCALLS_SUPERVISOR, "openat close stat newfstatat");
SYSCALLS_EQUAL(SYSCALLS_SUPERVISOR, "fcntl", 1, F_SETLK);
SYSCALLS_EQUAL(SYSCALLS_SUPERVISOR, "fcntl", 1, F_GETLK);

static int file_open(const char *name)
{
	char path[64];
	int fd, err = directory_make(LOCK_DIRECTORY);

	if (!err)
		err = directory_own(LOCK_DIRECTORY);
	if (err)
		return err;
	snprintf(path, sizeof(path), LOCK_DIRECTORY "/%s.lock", name);
	fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : fd;
}

/* 0, -EBUSY or another negative errno. */
static int byte_lock(int fd, off_t at, pid_t *holder)
{
	struct flock lock;

	do {
		lock = (struct flock){ .l_type = F_WRLCK,
				       .l_whence = SEEK_SET,
				       .l_start = at,
				       .l_len = 1 };
		if (!fcntl(fd, F_SETLK, &lock))
			return 0;
		if ((errno != EAGAIN && errno != EACCES) ||
		    fcntl(fd, F_GETLK, &lock))
			return -errno;
	} while (lock.l_type == F_UNLCK); /* it has just become free */
	*holder = lock.l_pid;
	return -EBUSY;
}

int lock_take(const char *name, pid_t *holder)
{
	struct stat namespace;
	int fd, err;

	if (stat("/proc/self/ns/net", &namespace) < 0)
		return -errno;
	fd = file_open(name);
	if (fd < 0)
		return fd;
	err = byte_lock(fd, (off_t) namespace.st_ino, holder);
	if (!err)
		return fd;
	close(fd);
	return err;
}
