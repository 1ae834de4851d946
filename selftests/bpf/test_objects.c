/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Every BPF object of the build passes this kernel's verifier. Prints TAP; without
 * root it skips with the reason.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <bpf/libbpf.h>

#include "wire.skel.h"

int main(void)
{
	struct wire_bpf *wire;

	if (geteuid() != 0) {
		puts("1..0 # SKIP loading BPF programs needs root");
		return 0;
	}
	puts("1..1");
	wire = wire_bpf__open_and_load();
	if (!wire) {
		printf("not ok 1 - wire loads: %s\n", strerror(errno));
		return 1;
	}
	puts("ok 1 - wire loads");
	wire_bpf__destroy(wire);
	return 0;
}
