"""Stage 3, pack: documents + tokenizer -> packed token rows, one set per language."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from llama_gene import runtime
from llama_gene.errors import ConfigError, InputError, did_you_mean

MIN_ROW_LENGTH = 8  # below it, most tokens of a row are the beginnings and ends of segments


@dataclass
class Config:
    """Stage 3: token rows."""

    corpus: Path | None = None
    """Folder written by `llama-gene corpus`."""
    tokenizer: str | None = None
    """Tokenizer folder (written by `llama-gene vocab`), or any Hugging Face tokenizer."""
    languages: list[str] = field(default_factory=list)
    """Languages to pack; empty: all of the corpus."""
    row_length: int = 512
    """Tokens a row (LLaMA-Gene trains on 512)."""
    output_dir: Path | None = None
    """Folder to write: one Arrow folder per language and split, manifest.json."""


def run(config: Config) -> Path:
    """Write the rows; return the folder."""
    from llama_gene.data.rows import write_rows
    from llama_gene.tokenization.tokenizer import load_tokenizer, vocabulary_fingerprint

    if config.corpus is None or config.tokenizer is None or config.output_dir is None:
        raise ConfigError("corpus, tokenizer or output_dir is not given", "--corpus, --tokenizer and --output_dir")
    if config.row_length < MIN_ROW_LENGTH:
        raise ConfigError(f"row_length is {config.row_length}", f"at least {MIN_ROW_LENGTH} tokens", "The papers train on 512")
    known = runtime.read_manifest(config.corpus, "corpus")["languages"]
    for language in config.languages:
        if language not in known:
            raise ConfigError(
                f"the corpus {config.corpus} has no language '{language}'",
                f"one of {', '.join(known)}",
                did_you_mean(language, known) or "Check languages",
            )
    tokenizer = load_tokenizer(config.tokenizer)
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"the tokenizer {config.tokenizer} has no end-of-text token", "one, to part documents", "Set eos_token in its config"
        )
    log = runtime.get_logger()
    with runtime.whole_dir(config.output_dir) as folder:
        languages = write_rows(config.corpus, config.languages or list(known), tokenizer, config.row_length, folder)
        runtime.write_manifest(
            folder,
            "pack",
            config,
            languages=languages,
            vocabulary=vocabulary_fingerprint(tokenizer),
            tokenizer=str(path.resolve()) if (path := Path(config.tokenizer)).exists() else config.tokenizer,
            row_length=config.row_length,
        )
    for language, splits in languages.items():
        for split, counts in splits.items():
            ratio = counts["letters"] / max(counts["tokens"], 1)
            tokens, rows = f"{counts['tokens']:,}", f"{counts['rows']:,}"
            log.info("pack %s %s: %s tokens in %s rows, %.2f letters a token", language, split, tokens, rows, ratio)
    return config.output_dir
