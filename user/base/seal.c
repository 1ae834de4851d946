/* SPDX-License-Identifier: BSD-2-Clause */
/* Who seals, and why, in words. */
#include "base/seal.h"

static const struct {
	const char *name, *text;
} places[SEAL_PLACES] = {
	[SEAL_UNDECIDED] = { "undecided", "TLS" },
	[SEAL_IN_KERNEL] = { "kernel", "TLS, which the kernel decrypts" },
	[SEAL_KEPT_ORDER] = { "order", "TLS, decrypted here: copy comes before "
				       "splice and uring in the order" },
	[SEAL_KEPT_OFF] = { "off", "TLS, decrypted here: [engine] ktls is no" },
	[SEAL_KEPT_ABSENT] = { "absent", "TLS, decrypted here: the kernel has "
					 "no fit TLS (module tls)" },
	[SEAL_KEPT_CIPHER] = { "cipher", "TLS, decrypted here: the kernel does "
					 "not have its cipher" },
	[SEAL_KEPT_RECORDS] = { "records", "TLS, decrypted here: the client "
					   "wants small records" },
	[SEAL_KEPT_KEYS] = { "keys", "TLS, decrypted here: the client has "
				     "changed its keys" },
	[SEAL_KEPT_STATE] = { "state", "TLS, decrypted here: the stream has "
				       "ended already" },
	[SEAL_KEPT_ERROR] = { "error", "TLS, decrypted here: the kernel "
				       "refused its keys" },
};

const char *seal_place_text(enum seal_place place)
{
	return place < SEAL_PLACES ? places[place].text : "?";
}

const char *seal_place_name(enum seal_place place)
{
	return place < SEAL_PLACES ? places[place].name : "?";
}
