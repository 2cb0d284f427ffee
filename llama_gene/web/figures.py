"""Figures of the reports, drawn with matplotlib's Agg back end (no display needed) and written whole or not at all.

matplotlib is imported inside the functions, as an object of its own and not through pyplot, so no global state is left behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from llama_gene.runtime import whole_file

OURS, MAJORITY, FLOOR, CEILING = "#3b6fb6", "#888888", "#d1742c", "#3c8d4f"


def plot_results(results: Sequence[Mapping[str, Any]], path: Path, title: str = "") -> None:
    """Draw a bar with its interval for each evaluated task, and marks for majority, k-mer floor and ceiling."""
    shown = [result for result in results if result.get("score") is not None]
    figure, axes = _new_figure(width=max(5.0, 1.6 + 1.1 * len(shown)), height=4.2)
    places = list(range(len(shown)))
    scores = [result["score"] for result in shown]
    axes.bar(places, scores, width=0.55, color=OURS, label="ours, 95 % interval", zorder=2)
    for place, result in zip(places, shown, strict=True):
        if result.get("interval"):
            axes.plot([place, place], result["interval"], color="black", linewidth=1.4, zorder=3)
    for key, color, label in [("majority", MAJORITY, "majority"), ("kmer_floor", FLOOR, "k-mer floor"), ("ceiling", CEILING, "ceiling")]:
        marks = [(place, result[key]) for place, result in zip(places, shown, strict=True) if result.get(key) is not None]
        if marks:
            heights, lefts, rights = zip(*((value, place - 0.4, place + 0.4) for place, value in marks), strict=True)
            axes.hlines(heights, lefts, rights, color, linewidth=2, label=label, zorder=4)
    axes.set_xticks(places, [f"{result['task']}\n{result['metric']}" for result in shown], rotation=30, ha="right", fontsize=8)
    lowest = min([0.0, *scores, *(result["interval"][0] for result in shown if result.get("interval"))])
    axes.set_ylim(lowest * 1.1, 1.05)
    axes.set_title(title, fontsize=10)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.35), ncols=4, frameon=False)
    write_figure(figure, path)


def plot_loss(history: Sequence[Mapping[str, float]], path: Path, looks: Sequence[Mapping[str, float]] = ()) -> None:
    """Draw the training loss against the step, and beside it what held-out rows cost.

    `history` holds {"step", "loss"}, `looks` {"step", "held_out/LANGUAGE": bits per base, residue or byte}; other keys are ignored.
    """
    from matplotlib.figure import Figure

    points = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry and "step" in entry]
    figure = Figure(figsize=(10.0 if looks else 6.0, 3.6), layout="constrained")
    panels = figure.subplots(1, 2 if looks else 1, squeeze=False)[0]
    marker = "." if len(points) < 40 else None
    panels[0].plot([step for step, _ in points], [loss for _, loss in points], color=OURS, linewidth=1.4, marker=marker)
    panels[0].set_ylabel("loss (nats per token)")
    names = dict.fromkeys(name for look in looks for name in look if name.startswith("held_out/"))
    for name, color in zip(names, cycle((OURS, FLOOR, CEILING, MAJORITY)), strict=False):
        curve = [(look["step"], look[name]) for look in looks if name in look]
        panels[1].plot(*zip(*curve, strict=True), color=color, linewidth=1.4, marker=".", label=name.rpartition("/")[2])
    if looks:
        panels[1].set_ylabel("held out: bits per base, residue or byte")
        panels[1].legend(fontsize=8, frameon=False)
    for axes in panels:
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
    write_figure(figure, path)


def plot_lengths(histograms: Mapping[str, Mapping[str, Sequence[int]]], path: Path) -> None:
    """Draw the document lengths of each language, one panel a language; a histogram is {"edges", "documents"}."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 2.2 * len(histograms)), layout="constrained")
    for axes, (language, histogram) in zip(figure.subplots(len(histograms), squeeze=False)[:, 0], histograms.items(), strict=True):
        axes.stairs(histogram["documents"], histogram["edges"], fill=True, color=OURS)
        axes.set_title(language, fontsize=9, loc="left")
        axes.set_ylabel("documents", fontsize=8)
        axes.grid(alpha=0.3)
    axes.set_xlabel("letters (bases, residues, characters)", fontsize=8)
    write_figure(figure, path)


def _new_figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    return figure, figure.add_subplot()


def write_figure(figure: Any, path: Path) -> None:
    """Write a PNG. Its bytes depend on the data only: no date, no version of the library inside (law 15)."""
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130, bbox_inches="tight", metadata={"Software": None})
