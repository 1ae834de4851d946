/* SPDX-License-Identifier: BSD-2-Clause */
/* Is it UTF-8, and fit for a line of a log or a terminal? */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stddef.h>

/* Length of the UTF-8 character at text (RFC 3629), 0 when it is none. len > 0. */
size_t utf8_len(const unsigned char *text, size_t len);
/* The same; 0 also for a control character, be it of C1 (U+0080 to U+009F). */
size_t utf8_text_len(const unsigned char *text, size_t len);

/*
 * Makes control characters, which forge lines and move terminals, and what is no
 * UTF-8 question marks, byte by byte.
 */
void utf8_sanitize(char *text, size_t len);

#endif
