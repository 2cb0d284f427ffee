"""What a corpus is made of and how: the keys of the stage `corpus`, checked."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from llama_gene.errors import ConfigError, did_you_mean
from llama_gene.sequences.alphabet import get_alphabet
from llama_gene.sequences.formats import FileFormat
from llama_gene.sequences.letters import LetterPolicy
from llama_gene.sequences.records import MAX_RECORD_LENGTH
from llama_gene.sequences.shared_runs import SCREEN_SHARE, default_length
from llama_gene.sequences.sources import ENGLISH, Content

MIN_PROTEIN_LENGTH = 10  # residues; shorter records carry no language
MIN_SKETCHED = 4000  # bp; a shorter record has too few hashes in its sketch to tell (sketches.py)
SPLITS = ("train", "valid", "test")
UNDECIDED = 255  # a split that waits for the clusters
MAX_CLUSTERED_LETTERS = 60_000_000  # what the built-in similarity search takes at once


@dataclass
class Source:
    """Files of one language."""

    language: str = "dna"
    """Name of the row set that these files go to, for example dna, protein, english."""
    kind: str = ""
    """Alphabet of the documents (dna, rna, protein, ..., or english for text); empty: the same as language."""
    inputs: list[str] = field(default_factory=list)
    """Files, folders or globs, looked up here and then in data_dir, or "-" (standard input); plain, .gz, .bz2, .xz or .zst."""
    format: FileFormat = "auto"
    """auto tells by name and first bytes; or fasta, fastq, genbank, gff, uniprot, text, jsonl, json."""
    content: Content = "sequence"
    """What is taken of a record: sequence (all of it), cds (DNA of its coding sequences), protein (their translation, by the record's own
    genetic code), protein_text (UniProt: what is known about the protein, as English)."""
    gff: Path | None = None
    """Annotation (GFF3) of a FASTA input, for content cds or protein."""
    gff_names: dict[str, str] = field(default_factory=dict)
    """Names of sequences in the annotation -> those in the FASTA file, where they differ (NC_001133.9: I)."""
    genetic_code: int = 1
    """NCBI number of the genetic code where a record does not state its own."""
    letters: LetterPolicy = field(default_factory=lambda: LetterPolicy(soft_masked="upper"))
    """What becomes of ambiguity codes, gaps, U, stop signs and lower-case letters; all counted."""
    split: Literal["auto", "train", "valid", "test"] = "auto"
    """auto divides these files as `split` of the corpus says; the others give them whole to one side (a species held out, say)."""
    circular: bool = False
    """Every record is a circle; else those that say so (GenBank, or [topology=circular] in a FASTA header)."""
    max_letters: int = 0
    """Stop after this many letters of these files (0: no limit); what the last record has beyond it is counted."""
    max_record_length: int = MAX_RECORD_LENGTH
    """Longest record, in letters; a longer one is refused, since a record is held in memory whole."""
    unique_ids: bool = False
    """Refuse a file in which two records have one id; else they are counted."""
    licence: str = ""
    """Licence of the files, for the corpus card."""

    @property
    def alphabet_name(self) -> str:
        """The kind, or the language where no kind is given."""
        return self.kind or self.language

    @property
    def is_nucleotide(self) -> bool:
        """Whether there is another strand: such records are cut into fragments, others stay whole."""
        return self.alphabet_name != ENGLISH and get_alphabet(self.alphabet_name).complement is not None

    def check(self) -> None:
        """Raise ConfigError for a source that names no files, no kind that we know, or a language that is no file name."""
        if not re.fullmatch(r"\w[\w.-]*", self.language):
            raise ConfigError(f"language '{self.language}' cannot be a file name", "letters, digits, '_', '-' and '.'", "Rename it")
        if not self.inputs:
            raise ConfigError(f"the source of '{self.language}' has no inputs", "files, folders or globs", "Set its inputs")
        if self.max_letters < 0:
            raise ConfigError(f"max_letters of '{self.language}' is {self.max_letters}", "0 (no limit) or more letters")
        if self.max_record_length < 1:
            raise ConfigError(f"max_record_length of '{self.language}' is {self.max_record_length}", "at least 1 letter")
        if self.alphabet_name != ENGLISH:
            try:
                get_alphabet(self.alphabet_name)
            except ConfigError as error:
                hint = did_you_mean(self.alphabet_name, [ENGLISH]) or error.action
                raise ConfigError(f"language '{self.language}': {error.found}", f"{error.expected}, {ENGLISH}", hint) from error


@dataclass
class CutPolicy:
    """How records become documents."""

    min_fragment: int = 300
    """Shortest DNA fragment, in bp (LLaMA-Gene 2.2.1: 300)."""
    max_fragment: int = 1000
    """Longest DNA fragment, in bp (LLaMA-Gene 2.2.1: 1000)."""
    max_protein: int = 1000
    """Longest protein document, in residues; longer proteins are cut into windows of this size."""
    starts: Literal["tiled", "random"] = "tiled"
    """tiled: fragments of seeded random lengths side by side, each base once; random: windows anywhere, which overlap."""
    coverage: float = 1.0
    """Random starts: letters drawn, as a multiple of the letters there are."""
    strands: Literal["forward", "both"] = "forward"
    """both: each training fragment of a nucleotide language is followed by its reverse complement, as a document of its own."""

    def check(self) -> None:
        """Raise ConfigError for sizes that no record can be cut to."""
        if not 1 <= self.min_fragment <= self.max_fragment:
            raise ConfigError(
                f"cut.min_fragment is {self.min_fragment}, cut.max_fragment {self.max_fragment}", "1 <= min_fragment <= max_fragment"
            )
        if self.max_protein < MIN_PROTEIN_LENGTH:
            raise ConfigError(f"cut.max_protein is {self.max_protein}", f"at least {MIN_PROTEIN_LENGTH} residues")
        if not 0 < self.coverage < math.inf:
            raise ConfigError(f"cut.coverage is {self.coverage}", "a number above 0", "1.0 draws as many letters as there are")
        if self.coverage != 1.0 and self.starts == "tiled":
            raise ConfigError(f"cut.coverage is {self.coverage}, and starts are tiled", "starts: random", "Tiles hold each base once")


@dataclass
class SplitPolicy:
    """What is held out of the sources whose own split is auto."""

    valid_fraction: float = 0.05
    """Share held out for validation: of every record (tail), of the records (record, cluster)."""
    test_fraction: float = 0.0
    """Share held out for a test, the same way."""
    dna: Literal["tail", "record", "cluster"] = "tail"
    """Languages with two strands. tail: the end of every record, cut off before fragments are made; record: whole records (chromosomes,
    contigs) drawn by their names; cluster: whole clusters of records that a similarity search relates (contigs, short sequences)."""
    protein: Literal["record", "cluster"] = "cluster"
    """Other sequences. cluster: whole clusters, so that no held-out protein has a relative in training (sequences/similarity.py says which
    are found); record: drawn by their names, homologues may straddle."""
    valid_records: list[str] = field(default_factory=list)
    """Names of records (chromosomes) that are held out for validation, whatever the fractions and the source's own split."""
    test_records: list[str] = field(default_factory=list)
    """Names of records that are held out for a test."""

    def check(self) -> None:
        """Raise ConfigError for shares that leave nothing to train on, or a record on both sides."""
        for name, share in (("valid_fraction", self.valid_fraction), ("test_fraction", self.test_fraction)):
            if not 0 <= share < 1:
                raise ConfigError(f"split.{name} is {share}", "at least 0 and below 1")
        if self.valid_fraction + self.test_fraction >= 1:
            raise ConfigError(f"split holds out {self.valid_fraction + self.test_fraction:g} of all", "less than all")
        if twice := set(self.valid_records) & set(self.test_records):
            raise ConfigError(f"split names {sorted(twice)[0]} for validation and for the test", "one of the two")

    def named(self, record: str) -> str:
        """Return the split that the name of a record decides, else an empty string."""
        return "valid" if record in self.valid_records else "test" if record in self.test_records else ""

    def way(self, source: Source) -> Literal["tail", "record", "cluster"]:
        """Return how a source is divided; text is divided by its documents' names."""
        if source.alphabet_name == ENGLISH:
            return "record"
        return self.dna if source.is_nucleotide else self.protein


@dataclass
class RepeatPolicy:
    """What counts as said already. Exact repeats of a document (either strand) are always dropped."""

    near_identity: float = 0.98
    """Drop nucleotide records of 4,000 bp and more that are nearly identical to a longer one, or lie in it, at this identity (0: keep)."""
    sketch_scaled: int = 200
    """One 31-mer in so many is looked at; a larger number takes less memory (16 GB of DNA: 6 GB at 200, 1.2 GB at 1000)."""

    def check(self) -> None:
        """Raise ConfigError for an identity or a scale that means nothing."""
        if not (self.near_identity == 0 or 0.9 <= self.near_identity <= 1):
            raise ConfigError(f"repeats.near_identity is {self.near_identity}", "0.9 to 1, or 0 for no search", "0.98 is the default")
        if self.sketch_scaled < 1:
            raise ConfigError(f"repeats.sketch_scaled is {self.sketch_scaled}", "at least 1")


@dataclass
class ContaminationPolicy:
    """Evaluation sequences that no pretraining document may hold, on either strand."""

    evaluation: list[str] = field(default_factory=list)
    """Task YAMLs (their dev and test rows), tables with a column `sequence`, FASTA files, folders of instructions; empty: no search."""
    dna_length: int = default_length("dna")
    """Shortest common run that counts, in bp."""
    protein_length: int = default_length("protein")
    """Shortest common run that counts, in residues."""
    share: float = SCREEN_SHARE
    """A run must also hold this share of the evaluation sequence, or of the document where that is shorter; 0: every run counts, those of
    repeat families, too."""

    def check(self) -> None:
        """Raise ConfigError for a share outside 0 to 1."""
        if not 0 <= self.share <= 1:
            raise ConfigError(f"decontaminate.share is {self.share}", "0 to 1", "0.25 is the default")

    def located(self, data_dir: Path | None) -> list[str]:
        """Return the evaluation files as they are found: here, else in `data_dir`."""
        if data_dir is None:
            return list(self.evaluation)
        return [name if Path(name).exists() or not (data_dir / name).exists() else str(data_dir / name) for name in self.evaluation]

    def length(self, source: Source) -> int:
        """Return the length that counts for a source."""
        return self.dna_length if source.is_nucleotide else self.protein_length


@dataclass
class Settings:
    """Everything but the sources that decides what documents there are."""

    cut: CutPolicy = field(default_factory=CutPolicy)
    split: SplitPolicy = field(default_factory=SplitPolicy)
    repeats: RepeatPolicy = field(default_factory=RepeatPolicy)
    decontaminate: ContaminationPolicy = field(default_factory=ContaminationPolicy)

    def check(self) -> None:
        """Raise ConfigError for what contradicts itself."""
        self.cut.check()
        self.split.check()
        self.repeats.check()
        self.decontaminate.check()
