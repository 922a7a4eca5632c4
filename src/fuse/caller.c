/* SPDX-License-Identifier: BSD-2-Clause */
#include "fuse/caller.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * How user ids of its namespace map to ours; "": unknown.  Which namespace it is can be seen only with
 * CAP_SYS_PTRACE, which the daemon has dropped; one that maps all ids to themselves took the same right to make.
 */
static void user_namespace(const char *pid, char out[128])
{
	char path[64];
	size_t n = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%s/uid_map", pid);
	f = fopen(path, "re");
	if (f) {
		n = fread(out, 1, 127, f);
		fclose(f);
	}
	out[n] = '\0';
}

/* The effective capabilities; false: it can't be seen. */
static bool capabilities(const char *pid, uint64_t *caps)
{
	char path[64], line[256];
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%s/status", pid);
	f = fopen(path, "re");
	if (!f)
		return false;
	while (!found && fgets(line, sizeof(line), f))
		found = sscanf(line, "CapEff: %" SCNx64, caps) == 1;
	fclose(f);
	return found;
}

bool caller_capable(fuse_req_t req, unsigned cap)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	char pid[24], theirs[128], ours[128];
	uint64_t caps;

	snprintf(pid, sizeof(pid), "%lld", (long long)ctx->pid);
	if (ctx->pid <= 0 || !capabilities(pid, &caps))
		return ctx->uid == 0;
	if (!(caps >> cap & 1))
		return false;
	user_namespace(pid, theirs);
	user_namespace("self", ours);
	return theirs[0] && !strcmp(theirs, ours);
}

bool caller_in_group(fuse_req_t req, uint32_t gid)
{
	gid_t *list = NULL;
	bool found = fuse_req_ctx(req)->gid == gid;
	int n, room = 64;

	while (!found) {
		gid_t *more = realloc(list, (size_t)room * sizeof(*list));

		if (!more)
			break;
		list = more;
		n = fuse_req_getgroups(req, room, list);
		for (int i = 0; i < n && i < room && !found; i++)
			found = list[i] == gid;
		if (n <= room)
			break;
		room = n;
	}
	free(list);
	return found;
}
