"""index: annotated sequences (FASTA, GenBank, UniProt, tables) -> an index of neighbours, for answers with evidence.

What is known of a record becomes one line of text: of a UniProt entry what `describe_protein` says (name, gene, organism, function, EC,
GO, keywords), of a FASTA record of proteins what its header says, of another record its description, of a table's row `text_columns`. How
the index is made stands in llama_gene/data/evidence_index.py, how it is asked in llama_gene/data/evidence.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from llama_gene import runtime
from llama_gene.data.workers import Engine
from llama_gene.errors import ConfigError
from llama_gene.sequences.formats import FileFormat
from llama_gene.sequences.letters import LetterCounts, LetterPolicy
from llama_gene.sequences.sources import Content

if TYPE_CHECKING:
    from llama_gene.data.evidence_index import Source
    from llama_gene.sequences.records import Record


@dataclass
class Config:
    """Annotated sequences to an index."""

    inputs: list[str] = field(default_factory=list)
    """Files, folders or globs of annotated sequences or tables, looked up here and then in data_dir, or "-"; plain or compressed."""
    data_dir: Path | None = None
    """Folder in which inputs are looked up that are not found here."""
    kind: str = "protein"
    """Alphabet of the sequences: protein, dna or rna."""
    format: FileFormat = "auto"
    """auto tells by name and first bytes; or fasta, fastq, genbank, gff, uniprot, jsonl, json. Tables are told by .csv or .tsv."""
    content: Content = "sequence"
    """What is taken of a GenBank record: sequence, cds or protein."""
    column: str = "sequence"
    """Column of a table that holds the sequences."""
    id_column: str = ""
    """Column of a table that names its rows; empty: the column `id` where there is one, else TABLE:NUMBER."""
    text_columns: list[str] = field(default_factory=list)
    """Columns of a table that say what is known of a row."""
    letters: LetterPolicy = field(default_factory=lambda: LetterPolicy(soft_masked="upper"))
    """What becomes of ambiguity codes, gaps, U, stop signs and lower-case letters; all counted."""
    kmer: int | None = None
    """Letters of a k-mer; unset: 5 residues, 13 bases."""
    scaled: int = 1
    """Keep one in so many k-mers: a smaller index that misses more distant or shorter neighbours."""
    window: int = 5000
    """Longest entry, in letters; longer records are cut into windows that overlap by a fifth."""
    workers: int = 1
    """Processes that hash at the same time; their number changes no byte of the output."""
    engine: Engine = "local"
    """local: processes of this machine; ray: the Ray cluster that RAY_ADDRESS names (extra `scale`), whose machines share the folders."""
    output_dir: Path | None = None
    """Folder to write: entries.jsonl, the k-mers (*.npy), manifest.json."""


def run(config: Config) -> Path:
    """Write the index, whole or not at all; return its folder."""
    if not config.inputs or config.output_dir is None:
        raise ConfigError("inputs or output_dir is not given", "--inputs and --output_dir")
    from llama_gene.data.evidence_index import STAGE, write_index
    from llama_gene.data.workers import check_workers
    from llama_gene.tokenization.inputs import find_queries

    check_workers(config.workers, config.engine)
    runtime.check_output(config.output_dir, STAGE)
    paths = find_queries(config.inputs, config.data_dir)
    files = [Path(path) for path in paths if str(path) != "-"]
    runtime.check_inputs_outside(config.output_dir, files)
    counts = LetterCounts()
    with runtime.whole_dir(config.output_dir) as folder:
        facts = write_index(
            read_sources(paths, config, counts),
            folder,
            config.kind,
            kmer=config.kmer,
            scaled=config.scaled,
            window=config.window,
            workers=config.workers,
            engine=config.engine,
        )
        inputs = [{"path": str(path), "sha256": runtime.file_hash(path)} for path in files]
        runtime.write_manifest(folder, STAGE, config, **facts, letter_counts=counts, inputs=inputs)
    log = runtime.get_logger()
    said = [f"{facts[name]:,}" for name in ("records", "letters", "entries", "without_text", "short", "unnamed", "repeated")]
    text = "index: %s records, %s letters, %s entries; %s without a text, %s too short to be found; %s unnamed and %s repeated left out"
    log.info(text, *said)
    log.info("index: written to %s", config.output_dir)
    return config.output_dir


def read_sources(paths: Sequence[Path | str], config: Config, counts: LetterCounts) -> Iterator[Source]:
    """Yield what is to be indexed, file by file, letters as the policy leaves them."""
    from llama_gene.data.evidence_index import Source
    from llama_gene.sequences.queries import is_table, read_queries
    from llama_gene.sequences.uniprot import describe_protein, parse_uniprot_header

    for path in paths:
        if _is_uniprot(path, config):
            yield from _read_entries(path, config, counts)
            continue
        records = read_queries(
            [path],
            config.kind,
            policy=config.letters,
            counts=counts,
            file_format=config.format,
            content=config.content,
            column=config.column,
            id_column=config.id_column,
            text_columns=config.text_columns,
        )
        for record in records:
            if config.kind == "protein" and config.content == "sequence" and not is_table(path):
                entry = parse_uniprot_header(f"{record.origin} {record.description}")
                yield Source(_named(record, entry.accession), _in_a_line(describe_protein(entry)), record.sequence)
            else:
                yield Source(record.id, record.description, record.sequence)


def _is_uniprot(path: Path | str, config: Config) -> bool:
    """Return whether a file holds UniProt's flat entries, which say more than a record has place for."""
    from llama_gene.sequences.files import open_bytes
    from llama_gene.sequences.formats import choose_format
    from llama_gene.sequences.queries import is_table

    if is_table(path) or str(path) == "-" or config.content != "sequence":
        return False
    with open_bytes(path) as handle:
        return choose_format(path, config.format, handle.peek(1), is_english=False) == "uniprot"


def _read_entries(path: Path | str, config: Config, counts: LetterCounts) -> Iterator[Source]:
    """Yield the entries of a UniProt flat file with all that they say."""
    from llama_gene.data.evidence_index import Source
    from llama_gene.sequences.files import open_bytes, spoken_path
    from llama_gene.sequences.letters import apply, check
    from llama_gene.sequences.records import Record
    from llama_gene.sequences.uniprot import describe_protein, parse_uniprot

    with open_bytes(path) as handle:
        for place, entry in parse_uniprot(handle, spoken_path(path)):
            record = Record(entry.accession, entry.name, entry.sequence)
            check(record, config.kind, config.letters, f"{place}, entry '{entry.accession}'")
            for piece in apply(record, config.kind, config.letters, counts):
                yield Source(piece.id, _in_a_line(describe_protein(entry)), piece.sequence)


def _named(record: Record, accession: str) -> str:
    """Return the accession of a record; a piece of one keeps its place."""
    return accession + record.id.removeprefix(record.origin)


def _in_a_line(text: str) -> str:
    return "; ".join(line.removesuffix(".") for line in text.splitlines())
