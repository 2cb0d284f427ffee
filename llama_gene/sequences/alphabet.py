"""The letters of each kind of sequence: a registry that a user can extend, so that a kind is data and not code.

Three kinds are built in: dna, rna and protein. Another one (for example 3Di structure letters) is one call of `register_alphabet`.
Case is kept everywhere: the complement of "a" is "t"; letters are checked without regard to case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from llama_gene.errors import ConfigError, InputError, did_you_mean


@dataclass(frozen=True)
class Alphabet:
    """The letters of one kind of sequence, upper case.

    `ambiguous` letters stand for several letters (N, R, X); `unknown` are those of them that say nothing (N in DNA, X in protein):
    a fragment never spans one. `complement` is None where there is no other strand.
    """

    name: str
    letters: str
    ambiguous: str = ""
    complement: Mapping[str, str] | None = None
    stop: str = ""
    gap: str = "-"
    unknown: str = ""

    @property
    def accepted(self) -> str:
        """Every letter that a file of this kind may hold, upper case."""
        return self.letters + self.ambiguous + self.stop + self.gap


_DNA_COMPLEMENT = dict(zip("ACGTRYSWKMBDHVN-", "TGCAYRSWMKVHDBN-", strict=True))
_RNA_COMPLEMENT = dict(zip("ACGURYSWKMBDHVN-", "UGCAYRSWMKVHDBN-", strict=True))

_ALPHABETS: dict[str, Alphabet] = {
    "dna": Alphabet("dna", "ACGT", "RYSWKMBDHVN", _DNA_COMPLEMENT, unknown="N"),
    "rna": Alphabet("rna", "ACGU", "RYSWKMBDHVN", _RNA_COMPLEMENT, unknown="N"),
    # U selenocysteine and O pyrrolysine are real residues that the 20-letter code lacks; B, J, Z, X are ambiguity codes
    "protein": Alphabet("protein", "ACDEFGHIKLMNPQRSTVWY", "BJZXUO", None, stop="*", unknown="X"),
}


def get_alphabet(name: str) -> Alphabet:
    """Return a registered alphabet.

    Raises ConfigError, with the nearest name, for a name that nobody registered.

    >>> get_alphabet("protein").stop
    '*'
    """
    if name not in _ALPHABETS:
        hint = did_you_mean(name, _ALPHABETS) or "Register a new one with register_alphabet"
        raise ConfigError(f"kind '{name}' is unknown", f"one of {', '.join(_ALPHABETS)}", hint)
    return _ALPHABETS[name]


def register_alphabet(alphabet: Alphabet) -> None:
    """Add an alphabet (or say the same one again). Raises ConfigError when the name already means other letters."""
    known = _ALPHABETS.get(alphabet.name)
    if known is not None and known != alphabet:
        raise ConfigError(f"alphabet '{alphabet.name}' is registered with other letters", "a new name", "Rename your alphabet")
    _ALPHABETS[alphabet.name] = alphabet
    _delete_table.cache_clear()
    _complement_table.cache_clear()


def reverse_complement(seq: str, kind: str = "dna") -> str:
    """Return the other strand, read 5' to 3'; letters without a complement stay, case is kept.

    >>> reverse_complement("AAcN")
    'NgTT'
    """
    return seq.translate(_complement_table(kind))[::-1]


def check_letters(seq: str, alphabet: Alphabet, where: str) -> None:
    """Check that each letter of `seq` belongs to the alphabet, in either case.

    Raises InputError that begins with `where` ("genome.fa, line 812") and names the alphabet that would fit, if one does.
    """
    fault = first_fault(seq, alphabet)
    if fault is None:
        return
    letters = alphabet.letters + (f" and the ambiguity codes {alphabet.ambiguous}" if alphabet.ambiguous else "")
    fitting = next((other.name for other in _ALPHABETS.values() if first_fault(seq, other) is None), None)
    action = f"For a file of {fitting} sequences set kind: {fitting}" if fitting else "Remove or replace the letter"
    raise InputError(f"{where}: {chr(fault)!r} is not a {_spoken(alphabet.name)} letter", letters, action)


def first_fault(seq: str, alphabet: Alphabet) -> int | None:
    """Return the code point of the first letter of `seq` that the alphabet does not accept, None when all are accepted."""
    if seq.isascii():
        left_over = seq.encode("ascii").translate(None, _delete_table(alphabet.name, alphabet.accepted))
        return left_over[0] if left_over else None
    accepted = set(alphabet.accepted.upper() + alphabet.accepted.lower())
    return next(ord(letter) for letter in seq if letter not in accepted)


def translate(dna: str, table: int = 1) -> str:
    """Return the protein that a reading frame codes for: stops are '*', ambiguous codons 'X', an incomplete last codon is left out.

    `table` is the NCBI number of the genetic code (1 standard, 11 bacteria, 4 Mycoplasma). RNA is understood.
    Raises ConfigError for a table that does not exist.

    >>> translate("ATGGCNTAAC")
    'MX*'
    """
    code = _genetic_code(table)
    text = dna.upper().replace("U", "T")
    return "".join(code.get(text[start : start + 3], "X") for start in range(0, len(text) - 2, 3))


def _spoken(name: str) -> str:
    """Return the name as a sentence has it: DNA and RNA are written in capitals."""
    return name.upper() if name in ("dna", "rna") else name


@lru_cache
def _delete_table(name: str, accepted: str) -> bytes:
    """Return the accepted letters in both cases, for bytes.translate. `name` is part of the cache key only."""
    return (accepted.upper() + accepted.lower()).encode("ascii")


@lru_cache
def _complement_table(kind: str) -> dict[int, str]:
    """Return the table for str.translate. Raises ConfigError for an alphabet that has no other strand."""
    complement = get_alphabet(kind).complement
    if complement is None:
        raise ConfigError(f"kind '{kind}' has no complement", "dna, rna or an alphabet registered with one", "Set kind: dna")
    return {ord(cased(letter)): cased(other) for letter, other in complement.items() for cased in (str.upper, str.lower)}


@lru_cache
def _genetic_code(table: int) -> dict[str, str]:
    """Return codon -> residue of one NCBI table, with '*' for stops.

    A few tables (27, 28, 31) list codons that are both stop and residue; inside a reading frame the residue is meant.
    """
    from Bio.Data import CodonTable  # 0.2 s to import: not for a caller who only reads files

    if table not in CodonTable.unambiguous_dna_by_id:
        numbers = ", ".join(str(number) for number in sorted(CodonTable.unambiguous_dna_by_id))
        raise ConfigError(f"genetic code {table} does not exist", f"one of the NCBI tables {numbers}", "Use 1, the standard code")
    chosen = CodonTable.unambiguous_dna_by_id[table]
    return {**dict.fromkeys(chosen.stop_codons, "*"), **chosen.forward_table}
