"""A call is taken only when it is whole and right; its number comes back into the conversation, and nothing else is ever run."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from llama_gene.errors import ConfigError, InputError
from llama_gene.inference.tools import Parameter, Tool, ToolCall, converse, describe_tools, model_answerer, parse_call, render_call
from llama_gene.recipes.regression_tool import regression_tool
from llama_gene.runtime import read_json
from tests.tiny_models import save_model, tiny_llama, tiny_tokenizer

GC = Tool(
    "predict_regression",
    "predicts a number.",
    {"model": Parameter(choices=("gc", "length")), "sequence": Parameter(kind="dna")},
    lambda given: float(len(given["sequence"]) if given["model"] == "length" else given["sequence"].count("G")),
)
CALL = render_call("predict_regression", {"model": "gc", "sequence": "input"})


def test_a_whole_call_is_parsed_and_input_stands_for_the_questions_sequence() -> None:
    assert parse_call(CALL, [GC], "GGA") == ToolCall("predict_regression", {"model": "gc", "sequence": "GGA"})
    assert parse_call(f"\n{CALL}\n", [GC], "GGA") is not None
    assert parse_call(CALL.replace("input", "ACGT"), [GC]) == ToolCall("predict_regression", {"model": "gc", "sequence": "ACGT"})
    assert parse_call("It is 0.5.", [GC]) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"Sure! {CALL}", "other text around it"),
        (CALL + "\n" + CALL, "several"),
        (CALL[:-4], "cut short"),
        (CALL.replace('"input"}', '"input"'), "no JSON"),
        (CALL.replace('"arguments"', '"args"'), "other keys"),
        (CALL.replace('{"name"', '{"name": "x", "name"'), "a key twice"),
        (CALL.replace("predict_regression", "os.system"), "os.system"),
        (CALL.replace('"predict_regression"', "[1]"), "a call of"),
        (CALL.replace(': "gc"', ': "gcc"'), "Did you mean 'gc'"),
        (CALL.replace(', "sequence": "input"', ""), "exactly model, sequence"),
        (CALL.replace('"model"', '"shell": "ls", "model"'), "exactly model, sequence"),
        (CALL.replace('"input"', "5"), "no text"),
        (CALL.replace('"input"', '"MELT"'), "is not a DNA letter"),
        (CALL.replace("input", "A" * 30_000), "at most 20,000"),
        (CALL, "no sequence"),
    ],
)
def test_anything_else_is_refused(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_call(text, [GC])


def test_the_number_goes_back_and_the_answer_cites_it() -> None:
    seen: list[tuple[int, str]] = []

    def scripted(history: Sequence[tuple[str, str]], message: str) -> str:
        seen.append((len(history), message))
        return CALL if not history else "The value is " + re.findall(r"returned (\S+)[.] ", message)[0] + "."

    told = converse(scripted, "How much?", "GGGA", [GC])
    assert told.text == "The value is 3." and told.is_cited and told.refused == []
    assert told.results == [(ToolCall("predict_regression", {"model": "gc", "sequence": "GGGA"}), 3.0)]
    assert seen[0] == (0, f"How much?\n\n{describe_tools([GC])}\n\n### Input:\nGGGA")
    assert seen[1] == (1, "predict_regression returned 3. Answer the question and cite this number.")


def test_a_wrong_call_is_told_and_may_be_mended_but_not_for_ever() -> None:
    answers = iter([CALL.replace("gc", "tm"), CALL, "No idea."])
    told = converse(lambda history, message: next(answers), "How much?", "GG", [GC])
    assert len(told.refused) == 1 and "'tm'" in told.refused[0]
    assert told.results[0][1] == 2.0 and told.text == "No idea." and not told.is_cited
    stubborn = converse(lambda history, message: "tool_call", "How much?", "GG", [GC])
    assert len(stubborn.refused) == 3 and stubborn.results == [] and not stubborn.is_cited


def test_a_number_inside_another_one_is_no_citation() -> None:
    answers = iter([CALL, "About 13 or 3.5."])
    assert not converse(lambda history, message: next(answers), "How much?", "GGG", [GC]).is_cited


def test_an_untrained_model_answers_without_a_call() -> None:
    told = converse(model_answerer(tiny_llama(), tiny_tokenizer(), max_new_tokens=4), "How much?", "GG", [GC])
    assert told.results == [] and isinstance(told.text, str)


def test_a_parameter_is_a_list_or_a_sequence() -> None:
    with pytest.raises(ConfigError):
        Parameter()


def test_a_trained_regression_head_is_the_tool_and_says_what_its_own_test_said(tmp_path: Path) -> None:
    from tests.test_recipes_classify_heads import run, value_task

    model = save_model(tiny_llama(), tiny_tokenizer(), tmp_path / "base")
    folder = run(model, value_task(tmp_path / "task", 24), tmp_path / "out", "regression")
    tool = regression_tool({"strength": folder})
    sequence = (tmp_path / "task" / "test.csv").read_text().splitlines()[1].split(",")[0]
    value = tool.call({"model": "strength", "sequence": sequence})
    first = json.loads((folder / "predictions.jsonl").read_text().splitlines()[0])
    assert value == pytest.approx(first["answer"], abs=1e-3) and read_json(folder / "manifest.json")["head"] == "regression"
    with pytest.raises(InputError, match="at most 64 tokens"):
        tool.call({"model": "strength", "sequence": "ACGT" * 40})
    with pytest.raises(ConfigError, match="no trained model"):
        regression_tool({})
