/* SPDX-License-Identifier: BSD-2-Clause */
/* Sections: their lines, their place in the configuration, finding them. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/opaque.h"
#include "conf/parser.h"

const char *conf_label(enum section_kind kind, const struct section *section,
		       char out[CONF_LABEL_MAX])
{
	bool named = section && section->name[0];

	snprintf(out, CONF_LABEL_MAX, "[%s%s%s]", conf_sections[kind].name,
		 named ? " " : "", named ? section->name : "");
	return out;
}

void *conf_base(struct parser *p, enum section_kind kind, size_t index)
{
	switch (kind) {
	case SECTION_LISTENER:
		return &p->conf->listeners[index];
	case SECTION_REALM:
		return &p->conf->realms[index];
	case SECTION_USER:
		return &p->conf->users[index];
	case SECTION_EXIT:
		return &p->conf->exits[index];
	case SECTION_ALTERNATE:
		return &p->conf->alternates[index];
	case SECTION_SERVER:
	case SECTION_RELAY:
	case SECTION_DATABASE:
	case SECTION_PEERS:
	case SECTION_ENGINE:
	case SECTION_LIMITS:
	case SECTION_COUNT:
		break;
	}
	return p->conf;
}

void *conf_array_add(void *array, size_t *count, size_t size)
{
	/* The room is the next power of two: full when the count is one. */
	if (!(*count & (*count - 1))) {
		size_t room = *count ? *count * 2 : 1;
		void *grown = calloc(room, size);

		if (!grown)
			return NULL;
		/* Not realloc(): the elements hold keys. */
		if (array) {
			memcpy(grown, array, *count * size);
			explicit_bzero(array, *count * size);
			free(array);
		}
		array = grown;
	}
	++*count;
	return array;
}

/* Adds an element for a named section; its name becomes the first field's. */
static int element_add(struct parser *p, enum section_kind kind,
		       const char *name, size_t *index)
{
	struct conf *conf = p->conf;
	void **array = NULL;
	size_t *count = NULL, size = 0;
	char *copy = strdup(name);
	void *grown;

	if (kind == SECTION_LISTENER) {
		array = (void **)&conf->listeners;
		count = &conf->listener_count;
		size = sizeof(*conf->listeners);
	} else if (kind == SECTION_REALM) {
		array = (void **)&conf->realms;
		count = &conf->realm_count;
		size = sizeof(*conf->realms);
	} else if (kind == SECTION_EXIT) {
		array = (void **)&conf->exits;
		count = &conf->exit_count;
		size = sizeof(*conf->exits);
	} else if (kind == SECTION_ALTERNATE) {
		array = (void **)&conf->alternates;
		count = &conf->alternate_count;
		size = sizeof(*conf->alternates);
	} else {
		array = (void **)&conf->users;
		count = &conf->user_count;
		size = sizeof(*conf->users);
	}
	grown = copy ? conf_array_add(*array, count, size) : NULL;
	if (!grown) {
		free(copy);
		return -ENOMEM;
	}
	*array = grown;
	*index = *count - 1;
	/* All of these structures begin with char *name. */
	*(char **)conf_base(p, kind, *index) = copy;
	conf_value_presets(p, kind, conf_base(p, kind, *index));
	return 0;
}

static uint64_t name_hash(enum section_kind kind, const char *name)
{
	return table_hash(name, strlen(name)) + (uint64_t)kind;
}

struct section *conf_section_find(struct parser *p, enum section_kind kind,
				  const char *name)
{
	struct table_node *node;

	for (node = table_first(&p->names, name_hash(kind, name)); node;
	     node = table_next(node)) {
		struct section *s = list_entry(node, struct section, by_name);

		if (s->kind == kind && !strcmp(s->name, name))
			return s;
	}
	return NULL;
}

struct section *conf_section_next(struct parser *p, struct section *s,
				  enum section_kind kind)
{
	struct list *pos = s ? s->link.next : p->sections.next;

	for (; pos != &p->sections; pos = pos->next) {
		s = list_entry(pos, struct section, link);
		if (s->kind == kind)
			return s;
	}
	return NULL;
}

static size_t key_index(const struct section *section, const char *key)
{
	size_t count, i = 0;
	const struct key *keys = conf_keys_of(section->kind, &count);

	while (i + 1 < count && strcmp(keys[i].name, key) != 0)
		i++;
	return i;
}

unsigned int conf_key_line(const struct section *section, const char *key)
{
	return section->key_lines[key_index(section, key)];
}

bool conf_key_refused(const struct section *section, const char *key)
{
	return section->key_refused[key_index(section, key)];
}

static struct section *section_new(struct parser *p, enum section_kind kind,
				   const char *name)
{
	struct section *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->kind = kind;
	s->line = p->line;
	memcpy(s->name, name, strlen(name) + 1);
	if (conf_sections[kind].named &&
	    element_add(p, kind, name, &s->index)) {
		free(s);
		return NULL;
	}
	table_insert(&p->names, &s->by_name, name_hash(kind, name));
	list_add_tail(&s->link, &p->sections);
	return s;
}

static size_t sections_count(struct parser *p, enum section_kind kind)
{
	struct section *s = NULL;
	size_t count = 0;

	while ((s = conf_section_next(p, s, kind)) != NULL)
		count++;
	return count;
}

static void section_open(struct parser *p, enum section_kind kind,
			 const char *name)
{
	struct section *before = conf_section_find(p, kind, name);
	char label[CONF_LABEL_MAX];

	if (before)
		conf_error(p, p->line,
			   "%s: found twice, first in line %u; allowed: once",
			   conf_label(kind, before, label), before->line);
	if (conf_sections[kind].max &&
	    sections_count(p, kind) == conf_sections[kind].max) {
		conf_error(p, p->line,
			   "[%s %s]: found one more; allowed: at most %zu",
			   conf_sections[kind].name, name,
			   conf_sections[kind].max);
		return;
	}
	/* A repeated section, too, has its keys checked. */
	p->current = section_new(p, kind, name);
	if (!p->current)
		conf_no_memory(p);
}

static void section_unknown(struct parser *p, const char *kind)
{
	const char *nearest = conf_nearest_section(kind);
	char names[160] = "";
	size_t used = 0;

	if (nearest) {
		conf_error(p, p->line,
			   "[%.40s]: unknown section; did you mean [%s]?", kind,
			   nearest);
		return;
	}
	for (size_t i = 0; i < SECTION_COUNT; i++)
		used += (size_t)snprintf(names + used, sizeof(names) - used,
					 "%s%s", i ? ", " : "",
					 conf_sections[i].name);
	conf_error(p, p->line, "[%.40s]: unknown section; allowed: %s", kind,
		   names);
}

/* Realms and users are called what clients call them. */
static void section_open_opaque(struct parser *p, enum section_kind kind,
				const char *name)
{
	char *prepared;
	int err = opaque_prepare(name, &prepared);

	if (err == -ENOMEM) {
		conf_no_memory(p);
		return;
	}
	if (!err && strlen(prepared) < CONF_NAME_MAX)
		section_open(p, kind, prepared);
	else
		conf_error(p, p->line,
			   "[%s]: found \"%.40s\" as the name; allowed: up to "
			   "%d bytes of " OPAQUE_ALLOWED,
			   conf_sections[kind].name, name, CONF_NAME_MAX - 1);
	if (!err)
		free(prepared);
}

/* text: what stands between the brackets, trimmed. */
static void section_parse(struct parser *p, char *text)
{
	size_t kind_len = strcspn(text, " \t"), i;
	const char *name = text + kind_len + strspn(text + kind_len, " \t");

	text[kind_len] = '\0';
	for (i = 0; i < SECTION_COUNT; i++)
		if (!strcmp(conf_sections[i].name, text))
			break;
	if (i == SECTION_COUNT)
		section_unknown(p, text);
	else if (conf_sections[i].named && !*name)
		conf_error(p, p->line,
			   "[%s]: found no name; allowed: [%s NAME]", text,
			   text);
	else if (!conf_sections[i].named && *name)
		conf_error(p, p->line,
			   "[%s]: found a name, \"%.40s\"; allowed: [%s]", text,
			   name, text);
	else if (strlen(name) >= CONF_NAME_MAX)
		conf_error(p, p->line,
			   "[%s]: found a name of %zu bytes; allowed: up to %d",
			   text, strlen(name), CONF_NAME_MAX - 1);
	else if (i == SECTION_REALM || i == SECTION_USER)
		section_open_opaque(p, (enum section_kind)i, name);
	else
		section_open(p, (enum section_kind)i, name);
}

size_t conf_trim(const char **text, size_t len)
{
	while (len && isspace((unsigned char)**text)) {
		++*text;
		len--;
	}
	while (len && isspace((unsigned char)(*text)[len - 1]))
		len--;
	return len;
}

void conf_section_line(struct parser *p)
{
	const char *close = memchr(p->raw, ']', p->raw_len), *rest, *inner;
	char copy[CONF_LINE_MAX + 1];
	size_t len;

	p->current = NULL;
	p->orphans_reported = true; /* the wrong section is reported itself */
	if (!close) {
		conf_error(p, p->line,
			   "found \"[\" without \"]\"; "
			   "allowed: [section] or [section NAME]");
		return;
	}
	rest = close + 1;
	len = conf_trim(&rest, p->raw_len - (size_t)(rest - p->raw));
	if (len && *rest != ';' && *rest != '#') {
		conf_error(p, p->line,
			   "found text behind \"]\"; "
			   "allowed: a comment");
		return;
	}
	inner = p->raw + 1;
	len = conf_trim(&inner, (size_t)(close - inner));
	memcpy(copy, inner, len);
	copy[len] = '\0';
	section_parse(p, copy);
}
