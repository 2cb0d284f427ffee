"""Token rows: loss on the answer only, long rows shortened inside their sequences."""

from __future__ import annotations

import random
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from llama_gene.data.instructions import Example
from llama_gene.data.prompts import encode_answer, encode_prompt, render_user
from llama_gene.data.supervised import IGNORED, encode_example, encode_examples, encode_for_evaluation
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
