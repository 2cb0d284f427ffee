"""Answers with evidence: the nearest annotated sequences of a question's sequence, found in an index and put into its prompt.

    {instruction}

    Nearest annotated sequences:
    1. P12345 (62 % identity over 180 residues): Protein: Lactase; Gene: LCT; Organism: Homo sapiens
    2. ...

*Search.* The index names the entries that share most k-mers; the first SHORTLIST are aligned (`similarity.find_relatives`, DNA on both
strands), and what could be chance in the whole index (E-value 0.001) is none. Neighbours are ranked by equal letters in the alignment, the
best place of each record counts. Identity is the share of equal letters among the aligned columns (gaps count), coverage the share of the
question's letters that they span; percentages are rounded down, so that only a copy reads 100 %.

*Evaluation.* With `max_identity` a record is passed over when any alignment with it is above that (one at it stays), and more entries are
looked at in its place: no test sequence is answered by its own copy. A short exact match has identity 1, too: it is passed over, which
errs on the safe side.

*Room.* A prompt that would not fit gets fewer neighbours, then none; the prompt says "2 of 3 fit", the counts say how often. The words of
a neighbour end at TEXT_LETTERS. A question without neighbours says so, since that is evidence, too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from llama_gene import runtime
from llama_gene.data.evidence_index import STAGE, Entry, EvidenceIndex
from llama_gene.errors import ConfigError, InputError
from llama_gene.sequences.alphabet import first_fault, get_alphabet
from llama_gene.sequences.similarity import Relative, Thresholds, find_relatives

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from llama_gene.data.instructions import Example

ADDITION = "neighbours"
"""The name of this addition to a prompt, which results carry."""
HEADER = "Nearest annotated sequences"
SHORTLIST = 200
"""Entries that are aligned at once; the next ones follow where neighbours of these were passed over."""
MOST_ALIGNED = 2000
EXPECTED = 0.001
TEXT_LETTERS = 200
MAX_QUERY = 100_000


@dataclass(frozen=True)
class EvidenceChoice:
    """Which neighbours count. Raises ConfigError for a share outside 0 to 1, or less than one neighbour."""

    max_hits: int = 3
    """Neighbours of a sequence."""
    max_identity: float = 1.0
    """Records with an alignment above this share of equal letters are passed over; 1: none is."""
    min_identity: float = 0.0
    """Least share of equal letters."""
    min_coverage: float = 0.0
    """Least share of the question's letters that the alignment spans."""

    def __post_init__(self) -> None:
        if self.max_hits < 1:
            raise ConfigError(f"{self.max_hits} neighbours", "at least 1", "Leave the evidence out to have none")
        for name in ("max_identity", "min_identity", "min_coverage"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} {getattr(self, name):g}", "a share from 0 to 1", "Write 0.4 for 40 %")


ANY = EvidenceChoice()


def check_choice(folder: Path | None, max_identity: float, max_hits: int) -> EvidenceChoice:
    """Return the choice of a stage's keys, before its model is loaded.

    Raises ConfigError where neighbours are chosen and no index is named (the choice would do nothing), MissingFileError or InputError for a
    folder that `index` did not write.
    """
    choice = EvidenceChoice(max_hits, max_identity)
    if folder is not None:
        runtime.read_manifest(folder, STAGE)
    elif choice != ANY:
        raise ConfigError(
            f"evidence_max_identity {max_identity:g}, evidence_hits {max_hits}, and no index", "--evidence FOLDER with them", "Name it"
        )
    return choice


@dataclass(frozen=True)
class EvidenceSource:
    """Where the neighbours of questions come from."""

    index: EvidenceIndex
    choice: EvidenceChoice = ANY


@dataclass(frozen=True)
class Neighbour:
    """A record near a question's sequence; `start` is the place (from 0) of the window that was aligned, `strand` -1 the other one's."""

    id: str
    text: str
    identity: float
    length: int
    coverage: float
    strand: int
    start: int
    num_letters: int


@dataclass
class EvidenceCounts:
    """What was done to prompts."""

    rows: int = 0
    not_asked: int = 0
    """Rows without a sequence of the index's kind, left as they were."""
    with_neighbours: int = 0
    neighbours: int = 0
    """Neighbours that stand in prompts."""
    passed_over: int = 0
    """Records above `max_identity`, or excluded by id, of all sequences that were asked."""
    rows_without_room: int = 0
    """Rows that had room for fewer neighbours than were found."""
    neighbours_without_room: int = 0
    rows_left: int = 0
    """Rows that had no room for a word about neighbours, left as they were."""


@dataclass(frozen=True)
class Cited:
    """What the prompt of one question cites.

    >>> print(Cited("...", ("P1 (50 % identity over 100 residues)",), 3).render())
    Nearest annotated sequences (1 of 3 fit):
      1. P1 (50 % identity over 100 residues)
    >>> Cited("...").render(), Cited().render()
    ('Nearest annotated sequences: none', '')
    """

    block: str = ""
    """What stands behind the instruction; empty where there was no sequence to look for, or no room for a word."""
    neighbours: tuple[str, ...] = ()
    num_found: int = 0
    """Neighbours, those included that did not fit."""

    def render(self) -> str:
        """Return what a user reads under the answer; nothing where nothing was looked for."""
        if not self.block and not self.num_found:
            return ""
        head = _head(len(self.neighbours), self.num_found)
        return "\n".join([head, *(f"  {number}. {words}" for number, words in enumerate(self.neighbours, start=1))])


@dataclass
class _Found:
    """Neighbours, and how many records were passed over."""

    neighbours: list[Neighbour] = field(default_factory=list)
    passed_over: int = 0


def find_neighbours(index: EvidenceIndex, sequence: str, choice: EvidenceChoice = ANY, exclude: Collection[str] = ()) -> list[Neighbour]:
    """Return the nearest records of a sequence, at most `choice.max_hits`, nearest first; those whose ids are in `exclude` are no answer.

    Raises InputError for a sequence of over MAX_QUERY letters.
    """
    return _search(index, sequence, choice, frozenset(exclude)).neighbours


def _search(index: EvidenceIndex, sequence: str, choice: EvidenceChoice, exclude: Collection[str]) -> _Found:
    """Look at the shortlist, and at the next entries as long as records were passed over and too few are left."""
    if len(sequence) > MAX_QUERY:
        raise InputError(f"a sequence of {len(sequence):,} letters is asked about", f"at most {MAX_QUERY:,}", "Ask about a part of it")
    numbers = index.candidates(sequence.upper())[:MOST_ALIGNED].tolist()
    best: dict[str, tuple[Relative, Entry]] = {}
    passed_over: set[str] = set()
    for first in range(0, len(numbers), SHORTLIST):
        entries = [index.entry(number) for number in numbers[first : first + SHORTLIST]]
        before = len(passed_over)
        for relative in _aligned(index, sequence, entries):
            entry = entries[relative.second]
            if relative.identity > choice.max_identity or entry.id in exclude:
                passed_over.add(entry.id)
            elif relative.identity >= choice.min_identity and relative.coverage_first >= choice.min_coverage:
                known = best.get(entry.id)
                if known is None or _nearness(relative) > _nearness(known[0]):
                    best[entry.id] = relative, entry
        num_left = len(best.keys() - passed_over)
        if num_left >= choice.max_hits or len(passed_over) == before:
            break
    order = sorted(best.keys() - passed_over, key=lambda name: (*(-value for value in _nearness(best[name][0])), name))
    return _Found([_neighbour(*best[name]) for name in order[: choice.max_hits]], len(passed_over))


def _aligned(index: EvidenceIndex, sequence: str, entries: Sequence[Entry]) -> list[Relative]:
    """Return the alignments of a sequence with entries that cannot be chance in the whole index."""
    texts = [entry.sequence for entry in entries]
    share = sum(map(len, texts)) / max(index.num_letters, 1)  # of the index that is aligned: windows overlap, so it may exceed 1
    return find_relatives([sequence], index.kind, others=texts, thresholds=Thresholds(expected=EXPECTED * min(1.0, share)))


def _nearness(relative: Relative) -> tuple[float, float]:
    """Return what ranks an alignment: its equal letters, then its identity."""
    return round(relative.identity * relative.length), relative.identity


def _neighbour(relative: Relative, entry: Entry) -> Neighbour:
    return Neighbour(
        entry.id, entry.text, relative.identity, relative.length, relative.coverage_first, relative.strand, entry.start, entry.num_letters
    )


# Words


def cite(neighbour: Neighbour, kind: str) -> str:
    """Return a neighbour as an answer cites it.

    >>> cite(Neighbour("P12345", "Lactase", 0.629, 180, 0.9, 1, 0, 400), "protein")
    'P12345 (62 % identity over 180 residues)'
    >>> cite(Neighbour("chr1", "", 1.0, 60, 1.0, -1, 4000, 90_000), "dna")
    'chr1 (100 % identity over 60 bases, other strand)'
    """
    letters = "residues" if kind == "protein" else "bases"
    strand = ", other strand" if neighbour.strand == -1 else ""
    return f"{neighbour.id} ({int(100 * neighbour.identity + 1e-9)} % identity over {neighbour.length} {letters}{strand})"


def render_neighbours(neighbours: Sequence[Neighbour], kind: str, num_found: int | None = None, what: str = "") -> str:
    """Return the block that a prompt gets; `num_found` says of how many these are, `what` of which sequence of several.

    >>> print(render_neighbours([Neighbour("P1", "Protein: Lactase", 0.5, 100, 0.9, 1, 0, 400)], "protein", num_found=3))
    Nearest annotated sequences (1 of 3 fit):
    1. P1 (50 % identity over 100 residues): Protein: Lactase
    >>> render_neighbours([], "protein")
    'Nearest annotated sequences: none'
    """
    head = _head(len(neighbours), len(neighbours) if num_found is None else num_found, what)
    lines = [f"{number}. {cite(item, kind)}: {_short(item.text)}" for number, item in enumerate(neighbours, start=1)]
    return "\n".join([head, *lines])


def _head(num_kept: int, num_found: int, what: str = "") -> str:
    """Return the line above neighbours, with the number of those that did not fit."""
    head = HEADER + (f" of the {what} sequence" if what else "") + (f" ({num_kept} of {num_found} fit)" if num_found > num_kept else "")
    return f"{head}:" if num_kept else head if num_found else f"{head}: none"


def _short(text: str) -> str:
    """Return the beginning of a text, at most TEXT_LETTERS, whole words."""
    if len(text) <= TEXT_LETTERS:
        return text or "nothing is known"
    return text[:TEXT_LETTERS].rsplit(" ", 1)[0] + " ..."


# Prompts


Fits = Callable[["Example"], bool]


def with_evidence(
    rows: Sequence[Example], index: EvidenceIndex, choice: EvidenceChoice = ANY, fits: Fits | None = None, what: str = "evidence"
) -> tuple[list[Example], EvidenceCounts]:
    """Return the rows with their neighbours behind the instruction, and counts; labels, input and answers stay as they are.

    `fits` says whether a row's prompt has room (see `prompt_fits`). A row's new field `evidence` lists what its prompt cites.
    Raises InputError for a row that has evidence already.
    """
    counts = EvidenceCounts()
    known: dict[str, _Found] = {}
    made = []
    with runtime.progress(what, "rows", len(rows)) as bar:
        for row in rows:
            made.append(_add(row, index, choice, fits, counts, known))
            bar.update(1)
    return made, counts


def question_with_evidence(
    instruction: str, input: str, index: EvidenceIndex, choice: EvidenceChoice = ANY, fits: Fits | None = None
) -> tuple[str, Cited]:
    """Return a question's instruction with the neighbours of its input, and what it cites; unchanged where the input is no sequence.

    The input is one sequence, or several joined as a prompt has them ("####" between lines).
    """
    parts = [part.strip() for part in input.split("\n####\n")]
    alphabet = get_alphabet(index.kind)
    sequences = [part for part in parts if part and first_fault(part, alphabet) is None]
    cited = cite_for(instruction, input, sequences, [index.kind] * len(sequences), EvidenceSource(index, choice), fits)
    return instruction + cited.block, cited


def cite_for(
    instruction: str,
    input: str,
    sequences: Sequence[str],
    kinds: Sequence[str],
    source: EvidenceSource,
    fits: Fits | None = None,
    labels: Sequence[str] = (),
) -> Cited:
    """Return what the prompt of one question cites; nothing where no sequence is of the index's kind. `fits` reads the labels, too."""
    row: dict[str, Any] = {
        "task": "", "family": "", "split": "test", "instruction": instruction, "input": input, "output": "", "labels": list(labels),
        "sequences": list(sequences), "kinds": list(kinds), "group": "", "oracle": None, "value": None,
    }  # fmt: skip
    counts = EvidenceCounts()
    made = _add(cast("Example", row), source.index, source.choice, fits, counts, {})
    block = made["instruction"][len(instruction) :]
    return Cited(block, tuple(made.get("evidence", [])), counts.neighbours + counts.neighbours_without_room)


def prompt_fits(tokenizer: PreTrainedTokenizerFast, max_length: int, template: str = "alpaca") -> Fits:
    """Return what tells whether a row's prompt and its longest answer fit so many tokens with nothing cut off."""
    from llama_gene.data.prompts import encode_answer, encode_prompt, render_user

    def fits(row: Example) -> bool:
        room = max(len(encode_answer(tokenizer, answer, template)) for answer in row["labels"] or [row["output"]])
        prompt = encode_prompt(tokenizer, render_user(row["instruction"], row["input"], template), template)
        return len(prompt) + room <= max_length

    return fits


def _add(
    row: Example, index: EvidenceIndex, choice: EvidenceChoice, fits: Fits | None, counts: EvidenceCounts, known: dict[str, _Found]
) -> Example:
    """Return one row with its neighbours, as many as fit."""
    if HEADER in row["instruction"]:
        what = f"a row of task '{row['task']}'" if row["task"] else "the question"
        raise InputError(f"{what} has evidence already", "rows without", "Leave the evidence out of one of the two")
    counts.rows += 1
    asked = [text for text, kind in zip(row["sequences"], row["kinds"], strict=True) if kind == index.kind]
    if not asked:
        counts.not_asked += 1
        return row
    for text in asked:
        if text not in known:
            known[text] = _search(index, text, choice, ())
    found = [known[text] for text in asked]
    counts.passed_over += sum(one.passed_over for one in found)
    num_found = sum(len(one.neighbours) for one in found)
    for num_kept in range(max(len(one.neighbours) for one in found), -1, -1):
        made = _rendered(row, index.kind, found, num_kept)
        if fits is None or fits(made):
            num_given = len(made["evidence"])
            counts.neighbours += num_given
            counts.with_neighbours += num_given > 0
            counts.rows_without_room += num_given < num_found
            counts.neighbours_without_room += num_found - num_given
            return made
    counts.rows_without_room += num_found > 0
    counts.neighbours_without_room += num_found
    counts.rows_left += 1
    return row


def _rendered(row: Example, kind: str, found: Sequence[_Found], num_kept: int) -> Example:
    """Return a row with at most `num_kept` neighbours of each of its sequences."""
    numerals = ("first", "second", "third")
    blocks, cited = [], []
    for place, one in enumerate(found):
        kept = one.neighbours[:num_kept]
        what = "" if len(found) == 1 else numerals[place] if place < len(numerals) else f"{place + 1}th"
        blocks.append(render_neighbours(kept, kind, len(one.neighbours), what))
        cited += [cite(item, kind) for item in kept]
    return {**row, "instruction": "\n\n".join([row["instruction"], *blocks]), "evidence": cited}
