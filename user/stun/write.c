/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The encoder. The header's length field is right after every put, so that the
 * integrity and fingerprint puts find the message as a receiver will see it.
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/random.h"
#include "stun/internal.h"

static uint16_t type_make(enum stun_class class, uint16_t method)
{
	return (uint16_t)((method & 0xf) | (method & 0x70) << 1 |
			  (method & 0xf80) << 2 | (class & 1) << 4 |
			  (class & 2) << 7);
}

void stun_begin(struct stun_writer *w, uint8_t *buf, size_t cap,
		enum stun_class class, uint16_t method, const uint8_t *txid)
{
	*w = (struct stun_writer){ .buf = buf, .cap = cap };
	if (cap < STUN_HEADER_LEN) {
		w->error = -ENOBUFS;
		return;
	}
	if (method > 0xfff) {
		w->error = -EINVAL;
		return;
	}
	put_be16(buf, type_make(class, method));
	put_be16(buf + 2, 0);
	put_be32(buf + 4, STUN_MAGIC);
	if (txid)
		memcpy(buf + 8, txid, STUN_TXID_LEN);
	else
		random_bytes(buf + 8, STUN_TXID_LEN);
	w->len = STUN_HEADER_LEN;
}

/*
 * Appends an attribute whose value the caller fills: where to, or NULL and the
 * error noted. The padding is zero, not what the buffer held before.
 */
static uint8_t *attr_reserve(struct stun_writer *w, uint16_t type, size_t len)
{
	size_t attrs, padded;
	uint8_t *attr;

	if (w->error)
		return NULL;
	attrs = w->len - STUN_HEADER_LEN;
	/* First the value alone, which may be near SIZE_MAX. */
	if (len > STUN_MAX_ATTRS ||
	    STUN_ATTR_HEADER + stun_padded(len) > STUN_MAX_ATTRS - attrs) {
		w->error = -EINVAL;
		return NULL;
	}
	padded = stun_padded(len);
	if (STUN_ATTR_HEADER + padded > w->cap - w->len) {
		w->error = -ENOBUFS;
		return NULL;
	}
	attr = w->buf + w->len;
	put_be16(attr, type);
	put_be16(attr + 2, (uint16_t)len);
	memset(attr + STUN_ATTR_HEADER + len, 0, padded - len);
	w->len += STUN_ATTR_HEADER + padded;
	put_be16(w->buf + 2, (uint16_t)(w->len - STUN_HEADER_LEN));
	return attr + STUN_ATTR_HEADER;
}

/* An empty value may be NULL, which memcpy must not see. */
static void value_put(uint8_t *at, const void *value, size_t len)
{
	if (len)
		memcpy(at, value, len);
}

void stun_put(struct stun_writer *w, uint16_t type, const void *value,
	      size_t len)
{
	uint8_t *at = attr_reserve(w, type, len);

	if (at)
		value_put(at, value, len);
}

void stun_put_u32(struct stun_writer *w, uint16_t type, uint32_t value)
{
	uint8_t *at = attr_reserve(w, type, 4);

	if (at)
		put_be32(at, value);
}

void stun_put_u8(struct stun_writer *w, uint16_t type, uint8_t value)
{
	stun_put_u32(w, type, (uint32_t)value << 24);
}

void stun_put_string(struct stun_writer *w, uint16_t type, const char *value)
{
	stun_put(w, type, value, strlen(value));
}

/* The layout both kinds share. The value, or NULL and the error noted. */
static uint8_t *address_put(struct stun_writer *w, uint16_t type,
			    const union addr *addr, size_t *len)
{
	const uint8_t *bytes = addr_bytes(addr, len);
	uint8_t *at;

	if (!bytes && !w->error)
		w->error = -EINVAL;
	at = attr_reserve(w, type, 4 + *len);
	if (!at)
		return NULL;
	at[0] = 0;
	at[1] = *len == 4 ? STUN_FAMILY_IPV4 : STUN_FAMILY_IPV6;
	put_be16(at + 2, addr_port(addr));
	memcpy(at + 4, bytes, *len);
	return at;
}

void stun_put_address(struct stun_writer *w, uint16_t type,
		      const union addr *addr)
{
	size_t len;

	address_put(w, type, addr, &len);
}

void stun_put_xor_address(struct stun_writer *w, uint16_t type,
			  const union addr *addr)
{
	size_t len;
	uint8_t *at = address_put(w, type, addr, &len);

	if (!at)
		return;
	put_be16(at + 2, (uint16_t)(addr_port(addr) ^ STUN_MAGIC >> 16));
	stun_xor_bytes(at + 4, len, w->buf + 8);
}

/* The layout both kinds share, but for the first byte. */
static void error_put(struct stun_writer *w, uint16_t type, uint8_t first,
		      int code)
{
	const char *reason = stun_reason(code);
	size_t len = strlen(reason);
	uint8_t *at;

	if ((code < 300 || code > 699) && !w->error)
		w->error = -EINVAL;
	at = attr_reserve(w, type, 4 + len);
	if (!at)
		return;
	at[0] = first;
	at[1] = 0;
	at[2] = (uint8_t)(code / 100);
	at[3] = (uint8_t)(code % 100);
	value_put(at + 4, reason, len);
}

void stun_put_error(struct stun_writer *w, int code)
{
	error_put(w, STUN_ATTR_ERROR_CODE, 0, code);
}

void stun_put_address_error(struct stun_writer *w, enum stun_family family,
			    int code)
{
	error_put(w, STUN_ATTR_ADDRESS_ERROR_CODE, (uint8_t)family, code);
}

void stun_put_unknown(struct stun_writer *w, const uint16_t *types,
		      size_t count)
{
	/* A count past the limit becomes a length past it, without a wrap. */
	size_t len = count > STUN_MAX_ATTRS ? count : count * 2;
	uint8_t *at = attr_reserve(w, STUN_ATTR_UNKNOWN_ATTRIBUTES, len);

	if (!at)
		return;
	for (size_t i = 0; i < count; i++)
		put_be16(at + i * 2, types[i]);
}

void stun_put_integrity(struct stun_writer *w, const uint8_t *key,
			size_t key_len)
{
	size_t start = w->len;
	uint8_t *at = attr_reserve(w, STUN_ATTR_MESSAGE_INTEGRITY,
				   STUN_INTEGRITY_LEN);

	if (at)
		w->error = stun_integrity(w->buf, start, key, key_len, at);
}

void stun_put_integrity_sha256(struct stun_writer *w, const uint8_t *key,
			       size_t key_len)
{
	size_t start = w->len;
	uint8_t *at = attr_reserve(w, STUN_ATTR_MESSAGE_INTEGRITY_SHA256,
				   STUN_SHA256_LEN);

	if (at)
		w->error = stun_integrity_sha256(w->buf, start, STUN_SHA256_LEN,
						 key, key_len, at);
}

void stun_put_algorithms(struct stun_writer *w, uint16_t type,
			 const enum stun_algorithm *algorithms, size_t count)
{
	/* As in stun_put_unknown. */
	size_t len = count > STUN_MAX_ATTRS ? count :
					      count * STUN_ALGORITHM_LEN;
	uint8_t *at = attr_reserve(w, type, len);

	if (!at)
		return;
	for (size_t i = 0; i < count; i++) {
		put_be16(at + i * STUN_ALGORITHM_LEN, (uint16_t)algorithms[i]);
		put_be16(at + i * STUN_ALGORITHM_LEN + 2, 0);
	}
}

void stun_put_fingerprint(struct stun_writer *w)
{
	size_t start = w->len;
	uint8_t *at =
		attr_reserve(w, STUN_ATTR_FINGERPRINT, STUN_FINGERPRINT_LEN);

	if (at)
		put_be32(at, stun_fingerprint(w->buf, start));
}

ssize_t stun_end(struct stun_writer *w)
{
	return w->error ? w->error : (ssize_t)w->len;
}
