/* SPDX-License-Identifier: BSD-2-Clause */
#include "lib/ring_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define STATE(word)	   ((uint32_t)(word))
#define EPOCH(word)	   ((uint32_t)((word) >> 32))
#define WORD(state, epoch) ((uint64_t)(state) | (uint64_t)(epoch) << 32)

/* The bytes that are locked stand for slots and are far beyond any contents. */
#define LOCK_BASE ((off_t)1 << 62)

#define CLAIM_WAITERS	 0x80000000u
#define CLAIM_EPOCH_BITS 15u
#define CLAIM_SPINS	 200u
#define CLAIM_LIMIT_NS	 INT64_C(1000000000)

int64_t ring_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* Without FUTEX_PRIVATE_FLAG: the word is found by its file, whoever has mapped it where. */
int ring_futex_wait(_Atomic uint32_t *word, uint32_t value, int64_t ns)
{
	struct timespec ts = {.tv_sec = (time_t)(ns / 1000000000),
			      .tv_nsec = (long)(ns % 1000000000)};

	return syscall(SYS_futex, word, FUTEX_WAIT, value, &ts, NULL, 0) ? -errno : 0;
}

void ring_futex_wake(_Atomic uint32_t *word, int count)
{
	syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);
}

/* ------------------------------------------------------------------ processes */

static size_t read_small(const char *path, char *buf, size_t room)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return 0;
	n = read(fd, buf, room - 1);
	close(fd);
	buf[n > 0 ? n : 0] = 0;
	return n > 0 ? (size_t)n : 0;
}

/* When it was started; 0 when that can't be found out.  *gone: there is no such process, or only
 * its zombie. */
static uint64_t start_of(uint32_t pid, bool *gone)
{
	char path[40], text[1024], *at;

	*gone = false;
	snprintf(path, sizeof(path), "/proc/%u/stat", pid);
	if (!read_small(path, text, sizeof(text))) {
		/* Without a /proc nothing is known. */
		*gone = access("/proc/self/stat", R_OK) == 0;
		return 0;
	}
	/* The second field, in parentheses, can hold anything. */
	at = strrchr(text, ')');
	if (!at || at[1] != ' ')
		return 0;
	*gone = at[2] == 'Z' || at[2] == 'X';
	for (unsigned int field = 2; field < 22; field++) {
		at = strchr(at + 1, ' ');
		if (!at)
			return 0;
	}
	return strtoull(at + 1, NULL, 10);
}

static uint64_t read_boot_id(void)
{
	char text[64], digits[17];
	size_t n = 0;

	if (!read_small("/proc/sys/kernel/random/boot_id", text, sizeof(text)))
		return 0;
	for (const char *at = text; *at && n < 16; at++) {
		if (*at != '-')
			digits[n++] = *at;
	}
	digits[n] = 0;
	return strtoull(digits, NULL, 16);
}

static uint64_t find_pid_namespace(void)
{
	struct stat st;

	return stat("/proc/self/ns/pid", &st) ? 0 : (uint64_t)st.st_ino;
}

void ring_self_init(struct pmfs_ring *r)
{
	bool gone;

	r->self.pid = (uint32_t)getpid();
	r->self.start = start_of(r->self.pid, &gone);
	r->self.boot = read_boot_id();
	r->self.pidns = find_pid_namespace();
}

/* ------------------------------------------------------------------ slots */

static struct flock slot_range(uint32_t slot)
{
	return (struct flock){.l_type = F_WRLCK,
			      .l_whence = SEEK_SET,
			      .l_start = LOCK_BASE + (off_t)slot,
			      .l_len = 1};
}

/* The kernel's own knowledge: somebody, somewhere, has the file open for that role. */
static bool slot_locked(const struct pmfs_ring *r, uint32_t slot)
{
	struct flock range = slot_range(slot);

	return fcntl(r->fd, F_OFD_GETLK, &range) || range.l_type != F_UNLCK;
}

enum ring_peer ring_owner_look(const struct pmfs_ring *r, uint32_t slot, uint64_t *word)
{
	struct ring_slot *s = &r->shm->slots[slot];
	/* Acquire: pairs with the release in ring_owner_enter(), so that the fields are that
	 * owner's. */
	uint64_t state = atomic_load_explicit(&s->state, memory_order_acquire);
	uint64_t start, boot;
	uint32_t pid;
	bool gone;

	if (word)
		*word = state;
	if (STATE(state) != PMFS_RING_LIVE)
		return PEER_NONE;
	/* Relaxed is enough: a newer owner's fields make us wrong about this one, and then
	 * ring_owner_bury() finds another state and does nothing. */
	pid = atomic_load_explicit(&s->pid, memory_order_relaxed);
	start = atomic_load_explicit(&s->start, memory_order_relaxed);
	boot = atomic_load_explicit(&s->boot, memory_order_relaxed);
	if (boot != r->self.boot)
		return PEER_DEAD;
	if (!pid || !start ||
	    atomic_load_explicit(&s->pidns, memory_order_relaxed) != r->self.pidns)
		return slot_locked(r, slot) ? PEER_ALIVE : PEER_DEAD;
	if (start_of(pid, &gone) == start && !gone)
		return PEER_ALIVE;
	return PEER_DEAD;
}

bool ring_owner_lives(const struct pmfs_ring *r, uint32_t slot, uint32_t epoch, unsigned int bits)
{
	uint64_t word;
	uint32_t mask = ((uint32_t)1 << bits) - 1;

	return ring_owner_look(r, slot, &word) == PEER_ALIVE && ((EPOCH(word) ^ epoch) & mask) == 0;
}

bool ring_owner_bury(struct pmfs_ring *r, uint32_t slot, uint64_t word)
{
	/* Relaxed: nothing else is published by this, and the exchange itself decides who was
	 * first. */
	return atomic_compare_exchange_strong_explicit(&r->shm->slots[slot].state, &word,
						       WORD(PMFS_RING_FREE, EPOCH(word)),
						       memory_order_relaxed, memory_order_relaxed);
}

static void fill_in(const struct pmfs_ring *r, struct ring_slot *s, struct ring_role *role)
{
	uint64_t state = atomic_load_explicit(&s->state, memory_order_relaxed);
	uint32_t epoch = EPOCH(state) + 1;

	/* Who is about to bury an earlier owner must see that this is another one before the fields
	 * change; with a plain store in between that would not be sure, hence the exchange. */
	while (!atomic_compare_exchange_weak_explicit(&s->state, &state,
						      WORD(PMFS_RING_ENTERING, epoch),
						      memory_order_acq_rel, memory_order_relaxed))
		epoch = EPOCH(state) + 1;
	atomic_store_explicit(&s->pid, r->self.pid, memory_order_relaxed);
	atomic_store_explicit(&s->start, r->self.start, memory_order_relaxed);
	atomic_store_explicit(&s->boot, r->self.boot, memory_order_relaxed);
	atomic_store_explicit(&s->pidns, r->self.pidns, memory_order_relaxed);
	/* Release: who sees LIVE sees the fields. */
	atomic_store_explicit(&s->state, WORD(PMFS_RING_LIVE, epoch), memory_order_release);
	role->epoch = epoch;
}

int ring_owner_enter(struct pmfs_ring *r, uint32_t first, uint32_t last, struct ring_role *role)
{
	for (uint32_t slot = first; slot <= last; slot++) {
		struct flock range = slot_range(slot);

		if (fcntl(r->fd, F_OFD_SETLK, &range)) {
			if (errno == EAGAIN || errno == EACCES)
				continue;
			return -errno;
		}
		role->slot = slot;
		fill_in(r, &r->shm->slots[slot], role);
		return 0;
	}
	return -EBUSY;
}

void ring_owner_leave(struct pmfs_ring *r, struct ring_role *role)
{
	uint64_t word = WORD(PMFS_RING_LIVE, role->epoch);
	struct flock range;

	if (role->slot == RING_SLOT_NONE)
		return;
	ring_owner_bury(r, role->slot, word);
	range = slot_range(role->slot);
	range.l_type = F_UNLCK;
	fcntl(r->fd, F_OFD_SETLK, &range);
	role->slot = RING_SLOT_NONE;
}

/* ------------------------------------------------------------------ the lock of several producers
 */

static bool claim_try(struct pmfs_ring *r, uint32_t *seen, uint32_t mine)
{
	/* Acquire: pairs with the release in ring_claim_unlock(), for head. */
	return atomic_compare_exchange_strong_explicit(&r->shm->claim_lock, seen, mine,
						       memory_order_acquire, memory_order_relaxed);
}

int ring_claim_lock(struct pmfs_ring *r)
{
	const uint32_t mine =
		(r->p.role.slot + 1) | (r->p.role.epoch & ((1u << CLAIM_EPOCH_BITS) - 1)) << 16;
	uint32_t seen = 0, slot;
	int64_t begin = 0;
	int rc;

	for (unsigned int i = 0; i < CLAIM_SPINS; i++) {
		seen = 0;
		if (claim_try(r, &seen, mine))
			return 0;
		ring_relax();
	}
	for (;;) {
		seen = atomic_load_explicit(&r->shm->claim_lock, memory_order_relaxed);
		/* Others may sleep that we don't know of: whoever comes this way wakes one when
		 * done. */
		if (!seen && claim_try(r, &seen, mine | CLAIM_WAITERS))
			return 0;
		if (!seen)
			continue;
		slot = (seen & 0xffffu) - 1;
		if (slot == RING_CONSUMER_SLOT || slot >= PMFS_RING_SLOTS)
			return -EUCLEAN;
		if (!begin)
			begin = ring_now_ns();
		/* U3: also when the word changes all the time. */
		if (ring_now_ns() - begin > CLAIM_LIMIT_NS)
			return -EBUSY;
		/* Relaxed: only the bit is added; who unlocks reads it with its own exchange. */
		if (!(seen & CLAIM_WAITERS) &&
		    !atomic_compare_exchange_strong_explicit(
			    &r->shm->claim_lock, &seen, seen | CLAIM_WAITERS, memory_order_relaxed,
			    memory_order_relaxed))
			continue;
		seen |= CLAIM_WAITERS;
		rc = ring_futex_wait(&r->shm->claim_lock, seen, RING_SLICE_NS);
		if (rc != -ETIMEDOUT)
			continue;
		if (!ring_owner_lives(r, slot, seen >> 16, CLAIM_EPOCH_BITS) &&
		    claim_try(r, &seen, mine | CLAIM_WAITERS))
			return 0;
	}
}

void ring_claim_unlock(struct pmfs_ring *r)
{
	/* Release: the next owner sees our head and the record before it. */
	uint32_t was = atomic_exchange_explicit(&r->shm->claim_lock, 0, memory_order_release);

	if (was & CLAIM_WAITERS)
		ring_futex_wake(&r->shm->claim_lock, 1);
}
