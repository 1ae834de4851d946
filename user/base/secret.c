/* SPDX-License-Identifier: BSD-2-Clause */
/* Secrets. */
#include "base/secret.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

bool secret_equal(const void *a, const void *b, size_t len)
{
	/* Volatile: no compiler may stop at the first difference. */
	const volatile uint8_t *left = a, *right = b;
	uint8_t difference = 0;

	for (size_t i = 0; i < len; i++)
		difference |= left[i] ^ right[i];
	return !difference;
}

ssize_t secret_line_read(FILE *in, char *line, size_t size)
{
	ssize_t len = 0;
	int c;

	while ((c = getc(in)) != EOF && c != '\n' && len >= 0)
		if (!c)
			len = -EILSEQ;
		else if ((size_t)len + 1 >= size)
			len = -EMSGSIZE;
		else
			line[len++] = (char)c;
	if (len >= 0 && ferror(in))
		len = -EIO;
	else if (!len && c == EOF)
		len = -ENODATA;
	if (len < 0) {
		explicit_bzero(line, size);
		return len;
	}
	if (len && line[len - 1] == '\r')
		len--;
	line[len] = '\0';
	return len;
}

const char *secret_line_error(ssize_t err)
{
	switch (err) {
	case -ENODATA:
		return "there is no line";
	case -EMSGSIZE:
		return "the line is too long";
	case -EILSEQ:
		return "the line has a NUL in it, which no password may have";
	default:
		return strerror((int)-err);
	}
}
