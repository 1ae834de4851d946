/* SPDX-License-Identifier: BSD-2-Clause */
/* File descriptor helpers. A closed descriptor is -1. */
#ifndef BASE_FD_H
#define BASE_FD_H

#include <stddef.h>
#include <stdint.h>

/* Closes *fd unless it is -1, and sets it to -1. Keeps errno. */
void fd_close(int *fd);

/* Closes so that the other end sees a reset, not an end of stream. */
void fd_reset(int *fd);

/*
 * TCP keep-alive with this idle time; 0 turns it off. On a listening socket it is
 * for what is accepted from now on. Best effort: a socket without it still works.
 */
void fd_keepalive(int fd, uint64_t idle_ms);

/*
 * Urgent data of a TCP socket is data like any other. To be asked for before any
 * arrives: of two urgent bytes unread the kernel drops the first otherwise. On a
 * listening socket it is for what is accepted from now on.
 */
void fd_inline(int fd);

/* Unsent and unacknowledged bytes of a TCP socket; 0 on error. */
size_t fd_unsent(int fd);

#endif
