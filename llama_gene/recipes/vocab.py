"""Stage 2, vocab: documents -> gene pieces -> a tokenizer spliced behind the base's -> report.

Three uses, one config: `base` with `steps` splices (DNA first, then protein, each step one entry of the list); no base with
`base_inputs` trains a new base tokenizer, with or without steps behind it; `method: unified` trains DNAHLM's one dictionary.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llama_gene import runtime
from llama_gene.errors import ConfigError, InputError
from llama_gene.sequences.alphabet import check_letters, get_alphabet

if TYPE_CHECKING:
    from llama_gene.tokenization.bpe import Vocabulary

_RECORD_SUFFIXES = (".fa", ".fasta", ".fna", ".ffn", ".faa", ".frn", ".fas", ".fq", ".fastq")
_COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
_SAMPLE_LETTERS = 1000  # a subsample is drawn in chunks of this many letters: a genome is one record
_LIBRARIES = ("sentencepiece", "tiktoken", "tokenizers", "transformers")


@dataclass
class Step:
    """Pieces of one kind of sequence."""

    kind: str = "dna"
    """Alphabet: dna, rna, protein, or one that you registered."""
    inputs: list[str] = field(default_factory=list)
    """Files, folders or globs: the corpus's {language}.train.jsonl, FASTA, FASTQ, or .txt with a sequence a line; plain or compressed."""
    size: int = 30080
    """New pieces, exactly. 30,080 + 30,080 behind LLaMA-2 make 92,160 ids, behind LLaMA-3 188,416: multiples of 128."""
    max_length: int = 64
    """Letters that a piece may have."""
    max_letters: int | None = None
    """Train on a seeded sample of this many letters; unset: on all (100 million letters need about 6 GB)."""
    report_inputs: list[str] = field(default_factory=list)
    """Held-out sequences that the report measures, for example {language}.valid.jsonl."""


@dataclass
class Config:
    """Stage 2: the tokenizer."""

    base: str | None = None
    """Base to splice behind: a tokenizer.model (SentencePiece or tiktoken), a tokenizer or model folder, or a hub id; unset: train one."""
    method: Literal["continued", "unified"] = "continued"
    """continued: learn pieces on the base's own segmentation; unified: DNAHLM's one byte-level dictionary of base_inputs, no steps."""
    base_size: int = 2000
    """Ids of a base that is trained here."""
    base_inputs: list[str] = field(default_factory=list)
    """Text (.txt, .jsonl, .json) that a new base is trained on; for unified also FASTA and FASTQ of DNA."""
    steps: list[Step] = field(default_factory=list)
    """What to splice, in this order."""
    english_inputs: list[str] = field(default_factory=list)
    """Held-out English in which the report counts changed lines and tokens."""
    template: str = "alpaca"
    """Prompt template that becomes the tokenizer's chat template."""
    data_dir: Path | None = None
    """Folder in which inputs that are not in the current folder are looked up (LLAMA_GENE_DATA if unset)."""
    seed: int = 0
    """Seed of the max_letters samples."""
    output_dir: Path | None = None
    """Folder to write: tokenizer.json, tokenizer_config.json, tokenizer.model, chat_template.jinja, the report, manifest.json."""


def run(config: Config) -> Path:
    """Write the tokenizer folder; return it. Nothing is written unless every step succeeds."""
    _check(config)
    assert config.output_dir is not None
    from llama_gene.data.prompts import chat_template
    from llama_gene.tokenization.report import report, write_report
    from llama_gene.tokenization.tokenizer import open_vocabulary, vocabulary_fingerprint, write_tokenizer

    log = runtime.get_logger()
    template = chat_template(config.template)
    with runtime.whole_dir(config.output_dir) as folder:
        source = _base_source(config)
        base = open_vocabulary(source) if source is not None else _train_base(config, folder)
        vocabulary, steps = base, _earlier_steps(source)
        for step in config.steps:
            vocabulary, facts = _splice(vocabulary, step, config, [done["kind"] for done in steps])
            steps.append(facts)
        tokenizer = vocabulary.tokenizer()
        write_tokenizer(tokenizer, folder, template)
        vocabulary.write_native(folder)
        summary = None
        if config.steps:
            texts: dict[str, list[str]] = {}
            for step in config.steps:
                texts.setdefault(step.kind, []).extend(_sequences(_paths(step.report_inputs, config), step.kind))
            english = list(_texts(_paths(config.english_inputs, config)))
            summary = report(folder, source or folder / _BASE_NAME, texts.get("dna", []), texts.get("protein", []), english)
            write_report(summary, folder)
        runtime.write_manifest(
            folder, "vocab", config,
            kind=vocabulary.kind,
            vocab_size=vocabulary.num_ids,
            vocabulary=vocabulary_fingerprint(tokenizer),
            base={"path": config.base, "vocab_size": base.num_ids, "vocabulary": vocabulary_fingerprint(base.tokenizer())},
            base_inputs=_hashes(_paths(config.base_inputs, config)),
            steps=steps,
            report=summary,
            libraries={name: runtime.package_version(name) for name in _LIBRARIES},
        )  # fmt: skip
    log.info("vocab: %s %s ids in %s", f"{vocabulary.num_ids:,}", vocabulary.kind, config.output_dir)
    if summary is not None:
        _log_summary(summary)
    return config.output_dir


_BASE_NAME = "base.model"  # a SentencePiece base trained here stays beside what was spliced behind it


def _check(config: Config) -> None:
    """Raise ConfigError for values that are missing or contradict each other, before any work."""
    if config.output_dir is None:
        raise ConfigError("no output_dir is given", "--output_dir FOLDER")
    if config.base is None and not config.base_inputs:
        raise ConfigError("neither base nor base_inputs is given", "--base TOKENIZER, or --base_inputs FILES to train one")
    if config.base is not None and config.base_inputs:
        raise ConfigError("base and base_inputs are both given", "one of them", "Leave base_inputs out to splice behind the base")
    if config.base is not None and (config.method == "unified" or not config.steps):
        raise ConfigError("base is given with nothing to splice", "steps, and method: continued", "Add a step with kind, inputs and size")
    if config.method == "unified" and config.steps:
        raise ConfigError("method: unified has steps", "base_inputs alone: its one dictionary holds DNA and English", "Leave steps out")
    for number, step in enumerate(config.steps, start=1):
        get_alphabet(step.kind)
        if not step.inputs:
            raise ConfigError(f"step {number} ({step.kind}) has no inputs", "files, folders or globs", "Set its inputs")
        if step.size < 1 or step.max_length < 2 or (step.max_letters is not None and step.max_letters < 1):
            raise ConfigError(
                f"step {number} ({step.kind}): size {step.size}, max_length {step.max_length}, max_letters {step.max_letters}",
                "size at least 1, max_length at least 2, max_letters at least 1 or unset",
            )


def _base_source(config: Config) -> str | None:
    """Return the base as it is found: here, in data_dir, or a hub id."""
    if config.base is not None and config.data_dir is not None and not Path(config.base).exists():
        there = config.data_dir / config.base
        return str(there) if there.exists() else config.base
    return config.base


def _train_base(config: Config, folder: Path) -> Vocabulary:
    """Train the base of `base_inputs`: a SentencePiece BPE, or the unified dictionary."""
    from llama_gene.tokenization.bpe import train_sentencepiece_base, train_unified
    from llama_gene.tokenization.json_splice import JsonVocabulary
    from llama_gene.tokenization.tokenizer import open_vocabulary

    texts = _texts(_paths(config.base_inputs, config))
    if config.method == "unified":
        return JsonVocabulary(train_unified(texts, config.base_size), "the dictionary")
    model = folder / (_BASE_NAME if config.steps else "tokenizer.model")
    train_sentencepiece_base(texts, config.base_size, model)
    return open_vocabulary(model)


def _splice(vocabulary: Vocabulary, step: Step, config: Config, earlier: Sequence[str]) -> tuple[Vocabulary, dict[str, Any]]:
    """Return the vocabulary with one step's pieces behind it, and the step's facts for the manifest."""
    from llama_gene.tokenization.bpe import N_LADDER, train_continued_pieces

    paths = _paths(step.inputs, config)
    texts = list(_sequences(paths, step.kind))
    num_read = sum(map(len, texts))
    if step.max_letters is not None:
        texts = _sample(texts, step.max_letters, random.Random(f"{config.seed}-{step.kind}"))
    num_used = sum(map(len, texts))
    log = runtime.get_logger()
    log.info("vocab %s: learning %s pieces on %s of %s letters", step.kind, f"{step.size:,}", f"{num_used:,}", f"{num_read:,}")
    guarded = _guarded_letters(step.kind, earlier)
    pieces = train_continued_pieces(
        vocabulary.segment,
        texts,
        step.size,
        base_pieces=vocabulary.pieces(),
        base_rank=vocabulary.rank,
        max_length=step.max_length,
        forbid=lambda piece: any(letters.issuperset(piece.upper()) for letters in guarded),
        first=N_LADDER if get_alphabet(step.kind).unknown == "N" else (),
    )
    facts = {
        "kind": step.kind,
        "first_id": vocabulary.num_ids,
        "size": len(pieces),
        "inputs": _hashes(paths),
        "letters_read": num_read,
        "letters_used": num_used,
        "pieces": runtime.fingerprint(pieces),
    }
    return vocabulary.append(pieces), facts


def _guarded_letters(kind: str, earlier: Sequence[str]) -> list[frozenset[str]]:
    """Return the letter sets of which no new piece may wholly consist, so that this step changes no encoding of another kind.

    Protein pieces of ACGTN alone would fire inside DNA. Such a guard exists against every earlier kind with fewer letters, and for
    kinds that are no nucleotides always against DNA (the base may hold DNA pieces of a splice that left no manifest here).
    """
    own = get_alphabet(kind)
    others = {other for other in earlier if other != kind} | ({"dna"} if own.complement is None else set())
    sets = [frozenset(get_alphabet(other).letters + get_alphabet(other).unknown) for other in sorted(others)]
    return [letters for letters in sets if not letters.issuperset(own.letters)]


def _earlier_steps(base: str | None) -> list[dict[str, Any]]:
    """Return the steps that an earlier `vocab` wrote into the base folder's manifest."""
    if base is None or not (Path(base) / runtime.MANIFEST_NAME).is_file():
        return []
    manifest = runtime.read_manifest(Path(base))
    return list(manifest["steps"]) if manifest.get("stage") == "vocab" else []


def _paths(patterns: Sequence[str], config: Config) -> list[Path]:
    """Return the files of inputs, each looked up in the current folder and then in data_dir."""
    from llama_gene.errors import MissingFileError
    from llama_gene.sequences.records import expand_paths

    found: list[Path] = []
    for pattern in patterns:
        try:
            found += expand_paths([pattern])
        except MissingFileError:
            if config.data_dir is None or Path(pattern).is_absolute():
                raise
            found += expand_paths([config.data_dir / pattern])
    return list(dict.fromkeys(found))


def _hashes(paths: Iterable[Path]) -> list[dict[str, str]]:
    return [{"file": path.name, "sha256": runtime.file_hash(path)} for path in paths]


def _suffix(path: Path) -> str:
    """Return a file's suffix, that of its compression left aside.

    >>> _suffix(Path("genome.fna.gz"))
    '.fna'
    """
    return (Path(path.stem) if path.suffix in _COMPRESSIONS else path).suffix.lower()


def _sequences(paths: Sequence[Path], kind: str) -> Iterator[str]:
    """Yield the sequences of files, upper-cased; their letters are checked."""
    from llama_gene.sequences.records import read_documents, read_records

    alphabet = get_alphabet(kind)
    for path in _progress(paths, f"read {kind}"):
        suffix = _suffix(path)
        if suffix in (".jsonl", ".json", ".txt"):
            for name, text in read_documents(path):
                for line in text.upper().split():
                    check_letters(line, alphabet, f"{path}, document {name}")
                    yield line
        else:
            yield from (record.sequence for record in read_records(path, kind))


def _texts(paths: Sequence[Path]) -> Iterator[str]:
    """Yield the documents of files: FASTA and FASTQ as DNA, everything else as text."""
    from llama_gene.sequences.records import read_documents, read_records

    for path in _progress(paths, "read text"):
        if _suffix(path) in _RECORD_SUFFIXES:
            yield from (record.sequence for record in read_records(path, "dna"))
        else:
            yield from (text for _, text in read_documents(path))


def _progress(paths: Sequence[Path], what: str) -> Iterable[Path]:
    from tqdm import tqdm

    bar: Iterable[Path] = tqdm(paths, desc=what, unit="file", leave=False)
    return bar


def _sample(texts: Sequence[str], max_letters: int, rng: random.Random) -> list[str]:
    """Return chunks of texts with about `max_letters` letters (never more), drawn by the seed, in their first order."""
    chunks = [text[start : start + _SAMPLE_LETTERS] for text in texts for start in range(0, len(text), _SAMPLE_LETTERS)]
    order = list(range(len(chunks)))
    rng.shuffle(order)
    kept: list[int] = []
    room = max_letters
    for number in order:
        if len(chunks[number]) > room:
            break
        kept.append(number)
        room -= len(chunks[number])
    if not kept:
        raise InputError(f"max_letters {max_letters} holds no chunk of {_SAMPLE_LETTERS} letters", "a larger sample", "Raise max_letters")
    return [chunks[number] for number in sorted(kept)]


def _log_summary(numbers: dict[str, Any]) -> None:
    log = runtime.get_logger()
    parts = [f"{numbers['pieces']:,} new pieces", f"{numbers['unreachable']} unreachable"]
    for key, what in (("bases_per_token", "bases"), ("residues_per_token", "residues")):
        if numbers[key] is not None:
            parts.append(f"{numbers[key]:.2f} {what} a token (base: {numbers[f'{key}_base']:.2f})")
    if numbers["english_lines"] is not None:
        parts.append(f"{numbers['english_lines_changed']:,} of {numbers['english_lines']:,} English lines changed")
    log.info("vocab: %s", ", ".join(parts))
    for key in ("unreachable", "duplicates", "base_ids_changed", "roundtrip_failures", "library_mismatches"):
        if numbers[key]:
            log.warning("vocab: %s is %s, not 0: see report.md", key, numbers[key])
