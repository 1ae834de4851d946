/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Control messages. The first byte chooses who reads the rest: the parser of
 * requests, the parser of replies, or a whole server over a real socket, which
 * gets it in pieces and whose answers must be replies in turn.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "control/client.h"
#include "control/control.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Unlike assert() it stays in every build. */
static void must(bool truth)
{
	if (!truth)
		abort();
}

static struct {
	struct loop *loop;
	struct control_server *server;
	struct sockaddr_un sun;
	struct control_reply *late; /* an answer kept for later */
	unsigned int calls;
} fx;

static void rows_reply(struct control_reply *reply, size_t limit)
{
	struct control_connection row = { .id = "c0.1",
					  .user = (char *)"al\"ice",
					  .state = "held",
					  .engine = "-" };

	control_reply_connections(reply, &row, limit ? 1 : 0, limit);
	control_reply_end(reply);
}

static void late_finish(void)
{
	struct control_reply *reply = fx.late;

	fx.late = NULL;
	if (reply)
		control_reply_ok(reply);
}

static void handle(void *arg, const struct control_request *request,
		   struct control_reply *reply)
{
	(void)arg;
	must(request->limit >= 1 && request->limit <= CONTROL_LIMIT_MAX);
	must(!request->id[0] == (request->command != CONTROL_KICK));
	fx.calls++;
	if (request->command == CONTROL_KICK) {
		late_finish();
		fx.late = reply;
	} else if (request->command == CONTROL_CONNECTIONS) {
		rows_reply(reply, request->limit);
	} else if (request->command == CONTROL_RELOAD) {
		control_reply_error(reply, "no: %s", "\xff\"\\\n");
	} else {
		control_reply_ok(reply);
	}
}

static void socket_remove(void)
{
	unlink(fx.sun.sun_path);
}

static void server_make(void)
{
	int fd;

	if (fx.server)
		return;
	log_set_level(LOG_LEVEL_ERROR);
	fx.sun.sun_family = AF_UNIX;
	snprintf(fx.sun.sun_path, sizeof(fx.sun.sun_path),
		 "/tmp/culvert-fuzz-%d.sock", (int)getpid());
	fd = control_listen(fx.sun.sun_path);
	must(fd >= 0);
	atexit(socket_remove);
	must(!loop_new(&fx.loop));
	must(!control_server_new(fx.loop, fd, 2, handle, NULL, &fx.server));
}

static void turn(int times)
{
	for (int i = 0; i < times; i++)
		must(!loop_tick(fx.loop, 0));
}

/* Every line that comes back is a reply. Returns how many there were. */
static unsigned int replies_read(int fd)
{
	static char text[1 << 20];
	size_t have = 0;
	unsigned int lines = 0;
	ssize_t n;

	while ((n = read(fd, text + have, sizeof(text) - have)) > 0)
		have += (size_t)n;
	for (char *at = text, *end; have; at = end + 1) {
		struct control_answer *answer = NULL;

		end = memchr(at, '\n', have);
		must(end != NULL);
		must(!control_answer_parse(at, (size_t)(end - at), &answer));
		control_answer_free(answer);
		have -= (size_t)(end - at) + 1;
		lines++;
	}
	return lines;
}

static void server_feed(const uint8_t *data, size_t len)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	size_t piece = len ? 1 + data[0] * 16u : 1, sent = 0;
	unsigned int replies = 0;

	must(fd >= 0);
	must(!connect(fd, (struct sockaddr *)&fx.sun, sizeof(fx.sun)));
	fx.calls = 0;
	while (sent < len) {
		size_t size = len - sent < piece ? len - sent : piece;

		/* The server may have closed already. */
		if (send(fd, data + sent, size, MSG_NOSIGNAL) < 0)
			break;
		sent += size;
		turn(2);
	}
	shutdown(fd, SHUT_WR);
	for (int i = 0; i < 100; i++) {
		turn(2);
		replies += replies_read(fd);
		if (!fx.late)
			break;
		late_finish();
	}
	must(replies >= fx.calls);
	close(fd);
	turn(2);
	late_finish();
	turn(1);
}

static void request_feed(const uint8_t *data, size_t len)
{
	struct control_request request;
	const char *error = NULL;
	int err = control_parse_request((const char *)data, len, &request,
					&error);

	must(err == 0 || (err == -EINVAL && error && *error));
	if (err)
		return;
	must(control_command_name(request.command) != NULL);
	must(strlen(request.id) < sizeof(request.id));
}

static void reply_feed(const uint8_t *data, size_t len)
{
	struct control_answer *answer = NULL;
	struct control_status status;
	struct control_allocation *allocations;
	struct control_connection *connections;
	struct control_engine *engines;
	struct control_exit *exits;
	struct control_loss *losses;
	size_t count, total;

	if (control_answer_parse((const char *)data, len, &answer))
		return;
	if (!control_answer_error(answer)) {
		char *json = control_answer_json(answer);

		must(json && !strchr(json, '\n'));
		free(json);
		if (!control_answer_status(answer, &status))
			free(status.per_worker);
		if (!control_answer_allocations(answer, &allocations, &count,
						&total))
			control_allocations_free(allocations, count);
		if (!control_answer_connections(answer, &connections, &count,
						&total))
			control_connections_free(connections, count);
		if (!control_answer_engines(answer, &engines, &count))
			free(engines);
		if (!control_answer_exits(answer, &exits, &count))
			free(exits);
		if (!control_answer_losses(answer, &losses, &count))
			free(losses);
	}
	control_answer_free(answer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (!len)
		return 0;
	server_make();
	switch (data[0] % 3) {
	case 0:
		request_feed(data + 1, len - 1);
		break;
	case 1:
		reply_feed(data + 1, len - 1);
		break;
	default:
		server_feed(data + 1, len - 1);
	}
	return 0;
}
