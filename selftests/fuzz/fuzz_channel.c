/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ChannelData: what the frame says of a stream holds for the whole message, a view
 * stays inside it, and what was read is written again alike.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "stun/stun.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Unlike assert() it stays in every build. */
static void must(bool truth)
{
	if (!truth)
		abort();
}

static void check_written(const struct stun_channel_data *message,
			  const uint8_t *data)
{
	uint8_t head[STUN_CHANNEL_HEADER];

	stun_channel_begin(head, message->number, (uint16_t)message->len);
	must(memcmp(head, data, sizeof(head)) == 0);
}

/* Of this many bytes of it: an exact copy, so that a byte too far is caught. */
static void check_prefix(const uint8_t *data, size_t len)
{
	uint8_t *copy = malloc(len ? len : 1);
	struct stun_channel_data message;
	ssize_t frame;
	int err;

	must(copy);
	memcpy(copy, data, len);
	frame = stun_channel_frame(copy, len);
	must(frame == 0 || (frame >= STUN_CHANNEL_HEADER && frame % 4 == 0));
	must((frame == 0) == (len < STUN_CHANNEL_HEADER));
	err = stun_channel_parse(copy, len, &message);
	must(err == 0 || err == -EBADMSG);
	/* STUN and ChannelData are never taken for each other. */
	must(err || stun_frame(copy, len) < 0);
	must(err || stun_is_channel_data(copy, len));
	if (!err) {
		must(message.data == copy + STUN_CHANNEL_HEADER);
		must(message.len <= len - STUN_CHANNEL_HEADER);
		must((size_t)frame >= STUN_CHANNEL_HEADER + message.len);
		must((size_t)frame < STUN_CHANNEL_HEADER + message.len + 4);
		must(message.number >= 0x4000 && message.number <= 0x7fff);
		check_written(&message, copy);
	} else if (stun_is_channel_data(copy, len)) {
		must(frame == 0 || (size_t)frame + 3 > len);
	}
	free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	check_prefix(data, len);
	for (size_t n = 0; n < len && n < 16; n++)
		check_prefix(data, n);
	return 0;
}
