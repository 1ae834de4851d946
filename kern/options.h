/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * TCP options of a segment that changes from one connection to another: the
 * timestamps and the SACK edges move with their spaces, anything else that is
 * well-formed becomes no-operations, for it was not agreed with the other end.
 */
#ifndef KERN_OPTIONS_H
#define KERN_OPTIONS_H

#include "work.h"

#define OPTION_END        0
#define OPTION_NONE       1
#define OPTION_SACK       5
#define OPTION_TIMESTAMPS 8
#define OPTION_MD5        19
#define OPTION_AO         29
/* Two no-ops, then timestamps: how nearly every segment begins. */
#define OPTIONS_USUAL 0x0101080a

static __always_inline __u32 options_add(__u8 *at, __u32 delta)
{
	__u32 value = (__u32)at[0] << 24 | (__u32)at[1] << 16 |
		      (__u32)at[2] << 8 | at[3];

	value += delta;
	at[0] = value >> 24;
	at[1] = value >> 16;
	at[2] = value >> 8;
	at[3] = value;
	return value;
}

static __always_inline void options_timestamps(__u8 *at, struct options *o)
{
	o->tsval = options_add(at + 2, o->tsval_delta);
	if (o->has_ack)
		options_add(at + 6, o->tsecr_delta);
}

/*
 * The option at byte i: translates it and says by o->skip and o->blank what
 * becomes of its bytes. Returns 0, or -1 when the header is malformed.
 */
static __always_inline int options_one(struct work *work, __u32 i, __u32 total)
{
	struct options *o = &work->options;
	__u8 *at = work->after.options + i;
	__u32 length;

	if (i + 2 > total)
		return -1;
	length = at[1];
	if (length < 2 || i + length > total)
		return -1;
	o->skip = length;
	o->blank = 1;
	switch (at[0]) {
	case OPTION_MD5:
	case OPTION_AO:
		return -1;
	case OPTION_TIMESTAMPS:
		if (length != 10 || i > 30)
			return -1;
		if (o->flags & WIRE_LEG_TIMESTAMPS) {
			options_timestamps(at, o);
			o->blank = 0;
		}
		return 0;
	case OPTION_SACK:
		if (length < 10 || length > 34 || (length & 7) != 2 || i > 30)
			return -1;
		if (!(o->flags & WIRE_LEG_SACK) || o->blank_sack)
			return 0;
		o->blank = 0;
		for (__u32 edge = 0; edge < 8; edge++) {
			if (i + 2 + edge * 4 + 4 >
				    sizeof(work->after.options) ||
			    2 + edge * 4 >= length)
				break;
			options_add(at + 2 + edge * 4, o->ack_delta);
		}
		return 0;
	}
	return 0;
}

/*
 * The walk: one round a byte, so that every offset is a constant to the
 * verifier, and all that varies lies in `work`. Returns 0 or -1.
 */
static __noinline int options_walk(struct work *work, __u32 total)
{
	struct options *o = &work->options;
	__u8 *options = work->after.options;

	o->skip = 0;
	for (__u32 i = 0; i < sizeof(work->after.options); i++) {
		if (i >= total)
			return 0;
		if (!o->skip) {
			if (options[i] == OPTION_END)
				return 0;
			if (options[i] == OPTION_NONE)
				continue;
			if (options_one(work, i, total))
				return -1;
		}
		if (o->blank)
			options[i] = OPTION_NONE;
		o->skip--;
	}
	return 0;
}

/*
 * Translates the options of work->after, `total` bytes, as work->options says.
 * Returns 0, or -1: malformed.
 */
static __always_inline int options_translate(struct work *work, __u32 total)
{
	struct options *o = &work->options;

	if (!total)
		return 0;
	if (total == 12 && (o->flags & WIRE_LEG_TIMESTAMPS) &&
	    *(__u32 *)work->after.options == bpf_htonl(OPTIONS_USUAL)) {
		options_timestamps(work->after.options + 2, o);
		return 0;
	}
	return options_walk(work, total);
}

#endif
