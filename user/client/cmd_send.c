/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * culvert send: a file or standard input to one peer.
 *
 * allocating -> connecting -> moving -> our end of stream sent -> the peer's end
 * of stream read -> verified. The peer's end tells that it has read ours: before
 * that, bytes may be on their way. What the peer sends meanwhile is dropped.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "client/place.h"
#include "client/say.h"
#include "client/transfer.h"

enum step {
	STEP_MOVED,
	STEP_SOCKET_FULL,
	STEP_SOURCE_EMPTY, /* it may have more later */
	STEP_SOURCE_ENDED,
	STEP_FAILED, /* and said */
};

struct send {
	struct client_transfer transfer;
	union addr peer;
	bool by_hand; /* sendfile(2) does not take this source */
	bool source_ended, peer_ended;
	uint64_t dropped; /* bytes of the peer */
};

static void socket_ready(struct watch *watch, uint32_t events);
static void source_ready(struct watch *watch, uint32_t events);

static void send_fail(struct send *send, const char *what, int error)
{
	client_error("send: %s: %s, after %llu bytes", what, strerror(-error),
		     (unsigned long long)send->transfer.progress.done);
	client_transfer_fail(&send->transfer);
}

static void peer_fail(struct send *send, int error)
{
	char addr[ADDR_STRLEN], what[ADDR_STRLEN + 16];

	snprintf(what, sizeof(what), "connection to peer %s",
		 addr_format(&send->peer, addr));
	send_fail(send, what, error);
}

static enum step step_sendfile(struct send *send)
{
	struct client_transfer *transfer = &send->transfer;
	ssize_t n = sendfile(transfer->fd, transfer->file.fd, NULL,
			     CLIENT_TRANSFER_TURN);

	if (n > 0) {
		transfer->progress.done += (uint64_t)n;
		return STEP_MOVED;
	}
	if (n == 0)
		return STEP_SOURCE_ENDED;
	if (errno == EAGAIN || errno == EINTR)
		return STEP_SOCKET_FULL;
	if (errno == EINVAL || errno == ENOSYS) {
		send->by_hand = true;
		return STEP_MOVED;
	}
	if (errno == EIO)
		send_fail(send, transfer->file.name, -errno);
	else
		peer_fail(send, -errno);
	return STEP_FAILED;
}

static enum step step_read(struct send *send)
{
	struct client_transfer *transfer = &send->transfer;
	ssize_t n = client_file_read(&transfer->file, transfer->buf,
				     CLIENT_TRANSFER_BUFFER);

	if (n == -EAGAIN)
		return STEP_SOURCE_EMPTY;
	if (n < 0) {
		send_fail(send, transfer->file.name, (int)n);
		return STEP_FAILED;
	}
	transfer->off = 0;
	transfer->len = (size_t)n;
	return n ? STEP_MOVED : STEP_SOURCE_ENDED;
}

static enum step step_write(struct send *send)
{
	struct client_transfer *transfer = &send->transfer;
	ssize_t n = sendto(transfer->fd, transfer->buf + transfer->off,
			   transfer->len - transfer->off, MSG_NOSIGNAL, NULL,
			   0);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return STEP_SOCKET_FULL;
	if (n < 0) {
		peer_fail(send, -errno);
		return STEP_FAILED;
	}
	transfer->off += (size_t)n;
	transfer->progress.done += (uint64_t)n;
	return STEP_MOVED;
}

static enum step send_step(struct send *send)
{
	if (send->transfer.off < send->transfer.len)
		return step_write(send);
	if (send->transfer.file.kind == CLIENT_FILE_REGULAR && !send->by_hand)
		return step_sendfile(send);
	return step_read(send);
}

/* Everything is written: tell the peer, and wait for its end of stream. */
static void send_end(struct send *send)
{
	struct client_transfer *transfer = &send->transfer;

	send->source_ended = true;
	client_transfer_watch(transfer, &transfer->file_watch, -1, 0, NULL);
	if (shutdown(transfer->fd, SHUT_WR))
		peer_fail(send, -errno);
	else if (send->peer_ended)
		client_transfer_complete(transfer);
	else
		client_debug("all %llu bytes are sent, waiting for the peer",
			     (unsigned long long)transfer->progress.done);
}

/* Waits for whatever the next step needs. */
static void send_wait(struct send *send, enum step step)
{
	struct client_transfer *transfer = &send->transfer;
	uint32_t events = send->peer_ended ? 0 : EPOLLIN;
	bool source = step == STEP_SOURCE_EMPTY;

	if (transfer->over)
		return;
	if (step == STEP_MOVED || step == STEP_SOCKET_FULL)
		events |= EPOLLOUT;
	client_transfer_watch(transfer, &transfer->watch, transfer->fd, events,
			      socket_ready);
	client_transfer_watch(transfer, &transfer->file_watch,
			      transfer->file.fd, source ? EPOLLIN : 0,
			      source_ready);
}

static void send_move(struct send *send)
{
	struct client_transfer *transfer = &send->transfer;
	uint64_t until = transfer->progress.done + CLIENT_TRANSFER_TURN;
	enum step step = STEP_MOVED;

	while (step == STEP_MOVED && transfer->progress.done < until)
		step = send_step(send);
	if (step == STEP_SOURCE_ENDED)
		send_end(send);
	send_wait(send, step);
}

static void source_ready(struct watch *watch, uint32_t events)
{
	(void)events;
	send_move(list_entry(watch, struct send, transfer.file_watch));
}

/* Reads what the peer says, to notice its end of stream or its reset. */
static void peer_read(struct send *send)
{
	struct client_transfer *transfer = &send->transfer;
	uint8_t dropped[16384];
	ssize_t n = recv(transfer->fd, dropped, sizeof(dropped), 0);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0) {
		peer_fail(send, -errno);
		return;
	}
	if (n > 0) {
		send->dropped += (uint64_t)n;
		return;
	}
	send->peer_ended = true;
	if (send->source_ended)
		client_transfer_complete(transfer);
	else
		send_wait(send, transfer->file_watch.fd >= 0 ?
					STEP_SOURCE_EMPTY :
					STEP_SOCKET_FULL);
}

static void socket_ready(struct watch *watch, uint32_t events)
{
	struct send *send = list_entry(watch, struct send, transfer.watch);

	/* First the peer: a reset says more than the failed write after it. */
	if (events & ~EPOLLOUT && !send->peer_ended)
		peer_read(send);
	if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP) && !send->transfer.over &&
	    !send->source_ended)
		send_move(send);
}

static void send_connected(void *arg, const struct culvert_error *error,
			   const struct culvert_stream *stream)
{
	struct send *send = arg;
	struct client_transfer *transfer = &send->transfer;
	char addr[ADDR_STRLEN], what[ADDR_STRLEN + 16];
	int fd;

	if (transfer->over) {
		fd = stream ? stream->fd : -1;
		fd_reset(&fd);
		return;
	}
	if (error) {
		snprintf(what, sizeof(what), "connecting to %s",
			 addr_format(&send->peer, addr));
		client_session_error(&transfer->session, what, error);
		client_transfer_fail(transfer);
		return;
	}
	client_debug("connected to %s", addr_format(&send->peer, addr));
	transfer->fd = stream->fd;
	send->dropped = stream->early_len;
	client_progress_start(&transfer->progress, transfer->session.loop,
			      transfer->file.name, transfer->file.size);
	send_move(send);
}

static void send_ready(void *arg)
{
	struct send *send = arg;
	int err = culvert_client_connect(send->transfer.client, &send->peer.sa,
					 send_connected, send);

	if (err)
		send_fail(send, "Connect", err);
}

static void send_ended(void *arg, const struct culvert_error *error)
{
	client_transfer_ended(&((struct send *)arg)->transfer, error);
}

enum client_exit client_cmd_send(const struct client_config *config)
{
	static const struct culvert_events events = {
		.ready = send_ready,
		.ended = send_ended,
	};
	struct send send = { .source_ended = false };
	enum client_exit result;
	int err;

	err = client_endpoint_find("--peer", config->peer, NULL, &send.peer);
	if (err)
		return client_exit_for(err);
	result = client_transfer_open(&send.transfer, config, "send", "sent");
	if (result != CLIENT_EXIT_OK)
		return result;
	result = CLIENT_EXIT_FAILURE;
	if (!client_file_open_source(&send.transfer.file,
				     config->operands ? config->operand[0] :
							NULL) &&
	    !client_transfer_start(&send.transfer, addr_family(&send.peer),
				   &events))
		result = client_transfer_run(&send.transfer);
	if (send.dropped)
		client_info("%llu bytes that the peer sent were dropped",
			    (unsigned long long)send.dropped);
	client_transfer_close(&send.transfer);
	return result;
}
