/* SPDX-License-Identifier: BSD-2-Clause */
/* Processor time of some processes (all their threads) and of the machine. */
#include "cpu.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"

int cpu_set_parse(const char *text, struct cpu_set *out)
{
	struct cpu_set set = { .count = 0 };

	while (*text) {
		char *end;
		long pid = strtol(text, &end, 10);

		if (end == text || pid <= 0 || set.count == CPU_MAX_PIDS)
			return -EINVAL;
		if (*end != ',' && *end != '\0')
			return -EINVAL;
		set.pids[set.count++] = (pid_t)pid;
		text = *end ? end + 1 : end;
	}
	*out = set;
	return 0;
}

/* The first bytes of a /proc file as text; false when there is none. */
static bool text_read(const char *path, char *buf, size_t cap)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got;

	if (fd < 0)
		return false;
	got = read(fd, buf, cap - 1);
	fd_close(&fd);
	buf[got > 0 ? got : 0] = '\0';
	return got > 0;
}

static double process_seconds(pid_t pid)
{
	unsigned long long user, sys;
	char path[64], text[1024];
	const char *fields;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	if (!text_read(path, text, sizeof(text)))
		return 0;
	/* The name may hold spaces and brackets: count from its end. */
	fields = strrchr(text, ')');
	if (!fields ||
	    sscanf(fields + 1,
		   " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu",
		   &user, &sys) != 2)
		return 0;
	return (double)(user + sys) / (double)sysconf(_SC_CLK_TCK);
}

double cpu_set_seconds(const struct cpu_set *set)
{
	double sum = 0;

	for (size_t i = 0; i < set->count; i++)
		sum += process_seconds(set->pids[i]);
	return sum;
}

double cpu_machine_seconds(void)
{
	unsigned long long user, nice, sys, irq, softirq;
	char text[512];

	if (!text_read("/proc/stat", text, sizeof(text)) ||
	    sscanf(text, "cpu %llu %llu %llu %*u %*u %llu %llu", &user, &nice,
		   &sys, &irq, &softirq) != 5)
		return 0;
	return (double)(user + nice + sys + irq + softirq) /
	       (double)sysconf(_SC_CLK_TCK);
}
