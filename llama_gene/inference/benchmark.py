"""The table that shows evaluated tasks beside what they must beat (`inference.baselines`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llama_gene.inference.baselines.rows import majority_baseline
from llama_gene.inference.baselines.simple import kmer_floor

__all__ = ["kmer_floor", "majority_baseline", "results_table"]


def results_table(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the Markdown table of evaluated tasks, a line each.

    A result has task, family, metric, n, score, interval (low, high) and, None where unknown, majority, kmer_floor, ceiling, published;
    shortened and rejected count rows whose prompt was too long. A share of shortened rows is written beside n.
    """
    head = ["task", "family", "metric", "n", "majority", "k-mer floor", "ours [95 % interval]", "ceiling", "published"]
    lines = [head, ["---"] * 3 + ["---:"] * 5 + ["---"]]
    for result in results:
        n = f"{result['n']:,}"
        if result.get("shortened"):
            n += f" ({100 * result['shortened'] / result['n']:.0f} % shortened)"
        if result.get("rejected"):
            n += f" (+{result['rejected']} too long)"
        ours = _number(result.get("score"))
        if result.get("interval"):
            low, high = result["interval"]
            ours += f" [{low:.3f}, {high:.3f}]"
        baselines = [_number(result.get("majority")), _number(result.get("kmer_floor"))]
        names = [str(result[key]).replace("|", "\\|") for key in ("task", "family", "metric")]
        published = str(result.get("published") or "-").replace("|", "\\|")
        lines.append([*names, n, *baselines, ours, _number(result.get("ceiling")), published])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
