/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The local end of a transfer: a file, or standard input or output that may be a
 * file, pipe, terminal or socket. Regular files are read and written at once; the
 * rest without ever blocking the loop.
 */
#ifndef CLIENT_FILE_H
#define CLIENT_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum client_file_kind {
	CLIENT_FILE_REGULAR, /* never waits; the one that sendfile(2) takes */
	CLIENT_FILE_NONBLOCK, /* pipe or terminal, opened anew for ourselves */
	CLIENT_FILE_SHARED, /* the same, but blocking: asked with poll(2) */
	CLIENT_FILE_SOCKET,
};

struct client_file {
	int fd;
	bool owned; /* ours to close */
	enum client_file_kind kind;
	uint64_t size; /* left to read of a regular file; else 0 */
	const char *name;
};

/* path NULL or "-": standard input. 0 or -errno, said already. */
int client_file_open_source(struct client_file *file, const char *path);
/*
 * path NULL or "-": standard output. An existing file keeps its content until
 * client_file_truncate.
 */
int client_file_open_sink(struct client_file *file, const char *path);
int client_file_truncate(const struct client_file *file);

/* Like read(2) and write(2), with -errno; -EAGAIN: wait for the descriptor. */
ssize_t client_file_read(const struct client_file *file, void *buf, size_t len);
ssize_t client_file_write(const struct client_file *file, const void *buf,
			  size_t len);

/* Everything is on the disk, or -errno. Pipes and the like are always. */
int client_file_sync(const struct client_file *file);
void client_file_close(struct client_file *file);

#endif
