/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The kernel's TLS on a connected socket: an upper layer protocol (tcp(7),
 * TCP_ULP), then keys for either way. From then on send and splice(2) into the
 * socket seal, recv and splice(2) out of it unseal; what is no data (alerts,
 * messages of the handshake) carries its type as a control message.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/crypto.h>
#include <string.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "base/syscalls.h"
#include "transport/tls_internal.h"

SYSCALLS(SYSCALLS_RELAY, "setsockopt getsockopt recvmsg sendmsg");

union material {
	struct tls_crypto_info info;
	struct tls12_crypto_info_aes_gcm_128 gcm_128;
	struct tls12_crypto_info_aes_gcm_256 gcm_256;
	struct tls12_crypto_info_chacha20_poly1305 chacha;
};

_Static_assert(TLS_CIPHER_AES_GCM_128_SALT_SIZE +
			       TLS_CIPHER_AES_GCM_128_IV_SIZE ==
		       TLS_IV_LEN,
	       "nonce of AES-GCM");

int tls_kernel_begin(int fd)
{
	static const char name[] = "tls";

	if (setsockopt(fd, IPPROTO_TCP, TCP_ULP, name, sizeof(name) - 1) < 0)
		return -errno;
	return 0;
}

/* The part of a nonce that TLS 1.2 sends, and 1.3 keeps. */
static const uint8_t *nonce_tail(const struct tls_keys *keys)
{
	return keys->version == TLS_1_2_VERSION ?
		       keys->nonce :
		       keys->iv + TLS_CIPHER_AES_GCM_128_SALT_SIZE;
}

/* The length of what the kernel takes for this cipher. */
static size_t material_fill(const struct tls_keys *keys, union material *out)
{
	memset(out, 0, sizeof(*out));
	out->info.version = keys->version;
	out->info.cipher_type = keys->cipher;
	switch (keys->cipher) {
	case TLS_CIPHER_AES_GCM_128:
		memcpy(out->gcm_128.key, keys->key, sizeof(out->gcm_128.key));
		memcpy(out->gcm_128.salt, keys->iv, sizeof(out->gcm_128.salt));
		memcpy(out->gcm_128.iv, nonce_tail(keys),
		       sizeof(out->gcm_128.iv));
		put_be64(out->gcm_128.rec_seq, keys->records);
		return sizeof(out->gcm_128);
	case TLS_CIPHER_AES_GCM_256:
		memcpy(out->gcm_256.key, keys->key, sizeof(out->gcm_256.key));
		memcpy(out->gcm_256.salt, keys->iv, sizeof(out->gcm_256.salt));
		memcpy(out->gcm_256.iv, nonce_tail(keys),
		       sizeof(out->gcm_256.iv));
		put_be64(out->gcm_256.rec_seq, keys->records);
		return sizeof(out->gcm_256);
	default:
		memcpy(out->chacha.key, keys->key, sizeof(out->chacha.key));
		memcpy(out->chacha.iv, keys->iv, sizeof(out->chacha.iv));
		put_be64(out->chacha.rec_seq, keys->records);
		return sizeof(out->chacha);
	}
}

int tls_kernel_install(int fd, bool reading, const struct tls_keys *keys)
{
	union material material;
	size_t len = material_fill(keys, &material);
	int err = 0;

	if (setsockopt(fd, SOL_TLS, reading ? TLS_RX : TLS_TX, &material,
		       (socklen_t)len) < 0)
		err = -errno;
	OPENSSL_cleanse(&material, sizeof(material));
	return err;
}

int tls_kernel_records(int fd, uint16_t cipher, uint64_t *out)
{
	struct tls_keys keys = { .cipher = cipher };
	union material material;
	socklen_t len = (socklen_t)material_fill(&keys, &material);
	int err = 0;

	if (getsockopt(fd, SOL_TLS, TLS_TX, &material, &len) < 0)
		err = -errno;
	else if (cipher == TLS_CIPHER_AES_GCM_128)
		*out = get_be64(material.gcm_128.rec_seq);
	else if (cipher == TLS_CIPHER_AES_GCM_256)
		*out = get_be64(material.gcm_256.rec_seq);
	else
		*out = get_be64(material.chacha.rec_seq);
	OPENSSL_cleanse(&material, sizeof(material));
	return err;
}

/* Room for one control message: a record's type. */
union control {
	struct cmsghdr head;
	uint8_t room[CMSG_SPACE(sizeof(uint8_t))];
};

ssize_t tls_kernel_recv(int fd, void *data, size_t len, uint8_t *type)
{
	struct iovec iov = { .iov_base = data, .iov_len = len };
	union control control = { .room = { 0 } };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t n = recvmsg(fd, &msg, 0);
	const struct cmsghdr *head = n < 0 ? NULL : CMSG_FIRSTHDR(&msg);

	if (n < 0)
		return -errno;
	*type = TLS_RECORD_DATA;
	if (head && head->cmsg_level == SOL_TLS &&
	    head->cmsg_type == TLS_GET_RECORD_TYPE)
		*type = *CMSG_DATA(head);
	return n;
}

int tls_kernel_alert(int fd, const uint8_t alert[2])
{
	struct iovec iov = { .iov_base = (void *)alert, .iov_len = 2 };
	union control control = { .room = { 0 } };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = CMSG_LEN(sizeof(uint8_t)),
	};

	control.head.cmsg_level = SOL_TLS;
	control.head.cmsg_type = TLS_SET_RECORD_TYPE;
	control.head.cmsg_len = CMSG_LEN(sizeof(uint8_t));
	*CMSG_DATA(&control.head) = TLS_RECORD_ALERT;
	return sendmsg(fd, &msg, MSG_NOSIGNAL) < 0 ? -errno : 0;
}
