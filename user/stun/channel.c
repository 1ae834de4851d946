/* SPDX-License-Identifier: BSD-2-Clause */
/* ChannelData messages (RFC 8656 12.4). */
#include <errno.h>

#include "base/bytes.h"
#include "stun/internal.h"
#include "stun/stun.h"

bool stun_is_channel_data(const uint8_t *data, size_t len)
{
	return len > 0 && (data[0] & 0xc0) == 0x40;
}

ssize_t stun_channel_frame(const uint8_t *data, size_t len)
{
	if (len < STUN_CHANNEL_HEADER)
		return 0;
	return STUN_CHANNEL_HEADER + (ssize_t)stun_padded(get_be16(data + 2));
}

int stun_channel_parse(const uint8_t *data, size_t len,
		       struct stun_channel_data *out)
{
	size_t told;

	if (!stun_is_channel_data(data, len) || len < STUN_CHANNEL_HEADER)
		return -EBADMSG;
	told = get_be16(data + 2);
	if (told > len - STUN_CHANNEL_HEADER)
		return -EBADMSG;
	out->number = get_be16(data);
	out->data = data + STUN_CHANNEL_HEADER;
	out->len = told;
	return 0;
}

void stun_channel_begin(uint8_t head[STUN_CHANNEL_HEADER], uint16_t number,
			uint16_t len)
{
	put_be16(head, number);
	put_be16(head + 2, len);
}
