/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A TCP stream cut into arbitrary pieces. The first 8 bytes choose the pieces,
 * the rest is the stream: however it arrives, the same messages come out of it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "stun/stun.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Unlike assert() it stays in every build. */
static void must(bool truth)
{
	if (!truth)
		abort();
}

/* What a reader of the stream has seen so far. */
struct reader {
	uint8_t *buf; /* bytes not framed yet */
	size_t have;
	size_t messages;
	size_t framed; /* bytes in all of them */
	bool bad;
};

static void reader_frame(struct reader *r)
{
	ssize_t got;

	while ((got = stun_frame(r->buf, r->have)) > 0) {
		must(got >= STUN_HEADER_LEN && got <= STUN_MAX_LEN);
		must(r->have >= STUN_HEADER_LEN);
		if ((size_t)got > r->have)
			return;
		r->messages++;
		r->framed += (size_t)got;
		r->have -= (size_t)got;
		memmove(r->buf, r->buf + got, r->have);
	}
	must(got == 0 || got == -EBADMSG);
	must(got < 0 || r->have < STUN_HEADER_LEN);
	r->bad = got < 0;
}

static void reader_feed(struct reader *r, const uint8_t *piece, size_t len)
{
	memcpy(r->buf + r->have, piece, len);
	r->have += len;
	reader_frame(r);
}

static size_t piece_next(uint64_t *seed, size_t left)
{
	/* xorshift64: plain numbers, the same for the same input. */
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	size_t len = 1 + (*seed >> 32) % (*seed & 1 ? 4 : 64);

	return len < left ? len : left;
}

/* A longer prefix never takes a judgement back, and a length never changes. */
static void check_prefixes(const uint8_t *data, size_t len)
{
	ssize_t before = 0;

	for (size_t n = 0; n <= len && n <= STUN_HEADER_LEN + 1; n++) {
		/* An exact copy: a byte read too far is caught. */
		uint8_t *copy = malloc(n ? n : 1);
		ssize_t got;

		must(copy);
		memcpy(copy, data, n);
		got = stun_frame(copy, n);
		free(copy);
		must(before == 0 || got == before);
		must(got <= 0 || n >= STUN_HEADER_LEN);
		before = got;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct reader whole = { 0 }, pieces = { 0 };
	uint64_t seed;

	if (len < 8)
		return 0;
	seed = get_be64(data) | 1;
	data += 8;
	len -= 8;
	check_prefixes(data, len);
	whole.buf = malloc(len + 1);
	pieces.buf = malloc(len + 1);
	must(whole.buf && pieces.buf);
	reader_feed(&whole, data, len);
	for (size_t at = 0; at < len && !pieces.bad;) {
		size_t piece = piece_next(&seed, len - at);

		reader_feed(&pieces, data + at, piece);
		at += piece;
	}
	must(whole.bad == pieces.bad);
	must(whole.messages == pieces.messages);
	must(whole.framed == pieces.framed);
	if (!whole.bad) {
		must(whole.have == pieces.have);
		must(memcmp(whole.buf, pieces.buf, whole.have) == 0);
	}
	free(whole.buf);
	free(pieces.buf);
	return 0;
}
