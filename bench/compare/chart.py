"""The chart of a comparison: a panel for each figure, a bar for each system."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OWN_COLOR, PEER_COLOR = "#0b7285", "#c3c9d0"
TEXT_COLOR, QUIET_COLOR = "#212529", "#6c757d"
COLUMNS = 4


def short(value: float) -> str:
    """Three digits, thousands as k."""
    if value >= 100_000:
        return f"{value / 1000:,.0f}k"
    if value >= 1000:
        return f"{value / 1000:,.1f}k"
    return f"{value:.3g}"


def panel(axes: Axes, title: str, by_system: dict[str, float | None], own: str) -> None:
    names = list(by_system)
    widest = max([value for value in by_system.values() if value is not None], default=1.0) or 1.0
    for at, name in enumerate(names):
        value = by_system[name]
        is_own = name == own
        axes.barh(at, value or 0, height=0.7, color=OWN_COLOR if is_own else PEER_COLOR)
        axes.text(
            (value or 0) + widest * 0.02, at, "failed" if value is None else short(value), va="center", fontsize=9,
            color=OWN_COLOR if is_own else TEXT_COLOR, fontweight="bold" if is_own else "normal",
        )  # fmt: skip
    what, unit = title.split("\n")
    axes.set_title(what, fontsize=10, loc="left", color=TEXT_COLOR, pad=16, fontweight="bold")
    axes.text(0, 1.02, unit, transform=axes.transAxes, fontsize=8, color=QUIET_COLOR)
    axes.set_xlim(0, widest * 1.25)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(range(len(names)), names, fontsize=9)
    for label, name in zip(axes.get_yticklabels(), names, strict=True):
        label.set_color(OWN_COLOR if name == own else TEXT_COLOR)
        label.set_fontweight("bold" if name == own else "normal")
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color(PEER_COLOR)


def draw(title: str, panels: list[tuple[str, dict[str, float | None]]], own: str, path: Path) -> None:
    """Draw an SVG with its letters as outlines, so that it looks the same everywhere.

    Args:
        panels: title, a line break and unit; then the figure of each system, None if it has none.
        own: the system to highlight.
    """
    import matplotlib as mpl  # noqa: PLC0415 - it takes a second that only a report should cost

    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    mpl.rcParams["svg.hashsalt"] = own
    rows = -(-len(panels) // COLUMNS)
    figure, grid = plt.subplots(rows, COLUMNS, figsize=(13, 0.6 + 2.9 * rows), layout="constrained", squeeze=False)
    figure.get_layout_engine().set(wspace=0.06, hspace=0.1)  # type: ignore[union-attr, call-arg]
    for axes, (head, by_system) in zip(grid.flat, panels, strict=False):
        panel(axes, head, by_system, own)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_axis_off()
    figure.suptitle(title, fontsize=13, x=0.01, ha="left", color=TEXT_COLOR)
    figure.savefig(path, metadata={"Date": None}, facecolor="white")
    plt.close(figure)
