/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The local end of a transfer.
 *
 * O_NONBLOCK belongs to the open file, which standard input and output share with
 * the shell and others: setting it there would break them. A pipe or terminal is
 * opened anew through /proc instead; where that fails poll(2) is asked before
 * every call and a write takes no more than a pipe then has room for.
 */
#include "client/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "client/say.h"

static bool path_is_standard(const char *path)
{
	return !path || !strcmp(path, "-");
}

/* Opens what fd stands for once more, nonblocking; fd itself when it cannot. */
static void standard_reopen(struct client_file *file, int fd, int mode)
{
	char path[32];
	int again;

	file->fd = fd;
	file->owned = false;
	file->kind = CLIENT_FILE_SHARED;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, mode | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	if (again < 0)
		return;
	file->fd = again;
	file->owned = true;
	file->kind = CLIENT_FILE_NONBLOCK;
}

/* Finds out what an open descriptor is. 0 or -errno. */
static int file_look(struct client_file *file, int fd, bool standard, int mode)
{
	struct stat st;
	off_t at;

	if (fstat(fd, &st))
		return -errno;
	file->fd = fd;
	file->owned = !standard;
	file->size = 0;
	if (S_ISDIR(st.st_mode))
		return -EISDIR;
	if (S_ISREG(st.st_mode)) {
		file->kind = CLIENT_FILE_REGULAR;
		at = standard ? lseek(fd, 0, SEEK_CUR) : 0;
		if (at >= 0 && st.st_size > at)
			file->size = (uint64_t)(st.st_size - at);
	} else if (S_ISSOCK(st.st_mode)) {
		file->kind = CLIENT_FILE_SOCKET;
	} else if (standard) {
		standard_reopen(file, fd, mode);
	} else {
		/* Opened by us: nobody else sees the flag. Not at open(2),
		 * which would fail on a FIFO without a reader yet.
		 */
		if (fcntl(fd, F_SETFL, mode | O_NONBLOCK))
			return -errno;
		file->kind = CLIENT_FILE_NONBLOCK;
	}
	return 0;
}

static int file_open(struct client_file *file, const char *path, int mode,
		     int standard_fd)
{
	bool standard = path_is_standard(path);
	int fd = standard ? standard_fd : open(path, mode | O_CLOEXEC, 0666);
	int err;

	file->name = path;
	if (standard)
		file->name = standard_fd == STDIN_FILENO ? "standard input" :
							   "standard output";
	err = fd < 0 ? -errno : file_look(file, fd, standard, mode & O_ACCMODE);
	if (!err)
		return 0;
	if (!standard)
		fd_close(&fd);
	client_error("%s: %s", file->name, strerror(-err));
	return err;
}

int client_file_open_source(struct client_file *file, const char *path)
{
	return file_open(file, path, O_RDONLY, STDIN_FILENO);
}

int client_file_open_sink(struct client_file *file, const char *path)
{
	return file_open(file, path, O_WRONLY | O_CREAT, STDOUT_FILENO);
}

int client_file_truncate(const struct client_file *file)
{
	/* What a shell opened it may have opened to append. */
	if (file->kind != CLIENT_FILE_REGULAR || !file->owned)
		return 0;
	return ftruncate(file->fd, 0) ? -errno : 0;
}

static bool file_waits(const struct client_file *file, short events)
{
	struct pollfd ready = { .fd = file->fd, .events = events };

	return file->kind == CLIENT_FILE_SHARED && poll(&ready, 1, 0) == 0;
}

ssize_t client_file_read(const struct client_file *file, void *buf, size_t len)
{
	ssize_t n;

	if (file_waits(file, POLLIN))
		return -EAGAIN;
	if (file->kind == CLIENT_FILE_SOCKET)
		n = recv(file->fd, buf, len, MSG_DONTWAIT);
	else
		n = read(file->fd, buf, len);
	if (n < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	return n;
}

ssize_t client_file_write(const struct client_file *file, const void *buf,
			  size_t len)
{
	ssize_t n;

	if (file_waits(file, POLLOUT))
		return -EAGAIN;
	if (file->kind == CLIENT_FILE_SHARED && len > PIPE_BUF)
		len = PIPE_BUF;
	if (file->kind == CLIENT_FILE_SOCKET)
		n = send(file->fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	else
		n = write(file->fd, buf, len);
	if (n < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	return n;
}

int client_file_sync(const struct client_file *file)
{
	if (file->kind != CLIENT_FILE_REGULAR || !fsync(file->fd))
		return 0;
	/* Some file systems cannot, and have nothing to lose. */
	return errno == EINVAL || errno == EROFS ? 0 : -errno;
}

void client_file_close(struct client_file *file)
{
	if (file->owned)
		fd_close(&file->fd);
	file->fd = -1;
}
