"""Corpus: sequence and text files become documents per language, training and held-out ones apart.

    sources -> parts (documents.py) -> what stays, on which side (repeats.py) -> shards of documents

A corpus folder holds `{language}.{split}/00000.jsonl, 00001.jsonl ...`, {"id", "text"} a line, in the order of the sources and files. A
shard ends with the document that brings it to `shard_letters`. All letters are accounted for: read + repeated == kept + rejected, with
reasons.

Parts and shards are made by tasks (workers.py), written whole or not at all, and named by what they depend on. So a run that was killed
goes on where it was, and the number of workers changes nothing.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from llama_gene import runtime
from llama_gene.data.documents import FORMAT, Part, PartTask, make_part, read_table
from llama_gene.data.repeats import DROPPED, Decisions, check_named, decide, num_letters_to_cluster
from llama_gene.data.settings import MAX_CLUSTERED_LETTERS, SPLITS, Settings, Source
from llama_gene.data.splits import evaluation_files, evaluation_sequences
from llama_gene.data.workers import Engine, run_tasks
from llama_gene.errors import ConfigError, InputError, MissingFileError
from llama_gene.sequences.alphabet import get_alphabet, read_letters, reverse_complement, write_letters
from llama_gene.sequences.files import STANDARD_INPUT
from llama_gene.sequences.records import read_documents
from llama_gene.sequences.sources import ENGLISH
from llama_gene.tokenization.inputs import find_paths

SHARD_LETTERS = 32_000_000  # about 6 million tokens: a minute of one core to pack


@dataclass(frozen=True)
class ShardTask:
    """One shard to write: lines of parts, (part folder, numbers of the documents) in order."""

    folder: str
    name: str
    pieces: list[tuple[str, Any]]
    reverse_kind: str
    """Kind whose other strand is written behind each document, empty for none."""


def write_corpus(
    sources: Sequence[Source],
    settings: Settings,
    folder: Path,
    data_dir: Path | None,
    seed: int,
    *,
    work: Path | None = None,
    workers: int = 1,
    engine: Engine = "local",
    shard_letters: int = SHARD_LETTERS,
    file_hashes: dict[str, str] | None = None,
) -> dict[str, dict[str, Any]]:
    """Write the shards into `folder`, keeping finished parts in `work` meanwhile; return facts per language.

    `file_hashes` are those of the input files, where they are known already. Raises ConfigError for settings that contradict each other,
    InputError for a language with no training document left, naming what was rejected.
    """
    settings.check()
    sources = [_with_gff(source, data_dir) for source in sources]
    for source in sources:
        source.check()
    found = [source_paths(source, data_dir) for source in sources]  # a missing file is found before the first genome is read
    kinds: dict[str, set[str]] = {}
    for source in sources:
        kinds.setdefault(source.language, set()).add(source.alphabet_name)
    for language, names in kinds.items():
        if len(names) > 1:
            raise InputError(f"language '{language}' has sources of kinds {sorted(names)}", "one kind a language", "Give them two names")
    evaluation = _evaluation_digits(sources, settings, data_dir)
    parts_dir = (work or folder / ".work") / "parts"
    hashes = dict(file_hashes or {})
    tasks = []
    for source, paths in zip(sources, found, strict=True):
        digits = evaluation.get(source.alphabet_name, "")
        tasks += _part_tasks(source, paths, settings, digits, data_dir, seed, parts_dir, hashes)
    # standard input belongs to this process
    piped = {task.key: make_part(task) for task in tasks if STANDARD_INPUT in task.paths}
    others = [task for task in tasks if task.key not in piped]
    piped |= {part.folder.name: part for part in run_tasks(make_part, others, workers, engine, "files")}
    made = [piped[task.key] for task in tasks]
    report = _write_languages(kinds, made, settings, folder, seed, workers, engine, shard_letters)
    if work is None:
        shutil.rmtree(folder / ".work")
    return report


def _write_languages(
    languages: Iterable[str],
    made: Sequence[Part],
    settings: Settings,
    folder: Path,
    seed: int,
    workers: int,
    engine: Engine,
    shard_letters: int,
) -> dict[str, dict[str, Any]]:
    """Decide on the documents of each language and write its shards; return facts per language."""
    check_named(made, settings)
    parts_of = {language: [part for part in made if part.source.language == language] for language in languages}
    for language, parts in parts_of.items():
        if (num_letters := num_letters_to_cluster(parts)) > MAX_CLUSTERED_LETTERS:
            raise InputError(
                f"'{language}' is to be divided by clusters, and has {num_letters:,} letters",
                f"at most {MAX_CLUSTERED_LETTERS:,} for the built-in search",
                "Set split.protein: record (relatives may straddle), and hold out a source of its own with split: valid",
            )
    report = {}
    for language, parts in parts_of.items():
        decisions = decide(parts, settings, seed)
        report[language] = facts = _facts(parts, decisions, settings)
        facts["shards"] = {}
        for split in facts["documents"]:
            shards = _shard_tasks(split, parts, decisions, settings, folder, shard_letters)
            facts["shards"][split] = run_tasks(write_shard, shards, workers, engine, f"{language} {split}")
        facts["dropped_records"] = decisions.near_duplicates
    return report


def input_files(sources: Sequence[Source], settings: Settings, data_dir: Path | None) -> list[list[Path]]:
    """Return the files that a corpus depends on: of each source, then the evaluation files; standard input is no file."""
    found = [[path for path in source_paths(source, data_dir) if str(path) != STANDARD_INPUT] for source in sources]
    for files, source in zip(found, sources, strict=True):
        gff = _with_gff(source, data_dir).gff
        files += [gff] if gff is not None else []
    return [*found, evaluation_files(settings.decontaminate.located(data_dir), data_dir)]


def corpus_shards(folder: Path, language: str, split: str) -> list[Path]:
    """Return the shards of one language and split, in order; none where there is no document.

    Raises MissingFileError when the manifest counts a shard that is gone.
    """
    facts = runtime.read_manifest(folder, "corpus")["languages"][language]
    paths = [folder / shard["file"] for shard in facts["shards"].get(split, [])]
    for path in paths:
        if not path.is_file():
            raise MissingFileError(path, "a file of the corpus", "Run `llama-gene corpus` again")
    return paths


def read_corpus(folder: Path, language: str, split: str) -> Iterator[tuple[str, str]]:
    """Yield (id, text) of one language and split."""
    for path in corpus_shards(folder, language, split):
        yield from read_documents(path)


def write_shard(task: ShardTask) -> dict[str, Any]:
    """Write a shard unless it is there; return its name, documents, letters (bases, residues, characters) and SHA-256 (16 digits)."""
    path = Path(task.folder) / task.name
    if not path.is_file():
        with runtime.whole_file(path) as temporary, temporary.open("wb", 1 << 22) as shard:
            shard.writelines(_lines(task))
    tables = [(read_table(Path(folder)), rows) for folder, rows in task.pieces]
    copies = 2 if task.reverse_kind else 1
    return {
        "file": task.name,
        "documents": copies * sum(len(rows) for _, rows in tables),
        "letters": copies * sum(int(table["letters"][rows].sum()) for table, rows in tables),
        "file_bytes": path.stat().st_size,
        "sha256": runtime.file_hash(path),
    }


def _with_gff(source: Source, data_dir: Path | None) -> Source:
    """Return a source whose annotation is looked up here and then in `data_dir`, as its inputs are."""
    if source.gff is None or source.gff.is_file() or data_dir is None:
        return source
    return replace(source, gff=data_dir / source.gff)


def source_paths(source: Source, data_dir: Path | None) -> list[Path]:
    """Return the files of a source; standard input stands alone."""
    if STANDARD_INPUT in source.inputs:
        if len(source.inputs) > 1:
            raise InputError(
                f"the source of '{source.language}' has '-' among other inputs", "standard input alone", "Give it a source of its own"
            )
        return [Path(STANDARD_INPUT)]
    found = find_paths(source.inputs, data_dir)
    for path in found:
        if not str(path).isprintable() and "\udc80" <= max(str(path)) <= "\udcff":
            raise InputError(f"the file name {str(path)!a} is not UTF-8", "a name in UTF-8", "Rename the file")
    return found


def _evaluation_digits(sources: Sequence[Source], settings: Settings, data_dir: Path | None) -> dict[str, str]:
    """Return digits that name the evaluation sequences of each kind of sequence.

    Raises ConfigError for an evaluation file that no language of the corpus can be held against.
    """
    kinds = sorted({source.alphabet_name for source in sources} - {ENGLISH})
    names = settings.decontaminate.located(data_dir)
    sequences = {kind: [evaluation_sequences([name], kind, data_dir) for name in names] for kind in kinds}
    for number, name in enumerate(names):
        if not any(sequences[kind][number] for kind in kinds):
            found = f"the evaluation file {name} holds no sequence of kind {' or '.join(kinds) or 'dna or protein'}"
            raise ConfigError(found, "sequences of a kind of the corpus", "Remove it, or give its language")
    return {kind: runtime.fingerprint(sequences[kind]) for kind in kinds if names}


def _part_tasks(
    source: Source,
    paths: Sequence[Path],
    settings: Settings,
    evaluation: str,
    data_dir: Path | None,
    seed: int,
    folder: Path,
    hashes: dict[str, str],
) -> list[PartTask]:
    """Return a task for each file of a source; one for all files where a limit on letters runs through them."""
    tasks = []
    groups = [list(paths)] if source.max_letters else [[path] for path in paths]
    settings = replace(settings, decontaminate=replace(settings.decontaminate, evaluation=settings.decontaminate.located(data_dir)))
    # how the other kind of sequence is divided changes nothing here
    split = replace(settings.split, protein="record") if source.is_nucleotide else replace(settings.split, dna="tail")
    sketched = settings.repeats.sketch_scaled if settings.repeats.near_identity else 0
    searched = [evaluation, settings.decontaminate.length(source), settings.decontaminate.share] if evaluation else []
    decisive = [settings.cut, split, sketched, searched]
    # where files lie and what their licence is change no document; names do: they stand in the ids of text documents
    plain = {**runtime.plain(source), "inputs": [], "licence": "", "gff": _hash(source.gff, hashes) if source.gff else ""}
    for group in groups:
        content = [[path.name, _hash(path, hashes)] for path in group]
        key = runtime.fingerprint([FORMAT, plain, decisive, seed, content])
        places = [str(path) if str(path) == STANDARD_INPUT else str(path.resolve()) for path in group]  # workers may be elsewhere
        tasks.append(PartTask(source, places, settings, data_dir, evaluation, seed, str(folder.resolve()), key))
    return tasks


def _hash(path: Path, hashes: dict[str, str]) -> str:
    """Return the hash of a file, computed once; standard input has none and is read anew each time."""
    name = str(path)
    if name == STANDARD_INPUT:
        return runtime.fingerprint(["standard input", time.time_ns()])
    if name not in hashes:
        hashes[name] = runtime.file_hash(path)
    return hashes[name]


def _shard_tasks(
    split: str, parts: Sequence[Part], decisions: Decisions, settings: Settings, folder: Path, shard_letters: int
) -> list[ShardTask]:
    """Return the shards of one split: kept documents in order, a new shard where the letters before it reach a multiple of the size."""
    number, language = SPLITS.index(split), parts[0].source.language
    shards: list[list[tuple[str, Any]]] = []
    before = 0
    for part, verdicts in zip(parts, decisions.verdicts, strict=True):
        rows = np.flatnonzero(verdicts == number)
        if not len(rows):
            continue
        ends = before + np.cumsum(part.documents["letters"][rows], dtype=np.int64)
        shard_of = np.concatenate([[before], ends[:-1]]) // shard_letters
        before = int(ends[-1])
        for shard, chosen in _runs(shard_of, rows):
            shards.extend([] for _ in range(shard - len(shards) + 1))
            shards[shard].append((str(part.folder), chosen))
    filled = [pieces for pieces in shards if pieces]  # a document longer than a shard leaves the numbers behind it empty
    both = parts[0].source.is_nucleotide and settings.cut.strands == "both" and split == "train"
    kind = parts[0].source.alphabet_name if both else ""
    return [ShardTask(str(folder), f"{language}.{split}/{place:05d}.jsonl", pieces, kind) for place, pieces in enumerate(filled)]


def _runs(values: Any, rows: Any) -> Iterator[tuple[int, Any]]:
    """Yield (value, rows) of each run of equal values."""
    borders = np.flatnonzero(np.diff(values)) + 1
    for chosen in np.split(np.arange(len(values)), borders):
        yield int(values[chosen[0]]), rows[chosen]


def _lines(task: ShardTask) -> Iterator[bytes]:
    """Yield the lines of a shard, and those of the other strand where asked."""
    for folder, rows in task.pieces:
        table = read_table(Path(folder))
        offsets, sizes = table["offset"][rows].tolist(), table["size"][rows].tolist()
        with (Path(folder) / "documents.jsonl").open("rb", 1 << 20) as documents:
            for offset, size in zip(offsets, sizes, strict=True):
                documents.seek(offset)
                line = documents.read(size)
                yield line
                if task.reverse_kind:
                    document, alphabet = json.loads(line), get_alphabet(task.reverse_kind)
                    text = write_letters(reverse_complement(read_letters(document["text"], alphabet), task.reverse_kind), alphabet)
                    other = {"id": f"{document['id']}:reverse", "text": text}
                    yield (json.dumps(other, ensure_ascii=False) + "\n").encode()


def _facts(parts: Sequence[Part], decisions: Decisions, settings: Settings) -> dict[str, Any]:
    """Return the counts of a language. Raises InputError when no training document is left, AssertionError for a letter unaccounted for."""
    read: Counter[str] = Counter()
    rejected: Counter[str] = Counter(decisions.letters_rejected)
    changed: Counter[str] = Counter()
    records_rejected: Counter[str] = Counter()
    evaluation: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    documents: Counter[str] = Counter()
    num_short = 0
    for part, verdicts in zip(parts, decisions.verdicts, strict=True):
        facts = part.facts
        read.update({name: facts[name] for name in ("records", "duplicate_ids", "letters_read", "letters_repeated")})
        rejected.update(facts["letters_rejected"])
        changed.update(facts["letters_changed"])
        records_rejected.update(facts["records_rejected"])
        evaluation.update(facts["evaluation_hits"])
        num_short = max(num_short, facts["evaluation_short"])
        for number, split in enumerate(SPLITS):
            mine = verdicts == number
            if mine.any():
                kept[split] += int(part.documents["letters"][mine].sum())
                documents[split] += int(mine.sum())
    if read["letters_read"] + read["letters_repeated"] != sum(kept.values()) + sum(rejected.values()):
        raise AssertionError(f"{dict(read)} letters, but {sum(kept.values()):,} kept and {sum(rejected.values()):,} rejected")
    language = parts[0].source.language
    if not documents["train"]:
        reasons = ", ".join(f"{letters:,} {reason}" for reason, letters in rejected.items()) or "none"
        raise InputError(
            f"no training document is left of '{language}' ({read['letters_read']:,} letters read; rejected: {reasons})",
            "at least one document",
            "Give longer records or lower min_fragment",
        )
    if parts[0].source.is_nucleotide and settings.cut.strands == "both":  # written once more, as the other strand
        read["letters_repeated"] += kept["train"]
        kept["train"], documents["train"] = 2 * kept["train"], 2 * documents["train"]
    return {
        "kind": parts[0].source.alphabet_name,
        "records": read["records"],
        "duplicate_ids": read["duplicate_ids"],
        "letters_read": read["letters_read"],
        "letters_repeated": read["letters_repeated"],
        "letters_kept": dict(kept),
        "documents": dict(documents),
        "letters_rejected": dict(rejected),
        "letters_changed": dict(changed),
        "records_rejected": dict(records_rejected),
        "documents_rejected": dict(decisions.documents_rejected),
        "near_duplicates": len(decisions.near_duplicates),
        "clusters": decisions.num_clusters,
        "evaluation_hits": dict(evaluation),
        "evaluation_short": num_short,
        "lengths": _length_histogram(parts, decisions),
    }


def _length_histogram(parts: Sequence[Part], decisions: Decisions, num_bins: int = 40) -> dict[str, list[int]]:
    """Return {"edges", "documents"} of the kept documents' lengths in letters, in equal steps up to the longest."""
    lengths = [part.documents["letters"][verdicts != DROPPED] for part, verdicts in zip(parts, decisions.verdicts, strict=True)]
    longest = max(int(found.max(initial=0)) for found in lengths)
    edges = np.linspace(0, longest, num_bins + 1).astype(np.int64)
    counts = sum(np.histogram(found, edges)[0] for found in lengths)
    return {"edges": edges.tolist(), "documents": np.asarray(counts).tolist()}
