/* SPDX-License-Identifier: BSD-2-Clause */
/* Framing, checking and walking STUN messages. */
#include "stun/stun.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "stun/internal.h"

ssize_t stun_frame(const uint8_t *data, size_t len)
{
	static const uint8_t cookie[4] = { 0x21, 0x12, 0xa4, 0x42 };

	if (len > 0 && data[0] & 0xc0)
		return -EBADMSG;
	if (len > 3 && data[3] & 3)
		return -EBADMSG;
	for (size_t i = 0; i < sizeof(cookie) && i + 4 < len; i++)
		if (data[4 + i] != cookie[i])
			return -EBADMSG;
	if (len < STUN_HEADER_LEN)
		return 0;
	return STUN_HEADER_LEN + (ssize_t)get_be16(data + 2);
}

/* The bits of the message type are laced: M11-M7 C1 M6-M4 C0 M3-M0. */
static enum stun_class type_class(uint16_t type)
{
	return (enum stun_class)((type >> 7 & 2) | (type >> 4 & 1));
}

static uint16_t type_method(uint16_t type)
{
	return (uint16_t)((type & 0xf) | (type >> 1 & 0x70) |
			  (type >> 2 & 0xf80));
}

/*
 * Reads the attribute at *at, wherever it stands, and moves *at behind its
 * padding. 1: there is one, 0: the end, -EBADMSG: it does not fit.
 */
static int attr_read(const struct stun_msg *msg, size_t *at,
		     struct stun_attr *out)
{
	size_t left = msg->len - *at;
	const uint8_t *p = msg->data + *at;
	size_t len, padded;

	if (left == 0)
		return 0;
	if (left < STUN_ATTR_HEADER)
		return -EBADMSG;
	len = get_be16(p + 2);
	padded = stun_padded(len);
	if (padded > left - STUN_ATTR_HEADER)
		return -EBADMSG;
	out->type = get_be16(p);
	out->len = (uint16_t)len;
	out->value = p + STUN_ATTR_HEADER;
	*at += STUN_ATTR_HEADER + padded;
	return 1;
}

/*
 * Is the attribute at `at` behind an integrity attribute that closed the list?
 * MESSAGE-INTEGRITY lets only one of its SHA-256 sister and FINGERPRINT follow,
 * the sister only FINGERPRINT (RFC 8489 14.5, 14.6): anyone on the path could
 * have added the rest. A MESSAGE-INTEGRITY behind the sister is part of that
 * rest: did it count, what stands between the two would pass for signed though
 * the sister, which is the one that is checked, does not cover it.
 */
static bool attr_ignored(const struct stun_msg *msg, size_t at, uint16_t type)
{
	if (type == STUN_ATTR_FINGERPRINT)
		return false;
	if (msg->integrity_sha256_at && at > msg->integrity_sha256_at)
		return true;
	return msg->integrity_at && at > msg->integrity_at &&
	       type != STUN_ATTR_MESSAGE_INTEGRITY_SHA256;
}

/* Notes where the attributes stand that the walk and the checks ask for. */
static int attr_note(struct stun_msg *msg, size_t at, size_t next,
		     uint16_t type)
{
	switch (type) {
	case STUN_ATTR_FINGERPRINT:
		if (next != msg->len)
			return -EBADMSG;
		msg->fingerprint_at = at;
		break;
	case STUN_ATTR_MESSAGE_INTEGRITY:
		if (!msg->integrity_at && !msg->integrity_sha256_at)
			msg->integrity_at = at;
		break;
	case STUN_ATTR_MESSAGE_INTEGRITY_SHA256:
		if (!msg->integrity_sha256_at)
			msg->integrity_sha256_at = at;
		break;
	}
	return 0;
}

int stun_parse(const uint8_t *data, size_t len, struct stun_msg *out)
{
	struct stun_msg msg = { .data = data, .len = len };
	struct stun_attr attr;
	size_t at = STUN_HEADER_LEN, start;
	int more;

	if (len < STUN_HEADER_LEN || stun_frame(data, len) != (ssize_t)len)
		return -EBADMSG;
	msg.class = type_class(get_be16(data));
	msg.method = type_method(get_be16(data));
	msg.txid = data + 8;
	while (start = at, (more = attr_read(&msg, &at, &attr)) > 0)
		if (attr_note(&msg, start, at, attr.type))
			return -EBADMSG;
	if (more)
		return more;
	*out = msg;
	return 0;
}

bool stun_next(const struct stun_msg *msg, size_t *at, struct stun_attr *out)
{
	size_t next = *at ? *at : STUN_HEADER_LEN, start;
	struct stun_attr attr;

	while (start = next, attr_read(msg, &next, &attr) > 0) {
		if (attr_ignored(msg, start, attr.type))
			continue;
		*at = next;
		*out = attr;
		return true;
	}
	return false;
}

bool stun_find(const struct stun_msg *msg, uint16_t type, struct stun_attr *out)
{
	struct stun_attr attr;
	size_t at = 0;

	while (stun_next(msg, &at, &attr)) {
		if (attr.type != type)
			continue;
		*out = attr;
		return true;
	}
	return false;
}

bool stun_has(const struct stun_msg *msg, uint16_t type)
{
	struct stun_attr attr;

	return stun_find(msg, type, &attr);
}

static bool type_among(const uint16_t *types, size_t count, uint16_t type)
{
	for (size_t i = 0; i < count; i++)
		if (types[i] == type)
			return true;
	return false;
}

size_t stun_unknown(const struct stun_msg *msg, const uint16_t *known,
		    size_t known_count, uint16_t *out, size_t max)
{
	struct stun_attr attr;
	size_t at = 0, count = 0;

	while (count < max && stun_next(msg, &at, &attr)) {
		if (attr.type >= 0x8000 ||
		    type_among(known, known_count, attr.type) ||
		    type_among(out, count, attr.type))
			continue;
		out[count++] = attr.type;
	}
	return count;
}
