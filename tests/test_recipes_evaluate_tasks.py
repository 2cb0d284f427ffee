"""How one task is asked: calibrated, normalised, on both strands, behind an endpoint; what stands beside it; the papers' tables."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from llama_gene import runtime
from llama_gene.data.instructions import Example, read_examples, write_examples
from llama_gene.data.task_rows import other_strand
from llama_gene.errors import ConfigError, InputError, MissingFileError
from llama_gene.inference.scoring import calibration_offsets
from llama_gene.recipes.evaluate import run
from llama_gene.training.settings import TrainSettings
from tests.test_inference_endpoint import Server, said, server  # noqa: F401 (a fixture)
from tests.test_inference_go_judging import LABELS, OBO
from tests.test_recipes_evaluate import config, example, place  # noqa: F401 (a fixture)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def likelihoods(folder: Path) -> Any:
    return np.array([list(line["log_likelihood"].values()) for line in lines(folder)])


def test_a_calibrated_score_is_the_score_less_what_dev_rows_get_anyway(place: Path, tmp_path: Path) -> None:  # noqa: F811
    one = {"tasks": ["classification_task"], "baseline": []}
    run(config(place, tmp_path / "plain", **one))
    run(config(place, tmp_path / "dev", split="dev", **one))
    result = run(config(place, tmp_path / "calibrated", calibrate=3, **one))["tasks"][0]
    offsets = calibration_offsets(likelihoods(tmp_path / "dev"), [7, 7])  # six train rows of each label, and one more
    np.testing.assert_allclose(list(result["calibration_offsets"].values()), offsets, atol=1e-5)
    np.testing.assert_allclose(likelihoods(tmp_path / "calibrated"), likelihoods(tmp_path / "plain") - offsets, atol=1e-5)


def test_calibration_needs_dev_rows_that_are_not_evaluated(place: Path, tmp_path: Path) -> None:  # noqa: F811
    with pytest.raises(ConfigError, match="calibrate: dev itself is evaluated; expected dev rows that are not evaluated"):
        run(config(place, tmp_path / "out", split="dev", calibrate=2, tasks=["pair_task"], baseline=[]))


def test_the_mean_of_a_labels_tokens_is_its_sum_over_their_number(place: Path, tmp_path: Path) -> None:  # noqa: F811
    one = {"tasks": ["classification_task"], "baseline": []}
    run(config(place, tmp_path / "sum", **one))
    run(config(place, tmp_path / "mean", label_score="mean", **one))
    ratio = likelihoods(tmp_path / "sum") / likelihoods(tmp_path / "mean")
    np.testing.assert_allclose(ratio, np.broadcast_to(np.round(ratio[0]), ratio.shape), rtol=1e-3)
    assert ratio[0, 0] > ratio[0, 1] > 1  # Non-promoter has more tokens than promoter


def test_both_strands_are_averaged_for_tasks_of_either_strand_alone(place: Path, tmp_path: Path) -> None:  # noqa: F811
    folder = tmp_path / "instructions"
    folder.mkdir()
    for split in ("train", "dev", "test"):
        rows = read_examples(place / "instructions" / f"{split}.jsonl")
        for row in rows:
            row["strand"] = "either" if row["task"] == "classification_task" else "sense"
        write_examples(folder / f"{split}.jsonl", rows)
    runtime.write_manifest(folder, "instruct", {}, tasks=runtime.read_manifest(place / "instructions")["tasks"], simulated=True)
    turned = tmp_path / "turned"
    turned.mkdir()
    for split in ("train", "dev", "test"):
        rows = read_examples(folder / f"{split}.jsonl")
        write_examples(turned / f"{split}.jsonl", [cast("Example", other_strand(row, row["kinds"])) for row in rows if row["sequences"]])
    runtime.write_manifest(turned, "instruct", {}, tasks=runtime.read_manifest(folder)["tasks"], simulated=True)
    shared = {"tasks": ["classification_task", "regression_task"], "baseline": []}
    both = run(config(place, tmp_path / "both", instructions=folder, both_strands=True, **shared))["tasks"]
    run(config(place, tmp_path / "one", instructions=folder, **shared))
    run(config(place, tmp_path / "other", instructions=turned, **shared))
    found = {name: likelihoods_of(tmp_path / name, "classification_task") for name in ("both", "one", "other")}
    np.testing.assert_allclose(found["both"], (found["one"] + found["other"]) / 2, atol=1e-4)
    agree = float(np.mean(found["one"].argmax(1) == found["other"].argmax(1)))
    assert both[0]["strands"] == {"consistency": pytest.approx(agree), "rows": 9}
    assert "strands" not in both[1]  # a promoter's strength is that of its own strand
    np.testing.assert_array_equal(likelihoods_of(tmp_path / "both", "regression_task"), likelihoods_of(tmp_path / "one", "regression_task"))


def likelihoods_of(folder: Path, task: str) -> Any:
    return np.array([list(line["log_likelihood"].values()) for line in lines(folder) if line["task"] == task])


def test_the_other_strand_of_a_row_turns_its_dna_and_leaves_its_protein() -> None:
    row = {"kinds": ["dna", "protein"], "sequences": ["AACG", "MKV"], "input": "DNA sequence: AACG\n####\nprotein sequence: MKV"}
    turned = other_strand(row, ["dna", "protein"])
    assert turned["sequences"] == ["CGTT", "MKV"]
    assert turned["input"] == "DNA sequence: CGTT\n####\nprotein sequence: MKV"


def test_the_other_strand_of_a_row_with_its_sequence_in_the_instruction_turns_it_there_and_leaves_solved_ones() -> None:
    row = {"kinds": ["dna"], "sequences": ["AACG"], "input": "", "instruction": "Is AACG a promoter? A\n\nIs AACG a promoter?"}
    assert other_strand(row, ["dna"])["instruction"] == "Is AACG a promoter? A\n\nIs CGTT a promoter?"
    pair = {"sequences": ["AACG", "CGTT"], "input": "AACG\n####\nCGTT"}
    assert other_strand(pair, ["dna", "dna"])["input"] == "CGTT\n####\nAACG"
    with pytest.raises(InputError, match="does not stand in the text of its row"):
        other_strand({**row, "sequences": ["GGGG"]}, ["dna"])


def test_both_strands_of_no_task_of_either_strand_is_refused(place: Path, tmp_path: Path) -> None:  # noqa: F811
    with pytest.raises(ConfigError, match="both_strands: no task has strand either"):
        run(config(place, tmp_path / "out", both_strands=True, tasks=["pair_task"], baseline=[]))


def test_a_model_that_is_no_built_in_name_is_probed(place: Path, tmp_path: Path) -> None:  # noqa: F811
    path = str(place / "base")
    result = run(config(place, tmp_path / "out", tasks=["classification_task"], baseline=["gc", path]))["tasks"][0]
    assert set(result["baselines"]) == {"majority", "GC content", "probe of base"}
    assert "dev" in result["baseline_facts"]["probe of base"]["note"]


def test_a_lora_baseline_is_trained_with_three_seeds_on_the_same_splits(place: Path, tmp_path: Path) -> None:  # noqa: F811
    quick = TrainSettings(steps=2, batch_size=4, learning_rate=1e-2, precision="fp32", report_to=[])
    given = {"lora_baseline": [str(place / "base")], "baseline": [], "baseline_train": quick}
    results = run(config(place, tmp_path / "out", tasks=["pair_task", "function_task"], **given))["tasks"]
    entry = results[0]["baselines"]["LoRA of base"]
    assert len(entry["scores"]) == 3 and entry["score"] == pytest.approx(np.mean(entry["scores"]))
    assert results[0]["baseline_facts"]["LoRA of base"]["note"].startswith("3 seeds; the first: sequence head, step ")
    assert results[1]["baseline_facts"]["LoRA of base"] == {"reason": "the answers are free text"}
    text = (tmp_path / "out" / "results.md").read_text()
    assert "of 3 seeds)" in text and "| LoRA of base | the answers are free text | function_task |" in text
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # no work folder is left


def test_what_does_not_apply_says_why(place: Path, tmp_path: Path) -> None:  # noqa: F811
    result = run(config(place, tmp_path / "out", tasks=["classification_task"], baseline=["identity"]))["tasks"][0]
    assert result["baseline_facts"]["identity only"] == {"reason": "rows are no pairs"} and list(result["baselines"]) == ["majority"]


def test_a_papers_table_stands_below_the_results(place: Path, tmp_path: Path) -> None:  # noqa: F811
    table = tmp_path / "table.yaml"
    table.write_text(
        "name: ours\ntitle: A paper, Table 1\nmetric: accuracy\ncolumns: [published]\nrows:\n"
        "  - row: promoters\n    published: {published: 0.83}\n    marks: [our choice]\n    tasks: {classification_task: [reduced]}\n"
    )
    report = run(config(place, tmp_path / "out", table=str(table), scorer="generate", tasks=["classification_task"], baseline=[]))
    text = (tmp_path / "out" / "results.md").read_text()
    assert "A paper, Table 1" in text and "0.83" in text and "ours, strict" in text and "ours, paper scorer" in text
    assert report["paper_table"].strip() in text


def test_an_endpoint_is_asked_in_place_of_a_model(place: Path, tmp_path: Path, server: Server) -> None:  # noqa: F811
    server.reply = lambda route, body, number: said("promoter, I think")
    asked = {"endpoint": server.url, "model": "remote", "tasks": ["classification_task"], "baseline": []}
    report = run(config(place, tmp_path / "out", scorer="generate", **asked))
    assert {line["answer"] for line in lines(tmp_path / "out")} == {"promoter"} and server.asked[0][2]["model"] == "remote"
    assert report["tasks"][0]["n"] == 9 and report["endpoint"]["url"] == server.url and "key" not in json.dumps(report["endpoint"]).lower()


@pytest.mark.parametrize("flag", ["corpus", "both_strands"])
def test_what_needs_a_model_here_is_refused_with_an_endpoint(place: Path, tmp_path: Path, flag: str) -> None:  # noqa: F811
    value = place / "corpus" if flag == "corpus" else True
    with pytest.raises(ConfigError, match=f"{flag} with an endpoint; expected a model that is loaded here"):
        run(config(place, tmp_path / "out", endpoint="http://127.0.0.1:1/v1", **{flag: value}))


def write_go_instructions(folder: Path) -> Path:
    folder.mkdir()
    rng = random.Random(0)
    for split, num in (("train", 8), ("dev", 6), ("test", 6)):
        rows: list[Any] = []
        for i in range(num):
            answers = [[LABELS[1]], [LABELS[0], LABELS[2]], [LABELS[2], LABELS[3]]][i % 3]
            changes = {"labels": LABELS, "answers": answers, "output": ", ".join(answers), "oracle": None}
            rows.append({**example("function", split, i, rng), **changes})
        write_examples(folder / f"{split}.jsonl", rows)
    runtime.write_manifest(folder, "instruct", {}, tasks={"function_task": {"family": "function", "title": "GO"}}, simulated=True)
    return folder


def test_go_terms_get_fmax_and_smin_by_ontology_only_with_an_ontology(place: Path, tmp_path: Path) -> None:  # noqa: F811
    folder = write_go_instructions(tmp_path / "instructions")
    (tmp_path / "go.obo").write_text(OBO)
    given = {"instructions": folder, "baseline": ["kmer", "neighbour"]}
    result = run(config(place, tmp_path / "with", go_obo=tmp_path / "go.obo", **given))["tasks"][0]
    assert {letter: entry["name"] for letter, entry in result["ontologies"].items()} == {
        "P": "biological process",
        "F": "molecular function",
    }
    names = ["ours", "frequency of the term", "k-mer logistic regression", "nearest neighbour"]
    assert list(result["ontologies"]["P"]["scored"]) == names
    text = (tmp_path / "with" / "results.md").read_text()
    assert "| function_task | biological process | 4 | 2 | ours | " in text and "F-max [95 %]" in text
    assert "1 of 4 labels were left out of F-max and S-min: GO id that the ontology does not know" in text
    assert "Gene Ontology, terms propagated" in (tmp_path / "with" / "results.html").read_text()
    result = run(config(place, tmp_path / "without", **given))["tasks"][0]
    assert "ontologies" not in result
    assert (
        "function_task: F-max and S-min were not computed: they need the ontology (--go_obo FILE)."
        in (tmp_path / "without" / "results.md").read_text()
    )


def test_an_ontology_without_a_task_of_go_terms_is_refused(place: Path, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "go.obo").write_text(OBO)
    with pytest.raises(ConfigError, match="go_obo: no task has rows with several labels that name GO ids"):
        run(config(place, tmp_path / "out", go_obo=tmp_path / "go.obo", tasks=["pair_task"], baseline=[]))
    with pytest.raises(MissingFileError, match="a go.obo file"):
        run(config(place, tmp_path / "out", go_obo=tmp_path / "none.obo", tasks=["pair_task"], baseline=[]))
