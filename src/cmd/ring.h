/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ring.h - pmfs-ctl ring: make and look at rings (pmfs/ring.h) and ring logs.
 */
#ifndef PMFS_CMD_RING_H
#define PMFS_CMD_RING_H

#include "cmd/cli.h"

int ring_run(struct cli *cli, int argc, char **argv);

#endif
