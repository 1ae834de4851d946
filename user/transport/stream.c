/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Connections that carry messages.
 *
 *   open -> closed (closed() will follow, or has) -> freed
 *   open -> detached (the descriptor went to somebody else) -> freed
 *
 * Bytes are read into the stack; only an unfinished message is kept on the heap,
 * and no more of it than message_max. What the kernel does not take of a message
 * to send is queued, up to queue_max: a client that does not read its answers is
 * closed, not waited for.
 *
 * Failures inside transport_stream_send and the read are told by closed() from the loop's
 * deferred work, so no caller finds its object gone under its feet.
 *
 * With a seal its handshake comes first, inside the reads; nothing is sent before
 * the owner has had something to answer.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "base/syscalls.h"
#include "transport/transport.h"

SYSCALLS(SYSCALLS_RELAY, "recvfrom sendto");

struct bytes {
	uint8_t *data;
	size_t len;
};

struct stream {
	struct watch watch;
	struct deferred work; /* closed(), or the initial bytes */
	struct stream_params params;
	bool open;
	bool handshaking;
	bool paused; /* nothing is read; `kept` may hold more than a message */
	enum stream_close why;
	struct bytes kept; /* an unfinished message */
	struct bytes queued; /* to be sent */
	/* While `received` runs: what it was shown. */
	const uint8_t *shown;
	size_t shown_len;
};

static void bytes_clear(struct bytes *bytes)
{
	free(bytes->data);
	*bytes = (struct bytes){ 0 };
}

/* Replaces the content by a copy that may overlap it. 0 or -ENOMEM. */
static int bytes_set(struct bytes *bytes, const uint8_t *data, size_t len)
{
	uint8_t *copy = NULL;

	if (len) {
		copy = malloc(len);
		if (!copy)
			return -ENOMEM;
		memcpy(copy, data, len);
	}
	free(bytes->data);
	bytes->data = copy;
	bytes->len = len;
	return 0;
}

static int bytes_append(struct bytes *bytes, const uint8_t *data, size_t len)
{
	uint8_t *grown = realloc(bytes->data, bytes->len + len);

	if (!grown)
		return -ENOMEM;
	memcpy(grown + bytes->len, data, len);
	bytes->data = grown;
	bytes->len += len;
	return 0;
}

/* What to wait for, from the state alone. */
static uint32_t stream_events(const struct stream *stream)
{
	const struct seal *seal = stream->params.seal;

	if (!stream->open)
		return 0;
	/* What has arrived waits: to be told of it again would not help. */
	if (seal && seal->blocked && !stream->paused)
		return EPOLLOUT;
	return (stream->paused ? 0 : EPOLLIN) |
	       (stream->queued.len ? EPOLLOUT : 0);
}

static void watch_update(struct stream *stream)
{
	watch_set(stream->params.loop, &stream->watch, stream_events(stream));
}

static void closed_deliver(struct deferred *work)
{
	struct stream *stream = list_entry(work, struct stream, work);

	stream->params.ops->closed(stream->params.arg, stream->why);
}

bool transport_stream_has_room(const struct stream *stream, size_t len)
{
	const size_t room = stream->params.queue_max;

	return stream->queued.len ? stream->queued.len + len <= room / 2 :
				    len <= room;
}

void transport_stream_close(struct stream *stream, enum stream_close why)
{
	struct seal *seal = stream->params.seal;

	if (!stream->open)
		return;
	stream->open = false;
	stream->why = why;
	/* Best effort: who does not read his answers is not waited for. */
	if (seal && seal->open)
		seal->ops->end(seal);
	watch_close(stream->params.loop, &stream->watch);
	bytes_clear(&stream->kept);
	bytes_clear(&stream->queued);
	loop_defer(stream->params.loop, &stream->work, closed_deliver);
}

/*
 * Shows the bytes to the owner until it has had enough. Returns how many it
 * consumed; the stream may be closed or detached afterwards.
 */
static size_t bytes_show(struct stream *stream, const uint8_t *data, size_t len)
{
	size_t at = 0;
	ssize_t n;

	while (at < len && stream->open && !stream->paused) {
		stream->shown = data + at;
		stream->shown_len = len - at;
		n = stream->params.ops->received(stream->params.arg, data + at,
						 len - at);
		stream->shown = NULL;
		if (n < 0)
			transport_stream_close(stream, STREAM_CLOSE_PROTOCOL);
		if (n <= 0)
			break;
		at += (size_t)n;
	}
	return at;
}

static void bytes_arrived(struct stream *stream, const uint8_t *data,
			  size_t len)
{
	size_t done = bytes_show(stream, data, len);

	if (!stream->open)
		return;
	if (!stream->paused && len - done >= stream->params.message_max)
		transport_stream_close(stream, STREAM_CLOSE_PROTOCOL);
	else if (bytes_set(&stream->kept, data + done, len - done))
		transport_stream_close(stream, STREAM_CLOSE_ERROR);
}

/* How a failure of the connection is called. */
static enum stream_close close_reason(const struct stream *stream, ssize_t err)
{
	if (err == -EKEYEXPIRED)
		return STREAM_CLOSE_KEY;
	return stream->params.seal && stream->params.seal->why ?
		       STREAM_CLOSE_SEAL :
		       STREAM_CLOSE_ERROR;
}

static void seal_look(struct stream *stream)
{
	const struct seal *seal = stream->params.seal;

	if (!stream->handshaking || !seal || !seal->open)
		return;
	stream->handshaking = false;
	if (stream->params.ops->opened)
		stream->params.ops->opened(stream->params.arg);
}

/* What the seal holds already no polling would tell of. */
static bool seal_has_more(const struct stream *stream)
{
	return stream->params.seal && stream->params.seal->more;
}

/* true: there is more, of which no polling would tell. */
static bool read_once(struct stream *stream)
{
	uint8_t buf[STREAM_MESSAGE_MAX + STREAM_READ_MAX] BYTES_UNSET;
	size_t have = stream->kept.len;
	ssize_t n;

	assert(have <= STREAM_MESSAGE_MAX);
	if (have)
		memcpy(buf, stream->kept.data, have);
	n = seal_recv(stream->params.seal, stream->watch.fd, buf + have,
		      STREAM_READ_MAX);
	seal_look(stream);
	if (n > 0)
		bytes_arrived(stream, buf, have + (size_t)n);
	else if (n == 0)
		transport_stream_close(stream, STREAM_CLOSE_EOF);
	else if (n != -EAGAIN && n != -EINTR)
		transport_stream_close(stream, close_reason(stream, n));
	if (stream->open && stream->params.seal)
		watch_update(stream);
	return stream->open && !stream->paused && seal_has_more(stream);
}

static void stream_read(struct stream *stream)
{
	while (read_once(stream))
		;
}

/* Sends what the kernel takes. The count, 0 when it takes nothing now. */
static ssize_t send_some(struct stream *stream, const void *data, size_t len)
{
	ssize_t n = seal_send(stream->params.seal, stream->watch.fd, data, len);

	return n == -EAGAIN || n == -EINTR ? 0 : n;
}

static void stream_flush(struct stream *stream)
{
	struct bytes *queued = &stream->queued;
	ssize_t n = send_some(stream, queued->data, queued->len);

	if (n < 0) {
		transport_stream_close(stream, close_reason(stream, n));
		return;
	}
	queued->len -= (size_t)n;
	if (queued->len)
		memmove(queued->data, queued->data + n, queued->len);
	else
		bytes_clear(queued);
	watch_update(stream);
}

static void stream_ready(struct watch *watch, uint32_t events)
{
	struct stream *stream = list_entry(watch, struct stream, watch);
	const struct seal *seal = stream->params.seal;
	bool blocked = seal && seal->blocked;

	if (events & EPOLLOUT && stream->queued.len)
		stream_flush(stream);
	if (stream->paused) {
		/* Reading would find what it may not show; both ways are dead. */
		if (events & (EPOLLERR | EPOLLHUP))
			transport_stream_close(stream, STREAM_CLOSE_ERROR);
		return;
	}
	/* Errors and hang-ups are found by reading. */
	if (stream->open && (blocked || events & ~(uint32_t)EPOLLOUT))
		stream_read(stream);
}

static int queue_add(struct stream *stream, const uint8_t *data, size_t len)
{
	if (len > stream->params.queue_max - stream->queued.len) {
		transport_stream_close(stream, STREAM_CLOSE_QUEUE_FULL);
		return -ENOBUFS;
	}
	if (bytes_append(&stream->queued, data, len)) {
		transport_stream_close(stream, STREAM_CLOSE_ERROR);
		return -ENOMEM;
	}
	watch_update(stream);
	return 0;
}

int transport_stream_send(struct stream *stream, const void *data, size_t len)
{
	ssize_t n = 0;

	if (!stream->open)
		return -EPIPE;
	if (!stream->queued.len)
		n = send_some(stream, data, len);
	if (n < 0) {
		transport_stream_close(stream, close_reason(stream, n));
		return (int)n;
	}
	if ((size_t)n == len)
		return 0;
	return queue_add(stream, (const uint8_t *)data + n, len - (size_t)n);
}

/* Shows what is in `kept` as if just read. */
static void kept_show(struct stream *stream)
{
	struct bytes kept = stream->kept;

	stream->kept = (struct bytes){ 0 };
	bytes_arrived(stream, kept.data, kept.len);
	free(kept.data);
}

/* Begins, or goes on, with what has come already. */
static void kept_go_on(struct stream *stream)
{
	kept_show(stream);
	if (stream->open)
		watch_update(stream);
	if (stream->open && !stream->paused && seal_has_more(stream))
		stream_read(stream);
}

static void initial_deliver(struct deferred *work)
{
	kept_go_on(list_entry(work, struct stream, work));
}

void transport_stream_pause(struct stream *stream)
{
	stream->paused = true;
	watch_update(stream);
}

void transport_stream_resume(struct stream *stream)
{
	if (!stream->open || !stream->paused)
		return;
	stream->paused = false;
	kept_go_on(stream);
}

int transport_stream_new(const struct stream_params *params, int fd,
			 struct stream **out)
{
	struct stream *stream;
	int err;

	assert(params->message_max <= STREAM_MESSAGE_MAX);
	stream = calloc(1, sizeof(*stream));
	if (!stream)
		return -ENOMEM;
	stream->params = *params;
	stream->open = true;
	stream->handshaking = params->seal && !params->seal->open;
	err = bytes_set(&stream->kept, params->initial, params->initial_len);
	if (err)
		goto free_stream;
	err = watch_add(params->loop, &stream->watch, fd, EPOLLIN,
			stream_ready);
	if (err)
		goto free_kept;
	watch_own(params->loop, &stream->watch);
	/* Deferred work runs before any event of this descriptor. */
	if (stream->kept.len || seal_has_more(stream))
		loop_defer(params->loop, &stream->work, initial_deliver);
	*out = stream;
	return 0;

free_kept:
	bytes_clear(&stream->kept);
free_stream:
	free(stream);
	return err;
}

void transport_stream_free(struct stream *stream)
{
	if (!stream)
		return;
	loop_undefer(&stream->work);
	watch_close(stream->params.loop, &stream->watch);
	seal_free(stream->params.seal);
	bytes_clear(&stream->kept);
	bytes_clear(&stream->queued);
	free(stream);
}

int transport_stream_detach(struct stream *stream, size_t consumed,
			    struct stream_parts *out)
{
	struct bytes behind = { 0 };

	assert(stream->shown && consumed <= stream->shown_len);
	if (!stream->open)
		return -EPIPE;
	if (stream->queued.len)
		return -EAGAIN;
	if (bytes_set(&behind, stream->shown + consumed,
		      stream->shown_len - consumed))
		return -ENOMEM;
	*out = (struct stream_parts){
		.fd = stream->watch.fd,
		.seal = stream->params.seal,
		.rest = behind.data,
		.rest_len = behind.len,
	};
	stream->params.seal = NULL;
	watch_del(stream->params.loop, &stream->watch);
	bytes_clear(&stream->kept);
	stream->open = false;
	return 0;
}

const char *transport_stream_why(const struct stream *stream)
{
	const struct seal *seal = stream->params.seal;

	return seal && seal->why ? seal->why : "";
}

bool transport_stream_sealed(const struct stream *stream)
{
	return stream->params.seal;
}

int transport_stream_fd(const struct stream *stream)
{
	return stream->watch.fd;
}
