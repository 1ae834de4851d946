/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A broker whose kernel is made up: sockets are registered by hand, flows are a
 * list, resets are recorded. Everything else is the real thing.
 */
#ifndef UNIT_BROKER_FAKE_H
#define UNIT_BROKER_FAKE_H

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/internal.h"

#define FAKE_SOCKETS 64
#define FAKE_FLOWS   256
#define FAKE_DEVICE  7 /* the one with programs */

struct fake_socket {
	ino_t inode; /* 0: free */
	bool unconnected; /* it has no ends */
	struct wire_key key;
	struct wire_snapshot snapshot;
	bool silent;
	bool foreign; /* no TCP socket of this network namespace */
	bool translated;
	bool closed; /* by a reset */
	bool closing; /* so, as soon as it is made silent */
	bool datagrams; /* a bound UDP socket: the local side of key is where */
	bool hidden; /* another gets its datagrams */
};

struct fake_flow {
	bool used;
	struct wire_key key;
	struct wire_flow flow;
};

static struct {
	struct fake_socket sockets[FAKE_SOCKETS];
	struct fake_flow flows[FAKE_FLOWS];
	unsigned int snapshots; /* taken so far */
	/* Called before the n-th snapshot of a join is answered. */
	void (*between)(unsigned int snapshots);
	int insert_error, reset_error;
	unsigned int resets;
	struct wire_key reset_key[2]; /* the last two */
	struct reset_numbers reset_numbers[2];
	unsigned int acknowledged, loads, releases;
	int records_fd;

	/* Of lanes. */
	struct fake_flow lane_flows[FAKE_FLOWS]; /* keys in the form of lanes */
	bool strange; /* no address is this host's */
	bool altered; /* datagrams are, by NAT or IPsec */
	int look_error;
	struct wire_lease lease;
} fake;

static inline struct fake_socket *fake_by_fd(int fd)
{
	struct stat info;

	if (fstat(fd, &info) < 0 || !S_ISSOCK(info.st_mode))
		return NULL;
	for (size_t i = 0; i < FAKE_SOCKETS; i++)
		if (fake.sockets[i].inode == info.st_ino)
			return &fake.sockets[i];
	return NULL;
}

static inline struct fake_socket *fake_by_key(const struct wire_key *key)
{
	for (size_t i = 0; i < FAKE_SOCKETS; i++)
		if (fake.sockets[i].inode &&
		    !memcmp(&fake.sockets[i].key, key, sizeof(*key)))
			return &fake.sockets[i];
	return NULL;
}

static inline bool fake_socket_ours(struct broker *broker, int fd)
{
	const struct fake_socket *s = fake_by_fd(fd);

	(void)broker;
	return s && !s->foreign;
}

static inline int fake_snapshot(struct broker *broker,
				const struct wire_key keys[WIRE_LEGS],
				struct wire_snapshot out[WIRE_LEGS])
{
	(void)broker;
	if (fake.between)
		fake.between(fake.snapshots);
	fake.snapshots++;
	for (int i = 0; i < WIRE_LEGS; i++) {
		const struct fake_socket *s = fake_by_key(&keys[i]);

		memset(&out[i], 0, sizeof(out[i]));
		if (s)
			out[i] = s->snapshot;
	}
	return 0;
}

static inline int fake_look(struct broker *broker, const int fds[WIRE_LEGS],
			    struct wire_key keys[WIRE_LEGS],
			    uint64_t sockets[WIRE_LEGS],
			    struct wire_snapshot out[WIRE_LEGS])
{
	for (int i = 0; i < WIRE_LEGS; i++) {
		const struct fake_socket *s = fake_by_fd(fds[i]);

		memset(&keys[i], 0, sizeof(keys[i]));
		sockets[i] = s ? s->snapshot.socket : 0;
		if (s && !s->unconnected)
			keys[i] = s->key;
	}
	return fake_snapshot(broker, keys, out);
}

static inline bool fake_translated(struct broker *broker, int fd,
				   const struct wire_key *key)
{
	const struct fake_socket *s = fake_by_key(key);

	(void)broker;
	(void)fd;
	return !s || s->translated;
}

static inline bool fake_attached(struct broker *broker, uint32_t device)
{
	(void)broker;
	return device == FAKE_DEVICE;
}

static inline struct fake_flow *fake_flow_of(const struct wire_key *key)
{
	for (size_t i = 0; i < FAKE_FLOWS; i++)
		if (fake.flows[i].used &&
		    !memcmp(&fake.flows[i].key, key, sizeof(*key)))
			return &fake.flows[i];
	return NULL;
}

static inline unsigned int fake_flow_count(void)
{
	unsigned int count = 0;

	for (size_t i = 0; i < FAKE_FLOWS; i++)
		count += fake.flows[i].used;
	return count;
}

static inline int fake_flow_insert(const struct wire_key *key, uint32_t index,
				   uint32_t leg)
{
	if (fake.insert_error)
		return fake.insert_error;
	if (fake_flow_of(key))
		return -EEXIST;
	for (size_t i = 0; i < FAKE_FLOWS; i++) {
		if (fake.flows[i].used)
			continue;
		fake.flows[i] =
			(struct fake_flow){ true, *key, { index, leg } };
		return 0;
	}
	return -E2BIG;
}

static inline void fake_flow_delete(struct broker *broker,
				    const struct wire_key *key)
{
	struct fake_flow *flow = fake_flow_of(key);

	(void)broker;
	if (flow)
		flow->used = false;
}

static inline int fake_hook(struct broker *broker,
			    const struct wire_key keys[WIRE_LEGS],
			    uint32_t index, struct wire_snapshot out[WIRE_LEGS])
{
	for (uint32_t leg = 0; leg < WIRE_LEGS; leg++) {
		int err = fake_flow_insert(&keys[leg], index, leg);

		if (!err)
			continue;
		if (leg)
			fake_flow_delete(broker, &keys[0]);
		return err;
	}
	return fake_snapshot(broker, keys, out);
}

static inline int fake_flow_find(struct broker *broker,
				 const struct wire_key *key,
				 struct wire_flow *out)
{
	const struct fake_flow *flow = fake_flow_of(key);

	(void)broker;
	if (!flow)
		return -ENOENT;
	*out = flow->flow;
	return 0;
}

static inline void fake_flows(struct broker *broker,
			      void (*fn)(struct broker *broker,
					 const struct wire_key *key,
					 const struct wire_flow *flow))
{
	for (size_t i = 0; i < FAKE_FLOWS; i++) {
		struct fake_flow flow = fake.flows[i];

		if (flow.used)
			fn(broker, &flow.key, &flow.flow);
	}
}

static inline int fake_closed(const int fds[WIRE_LEGS])
{
	for (int leg = 0; leg < WIRE_LEGS; leg++) {
		const struct fake_socket *s = fake_by_fd(fds[leg]);

		if (s && s->closed)
			return leg;
	}
	return WIRE_LEGS;
}

static inline void fake_acknowledge(int fd)
{
	(void)fd;
	fake.acknowledged++;
}

static inline void fake_silence(int fd)
{
	struct fake_socket *s = fake_by_fd(fd);

	if (!s)
		return;
	s->silent = true;
	s->closed |= s->closing;
}

static inline int fake_reset(const struct wire_key *key, uint32_t seq,
			     uint32_t ack)
{
	unsigned int at = fake.resets++ % 2;

	fake.reset_key[at] = *key;
	fake.reset_numbers[at] = (struct reset_numbers){ seq, ack };
	return fake.reset_error;
}

static inline int fake_datagram_bound(struct broker *broker, int fd,
				      bool several, struct wire_lane_key *out)
{
	const struct fake_socket *s = fake_by_fd(fd);

	(void)broker;
	(void)several;
	if (!s || !s->datagrams || s->foreign)
		return -EBADMSG;
	*out = (struct wire_lane_key){ .family = s->key.family,
				       .local_port = s->key.local_port };
	memcpy(out->local, s->key.local, sizeof(out->local));
	return 0;
}

static inline bool fake_address_ours(const struct wire_lane_key *key)
{
	(void)key;
	return !fake.strange;
}

/* By the port alone: of each there is one. */
static inline int fake_lane_look(struct broker *broker,
				 const struct wire_lane_key keys[WIRE_LEGS],
				 struct wire_lane_look out[WIRE_LEGS])
{
	(void)broker;
	memset(out, 0, WIRE_LEGS * sizeof(*out));
	for (int leg = 0; leg < WIRE_LEGS; leg++)
		for (size_t i = 0; i < FAKE_SOCKETS; i++) {
			const struct fake_socket *s = &fake.sockets[i];

			if (!s->inode || !s->datagrams || s->hidden ||
			    s->key.local_port != keys[leg].local_port)
				continue;
			out[leg].found = 1;
			out[leg].device = s->snapshot.device;
			out[leg].port = s->key.local_port;
			memcpy(out[leg].bound, s->key.local,
			       sizeof(s->key.local));
		}
	return fake.look_error;
}

static inline bool fake_lane_altered(struct broker *broker,
				     const struct wire_lane_key *key)
{
	(void)broker;
	(void)key;
	return fake.altered;
}

static inline struct fake_flow *
fake_lane_flow_of(const struct wire_lane_key *key)
{
	for (size_t i = 0; i < FAKE_FLOWS; i++)
		if (fake.lane_flows[i].used &&
		    !memcmp(&fake.lane_flows[i].key, key, sizeof(*key)))
			return &fake.lane_flows[i];
	return NULL;
}

static inline int fake_lane_hook(struct broker *broker,
				 const struct wire_lane_key *key,
				 uint32_t index, uint32_t leg)
{
	(void)broker;
	if (fake.insert_error)
		return fake.insert_error;
	if (fake_lane_flow_of(key))
		return -EEXIST;
	for (size_t i = 0; i < FAKE_FLOWS; i++) {
		struct fake_flow *flow = &fake.lane_flows[i];

		if (flow->used)
			continue;
		flow->used = true;
		flow->flow = (struct wire_flow){ index, leg };
		memcpy(&flow->key, key, sizeof(*key));
		return 0;
	}
	return -E2BIG;
}

static inline void fake_lane_unhook(struct broker *broker,
				    const struct wire_lane_key *key)
{
	struct fake_flow *flow = fake_lane_flow_of(key);

	(void)broker;
	if (flow)
		flow->used = false;
}

static inline unsigned int fake_lane_flow_count(void)
{
	unsigned int count = 0;

	for (size_t i = 0; i < FAKE_FLOWS; i++)
		count += fake.lane_flows[i].used;
	return count;
}

static inline int fake_records(struct broker *broker)
{
	(void)broker;
	return fake.records_fd;
}

static inline int fake_sockmap_load(struct sockmap_bpf **out,
				    int fds[SOCKMAP_MAPS])
{
	*out = (struct sockmap_bpf *)&fake; /* nobody looks into it */
	fake.loads++;
	for (int i = 0; i < SOCKMAP_MAPS; i++)
		fds[i] = fake.records_fd;
	return 0;
}

static inline void fake_sockmap_release(struct sockmap_bpf *bpf)
{
	fake.releases += bpf != NULL;
}

static const struct broker_ops fake_ops = {
	.look = fake_look,
	.socket_ours = fake_socket_ours,
	.snapshot = fake_snapshot,
	.hook = fake_hook,
	.translated = fake_translated,
	.attached = fake_attached,
	.flow_find = fake_flow_find,
	.flow_delete = fake_flow_delete,
	.flows = fake_flows,
	.closed = fake_closed,
	.acknowledge = fake_acknowledge,
	.silence = fake_silence,
	.disconnect = fake_silence,
	.reset = fake_reset,
	.datagram_bound = fake_datagram_bound,
	.address_ours = fake_address_ours,
	.lane_look = fake_lane_look,
	.lane_altered = fake_lane_altered,
	.lane_hook = fake_lane_hook,
	.lane_unhook = fake_lane_unhook,
	.lanes = fake_records,
	.records = fake_records,
	.sockmap_load = fake_sockmap_load,
	.sockmap_release = fake_sockmap_release,
};

/* 0 or -ENOMEM, with nothing left. */
static inline int fake_broker_new(struct loop *loop, uint32_t capacity,
				  struct broker **out)
{
	struct broker *broker = calloc(1, sizeof(*broker));

	if (!broker)
		return -ENOMEM;
	broker->loop = loop;
	broker->ops = &fake_ops;
	broker->latched_max = capacity;
	list_init(&broker->sessions);
	broker->lanes_max = capacity;
	broker->lease = &fake.lease;
	broker->records = calloc(capacity, sizeof(*broker->records));
	broker->lane_records = calloc(capacity, sizeof(*broker->lane_records));
	if (!broker->records || !broker->lane_records ||
	    places_new(broker, capacity) || lanes_new(broker, capacity)) {
		places_free(broker);
		free(broker->records);
		free(broker->lane_records);
		free(broker);
		return -ENOMEM;
	}
	*out = broker;
	return 0;
}

static inline void fake_broker_free(struct broker *broker)
{
	sessions_free(broker);
	places_free(broker);
	lanes_free(broker);
	free(broker->records);
	free(broker->lane_records);
	free(broker);
}

/* A connection as most are; what a test wants otherwise it changes. */
static inline struct wire_snapshot fake_snapshot_usual(uint32_t number)
{
	return (struct wire_snapshot){
		.found = 1,
		.state = TCP_ESTABLISHED,
		.socket = 1000 + number,
		.rcv_nxt = 10000 * number,
		.copied_seq = 10000 * number,
		.rcv_wup = 10000 * number,
		.rcv_wnd = 64000,
		.snd_una = 77 * number,
		.snd_nxt = 77 * number,
		.write_seq = 77 * number,
		.snd_wnd = 64256,
		.timestamp = 500 * number,
		.ts_recent = 900 * number,
		.timestamps = 1,
		.sack = 1,
		.window_scaling = 1,
		.snd_wscale = 7,
		.rcv_wscale = 8,
		.mss_clamp = 1460,
		.advmss = 1460,
		.pmtu = 1500,
		.arrival = FAKE_DEVICE,
		.departure = FAKE_DEVICE,
		.device = FAKE_DEVICE,
	};
}

/* A new descriptor that stands for connection `number`; -1: none to be had. */
static inline int fake_connect(uint32_t number, int family)
{
	struct fake_socket *s = NULL;
	struct stat info;
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	for (size_t i = 0; i < FAKE_SOCKETS && !s; i++)
		if (!fake.sockets[i].inode)
			s = &fake.sockets[i];
	if (fd < 0 || !s || fstat(fd, &info) < 0) {
		if (fd >= 0)
			close(fd);
		return -1;
	}
	memset(s, 0, sizeof(*s));
	s->inode = info.st_ino;
	s->key.family = (__u8)family;
	s->key.remote[0] = 10;
	s->key.remote[3] = (uint8_t)number;
	s->key.local[0] = 10;
	s->key.local[3] = 200;
	s->key.remote_port = htons((uint16_t)(1000 + number));
	s->key.local_port = htons(3478);
	s->snapshot = fake_snapshot_usual(number);
	return fd;
}

/* One that stands for a UDP socket bound to 10.0.0.200, at this port. */
static inline int fake_datagrams(uint16_t port)
{
	int fd = fake_connect(1, AF_INET);
	struct fake_socket *s = fake_by_fd(fd);

	if (!s)
		return -1;
	s->datagrams = true;
	s->key.local_port = htons(port);
	return fd;
}

#endif
