/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Load for UDP allocations: packets CHANNEL SIZE SECONDS WINDOW TRAINS (CLIENT PEER)...
 *
 * Each pair of inherited descriptors is a connected UDP socket of a client that has
 * bound CHANNEL to a peer, and the peer's socket. ChannelData of SIZE bytes go to
 * the peer, which sends their payload back; of each pair WINDOW at most are under
 * way. With TRAINS not 0 what one sends at once goes as one message that the kernel
 * cuts, or does not where the receiver takes it whole (UDP_SEGMENT). Prints how often one went there and back as JSON. CHANNEL 0: the clients send
 * Binding requests, which the server answers, and the peers have nothing to do.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/addr.h"
#include "base/clock.h"
#include "stun/stun.h"

#define BATCH       64
#define PAYLOAD_MAX 1500
#define PAIRS       64
#define TRAIN_MAX   65000 /* bytes */
#define LOST_MS     200 /* without an answer the rest of a window is lost */

struct pair {
	int client, peer;
	unsigned int under_way;
	uint64_t last_ms; /* when something came back */
};

static struct {
	struct pair pairs[PAIRS];
	size_t count;
	size_t size; /* of a message */
	unsigned int window;
	bool trains;
	uint64_t trips, lost;
	uint8_t out[STUN_CHANNEL_HEADER + PAYLOAD_MAX];
	uint8_t in[BATCH][2048];
	union addr from[BATCH];
	struct iovec bytes[BATCH];
	struct mmsghdr messages[BATCH];
} load;

/* Reads what is there. */
static int receive(int fd)
{
	for (size_t i = 0; i < BATCH; i++) {
		load.bytes[i] =
			(struct iovec){ load.in[i], sizeof(load.in[i]) };
		load.messages[i].msg_hdr = (struct msghdr){
			.msg_name = &load.from[i],
			.msg_namelen = sizeof(load.from[i]),
			.msg_iov = &load.bytes[i],
			.msg_iovlen = 1,
		};
	}
	return recvmmsg(fd, load.messages, BATCH, MSG_DONTWAIT, NULL);
}

/* What the messages have, to one, in one; returns how many datagrams. */
static int train_send(int fd, size_t count)
{
	uint16_t size = (uint16_t)load.bytes[0].iov_len;
	union {
		struct cmsghdr head;
		uint8_t bytes[CMSG_SPACE(sizeof(size))];
	} control = { .head = { CMSG_LEN(sizeof(size)), SOL_UDP,
				UDP_SEGMENT } };
	struct msghdr message = load.messages[0].msg_hdr;

	if (count * size > TRAIN_MAX)
		count = TRAIN_MAX / size;
	memcpy(CMSG_DATA(&control.head), &size, sizeof(size));
	message.msg_iovlen = count;
	message.msg_control = &control;
	message.msg_controllen = sizeof(control);
	return sendmsg(fd, &message, MSG_DONTWAIT) > 0 ? (int)count : -1;
}

static int send_all(int fd, size_t count)
{
	return load.trains ? train_send(fd, count) :
			     sendmmsg(fd, load.messages, (unsigned int)count,
				      MSG_DONTWAIT);
}

/* The peer sends back what it has got. */
static bool echo(const struct pair *pair)
{
	int count = receive(pair->peer);

	for (int i = 0; i < count; i++)
		load.bytes[i].iov_len = load.messages[i].msg_len;
	return count > 0 && send_all(pair->peer, (size_t)count) > 0;
}

static bool collect(struct pair *pair, uint64_t now)
{
	int count = receive(pair->client);

	if (count <= 0)
		return false;
	load.trips += (unsigned int)count;
	pair->under_way -= (unsigned int)count < pair->under_way ?
				   (unsigned int)count :
				   pair->under_way;
	pair->last_ms = now;
	return true;
}

static bool fill(struct pair *pair)
{
	unsigned int room = load.window - pair->under_way;
	int sent;

	if (room > BATCH)
		room = BATCH;
	if (!room)
		return false;
	for (size_t i = 0; i < room; i++) {
		load.bytes[i] = (struct iovec){ load.out, load.size };
		load.messages[i].msg_hdr = (struct msghdr){
			.msg_iov = &load.bytes[i],
			.msg_iovlen = 1,
		};
	}
	sent = send_all(pair->client, room);
	if (sent > 0)
		pair->under_way += (unsigned int)sent;
	return sent > 0;
}

static bool turn(struct pair *pair)
{
	uint64_t now = clock_ms();
	bool moved = echo(pair);

	moved |= collect(pair, now);
	if (pair->under_way && now - pair->last_ms > LOST_MS) {
		load.lost += pair->under_way;
		pair->under_way = 0;
		pair->last_ms = now;
	}
	return moved | fill(pair);
}

/* Nothing moved: until something can be read. */
static void rest(void)
{
	struct pollfd fds[2 * PAIRS];

	for (size_t i = 0; i < load.count; i++) {
		fds[2 * i] = (struct pollfd){ load.pairs[i].client, POLLIN, 0 };
		fds[2 * i + 1] =
			(struct pollfd){ load.pairs[i].peer, POLLIN, 0 };
	}
	poll(fds, (nfds_t)(2 * load.count), 10);
}

/* What the clients send. */
static void message_make(uint16_t channel, size_t size)
{
	struct stun_writer w;

	if (channel) {
		stun_channel_begin(load.out, channel, (uint16_t)size);
		load.size = STUN_CHANNEL_HEADER + size;
		return;
	}
	stun_begin(&w, load.out, sizeof(load.out), STUN_REQUEST, STUN_BINDING,
		   NULL);
	load.size = (size_t)stun_end(&w);
}

int main(int argc, char **argv)
{
	uint64_t begun = clock_ms(), end;

	if (argc < 8 || argc % 2)
		return 2;
	load.window = (unsigned int)atoi(argv[4]);
	load.trains = atoi(argv[5]) != 0;
	if (atoi(argv[2]) > PAYLOAD_MAX || (argc - 6) / 2 > PAIRS)
		return 2;
	message_make((uint16_t)atoi(argv[1]), (size_t)atoi(argv[2]));
	for (int i = 6; i + 1 < argc; i += 2)
		load.pairs[load.count++] =
			(struct pair){ .client = atoi(argv[i]),
				       .peer = atoi(argv[i + 1]),
				       .last_ms = begun };
	end = begun + (uint64_t)atoi(argv[3]) * 1000;
	while (clock_ms() < end) {
		bool moved = false;

		for (size_t i = 0; i < load.count; i++)
			moved |= turn(&load.pairs[i]);
		if (!moved)
			rest();
	}
	printf("{\"trips\": %ju, \"lost\": %ju, \"ms\": %ju}\n",
	       (uintmax_t)load.trips, (uintmax_t)load.lost,
	       (uintmax_t)(clock_ms() - begun));
	return 0;
}
