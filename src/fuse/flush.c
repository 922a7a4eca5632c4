/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * front_flush(): everything that was written through the mount before the call is in the tree when
 * it returns.
 *
 * Dirty pages are the kernel's as long as it likes, and syncfs(2) only queues them for a FUSE
 * mount.  So: syncfs, then wait until all that was queued has been handled; and once more, since
 * the flusher passes over a page that was stored to again while its WRITE was in flight.  When no
 * such request has been answered from before the first syncfs to after the wait, none was in
 * flight, and once is enough.
 *
 * The classic device hands requests out in the order of one queue: when a request sent later has
 * been answered, all earlier ones have been read, and loop_quiesce() waits for those who read them.
 * With rings there is a queue per CPU, each handled in order by one thread: a request from every
 * CPU has all earlier ones behind it.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/log.h"
#include "fuse/front_impl.h"

static int marker(void *arg)
{
	const int *fd = arg;
	struct statvfs st;

	return fstatvfs(*fd, &st) ? -errno : 0;
}

static int marker_each_cpu(int fd)
{
	const long cpus = sysconf(_SC_NPROCESSORS_CONF);
	cpu_set_t before, one;
	int rc = 0;

	if (sched_getaffinity(0, sizeof(before), &before))
		return -errno;
	for (size_t cpu = 0; cpu < (size_t)cpus && cpu < CPU_SETSIZE && !rc; cpu++) {
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		/* A CPU that is off, or not ours to use, has no queue that is served either. */
		if (!sched_setaffinity(0, sizeof(one), &one))
			rc = marker(&fd);
	}
	sched_setaffinity(0, sizeof(before), &before);
	return rc;
}

static int drain(int fd, struct loop *lp, bool rings)
{
	int rc = marker(&fd);

	if (!rc && rings)
		rc = marker_each_cpu(fd);
	if (!rc && lp)
		rc = loop_quiesce(lp);
	return rc;
}

int flush_session(const char *dir, uint64_t dev, struct loop *lp, bool rings,
		  const _Atomic uint64_t *handed_over)
{
	uint64_t before = 0;
	bool again = true;
	struct stat st;
	int fd, rc = 0;

	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st))
		rc = -errno;
	else if (st.st_dev != dev)
		rc = -ENOTCONN; /* something else is mounted over it */
	for (int round = 0; round < 2 && again && !rc; round++) {
		if (handed_over)
			before = atomic_load(handed_over);
		if (syncfs(fd))
			rc = -errno;
		else
			rc = drain(fd, lp, rings);
		again = !handed_over || atomic_load(handed_over) != before;
	}
	close(fd);
	return rc;
}

int front_flush(struct front *fr)
{
	const uint64_t dev = atomic_load(&fr->dev);
	int rc;

	if (!dev || atomic_load(&fr->ended))
		return -ENOTCONN;
	if (fr->cfg.read_only)
		return 0;
	rc = flush_session(fr->cfg.mountpoint, dev, fr->loop, atomic_load(&fr->uring_wanted),
			   &fr->handed_over);
	return rc || !fr->control ? rc : control_flush(fr->control);
}
