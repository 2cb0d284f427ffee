"""The sft stage: an adapter goes on, a whole model gets one or is trained whole; only answers carry loss."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from llama_gene import runtime
from llama_gene.data.instructions import read_examples
from llama_gene.data.packing import IGNORED, expand_row
from llama_gene.data.prompts import chat_template, encode_answer, prompt_fingerprint
from llama_gene.errors import ConfigError, InputError, MismatchError
from llama_gene.models.adapters import load_model
from llama_gene.models.settings import LoraSettings
from llama_gene.recipes import export, pretrain, sft
from llama_gene.recipes.sft import Config, run
from llama_gene.tokenization.tokenizer import load_tokenizer, vocabulary_fingerprint
from tests.conftest import Route, tiny_training
from tests.tiny_models import save_model, tiny_llama


def config(route: Route, folder: Path, **changes: Any) -> Config:
    """Return a config that tunes the route's adapter for six steps."""
    values = {
        "model": str(route.adapter), "instructions": route.instructions, "max_length": 256, "lora": LoraSettings(rank=4),
        "train": tiny_training(6), "output_dir": folder,
    }  # fmt: skip
    return Config(**{**values, **changes})  # type: ignore[arg-type]


def losses(folder: Path) -> list[float]:
    """Return the logged losses."""
    return [entry["loss"] for entry in json.loads((folder / "training.json").read_text())]


def test_an_adapter_goes_on_and_keeps_its_base(route: Route, tmp_path: Path) -> None:
    before = {path.name: runtime.file_hash(path) for folder in (route.base, route.adapter) for path in folder.iterdir()}
    folder = run(config(route, tmp_path / "tuned"))
    assert losses(folder)[-1] < losses(folder)[0] - 0.3
    earlier, manifest = runtime.read_manifest(route.adapter, "pretrain"), runtime.read_manifest(folder, "sft")
    assert all(manifest[key] == earlier[key] for key in ("base", "base_vocabulary", "vocabulary", "prompt"))
    assert manifest["template"] == "alpaca" and manifest["examples"] == {"examples": 60, "shortened": 0, "rejected": 0}
    assert manifest["shares"] == {"instructions": 1.0}
    old, new = (load_file(path / "adapter_model.safetensors") for path in (route.adapter, folder))
    assert old.keys() == new.keys() and all(old[name].shape == new[name].shape for name in old)
    assert sum(not torch.equal(old[name], new[name]) for name in old) == len(old)
    assert before == {path.name: runtime.file_hash(path) for source in (route.base, route.adapter) for path in source.iterdir()}


def test_rows_that_no_stage_trains_stay_as_the_first_one_started_them(route: Route, tmp_path: Path) -> None:
    first = pretrain.Config(
        rows=route.rows, base=str(route.base), embedding_init="normal", lora=LoraSettings(rank=4, modules_to_save=[]),
        train=tiny_training(2, seed=3), output_dir=tmp_path / "first",
    )  # fmt: skip
    rows = load_model(pretrain.run(first))[0].get_input_embeddings().weight
    tuned = run(config(route, tmp_path / "tuned", model=str(first.output_dir)))
    assert torch.equal(load_model(tuned)[0].get_input_embeddings().weight, rows)


def test_a_whole_model_gets_a_fresh_adapter_or_is_trained_whole(route: Route, tmp_path: Path) -> None:
    whole = export.run(export.Config(model=route.adapter, output_dir=tmp_path / "exported", fresh_process=False))
    adapter = run(config(route, tmp_path / "adapter", model=str(whole)))
    manifest = runtime.read_manifest(adapter, "sft")
    assert manifest["base"] == str(whole) and manifest["base_vocabulary"] == manifest["vocabulary"]
    assert losses(adapter)[-1] < losses(adapter)[0] - 0.3
    model, tokenizer = load_model(adapter)
    assert len(tokenizer) == 592 and hasattr(model, "peft_config")

    tuned = run(config(route, tmp_path / "whole", model=str(whole), full=True))
    manifest = runtime.read_manifest(tuned, "sft")
    assert "base" not in manifest and manifest["trainable_parameters"] == manifest["parameters"]
    assert losses(tuned)[0] == pytest.approx(losses(adapter)[0], abs=1e-4) and losses(tuned)[-1] < losses(tuned)[0] - 0.3
    model = AutoModelForCausalLM.from_pretrained(tuned)
    assert model.config.use_cache and AutoTokenizer.from_pretrained(tuned).chat_template == chat_template()
    export.run(export.Config(model=tuned, output_dir=tmp_path / "again", fresh_process=False))
    with pytest.raises(ConfigError, match="full is set and the model is an adapter"):
        run(config(route, tmp_path / "no", full=True))


def test_law_09_only_answers_carry_loss_and_every_row_has_a_target(route: Route, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def watch(stage: str, settings: Any, model: Any, tokenizer: Any, folder: Path, row_sets: Any, *rest: Any) -> Path:
        seen.update(tokenizer=tokenizer, rows=row_sets[sft.INSTRUCTIONS])
        return folder

    monkeypatch.setattr(sft, "train_and_save", watch)
    run(config(route, tmp_path / "out", max_length=600))
    tokenizer, rows = seen["tokenizer"], seen["rows"]
    found = []
    for row in rows:
        input_ids, labels, positions = expand_row(row)
        targets = [(place, label) for place, label in enumerate(labels) if label != IGNORED]
        assert targets and all(input_ids[place] == label for place, label in targets)
        answer: list[int] = []
        for place, label in enumerate(labels):
            if label != IGNORED:
                answer.append(label)
                if label == tokenizer.eos_token_id:
                    found.append(tuple(answer))
                    answer = []
            else:
                assert not answer, "an answer was broken off"
            assert positions[place] or label == IGNORED
    answers = [tuple(encode_answer(tokenizer, example["output"])) for example in read_examples(route.instructions / "train.jsonl")]
    assert sorted(found) == sorted(answers)

    run(config(route, tmp_path / "out", max_length=600, loss="full"))
    labels = [label for row in seen["rows"] for label in expand_row(row)[1]]
    assert sum(label == IGNORED for label in labels) == sum(len(row["lengths"]) for row in seen["rows"])  # first tokens alone


def test_long_examples_are_shortened_and_counted(route: Route, tmp_path: Path) -> None:
    example = read_examples(route.instructions / "train.jsonl")[0]
    folder = Path(shutil.copytree(route.instructions, tmp_path / "instructions"))
    sequence = example["sequences"][0] * 20
    rows = [{**example, "input": sequence, "sequences": [sequence]} for _ in range(4)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tuned = run(config(route, tmp_path / "out", instructions=folder, train=tiny_training(1)))
    assert runtime.read_manifest(tuned)["examples"]["shortened"] == 4


def test_replayed_languages_are_mixed_in(route: Route, tmp_path: Path) -> None:
    shares = {"english": 0.25, "dna": 0.25}
    tuned = run(config(route, tmp_path / "out", replay=route.rows, replay_shares=shares))
    manifest = runtime.read_manifest(tuned)
    assert manifest["shares"] == {**shares, "instructions": 0.5} and manifest["tokens"] < 24 * 256
    with pytest.raises(ConfigError, match=r"replay_shares add up to 1\.5"):
        run(config(route, tmp_path / "no", replay=route.rows, replay_shares={"english": 1.5}))
    with pytest.raises(ConfigError, match="shares names 'danish'"):
        run(config(route, tmp_path / "no", replay=route.rows, replay_shares={"danish": 0.5}))


def test_replayed_rows_of_another_tokenizer_are_refused(route: Route, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="were packed with vocabulary"):
        run(config(route, tmp_path / "no", replay=route.corpus.parent / "0_rows", replay_shares={"english": 0.5}))


def test_a_base_tuned_without_pretraining_needs_no_growing(route: Route, tmp_path: Path) -> None:
    folder = run(config(route, tmp_path / "out", model=str(route.base), train=tiny_training(2)))
    manifest = runtime.read_manifest(folder)
    assert manifest["vocabulary"] == vocabulary_fingerprint(load_tokenizer(route.base)) == manifest["base_vocabulary"]
    assert manifest["prompt"] == prompt_fingerprint()
    # A hub model's folder often has no chat template: the tuned one is asked as it was trained.
    tokenizer = load_tokenizer(route.base)
    bare = save_model(tiny_llama(len(tokenizer)), tokenizer, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    tuned = run(config(route, tmp_path / "tuned", model=str(bare), train=tiny_training(1)))
    assert AutoTokenizer.from_pretrained(tuned).chat_template == chat_template()


def test_what_is_missing_or_does_not_fit_is_named(route: Route, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--model, --instructions and --output_dir"):
        run(Config(model="x"))
    with pytest.raises(InputError, match="was written by `pack`"):
        run(config(route, tmp_path / "no", instructions=route.rows))
    with pytest.raises(ConfigError, match="max_length is 4096; expected at most 1024, the model's longest input"):
        run(config(route, tmp_path / "no", max_length=4096))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="is not an earlier output"):
        run(config(route, tmp_path / "mine"))
    empty = Path(shutil.copytree(route.instructions, tmp_path / "empty"))
    (empty / "train.jsonl").write_text("")
    with pytest.raises(InputError, match="has no training example"):
        run(config(route, tmp_path / "no", instructions=empty))
    assert not (tmp_path / "no").exists()


def test_a_tampered_adapter_is_refused(route: Route, tmp_path: Path) -> None:
    adapter = Path(shutil.copytree(route.adapter, tmp_path / "adapter"))
    shutil.copyfile(route.base / "tokenizer.json", adapter / "tokenizer.json")
    with pytest.raises(MismatchError, match="with which the weights were trained"):
        run(config(route, tmp_path / "no", model=str(adapter)))
