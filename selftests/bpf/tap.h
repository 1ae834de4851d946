/* SPDX-License-Identifier: BSD-2-Clause */
/* What programs that load BPF programs say of themselves: TAP. */
#ifndef BPF_TAP_H
#define BPF_TAP_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int lab_number, lab_failed;

/* Without root the whole program is skipped: it exits. */
static inline void lab_need_root(void)
{
	if (geteuid() == 0)
		return;
	puts("1..0 # SKIP BPF programs and namespaces need root");
	exit(0);
}

static inline void lab_check(bool good, const char *format, ...)
{
	va_list args;

	printf("%sok %d - ", good ? "" : "not ", ++lab_number);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
	if (!good)
		lab_failed = 1;
}

/* At the end: prints the plan, returns the exit status. */
static inline int lab_result(void)
{
	printf("1..%d\n", lab_number);
	return lab_failed;
}

#endif
