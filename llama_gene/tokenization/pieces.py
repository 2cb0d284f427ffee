"""Gene pieces between training and splicing: a folder of them, and how they are fitted behind a base.

A pieces folder holds `pieces.txt` (one a line, best first), `reserve.txt` (further ones, in order) and a manifest; a vocabulary trained
as the papers do is a SentencePiece `tokenizer.model`, with a score for each piece. Pieces were learned behind one vocabulary; spliced
behind another (protein trained without the DNA that now comes first), some of them are out of reach there. They are found, left out,
counted, and the next of the reserve take their places, so that the number of pieces is the number asked for.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_gene import runtime
from llama_gene.errors import InputError, MissingFileError
from llama_gene.tokenization.bpe import Vocabulary, rank_behind, reference_encode
from llama_gene.tokenization.tokenizer import NATIVE_NAME

PIECES_NAME = "pieces.txt"
RESERVE_NAME = "reserve.txt"
STAGE = "vocab train"


@dataclass(frozen=True)
class Pieces:
    """What one training gave."""

    pieces: list[str]
    reserve: list[str] = field(default_factory=list)
    scores: list[float] | None = None
    """The papers' method: a SentencePiece score for each piece."""
    facts: dict[str, Any] = field(default_factory=dict)
    """kind, method, trained_behind and the rest of the training's manifest."""

    @property
    def kind(self) -> str:
        """The alphabet that the pieces are of; "gene" where nobody wrote it down."""
        return str(self.facts.get("kind", "gene"))


@dataclass(frozen=True)
class Fitted:
    """Pieces that work behind a vocabulary, and how many did not."""

    pieces: list[str]
    num_unreachable: int
    num_taken: int
    """Already in the vocabulary."""
    num_guarded: int
    """Would change the encoding of an earlier kind."""
    num_refilled: int


def write_pieces(folder: Path, pieces: Sequence[str], reserve: Sequence[str] = ()) -> None:
    """Write the two lists of a pieces folder."""
    runtime.write_text(folder / PIECES_NAME, "".join(f"{piece}\n" for piece in pieces))
    if reserve:
        runtime.write_text(folder / RESERVE_NAME, "".join(f"{piece}\n" for piece in reserve))


def read_pieces(source: Path) -> Pieces:
    """Return the pieces of a folder that `vocab train` wrote, of a text file with one a line, or of a SentencePiece `.model`."""
    if not source.exists():
        raise MissingFileError(source, "a pieces folder of `vocab train`, a list of pieces, or a SentencePiece .model")
    facts: dict[str, Any] = {}
    listed = source
    if source.is_dir():
        facts = runtime.read_manifest(source, STAGE)
        if lacking := [key for key in ("kind", "method", "size") if key not in facts] + ["pieces"] * (
            facts.get("method") != "paper" and "pieces" not in facts
        ):
            raise InputError(f"{source}: its manifest has no '{lacking[0]}'", "a whole pieces folder of `vocab train`", "Train again")
        if not re.fullmatch(r"\w+", str(facts["kind"])):
            raise InputError(f"{source}: kind {facts['kind']!r}", "the name of an alphabet", "Train again")
        listed = source / (NATIVE_NAME if facts["method"] == "paper" else PIECES_NAME)
    if listed.suffix == ".model":
        from llama_gene.tokenization.paper_splice import read_scored_pieces

        return read_scored_pieces(listed, facts)
    pieces = _lines(listed)
    if wrong := next((piece for piece in pieces if not facts.get("namespace") and not (piece.isascii() and piece.isalpha())), None):
        raise InputError(f"{listed}: '{wrong}' is not a run of letters", "pieces of A-Z or a-z, no space, no special token", "Remove it")
    if repeated := next((piece for piece, count in Counter(pieces).items() if count > 1), None):
        raise InputError(f"{listed}: '{repeated}' is twice in the list", "each piece once", "Remove one")
    if not pieces:
        raise InputError(f"{listed} is empty", "one piece a line", "Check the path")
    if facts and runtime.fingerprint(pieces) != facts["pieces"]:
        raise InputError(f"{listed} was changed after training", f"the {facts['size']:,} pieces of its manifest", "Train again")
    reserve = _lines(listed.with_name(RESERVE_NAME)) if source.is_dir() and listed.with_name(RESERVE_NAME).is_file() else []
    return Pieces(pieces, reserve, None, facts)


def fit_pieces(vocabulary: Vocabulary, given: Pieces, guard: Callable[[str], bool] = lambda piece: False) -> Fitted:
    """Return as many pieces as `given` has, each new and reachable behind `vocabulary`, taking the reserve for those that are not.

    Raises InputError when the reserve does not suffice.
    """
    known, taken = vocabulary.pieces(), vocabulary.ids()
    chosen: dict[str, int] = {}
    lost = {"unreachable": 0, "taken": 0, "guarded": 0}

    rank = rank_behind(vocabulary.rank, chosen)
    wanted = len(given.pieces)
    num_used = 0
    for piece in (*given.pieces, *given.reserve):
        if len(chosen) == wanted:
            break
        num_used += 1
        if piece in taken:
            lost["taken"] += 1
        elif guard(piece):
            lost["guarded"] += 1
        else:
            chosen[piece] = len(chosen)
            spelled = len(piece) == 1 or all(letter in known or letter in chosen for letter in piece)
            if not spelled or reference_encode(piece, rank) != [piece]:
                del chosen[piece]
                lost["unreachable"] += 1
    if len(chosen) < wanted:
        raise InputError(
            f"{sum(lost.values()):,} of {num_used:,} {given.kind} pieces do not work behind this vocabulary"
            f" ({lost['unreachable']:,} unreachable)",
            f"{wanted:,} that do",
            "Train them with the vocabulary they come behind as --base",
        )
    return Fitted(list(chosen), lost["unreachable"], lost["taken"], lost["guarded"], max(0, num_used - wanted))


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise MissingFileError(path, "one piece a line")
    try:
        return [line for line in path.read_text(encoding="utf-8").split("\n") if line]
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text", "one piece a line, in UTF-8", "Check the path") from error
