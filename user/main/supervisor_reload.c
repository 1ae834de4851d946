/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The supervisor's half of a reload.
 *
 * The file is read and checked, what it newly listens on is opened, and all is
 * sent to the relay: RELOAD, LISTENERs, COMMIT. Nothing is in force before its
 * TAKEN; one reload is under way at a time and one more may wait, which covers
 * everybody who asks meanwhile, for the file is read when its turn comes. Without
 * a relay there is nobody to ask, and the next one starts with the new file.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "base/syscalls.h"
#include "crypto/crypto.h"
#include "exit/exit.h"
#include "main/supervisor_internal.h"

SYSCALLS(SYSCALLS_SUPERVISOR, "memfd_create write close");

#define REASON_MAX 256

/* Quotation marks would end the value of a log line early. */
static const char *log_text(const char *text, char out[512])
{
	snprintf(out, 512, "%s", text);
	for (char *c = out; *c; c++)
		if (*c == '"')
			*c = '\'';
	return out;
}

static void report_log(void *arg, bool is_error, const char *file,
		       unsigned int line, const char *message)
{
	char *first =
		arg; /* REASON_MAX bytes: the first error, for culvertctl */
	char where[200], plain[512];

	if (line)
		snprintf(where, sizeof(where), "%s:%u", file, line);
	else
		snprintf(where, sizeof(where), "%s", file);
	if (is_error)
		log_error("main", "event=config_error error=\"%s: %s\"", where,
			  log_text(message, plain));
	else
		log_warn("main", "event=config_warning warning=\"%s: %s\"",
			 where, log_text(message, plain));
	if (is_error && !*first)
		snprintf(first, REASON_MAX, "%s: %s", where, message);
}

static bool names_equal(char *const *a, size_t a_count, char *const *b,
			size_t b_count)
{
	if (a_count != b_count)
		return false;
	for (size_t i = 0; i < a_count; i++)
		if (strcmp(a[i], b[i]) != 0)
			return false;
	return true;
}

/* The broker was started with these, by privileges that are given up. */
static const char *reload_fixed_wire(const struct conf *now,
				     const struct conf *next)
{
	const struct conf_engine *a = &now->engine, *b = &next->engine;

	if (conf_engine_wanted(next, "sockmap") &&
	    !conf_engine_wanted(now, "sockmap") && !supervisor_wire_wanted(now))
		return "[engine] order (sockmap is new)";
	if (!supervisor_wire_wanted(next))
		return NULL;
	if (!supervisor_wire_wanted(now))
		return "[engine] order (wire is new)";
	if (a->wire_pairs != b->wire_pairs)
		return "[engine] wire_pairs";
	if (a->wire_channels != b->wire_channels)
		return "[engine] wire_channels";
	if (strcmp(a->pin, b->pin) != 0)
		return "[engine] pin";
	if (!names_equal(a->wire_devices, a->wire_device_count, b->wire_devices,
			 b->wire_device_count))
		return "[engine] wire_devices";
	return NULL;
}

/* What a running daemon cannot change: NULL, or the key that differs. */
static const char *reload_fixed(const struct supervisor *sup,
				const struct conf *next)
{
	/* The same words mean what they meant at the start, whatever number
	 * of cores is online now.
	 */
	if (next->workers != sup->conf->workers &&
	    supervisor_workers(next) != sup->sockets.workers)
		return "[server] workers";
	if (strcmp(next->control, sup->conf->control) != 0)
		return "[server] control";
	if (strcmp(next->user, sup->conf->user) != 0)
		return "[server] user";
	if (exit_wanted(next) && !exit_wanted(sup->conf) &&
	    !sup->exit.role.kept)
		return "[exit] link or next_hop (the first one)";
	if (next->seccomp != sup->conf->seccomp)
		return "[server] seccomp";
	if (next->seccomp == CONF_SECCOMP_ON &&
	    conf_engine_wanted(next, "uring") &&
	    !conf_engine_wanted(sup->conf, "uring"))
		return "[engine] order (uring is new)";
	if (strcmp(next->database.url, sup->conf->database.url) != 0)
		return "[database] url";
	return reload_fixed_wire(sup->conf, next);
}

/* A descriptor by which another process can read these bytes. */
static int bytes_fd(const void *bytes, size_t len)
{
	const char *text = bytes;
	int fd = memfd_create("culvert.conf", MFD_CLOEXEC);

	if (fd < 0)
		return -errno;
	for (size_t at = 0; at < len;) {
		ssize_t n = write(fd, text + at, len - at);

		if (n <= 0) {
			int err = n < 0 ? -errno : -EIO;

			close(fd);
			return err;
		}
		at += (size_t)n;
	}
	return fd;
}

static int files_fd(const struct conf *conf)
{
	uint8_t *data;
	size_t len;
	int fd = conf_files_pack(conf, &data, &len);

	if (fd)
		return fd;
	fd = bytes_fd(data, len);
	crypto_wipe(data, len);
	free(data);
	return fd;
}

/* The text, and what the files it names hold: the relay may not read those. */
static int text_send(struct supervisor *sup, const char *text, size_t len)
{
	int fds[2] = { bytes_fd(text, len), files_fd(sup->next_conf) };
	int err = fds[0] < 0 ? fds[0] : fds[1] < 0 ? fds[1] : 0;

	if (!err)
		err = channel_send(sup->channel, CHANNEL_RELOAD,
				   sup->reloads_asked, "", fds, 2);
	for (int i = 0; i < 2; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	return err;
}

static int reload_send(struct supervisor *sup, const char *text, size_t len)
{
	int err = text_send(sup, text, len);

	for (size_t i = 0; i < sup->next_sockets.count && !err; i++) {
		const struct socket_group *group = &sup->next_sockets.groups[i];

		if (!group->served)
			err = channel_send(sup->channel, CHANNEL_LISTENER, 0,
					   group->name, group->fds,
					   sup->next_sockets.workers);
	}
	if (!err)
		err = channel_send(sup->channel, CHANNEL_COMMIT, 0, "", NULL,
				   0);
	return err;
}

static void next_take(struct supervisor *sup)
{
	sockets_close(&sup->sockets, &sup->next_sockets);
	sup->sockets = sup->next_sockets;
	memset(&sup->next_sockets, 0, sizeof(sup->next_sockets));
	conf_unref(sup->conf);
	sup->conf = sup->next_conf;
	sup->next_conf = NULL;
	sup->config_loads++;
	supervisor_exit_renew(sup);
	sockets_set_backlog(&sup->sockets, sup->conf);
	log_set_level(sup->conf->log_level);
	supervisor_log_listening(&sup->sockets, true);
	log_info("main", "event=reloaded file=%s users=%zu", sup->path,
		 sup->conf->user_count);
}

static void next_drop(struct supervisor *sup)
{
	sockets_close(&sup->next_sockets, &sup->sockets);
	conf_unref(sup->next_conf);
	sup->next_conf = NULL;
}

void supervisor_reload_drop(struct supervisor *sup, const char *why)
{
	if (!sup->next_conf)
		return;
	log_error("main", "event=reload_failed reason=\"%s\"", why);
	next_drop(sup);
}

void supervisor_reload_taken(struct supervisor *sup,
			     const struct channel_msg *msg)
{
	if (!sup->next_conf)
		return;
	if (msg->result)
		supervisor_reload_drop(sup, msg->text);
	else
		next_take(sup);
	supervisor_reload_pending(sup);
}

/* Opens what is new and sends all. 0, or negative with `why` filled. */
static int reload_apply(struct supervisor *sup, struct conf *next,
			const char *text, size_t len, char why[REASON_MAX])
{
	const char *fixed = reload_fixed(sup, next);
	struct socket_fault fault;
	int err;

	if (fixed) {
		snprintf(why, REASON_MAX,
			 "%s has changed: that needs a restart", fixed);
		return -EBUSY;
	}
	err = sockets_open(next, sup->sockets.workers, &sup->sockets,
			   &sup->next_sockets, &fault);
	if (err) {
		snprintf(why, REASON_MAX, "cannot listen on %s: %s (%s)",
			 fault.address, strerror(-err),
			 supervisor_listen_hint(sup, err, &fault));
		return err;
	}
	sup->next_conf = conf_ref(next);
	if (!sup->relay) {
		next_take(sup);
		return 0;
	}
	err = reload_send(sup, text, len);
	if (err) {
		snprintf(why, REASON_MAX, "the relay cannot be told: %s",
			 strerror(-err));
		next_drop(sup);
	}
	return err;
}

static void reload_refuse(struct supervisor *sup, const char *why)
{
	char plain[512];

	log_error("main",
		  "event=reload_refused file=%s reason=\"%s\" "
		  "using=\"the configuration as it was\"",
		  sup->path, log_text(why, plain));
	if (sup->channel >= 0)
		channel_send(sup->channel, CHANNEL_REFUSED, sup->reloads_asked,
			     why, NULL, 0);
}

void supervisor_reload(struct supervisor *sup)
{
	char why[REASON_MAX] = "";
	struct conf *next = NULL;
	char *text = NULL;
	size_t len = 0;
	int err;

	if (sup->stopping)
		return;
	/* A relay whose channel is closed is about to be reaped. */
	if (sup->next_conf ||
	    (sup->relay && (!sup->ready || sup->channel < 0))) {
		sup->reload_again = true;
		return;
	}
	err = supervisor_load(sup->path, report_log, why, &next, &text, &len);
	if (!err)
		err = reload_apply(sup, next, text, len, why);
	if (err)
		reload_refuse(sup, why);
	conf_unref(next);
	if (text)
		crypto_wipe(text, len);
	free(text);
}

void supervisor_reload_pending(struct supervisor *sup)
{
	if (!sup->reload_again)
		return;
	sup->reload_again = false;
	supervisor_reload(sup);
}
