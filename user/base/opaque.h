/* SPDX-License-Identifier: BSD-2-Clause */
/* User names, realms and passwords as they are compared: OpaqueString (RFC 8265). */
#ifndef BASE_OPAQUE_H
#define BASE_OPAQUE_H

/*
 * What a text is as a user name, realm or password (RFC 8489 14.3, 14.9, 9.2.2): the
 * same for all ways to type it, so that clients and servers digest the same bytes.
 * 0 and *out, the caller's; -EINVAL: empty, no UTF-8, or with characters that none of
 * them may have (controls, unassigned or invisible ones); -ENOMEM.
 */
int opaque_prepare(const char *text, char **out);

/* Those characters in words, for messages. */
#define OPAQUE_ALLOWED \
	"UTF-8 without control, invisible and unassigned characters (RFC 8265)"

#endif
