"""Coding sequences and their proteins: does a protein conform to a gene, and what protein does a gene make?

`conform`: of each gene one fragment is asked about twice, with its own protein (1, Conform) and changed (0, Not Conform) in one of four
ways, equally many of each: the protein of another gene; a base or two inserted or deleted in the middle third of the codons; the other
strand; residues of the protein replaced. Only the changed side of a pair could give its answer away alone. The DNA is longer than the
codons, and begins in any of the three frames. It is read on the strand as given: that is what makes its reverse complement a negative.

`cds_translation`: the gene, and its protein by the genetic code; the code's own answer is kept as `oracle`, the ceiling.

The tables have the columns locus_tag, cds (start to stop codon) and protein.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llama_gene.data.derived.options import at_least
from llama_gene.errors import ConfigError
from llama_gene.sequences.alphabet import get_alphabet, reverse_complement, translate
from llama_gene.sequences.records import read_table
from llama_gene.sequences.six_frames import six_frame_match

OTHER_GENE, FRAMESHIFT = "negative: other gene", "negative: frameshift"
REVERSE_COMPLEMENT, POINT_MUTANTS = "negative: reverse complement", "negative: point mutants"
NEGATIVES = (OTHER_GENE, FRAMESHIFT, REVERSE_COMPLEMENT, POINT_MUTANTS)
"""The kinds of negatives of `conform`: names of its subsets."""

_NUM_DRAWS = 20
# A negative may agree with its DNA (strand as given) in at most this share: relatives and repeats are drawn again. Mutants have their own.
_MOST_AGREEMENT = {OTHER_GENE: 0.5, FRAMESHIFT: 0.8, REVERSE_COMPLEMENT: 0.8, POINT_MUTANTS: 1.0}


@dataclass(frozen=True)
class ConformOptions:
    """Options of `conform`."""

    residues: int = 50
    """Residues of the protein fragment."""
    bases: int = 180
    """Bases of the DNA fragment, which holds the codons of all these residues: at least 3 x residues + 2."""
    mutated_share: float = 0.1
    """Share of the residues that a point mutant has replaced; at least one is."""
    genetic_code: int = 11
    """NCBI number; 11 is that of bacteria."""
    genes: int = 0
    """Take a seeded sample of so many genes of each file; 0 takes all. A cap on rows would not keep the kinds equal."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values against each other. Raises ConfigError."""
        at_least(self.residues, 6, "residues")
        at_least(self.bases, 3 * self.residues + 2, "bases")
        at_least(self.genes, 0, "genes")
        if not 0 < self.mutated_share <= 1:
            raise ConfigError(f"option 'mutated_share': {self.mutated_share:g}", "above 0, at most 1", "Change derive_options")
        translate("", self.genetic_code)


@dataclass(frozen=True)
class TranslationOptions:
    """Options of `cds_translation`."""

    residues: int = 0
    """Ask for the first so many codons of the gene; 0 asks for the whole gene."""
    max_residues: int = 0
    """Leave out longer proteins (before they are cut); 0 keeps all."""
    genetic_code: int = 11
    """NCBI number; 11 is that of bacteria."""


@dataclass(frozen=True)
class _Gene:
    name: str
    dna: str
    protein: str
    source: str


def conform_rows(path: Path, options: ConformOptions, rejected: Counter[str]) -> list[dict[str, str]]:
    """Return a positive and a negative row a gene, in the order of the file; see the module's docstring."""
    genes = [gene for gene in _genes(path, options.genetic_code, rejected) if _is_long_enough(gene, options, rejected)]
    rng = random.Random(f"{options.seed}/{path.name}/conform")
    made: list[tuple[int, list[dict[str, str]]]] = []
    num_failed = 0
    for number in rng.sample(range(len(genes)), len(genes)):
        if options.genes and len(made) == options.genes:
            rejected["gene not in the sample"] += len(genes) - len(made) - num_failed
            break
        rows = _pair_of_rows(genes, number, NEGATIVES[len(made) % len(NEGATIVES)], options, rng)
        if rows:
            made.append((number, rows))
        else:
            num_failed += 1
    if num_failed:
        rejected["gene without a negative that differs enough"] += num_failed
    surplus = len(made) % len(NEGATIVES)
    if surplus:
        rejected["gene too many for equal kinds of negatives"] += surplus
        del made[-surplus:]
    return [row for _, rows in sorted(made, key=lambda item: item[0]) for row in rows]


def translation_rows(path: Path, options: TranslationOptions, rejected: Counter[str]) -> list[dict[str, str]]:
    """Return one row a gene."""
    at_least(options.residues, 0, "residues")
    rows = []
    for gene in _genes(path, options.genetic_code, rejected):
        if options.max_residues and len(gene.protein) > options.max_residues:
            rejected["protein longer than max_residues"] += 1
            continue
        length = options.residues or len(gene.protein) + 1  # the whole gene with its stop codon
        dna = gene.dna[: 3 * length]
        oracle = "M" + translate(dna, options.genetic_code).rstrip("*")[1:]  # every start codon is read as M
        protein = gene.protein[:length]
        rows.append({"gene": gene.name, "dna": dna, "protein": protein, "oracle": oracle, "source": gene.source})
    return rows


def _genes(path: Path, genetic_code: int, rejected: Counter[str]) -> Iterator[_Gene]:
    """Yield the genes of a table whose DNA makes their protein."""
    letters = frozenset(get_alphabet("dna").letters)
    for number, cells in enumerate(read_table(path, ["locus_tag", "cds", "protein"]), start=2):
        dna, protein = cells["cds"].strip().upper(), cells["protein"].strip().upper()
        if not dna or not protein:
            rejected["empty sequence"] += 1
        elif not letters.issuperset(dna):
            rejected["letters outside the dna alphabet"] += 1
        elif translate(dna, genetic_code)[1:].removesuffix("*") != protein[1:]:
            rejected["the genetic code does not make the protein"] += 1
        else:
            yield _Gene(cells["locus_tag"].strip(), dna, protein, f"{path.name}:{number}")


def _is_long_enough(gene: _Gene, options: ConformOptions, rejected: Counter[str]) -> bool:
    # the first residue is left aside: other start codons than ATG make an M, too
    if len(gene.dna) < options.bases or len(gene.protein) <= options.residues:
        rejected["gene shorter than the fragment"] += 1
        return False
    return True


def _pair_of_rows(genes: list[_Gene], number: int, kind: str, options: ConformOptions, rng: random.Random) -> list[dict[str, str]] | None:
    """Return the positive and the negative row of a gene; None where no draw gives a negative that differs enough."""
    gene = genes[number]
    first = rng.randrange(1, len(gene.protein) - options.residues + 1)
    protein = gene.protein[first : first + options.residues]
    start = rng.randint(
        max(0, 3 * (first + options.residues) - options.bases), min(3 * first, len(gene.dna) - options.bases)
    )  # all the codons lie within
    dna = gene.dna[start : start + options.bases]
    for _ in range(_NUM_DRAWS):
        other_dna, other_protein = dna, protein
        if kind == OTHER_GENE:
            other = genes[
                (number + rng.randrange(1, max(2, len(genes)))) % len(genes)
            ].protein  # never the gene itself, if there is another
            place = rng.randrange(1, len(other) - options.residues + 1)
            other_protein = other[place : place + options.residues]
        elif kind == FRAMESHIFT:
            other_dna = _shift_frame(gene.dna, start, options.bases, 3 * first + options.residues, options.residues, rng)
        elif kind == REVERSE_COMPLEMENT:
            other_dna = reverse_complement(dna)
        else:
            other_protein = _mutate(protein, max(1, round(options.mutated_share * options.residues)), rng)
        agreement = six_frame_match(other_dna, other_protein, options.genetic_code, both_strands=False)
        if agreement < 1 and agreement <= _MOST_AGREEMENT[kind]:
            shared = {"gene": gene.name, "source": gene.source}
            return [
                {**shared, "dna": dna, "protein": protein, "label": "1", "subset": ""},
                {**shared, "dna": other_dna, "protein": other_protein, "label": "0", "subset": kind},
            ]
    return None


def _shift_frame(gene: str, start: int, length: int, from_place: int, num_places: int, rng: random.Random) -> str:
    """Return the window of a gene with one or two bases inserted or deleted; it keeps its length.

    `from_place` is where the middle third of the codons begins in the gene, `num_places` how many bases it has.
    """
    size = rng.choice((1, 2))
    place = rng.randrange(from_place, from_place + num_places) - start
    window = gene[start : start + length]
    if rng.random() < 0.5:
        return (window[:place] + "".join(rng.choices("ACGT", k=size)) + window[place:])[:length]
    behind = gene[start + length : start + length + size]
    return window[:place] + window[place + size :] + behind + "".join(rng.choices("ACGT", k=size - len(behind)))


def _mutate(protein: str, count: int, rng: random.Random) -> str:
    """Return a protein with `count` residues replaced by others."""
    residues = list(protein)
    for place in rng.sample(range(len(residues)), count):
        residues[place] = rng.choice([letter for letter in get_alphabet("protein").letters if letter != residues[place]])
    return "".join(residues)
