/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * culvert receive: one stream of a peer into a file or standard output.
 *
 * allocating -> permitting -> waiting for the peer -> moving -> its end of stream
 * read and everything written and synced -> our end of stream sent -> verified.
 * The socket is read only as fast as the sink takes.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "client/place.h"
#include "client/say.h"
#include "client/transfer.h"

struct receive {
	struct client_transfer transfer;
	union addr allow[CULVERT_PERMISSIONS_MAX];
	size_t allow_count;
	size_t permitting; /* requests under way */
	size_t permitted;
	bool attempted; /* a peer is being accepted; others are refused */
	bool peer_ended; /* what is buffered is the last */
};

static void socket_ready(struct watch *watch, uint32_t events);
static void sink_ready(struct watch *watch, uint32_t events);

static void sink_fail(struct receive *receive, int error)
{
	struct client_transfer *transfer = &receive->transfer;
	const char *advice = "it is incomplete";

	if (error == -ENOSPC || error == -EDQUOT)
		advice = "it is incomplete; make room and receive it again";
	else if (error == -EPIPE)
		advice = "its reader went away";
	client_error("receive: writing %s: %s, after %llu bytes; %s",
		     transfer->file.name, strerror(-error),
		     (unsigned long long)transfer->progress.done, advice);
	client_transfer_fail(transfer);
}

static void peer_fail(struct receive *receive, int error)
{
	client_error("receive: the peer's connection broke: %s, after %llu "
		     "bytes; %s is incomplete",
		     strerror(-error),
		     (unsigned long long)receive->transfer.progress.done,
		     receive->transfer.file.name);
	client_transfer_fail(&receive->transfer);
}

/* The stream has ended and is written. */
static void receive_end(struct receive *receive)
{
	struct client_transfer *transfer = &receive->transfer;
	int err = client_file_sync(&transfer->file);

	if (err) {
		sink_fail(receive, err);
		return;
	}
	/* The peer may be gone already; it has said all. */
	shutdown(transfer->fd, SHUT_WR);
	client_transfer_complete(transfer);
}

/* Writes what is buffered: 0 when nothing is left, -EAGAIN, other -errno. */
static int sink_drain(struct receive *receive)
{
	struct client_transfer *transfer = &receive->transfer;
	ssize_t n;

	while (transfer->off < transfer->len) {
		n = client_file_write(&transfer->file,
				      transfer->buf + transfer->off,
				      transfer->len - transfer->off);
		if (n < 0)
			return (int)n;
		transfer->off += (size_t)n;
		transfer->progress.done += (uint64_t)n;
	}
	transfer->off = transfer->len = 0;
	return 0;
}

/* Waits for the socket, or for the sink when that is full. */
static void receive_wait(struct receive *receive, bool sink_full)
{
	struct client_transfer *transfer = &receive->transfer;

	client_transfer_watch(transfer, &transfer->watch, transfer->fd,
			      sink_full ? 0 : EPOLLIN, socket_ready);
	client_transfer_watch(transfer, &transfer->file_watch,
			      transfer->file.fd, sink_full ? EPOLLOUT : 0,
			      sink_ready);
}

/* Fills the buffer: bytes, 0 at the end of stream, -errno. */
static ssize_t socket_fill(struct receive *receive)
{
	struct client_transfer *transfer = &receive->transfer;
	ssize_t n =
		recv(transfer->fd, transfer->buf, CLIENT_TRANSFER_BUFFER, 0);

	if (n < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	transfer->off = 0;
	transfer->len = (size_t)n;
	receive->peer_ended = n == 0;
	return n;
}

static void receive_move(struct receive *receive)
{
	struct client_transfer *transfer = &receive->transfer;
	uint64_t until = transfer->progress.done + CLIENT_TRANSFER_TURN;
	ssize_t n = 1;
	int err = 0;

	while (n > 0 && transfer->progress.done < until) {
		err = sink_drain(receive);
		if (err || receive->peer_ended)
			break;
		n = socket_fill(receive);
	}
	if (err && err != -EAGAIN)
		sink_fail(receive, err);
	else if (n < 0 && n != -EAGAIN)
		peer_fail(receive, (int)n);
	else if (receive->peer_ended && !err)
		receive_end(receive);
	else
		receive_wait(receive, err == -EAGAIN);
}

static void socket_ready(struct watch *watch, uint32_t events)
{
	(void)events;
	receive_move(list_entry(watch, struct receive, transfer.watch));
}

static void sink_ready(struct watch *watch, uint32_t events)
{
	(void)events;
	receive_move(list_entry(watch, struct receive, transfer.file_watch));
}

/* What came before the descriptor was ours goes first. */
static void early_take(struct receive *receive,
		       const struct culvert_stream *stream)
{
	struct client_transfer *transfer = &receive->transfer;

	memcpy(transfer->buf, stream->early, stream->early_len);
	transfer->off = 0;
	transfer->len = stream->early_len;
}

static void receive_accepted(void *arg, const struct culvert_stream *stream)
{
	struct receive *receive = arg;
	struct client_transfer *transfer = &receive->transfer;
	char addr[ADDR_STRLEN];
	int fd = stream->fd, err;

	if (transfer->over || transfer->fd >= 0) {
		fd_reset(&fd);
		return;
	}
	client_debug("peer %s connected",
		     addr_format((const union addr *)stream->peer, addr));
	transfer->fd = fd;
	err = client_file_truncate(&transfer->file);
	if (err) {
		sink_fail(receive, err);
		return;
	}
	early_take(receive, stream);
	client_progress_start(&transfer->progress, transfer->session.loop,
			      transfer->file.name, 0);
	receive_move(receive);
}

static bool receive_attempt(void *arg, const struct sockaddr *peer)
{
	struct receive *receive = arg;
	bool first = !receive->attempted;

	(void)peer;
	receive->attempted = true;
	return first;
}

static void receive_attempt_failed(void *arg, const struct sockaddr *peer,
				   const struct culvert_error *error)
{
	struct receive *receive = arg;
	char addr[ADDR_STRLEN], what[ADDR_STRLEN + 16];

	snprintf(what, sizeof(what), "accepting %s",
		 addr_format((const union addr *)peer, addr));
	client_session_error(&receive->transfer.session, what, error);
	receive->attempted = false;
}

static void receive_announce(struct receive *receive)
{
	struct culvert_info info;
	char addr[ADDR_STRLEN];

	culvert_client_info(receive->transfer.client, &info);
	/* Scripts wait for this line: it is no message of ours. */
	fprintf(stderr, "relayed %s\n",
		addr_format((const union addr *)&info.relayed, addr));
}

static void receive_permitted(void *arg, const struct culvert_error *error)
{
	struct receive *receive = arg;
	struct client_transfer *transfer = &receive->transfer;

	if (error)
		client_session_error(&transfer->session, "--allow", error);
	else
		receive->permitted++;
	if (--receive->permitting || transfer->over)
		return;
	/* One forbidden address is told; with none left nobody can come. */
	if (receive->permitted)
		receive_announce(receive);
	else
		client_transfer_fail(transfer);
}

static void receive_ready(void *arg)
{
	struct receive *receive = arg;
	struct client_transfer *transfer = &receive->transfer;
	int err;

	for (size_t i = 0; i < receive->allow_count; i++) {
		err = culvert_client_permit(transfer->client,
					    &receive->allow[i].sa,
					    receive_permitted, receive);
		if (err == -EALREADY) /* named twice */
			continue;
		if (err) {
			client_error("receive: --allow: %s", strerror(-err));
			client_transfer_fail(transfer);
			return;
		}
		receive->permitting++;
	}
}

static void receive_ended(void *arg, const struct culvert_error *error)
{
	client_transfer_ended(&((struct receive *)arg)->transfer, error);
}

enum client_exit client_cmd_receive(const struct client_config *config)
{
	static const struct culvert_events events = {
		.ready = receive_ready,
		.attempt = receive_attempt,
		.accepted = receive_accepted,
		.attempt_failed = receive_attempt_failed,
		.ended = receive_ended,
	};
	struct receive receive = { .permitted = 0 };
	enum client_exit result;
	int err;

	err = client_allow_read(config->allow, receive.allow,
				CULVERT_PERMISSIONS_MAX, &receive.allow_count);
	if (err)
		return client_exit_for(err);
	result = client_transfer_open(&receive.transfer, config, "receive",
				      "received");
	if (result != CLIENT_EXIT_OK)
		return result;
	result = CLIENT_EXIT_FAILURE;
	if (!client_file_open_sink(&receive.transfer.file,
				   config->operands ? config->operand[0] :
						      NULL) &&
	    !client_transfer_start(&receive.transfer,
				   addr_family(&receive.allow[0]), &events))
		result = client_transfer_run(&receive.transfer);
	client_transfer_close(&receive.transfer);
	return result;
}
