/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * sums: what a device's arriving packets say of their checksums.
 *
 * `sums DEVICE` looks at them before any other program does, says "ready", and answers
 * each line of standard input by one: how many TCP and UDP packets have arrived, how many
 * were summed by a device (CHECKSUM_COMPLETE), and of how many that sum was wrong. The
 * end of standard input ends it.
 */
#include <bpf/bpf.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <sums.skel.h>

/* Not in the headers of Linux 6.1. */
#define ATTACH_TCX_INGRESS 46
#define ATTACH_BEFORE      (1U << 3)

enum {
	SEEN,
	SUMMED,
	WRONG,
	COUNTS
};

/* By tcx, with the system call itself: libbpf 1.1 has no function for it. */
static int attach(const struct sums_bpf *sums, const char *device)
{
	union bpf_attr attr = {
		.link_create = {
			.prog_fd = bpf_program__fd(sums->progs.sums_look),
			.target_ifindex = if_nametoindex(device),
			.attach_type = ATTACH_TCX_INGRESS,
			.flags = ATTACH_BEFORE,
		},
	};

	return (int)syscall(SYS_bpf, BPF_LINK_CREATE, &attr, sizeof(attr));
}

static void answer(const struct sums_bpf *sums)
{
	uint64_t counts[COUNTS] = { 0 };

	for (uint32_t i = 0; i < COUNTS; i++)
		bpf_map_lookup_elem(bpf_map__fd(sums->maps.sums_counts), &i,
				    &counts[i]);
	printf("%ju %ju %ju\n", (uintmax_t)counts[SEEN],
	       (uintmax_t)counts[SUMMED], (uintmax_t)counts[WRONG]);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	struct sums_bpf *sums;
	char line[16];

	if (argc != 2) {
		fprintf(stderr, "usage: sums DEVICE\n");
		return 2;
	}
	sums = sums_bpf__open_and_load();
	if (!sums || attach(sums, argv[1]) < 0) {
		perror(argv[1]);
		return 1;
	}
	puts("ready");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin))
		answer(sums);
	sums_bpf__destroy(sums);
	return 0;
}
