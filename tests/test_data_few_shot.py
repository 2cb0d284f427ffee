"""Few-shot questions: solved train rows in front, evenly many of each label, within a limit."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from llama_gene.data.few_shot import add_shots
from llama_gene.data.instructions import Example
from llama_gene.data.prompts import encode_answer, encode_prompt, render_prompt, render_user
from llama_gene.data.supervised import encode_for_evaluation
from llama_gene.errors import InputError
from llama_gene.tokenization.tokenizer import decode
from tests.fixtures.tiny_tokenizers import tiktoken_like

WORDS = "Which is it?"


def example(split: str, sequence: str, output: str, **changes: Any) -> Example:
    values = {
        "task": "core", "family": "classification", "split": split, "instruction": WORDS, "input": sequence, "output": output,
        "labels": ["no", "yes"], "sequences": [sequence], "kinds": ["dna"], "group": "", "oracle": None, "value": None,
    }  # fmt: skip
    return Example(**{**values, **changes})  # type: ignore[typeddict-item]


def examples() -> dict[str, list[Example]]:
    train = [example("train", "T" * (number + 5), "yes" if number % 5 else "no") for number in range(40)]
    return {"train": train, "dev": [example("dev", "CC", "no")], "test": [example("test", "GG" * number, "yes") for number in range(1, 11)]}


def test_shots_are_solved_train_rows_evenly_many_of_each_label_and_train_stays_as_it_is() -> None:
    built = examples()
    counts = add_shots(built, 4, seed=1)
    assert counts == {"dev": {4: 1}, "test": {4: 10}}
    assert built["train"] == examples()["train"]
    known = {row["input"] for row in built["train"]}
    for row in [*built["dev"], *built["test"]]:
        turns = row["instruction"].split("\n\n### Instruction:\n")
        assert len(turns) == 5 and turns[-1] == WORDS
        shown = [turn.removeprefix(f"{WORDS}\n\n### Input:\n").split("\n\n### Response:\n") for turn in turns[:-1]]
        assert Counter(answer for _, answer in shown) == {"no": 2, "yes": 2}
        assert len({text for text, _ in shown}) == 4 and {text for text, _ in shown} <= known
        assert row["input"] in {"CC", *("GG" * number for number in range(1, 11))}


def test_a_question_with_a_shot_reads_as_two_turns_of_the_prompt() -> None:
    built = examples()
    add_shots(built, 1)
    row = built["test"][0]
    text = render_prompt(render_user(row["instruction"], row["input"]))
    assert text.count("### Instruction:") == text.count("### Input:") == text.count("### Response:") == 2
    assert text.endswith("### Response:\n") and text.startswith("Below is an instruction")


def test_the_same_seed_shows_the_same_shots_and_another_seed_others() -> None:
    built = [examples() for _ in range(3)]
    for rows, seed in zip(built, (1, 1, 2), strict=True):
        add_shots(rows, 3, seed)
    assert built[0] == built[1] != built[2]


def test_shots_are_left_out_until_the_question_fits_and_are_counted() -> None:
    built, tokenizer = examples(), tiktoken_like()
    bare = len(encode_prompt(tokenizer, render_user(WORDS, built["test"][-1]["input"])))
    limit = bare + 60
    counts = add_shots(built, 8, 0, tokenizer, limit)
    assert sum(counts["test"].values()) == 10 and 0 < max(counts["test"]) < 8
    longest = max(len(encode_answer(tokenizer, label)) for label in ("no", "yes"))
    for row in built["test"]:
        assert len(encode_prompt(tokenizer, render_user(row["instruction"], row["input"]))) + longest <= limit
    assert add_shots(examples(), 8, 0, tokenizer, 10)["test"] == {0: 10}


def test_more_shots_than_rows_show_all_rows_and_free_text_shows_any() -> None:
    built = examples()
    built["train"] = built["train"][:3]
    assert add_shots(built, 9)["test"] == {3: 10}
    free = examples()
    for rows in free.values():
        for number, row in enumerate(rows):
            row.update(labels=[], output=f"function {number}")
    assert add_shots(free, 5)["dev"] == {5: 1}


def test_without_train_rows_there_is_nothing_to_show() -> None:
    with pytest.raises(InputError, match="task 'core' has no train row to show"):
        add_shots({**examples(), "train": []}, 2)


def test_the_question_itself_is_shortened_and_never_a_shot() -> None:
    built = examples()
    built["test"] = [example("test", "ACGT" * 200, "yes")]
    add_shots(built, 2)
    (row,) = built["test"]
    prompt = encode_for_evaluation(tiktoken_like(), row, 330, shorten=True)
    assert prompt is not None and prompt.num_shortened > 0 and len(prompt.input_ids) <= 330
    text = decode(tiktoken_like(), prompt.input_ids)
    assert row["instruction"] in text and "ACGT" in text.split("### Input:\n")[-1]


def test_of_a_choice_of_two_the_last_sequence_is_shortened_though_a_shot_holds_it_too() -> None:
    def asked(split: str, sequence: str) -> Example:
        return example(split, sequence, "yes", input="", instruction=f"Is {sequence} it? answer with no or yes")

    sequence = "ACGT" * 60
    built = {"train": [asked("train", f"T{sequence}T")], "dev": [], "test": [asked("test", sequence)]}
    add_shots(built, 1)
    (row,) = built["test"]
    whole = encode_for_evaluation(tiktoken_like(), row, 2000)
    assert whole is not None
    prompt = encode_for_evaluation(tiktoken_like(), row, len(whole.input_ids), shorten=True)
    text = decode(tiktoken_like(), prompt.input_ids) if prompt is not None else ""
    assert f"Is T{sequence}T it?" in text and f"Is {sequence} it?" not in text and prompt is not None and prompt.num_shortened > 0
