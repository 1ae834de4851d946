/* SPDX-License-Identifier: BSD-2-Clause */
/* Asking the daemon: connection, request, one reply line. */
#include "control/client.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"

#define CHUNK 65536

struct control_client {
	int fd;
	char *text; /* the reply read so far */
	size_t len, room;
};

int control_client_new(const char *path, struct control_client **out)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	struct control_client *client;
	int err;

	if (strlen(path) >= sizeof(sun.sun_path))
		return -ENAMETOOLONG;
	memcpy(sun.sun_path, path, strlen(path) + 1);
	client = calloc(1, sizeof(*client));
	if (!client)
		return -ENOMEM;
	client->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (client->fd < 0 ||
	    connect(client->fd, (struct sockaddr *)&sun, sizeof(sun)) < 0) {
		err = -errno;
		fd_close(&client->fd);
		free(client);
		return err;
	}
	*out = client;
	return 0;
}

void control_client_free(struct control_client *client)
{
	if (!client)
		return;
	fd_close(&client->fd);
	free(client->text);
	free(client);
}

static int request_send(struct control_client *client,
			const struct control_request *request)
{
	char line[256];
	int len = snprintf(
		line, sizeof(line), "{\"v\":%d,\"cmd\":\"%s\",\"limit\":%zu",
		CONTROL_VERSION, control_command_name(request->command),
		request->limit ? request->limit : CONTROL_LIMIT_DEFAULT);

	/* An id has no character that JSON would want escaped; the daemon
	 * checks it all the same.
	 */
	if (request->id[0] && !strpbrk(request->id, "\"\\"))
		len += snprintf(line + len, sizeof(line) - (size_t)len,
				",\"id\":\"%s\"", request->id);
	len += snprintf(line + len, sizeof(line) - (size_t)len, "}\n");
	/* A daemon that closed may have said why: that is read nevertheless. */
	if (send(client->fd, line, (size_t)len, MSG_NOSIGNAL) != len &&
	    errno != EPIPE && errno != ECONNRESET)
		return -errno;
	return 0;
}

/* A signal, such as a terminal's change of size, does not end the waiting: the
 * reply left behind would be taken for that to the next request.
 */
static int reply_wait(const struct control_client *client, int timeout_ms)
{
	struct pollfd ready = { .fd = client->fd, .events = POLLIN };
	uint64_t due = clock_ms() + (uint64_t)timeout_ms, now;
	int n = poll(&ready, 1, timeout_ms);

	while (n < 0 && errno == EINTR) {
		now = clock_ms();
		n = poll(&ready, 1, now < due ? (int)(due - now) : 0);
	}
	if (n < 0)
		return -errno;
	return n ? 0 : -ETIMEDOUT;
}

/* Reads some more; returns the bytes read, 0 at the end, or -errno. */
static ssize_t reply_read(struct control_client *client)
{
	ssize_t n;

	if (client->room - client->len < CHUNK) {
		size_t room = client->room ? client->room * 2 : CHUNK;
		char *grown = realloc(client->text, room);

		if (!grown)
			return -ENOMEM;
		client->text = grown;
		client->room = room;
	}
	do
		n = read(client->fd, client->text + client->len, CHUNK);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	client->len += (size_t)n;
	return n;
}

int control_client_ask(struct control_client *client,
		       const struct control_request *request, int timeout_ms,
		       struct control_answer **out)
{
	int err = request_send(client, request);
	const char *end = NULL;

	client->len = 0;
	while (!err && !end) {
		size_t before = client->len;
		ssize_t n;

		err = reply_wait(client, timeout_ms);
		if (err)
			return err;
		n = reply_read(client);
		if (n <= 0)
			return n ? (int)n : -ECONNRESET;
		end = memchr(client->text + before, '\n', (size_t)n);
		if (!end && client->len > CONTROL_REPLY_MAX)
			return -EMSGSIZE;
	}
	if (err)
		return err;
	return control_answer_parse(client->text, (size_t)(end - client->text),
				    out);
}
