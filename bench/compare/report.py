"""A Markdown table and a chart of what a run wrote down as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.compare.measure import STEPS, Step
from bench.compare.systems import SYSTEMS

OWN = "fastq"
TITLES = {system.name: system.title for system in SYSTEMS}
GENERATOR_FULL = 0.97  # of a core: then it is the generator that was measured
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


class Run:
    """One run's figures: medians over its rounds."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.lives: list[Life] = data["rounds"]
        self.names = list(dict.fromkeys(life["system"] for life in self.lives))

    def median(self, name: str, step: Step, of: Callable[[Life, Step], float]) -> float:
        return statistics.median(of(life, step) for life in self.lives if life["system"] == name)

    def ratio(self, name: str, step: Step) -> float | None:
        """A system's rate over fastq's of the same round, the median; None without fastq."""
        own = {life["round"]: rate(life, step) for life in self.lives if life["system"] == OWN}
        ratios = [
            rate(life, step) / own[life["round"]]
            for life in self.lives
            if life["system"] == name and own.get(life["round"])
        ]
        return statistics.median(ratios) if ratios else None


def rounded(value: float) -> str:
    """Three digits: more would say more than is known."""
    if value >= 1000:
        digits = len(str(int(value))) - 3
        return f"{round(value / 10**digits) * 10**digits:,}"
    return f"{value:.3g}"


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def head(*cells: str) -> list[str]:
    return [row(*cells), "|---" * len(cells) + "|"]


def rates(run: Run) -> list[str]:
    lines = head("jobs a second (times fastq's)", *[step.title for step in STEPS])
    for name in run.names:
        cells = []
        for step in STEPS:
            ratio = run.ratio(name, step)
            measured = rounded(run.median(name, step, rate))
            cells.append(measured if name == OWN or ratio is None else f"{measured} ({ratio:.2f})")
        lines.append(row(f"**{name}**" if name == OWN else name, *cells))
    return lines


def costs(run: Run) -> list[str]:
    lines = head("server's CPU seconds per 10,000 jobs", *[step.title for step in STEPS])
    for name in run.names:
        lines.append(row(name, *[f"{run.median(name, step, cpu_per_10k):.3f}" for step in STEPS]))
    return lines


def latencies(run: Run) -> list[str]:
    lines = head("submit or ack, p50 / p99 ms", *[step.title for step in STEPS])
    for name in run.names:
        both = [(run.median(name, step, p50_ms), run.median(name, step, p99_ms)) for step in STEPS]
        lines.append(row(name, *[f"{p50:.2f} / {p99:.2f}" for p50, p99 in both]))
    return lines


def waiting(run: Run) -> list[str]:
    if not run.data.get("waiting"):
        return []
    lines = head("waiting jobs", "memory, MB", "bytes a job", "disk, bytes a job", "kill -9 to first lease, s")
    for each in run.data["waiting"]:
        jobs = each["jobs"]
        lines.append(
            row(
                f"{each['system']}, {jobs:,}",
                f"{each['memory_bytes'] / 1e6:,.0f}",
                f"{(each['memory_bytes'] - each['memory_before_bytes']) / jobs:,.0f}",
                f"{each['disk_bytes'] / jobs:,.0f}",
                f"{each['recovery_s']:.2f}",
            )
        )
    return [
        *lines, "",
        "Memory is that of the server started again on these jobs (PSS, all its processes), and what it has more than",
        "an empty one. Disk: what the directory grew by; fastq's without blocks that are only prepared, PostgreSQL's",
        "without its log.",
    ]  # fmt: skip


def remarks(run: Run) -> list[str]:
    """What a reader must know of this run: errors, and where the generator was the limit."""
    lines = []
    for life in run.lives:
        for step in STEPS:
            figures = life["steps"][step.name]
            at = f"{life['system']}, {step.title}, round {life['round']}"
            if figures["errors"]:
                lines.append(f"- {at}: {figures['errors']:,} requests were refused.")
            if figures["generator_share"] >= GENERATOR_FULL:
                lines.append(f"- {at}: the generator was the limit, at {figures['generator_share']:.0%} of its core.")
    highest = max(figures["generator_share"] for life in run.lives for figures in life["steps"].values())
    return [f"- The generator used at most {highest:.0%} of its core.", *lines]


def conditions(run: Run) -> list[str]:
    sizes = run.lives[0]["sync_us"]
    each = {size: [life["sync_us"][size] for life in run.lives] for size in sizes}
    said = "; ".join(
        f"{int(size) // 1024} KiB {statistics.median(times):.0f} µs ({min(times):.0f} to {max(times):.0f})"
        for size, times in each.items()
    )
    how = run.data["options"]
    versions = ", ".join(f"{name} {version}" for name, version in run.data["versions"].items() if name in run.names)
    return [
        f"- {run.data['date']}, `{run.data['command']}`",
        *[f"- {name}: {value}" for name, value in run.data["machine"].items()],
        f"- versions: {versions}",
        f"- write and fdatasync on written blocks, median before each server's start: {said}",
        f"- {how['rounds']} rounds of all systems in turn, {how['seconds']} s for each figure; medians. "
        + ("Server on one core, generator on the other." if how["pinned"] else "Server and generator on any core."),
    ]


def markdown(run: Run, chart: str) -> str:
    parts = [
        ["# fastq beside others"],
        [
            "One system after the other, same machine and file system, all synced to disk before it is answered.",
            "Payload 100 bytes, one job a request but in batches, connections kept, one closed loop each. A cycle is",
            "submit, lease and ack by 64 producers and 64 consumers, a thousand jobs ahead at most. The load comes",
            "from one C program for all of them (`bench/compare/generator.c`), over TCP.",
        ],
        [f"- **{name}**: {TITLES[name]}" for name in run.names],
        ["## This run"],
        conditions(run),
        ["## Rates"],
        [f"![rates]({chart})"],
        rates(run),
        ["## What it costs"],
        costs(run),
        ["## Latency under that load"],
        latencies(run),
        ["## Waiting jobs"] if run.data.get("waiting") else [],
        waiting(run),
        ["## Remarks"],
        remarks(run),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def draw(run: Run, path: Path) -> None:
    """The chart, as SVG."""
    import matplotlib as mpl  # noqa: PLC0415 - it takes a second that only a report should cost

    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    mpl.rcParams["svg.hashsalt"] = OWN
    steps = [step for step in STEPS if step.batch == 1]
    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    width = 0.8 / len(run.names)
    for i, name in enumerate(run.names):
        heights = [run.median(name, step, rate) for step in steps]
        bars = axes.bar([at + i * width for at in range(len(steps))], heights, width, label=name)
        axes.bar_label(bars, [f"{height / 1000:.1f}" for height in heights], fontsize=6)
    axes.set_xticks([at + 0.4 - width / 2 for at in range(len(steps))], [step.title for step in steps])
    axes.set_ylabel("jobs a second")
    axes.set_title("Durable jobs a second (in thousands above the bars)")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def write(data: dict[str, Any], directory: Path) -> Path:
    """comparison.md and comparison.svg; the first one's path."""
    run = Run(data)
    directory.mkdir(parents=True, exist_ok=True)
    draw(run, directory / "comparison.svg")
    path = directory / "comparison.md"
    path.write_text(markdown(run, "comparison.svg"))
    return path
