"""Results of each family: literal rows in, the numbers and reasons out; nothing depends on the order of rows."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from benchmarks.reference_predictions import FILES, score_file
from llama_gene.errors import InputError
from llama_gene.inference import metrics
from llama_gene.inference.judging import TaskFacts, compare, judge, judge_control, judge_text
from llama_gene.inference.metrics import OFF_LIST

PROMOTER = ["Non-promoter", "promoter"]
CONFORM = ["Conform", "Not Conform"]


def make_rows(truth: Any, labels: list[str], family: str = "classification", **columns: Any) -> list[dict[str, Any]]:
    """Rows of a task; a column is a list with a value a row."""
    rows = [{"task": "t", "family": family, "output": labels[k], "labels": labels} for k in truth]
    return [{**row, **{key: values[i] for key, values in columns.items()}} for i, row in enumerate(rows)]


def noisy(truth: Any, num_labels: int, right: float, seed: int = 0) -> Any:
    """Log-likelihoods whose best label is the true one in about the share `right` of rows."""
    rng = np.random.default_rng(seed)
    best = np.where(rng.random(len(truth)) < right, truth, rng.integers(0, num_labels, len(truth)))
    scores = rng.normal(size=(len(truth), num_labels)) - 20
    scores[np.arange(len(truth)), best] += 4
    return scores


def test_a_binary_task_has_every_metric_with_an_interval_and_its_baselines() -> None:
    truth = np.arange(200) % 2
    rows, scores = make_rows(truth, PROMOTER), noisy(truth, 2, 0.8)
    result = judge(rows, PROMOTER, scores, rows[:3], {"k-mer floor": metrics.probabilities(noisy(truth, 2, 0.3, 1))}, num_resamples=300)
    chances = metrics.probabilities(scores)[:, 1]
    assert (result["metric"], result["positive"], result["score"]) == ("accuracy", "promoter", result["accuracy"])
    assert result["auroc"] == pytest.approx(roc_auc_score(truth, chances))
    assert result["aupr"] == pytest.approx(average_precision_score(truth, chances))
    names = {"accuracy", "balanced_accuracy", "mcc", "macro_f1", "auroc", "aupr"}
    assert set(result["intervals"]) == names
    assert all(result["intervals"][name][0] < result[name] < result["intervals"][name][1] for name in names)
    assert list(result["baselines"]) == ["majority", "k-mer floor"] and result["majority_answer"] == "Non-promoter"
    assert result["baselines"]["majority"]["score"] == 0.5
    floor = result["baselines"]["k-mer floor"]
    assert floor["difference"] == pytest.approx(result["score"] - floor["score"]) and floor["p"] < 0.01
    assert floor["test"] == "McNemar's exact test"
    assert result["per_label"]["promoter"]["n"] == 100
    assert sum(cell["n"] for cell in result["confusion"]) == 200
    assert result["calibration"]["brier"] == pytest.approx(np.mean((chances - truth) ** 2))
    json.dumps(result)


def test_probabilities_and_log_likelihoods_give_the_same_result() -> None:
    truth = np.arange(60) % 3
    labels = ["a", "b", "c"]
    scores = noisy(truth, 3, 0.7)
    rows = make_rows(truth, labels)
    results = [judge(rows, labels, answers, num_resamples=100) for answers in (scores, metrics.probabilities(scores))]
    assert results[0]["mcc"] == results[1]["mcc"] and results[0]["auroc"] == pytest.approx(results[1]["auroc"])
    theirs = roc_auc_score(truth, metrics.probabilities(scores), multi_class="ovr")
    assert results[0]["auroc"] == pytest.approx(theirs)


def test_off_list_answers_are_counted_wrong_and_have_no_probabilities() -> None:
    rows = make_rows([0, 1, 1, 0], CONFORM, "pair")
    result = judge(rows, CONFORM, np.array([0, OFF_LIST, 1, OFF_LIST]), facts=TaskFacts(prior=0.1), num_resamples=100)
    assert (result["off_list"], result["accuracy"], result["metric"]) == (2, 0.5, "accuracy")
    assert result["notes"] == ["AUPR at prior 0.1 needs probabilities, and the answers are labels"]
    assert "auroc" not in result and "calibration" not in result
    assert {"output": "Conform", "answer": None, "n": 1} in result["confusion"]


def test_a_pair_task_with_a_prior_is_judged_by_aupr_at_it_and_each_subset_stands_apart() -> None:
    rng = np.random.default_rng(0)
    truth = np.arange(300) % 3 % 2  # 0 is Conform: two of three
    subsets = [[("C1", "C2", "C3")[i % 3]] + ([] if truth[i] == 0 else ["negative: frameshift"]) for i in range(300)]
    subsets = [[*names[1:], ("C1", "C2", "C3")[int(rng.integers(3))]] for names in subsets]
    rows, scores = make_rows(truth, CONFORM, "pair", subsets=subsets), noisy(truth, 2, 0.7)
    result = judge(rows, CONFORM, scores, baselines={"seen": noisy(truth, 2, 0.2, 3)}, facts=TaskFacts(prior=0.09), num_resamples=200)
    assert result["metric"] == "AUPR at prior 0.09" and result["positive"] == "Conform"
    chances = metrics.probabilities(scores)[:, 0]
    assert result["score"] == pytest.approx(metrics.aupr(truth == 0, chances, prior=0.09))
    assert result["baselines"]["majority"]["score"] == pytest.approx(0.09)  # a constant answer reaches the prior
    assert list(result["subsets"]) == ["C1", "C2", "C3", "negative: frameshift"]
    c1 = [i for i, names in enumerate(subsets) if "C1" in names]
    assert result["subsets"]["C1"]["n"] == len(c1)
    assert result["subsets"]["C1"]["score"] == pytest.approx(metrics.aupr(truth[c1] == 0, chances[c1], prior=0.09))
    assert result["subsets"]["C1"]["interval"][0] < result["subsets"]["C1"]["score"] < result["subsets"]["C1"]["interval"][1]
    assert set(result["subsets"]["C1"]["baselines"]) == {"majority", "seen"}
    shifted = result["subsets"]["negative: frameshift"]
    assert shifted["metric"] == "accuracy" and shifted["score"] == pytest.approx(np.mean(scores[truth == 1].argmax(1) == 1))
    assert shifted["auroc"] == pytest.approx(result["auroc"])  # all negatives are frameshifts here


def test_structure_rows_that_are_residues_have_q3_by_protein() -> None:
    truth = np.arange(120) % 3
    labels = ["alpha helix", "beta sheet", "random coil"]
    rows = make_rows(truth, labels, "structure", group=[f"protein {i // 12}" for i in range(120)])
    scores = noisy(truth, 3, 0.7)
    result = judge(rows, labels, scores, facts=TaskFacts(is_residues=True), num_resamples=200)
    assert result["metric"] == "Q3" and set(result["per_label"]) == set(labels)
    assert judge(rows, labels, scores, num_resamples=100)["metric"] == "accuracy"  # votes of tokens are no residues
    assert result["baselines"]["majority"]["test"] == "permutation of 10 groups"


LEVELS = ["low", "high"]


def test_regression_is_ranked_by_the_expected_value_over_the_bins_medians() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=150)
    labels = [f"bin {k}" for k in range(4)]
    truth = np.searchsorted([-0.7, 0.0, 0.7], values)
    medians = [-1.1, -0.3, 0.3, 9.0]  # the last bin lies far off
    rows, scores = make_rows(truth, labels, "regression", value=values.tolist()), noisy(truth, 4, 0.6)
    result = judge(rows, labels, scores, facts=TaskFacts(medians=medians), num_resamples=200)
    expected = metrics.probabilities(scores) @ medians
    assert result["metric"] == "Spearman" and result["score"] == pytest.approx(spearmanr(values, expected).statistic)
    assert result["pearson"] == pytest.approx(pearsonr(values, expected).statistic)
    assert result["score"] != pytest.approx(spearmanr(truth, scores @ np.arange(4)).statistic)
    high = metrics.probabilities(scores)[:, 2:].sum(1) > 0.5
    assert result["low_high"]["accuracy"] == pytest.approx(np.mean(high == (truth >= 2))) and result["low_high"]["reason"] is None


def test_facts_come_from_the_manifest_of_instruct() -> None:
    bins = {"names": ["low", "high"], "edges": [2.0], "medians": [1.0, 3.0]}
    assert TaskFacts.of({"bins": bins, "prior": 0.1}) == TaskFacts(medians=[1.0, 3.0], edges=[2.0], prior=0.1)
    assert TaskFacts.of({"bins": {}, "published": ""}) == TaskFacts()


def test_aupr_at_a_prior_that_rests_on_few_negatives_says_so() -> None:
    truth = np.arange(100) % 2
    result = judge(make_rows(truth, CONFORM, "pair"), CONFORM, noisy(truth, 2, 0.7), facts=TaskFacts(prior=0.1), num_resamples=50)
    assert result["notes"] == ["AUPR at prior 0.1 counts each of 50 negatives 9.0 times, and reads too high with so few of them"]
    natural = judge(make_rows(truth, CONFORM, "pair"), CONFORM, noisy(truth, 2, 0.7), facts=TaskFacts(prior=0.5), num_resamples=50)
    assert natural["notes"] == []


def test_low_against_high_is_not_given_where_nearly_all_rows_are_high() -> None:
    truth = np.array([1] * 90 + [0] * 10)
    rows = make_rows(truth, LEVELS, "regression", value=(truth + np.arange(100) / 1000).tolist())
    result = judge(rows, LEVELS, noisy(truth, 2, 0.9), num_resamples=100)
    assert result["low_high"] == {
        "accuracy": None,
        "interval": None,
        "reason": "90.0 % of the test rows are high: both classes must hold 20 %",
    }
    odd = make_rows([0, 1, 2], ["a", "b", "c"], "regression", value=[1.0, 2.0, 3.0])
    assert judge(odd, ["a", "b", "c"], np.array([0, 1, 2]), num_resamples=50)["low_high"]["reason"] == "3 bins have no middle"


def test_a_numeric_head_gives_values_and_its_bins_follow_from_the_edges() -> None:
    values = np.linspace(0, 1, 40)
    truth = (values >= 0.5).astype(int)
    rows = make_rows(truth, LEVELS, "regression", value=values.tolist())
    guesses = np.where(np.arange(40) == 0, 0.9, values)
    result = judge(rows, LEVELS, guesses, facts=TaskFacts(medians=[0.25, 0.75], edges=[0.5]), num_resamples=100)
    assert result["score"] == pytest.approx(spearmanr(values, guesses).statistic) and result["accuracy"] == 39 / 40
    without = judge(rows, LEVELS, guesses, num_resamples=100)
    assert "accuracy" not in without and "names no edges" in without["low_high"]["reason"]


def test_generated_bins_stand_at_their_medians_and_off_list_answers_in_the_middle() -> None:
    rows = make_rows([0, 1, 1, 0], LEVELS, "regression", value=[1.0, 5.0, 6.0, 2.0])
    facts = TaskFacts(medians=[1.5, 5.5])
    result = judge(rows, LEVELS, np.array([0, 1, OFF_LIST, 1]), facts=facts, num_resamples=50)
    assert result["pearson"] == pytest.approx(pearsonr([1, 5, 6, 2], [1.5, 5.5, 3.5, 5.5]).statistic)


SITES = ["cytoplasm", "membrane", "nucleus"]


def test_several_labels_a_row_have_micro_f1_and_thresholds_from_dev() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((80, 3)) < 0.4
    chances = np.clip(0.15 + 0.2 * truth + rng.normal(0, 0.03, truth.shape), 0.01, 0.49)  # well ordered, but never over 0.5
    answers = [[SITES[k] for k in np.flatnonzero(row)] for row in truth]
    rows = make_rows([0] * 80, SITES, "function", answers=answers)
    plain = judge(rows, SITES, chances, num_resamples=100)
    assert plain["metric"] == "micro-F1" and plain["score"] == 0.0 and plain["thresholds"]["nucleus"] == 0.5
    tuned = judge(rows[40:], SITES, chances[40:], dev=(rows[:40], chances[:40]), num_resamples=100)
    given = chances[40:] >= [tuned["thresholds"][name] for name in SITES]
    assert tuned["micro_f1"] == pytest.approx(f1_score(truth[40:], given, average="micro")) and tuned["micro_f1"] > 0.9
    assert tuned["macro_f1"] == pytest.approx(f1_score(truth[40:], given, average="macro"))
    assert tuned["exact_match"] == pytest.approx((truth[40:] == given).all(1).mean())
    logs = judge(rows[40:], SITES, np.log(chances[40:]), dev=(rows[:40], np.log(chances[:40])), num_resamples=100)
    assert logs["micro_f1"] == pytest.approx(tuned["micro_f1"])


def test_free_text_has_exact_matches_and_words() -> None:
    rows = [{"task": "t", "family": "function", "output": text, "oracle": text} for text in ("binds zinc", "kinase", "binds zinc")]
    result = judge_text(rows, ["Binds zinc ", "a kinase", "nothing"], rows, {"nearest": ["kinase"] * 3}, num_resamples=50)
    assert (result["score"], result["majority_answer"], result["ceiling"]) == (pytest.approx(1 / 3), "binds zinc", 1.0)
    assert result["baselines"]["majority"]["score"] == pytest.approx(2 / 3)
    assert result["baselines"]["nearest"]["score"] == pytest.approx(1 / 3)
    assert result["word_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_the_ceiling_is_what_the_noise_free_answers_reach() -> None:
    rows = make_rows([0, 0, 1, 1], PROMOTER, oracle=["Non-promoter", "promoter", "promoter", "promoter"])
    assert judge(rows, PROMOTER, np.array([0, 0, 1, 1]), num_resamples=50)["ceiling"] == 0.75
    assert judge(make_rows([0, 1], PROMOTER), PROMOTER, np.array([0, 1]), num_resamples=50)["ceiling"] is None


def test_answers_that_do_not_fit_are_refused() -> None:
    rows = make_rows([0, 1], PROMOTER)
    with pytest.raises(InputError, match=r"answers of shape \(3,\)"):
        judge(rows, PROMOTER, np.array([0, 1, 1]))
    with pytest.raises(InputError, match="2 answers are not finite"):
        judge(rows, PROMOTER, np.array([[np.nan, -1.0], [-np.inf, 0.0]]))
    with pytest.raises(InputError, match="has the answer 'promotor'"):
        judge([{**rows[0], "output": "promotor"}], PROMOTER, np.array([0]))
    with pytest.raises(InputError, match="positive is 'enhancer'"):
        judge(rows, PROMOTER, np.array([0, 1]), facts=TaskFacts(positive="enhancer"))


@given(st.integers(0, 1000), st.sampled_from([2, 3]))
@settings(max_examples=10, deadline=None)
def test_no_result_depends_on_the_order_of_rows(seed: int, num_labels: int) -> None:
    rng = np.random.default_rng(seed)
    truth, labels = rng.integers(0, num_labels, 30), list("abc")[:num_labels]
    rows, scores = make_rows(truth, labels, group=[str(i % 7) for i in range(30)]), noisy(truth, num_labels, 0.6, seed)
    order = rng.permutation(30)
    first = judge(rows, labels, scores, num_resamples=50)
    second = judge([rows[i] for i in order], labels, scores[order], num_resamples=50)
    for key in ("score", "mcc", "macro_f1", "balanced_accuracy", "auroc"):
        assert second[key] == pytest.approx(first[key], abs=1e-12, nan_ok=True)
    assert second["confusion"] == first["confusion"] and second["per_label"] == first["per_label"]


# --- the control and two models --------------------------------------------------------------------------------------------------


def test_a_control_that_knows_nothing_sits_at_the_majority_and_one_that_peeks_does_not() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random(400) < 0.3).astype(int)
    rows = make_rows(truth, PROMOTER)
    blind = judge_control(rows, PROMOTER, [(rng.random(400) < 0.3).astype(int)], num_resamples=300)
    assert blind["sits"] and blind["reason"] is None and blind["majority"] == pytest.approx(1 - truth.mean())
    peeking = judge_control(rows, PROMOTER, [noisy(truth, 2, 0.95)], num_resamples=300)
    assert not peeking["sits"] and "beats the majority's" in peeking["reason"]
    weak = judge_control(rows, PROMOTER, [noisy(truth, 2, 0.3)], num_resamples=300)  # worse than the majority, and yet it knows
    assert not weak["sits"] and weak["reason"].startswith("MCC is")


def test_a_control_over_shuffles_has_the_error_of_the_shuffles_too() -> None:
    truth = np.arange(400) % 2
    rows = make_rows(truth, PROMOTER)
    by_lot = [noisy(truth, 2, 0.6), noisy(1 - truth, 2, 0.6, 1), noisy(truth, 2, 0.1, 2)]  # once along, once against, once neither
    found = judge_control(rows, PROMOTER, by_lot, num_resamples=300)
    assert found["sits"] and found["sd"] > 0.2 and len(found["scores"]) == 3
    assert found["score"] == pytest.approx(np.mean(found["scores"])) and found["interval"][0] < 0.5 < found["interval"][1]
    leaking = judge_control(rows, PROMOTER, [noisy(truth, 2, 0.3, k) for k in range(3)], num_resamples=300)
    assert not leaking["sits"] and "99.99 %" in leaking["reason"]


def test_a_baseline_of_several_seeds_has_their_mean_and_deviation() -> None:
    truth = np.arange(200) % 2
    subsets = [["C1"] if i % 3 else ["C3"] for i in range(200)]
    rows, seeds = make_rows(truth, CONFORM, "pair", subsets=subsets), [noisy(truth, 2, 0.4, k) for k in (1, 2, 3)]
    result = judge(rows, CONFORM, noisy(truth, 2, 0.9), rows, {"LoRA of x": seeds}, num_resamples=200)
    entry = result["baselines"]["LoRA of x"]
    scores = [float(np.mean(array.argmax(1) == truth)) for array in seeds]
    assert entry["scores"] == pytest.approx(scores) and entry["score"] == pytest.approx(np.mean(scores))
    assert entry["sd"] == pytest.approx(np.std(scores, ddof=1)) and entry["interval"][0] < entry["score"] < entry["interval"][1]
    assert entry["difference"] == pytest.approx(result["score"] - np.mean(scores)) and entry["p"] < 0.05
    c3 = np.arange(200) % 3 == 0
    assert result["subsets"]["C3"]["baselines"]["LoRA of x"] == pytest.approx(np.mean([(a.argmax(1) == truth)[c3].mean() for a in seeds]))
    assert "sd" not in result["baselines"]["majority"]


def test_a_control_of_several_labels_a_row_is_held_against_the_majority_alone() -> None:
    rows = [{"task": "t", "family": "function", "output": "a", "answers": ["a"] if i % 2 else ["a", "b"]} for i in range(60)]
    found = judge_control(rows, ["a", "b"], [np.tile([0.9, 0.1], (60, 1))] * 3, num_resamples=50)
    assert found["sits"] and found["chance"] is None and found["metric"] == "micro-F1" and found["sd"] == pytest.approx(0.0)


def test_a_pair_task_without_a_prior_says_whose_share_of_positives_aupr_is_at() -> None:
    result = judge(make_rows([0, 1, 1, 0], CONFORM, "pair"), CONFORM, noisy(np.array([0, 1, 1, 0]), 2, 1.0), num_resamples=50)
    assert result["notes"] == ["AUPR is 1.000 at the 50 % of positives of these rows; the task states no prior (`prior` in its YAML)"]


def test_two_models_differ_by_their_first_metric_and_mcc_over_seeds() -> None:
    truth = np.arange(200) % 2
    rows = make_rows(truth, PROMOTER)
    ours, theirs = ([noisy(truth, 2, right, seed) for seed in (s, s + 1, s + 2)] for right, s in ((0.9, 0), (0.5, 10)))
    found = compare(rows, PROMOTER, ours, theirs, num_resamples=300)
    assert [entry["metric"] for entry in found] == ["accuracy", "mcc"]
    scores = [np.mean(side.argmax(1) == truth) for side in ours]
    assert found[0]["ours"]["mean"] == pytest.approx(np.mean(scores)) and found[0]["ours"]["sd"] == pytest.approx(np.std(scores, ddof=1))
    assert found[0]["p"] < 0.01 < found[0]["interval"][0]
    assert compare(rows, PROMOTER, ours[:1], theirs[:1], num_resamples=300)[0]["ours"]["sd"] is None


# --- the authors' predictions ----------------------------------------------------------------------------------------------------


@pytest.mark.real_data
@pytest.mark.skipif("LLAMA_GENE_DATA" not in os.environ, reason="LLAMA_GENE_DATA is not set")
def test_the_authors_committed_predictions_are_worth_what_the_notes_say() -> None:
    folder = Path(os.environ["LLAMA_GENE_DATA"]) / "instructions"
    scores = {score.task: score for score in score_file(folder / FILES["LLaMA-Gene"])}
    assert (scores["all"].strict, scores["all"].paper, scores["all"].off_list) == (0.738, 0.739, 7)
    strict = {task: round(score.strict, 3) for task, score in scores.items()}
    assert strict == {"all": 0.738, "core promoter": 0.668, "promoter": 0.880, "splice": 0.665, "TF": 0.745}
    mcc = {task: round(score.mcc, 2) for task, score in scores.items() if score.mcc is not None}
    assert mcc == {"core promoter": 0.35, "promoter": 0.76, "splice": 0.36, "TF": 0.50}
    assert [round(edge, 3) for edge in scores["all"].strict_interval] == [0.710, 0.764]
    dnahlm = {score.task: round(score.strict, 3) for score in score_file(folder / FILES["DNAHLM"])}
    assert dnahlm == {"all": 0.838, "core promoter": 0.845, "promoter": 0.921, "splice": 0.799, "TF": 0.753}
