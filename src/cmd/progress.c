/* SPDX-License-Identifier: BSD-2-Clause */
#include "cmd/progress.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/units.h"

#define COLUMNS 80u
#define BAR_MIN 10u
#define BAR_MAX 60u

void progress_begin(struct progress *p, struct cli *cli, const char *what, enum cli_progress how)
{
	if (how == CLI_PROGRESS_AUTO)
		how = cli->json				     ? CLI_PROGRESS_JSON
		      : isatty(STDERR_FILENO) && !cli->quiet ? CLI_PROGRESS_BAR
							     : CLI_PROGRESS_NONE;
	*p = (struct progress){.cli = cli, .what = what, .how = how};
}

void progress_format(char *buf, size_t len, const char *what, double percent,
		     uint64_t bytes_per_second, uint64_t eta_seconds, unsigned int columns)
{
	char rate[UNITS_BUF] = "", eta[UNITS_BUF] = "", head[64], tail[128], bar[BAR_MAX + 1];
	unsigned int width, full;

	percent = MAX(0.0, MIN(percent, 100.0));
	if (bytes_per_second)
		units_format_size(rate, sizeof(rate), bytes_per_second);
	if (eta_seconds)
		units_format_duration(eta, sizeof(eta),
				      (int64_t)MIN(eta_seconds, 86400u * 365u) * NS_PER_SEC);
	snprintf(head, sizeof(head), "%.20s %5.1f %%", what, percent);
	snprintf(tail, sizeof(tail), "%s%s%s%s%s", *rate ? "  " : "", rate, *rate ? "/s" : "",
		 *eta ? "  ETA " : "", eta);
	width = (unsigned int)(strlen(head) + strlen(tail)) +
		4; /* " [" and "]" and the last column */
	width = columns > width + BAR_MIN ? MIN(columns - width, BAR_MAX) : BAR_MIN;
	full = (unsigned int)(percent / 100.0 * width);
	memset(bar, '#', full);
	memset(bar + full, ' ', width - full);
	bar[width] = 0;
	snprintf(buf, len, "%s [%s]%s", head, bar, tail);
}

void progress_show(struct progress *p, double percent, uint64_t bytes_per_second,
		   uint64_t eta_seconds, const json_t *data)
{
	struct winsize ws;
	char line[256];
	json_t *obj;

	if (p->how == CLI_PROGRESS_JSON) {
		obj = data ? json_copy((json_t *)(uintptr_t)data) : json_object();
		if (obj) {
			json_object_set_new(obj, "percent", json_real(percent));
			json_object_set_new(obj, "type", json_string("progress"));
			json_dumpf(obj, stdout, JSON_COMPACT);
			putchar('\n');
			fflush(stdout);
		}
		json_decref(obj);
	} else if (p->how == CLI_PROGRESS_BAR) {
		progress_format(line, sizeof(line), p->what, percent, bytes_per_second, eta_seconds,
				!ioctl(STDERR_FILENO, TIOCGWINSZ, &ws) && ws.ws_col ? ws.ws_col
										    : COLUMNS);
		fprintf(stderr, "\r%s\033[K", line);
		p->drawn = true;
	}
}

void progress_end(struct progress *p)
{
	if (p->drawn)
		fputs("\r\033[K", stderr);
	p->drawn = false;
}
