/* SPDX-License-Identifier: BSD-2-Clause */
/* The real kernel behind broker_ops: BPF maps and programs, devices, sockets. */
#include "broker/kernel.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <wire.skel.h>

#include "base/fd.h"
#include "base/landlock.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/syscalls.h"
#include "broker/internal.h"
#include "broker/socket.h"
#include "broker/sockmap.h"

SYSCALLS(SYSCALLS_BROKER, "bpf poll ppoll epoll_ctl");

#define KERNEL_TYPES "/sys/kernel/btf" /* loading a program reads them */

#define LOCK_TRIES   20
#define LOCK_WAIT_MS 25

/* So many events in a millisecond are a crowd. */
#define EVENTS_CROWD    4
#define EVENTS_PAUSE_MS 10

static bool ops_socket_ours(struct broker *broker, int fd)
{
	return socket_is_ours(fd, broker->kernel->header.netns);
}

/* Runs what *kernel->call asks for. 0, a negative errno, or the call's own error. */
static int snapshot_run(struct kernel *kernel)
{
	char packet[64] = { 0 }; /* the program wants one, and ignores it */
	struct bpf_test_run_opts run = { .sz = sizeof(run),
					 .data_in = packet,
					 .data_size_in = sizeof(packet),
					 .repeat = 1 };
	int err = bpf_prog_test_run_opts(
		bpf_program__fd(kernel->bpf->progs.wire_snapshot), &run);

	if (err) {
		log_error("broker", "event=snapshot_failed error=\"%s\"",
			  strerror(-err));
		return err;
	}
	return kernel->call->error;
}

static void snapshots_copy(const struct kernel *kernel,
			   struct wire_snapshot out[WIRE_LEGS])
{
	memcpy(out, kernel->call->snapshot, sizeof(kernel->call->snapshot));
}

static int ops_look(struct broker *broker, const int fds[WIRE_LEGS],
		    struct wire_key keys[WIRE_LEGS],
		    uint64_t sockets[WIRE_LEGS],
		    struct wire_snapshot out[WIRE_LEGS])
{
	struct wire_call *call = broker->kernel->call;
	int err;

	memset(call, 0, sizeof(*call));
	memcpy(call->fd, fds, sizeof(call->fd));
	call->describe = 1;
	err = snapshot_run(broker->kernel);
	if (err)
		return err;
	memcpy(keys, call->key, sizeof(call->key));
	for (int leg = 0; leg < WIRE_LEGS; leg++)
		sockets[leg] = call->socket[leg];
	snapshots_copy(broker->kernel, out);
	return 0;
}

static int ops_snapshot(struct broker *broker,
			const struct wire_key keys[WIRE_LEGS],
			struct wire_snapshot out[WIRE_LEGS])
{
	struct wire_call *call = broker->kernel->call;
	int err;

	memset(call, 0, sizeof(*call));
	memcpy(call->key, keys, sizeof(call->key));
	err = snapshot_run(broker->kernel);
	if (!err)
		snapshots_copy(broker->kernel, out);
	return err;
}

static int ops_hook(struct broker *broker,
		    const struct wire_key keys[WIRE_LEGS], uint32_t index,
		    struct wire_snapshot out[WIRE_LEGS])
{
	struct wire_call *call = broker->kernel->call;
	int err;

	memset(call, 0, sizeof(*call));
	memcpy(call->key, keys, sizeof(call->key));
	call->hook = 1;
	call->pair = index;
	err = snapshot_run(broker->kernel);
	if (!err)
		snapshots_copy(broker->kernel, out);
	return err;
}

static bool ops_translated(struct broker *broker, int fd,
			   const struct wire_key *key)
{
	return conntrack_translates(broker->kernel, fd, key);
}

static bool ops_attached(struct broker *broker, uint32_t device)
{
	return device_attached(broker->kernel, (int)device);
}

static int flows_fd(const struct broker *broker)
{
	return bpf_map__fd(broker->kernel->bpf->maps.wire_flows);
}

static int ops_flow_find(struct broker *broker, const struct wire_key *key,
			 struct wire_flow *out)
{
	return bpf_map_lookup_elem(flows_fd(broker), key, out);
}

static void ops_flow_delete(struct broker *broker, const struct wire_key *key)
{
	bpf_map_delete_elem(flows_fd(broker), key);
}

static int ops_records(struct broker *broker)
{
	return broker->kernel->records_fd;
}

static void ops_flows(struct broker *broker,
		      void (*fn)(struct broker *broker,
				 const struct wire_key *key,
				 const struct wire_flow *flow))
{
	struct wire_key key, next;
	struct wire_flow flow;
	int fd = flows_fd(broker);
	bool more = !bpf_map_get_next_key(fd, NULL, &next);

	while (more) {
		key = next;
		/* Before fn, which may delete this one. */
		more = !bpf_map_get_next_key(fd, &key, &next);
		if (!bpf_map_lookup_elem(fd, &key, &flow))
			fn(broker, &key, &flow);
	}
}

const struct broker_ops kernel_ops = {
	.look = ops_look,
	.socket_ours = ops_socket_ours,
	.snapshot = ops_snapshot,
	.hook = ops_hook,
	.translated = ops_translated,
	.attached = ops_attached,
	.flow_find = ops_flow_find,
	.flow_delete = ops_flow_delete,
	.flows = ops_flows,
	.closed = sockets_closed,
	.acknowledge = socket_acknowledge,
	.silence = socket_silence,
	.disconnect = socket_disconnect,
	.reset = socket_reset,
	.datagram_bound = lane_ops_bound,
	.address_ours = lane_ops_ours,
	.lane_look = lane_ops_look,
	.lane_altered = lane_ops_altered,
	.lane_hook = lane_ops_hook,
	.lane_unhook = lane_ops_unhook,
	.lanes = lane_ops_lanes,
	.records = ops_records,
	.sockmap_load = sockmap_load,
	.sockmap_release = sockmap_release,
};

static int event_handle(void *arg, void *data, size_t size)
{
	struct kernel *kernel = arg;
	struct wire_event event;

	if (size < sizeof(event))
		return 0;
	memcpy(&event, data, sizeof(event));
	place_event(kernel->broker, &event);
	return 0;
}

/*
 * Each event is handled at once, for the client that ended a connection may ask for
 * the next one to the same peer. A crowd of them is handled after a pause, for as
 * long as it is one: waking up for each, and the worker for each message, would
 * take longer.
 */
static void events_paused(struct timer *timer)
{
	struct kernel *kernel = list_entry(timer, struct kernel, events_pause);

	if (ring_buffer__consume(kernel->events) >=
	    EVENTS_CROWD * EVENTS_PAUSE_MS)
		timer_arm(kernel->loop, timer, EVENTS_PAUSE_MS, events_paused);
	else
		watch_set(kernel->loop, &kernel->events_watch, EPOLLIN);
}

static void events_ready(struct watch *watch, uint32_t events)
{
	struct kernel *kernel = list_entry(watch, struct kernel, events_watch);
	uint64_t now = loop_now(kernel->loop);
	int count = ring_buffer__consume(kernel->events);

	(void)events;
	if (now != kernel->events_ms)
		kernel->events_count = 0;
	kernel->events_ms = now;
	kernel->events_count += count > 0 ? (unsigned int)count : 0;
	if (kernel->events_count < EVENTS_CROWD)
		return;
	watch_set(kernel->loop, watch, 0);
	timer_arm(kernel->loop, &kernel->events_pause, EVENTS_PAUSE_MS,
		  events_paused);
}

/* After the table is filled: events left in the ring are of its pairs. */
int kernel_events(struct kernel *kernel)
{
	kernel->events =
		ring_buffer__new(bpf_map__fd(kernel->bpf->maps.wire_events),
				 event_handle, kernel, NULL);
	if (!kernel->events)
		return -errno;
	ring_buffer__consume(kernel->events);
	return watch_add(kernel->loop, &kernel->events_watch,
			 bpf_map__fd(kernel->bpf->maps.wire_events), EPOLLIN,
			 events_ready);
}

/* A broker that was killed has its lock until the kernel has taken it down. */
static int kernel_lock(struct kernel *kernel, pid_t *holder)
{
	int fd = -EBUSY;

	for (int i = 0; i < LOCK_TRIES && fd == -EBUSY; i++) {
		if (i)
			poll(NULL, 0, LOCK_WAIT_MS);
		fd = lock_take(PIN_LOCK, holder);
	}
	if (fd < 0)
		return fd;
	kernel->lock = fd;
	return 0;
}

/* Words for the one who reads the log or `culvertctl engines`. */
static int refuse(struct broker *broker, int err, const char *what)
{
	if (!broker->why[0])
		snprintf(broker->why, sizeof(broker->why), "%s: %s", what,
			 strerror(-err));
	return err;
}

static int kernel_start(struct kernel *kernel, const char *pin)
{
	struct broker *broker = kernel->broker;
	pid_t holder = 0;
	int err = pin_dir(pin, kernel->dir);

	if (!err)
		err = kernel_lock(kernel, &holder);
	if (err == -EBUSY)
		snprintf(broker->why, sizeof(broker->why),
			 "another culvertd (its process %d) has wire in this "
			 "network namespace: stop that one",
			 (int)holder);
	if (err == -EPERM)
		snprintf(broker->why, sizeof(broker->why), "%s", LOCK_HINT);
	if (err)
		return refuse(broker, err,
			      "the lock " LOCK_DIRECTORY "/" PIN_LOCK ".lock");
	err = pin_dir_make(pin, kernel->dir);
	if (err)
		return refuse(broker, err, "the directory for pins");
	kernel->header.netns = socket_namespace();
	if (!kernel->header.netns)
		return refuse(broker, -ENOPROTOOPT, "SO_NETNS_COOKIE");
	err = conntrack_open(kernel);
	if (err)
		return refuse(broker, err, "ctnetlink");
	err = load_run(kernel, broker->why);
	if (!err)
		err = devices_start(kernel);
	if (err)
		return refuse(broker, err, "network devices");
	err = forwarding_keep(kernel);
	return err ? refuse(broker, err, "rtnetlink") : 0;
}

static struct kernel *kernel_alloc(struct broker *broker,
				   const struct broker_params *params)
{
	struct kernel *kernel = calloc(1, sizeof(*kernel));

	if (!kernel)
		return NULL;
	kernel->broker = broker;
	kernel->loop = broker->loop;
	kernel->lock = -1;
	kernel->header = (struct pin_header){
		.version = WIRE_VERSION,
		.capacity = params->pairs,
		.forwarding = { -1, -1 },
	};
	kernel->records_fd = -1;
	kernel->lanes_fd = -1;
	kernel->lane_capacity = params->lanes;
	kernel->events_watch.fd = -1;
	kernel->forwarding_fds[0] = -1;
	kernel->forwarding_fds[1] = -1;
	kernel->forwarding_watch.fd = -1;
	kernel->link_watch.fd = -1;
	kernel->conntrack_fd = -1;
	kernel->conntrack_count_fd = -1;
	list_init(&kernel->devices);
	kernel->wanted = params->devices;
	kernel->wanted_count = params->device_count;
	kernel->clsact = params->clsact;
	return kernel;
}

int kernel_new(struct broker *broker, const struct broker_params *params)
{
	struct kernel *kernel = kernel_alloc(broker, params);
	int err;

	if (!kernel)
		return -ENOMEM;
	broker->kernel = kernel;
	err = kernel_start(kernel, params->pin);
	if (err) {
		/* Old programs do not stay attached under a broker without any. */
		if (kernel->lock >= 0) {
			pin_clear(kernel->dir);
			forwarding_undo(&kernel->header);
		}
		return err;
	}
	broker->records = kernel->records;
	broker->lane_records = kernel->lanes;
	broker->lease = kernel->lease;
	return 0;
}

void kernel_unpin(struct kernel *kernel)
{
	if (!kernel->records)
		return;
	pin_clear(kernel->dir);
	forwarding_restore(kernel);
}

void kernel_free(struct kernel *kernel)
{
	if (!kernel)
		return;
	timer_cancel(kernel->loop, &kernel->events_pause);
	devices_free(kernel);
	watch_del(kernel->loop, &kernel->events_watch);
	ring_buffer__free(kernel->events);
	forwarding_close(kernel);
	load_undo(kernel);
	fd_close(&kernel->conntrack_fd);
	fd_close(&kernel->conntrack_count_fd);
	fd_close(&kernel->lock);
	free(kernel);
}

void kernel_confine(const struct kernel *kernel)
{
	const struct landlock_path paths[] = {
		{ KERNEL_TYPES, LANDLOCK_LIST },
		{ kernel ? kernel->dir : "", LANDLOCK_KEEP },
	};

	landlock_confine("broker", paths, kernel ? 2 : 1);
}
