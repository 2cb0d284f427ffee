"""evaluate with evidence: the nearest annotated sequences of each asked row go into its prompt, as many as fit the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_gene.errors import ConfigError

if TYPE_CHECKING:
    from llama_gene.recipes.evaluate_tasks import Asked


def add_evidence(examples: dict[str, dict[str, Any]], folder: Path | None, max_identity: float, hits: int, asked: Asked) -> Any:
    """Put neighbours into the asked rows of every task (train rows, which only baselines read, stay); return what results.json says.

    None without an index. Raises ConfigError where no task has a sequence of the index's kind, and what `open_index` raises.
    """
    if folder is None:
        return None
    from llama_gene.data.evidence import ADDITION, EvidenceChoice, with_evidence
    from llama_gene.data.evidence_index import open_index

    index, choice = open_index(folder), EvidenceChoice(hits, max_identity)
    if not any(index.kind in splits[asked.config.split][0]["kinds"] for splits in examples.values()):
        raise ConfigError(f"{folder} indexes {index.kind}", "a task with such sequences", "Leave --evidence out, or name another index")
    whole = replace(asked, config=replace(asked.config, shorten=False))  # neighbours give way before letters of the question do
    told: dict[str, Any] = {}
    for name, splits in examples.items():
        for split in dict.fromkeys((asked.config.split, "dev")):
            splits[split], counts = with_evidence(splits[split], index, choice, lambda row: _fits(row, whole), f"evidence of {name}")
            if split == asked.config.split:
                told[name] = vars(counts)
    facts = {"index": str(folder), "fingerprint": index.fingerprint, "addition": ADDITION}
    return {**facts, "max_identity": max_identity, "hits": hits, "tasks": told}


def _fits(row: Any, asked: Asked) -> bool:
    """Return whether a row's prompt is one that the evaluation would take."""
    from llama_gene.recipes.evaluate_tasks import encode_rows

    [prompt], _ = encode_rows([row], row["labels"] if asked.config.scorer == "likelihood" else [], asked)
    return prompt is not None


def render_evidence(facts: dict[str, Any]) -> str:
    """Return what results.md says of the evidence."""
    lines = [
        f"Evidence: neighbours of index `{facts['fingerprint']}`, at most {facts['hits']} a sequence, records above "
        f"{facts['max_identity']:.0%} identity passed over.",
        "",
        "| task | rows | with neighbours | neighbours | records passed over | rows without room for all |",
        "|---|---|---|---|---|---|",
    ]
    names = ("rows", "with_neighbours", "neighbours", "passed_over", "rows_without_room")
    lines += [f"| {task} | {' | '.join(f'{counts[name]:,}' for name in names)} |" for task, counts in facts["tasks"].items()]
    return "\n".join(lines)
