/* SPDX-License-Identifier: BSD-2-Clause */
/* flush: what a culvertd that was killed has left in the kernel goes. */
#include <errno.h>
#include <string.h>

#include "broker/broker.h"
#include "ctl/ctl.h"

static const char *hint(int err)
{
	switch (err) {
	case -EPERM:
	case -EACCES:
		return "this needs root";
	default:
		return strerror(-err);
	}
}

enum ctl_exit ctl_flush(struct ctl *ctl)
{
	const char *pin = ctl->pin ? ctl->pin : CTL_PIN;
	bool found;
	pid_t holder;
	int err = broker_flush(pin, &found, &holder);

	if (err == -EBUSY)
		return ctl_fail(ctl,
				"cannot flush %s: a culvertd (its process %d) "
				"runs in this network namespace: culvertctl "
				"stop ends it and leaves nothing",
				pin, (int)holder);
	if (err)
		return ctl_fail(ctl, "cannot flush %s: %s", pin, hint(err));
	if (ctl->json)
		fprintf(ctl->out, "{\"v\":1,\"removed\":%s}\n",
			found ? "true" : "false");
	else
		fprintf(ctl->out,
			found ? "removed what was below %s\n" :
				"nothing was below %s\n",
			pin);
	return CTL_OK;
}
