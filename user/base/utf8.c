/* SPDX-License-Identifier: BSD-2-Clause */
/* UTF-8, as far as telling it from other bytes, and text from control. */
#include "base/utf8.h"

#include <stdbool.h>
#include <string.h>

size_t utf8_len(const unsigned char *text, size_t len)
{
	size_t n = text[0] < 0x80 ? 1 :
		   text[0] < 0xe0 ? 2 :
		   text[0] < 0xf0 ? 3 :
				    4;

	if (n == 1)
		return 1;
	if (text[0] < 0xc2 || text[0] > 0xf4 || n > len)
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((text[i] & 0xc0) != 0x80)
			return 0;
	if ((text[0] == 0xe0 && text[1] < 0xa0) || /* overlong */
	    (text[0] == 0xed && text[1] > 0x9f) || /* surrogates */
	    (text[0] == 0xf0 && text[1] < 0x90) || /* overlong */
	    (text[0] == 0xf4 && text[1] > 0x8f)) /* above U+10FFFF */
		return 0;
	return n;
}

/* Of so many bytes. */
static bool is_control(const unsigned char *text, size_t len)
{
	if (len == 2)
		return text[0] == 0xc2 && text[1] < 0xa0;
	return len == 1 && (*text < ' ' || *text == 0x7f);
}

size_t utf8_text_len(const unsigned char *text, size_t len)
{
	size_t n = utf8_len(text, len);

	return is_control(text, n) ? 0 : n;
}

void utf8_sanitize(char *text, size_t len)
{
	unsigned char *at = (unsigned char *)text;

	for (size_t i = 0, n; i < len; i += n) {
		n = utf8_len(at + i, len - i);
		if (n && !is_control(at + i, n))
			continue;
		n = n ? n : 1;
		memset(at + i, '?', n);
	}
}
