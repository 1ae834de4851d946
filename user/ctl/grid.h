/* SPDX-License-Identifier: BSD-2-Clause */
/* Aligned tables and human units, for terminals. Private to ctl. */
#ifndef CTL_GRID_H
#define CTL_GRID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define GRID_COLUMNS_MAX 80
#define GRID_CELL_MAX    600 /* bytes of a cell with its NUL */

/* A table: a title row, then rows of cells, filled one after the other. */
struct grid {
	size_t columns;
	struct grid_column {
		char title[16];
		bool right;
		size_t width; /* characters of the widest cell */
	} column[GRID_COLUMNS_MAX];
	char **cells; /* owned, row by row */
	size_t count, room;
	bool failed; /* no memory: nothing is printed */
};

/* A title that begins with '>' makes a column aligned to the right. */
void grid_init(struct grid *grid, const char *const *titles, size_t columns);
void grid_column(struct grid *grid, const char *title);
void grid_free(struct grid *grid);

/* The next cell. An empty text is shown as "-". */
void grid_cell(struct grid *grid, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* Returns 0, or -ENOMEM when a cell got lost. */
int grid_print(const struct grid *grid, FILE *out);

#define HUMAN_LEN 24

/* "512 B", "1.5 MiB"; returns out, as the others do. */
const char *human_bytes(uint64_t bytes, char out[HUMAN_LEN]);
/* "0.4s", "12s", "3m04s", "2h05m", "4d03h" */
const char *human_duration(uint64_t ms, char out[HUMAN_LEN]);

#endif
