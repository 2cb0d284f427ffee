"""Stage 3, pack: documents + tokenizer -> packed token rows, one set per language.

While it works, finished shards lie in `.{name}.work` beside the output; a run that was killed goes on with them, and the folder becomes
the output at the end. An output of the same corpus, tokenizer and settings is left as it is; of another corpus, its unchanged shards stay.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_gene import runtime
from llama_gene.data.packing import Packing, RowPacker
from llama_gene.data.workers import Engine, check_workers
from llama_gene.errors import ConfigError, InputError, MismatchError, did_you_mean
from llama_gene.sequences.sources import ENGLISH

MIN_ROW_LENGTH = 8  # below it, most tokens of a row are the beginnings and ends of segments
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"
)  # fmt: skip


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
    packing: Packing = "concatenate"
    """concatenate fills every row and cuts documents at row ends; best_fit keeps documents whole and leaves some places empty."""
    workers: int = 1
    """Processes that pack shards; the rows are the same for any number."""
    engine: Engine = "local"
    """Where they run: on this machine, or on a Ray cluster."""
    output_dir: Path | None = None
    """Folder to write: one folder of Arrow files per language and split, manifest.json."""


def run(config: Config) -> Path:
    """Write the rows, or find them unchanged; return the folder."""
    if config.corpus is None or config.tokenizer is None or config.output_dir is None:
        raise ConfigError("corpus, tokenizer or output_dir is not given", "--corpus, --tokenizer and --output_dir")
    if config.row_length < MIN_ROW_LENGTH:
        raise ConfigError(f"row_length is {config.row_length}", f"at least {MIN_ROW_LENGTH} tokens", "The papers train on 512")
    RowPacker(config.row_length, config.packing)  # refuses what it cannot do before there is work
    check_workers(config.workers, config.engine)
    runtime.check_output(config.output_dir, "pack")
    runtime.check_inputs_outside(config.output_dir, [config.corpus, config.tokenizer])
    from llama_gene.data.rows import FORMAT, choose, write_rows
    from llama_gene.tokenization.tokenizer import load_tokenizer

    log = runtime.get_logger()
    out = config.output_dir
    shards = _shards(config.corpus, config.languages)
    earlier = runtime.read_manifest(out, "pack") if (out / runtime.MANIFEST_NAME).is_file() else {}
    paths = [path for group in shards.values() for path in group]
    tokenizer_paths = _tokenizer_paths(config.tokenizer)
    inputs = runtime.hash_files([*paths, *tokenizer_paths], earlier.get("inputs", []))
    _check_shards(config.corpus, {Path(entry["path"]): entry["sha256"] for entry in inputs})
    place = str(Path(config.tokenizer).resolve()) if tokenizer_paths else config.tokenizer
    names = [*(f"{path.parent.name}/{path.name}" for path in paths), *(path.name for path in tokenizer_paths)]
    content = list(zip(names, (entry["sha256"] for entry in inputs), strict=True))
    key = runtime.fingerprint([FORMAT, runtime.package_version(), content, place, config.row_length, config.packing])
    if tokenizer_paths and earlier.get("key") == key and _is_whole(out, earlier):  # a hub's tokenizer may have changed under its name
        log.info("pack: unchanged, %s is reused", out)
        return out
    tokenizer = load_tokenizer(config.tokenizer)
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"the tokenizer {config.tokenizer} has no end-of-text token", "one, to part documents", "Set eos_token in its config"
        )
    choice = choose(config.tokenizer, tokenizer, config.row_length, config.packing)
    work = out.resolve().with_name(f".{out.resolve().name}.work")  # finished shards outlive an interrupted run
    with runtime.sole_writer(out):
        runtime.make_dir(work, out)
        hashes = {Path(entry["path"]): entry["sha256"] for entry in inputs}
        languages = write_rows(shards, hashes, choice, work, out, config.workers, config.engine)
        runtime.write_manifest(
            work,
            "pack",
            config,
            key=key,
            inputs=inputs,
            languages=languages,
            data=_data_facts(config.corpus, languages),
            vocabulary=choice.vocabulary,
            tokenizer=place,
            row_length=config.row_length,
            packing=config.packing,
        )
        with runtime.whole_dir(out) as folder:
            os.replace(work, folder)  # over an empty folder
    for language, splits in languages.items():
        for split, counts in splits.items():
            log.info("pack %s %s: %s", language, split, _summary(counts, config.row_length))
    return out


def _shards(corpus: Path, languages: list[str]) -> dict[tuple[str, str], list[Path]]:
    """Return the files of documents by language and split; a split without documents is left out."""
    from llama_gene.data.corpus import corpus_shards

    known = runtime.read_manifest(corpus, "corpus")["languages"]
    for language in languages:
        if language not in known:
            raise ConfigError(
                f"the corpus {corpus} has no language '{language}'",
                f"one of {', '.join(known)}",
                did_you_mean(language, known) or "Check languages",
            )
    return {
        (language, split): corpus_shards(corpus, language, split)
        for language in languages or list(known)
        for split in known[language]["documents"]
    }


def _data_facts(corpus: Path, languages: Iterable[str]) -> dict[str, Any]:
    """Return what a model card says about each language: its kind and unit, what was kept, what was dropped as known from evaluation."""
    known = runtime.read_manifest(corpus, "corpus")["languages"]
    units = {ENGLISH: "byte", "protein": "residue"}
    return {
        language: {
            "kind": known[language]["kind"],
            "unit": units.get(known[language]["kind"], "base"),
            "documents": known[language].get("documents", {}),
            "letters": known[language].get("letters_kept", {}),
            "documents_rejected": known[language].get("documents_rejected", {}),
            "evaluation_hits": known[language].get("evaluation_hits", {}),
        }
        for language in languages
    }


def _check_shards(corpus: Path, hashes: dict[Path, str]) -> None:
    """Raise MismatchError for a shard that is not the one that the corpus wrote."""
    for facts in runtime.read_manifest(corpus, "corpus")["languages"].values():
        for shard in (shard for shards in facts["shards"].values() for shard in shards):
            if hashes.get(corpus / shard["file"], shard["sha256"]) != shard["sha256"]:
                raise MismatchError(
                    f"{corpus / shard['file']} was changed or cut", "the file that `corpus` wrote", "Run `llama-gene corpus` again"
                )


def _tokenizer_paths(name: str) -> list[Path]:
    """Return the files that a tokenizer is read from; none for a hub id."""
    path = Path(name)
    folder = path.parent if path.is_file() else path
    beside = [folder / file for file in TOKENIZER_FILES if (folder / file).is_file()]
    return [path, *(file for file in beside if file != path)] if path.is_file() else beside


def _is_whole(folder: Path, manifest: dict[str, Any]) -> bool:
    """Tell whether every file that a manifest counts is there in its size."""
    shards = [shard for splits in manifest["languages"].values() for counts in splits.values() for shard in counts["shards"]]
    return runtime.has_files(folder, shards)


def _summary(counts: dict[str, Any], row_length: int) -> str:
    ratio = counts["letters"] / max(counts["tokens"], 1)
    unused = 100 * counts["unused_tokens"] / max(counts["rows"] * row_length, 1)
    cut = 100 * counts["cut_documents"] / max(counts["documents"], 1)
    sizes = f"{counts['tokens']:,} tokens in {counts['rows']:,} rows, {ratio:.2f} letters a token"
    return f"{sizes}; {unused:.1f} % of the rows' places unused, {cut:.1f} % of the documents cut"
