"""What `embed` and `score` are asked about, and by which model: the options that both have, and how their inputs are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from llama_gene.errors import ConfigError
from llama_gene.models.settings import Precision
from llama_gene.sequences.formats import FileFormat
from llama_gene.sequences.letters import LetterCounts, LetterPolicy
from llama_gene.sequences.sources import Content

if TYPE_CHECKING:
    from llama_gene.sequences.records import Record


@dataclass
class QueryInputs:
    """Sequences and a model that reads them without a prompt."""

    model: str | None = None
    """Adapter folder of ours, or any Hugging Face causal model, folder or hub id; `embed` also takes a folder written by `classify` and any
    encoder."""
    inputs: list[str] = field(default_factory=list)
    """Files, folders or globs of sequences or tables, looked up here and then in data_dir, or "-" (standard input); plain or compressed."""
    data_dir: Path | None = None
    """Folder in which files are looked up that are not found here."""
    kind: str = "dna"
    """Alphabet of the sequences: dna, rna, protein, ..."""
    format: FileFormat = "auto"
    """auto tells by name and first bytes; or fasta, fastq, genbank, gff, uniprot, jsonl, json. Tables are told by .csv or .tsv."""
    content: Content = "sequence"
    """What is taken of a GenBank record: sequence, cds or protein."""
    column: str = "sequence"
    """Column of a table that holds the sequences."""
    id_column: str = ""
    """Column of a table (with `mutations`: of that list) that names its rows; empty: column `id` where there is one, else TABLE:NUMBER."""
    letters: LetterPolicy = field(default_factory=lambda: LetterPolicy(soft_masked="upper"))
    """What becomes of ambiguity codes, gaps, U, stop signs and lower-case letters of `inputs`; all counted. For a list of mutations none
    may be removed, or positions would shift."""
    max_length: int = 1024
    """Longest window, in tokens, special ones included (at most the model's own); longer sequences are read in several."""
    batch_tokens: int = 16384
    """Tokens of a batch, padding included."""
    precision: Precision = "float32"
    """Arithmetic of the model; what is written is float32."""

    def check(self) -> None:
        """Raise ConfigError for a number or an alphabet that nothing could be read with."""
        from llama_gene.sequences.alphabet import get_alphabet

        get_alphabet(self.kind)
        for name in ("max_length", "batch_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", "at least 1 token", f"Raise --{name}")

    def find(self) -> list[Path | str]:
        """Return the files that `inputs` names, looked up here and then in `data_dir`. Raises MissingFileError."""
        from llama_gene.tokenization.inputs import find_queries

        return find_queries(self.inputs, self.data_dir)

    def read(self, paths: list[Path | str], counts: LetterCounts, id_column: str | None = None) -> Iterator[Record]:
        """Yield the records of files as they are asked for; `counts` accounts for every letter. Raises what `read_queries` raises."""
        from llama_gene.sequences.queries import read_queries

        return read_queries(
            paths,
            self.kind,
            policy=self.letters,
            counts=counts,
            file_format=self.format,
            content=self.content,
            column=self.column,
            id_column=self.id_column if id_column is None else id_column,
        )
