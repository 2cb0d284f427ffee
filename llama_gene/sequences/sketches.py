"""Near-duplicate genomes and contained contigs, found by FracMinHash sketches (Irber et al. 2022) of sourmash.

Algorithm. A sketch holds the hashes of those 31-mers (the lesser of the two strands) whose hash is in the lowest 1/200 of all values: an
even sample of the sequence, the same letters giving the same sample wherever they stand. Two sequences at identity i share i**31 of their
31-mers, so 98 % identity is 53 % of the hashes. Records are taken longest first; one whose hashes, to that share or more, lie in a record
that was kept is dropped. Only kept records are listed under their hashes, so 10,000 copies of one genome are each compared with one.

Speed: sourmash takes 40 million letters a second on one core (own machine code, tried with numba, 1.3 to 1.8 times that: not worth a second
implementation); 10,000 near-identical genomes of 30 kb are compared in 0.2 s. Memory: 8 bytes a hash as long as a sketch lives, 45 to 75
more in `near_duplicates` (500 Mb of DNA: 20 MB and 0.2 GB; 16 Gb: 0.6 and 6 GB, a fifth of that with scaled: 1000).

Limits. A sketch does not tell where the shared hashes lie: half of a record copied exactly and the other half new looks like 98 %
identity throughout, so up to 47 % of a dropped record's letters may be new (27 % with identity 0.99). A record with fewer than 20 hashes
(4,000 letters) is never dropped: exact copies and `similarity` are for those. Proteins have no such sketch; their k-mers (`kmer_hashes`)
serve `data/evidence_index.py` alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from llama_gene.errors import ConfigError
from llama_gene.sequences.alphabet import get_alphabet

KMER = 31  # letters: 62 bits, no chance matches between genomes
SCALED = 200
IDENTITY = 0.98
MIN_HASHES = 20  # at 97 % identity 11 % of pairs with 20 hashes reach the share of 98 %, 2 % of those with 50, none with 150
SAME_LENGTH = 0.9  # two records whose lengths differ by a tenth at most are "near-identical", others "contained"

UInt64 = NDArray[np.uint64]
_U = np.uint64
_PLAIN = b"ACGTUacgtu"
_MAX_LISTED = 256  # kept records under one hash: a repeat family in thousands of contigs tells nothing and must not cost quadratic time
_NONE = -1


@dataclass(frozen=True)
class Sketch:
    """The hashes of a sequence below 2**64 / scaled, ascending, each once, and the number of its A, C, G and T."""

    hashes: UInt64
    num_letters: int


def sketch(sequence: str, scaled: int = SCALED) -> Sketch:
    """Return the sketch of a DNA sequence; case does not count, U is T, and 31-mers with another letter (N, IUPAC codes) are left out.

    Raises ConfigError for a `scaled` below 1.

    >>> len(sketch("ACGTTGCC" * 1000, scaled=1).hashes), sketch("ACGNN").num_letters
    (8, 3)
    """
    hashes = kmer_hashes(sequence, "dna", KMER, scaled)
    text = sequence.encode("ascii", "replace")
    return Sketch(hashes, len(text) - len(text.translate(None, _PLAIN)))


def kmer_hashes(sequence: str, kind: str, size: int, scaled: int = 1) -> UInt64:
    """Return the hashes of a sequence's k-mers of `size` letters that are in the lowest 1/scaled of all values, ascending, each once.

    Nucleotides: the lesser of the two strands, U is T, k-mers with another letter are left out. Protein: as they stand, any letter.
    Raises ConfigError for a `scaled` below 1, and for a kind that is neither.

    >>> kmer_hashes("ACGTTGCA", "dna", 5).tolist() == kmer_hashes("TGCAACGT", "dna", 5).tolist()
    True
    """
    if scaled < 1:
        raise ConfigError(f"scaled {scaled}", f"1 or more: one of so many {size}-mers is kept", "Set scaled: 1 for all of them")
    is_protein = kind == "protein"
    if not is_protein and get_alphabet(kind).complement is None:
        raise ConfigError(f"k-mers of kind '{kind}'", "dna, rna or protein", "Use one of these")
    from sourmash import MinHash  # 0.7 s to import

    minhash = MinHash(n=0, ksize=size, scaled=scaled, is_protein=is_protein)
    if is_protein:
        minhash.add_protein(sequence)
    else:
        minhash.add_sequence(sequence.replace("U", "T").replace("u", "t"), force=True)  # force: skip k-mers with other letters
    hashes = np.fromiter(minhash.hashes, dtype=np.uint64)
    hashes.sort()
    return hashes


def near_duplicates(sketches: Sequence[Sketch], identity: float = IDENTITY) -> list[int | None]:
    """Return for each record the kept one that it repeats, or lies in, at `identity` or more; None for a record that is kept.

    Records are taken longest first (by A, C, G and T; equals in their order), so a complete genome stays and the copy with gaps goes.
    Raises ConfigError for an identity outside 0 to 1.
    """
    if not 0 < identity <= 1:
        raise ConfigError(f"identity {identity}", "above 0, at most 1", "Write 0.98 for 98 %")
    if not sketches:
        return []
    order = np.array(sorted(range(len(sketches)), key=lambda number: (-sketches[number].num_letters, number)), dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum([len(one.hashes) for one in sketches])]).astype(np.int64)
    hashes = np.concatenate([one.hashes for one in sketches]).astype(np.uint64)
    found = _drop_repeats(hashes, starts, order, identity**KMER)
    return [int(kept) if kept != _NONE else None for kept in found]


def repeat_reason(dropped: Sketch, kept: Sketch) -> str:
    """Return why a record is dropped: "near-identical" to the kept one, or "contained" in it where that is over a tenth longer."""
    return "near-identical" if dropped.num_letters >= SAME_LENGTH * kept.num_letters else "contained"


@numba.njit(cache=True)
def _drop_repeats(hashes: Any, starts: Any, order: Any, share: float) -> Any:
    """Return for each record the kept record that holds `share` of its hashes, -1 for a kept one.

    Of its own hashes, not of the fewer of both: a longer record of satellite repeats has few, which a unique record may well hold.
    An open-addressing hash gives each value the head of a list of (record, next) entries.
    """
    size = 1 << 10
    while size < 2 * len(hashes):
        size *= 2
    keys = np.zeros(size, np.uint64)
    heads = np.full(size, -1, np.int32)  # of a value's list, -1: no such value
    sizes = np.zeros(size, np.int16)
    records = np.empty(len(hashes), np.int32)
    following = np.empty(len(hashes), np.int32)
    entries = 0
    num_records = len(order)
    shared = np.zeros(num_records, np.int32)
    touched = np.empty(num_records, np.int32)
    kept_by = np.full(num_records, -1, np.int32)
    mask = _U(size - 1)
    for record in order:
        own = starts[record + 1] - starts[record]
        num_touched = 0
        for place in range(starts[record], starts[record + 1]):
            entry = heads[_slot(keys, heads, hashes[place], mask)]
            while entry >= 0:
                other = records[entry]
                if shared[other] == 0:
                    touched[num_touched] = other
                    num_touched += 1
                shared[other] += 1
                entry = following[entry]
        best, best_share = -1, 0.0
        for number in range(num_touched):
            other = touched[number]
            other_share = shared[other] / own
            if own >= MIN_HASHES and other_share >= share and (other_share > best_share or (other_share == best_share and other < best)):
                best, best_share = other, other_share
            shared[other] = 0
        kept_by[record] = best
        if best >= 0:
            continue
        for place in range(starts[record], starts[record + 1]):
            slot = _slot(keys, heads, hashes[place], mask)
            if sizes[slot] == _MAX_LISTED:
                continue
            keys[slot] = hashes[place]
            records[entries] = record
            following[entries] = heads[slot]
            heads[slot] = entries
            sizes[slot] += 1
            entries += 1
    return kept_by


@numba.njit(cache=True)
def _slot(keys: Any, heads: Any, value: Any, mask: Any) -> Any:
    """Return where a value is in the hash, or the free slot where it belongs. The values are hashes, their low bits evenly spread."""
    slot = value & mask
    while heads[slot] >= 0 and keys[slot] != value:
        slot = (slot + _U(1)) & mask
    return slot
