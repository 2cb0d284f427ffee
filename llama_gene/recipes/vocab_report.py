"""vocab report: what any tokenizer, ours or not, makes of DNA, protein and English, beside its base and a stand-alone vocabulary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_gene import runtime
from llama_gene.errors import ConfigError

if TYPE_CHECKING:
    from llama_gene.tokenization.report import Sources

ENGLISH_KINDS = ("english", "code")


@dataclass
class Config:
    """vocab report: measure any tokenizer folder or file."""

    tokenizer: str | None = None
    """What to measure: a tokenizer folder, a tokenizer.model (SentencePiece or tiktoken), a tokenizer.json (.gz), or a hub id."""
    base: str | None = None
    """What it was spliced behind; unset: all pieces count, and nothing is compared."""
    dna: list[str] = field(default_factory=list)
    """Held-out DNA: files, folders or globs."""
    protein: list[str] = field(default_factory=list)
    """Held-out proteins."""
    english: list[str] = field(default_factory=list)
    """Held-out English, in which changed lines and tokens are counted."""
    code: list[str] = field(default_factory=list)
    """Held-out program code, counted like English."""
    standalone_dna: str | None = None
    """A stand-alone DNA vocabulary to stand beside (tokenizer folder or file)."""
    standalone_protein: str | None = None
    """A stand-alone protein vocabulary to stand beside."""
    compare: list[str] = field(default_factory=list)
    """Further tokenizers behind the same base: the report draws drift of English against compression for all of them."""
    seed: int = 0
    """Seed of the mutations and windows."""
    data_dir: Path | None = None
    """Folder in which files that are not in the current folder are looked up (LLAMA_GENE_DATA if unset)."""
    out: Path | None = None
    """report.json to write; report.md and the figures stand beside it."""


def run(config: Config) -> Path:
    """Write the report; return the path of its JSON."""
    if config.tokenizer is None or config.out is None:
        raise ConfigError("tokenizer or out is missing", "--tokenizer FOLDER_OR_FILE --out report.json")
    if config.out.suffix != ".json":
        raise ConfigError(f"out is {config.out}", "a file that ends in .json", "Write --out report.json")
    if config.compare and not (config.base and config.english):
        raise ConfigError("compare is given without base or english", "both: the curve is drift of English from the base", "Add them")
    from llama_gene.tokenization.inputs import find_base
    from llama_gene.tokenization.report import markdown, report, write_report

    def found(name: str | None) -> str | None:
        return None if name is None else find_base(name, config.data_dir)

    texts = held_out(config)
    standalone: dict[str, Any] = {"standalone_dna": found(config.standalone_dna), "standalone_protein": found(config.standalone_protein)}
    base = found(config.base)
    numbers = report(find_base(config.tokenizer, config.data_dir), base, **texts, **standalone, seed=config.seed)
    others = [report(find_base(name, config.data_dir), base, **texts, **standalone, seed=config.seed) for name in config.compare]
    names = unique_names([Path(config.tokenizer), *(Path(name) for name in config.compare)])
    write_report(numbers, config.out, dict(zip(names, [numbers, *others], strict=True)) if others else None)
    print(markdown(numbers))
    runtime.get_logger().info("vocab report: %s", config.out)
    return config.out


def held_out(config: Any) -> dict[str, Any]:
    """Return the texts of a config's `dna`, `protein`, `english` and `code` files, as `report` takes them."""
    return {kind: sources(getattr(config, kind), kind, config.data_dir) for kind in ("dna", "protein", *ENGLISH_KINDS)}


def sources(patterns: list[str], kind: str, data_dir: Path | None) -> Sources:
    """Return {file name: its texts} of held-out files of one kind."""
    from llama_gene.tokenization.inputs import find_paths, read_sequences, read_texts

    read: dict[str, list[str]] = {}
    paths = find_paths(patterns, data_dir)
    names = unique_names(paths)
    for path, name in zip(paths, names, strict=True):
        read[name] = list(read_texts(path) if kind in ENGLISH_KINDS else read_sequences(path, kind))
    return read


def unique_names(paths: list[Path]) -> Iterator[str]:
    """Yield a short name for each file: its own, or with its folder where two files share one."""
    own = [path.name for path in paths]
    for path in paths:
        yield path.name if own.count(path.name) == 1 else str(path)
