"""The letters of each kind of sequence: a registry that a user can extend, so that a kind is data and not code.

Built in are dna, rna, protein, 3di (Foldseek's structure letters) and ss3 (secondary structure: helix, strand, coil). Another one is one
entry of a YAML file (`load_alphabets`) or one call of `register_alphabet`.
Case is kept everywhere: the complement of "a" is "t"; letters are checked without regard to case.

Structure letters look like residues (a 3Di "D" is no aspartate), so an alphabet may have a *namespace*: in text each of its letters is a
token of its own, `<3di:d>`, with an id of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from llama_gene.errors import ConfigError, InputError, MissingFileError, did_you_mean

LETTER_TOKEN = re.compile("<[a-z0-9_]+:[a-z]>")
"""What a letter of a namespaced alphabet looks like in text."""
_NAMESPACE = re.compile("[a-z0-9_]+")


@dataclass(frozen=True)
class Alphabet:
    """The letters of one kind of sequence, upper case.

    `ambiguous` letters stand for several letters (N, R, X); `unknown` are those of them that say nothing (N in DNA, X in protein):
    a fragment never spans one. `complement` is None where there is no other strand. With a `namespace` each letter is written as a
    token of its own: then there is no stop and no gap, as only letters can be written so.
    """

    name: str
    letters: str
    ambiguous: str = ""
    complement: Mapping[str, str] | None = None
    stop: str = ""
    gap: str = "-"
    unknown: str = ""
    namespace: str = ""

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
    # the 20 states of Foldseek's structural alphabet (van Kempen et al. 2024); it borrows the residues' letters
    "3di": Alphabet("3di", "ACDEFGHIKLMNPQRSTVWY", gap="", namespace="3di"),
    "ss3": Alphabet("ss3", "HEC", gap="", namespace="ss3"),  # H helix, E strand, C coil: DSSP's 8 states in 3
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
    """Add an alphabet (or say the same one again).

    Raises ConfigError when the name already means other letters, or when the alphabet contradicts itself.
    """
    if fault := _contradiction(alphabet):
        raise ConfigError(f"alphabet '{alphabet.name}': {fault[0]}", fault[1])
    known = _ALPHABETS.get(alphabet.name)
    if known is not None and known != alphabet:
        raise ConfigError(f"alphabet '{alphabet.name}' is registered with other letters", "a new name", "Rename your alphabet")
    _ALPHABETS[alphabet.name] = alphabet
    _delete_table.cache_clear()
    _complement_table.cache_clear()


def load_alphabets(path: Path) -> list[str]:
    """Register the alphabets of a YAML file, a list of {name, letters, ...} with the fields of `Alphabet`; return their names.

    A complement is a mapping of each letter to its partner ({A: T, T: A, ...}). All are registered or none.
    Raises MissingFileError, and ConfigError with the file, the entry and the key at fault.
    """
    import yaml

    if not path.is_file():
        raise MissingFileError(path, "a YAML list of alphabets")
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML ({' '.join(str(error).split())[:120]})", "a list of alphabets") from error
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{path} is no list", "a list of {name, letters, ...}", "Begin each alphabet with '- name:'")
    found = [_read_entry(entry, f"{path}, alphabet {number}") for number, entry in enumerate(entries, start=1)]
    names = [alphabet.name for alphabet in found]
    for number, alphabet in enumerate(found, start=1):
        if names.count(alphabet.name) > 1 or _ALPHABETS.get(alphabet.name, alphabet) != alphabet:
            raise ConfigError(f"{path}, alphabet {number}, name: '{alphabet.name}' means other letters already", "a new name")
    for alphabet in found:
        register_alphabet(alphabet)
    return names


def write_letters(seq: str, alphabet: Alphabet) -> str:
    """Return a sequence as it stands in text: its letters as tokens where the alphabet has a namespace, else the sequence itself.

    Raises InputError for a letter that a namespaced alphabet lacks.

    >>> write_letters("DVV", get_alphabet("3di")), write_letters("ACGT", get_alphabet("dna"))
    ('<3di:d><3di:v><3di:v>', 'ACGT')
    """
    if not alphabet.namespace:
        return seq
    tokens = {letter: token for token in tokens_of(alphabet) for letter in (token[-2], token[-2].upper())}
    strange = next((letter for letter in seq if letter not in tokens), None)
    if strange is not None:
        raise InputError(f"{strange!r} is not a {alphabet.name} letter", alphabet.accepted, "Remove or replace the letter")
    return "".join(tokens[letter] for letter in seq)


def read_letters(text: str, alphabet: Alphabet) -> str:
    """Return the sequence that `write_letters` wrote, upper case where its letters are tokens.

    >>> read_letters("<3di:d><3di:v>", get_alphabet("3di")), read_letters("acGT", get_alphabet("dna"))
    ('DV', 'acGT')
    """
    return "".join(token[-2].upper() for token in LETTER_TOKEN.findall(text)) if alphabet.namespace else text


def tokens_of(alphabet: Alphabet) -> list[str]:
    """Return the tokens of a namespaced alphabet, one a letter; none for a plain alphabet, whose letters are plain text.

    >>> tokens_of(get_alphabet("ss3")), tokens_of(get_alphabet("dna"))
    (['<ss3:h>', '<ss3:e>', '<ss3:c>'], [])
    """
    return [f"<{alphabet.namespace}:{letter.lower()}>" for letter in alphabet.accepted] if alphabet.namespace else []


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


def _read_entry(entry: Any, where: str) -> Alphabet:
    """Return one alphabet of a YAML file. Raises ConfigError that begins with `where` and names the key."""
    known = [field.name for field in fields(Alphabet)]
    if not isinstance(entry, dict):
        raise ConfigError(f"{where} is no mapping", f"keys {', '.join(known)}")
    for key, value in entry.items():
        if key not in known:
            raise ConfigError(f"{where}: key '{key}' is unknown", f"one of {', '.join(known)}", did_you_mean(str(key), known))
        if key == "complement":
            good = value is None or (isinstance(value, dict) and all(isinstance(item, str) for pair in value.items() for item in pair))
            expected = "a mapping of letter to letter ({A: T, T: A})"
        else:
            good, expected = isinstance(value, str), "text (in quotes: YAML reads a bare NO as false and 3 as a number)"
        if not good:
            raise ConfigError(f"{where}, {key}: {value!r}", expected)
    for key in ("name", "letters"):
        if not entry.get(key):
            raise ConfigError(f"{where} has no {key}", f"{key}: TEXT")
    if not re.fullmatch(r"[a-z0-9_]+", entry["name"]):
        raise ConfigError(f"{where}, name: {entry['name']!r}", "a-z, 0-9 and _ only")
    alphabet = Alphabet(**{"gap": "", **entry} if entry.get("namespace") else entry)
    if fault := _contradiction(alphabet):
        raise ConfigError(f"{where}, {fault[0]}", fault[1])
    return alphabet


def _contradiction(alphabet: Alphabet) -> tuple[str, str] | None:
    """Return what is wrong with an alphabet, its key first, and what is expected; None when all is well."""
    accepted, complement = alphabet.accepted, alphabet.complement
    if not alphabet.name or not alphabet.letters:
        return "name, letters: one is empty", "text"
    for key in ("letters", "ambiguous"):
        value = getattr(alphabet, key)
        if value and not (value.isascii() and value.isalpha() and value.isupper()):
            return f"{key}: {value!r}", "upper-case letters A-Z"
    for key in ("stop", "gap"):
        value = getattr(alphabet, key)
        if not value.isascii() or not value.isprintable() or any(character.isalnum() or character.isspace() for character in value):
            return f"{key}: {value!r}", "signs such as * and -"
    if len(set(accepted)) < len(accepted):
        twice = next(letter for letter in accepted if accepted.count(letter) > 1)
        return f"letters: {twice!r} occurs twice in letters, ambiguous, stop and gap", "each once"
    if not set(alphabet.unknown) <= set(alphabet.ambiguous):
        return f"unknown: {alphabet.unknown!r}", "letters of ambiguous"
    if complement is not None and any(letter not in accepted or complement.get(other) != letter for letter, other in complement.items()):
        letter, other = next(item for item in complement.items() if item[0] not in accepted or complement.get(item[1]) != item[0])
        return f"complement: {letter} -> {other}", "pairs of letters of this alphabet, each way"
    if complement is not None and (missing := next((letter for letter in alphabet.letters if letter not in complement), None)):
        return f"complement: none for {missing}", "one for each of the letters"
    if alphabet.namespace and not _NAMESPACE.fullmatch(alphabet.namespace):
        return f"namespace: {alphabet.namespace!r}", "a-z, 0-9 and _ only"
    if alphabet.namespace and (alphabet.stop or alphabet.gap):
        return "namespace: only letters can be written as tokens", "no stop and no gap (gap: '')"
    return None


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
