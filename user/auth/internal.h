/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of the auth room share. */
#ifndef AUTH_INTERNAL_H
#define AUTH_INTERNAL_H

#include <stddef.h>
#include <stdint.h>

#include "auth/auth.h"

/* RFC 8489 14.9: bytes of a realm's 127 characters in UTF-8. */
#define AUTH_REALM_BYTES 508

/*
 * An identity's hash: the one under which its account is registered and its
 * user found. Neither name may be longer than its limit.
 */
uint64_t auth_identity_hash(const void *realm, size_t realm_len,
			    const void *user, size_t user_len);

/*
 * The account of (realm, user), made when nothing refers to it yet; the caller
 * owns a reference. Returns 0 or -ENOMEM.
 */
int auth_account_get(const char *realm, const char *user,
		     struct auth_account **out);
uint64_t auth_account_hash(const struct auth_account *account);
bool auth_account_is(const struct auth_account *account, const void *realm,
		     size_t realm_len, const void *user, size_t user_len);

/* One more allocation unless there are `limit` (0: none). 0 or -EDQUOT. */
int auth_account_take(struct auth_account *account, unsigned int limit);

/* Writes a nonce of this second. Returns 0, -ENOMEM or -EIO. */
int auth_nonce_make(const struct auth_params *params, uint64_t now_s,
		    char out[AUTH_NONCE_MAX]);
/* Returns 0, -EKEYEXPIRED, -ENOMEM or -EIO. */
int auth_nonce_check(const struct auth_params *params, uint64_t now_s,
		     const uint8_t *nonce, size_t len);

#endif
