/* SPDX-License-Identifier: BSD-2-Clause */
#include "cmd/doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "ctl/client.h"
#include "fuse/front.h"

struct doctor {
	struct cli *cli;
	json_t *checks;
	bool broken; /* something that mounting needs is missing */
};

enum need { NEEDED, BETTER };

/* advice: what to do when it is missing. */
static void report(struct doctor *doc, const char *name, bool ok, enum need need, const char *found,
		   const char *advice)
{
	if (!ok && need == NEEDED)
		doc->broken = true;
	json_array_append_new(doc->checks, json_pack("{s:s, s:b, s:b, s:s, s:s}", "name", name,
						     "ok", ok, "needed", need == NEEDED, "found",
						     found, "advice", ok ? "" : advice));
	if (doc->cli->json || doc->cli->quiet)
		return;
	printf("%-8s %-18s %s%s%s\n",
	       ok		? "ok"
	       : need == NEEDED ? "MISSING"
				: "missing",
	       name, found, ok || !*advice ? "" : "; ", ok ? "" : advice);
}

static void check_kernel(struct doctor *doc)
{
	unsigned int major = 0, minor = 0;
	struct utsname u;
	char found[160];

	uname(&u);
	sscanf(u.release, "%u.%u", &major, &minor);
	snprintf(found, sizeof(found), "Linux %s", u.release);
	report(doc, "kernel", major > 5 || (major == 5 && minor >= 10), NEEDED, found,
	       "pmfs is made for Linux 5.10 and newer");
}

static void check_device(struct doctor *doc)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	char found[160];

	snprintf(found, sizeof(found), "%s", fd >= 0 ? "can be opened" : strerror(errno));
	if (fd >= 0)
		close(fd);
	report(doc, "/dev/fuse", fd >= 0, NEEDED, found,
	       "load the module: modprobe fuse; in a container pass the device in");
}

static bool find_program(const char *name, char out[PATH_MAX])
{
	const char *path = getenv("PATH");
	char copy[PATH_MAX], *dir, *save = NULL;

	snprintf(copy, sizeof(copy), "%s", path ? path : "/usr/bin:/bin");
	for (dir = strtok_r(copy, ":", &save); dir; dir = strtok_r(NULL, ":", &save)) {
		if (snprintf(out, PATH_MAX, "%s/%s", dir, name) < PATH_MAX && !access(out, X_OK))
			return true;
	}
	return false;
}

static void check_fusermount(struct doctor *doc)
{
	char path[PATH_MAX];
	bool there = find_program("fusermount3", path);

	report(doc, "fusermount3", there, geteuid() == 0 ? BETTER : NEEDED,
	       there ? path : "is not in the PATH",
	       "users other than root need it to mount: apt-get install fuse3");
}

static void check_allow_other(struct doctor *doc)
{
	FILE *f = fopen("/etc/fuse.conf", "re");
	bool set = false;
	char line[256];

	while (f && fgets(line, sizeof(line), f)) {
		if (!strncmp(line, "user_allow_other", strlen("user_allow_other")))
			set = true;
	}
	if (f)
		fclose(f);
	report(doc, "allow_other", set || geteuid() == 0, BETTER,
	       geteuid() == 0 ? "root may use it"
	       : set	      ? "users may use it"
			      : "only root may use it",
	       "for others, write user_allow_other into /etc/fuse.conf");
}

static void check_libfuse(struct doctor *doc, const struct front_build *build)
{
	char found[160];
	bool all = build->tmpfile && build->statx && build->killpriv_v2;

	snprintf(found, sizeof(found), "%s: O_TMPFILE %s, statx %s, killpriv v2 %s", build->libfuse,
		 build->tmpfile ? "yes" : "no", build->statx ? "yes" : "no",
		 build->killpriv_v2 ? "yes" : "no");
	report(doc, "libfuse", all, BETTER, found,
	       "libfuse 3.18 has more of it; contrib/build-libfuse.sh builds one");
}

static void check_uring(struct doctor *doc, const struct front_build *build)
{
	int fd = open("/sys/module/fuse/parameters/enable_uring", O_RDONLY | O_CLOEXEC);
	char value = 0, found[160], advice[256];
	bool on, there = fd >= 0;

	if (there && read(fd, &value, 1) != 1)
		value = 0;
	if (there)
		close(fd);
	on = value == 'Y' || value == '1';
	snprintf(found, sizeof(found), "kernel %s, libfuse %s",
		 !there ? "without it"
		 : on	? "on"
			: "off",
		 build->io_uring ? "with it" : "without it");
	snprintf(advice, sizeof(advice), "%s%s%s",
		 !there ? "Linux 6.14 brings it"
		 : on	? ""
			: "as root: echo Y > /sys/module/fuse/parameters/enable_uring",
		 (!there || !on) && !build->io_uring ? "; " : "",
		 build->io_uring ? ""
				 : "build pmfs with libfuse 3.18 that has io_uring "
				   "(contrib/build-libfuse.sh)");
	report(doc, "io_uring", on && build->io_uring, BETTER, found, advice);
}

static void check_passthrough(struct doctor *doc, const struct front_build *build)
{
	bool root = geteuid() == 0;

	report(doc, "passthrough", build->passthrough && root, BETTER,
	       build->passthrough
		       ? root ? "libfuse has it" : "libfuse has it, but only root may use it"
		       : "libfuse is without it",
	       build->passthrough
		       ? "otherwise views go through the page cache (doc/views.md)"
		       : "libfuse 3.17 brings it; without, views go through the page cache");
}

static int look_at_mount(struct doctor *doc, const char *dir, json_t **features)
{
	struct client c;
	int status = client_open(&c, dir);
	const json_t *ft;

	if (!status)
		status = client_call(&c, "status", NULL, NULL, NULL, NULL);
	if (status) {
		status = cli_fail(doc->cli, status, "%s", c.text);
		client_close(&c);
		return status;
	}
	ft = json_object_get(c.data, "features");
	*features = json_incref((json_t *)(uintptr_t)ft);
	if (!doc->cli->json && !doc->cli->quiet) {
		const char *key;
		json_t *v;

		printf("\nin use at %s:\n", c.dir);
		json_object_foreach((json_t *)(uintptr_t)ft, key, v)
		{
			if (json_is_string(v))
				printf("  %-16s %s\n", key, json_string_value(v));
			else if (json_is_integer(v))
				printf("  %-16s %" JSON_INTEGER_FORMAT "\n", key,
				       json_integer_value(v));
			else
				printf("  %-16s %s\n", key, json_is_true(v) ? "yes" : "no");
		}
	}
	client_close(&c);
	return OUTCOME_DONE;
}

int doctor_run(struct cli *cli, const char *dir)
{
	struct doctor doc = {.cli = cli, .checks = json_array()};
	json_t *features = NULL, *data;
	struct front_build build;
	int status = OUTCOME_DONE;

	front_build_info(&build);
	check_kernel(&doc);
	check_device(&doc);
	check_fusermount(&doc);
	check_allow_other(&doc);
	check_libfuse(&doc, &build);
	check_uring(&doc, &build);
	check_passthrough(&doc, &build);
	if (dir)
		status = look_at_mount(&doc, dir, &features);
	data = json_pack("{s:o, s:o*}", "checks", doc.checks, "in_use", features);
	if (status) {
		json_decref(data);
		return status;
	}
	if (doc.broken)
		return cli_fail_data(cli, OUTCOME_FAILED, outcome_code(OUTCOME_FAILED), data,
				     "mounting can't work here; see what is MISSING");
	return cli_done(cli, data);
}
