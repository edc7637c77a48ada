"""Tables and a chart of a run's JSON."""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.sdk.cases import CASES, Case

Life = dict[str, Any]
SUBMITS = {
    "submit": "one by one", "submit_async": "async, {} at a time", "submit_many": "1,000 a call",
}  # fmt: skip
STORES = {"fastq": "synced", "never": "not synced", "always": "synced"}
QUIET = 0.05  # the machine is quiet while other processes use at most this share


def rate(life: Life, part: str) -> float:
    return float(life[part]["jobs"]) / float(life[part]["seconds"])


def line(life: Life) -> str:
    return (
        f"{life['side']}, {life['case']}, {STORES[life['sync']]}: submit {rate(life, 'submit'):,.0f}/s, "
        f"work {rate(life, 'work'):,.0f}/s"
    )


def rounded(value: float) -> str:
    """Round to three digits: more are noise."""
    digits = max(0, len(str(int(value))) - 3)
    return f"{round(value / 10**digits) * 10**digits:,}" if value >= 100 else f"{value:.3g}"


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def head(*cells: str) -> list[str]:
    return [row(*cells), "|---" * len(cells) + "|"]


def server_version(program: str) -> str:
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()


class Run:
    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.lives: list[Life] = data["lives"]
        self.rows = [
            (case, sync)
            for case in CASES
            for sync in (["fastq"] if case.side == "fastq" else case.syncs)
            if any((life["side"], life["case"], life["sync"]) == (case.side, case.name, sync) for life in self.lives)
        ]

    def median(self, case: Case, sync: str, of: Callable[[Life], float]) -> float:
        return statistics.median(
            of(life)
            for life in self.lives
            if (life["side"], life["case"], life["sync"]) == (case.side, case.name, sync)
        )

    def cells(self, case: Case, sync: str, part: str) -> list[str]:
        """Rate, its spread over the rounds, and the client's and the server's CPU microseconds a job."""
        rates = [
            rate(life, part)
            for life in self.lives
            if (life["side"], life["case"], life["sync"]) == (case.side, case.name, sync)
        ]
        client = self.median(case, sync, lambda life: life[part]["cpu_s"] / life[part]["jobs"] * 1e6)
        server = self.median(case, sync, lambda life: life[part]["server_cpu_s"] / life[part]["jobs"] * 1e6)
        spread = f"{rounded(min(rates))} to {rounded(max(rates))}"
        return [rounded(statistics.median(rates)), spread, f"{client:.0f}", f"{server:.0f}"]


def named(case: Case, sync: str) -> list[str]:
    return [f"**{case.side}**" if case.side == "fastq" else case.side, STORES[sync]]


def submits(run: Run) -> list[str]:
    lines = head("", "store", "submit", "jobs/s", "over the rounds", "client, µs CPU a job", "server, µs CPU a job")
    seen = set()
    for case, sync in run.rows:
        how = SUBMITS[case.submit].format(case.at_a_time)
        if (case.side, how, sync) not in seen:
            seen.add((case.side, how, sync))
            lines.append(row(*named(case, sync), how, *run.cells(case, sync, "submit")))
    return lines


def works(run: Run) -> list[str]:
    lines = head("", "store", "worker", "jobs/s", "over the rounds", "client, µs CPU a job", "server, µs CPU a job")
    return lines + [row(*named(case, sync), case.name, *run.cells(case, sync, "work")) for case, sync in run.rows]


def best(run: Run, part: str, own: bool) -> tuple[float, str]:
    rates = [
        (run.median(case, sync, lambda life: rate(life, part)), f"{case.side}, {case.name}, {STORES[sync]}")
        for case, sync in run.rows
        if (case.side == "fastq") == own and not (part == "submit" and case.submit == "submit_many")
    ]
    return max(rates)


def conditions(run: Run) -> list[str]:
    data = run.data
    others = [life[part]["others_share"] for life in run.lives for part in ("submit", "work")]
    quiet = "The machine did nothing else." if max(others) <= QUIET else (
        f"The machine was not quiet: others used {statistics.median(others):.0%} of its processors, "
        f"{min(others):.0%} to {max(others):.0%}, while a figure was taken."
    )  # fmt: skip
    packages = ", ".join(package for side in data["packages"].values() for package in side)
    return [
        f"- {data['date']}, `{data['command']}`, {data['rounds']} rounds of all cases in turn; medians. {quiet}",
        *[f"- {name}: {value}" for name, value in data["machine"].items()],
        f"- {data['redis']}; {packages}",
    ]


def markdown(run: Run) -> str:
    lead, follow = best(run, "work", True), best(run, "work", False)
    parts = [
        ["# The SDK beside task queues on Redis"],
        [
            "The tasks do nothing, so the figures are those of the library and its server. First one process submits",
            "all tasks, then one worker process runs them. fastq syncs every submit and every ack to disk before it",
            "answers. Redis runs in two ways: *not synced*, where a crash of the machine loses acknowledged jobs, and",
            "*synced* (`appendfsync always`), which promises the same as fastq. RQ, arq and SAQ store results, as",
            "fastq does; Celery and Dramatiq do not. Celery acknowledges a task before it runs, which is its default:",
            "a killed worker loses tasks.",
        ],
        [
            f"The fastest worker of the others ({follow[1]}) does {rounded(follow[0])} jobs/s,",
            f"that of fastq ({lead[1]}) {rounded(lead[0])}. A program that submits one job at a time waits for one",
            "sync to disk for each job; a Redis that does not sync answers sooner.",
        ],
        ["## This run"],
        conditions(run),
        ["## Submit"],
        submits(run),
        ["## Work"],
        ["![jobs a second](sdk.svg)"],
        works(run),
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def draw(run: Run, path: Path) -> None:
    """The chart, as SVG."""
    import matplotlib as mpl  # noqa: PLC0415 -- it takes a second that only a report should cost

    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    mpl.rcParams["svg.hashsalt"] = "fastq"
    rows = run.rows[::-1]
    figure, axes = plt.subplots(figsize=(9, 6.5), layout="constrained")
    rates = [run.median(case, sync, lambda life: rate(life, "work")) for case, sync in rows]
    colors = ["tab:blue" if case.side == "fastq" else "silver" for case, _ in rows]
    bars = axes.barh([f"{case.side}, {case.name}, {STORES[sync]}" for case, sync in rows], rates, color=colors)
    axes.bar_label(bars, [rounded(each) for each in rates], fontsize=7, padding=3)
    axes.set_xlabel("tasks that do nothing, a second, by one worker process")
    axes.tick_params(axis="y", labelsize=8)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def write(data: dict[str, Any], directory: Path) -> Path:
    """Write sdk.json, sdk.svg and sdk.md. Returns the path of sdk.md."""
    run = Run(data)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "sdk.json").write_text(json.dumps(data, indent=1) + "\n")
    draw(run, directory / "sdk.svg")
    path = directory / "sdk.md"
    path.write_text(markdown(run))
    return path
