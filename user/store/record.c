/* SPDX-License-Identifier: BSD-2-Clause */
/* What comes out of a database, read with care: pure functions. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "store/internal.h"

bool store_name_ok(const char *name, size_t len)
{
	const unsigned char *at = (const unsigned char *)name;
	size_t n;

	if (!len || len >= STORE_NAME_SIZE)
		return false;
	for (; len; at += n, len -= n) {
		n = utf8_text_len(at, len);
		if (!n || *at == '"')
			return false;
	}
	return true;
}

int store_user_read(const void *name, size_t name_len, const void *md5,
		    size_t md5_len, const void *sha256, size_t sha256_len,
		    struct store_user *out)
{
	if (!name || !md5 || !sha256 || !store_name_ok(name, name_len) ||
	    md5_len != STORE_MD5_LEN || sha256_len != STORE_SHA256_LEN)
		return -EBADMSG;
	memcpy(out->name, name, name_len);
	out->name[name_len] = '\0';
	memcpy(out->md5, md5, STORE_MD5_LEN);
	memcpy(out->sha256, sha256, STORE_SHA256_LEN);
	return 0;
}

void store_why(char why[STORE_WHY_SIZE], const char *what, const char *text)
{
	size_t len;

	snprintf(why, STORE_WHY_SIZE, "%s%s%s", what, *what ? ": " : "", text);
	for (char *c = why; *c; c++)
		if (iscntrl((unsigned char)*c))
			*c = ' ';
		else if (*c == '"')
			*c = '\'';
	for (len = strlen(why); len && why[len - 1] == ' '; len--)
		why[len - 1] = '\0';
}
