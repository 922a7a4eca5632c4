/* SPDX-License-Identifier: BSD-2-Clause */
#include "ctl/outcome.h"

#include <errno.h>

const char *outcome_code(int status)
{
	switch (status) {
	case OUTCOME_DONE:
		return "done";
	case OUTCOME_USAGE:
		return "usage";
	case OUTCOME_PARTIAL:
		return "partial";
	case OUTCOME_DIFFERS:
		return "differs";
	case OUTCOME_NOT_FOUND:
		return "not-found";
	case OUTCOME_EXISTS:
		return "exists";
	case OUTCOME_BUSY:
		return "busy";
	case OUTCOME_NO_SPACE:
		return "no-space";
	case OUTCOME_NOT_PERMITTED:
		return "not-permitted";
	case OUTCOME_NOT_PMFS:
		return "not-pmfs";
	case OUTCOME_DAMAGED:
		return "damaged";
	case OUTCOME_REPAIRED:
		return "repaired";
	case OUTCOME_NO_DAEMON:
		return "no-daemon";
	case OUTCOME_INTERRUPTED:
		return "interrupted";
	default:
		return "failed";
	}
}

enum outcome outcome_of_errno(int err)
{
	switch (-err) {
	case 0:
		return OUTCOME_DONE;
	case EINVAL:
	case ENAMETOOLONG:
		return OUTCOME_USAGE;
	case ENOENT:
	case ENODEV:
	case ENOTDIR:
		return OUTCOME_NOT_FOUND;
	case EEXIST:
		return OUTCOME_EXISTS;
	case EBUSY:
	case EALREADY:
		return OUTCOME_BUSY;
	case ENOSPC:
	case EDQUOT:
		return OUTCOME_NO_SPACE;
	case EPERM:
	case EACCES:
	case EROFS:
		return OUTCOME_NOT_PERMITTED;
	case EMEDIUMTYPE:
	case EOPNOTSUPP:
		return OUTCOME_NOT_PMFS;
	case EBADMSG:
	case EUCLEAN:
		return OUTCOME_DAMAGED;
	case ETIMEDOUT:
	case ECONNREFUSED:
	case ECONNRESET:
	case EPIPE:
	case ENOTCONN:
		return OUTCOME_NO_DAEMON;
	case EINTR:
		return OUTCOME_INTERRUPTED;
	default:
		return OUTCOME_FAILED;
	}
}

enum outcome outcome_of_open(int err)
{
	switch (-err) {
	case EIO:
		return OUTCOME_DAMAGED;
	case EISDIR:
	case ENOTBLK:
		return OUTCOME_NOT_PMFS;
	case EINVAL:
		return OUTCOME_FAILED;
	default:
		return outcome_of_errno(err);
	}
}
