"""The card of a corpus: what it was made of, what became of every letter, and what was left out for which reason; Markdown for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_gene.data.settings import Settings, Source


def corpus_card(
    sources: Sequence[Source],
    settings: Settings,
    seed: int,
    languages: Mapping[str, Mapping[str, Any]],
    inputs: Sequence[Mapping[str, Any]],
    figure: str,
) -> str:
    """Return the card. `inputs` are {"path", "size", "sha256"}, `languages` the facts of the manifest."""
    lines = ["# Corpus", "", "## Sources", "", "| language | kind | content | split | files | licence |", "|---|---|---|---|---|---|"]
    for source in sources:
        cells = [
            source.language,
            source.alphabet_name,
            source.content,
            source.split,
            ", ".join(source.inputs),
            source.licence or "not stated",
        ]
        lines.append(f"| {' | '.join(cell.replace('|', ' ') for cell in cells)} |")
    lines += ["", "| file | bytes | SHA-256, first 16 digits |", "|---|---:|---|"]
    lines += [f"| {Path(entry['path']).name} | {entry['size']:,} | {entry['sha256']} |" for entry in inputs]
    lines += ["", "## Letters", "", "Bases, residues or characters. Read + repeated = kept + rejected.", ""]
    lines += ["| language | records | read | repeated | kept | rejected | documents |", "|---|---:|---:|---:|---|---:|---|"]
    for language, facts in languages.items():
        kept = ", ".join(f"{split} {letters:,}" for split, letters in facts["letters_kept"].items())
        documents = ", ".join(f"{split} {number:,}" for split, number in facts["documents"].items())
        rejected = sum(facts["letters_rejected"].values())
        cells = [f"{facts[name]:,}" for name in ("records", "letters_read", "letters_repeated")]
        lines.append(f"| {language} | {' | '.join(cells)} | {kept} | {rejected:,} | {documents} |")
    for title, name in (("Rejected letters", "letters_rejected"), ("Letters written otherwise", "letters_changed")):
        rows = [(language, reason, number) for language, facts in languages.items() for reason, number in facts[name].items()]
        if rows:
            lines += ["", f"## {title}", "", "| language | reason | letters |", "|---|---|---:|"]
            lines += [f"| {language} | {reason} | {number:,} |" for language, reason, number in rows]
    lines += ["", "## Repeats and contamination", ""]
    for language, facts in languages.items():
        lines.append(f"- {language}: {_left_out(facts)}")
    if not settings.decontaminate.evaluation:
        lines.append("- No evaluation sequences were given: nothing was looked for.")
    split = settings.split
    held = f"{split.valid_fraction:g} for validation, {split.test_fraction:g} for a test"
    lines += [
        "",
        "## How",
        "",
        f"Seed {seed}. DNA fragments of {settings.cut.min_fragment} to {settings.cut.max_fragment} bp, {settings.cut.starts};",
    ]
    lines.append(f"proteins up to {settings.cut.max_protein} residues. Held out: {held} (DNA by {split.dna}, protein by {split.protein}).")
    lines += ["", f"![document lengths]({figure})", ""]
    return "\n".join(lines)


def _left_out(facts: Mapping[str, Any]) -> str:
    """Return what was left out of a language as a repeat or for an evaluation sequence."""
    dropped = (
        ", ".join(f"{number:,} documents: {reason}" for reason, number in facts["documents_rejected"].items()) or "no document dropped"
    )
    told = [dropped]
    if facts["near_duplicates"]:
        told.append(f"{facts['near_duplicates']:,} records repeat a longer one (dropped_records.tsv)")
    if facts["clusters"]:
        told.append(f"{facts['clusters']:,} clusters of relatives decided what is held out")
    told += [f"{number:,} documents met sequences of {name}" for name, number in facts["evaluation_hits"].items()]
    if facts["evaluation_short"]:
        told.append(f"{facts['evaluation_short']:,} evaluation sequences are too short to be looked for")
    return "; ".join(told)
