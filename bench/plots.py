"""How plots look: on white, readable on GitHub's light and dark pages alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.figures import Spread

OURS, PEERS, QUIET, BAR = "#1f6feb", "#8c959f", "#2da44e", "#cf222e"

matplotlib.rcParams.update({
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#d0d7de",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "axes.formatter.min_exponent": 4,
    "font.size": 10,
    # The same figures give the same file.
    "svg.hashsalt": "pg_reaper",
})  # fmt: skip


def figure(height: float, columns: int = 1, rows: int = 1, **kwargs: object) -> tuple[Figure, list[Axes]]:
    """A figure as wide as a page and its axes, from left to right and top to bottom."""
    drawn = Figure(figsize=(9, height), layout="constrained")
    axes = drawn.subplots(rows, columns, squeeze=False, **kwargs)
    return drawn, list(axes.flat)


def bar_line(axes: Axes, value: float, label: str, across: bool = False) -> None:
    """The bar to be met, as a line: upright, or across the plot."""
    line = axes.axhline if across else axes.axvline
    line(value, color=BAR, linestyle="--", linewidth=1.4, label=label, zorder=3)


def contest(axes: Axes, results: Mapping[str, Spread], ours: Sequence[str], unit: float = 1.0) -> None:
    """Bars that lie, from the top in the order given: medians, every measurement a dot."""
    names = list(results)
    medians = [results[name].median / unit for name in names]
    colours = [OURS if name in ours else PEERS for name in names]
    axes.barh(names, medians, color=colours, height=0.62)
    for place, name in enumerate(names):
        values = [value / unit for value in results[name].values]
        axes.plot(values, [place] * len(values), "o", color="black", markersize=3, alpha=0.55)
        axes.annotate(
            f"{medians[place]:,.0f}", (max(values), place), xytext=(6, 0), textcoords="offset points", va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1}, zorder=4,
        )  # fmt: skip
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    most = max(result.most for result in results.values()) / unit
    axes.set_xlim(0, most * 1.14)


def legend(axes: Axes, **where: object) -> None:
    """A legend that covers no data: beneath the plot."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, **where)


def save(drawn: Figure, path: Path) -> None:
    """Writes the figure as SVG, without the date."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(path, dpi=160, metadata={"Date": None}, facecolor="white")
