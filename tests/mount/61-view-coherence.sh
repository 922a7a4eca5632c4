#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Stores of one process through a view are loads of another, in order; through the alias, too, with passthrough.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
need python3
command -v "${CC:-cc}" >/dev/null || skip "there is no C compiler"

cat >"$T/litmus.c" <<'C'
/* Message passing: the writer stores data, then a flag; who sees the flag sees the data. */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

struct shared {
	_Alignas(64) _Atomic uint64_t flag;
	_Alignas(64) uint64_t data[8];
	_Alignas(4096) _Atomic uint64_t ack;
};

static void *map(const char *path, int flags, int prot)
{
	int fd = open(path, flags);
	void *p;

	if (fd < 0 || (p = mmap(NULL, 8192, prot, MAP_SHARED, fd, 0)) == MAP_FAILED) {
		perror(path);
		exit(2);
	}
	close(fd);
	return p;
}

int main(int argc, char **argv)
{
	const uint64_t rounds = strtoull(argv[3], NULL, 10), batch = 1000;
	struct shared *w = map(argv[1], O_RDWR, PROT_READ | PROT_WRITE);
	int status;
	pid_t pid;

	(void)argc;
	atomic_store(&w->flag, 0);
	atomic_store(&w->ack, 0);
	pid = fork();
	if (!pid) {
		struct shared *r = map(argv[2], O_RDONLY, PROT_READ);
		struct shared *ack = map(argv[1], O_RDWR, PROT_READ | PROT_WRITE);
		uint64_t seen = 0, looked = 0;

		while (seen < rounds) {
			const uint64_t flag = atomic_load_explicit(&r->flag, memory_order_acquire);

			if (flag < seen)
				_exit(3); /* it went back */
			if (flag == seen) {
				usleep(0);
				continue;
			}
			/* The writer keeps what it wrote last until it is acknowledged, or goes on. */
			for (int i = 0; i < 8; i++)
				if (__atomic_load_n(&r->data[i], __ATOMIC_RELAXED) < flag)
					_exit(4); /* older than the flag */
			seen = flag;
			looked++;
			atomic_store_explicit(&ack->ack, seen, memory_order_release);
		}
		_exit(looked ? 0 : 5);
	}
	for (uint64_t i = 1; i <= rounds; i++) {
		for (int k = 0; k < 8; k++)
			__atomic_store_n(&w->data[k], i, __ATOMIC_RELAXED);
		atomic_store_explicit(&w->flag, i, memory_order_release);
		if (i % batch == 0)
			while (atomic_load_explicit(&w->ack, memory_order_acquire) + 10 * batch < i) {
				if (waitpid(pid, &status, WNOHANG) == pid)
					goto ended;
				usleep(0);
			}
	}
	waitpid(pid, &status, 0);
ended:
	if (!WIFEXITED(status) || WEXITSTATUS(status)) {
		fprintf(stderr, "the reader ended with %x\n", status);
		return 1;
	}
	return 0;
}
C
"${CC:-cc}" -std=gnu17 -O2 -o "$T/litmus" "$T/litmus.c"

M=$T/mnt
run() { # OPTIONS
	mount_pmfs ram "$M" "size=64M${1:+,$1}"
	truncate -s 8192 "$M/.pmfs/views/l"
	say "${1:-as the system offers}: view and view"
	"$T/litmus" "$M/.pmfs/views/l" "$M/.pmfs/views/l" 1250000 || fail "stores are not seen in order"
	if pmfs-ctl --json status "$M" | grep -q '"passthrough": *true'; then
		say "view and alias: ten million stores"
		"$T/litmus" "$M/.pmfs/views/l" "$M/.pmfs/alias/l" 1250000 || fail "stores are not seen in order through the alias"
	fi
	umount_pmfs "$M"
}
run
run passthrough=off
