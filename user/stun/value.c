/* SPDX-License-Identifier: BSD-2-Clause */
/* Readers of attribute values. */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "stun/internal.h"

int stun_get_u32(const struct stun_attr *attr, uint32_t *out)
{
	if (!attr->value || attr->len != 4)
		return -EBADMSG;
	*out = get_be32(attr->value);
	return 0;
}

void stun_xor_bytes(uint8_t *bytes, size_t len, const uint8_t *txid)
{
	uint8_t mask[16];

	put_be32(mask, STUN_MAGIC);
	memcpy(mask + 4, txid, STUN_TXID_LEN);
	for (size_t i = 0; i < len; i++)
		bytes[i] ^= mask[i];
}

/* Address bytes in an attribute of this family; 0: not one we know. */
static size_t family_len(uint8_t family)
{
	switch (family) {
	case STUN_FAMILY_IPV4:
		return 4;
	case STUN_FAMILY_IPV6:
		return 16;
	default:
		return 0;
	}
}

/* The layout both kinds share: a byte to ignore, family, port, address. */
static int address_get(const struct stun_attr *attr, const uint8_t *txid,
		       union addr *out)
{
	uint8_t bytes[16];
	uint16_t port;
	size_t len;

	if (!attr->value || attr->len < 4)
		return -EBADMSG;
	len = family_len(attr->value[1]);
	if (!len || attr->len != 4 + len)
		return -EBADMSG;
	port = get_be16(attr->value + 2);
	memcpy(bytes, attr->value + 4, len);
	if (txid) {
		port ^= STUN_MAGIC >> 16;
		stun_xor_bytes(bytes, len, txid);
	}
	addr_from_bytes(out, len == 4 ? AF_INET : AF_INET6, bytes, port);
	return 0;
}

int stun_get_address(const struct stun_attr *attr, union addr *out)
{
	return address_get(attr, NULL, out);
}

int stun_get_xor_address(const struct stun_msg *msg,
			 const struct stun_attr *attr, union addr *out)
{
	return address_get(attr, msg->txid, out);
}

int stun_next_algorithm(const struct stun_attr *attr, size_t *at,
			uint16_t *number, bool *plain)
{
	size_t left = attr->len - *at, len;
	const uint8_t *entry = attr->value + *at;

	if (left == 0)
		return 0;
	if (left < STUN_ALGORITHM_LEN)
		return -EBADMSG;
	len = get_be16(entry + 2);
	if (stun_padded(len) > left - STUN_ALGORITHM_LEN)
		return -EBADMSG;
	*number = get_be16(entry);
	*plain = len == 0;
	*at += STUN_ALGORITHM_LEN + stun_padded(len);
	return 1;
}

int stun_get_error(const struct stun_attr *attr, int *code, const char **reason,
		   size_t *reason_len)
{
	int hundreds, rest;

	if (!attr->value || attr->len < 4)
		return -EBADMSG;
	hundreds = attr->value[2] & 7; /* the 21 bits before are reserved */
	rest = attr->value[3];
	if (hundreds < 3 || hundreds > 6 || rest > 99)
		return -EBADMSG;
	*code = hundreds * 100 + rest;
	*reason = (const char *)attr->value + 4;
	*reason_len = attr->len - 4u;
	return 0;
}
