"""Byte-pair encoding: the reference merge loop, continued training on a base tokenizer's own segmentation, and training from nothing.

*Continued BPE.* A gene word is segmented by the base tokenizer; each base piece used is written as one private-use character; a BPE
trainer learns merges of those characters; the merges are written out as strings again and appended behind the base. Every new
piece is then a merge of pieces that the base really produces, so none is cut off from the letters below it: 0 unreachable pieces
and 6.14 bases per token with 30,000 pieces on LLaMA-2, where appending a separately trained list leaves 20 % unreachable and 4.2.

The trainer merges by *pair* and an encoder merges by *string* ("GI" + "T" and "G" + "IT" are one piece to it), so a few learned
pieces can still be unreachable. Each candidate therefore passes through the encoder's loop, in merge order, before it is taken:
a piece of lower priority never changes what the pieces above it give, and an unreachable piece never fires, so one pass decides
and any prefix of the list is a valid vocabulary.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from llama_gene.errors import InputError
from llama_gene.runtime import whole_file

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPACE_MARK = "\u2581"  # SentencePiece's visible space
END_OF_TEXT = "<|endoftext|>"
WORD_LETTERS = 500  # the trainer rescans a word at every merge in it, so words stay short; one cut in 500 letters costs < 0.1 %
N_LADDER = tuple("N" * 2**power for power in range(1, 7))  # NN ... N x 64: a run of 1,000 N is 16 tokens then, not 500
MIN_FREQUENCY = 2
SENTENCE_CHARACTERS = 4000  # SentencePiece skips a longer sentence than its max_sentence_length (bytes) without a word
RESERVED_BY_SENTENCEPIECE = re.compile("[\u2585\x00\r\n]+")  # a sentence with one of these would be skipped or cut short

Rank = Callable[[str, str], float | None]


class Vocabulary(Protocol):
    """What the splice, the recipe and the report need from a base of any format."""

    kind: str
    """"sentencepiece", "tiktoken" or "bpe"."""

    @property
    def num_ids(self) -> int:
        """One more than the highest id, specials included."""

    def pieces(self) -> dict[str, int]:
        """Return the text pieces (no specials, no raw bytes) and their ids."""

    def ids(self) -> dict[str, int]:
        """Return every piece and special token with its id."""

    def rank(self, left: str, right: str) -> float | None:
        """Return the priority of merging two adjacent pieces (lower merges first), None where they do not merge."""

    def segment(self, words: list[str]) -> list[list[str]]:
        """Return each word's pieces, as it is segmented inside a text (no word-start mark)."""

    def append(self, pieces: Sequence[str]) -> Vocabulary:
        """Return a vocabulary with new pieces behind all ids; the base's ids, pieces, priorities and specials stay."""

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Return the tokenizer that transformers runs."""

    def native_encode(self, texts: list[str]) -> list[list[int]] | None:
        """Return ids from the format's own library (no specials added), None where it has none."""

    def write_native(self, folder: Path) -> None:
        """Write the format's own file (`tokenizer.model`), if it has one."""


def reference_encode(word: str, rank: Rank) -> list[str]:
    """Return a word's pieces by the definition of BPE: merge the best-ranked adjacent pair, leftmost on ties, until none is left.

    Plain and slow (quadratic) on purpose: what it says is what SentencePiece and tiktoken must say.

    >>> ranks = {"AC": 0, "GT": 1, "ACGT": 2}
    >>> reference_encode("TACGTA", lambda left, right: ranks.get(left + right))
    ['T', 'ACGT', 'A']
    """
    pieces = list(word)
    while len(pieces) > 1:
        best: float | None = None
        where = -1
        for position in range(len(pieces) - 1):
            found = rank(pieces[position], pieces[position + 1])
            if found is not None and (best is None or found < best):
                best, where = found, position
        if best is None:
            break
        pieces[where : where + 2] = [pieces[where] + pieces[where + 1]]
    return pieces


def merge_list(pieces: Iterable[str], known: Container[str]) -> list[tuple[str, str]]:
    """Return the merges of a `tokenizer.json`: every split of every piece into two known pieces, pieces in order of priority.

    A merge list must rank the splits of one piece, where the string rule says "leftmost"; the two never disagreed on 240,000 texts
    under random vocabularies, nor on 20,000 tandem repeats under 5,000 real pieces, so the splits simply go from left to right.

    >>> merge_list(["AC", "ACA"], {"A", "C", "AC", "ACA"})
    [('A', 'C'), ('AC', 'A')]
    """
    merges = []
    for piece in pieces:
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in known and right in known:
                merges.append((left, right))
    return merges


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


def train_continued_pieces(
    base_encode: Callable[[list[str]], list[list[str]]],
    texts: Iterable[str],
    size: int,
    *,
    base_pieces: Container[str],
    base_rank: Rank,
    max_length: int = 64,
    forbid: Callable[[str], bool] = lambda piece: False,
    first: Sequence[str] = (),
) -> list[str]:
    """Return exactly `size` new pieces, best first, each reachable behind the base.

    `base_encode` segments words into base pieces; `base_pieces` and `base_rank` describe the base to the reference loop.
    Letters that the base lacks come first, then the pieces of `first` (the N ladder), then learned merges; a merge is passed
    over where it already is a base piece, is longer than `max_length` letters, is forbidden, or cannot be reached.
    Raises InputError when the texts are empty, give fewer pieces than `size`, or hold more new letters than `size`.
    """
    words = list(words_of(texts))
    if not words:
        raise InputError("the corpus has no letters", "sequences", "Check the inputs")
    if size < 1 or max_length < 2:
        raise InputError(f"size {size}, max_length {max_length}", "a size of at least 1 and pieces of at least 2 letters")
    letters = sorted(set().union(*words))
    missing = [letter for letter in letters if letter not in base_pieces]
    if len(missing) > size:
        raise InputError(f"{len(missing)} letters of the corpus are not in the base, but size is {size}", "a larger size")
    chosen: dict[str, int] = {}

    def rank(left: str, right: str) -> float | None:
        found = base_rank(left, right)
        if found is None and (new := chosen.get(left + right)) is not None:
            return NEW_RANK + new
        return found

    def take(piece: str) -> None:
        if len(chosen) == size or piece in chosen or piece in base_pieces or len(piece) > max_length or forbid(piece):
            return
        chosen[piece] = len(chosen)
        if reference_encode(piece, rank) != [piece]:
            del chosen[piece]

    for piece in (*missing, *first):
        take(piece)
    names, coded = _code_words(words, base_encode, missing)
    del words
    wanted = size + size // 10 + 100
    while True:
        learned = _train_merges(coded, len(names), wanted, max_length)
        for merge in learned:
            take("".join(names[code] for code in merge))
        if len(chosen) == size:
            return list(chosen)
        if len(learned) < wanted:
            raise InputError(
                f"the corpus gives {len(chosen):,} pieces", f"{size:,}", "Give more text, or set the step's size to what it gives or less"
            )
        wanted *= 2  # training is deterministic: the same merges come again, and then more


NEW_RANK = 1e12  # behind any base rank or score


def _code_words(
    words: list[str], base_encode: Callable[[list[str]], list[list[str]]], missing: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """Return {private-use character: base piece} and the words written in those characters."""
    names: dict[str, str] = {}
    codes: dict[str, str] = {}

    def code(piece: str) -> str:
        if piece not in codes:
            number = len(codes)  # 6,400 private-use characters in the first plane, 131,068 behind
            codes[piece] = chr(0xE000 + number) if number < 6400 else chr(0xF0000 + number - 6400)
            names[codes[piece]] = piece
        return codes[piece]

    if missing:  # a letter without a piece would come back as bytes: it stands alone, and the base segments what is between
        pattern = re.compile(f"([{''.join(missing)}])")
        parts = [[part for part in pattern.split(word) if part] for word in words]
    else:
        parts = [[word] for word in words]
    known = iter(base_encode([part for word in parts for part in word if part not in missing]))
    coded = []
    for word in parts:
        pieces = [piece for part in word for piece in ([part] if part in missing else next(known))]
        coded.append("".join(code(piece) for piece in pieces))
    return names, coded


def _train_merges(words: list[str], num_symbols: int, size: int, max_symbols: int) -> list[str]:
    """Return up to `size` merges of the words' characters in the order learned, each as a string of those characters."""
    from tokenizers import Tokenizer, models, trainers

    trained = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=num_symbols + size, min_frequency=MIN_FREQUENCY, show_progress=False, max_token_length=max_symbols
    )
    trained.train_from_iterator(words, trainer)
    by_id = sorted(trained.get_vocab().items(), key=lambda item: item[1])
    return [piece for piece, _ in by_id if len(piece) > 1]


def train_sentencepiece_base(texts: Iterable[str], size: int, out: Path) -> None:
    """Train a LLaMA-like SentencePiece BPE of exactly `size` ids and write it to `out`.

    ids: <unk> 0, <s> 1, </s> 2, 256 bytes, pieces; no pad. Every character of the texts has a piece. Single thread: the same
    texts give the same file. Raises InputError when the texts are empty, or too small or too rich in letters for `size`.
    """
    import sentencepiece

    sentences: list[str] = []
    for text in texts:
        for line in RESERVED_BY_SENTENCEPIECE.split(text):
            sentences += [line[start : start + SENTENCE_CHARACTERS] for start in range(0, len(line), SENTENCE_CHARACTERS)]
    if not any(sentence.strip() for sentence in sentences):
        raise InputError("the base's texts are empty", "English text", "Check base_inputs")
    max_bytes = 4 * SENTENCE_CHARACTERS + 16
    skipped = sum(len(sentence.encode()) > max_bytes or bool(RESERVED_BY_SENTENCEPIECE.search(sentence)) for sentence in sentences)
    if skipped:
        raise InputError(f"SentencePiece would skip {skipped} lines", "none skipped", "Report this: lines are cut so that none is")
    alphabet = len(set().union(*sentences) - {" "}) + 1
    if size <= 3 + 256 + alphabet:
        raise InputError(f"base_size {size} does not hold 3 specials, 256 bytes and {alphabet} characters", f"{260 + alphabet} or more")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences), model_writer=model, model_type="bpe", vocab_size=size, character_coverage=1.0,
            byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True,
            allow_whitespace_only_pieces=True, max_sentence_length=max_bytes, num_threads=1, shuffle_input_sentence=False,
            unk_id=0, bos_id=1, eos_id=2, pad_id=-1, minloglevel=2,
        )  # fmt: skip
    except (RuntimeError, OSError) as error:
        message = " ".join(str(error).split())
        limit = re.search(r"<= ?(\d+)", message)
        expected = f"base_size of at most {limit.group(1)}" if limit else "more text or another base_size"
        raise InputError(f"SentencePiece cannot give {size:,} pieces from these texts", expected, "Give more text") from error
    with whole_file(out) as temporary:
        temporary.write_bytes(model.getvalue())


def train_unified(texts: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """Return DNAHLM's dictionary: one byte-level BPE of exactly `size` ids over DNA and English together, <|endoftext|> first.

    The same pre-tokenizer, GPT-2's pattern, is used for training and afterwards (a dictionary trained without it and used with
    it would hold pieces that can never occur). Raises InputError when the texts are empty or too small for `size`.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    if size <= 257:
        raise InputError(f"base_size {size} does not hold 256 bytes and {END_OF_TEXT}", "258 or more")
    backend: Any = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, min_frequency=MIN_FREQUENCY, show_progress=False, special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), max_token_length=64,
    )  # fmt: skip
    chunks = [text[start : start + 2 * WORD_LETTERS] for text in texts for start in range(0, len(text), 2 * WORD_LETTERS)]
    if not any(chunk.strip() for chunk in chunks):
        raise InputError("the dictionary's texts are empty", "DNA and English text", "Check base_inputs")
    backend.train_from_iterator(chunks, trainer)
    found = backend.get_vocab_size()
    if found < size:
        raise InputError(f"the texts give {found:,} pieces", f"{size:,}", "Give more text or a smaller base_size")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT, clean_up_tokenization_spaces=False
    )
