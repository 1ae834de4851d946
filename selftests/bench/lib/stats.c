/* SPDX-License-Identifier: BSD-2-Clause */
/* The counter file that peer writes and load reads. */
#include "proto.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"

int bench_stats_map(const char *path, int create, struct bench_stats **out)
{
	int flags = O_RDWR | O_CLOEXEC | (create ? O_CREAT | O_TRUNC : 0);
	int fd = open(path, flags, 0600);
	void *page;

	if (fd < 0)
		return -errno;
	if (create && ftruncate(fd, sizeof(**out)) < 0) {
		int error = -errno;

		fd_close(&fd);
		return error;
	}
	page = mmap(NULL, sizeof(**out), PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		    0);
	fd_close(&fd);
	if (page == MAP_FAILED)
		return -errno;
	*out = page;
	return 0;
}
