/* SPDX-License-Identifier: BSD-2-Clause */
/* A configuration from a text that has no mistake. */
#ifndef UNIT_CONF_FROM_H
#define UNIT_CONF_FROM_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "conf/conf.h"

static inline void conf_from_report(void *arg, bool is_error, const char *file,
				    unsigned int line, const char *message)
{
	(void)arg;
	if (is_error)
		fail_msg("%s:%u: %s", file, line, message);
}

static inline struct conf *conf_from(const char *text)
{
	struct conf *conf = NULL;

	assert_int_equal(conf_parse(text, strlen(text), "test.conf",
				    conf_from_report, NULL, &conf),
			 0);
	return conf;
}

#endif
