"""Stage 1, corpus: sequence and text files -> documents per language, held-out ones apart, with a card that says what they are."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_gene import runtime
from llama_gene.data.corpus import SHARD_LETTERS, input_files, write_corpus
from llama_gene.data.settings import ContaminationPolicy, CutPolicy, RepeatPolicy, Settings, Source, SplitPolicy
from llama_gene.data.workers import Engine, check_workers
from llama_gene.errors import ConfigError
from llama_gene.sequences.files import STANDARD_INPUT

CARD_NAME, FIGURE_NAME, DROPPED_NAME = "card.md", "lengths.png", "dropped_records.tsv"


@dataclass
class Config:
    """Stage 1: documents per language."""

    sources: list[Source] = field(default_factory=list)
    """Where the text comes from; several sources may share a language."""
    cut: CutPolicy = field(default_factory=CutPolicy)
    """How records become documents."""
    split: SplitPolicy = field(default_factory=SplitPolicy)
    """What is held out."""
    repeats: RepeatPolicy = field(default_factory=RepeatPolicy)
    """What counts as said already."""
    decontaminate: ContaminationPolicy = field(default_factory=ContaminationPolicy)
    """Evaluation sequences that must not be in the documents."""
    data_dir: Path | None = None
    """Folder that relative inputs are looked up in (LLAMA_GENE_DATA if unset; otherwise the current folder)."""
    seed: int = 0
    """Seed of fragment lengths and of the held-out choice."""
    workers: int = 1
    """Processes that read files at the same time; their number changes no byte of the output."""
    engine: Engine = "local"
    """local: processes of this machine; ray: the Ray cluster that RAY_ADDRESS names (extra `scale`), whose machines share the folders."""
    shard_letters: int = SHARD_LETTERS
    """Letters a file of documents; `pack` works on one file at a time."""
    preview: int = 0
    """Print so many documents of each language, with their tokens, and write nothing."""
    tokenizer: str | None = None
    """Preview: the tokenizer that cuts the documents."""
    output_dir: Path | None = None
    """Folder to write: {language}.{split}/00000.jsonl ..., manifest.json, card.md, lengths.png, dropped_records.tsv."""

    def settings(self) -> Settings:
        """Return what decides the documents, sources apart."""
        return Settings(self.cut, self.split, self.repeats, self.decontaminate)


def run(config: Config) -> Path | None:
    """Write the documents unless they are there, made from the same files in the same way; return the folder."""
    if not config.sources:
        raise ConfigError("no sources are given", "at least one source with inputs", "See docs/own_data.md")
    if config.shard_letters < 1:
        raise ConfigError(f"shard_letters is {config.shard_letters}", "at least 1 letter")
    if config.preview < 0:
        raise ConfigError(f"preview is {config.preview}", "a number of documents, or 0")
    if config.preview:
        from llama_gene.data.preview import preview

        print(preview(config.sources, config.settings(), config.data_dir, config.seed, config.preview, config.tokenizer))
        return None
    if config.output_dir is None:
        raise ConfigError("no output_dir is given", "--output_dir FOLDER")
    check_workers(config.workers, config.engine)
    log = runtime.get_logger()
    out = config.output_dir
    runtime.check_output(out, "corpus")
    known = runtime.read_manifest(out, "corpus").get("inputs", []) if (out / runtime.MANIFEST_NAME).is_file() else []
    groups = input_files(config.sources, config.settings(), config.data_dir)
    runtime.check_inputs_outside(out, [*(path for group in groups for path in group), *_folders_around(out, config)])
    inputs = runtime.hash_files(dict.fromkeys(path for group in groups for path in group), known)
    hashes = {entry["path"]: entry["sha256"] for entry in inputs}
    content = [[(path.name, hashes[str(path)]) for path in group] for group in groups]
    key = runtime.fingerprint([_decisive(config), content, runtime.package_version()])
    is_piped = any(STANDARD_INPUT in source.inputs for source in config.sources)  # nobody knows what will come
    if not is_piped and _is_whole(out, key):
        log.info("corpus: unchanged, %s is reused", out)
        return out
    work = out.resolve().with_name(f".{out.resolve().name}.work")  # finished parts and shards outlive an interrupted run
    with runtime.sole_writer(out):
        made = work / (runtime.fingerprint(time.time_ns()) if is_piped else key)
        for earlier in work.glob("*/"):
            if earlier.name not in ("parts", made.name):
                shutil.rmtree(earlier)  # shards of other inputs or settings
        runtime.make_dir(made, out)
        try:
            languages = write_corpus(
                config.sources,
                config.settings(),
                made,
                config.data_dir,
                config.seed,
                work=work,
                workers=config.workers,
                engine=config.engine,
                shard_letters=config.shard_letters,
                file_hashes=hashes,
            )
        finally:
            runtime.remove_empty([made, work / "parts", work])
        _write_card(made, config, languages, inputs)
        runtime.write_manifest(made, "corpus", config, key=key, inputs=inputs, languages=languages)
        with runtime.whole_dir(out) as folder:
            os.replace(made, folder)  # over an empty folder
        shutil.rmtree(work)
    for language, facts in languages.items():
        log.info("corpus %s: %s", language, _summary(facts))
        if config.split.valid_fraction and not facts["documents"].get("valid"):
            log.warning("corpus %s: nothing is held out for validation; its records are too short or too few (see split)", language)
    return out


def _folders_around(out: Path, config: Config) -> list[Path]:
    """Return input folders that hold the output: what is written there would be read the next time."""
    names = [Path(name) for source in config.sources for name in source.inputs]
    folders = [place for name in names for place in (name, (config.data_dir or Path()) / name) if place.is_dir()]
    return [out for folder in folders if folder.resolve() in out.resolve().parents]


def _decisive(config: Config) -> dict[str, Any]:
    """Return the settings that decide the output's bytes."""
    other = ("data_dir", "workers", "engine", "preview", "tokenizer", "output_dir")
    return {name: value for name, value in runtime.plain(config).items() if name not in other}


def _is_whole(folder: Path, key: str) -> bool:
    """Tell whether a folder is the finished output of this key, with every shard that its manifest counts."""
    if not (folder / runtime.MANIFEST_NAME).is_file():
        return False
    manifest = runtime.read_manifest(folder, "corpus")
    if manifest.get("key") != key:
        return False
    shards = [shard for facts in manifest["languages"].values() for split in facts.get("shards", {}).values() for shard in split]
    return runtime.has_files(folder, shards)


def _write_card(folder: Path, config: Config, languages: dict[str, dict[str, Any]], inputs: list[dict[str, Any]]) -> None:
    """Write what the corpus is: a card, the histogram of document lengths, and which records were dropped for which."""
    from llama_gene.data.corpus_card import corpus_card
    from llama_gene.web.figures import plot_lengths

    rows = [(language, *row) for language, facts in languages.items() for row in facts.pop("dropped_records")]
    if rows:
        table = [("language", "dropped", "kept", "reason"), *rows]
        runtime.write_text(folder / DROPPED_NAME, "".join("\t".join(row) + "\n" for row in table))
    plot_lengths({language: facts["lengths"] for language, facts in languages.items()}, folder / FIGURE_NAME)
    card = corpus_card(config.sources, config.settings(), config.seed, languages, inputs, FIGURE_NAME)
    runtime.write_text(folder / CARD_NAME, card)


def _summary(facts: dict[str, Any]) -> str:
    kept = ", ".join(
        f"{split} {facts['documents'][split]:,} documents / {letters:,} letters" for split, letters in facts["letters_kept"].items()
    )
    rejected = "; ".join(f"{letters:,} {reason}" for reason, letters in facts["letters_rejected"].items()) or "none"
    return f"{facts['letters_read']:,} letters read; kept {kept}; rejected: {rejected}"
