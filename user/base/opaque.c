/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The OpaqueString profile of PRECIS (RFC 8265 4.2): spaces other than U+0020 become
 * that one, then NFC; case and width stay. The result must be of the FreeformClass
 * (RFC 8264 4.3) and not empty. It is checked and not the input, as RFC 8264 7 has it:
 * what only NFC makes good, such as Hangul in its parts, is good.
 *
 * Which characters exist is a matter of the Unicode version of the library. What is
 * plain ASCII, as nearly everything is, never gets to it.
 */
#include "base/opaque.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unictype.h>
#include <uninorm.h>
#include <unistr.h>

/* Categories of the FreeformClass; of others none has a compatibility form. */
#define CATEGORIES                                                      \
	(UC_CATEGORY_MASK_L | UC_CATEGORY_MASK_M | UC_CATEGORY_MASK_N | \
	 UC_CATEGORY_MASK_S | UC_CATEGORY_MASK_P | UC_CATEGORY_MASK_Zs)

#define ZWNJ 0x200c

/* Code points, with their place: whether some are good depends on the others. */
struct text {
	uint32_t *at;
	size_t len;
};

static void text_free(struct text *text)
{
	if (text->at)
		explicit_bzero(text->at, text->len * sizeof(*text->at));
	free(text->at);
}

static bool between(uint32_t c, uint32_t first, uint32_t last)
{
	return c >= first && c <= last;
}

/* 0, which is no character of any text, beyond its ends. */
static uint32_t char_at(const struct text *text, size_t i)
{
	return i < text->len ? text->at[i] : 0;
}

static bool of_script(uint32_t c, const char *name)
{
	const uc_script_t *script = c ? uc_script(c) : NULL;

	return script && !strcmp(script->name, name);
}

static bool has_between(const struct text *text, uint32_t first, uint32_t last)
{
	for (size_t i = 0; i < text->len; i++)
		if (between(text->at[i], first, last))
			return true;
	return false;
}

/* The nearest character in that direction that takes part in joining. */
static int joining_beside(const struct text *text, size_t i, size_t step)
{
	int type;

	do {
		i += step;
		type = i < text->len ? uc_joining_type(text->at[i]) :
				       UC_JOINING_TYPE_U;
	} while (type == UC_JOINING_TYPE_T);
	return type;
}

/* RFC 5892 A.1 and A.2: invisible, and good where it changes how a word looks. */
static bool joiner_ok(const struct text *text, size_t i)
{
	int before, after;

	if (i && uc_combining_class(text->at[i - 1]) == UC_CCC_VR)
		return true;
	if (text->at[i] != ZWNJ)
		return false;
	before = joining_beside(text, i, (size_t)-1);
	after = joining_beside(text, i, 1);
	return (before == UC_JOINING_TYPE_L || before == UC_JOINING_TYPE_D) &&
	       (after == UC_JOINING_TYPE_R || after == UC_JOINING_TYPE_D);
}

static bool has_japanese(const struct text *text)
{
	for (size_t i = 0; i < text->len; i++)
		if (of_script(text->at[i], "Hiragana") ||
		    of_script(text->at[i], "Katakana") ||
		    of_script(text->at[i], "Han"))
			return true;
	return false;
}

/* The exceptions of RFC 5892 2.6, those that need a context by A.3 to A.9. */
static bool exception_ok(const struct text *text, size_t i)
{
	const uint32_t c = text->at[i];
	const uint32_t before = char_at(text, i - 1);
	const uint32_t after = char_at(text, i + 1);

	switch (c) {
	case 0x00b7: /* middle dot */
		return before == 'l' && after == 'l';
	case 0x0375: /* Greek lower numeral sign */
		return of_script(after, "Greek");
	case 0x05f3: /* Hebrew geresh and gershayim */
	case 0x05f4:
		return of_script(before, "Hebrew");
	case 0x30fb: /* Katakana middle dot */
		return has_japanese(text);
	case 0x0640:
	case 0x07fa:
	case 0x302e:
	case 0x302f:
	case 0x303b:
		return false;
	}
	/* Arabic-Indic digits of the two kinds look alike. */
	if (between(c, 0x0660, 0x0669))
		return !has_between(text, 0x06f0, 0x06f9);
	if (between(c, 0x06f0, 0x06f9))
		return !has_between(text, 0x0660, 0x0669);
	return !between(c, 0x3031, 0x3035);
}

static bool is_old_jamo(uint32_t c)
{
	return between(c, 0x1100, 0x11ff) || between(c, 0xa960, 0xa97c) ||
	       between(c, 0xd7b0, 0xd7fb);
}

static bool char_ok(const struct text *text, size_t i)
{
	const uint32_t c = text->at[i];

	if (c < 0x80)
		return between(c, ' ', '~');
	if (uc_is_property_join_control(c))
		return joiner_ok(text, i);
	return !is_old_jamo(c) &&
	       !uc_is_property_default_ignorable_code_point(c) &&
	       uc_is_general_category_withtable(c, CATEGORIES) &&
	       exception_ok(text, i);
}

/* 0 and *out, with no space but U+0020; -EINVAL: no UTF-8; -ENOMEM. */
static int text_read(const char *from, struct text *out)
{
	struct text text = { 0 };

	errno = 0;
	text.at =
		u8_to_u32((const uint8_t *)from, strlen(from), NULL, &text.len);
	if (!text.at)
		return errno == ENOMEM ? -ENOMEM : -EINVAL;
	for (size_t i = 0; i < text.len; i++)
		if (uc_is_general_category_withtable(text.at[i],
						     UC_CATEGORY_MASK_Zs))
			text.at[i] = ' ';
	*out = text;
	return 0;
}

/* 0 and *out with its NUL, or -ENOMEM. */
static int text_write(const struct text *text, char **out)
{
	size_t size = text->len * 4 + 1, len = size;
	char *bytes = malloc(size);

	if (!bytes)
		return -ENOMEM;
	if (!u32_to_u8(text->at, text->len, (uint8_t *)bytes, &len)) {
		free(bytes);
		return -ENOMEM;
	}
	bytes[len] = '\0';
	*out = bytes;
	return 0;
}

static int unicode_prepare(const char *from, char **out)
{
	struct text text, composed = { 0 };
	int err = text_read(from, &text);

	if (err)
		return err;
	composed.at = u32_normalize(UNINORM_NFC, text.at, text.len, NULL,
				    &composed.len);
	text_free(&text);
	if (!composed.at)
		return -ENOMEM;
	for (size_t i = 0; i < composed.len && !err; i++)
		if (!char_ok(&composed, i))
			err = -EINVAL;
	if (!err)
		err = text_write(&composed, out);
	text_free(&composed);
	return err;
}

int opaque_prepare(const char *text, char **out)
{
	char *copy;

	if (!*text)
		return -EINVAL;
	for (const char *c = text; *c; c++)
		if (!between((unsigned char)*c, ' ', '~'))
			return unicode_prepare(text, out);
	copy = strdup(text);
	if (!copy)
		return -ENOMEM;
	*out = copy;
	return 0;
}
