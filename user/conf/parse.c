/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reading a configuration text, line by line.
 *
 * inih splits lines into key and value, and takes comments off. Everything that
 * it would do silently is done by the reader that feeds it instead: inih splits
 * lines longer than its buffer, cuts section names at 50 bytes, does not tell of
 * empty sections, takes an indented line for the rest of the one before, and
 * keeps only the first error. So the reader hands over key lines alone, one a
 * call, without the white space before them, and keeps track of the section and
 * the line number; inih calls key_handle() before it asks for the next line, or
 * the line was none.
 *
 * A value that keeps secrets is taken from the line itself: inih would cut a
 * password at " ;" without a word.
 */
#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "conf/parser.h"

#define REPORTS_MAX 1000 /* errors shown; the rest is counted */

/*
 * Debian's inih has these as variables and no more than 200 bytes a line unless
 * told; elsewhere they are compiled in, and longer lines are refused.
 */
extern int ini_max_line __attribute__((weak));

void conf_error(struct parser *p, unsigned int line, const char *fmt, ...)
{
	char message[512];
	va_list args;

	if (p->no_memory || ++p->errors > REPORTS_MAX)
		return;
	va_start(args, fmt);
	vsnprintf(message, sizeof(message), fmt, args);
	va_end(args);
	p->report(p->arg, true, p->file, line, message);
}

void conf_warn(struct parser *p, unsigned int line, const char *fmt, ...)
{
	char message[512];
	va_list args;

	if (p->no_memory || ++p->warnings > REPORTS_MAX)
		return;
	va_start(args, fmt);
	vsnprintf(message, sizeof(message), fmt, args);
	va_end(args);
	p->report(p->arg, false, p->file, line, message);
}

void conf_no_memory(struct parser *p)
{
	if (!p->no_memory)
		p->report(p->arg, true, p->file, p->line,
			  "no memory to read the configuration");
	p->no_memory = true;
}

static void key_unknown(struct parser *p, const char *name)
{
	const char *nearest = conf_nearest_key(p->current->kind, name);
	char label[CONF_LABEL_MAX], names[400] = "";
	size_t count, used = 0;
	const struct key *keys = conf_keys_of(p->current->kind, &count);

	conf_label(p->current->kind, p->current, label);
	for (size_t i = 0; i < conf_key_count && !nearest; i++) {
		if (strcmp(conf_keys[i].name, name) != 0)
			continue;
		conf_error(p, p->line,
			   "%s %s: unknown key here; it belongs to [%s]", label,
			   name, conf_sections[conf_keys[i].section].name);
		return;
	}
	if (nearest) {
		conf_error(p, p->line,
			   "%s %.40s: unknown key; did you mean \"%s\"?", label,
			   name, nearest);
		return;
	}
	for (size_t i = 0; i < count && used < sizeof(names); i++)
		used += (size_t)snprintf(names + used, sizeof(names) - used,
					 "%s%s", i ? ", " : "", keys[i].name);
	conf_error(p, p->line, "%s %.40s: unknown key; allowed: %s", label,
		   name, names);
}

/* Is there white space with a semicolon behind it, as before a comment? */
static bool looks_commented(const char *text, size_t len, bool spaced)
{
	for (size_t i = 0; i < len; i++) {
		if (text[i] == ';' && spaced)
			return true;
		spaced = isspace((unsigned char)text[i]);
	}
	return false;
}

/*
 * A secret's text, literally: quotes around it are taken off, and what might be
 * meant as a comment is refused. Returns false after reporting.
 */
static bool secret_extract(struct parser *p, const struct key *key,
			   char out[CONF_LINE_MAX + 1])
{
	const char *text = p->raw + strcspn(p->raw, "=:") + 1;
	size_t len = conf_trim(&text, p->raw_len - (size_t)(text - p->raw));
	bool spaced = isspace((unsigned char)text[-1]);
	const char *why = NULL;

	if (len && *text == '"') {
		if (len < 2 || text[len - 1] != '"')
			why = "a quotation mark at the beginning only; allowed: "
			      "one at the very end, too (a comment needs its "
			      "own line)";
		text++;
		len -= len < 2 ? 1 : 2;
	} else if (looks_commented(text, len, spaced)) {
		why = "a semicolon after a space, which may be meant as a "
		      "comment; allowed: the value in double quotes, or the "
		      "comment on its own line";
	}
	if (why) {
		char label[CONF_LABEL_MAX];

		conf_error(p, p->line, "%s %s: found %s",
			   conf_label(p->current->kind, p->current, label),
			   key->name, why);
		return false;
	}
	memcpy(out, text, len);
	out[len] = '\0';
	return true;
}

static void key_assign(struct parser *p, const struct key *key, size_t index,
		       const char *value)
{
	struct section *s = p->current;
	void *base = conf_base(p, s->kind, s->index);
	char label[CONF_LABEL_MAX], secret[CONF_LINE_MAX + 1];
	bool taken;

	if (s->key_lines[index] && !(key->flags & KEY_REPEAT)) {
		conf_error(p, p->line,
			   "%s %s: found twice, first in line %u; "
			   "allowed: once",
			   conf_label(s->kind, s, label), key->name,
			   s->key_lines[index]);
		return;
	}
	if (!s->key_lines[index])
		s->key_lines[index] = p->line;
	if (key->type != KEY_SECRET && key->type != KEY_SECRETS)
		taken = conf_value_set(p, s, key, base, value);
	else
		taken = secret_extract(p, key, secret) &&
			conf_value_set(p, s, key, base, secret);
	explicit_bzero(secret, sizeof(secret));
	s->key_refused[index] |= !taken;
}

/* inih's handler: one key line. Always content, so that inih goes on. */
static int key_handle(void *user, const char *unused, const char *name,
		      const char *value)
{
	struct parser *p = user;
	size_t count;
	const struct key *keys = conf_keys_of(p->current->kind, &count);

	(void)unused;
	p->pending = false;
	for (size_t i = 0; i < count; i++) {
		if (strcmp(keys[i].name, name) != 0)
			continue;
		key_assign(p, &keys[i], i, value);
		return 1;
	}
	key_unknown(p, name);
	return 1;
}

/* Refuses what neither a log nor a JSON answer could carry. */
static bool bytes_allowed(struct parser *p)
{
	const unsigned char *text = (const unsigned char *)p->raw;
	size_t i = 0, n;

	while (i < p->raw_len) {
		if ((text[i] < 0x20 && text[i] != '\t') || text[i] == 0x7f) {
			conf_error(p, p->line,
				   "found control character 0x%02x; "
				   "allowed: printable text",
				   text[i]);
			return false;
		}
		n = utf8_len(text + i, p->raw_len - i);
		if (!n) {
			conf_error(p, p->line,
				   "found byte 0x%02x; allowed: UTF-8 text",
				   text[i]);
			return false;
		}
		i += n;
	}
	return true;
}

/* Takes the next line of the text; false at its end. */
static bool line_next(struct parser *p)
{
	const char *end;
	size_t len;

	if (!p->len || p->no_memory)
		return false;
	end = memchr(p->text, '\n', p->len);
	len = end ? (size_t)(end - p->text) : p->len;
	p->raw = p->text;
	p->raw_len = len;
	p->text += len + (end != NULL);
	p->len -= len + (end != NULL);
	p->line++;
	if (p->line == 1 && p->raw_len >= 3 &&
	    !memcmp(p->raw, "\xef\xbb\xbf", 3)) {
		p->raw += 3;
		p->raw_len -= 3;
	}
	return true;
}

/* Is the line in hand one for inih? Deals with all others. */
static bool line_is_key(struct parser *p, size_t room)
{
	size_t limit = room < CONF_LINE_MAX ? room : CONF_LINE_MAX;

	if (p->raw_len > limit) {
		conf_error(p, p->line,
			   "found a line of %zu bytes; allowed: up to %zu",
			   p->raw_len, limit);
		return false;
	}
	p->raw_len = conf_trim(&p->raw, p->raw_len);
	if (!p->raw_len || *p->raw == ';' || *p->raw == '#')
		return false;
	if (!bytes_allowed(p))
		return false;
	if (*p->raw == '[') {
		conf_section_line(p);
		return false;
	}
	if (!p->current && !p->orphans_reported) {
		p->orphans_reported = true;
		conf_error(p, p->line,
			   "found a line before any section; "
			   "allowed: [section] first");
	}
	return p->current != NULL;
}

static void line_finish(struct parser *p)
{
	if (p->pending)
		conf_error(p, p->line,
			   "found a line that is neither a section nor a key; "
			   "allowed: [section] or key = value");
	p->pending = false;
}

/* inih's reader: fills buf with one key line and returns it, NULL at the end. */
static char *line_read(char *buf, int size, void *arg)
{
	struct parser *p = arg;

	line_finish(p);
	while (line_next(p)) {
		if (!line_is_key(p, (size_t)size - 1))
			continue;
		memcpy(buf, p->raw, p->raw_len);
		buf[p->raw_len] = '\0';
		p->pending = true;
		return buf;
	}
	/* It has held passwords. */
	explicit_bzero(buf, (size_t)size);
	return NULL;
}

static int parser_init(struct parser *p)
{
	list_init(&p->sections);
	if (table_init(&p->names))
		return -ENOMEM;
	p->conf = calloc(1, sizeof(*p->conf));
	if (!p->conf) {
		table_destroy(&p->names);
		return -ENOMEM;
	}
	p->conf->refs = 1;
	return 0;
}

static void parser_destroy(struct parser *p)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &p->sections)
		free(list_entry(pos, struct section, link));
	table_destroy(&p->names);
	conf_unref(p->conf);
}

static void parser_run(struct parser *p)
{
	for (size_t kind = 0; kind < SECTION_COUNT; kind++)
		if (!conf_sections[kind].named)
			conf_value_presets(p, (enum section_kind)kind, p->conf);
	if (&ini_max_line)
		ini_max_line = CONF_LINE_MAX + 2;
	/* Wrong lines are reported already; -2 is inih's own lack of memory. */
	if (ini_parse_stream(line_read, p, key_handle, p) == -2)
		conf_no_memory(p);
	conf_check(p);
	if (p->errors > REPORTS_MAX)
		p->report(p->arg, true, p->file, 0,
			  "more errors than can be shown");
}

int conf_parse(const char *text, size_t len, const char *file,
	       conf_report_fn report, void *arg, struct conf **out)
{
	struct parser p = {
		.file = file,
		.report = report,
		.arg = arg,
		.text = text,
		.len = len,
	};
	int err = 0;

	if (parser_init(&p)) {
		conf_no_memory(&p);
		return -ENOMEM;
	}
	parser_run(&p);
	if (p.no_memory)
		err = -ENOMEM;
	else if (p.errors)
		err = -EINVAL;
	else
		*out = conf_ref(p.conf);
	parser_destroy(&p);
	return err;
}
