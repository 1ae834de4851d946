/* SPDX-License-Identifier: BSD-2-Clause */
/* Registered reason phrases and method names. */
#include "stun/stun.h"

struct name {
	int number;
	const char *text;
};

/* RFC 8489 14.8, RFC 8656 19, RFC 6062 6.3. */
static const struct name reasons[] = {
	{ STUN_CODE_TRY_ALTERNATE, "Try Alternate" },
	{ STUN_CODE_BAD_REQUEST, "Bad Request" },
	{ STUN_CODE_UNAUTHENTICATED, "Unauthenticated" },
	{ STUN_CODE_FORBIDDEN, "Forbidden" },
	{ STUN_CODE_MOBILITY_FORBIDDEN, "Mobility Forbidden" },
	{ STUN_CODE_UNKNOWN_ATTRIBUTE, "Unknown Attribute" },
	{ STUN_CODE_ALLOCATION_MISMATCH, "Allocation Mismatch" },
	{ STUN_CODE_STALE_NONCE, "Stale Nonce" },
	{ STUN_CODE_ADDRESS_FAMILY_NOT_SUPPORTED,
	  "Address Family not Supported" },
	{ STUN_CODE_WRONG_CREDENTIALS, "Wrong Credentials" },
	{ STUN_CODE_UNSUPPORTED_TRANSPORT, "Unsupported Transport Protocol" },
	{ STUN_CODE_PEER_ADDRESS_FAMILY_MISMATCH,
	  "Peer Address Family Mismatch" },
	{ STUN_CODE_CONNECTION_ALREADY_EXISTS, "Connection Already Exists" },
	{ STUN_CODE_CONNECTION_TIMEOUT_OR_FAILURE,
	  "Connection Timeout or Failure" },
	{ STUN_CODE_ALLOCATION_QUOTA_REACHED, "Allocation Quota Reached" },
	{ STUN_CODE_SERVER_ERROR, "Server Error" },
	{ STUN_CODE_INSUFFICIENT_CAPACITY, "Insufficient Capacity" },
	{ 0, NULL },
};

static const struct name methods[] = {
	{ STUN_BINDING, "Binding" },
	{ STUN_ALLOCATE, "Allocate" },
	{ STUN_REFRESH, "Refresh" },
	{ STUN_SEND, "Send" },
	{ STUN_DATA, "Data" },
	{ STUN_CREATE_PERMISSION, "CreatePermission" },
	{ STUN_CHANNEL_BIND, "ChannelBind" },
	{ STUN_CONNECT, "Connect" },
	{ STUN_CONNECTION_BIND, "ConnectionBind" },
	{ STUN_CONNECTION_ATTEMPT, "ConnectionAttempt" },
	{ 0, NULL },
};

static const char *name_find(const struct name *names, int number,
			     const char *otherwise)
{
	for (; names->text; names++)
		if (names->number == number)
			return names->text;
	return otherwise;
}

const char *stun_reason(int code)
{
	return name_find(reasons, code, "Error");
}

const char *stun_method_name(uint16_t method)
{
	return name_find(methods, method, "unknown");
}
