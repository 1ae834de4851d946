/* SPDX-License-Identifier: BSD-2-Clause */
/* culvertd: command line of the daemon. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "main/supervisor.h"

#define DEFAULT_CONF "/etc/culvert/culvert.conf"

static const struct option options[] = {
	{ "config", required_argument, NULL, 'c' },
	{ "check", required_argument, NULL, 'k' },
	{ "version", no_argument, NULL, 'V' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

static void usage(FILE *out)
{
	fprintf(out,
		"usage: culvertd [-c FILE]\n"
		"       culvertd --check FILE\n"
		"\n"
		"  -c, --config FILE  configuration (" DEFAULT_CONF ")\n"
		"      --check FILE   report every error in FILE and stop\n"
		"  -V, --version      print the version\n"
		"  -h, --help         print this\n"
		"\n"
		"Runs in the foreground and logs to standard error. SIGHUP reloads,\n"
		"SIGTERM and SIGINT stop. See culvertd(8), culvert.conf(5).\n");
}

int main(int argc, char **argv)
{
	const char *path = DEFAULT_CONF, *check = NULL;
	int option;

	while ((option = getopt_long(argc, argv, "c:hV", options, NULL)) !=
	       -1) {
		switch (option) {
		case 'c':
			path = optarg;
			break;
		case 'k':
			check = optarg;
			break;
		case 'V':
			puts("culvertd " CULVERT_VERSION);
			return EXIT_SUCCESS;
		case 'h':
			usage(stdout);
			return EXIT_SUCCESS;
		default:
			usage(stderr);
			return 2;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "culvertd: unexpected argument '%s'\n",
			argv[optind]);
		usage(stderr);
		return 2;
	}
	return check ? supervisor_check(check) : supervisor_run(path);
}
