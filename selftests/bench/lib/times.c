/* SPDX-License-Identifier: BSD-2-Clause */
/* Stores of measured times and their quantiles. */
#include <errno.h>
#include <stdlib.h>

#include "load.h"

int times_new(struct load_times *times, size_t room)
{
	uint32_t *values = malloc(room * sizeof(*values));

	if (!values)
		return -ENOMEM;
	times->values = values;
	times->count = 0;
	times->room = room;
	return 0;
}

void times_free(struct load_times *times)
{
	free(times->values);
	times->values = NULL;
	times->count = times->room = 0;
}

void times_add(struct load_times *times, uint32_t value)
{
	if (times->count < times->room)
		times->values[times->count++] = value;
}

static int values_compare(const void *a, const void *b)
{
	uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;

	return (left > right) - (left < right);
}

void times_sort(struct load_times *times)
{
	if (times->count)
		qsort(times->values, times->count, sizeof(*times->values),
		      values_compare);
}

uint32_t times_quantile(const struct load_times *times, double q)
{
	if (!times->count)
		return 0;
	return times->values[(size_t)(q * (double)(times->count - 1))];
}
