/* SPDX-License-Identifier: BSD-2-Clause */
/* culvertctl(8) */
#include <stdio.h>

#include "ctl/ctl.h"

int main(int argc, char **argv)
{
	return (int)ctl_run(argc, argv, stdout, stderr);
}
