"""score: a causal model + sequences -> their log-likelihoods; or variants -> log P(mutant) - log P(reference).

Variants come from a list of mutations of given sequences, or from a VCF file and the FASTA file that it was called on. Sequences are read
without a prompt. How a likelihood is made stands in llama_gene/inference/likelihood.py, how variants are written and checked in
llama_gene/sequences/variants.py.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llama_gene import runtime
from llama_gene.errors import ConfigError, InputError
from llama_gene.recipes.query_inputs import QueryInputs
from llama_gene.sequences.letters import LetterCounts

if TYPE_CHECKING:
    from llama_gene.sequences.records import Record
    from llama_gene.sequences.variants import Variant

VCF_FLANK = 256
GROUP_LETTERS, GROUP_SIZE = 1 << 20, 1024  # of what is scored together


@dataclass
class Config(QueryInputs):
    """Log-likelihoods of sequences, or of variants against their reference."""

    mutations: Path | None = None
    """CSV or TSV of mutations of the sequences in `inputs`: columns `id` (of a sequence; may lack where there is one) and `mutation`."""
    vcf: Path | None = None
    """VCF file, plain or compressed, instead of inputs; its alleles are scored against `reference`."""
    reference: Path | None = None
    """FASTA file of the contigs that the VCF names."""
    mutation_column: str = "mutation"
    """Column of the list that holds the mutations: A123G, V12_K14del, ..., several joined by ':', ';' or ','."""
    first_position: int = 1
    """Number of a sequence's first letter in the list: for a construct that is numbered as part of a longer protein."""
    keep: list[str] = field(default_factory=list)
    """Columns of the list that are copied into the output, such as a measured value."""
    flank: int = 0
    """Letters on each side of a variant that are read; 0: 256 for a VCF, the whole sequence for a list."""
    strand: Literal["given", "both"] = "given"
    """both: the mean log-likelihood of a sequence and its reverse complement, each also on its own."""
    end: bool = False
    """Score the end of text too: the sequences are whole documents (proteins of a model that was trained on whole ones)."""
    table: Literal["csv", "parquet"] = "csv"
    """Format of the output table."""
    output_dir: Path | None = None
    """Folder to write: scores.csv or scores.parquet, manifest.json."""


def run(config: Config) -> Path:
    """Write the scores; return the folder."""
    if config.model is None or config.output_dir is None:
        raise ConfigError("model or output_dir is not given", "--model and --output_dir")
    _check_choices(config)
    runtime.check_output(config.output_dir, "score")
    log = runtime.get_logger()
    given = _read(config)
    head = next(given.items, None)  # bad input is refused before the model is loaded
    if head is None:
        raise given.nothing_left()

    from llama_gene.inference.likelihood import LikelihoodScorer
    from llama_gene.models.adapters import base_weights, load_model
    from llama_gene.tokenization.tokenizer import vocabulary_fingerprint

    model, tokenizer = load_model(config.model, config.precision)
    scorer = LikelihoodScorer(model, tokenizer, config.max_length, config.batch_tokens, config.end)
    totals = {"rows": 0, "windowed": 0}
    rows = _score_variants(given, head, scorer, config) if given.is_variants else _score_sequences(given, head, scorer, config)
    with runtime.whole_dir(config.output_dir) as folder:
        with _Table(folder / f"scores.{config.table}", given.columns) as table, runtime.progress("score", given.unit, given.total) as bar:
            for row in rows:
                table.add(row)
                totals["rows"] += 1
                totals["windowed"] += row["windows"] > 1
                bar.update(1)
        facts: dict[str, Any] = {"model": config.model, "weights": base_weights(config.model)}
        facts |= {"vocabulary": vocabulary_fingerprint(tokenizer), **totals, "computed": scorer.computed, "max_tokens": scorer.max_length}
        facts |= {"rejected": dict(given.rejected), "letter_counts": given.counts}
        runtime.write_manifest(folder, "score", config, **facts)
    log.info(
        "score: %s %s, %s of them read in several windows, %s texts computed", *(f"{totals['rows']:,}", f"{given.unit}s"),
        f"{totals['windowed']:,}", f"{scorer.computed:,}",
    )  # fmt: skip
    for reason, number in given.rejected.items():
        log.warning("score: %s rejected: %s", f"{number:,}", reason)
    log.info("score: written to %s", config.output_dir / f"scores.{config.table}")
    return config.output_dir


# Inputs


@dataclass
class _Given:
    """What shall be scored."""

    items: Iterator[Any]
    """Records, or pairs of a variant and its sequence."""
    columns: dict[str, type]
    is_variants: bool
    rejected: Counter[str]
    counts: LetterCounts
    where: list[Path | str]
    total: int | None = None
    """Variants that will be scored, where they are known."""

    @property
    def unit(self) -> str:
        """What a row is."""
        return "variant" if self.is_variants else "sequence"

    def nothing_left(self) -> InputError:
        """Return the error for inputs without anything to score."""
        from llama_gene.sequences.queries import nothing_left

        if not self.is_variants:
            return nothing_left(self.where, self.counts)
        reasons = ", ".join(f"{reason}: {number:,}" for reason, number in self.rejected.items())
        return InputError(f"{self.where[0]}: no variant can be scored ({reasons})", "at least one", "Check the file")


def _check_choices(config: Config) -> None:
    """Raise ConfigError for inputs that contradict each other."""
    config.check()
    if config.vcf is not None and (config.inputs or config.mutations is not None):
        raise ConfigError("vcf is given beside inputs or mutations", "either --vcf and --reference, or --inputs", "Leave one out")
    if (config.vcf is None) != (config.reference is None):
        raise ConfigError("only one of vcf and reference is given", "--vcf FILE --reference FASTA", "Give both")
    if config.vcf is None and not config.inputs:
        raise ConfigError("there is nothing to score", "--inputs, or --vcf and --reference")
    if "-" in (str(config.vcf), str(config.mutations)):
        raise ConfigError("vcf or mutations is standard input", "a file, which is read twice", "Write it into a file")
    if config.flank < 0:
        raise ConfigError(f"flank is {config.flank}", "letters, 0 or more")
    if config.flank and config.vcf is None and config.mutations is None:
        raise ConfigError("flank is given without variants", "--mutations or --vcf beside it", "Leave it out")
    if config.keep and config.mutations is None:
        raise ConfigError("keep names columns without a mutation list", "--mutations beside it", "Leave it out")
    if clash := [name for name in config.keep if name in _VARIANT_COLUMNS]:
        raise ConfigError(f"keep names '{clash[0]}', a column of the output", "other columns", "Rename it in the list")
    if config.vcf is not None and config.kind != "dna":
        raise ConfigError(f"kind is {config.kind} with a VCF", "dna", "Leave kind out")
    from llama_gene.sequences.alphabet import get_alphabet

    if config.strand == "both" and get_alphabet(config.kind).complement is None:
        raise ConfigError(f"strand: both with kind: {config.kind}, which has no other strand", "strand: given", "Leave strand out")


_SEQUENCE_COLUMNS: dict[str, type] = {
    "id": str, "length": int, "tokens": int, "windows": int, "log_likelihood": float, "per_token": float, "bits_per_letter": float,
}  # fmt: skip
_VARIANT_COLUMNS: dict[str, type] = {
    "id": str, "mutation": str, "line": int, "window_start": int, "window_end": int, "windows": int, "reference_log_likelihood": float,
    "mutant_log_likelihood": float, "score": float, "reference_bits_per_letter": float, "mutant_bits_per_letter": float,
    "bits_per_letter_change": float,
}  # fmt: skip
_BOTH_COLUMNS = {
    False: {"log_likelihood_given": float, "log_likelihood_reverse": float},
    True: {"score_given": float, "score_reverse": float},
}


def _read(config: Config) -> _Given:
    """Return what shall be scored, read as it is asked for."""
    counts, rejected = LetterCounts(), Counter[str]()
    both = config.strand == "both"
    if config.vcf is not None:
        return _read_vcf(config, rejected, counts)
    paths = config.find()
    files = [config.mutations] if config.mutations is not None else []
    assert config.output_dir is not None
    runtime.check_inputs_outside(config.output_dir, [*(path for path in paths if str(path) != "-"), *files])
    records = config.read(paths, counts, config.id_column if config.mutations is None else "")
    if config.mutations is None:
        columns = {**_SEQUENCE_COLUMNS, **(_BOTH_COLUMNS[False] if both else {})}
        return _Given(records, columns, False, rejected, counts, paths)
    from llama_gene.sequences.variants import read_mutations

    sequences = _named(records, counts)
    path = _found(config.mutations, config.data_dir)

    def variants(told: Counter[str]) -> Iterator[Variant]:
        return read_mutations(
            path,
            sequences,
            config.kind,
            told,
            mutation_column=config.mutation_column,
            id_column=config.id_column or "id",
            first_position=config.first_position,
            keep=config.keep,
        )

    total = sum(1 for _ in variants(Counter()))  # a fault in the last line is told before the first is scored
    columns = {**_VARIANT_COLUMNS, **(_BOTH_COLUMNS[True] if both else {}), **dict.fromkeys(config.keep, str)}
    items = ((variant, sequences[variant.sequence]) for variant in variants(rejected))
    return _Given(items, columns, True, rejected, counts, [path], total)


def _read_vcf(config: Config, rejected: Counter[str], counts: LetterCounts) -> _Given:
    """Return the alleles of a VCF file with their contigs."""
    from llama_gene.sequences.variants import read_reference, read_vcf, vcf_contigs

    assert config.vcf is not None and config.reference is not None and config.output_dir is not None
    vcf, fasta = _found(config.vcf, config.data_dir), _found(config.reference, config.data_dir)
    runtime.check_inputs_outside(config.output_dir, [vcf, fasta])
    contigs = read_reference(fasta, vcf_contigs(vcf), vcf)
    columns = {**_VARIANT_COLUMNS, "vcf_id": str, **(_BOTH_COLUMNS[True] if config.strand == "both" else {})}
    total = sum(1 for _ in read_vcf(vcf, contigs, Counter()))  # a fault in the last line is told before the first is scored
    items = ((variant, contigs[variant.sequence]) for variant in read_vcf(vcf, contigs, rejected))
    return _Given(items, columns, True, rejected, counts, [vcf], total)


def _found(path: Path, data_dir: Path | None) -> Path:
    """Return a file here, or else in `data_dir`."""
    return data_dir / path if data_dir is not None and not path.is_file() and (data_dir / path).is_file() else path


def _named(records: Iterable[Record], counts: LetterCounts) -> dict[str, str]:
    """Return the sequences of a mutation list by name. Raises InputError where two share one, or where positions would have shifted."""
    found: dict[str, str] = {}
    for record in records:
        if record.id in found:
            raise InputError(f"two sequences are named '{record.id}'", "an id of its own for each", "Rename or remove one")
        found[record.id] = record.sequence
    lost = {reason: number for reason, number in counts.letters_rejected.items() if reason not in ("stop", "after_stop")}
    if lost:
        told = ", ".join(f"{reason}: {number:,}" for reason, number in lost.items())
        raise InputError(f"letters of the sequences were left out ({told})", "whole sequences", "Their positions would have shifted")
    return found


# Scores. A LikelihoodScorer and a Likelihood are Any here: jsonargparse imports what annotations name, and torch takes seconds.


def _score_sequences(given: _Given, head: Record, scorer: Any, config: Config) -> Iterator[dict[str, Any]]:
    """Yield the row of each sequence."""
    for group in _groups(_chain(head, given.items), lambda record: len(record.sequence)):
        scored = _likelihoods([record.sequence for record in group], scorer, config)
        for record, (mean, strands) in zip(group, scored, strict=True):
            first = strands[0]
            row = {"id": record.id, "length": len(record.sequence), "tokens": first.tokens, "windows": first.windows}
            tokens = sum(strand.tokens for strand in strands) / len(strands)
            row |= {"log_likelihood": mean, "per_token": mean / tokens if tokens else math.nan}
            row["bits_per_letter"] = _bits(mean, len(record.sequence))
            if len(strands) == 2:
                row |= {"log_likelihood_given": strands[0].nats, "log_likelihood_reverse": strands[1].nats}
            yield row


def _score_variants(given: _Given, head: Any, scorer: Any, config: Config) -> Iterator[dict[str, Any]]:
    """Yield the row of each variant; a reference that many of them share is computed once."""
    from llama_gene.sequences.variants import windows

    flank = config.flank or (VCF_FLANK if config.vcf is not None else None)
    cut = ((variant, windows(sequence, variant.edits, flank)) for variant, sequence in _chain(head, given.items))
    for group in _groups(_with_letters(cut, given.rejected), lambda item: len(item[1][2])):
        texts = [text for _, (_, reference, mutant) in group for text in (reference, mutant)]
        scored = _likelihoods(texts, scorer, config)
        for k, (variant, (start, reference, mutant)) in enumerate(group):
            yield _variant_row(variant, start, reference, mutant, scored[2 * k], scored[2 * k + 1], config)


def _variant_row(
    variant: Variant,
    start: int,
    reference: str,
    mutant: str,
    before: tuple[float, list[Any]],
    after: tuple[float, list[Any]],
    config: Config,
) -> dict[str, Any]:
    """Return the row of one variant."""
    bits = _bits(before[0], len(reference)), _bits(after[0], len(mutant))
    row: dict[str, Any] = {
        "id": variant.sequence,
        "mutation": variant.name,
        "line": variant.line,
        "window_start": start + 1,
        "window_end": start + len(reference),
        "windows": max(strand.windows for strand in (*before[1], *after[1])),
        "reference_log_likelihood": before[0],
        "mutant_log_likelihood": after[0],
        "score": after[0] - before[0],
        "reference_bits_per_letter": bits[0],
        "mutant_bits_per_letter": bits[1],
        "bits_per_letter_change": bits[1] - bits[0],
    }
    if config.strand == "both":
        row |= {f"score_{name}": after[1][i].nats - before[1][i].nats for i, name in enumerate(("given", "reverse"))}
    if config.vcf is not None:
        row["vcf_id"] = variant.cells["vcf_id"]
    return row | {name: variant.cells[name] for name in config.keep}


def _with_letters(cut: Iterable[Any], rejected: Counter[str]) -> Iterator[Any]:
    """Yield variants of which something is left on both sides; count the others."""
    for variant, window in cut:
        if window[1] and window[2]:
            yield variant, window
        else:
            rejected["nothing left"] += 1


def _likelihoods(sequences: list[str], scorer: Any, config: Config) -> list[tuple[float, list[Any]]]:
    """Return (log P, the mean over strands where both are asked for, and that of each strand) of sequences."""
    from llama_gene.sequences.alphabet import get_alphabet, reverse_complement, write_letters

    alphabet = get_alphabet(config.kind)
    strands = [sequences]
    if config.strand == "both":
        strands.append([reverse_complement(sequence, config.kind) for sequence in sequences])
    scored = scorer.score([write_letters(sequence, alphabet) for strand in strands for sequence in strand])
    pairs = [[scored[i + k * len(sequences)] for k in range(len(strands))] for i in range(len(sequences))]
    return [(sum(strand.nats for strand in pair) / len(pair), pair) for pair in pairs]


def _bits(nats: float, num_letters: int) -> float:
    """Return bits per letter of a log-likelihood."""
    return -nats / math.log(2) / num_letters


def _groups(items: Iterable[Any], size_of: Any) -> Iterator[list[Any]]:
    """Yield items in groups of at most GROUP_SIZE items and about GROUP_LETTERS letters."""
    group: list[Any] = []
    letters = 0
    for item in items:
        group.append(item)
        letters += size_of(item)
        if letters >= GROUP_LETTERS or len(group) >= GROUP_SIZE:
            yield group
            group, letters = [], 0
    if group:
        yield group


def _chain(head: Any, others: Iterable[Any]) -> Iterator[Any]:
    """Yield an item that was read ahead, then the others."""
    yield head
    yield from others


class _Table:
    """Writes rows into a CSV or Parquet file, some at a time."""

    def __init__(self, path: Path, columns: Mapping[str, type]) -> None:
        self.path, self.columns = path, columns
        self.rows: list[dict[str, Any]] = []
        self.is_csv = path.suffix == ".csv"

    def __enter__(self) -> _Table:
        if self.is_csv:
            self.handle = self.path.open("w", encoding="utf-8", newline="")
            self.csv = csv.writer(self.handle, lineterminator="\n")
            self.csv.writerow(self.columns)
        else:
            import pyarrow as pa
            import pyarrow.parquet as parquet

            types = {str: pa.string(), int: pa.int64(), float: pa.float64()}
            self.schema = pa.schema([(name, types[kind]) for name, kind in self.columns.items()])
            self.parquet = parquet.ParquetWriter(self.path, self.schema)
        return self

    def add(self, row: dict[str, Any]) -> None:
        """Add a row."""
        if self.is_csv:
            self.csv.writerow([f"{row[name]:.6f}" if kind is float else row[name] for name, kind in self.columns.items()])
            return
        self.rows.append(row)
        if len(self.rows) >= GROUP_SIZE * 16:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self.rows:
            self.parquet.write_table(pa.Table.from_pylist(self.rows, schema=self.schema))
            self.rows = []

    def __exit__(self, *fault: object) -> None:
        if self.is_csv:
            self.handle.close()
            return
        if fault[0] is None:
            self._flush()
        self.parquet.close()
