/* SPDX-License-Identifier: BSD-2-Clause */
/* What to do about a lack that may hit any step. */
#include "main/hint.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "base/log.h"

const char *hint_for(int err)
{
	switch (err) {
	case -EMFILE:
		return "raise this process's limit of open files: ulimit -n, "
		       "LimitNOFILE= of systemd";
	case -ENFILE:
		return "this machine is out of open files: raise the sysctl "
		       "fs.file-max";
	case -ENOMEM:
	case -ENOBUFS:
		return "this machine is out of memory";
	case -EAGAIN:
		return "raise the limit of processes: ulimit -u, TasksMax= of "
		       "systemd";
	case -ENODEV:
		return "no engine of [engine] order can run here: add copy";
	default:
		return NULL;
	}
}

void hint_log(const char *step, int err)
{
	const char *hint = hint_for(err);

	log_error("main", "event=start_failed step=%s error=\"%s\"%s%s%s", step,
		  strerror(-err), hint ? " hint=\"" : "", hint ? hint : "",
		  hint ? "\"" : "");
}
