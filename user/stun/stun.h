/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * STUN and TURN messages (RFC 8489, RFC 8656, RFC 6062): pure functions, a view
 * into the caller's bytes, no I/O and no allocation.
 */
#ifndef STUN_STUN_H
#define STUN_STUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/addr.h"

#define STUN_HEADER_LEN 20
#define STUN_TXID_LEN   12
#define STUN_MAGIC      0x2112a442u
#define STUN_KEY_LEN    16 /* MD5(user:realm:password) */
/* A SHA-256 sum whole: a key, USERHASH, MESSAGE-INTEGRITY-SHA256. */
#define STUN_SHA256_LEN 32
/* The header's length field counts 16 bits, a multiple of four. */
#define STUN_MAX_LEN (STUN_HEADER_LEN + 65532)

enum stun_class {
	STUN_REQUEST,
	STUN_INDICATION,
	STUN_SUCCESS,
	STUN_ERROR,
};

enum stun_method {
	STUN_BINDING = 0x001,
	STUN_ALLOCATE = 0x003,
	STUN_REFRESH = 0x004,
	STUN_SEND = 0x006,
	STUN_DATA = 0x007,
	STUN_CREATE_PERMISSION = 0x008,
	STUN_CHANNEL_BIND = 0x009,
	STUN_CONNECT = 0x00a,
	STUN_CONNECTION_BIND = 0x00b,
	STUN_CONNECTION_ATTEMPT = 0x00c,
};

enum stun_attr_type {
	STUN_ATTR_MAPPED_ADDRESS = 0x0001,
	STUN_ATTR_CHANGE_REQUEST = 0x0003,
	STUN_ATTR_USERNAME = 0x0006,
	STUN_ATTR_MESSAGE_INTEGRITY = 0x0008,
	STUN_ATTR_ERROR_CODE = 0x0009,
	STUN_ATTR_UNKNOWN_ATTRIBUTES = 0x000a,
	STUN_ATTR_CHANNEL_NUMBER = 0x000c,
	STUN_ATTR_LIFETIME = 0x000d,
	STUN_ATTR_XOR_PEER_ADDRESS = 0x0012,
	STUN_ATTR_DATA = 0x0013,
	STUN_ATTR_REALM = 0x0014,
	STUN_ATTR_NONCE = 0x0015,
	STUN_ATTR_XOR_RELAYED_ADDRESS = 0x0016,
	STUN_ATTR_REQUESTED_ADDRESS_FAMILY = 0x0017,
	STUN_ATTR_EVEN_PORT = 0x0018,
	STUN_ATTR_REQUESTED_TRANSPORT = 0x0019,
	STUN_ATTR_DONT_FRAGMENT = 0x001a,
	STUN_ATTR_ACCESS_TOKEN = 0x001b,
	STUN_ATTR_MESSAGE_INTEGRITY_SHA256 = 0x001c,
	STUN_ATTR_PASSWORD_ALGORITHM = 0x001d,
	STUN_ATTR_USERHASH = 0x001e,
	STUN_ATTR_XOR_MAPPED_ADDRESS = 0x0020,
	STUN_ATTR_RESERVATION_TOKEN = 0x0022,
	STUN_ATTR_PADDING = 0x0026,
	STUN_ATTR_RESPONSE_PORT = 0x0027,
	STUN_ATTR_CONNECTION_ID = 0x002a,
	STUN_ATTR_ADDITIONAL_ADDRESS_FAMILY = 0x8000,
	STUN_ATTR_ADDRESS_ERROR_CODE = 0x8001,
	STUN_ATTR_PASSWORD_ALGORITHMS = 0x8002,
	STUN_ATTR_ALTERNATE_DOMAIN = 0x8003,
	STUN_ATTR_ICMP = 0x8004,
	STUN_ATTR_SOFTWARE = 0x8022,
	STUN_ATTR_ALTERNATE_SERVER = 0x8023,
	STUN_ATTR_FINGERPRINT = 0x8028,
	STUN_ATTR_THIRD_PARTY_AUTHORIZATION = 0x802e,
	STUN_ATTR_RESPONSE_ORIGIN = 0x802b,
	STUN_ATTR_OTHER_ADDRESS = 0x802c,
	STUN_ATTR_MOBILITY_TICKET = 0x8030,
};

enum stun_transport {
	STUN_TRANSPORT_TCP = 6,
	STUN_TRANSPORT_UDP = 17,
};

enum stun_family {
	STUN_FAMILY_IPV4 = 1,
	STUN_FAMILY_IPV6 = 2,
};

/* How a password becomes a key (RFC 8489 18.5). */
enum stun_algorithm {
	STUN_ALGORITHM_MD5 = 1,
	STUN_ALGORITHM_SHA256 = 2,
};

enum stun_code {
	STUN_CODE_TRY_ALTERNATE = 300,
	STUN_CODE_BAD_REQUEST = 400,
	STUN_CODE_UNAUTHENTICATED = 401,
	STUN_CODE_FORBIDDEN = 403,
	STUN_CODE_MOBILITY_FORBIDDEN = 405,
	STUN_CODE_UNKNOWN_ATTRIBUTE = 420,
	STUN_CODE_ALLOCATION_MISMATCH = 437,
	STUN_CODE_STALE_NONCE = 438,
	STUN_CODE_ADDRESS_FAMILY_NOT_SUPPORTED = 440,
	STUN_CODE_WRONG_CREDENTIALS = 441,
	STUN_CODE_UNSUPPORTED_TRANSPORT = 442,
	STUN_CODE_PEER_ADDRESS_FAMILY_MISMATCH = 443,
	STUN_CODE_CONNECTION_ALREADY_EXISTS = 446,
	STUN_CODE_CONNECTION_TIMEOUT_OR_FAILURE = 447,
	STUN_CODE_ALLOCATION_QUOTA_REACHED = 486,
	STUN_CODE_SERVER_ERROR = 500,
	STUN_CODE_INSUFFICIENT_CAPACITY = 508,
};

/* A view of one attribute's value; value is NULL when absent. */
struct stun_attr {
	uint16_t type;
	uint16_t len;
	const uint8_t *value;
};

/* A key of long-term credentials; len 0: none. */
struct stun_key {
	uint8_t bytes[STUN_SHA256_LEN];
	size_t len;
};

/* A parsed message: a view; `data` must outlive it. */
struct stun_msg {
	const uint8_t *data;
	size_t len; /* of the whole message with its header */
	enum stun_class class;
	uint16_t method; /* may be one we do not know */
	const uint8_t *txid;
	/* Offsets; 0: none. Of several the first; one that is ignored is none. */
	size_t integrity_at; /* MESSAGE-INTEGRITY */
	size_t integrity_sha256_at; /* MESSAGE-INTEGRITY-SHA256 */
	size_t fingerprint_at; /* FINGERPRINT */
};

/*
 * How long is the message at the start of a TCP stream?
 * > 0: its whole length (may exceed len: read on); 0: fewer than 20 bytes and
 * all right so far; -EBADMSG: not a STUN message (first bits, cookie, length
 * not a multiple of four), judged as early as the bytes allow.
 */
ssize_t stun_frame(const uint8_t *data, size_t len);

/*
 * Checks the header, that attributes fill the length exactly, and that
 * FINGERPRINT is last. len must be the whole message. Padding bytes may have any
 * value (RFC 8489 14). Returns 0 or -EBADMSG.
 */
int stun_parse(const uint8_t *data, size_t len, struct stun_msg *out);

/*
 * The first attribute of this type. What follows MESSAGE-INTEGRITY is ignored
 * (RFC 8489 14.5) but one MESSAGE-INTEGRITY-SHA256 and FINGERPRINT, what follows
 * MESSAGE-INTEGRITY-SHA256 (14.6) but FINGERPRINT. Returns true and fills *out
 * when there.
 */
bool stun_find(const struct stun_msg *msg, uint16_t type,
	       struct stun_attr *out);
bool stun_has(const struct stun_msg *msg, uint16_t type);

/*
 * Walks the attributes: *at starts at 0. Returns false at the end.
 * For attributes that may occur more than once (XOR-PEER-ADDRESS).
 */
bool stun_next(const struct stun_msg *msg, size_t *at, struct stun_attr *out);

/*
 * Comprehension-required types (below 0x8000) that are not in `known`
 * (sorted ascending), each once. Returns how many were stored, at most max.
 */
size_t stun_unknown(const struct stun_msg *msg, const uint16_t *known,
		    size_t known_count, uint16_t *out, size_t max);

/* Readers of a value: 0, or -EBADMSG when its length or content is wrong. */
int stun_get_u32(const struct stun_attr *attr, uint32_t *out);
int stun_get_address(const struct stun_attr *attr, union addr *out);
int stun_get_xor_address(const struct stun_msg *msg,
			 const struct stun_attr *attr, union addr *out);
/* ERROR-CODE: the code 300..699; reason is a view, not NUL-terminated. */
int stun_get_error(const struct stun_attr *attr, int *code, const char **reason,
		   size_t *reason_len);

/* FINGERPRINT: 1 there and right, 0 absent, -EBADMSG there and wrong. */
int stun_check_fingerprint(const struct stun_msg *msg);
/*
 * MESSAGE-INTEGRITY (HMAC-SHA1): 1 right, 0 absent, -EBADMSG wrong, -ENOMEM or
 * -EIO when the digest failed.
 */
int stun_check_integrity(const struct stun_msg *msg, const uint8_t *key,
			 size_t key_len);

/*
 * MESSAGE-INTEGRITY-SHA256, as above. A value cut to fewer than `min` bytes is
 * wrong, whatever it holds; min is 16 to 32, and 32 where the usage does not
 * speak of cutting (14.6), as TURN does not.
 */
int stun_check_integrity_sha256(const struct stun_msg *msg, const uint8_t *key,
				size_t key_len, size_t min);

/* The long-term key of RFC 8489 9.2.2: MD5(user ":" realm ":" password). */
int stun_long_term_key(const char *user, const char *realm,
		       const char *password, uint8_t out[STUN_KEY_LEN]);
/* The same with SHA-256 (18.5.1.2). */
int stun_long_term_key_sha256(const char *user, const char *realm,
			      const char *password,
			      uint8_t out[STUN_SHA256_LEN]);
/* The value of USERHASH (14.4): SHA-256(user ":" realm). */
int stun_userhash(const void *user, size_t user_len, const void *realm,
		  size_t realm_len, uint8_t out[STUN_SHA256_LEN]);

/*
 * Walks PASSWORD-ALGORITHMS, or reads PASSWORD-ALGORITHM: *at starts at 0.
 * 1: *number is the next one's, an enum stun_algorithm or one not known here;
 * *plain tells that it has no parameters, as those two. 0: the end. -EBADMSG:
 * what is left is no entry.
 */
int stun_next_algorithm(const struct stun_attr *attr, size_t *at,
			uint16_t *number, bool *plain);

/*
 * The encoder. Errors stick: puts after an overflow do nothing and stun_end
 * reports. Values are padded with zero bytes.
 */
struct stun_writer {
	uint8_t *buf;
	size_t cap;
	size_t len;
	int error;
};

/* Starts a message; txid NULL makes a random one. */
void stun_begin(struct stun_writer *w, uint8_t *buf, size_t cap,
		enum stun_class class, uint16_t method, const uint8_t *txid);
void stun_put(struct stun_writer *w, uint16_t type, const void *value,
	      size_t len);
void stun_put_u32(struct stun_writer *w, uint16_t type, uint32_t value);
/* One significant byte and three of zero: REQUESTED-TRANSPORT, -FAMILY. */
void stun_put_u8(struct stun_writer *w, uint16_t type, uint8_t value);
void stun_put_string(struct stun_writer *w, uint16_t type, const char *value);
/* As MAPPED-ADDRESS has it. */
void stun_put_address(struct stun_writer *w, uint16_t type,
		      const union addr *addr);
void stun_put_xor_address(struct stun_writer *w, uint16_t type,
			  const union addr *addr);
/* ERROR-CODE with the standard reason phrase. */
void stun_put_error(struct stun_writer *w, int code);
/* ADDRESS-ERROR-CODE: why there is no relayed address of this family. */
void stun_put_address_error(struct stun_writer *w, enum stun_family family,
			    int code);
void stun_put_unknown(struct stun_writer *w, const uint16_t *types,
		      size_t count);
void stun_put_integrity(struct stun_writer *w, const uint8_t *key,
			size_t key_len);
void stun_put_integrity_sha256(struct stun_writer *w, const uint8_t *key,
			       size_t key_len);
/* PASSWORD-ALGORITHM or PASSWORD-ALGORITHMS: entries without parameters. */
void stun_put_algorithms(struct stun_writer *w, uint16_t type,
			 const enum stun_algorithm *algorithms, size_t count);
void stun_put_fingerprint(struct stun_writer *w);
/* The message's length, or -ENOBUFS/-EINVAL/-ENOMEM/-EIO. */
ssize_t stun_end(struct stun_writer *w);

/*
 * ChannelData (RFC 8656 12.4), which shares the transport with STUN messages.
 */
#define STUN_CHANNEL_HEADER 4

struct stun_channel_data {
	uint16_t number;
	const uint8_t *data; /* a view */
	size_t len;
};

/* Does it begin like ChannelData and not like STUN? */
bool stun_is_channel_data(const uint8_t *data, size_t len);
/* How long is the one at the start of a stream, with its padding? 0: fewer than
 * four bytes.
 */
ssize_t stun_channel_frame(const uint8_t *data, size_t len);
/* Reads a whole one; what is behind its data is padding. 0 or -EBADMSG. */
int stun_channel_parse(const uint8_t *data, size_t len,
		       struct stun_channel_data *out);
void stun_channel_begin(uint8_t head[STUN_CHANNEL_HEADER], uint16_t number,
			uint16_t len);

/* The registered reason phrase; "Error" for a code we do not know. */
const char *stun_reason(int code);
/* "Allocate", ...; "unknown" for a method we do not know. */
const char *stun_method_name(uint16_t method);

#endif
