"""Results as one HTML file that needs nothing else: tables, bars with intervals, confusion matrices, calibration curves.

Figures are PNGs written into the page. The same results give the same bytes (law 15).
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from llama_gene.web import figures
from llama_gene.web.results_table import (
    baseline_cells,
    control_cells,
    not_run_cells,
    number,
    ontology_cells,
    remarks,
    subset_cells,
    task_cells,
    with_interval,
)

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1c1c1c; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-size: 0.86rem; display: block; overflow-x: auto; }
th, td { padding: 0.25rem 0.7rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top; }
.right { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
img { max-width: 100%; height: auto; }
.warning { background: #fff3cd; padding: 0.5rem 0.8rem; border-left: 4px solid #d1742c; }
"""
_HOW = (
    "Intervals are 95 %: Wilson's for a share of independent rows, else a bootstrap that draws whole groups (proteins, genes). "
    "p belongs to a paired test of the same rows. AUPR is at the share of positives that the task states, where it states one. "
    "Off-list answers are wrong, and a class of their own in MCC."
)


def results_page(report: Mapping[str, Any]) -> str:
    """Return the page of a report (what results.json holds)."""
    results = report["tasks"]
    facts = [f"{name} {report[name]}" for name in ("head", "template", "scorer", "split") if report.get(name)]
    parts = [f"<h1>Evaluation of {escape(str(report['model']))}</h1>", f"<p>{escape(', '.join(facts))}. {_HOW}</p>"]
    if report.get("simulated"):
        parts.append("<p class='warning'>The data is simulated: scores say that the route works, nothing about real genes.</p>")
    if results:
        parts += ["<h2>Tasks</h2>", _table(*task_cells(results)), _figure(figures.bars(results), "Scores with intervals and baselines")]
        parts += [f"<p>{escape(remark)}</p>" for remark in remarks(results)]
        parts += ["<h2>Beside the baselines</h2>", _table(*baseline_cells(results))]
        missing = not_run_cells(results)
        parts += [_table(*missing)] if missing[2] else []
        subsets = subset_cells(results)
        parts += ["<h2>Reported apart</h2>", _table(*subsets)] if subsets[2] else []
        ontologies = ontology_cells(results)
        parts += ["<h2>Gene Ontology, terms propagated</h2>", _table(*ontologies)] if ontologies[2] else []
        controls = control_cells(results)
        parts += ["<h2>Trained on shuffled labels</h2>", _table(*controls)] if controls[2] else []
        parts += ["<h2>Every metric</h2>", _table(*_metric_cells(results))]
        parts += _confusion(results) + _calibration(results)
    if report.get("languages"):
        parts += ["<h2>Languages</h2>", _table(*_language_cells(report["languages"]))]
    body = "\n".join(parts)
    title = escape(f"Evaluation of {report['model']}")
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _confusion(results: Sequence[Mapping[str, Any]]) -> list[str]:
    shown = [result for result in results if result.get("confusion") and len(result["labels"]) <= figures.MOST_LABELS]
    if not shown:
        return []
    return ["<h2>Confusion</h2>", _figure(figures.confusions(shown), "Confusion matrices: rows of a true label, columns of answers")]


def _calibration(results: Sequence[Mapping[str, Any]]) -> list[str]:
    shown = [result for result in results if result.get("calibration")]
    if not shown:
        return []
    head = ["task", "expected calibration error", "Brier score"]
    lines = [[str(result["task"]), *(number(result["calibration"][key]) for key in ("ece", "brier"))] for result in shown]
    figure = _figure(figures.calibrations(shown), "Calibration: accuracy against confidence")
    return ["<h2>Calibration</h2>", _table(head, ["---", "---:", "---:"], lines), figure]


_METRICS = {
    "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "mcc": "MCC", "macro_f1": "macro-F1", "micro_f1": "micro-F1",
    "auroc": "AUROC", "aupr": "AUPR", "spearman": "Spearman", "pearson": "Pearson", "exact_match": "exact match", "word_f1": "word F1",
}  # fmt: skip


def _metric_cells(results: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str], list[list[str]]]:
    """Return a table of every metric; its interval follows in brackets, as everywhere."""
    keys = [key for key in _METRICS if any(result.get(key) is not None for result in results)]
    lines = [
        [str(result["task"]), *(with_interval(result.get(key), (result.get("intervals") or {}).get(key)) for key in keys)]
        for result in results
    ]
    return ["task", *(_METRICS[key] for key in keys)], ["---"] + ["---:"] * len(keys), lines


def _language_cells(languages: Mapping[str, Any]) -> tuple[list[str], list[str], list[list[str]]]:
    head = ["language", "unit", "held-out letters", "bits before", "bits after"]
    lines = []
    for name, facts in languages.items():
        before = number(facts["before"]["bits_per_letter"]) if "before" in facts else "-"
        lines.append([name, facts["unit"], f"{facts['after']['letters']:,}", before, number(facts["after"]["bits_per_letter"])])
    return head, ["---", "---", "---:", "---:", "---:"], lines


def _table(head: Sequence[str], marks: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return an HTML table; a mark that ends in a colon aligns its column to the right, as in Markdown."""
    sides = [' class="right"' if mark.endswith(":") else "" for mark in marks]

    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}{side}>{escape(cell)}</{tag}>" for cell, side in zip(cells, sides, strict=True)) + "</tr>"

    return "<table>\n" + "\n".join([row(head, "th"), *(row(cells, "td") for cells in lines)]) + "\n</table>"


def _figure(png: bytes, words: str) -> str:
    return f'<p><img alt="{escape(words)}" src="data:image/png;base64,{b64encode(png).decode()}"></p>'
