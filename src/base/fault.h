/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fault.h - named places that a test can make fail.
 * A module calls fault_hit("region.sync") where the outside world could fail and treats the
 * result like the real error.  A name is "module.what".  Nothing is counted and a hit costs one
 * load until the first fault_reset, fault_arm or fault_init_env.
 * With configure --disable-faults (release builds) the hits compile to nothing, and arming says
 * -EOPNOTSUPP.  Any thread may call any of these.
 */
#ifndef PMFS_BASE_FAULT_H
#define PMFS_BASE_FAULT_H

#include <errno.h>
#include <stdint.h>

#ifdef PMFS_FAULTS

/* 0, or the negative errno that this hit was armed with. */
int fault_hit(const char *name);

/*
 * The nth hit of name from now on (1 is the next one) fails once with -err; err is a positive
 * errno.  Arming a name again replaces what was armed.  -EINVAL for nth 0, err < 1 or a name
 * that is too long, -ENOSPC when too many names are known.
 */
int fault_arm(const char *name, uint64_t nth, int err);

/* As fault_arm, but all hits from the nth on fail. */
int fault_arm_forever(const char *name, uint64_t nth, int err);

/* Hits of name since the last fault_reset, failed ones too. */
uint64_t fault_count(const char *name);

/* Nothing is armed, all counts are 0, and from here on hits are counted. */
void fault_reset(void);

/*
 * Arm what the environment's PMFS_FAULTS says: "name:nth:errno,...", the errno as a number or a
 * name (EIO, ENOSPC, ...), a "+" after nth for all hits from the nth on.  0 when the variable is
 * not there; -EINVAL, with a message, when it can't be understood.
 */
int fault_init_env(void);

#else

static inline int fault_hit(const char *name)
{
	(void)name;
	return 0;
}

static inline int fault_arm(const char *name, uint64_t nth, int err)
{
	(void)name;
	(void)nth;
	(void)err;
	return -EOPNOTSUPP;
}

static inline int fault_arm_forever(const char *name, uint64_t nth, int err)
{
	return fault_arm(name, nth, err);
}

static inline uint64_t fault_count(const char *name)
{
	(void)name;
	return 0;
}

static inline void fault_reset(void)
{
}

static inline int fault_init_env(void)
{
	return 0;
}

#endif

#endif
