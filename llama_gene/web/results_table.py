"""Results in Markdown: a line a task, what it must beat, and what is reported apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Result = Mapping[str, Any]


def results_table(results: Sequence[Result]) -> str:
    """Return the Markdown table of evaluated tasks, a line each.

    A result has task, family, metric, n, score, interval (low, high) and, None where unknown, ceiling, published, and baselines (name ->
    score); shortened and rejected count rows whose prompt was too long. A share of shortened rows is written beside n.
    """
    return _markdown(*task_cells(results))


def task_cells(results: Sequence[Result]) -> tuple[list[str], list[str], list[list[str]]]:
    """Return head, alignment and lines of the table of tasks."""
    names = baseline_names(results)
    head = ["task", "family", "metric", "n", *names, "ours [95 % interval]", "ceiling", "published"]
    lines = []
    for result in results:
        n = f"{result['n']:,}"
        if result.get("shortened"):
            n += f" ({100 * result['shortened'] / result['n']:.0f} % shortened)"
        if result.get("rejected"):
            n += f" (+{result['rejected']} too long)"
        baselines = [number((result.get("baselines") or {}).get(name, {}).get("score")) for name in names]
        ours = with_interval(result.get("score"), result.get("interval"))
        first = [str(result[key]) for key in ("task", "family", "metric")]
        lines.append([*first, n, *baselines, ours, number(result.get("ceiling")), str(result.get("published") or "-")])
    return head, ["---"] * 3 + ["---:"] * (len(names) + 3) + ["---"], lines


def baselines_table(results: Sequence[Result]) -> str:
    """Return the Markdown table of ours less each baseline, with the p of a paired test on the same rows, and what the baseline was;
    empty without baselines."""
    head, marks, lines = baseline_cells(results)
    return _markdown(head, marks, lines) if lines else ""


def baseline_cells(results: Sequence[Result]) -> tuple[list[str], list[str], list[list[str]]]:
    """Return head, alignment and lines of the table of baselines."""
    lines = []
    for result in results:
        for name, entry in (result.get("baselines") or {}).items():
            theirs = with_interval(entry["score"], entry["interval"])
            if entry.get("sd") is not None:
                theirs += f" (sd {number(entry['sd'])} of {len(entry['scores'])} seeds)"
            difference = with_interval(entry["difference"], entry["difference_interval"], sign=True)
            what = baseline_words((result.get("baseline_facts") or {}).get(name) or {})
            lines.append([str(result["task"]), name, theirs, difference, p_value(entry["p"]), entry["test"] or "-", what])
    head = ["task", "baseline", "its score [95 %]", "ours less it [95 %]", "p", "test", "what it was"]
    return head, ["---", "---", "---:", "---:", "---:", "---", "---"], lines


def baseline_words(facts: Mapping[str, Any]) -> str:
    """Return what a baseline was on a task: its note, and the share of the rows that it had evidence for.

    >>> baseline_words({"note": "by MMseqs2", "coverage": 0.834}), baseline_words({})
    ('by MMseqs2; evidence for 83.4 % of the rows', '-')
    """
    parts = [facts["note"]] if facts.get("note") else []
    if facts.get("coverage") is not None:
        parts.append(f"evidence for {100 * facts['coverage']:.1f} % of the rows")
    return "; ".join(parts) or "-"


def not_run_table(results: Sequence[Result]) -> str:
    """Return the Markdown table of baselines that gave no answer, with the reason and its tasks; empty without any."""
    head, marks, lines = not_run_cells(results)
    return _markdown(head, marks, lines) if lines else ""


def not_run_cells(results: Sequence[Result]) -> tuple[list[str], list[str], list[list[str]]]:
    """Return head, alignment and lines of the table of baselines that gave no answer."""
    found: dict[tuple[str, str], list[str]] = {}
    for result in results:
        for name, facts in (result.get("baseline_facts") or {}).items():
            if facts.get("reason"):
                found.setdefault((name, facts["reason"]), []).append(str(result["task"]))
    lines = [[name, reason, ", ".join(tasks)] for (name, reason), tasks in found.items()]
    return ["baseline not run", "why", "tasks"], ["---"] * 3, lines


def subsets_table(results: Sequence[Result]) -> str:
    """Return the Markdown table of populations that are reported apart; empty without any."""
    head, marks, lines = subset_cells(results)
    return _markdown(head, marks, lines) if lines else ""


def subset_cells(results: Sequence[Result]) -> tuple[list[str], list[str], list[list[str]]]:
    """Return head, alignment and lines of the table of subsets."""
    names = baseline_names(results)
    lines = []
    for result in results:
        for name, entry in (result.get("subsets") or {}).items():
            baselines = [number((entry.get("baselines") or {}).get(baseline)) for baseline in names]
            ours = with_interval(entry["score"], entry["interval"])
            lines.append([str(result["task"]), name, entry["metric"], f"{entry['n']:,}", *baselines, ours])
    head = ["task", "rows", "metric", "n", *names, "ours [95 % interval]"]
    return head, ["---"] * 3 + ["---:"] * (len(names) + 2), lines


def ontologies_table(results: Sequence[Result]) -> str:
    """Return the Markdown table of F-max and S-min, a line for each ontology and model; empty without any."""
    head, marks, lines = ontology_cells(results)
    return _markdown(head, marks, lines) if lines else ""


def ontology_cells(results: Sequence[Result]) -> tuple[list[str], list[str], list[list[str]]]:
    """Return head, alignment and lines of the table of ontologies."""
    lines = []
    for result in results:
        for entry in (result.get("ontologies") or {}).values():
            counts = [f"{entry[key]:,}" for key in ("proteins", "terms")]
            for name, scored in entry["scored"].items():
                numbers = [with_interval(scored[key], scored[f"{key}_interval"]) for key in ("fmax", "smin")]
                lines.append([str(result["task"]), entry["name"], *counts, name, *numbers])
    head = ["task", "ontology", "proteins", "terms", "by", "F-max [95 %]", "S-min, bits [95 %]"]
    return head, ["---", "---", "---:", "---:", "---", "---:", "---:"], lines


def controls_table(results: Sequence[Result]) -> str:
    """Return the Markdown table of baselines trained on shuffled labels; empty without any."""
    head, marks, lines = control_cells(results)
    return _markdown(head, marks, lines) if lines else ""


def control_cells(results: Sequence[Result]) -> tuple[list[str], list[str], list[list[str]]]:
    """Return head, alignment and lines of the table of baselines trained on shuffled labels."""
    lines = []
    for result in results:
        for name, control in (result.get("controls") or {}).items():
            mean = f"{with_interval(control['score'], control['interval'])} (sd {number(control['sd'])})"
            lot = control["chance"]
            chance = "-" if lot is None else f"{lot['metric']} {with_interval(lot['score'], lot['interval'], sign=True)}"
            verdict = "sits at the majority" if control["sits"] else f"does NOT sit: {control['reason']}"
            cells = [str(len(control["scores"])), control["metric"], mean, number(control["majority"]), chance, verdict]
            lines.append([str(result["task"]), name, *cells])
    head = ["task", "on shuffled labels", "shuffles", "metric", "mean [95 %]", "majority", "chance [99.99 %]", "verdict"]
    return head, ["---", "---", "---:", "---", "---:", "---:", "---:", "---"], lines


def remarks(results: Sequence[Result]) -> list[str]:
    """Return what a reader of the tables must know: off-list answers, low against high, the authors' scorer, what was not measured."""
    found = []
    if off_list := [f"{result['task']} {result['off_list']}" for result in results if result.get("off_list")]:
        found.append(f"Answers off the list of labels (counted as wrong): {', '.join(off_list)}.")
    for result in results:
        if halves := result.get("low_high"):
            reason = halves["reason"] and f"not given, {halves['reason']}"
            found.append(
                f"{result['task']}, accuracy of low against high: {reason or with_interval(halves['accuracy'], halves['interval'])}."
            )
        if paper := result.get("paper_scorer"):
            found.append(f"{result['task']}, by the authors' scorer: {with_interval(paper['score'], paper['interval'])}.")
        found += [
            f"{result['task']}, {name} trained on shuffled labels does NOT sit at the majority: {control['reason']}."
            for name, control in (result.get("controls") or {}).items()
            if not control["sits"]
        ]
        found += [f"{result['task']}: {note}." for note in result.get("notes") or []]
    return found


def baseline_names(results: Iterable[Result]) -> list[str]:
    """Return the names of all baselines, in the order of first sight."""
    return list(dict.fromkeys(name for result in results for name in result.get("baselines") or {}))


def number(value: float | None, sign: bool = False) -> str:
    """Return a metric as text, "-" for None."""
    return "-" if value is None else f"{value:+.3f}" if sign else f"{value:.3f}"


def with_interval(value: float | None, edges: Sequence[float] | None, sign: bool = False) -> str:
    """Return a metric with its interval.

    >>> with_interval(0.75, [0.7, 0.8])
    '0.750 [0.700, 0.800]'
    """
    return number(value, sign) + (f" [{number(edges[0], sign)}, {number(edges[1], sign)}]" if edges else "")


def p_value(p: float | None) -> str:
    """Return p to two digits.

    >>> p_value(0.0431), p_value(1e-9), p_value(None)
    ('0.043', '< 0.001', '-')
    """
    return "-" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _markdown(head: list[str], marks: list[str], lines: list[list[str]]) -> str:
    safe = [[cell.replace("|", "\\|") for cell in cells] for cells in (head, marks, *lines)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in safe) + "\n"
