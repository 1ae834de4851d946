/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The broker as a whole: one loop, the real kernel, the table of places, a session
 * for each of the relay's workers.
 *
 *   starting -> working -> ended (broker_end) or left (broker_free alone)
 *            -> without wire: tells each client why
 */
#include "broker/broker.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/log.h"
#include "base/syscalls.h"
#include "broker/internal.h"

SYSCALLS(SYSCALLS_BROKER_START, "prlimit64");

/* Descriptors for everything but the sockets of latched pairs. */
#define FDS_OWN     (256 + MESSAGE_FDS_MAX)
#define LATCHED_MAX 8192

/* So many times two descriptors of the relay's can be kept. */
static uint32_t descriptor_pairs(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) < 0 ||
	    files.rlim_cur <= FDS_OWN + 2 * WIRE_LEGS)
		return 2;
	files.rlim_cur = (files.rlim_cur - FDS_OWN) / WIRE_LEGS;
	return files.rlim_cur > UINT32_MAX ? UINT32_MAX :
					     (uint32_t)files.rlim_cur;
}

/* Lanes may have half of them, latched pairs what these cannot take. */
static void limits_set(struct broker *broker, uint32_t lanes)
{
	uint32_t room = descriptor_pairs();

	broker->lanes_max = lanes < room / 2 ? lanes : room / 2;
	room -= broker->lanes_max;
	broker->latched_max = room < LATCHED_MAX ? room : LATCHED_MAX;
}

static int start(struct broker *broker, const struct broker_params *params)
{
	int err;

	if (!params->pairs) {
		strcpy(broker->why, "no connection may go on wire: [engine] "
				    "order");
		return -EOPNOTSUPP;
	}
	err = kernel_new(broker, params);
	if (err)
		return err;
	err = places_new(broker, params->pairs);
	if (!err)
		err = lanes_new(broker, params->lanes);
	if (err)
		return err;
	places_adopt(broker);
	err = kernel_events(broker->kernel);
	if (err)
		return err;
	return 0;
}

int broker_new(const struct broker_params *params, struct broker **out)
{
	struct broker *broker = calloc(1, sizeof(*broker));

	if (!broker)
		return -ENOMEM;
	broker->loop = params->loop;
	broker->ops = &kernel_ops;
	list_init(&broker->sessions);
	limits_set(broker, params->lanes);
	broker->error = start(broker, params);
	if (broker->error) {
		if (!broker->why[0])
			strncpy(broker->why, strerror(-broker->error),
				sizeof(broker->why) - 1);
		if (params->pairs)
			log_warn("broker",
				 "event=wire_off reason=\"%s\" using=\"the "
				 "next in [engine] order\"",
				 broker->why);
		places_free(broker);
		lanes_free(broker);
	}
	*out = broker;
	return 0;
}

int broker_error(const struct broker *broker)
{
	return broker->error;
}

void broker_confine(const struct broker *broker)
{
	kernel_confine(broker->error ? NULL : broker->kernel);
}

int broker_serve(struct broker *broker, unsigned int worker, int fd)
{
	return session_new(broker, worker, fd);
}

void broker_end(struct broker *broker)
{
	if (broker->error)
		return;
	places_reset_all(broker);
	kernel_unpin(broker->kernel);
}

void broker_free(struct broker *broker)
{
	if (!broker)
		return;
	sessions_free(broker);
	places_free(broker);
	lanes_free(broker);
	kernel_free(broker->kernel);
	free(broker);
}
