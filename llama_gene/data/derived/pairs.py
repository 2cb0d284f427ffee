"""Pairs of sequences: do two genes belong to one family?

Each gene is the first member of as many pairs with a gene of its own family as with one of another family, so the first member alone says
nothing. A gene that stands twice in a file (for DNA also as reverse complement) counts once. Sequences stay whole.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from llama_gene.data.derived.options import at_least
from llama_gene.errors import InputError
from llama_gene.sequences.alphabet import get_alphabet, reverse_complement
from llama_gene.sequences.records import read_table

_NUM_DRAWS = 50


@dataclass(frozen=True)
class FamilyPairOptions:
    """Options of `family_pairs`."""

    kind: str = "dna"
    """Alphabet of the sequences."""
    family_column: str = "label"
    """Column of the family; the sequence's is `sequence`."""
    per_gene: int = 1
    """Pairs of each sort, same family and different families, in which a gene is the first member."""
    max_letters: int = 0
    """Leave out longer sequences; 0 keeps all."""
    seed: int = 0


def family_pair_rows(path: Path, options: FamilyPairOptions, rejected: Counter[str]) -> list[dict[str, str]]:
    """Return equally many pairs of one family (label 1) and of two (label 0), each pair once in whatever order."""
    at_least(options.per_gene, 1, "per_gene")
    genes = _distinct_genes(path, options, rejected)
    members: dict[str, list[int]] = defaultdict(list)
    for number, (_, family, _) in enumerate(genes):
        members[family].append(number)
    if len(members) < 2:
        raise InputError(f"{path} holds {len(members)} family", "two or more", "Name the column of the family: family_column")
    rng = random.Random(f"{options.seed}/{path.name}/family_pairs")
    seen: set[frozenset[int]] = set()
    rows = []
    for first, (_, family, source) in enumerate(genes):
        for _ in range(options.per_gene):
            same = _partner(first, members[family], seen, rng)
            other = _partner(first, range(len(genes)), seen, rng, set(members[family]))
            if same is None or other is None:
                rejected["gene without a partner left in its family"] += 1
                continue
            for partner, label in ((same, "1"), (other, "0")):
                seen.add(frozenset((first, partner)))
                origin = f"{source}+{genes[partner][2].rpartition(':')[2]}"
                rows.append({"gene": source, "first": genes[first][0], "second": genes[partner][0], "label": label, "source": origin})
    return rows


def _distinct_genes(path: Path, options: FamilyPairOptions, rejected: Counter[str]) -> list[tuple[str, str, str]]:
    """Return (sequence, family, "FILE:ROW") of each gene once."""
    alphabet = get_alphabet(options.kind)
    accepted = frozenset(alphabet.letters + alphabet.ambiguous)
    known: set[str] = set()
    genes = []
    for number, cells in enumerate(read_table(path, ["sequence", options.family_column]), start=2):
        sequence, family = cells["sequence"].strip().upper(), cells[options.family_column].strip()
        key = min(sequence, reverse_complement(sequence, options.kind)) if alphabet.complement else sequence
        if not sequence or not family:
            rejected["empty sequence or family"] += 1
        elif not accepted.issuperset(sequence):
            rejected[f"letters outside the {options.kind} alphabet"] += 1
        elif options.max_letters and len(sequence) > options.max_letters:
            rejected["longer than max_letters"] += 1
        elif key in known:
            rejected["sequence seen before in its file"] += 1
        else:
            known.add(key)
            genes.append((sequence, family, f"{path.name}:{number}"))
    return genes


def _partner(
    first: int, candidates: list[int] | range, seen: set[frozenset[int]], rng: random.Random, without: set[int] | None = None
) -> int | None:
    """Return a second member that makes a new pair; None where draws find none."""
    for _ in range(_NUM_DRAWS):
        partner = rng.choice(candidates)
        if partner != first and partner not in (without or ()) and frozenset((first, partner)) not in seen:
            return partner
    return None
