/* SPDX-License-Identifier: BSD-2-Clause */
/* Making the control socket: its directory, its mode, a stale one's removal. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/directory.h"
#include "base/fd.h"
#include "base/syscalls.h"
#include "control/control.h"

SYSCALLS(SYSCALLS_BEFORE, "chmod fchmod lstat newfstatat socket bind "
			  "listen connect unlink unlinkat");

static int parent_make(const char *path)
{
	char dir[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	const char *slash = strrchr(path, '/');

	if (!slash || slash == path)
		return 0;
	memcpy(dir, path, (size_t)(slash - path));
	dir[slash - path] = '\0';
	return directory_make(dir);
}

/*
 * Binds without a moment at which others might connect: Linux gives the file the
 * mode of the unbound socket (less the umask), and nobody is served before
 * listen().
 */
static int socket_bind(int fd, const struct sockaddr_un *sun)
{
	if (fchmod(fd, 0600) < 0 ||
	    bind(fd, (const struct sockaddr *)sun, sizeof(*sun)) < 0)
		return -errno;
	if (chmod(sun->sun_path, 0660) < 0 || listen(fd, 16) < 0)
		return -errno;
	return 0;
}

/* Returns 0 after removing a socket that nobody serves. */
static int stale_remove(const struct sockaddr_un *sun)
{
	struct stat st;
	int fd, err = 0;

	if (lstat(sun->sun_path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -ENOTSOCK;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)sun, sizeof(*sun)) == 0)
		err = -EADDRINUSE;
	else if (errno == EAGAIN) /* its backlog is full: somebody is there */
		err = -EADDRINUSE;
	else if (errno != ECONNREFUSED && errno != ENOENT)
		err = -errno;
	fd_close(&fd);
	if (!err && unlink(sun->sun_path) < 0 && errno != ENOENT)
		err = -errno;
	return err;
}

int control_listen(const char *path)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd, err;

	if (!*path)
		return -EINVAL;
	if (strlen(path) >= sizeof(sun.sun_path))
		return -ENAMETOOLONG;
	memcpy(sun.sun_path, path, strlen(path) + 1);
	err = parent_make(path);
	if (err)
		return err;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	err = socket_bind(fd, &sun);
	if (err == -EADDRINUSE) {
		err = stale_remove(&sun);
		if (!err)
			err = socket_bind(fd, &sun);
	}
	if (err)
		fd_close(&fd);
	return err ? err : fd;
}
