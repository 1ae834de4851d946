/* SPDX-License-Identifier: BSD-2-Clause */
/* The maps of the sockmap engine, for one worker. */
#include "broker/sockmap.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>

#include <sockmap.skel.h>

#include "base/syscalls.h"

SYSCALLS(SYSCALLS_BROKER,
	 "bpf openat read lseek close newfstatat fstat uname faccessat2 munmap");

int sockmap_load(struct sockmap_bpf **out, int fds[SOCKMAP_MAPS])
{
	struct sockmap_bpf *bpf = sockmap_bpf__open();
	int err;

	if (!bpf)
		return -errno;
	err = sockmap_bpf__load(bpf);
	if (!err)
		err = bpf_prog_attach(
			bpf_program__fd(bpf->progs.sockmap_verdict),
			bpf_map__fd(bpf->maps.sockmap_sources),
			BPF_SK_SKB_STREAM_VERDICT, 0);
	if (err) {
		sockmap_bpf__destroy(bpf);
		return err;
	}
	fds[SOCKMAP_SOURCES] = bpf_map__fd(bpf->maps.sockmap_sources);
	fds[SOCKMAP_TARGETS] = bpf_map__fd(bpf->maps.sockmap_targets);
	fds[SOCKMAP_FLOWS] = bpf_map__fd(bpf->maps.sockmap_flows);
	fds[SOCKMAP_STATE] = bpf_map__fd(bpf->maps.sockmap_state);
	*out = bpf;
	return 0;
}

void sockmap_release(struct sockmap_bpf *bpf)
{
	sockmap_bpf__destroy(bpf);
}
