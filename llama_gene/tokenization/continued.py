"""Continued BPE: learn gene pieces on a base tokenizer's own segmentation.

A gene word is segmented by the base; merges of those base pieces are learned; the merges are written out as strings and appended behind
the base. Every new piece is then a merge of pieces that the base really produces, so none is cut off from the letters below it: 0
unreachable pieces, where appending a separately trained list leaves 20 % unreachable behind LLaMA-2 and 27 % behind LLaMA-3.

A trainer merges by *pair* and an encoder by *string* ("GI" + "T" and "G" + "IT" are one piece to it). So every candidate passes through
the encoder's loop before it is taken. One that is unreachable, forbidden or too short is passed over *inside* the training: its pair
stays apart, nothing is built on it, and the next candidate takes its place. (Dropping 7 pieces afterwards cut 2,147 others off.) A
piece of lower priority never changes what the pieces above it give, so one look decides, and any prefix of the list is a valid
vocabulary.

*Detours.* BPE takes the most frequent pair. The first few dozen merges of a small alphabet are near ties and shape all that follow, so
leaving one of them out can give fewer tokens in the end. With a corpus of at least DETOUR_LETTERS each early piece is left out, alone and
then with others, of a small training on a sample; what saves tokens there, and again with all pieces on other words, stays out. The gain
is about half a percent of bases per token, also on species never seen (docs/vocabulary.md). Without it (`detours=False`) the merges are
those of `tokenizers`' BpeTrainer.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llama_gene.errors import InputError
from llama_gene.tokenization.bpe import Vocabulary, rank_behind, reference_encode

if TYPE_CHECKING:
    from llama_gene.tokenization.merges import Int32

WORD_LETTERS = 1000  # base tokenizers are fastest on words of about this length; one cut in 1,000 letters changes < 0.1 % of the pairs
N_LADDER = tuple("N" * 2**power for power in range(1, 7))  # NN ... N x 64: a run of 1,000 N is 16 tokens then, not 500
DETOUR_LETTERS = 4_000_000  # the sample on which early pieces are left out in turn
DETOUR_SIZE = 5000  # pieces of a training on the sample
DETOUR_PIECES = 24  # early pieces that are looked at; behind LLaMA-2 and LLaMA-3 the last that helped was the 21st
CHECK_LETTERS = 10_000_000  # what was found must prove itself with all pieces on other, more words
DETOUR_GAIN = 0.0001  # share of the tokens that leaving a piece out must save


@dataclass(frozen=True)
class Learned:
    """What a training gave: the pieces in order of priority, and what was passed over on the way."""

    pieces: list[str]
    num_letters: int
    num_symbols: int
    """Base tokens of the corpus."""
    num_unreachable: int
    num_forbidden: int
    detours: list[str]
    """Early pieces left out because the others compress better without them."""


def train_continued_pieces(
    vocabulary: Vocabulary,
    texts: Iterable[str],
    size: int,
    *,
    max_length: int = 64,
    min_length: int = 2,
    forbidden: Container[str] = frozenset(),
    forbid: Callable[[str], bool] = lambda piece: False,
    first: Sequence[str] = (),
    reserve: int = 0,
    detours: bool = True,
    progress: bool = False,
) -> Learned:
    """Return exactly `size` new pieces, best first, each reachable behind `vocabulary`, and up to `reserve` more behind them.

    Letters that the base lacks come first, then the pieces of `first` (the N ladder), then learned merges of `min_length` to
    `max_length` letters, none of them in `forbidden` or refused by `forbid`.
    Raises InputError when the texts are empty, give fewer pieces than `size`, or hold more new letters than `size`.
    """
    words = list(words_of(texts))
    if not words:
        raise InputError("the corpus has no letters", "sequences", "Check the inputs")
    if size < 1 or not 2 <= min_length <= max_length:
        raise InputError(
            f"size {size}, min_length {min_length}, max_length {max_length}", "a size of at least 1, and 2 <= min_length <= max_length"
        )
    known = vocabulary.pieces()
    missing = [letter for letter in sorted(set().union(*words, *first)) if letter not in known]
    if len(missing) > size:
        raise InputError(f"{len(missing)} letters of the corpus are not in the base, but size is {size}", "a larger size")
    num_letters = sum(map(len, words))
    symbols, names = _base_symbols(vocabulary, words, missing)

    def begin(symbols: Int32, size: int, left_out: Collection[str]) -> _Training:
        rules = _Rules(max_length, min_length, lambda piece: piece in forbidden or forbid(piece))
        training = _Training(vocabulary, symbols, list(names), rules, left_out)
        training.take_first([*missing, *first], size)
        return training

    left_out: list[str] = []
    if detours and num_letters >= DETOUR_LETTERS:
        small, large = _sample(symbols, num_letters, DETOUR_LETTERS), _sample(symbols, num_letters, CHECK_LETTERS, other=True)
        few = min(size, DETOUR_SIZE)
        left_out = _find_detours(lambda some: begin(small, few, some), few, progress)
        plain = begin(large, size, ()).learn(size).num_tokens() if left_out else 0
        while left_out and begin(large, size, left_out).learn(size).num_tokens() >= plain:  # what helps least in the sample goes first
            left_out.pop()
    del words
    training = begin(symbols, size + reserve, left_out).learn(size + reserve, progress)
    if len(training.chosen) < size:
        raise InputError(
            f"the corpus gives {len(training.chosen):,} pieces",
            f"{size:,}",
            "Give more text, or set the step's size to what it gives or less",
        )
    num_symbols = int(np.count_nonzero(symbols >= 0))
    return Learned(list(training.chosen), num_letters, num_symbols, training.num_unreachable, training.num_forbidden, left_out)


def words_of(texts: Iterable[str], max_letters: int = WORD_LETTERS) -> Iterator[str]:
    """Yield the runs of ASCII letters of texts, cut to at most `max_letters`: gene pieces are made of letters alone.

    >>> list(words_of(["ACGT*NN acg"], max_letters=3))
    ['ACG', 'T', 'NN', 'acg']
    """
    for text in texts:
        for match in re.finditer(r"[A-Za-z]+", text):
            word = match.group()
            for start in range(0, len(word), max_letters):
                yield word[start : start + max_letters]


@dataclass(frozen=True)
class _Rules:
    """What a new piece must be."""

    max_length: int
    min_length: int
    forbid: Callable[[str], bool]


class _Training:
    """The decisions of one training: which of the corpus's pairs become pieces."""

    def __init__(self, vocabulary: Vocabulary, symbols: Int32, names: list[str], rules: _Rules, left_out: Collection[str] = ()) -> None:
        from llama_gene.tokenization.merges import MergeCorpus

        self.corpus = MergeCorpus(symbols, np.array([len(name) for name in names], np.int32), rules.max_length)
        self.names = names
        self.symbol_of = {name: number for number, name in enumerate(names)}
        self.chosen: dict[str, int] = {}
        self.num_unreachable = 0
        self.num_forbidden = 0
        self._base_rank, self._taken = vocabulary.rank, vocabulary.ids()
        self._rank = rank_behind(vocabulary.rank, self.chosen)
        self._rules, self._left_out = rules, frozenset(left_out)

    def branch(self) -> _Training:
        """Return a training in the same state, to go on in another way."""
        other = copy.copy(self)
        other.corpus, other.names = self.corpus.copy(), list(self.names)
        other.symbol_of, other.chosen = dict(self.symbol_of), dict(self.chosen)
        other._rank = rank_behind(self._base_rank, other.chosen)
        return other

    def leave_out(self, piece: str) -> _Training:
        """Never take `piece`; return the training itself."""
        self._left_out |= {piece}
        return self

    def take_first(self, pieces: Collection[str], size: int) -> None:
        """Take given pieces (new letters, the N ladder) before anything is learned, as far as `size` allows."""
        for piece in pieces:
            if len(self.chosen) == size or piece in self.chosen or piece in self._taken or len(piece) > self._rules.max_length:
                continue
            if not self._reachable(piece) or len(piece) == 1:
                continue
            half = piece[: len(piece) // 2]
            if (symbol := self.symbol_of.get(half)) is not None and (pair := self.corpus.find(symbol, symbol)) is not None:
                self.corpus.merge(pair, self._symbol(piece))

    def learn(self, size: int, progress: bool = False) -> _Training:
        """Take learned merges until there are `size` pieces or no pair is left; return the training itself."""
        from tqdm import tqdm

        with tqdm(total=size, initial=len(self.chosen), desc="merges", unit="piece", leave=False, delay=1, disable=not progress) as bar:
            while len(self.chosen) < size and (pair := self.corpus.best()) is not None:
                left, right = self.names[pair.left], self.names[pair.right]
                before = len(self.chosen)
                if self._accept(left, right):
                    self.corpus.merge(pair, self._symbol(left + right))
                bar.update(len(self.chosen) - before)
        return self

    def num_tokens(self) -> int:
        """Return how many tokens the corpus has by now."""
        return int(np.count_nonzero(self.corpus.symbols >= 0))

    def _accept(self, left: str, right: str) -> bool:
        """Return whether the pair is to be merged; where it gives a new piece, take that."""
        piece = left + right
        if piece in self.chosen or self._base_rank(left, right) is not None:
            return True  # the encoder merges it, too
        if len(piece) < self._rules.min_length or piece in self._left_out or self._rules.forbid(piece):
            self.num_forbidden += 1
            return False
        return piece not in self._taken and self._reachable(piece)

    def _reachable(self, piece: str) -> bool:
        """Take a piece if its own letters encode to it; return whether they do."""
        self.chosen[piece] = len(self.chosen)
        if reference_encode(piece, self._rank) == [piece]:
            return True
        del self.chosen[piece]
        self.num_unreachable += 1
        return False

    def _symbol(self, piece: str) -> int:
        """Return the number of a piece's symbol, a new one where it has none."""
        if piece not in self.symbol_of:
            self.symbol_of[piece] = self.corpus.add_symbol(len(piece))
            self.names.append(piece)
        return self.symbol_of[piece]


def _sample(symbols: Int32, num_letters: int, wanted: int, other: bool = False) -> Int32:
    """Return words with about `wanted` letters, taken evenly from all of the corpus; `other` words, where there are enough."""
    step = max(1, num_letters // wanted)
    return np.concatenate(np.split(symbols, np.flatnonzero(symbols < 0) + 1)[:-1][step // 2 if other else 0 :: step])


def _find_detours(begin: Callable[[Collection[str]], _Training], size: int, progress: bool) -> list[str]:
    """Return early pieces without which a training on the sample ends with fewer tokens.

    Each is left out alone, from the state in which it would be taken (what comes before is learned once); those that help are then left
    out together, the most helpful first, as long as each one more helps; at last each is put back if that helps.
    """
    from tqdm import tqdm

    walk = begin(())
    alone: dict[str, int] = {}
    for _ in tqdm(range(DETOUR_PIECES), desc="detours", unit="piece", leave=False, delay=1, disable=not progress):
        number = len(walk.chosen)
        before = walk.branch()
        if number >= size or len(walk.learn(number + 1).chosen) == number:
            break
        piece = list(walk.chosen)[-1]
        alone[piece] = before.leave_out(piece).learn(size).num_tokens()
    fewest = walk.learn(size).num_tokens()

    def helps(tokens: int) -> bool:
        return tokens < (1 - DETOUR_GAIN) * fewest

    left_out: list[str] = []
    for piece in sorted((piece for piece in alone if helps(alone[piece])), key=alone.__getitem__):
        tokens = begin([*left_out, piece]).learn(size).num_tokens() if left_out else alone[piece]
        if helps(tokens):
            fewest = tokens
            left_out.append(piece)
    for piece in left_out[:-1]:
        others = [other for other in left_out if other != piece]
        tokens = begin(others).learn(size).num_tokens()
        if tokens < fewest:
            fewest, left_out = tokens, others
    return left_out


def _base_symbols(vocabulary: Vocabulary, words: list[str], missing: Sequence[str]) -> tuple[Int32, list[str]]:
    """Return the words as the base segments them, written in dense numbers (-1 behind each word), and each number's text.

    Numbers follow the base's ids. A letter without a piece would come back as bytes: it stands alone, the base segments the rest.
    """
    texts = vocabulary.piece_texts()
    if missing:
        first = vocabulary.num_ids
        letters = {letter: first + number for number, letter in enumerate(missing)}
        texts = {**texts, **{number: letter for letter, number in letters.items()}}
        ids = _with_missing(vocabulary, words, letters)
    else:
        ids = vocabulary.segment_ids(words)
    counts = np.bincount(ids + 1, minlength=1)
    used = np.flatnonzero(counts[1:])
    if strange := [int(number) for number in used if int(number) not in texts]:
        raise InputError(f"the base encodes gene letters with ids {strange[:5]}, which are no text", "text pieces", "Use another base")
    dense = np.full(len(counts), -1, np.int32)
    dense[used + 1] = np.arange(len(used), dtype=np.int32)
    return dense[ids + 1], [texts[int(number)] for number in used]


def _with_missing(vocabulary: Vocabulary, words: list[str], letters: dict[str, int]) -> Int32:
    """Return the ids of words in which some letters have no piece, -1 behind each word."""
    pattern = re.compile(f"([{''.join(letters)}])")
    parts = [[part for part in pattern.split(word) if part] for word in words]
    ids = vocabulary.segment_ids([part for word in parts for part in word if part not in letters])
    known = iter(np.split(ids, np.flatnonzero(ids == -1) + 1))
    end = np.array([-1], np.int32)
    rows: list[Int32] = []
    for word in parts:
        rows += [np.array([letters[part]], np.int32) if part in letters else next(known)[:-1] for part in word]
        rows.append(end)
    return np.concatenate(rows).astype(np.int32)
