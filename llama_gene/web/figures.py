"""Figures of the reports, drawn with matplotlib's Agg back end (no display needed) and written whole or not at all.

matplotlib is imported inside the functions, as an object of its own and not through pyplot, so no global state is left behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from itertools import cycle
from pathlib import Path
from typing import Any

from llama_gene.runtime import whole_file

OURS, MAJORITY, FLOOR, CEILING = "#3b6fb6", "#888888", "#d1742c", "#3c8d4f"
BASELINES = (MAJORITY, FLOOR, "#8a4fa3", "#b8a12f", "#c23b5a", "#5fb3c4", "#7a5a3a", "#222222")
MOST_LABELS = 30
"""Above this, a confusion matrix cannot be read."""


def plot_results(results: Sequence[Mapping[str, Any]], path: Path, title: str = "") -> None:
    """Draw a bar with its interval for each evaluated task, and marks for its baselines and ceiling."""
    with whole_file(path) as temporary:
        temporary.write_bytes(bars(results, title))


def bars(results: Sequence[Mapping[str, Any]], title: str = "") -> bytes:
    """Return a PNG of a bar with its interval for each evaluated task, with a mark for each baseline and the ceiling."""
    shown = [result for result in results if result.get("score") is not None]
    figure, axes = _new_figure(width=max(6.5, 1.6 + 1.1 * len(shown)), height=4.2)
    places = list(range(len(shown)))
    scores = [result["score"] for result in shown]
    axes.bar(places, scores, width=0.55, color=OURS, label="ours, 95 % interval", zorder=2)
    for place, result in zip(places, shown, strict=True):
        if result.get("interval"):
            axes.plot([place, place], result["interval"], color="black", linewidth=1.4, zorder=5)
    names = list(dict.fromkeys(name for result in shown for name in result.get("baselines") or {}))
    marks = [
        (name, [(result.get("baselines") or {}).get(name, {}).get("score") for result in shown], color)
        for name, color in zip(names, cycle(BASELINES), strict=False)
    ]
    marks.append(("ceiling", [result.get("ceiling") for result in shown], CEILING))
    for name, values, color in marks:
        known = [(place, value) for place, value in zip(places, values, strict=True) if value is not None]
        if known:
            lefts, rights = [place - 0.4 for place, _ in known], [place + 0.4 for place, _ in known]
            axes.hlines([value for _, value in known], lefts, rights, color, linewidth=2, label=name, zorder=4)
    axes.set_xticks(places, [f"{result['task']}\n{result['metric']}" for result in shown], rotation=30, ha="right", fontsize=8)
    lowest = min([0.0, *scores, *(result["interval"][0] for result in shown if result.get("interval"))])
    axes.set_ylim(lowest * 1.1, 1.05)
    axes.set_title(title, fontsize=10)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.06), ncols=4, frameon=False)
    return png(figure)


def confusions(results: Sequence[Mapping[str, Any]]) -> bytes:
    """Return a PNG of confusion matrices, three a line: a row a true label, a column an answer, shares of the row and counts."""
    figure, panels = _panels(len(results), size=3.6)
    for axes, result in zip(panels, results, strict=True):
        labels = result["labels"]
        answers = [*labels, None] if any(cell["answer"] is None for cell in result["confusion"]) else list(labels)
        counts = [[0] * len(answers) for _ in labels]
        for cell in result["confusion"]:
            counts[labels.index(cell["output"])][answers.index(cell["answer"])] += cell["n"]
        shares = [[count / max(sum(row), 1) for count in row] for row in counts]
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        if len(labels) <= 10:
            for y, row in enumerate(counts):
                for x, count in enumerate(row):
                    axes.text(x, y, f"{count:,}", ha="center", va="center", fontsize=7, color="white" if shares[y][x] > 0.6 else "black")
        axes.set_xticks(range(len(answers)), [_short(answer or "off the list") for answer in answers], rotation=40, ha="right", fontsize=7)
        axes.set_yticks(range(len(labels)), [_short(label) for label in labels], fontsize=7)
        axes.set_title(_short(str(result["task"]), 40), fontsize=9)
        axes.set_xlabel("answer", fontsize=7)
        axes.set_ylabel("true label", fontsize=7)
    return png(figure)


def calibrations(results: Sequence[Mapping[str, Any]]) -> bytes:
    """Return a PNG of reliability curves, three a line: accuracy of the rows of a confidence, which would lie on the diagonal."""
    figure, panels = _panels(len(results), size=3.0)
    for axes, result in zip(panels, results, strict=True):
        bins, total = result["calibration"]["bins"], result["n"]
        axes.plot([0, 1], [0, 1], color=MAJORITY, linewidth=1, linestyle="--")
        axes.plot([entry["confidence"] for entry in bins], [entry["accuracy"] for entry in bins], color=OURS, linewidth=1.2)
        sizes = [12 + 120 * entry["n"] / total for entry in bins]  # the area tells how many rows
        axes.scatter([entry["confidence"] for entry in bins], [entry["accuracy"] for entry in bins], s=sizes, color=OURS, zorder=3)
        axes.set_xlim(0, 1.03)
        axes.set_ylim(-0.03, 1.03)
        axes.set_title(f"{_short(str(result['task']), 34)}\nexpected error {result['calibration']['ece']:.3f}", fontsize=8)
        axes.set_xlabel("confidence", fontsize=7)
        axes.set_ylabel("accuracy", fontsize=7)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    return png(figure)


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


def _panels(num: int, size: float) -> tuple[Any, Any]:
    """Return a figure with `num` panels, three a line; what is left of the last line is empty."""
    from matplotlib.figure import Figure

    columns = min(num, 3)
    lines = -(-num // columns)
    figure = Figure(figsize=(size * 1.15 * columns, size * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in panels[num:]:
        axes.set_axis_off()
    return figure, panels[:num]


def _short(text: str, most: int = 22) -> str:
    """Return a label that fits beside an axis."""
    return text if len(text) <= most else text[: most - 1] + "…"


def png(figure: Any) -> bytes:
    """Return a figure as PNG. Its bytes depend on the data only: no date, no version of the library inside (law 15)."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=130, bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()


def write_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_bytes(png(figure))
