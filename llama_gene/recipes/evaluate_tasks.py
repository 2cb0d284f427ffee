"""One task of `evaluate`: ask its rows, judge the answers, and train what they must beat on the same rows.

    closed list         label likelihood (summed, or a token's mean; calibrated on dev rows), or a greedy answer matched to a label
    several labels      the likelihood of each label, above a threshold chosen on dev; or the labels that a greedy answer lists
    free text           a greedy answer

A model is asked here, or behind an OpenAI-compatible endpoint. Nothing of a test row but its own prompt has a part in its answer.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from llama_gene import runtime
from llama_gene.errors import ConfigError, InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llama_gene.data.instructions import Example
    from llama_gene.data.ontology import Ontology
    from llama_gene.inference.endpoint import Endpoint
    from llama_gene.recipes.evaluate import Config

Lines = list[dict[str, Any]]
CONTROL_SHUFFLES = 3


@dataclass(frozen=True)
class Asked:
    """Who is asked, and how."""

    config: Config
    template: str
    model: Any = None
    tokenizer: Any = None
    endpoint: Endpoint | None = None
    ontology: Ontology | None = None

    @property
    def bootstrap(self) -> tuple[int, int]:
        """Seed and number of the resamples."""
        return self.config.seed, self.config.num_resamples


def evaluate_task(name: str, splits: Mapping[str, Any], asked: Asked) -> tuple[dict[str, Any], Lines]:
    """Return the result of one task and a line for predictions.jsonl for each of its rows, rejected ones included.

    `splits` holds the rows of the evaluated split, of train and dev (empty where they are not wanted), and the task's `facts`.
    """
    config = asked.config
    rows: list[Any] = splits[config.split]
    labels: list[str] = rows[0]["labels"]
    facts: dict[str, Any] = splits["facts"]
    common = {"task": name, "family": rows[0]["family"], "title": facts.get("title", name), "published": facts.get("published") or None}
    prompts, shortened = encode_rows(rows, labels if config.scorer == "likelihood" else [], asked)
    kept = [i for i, prompt in enumerate(prompts) if prompt is not None]
    counts = {"n": len(kept), "rejected": len(rows) - len(kept), "shortened": sum(shortened[i] > 0 for i in kept)}
    if not kept:
        raise InputError(
            f"all {len(rows)} {config.split} prompts of task '{name}' are too long for {config.max_length} tokens or the model",
            "prompts that fit",
            "Raise --max_length or set --shorten true",
        )
    kept_rows, kept_prompts = [rows[i] for i in kept], [prompts[i] for i in kept]
    measure = _closed_task if labels else _free_text_task
    measured, answers = measure(kept_rows, kept_prompts, splits, asked)
    lines: Lines = [
        {"task": name, "row": i, "output": row["output"], "rejected": "prompt too long"} for i, row in enumerate(rows) if prompts[i] is None
    ]
    lines += [
        {"task": name, "row": i, **truth_of(rows[i]), **answer, "letters_cut": shortened[i]}
        for i, answer in zip(kept, answers, strict=True)
    ]
    return {**common, **counts, **measured}, sorted(lines, key=lambda line: int(line["row"]))


def truth_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what predictions.jsonl says of a row's truth: `compare` needs no more; shared with `classify`."""
    optional = {key: row[key] for key in ("group", "value", "answers") if row.get(key) not in (None, "", [])}
    return {"output": row["output"], **optional}


def encode_rows(rows: Sequence[Any], labels: Sequence[str], asked: Asked) -> tuple[list[Any], list[int]]:
    """Return each row's prompt (ids; behind an endpoint, its text), None where it is too long, and how many letters were cut off.

    The room kept for the answer is the same for all rows of a task: it must not depend on the right answer. `labels` are those that will
    be scored; none: an answer is generated. What is too long for a server it refuses itself.
    """
    from llama_gene.data.prompts import encode_answer, render_prompt, render_user
    from llama_gene.data.supervised import encode_for_evaluation
    from llama_gene.inference.scoring import context_length

    config, template = asked.config, asked.template
    if asked.endpoint is not None:
        messages = [render_user(row["instruction"], row["input"], template) for row in rows]
        return [render_prompt(message, template) if labels else message for message in messages], [0] * len(rows)
    limit = min(config.max_length, context_length(asked.model) or config.max_length)
    room = max((len(encode_answer(asked.tokenizer, label, template)) for label in labels), default=config.max_new_tokens)
    prompts: list[list[int] | None] = []
    num_cut = []
    for row in rows:
        # An empty answer is one token, EOS; limit - room + 1 keeps exactly `room` tokens free.
        question = cast("Example", {**row, "output": "", "labels": []})
        encoded = encode_for_evaluation(asked.tokenizer, question, limit - room + 1, template, config.shorten)
        prompts.append(None if encoded is None else encoded.input_ids)
        num_cut.append(0 if encoded is None else encoded.num_shortened)
    return prompts, num_cut


# --- a closed list of answers ------------------------------------------------------------------------------------------------------


def _closed_task(rows: Sequence[Any], prompts: Sequence[Any], splits: Mapping[str, Any], asked: Asked) -> tuple[dict[str, Any], Lines]:
    """Evaluate a task with a closed list of labels."""
    from llama_gene.inference.judging import TaskFacts, chosen_labels, judge

    config, has_sets = asked.config, any(row.get("answers") for row in rows)
    labels, train_rows, known = list(rows[0]["labels"]), splits["train"], TaskFacts.of(splits["facts"])
    more: dict[str, Any] = {}
    dev = None
    if config.scorer == "generate":
        answers, lines = (_answer_sets if has_sets else _answer_freely)(prompts, labels, asked)
    else:
        answers, lines, more = _answer_by_likelihood(rows, prompts, splits, asked)
        dev = _answered_dev(labels, splits, asked) if has_sets else None
    baselines, told = task_baselines(config.baseline, rows, labels, splits, config)
    tuned, told_tuned = lora_baselines(rows, labels, splits, config)
    told |= told_tuned
    result = judge(rows, labels, answers, train_rows, {**baselines, **tuned}, known, dev, *asked.bootstrap) | more
    result["baseline_facts"] = told
    if has_sets:
        for line, given in zip(lines, chosen_labels(answers, labels, result["thresholds"]), strict=True):
            line |= {"answer": ", ".join(given), "chosen": given}
        result["off_list"] = sum(line.get("unknown", 0) > 0 for line in lines)
        result |= _go_scores(rows, answers, train_rows, baselines, dev, result["notes"], asked)
    elif config.scorer == "generate":
        result["paper_scorer"] = _paper_scorer(rows, [line["text"] for line in lines], asked)
    if config.control and train_rows:
        result["controls"] = _controls(rows, labels, train_rows, known, asked)
    return result, lines


def _go_scores(
    rows: Sequence[Any],
    answers: NDArray[Any],
    train_rows: Sequence[Any],
    baselines: Mapping[str, NDArray[Any]],
    dev: tuple[list[Any], NDArray[Any]] | None,
    notes: list[str],
    asked: Asked,
) -> dict[str, Any]:
    """Return F-max and S-min of a task of GO terms, nothing of another; `notes` gets why they are missing or what was left out."""
    from llama_gene.inference.go_judging import NOT_GIVEN, go_ids, judge_go

    if not go_ids(rows):
        return {}
    if asked.ontology is None:
        notes.append(NOT_GIVEN)
        return {}
    found = judge_go(rows, answers, train_rows, baselines, asked.ontology, dev, *asked.bootstrap)
    for reason, count in found["unknown"].items():
        notes.append(f"{count:,} of {len(rows[0]['labels']):,} labels were left out of F-max and S-min: {reason}")
    return found


def _answer_by_likelihood(
    rows: Sequence[Any], prompts: Sequence[Any], splits: Mapping[str, Any], asked: Asked
) -> tuple[NDArray[Any], Lines, dict[str, Any]]:
    """Return scores (N, K), a line for each row, and what else the result says (calibration, strands)."""
    from llama_gene.inference.scoring import normalise_scores

    config, labels = asked.config, list(rows[0]["labels"])
    scores = _score(prompts, labels, asked)
    more: dict[str, Any] = {}
    if config.both_strands and rows[0].get("strand") == "either":
        scores, more["strands"] = _with_other_strand(rows, scores, asked)
    offsets = None
    if config.calibrate:
        offsets = _offsets(splits, labels, asked)
        more["calibration_offsets"] = dict(zip(labels, offsets.tolist(), strict=True))
    scores = normalise_scores(scores, _lengths(labels, asked), config.label_score, offsets)
    lines: Lines = [
        {"answer": labels[k], "log_likelihood": {label: round(float(value), 6) for label, value in zip(labels, values, strict=True)}}
        for k, values in zip(scores.argmax(1), scores, strict=True)
    ]
    return scores, lines, more


def _score(prompts: Sequence[Any], labels: Sequence[str], asked: Asked) -> NDArray[np.float64]:
    """Return the log-likelihood of each label as the answer to each prompt, (N, K)."""
    show = runtime.rank() == 0
    if asked.endpoint is not None:
        from llama_gene.inference.endpoint import score_labels_at

        return score_labels_at(asked.endpoint, prompts, labels, progress=show)
    from llama_gene.data.prompts import encode_answer
    from llama_gene.inference.scoring import score_labels

    label_ids = [encode_answer(asked.tokenizer, label, asked.template) for label in labels]
    size = len(asked.tokenizer)
    return score_labels(asked.model, prompts, label_ids, asked.config.batch_tokens, vocab_size=size, progress=show)


def _lengths(labels: Sequence[str], asked: Asked) -> list[int]:
    """Return each label's tokens with EOS; behind an endpoint, whose tokens are its own, its UTF-8 bytes."""
    if asked.endpoint is not None:
        return [len(label.encode()) for label in labels]
    from llama_gene.data.prompts import encode_answer

    return [len(encode_answer(asked.tokenizer, label, asked.template)) for label in labels]


def _offsets(splits: Mapping[str, Any], labels: Sequence[str], asked: Asked) -> NDArray[np.float64]:
    """Return the calibration offsets from a seeded draw of dev rows, against the training rows' shares of labels."""
    from llama_gene.inference.scoring import calibration_offsets

    dev, name = splits["dev"], splits[asked.config.split][0]["task"]
    if asked.config.split == "dev" or not dev:
        found = "dev itself is evaluated" if asked.config.split == "dev" else f"task '{name}' has no dev row"
        raise ConfigError(f"calibrate: {found}", "dev rows that are not evaluated", "Leave --calibrate out")
    chosen = random.Random(f"{asked.config.seed}/{name}/calibrate").sample(dev, min(asked.config.calibrate, len(dev)))
    prompts, _ = encode_rows(chosen, labels, asked)
    fitting = [prompt for prompt in prompts if prompt is not None]
    if not fitting:
        raise ConfigError(f"calibrate: no dev prompt of task '{name}' fits", "prompts that fit", "Raise --max_length or set --shorten true")
    shares = [sum(row["output"] == label for row in splits["train"]) + 1 for label in labels]  # one more each: none may have a share of 0
    return calibration_offsets(_score(fitting, labels, asked), shares)


def _with_other_strand(rows: Sequence[Any], scores: NDArray[Any], asked: Asked) -> tuple[NDArray[Any], dict[str, float]]:
    """Return scores averaged over both strands, and the share of rows whose best label is the same on both."""
    import numpy as np

    from llama_gene.data.task_rows import other_strand

    labels = list(rows[0]["labels"])
    prompts, _ = encode_rows([other_strand(row, row["kinds"]) for row in rows], labels, asked)
    fitting = [i for i, prompt in enumerate(prompts) if prompt is not None]  # the other strand may have more tokens
    other = np.array(scores, copy=True)
    if fitting:
        other[fitting] = _score([prompts[i] for i in fitting], labels, asked)
    agree = (scores.argmax(1) == other.argmax(1))[fitting]
    facts = {"consistency": float(np.mean(agree)) if fitting else float("nan"), "rows": len(fitting)}
    return (scores + other) / 2, facts


def _answer_freely(prompts: Sequence[Any], labels: Sequence[str], asked: Asked) -> tuple[NDArray[Any], Lines]:
    """Return the number of the label that each greedy answer begins with (OFF_LIST for another), and a line for each row."""
    import numpy as np

    from llama_gene.inference import metrics

    texts = _generate(prompts, asked)
    matches = [metrics.semantic_match(text, labels) for text in texts]
    predicted = np.array([metrics.OFF_LIST if match is None else list(labels).index(match) for match in matches])
    return predicted, [{"answer": match, "text": text} for match, text in zip(matches, texts, strict=True)]


def _answer_sets(prompts: Sequence[Any], labels: Sequence[str], asked: Asked) -> tuple[NDArray[Any], Lines]:
    """Return whether each greedy answer lists each label, (N, K), and a line for each row with the number of its unknown parts."""
    import numpy as np

    from llama_gene.inference.metrics import semantic_matches

    texts = _generate(prompts, asked)
    lists = [semantic_matches(text, labels) for text in texts]
    given = np.array([[label in found for label in labels] for found, _ in lists])
    return given, [{"answer": "", "text": text, "unknown": unknown} for text, (_, unknown) in zip(texts, lists, strict=True)]


def _answered_dev(labels: Sequence[str], splits: Mapping[str, Any], asked: Asked) -> tuple[list[Any], NDArray[Any]] | None:
    """Return the dev rows that fit and their scores, for the thresholds of a task with several labels; None where there are none."""
    if asked.config.split == "dev" or not splits["dev"]:
        return None
    prompts, _ = encode_rows(splits["dev"], labels, asked)
    kept = [i for i, prompt in enumerate(prompts) if prompt is not None]
    if not kept:
        return None
    rows = [splits["dev"][i] for i in kept]
    scores, _, _ = _answer_by_likelihood(rows, [prompts[i] for i in kept], splits, asked)
    return rows, scores


def _generate(prompts: Sequence[Any], asked: Asked) -> list[str]:
    """Return a greedy answer to each prompt."""
    show, config = runtime.rank() == 0, asked.config
    if asked.endpoint is not None:
        from llama_gene.inference.endpoint import generate_answers_at

        return generate_answers_at(asked.endpoint, prompts, config.max_new_tokens, progress=show)
    from llama_gene.inference.generate import generate_answers

    return generate_answers(asked.model, asked.tokenizer, prompts, config.max_new_tokens, config.batch_tokens, progress=show)


# --- free text -----------------------------------------------------------------------------------------------------------------------


def _free_text_task(rows: Sequence[Any], prompts: Sequence[Any], splits: Mapping[str, Any], asked: Asked) -> tuple[dict[str, Any], Lines]:
    """Evaluate a task whose answer is free text; baselines answer with the training rows' texts where these are few."""
    from llama_gene.inference.judging import judge_text

    texts = _generate(prompts, asked)
    classes = sorted({row["output"] for row in splits["train"]})
    found, told = task_baselines(asked.config.baseline, rows, classes, splits, asked.config) if classes else ({}, {})
    baselines = {name: [classes[k] for k in chances.argmax(1)] for name, chances in found.items() if chances.ndim == 2}
    result = judge_text(rows, texts, splits["train"], baselines, *asked.bootstrap)
    result["baseline_facts"] = told | lora_baselines(rows, [], splits, asked.config)[1]
    return result, [{"answer": text, "text": text} for text in texts]


# --- what must be beaten -------------------------------------------------------------------------------------------------------------


def task_baselines(
    names: Sequence[str], rows: Sequence[Any], labels: list[str], splits: Mapping[str, Any], config: Any
) -> tuple[dict[str, NDArray[np.float64]], dict[str, dict[str, Any]]]:
    """Return (answers by title, what each baseline was or why it is not there); shared with `classify`.

    A name that is not built in is a model to probe, with its strength of regularisation chosen on dev.
    """
    from llama_gene.inference.baselines.panel import NAMES, TITLES, run_baselines
    from llama_gene.inference.baselines.probe import run_probe
    from llama_gene.sequences.six_frames import six_frame_match

    kinds, family, train_rows = rows[0]["kinds"], rows[0]["family"], splits.get("train") or []
    built_in = [name for name in names if name in NAMES]
    ran = run_baselines(built_in, train_rows, rows, kinds, family, labels, config.seed, translation=six_frame_match)
    found = {TITLES[name]: baseline for name, baseline in ran.items()}
    for name in names:
        if name not in NAMES:
            probed = run_probe(name, train_rows, splits.get("dev") or [], rows, kinds, family, labels, config.seed)
            found[f"probe of {name.rstrip('/').rsplit('/', 1)[-1]}"] = probed
    answers, told = {}, {}
    for title, baseline in found.items():
        told[title] = {key: value for key in ("note", "coverage", "reason") if (value := getattr(baseline, key)) not in ("", None)}
        best = baseline.numbers if family == "regression" and baseline.numbers is not None else baseline.scores
        if baseline.is_there and best is not None:
            answers[title] = best
    return answers, told


def lora_baselines(
    rows: Sequence[Any], labels: list[str], splits: Mapping[str, Any], config: Config
) -> tuple[dict[str, list[NDArray[np.float64]]], dict[str, dict[str, Any]]]:
    """Return (answers of each seed by title, what each was or why it is not there) of the models in `lora_baseline`."""
    from llama_gene.recipes.classify_heads import lora_baseline

    assert config.output_dir is not None
    work_dir = config.output_dir.with_name(config.output_dir.name + ".work")
    answers: dict[str, list[NDArray[np.float64]]] = {}
    told: dict[str, dict[str, Any]] = {}
    train_rows, dev_rows = splits.get("train") or [], splits.get("dev") or []
    for name in config.lora_baseline:
        title = f"LoRA of {name.rstrip('/').rsplit('/', 1)[-1]}"
        for number in range(config.baseline_seeds):
            train = replace(config.baseline_train, seed=config.baseline_train.seed + number)
            given = (rows[0]["family"], labels, train, config.baseline_lora, work_dir)
            found = lora_baseline(name, train_rows, dev_rows, rows, *given, config.max_length, config.batch_tokens)
            if not found.is_there:
                told[title] = {"reason": found.reason}
                break
            best = found.numbers if found.numbers is not None else found.scores
            assert best is not None
            answers.setdefault(title, []).append(best)
            told.setdefault(title, {"note": f"{config.baseline_seeds} seeds; the first: {found.note}"})
    return answers, told


def _controls(rows: Sequence[Any], labels: list[str], train_rows: Sequence[Any], facts: Any, asked: Asked) -> dict[str, Any]:
    """Return, by title, how built-in baselines do when their training labels are shuffled, CONTROL_SHUFFLES times: at the majority."""
    from llama_gene.inference.baselines.panel import CONTROLLED
    from llama_gene.inference.baselines.rows import shuffle_labels
    from llama_gene.inference.judging import judge_control

    names = [name for name in CONTROLLED if name in asked.config.baseline] or ["kmer"]
    found: dict[str, list[NDArray[Any]]] = {}
    for number in range(CONTROL_SHUFFLES):
        shuffled = {"train": shuffle_labels(train_rows, asked.config.seed + number)}
        for title, array in task_baselines(names, rows, labels, shuffled, asked.config)[0].items():
            found.setdefault(title, []).append(array)
    controls = {}
    for title, arrays in found.items():
        controls[title] = control = judge_control(rows, labels, arrays, train_rows, facts, *asked.bootstrap)
        if not control["sits"]:
            told = (rows[0]["task"], title, control["reason"])
            runtime.get_logger().warning("evaluate: task '%s', %s trained on shuffled labels: %s", *told)
    return controls


def _paper_scorer(rows: Sequence[Any], texts: Sequence[str], asked: Asked) -> dict[str, Any]:
    """Return the share of answers that the authors' scorer counts as right, with its interval."""
    from llama_gene.inference import intervals
    from llama_gene.inference.metrics import paper_match

    right = intervals.share([paper_match(text, row["output"]) for row, text in zip(rows, texts, strict=True)])
    edges = intervals.interval(right, [row["group"] or f"row {i}" for i, row in enumerate(rows)], *asked.bootstrap)
    return {"score": right.value(), "interval": None if edges is None else list(edges)}
