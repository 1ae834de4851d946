/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Our programs on a device. By tcx (Linux 6.6) with a pinned link a direction: the
 * attachment lives as long as the pin, and a new broker puts its program into the
 * same link, so no packet passes unseen. On older kernels by filters of a clsact
 * qdisc, replaced in place; there a pinned program marks what has to be removed.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <wire.skel.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/syscalls.h"
#include "broker/kernel.h"

SYSCALLS(SYSCALLS_BROKER, "bpf access faccessat close unlink unlinkat");
/* libbpf's netlink, for kernels without tcx. */
SYSCALLS_SOCKET(SYSCALLS_BROKER, AF_NETLINK, NETLINK_ROUTE);
SYSCALLS(SYSCALLS_BROKER, "bind sendto recvmsg");

/* Not in the headers of Linux 6.1. */
#define ATTACH_TCX_INGRESS 46
#define ATTACH_TCX_EGRESS  47
#define LINK_TYPE_TCX      11

#define FILTER_HANDLE   0xc17
#define FILTER_PRIORITY 0xc17

static const char *const names[DIRECTIONS] = { "ingress", "egress" };
static const uint32_t attach_types[DIRECTIONS] = { ATTACH_TCX_INGRESS,
						   ATTACH_TCX_EGRESS };
static const enum bpf_tc_attach_point points[DIRECTIONS] = { BPF_TC_INGRESS,
							     BPF_TC_EGRESS };

/* The head of struct bpf_link_info, as the kernel fills it for tcx. */
struct link_info {
	uint32_t type, id, prog_id, zero;
	uint32_t ifindex, attach_type;
	char rest[256];
};

static bool pin_name(const char *dir, const char *kind, int index,
		     enum direction direction, char out[PIN_PATH])
{
	char name[64];

	snprintf(name, sizeof(name), "%s-%d-%s", kind, index, names[direction]);
	return pin_path(dir, name, out);
}

int attach_pin_index(const char *name)
{
	char kind[8], direction[8];
	int index;

	if (sscanf(name, "%7[a-z]-%d-%7[a-z]", kind, &index, direction) != 3 ||
	    index <= 0 ||
	    (strcmp(kind, "link") != 0 && strcmp(kind, "clsact") != 0))
		return 0;
	return index;
}

static void filter_remove(int index, enum direction direction)
{
	struct bpf_tc_hook hook = { .sz = sizeof(hook),
				    .ifindex = index,
				    .attach_point = points[direction] };
	struct bpf_tc_opts filter = { .sz = sizeof(filter),
				      .handle = FILTER_HANDLE,
				      .priority = FILTER_PRIORITY };

	/* The qdisc stays: others may have filters in it. */
	bpf_tc_detach(&hook, &filter);
}

/*
 * Unlinked alone it would be detached a moment later, and until then the device
 * refuses the same program again.
 */
static void link_remove(const char *path)
{
	int fd = bpf_obj_get(path);

	if (fd >= 0) {
		bpf_link_detach(fd);
		close(fd);
	}
	unlink(path);
}

void attach_remove(const char *dir, int index)
{
	char path[PIN_PATH];

	for (enum direction i = INGRESS; i < DIRECTIONS; i++) {
		if (pin_name(dir, "link", index, i, path))
			link_remove(path);
		if (!pin_name(dir, "clsact", index, i, path) ||
		    access(path, F_OK) < 0)
			continue;
		filter_remove(index, i);
		unlink(path);
	}
}

static int bpf(enum bpf_cmd cmd, union bpf_attr *attr)
{
	long n = syscall(SYS_bpf, cmd, attr, sizeof(*attr));

	return n < 0 ? -errno : (int)n;
}

static int link_create(int program, int index, enum direction direction)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.link_create.prog_fd = (uint32_t)program;
	attr.link_create.target_ifindex = (uint32_t)index;
	attr.link_create.attach_type = attach_types[direction];
	return bpf(BPF_LINK_CREATE, &attr);
}

/* Puts the program into the link an earlier broker has pinned. */
static int link_take(const char *path, int program, int index,
		     enum direction direction)
{
	struct link_info info;
	uint32_t len = sizeof(info);
	int fd = bpf_obj_get(path);
	int err;

	if (fd < 0)
		return fd;
	memset(&info, 0, sizeof(info));
	err = bpf_obj_get_info_by_fd(fd, &info, &len);
	/* A device that has gone leaves its link behind, without an index. */
	if (!err &&
	    (info.type != LINK_TYPE_TCX || info.ifindex != (uint32_t)index ||
	     info.attach_type != attach_types[direction]))
		err = -ENOLINK;
	if (!err)
		err = bpf_link_update(fd, program, NULL);
	close(fd);
	return err;
}

static int link_attach(const struct kernel *kernel, int index, int program,
		       enum direction direction)
{
	char path[PIN_PATH];
	int fd, err;

	if (!pin_name(kernel->dir, "link", index, direction, path))
		return -ENAMETOOLONG;
	if (!link_take(path, program, index, direction))
		return 0;
	link_remove(path);
	fd = link_create(program, index, direction);
	if (fd < 0)
		return fd;
	err = bpf_obj_pin(fd, path);
	close(fd);
	return err;
}

static int filter_attach(const struct kernel *kernel, int index, int program,
			 enum direction direction)
{
	struct bpf_tc_hook hook = { .sz = sizeof(hook),
				    .ifindex = index,
				    .attach_point = BPF_TC_INGRESS |
						    BPF_TC_EGRESS };
	struct bpf_tc_opts filter = { .sz = sizeof(filter),
				      .handle = FILTER_HANDLE,
				      .priority = FILTER_PRIORITY,
				      .prog_fd = program,
				      .flags = BPF_TC_F_REPLACE };
	char path[PIN_PATH];
	int err = bpf_tc_hook_create(&hook);

	if (err && err != -EEXIST)
		return err;
	if (!pin_name(kernel->dir, "clsact", index, direction, path))
		return -ENAMETOOLONG;
	hook.attach_point = points[direction];
	err = bpf_tc_attach(&hook, &filter);
	if (err)
		return err;
	unlink(path);
	err = bpf_obj_pin(program, path);
	if (err)
		filter_remove(index, direction);
	return err;
}

/* One direction, the newer way if this kernel has it. */
static int direction_attach(struct kernel *kernel, int index,
			    enum direction direction)
{
	int program = bpf_program__fd(direction == INGRESS ?
					      kernel->bpf->progs.wire_ingress :
					      kernel->bpf->progs.wire_egress);
	int err;

	if (kernel->clsact)
		return filter_attach(kernel, index, program, direction);
	err = link_attach(kernel, index, program, direction);
	/* A kernel before 6.6, or one without CONFIG_NET_XGRESS. */
	if (err == -EINVAL || err == -EOPNOTSUPP) {
		err = filter_attach(kernel, index, program, direction);
		kernel->clsact = !err;
	}
	return err;
}

int attach_device(struct kernel *kernel, const struct device *device)
{
	/*
	 * Egress first: from the moment packets of a pair are taken, what our
	 * sockets say about it is watched.
	 */
	int err = direction_attach(kernel, device->index, EGRESS);

	if (!err)
		err = direction_attach(kernel, device->index, INGRESS);
	if (err)
		attach_remove(kernel->dir, device->index);
	return err;
}
