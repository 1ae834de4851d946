/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * impair: a cable with faults between two network interfaces.
 *
 * `impair A B [SEED]` hands every frame that arrives at A out at B ("up") and
 * the other way round ("down"), and loses, doubles, delays, reorders, corrupts
 * and slows TCP segments as told by lines on standard input. Each line is
 * answered by one on standard output:
 *
 *   WAY KEY VALUE ...   WAY: up, down, both. KEY: loss dup reorder corrupt (per
 *                       cent), gap delay jitter (ms), rate (Mbit/s), queue
 *                       (KiB), mtu (bytes), tell (1: packet-too-big is sent
 *                       back for what mtu stops), tag (1: every frame gets a
 *                       priority tag, 802.1Q with VLAN 0)
 *   WAY rule ACTION MATCH FIRST COUNT PORT [MS]
 *                       ACTION: drop dup hold corrupt; MATCH: any data ack syn
 *                       synack fin rst; from the FIRST such frame on, COUNT of
 *                       them; PORT of either end, 0: any; MS: how long to hold
 *   WAY clear           no rules, no chances, no delay
 *   stats               both directions' counters, as JSON
 *
 * The end of standard input ends it. Frames pass with their virtio header, so
 * super-packets and unfinished checksums stay what they are: a chance then
 * meets a whole super-packet. Turn segmentation off at the senders to have
 * segments. The same SEED and frames give the same faults.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "lib/way.h"

#define BATCH      64
#define FRAME_ROOM (WAY_HEADER + 66 * 1024)
#define LINE_ROOM  512
#define WORDS_MAX  32

struct port {
	int fd;
	const char *name;
	uint64_t overrun; /* frames the kernel dropped before we saw them */
};

struct box {
	struct port ports[2];
	struct way ways[2]; /* from ports[i] to ports[!i] */
	uint64_t unsent; /* the interface took no more */
	char line[LINE_ROOM];
	size_t line_len;
	bool done;
};

static uint8_t frames[BATCH][FRAME_ROOM];

/* A packet socket that takes every frame arriving at this interface. */
static int port_open(struct port *port, const char *name)
{
	struct sockaddr_ll addr = { .sll_family = AF_PACKET };
	int one = 1, room = 64 << 20;

	port->name = name;
	port->fd =
		socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	addr.sll_ifindex = (int)if_nametoindex(name);
	addr.sll_protocol = htons(ETH_P_ALL);
	if (port->fd < 0 || !addr.sll_ifindex)
		return -errno;
	setsockopt(port->fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
	setsockopt(port->fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
	if (setsockopt(port->fd, SOL_PACKET, PACKET_VNET_HDR, &one,
		       sizeof(one)) ||
	    setsockopt(port->fd, SOL_PACKET, PACKET_QDISC_BYPASS, &one,
		       sizeof(one)) ||
	    setsockopt(port->fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one,
		       sizeof(one)) ||
	    bind(port->fd, (struct sockaddr *)&addr, sizeof(addr)))
		return -errno;
	return 0;
}

/* A frame in three parts, the second a tag. */
static void frame_tag(const struct iovec *frame, struct iovec parts[3])
{
	static uint8_t tag[] = { 0x81, 0, 5 << 5, 0 };
	size_t head = WAY_HEADER + 2 * ETH_ALEN;
	uint8_t *bytes = frame->iov_base;
	struct virtio_net_hdr virtio;

	memcpy(&virtio, bytes, sizeof(virtio));
	if (virtio.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
		virtio.csum_start += sizeof(tag);
	if (virtio.gso_type != VIRTIO_NET_HDR_GSO_NONE)
		virtio.hdr_len += sizeof(tag);
	memcpy(bytes, &virtio, sizeof(virtio));
	parts[0] = (struct iovec){ bytes, head };
	parts[1] = (struct iovec){ tag, sizeof(tag) };
	parts[2] = (struct iovec){ bytes + head, frame->iov_len - head };
}

/* At most BATCH frames out at ports[to]. */
static void batch_send(struct box *box, size_t to, struct mmsghdr *batch,
		       unsigned int count)
{
	struct iovec parts[BATCH][3];
	unsigned int sent = 0;
	int fd = box->ports[to].fd;

	if (box->ways[!to].conf.tag)
		for (unsigned int i = 0; i < count; i++) {
			frame_tag(batch[i].msg_hdr.msg_iov, parts[i]);
			batch[i].msg_hdr.msg_iov = parts[i];
			batch[i].msg_hdr.msg_iovlen = 3;
		}
	while (sent < count) {
		int n = sendmmsg(fd, batch + sent, count - sent, 0);

		if (n > 0) {
			sent += (unsigned int)n;
			continue;
		}
		/* This one is refused: as on a full cable, it is gone. */
		box->unsent++;
		sent++;
	}
}

static void frame_send(struct box *box, size_t to, struct way_frame *frame)
{
	struct iovec part = { frame->bytes, frame->len };
	struct mmsghdr one = {
		.msg_hdr = { .msg_iov = &part, .msg_iovlen = 1 },
	};

	batch_send(box, to, &one, 1);
	free(frame);
}

static void late_send(struct box *box, size_t from, uint64_t now)
{
	struct way_frame *frame;

	while ((frame = way_due(&box->ways[from], now)))
		frame_send(box, !from, frame);
}

/* Takes one batch; false: there was none. */
static bool port_forward(struct box *box, size_t from)
{
	struct mmsghdr in[BATCH], out[BATCH];
	struct iovec parts[BATCH];
	struct way_frame *answer;
	unsigned int passing = 0;
	uint64_t now;
	int got;

	memset(in, 0, sizeof(in));
	for (size_t i = 0; i < BATCH; i++) {
		parts[i] = (struct iovec){ frames[i], FRAME_ROOM };
		in[i].msg_hdr.msg_iov = &parts[i];
		in[i].msg_hdr.msg_iovlen = 1;
	}
	got = recvmmsg(box->ports[from].fd, in, BATCH, MSG_DONTWAIT, NULL);
	if (got <= 0)
		return false;
	now = clock_ns();
	late_send(box, from, now);
	for (int i = 0; i < got; i++) {
		parts[i].iov_len = in[i].msg_len;
		if (way_take(&box->ways[from], frames[i], in[i].msg_len, now))
			out[passing++] = in[i];
		answer = way_answer(&box->ways[from]);
		if (answer)
			frame_send(box, from, answer);
	}
	batch_send(box, !from, out, passing);
	return got == BATCH;
}

static void port_count(struct port *port)
{
	struct tpacket_stats stats;
	socklen_t len = sizeof(stats);

	if (!getsockopt(port->fd, SOL_PACKET, PACKET_STATISTICS, &stats, &len))
		port->overrun += stats.tp_drops;
}

static void way_print(const char *name, const struct way_stats *stats)
{
	printf("\"%s\": {\"frames\": %llu, \"segments\": %llu, \"data\": %llu, "
	       "\"lost\": %llu, \"duplicated\": %llu, \"reordered\": %llu, "
	       "\"corrupted\": %llu, \"ruled\": %llu, \"too_long\": %llu, "
	       "\"told\": %llu, \"overflow\": %llu, \"super\": %llu, \"late\": %llu}",
	       name, (unsigned long long)stats->frames,
	       (unsigned long long)stats->segments,
	       (unsigned long long)stats->data, (unsigned long long)stats->lost,
	       (unsigned long long)stats->duplicated,
	       (unsigned long long)stats->reordered,
	       (unsigned long long)stats->corrupted,
	       (unsigned long long)stats->ruled,
	       (unsigned long long)stats->too_long,
	       (unsigned long long)stats->told,
	       (unsigned long long)stats->overflow,
	       (unsigned long long)stats->super,
	       (unsigned long long)stats->late);
}

static void stats_print(struct box *box)
{
	port_count(&box->ports[0]);
	port_count(&box->ports[1]);
	printf("{");
	way_print("up", &box->ways[0].stats);
	printf(", ");
	way_print("down", &box->ways[1].stats);
	printf(", \"overrun\": %llu, \"unsent\": %llu}\n",
	       (unsigned long long)(box->ports[0].overrun +
				    box->ports[1].overrun),
	       (unsigned long long)box->unsent);
}

/* The index of a word in a list, -1 when it is not there. */
static int word_find(const char *word, const char *const *list)
{
	for (int i = 0; list[i]; i++)
		if (!strcmp(word, list[i]))
			return i;
	return -1;
}

static int number_parse(const char *word, double max, double *out)
{
	char *end;
	double value = strtod(word, &end);

	if (end == word || *end || !(value >= 0) || value > max)
		return -EINVAL;
	*out = value;
	return 0;
}

/* WAY rule ACTION MATCH FIRST COUNT PORT [MS], from ACTION on. */
static int rule_parse(char **words, size_t count, struct way_rule *out)
{
	static const char *const actions[] = { "pass", "drop",    "dup",
					       "hold", "corrupt", NULL };
	static const char *const matches[] = { "any",    "data", "ack", "syn",
					       "synack", "fin",  "rst", NULL };
	double first, many, port, hold = 0;
	int action, match;

	if (count < 5 || count > 6)
		return -EINVAL;
	action = word_find(words[0], actions);
	match = word_find(words[1], matches);
	if (action < 0 || match < 0 || number_parse(words[2], 1e12, &first) ||
	    number_parse(words[3], 1e12, &many) ||
	    number_parse(words[4], 65535, &port) ||
	    (count == 6 && number_parse(words[5], 60000, &hold)))
		return -EINVAL;
	memset(out, 0, sizeof(*out));
	out->action = (enum way_action)action;
	out->match = (enum way_match)match;
	out->first = (uint64_t)first;
	out->count = (uint64_t)many;
	out->port = (uint16_t)port;
	out->hold_ns = (uint64_t)(hold * 1e6);
	return 0;
}

/* KEY VALUE ... */
static int conf_parse(char **words, size_t count, struct way_conf *conf)
{
	struct {
		const char *name;
		uint64_t *field;
		double unit, max;
	} keys[] = {
		{ "loss", &conf->loss, 42949672.96, 100 },
		{ "dup", &conf->dup, 42949672.96, 100 },
		{ "reorder", &conf->reorder, 42949672.96, 100 },
		{ "corrupt", &conf->corrupt, 42949672.96, 100 },
		{ "gap", &conf->gap_ns, 1e6, 60000 },
		{ "delay", &conf->delay_ns, 1e6, 60000 },
		{ "jitter", &conf->jitter_ns, 1e6, 60000 },
		{ "rate", &conf->rate, 1e6, 100000 },
		{ "queue", &conf->queue, 1024, 1e6 },
		{ "mtu", &conf->mtu, 1, 65535 },
		{ "tell", &conf->tell, 1, 1 },
		{ "tag", &conf->tag, 1, 1 },
	};
	size_t key;
	double value;

	for (size_t i = 0; i < count; i += 2) {
		for (key = 0; key < sizeof(keys) / sizeof(keys[0]); key++)
			if (!strcmp(words[i], keys[key].name))
				break;
		if (key == sizeof(keys) / sizeof(keys[0]) || i + 1 == count ||
		    number_parse(words[i + 1], keys[key].max, &value))
			return -EINVAL;
		*keys[key].field = (uint64_t)(value * keys[key].unit);
	}
	return 0;
}

static int way_command(struct way *way, char **words, size_t count)
{
	struct way_rule rule;
	struct way fresh;

	if (count == 1 && !strcmp(words[0], "clear")) {
		way_init(&fresh, 0);
		way->conf = fresh.conf;
		way->rule_count = 0;
		return 0;
	}
	if (count && !strcmp(words[0], "rule"))
		return rule_parse(words + 1, count - 1, &rule) ?
			       -EINVAL :
			       way_rule_add(way, &rule);
	return conf_parse(words, count, &way->conf);
}

static void command(struct box *box, char *line)
{
	static const char *const ways[] = { "up", "down", "both", NULL };
	char *words[WORDS_MAX], *save = NULL;
	size_t count = 0;
	int which, error = 0;

	for (char *word = strtok_r(line, " ", &save); word && count < WORDS_MAX;
	     word = strtok_r(NULL, " ", &save))
		words[count++] = word;
	if (count == 1 && !strcmp(words[0], "stats")) {
		stats_print(box);
		return;
	}
	which = count ? word_find(words[0], ways) : -1;
	if (which < 0 || count < 2)
		error = -EINVAL;
	for (int i = 0; i < 2 && !error; i++)
		if (which == i || which == 2)
			error = way_command(&box->ways[i], words + 1,
					    count - 1);
	printf("%s\n", error ? strerror(-error) : "ok");
}

static void commands_read(struct box *box)
{
	ssize_t got = read(STDIN_FILENO, box->line + box->line_len,
			   sizeof(box->line) - box->line_len);
	char *end;

	if (got <= 0) {
		box->done = true;
		return;
	}
	box->line_len += (size_t)got;
	while ((end = memchr(box->line, '\n', box->line_len))) {
		size_t used = (size_t)(end - box->line) + 1;

		*end = '\0';
		command(box, box->line);
		box->line_len -= used;
		memmove(box->line, box->line + used, box->line_len);
	}
	if (box->line_len == sizeof(box->line))
		box->done = true; /* nobody writes such lines */
}

/* Sleeps until a frame, a command, or the moment of a late frame. */
static void box_wait(struct box *box, struct pollfd watched[3])
{
	uint64_t next = way_next(&box->ways[0]), now = clock_ns();
	struct timespec delay;

	if (way_next(&box->ways[1]) < next)
		next = way_next(&box->ways[1]);
	next = next > now ? next - now : 0;
	delay.tv_sec = (time_t)(next / 1000000000u);
	delay.tv_nsec = (long)(next % 1000000000u);
	if (delay.tv_sec > 60)
		delay.tv_sec = 60;
	ppoll(watched, 3, &delay, NULL);
}

static void box_run(struct box *box)
{
	struct pollfd watched[3] = {
		{ .fd = box->ports[0].fd, .events = POLLIN },
		{ .fd = box->ports[1].fd, .events = POLLIN },
		{ .fd = STDIN_FILENO, .events = POLLIN },
	};

	while (!box->done) {
		box_wait(box, watched);
		for (size_t i = 0; i < 2; i++) {
			/* A few batches, then the other direction's turn. */
			for (int turn = 0; turn < 4; turn++)
				if (!port_forward(box, i))
					break;
			late_send(box, i, clock_ns());
		}
		if (watched[2].revents)
			commands_read(box);
	}
}

int main(int argc, char **argv)
{
	static struct box box;
	uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;

	if (argc < 3) {
		fprintf(stderr, "Usage: impair INTERFACE INTERFACE [SEED]\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (size_t i = 0; i < 2; i++) {
		int error = port_open(&box.ports[i], argv[1 + i]);

		if (error) {
			fprintf(stderr, "impair: %s: %s\n", argv[1 + i],
				strerror(-error));
			return 1;
		}
		way_init(&box.ways[i], seed * 2 + i);
	}
	printf("ready\n");
	box_run(&box);
	stats_print(&box);
	for (size_t i = 0; i < 2; i++) {
		way_free(&box.ways[i]);
		close(box.ports[i].fd);
	}
	return 0;
}
