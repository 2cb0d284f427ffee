"""Vocabularies trained from nothing: a SentencePiece base, DNAHLM's unified dictionary, and the papers' stand-alone gene vocabulary."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_gene.errors import InputError
from llama_gene.runtime import whole_file

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
MIN_FREQUENCY = 2
CHUNK_LETTERS = 1000  # `tokenizers` rescans a word at every merge in it
PAPER_CHUNK_LETTERS = 4192  # SentencePiece's own max_sentence_length, in bytes
SENTENCE_CHARACTERS = 4000  # SentencePiece skips a longer sentence than its max_sentence_length (bytes) without a word
RESERVED_BY_SENTENCEPIECE = re.compile("[\u2585\x00\r\n]+")  # a sentence with one of these would be skipped or cut short


def train_sentencepiece_base(texts: Iterable[str], size: int, out: Path) -> None:
    """Train a LLaMA-like SentencePiece BPE of exactly `size` ids and write it to `out`.

    ids: <unk> 0, <s> 1, </s> 2, 256 bytes, pieces; no pad. Every character of the texts has a piece. Single thread: the same
    texts give the same file. Raises InputError when the texts are empty, or too small or too rich in letters for `size`.
    """
    sentences: list[str] = []
    for text in texts:
        for line in RESERVED_BY_SENTENCEPIECE.split(text):
            sentences += [line[start : start + SENTENCE_CHARACTERS] for start in range(0, len(line), SENTENCE_CHARACTERS)]
    if not any(sentence.strip() for sentence in sentences):
        raise InputError("the base's texts are empty", "English text", "Check base_inputs")
    max_bytes = 4 * SENTENCE_CHARACTERS + 16
    alphabet = len(set().union(*sentences) - {" "}) + 1
    if size <= 3 + 256 + alphabet:
        raise InputError(f"base_size {size} does not hold 3 specials, 256 bytes and {alphabet} characters", f"{260 + alphabet} or more")
    _train_sentencepiece(
        sentences, size, out, character_coverage=1.0, byte_fallback=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, split_digits=True, allow_whitespace_only_pieces=True, max_sentence_length=max_bytes,
        shuffle_input_sentence=False, unk_id=0, bos_id=1, eos_id=2, pad_id=-1,
    )  # fmt: skip


def train_paper(texts: Iterable[str], size: int, out: Path) -> int:
    """Train gene sequences alone as LLaMA-Gene 2.3.1 does (SentencePiece BPE, its defaults), write the model, return the number of chunks.

    Longer lines than SentencePiece takes are cut, where the papers' own script lost them, and rare letters are kept, where its
    character_coverage lost them. Raises InputError when the texts are empty or too small for `size`.
    """
    chunks = [
        line[start : start + PAPER_CHUNK_LETTERS]
        for text in texts
        for line in text.split()
        for start in range(0, len(line), PAPER_CHUNK_LETTERS)
    ]
    if not chunks:
        raise InputError("the corpus has no letters", "sequences", "Check the inputs")
    _train_sentencepiece(chunks, size, out, character_coverage=1.0, max_sentence_length=PAPER_CHUNK_LETTERS)
    return len(chunks)


def _train_sentencepiece(sentences: list[str], size: int, out: Path, max_sentence_length: int, **options: Any) -> None:
    """Train a BPE on sentences of which none is longer than `max_sentence_length` bytes, and write it whole."""
    import sentencepiece

    too_long = sum(len(sentence.encode()) > max_sentence_length for sentence in sentences)
    if skipped := too_long + sum(bool(RESERVED_BY_SENTENCEPIECE.search(sentence)) for sentence in sentences):
        raise InputError(f"SentencePiece would skip {skipped} lines", "none skipped", "Report this: lines are cut so that none is")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences), model_writer=model, model_type="bpe", vocab_size=size, num_threads=1,
            max_sentence_length=max_sentence_length, minloglevel=2, **options,
        )  # fmt: skip
    except (RuntimeError, OSError) as error:
        message = " ".join(str(error).split())
        limit = re.search(r"<= ?(\d+)", message)
        expected = f"a size of at most {limit.group(1)}" if limit else "more text or another size"
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
    chunks = [text[start : start + CHUNK_LETTERS] for text in texts for start in range(0, len(text), CHUNK_LETTERS)]
    if not any(chunk.strip() for chunk in chunks):
        raise InputError("the dictionary's texts are empty", "DNA and English text", "Check base_inputs")
    backend.train_from_iterator(chunks, trainer)
    found = backend.get_vocab_size()
    if found < size:
        raise InputError(f"the texts give {found:,} pieces", f"{size:,}", "Give more text or a smaller base_size")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT, clean_up_tokenization_spaces=False
    )
