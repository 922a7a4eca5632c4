# SPDX-License-Identifier: BSD-2-Clause
"""What contrib/bench shows of its figures: lines on the terminal, a table in Markdown, a page with plots."""
import html


def number(value):
    """Three digits that count, thousands apart."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3g}"


def title(row):
    return f"{row['title']} ({'RAM' if row['class'] == 'ram' else 'image'})"


def verdict(goal):
    return {True: "met", False: "missed", None: "not measured"}[goal["met"]]


def extras(figures):
    """Figures of a peer beside the main one."""
    return ", ".join(f"{name.replace('_', ' ')} {number(figures[name]['median'])}" for name in figures
                     if name not in ("value", "samples"))


def print_row(row):
    less = ", less is better" if row["better"] == "less" else ""
    print(f"\n{row['key']}: {title(row)}, {row['unit']}{less}")
    for name, figures in row["peers"].items():
        v = figures["value"]
        spread = f"{number(v['min'])} .. {number(v['max'])}"
        ratio = f"x{number(row['ratios'][name])}" if name in row["ratios"] else ""
        print(f"  {name:15} {number(v['median']):>10}  {spread:25} {ratio:8} {extras(figures)}".rstrip())
    for name, why in row["failed"].items():
        print(f"  {name:15} failed: {why}")
    for goal in row["goals"]:
        print(f"  goal {goal['goal']}: {number(goal['value'])}, {verdict(goal)}", flush=True)


def print_end(result):
    for name, why in result["missing"].items():
        print(f"\nwithout {name}: {why}", end="")
    for note in result["notes"]:
        print(f"\nnote: {note}", end="")
    goals = [g for row in result["rows"] for g in row["goals"] if g["met"] is not None]
    print(f"\n\n{sum(g['met'] for g in goals)} of {len(goals)} goals met, {result['rounds']} rounds, {result['seconds']} s")


def conditions(result):
    """What was special about this run, a sentence an item."""
    m = result["machine"]
    used = m["pmfs_features"]
    sizes = result["params"]
    text = [
        f"{m['cpu']}, {m['cpus']} cores, {m['memory_mib']:,} MiB; Linux {m['kernel']}; {m['versions'].get('pmfs', '')}; "
        f"io_uring {'in use' if used.get('io_uring') else 'not used'}; host filesystem {m['host_filesystem']}; load before "
        f"the run {m['load_before']:.1f}.",
        f"Size \"{result['size']}\": {result['rounds']} rounds; a peer that has taken {sizes['seconds']} s for a row sits out what "
        f"is left after {sizes['least']}. Streams are {sizes['stream']} MiB, trees {sizes['files']:,} files, untar and rm "
        f"{sizes['tar']:,}, git {sizes['git']:,}, snapshots {sizes['tree']:,}; clones {sizes['clone']:,} MiB; dedup "
        f"{sizes['dedup']:,} MiB. It took {result['seconds']} s.",
    ]
    if result["option"]:
        text.append(f"Mount options of pmfs: {result['option']}.")
    if result["one_core"]:
        text.append("All rows with client and daemon on one core.")
    text += result["notes"]
    text += [f"Without {name}: {why}." for name, why in result["missing"].items()]
    return text


METHOD = (
    "The peers of a row take turns inside each round, beginning with another one each time. A figure is the median over the "
    "rounds, with the smallest and the largest; a ratio is that of two medians, above 1 when pmfs is better.",
    "RAM: pmfs ram, tmpfs, and the FUSE peers over tmpfs (fuse2fs on an ext4 image in tmpfs).",
    "Image: pmfs on a sparse file of the host's filesystem; ext4, xfs and btrfs on loop devices with direct I/O over files "
    "beside it whose blocks were all written before, so a flush reaches the same disk for all, and theirs changes no extents "
    "of the host's; \"host\" is the host's filesystem itself; bindfs, fuse-overlayfs and unionfs over the ext4 one, fuse2fs on "
    "a file like the loop devices'. Everything has its default options, but no online discard on loop devices.",
    "Before each measurement the peer is synced. \"Cold\" is POSIX_FADV_DONTNEED for contents and drop_caches for names: what a "
    "FUSE peer is mounted on may still be cached below it. \"One core\": client and daemon are pinned to one.",
    "Files of trees are in directories of 1,000. A fragmented file had every eighth page written again after it had been cloned.",
    "Snapshots: \"daemon us\" is the round trip on the control channel less that of a ping; pmfs-1k and btrfs-1k have a tree of "
    "1,000 files.",
    "Duplicates come in runs of 1 to 512 pages in 16 files; duperemove compares parts of extents, too, in blocks of 128 KiB, "
    "its default (xfs-4k: of 4 KiB), and the share that it found is counted from the extents of the files before and after.",
)


def markdown(result):
    lines = ["| work | pmfs (spread) | peers (ratio, above 1: pmfs is better) | goal | reached |",
             "| --- | --- | --- | --- | --- |"]
    for row in result["rows"]:
        mine = row["peers"].get("pmfs")
        own = "failed"
        if mine:
            v = mine["value"]
            more = extras(mine)
            own = f"{number(v['median'])} {row['unit']} ({number(v['min'])}..{number(v['max'])})" + (f"; {more}" if more else "")
        peers = []
        for name, figures in row["peers"].items():
            if name == "pmfs":
                continue
            more = extras(figures)
            peers.append(f"{name} {number(figures['value']['median'])} (x{number(row['ratios'].get(name))}"
                         f"{'; ' + more if more else ''})")
        peers += [f"{name} failed" for name in row["failed"] if name != "pmfs"]
        goals = "; ".join(g["goal"] for g in row["goals"]) or "-"
        reached = "; ".join(f"{number(g['value'])} {verdict(g)}" for g in row["goals"]) or "-"
        lines.append(f"| {title(row)} | {own} | {', '.join(peers)} | {goals} | {reached} |")
    return "\n".join(lines + [""] + [f"- {sentence}" for sentence in conditions(result)]) + "\n"


# --- the page ------------------------------------------------------------------------------------

STYLE = """
:root { color-scheme: light dark; --bar: #9aa7b5; --own: #d9822b; --ink: #222; --dim: #666; --rule: #ddd; --good: #1a7f37; --bad: #c0392b }
@media (prefers-color-scheme: dark) { :root { --bar: #5d6b7a; --own: #e8973f; --ink: #ddd; --dim: #999; --rule: #444; --good: #4cc26a; --bad: #ff7b6b } }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1180px; margin: 2em auto; padding: 0 1em; color: var(--ink) }
h1 { font-size: 1.5em } h2 { font-size: 1em; margin: 0 0 .3em }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(520px, 1fr)); gap: 1.4em }
section { border-top: 1px solid var(--rule); padding-top: .7em }
svg { width: 100%; height: auto; display: block; font: 12px system-ui, sans-serif }
svg text { fill: var(--ink) } .dim { fill: var(--dim); color: var(--dim) }
.met { color: var(--good) } .missed { color: var(--bad) } p { margin: .3em 0 }
table { border-collapse: collapse } td, th { padding: .15em .8em .15em 0; text-align: left; border-bottom: 1px solid var(--rule) }
"""

BAR_HEIGHT, LABEL, PLOT, WIDTH = 20, 110, 250, 520


def plot(row):
    """Bars from zero, one a peer, with a line from the smallest to the largest figure."""
    top = max(f["value"]["max"] for f in row["peers"].values()) or 1
    parts = []
    for i, (name, figures) in enumerate(row["peers"].items()):
        v, y = figures["value"], i * BAR_HEIGHT
        at = {k: LABEL + PLOT * v[k] / top for k in ("median", "min", "max")}
        color = "var(--own)" if name.startswith("pmfs") else "var(--bar)"
        ratio = f"×{number(row['ratios'][name])}" if name in row["ratios"] else ""
        middle = y + BAR_HEIGHT / 2
        parts.append(
            f'<text x="{LABEL - 6}" y="{y + 14}" text-anchor="end">{html.escape(name)}</text>'
            f'<rect x="{LABEL}" y="{y + 3}" width="{max(1, at["median"] - LABEL):.1f}" height="{BAR_HEIGHT - 6}" fill="{color}"/>'
            f'<path d="M{at["min"]:.1f} {middle}H{at["max"]:.1f}" stroke="currentColor" stroke-width="1.2"/>'
            f'<text x="{LABEL + PLOT + 8}" y="{y + 14}">{number(v["median"])}<tspan class="dim" dx="8">{ratio}</tspan></text>')
    height = BAR_HEIGHT * len(row["peers"])
    return (f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{html.escape(title(row), quote=True)}">'
            + "".join(parts) + "</svg>")


def section(row):
    less = ", less is better" if row["better"] == "less" else ""
    out = [f'<section><h2>{html.escape(title(row))} <span class="dim">{html.escape(row["unit"] + less)}</span></h2>']
    if row["peers"]:
        out.append(plot(row))
    for name, figures in row["peers"].items():
        if extras(figures):
            out.append(f'<p class="dim">{html.escape(name)}: {html.escape(extras(figures))}</p>')
    for name, why in row["failed"].items():
        out.append(f'<p class="dim">{html.escape(name)} failed: {html.escape(why)}</p>')
    for goal in row["goals"]:
        word = verdict(goal)
        out.append(f'<p>goal {html.escape(goal["goal"])}: {number(goal["value"])}, '
                   f'<span class="{word.split()[0]}">{word}</span></p>')
    return "".join(out) + "</section>"


def page(result):
    goals = [g for row in result["rows"] for g in row["goals"] if g["met"] is not None]
    versions = "".join(f"<tr><th>{html.escape(n)}</th><td>{html.escape(v)}</td></tr>"
                       for n, v in result["machine"]["versions"].items())
    return "\n".join([
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>pmfs beside its peers</title>',
        f"<style>{STYLE}</style></head><body><h1>pmfs beside its peers</h1>",
        f"<p>{html.escape(result['date'])}. {sum(g['met'] for g in goals)} of {len(goals)} goals met. Bars are medians, the line "
        "on a bar goes from the smallest to the largest figure; × is pmfs' ratio to that peer, above 1 when pmfs is better.</p>",
        "<main>", *map(section, result["rows"]), "</main>", "<h1>How it was measured</h1><ul>",
        *(f"<li>{html.escape(sentence)}</li>" for sentence in conditions(result) + list(METHOD)), "</ul>",
        f"<h1>Versions</h1><table>{versions}</table></body></html>", ""])
