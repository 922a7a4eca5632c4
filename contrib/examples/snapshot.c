/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * snapshot DIR create NAME [MESSAGE] | delete NAME | list | ask OP [JSON]
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pmfs.h>

static int list(const char *dir)
{
	struct pmfs_snapshot_list *all;
	const struct pmfs_snapshot *s;
	int rc = pmfs_snapshot_list(dir, &all);

	if (rc)
		return rc;
	for (size_t i = 0; (s = pmfs_snapshot_get(all, i)); i++)
		printf("%s\t%" PRId64 "\t%" PRIu64 "\t%s\n", s->name, s->created_ns / 1000000000,
		       s->referenced_bytes, s->message);
	pmfs_snapshot_list_free(all);
	return 0;
}

static int ask(const char *dir, const char *op, const char *args)
{
	char *reply;
	int rc = pmfs_control(dir, op, args, &reply);

	if (reply)
		puts(reply);
	free(reply);
	return rc;
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[2] : "";
	int rc;

	if (argc >= 4 && !strcmp(what, "create")) {
		rc = pmfs_snapshot_create(argv[1], argv[3], argc > 4 ? argv[4] : NULL);
	} else if (argc == 4 && !strcmp(what, "delete")) {
		rc = pmfs_snapshot_delete(argv[1], argv[3]);
	} else if (argc == 3 && !strcmp(what, "list")) {
		rc = list(argv[1]);
	} else if (argc >= 4 && !strcmp(what, "ask")) {
		rc = ask(argv[1], argv[3], argc > 4 ? argv[4] : NULL);
	} else {
		fprintf(stderr, "usage: snapshot DIR create NAME [MESSAGE] | delete NAME | list | "
				"ask OP [JSON]\n");
		return 2;
	}
	if (rc)
		fprintf(stderr, "snapshot: %s: %s\n", argv[1], strerror(-rc));
	return rc ? 1 : 0;
}
