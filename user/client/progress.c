/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The progress line of a transfer.
 *
 * Five times a second on a terminal, otherwise never. The rate is smoothed over
 * about three seconds, so that the time left does not jump; the summary at the end
 * has the average.
 */
#include "client/progress.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "client/say.h"

#define TICK_MS   200
#define SMOOTH_MS 3000.0
#define BAR_MAX   40

const char *client_size_format(double bytes, char buf[16])
{
	static const char *const units[] = { "B",   "KiB", "MiB",
					     "GiB", "TiB", "PiB" };
	size_t unit = 0;

	while (bytes >= 1000 && unit < 5) {
		bytes /= 1024;
		unit++;
	}
	snprintf(buf, 16, "%.*f %s", unit && bytes < 100 ? 1 : 0, bytes,
		 units[unit]);
	return buf;
}

const char *client_time_format(uint64_t seconds, char buf[16])
{
	unsigned int s = (unsigned int)(seconds % 60);
	unsigned int m = (unsigned int)(seconds / 60 % 60);

	if (seconds >= 360000) /* a hundred hours: nobody waits for that */
		snprintf(buf, 16, "--:--");
	else if (seconds >= 3600)
		snprintf(buf, 16, "%u:%02u:%02u",
			 (unsigned int)(seconds / 3600), m, s);
	else
		snprintf(buf, 16, "%u:%02u", m, s);
	return buf;
}

/* "[=====>    ] " of `width` cells, for a share between 0 and 1. */
static void bar_format(double share, unsigned int width, char *buf, size_t size)
{
	unsigned int filled = (unsigned int)(share * width);
	char cells[BAR_MAX + 1];

	memset(cells, ' ', width);
	memset(cells, '=', filled);
	if (filled < width)
		cells[filled] = '>';
	cells[width] = '\0';
	snprintf(buf, size, "[%s] ", cells);
}

static void tail_format(const struct client_progress *progress,
			uint64_t elapsed_ms, char *buf, size_t size)
{
	char done[16], rate[16], time[16];
	uint64_t left;

	client_size_format((double)progress->done, done);
	client_size_format(progress->rate, rate);
	if (!progress->total) {
		snprintf(buf, size, "%8s  %8s/s  %s", done, rate,
			 client_time_format(elapsed_ms / 1000, time));
		return;
	}
	left = progress->total > progress->done ?
		       progress->total - progress->done :
		       0;
	if (progress->rate < 1)
		snprintf(time, sizeof(time), "--:--");
	else
		client_time_format(
			(uint64_t)((double)left / progress->rate + 0.5), time);
	snprintf(buf, size, "%8s  %8s/s  %s left", done, rate, time);
}

const char *client_progress_format(const struct client_progress *progress,
				   uint64_t elapsed_ms, unsigned int columns,
				   char *buf, size_t size)
{
	char tail[64], bar[BAR_MAX + 8] = "", percent[8] = "", name[32];
	double share = 0;
	size_t used;

	tail_format(progress, elapsed_ms, tail, sizeof(tail));
	snprintf(name, sizeof(name), "%.20s", progress->name);
	if (progress->total) {
		share = (double)progress->done / (double)progress->total;
		if (share > 1) /* the file grew meanwhile */
			share = 1;
		snprintf(percent, sizeof(percent), "%3d%% ",
			 (int)(share * 100));
	}
	used = strlen(name) + 2 + strlen(percent) + strlen(tail);
	if (progress->total && columns > used + 14) {
		size_t width = columns - used - 4;

		bar_format(share,
			   width < BAR_MAX ? (unsigned int)width : BAR_MAX, bar,
			   sizeof(bar));
	}
	snprintf(buf, size, "%s  %s%s%s", name, percent, bar, tail);
	/* A line that wraps could not be taken back. */
	if (columns && columns <= size && strlen(buf) >= columns)
		buf[columns - 1] = '\0';
	return buf;
}

static unsigned int terminal_columns(void)
{
	struct winsize size;

	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) || !size.ws_col)
		return 80;
	return size.ws_col;
}

static void progress_tick(struct timer *timer)
{
	struct client_progress *progress =
		list_entry(timer, struct client_progress, timer);
	uint64_t now = loop_now(progress->loop);
	double span = (double)(now - progress->last_ms);
	double rate, weight;
	char line[256];

	if (span > 0) {
		rate = (double)(progress->done - progress->last_done) * 1000 /
		       span;
		weight = span / (span + SMOOTH_MS);
		/* Until there is a past, the average is the best guess. */
		if (now - progress->start_ms < SMOOTH_MS)
			progress->rate = (double)progress->done * 1000 /
					 (double)(now - progress->start_ms + 1);
		else
			progress->rate += weight * (rate - progress->rate);
	}
	progress->last_ms = now;
	progress->last_done = progress->done;
	client_say_status(
		client_progress_format(progress, now - progress->start_ms,
				       terminal_columns(), line, sizeof(line)));
	timer_arm(progress->loop, timer, TICK_MS, progress_tick);
}

void client_progress_start(struct client_progress *progress, struct loop *loop,
			   const char *name, uint64_t total)
{
	progress->loop = loop;
	progress->name = name;
	progress->total = total;
	progress->start_ms = progress->last_ms = loop_now(loop);
	progress->shown = isatty(STDERR_FILENO) && !client_say_quiet();
	if (progress->shown)
		timer_arm(loop, &progress->timer, TICK_MS, progress_tick);
}

void client_progress_stop(struct client_progress *progress, const char *verb,
			  bool success)
{
	char size[16], rate[16];
	uint64_t elapsed;

	if (!progress->loop)
		return;
	timer_cancel(progress->loop, &progress->timer);
	client_say_status(NULL);
	if (!success)
		return;
	elapsed = loop_now(progress->loop) - progress->start_ms;
	client_info("%s %llu bytes (%s) in %llu.%02llu s, %s/s", verb,
		    (unsigned long long)progress->done,
		    client_size_format((double)progress->done, size),
		    (unsigned long long)(elapsed / 1000),
		    (unsigned long long)(elapsed % 1000 / 10),
		    client_size_format((double)progress->done * 1000 /
					       (double)(elapsed ? elapsed : 1),
				       rate));
}
