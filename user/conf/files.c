/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Files that keys name: certificates and private keys.
 *
 * They are read where the configuration is, with its privileges, and are then part
 * of it. A process that gets the configuration as text gets them packed: eight
 * bytes of length, then the bytes, for each file in the order of the listeners.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "conf/parser.h"

#define PEM_MAX_BYTES ((size_t)1 << 20)

/* Calls fn for every file until it returns other than 0; returns that. */
static int files_each(struct conf *conf,
		      int (*fn)(void *arg, struct conf_file *file), void *arg)
{
	int result = 0;

	for (size_t i = 0; i < conf->listener_count; i++) {
		struct conf_listener *l = &conf->listeners[i];

		for (size_t k = 0; k < l->certificate_count && !result; k++)
			result = fn(arg, &l->certificates[k]);
		for (size_t k = 0; k < l->private_key_count && !result; k++)
			result = fn(arg, &l->private_keys[k]);
	}
	return result;
}

struct reading {
	const char *file;
	conf_report_fn report;
	void *arg;
	const struct conf_listener *listener;
	const char *key;
	unsigned int line;
	bool secret;
	int error; /* the first */
};

static void file_report(const struct reading *reading, bool is_error,
			const struct conf_file *file, const char *what)
{
	char message[512];

	snprintf(message, sizeof(message), "[listener %s] %s: found \"%s\", %s",
		 reading->listener->name, reading->key, file->path, what);
	reading->report(reading->arg, is_error, reading->file, reading->line,
			message);
}

static void file_take(struct reading *reading, struct conf_file *file)
{
	mode_t mode;
	char why[200];
	int err = conf_file_read(file->path, PEM_MAX_BYTES, &file->text,
				 &file->len, &mode);

	if (!err && reading->secret && mode & S_IROTH)
		file_report(reading, false, file,
			    "which every user of this system can read: chmod "
			    "o-r it");
	if (!err)
		return;
	if (err == -EFBIG)
		snprintf(why, sizeof(why), "which has more than %zu bytes",
			 PEM_MAX_BYTES);
	else
		snprintf(why, sizeof(why), "which cannot be read: %s%s",
			 strerror(-err),
			 err == -EACCES ?
				 "; chown it and its directory to who "
				 "starts culvertd (root, too: it has no "
				 "privileges after the start)" :
				 "");
	file_report(reading, true, file, why);
	if (!reading->error)
		reading->error = err;
}

int conf_files_read(struct conf *conf, const char *file, conf_report_fn report,
		    void *arg)
{
	struct reading reading = { .file = file, .report = report, .arg = arg };

	for (size_t i = 0; i < conf->listener_count; i++) {
		struct conf_listener *l = &conf->listeners[i];

		reading.listener = l;
		reading.key = "certificate";
		reading.line = l->certificate_line;
		reading.secret = false;
		for (size_t k = 0; k < l->certificate_count; k++)
			file_take(&reading, &l->certificates[k]);
		reading.key = "private_key";
		reading.line = l->private_key_line;
		reading.secret = true;
		for (size_t k = 0; k < l->private_key_count; k++)
			file_take(&reading, &l->private_keys[k]);
	}
	return reading.error;
}

static int length_add(void *arg, struct conf_file *file)
{
	*(size_t *)arg += sizeof(uint64_t) + file->len;
	return 0;
}

static int file_pack(void *arg, struct conf_file *file)
{
	uint8_t **at = arg;
	uint64_t len = file->len;

	memcpy(*at, &len, sizeof(len));
	memcpy(*at + sizeof(len), file->text, file->len);
	*at += sizeof(len) + file->len;
	return 0;
}

int conf_files_pack(const struct conf *conf, uint8_t **out, size_t *len)
{
	struct conf *files = (struct conf *)conf; /* nothing of it changes */
	size_t total = 0;
	uint8_t *data, *at;

	files_each(files, length_add, &total);
	data = malloc(total + 1);
	if (!data)
		return -ENOMEM;
	at = data;
	files_each(files, file_pack, &at);
	*out = data;
	*len = total;
	return 0;
}

struct unpacking {
	const uint8_t *data;
	size_t len;
};

static int file_unpack(void *arg, struct conf_file *file)
{
	struct unpacking *from = arg;
	uint64_t len;

	if (from->len < sizeof(len))
		return -EBADMSG;
	memcpy(&len, from->data, sizeof(len));
	from->data += sizeof(len);
	from->len -= sizeof(len);
	if (len > PEM_MAX_BYTES || len > from->len)
		return -EBADMSG;
	file->text = malloc((size_t)len + 1);
	if (!file->text)
		return -ENOMEM;
	memcpy(file->text, from->data, (size_t)len);
	file->text[len] = '\0';
	file->len = (size_t)len;
	from->data += len;
	from->len -= (size_t)len;
	return 0;
}

int conf_files_unpack(struct conf *conf, const uint8_t *data, size_t len)
{
	struct unpacking from = { data, len };
	int err = files_each(conf, file_unpack, &from);

	return !err && from.len ? -EBADMSG : err;
}

static int file_forget(void *arg, struct conf_file *file)
{
	(void)arg;
	if (file->text)
		explicit_bzero(file->text, file->len);
	free(file->text);
	file->text = NULL;
	file->len = 0;
	return 0;
}

void conf_files_forget(struct conf *conf)
{
	files_each(conf, file_forget, NULL);
}

void conf_files_free(struct conf_file *files, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		free(files[i].path);
		file_forget(NULL, &files[i]);
	}
}
