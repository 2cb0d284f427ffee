"""The tables and the page of results: every number that is known, a dash for what is not, the same bytes each time."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from llama_gene.inference.judging import TaskFacts, judge
from llama_gene.web.results_page import results_page
from llama_gene.web.results_table import baselines_table, controls_table, not_run_table, remarks, results_table, subsets_table
from tests.test_inference_judging import CONFORM, make_rows, noisy


def test_the_table_shows_intervals_missing_values_and_what_was_too_long() -> None:
    results = [
        {"task": "core", "family": "classification", "metric": "accuracy", "n": 1200, "score": 0.75, "interval": [0.72, 0.78],
         "baselines": {"majority": {"score": 0.5}, "k-mer floor": {"score": 0.7}}, "ceiling": 0.9, "published": "acc 0.83",
         "shortened": 0, "rejected": 3},
        {"task": "a|b", "family": "function", "metric": "exact match", "n": 40, "score": 0.1, "interval": None,
         "baselines": {"majority": {"score": None}}, "ceiling": None, "published": None, "shortened": 10, "rejected": 0},
    ]  # fmt: skip
    lines = results_table(results).splitlines()
    assert lines[0] == "| task | family | metric | n | majority | k-mer floor | ours [95 % interval] | ceiling | published |"
    assert (
        lines[2] == "| core | classification | accuracy | 1,200 (+3 too long) | 0.500 | 0.700 | 0.750 [0.720, 0.780] | 0.900 | acc 0.83 |"
    )
    assert lines[3] == "| a\\|b | function | exact match | 40 (25 % shortened) | - | - | 0.100 | - | - |"


def pair_result() -> dict[str, Any]:
    truth = np.arange(120) % 2
    subsets = [["C1"] if i % 3 else ["C3"] for i in range(120)]
    rows, scores = make_rows(truth, CONFORM, "pair", subsets=subsets), noisy(truth, 2, 0.7)
    result = judge(rows, CONFORM, scores, rows, {"identity only": noisy(truth, 2, 0.2, 1)}, TaskFacts(prior=0.1), num_resamples=100)
    result["baseline_facts"] = {
        "identity only": {"note": "by name", "coverage": 0.5},
        "GC content": {"reason": "no sequence is DNA or RNA"},
    }
    return {"task": "pairs <b>", "family": "pair", "n": 120, "rejected": 0, "shortened": 0, "published": None, **result}


def regression_result() -> dict[str, Any]:
    rows = make_rows([1] * 9 + [0], ["low", "high"], "regression", value=[float(i) for i in range(10)])
    result = judge(rows, ["low", "high"], np.arange(10.0), num_resamples=50)
    return {"task": "gfp", "family": "regression", "n": 10, "rejected": 0, "shortened": 0, "published": None, **result}


def test_baselines_and_subsets_have_tables_of_their_own() -> None:
    result = pair_result()
    lines = baselines_table([result]).splitlines()
    assert lines[0] == "| task | baseline | its score [95 %] | ours less it [95 %] | p | test | what it was |" and len(lines) == 4
    assert re.search(
        r"\| identity only \| 0\.\d{3} \[.*\] \| \+0\.\d{3} \[[+-].*\] \| .* \| permutation of 120 groups \| by name; evidence", lines[3]
    )
    assert lines[3].endswith("by name; evidence for 50.0 % of the rows |")
    assert [line.split(" | ")[1] for line in subsets_table([result]).splitlines()[2:]] == ["C1", "C3"]
    assert subsets_table([regression_result()]) == "" and baselines_table([{"task": "x"}]) == ""


def test_a_baseline_that_was_not_run_says_why_and_where() -> None:
    lines = not_run_table([pair_result(), {**pair_result(), "task": "others"}]).splitlines()
    assert lines[0] == "| baseline not run | why | tasks |"
    assert lines[2:] == ["| GC content | no sequence is DNA or RNA | pairs <b>, others |"]
    assert not_run_table([regression_result()]) == ""


def test_remarks_say_why_a_number_is_missing() -> None:
    text = " ".join(remarks([regression_result() | {"off_list": 2, "paper_scorer": {"score": 0.5, "interval": None}}]))
    assert "Answers off the list of labels (counted as wrong): gfp 2." in text
    assert "gfp, accuracy of low against high: not given, 90.0 % of the test rows are high: both classes must hold 20 %." in text
    assert "gfp, by the authors' scorer: 0.500." in text
    control: dict[str, Any] = {
        "metric": "accuracy", "scores": [0.9] * 3, "score": 0.9, "sd": 0.01, "interval": [0.85, 0.95], "majority": 0.5,
        "chance": {"metric": "MCC", "score": 0.8, "interval": [0.7, 0.9]}, "sits": False, "reason": "MCC is 0.8",
    }  # fmt: skip
    leaking = [{"task": "x", "controls": {"k-mers": control}}]
    assert remarks(leaking) == ["x, k-mers trained on shuffled labels does NOT sit at the majority: MCC is 0.8."]
    assert (
        "| x | k-mers | 3 | accuracy | 0.900 [0.850, 0.950] (sd 0.010) | 0.500 | MCC +0.800 [+0.700, +0.900] | does NOT sit: MCC is 0.8 |"
        in controls_table(leaking)
    )


class Tags(HTMLParser):
    """Keeps the tags and notes any address that the page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.images = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [str(value)[:30] for name, value in attrs if name in ("src", "href") and not str(value).startswith("data:")]
        self.images += tag == "img"
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    languages = {"dna": {"unit": "base", "before": {"bits_per_letter": 2.0}, "after": {"bits_per_letter": 1.9, "letters": 1000}}}
    facts = {"model": "runs/a&b", "template": "alpaca", "scorer": "likelihood", "split": "test", "simulated": True}
    return {**facts, "tasks": [pair_result(), regression_result()], "languages": languages}


def test_the_page_is_whole_html_and_loads_nothing(report: dict[str, Any]) -> None:
    page = results_page(report)
    tags = Tags()
    tags.feed(page)
    assert tags.open == [] and tags.loads == [] and tags.images == 3  # bars, confusion, calibration
    assert "runs/a&amp;b" in page and "pairs &lt;b&gt;" in page and "The data is simulated" in page
    for words in ("identity only", "Brier", "Q", "bits before", "1.900", "C3", "AUPR at prior 0.1", "no sequence is DNA or RNA"):
        assert words in page


def test_law_15_the_same_results_give_the_same_page(report: dict[str, Any]) -> None:
    assert results_page(report) == results_page({**report, "seconds": 3.0})


def test_a_report_of_languages_alone_has_a_page(report: dict[str, Any]) -> None:
    page = results_page({**report, "tasks": []})
    assert "<img" not in page and "bits after" in page
