/* SPDX-License-Identifier: BSD-2-Clause */
/* The sockmap engine's maps, as the broker would load and hand them over. */
#include "unit/sockmap_fds.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <culvert/kern_user.h>

#include "sockmap.skel.h"

const int *sockmap_fds(void)
{
	static struct sockmap_bpf *bpf;
	static int fds[SOCKMAP_MAPS];
	static bool tried;

	if (tried)
		return bpf ? fds : NULL;
	tried = true;
	libbpf_set_print(NULL);
	bpf = sockmap_bpf__open_and_load();
	if (!bpf)
		return NULL;
	fds[SOCKMAP_SOURCES] = bpf_map__fd(bpf->maps.sockmap_sources);
	fds[SOCKMAP_TARGETS] = bpf_map__fd(bpf->maps.sockmap_targets);
	fds[SOCKMAP_FLOWS] = bpf_map__fd(bpf->maps.sockmap_flows);
	fds[SOCKMAP_STATE] = bpf_map__fd(bpf->maps.sockmap_state);
	if (bpf_prog_attach(bpf_program__fd(bpf->progs.sockmap_verdict),
			    fds[SOCKMAP_SOURCES], BPF_SK_SKB_STREAM_VERDICT,
			    0)) {
		sockmap_bpf__destroy(bpf);
		bpf = NULL;
	}
	return bpf ? fds : NULL;
}
