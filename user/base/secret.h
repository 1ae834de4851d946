/* SPDX-License-Identifier: BSD-2-Clause */
/* Secrets. */
#ifndef BASE_SECRET_H
#define BASE_SECRET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/types.h>

/* Takes the same time whatever the bytes are. */
bool secret_equal(const void *a, const void *b, size_t len);

/*
 * The next line of `in`, without its end (LF or CR LF), as a string in size bytes; on
 * failure they are wiped. An unbuffered `in` keeps no copy. Its length; -ENODATA: there
 * is none; -EMSGSIZE: it is too long; -EILSEQ: there is a NUL in it; -EIO.
 */
ssize_t secret_line_read(FILE *in, char *line, size_t size);
/* What is wrong then, in words. */
const char *secret_line_error(ssize_t err);

#endif
