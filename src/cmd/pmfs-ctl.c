/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * pmfs-ctl - look inside a mount, and tune it: status, df, stats, dedup, sync.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/units.h"
#include "cmd/progress.h"
#include "cmd/ring.h"
#include "cmd/tool.h"
#include "ctl/show.h"

static const char usage_text[] =
	"usage: pmfs-ctl status DIR             one screen: space, dedup, commits, features\n"
	"       pmfs-ctl df DIR                 where the space is\n"
	"       pmfs-ctl stats DIR [-i SECONDS] counters; again and again\n"
	"       pmfs-ctl dedup DIR start        merge equal pages, in the background\n"
	"       pmfs-ctl dedup DIR wait [--progress=auto|bar|json|none]\n"
	"       pmfs-ctl dedup DIR status|pause|resume\n"
	"       pmfs-ctl scrub DIR start [--rate SIZE/s] [--structure]\n"
	"                                       compare all pages with their checksums\n"
	"       pmfs-ctl scrub DIR wait [--progress=auto|bar|json|none]\n"
	"       pmfs-ctl scrub DIR status|stop\n"
	"       pmfs-ctl sync DIR               a commit, now\n"
	"       pmfs-ctl info PATH              what a file is made of\n"
	"       pmfs-ctl ring create [--size SIZE] [--multi] PATH\n"
	"       pmfs-ctl ring create --log [--size SIZE] PATH\n"
	"       pmfs-ctl ring stat PATH         make and look at rings and ring logs\n"
	"\n"
	"DIR is any path in a mount.\n"
	"\n"
	"      --json     answer in JSON\n"
	"  -q, -v         say less, say more\n"
	"  -h, -V         this help, the version\n";

static volatile sig_atomic_t interrupted;

static void on_signal(int sig)
{
	(void)sig;
	interrupted = 1;
}

static void catch_signals(void)
{
	struct sigaction sa = {.sa_handler = on_signal};

	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
}

/* A request whose answer is shown by show; NULL: is not shown. */
static int simple(struct cli *cli, int argc, char **argv, const char *op,
		  void (*show)(FILE *f, const json_t *data))
{
	struct client c;
	int status = tool_no_options(cli, argc, argv);

	if (status)
		return status;
	if (argc - optind != 1)
		return cli_usage(cli,
				 argc == optind ? "DIR is missing" : "there are too many operands");
	status = tool_open(cli, &c, argv[optind]);
	if (!status)
		status = tool_ask(cli, &c, op, NULL, NULL, NULL);
	if (!status) {
		if (show && !cli->json && !cli->quiet)
			show(stdout, c.data);
		status = cli_done(cli, json_incref(c.data));
	}
	client_close(&c);
	return status;
}

static int run_status(struct cli *cli, int argc, char **argv)
{
	return simple(cli, argc, argv, "status", show_status);
}

static int run_df(struct cli *cli, int argc, char **argv)
{
	return simple(cli, argc, argv, "df", show_df);
}

static int run_sync(struct cli *cli, int argc, char **argv)
{
	return simple(cli, argc, argv, "sync", NULL);
}

/* ------------------------------------------------------------------ info */

static int run_info(struct cli *cli, int argc, char **argv)
{
	struct stat st, top;
	struct client c;
	int status = tool_no_options(cli, argc, argv);

	if (status)
		return status;
	if (argc - optind != 1)
		return cli_usage(cli,
				 argc == optind ? "PATH is missing" : "there are too many operands");
	status = tool_open(cli, &c, argv[optind]);
	if (!status && (stat(argv[optind], &st) || stat(c.dir, &top)))
		status = cli_fail(cli, (int)outcome_of_errno(-errno), "can't look at %s: %s",
				  argv[optind], strerror(errno));
	if (!status && !S_ISREG(st.st_mode))
		status = cli_fail(cli, OUTCOME_FAILED, "%s is no regular file", argv[optind]);
	if (!status)
		status = tool_ask(cli, &c, "file.info",
				  json_pack("{s:I, s:b}", "ino", (json_int_t)st.st_ino, "files",
					    st.st_dev != top.st_dev),
				  NULL, NULL);
	if (!status) {
		json_object_set_new(c.data, "path", json_string(argv[optind]));
		if (!cli->json && !cli->quiet)
			show_info(stdout, c.data);
		status = cli_done(cli, json_incref(c.data));
	}
	client_close(&c);
	return status;
}

/* ------------------------------------------------------------------ stats */

static void pause_for(int64_t ns)
{
	struct timespec ts = {.tv_sec = (time_t)(ns / NS_PER_SEC),
			      .tv_nsec = (long)(ns % NS_PER_SEC)};

	while (!interrupted && nanosleep(&ts, &ts) && errno == EINTR)
		;
}

static int stats_loop(struct cli *cli, struct client *c, int64_t every_ns)
{
	int64_t before_ns = 0, now_ns;
	json_t *earlier = NULL;
	int status;

	for (;;) {
		if (client_call(c, "status", NULL, NULL, NULL, NULL)) {
			status = cli_fail(cli, c->exit, "%s", c->text);
			break;
		}
		now_ns = units_monotonic_ns();
		if (cli->json && every_ns)
			cli_line(cli, "item", json_copy(c->data));
		else if (!cli->json)
			show_stats(stdout, c->data, earlier,
				   (double)(now_ns - before_ns) / (double)NS_PER_SEC);
		json_decref(earlier);
		earlier = json_incref(c->data);
		before_ns = now_ns;
		if (!every_ns) {
			status = cli_done(cli, json_incref(c->data));
			break;
		}
		if (fflush(stdout)) {
			status =
				cli_fail(cli, OUTCOME_FAILED, "can't write to standard output: %m");
			break;
		}
		pause_for(every_ns);
		if (interrupted) {
			status = OUTCOME_INTERRUPTED;
			break;
		}
		if (!cli->json)
			putchar('\n');
	}
	json_decref(earlier);
	return status;
}

static int run_stats(struct cli *cli, int argc, char **argv)
{
	static const struct option longs[] = {
		CLI_LONG, {"interval", required_argument, NULL, 'i'}, {0}};
	int64_t every_ns = 0;
	struct client c;
	int opt, status;

	while ((opt = cli_getopt(cli, argc, argv, ":" CLI_SHORT "i:", longs)) != -1) {
		if (opt == '?')
			return OUTCOME_USAGE;
		if (units_parse_duration(optarg, &every_ns) || every_ns <= 0)
			return cli_usage(cli, "%s is not a time such as 1, 0.5 or 1m", optarg);
	}
	if (argc - optind != 1)
		return cli_usage(cli,
				 argc == optind ? "DIR is missing" : "there are too many operands");
	cli->lines = every_ns;
	if (every_ns)
		catch_signals();
	status = tool_open(cli, &c, argv[optind]);
	if (!status)
		status = stats_loop(cli, &c, every_ns);
	client_close(&c);
	return status;
}

/* ------------------------------------------------------------------ services */

static uint64_t number(const json_t *obj, const char *key)
{
	json_int_t n = json_integer_value(json_object_get(obj, key));

	return n > 0 ? (uint64_t)n : 0;
}

static int show_progress(void *arg, const json_t *line)
{
	progress_show(arg, json_number_value(json_object_get(line, "percent")),
		      number(line, "bytes_per_second"), number(line, "eta_seconds"), line);
	return 0;
}

/* Long work of the daemon's, which is started, looked at and waited for. */
struct service {
	const char *name, *stop; /* stop: the action that ends it */
	const char *actions[6];
	const char *one_of; /* the same, to be read */
	void (*show)(FILE *f, const json_t *state);
};

static int wait_for(struct cli *cli, struct client *c, enum cli_progress how,
		    const struct service *sv)
{
	struct progress p;
	char op[32];
	int status;

	cli->lines = true;
	catch_signals();
	snprintf(op, sizeof(op), "%s.wait", sv->name);
	progress_begin(&p, cli, sv->name, how);
	status = client_call(c, op, NULL, show_progress, &p,
			     (const volatile int *)&interrupted);
	progress_end(&p);
	if (status == OUTCOME_INTERRUPTED && interrupted)
		return cli_fail(cli, status,
				"no longer waiting for %s, which goes on; stop it with: "
				"pmfs-ctl %s %s %s",
				sv->name, sv->name, c->dir, sv->stop);
	if (status == OUTCOME_DAMAGED && c->data) {
		if (!cli->json && !cli->quiet)
			sv->show(stdout, c->data);
		return cli_fail_data(cli, status, outcome_code(OUTCOME_DAMAGED),
				     json_incref(c->data), c->text);
	}
	return status ? cli_fail(cli, status, "%s", c->text) : OUTCOME_DONE;
}

/* The operands DIR and ACTION.  argv: what is left of them. */
static int service_operands(struct cli *cli, const struct service *sv, int argc, char **argv,
			    const char **action)
{
	if (argc != 2)
		return cli_usage(cli, "%s takes DIR and one of %s", sv->name, sv->one_of);
	for (size_t i = 0; sv->actions[i]; i++) {
		if (strcmp(argv[1], sv->actions[i]) != 0)
			continue;
		*action = sv->actions[i];
		snprintf(cli->command, sizeof(cli->command), "pmfs-ctl %s %s", sv->name, *action);
		return OUTCOME_DONE;
	}
	return cli_usage(cli, "%s %s is none of %s", sv->name, argv[1], sv->one_of);
}

/* Takes over args, which may be NULL. */
static int service_ask(struct cli *cli, const struct service *sv, const char *dir,
		       const char *action, json_t *args, enum cli_progress how)
{
	const bool waits = !strcmp(action, "wait");
	struct client c;
	char op[32];
	int status;

	snprintf(op, sizeof(op), "%s.%s", sv->name, action);
	status = tool_open(cli, &c, dir);
	if (status)
		json_decref(args);
	else if (waits)
		status = wait_for(cli, &c, how, sv);
	else
		status = tool_ask(cli, &c, op, args, NULL, NULL);
	if (!status) {
		if (!cli->json && !cli->quiet && (waits || !strcmp(action, "status")))
			sv->show(stdout, c.data);
		status = cli_done(cli, json_incref(c.data));
	}
	client_close(&c);
	return status;
}

static int run_dedup(struct cli *cli, int argc, char **argv)
{
	enum { OPT_PROGRESS = CLI_OPT_FIRST, OPT_ESTIMATE };
	static const struct option longs[] = {
		CLI_LONG,
		{"progress", required_argument, NULL, OPT_PROGRESS},
		{"estimate", no_argument, NULL, OPT_ESTIMATE},
		{0},
	};
	static const struct service dedup = {
		.name = "dedup",
		.stop = "pause",
		.actions = {"start", "status", "wait", "pause", "resume"},
		.one_of = "start, status, wait, pause, resume",
		.show = show_dedup,
	};
	enum cli_progress how = CLI_PROGRESS_AUTO;
	const char *action;
	int opt, status;

	while ((opt = cli_getopt(cli, argc, argv, ":" CLI_SHORT, longs)) != -1) {
		if (opt == '?')
			return OUTCOME_USAGE;
		if (opt == OPT_ESTIMATE)
			return cli_usage(cli, "--estimate is not available yet");
		if (cli_parse_progress(optarg, &how))
			return cli_usage(cli, "--progress=%s is none of auto, bar, json, none",
					 optarg);
	}
	status = service_operands(cli, &dedup, argc - optind, argv + optind, &action);
	return status ? status : service_ask(cli, &dedup, argv[optind], action, NULL, how);
}

/* ------------------------------------------------------------------ scrub */

/* "50M", "50M/s": bytes per second. */
static int parse_rate(const char *text, uint64_t *rate)
{
	char copy[64];
	size_t len = strlen(text);

	if (len > 2 && !strcmp(text + len - 2, "/s"))
		len -= 2;
	if (len >= sizeof(copy))
		return -EINVAL;
	memcpy(copy, text, len);
	copy[len] = 0;
	if (units_parse_size(copy, rate) || !*rate || *rate > INT64_MAX)
		return -EINVAL;
	return 0;
}

static int run_scrub(struct cli *cli, int argc, char **argv)
{
	enum { OPT_PROGRESS = CLI_OPT_FIRST, OPT_RATE, OPT_STRUCTURE };
	static const struct option longs[] = {
		CLI_LONG,
		{"progress", required_argument, NULL, OPT_PROGRESS},
		{"rate", required_argument, NULL, OPT_RATE},
		{"structure", no_argument, NULL, OPT_STRUCTURE},
		{0},
	};
	static const struct service scrub = {
		.name = "scrub",
		.stop = "stop",
		.actions = {"start", "status", "wait", "stop"},
		.one_of = "start, status, wait, stop",
		.show = show_scrub,
	};
	enum cli_progress how = CLI_PROGRESS_AUTO;
	bool structure = false;
	json_t *args = NULL;
	const char *action;
	uint64_t rate = 0;
	int opt, status;

	while ((opt = cli_getopt(cli, argc, argv, ":" CLI_SHORT, longs)) != -1) {
		if (opt == '?')
			return OUTCOME_USAGE;
		if (opt == OPT_STRUCTURE)
			structure = true;
		else if (opt == OPT_RATE && parse_rate(optarg, &rate))
			return cli_usage(cli, "--rate=%s is not a rate such as 50M/s", optarg);
		else if (opt == OPT_PROGRESS && cli_parse_progress(optarg, &how))
			return cli_usage(cli, "--progress=%s is none of auto, bar, json, none",
					 optarg);
	}
	status = service_operands(cli, &scrub, argc - optind, argv + optind, &action);
	if (status)
		return status;
	if (!strcmp(action, "start"))
		args = json_pack("{s:I, s:b}", "rate", (json_int_t)rate, "structure", structure);
	else if (rate || structure)
		return cli_usage(cli, "--rate and --structure go with start");
	return service_ask(cli, &scrub, argv[optind], action, args, how);
}

int main(int argc, char **argv)
{
	static const struct cli_command table[] = {
		{"status", run_status, usage_text},
		{"df", run_df, usage_text},
		{"stats", run_stats, usage_text},
		{"dedup", run_dedup, usage_text},
		{"scrub", run_scrub, usage_text},
		{"sync", run_sync, usage_text},
		{"info", run_info, usage_text},
		{"ring", ring_run, usage_text},
		{"du", NULL, NULL},
		{"compact", NULL, NULL},
		{"trim", NULL, NULL},
		{"resize", NULL, NULL},
		{"get", NULL, NULL},
		{"set", NULL, NULL},
		{"top", NULL, NULL},
		{"map", NULL, NULL},
		{"bench", NULL, NULL},
	};
	struct cli cli;
	int status;

	cli_init(&cli, "pmfs-ctl", usage_text, argc, argv);
	status = cli_dispatch(&cli, table, ARRAY_SIZE(table), argc, argv);
	cli_free(&cli);
	return status;
}
