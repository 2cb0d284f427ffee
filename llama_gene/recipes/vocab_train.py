"""vocab train: sequences -> gene pieces, a folder for `vocab splice` (or, with --kind unified, DNAHLM's whole tokenizer)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llama_gene import runtime
from llama_gene.errors import ConfigError, InputError
from llama_gene.sequences.alphabet import get_alphabet, load_alphabets, tokens_of

if TYPE_CHECKING:
    from llama_gene.tokenization.bpe import Vocabulary

UNIFIED: Literal["unified"] = "unified"
_DETOUR_ALPHABET = 6  # letters; with 20 there are no early merges that shape everything: protein gained nothing (-0.1 %)
_LONGEST = 1000  # letters of a piece: a word that is trained on has no more
_RESERVE_SHARE = 10  # a tenth more pieces than asked for, in case some do not work behind another vocabulary


@dataclass
class Step:
    """Pieces of one kind of sequence."""

    kind: str = "dna"
    """Alphabet: dna, rna, protein, 3di, ss3, or one of `alphabets`."""
    input: list[str] = field(default_factory=list)
    """Files, folders or globs: the corpus's {language}.train, FASTA, FASTQ, or .txt with a sequence a line; plain or compressed."""
    size: int = 30080
    """New pieces, exactly. 30,080 + 30,080 behind LLaMA-2 make 92,160 ids, behind LLaMA-3 188,416: multiples of 128."""
    max_length: int = 64
    """Letters that a piece may have."""
    min_length: int = 2
    """Letters that a learned piece must have; 4 for protein: a quarter of the drift of English, and a third less compression."""
    max_letters: int | None = None
    """Train on a seeded sample of this many letters; unset: on all (50 million letters took 1.2 GB)."""
    strict: list[str] = field(default_factory=list)
    """Strict mode: English files (.txt, .jsonl, .json) in which no new piece may change a token; unset: English is not looked at."""
    strict_count: int = 1
    """Strict mode forbids strings that occur at least so often in that English."""
    strict_dna: Literal["spare", "forbid"] = "spare"
    """Strings of DNA letters alone ("CGA") that occur in the English: spare them, for DNA's sake, or forbid them, for zero drift."""
    detours: bool = True
    """DNA, RNA: leave early pieces out where that compresses better in the end (from 4 million letters on); false: plain BPE."""


@dataclass
class Config(Step):
    """vocab train: sequences -> gene pieces."""

    base: str | None = None
    """Vocabulary that the pieces will come behind: a tokenizer.model (SentencePiece or tiktoken), a folder (ours included), or a hub id."""
    method: Literal["continued", "paper"] = "continued"
    """continued: merges of the base's own pieces; paper: a stand-alone SentencePiece BPE, as LLaMA-Gene 2.3.1 has it."""
    alphabets: Path | None = None
    """YAML file of further alphabets (name, letters, and for letters with ids of their own a namespace)."""
    data_dir: Path | None = None
    """Folder in which inputs that are not in the current folder are looked up (LLAMA_GENE_DATA if unset)."""
    seed: int = 0
    """Seed of the max_letters sample."""
    out: Path | None = None
    """Folder to write."""


def run(config: Config) -> Path:
    """Write the pieces folder; return it."""
    if config.out is None:
        raise ConfigError("no out is given", "--out FOLDER")
    load(config.alphabets)
    if config.kind == UNIFIED:
        return _run_unified(config)
    check_step(config, "vocab train")
    if config.method == "paper":
        return _run_paper(config)
    if config.base is None:
        raise ConfigError("no base is given", "--base TOKENIZER, behind which the pieces will come", "Or --method paper, which needs none")
    from llama_gene.tokenization.inputs import find_base
    from llama_gene.tokenization.pieces import STAGE, write_pieces
    from llama_gene.tokenization.tokenizer import open_vocabulary, vocabulary_fingerprint

    source = find_base(config.base, config.data_dir)
    runtime.check_inputs_outside(config.out, [source, *input_paths(config, config.data_dir)])
    vocabulary = open_vocabulary(source)
    with runtime.whole_dir(config.out) as folder:
        pieces, reserve, facts = learn(vocabulary, config, earlier_kinds(source), config.data_dir, config.seed, _RESERVE_SHARE)
        write_pieces(folder, pieces, reserve)
        trained_behind = {
            "path": config.base,
            "vocab_size": vocabulary.num_ids,
            "vocabulary": vocabulary_fingerprint(vocabulary.tokenizer()),
        }
        runtime.write_manifest(folder, STAGE, config, **facts, method="continued", base=trained_behind, reserve=len(reserve))
    runtime.get_logger().info("vocab train: %s %s pieces in %s", f"{len(pieces):,}", config.kind, config.out)
    return config.out


def load(alphabets: Path | None) -> None:
    """Register the alphabets of a YAML file."""
    if alphabets is not None:
        load_alphabets(alphabets)


def check_step(step: Step, where: str) -> None:
    """Raise ConfigError for values that cannot be meant, before any work."""
    alphabet = get_alphabet(step.kind)
    if alphabet.namespace:
        if step.input or step.strict or step.size not in (Step.size, len(tokens_of(alphabet))):
            fault = f"{where} ({step.kind}) has input, strict or a size"
            raise ConfigError(fault, f"none: its {len(tokens_of(alphabet))} letters are its pieces", "Leave them out")
        return
    if not step.input:
        raise ConfigError(f"{where} ({step.kind}) has no input", "files, folders or globs", "Set its input")
    if (
        step.size < 1
        or not 2 <= step.min_length <= step.max_length
        or step.strict_count < 1
        or (step.max_letters or 1) < 1
        or step.max_length > _LONGEST
    ):
        raise ConfigError(
            f"{where} ({step.kind}): size {step.size}, min_length {step.min_length}, max_length {step.max_length}, "
            f"max_letters {step.max_letters}, strict_count {step.strict_count}",
            f"size at least 1, 2 <= min_length <= max_length <= {_LONGEST}, max_letters at least 1 or unset, strict_count at least 1",
        )
    letters = len(alphabet.letters)
    if step.size < letters:
        raise ConfigError(f"{where} ({step.kind}): size {step.size}", f"at least {letters}, the letters of the alphabet", "Raise size")


def input_paths(step: Step, data_dir: Path | None) -> list[Path]:
    """Return every file that a step reads. Raises MissingFileError, and InputError for sequences where English should be."""
    from llama_gene.tokenization.inputs import find_paths, is_records

    english = find_paths(step.strict, data_dir)
    if wrong := next((path for path in english if is_records(path)), None):
        raise InputError(f"strict: {wrong} holds sequences", "English (.txt, .jsonl, .json)", "Name texts")
    return find_paths(step.input, data_dir) + english


def learn(
    vocabulary: Vocabulary, step: Step, earlier: Sequence[str], data_dir: Path | None, seed: int, reserve_share: int = 0
) -> tuple[list[str], list[str], dict[str, Any]]:
    """Return one step's pieces, further ones in reserve, and its facts for the manifest."""
    alphabet = get_alphabet(step.kind)
    if alphabet.namespace:
        tokens = tokens_of(alphabet)
        return tokens, [], {"kind": step.kind, "size": len(tokens), "namespace": alphabet.namespace, "pieces": runtime.fingerprint(tokens)}
    from llama_gene.tokenization.continued import N_LADDER, train_continued_pieces
    from llama_gene.tokenization.inputs import file_hashes, find_paths

    log = runtime.get_logger()
    paths = find_paths(step.input, data_dir)
    texts, num_read = read(paths, step, seed)
    num_used = sum(map(len, texts))
    forbidden, strict_facts = _forbidden(vocabulary, step, data_dir)
    log.info("vocab %s: learning %s pieces on %s of %s letters", step.kind, f"{step.size:,}", f"{num_used:,}", f"{num_read:,}")
    guard = guard_of(step.kind, earlier)
    learned = train_continued_pieces(
        vocabulary,
        texts,
        step.size,
        max_length=step.max_length,
        min_length=step.min_length,
        forbidden=forbidden,
        forbid=guard,
        first=N_LADDER if alphabet.unknown == "N" else (),
        reserve=step.size // reserve_share if reserve_share else 0,
        detours=step.detours and len(alphabet.letters) <= _DETOUR_ALPHABET,
        progress=runtime.rank() == 0,
    )
    pieces, reserve = learned.pieces[: step.size], learned.pieces[step.size :]
    facts = {
        "kind": step.kind,
        "size": len(pieces),
        "inputs": file_hashes(paths),
        "letters_read": num_read,
        "letters_used": num_used,
        "max_letters": step.max_letters,
        "base_tokens": learned.num_symbols,
        "unreachable_passed_over": learned.num_unreachable,
        "forbidden_passed_over": learned.num_forbidden,
        "detours": learned.detours,
        "strict": strict_facts,
        "pieces": runtime.fingerprint(pieces),
    }
    return pieces, reserve, facts


def read(paths: Sequence[Path], step: Step, seed: int) -> tuple[list[str], int]:
    """Return the sequences to train on and the number of letters in the files."""
    from llama_gene.tokenization.inputs import read_sequences, sample_letters

    with runtime.progress(f"read {step.kind}", "file", len(paths)) as bar:
        texts: list[str] = []
        for path in paths:
            texts += read_sequences(path, step.kind)
            bar.update()
    num_read = sum(map(len, texts))
    return (texts if step.max_letters is None else sample_letters(texts, step.max_letters, f"{seed}-{step.kind}")), num_read


def guard_of(kind: str, earlier: Sequence[str]) -> Callable[[str], bool]:
    """Return whether a piece would act inside another kind of sequence, so that this step changes no encoding of an earlier one.

    Protein pieces of ACGTN alone would fire inside DNA. Such a guard exists against every earlier kind with fewer letters, and for
    kinds that are no nucleotides always against DNA (the base may hold DNA pieces of a splice that left no manifest here).
    """
    own = get_alphabet(kind)
    others = {other for other in earlier if other != kind} | ({"dna"} if own.complement is None else set())
    alphabets = [get_alphabet(other) for other in sorted(others)]
    sets = [frozenset(other.letters + other.unknown) for other in alphabets if not other.namespace]
    guarded = [letters for letters in sets if not letters.issuperset(own.letters)]
    return lambda piece: any(letters.issuperset(piece.upper()) for letters in guarded)


def earlier_kinds(base: str) -> list[str]:
    """Return the kinds that an earlier splice put into a base folder."""
    return [step["kind"] for step in earlier_steps(base)]


def earlier_steps(base: str | None) -> list[dict[str, Any]]:
    """Return the steps that an earlier `vocab` or `vocab splice` wrote into the base folder's manifest."""
    if base is None or not (Path(base) / runtime.MANIFEST_NAME).is_file():
        return []
    manifest = runtime.read_manifest(Path(base))
    return list(manifest["steps"]) if manifest.get("stage") == "vocab" else []


def _forbidden(vocabulary: Vocabulary, step: Step, data_dir: Path | None) -> tuple[frozenset[str], dict[str, Any] | None]:
    """Return the strings that strict mode forbids, and its facts; no English, no strings."""
    if not step.strict:
        return frozenset(), None
    from llama_gene.tokenization.english import forbidden_strings
    from llama_gene.tokenization.inputs import file_hashes, find_paths, read_texts

    paths = find_paths(step.strict, data_dir)
    with runtime.progress("read English", "file", len(paths)) as bar:
        strings: Counter[str] = Counter()
        num_letters = 0
        for path in paths:
            texts = list(read_texts(path))
            num_letters += sum(map(len, texts))
            strings += forbidden_strings(vocabulary, texts)
            bar.update()
    often = {string for string, count in strings.items() if count >= step.strict_count}
    dna = get_alphabet("dna")
    only_dna = {string for string in often if set(string) <= set(dna.letters + dna.unknown)}
    forbidden = often if step.strict_dna == "forbid" else often - only_dna
    facts = {
        "inputs": file_hashes(paths),
        "letters": num_letters,
        "min_count": step.strict_count,
        "strings": len(forbidden),
        "spared_dna_strings": sorted(only_dna - forbidden),
        "spared_dna_occurrences": sum(strings[string] for string in only_dna - forbidden),
        "forbidden": runtime.fingerprint(sorted(forbidden)),
    }
    return frozenset(forbidden), facts


def _run_paper(config: Config) -> Path:
    """Write a stand-alone SentencePiece BPE as the papers train it."""
    from llama_gene.tokenization.inputs import file_hashes, find_paths
    from llama_gene.tokenization.pieces import STAGE
    from llama_gene.tokenization.standalone import train_paper
    from llama_gene.tokenization.tokenizer import NATIVE_NAME

    assert config.out is not None
    if config.strict or config.base is not None:
        raise ConfigError("base or strict is given with method: paper", "method: continued", "The papers' method looks at neither")
    if get_alphabet(config.kind).namespace:
        raise ConfigError(f"kind {config.kind} is given with method: paper", "an alphabet of plain letters")
    paths = find_paths(config.input, config.data_dir)
    runtime.check_inputs_outside(config.out, paths)
    texts, num_read = read(paths, config, config.seed)
    with runtime.whole_dir(config.out) as folder:
        num_chunks = train_paper(texts, config.size, folder / NATIVE_NAME)
        facts = {"kind": config.kind, "method": "paper", "size": config.size, "inputs": file_hashes(paths), "letters_read": num_read}
        used = sum(map(len, texts))
        runtime.write_manifest(folder, STAGE, config, **facts, letters_used=used, max_letters=config.max_letters, chunks=num_chunks)
    runtime.get_logger().info("vocab train: %s ids of the papers' method in %s", f"{config.size:,}", config.out)
    return config.out


def _run_unified(config: Config) -> Path:
    """Write DNAHLM's tokenizer: one dictionary of DNA and English."""
    from llama_gene.recipes import vocab

    if config.base is not None or config.strict or config.method == "paper" or config.max_letters is not None:
        fault = "kind: unified has a base, strict, method or max_letters"
        raise ConfigError(fault, "input alone: one dictionary trained from nothing", "Leave them out")
    return vocab.run(
        vocab.Config(method=UNIFIED, base_size=config.size, base_inputs=config.input, data_dir=config.data_dir, out=config.out)
    )
