/* SPDX-License-Identifier: BSD-2-Clause */
/* Aligned tables and human units. */
#include "ctl/grid.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

/* Characters of UTF-8 text: bytes that continue none. */
static size_t text_width(const char *text)
{
	size_t width = 0;

	for (; *text; text++)
		width += ((unsigned char)*text & 0xc0) != 0x80;
	return width;
}

void grid_column(struct grid *grid, const char *title)
{
	struct grid_column *column = &grid->column[grid->columns];

	if (grid->columns == GRID_COLUMNS_MAX)
		return;
	grid->columns++;
	column->right = *title == '>';
	title += column->right;
	snprintf(column->title, sizeof(column->title), "%s", title);
	column->width = text_width(column->title);
}

void grid_init(struct grid *grid, const char *const *titles, size_t columns)
{
	memset(grid, 0, sizeof(*grid));
	for (size_t i = 0; i < columns; i++)
		grid_column(grid, titles[i]);
}

void grid_free(struct grid *grid)
{
	for (size_t i = 0; i < grid->count; i++)
		free(grid->cells[i]);
	free(grid->cells);
	memset(grid, 0, sizeof(*grid));
}

static bool cell_room(struct grid *grid)
{
	size_t room = grid->room ? grid->room * 2 : 64;
	char **grown;

	if (grid->count < grid->room)
		return true;
	grown = realloc(grid->cells, room * sizeof(*grown));
	if (!grown)
		return false;
	grid->cells = grown;
	grid->room = room;
	return true;
}

void grid_cell(struct grid *grid, const char *fmt, ...)
{
	struct grid_column *column;
	char text[GRID_CELL_MAX], *copy;
	va_list args;
	size_t width;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	/* What came over the network must not move the cursor. */
	utf8_sanitize(text, strlen(text));
	copy = strdup(*text ? text : "-");
	if (!copy || !cell_room(grid)) {
		free(copy);
		grid->failed = true;
		return;
	}
	column = &grid->column[grid->count % grid->columns];
	width = text_width(copy);
	if (width > column->width)
		column->width = width;
	grid->cells[grid->count++] = copy;
}

static void cell_print(const struct grid *grid, size_t index, const char *text,
		       FILE *out)
{
	const struct grid_column *column = &grid->column[index];
	int pad = (int)(column->width - text_width(text));

	if (index)
		fputs("  ", out);
	if (column->right)
		fprintf(out, "%*s", pad, "");
	fputs(text, out);
	if (!column->right && index + 1 < grid->columns)
		fprintf(out, "%*s", pad, "");
	if (index + 1 == grid->columns)
		fputc('\n', out);
}

int grid_print(const struct grid *grid, FILE *out)
{
	if (grid->failed)
		return -ENOMEM;
	for (size_t i = 0; i < grid->columns; i++)
		cell_print(grid, i, grid->column[i].title, out);
	for (size_t i = 0; grid->columns && i < grid->count; i++)
		cell_print(grid, i % grid->columns, grid->cells[i], out);
	return 0;
}

const char *human_bytes(uint64_t bytes, char out[HUMAN_LEN])
{
	static const char *const units[] = { "B",   "KiB", "MiB", "GiB",
					     "TiB", "PiB", "EiB" };
	double value = (double)bytes;
	size_t unit = 0;

	/* 1023.96 would be printed as 1024.0. */
	while (value >= 1023.95) {
		value /= 1024;
		unit++;
	}
	snprintf(out, HUMAN_LEN, unit ? "%.1f %s" : "%.0f %s", value,
		 units[unit]);
	return out;
}

const char *human_duration(uint64_t ms, char out[HUMAN_LEN])
{
	uint64_t s = ms / 1000, m = s / 60, h = m / 60, d = h / 24;

	if (s < 10)
		snprintf(out, HUMAN_LEN, "%" PRIu64 ".%" PRIu64 "s", s,
			 ms % 1000 / 100);
	else if (!m)
		snprintf(out, HUMAN_LEN, "%" PRIu64 "s", s);
	else if (!h)
		snprintf(out, HUMAN_LEN, "%" PRIu64 "m%02" PRIu64 "s", m,
			 s % 60);
	else if (!d)
		snprintf(out, HUMAN_LEN, "%" PRIu64 "h%02" PRIu64 "m", h,
			 m % 60);
	else
		snprintf(out, HUMAN_LEN, "%" PRIu64 "d%02" PRIu64 "h", d,
			 h % 24);
	return out;
}
