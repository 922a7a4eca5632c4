/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * doctor.h - pmfs doctor: what this kernel, libfuse and user can do, and what to change.
 */
#ifndef PMFS_CMD_DOCTOR_H
#define PMFS_CMD_DOCTOR_H

#include "cmd/cli.h"

/* dir: a place in a mount, whose features in use are told as well; NULL: none.  An exit status:
 * OUTCOME_FAILED when mounting can't work. */
int doctor_run(struct cli *cli, const char *dir);

#endif
