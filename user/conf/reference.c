/* SPDX-License-Identifier: BSD-2-Clause */
/* The key reference of culvert.conf(5), made from the key table. */
#include <errno.h>
#include <stdio.h>

#include "conf/conf.h"
#include "conf/keys.h"

static void key_write(FILE *out, const struct key *key)
{
	char allowed[CONF_ALLOWED_MAX];

	conf_key_allowed(key, allowed);
	fprintf(out, ".It Cm %s\n%s\n.br\n", key->name, key->help);
	fprintf(out, "Allowed: %s", allowed);
	if (key->flags & KEY_REPEAT)
		fprintf(out, "; if given several times, they add up");
	fprintf(out, ".\n.br\nDefault:\n");
	if (key->shown)
		fprintf(out, "%s.\n", key->shown);
	else if (*key->preset)
		fprintf(out, ".Li \"%s\"\n", key->preset);
	else
		fprintf(out, "none.\n");
}

int conf_write_reference(FILE *out)
{
	for (size_t kind = 0; kind < SECTION_COUNT; kind++) {
		const struct section_info *info = &conf_sections[kind];
		size_t count;
		const struct key *keys =
			conf_keys_of((enum section_kind)kind, &count);

		fprintf(out, ".Ss [%s%s]\n%s\n", info->name,
			info->named ? " NAME" : "", info->help);
		fprintf(out, ".Bl -tag -width Ds\n");
		for (size_t i = 0; i < count; i++)
			key_write(out, &keys[i]);
		fprintf(out, ".El\n");
	}
	return ferror(out) ? -EIO : 0;
}
