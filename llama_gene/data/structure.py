"""Structure as questions: one place of a sequence at a time, by residue or by token.

*By residue* (form `residue`, the default). One question a residue whose state is known, in the middle of a window of 15 residues on each
side. Near an end the window is filled up with the letter that says nothing (X in proteins, N in DNA), so the one that is asked about
always stands in the middle: a positional baseline sees that. A model of long tokens cannot count to it, so in the input blanks stand
around it:

    XXXXXXXXXXXXXMK Q DKGLFDLVTACDEFG

*By token* (form `token`: LLaMA-Gene, section 2.2.2.2). The question shows a token and the 30 residues before it, the answer is the
structure of that last token. A token covers several residues, so it takes their most frequent state; ties go in the order of the states
(H, E, C). A vote over tokens of 2, 3 and 4 residues cannot exceed 0.913, 0.888 and 0.844 per residue on CB513 (measured), which bounds
what any model can reach this way: `vote_ceiling` gives that bound for the tokens at hand.

The tokens are those of the whole protein. The window that the model sees is encoded anew inside its prompt, so its last token may be cut
differently; the answer always describes the last residues of the window.

States are letters with names: H alpha helix, E beta sheet, C random coil, to which DSSP's eight are reduced; or those of the task's YAML.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from llama_gene.data.prompts import encode_after
from llama_gene.errors import InputError
from llama_gene.sequences.alphabet import get_alphabet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

NUM_PRECEDING = 30
"""Residues shown before the token that is asked about (LLaMA-Gene, section 2.2.2.2)."""
STATE_ORDER = "HEC"
"""Ties are decided in this order; a task with states of its own has the order of its YAML."""
STATE_NAMES = {"H": "alpha helix", "E": "beta sheet", "C": "random coil"}
UNKNOWN = "-"
"""A residue whose state is not known: it is not asked about and does not vote."""

# DSSP's eight states (H G I, E B, T S blank) and what data files write for "no state" (P is DSSP 4's polyproline helix).
_THREE_STATES = dict(zip("HGIEBCTSLP " + UNKNOWN, "HHHEECCCCCC" + UNKNOWN, strict=True))
_BYTE_PIECE = re.compile("<0x[0-9A-F]{2}>")


@dataclass(frozen=True)
class StructureExample:
    """One question: what is shown, the name of its state, and the residues `start` to `end` that it is about (one, or a token)."""

    window: str
    label: str
    start: int
    end: int


def reduce_states(states: str) -> str:
    """Return DSSP's eight states as three: H, G, I are helix; E, B are sheet; the rest is coil. Unknown ('-') stays unknown.

    Raises InputError for a letter that is no state.

    >>> reduce_states("CHHGIEEBTS")
    'CHHHHEEECC'
    """
    unknown = set(states) - set(_THREE_STATES)
    if unknown:
        raise InputError(f"'{min(unknown)}' is not a secondary-structure state", "DSSP letters (H G I E B T S C) or '-' for unknown")
    return "".join(_THREE_STATES[state] for state in states)


def read_states(states: str, names: Mapping[str, str]) -> str:
    """Return states in the letters of `names`: DSSP's are reduced where these are H, E and C; others must be among the letters.

    Letters of one name become the first of them. Raises InputError for a letter that is no state.

    >>> read_states("EIO-", {"E": "exon", "I": "intron", "O": "other"})
    'EIO-'
    >>> read_states("Hhi", {"H": "helix", "h": "helix", "i": "loop"})
    'HHi'
    """
    if set(names) == set(STATE_NAMES):
        return reduce_states(states)
    unknown = set(states) - set(names) - {UNKNOWN}
    if unknown:
        raise InputError(f"'{min(unknown)}' is not a state", f"{' '.join(names)}, or '{UNKNOWN}' for unknown", "Add it to labels")
    first: dict[str, str] = {}
    return states.translate({ord(letter): first.setdefault(name, letter) for letter, name in names.items()})


def vote(states: str, names: Mapping[str, str] = STATE_NAMES, order: Sequence[str] = STATE_ORDER) -> str | None:
    """Return the name of the most frequent state, ties in the order given; None where all are unknown.

    >>> vote("CCE"), vote("CE"), vote("CEH"), vote("--")
    ('random coil', 'beta sheet', 'alpha helix', None)
    >>> vote("CE", order="CEH")
    'random coil'
    """
    winner = max(order, key=states.count)  # max keeps the first of equals, so the order decides a tie
    return names[winner] if winner in states else None


def vote_ceiling(
    proteins: Iterable[tuple[str, Sequence[int]]], names: Mapping[str, str] = STATE_NAMES, order: Sequence[str] = STATE_ORDER
) -> float | None:
    """Return the share of residues of known state whose state is their token's vote: no answer by token can be right more often.

    `proteins` are (states, token lengths). None where no state is known.

    >>> vote_ceiling([("HHCEE-", [3, 3])])
    0.8
    """
    right = known = 0
    for states, lengths in proteins:
        for start, end in _spans(lengths):
            winner = vote(states[start:end], names, order)
            right += sum(names.get(state) == winner for state in states[start:end]) if winner is not None else 0
        known += len(states) - states.count(UNKNOWN)
    return right / known if known else None


def token_lengths(tokenizer: PreTrainedTokenizerFast, sequence: str) -> list[int]:
    """Return how many letters each token of a sequence covers, encoded as it is inside a prompt (behind a line break).

    Raises InputError when the tokens do not add up to the sequence (a vocabulary that does not spell letters as letters).
    """
    pieces = tokenizer.convert_ids_to_tokens(encode_after(tokenizer, "\n", sequence))
    # SentencePiece writes a letter that is no piece as its byte, "<0x58>": one letter
    lengths = [length for piece in pieces if (length := 1 if _BYTE_PIECE.fullmatch(piece) else len(piece.strip("▁Ġ"))) > 0]
    if sum(lengths) != len(sequence):
        raise InputError(
            f"the tokens of '{sequence[:20]}...' cover {sum(lengths)} letters",
            f"its {len(sequence)} letters",
            "Use a tokenizer that has all letters of the sequence",
        )
    return lengths


def structure_examples(
    sequence: str,
    states: str,
    token_lengths: list[int],
    per_protein: int,
    rng: random.Random,
    wanted: Collection[str] | None = None,
    names: Mapping[str, str] = STATE_NAMES,
    order: Sequence[str] = STATE_ORDER,
) -> list[StructureExample]:
    """Return up to `per_protein` questions about randomly drawn tokens of one protein, in the order of the sequence.

    `states` holds a letter of `names` or '-' a residue. With `wanted`, only tokens with one of those labels are drawn.
    Raises InputError when sequence, states and token lengths do not describe the same residues.

    >>> structure_examples("MKQDKG", "HHHCCC", [3, 3], 2, random.Random(0))[1]
    StructureExample(window='MKQDKG', label='random coil', start=3, end=6)
    """
    if not len(sequence) == len(states) == sum(token_lengths):
        raise InputError(
            f"{len(sequence)} residues, {len(states)} states, tokens of {sum(token_lengths)} letters",
            "three equal numbers",
            "Check the row",
        )
    candidates = [
        StructureExample(sequence[max(0, start - NUM_PRECEDING) : end], label, start, end)
        for start, end in _spans(token_lengths)
        if (label := vote(states[start:end], names, order)) is not None and (wanted is None or label in wanted)
    ]
    return _draw(candidates, per_protein, rng)


def residue_examples(
    sequence: str,
    states: str,
    window: int,
    per_protein: int,
    rng: random.Random,
    wanted: Collection[str] | None = None,
    names: Mapping[str, str] = STATE_NAMES,
    kind: str = "protein",
) -> list[StructureExample]:
    """Return up to `per_protein` questions about randomly drawn residues of known state, in the order of the sequence.

    Each window holds 2 * window + 1 letters, the residue in the middle; `kind` says which letter fills it up at the ends.

    >>> residue_examples("MKQ", "-HC", 2, 9, random.Random(0))[0]
    StructureExample(window='XMKQX', label='alpha helix', start=1, end=2)
    """
    alphabet = get_alphabet(kind)
    filling = (alphabet.unknown or alphabet.ambiguous)[:1]
    if not filling:
        raise InputError(f"kind '{kind}' has no letter that says nothing", "one, to fill up windows at the ends", "Use form: token")
    padded = filling * window + sequence + filling * window
    candidates = [
        StructureExample(padded[place : place + 2 * window + 1], label, place, place + 1)
        for place, state in enumerate(states)
        if (label := names.get(state)) is not None and (wanted is None or label in wanted)
    ]
    return _draw(candidates, per_protein, rng)


def show_middle(window: str) -> str:
    """Return a window with blanks around the letter in its middle.

    >>> show_middle("XMKQX")
    'XM K QX'
    """
    middle = len(window) // 2
    return f"{window[:middle]} {window[middle]} {window[middle + 1 :]}"


def _draw(candidates: list[StructureExample], per_protein: int, rng: random.Random) -> list[StructureExample]:
    """Return some of the questions, in the order of the sequence."""
    drawn = rng.sample(candidates, min(per_protein, len(candidates)))
    return sorted(drawn, key=lambda example: example.start)


def _spans(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Return the (start, end) of consecutive stretches of these lengths."""
    ends = list(accumulate(lengths))
    return list(zip([0, *ends[:-1]], ends, strict=True))
