/* SPDX-License-Identifier: BSD-2-Clause */
/* The course of a run: warm-up, measuring window, end or failure. */
#include <stdio.h>

#include "base/clock.h"
#include "load.h"

void load_end(struct load *load)
{
	fflush(stdout);
	loop_stop(load->loop);
}

void load_fail(struct load *load, const char *what, int error)
{
	if (load->status)
		return;
	load->status = 1;
	printf("{\"ok\": false, \"error\": \"%s: %s\"}\n", what,
	       dial_error(error));
	load_end(load);
}

uint64_t load_bytes(const struct load *load)
{
	uint64_t up = atomic_load(&load->stats->received);

	switch (load->kind->mode) {
	case BENCH_UP:
		return up;
	case BENCH_BOTH:
		return up + load->received;
	case BENCH_DOWN:
	case BENCH_ECHO:
	case BENCH_MUTE:
	case BENCH_CHECK:
		break;
	}
	return load->received;
}

void load_sample(const struct load *load, struct load_sample *out)
{
	out->relay_seconds = cpu_set_seconds(&load->options.cpus);
	out->machine_seconds = cpu_machine_seconds();
	out->ns = clock_ns();
	out->bytes = load_bytes(load);
}

void load_print_window(const struct load *load, const struct load_sample *end)
{
	const struct load_sample *begin = &load->begin;

	printf("{\"ok\": true, \"seconds\": %.6f, \"bytes\": %llu, "
	       "\"relay_cpu\": %.3f, \"machine_cpu\": %.3f",
	       (double)(end->ns - begin->ns) / 1e9,
	       (unsigned long long)(end->bytes - begin->bytes),
	       end->relay_seconds - begin->relay_seconds,
	       end->machine_seconds - begin->machine_seconds);
}

/* The end of the warm-up. The callback of the window's end waits in `after`. */
static void (*after)(struct timer *timer);

static void window_begin(struct timer *timer)
{
	struct load *load = list_entry(timer, struct load, phase);

	load_sample(load, &load->begin);
	load->measuring = true;
	timer_arm(load->loop, timer, load->options.duration_ms, after);
}

void load_window(struct load *load, void (*done)(struct timer *timer))
{
	after = done;
	timer_arm(load->loop, &load->phase, load->options.warmup_ms,
		  window_begin);
}
