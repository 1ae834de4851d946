/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The one table of sections and keys: parsing, defaults, the words of error
 * messages and the manual's reference are all made from it. Private to conf.
 */
#ifndef CONF_KEYS_H
#define CONF_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONF_KEYS_MAX    32 /* keys of one section */
#define CONF_ALLOWED_MAX 192 /* bytes of an `allowed` text with its NUL */

enum section_kind {
	SECTION_SERVER,
	SECTION_LISTENER,
	SECTION_RELAY,
	SECTION_REALM,
	SECTION_USER,
	SECTION_EXIT,
	SECTION_ALTERNATE,
	SECTION_DATABASE,
	SECTION_PEERS,
	SECTION_ENGINE,
	SECTION_LIMITS,
	SECTION_COUNT,
};

/* What a value looks like, and with that the C type of its field. */
enum key_type {
	KEY_BOOL, /* bool */
	KEY_COUNT, /* unsigned int */
	KEY_SIZE, /* size_t, bytes */
	KEY_DURATION, /* uint64_t, milliseconds */
	KEY_RATE, /* uint64_t, bits a second */
	KEY_TEXT, /* char * */
	KEY_PATH, /* char *, absolute and fit for a UNIX socket */
	KEY_SECRET, /* char *, never shown */
	KEY_SECRETS, /* char *[CONF_SECRETS_MAX], as those; second: size_t count */
	KEY_HA1, /* struct conf_ha1, never shown */
	KEY_WORD, /* an enum: the word's place in `words` */
	KEY_LISTEN, /* union addr * of a listener; second: size_t count */
	KEY_ENDPOINTS, /* union addr *; second: size_t count; with a port */
	KEY_HOSTS, /* union addr *; second: size_t count; no port */
	KEY_RULES, /* struct conf_rule *; second: size_t count */
	KEY_PREFIXES, /* struct prefix *; second: size_t count */
	KEY_NAT64, /* as those, of translators */
	KEY_PORTS, /* uint16_t lowest; second: uint16_t highest */
	KEY_ENGINES, /* char *[CONF_ENGINES_MAX]; second: size_t count */
	KEY_DEVICES, /* char *[CONF_DEVICES_MAX]; second: size_t count */
	KEY_DEVICE, /* char * */
	KEY_SUFFIX, /* union addr, of IPv6 */
	KEY_FILES, /* struct conf_file[CONF_FILES_MAX]; second: size_t count */
	KEY_PERCENT, /* unsigned int, parts per million */
};

enum key_flags {
	KEY_ZERO = 1, /* 0 is allowed beside min..max */
	KEY_REPEAT = 2, /* may be given several times: the lists add up */
	KEY_POWER = 4, /* rounded up to a power of two */
	KEY_ADVISED = 8, /* below `advised` only with a warning */
	KEY_OPAQUE = 16, /* text that is prepared for comparison (RFC 8265) */
};

struct key {
	enum section_kind section;
	const char *name;
	enum key_type type;
	unsigned int flags;
	size_t offset; /* in struct conf, or in the named section's struct */
	size_t second; /* as the type says */
	uint64_t min,
		max; /* of numbers (in the field's unit) and text (bytes) */
	const char *const *words; /* of KEY_WORD; NULL at the end */
	uint64_t advised; /* with KEY_ADVISED */
	const char *why; /* with KEY_ADVISED: what is lost below it */
	const char *preset; /* the default, as it would be written; or NULL */
	const char *shown; /* what the manual calls the default instead */
	const char *help; /* roff text for the manual */
};

struct section_info {
	const char *name;
	bool named; /* has a NAME and may come more than once */
	size_t max; /* of them; 0: any number */
	const char *help; /* roff text for the manual */
};

extern const struct section_info conf_sections[SECTION_COUNT];
extern const struct key conf_keys[];
extern const size_t conf_key_count;

/* Names of the engines this configuration may order; NULL at the end. */
extern const char *const conf_engine_names[];

/* The first of a section's keys; *count tells how many follow it. */
const struct key *conf_keys_of(enum section_kind kind, size_t *count);

/* The place of a word in such a list; -1: it is not there. */
int conf_word_find(const char *const *words, const char *word);

/* What may stand as the key's value, in words. */
void conf_key_allowed(const struct key *key, char out[CONF_ALLOWED_MAX]);

/* The name a lone misspelt one probably meant, or NULL. */
const char *conf_nearest_key(enum section_kind kind, const char *name);
const char *conf_nearest_section(const char *name);

/* Number with its unit as it would be written: 64K, 10m, 1500ms. */
void conf_format_size(uint64_t bytes, char out[32]);
void conf_format_duration(uint64_t ms, char out[32]);
/* 64K, 10M: in thousands. */
void conf_format_rate(uint64_t bits, char out[32]);

#endif
