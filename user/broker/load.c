/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Loads the programs, adopts or makes the maps, pins them.
 *
 * wire_flows, wire_pairs, wire_events and wire_counters are pinned and outlive the
 * broker; a map wire_version beside them says of which version and size they are.
 * When that fits, a new broker loads its programs over the same maps and puts them
 * in the places of the old ones; else everything old is removed first.
 *
 * The maps of lanes are the object's own: with its programs an earlier broker's lanes
 * are replaced by none.
 */
#include "broker/kernel.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <wire.skel.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/syscalls.h"

SYSCALLS(
	SYSCALLS_BROKER_START,
	"bpf openat read lseek close newfstatat fstat uname faccessat2 dup3 munmap");

/* libbpf's last complaint: the best reason to show when loading fails. */
static char complaint[256];

static int print(enum libbpf_print_level level, const char *format,
		 va_list args)
{
	char line[sizeof(complaint)];

	if (level != LIBBPF_WARN)
		return 0;
	vsnprintf(line, sizeof(line), format, args);
	line[strcspn(line, "\n")] = '\0';
	for (char *c = line; *c; c++)
		if (*c == '"')
			*c = '\'';
	log_debug("broker", "event=libbpf message=\"%s\"", line);
	/* The first is the cause, the others are what follows from it. */
	if (!complaint[0])
		snprintf(complaint, sizeof(complaint), "%s", line);
	return 0;
}

struct kept {
	const char *name;
	struct bpf_map *map;
};

#define KEPT 4

static void kept_list(const struct kernel *kernel, struct kept out[KEPT])
{
	const struct wire_bpf *bpf = kernel->bpf;

	out[0] = (struct kept){ "wire_flows", bpf->maps.wire_flows };
	out[1] = (struct kept){ "wire_pairs", bpf->maps.wire_pairs };
	out[2] = (struct kept){ "wire_events", bpf->maps.wire_events };
	out[3] = (struct kept){ "wire_counters", bpf->maps.wire_counters };
}

static int map_open(const char *dir, const char *name)
{
	char path[PIN_PATH];

	if (!pin_path(dir, name, path))
		return -ENAMETOOLONG;
	return bpf_obj_get(path);
}

/* Opens a pinned map for use in place of the object's own, if it is alike. */
static int map_take(const struct kernel *kernel, const struct kept *kept)
{
	struct bpf_map_info info = { 0 };
	uint32_t len = sizeof(info);
	int fd = map_open(kernel->dir, kept->name);
	int err;

	if (fd < 0)
		return fd;
	err = bpf_obj_get_info_by_fd(fd, &info, &len);
	if (!err && (info.type != bpf_map__type(kept->map) ||
		     info.key_size != bpf_map__key_size(kept->map) ||
		     info.value_size != bpf_map__value_size(kept->map) ||
		     info.max_entries != bpf_map__max_entries(kept->map)))
		err = -EINVAL;
	if (!err)
		err = bpf_map__reuse_fd(kept->map, fd);
	close(fd);
	return err;
}

int pin_header_read(const char *dir, struct pin_header *out)
{
	struct bpf_map_info info = { 0 };
	uint32_t len = sizeof(info), zero = 0;
	int fd = map_open(dir, "wire_version");
	int err;

	if (fd < 0)
		return fd;
	err = bpf_obj_get_info_by_fd(fd, &info, &len);
	if (!err && (info.type != BPF_MAP_TYPE_ARRAY ||
		     info.value_size != sizeof(*out)))
		err = -EINVAL;
	if (!err)
		err = bpf_map_lookup_elem(fd, &zero, out);
	close(fd);
	return err;
}

static bool header_fits(const struct kernel *kernel,
			const struct pin_header *old)
{
	return old->version == kernel->header.version &&
	       old->capacity == kernel->header.capacity;
}

/* True when the maps of an earlier broker are in the object now. */
static bool maps_take(struct kernel *kernel)
{
	struct kept kept[KEPT];
	struct pin_header old;

	if (pin_header_read(kernel->dir, &old) ||
	    old.netns != kernel->header.netns)
		return false;
	/* What was before the first of us, whatever becomes of its pins. */
	memcpy(kernel->header.forwarding, old.forwarding,
	       sizeof(old.forwarding));
	if (!header_fits(kernel, &old))
		return false;
	kept_list(kernel, kept);
	for (int i = 0; i < KEPT; i++)
		if (map_take(kernel, &kept[i]))
			return false;
	return true;
}

static int object_open(struct kernel *kernel)
{
	uint32_t pairs = kernel->header.capacity;
	uint32_t lanes = kernel->lane_capacity ? kernel->lane_capacity : 1;

	wire_bpf__destroy(kernel->bpf);
	kernel->bpf = wire_bpf__open();
	if (!kernel->bpf)
		return -errno;
	if (bpf_map__set_max_entries(kernel->bpf->maps.wire_pairs, pairs) ||
	    bpf_map__set_max_entries(kernel->bpf->maps.wire_flows, 2 * pairs) ||
	    bpf_map__set_max_entries(kernel->bpf->maps.wire_lanes, lanes) ||
	    bpf_map__set_max_entries(kernel->bpf->maps.wire_lane_flows,
				     2 * lanes))
		return -EINVAL;
	return 0;
}

/* The object with the old maps in it, or without any pin left. */
static int object_prepare(struct kernel *kernel)
{
	int err = object_open(kernel);

	if (err)
		return err;
	kernel->adopted = maps_take(kernel);
	if (kernel->adopted)
		return 0;
	if (pin_clear(kernel->dir))
		log_warn(
			"broker",
			"event=pins_removed dir=%s reason=\"of another version "
			"or size, or a namespace that is gone: connections "
			"on them have ended\"",
			kernel->dir);
	return object_open(kernel);
}

static int map_pin(const struct kernel *kernel, const char *name, int fd)
{
	char path[PIN_PATH];

	if (!pin_path(kernel->dir, name, path))
		return -ENAMETOOLONG;
	return bpf_obj_pin(fd, path);
}

static int maps_pin(struct kernel *kernel)
{
	struct kept kept[KEPT];
	uint32_t zero = 0;
	int fd, err = 0;

	if (kernel->adopted)
		return 0;
	kept_list(kernel, kept);
	for (int i = 0; i < KEPT && !err; i++)
		err = map_pin(kernel, kept[i].name, bpf_map__fd(kept[i].map));
	if (err)
		return err;
	fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "wire_version", sizeof(zero),
			    sizeof(kernel->header), 1, NULL);
	if (fd < 0)
		return fd;
	err = bpf_map_update_elem(fd, &zero, &kernel->header, BPF_ANY);
	/* Last: what it vouches for is there. */
	if (!err)
		err = map_pin(kernel, "wire_version", fd);
	close(fd);
	return err;
}

/* The first `size` bytes of an mmapable map. 0 or a negative errno. */
static int map_share(const struct bpf_map *map, size_t size, void **out)
{
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED,
			bpf_map__fd(map), 0);

	if (at == MAP_FAILED)
		return -errno;
	*out = at;
	return 0;
}

static size_t whole_pages(size_t size)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	return (size + page - 1) & ~(page - 1);
}

/* A descriptor of a pinned map that can only be read, or a negative errno. */
static int map_reader(const struct kernel *kernel, const char *name)
{
	struct bpf_obj_get_opts read_only = { .sz = sizeof(read_only),
					      .file_flags = BPF_F_RDONLY };
	char path[PIN_PATH];

	if (!pin_path(kernel->dir, name, path))
		return -ENAMETOOLONG;
	return bpf_obj_get_opts(path, &read_only);
}

static int maps_map(struct kernel *kernel)
{
	const struct wire_bpf *bpf = kernel->bpf;
	int err;

	kernel->records_size =
		whole_pages(kernel->header.capacity * sizeof(struct wire_pair));
	err = map_share(bpf->maps.wire_pairs, kernel->records_size,
			(void **)&kernel->records);
	if (!err)
		err = map_share(bpf->maps.wire_call, whole_pages(1),
				(void **)&kernel->call);
	if (err)
		return err;
	kernel->records_fd = map_reader(kernel, "wire_pairs");
	return kernel->records_fd < 0 ? kernel->records_fd : 0;
}

/* A pin is how a descriptor that can only be read is had; it does not stay. */
static int lanes_reader(struct kernel *kernel)
{
	int err = map_pin(kernel, "wire_lanes",
			  bpf_map__fd(kernel->bpf->maps.wire_lanes));

	if (err)
		return err;
	kernel->lanes_fd = map_reader(kernel, "wire_lanes");
	pin_remove(kernel->dir, "wire_lanes");
	return kernel->lanes_fd < 0 ? kernel->lanes_fd : 0;
}

static int lanes_map(struct kernel *kernel)
{
	const struct wire_bpf *bpf = kernel->bpf;
	int err;

	if (!kernel->lane_capacity)
		return 0;
	kernel->lanes_size =
		whole_pages(kernel->lane_capacity * sizeof(struct wire_lane));
	err = map_share(bpf->maps.wire_lanes, kernel->lanes_size,
			(void **)&kernel->lanes);
	if (!err)
		err = map_share(bpf->maps.wire_lease, whole_pages(1),
				(void **)&kernel->lease);
	if (!err)
		err = map_share(bpf->maps.wire_lane_call, whole_pages(1),
				(void **)&kernel->lane_call);
	return err ? err : lanes_reader(kernel);
}

static int step(int err, const char *what, char why[LOAD_WHY])
{
	if (err)
		snprintf(why, LOAD_WHY, "%s: %s", what, strerror(-err));
	return err;
}

int load_run(struct kernel *kernel, char why[LOAD_WHY])
{
	int err;

	libbpf_set_print(print);
	err = step(object_prepare(kernel), "the BPF object", why);
	if (err)
		return err;
	complaint[0] = '\0';
	err = wire_bpf__load(kernel->bpf);
	if (err) {
		log_error("broker", "event=load_failed error=\"%s\"",
			  complaint);
		return step(err, "this kernel refuses the BPF programs", why);
	}
	err = step(forwarding_start(kernel),
		   "net.ipv4.conf.lo.forwarding cannot be set", why);
	if (!err)
		err = step(maps_pin(kernel), "pinning maps", why);
	if (!err)
		err = step(maps_map(kernel), "mapping maps", why);
	if (!err)
		err = step(lanes_map(kernel), "mapping the maps of lanes", why);
	return err;
}

static void map_unshare(void *at, size_t size)
{
	if (at)
		munmap(at, size);
}

void load_undo(struct kernel *kernel)
{
	map_unshare(kernel->records, kernel->records_size);
	map_unshare(kernel->call, whole_pages(1));
	map_unshare(kernel->lanes, kernel->lanes_size);
	map_unshare(kernel->lease, whole_pages(1));
	map_unshare(kernel->lane_call, whole_pages(1));
	kernel->records = NULL;
	kernel->call = NULL;
	kernel->lanes = NULL;
	kernel->lease = NULL;
	kernel->lane_call = NULL;
	fd_close(&kernel->records_fd);
	fd_close(&kernel->lanes_fd);
	wire_bpf__destroy(kernel->bpf);
	kernel->bpf = NULL;
}
