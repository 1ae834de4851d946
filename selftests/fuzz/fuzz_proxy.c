/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Headers of the PROXY protocol: the same comes of a header however much of what
 * follows is there, a part of one is never one, and nobody is named half.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "transport/proxy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Unlike assert() it stays in every build. */
static void must(bool truth)
{
	if (!truth)
		abort();
}

/* Of an exact copy, so that a byte too far is caught. */
static ssize_t parse(const uint8_t *data, size_t len, union addr *source)
{
	uint8_t *copy = malloc(len ? len : 1);
	ssize_t result;

	must(copy);
	memcpy(copy, data, len);
	result = proxy_parse(copy, len, source);
	free(copy);
	return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	union addr whole = { .sa.sa_family = 77 }, part;
	ssize_t result = parse(data, len, &whole);

	must(result >= 0 || result == -EBADMSG);
	must(result <= (ssize_t)len && result <= (ssize_t)PROXY_HEADER_MAX);
	must((result > 0) == (whole.sa.sa_family != 77));
	must(result || len < PROXY_HEADER_MAX);
	if (result <= 0)
		return 0;
	must(addr_family(&whole) == AF_UNSPEC ||
	     addr_family(&whole) == AF_INET || addr_family(&whole) == AF_INET6);
	for (size_t cut = 0; cut < (size_t)result; cut++)
		must(parse(data, cut, &part) == 0);
	must(parse(data, (size_t)result, &part) == result);
	must(addr_family(&whole) == addr_family(&part));
	must(addr_family(&whole) == AF_UNSPEC || addr_equal(&whole, &part));
	return 0;
}
