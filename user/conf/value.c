/* SPDX-License-Identifier: BSD-2-Clause */
/* Values: text from the file into the field the key table names. */
#include <ctype.h>
#include <errno.h>
#include <net/if.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "base/opaque.h"
#include "conf/parser.h"

#define LIST_MAX     64 /* addresses of one key */
#define PREFIXES_MAX 32768 /* prefixes of one key, all its lines together */
#define ITEM_MAX     256 /* bytes of a list's item with its NUL */
#define FOUND_MAX    60 /* bytes of a wrong value that are shown */

_Static_assert(LIST_MAX <= 64, "conf_listener.portless has a bit for each");
_Static_assert(CONF_ENGINES_MAX <= CONF_DEVICES_MAX, "names_set's room");

/* One assignment under way. */
struct value {
	struct parser *p;
	const struct section *section;
	const struct key *key;
	void *base;
	const char *text;
	const char *found; /* the part of text to complain about */
	size_t found_len;
};

static void *field_at(const struct value *v, size_t offset)
{
	return (char *)v->base + offset;
}

static void *field(const struct value *v)
{
	return field_at(v, v->key->offset);
}

static unsigned int value_line(const struct value *v)
{
	return v->section ? v->p->line : 0;
}

/* Shortens to whole UTF-8 characters. */
static int shown_len(size_t len, const char *text)
{
	if (len <= FOUND_MAX)
		return (int)len;
	len = FOUND_MAX;
	while (len && ((unsigned char)text[len] & 0xc0) == 0x80)
		len--;
	return (int)len;
}

static void value_refuse(const struct value *v)
{
	char label[CONF_LABEL_MAX], allowed[CONF_ALLOWED_MAX];
	int shown = shown_len(v->found_len, v->found);

	conf_label(v->key->section, v->section, label);
	conf_key_allowed(v->key, allowed);
	if (v->key->type == KEY_SECRET || v->key->type == KEY_SECRETS ||
	    v->key->type == KEY_HA1)
		conf_error(v->p, value_line(v),
			   "%s %s: found a value of %zu bytes (not shown); "
			   "allowed: %s",
			   label, v->key->name, v->found_len, allowed);
	else if (!v->found_len)
		conf_error(v->p, value_line(v),
			   "%s %s: found nothing; allowed: %s", label,
			   v->key->name, allowed);
	else
		conf_error(v->p, value_line(v),
			   "%s %s: found \"%.*s%s\"; allowed: %s", label,
			   v->key->name, shown, v->found,
			   (size_t)shown < v->found_len ? "..." : "", allowed);
}

/* Digits and a unit. Returns 0, -EINVAL or -ERANGE. */
static int number_parse(const char *text, uint64_t *out, const char **unit)
{
	uint64_t n = 0;

	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	for (; isdigit((unsigned char)*text); text++)
		if (__builtin_mul_overflow(n, 10u, &n) ||
		    __builtin_add_overflow(n, (uint64_t)(*text - '0'), &n))
			return -ERANGE;
	*out = n;
	*unit = text;
	return 0;
}

struct unit {
	const char *name;
	uint64_t factor;
};

static const struct unit size_units[] = {
	{ "", 1 },           { "K", 1024 }, { "M", 1048576 },
	{ "G", 1073741824 }, { NULL, 0 },
};

static const struct unit duration_units[] = {
	{ "", 1000 },   { "ms", 1 },      { "s", 1000 },
	{ "m", 60000 }, { "h", 3600000 }, { NULL, 0 },
};

/* Of networks, in thousands. */
static const struct unit rate_units[] = {
	{ "", 1 },           { "K", 1000 }, { "M", 1000000 },
	{ "G", 1000000000 }, { NULL, 0 },
};

static const struct unit no_units[] = { { "", 1 }, { NULL, 0 } };

static int scaled_parse(const char *text, const struct unit *units,
			uint64_t *out)
{
	const char *rest;
	uint64_t n;

	if (number_parse(text, &n, &rest))
		return -EINVAL;
	for (; units->name; units++) {
		if (strcmp(rest, units->name) != 0)
			continue;
		return __builtin_mul_overflow(n, units->factor, out) ? -ERANGE :
								       0;
	}
	return -EINVAL;
}

static uint64_t power_round(const struct value *v, uint64_t n)
{
	char label[CONF_LABEL_MAX], size[32];
	uint64_t power = 1;

	while (power < n)
		power <<= 1;
	if (power == n)
		return n;
	conf_format_size(power, size);
	conf_warn(v->p, value_line(v),
		  "%s %s: found \"%s\", which is no power of two; %s is taken",
		  conf_label(v->key->section, v->section, label), v->key->name,
		  v->text, size);
	return power;
}

static int number_set(struct value *v, const struct unit *units)
{
	const struct key *key = v->key;
	char label[CONF_LABEL_MAX];
	uint64_t n;

	if (scaled_parse(v->text, units, &n) || n > key->max)
		return -EINVAL;
	if (n < key->min && !(n == 0 && key->flags & KEY_ZERO))
		return -EINVAL;
	if (key->flags & KEY_ADVISED && n < key->advised)
		conf_warn(v->p, value_line(v), "%s %s: found \"%s\": %s",
			  conf_label(key->section, v->section, label),
			  key->name, v->text, key->why);
	if (key->flags & KEY_POWER)
		n = power_round(v, n);
	if (key->type == KEY_COUNT)
		*(unsigned int *)field(v) = (unsigned int)n;
	else if (key->type == KEY_SIZE)
		*(size_t *)field(v) = (size_t)n;
	else
		*(uint64_t *)field(v) = n;
	return 0;
}

static int bool_set(struct value *v)
{
	if (strcmp(v->text, "yes") != 0 && strcmp(v->text, "no") != 0)
		return -EINVAL;
	*(bool *)field(v) = v->text[0] == 'y';
	return 0;
}

static void string_free(const struct value *v, char *text)
{
	if (v->key->type == KEY_SECRET)
		conf_secret_free(text);
	else
		free(text);
}

/* Takes the text over. */
static void string_take(struct value *v, char *text)
{
	char **out = field(v);

	string_free(v, *out);
	*out = text;
}

static int string_set(struct value *v)
{
	char *copy = strdup(v->text);

	if (!copy)
		return -ENOMEM;
	string_take(v, copy);
	return 0;
}

static bool text_fits(const struct value *v, const char *text)
{
	size_t len = strlen(text);

	return len >= v->key->min && len <= v->key->max;
}

static int opaque_set(struct value *v)
{
	char *text;
	int err = opaque_prepare(v->text, &text);

	if (err)
		return err;
	if (!text_fits(v, text)) {
		string_free(v, text);
		return -EINVAL;
	}
	string_take(v, text);
	return 0;
}

static int text_set(struct value *v)
{
	if (!text_fits(v, v->text))
		return -EINVAL;
	return v->key->flags & KEY_OPAQUE ? opaque_set(v) : string_set(v);
}

static int name_add(char **names, size_t *count, const char *name)
{
	for (size_t i = 0; i < *count; i++)
		if (!strcmp(names[i], name))
			return -EINVAL;
	names[*count] = strdup(name);
	if (!names[*count])
		return -ENOMEM;
	++*count;
	return 0;
}

/* One more, unlike those before (KEY_REPEAT). */
static int secrets_set(struct value *v)
{
	char **secrets = field(v);
	size_t *count = field_at(v, v->key->second), len = strlen(v->text);

	if (len < v->key->min || len > v->key->max ||
	    *count == CONF_SECRETS_MAX)
		return -EINVAL;
	return name_add(secrets, count, v->text);
}

static int path_set(struct value *v)
{
	struct sockaddr_un sun;

	if (v->text[0] != '/' || strlen(v->text) >= sizeof(sun.sun_path))
		return -EINVAL;
	return string_set(v);
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Exactly so many bytes, once. */
static int hex_set(const char *text, uint8_t *out, size_t len, bool *has)
{
	if (*has || strlen(text) != 2 * len)
		return -EINVAL;
	for (size_t i = 0; i < 2 * len; i++)
		if (hex_digit(text[i]) < 0)
			return -EINVAL;
	for (size_t i = 0; i < len; i++)
		out[i] = (uint8_t)(hex_digit(text[2 * i]) << 4 |
				   hex_digit(text[2 * i + 1]));
	*has = true;
	return 0;
}

/* A repeated key brings the other digest (KEY_REPEAT). */
static int ha1_set(struct value *v)
{
	struct conf_ha1 *ha1 = field(v);

	if (strlen(v->text) == 2 * sizeof(ha1->md5))
		return hex_set(v->text, ha1->md5, sizeof(ha1->md5),
			       &ha1->has_md5);
	return hex_set(v->text, ha1->sha256, sizeof(ha1->sha256),
		       &ha1->has_sha256);
}

/* Without negative values an enum is an unsigned int. */
static int word_set(struct value *v)
{
	int found = conf_word_find(v->key->words, v->text);

	if (found < 0)
		return -EINVAL;
	*(unsigned int *)field(v) = (unsigned int)found;
	return 0;
}

static int port_parse(const char *text, size_t len, uint16_t *out)
{
	char digits[8];
	uint64_t n;
	const char *rest;

	if (len >= sizeof(digits))
		return -EINVAL;
	memcpy(digits, text, len);
	digits[len] = '\0';
	if (number_parse(digits, &n, &rest) || *rest || n < 1 || n > 65535)
		return -EINVAL;
	*out = (uint16_t)n;
	return 0;
}

static size_t trimmed_len(const char *text, size_t len)
{
	while (len && isspace((unsigned char)text[len - 1]))
		len--;
	return len;
}

/* "80", "80-90". */
static int ports_parse(const char *text, uint16_t *min, uint16_t *max)
{
	const char *dash = strchr(text, '-');
	size_t len = dash ? (size_t)(dash - text) : strlen(text);
	uint16_t low, high;

	if (port_parse(text, trimmed_len(text, len), &low))
		return -EINVAL;
	high = low;
	if (dash) {
		dash += 1 + strspn(dash + 1, " \t");
		if (port_parse(dash, strlen(dash), &high))
			return -EINVAL;
	}
	if (low > high)
		return -EINVAL;
	*min = low;
	*max = high;
	return 0;
}

static int ports_set(struct value *v)
{
	return ports_parse(v->text, field(v), field_at(v, v->key->second));
}

/*
 * Takes the next item off a comma-separated list; *list becomes NULL behind the
 * last. Returns 0 or -EINVAL; the item is what v->found shows in either case.
 */
static int list_next(struct value *v, const char **list, char item[ITEM_MAX])
{
	const char *start = *list + strspn(*list, " \t");
	size_t len = strcspn(start, ",");

	*list = start[len] ? start + len + 1 : NULL;
	len = trimmed_len(start, len);
	v->found = start;
	v->found_len = len;
	if (!len || len >= ITEM_MAX)
		return -EINVAL;
	memcpy(item, start, len);
	item[len] = '\0';
	return 0;
}

static int host_parse(const struct value *v, const char *item,
		      const union addr *have, size_t count, union addr *out)
{
	struct prefix whole;

	if (v->key->type == KEY_LISTEN)
		return addr_parse(item, CONF_PORT, out);
	if (v->key->type == KEY_ENDPOINTS)
		return addr_parse(item, 0, out) || !addr_port(out) ||
				       addr_is_any(out) ?
			       -EINVAL :
			       0;
	/* An address without a port is a prefix without a length. */
	if (strchr(item, '/') || prefix_parse(item, &whole))
		return -EINVAL;
	addr_from_bytes(out, whole.family, whole.bytes, 0);
	if (addr_is_any(out))
		return -EINVAL;
	for (size_t i = 0; i < count; i++)
		if (addr_same_host(&have[i], out))
			return -EINVAL;
	return 0;
}

/* Two defaults differ where there is none of its own. */
static bool port_missing(const char *item)
{
	union addr one, two;

	return !addr_parse(item, 1, &one) && !addr_parse(item, 2, &two) &&
	       addr_port(&one) != addr_port(&two);
}

/* Only a listener knows them, by its transport: conf_check. */
static void portless_set(const struct value *v, uint64_t portless)
{
	struct conf_listener *listener = v->base;

	if (v->key->type == KEY_LISTEN)
		listener->portless = portless;
}

static int addresses_set(struct value *v)
{
	union addr **out = field(v), *array;
	const char *list = *v->text ? v->text : NULL;
	size_t count = 0;
	char item[ITEM_MAX];
	uint64_t portless = 0;
	int err = 0;

	if (!list && v->key->type == KEY_LISTEN)
		return -EINVAL;
	array = calloc(LIST_MAX, sizeof(*array));
	if (!array)
		return -ENOMEM;
	while (list && !err) {
		err = list_next(v, &list, item);
		if (!err && count == LIST_MAX)
			err = -EINVAL;
		if (!err)
			err = host_parse(v, item, array, count, &array[count]);
		if (!err && port_missing(item))
			portless |= UINT64_C(1) << count;
		count++;
	}
	if (err) {
		free(array);
		return err;
	}
	free(*out);
	*out = array;
	portless_set(v, portless);
	*(size_t *)field_at(v, v->key->second) = count;
	return 0;
}

static void prefix_warn(const struct value *v, const char *item,
			const char *host, const struct prefix *prefix)
{
	char label[CONF_LABEL_MAX], masked[ADDR_STRLEN], alone[ITEM_MAX];
	struct prefix whole;

	memcpy(alone, host, strlen(host) + 1);
	alone[strcspn(alone, "/")] = '\0';
	if (prefix_parse(alone, &whole) ||
	    !memcmp(whole.bytes, prefix->bytes, sizeof(whole.bytes)))
		return;
	conf_warn(
		v->p, value_line(v),
		"%s %s: found \"%s\", an address inside a prefix; %s is taken",
		conf_label(v->key->section, v->section, label), v->key->name,
		item, prefix_format(prefix, masked));
}

static int prefix_read(const struct value *v, const char *item, void *out)
{
	if (prefix_parse(item, out))
		return -EINVAL;
	prefix_warn(v, item, item, out);
	return 0;
}

/* Parts "192.0.2.0/24:80" and "[2001:db8::/32]:80"; *ports NULL: there are none. */
static int rule_split(char *item, char **host, char **ports)
{
	char *colon = strchr(item, ':'), *close;

	*host = item;
	*ports = NULL;
	if (*item == '[') {
		close = strchr(item, ']');
		if (!close || close[1] != ':')
			return -EINVAL;
		*host = item + 1;
		*close = '\0';
		*ports = close + 2;
	} else if (colon && !strchr(colon + 1, ':')) {
		*colon = '\0';
		*ports = colon + 1;
	}
	return 0;
}

static int rule_read(const struct value *v, const char *item, void *out)
{
	struct conf_rule *rule = out;
	char copy[ITEM_MAX], *host, *ports;

	memcpy(copy, item, strlen(item) + 1);
	*rule = (struct conf_rule){ .port_max = UINT16_MAX };
	if (rule_split(copy, &host, &ports) ||
	    prefix_parse(host, &rule->prefix) ||
	    (*item == '[' && rule->prefix.family != AF_INET6) ||
	    (ports && ports_parse(ports, &rule->port_min, &rule->port_max)))
		return -EINVAL;
	prefix_warn(v, item, host, &rule->prefix);
	return 0;
}

/* Of the lengths of RFC 6052 2.2. */
static int nat64_read(const struct value *v, const char *item, void *out)
{
	struct prefix prefix;

	if (prefix_parse(item, &prefix) || prefix.family != AF_INET6 ||
	    prefix.bits < 32 || prefix.bits % 8 ||
	    (prefix.bits > 64 && prefix.bits != 96))
		return -EINVAL;
	return prefix_read(v, item, out);
}

/* Repeated keys add to the list (KEY_REPEAT). */
static int list_add(struct value *v, size_t size,
		    int (*read)(const struct value *v, const char *item,
				void *out))
{
	void **array = field(v), *grown;
	size_t *count = field_at(v, v->key->second);
	const char *list = *v->text ? v->text : NULL;
	char item[ITEM_MAX];

	while (list) {
		if (list_next(v, &list, item) || *count == PREFIXES_MAX)
			return -EINVAL;
		grown = realloc(*array, (*count + 1) * size);
		if (!grown)
			return -ENOMEM;
		*array = grown;
		if (read(v, item, (char *)grown + *count * size))
			return -EINVAL;
		++*count;
	}
	return 0;
}

/* What the kernel takes for a device's name (dev_valid_name). */
static bool device_valid(const char *name)
{
	size_t len = strlen(name);

	if (!len || len >= IF_NAMESIZE || !strcmp(name, ".") ||
	    !strcmp(name, ".."))
		return false;
	for (size_t i = 0; i < len; i++)
		if (name[i] == '/' || name[i] == ':' ||
		    isspace((unsigned char)name[i]))
			return false;
	return true;
}

static int device_set(struct value *v)
{
	return device_valid(v->text) ? string_set(v) : -EINVAL;
}

static int suffix_set(struct value *v)
{
	struct prefix whole;

	if (strchr(v->text, '/') || prefix_parse(v->text, &whole) ||
	    whole.family != AF_INET6)
		return -EINVAL;
	addr_from_bytes(field(v), AF_INET6, whole.bytes, 0);
	return 0;
}

static bool engine_valid(const char *name)
{
	return conf_word_find(conf_engine_names, name) >= 0;
}

/* Replaces a list of up to `room` different names; list NULL: by none. */
static int names_set(struct value *v, size_t room, bool (*valid)(const char *),
		     const char *list)
{
	char **names = field(v), *mine[CONF_DEVICES_MAX], item[ITEM_MAX];
	size_t *count = field_at(v, v->key->second), added = 0;
	int err = 0;

	while (list && !err) {
		err = list_next(v, &list, item);
		if (!err)
			err = added < room && valid(item) ?
				      name_add(mine, &added, item) :
				      -EINVAL;
	}
	if (err) {
		for (size_t i = 0; i < added; i++)
			free(mine[i]);
		return err;
	}
	for (size_t i = 0; i < *count; i++)
		free(names[i]);
	for (size_t i = 0; i < room; i++)
		names[i] = i < added ? mine[i] : NULL;
	*count = added;
	return 0;
}

/* Repeated keys add to the list (KEY_REPEAT). One file may serve twice. */
static int files_set(struct value *v)
{
	struct conf_file *files = field(v);
	size_t *count = field_at(v, v->key->second);
	const char *list = *v->text ? v->text : NULL;
	char item[ITEM_MAX];

	while (list) {
		if (list_next(v, &list, item) || item[0] != '/' ||
		    *count == CONF_FILES_MAX)
			return -EINVAL;
		files[*count].path = strdup(item);
		if (!files[*count].path)
			return -ENOMEM;
		++*count;
	}
	return 0;
}

/* "0.1%", "2": a percentage with up to four decimals, as parts per million. */
static int percent_set(struct value *v)
{
	uint64_t n, unit = 10000;
	const char *rest;

	if (number_parse(v->text, &n, &rest) || n > 100)
		return -EINVAL;
	n *= unit;
	if (*rest == '.') {
		if (!isdigit((unsigned char)*++rest))
			return -EINVAL;
		for (; isdigit((unsigned char)*rest) && unit > 1; rest++) {
			unit /= 10;
			n += (uint64_t)(*rest - '0') * unit;
		}
	}
	if (*rest == '%')
		rest++;
	if (*rest || n > v->key->max)
		return -EINVAL;
	*(unsigned int *)field(v) = (unsigned int)n;
	return 0;
}

static int value_assign(struct value *v)
{
	switch (v->key->type) {
	case KEY_BOOL:
		return bool_set(v);
	case KEY_COUNT:
		return number_set(v, no_units);
	case KEY_SIZE:
		return number_set(v, size_units);
	case KEY_DURATION:
		return number_set(v, duration_units);
	case KEY_RATE:
		return number_set(v, rate_units);
	case KEY_TEXT:
	case KEY_SECRET:
		return text_set(v);
	case KEY_SECRETS:
		return secrets_set(v);
	case KEY_PATH:
		return path_set(v);
	case KEY_HA1:
		return ha1_set(v);
	case KEY_WORD:
		return word_set(v);
	case KEY_LISTEN:
	case KEY_ENDPOINTS:
	case KEY_HOSTS:
		return addresses_set(v);
	case KEY_PREFIXES:
		return list_add(v, sizeof(struct prefix), prefix_read);
	case KEY_RULES:
		return list_add(v, sizeof(struct conf_rule), rule_read);
	case KEY_NAT64:
		return list_add(v, sizeof(struct prefix), nat64_read);
	case KEY_PORTS:
		return ports_set(v);
	case KEY_ENGINES:
		return names_set(v, CONF_ENGINES_MAX, engine_valid, v->text);
	case KEY_DEVICES:
		return names_set(v, CONF_DEVICES_MAX, device_valid,
				 *v->text ? v->text : NULL);
	case KEY_DEVICE:
		return device_set(v);
	case KEY_SUFFIX:
		return suffix_set(v);
	case KEY_FILES:
		return files_set(v);
	case KEY_PERCENT:
		return percent_set(v);
	}
	return -EINVAL;
}

bool conf_value_set(struct parser *p, const struct section *section,
		    const struct key *key, void *base, const char *text)
{
	struct value v = {
		.p = p,
		.section = section,
		.key = key,
		.base = base,
		.text = text,
		.found = text,
		.found_len = strlen(text),
	};
	int err = value_assign(&v);

	if (err == -ENOMEM)
		conf_no_memory(p);
	else if (err)
		value_refuse(&v);
	return !err;
}

void conf_value_presets(struct parser *p, enum section_kind kind, void *base)
{
	size_t count;
	const struct key *keys = conf_keys_of(kind, &count);

	for (size_t i = 0; i < count && !p->no_memory; i++)
		if (keys[i].preset)
			conf_value_set(p, NULL, &keys[i], base, keys[i].preset);
}
