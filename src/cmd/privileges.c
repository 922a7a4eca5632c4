/* SPDX-License-Identifier: BSD-2-Clause */
#include "cmd/privileges.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"

/* Mounting and unmounting; images, mount points and `syncfs` on a root directory of any owner. */
#define KEPT                                                              \
	(UINT64_C(1) << CAP_SYS_ADMIN | UINT64_C(1) << CAP_DAC_OVERRIDE | \
	 UINT64_C(1) << CAP_DAC_READ_SEARCH)

/* The leak checker looks into its own process, which then has to be dumpable. */
#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif

void privileges_drop(void)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct caps[2];

	if (geteuid() != 0)
		return;
	/* A kernel may know more than this was compiled with; the first unknown one is an error. */
	for (unsigned long cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (cap >= 64 || !(KEPT >> cap & 1))
			(void)prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	memset(caps, 0, sizeof(caps));
	if (syscall(SYS_capget, &head, caps)) {
		log_warn("can't read the capabilities of this process: %s", strerror(errno));
		return;
	}
	for (unsigned i = 0; i < 2; i++) {
		const uint32_t kept = (uint32_t)(KEPT >> (32 * i));

		caps[i].effective &= kept;
		caps[i].permitted &= kept;
		caps[i].inheritable = 0;
	}
	if (syscall(SYS_capset, &head, caps) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		log_warn("can't drop privileges: %s", strerror(errno));
}

void privileges_hide(void)
{
#ifndef SANITIZED
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
		log_debug("can't forbid core dumps: %s", strerror(errno));
#endif
}
