/* SPDX-License-Identifier: BSD-2-Clause */
/* The sockmap engine's maps. */
#include "engine/sockmap_maps.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/syscalls.h"

SYSCALLS_EQUAL(SYSCALLS_RELAY, "fcntl", 1, F_DUPFD_CLOEXEC);
SYSCALLS_EQUAL(SYSCALLS_RELAY, "bpf", 0, BPF_MAP_UPDATE_ELEM);
SYSCALLS_EQUAL(SYSCALLS_RELAY, "bpf", 0, BPF_MAP_DELETE_ELEM);
SYSCALLS(SYSCALLS_RELAY, "munmap");

#define STATE_BYTES (2 * (size_t)SOCKMAP_PAIRS * sizeof(struct sockmap_flow))

static int bpf_call(enum bpf_cmd command, union bpf_attr *attr)
{
	return syscall(SYS_bpf, command, attr, sizeof(*attr)) < 0 ? -errno : 0;
}

static int map_put(int map, const void *key, const void *value)
{
	union bpf_attr attr = {
		.map_fd = (uint32_t)map,
		.key = (uintptr_t)key,
		.value = (uintptr_t)value,
		.flags = BPF_ANY,
	};

	return bpf_call(BPF_MAP_UPDATE_ELEM, &attr);
}

static void map_remove(int map, const void *key)
{
	union bpf_attr attr = {
		.map_fd = (uint32_t)map,
		.key = (uintptr_t)key,
	};

	bpf_call(BPF_MAP_DELETE_ELEM, &attr);
}

static int state_map(struct sockmap_maps *maps)
{
	void *state = mmap(NULL, STATE_BYTES, PROT_READ | PROT_WRITE,
			   MAP_SHARED, maps->fd[SOCKMAP_STATE], 0);

	if (state == MAP_FAILED)
		return -errno;
	maps->flows = state;
	return 0;
}

int sockmap_maps_open(struct sockmap_maps *maps, const int fds[SOCKMAP_MAPS])
{
	int err = 0;

	*maps = (struct sockmap_maps){ .fd = { -1, -1, -1, -1 } };
	for (int i = 0; i < SOCKMAP_MAPS && !err; i++) {
		maps->fd[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);
		if (maps->fd[i] < 0)
			err = -errno;
	}
	if (!err)
		err = state_map(maps);
	if (!err) {
		maps->free = calloc(SOCKMAP_PAIRS, sizeof(*maps->free));
		err = maps->free ? 0 : -ENOMEM;
	}
	if (err) {
		sockmap_maps_close(maps);
		return err;
	}
	while (maps->free_count < SOCKMAP_PAIRS) {
		maps->free[maps->free_count] =
			SOCKMAP_PAIRS - 1 - maps->free_count;
		maps->free_count++;
	}
	return 0;
}

void sockmap_maps_close(struct sockmap_maps *maps)
{
	if (maps->flows)
		munmap(maps->flows, STATE_BYTES);
	free(maps->free);
	for (int i = 0; i < SOCKMAP_MAPS; i++)
		fd_close(&maps->fd[i]);
}

int64_t sockmap_place_take(struct sockmap_maps *maps)
{
	if (!maps->free_count)
		return -ENOSPC;
	return maps->free[--maps->free_count];
}

void sockmap_place_give(struct sockmap_maps *maps, uint32_t place)
{
	maps->free[maps->free_count++] = place;
}

int sockmap_socket_put(const struct sockmap_maps *maps, enum sockmap_map map,
		       uint32_t index, int fd)
{
	uint64_t value = (uint64_t)fd;

	return map_put(maps->fd[map], &index, &value);
}

void sockmap_socket_remove(const struct sockmap_maps *maps,
			   enum sockmap_map map, uint32_t index)
{
	map_remove(maps->fd[map], &index);
}

int sockmap_cookie_put(const struct sockmap_maps *maps, uint64_t cookie,
		       uint32_t index)
{
	return map_put(maps->fd[SOCKMAP_FLOWS], &cookie, &index);
}

void sockmap_cookie_remove(const struct sockmap_maps *maps, uint64_t cookie)
{
	map_remove(maps->fd[SOCKMAP_FLOWS], &cookie);
}
