/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files share that deal with the real kernel: BPF, pins, devices. */
#ifndef BROKER_KERNEL_H
#define BROKER_KERNEL_H

#include <limits.h>
#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "broker/broker.h"
#include "engine/wire_proto.h"
#include "loop/loop.h"

struct wire_bpf;
struct ring_buffer;
struct broker;

#define PIN_PATH 512

enum direction {
	INGRESS,
	EGRESS,
	DIRECTIONS,
};

/* A network device (device.c). */
struct device {
	struct list link; /* of kernel.devices */
	int index;
	char name[IFNAMSIZ];
	bool carries; /* Ethernet, wanted, not a part of another device */
	bool attached; /* our programs see its packets */
	bool listed; /* in the listing under way */
};

/*
 * The pinned map wire_version: written once, by the broker that pinned the others.
 */
struct pin_header {
	uint32_t version; /* WIRE_VERSION */
	uint32_t capacity; /* pairs */
	int32_t forwarding[2]; /* of lo before us: IPv4, IPv6; -1: not known */
	/*
	 * Cookie of the network namespace: an inode number is soon used again by
	 * another one.
	 */
	uint64_t netns;
};

struct kernel {
	struct broker *broker;
	struct loop *loop;
	char dir[PIN_PATH]; /* PIN/net-<inode> */
	int lock; /* record lock: one broker in a network namespace */
	bool adopted; /* the maps are those of an earlier broker */
	struct wire_bpf *bpf;
	struct pin_header header;
	int records_fd; /* wire_pairs, read-only: what clients get */
	struct wire_pair *records;
	size_t records_size;
	struct wire_call *call;
	uint32_t lane_capacity;
	struct wire_lane *lanes;
	size_t lanes_size;
	struct wire_lease *lease;
	struct wire_lane_call *lane_call;
	int lanes_fd; /* wire_lanes, read-only: what clients get */
	struct ring_buffer *events;
	struct watch events_watch; /* silent during a pause */
	struct timer events_pause;
	uint64_t events_ms; /* when the last one came */
	unsigned int events_count; /* in that millisecond */
	int forwarding_fds[2]; /* the switches, open while we run */
	struct watch forwarding_watch; /* rtnetlink: switches change */
	struct list devices;
	const char *const *wanted; /* names of devices; none: all that can */
	size_t wanted_count;
	bool clsact; /* this kernel has no tcx */
	bool links_lost; /* messages about devices, until they are listed anew */
	struct watch link_watch; /* rtnetlink: devices come and go */
	struct timer link_again; /* looks at all devices once more */
	int conntrack_fd; /* ctnetlink; -1: no netfilter */
	int conntrack_count_fd; /* how many it tracks; -1: not known */
	uint64_t conntrack_ms; /* when that was read: */
	bool conntrack_empty; /* it tracks nothing */
	uint32_t conntrack_seq;
};

/* Pins (pin.c). */
/* PIN/net-<inode of this network namespace>. 0 or -ENAMETOOLONG, ... */
int pin_dir(const char *pin, char out[PIN_PATH]);
/* Makes the directories, on a BPF file system, owned by us alone. */
int pin_dir_make(const char *pin, const char *dir);
/* Calls fn for every name in the directory. */
void pin_each(const char *dir, void (*fn)(void *arg, const char *name),
	      void *arg);
void pin_remove(const char *dir, const char *name);
bool pin_path(const char *dir, const char *name, char out[PIN_PATH]);
/* Who has wire in this network namespace (base/lock.h). */
#define PIN_LOCK "wire"
/* Detaches and removes everything in the directory; was there anything? */
bool pin_clear(const char *dir);

/* Programs and maps (load.c). 0, or a negative errno and the words for it. */
#define LOAD_WHY 96
int load_run(struct kernel *kernel, char why[LOAD_WHY]);
/* What the pins say of themselves; -ENOENT: there are none. */
int pin_header_read(const char *dir, struct pin_header *out);
void load_undo(struct kernel *kernel); /* leaves what is pinned */

/* Programs on devices (attach.c). */
/* 0 or a negative errno. Replaces what an earlier broker attached, in place. */
int attach_device(struct kernel *kernel, const struct device *device);
/* Removes the pins, with which the programs go. */
void attach_remove(const char *dir, int index);
/* The device index in a pin's name of attach.c; 0: another pin. */
int attach_pin_index(const char *name);

/* Network devices (device.c). */
int devices_start(struct kernel *kernel);
void devices_free(struct kernel *kernel);
bool device_attached(const struct kernel *kernel, int index);

/* Addresses that this host translates (conntrack.c). */
int conntrack_open(struct kernel *kernel);
bool conntrack_translates(struct kernel *kernel, int fd,
			  const struct wire_key *key);
/* The same of datagrams, of which no socket knows. */
bool conntrack_translates_datagrams(struct kernel *kernel,
				    const struct wire_lane_key *key);

/* Of broker_ops, what is about lanes (lane_ops.c). */
int lane_ops_bound(struct broker *broker, int fd, bool several,
		   struct wire_lane_key *out);
bool lane_ops_ours(const struct wire_lane_key *key);
int lane_ops_look(struct broker *broker,
		  const struct wire_lane_key keys[WIRE_LEGS],
		  struct wire_lane_look out[WIRE_LEGS]);
bool lane_ops_altered(struct broker *broker, const struct wire_lane_key *key);
int lane_ops_hook(struct broker *broker, const struct wire_lane_key *key,
		  uint32_t index, uint32_t leg);
void lane_ops_unhook(struct broker *broker, const struct wire_lane_key *key);
int lane_ops_lanes(struct broker *broker);

/* net.ipv4.conf.lo.forwarding and its IPv6 twin (forwarding.c). */
int forwarding_start(struct kernel *kernel);
/* Sets them again when somebody has changed them. 0 or a negative errno. */
int forwarding_keep(struct kernel *kernel);
void forwarding_restore(struct kernel *kernel);
/* The same by name, for what an earlier broker has set. */
void forwarding_undo(const struct pin_header *header);
void forwarding_close(struct kernel *kernel);

#endif
