/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * verify: passes every program of BPF objects through this kernel's verifier.
 *
 * `verify OBJECT...` prints a line per program, "FILE PROGRAM loaded, N
 * instructions processed" or "FILE PROGRAM refused: WHY" followed by the last
 * lines the verifier said. Nothing is attached. Programs are loaded one at a
 * time: one that is refused does not hide the others. Programs for traffic
 * control are of one type whatever their section says about how they are to be
 * attached, so that older kernels than the one they were written for can tell.
 * Exit status: 0 all loaded, 1 one refused, 2 an object cannot be read.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#define LOG_SIZE   (16u << 20)
#define LAST_LINES 15
/* Kernel's BPF_LOG_STATS: only how much was processed. */
#define LOG_STATS  4
#define LOG_FAILED 1

static int print_warnings(enum libbpf_print_level level, const char *format,
			  va_list args)
{
	(void)level;
	(void)format;
	(void)args;
	return 0;
}

static struct bpf_object *object_open(const char *path, const char *only)
{
	struct bpf_object *object = bpf_object__open_file(path, NULL);
	struct bpf_program *program;

	if (!object)
		return NULL;
	bpf_object__for_each_program(program, object)
	{
		if (bpf_program__type(program) == BPF_PROG_TYPE_UNSPEC)
			bpf_program__set_type(program, BPF_PROG_TYPE_SCHED_CLS);
		bpf_program__set_autoload(
			program,
			only && !strcmp(bpf_program__name(program), only));
	}
	return object;
}

/* Loads one program of the object; 0 or a negative errno, and what was said. */
static int program_load(const char *path, const char *name, unsigned int level,
			char *log)
{
	struct bpf_object *object = object_open(path, name);
	struct bpf_program *program;
	int error;

	if (!object)
		return -errno;
	log[0] = '\0';
	program = bpf_object__find_program_by_name(object, name);
	bpf_program__set_log_buf(program, log, LOG_SIZE);
	bpf_program__set_log_level(program, level);
	error = bpf_object__load(object);
	bpf_object__close(object);
	return error;
}

static const char *last_lines(const char *log, int lines)
{
	const char *at = log + strlen(log);

	while (at > log && lines >= 0)
		if (*--at == '\n')
			lines--;
	return *at == '\n' ? at + 1 : at;
}

static unsigned long processed(const char *log)
{
	const char *found = strstr(log, "processed ");

	return found ? strtoul(found + strlen("processed "), NULL, 10) : 0;
}

static bool program_verify(const char *path, const char *name, char *log)
{
	int error = program_load(path, name, LOG_STATS, log);

	if (!error) {
		printf("%s %s loaded, %lu instructions processed\n", path, name,
		       processed(log));
		return true;
	}
	program_load(path, name, LOG_FAILED, log);
	printf("%s %s refused: %s\n%s\n", path, name, strerror(-error),
	       last_lines(log, LAST_LINES));
	return false;
}

static int object_verify(const char *path, char *log)
{
	struct bpf_object *object = object_open(path, NULL);
	struct bpf_program *program;
	int status = 0;

	if (!object) {
		printf("%s cannot be opened: %s\n", path, strerror(errno));
		return 2;
	}
	bpf_object__for_each_program(program, object)
	{
		if (!program_verify(path, bpf_program__name(program), log))
			status = 1;
	}
	bpf_object__close(object);
	return status;
}

int main(int argc, char **argv)
{
	char *log = malloc(LOG_SIZE);
	int status = argc > 1 ? 0 : 2;

	if (!log)
		return 2;
	libbpf_set_print(print_warnings);
	for (int i = 1; i < argc; i++) {
		int result = object_verify(argv[i], log);

		status = result > status ? result : status;
	}
	free(log);
	return status;
}
