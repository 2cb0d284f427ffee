"""evaluate and instruct with an index: what stands in the prompts, what is counted, and what is refused."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from llama_gene.data.evidence import prompt_fits
from llama_gene.data.instructions import read_examples, write_examples
from llama_gene.errors import ConfigError, InputError
from llama_gene.recipes import evaluate, index, instruct
from llama_gene.runtime import read_json, read_manifest
from llama_gene.tokenization.tokenizer import load_tokenizer
from tests.tiny_models import save_adapter

RNG = random.Random(0)
GENES = ["".join(RNG.choices("ACGT", k=60)) for _ in range(24)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an adapter, a task, its instructions, and an index of half of the test genes and of near copies of others."""
    folder = tmp_path_factory.mktemp("evidence")
    save_adapter(folder)
    (folder / "known.fa").write_text("".join(f">g{i} promoter {i}\n{gene}\n" for i, gene in enumerate(GENES[:18])))
    index.run(index.Config([str(folder / "known.fa")], kind="dna", output_dir=folder / "index"))
    for split, numbers in (("train", range(12)), ("test", range(12, 24))):
        (folder / f"{split}.csv").write_text("sequence,label\n" + "".join(f"{GENES[i]},{i % 2}\n" for i in numbers))
    (folder / "task.yaml").write_text(
        "name: core\ntitle: promoter detection\nfamily: classification\nstrand: sense\nlabels: {0: Non-promoter, 1: promoter}\n"
        "train: train.csv\ntest: test.csv\n"
    )
    instruct.run(instruct.Config([folder / "task.yaml"], folder / "plain"))
    return folder


def measure(place: Path, output: Path, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {"model": str(place / "adapter"), "instructions": place / "plain", "num_resamples": 50, "baseline": []}
    values |= {"output_dir": output, "evidence": place / "index"}
    return evaluate.run(evaluate.Config(**{**values, **changes}))


def test_evaluate_puts_neighbours_into_prompts_and_says_how_many(place: Path, tmp_path: Path) -> None:
    report = measure(place, tmp_path / "own")
    told = report["evidence"]["tasks"]["core"]
    assert (told["rows"], told["with_neighbours"], told["neighbours"], told["passed_over"]) == (12, 6, 6, 0)
    assert "| core | 12 | 6 | 6 | 0 | 0 |" in (tmp_path / "own" / "results.md").read_text()
    told = measure(place, tmp_path / "others", evidence_max_identity=0.9)["evidence"]["tasks"]["core"]
    assert (told["with_neighbours"], told["passed_over"]) == (0, 6)  # every neighbour was the row's own copy
    plain = measure(place, tmp_path / "plain", evidence=None)
    assert plain["evidence"] is None and read_json(tmp_path / "plain" / "results.json")["evidence"] is None
    scores = [(folder / "predictions.jsonl").read_text() for folder in (tmp_path / "own", tmp_path / "plain")]
    assert scores[0] != scores[1]


def test_neighbours_give_way_before_a_row_is_rejected_or_shortened(place: Path, tmp_path: Path) -> None:
    tokenizer, rows = load_tokenizer(place / "adapter"), read_examples(place / "plain" / "test.jsonl")
    limit = next(size for size in range(200, 1000) if all(map(prompt_fits(tokenizer, size), rows)))
    for shorten in (False, True):
        report = measure(place, tmp_path / str(shorten), max_length=limit, shorten=shorten)
        told, result = report["evidence"]["tasks"]["core"], report["tasks"][0]
        assert told["rows_without_room"] == 6 and told["neighbours"] == 0
        assert (result["n"], result["rejected"], result["shortened"]) == (12, 0, 0)


def test_instruct_writes_rows_with_evidence_and_evaluate_refuses_to_add_more(place: Path, tmp_path: Path) -> None:
    folder = instruct.run(instruct.Config([place / "task.yaml"], tmp_path / "with", evidence=place / "index"))
    rows = read_examples(folder / "test.jsonl")
    cited = [row for row in rows if row["evidence"]]
    assert len(cited) == 6 and all(row["evidence"][0].endswith("(100 % identity over 60 bases)") for row in cited)
    assert all(f"1. {row['evidence'][0]}: promoter" in row["instruction"] for row in cited)
    told = read_manifest(folder)["tasks"]["core"]["evidence"]
    assert {split: counts["neighbours"] for split, counts in told.items()} == {"train": 10, "dev": 2, "test": 6}
    with pytest.raises(InputError, match="has evidence already"):
        measure(place, tmp_path / "out", instructions=folder)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="shots with evidence"):
        instruct.run(instruct.Config([place / "task.yaml"], tmp_path / "shots", evidence=place / "index", shots=1))


def test_an_index_of_another_kind_and_no_index_are_refused(place: Path, tmp_path: Path) -> None:
    (tmp_path / "p.fa").write_text(">p a protein\nMKVLAAGIVGLCAKWDEFH\n")
    index.run(index.Config([str(tmp_path / "p.fa")], output_dir=tmp_path / "index"))
    with pytest.raises(ConfigError, match="indexes protein"):
        measure(place, tmp_path / "out", evidence=tmp_path / "index")
    with pytest.raises(InputError, match="was written by `instruct`"):
        measure(place, tmp_path / "out", evidence=place / "plain")
    with pytest.raises(ConfigError, match=r"evidence_max_identity 0\.4, evidence_hits 3, and no index; expected --evidence FOLDER"):
        measure(place, tmp_path / "out", evidence=None, evidence_max_identity=0.4)
    with pytest.raises(ConfigError, match="evidence_max_identity 1, evidence_hits 2, and no index"):
        instruct.run(instruct.Config([place / "task.yaml"], tmp_path / "out", evidence_hits=2))


def test_evidence_stays_with_a_row_that_is_read_back(tmp_path: Path) -> None:
    row: Any = {"instruction": "Say.", "output": "Yes."}
    write_examples(tmp_path / "rows.jsonl", [row, {**row, "evidence": ["g1 (60 % identity over 50 bases)"]}, {**row, "evidence": []}])
    rows = read_examples(tmp_path / "rows.jsonl")
    assert "evidence" not in rows[0] and [row["evidence"] for row in rows[1:]] == [["g1 (60 % identity over 50 bases)"], []]
