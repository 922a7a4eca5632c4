/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * outcome.h - the exit statuses of the commands, and the words for them in JSON.
 * The daemon names one in each error that it answers, so that a tool only passes it on.
 */
#ifndef PMFS_CTL_OUTCOME_H
#define PMFS_CTL_OUTCOME_H

enum outcome {
	OUTCOME_DONE = 0,
	OUTCOME_FAILED = 1,
	OUTCOME_USAGE = 2,
	OUTCOME_PARTIAL = 3,
	OUTCOME_DIFFERS = 4,
	OUTCOME_NOT_FOUND = 5,
	OUTCOME_EXISTS = 6,
	OUTCOME_BUSY = 7,
	OUTCOME_NO_SPACE = 8,
	OUTCOME_NOT_PERMITTED = 9,
	OUTCOME_NOT_PMFS = 10, /* not an image, or one for a newer pmfs */
	OUTCOME_DAMAGED = 11,
	OUTCOME_REPAIRED = 12,
	OUTCOME_NO_DAEMON = 13,
	OUTCOME_INTERRUPTED = 130,
};

/* "not-found"; "failed" for a status that is none of the above. */
const char *outcome_code(int status);

/* The status that goes with a negative errno (or 0). */
enum outcome outcome_of_errno(int err);

/* Like it for opening an image, where -EIO means that it is cut short or can't be read. */
enum outcome outcome_of_open(int err);

#endif
