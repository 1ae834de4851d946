/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The sockmap engine's maps, by bpf(2) alone: changing a map needs no capability,
 * only its descriptor. Private to the room.
 */
#ifndef ENGINE_SOCKMAP_MAPS_H
#define ENGINE_SOCKMAP_MAPS_H

#include <stdint.h>

#include <culvert/kern_user.h>

/* One worker's. */
struct sockmap_maps {
	int fd[SOCKMAP_MAPS];
	struct sockmap_flow *flows; /* the state map, by index */
	uint32_t *free; /* stack of pairs' places; a pair has 2 * place and the next */
	uint32_t free_count;
};

/* Duplicates the descriptors. 0 or a negative errno. */
int sockmap_maps_open(struct sockmap_maps *maps, const int fds[SOCKMAP_MAPS]);
void sockmap_maps_close(struct sockmap_maps *maps);

/* A place for a pair, or -ENOSPC. */
int64_t sockmap_place_take(struct sockmap_maps *maps);
void sockmap_place_give(struct sockmap_maps *maps, uint32_t place);

/* Puts a socket into the sources or targets. 0 or a negative errno. */
int sockmap_socket_put(const struct sockmap_maps *maps, enum sockmap_map map,
		       uint32_t index, int fd);
/* Absent ones are no fault. */
void sockmap_socket_remove(const struct sockmap_maps *maps,
			   enum sockmap_map map, uint32_t index);
int sockmap_cookie_put(const struct sockmap_maps *maps, uint64_t cookie,
		       uint32_t index);
void sockmap_cookie_remove(const struct sockmap_maps *maps, uint64_t cookie);

#endif
