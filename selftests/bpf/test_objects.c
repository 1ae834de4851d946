/* SPDX-License-Identifier: BSD-2-Clause */
/* Every BPF object of the build passes this kernel's verifier. */
#include <bpf/libbpf.h>

#include "bpf/tap.h"
#include "sockmap.skel.h"
#include "wire.skel.h"

int main(void)
{
	struct wire_bpf *wire;
	struct sockmap_bpf *sockmap;

	lab_need_root();
	wire = wire_bpf__open_and_load();
	lab_check(wire, "wire loads");
	wire_bpf__destroy(wire);
	sockmap = sockmap_bpf__open_and_load();
	lab_check(sockmap, "sockmap loads");
	sockmap_bpf__destroy(sockmap);
	return lab_result();
}
