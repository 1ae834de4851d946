/* SPDX-License-Identifier: BSD-2-Clause */
/* Is it UTF-8? */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stddef.h>

/* Length of the UTF-8 character at text (RFC 3629), 0 when it is none. len > 0. */
size_t utf8_len(const unsigned char *text, size_t len);

#endif
