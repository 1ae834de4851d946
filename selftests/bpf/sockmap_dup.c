/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Shows how sockmap hands bytes over twice, and that our verdict does not.
 *
 * The kernel's tcp_read_skb() gives each buffer of the receive queue to the verdict
 * program whole. A buffer may begin with bytes that were received before: TCP queues
 * a segment that is old at its beginning and new at its end as it came, since
 * recv(2) skips the old part by sequence number. Redirected, the old part is sent
 * again. Such a segment needs no strange sender. While a socket is locked, what
 * arrives waits in its backlog, where the kernel merges adjacent segments
 * (tcp_add_backlog). A duplicate, sent again for lack of an acknowledgement or by the
 * link, and the new segment behind it are adjacent. With 1448 bytes in a segment
 * a full super-packet has 45 of them: the stream gets 65160 bytes too long.
 * CPU contention brings both about: locks held for long, and retransmissions.
 *
 * Seen on 6.18, 80 transfers of 8 MiB, `run -d`: with -w 28 of them bad, 41 times
 * 65160 bytes again, and the verdict counted the same 41 overlaps; without
 * -w 29 overlaps, and every stream whole.
 *
 *   sockmap_dup overlap            one such segment, made with TCP_REPAIR, and the
 *                                plainest program that redirects (-k below)
 *   sockmap_dup run [options]      transfers with busy threads beside them
 *     -k          the plainest program that redirects, no relay: the kernel's fault
 *     -w          culvert's engine, but its verdict does not cut: counted overlaps
 *                 beside surplus bytes
 *     -v          over veth, not loopback
 *     -d          a link that sends one packet in 64 twice
 *     -n CONNECTIONS in all, -c so many at once, -s MiB each way, -b busy threads,
 *     -m MSS
 *
 * Root; works in network namespaces of its own. Exit: 0 whole, 1 faults, 2 else.
 */
#include <net/if.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/epoll.h>

#include "base/list.h"
#include "bpf/sockmap_lab.h"
#include "engine/engine.h"
#include "loop/loop.h"
#include "pair/pair.h"

/* 300 bytes, then a segment of 500 whose first 200 are old: 600 in all. */
static int overlap(void)
{
	uint8_t sent[600], got[4096];
	int end[2], leg[2], maps[2];
	size_t n;

	options_off();
	for (size_t i = 0; i < sizeof(sent); i++)
		sent[i] = (uint8_t)(i * 7 + i / 256);
	tcp_pair(&end[0], &leg[0], 0);
	tcp_pair(&end[1], &leg[1], 0);
	plain_join(leg, maps);
	MUST((int)send(end[0], sent, 300, 0));
	n = receive(end[1], got, 300, WAIT_MS);
	end[0] = sender_rewind(end[0], 200);
	MUST((int)send(end[0], sent + 100, 500, 0));
	n += receive(end[1], got + n, sizeof(got) - n, 500);
	printf("sent 600 bytes, received %zu: %s\n", n,
	       n == 600 && !memcmp(got, sent, n) ? "whole" :
	       n == 800 && !memcmp(got + 300, sent + 100, 500) ?
						   "200 came twice" :
						   "mangled");
	return n == 600 ? 0 : 1;
}

/* How a run goes. */
struct options {
	bool plain; /* the plainest verdict, no engine */
	bool whole; /* culvert's verdict, but it does not cut */
	unsigned int connections; /* in all; each carries both ways */
	unsigned int at_once;
	unsigned int busy; /* threads */
	size_t bytes; /* each way */
	int mss;
	bool veth;
	bool duplicates;
};

/* What came wrong, over all transfers. */
struct faults {
	uint64_t transfers, bad;
	uint64_t repeats, repeated; /* places, bytes */
	uint64_t losses, lost;
	uint64_t mangled; /* bytes of no known place */
	uint64_t stuck;
	uint64_t overlaps, overlapped; /* as the verdict counted */
};

/* One way of one connection. The stream is the numbers 0, 1, 2, ... of 8 bytes. */
struct transfer {
	int from, to;
	size_t bytes;
	pthread_t sender, receiver;
	uint8_t *data; /* received; room for as much again */
	size_t got;
	bool stuck;
	struct faults faults;
};

static void numbers_fill(uint8_t *data, size_t len, uint64_t at)
{
	for (size_t i = 0; i < len; i += 8, at += 8) {
		uint64_t word = at / 8;

		memcpy(data + i, &word, 8);
	}
}

static void *send_all(void *arg)
{
	struct transfer *transfer = arg;
	uint8_t data[65536];

	for (size_t at = 0; at < transfer->bytes;) {
		size_t len = transfer->bytes - at, off = 0;

		len = len < sizeof(data) ? len : sizeof(data);
		numbers_fill(data, len, at);
		while (off < len) {
			ssize_t n = send(transfer->from, data + off, len - off,
					 MSG_NOSIGNAL);

			if (n <= 0)
				return NULL; /* the receiver will tell */
			off += (size_t)n;
		}
		at += len;
	}
	return NULL;
}

/* Up to the last number: what is too much has come before it. */
static void *receive_all(void *arg)
{
	struct transfer *transfer = arg;
	uint64_t last = transfer->bytes / 8 - 1, word = 0;
	struct pollfd pollfd = { .fd = transfer->to, .events = POLLIN };

	while (word != last) {
		ssize_t n = -1;

		if (transfer->got < 2 * transfer->bytes &&
		    poll(&pollfd, 1, WAIT_MS) > 0)
			n = recv(transfer->to, transfer->data + transfer->got,
				 2 * transfer->bytes - transfer->got, 0);
		if (n <= 0) {
			transfer->stuck = true;
			break;
		}
		transfer->got += (size_t)n;
		if (transfer->got >= 8)
			memcpy(&word, transfer->data + transfer->got - 8, 8);
	}
	return NULL;
}

/* The stream position of what lies at `at`, or -1: two numbers tell. */
static int64_t position_of(const struct transfer *transfer, size_t at)
{
	for (size_t shift = 0; shift < 8; shift++) {
		uint64_t word[2];

		if (at + shift + 16 > transfer->got)
			return -1;
		memcpy(word, transfer->data + at + shift, 16);
		if (word[0] < transfer->bytes / 8 && word[1] == word[0] + 1)
			return (int64_t)(word[0] * 8) - (int64_t)shift;
	}
	return -1;
}

static void transfer_judge(struct transfer *transfer)
{
	struct faults *faults = &transfer->faults;
	uint64_t expected = 0;
	uint8_t number[8];

	for (size_t at = 0; at < transfer->got; at++, expected++) {
		int64_t found;

		numbers_fill(number, 8, expected & ~7ull);
		if (transfer->data[at] == number[expected & 7])
			continue;
		found = position_of(transfer, at);
		if (found < 0) {
			faults->mangled++;
			continue;
		}
		if ((uint64_t)found < expected) {
			faults->repeats++;
			faults->repeated += expected - (uint64_t)found;
		} else {
			faults->losses++;
			faults->lost += (uint64_t)found - expected;
		}
		printf("# at %zu: %lld bytes %s\n", at,
		       llabs((long long)expected - (long long)found),
		       (uint64_t)found < expected ? "again" : "missing");
		expected = (uint64_t)found;
	}
	faults->transfers = 1;
	faults->stuck = transfer->stuck;
	faults->bad = faults->repeats || faults->losses || faults->mangled ||
		      transfer->stuck || transfer->got != transfer->bytes;
}

static void faults_add(struct faults *sum, const struct faults *one)
{
	const uint64_t *from = (const uint64_t *)one;
	uint64_t *to = (uint64_t *)sum;

	for (size_t i = 0; i < sizeof(*sum) / sizeof(*to); i++)
		to[i] += from[i];
}

/* The relay: one thread with a loop, pairs on the engine under test. */
struct relay {
	struct loop *loop;
	struct engine_set *engines;
	struct sockmap_bpf *bpf;
	pthread_t thread;
	struct watch watch;
	int ask; /* sockets to be joined are written here, two by two */
	unsigned int elsewhere; /* pairs another engine took */
	unsigned int open; /* pairs */
};

static void pair_over(void *owner, enum pair_end end)
{
	struct relay *relay = owner;

	(void)end;
	__atomic_sub_fetch(&relay->open, 1, __ATOMIC_RELEASE);
}

static void asked(struct watch *watch, uint32_t events)
{
	struct relay *relay = list_entry(watch, struct relay, watch);
	struct pair_params params = {
		.loop = relay->loop,
		.engines = relay->engines,
		.linger_ms = 1000,
		.on_closed = pair_over,
		.owner = relay,
	};
	struct pair_info info;
	struct pair *pair;
	int leg[2];

	(void)events;
	if (read(watch->fd, leg, sizeof(leg)) != sizeof(leg)) {
		loop_stop(relay->loop);
		return;
	}
	params.half[0].fd = leg[0];
	params.half[1].fd = leg[1];
	if (pair_new(&params, &pair))
		DIE("pair_new");
	pair_get_info(pair, &info);
	if (strcmp(info.engine, "sockmap") != 0)
		relay->elsewhere++;
}

static void *relay_run(void *arg)
{
	struct relay *relay = arg;

	loop_run(relay->loop);
	return NULL;
}

static void relay_start(struct relay *relay, bool cuts)
{
	static const char *const order[] = { "sockmap", "copy" };
	int ends[2], fds[SOCKMAP_MAPS];
	struct engine_params params = { .copy_buffer = 256 << 10,
					.sockmap_fds = fds };

	relay->bpf = sockmap_bpf__open();
	if (!relay->bpf)
		DIE("sockmap_bpf__open");
	culvert_load(relay->bpf, cuts);
	fds[SOCKMAP_SOURCES] = bpf_map__fd(relay->bpf->maps.sockmap_sources);
	fds[SOCKMAP_TARGETS] = bpf_map__fd(relay->bpf->maps.sockmap_targets);
	fds[SOCKMAP_FLOWS] = bpf_map__fd(relay->bpf->maps.sockmap_flows);
	fds[SOCKMAP_STATE] = bpf_map__fd(relay->bpf->maps.sockmap_state);
	if (loop_new(&relay->loop) ||
	    engine_set_new(relay->loop, &params, order, 2, NULL, NULL,
			   &relay->engines))
		DIE("engine_set_new");
	MUST(pipe2(ends, O_CLOEXEC));
	relay->ask = ends[1];
	MUST(watch_add(relay->loop, &relay->watch, ends[0], EPOLLIN, asked));
	if (pthread_create(&relay->thread, NULL, relay_run, relay))
		DIE("pthread_create");
}

static void relay_stop(struct relay *relay)
{
	close(relay->ask);
	pthread_join(relay->thread, NULL);
	engine_set_free(relay->engines);
	loop_free(relay->loop);
	sockmap_bpf__destroy(relay->bpf);
}

/* Takes what the verdict has counted in the first `pairs` places. */
static void overlaps_take(struct relay *relay, unsigned int pairs,
			  struct faults *faults)
{
	int map = bpf_map__fd(relay->bpf->maps.sockmap_state);

	for (uint32_t i = 0; i < 2 * pairs; i++) {
		const struct sockmap_flow empty = { 0 };
		struct sockmap_flow flow;

		MUST(bpf_map_lookup_elem(map, &i, &flow));
		faults->overlaps += flow.overlaps;
		faults->overlapped += flow.overlapped;
		MUST(bpf_map_update_elem(map, &i, &empty, BPF_ANY));
	}
}

/* One connection through the relay, or through the plain verdict both ways. */
struct connection {
	int end[2], leg[2];
	int maps[4]; /* of the plain verdict */
	struct transfer way[2];
};

static void connection_start(struct connection *connection,
			     const struct options *options, struct relay *relay)
{
	for (int i = 0; i < 2; i++)
		tcp_pair(&connection->end[i], &connection->leg[i],
			 options->mss);
	if (options->plain) {
		const int back[2] = { connection->leg[1], connection->leg[0] };

		plain_join(connection->leg, connection->maps);
		plain_join(back, connection->maps + 2);
	} else {
		__atomic_add_fetch(&relay->open, 1, __ATOMIC_RELAXED);
		MUST((int)write(relay->ask, connection->leg,
				sizeof(connection->leg)));
	}
	for (int i = 0; i < 2; i++) {
		struct transfer *way = &connection->way[i];

		*way = (struct transfer){ .from = connection->end[i],
					  .to = connection->end[!i],
					  .bytes = options->bytes,
					  .data = malloc(2 * options->bytes) };
		if (!way->data ||
		    pthread_create(&way->receiver, NULL, receive_all, way) ||
		    pthread_create(&way->sender, NULL, send_all, way))
			DIE("transfer");
	}
}

static void connection_end(struct connection *connection,
			   const struct options *options, struct faults *faults)
{
	for (int i = 0; i < 2; i++) {
		pthread_join(connection->way[i].receiver, NULL);
		transfer_judge(&connection->way[i]);
		faults_add(faults, &connection->way[i].faults);
		if (connection->way[i].stuck)
			shutdown(connection->end[i], SHUT_RDWR);
	}
	for (int i = 0; i < 2; i++) {
		pthread_join(connection->way[i].sender, NULL);
		free(connection->way[i].data);
		close(connection->end[i]);
	}
	for (int i = 0; options->plain && i < 2; i++) {
		close(connection->leg[i]);
		close(connection->maps[2 * i]);
		close(connection->maps[2 * i + 1]);
	}
}

static void batch_run(const struct options *options, struct relay *relay,
		      struct faults *faults)
{
	struct connection *connections =
		calloc(options->at_once, sizeof(*connections));

	if (!connections)
		DIE("calloc");
	for (unsigned int i = 0; i < options->at_once; i++)
		connection_start(&connections[i], options, relay);
	for (unsigned int i = 0; i < options->at_once; i++)
		connection_end(&connections[i], options, faults);
	free(connections);
	if (options->plain)
		return;
	while (__atomic_load_n(&relay->open, __ATOMIC_ACQUIRE))
		sched_yield();
	overlaps_take(relay, options->at_once, faults);
}

/* The link sends one packet in 64 twice, as links may: at the interface's egress. */
static void link_duplicates(const char *interface)
{
	static const struct bpf_insn code[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_X,
		  .dst_reg = 6,
		  .src_reg = 1 },
		{ .code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_get_prandom_u32 },
		{ .code = BPF_ALU64 | BPF_AND | BPF_K, .imm = 63 },
		{ .code = BPF_JMP | BPF_JNE | BPF_K, .off = 4 },
		{ .code = BPF_ALU64 | BPF_MOV | BPF_X,
		  .dst_reg = 1,
		  .src_reg = 6 },
		{ .code = BPF_LDX | BPF_W | BPF_MEM,
		  .dst_reg = 2,
		  .src_reg = 6,
		  .off = offsetof(struct __sk_buff, ifindex) },
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 3 },
		{ .code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_clone_redirect },
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K }, /* TC_ACT_OK */
		{ .code = BPF_JMP | BPF_EXIT },
	};
	LIBBPF_OPTS(bpf_tc_hook, hook,
		    .ifindex = (int)if_nametoindex(interface),
		    .attach_point = BPF_TC_EGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts);

	opts.prog_fd =
		MUST(bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "twice", "GPL",
				   code, sizeof(code) / sizeof(code[0]), NULL));
	MUST(bpf_tc_hook_create(&hook));
	MUST(bpf_tc_attach(&hook, &opts));
}

static void *spin(void *arg)
{
	const bool *stop = arg;

	while (!__atomic_load_n(stop, __ATOMIC_RELAXED))
		;
	return NULL;
}

/* The kernel's counters of this namespace that tell how it came about. */
static void counters_print(void)
{
	static const char *const names[] = {
		"TCPBacklogCoalesce", "TCPDSACKOldSent",          "TCPOFOQueue",
		"TCPLossProbes",      "TCPSpuriousRtxHostQueues", "TCPTimeouts",
		"TCPFastRetrans",
	};
	FILE *file = fopen("/proc/self/net/netstat", "re");
	char head[8192], line[8192];

	while (file && fgets(head, sizeof(head), file) &&
	       fgets(line, sizeof(line), file)) {
		char *at[2] = { head, line }, *save[2] = { NULL, NULL };
		char *name = strtok_r(at[0], " \n", &save[0]);
		char *value = strtok_r(at[1], " \n", &save[1]);

		for (; name && value; name = strtok_r(NULL, " \n", &save[0]),
				      value = strtok_r(NULL, " \n", &save[1]))
			for (size_t i = 0; i < sizeof(names) / sizeof(names[0]);
			     i++)
				if (!strcmp(name, names[i]))
					printf("# %s %s\n", name, value);
	}
	if (file)
		fclose(file);
}

static void faults_print(const struct faults *faults)
{
	printf("%llu transfers, %llu bad: %llu repeats of %llu bytes, %llu "
	       "losses of %llu bytes, %llu mangled bytes, %llu stuck; verdict: "
	       "%llu overlaps of %llu bytes\n",
	       (unsigned long long)faults->transfers,
	       (unsigned long long)faults->bad,
	       (unsigned long long)faults->repeats,
	       (unsigned long long)faults->repeated,
	       (unsigned long long)faults->losses,
	       (unsigned long long)faults->lost,
	       (unsigned long long)faults->mangled,
	       (unsigned long long)faults->stuck,
	       (unsigned long long)faults->overlaps,
	       (unsigned long long)faults->overlapped);
	fflush(stdout);
}

static int run(const struct options *options)
{
	pthread_t busy[64];
	struct relay relay = { 0 };
	struct faults faults = { 0 };
	unsigned int done = 0;
	bool stop = false;

	if (options->duplicates && options->veth)
		link_duplicates("to-ends");
	MUST(setns(ends_ns, CLONE_NEWNET));
	if (options->duplicates)
		link_duplicates(options->veth ? "to-relay" : "lo");
	MUST(setns(relay_ns, CLONE_NEWNET));
	if (!options->plain)
		relay_start(&relay, !options->whole);
	for (unsigned int i = 0; i < options->busy; i++)
		if (pthread_create(&busy[i], NULL, spin, &stop))
			DIE("pthread_create");
	for (; done < options->connections; done += options->at_once) {
		batch_run(options, &relay, &faults);
		if (done / options->at_once % 50 == 49)
			faults_print(&faults);
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (unsigned int i = 0; i < options->busy; i++)
		pthread_join(busy[i], NULL);
	counters_print();
	faults_print(&faults);
	if (!options->plain) {
		relay_stop(&relay);
		printf("# %u pairs on another engine\n", relay.elsewhere);
	}
	return faults.bad ? 1 : 0;
}

static void usage(void)
{
	fputs("usage: sockmap_dup overlap\n"
	      "       sockmap_dup run [-k | -w] [-v] [-d] [-n connections] [-s MiB] "
	      "[-b threads] [-c at once] [-m mss]\n",
	      stderr);
	exit(2);
}

static unsigned int number(const char *text, unsigned long least,
			   unsigned long most)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (*end || value < least || value > most)
		usage();
	return (unsigned int)value;
}

static void options_parse(struct options *options, int argc, char **argv)
{
	int option;

	while ((option = getopt(argc, argv, "kwvdn:s:b:c:m:")) != -1) {
		if (option == 'k')
			options->plain = true;
		else if (option == 'w')
			options->whole = true;
		else if (option == 'v')
			options->veth = true;
		else if (option == 'd')
			options->duplicates = true;
		else if (option == 'n')
			options->connections = number(optarg, 1, 1000000);
		else if (option == 's')
			options->bytes = (size_t)number(optarg, 1, 256) << 20;
		else if (option == 'b')
			options->busy = number(optarg, 0, 64);
		else if (option == 'c')
			options->at_once = number(optarg, 1, 64);
		else if (option == 'm')
			options->mss = (int)number(optarg, 88, 65483);
		else
			usage();
	}
}

int main(int argc, char **argv)
{
	struct options options = {
		.connections = 100,
		.at_once = 4,
		.busy = 4,
		.bytes = 8 << 20,
		.mss = 1448 + 12, /* 1448 bytes of data beside timestamps */
	};

	if (argc < 2)
		usage();
	if (geteuid() != 0) {
		fputs("sockmap_dup: needs root\n", stderr);
		return 2;
	}
	if (strcmp(argv[1], "run") == 0) {
		options_parse(&options, argc - 1, argv + 1);
		namespaces_make(options.veth);
		return run(&options);
	}
	if (strcmp(argv[1], "overlap") != 0)
		usage();
	namespaces_make(false);
	return overlap();
}
