/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Access tokens: the value of ACCESS-TOKEN, and what is in it, which no fuzzer could
 * seal, by itself. The first byte chooses.
 */
#include <errno.h>
#include <stdlib.h>

#include "auth/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Unlike assert() it stays in every build. */
static void must(bool truth)
{
	if (!truth)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const struct token_key key = { .id = "a", .len = 16 };
	struct auth_token token;
	int err;

	if (!len)
		return 0;
	if (data[0] & 1)
		err = auth_token_open(&key, "turn.example.org", data + 1,
				      len - 1, &token);
	else
		err = auth_token_read(data + 1, len - 1, &token);
	must(!err || err == -EBADMSG || err == -ENOMEM || err == -EIO);
	if (!err) {
		must(token.key.len >= 16 &&
		     token.key.len <= sizeof(token.key.bytes));
		must(token.end_s >= token.begin_s);
	}
	return 0;
}
