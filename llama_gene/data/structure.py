"""Secondary structure as questions: align tokens with residues, let the residues vote, ask for one token at a time.

LLaMA-Gene, section 2.2.2.2: the question shows a token and the 30 residues before it, the answer is the structure of that last token. A
token covers several residues, so it takes their most frequent state; ties go H, E, C. A vote over tokens of 2, 3 and 4 residues cannot
exceed 0.913, 0.888 and 0.844 per residue on CB513 (measured), which bounds what any model can reach this way.

The tokens are those of the whole protein. The window that the model sees is encoded anew inside its prompt, so its last token may be cut
differently; the answer always describes the last residues of the window.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from llama_gene.data.prompts import encode_after
from llama_gene.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

NUM_PRECEDING = 30
"""Residues shown before the token that is asked about (LLaMA-Gene, section 2.2.2.2)."""
STATE_ORDER = "HEC"
"""Ties are decided in this order."""
STATE_NAMES = {"H": "alpha helix", "E": "beta sheet", "C": "random coil"}
UNKNOWN = "-"
"""A residue whose state is not known: it does not vote."""

# DSSP's eight states (H G I, E B, T S blank) and what data files write for "no state" (P is DSSP 4's polyproline helix).
_THREE_STATES = dict(zip("HGIEBCTSLP " + UNKNOWN, "HHHEECCCCCC" + UNKNOWN, strict=True))
_BYTE_PIECE = re.compile("<0x[0-9A-F]{2}>")


@dataclass(frozen=True)
class StructureExample:
    """One question: residues `start` to `end` (the token) and up to 30 before it; the label is the token's structure."""

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


def vote(states: str) -> str | None:
    """Return the name of the most frequent of the three states, ties in the order H, E, C; None where every state is unknown.

    >>> vote("CCE"), vote("CE"), vote("CEH"), vote("--")
    ('random coil', 'beta sheet', 'alpha helix', None)
    """
    winner = max(STATE_ORDER, key=states.count)  # max keeps the first of equals, so STATE_ORDER decides a tie
    return STATE_NAMES[winner] if winner in states else None


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
) -> list[StructureExample]:
    """Return up to `per_protein` questions about randomly drawn tokens of one protein, in the order of the sequence.

    `states` holds one of H, E, C or '-' a residue. With `wanted`, only tokens with one of those labels are drawn.
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
        if (label := vote(states[start:end])) is not None and (wanted is None or label in wanted)
    ]
    drawn = rng.sample(candidates, min(per_protein, len(candidates)))
    return sorted(drawn, key=lambda example: example.start)


def _spans(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Return the (start, end) of consecutive stretches of these lengths."""
    ends = list(accumulate(lengths))
    return list(zip([0, *ends[:-1]], ends, strict=True))
