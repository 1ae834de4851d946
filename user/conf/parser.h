/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of this room share while a text is parsed. Private to conf. */
#ifndef CONF_PARSER_H
#define CONF_PARSER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/list.h"
#include "base/table.h"
#include "conf/conf.h"
#include "conf/keys.h"

#define CONF_PORT      3478 /* of TCP */
#define CONF_PORT_TLS  5349
#define CONF_LINE_MAX  1000 /* bytes of a line without its end */
#define CONF_LABEL_MAX (CONF_NAME_MAX + 16) /* "[listener NAME]" and NUL */

/* One section as it stands in the text. */
struct section {
	struct list link;
	struct table_node by_name; /* key: kind and name */
	struct table_node by_user; /* key: user name and realm; [user] only */
	enum section_kind kind;
	char name[CONF_NAME_MAX];
	unsigned int line;
	size_t index; /* in its array of struct conf, for named kinds */
	/* Where each of conf_keys_of(kind) was given; 0: nowhere. */
	unsigned int key_lines[CONF_KEYS_MAX];
	/* [realm]: its first user with an MD5 key alone; NULL: none. */
	const struct section *md5_only;
	bool key_refused[CONF_KEYS_MAX]; /* reported; the field has its default */
};

struct parser {
	struct conf *conf;
	const char *file;
	conf_report_fn report;
	void *arg;

	const char *text; /* not yet read */
	size_t len;
	unsigned int line; /* number of the line in hand; 0 before the first */
	const char *raw; /* that line without white space around it */
	size_t raw_len;
	bool pending; /* inih has it and did not call back so far */

	struct list sections;
	struct table names;
	struct section *current; /* NULL: before any, or in a wrong one */
	bool orphans_reported; /* keys before the first section */

	unsigned int errors;
	unsigned int warnings;
	bool no_memory; /* reported; nothing else matters any more */
};

/* line 0 means the text as a whole. */
void conf_error(struct parser *p, unsigned int line, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void conf_warn(struct parser *p, unsigned int line, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void conf_no_memory(struct parser *p);

/* "[server]" or "[user alice]"; section may be NULL for defaults. */
const char *conf_label(enum section_kind kind, const struct section *section,
		       char out[CONF_LABEL_MAX]);
/* The structure that a key's offset counts from. */
void *conf_base(struct parser *p, enum section_kind kind, size_t index);

/* The line in hand, which begins with "[": opens a section or reports. */
void conf_section_line(struct parser *p);

struct section *conf_section_find(struct parser *p, enum section_kind kind,
				  const char *name);
/* The line of a key in a section, 0 when it was not given there. */
unsigned int conf_key_line(const struct section *section, const char *key);
/* The next section of a kind in the text; s NULL: the first. */
struct section *conf_section_next(struct parser *p, struct section *s,
				  enum section_kind kind);
bool conf_key_refused(const struct section *section, const char *key);

/* Sets a field from text, or reports why not and returns false. section NULL: a
 * default.
 */
bool conf_value_set(struct parser *p, const struct section *section,
		    const struct key *key, void *base, const char *text);
/* Gives every field of a section its default. */
void conf_value_presets(struct parser *p, enum section_kind kind, void *base);

/* What concerns more than one key of [alternate] sections. */
void conf_alternates_check(struct parser *p);

/* Everything that concerns more than one key; fills derived fields. */
void conf_check(struct parser *p);

/*
 * The same of exits; makes conf->sources (exits.c). conf_exits_look warns of links
 * that are not there.
 */
void conf_exits_check(struct parser *p);
void conf_exits_look(const struct conf *conf, const char *file,
		     conf_report_fn report, void *arg);

/* Moves *text behind white space; returns len without that, and that behind. */
size_t conf_trim(const char **text, size_t len);

/* Adds one zeroed element to an array of `size`-byte elements, or returns NULL. */
void *conf_array_add(void *array, size_t *count, size_t size);

/* Reads a whole file; *text, NUL-terminated, is the caller's to wipe and free. */
int conf_file_read(const char *path, size_t max, char **text, size_t *len,
		   mode_t *mode);
/*
 * Reads the files that keys name, reporting every one that cannot be read. 0 or
 * a negative errno.
 */
int conf_files_read(struct conf *conf, const char *file, conf_report_fn report,
		    void *arg);
/* Wipes what was read of them. */
void conf_files_forget(struct conf *conf);
void conf_files_free(struct conf_file *files, size_t count);

/* Wipes and frees; accepts NULL. */
void conf_secret_free(char *secret);

#endif
