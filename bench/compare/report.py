"""The Markdown page and the chart of a run's JSON."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.compare.chart import draw
from bench.compare.measure import STEPS, Step
from bench.compare.systems import SYSTEMS

OWN = "fastq"
TITLES = {system.name: system.title for system in SYSTEMS}
GENERATOR_FULL = 0.97  # of its core: from here on the generator is the limit
NOTHING = "–"
# fastq's goals, set before it was written, for a machine of the same kind. Columns as in `figures`.
GOALS = {
    "goal, at least": "5,000 32,000 60,000 70,000 20,000 300,000 0.17 200 150 1.0",
    "goal, aimed at": "6,000 38,000 72,000 88,000 25,000 500,000 0.13 160 130 0.7",
}
ORDER = ("submit-1", "submit-16", "submit-64", "submit-256", "cycle", "batch")
Life = dict[str, Any]


def rate(life: Life, step: Step) -> float:
    figures = life["steps"][step.name]
    return step.operations(figures) / float(figures["seconds"])


def p50_ms(life: Life, step: Step) -> float:
    return float(life["steps"][step.name]["p50_us"]) / 1000


def p99_ms(life: Life, step: Step) -> float:
    return float(life["steps"][step.name]["p99_us"]) / 1000


def cpu_per_10k(life: Life, step: Step) -> float:
    figures = life["steps"][step.name]
    return float(figures["server_cpu_s"]) / max(1, step.operations(figures)) * 10_000


def generator_share(life: Life, step: Step) -> float:
    return float(life["steps"][step.name]["generator_share"])


class Run:
    """One run's figures: medians over its rounds. None: no figure."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.lives: list[Life] = data["rounds"]
        self.names = list(dict.fromkeys(life["system"] for life in self.lives))
        steps = {step.name: step for step in STEPS}
        self.steps = [steps[name] for name in ORDER]
        self.stores = {each["system"]: each for each in data.get("waiting", []) if "failed" not in each}

    def median(self, name: str, step: Step, of: Callable[[Life, Step], float]) -> float | None:
        each = [of(life, step) for life in self.lives if life["system"] == name and step.name in life["steps"]]
        return statistics.median(each) if each else None

    def ratio(self, name: str, step: Step, of: Callable[[Life, Step], float]) -> float | None:
        """The median over the rounds of fastq's figure divided by the system's."""
        rounds: dict[int, dict[str, float]] = {}
        for life in self.lives:
            if step.name in life["steps"]:
                rounds.setdefault(life["round"], {})[life["system"]] = of(life, step)
        both = [each[OWN] / each[name] for each in rounds.values() if each.get(name) and OWN in each]
        return statistics.median(both) if both else None

    def stored(self, name: str, key: str) -> float | None:
        """A figure of all waiting jobs: `memory_bytes`, `disk_bytes` or `recovery_s`."""
        return self.stores[name][key] if name in self.stores else None


def rounded(value: float | None) -> str:
    """Round to three digits: more are noise."""
    if value is None:
        return NOTHING
    if value >= 1000:
        digits = len(str(int(value))) - 3
        return f"{round(value / 10**digits) * 10**digits:,}"
    return f"{value:.3g}"


def shown(value: float | None, form: str) -> str:
    return NOTHING if value is None else format(value, form)


def table(heads: list[str], rows: list[list[str]]) -> list[str]:
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def own(name: str) -> str:
    return f"**{name}**" if name == OWN else name


def figures(run: Run) -> list[str]:
    """The table of all columns."""
    submit_64 = next(step for step in run.steps if step.name == "submit-64")
    heads = [
        "jobs a second", *[step.title for step in run.steps],
        "server's CPU s per 10,000 (c=64)", "waiting: memory, MB", "disk, bytes a job", "kill -9 to first lease, s",
    ]  # fmt: skip
    rows = []
    for name in run.names:
        memory, disk = run.stored(name, "memory_bytes"), run.stored(name, "disk_bytes")
        jobs = run.stored(name, "jobs") or 1
        faults = [life["failed"] for life in run.lives if life["system"] == name and "failed" in life]
        rows.append([
            f"{own(name)} (failed: {faults[0]})" if faults else own(name),
            *[rounded(run.median(name, step, rate)) for step in run.steps],
            shown(run.median(name, submit_64, cpu_per_10k), ".3f"), shown(memory and memory / 1e6, ",.0f"),
            shown(disk and disk / jobs, ",.0f"), shown(run.stored(name, "recovery_s"), ".2f"),
        ])  # fmt: skip
    rows += [[goal, *cells.split()] for goal, cells in GOALS.items()]
    return table(heads, rows)


def ratios(run: Run) -> list[str]:
    heads = ["fastq's rate, times that of", *[step.title for step in run.steps]]
    rows = [
        [name, *[shown(run.ratio(name, step, rate), ".2f") for step in run.steps]] for name in run.names if name != OWN
    ]
    return table(heads, rows)


def costs(run: Run) -> list[str]:
    heads = ["server's CPU seconds per 10,000 jobs", *[step.title for step in run.steps]]
    return table(
        heads,
        [[own(name), *[shown(run.median(name, step, cpu_per_10k), ".3f") for step in run.steps]] for name in run.names],
    )


def latencies(run: Run) -> list[str]:
    rows = []
    for name in run.names:
        both = [(run.median(name, step, p50_ms), run.median(name, step, p99_ms)) for step in run.steps]
        rows.append([own(name), *[f"{shown(p50, '.2f')} / {shown(p99, '.2f')}" for p50, p99 in both]])
    return table(["submit or ack, p50 / p99 ms", *[step.title for step in run.steps]], rows)


def generators(run: Run) -> list[str]:
    heads = ["load generator's part of its core", *[step.title for step in run.steps]]
    rows = [
        [own(name), *[shown(run.median(name, step, generator_share), ".0%") for step in run.steps]]
        for name in run.names
    ]
    return table(heads, rows)


def waiting(run: Run) -> list[str]:
    rows = []
    for each in run.stores.values():
        more = each["memory_bytes"] - each["memory_before_bytes"]
        rows.append([
            f"{each['system']}, {each['jobs']:,}", f"{each['memory_bytes'] / 1e6:,.0f}", f"{more / each['jobs']:,.0f}",
            f"{each['disk_bytes'] / each['jobs']:,.0f}", f"{each['recovery_s']:.2f}",
        ])  # fmt: skip
    if not rows:
        return []
    heads = ["waiting jobs", "memory, MB", "bytes a job", "disk, bytes a job", "kill -9 to first lease, s"]
    return [
        *table(heads, rows), "",
        "Memory is the PSS of all processes of the server after a restart on these jobs; bytes a job is the difference",
        "to an empty server. Disk is the growth of the directory: for fastq without blocks that are only prepared, for",
        "PostgreSQL without its log.",
    ]  # fmt: skip


def remarks(run: Run) -> list[str]:
    """Remarks for the reader: failures, refused requests, and where the generator was the limit."""
    lines = [f"- {each['system']} failed: {each['failed']}" for each in run.data.get("waiting", []) if "failed" in each]
    for life in run.lives:
        if "failed" in life:
            lines.append(f"- {life['system']} failed in round {life['round']}, no more turns: {life['failed']}")
        for step in run.steps:
            if step.name not in life["steps"]:
                continue
            found = life["steps"][step.name]
            at = f"{life['system']}, {step.title}, round {life['round']}"
            if found["errors"]:
                lines.append(f"- {at}: {found['errors']:,} requests were refused.")
            if found["generator_share"] >= GENERATOR_FULL:
                lines.append(f"- {at}: the generator was the limit, at {found['generator_share']:.0%} of its core.")
    return lines or ["- Nothing failed, nothing was refused, and the generator was never the limit."]


def conditions(run: Run) -> list[str]:
    each = {size: [life["sync_us"][size] for life in run.lives] for size in run.lives[0]["sync_us"]}
    said = "; ".join(
        f"{int(size) // 1024} KiB {statistics.median(times):.0f} µs ({min(times):.0f} to {max(times):.0f})"
        for size, times in each.items()
    )
    how = run.data["options"]
    versions = ", ".join(f"{name} {version}" for name, version in run.data["versions"].items())
    return [
        f"- {run.data['date']}, `{run.data['command']}`, {run.data.get('took_s', 0) / 60:.0f} minutes",
        *[f"- {name}: {value}" for name, value in run.data["machine"].items()],
        f"- versions: {versions}",
        f"- write and fdatasync on written blocks, median before each server's start: {said}",
        f"- {how['rounds']} rounds of all systems in turn, {how['seconds']} s for each figure; medians. "
        + ("Server on one core, generator on the other." if how["pinned"] else "Server and generator on any core."),
    ]


def markdown(run: Run, chart: str) -> str:
    parts = [
        ["# fastq beside others"],
        [f"![jobs a second, processor time and memory of each system]({chart})"],
        [
            "The systems run one after the other on the same machine and file system. Each syncs every change to disk",
            "before it answers. A payload has 100 bytes and a request one job, except in batches (100 jobs, 16",
            "connections). Connections stay open; each sends its next request after the answer. c is the number of",
            "connections. A cycle is submit, lease and ack: 64 connections submit, 64 lease and ack, and at most a",
            "thousand jobs wait. One C program, `bench/compare/generator.c`, makes the load for all systems, over TCP.",
        ],
        [f"- {own(name)}: {TITLES[name]}" for name in run.names],
        ["## This run"], conditions(run),
        ["## Figures"], figures(run),
        ["The goals are from another machine of this kind. The ratios below are of this run."],
        ratios(run),
        ["## What it costs"], costs(run),
        ["## Latency under that load"], latencies(run),
        ["## Waiting jobs"] if run.stores else [], waiting(run),
        ["## Remarks"], remarks(run),
        generators(run),
    ]  # fmt: skip
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def panels(run: Run) -> list[tuple[str, dict[str, float | None]]]:
    """The chart's: title, figure by system."""
    found = {step.name: step for step in run.steps}
    titles = {
        "submit-1": "submit, 1 connection", "submit-16": "submit, 16", "submit-64": "submit, 64",
        "submit-256": "submit, 256", "cycle": "submit, lease and ack", "batch": "submit in batches of 100",
    }  # fmt: skip
    drawn = [
        (f"{title}\njobs/s", {name: run.median(name, found[step], rate) for name in run.names})
        for step, title in titles.items()
    ]
    cost = {name: run.median(name, found["submit-64"], cpu_per_10k) for name in run.names}
    drawn.append(("server's CPU for 10,000 submits\nseconds, less is better", cost))
    if run.stores:
        jobs = max(each["jobs"] for each in run.stores.values())
        memory = {name: run.stored(name, "memory_bytes") for name in run.names}
        in_mb = {name: value and value / 1e6 for name, value in memory.items()}
        drawn.append((f"memory, {round(jobs, -5):,} waiting jobs\nMB, less is better", in_mb))
    return drawn


def write(data: dict[str, Any], directory: Path) -> Path:
    """comparison.md and comparison.svg; the first one's path."""
    run = Run(data)
    directory.mkdir(parents=True, exist_ok=True)
    title = "Durable job queues on one core: every answer waits for the disk"
    draw(title, panels(run), OWN, directory / "comparison.svg")
    path = directory / "comparison.md"
    path.write_text(markdown(run, "comparison.svg"))
    return path
