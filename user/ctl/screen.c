/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The terminal under a live display.
 *
 * Signals only note what came and write to an eventfd that screen_wait() polls,
 * so none is lost between looking and waiting. Whatever ends the program passes
 * through screen_close(), which gives the terminal back.
 */
#include "ctl/screen.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"

#define ENTER "\033[?1049h\033[?25l"
#define LEAVE "\033[?25h\033[?1049l"

static const int watched[] = { SIGINT, SIGTERM, SIGHUP, SIGWINCH };
#define WATCHED (sizeof(watched) / sizeof(watched[0]))

struct screen {
	FILE *out;
	int in; /* where keys come from; -1: no terminal there */
	struct termios saved;
	struct sigaction before[WATCHED];
	unsigned short rows, columns;
};

static int wake_fd = -1;
static volatile sig_atomic_t quit_asked, size_changed;

static void signal_note(int number)
{
	const uint64_t one = 1;
	int saved = errno;

	if (number == SIGWINCH)
		size_changed = 1;
	else
		quit_asked = 1;
	if (write(wake_fd, &one, sizeof(one)) < 0)
		quit_asked = 1; /* cannot happen to an eventfd at 1 */
	errno = saved;
}

static void size_get(struct screen *screen)
{
	struct winsize size;

	screen->rows = 24;
	screen->columns = 80;
	if (ioctl(fileno(screen->out), TIOCGWINSZ, &size) == 0 && size.ws_row &&
	    size.ws_col) {
		screen->rows = size.ws_row;
		screen->columns = size.ws_col;
	}
}

static void keys_at_once(struct screen *screen)
{
	struct termios raw;

	screen->in = -1;
	if (tcgetattr(STDIN_FILENO, &screen->saved) < 0)
		return;
	raw = screen->saved;
	raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	/* Stopped by Ctrl-Z, it would leave the terminal as it is. */
	raw.c_cc[VSUSP] = _POSIX_VDISABLE;
	raw.c_cc[VMIN] = 1;
	raw.c_cc[VTIME] = 0;
	if (tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0)
		screen->in = STDIN_FILENO;
}

int screen_open(FILE *out, struct screen **out_screen)
{
	struct sigaction action = { .sa_handler = signal_note };
	struct screen *screen;

	if (!isatty(fileno(out)))
		return -ENOTTY;
	screen = calloc(1, sizeof(*screen));
	if (!screen)
		return -ENOMEM;
	wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (wake_fd < 0) {
		free(screen);
		return -errno;
	}
	screen->out = out;
	quit_asked = size_changed = 0;
	for (size_t i = 0; i < WATCHED; i++) {
		/* A new size is no reason to give up a write under way. */
		action.sa_flags = watched[i] == SIGWINCH ? SA_RESTART : 0;
		sigaction(watched[i], &action, &screen->before[i]);
	}
	size_get(screen);
	keys_at_once(screen);
	fputs(ENTER, out);
	fflush(out);
	*out_screen = screen;
	return 0;
}

void screen_close(struct screen *screen)
{
	if (!screen)
		return;
	fputs(LEAVE, screen->out);
	fflush(screen->out);
	if (screen->in >= 0)
		tcsetattr(screen->in, TCSANOW, &screen->saved);
	for (size_t i = 0; i < WATCHED; i++)
		sigaction(watched[i], &screen->before[i], NULL);
	fd_close(&wake_fd);
	free(screen);
}

size_t screen_rows(const struct screen *screen)
{
	return screen->rows;
}

/* Bytes of the line that fit into `columns` characters. */
static size_t line_fit(const char *line, size_t len, size_t columns)
{
	size_t width = 0, i;

	for (i = 0; i < len; i++) {
		width += ((unsigned char)line[i] & 0xc0) != 0x80;
		if (width > columns)
			break;
	}
	return i;
}

void screen_draw(struct screen *screen, const char *text, size_t len)
{
	size_t row = 0;

	fputs("\033[H", screen->out);
	while (len && row < screen->rows) {
		const char *end = memchr(text, '\n', len);
		size_t line = end ? (size_t)(end - text) : len;

		/* No line end behind the last row: that would scroll. */
		if (row++)
			fputs("\r\n", screen->out);
		fwrite(text, 1, line_fit(text, line, screen->columns),
		       screen->out);
		fputs("\033[K", screen->out);
		text += line + (end != NULL);
		len -= line + (end != NULL);
	}
	fputs("\033[J", screen->out);
	fflush(screen->out);
}

/* A terminal that hung up says so for ever: that is a wish to quit, too. */
static bool key_is_quit(struct screen *screen)
{
	char key;
	ssize_t n = read(screen->in, &key, 1);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return false;
	return n <= 0 || key == 'q' || key == 'Q' || key == 3;
}

enum screen_event screen_wait(struct screen *screen, uint64_t until_ms)
{
	struct pollfd fds[2] = { { .fd = wake_fd, .events = POLLIN },
				 { .fd = screen->in, .events = POLLIN } };
	uint64_t count, now;

	while (!quit_asked) {
		if (size_changed) {
			size_changed = 0;
			size_get(screen);
			return SCREEN_REDRAW;
		}
		now = clock_ms();
		if (now >= until_ms)
			return SCREEN_TIMEOUT;
		if (poll(fds, 2, (int)(until_ms - now)) < 0)
			continue;
		if (fds[0].revents && read(wake_fd, &count, sizeof(count)) < 0)
			continue;
		if (fds[1].revents && key_is_quit(screen))
			break;
	}
	return SCREEN_QUIT;
}
