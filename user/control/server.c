/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The control server.
 *
 * A client is in one of three states, told by its fields:
 *   reading    no reply under way, nothing to send: its requests are read
 *   answering  `pending` is with the handler: nothing is read
 *   sending    `out` is not sent whole: nothing is read
 * So requests are answered in order, one at a time; a client that does not read
 * costs one answer, and its further requests wait in its socket.
 *
 * All work on a client is done by client_work(), run at the end of a tick: a
 * handler may answer within its call or later, and neither it nor an event frees
 * anything under its caller's feet. A client that goes leaves its pending reply
 * behind without an owner; finishing that one frees it.
 *
 * The relay shares this process, and its clients may take every descriptor. Then
 * the operator must still get in to see why and to kick somebody: one descriptor
 * is held in reserve, given up for a control client and taken back when one goes.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/list.h"
#include "base/log.h"
#include "base/syscalls.h"
#include "control/answer.h"
#include "control/control.h"

SYSCALLS(SYSCALLS_RELAY, "accept4 getsockopt read sendto");
SYSCALLS_EQUAL(SYSCALLS_RELAY, "fcntl", 1, F_DUPFD_CLOEXEC);

#define ACCEPTS_MAX     16 /* connections taken in one round */
#define FLUSH_MAX       ((size_t)1 << 20) /* bytes sent to one client in a round */
#define ACCEPT_PAUSE_MS 100 /* after running out of descriptors */

struct control_server {
	struct loop *loop;
	struct watch watch;
	struct timer accept_pause;
	int reserve; /* a descriptor held for a bad day; -1: given up */
	struct list clients;
	unsigned int client_count, client_max;
	uint64_t idle_ms;
	control_handler_fn handler;
	void *arg;
	struct log_limit accept_log;
};

struct client {
	struct list link;
	struct control_server *server;
	struct watch watch;
	struct timer idle;
	struct deferred work;
	struct control_reply *pending;
	struct ucred peer;
	const char *out; /* what is being sent; NULL: nothing */
	char *out_owned; /* to be freed when it is sent; NULL: out is static */
	size_t out_len, out_sent;
	size_t in_len;
	bool eof; /* no more requests will come */
	bool last; /* close when `out` is sent */
	bool gone; /* to be freed by client_work */
	char in[CONTROL_REQUEST_MAX + 1]; /* a line and its end */
};

struct control_reply {
	struct client *client; /* NULL: it has gone */
	enum control_command command;
	struct answer list; /* as far as it is written */
};

static const char no_memory[] =
	"{\"v\":1,\"ok\":false,\"error\":\"the daemon has no memory for the "
	"answer: ask for less, or again\"}\n";

static const char too_many[] =
	"{\"v\":1,\"ok\":false,\"error\":\"too many control connections: close "
	"some, or raise control_clients in [limits]\"}\n";

static void client_work(struct deferred *work);

static void client_touch(struct client *client)
{
	loop_defer(client->server->loop, &client->work, client_work);
}

static void client_drop(struct client *client)
{
	client->gone = true;
	client_touch(client);
}

static void idle_expired(struct timer *timer)
{
	client_drop(list_entry(timer, struct client, idle));
}

static void idle_restart(struct client *client)
{
	timer_arm(client->server->loop, &client->idle, client->server->idle_ms,
		  idle_expired);
}

/* Any descriptor will do: a second one of the socket costs least. */
static void reserve_take(struct control_server *server, int fd)
{
	if (server->reserve < 0)
		server->reserve = fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

static void client_free(struct client *client)
{
	struct control_server *server = client->server;
	int fd = client->watch.fd;

	if (client->pending)
		client->pending->client = NULL;
	if (client->work.queued)
		list_del(&client->work.link);
	timer_cancel(server->loop, &client->idle);
	watch_del(server->loop, &client->watch);
	fd_close(&fd);
	reserve_take(server, server->watch.fd);
	free(client->out_owned);
	list_del(&client->link);
	server->client_count--;
	free(client);
}

/* Takes over a finished answer. */
static void client_send(struct client *client, struct answer *answer)
{
	client->out_sent = 0;
	if (answer->failed) {
		free(answer->text);
		client->out = no_memory;
		client->out_len = sizeof(no_memory) - 1;
	} else {
		client->out = client->out_owned = answer->text;
		client->out_len = answer->len;
	}
	idle_restart(client);
	client_touch(client);
}

static void client_refuse(struct client *client, const char *error)
{
	struct answer answer = { .text = NULL };

	answer_error(&answer, error);
	client_send(client, &answer);
}

/* Returns true when all is sent; false: later, or the client went. */
static bool client_flush(struct client *client)
{
	size_t stop = client->out_sent + FLUSH_MAX;
	ssize_t n;

	while (client->out_sent < client->out_len) {
		if (client->out_sent >= stop)
			return false;
		n = send(client->watch.fd, client->out + client->out_sent,
			 client->out_len - client->out_sent, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			client->gone |= errno != EAGAIN;
			return false;
		}
		client->out_sent += (size_t)n;
		idle_restart(client);
	}
	free(client->out_owned);
	client->out = client->out_owned = NULL;
	client->out_len = client->out_sent = 0;
	return true;
}

/* What changes something is logged with who asked for it. */
static void command_log(const struct client *client,
			const struct control_request *request)
{
	switch (request->command) {
	case CONTROL_STATUS:
	case CONTROL_ALLOCATIONS:
	case CONTROL_CONNECTIONS:
	case CONTROL_ENGINES:
	case CONTROL_EXITS:
		return;
	case CONTROL_KICK:
	case CONTROL_DRAIN:
	case CONTROL_UNDRAIN:
	case CONTROL_RELOAD:
	case CONTROL_FORGET:
	case CONTROL_STOP:
		break;
	}
	log_info("control", "event=command cmd=%s%s%s uid=%u pid=%d",
		 control_command_name(request->command),
		 request->id[0] ? " id=" : "", request->id,
		 (unsigned int)client->peer.uid, (int)client->peer.pid);
}

static void client_request(struct client *client, const char *line, size_t len)
{
	struct control_request request;
	struct control_reply *reply;
	const char *error;

	if (control_parse_request(line, len, &request, &error)) {
		client_refuse(client, error);
		return;
	}
	reply = calloc(1, sizeof(*reply));
	if (!reply) {
		struct answer none = { .failed = true };

		client_send(client, &none);
		return;
	}
	reply->client = client;
	reply->command = request.command;
	client->pending = reply;
	timer_cancel(client->server->loop, &client->idle);
	command_log(client, &request);
	client->server->handler(client->server->arg, &request, reply);
}

/* Handles one line of the buffer. Returns false when there is no whole one. */
static bool client_take_line(struct client *client)
{
	char line[sizeof(client->in)];
	char *end = memchr(client->in, '\n', client->in_len);
	size_t len = end ? (size_t)(end - client->in) : client->in_len;
	size_t taken = len + (end != NULL);

	if (!end && client->in_len == sizeof(client->in)) {
		client->last = true;
		client->in_len = 0;
		client_refuse(client, "the request is longer than 4096 bytes: "
				      "send a shorter one");
		return false;
	}
	/* The last line may lack its end. */
	if (!end && !(client->eof && client->in_len))
		return false;
	memcpy(line, client->in, len);
	client->in_len -= taken;
	memmove(client->in, client->in + taken, client->in_len);
	if (len)
		client_request(client, line, len);
	return true;
}

static void client_watch(struct client *client)
{
	uint32_t events = 0;

	if (client->out)
		events = EPOLLOUT;
	else if (!client->pending && !client->eof)
		events = EPOLLIN;
	watch_set(client->server->loop, &client->watch, events);
}

static void client_work(struct deferred *work)
{
	struct client *client = list_entry(work, struct client, work);

	if (!client->gone && client->out && client_flush(client) &&
	    client->last)
		client->gone = true;
	while (!client->gone && !client->last && !client->out &&
	       !client->pending && client_take_line(client))
		;
	/* With a reply or output made just now there is another round. */
	if (client->eof && !client->pending && !client->out && !client->in_len)
		client->gone = true;
	if (client->gone)
		client_free(client);
	else if (!client->work.queued)
		client_watch(client);
}

static void client_read(struct client *client)
{
	ssize_t n = read(client->watch.fd, client->in + client->in_len,
			 sizeof(client->in) - client->in_len);

	if (n > 0) {
		client->in_len += (size_t)n;
		idle_restart(client);
	} else if (n == 0) {
		client->eof = true;
	} else if (errno != EAGAIN && errno != EINTR) {
		client->gone = true;
	}
}

static void client_ready(struct watch *watch, uint32_t events)
{
	struct client *client = list_entry(watch, struct client, watch);

	/* EPOLLHUP: the other end is closed, nobody would read an answer. Yet
	 * requests that came before may still want their effect.
	 */
	if (events & EPOLLERR ||
	    (events & EPOLLHUP && (client->pending || client->out)))
		client->gone = true;
	else if (events & (EPOLLIN | EPOLLHUP) && !client->eof &&
		 !client->pending && !client->out)
		client_read(client);
	client_touch(client);
}

static void client_accept(struct control_server *server, int fd)
{
	struct client *client;
	socklen_t len = sizeof(client->peer);

	client = server->client_count < server->client_max ?
			 calloc(1, sizeof(*client)) :
			 NULL;
	if (!client) {
		/* A fresh socket takes one line; if not, nothing is lost. */
		if (send(fd, too_many, sizeof(too_many) - 1, MSG_NOSIGNAL) < 0)
			log_debug("control", "event=refused");
		fd_close(&fd);
		return;
	}
	client->server = server;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &client->peer, &len) < 0)
		client->peer.uid = (uid_t)-1;
	if (watch_add(server->loop, &client->watch, fd, EPOLLIN,
		      client_ready)) {
		fd_close(&fd);
		free(client);
		return;
	}
	list_add_tail(&client->link, &server->clients);
	server->client_count++;
	idle_restart(client);
}

static void accept_resume(struct timer *timer)
{
	struct control_server *server =
		list_entry(timer, struct control_server, accept_pause);

	reserve_take(server, server->watch.fd);
	watch_set(server->loop, &server->watch, EPOLLIN);
}

/* Without descriptors the waiting connection would wake the loop for ever. */
static void accept_failed(struct control_server *server, int err)
{
	uint64_t suppressed;

	watch_set(server->loop, &server->watch, 0);
	timer_arm(server->loop, &server->accept_pause, ACCEPT_PAUSE_MS,
		  accept_resume);
	if (log_allow(&server->accept_log, loop_now(server->loop), &suppressed))
		log_warn("control",
			 "event=accept_failed error=\"%s\" suppressed=%llu",
			 strerror(err), (unsigned long long)suppressed);
}

static int accept_one(struct control_server *server)
{
	const int flags = SOCK_NONBLOCK | SOCK_CLOEXEC;
	int fd = accept4(server->watch.fd, NULL, NULL, flags);

	if (fd >= 0 || (errno != EMFILE && errno != ENFILE) ||
	    server->reserve < 0)
		return fd;
	fd_close(&server->reserve);
	return accept4(server->watch.fd, NULL, NULL, flags);
}

static void accept_ready(struct watch *watch, uint32_t events)
{
	struct control_server *server =
		list_entry(watch, struct control_server, watch);

	(void)events;
	for (int i = 0; i < ACCEPTS_MAX; i++) {
		int fd = accept_one(server);

		if (fd >= 0) {
			client_accept(server, fd);
			continue;
		}
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			accept_failed(server, errno);
		return;
	}
}

int control_server_new(struct loop *loop, int fd, unsigned int max_clients,
		       control_handler_fn handler, void *arg,
		       struct control_server **out)
{
	struct control_server *server = calloc(1, sizeof(*server));
	int err;

	if (!server) {
		fd_close(&fd);
		return -ENOMEM;
	}
	server->loop = loop;
	server->client_max = max_clients;
	server->idle_ms = CONTROL_IDLE_MS;
	server->handler = handler;
	server->arg = arg;
	server->reserve = -1;
	reserve_take(server, fd);
	list_init(&server->clients);
	answer_init();
	err = watch_add(loop, &server->watch, fd, EPOLLIN, accept_ready);
	if (err) {
		fd_close(&server->reserve);
		fd_close(&fd);
		free(server);
		return err;
	}
	*out = server;
	return 0;
}

void control_server_set_idle(struct control_server *server, uint64_t idle_ms)
{
	server->idle_ms = idle_ms;
}

void control_server_free(struct control_server *server)
{
	struct list *pos, *tmp;
	int fd;

	if (!server)
		return;
	list_for_each_safe(pos, tmp, &server->clients)
		client_free(list_entry(pos, struct client, link));
	timer_cancel(server->loop, &server->accept_pause);
	fd = server->watch.fd;
	watch_del(server->loop, &server->watch);
	fd_close(&server->reserve);
	fd_close(&fd);
	free(server);
}

/* The answer goes to the client if it is still there. */
static void reply_finish(struct control_reply *reply, struct answer *answer)
{
	struct client *client = reply->client;

	if (client) {
		client->pending = NULL;
		client_send(client, answer);
	} else {
		free(answer->text);
	}
	if (answer != &reply->list)
		free(reply->list.text);
	free(reply);
}

void control_reply_ok(struct control_reply *reply)
{
	struct answer answer = { .text = NULL };

	answer_ok(&answer, reply->command);
	reply_finish(reply, &answer);
}

void control_reply_error(struct control_reply *reply, const char *fmt, ...)
{
	struct answer answer = { .text = NULL };
	char *message = NULL;
	va_list args;

	va_start(args, fmt);
	if (vasprintf(&message, fmt, args) < 0)
		message = NULL;
	va_end(args);
	if (message)
		answer_error(&answer, message);
	else
		answer.failed = true;
	free(message);
	reply_finish(reply, &answer);
}

void control_reply_status(struct control_reply *reply,
			  const struct control_status *status)
{
	struct answer answer = { .text = NULL };

	answer_status(&answer, status);
	reply_finish(reply, &answer);
}

void control_reply_allocations(struct control_reply *reply,
			       const struct control_allocation *rows,
			       size_t count, size_t total)
{
	if (reply->client)
		answer_allocations(&reply->list, rows, count, total);
}

void control_reply_connections(struct control_reply *reply,
			       const struct control_connection *rows,
			       size_t count, size_t total)
{
	if (reply->client)
		answer_connections(&reply->list, rows, count, total);
}

void control_reply_end(struct control_reply *reply)
{
	answer_list_end(&reply->list);
	reply_finish(reply, &reply->list);
}

void control_reply_engines(struct control_reply *reply,
			   const struct control_engine *rows, size_t count)
{
	struct answer answer = { .text = NULL };

	answer_engines(&answer, rows, count);
	reply_finish(reply, &answer);
}

void control_reply_exits(struct control_reply *reply,
			 const struct control_exits *exits)
{
	struct answer answer = { .text = NULL };

	answer_exits(&answer, exits);
	reply_finish(reply, &answer);
}
