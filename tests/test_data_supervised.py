"""Token rows: loss on the answer only, long rows shortened inside their sequences."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from llama_gene.data.instructions import Example
from llama_gene.data.prompts import encode_answer, encode_prompt, render_user
from llama_gene.data.structure import show_middle
from llama_gene.data.supervised import (
    IGNORED,
    count_tokens,
    encode_example,
    encode_examples,
    encode_for_evaluation,
    encode_sequences,
)
from llama_gene.errors import InputError
from llama_gene.tokenization.tokenizer import decode
from tests.fixtures.tiny_tokenizers import sentencepiece_like, tiktoken_like, without_bos

TOKENIZERS = {"sentencepiece": sentencepiece_like, "tiktoken": tiktoken_like, "no bos": without_bos}
LABELS = ["Non-promoter", "promoter"]
RNG = random.Random(1)
DNA = "".join(RNG.choices("ACGT", k=2000))
PROTEIN = "".join(RNG.choices("ACDEFGHIKLMNPQRSTVWY", k=1000))


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return TOKENIZERS[request.param]()


def example(sequence: str = "CATGCGGGTCG", output: str = "promoter", **changes: Any) -> Example:
    row = Example(
        task="core", family="classification", split="train", instruction="Determine the core promoter detection.", input=sequence,
        output=output, labels=LABELS, sequences=[sequence], kinds=["dna"], group="", oracle=None, value=None,
    )  # fmt: skip
    row.update(changes)  # type: ignore[typeddict-item]
    return row


def pair(dna: str = DNA, protein: str = PROTEIN) -> Example:
    text = f"DNA sequence: {dna}\n####\nprotein sequence: {protein}"
    return example(family="pair", input=text, sequences=[dna, protein], kinds=["dna", "protein"])


@pytest.mark.parametrize("row", [example(), example(DNA), pair(), pair("ACGT", "MKV")], ids=["short", "long", "long pair", "short pair"])
def test_law_09_only_response_tokens_carry_loss_no_row_without_a_target(tokenizer: PreTrainedTokenizerFast, row: Example) -> None:
    encoded = encode_example(tokenizer, row, max_length=200)
    answer = encode_answer(tokenizer, "promoter")
    assert len(encoded.input_ids) == len(encoded.labels) <= 200
    assert [label for label in encoded.labels if label != IGNORED] == answer
    assert encoded.labels[-len(answer) :] == encoded.input_ids[-len(answer) :] == answer
    assert set(encoded.labels[: -len(answer)]) == {IGNORED}


def test_law_09_an_empty_answer_is_refused() -> None:
    with pytest.raises(InputError, match="empty output"):
        encode_example(tiktoken_like(), example(output=""), max_length=200)


def test_full_loss_is_on_every_token() -> None:
    encoded = encode_example(tiktoken_like(), example(), max_length=200, loss="full")
    assert encoded.labels == encoded.input_ids


def test_a_row_that_fits_is_not_touched(tokenizer: PreTrainedTokenizerFast) -> None:
    row = example()
    encoded = encode_example(tokenizer, row, max_length=200)
    assert encoded.num_shortened == 0
    prompt = encode_prompt(tokenizer, render_user(row["instruction"], row["input"]))
    assert encoded.input_ids == prompt + encode_answer(tokenizer, row["output"])


def test_a_long_sequence_is_cut_no_more_than_needed(tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = encode_example(tokenizer, example(DNA), max_length=300)
    text = decode(tokenizer, encoded.input_ids)
    kept = text.split("### Input:\n")[1].split("\n\n### Response:")[0]
    assert DNA.startswith(kept) and encoded.num_shortened == len(DNA) - len(kept) > 0
    assert len(encoded.input_ids) > 295
    assert "Determine the core promoter detection." in text and text.endswith("### Response:\npromoter")


def test_a_pair_is_shortened_evenly(tokenizer: PreTrainedTokenizerFast) -> None:
    text = decode(tokenizer, encode_example(tokenizer, pair(), max_length=400).input_ids)
    dna = text.split("DNA sequence: ")[1].split("\n####")[0]
    protein = text.split("protein sequence: ")[1].split("\n\n### Response")[0]
    assert DNA.startswith(dna) and PROTEIN.startswith(protein)
    assert abs(len(dna) / len(DNA) - len(protein) / len(PROTEIN)) < 0.01


def test_a_pair_of_the_same_sequence_is_shortened_on_both_sides() -> None:
    row = example(family="pair", input=f"protein sequence: {PROTEIN}\n####\nprotein sequence: {PROTEIN}", sequences=[PROTEIN, PROTEIN])
    text = decode(tiktoken_like(), encode_example(tiktoken_like(), row, max_length=300).input_ids)
    first, second = text.split("### Input:\n")[1].split("\n\n### Response")[0].split("\n####\n")
    assert abs(len(first) - len(second)) <= 1


def test_a_structure_window_keeps_its_end() -> None:
    encoded = encode_example(tiktoken_like(), example(PROTEIN, family="structure"), max_length=200)
    kept = decode(tiktoken_like(), encoded.input_ids).split("### Input:\n")[1].split("\n\n### Response:")[0]
    assert PROTEIN.endswith(kept) and len(kept) < len(PROTEIN)


def test_rows_that_cannot_fit_are_counted() -> None:
    rows = [example(), example(DNA), example(sequences=[], input="", instruction="Say. " * 400, labels=[])]
    encoded = encode_examples(tiktoken_like(), rows, max_length=200)
    assert (len(encoded.rows), encoded.num_shortened, encoded.num_rejected) == (2, 1, 1)
    with pytest.raises(InputError, match="does not fit 200 tokens"):
        encode_example(tiktoken_like(), rows[2], max_length=200)
    with pytest.raises(InputError, match="none of 1 examples fits"):
        encode_examples(tiktoken_like(), rows[2:], max_length=200)


def test_evaluation_rejects_a_long_row_by_default_and_shortens_it_if_asked(tokenizer: PreTrainedTokenizerFast) -> None:
    assert encode_for_evaluation(tokenizer, example(DNA), max_length=200) is None
    prompt = encode_for_evaluation(tokenizer, example(DNA), max_length=200, shorten=True)
    assert prompt is not None and prompt.num_shortened > 0
    longest = max(len(encode_answer(tokenizer, label)) for label in LABELS)
    assert len(prompt.input_ids) + longest <= 200


def test_evaluation_and_training_ask_with_the_same_ids(tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = encode_for_evaluation(tokenizer, example(), max_length=200)
    trained = encode_example(tokenizer, example(), max_length=200)
    assert prompt is not None and trained.input_ids[: len(prompt.input_ids)] == prompt.input_ids


# --- any form at any limit ---

WINDOW = PROTEIN[:31]
QUESTION = "Determine the state."


def residue(window: str = WINDOW) -> Example:
    return example(family="structure", input=show_middle(window), sequences=[window], kinds=["protein"], instruction=QUESTION)


def choice(sequence: str = DNA) -> Example:
    """Return a row of the template that leaves the input empty."""
    return example(sequence, input="", instruction=f"Determine whether the core of following DNA sequence {sequence} answer with a or b")


FORMS = {
    "short": example("ACGT"),
    "long": example(DNA),
    "pair": pair(),
    "pair of one letter": pair("A", PROTEIN),
    "paper's pair": pair() | {"input": f" DNA sequence: {DNA} \n####\nprotein sequence: {PROTEIN} "},
    "token": example(PROTEIN, family="structure", kinds=["protein"]),
    "residue": residue(),
    "empty input": choice(),
    "english": example(sequences=[], input="", instruction="Say a word.", labels=[]),
    "english with an input": example(sequences=[], input="A text. " * 40, labels=[]),
}


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(sorted(FORMS)),
    st.integers(1, 700),
    st.sampled_from(sorted(TOKENIZERS)),
    st.sampled_from(["promoter", "a, b, c", "bin 10"]),
)
def test_law_09_no_row_is_without_a_target_token_at_any_limit(form: str, max_length: int, name: str, output: str) -> None:
    tokenizer, row = TOKENIZERS[name](), FORMS[form] | {"output": output}
    answer = encode_answer(tokenizer, output)
    try:
        encoded = encode_example(tokenizer, row, max_length)
    except InputError as error:
        assert "does not fit" in str(error)
        return
    assert len(encoded.input_ids) == len(encoded.labels) <= max_length
    assert [label for label in encoded.labels if label != IGNORED] == answer
    assert encoded.input_ids[-len(answer) :] == answer and len(encoded.input_ids) > len(answer)


def test_a_window_by_residue_is_cut_at_both_ends_and_keeps_its_middle() -> None:
    tokenizer = tiktoken_like()
    whole = len(encode_example(tokenizer, residue(), max_length=500).input_ids)
    for length in range(whole - 12, whole):
        encoded = encode_example(tokenizer, residue(), max_length=length)
        kept = decode(tokenizer, encoded.input_ids).split("### Input:\n")[1].split("\n\n### Response:")[0]
        before, asked, after = kept.split(" ")
        assert asked == WINDOW[15] and WINDOW[:15].endswith(before) and WINDOW[16:].startswith(after)
        assert abs(len(before) - len(after)) <= 1 and encoded.num_shortened == 31 - len(before) - 1 - len(after) > 0


def test_a_head_reads_the_window_without_blanks_and_keeps_its_middle() -> None:
    tokenizer = tiktoken_like()
    whole = encode_sequences(tokenizer, residue(), 100)
    assert whole is not None and WINDOW in decode(tokenizer, whole.input_ids)
    cut = encode_sequences(tokenizer, residue(), len(whole.input_ids) - 4)
    assert cut is not None and cut.num_shortened > 0
    kept = decode(tokenizer, cut.input_ids[1:-1])
    assert kept in WINDOW and WINDOW.index(kept) <= 15 < WINDOW.index(kept) + len(kept)
    assert abs(WINDOW.index(kept) - (31 - WINDOW.index(kept) - len(kept))) <= 1


def test_the_sequence_inside_an_instruction_is_what_is_shortened() -> None:
    text = decode(tiktoken_like(), encode_example(tiktoken_like(), choice(), max_length=200).input_ids)
    kept = text.split("DNA sequence ")[1].split(" answer with a or b")[0]
    assert DNA.startswith(kept) and len(kept) > 40 and "### Input" not in text
    assert encode_for_evaluation(tiktoken_like(), choice(), max_length=200) is None


def test_tokens_are_counted_uncut() -> None:
    tokenizer = tiktoken_like()
    rows = [example("A" * number) for number in range(1, 41)]
    lengths = sorted(len(encode_example(tokenizer, row, 10_000).input_ids) for row in rows)
    assert count_tokens(tokenizer, rows) == {"min": lengths[0], "median": lengths[19], "p95": lengths[38], "max": lengths[39]}
    assert count_tokens(tokenizer, []) == {}
