/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The directory of pins of this network namespace, PIN/net-<inode>: whoever can
 * write there decides what the next broker adopts, so it must be ours alone.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/directory.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/syscalls.h"
#include "broker/kernel.h"
#include "broker/socket.h"

SYSCALLS(SYSCALLS_BROKER_START, "mount mkdir statfs");
SYSCALLS(SYSCALLS_BROKER_START | SYSCALLS_BROKER,
	 "openat getdents64 close newfstatat fstat stat");
SYSCALLS(SYSCALLS_BROKER_START | SYSCALLS_BROKER,
	 "access faccessat unlink unlinkat rmdir");

#ifndef BPF_FS_MAGIC
#define BPF_FS_MAGIC 0xcafe4a11
#endif
#define USUAL_MOUNT "/sys/fs/bpf"

int pin_dir(const char *pin, char out[PIN_PATH])
{
	struct stat info;
	int n;

	if (stat("/proc/self/ns/net", &info) < 0)
		return -errno;
	n = snprintf(out, PIN_PATH, "%s/net-%llu", pin,
		     (unsigned long long)info.st_ino);
	return n < 0 || n >= PIN_PATH ? -ENAMETOOLONG : 0;
}

bool pin_path(const char *dir, const char *name, char out[PIN_PATH])
{
	int n = snprintf(out, PIN_PATH, "%s/%s", dir, name);

	return n > 0 && n < PIN_PATH;
}

static bool is_bpffs(const char *path)
{
	struct statfs info;

	return statfs(path, &info) == 0 &&
	       (unsigned long)info.f_type == BPF_FS_MAGIC;
}

/* Every directory down to `path`; 0 or a negative errno. */
static int directories_make(const char *path)
{
	char part[PIN_PATH];

	for (const char *end = strchr(path + 1, '/');;
	     end = strchr(end + 1, '/')) {
		size_t len = end ? (size_t)(end - path) : strlen(path);

		if (len >= sizeof(part))
			return -ENAMETOOLONG;
		memcpy(part, path, len);
		part[len] = '\0';
		if (mkdir(part, 0700) < 0 && errno != EEXIST)
			return -errno;
		if (!end)
			return 0;
	}
}

static bool directory_is_empty(const char *path)
{
	DIR *listing = opendir(path);
	const struct dirent *entry;
	bool empty = listing;

	while (empty && (entry = readdir(listing)) != NULL)
		empty = !strcmp(entry->d_name, ".") ||
			!strcmp(entry->d_name, "..");
	if (listing)
		closedir(listing);
	return empty;
}

static int bpffs_mount(const char *where)
{
	if (is_bpffs(where))
		return 0;
	if (!directory_is_empty(where)) {
		log_error("broker",
			  "event=bpffs_refused path=%s reason=\"a BPF file "
			  "system mounted here would hide what this directory "
			  "holds\" hint=\"change [engine] pin\"",
			  where);
		return -ENOTEMPTY;
	}
	if (mount("bpf", where, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC,
		  "mode=0700") < 0)
		return -errno;
	log_info("broker", "event=bpffs_mounted path=%s", where);
	return 0;
}

int pin_dir_make(const char *pin, const char *dir)
{
	bool usual = strncmp(pin, USUAL_MOUNT "/", sizeof(USUAL_MOUNT)) == 0;
	int err;

	if (pin[0] != '/')
		return -EINVAL;
	if (usual) {
		err = bpffs_mount(USUAL_MOUNT);
		if (err)
			return err;
	}
	err = directories_make(pin);
	/* Elsewhere it is mounted on the directory itself. */
	if (!err && !usual)
		err = bpffs_mount(pin);
	if (!err && !is_bpffs(pin))
		err = -EINVAL;
	if (!err)
		err = directories_make(dir);
	/* Nobody but us may have prepared them. */
	if (!err)
		err = directory_own(pin);
	return err ? err : directory_own(dir);
}

void pin_each(const char *dir, void (*fn)(void *arg, const char *name),
	      void *arg)
{
	DIR *listing = opendir(dir);
	const struct dirent *entry;

	if (!listing)
		return;
	while ((entry = readdir(listing)) != NULL)
		if (entry->d_name[0] != '.')
			fn(arg, entry->d_name);
	closedir(listing);
}

void pin_remove(const char *dir, const char *name)
{
	char path[PIN_PATH];

	if (pin_path(dir, name, path))
		unlink(path);
}

struct clearing {
	const char *dir;
	bool found;
};

static void clear_links(void *arg, const char *name)
{
	struct clearing *clearing = arg;
	int index = attach_pin_index(name);

	if (index)
		attach_remove(clearing->dir, index);
	clearing->found = true;
}

static void clear_rest(void *arg, const char *name)
{
	const struct clearing *clearing = arg;

	pin_remove(clearing->dir, name);
}

bool pin_clear(const char *dir)
{
	struct clearing clearing = { .dir = dir };

	/* First what sees packets, then what it needs. */
	pin_each(dir, clear_links, &clearing);
	pin_each(dir, clear_rest, &clearing);
	return clearing.found;
}

int broker_flush(const char *pin, bool *found, pid_t *holder)
{
	struct pin_header header;
	char dir[PIN_PATH];
	int err = pin_dir(pin, dir);
	int lock;

	if (err)
		return err;
	*found = false;
	if (access(dir, F_OK) < 0)
		return errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
	lock = lock_take(PIN_LOCK, holder);
	if (lock < 0)
		return lock;
	err = pin_header_read(dir, &header);
	*found = pin_clear(dir);
	if (!err && header.netns == socket_namespace())
		forwarding_undo(&header);
	broker_pin_remove(pin);
	close(lock);
	return 0;
}

void broker_pin_remove(const char *pin)
{
	char dir[PIN_PATH];

	if (pin_dir(pin, dir))
		return;
	rmdir(dir);
	rmdir(pin); /* stays while another namespace has pins there */
}
