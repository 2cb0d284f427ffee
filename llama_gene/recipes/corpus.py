"""Stage 1, corpus: sequence and text files -> documents per language, held-out ones apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_gene import runtime
from llama_gene.data.corpus import CutPolicy, Source, write_corpus
from llama_gene.errors import ConfigError


@dataclass
class Config:
    """Stage 1: documents per language."""

    sources: list[Source] = field(default_factory=list)
    """Where the text comes from; several sources may share a language."""
    cut: CutPolicy = field(default_factory=CutPolicy)
    """How records become documents."""
    data_dir: Path | None = None
    """Folder that relative inputs are looked up in (LLAMA_GENE_DATA if unset; otherwise the current folder)."""
    seed: int = 0
    """Seed of fragment lengths and of the held-out choice."""
    output_dir: Path | None = None
    """Folder to write: {language}.train.jsonl, {language}.valid.jsonl, manifest.json."""


def run(config: Config) -> Path:
    """Write the documents; return the folder."""
    if config.output_dir is None:
        raise ConfigError("no output_dir is given", "--output_dir FOLDER")
    if not config.sources:
        raise ConfigError("no sources are given", "at least one source with inputs", "See docs/own_data.md")
    log = runtime.get_logger()
    with runtime.whole_dir(config.output_dir) as folder:
        languages = write_corpus(config.sources, config.cut, folder, config.data_dir, config.seed)
        runtime.write_manifest(folder, "corpus", config, languages=languages)
    for language, counts in languages.items():
        log.info("corpus %s: %s", language, _summary(counts))
    return config.output_dir


def _summary(counts: dict[str, Any]) -> str:
    kept = ", ".join(
        f"{split} {counts['documents'][split]:,} documents / {letters:,} letters" for split, letters in counts["letters_kept"].items()
    )
    rejected = "; ".join(f"{letters:,} {reason}" for reason, letters in counts["letters_rejected"].items()) or "none"
    return f"{counts['letters_read']:,} letters read; kept {kept}; rejected: {rejected}"
