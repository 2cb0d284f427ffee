"""The whole route at toy size, in one process, through the recipes; then the exported folder in a process that knows nothing of us."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from llama_gene import runtime
from llama_gene.data.prompts import encode_prompt, render_user
from llama_gene.errors import InputError, MismatchError
from llama_gene.export.manifest import verify_export
from llama_gene.models.adapters import load_model
from llama_gene.models.settings import LoraSettings
from llama_gene.recipes import evaluate, export, instruct, pack, pretrain, sft, vocab
from llama_gene.tokenization.tokenizer import decode, load_tokenizer, vocabulary_fingerprint
from tests.conftest import Route, tiny_training

QUESTION = ("Determine the TATA box detection of following dna sequence", "ACGGCATATAAAGGCAC")
LOAD = """
import json, sys
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = AutoModelForCausalLM.from_pretrained(sys.argv[1]), AutoTokenizer.from_pretrained(sys.argv[1])
ids = tokenizer.apply_chat_template([{"role": "user", "content": sys.argv[2]}], add_generation_prompt=True, return_dict=True)["input_ids"]
import torch
answer = model.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)[0, len(ids):].tolist()
print(json.dumps({"ids": ids, "answer": answer, "ours": "llama_gene" in sys.modules, "text": tokenizer.decode(answer)}))
"""


@pytest.fixture(scope="module")
def tuned(route: Route) -> Path:
    """The adapter after instruction tuning."""
    config = sft.Config(
        model=str(route.adapter), instructions=route.instructions, max_length=512, lora=LoraSettings(rank=4),
        train=tiny_training(40), output_dir=route.corpus.parent / "6_tuned",
    )  # fmt: skip
    return sft.run(config)


@pytest.fixture(scope="module")
def exported(tuned: Path) -> Path:
    """The merged model."""
    return export.run(export.Config(model=tuned, output_dir=tuned.parent / "8_model"))


def test_every_stage_leaves_a_manifest_and_one_vocabulary_runs_through_them(route: Route, tuned: Path, exported: Path) -> None:
    folders = {
        "corpus": route.corpus, "vocab": route.tokenizer, "pack": route.rows, "pretrain": route.adapter, "instruct": route.instructions,
        "sft": tuned, "export": exported,
    }  # fmt: skip
    manifests = {stage: runtime.read_manifest(folder, stage) for stage, folder in folders.items()}
    assert all(manifest["version"] == runtime.package_version() for manifest in manifests.values())
    names = {manifests[stage]["vocabulary"] for stage in ("vocab", "pack", "pretrain", "sft", "export")}
    assert names == {vocabulary_fingerprint(load_tokenizer(route.tokenizer))}
    assert len({manifests[stage]["prompt"] for stage in ("pretrain", "sft", "export")}) == 1
    assert {path.suffix for path in route.corpus.parent.glob("[0-9]*")} == {""}  # no working folder is left
    verify_export(exported)


def test_the_route_learns_the_task_and_the_languages(route: Route, tuned: Path) -> None:
    config = evaluate.Config(
        model=str(tuned), instructions=route.instructions, corpus=route.corpus, base=str(route.base), max_documents=6, num_resamples=50,
        output_dir=route.corpus.parent / "7_results",
    )  # fmt: skip
    report = evaluate.run(config)
    task = report["tasks"][0]
    assert task["task"] == "tata" and task["n"] == 20
    assert set(report["languages"]) == {"dna", "protein", "english"}
    # after continued pretraining: tuning without replay, as here, takes what it taught away (protein 8.17 -> 4.40 -> 8.19 bits a residue)
    pretrained = evaluate.Config(
        model=str(route.adapter),
        corpus=route.corpus,
        base=str(route.base),
        max_documents=6,
        output_dir=route.corpus.parent / "7_pretrained",
    )
    languages = evaluate.run(pretrained)["languages"]
    for name in ("dna", "protein"):
        assert languages[name]["after"]["bits_per_letter"] < languages[name]["before"]["bits_per_letter"]


def test_a_fresh_process_loads_the_export_with_no_flag_and_answers_as_we_do(exported: Path, tuned: Path, tmp_path: Path) -> None:
    message = render_user(*QUESTION)
    command = [sys.executable, "-c", LOAD, str(exported), message]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert not found["ours"]
    model, tokenizer = load_model(tuned)
    ids = encode_prompt(tokenizer, message)
    assert found["ids"] == ids
    answer = model.generate(input_ids=torch.tensor([ids]), max_new_tokens=12, do_sample=False)[0, len(ids) :].tolist()
    assert found["answer"] == answer and answer
    assert answer[-1] == tokenizer.eos_token_id and decode(tokenizer, answer)  # it says something and stops


# --- what does not belong together is refused where it meets ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def other_tokenizer(route: Route, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same base with fewer DNA pieces: a tokenizer that loads and works, and means other things by the same ids."""
    steps = [vocab.Step(kind, [str(route.corpus / f"{kind}.train")], size=size) for kind, size in (("dna", 90), ("protein", 102))]
    return vocab.run(vocab.Config(base=str(route.base), steps=steps, out=tmp_path_factory.mktemp("other") / "tokenizer"))


def swap_tokenizer(folder: Path, other: Path, copy: Path) -> Path:
    """Return a copy of an artefact with another tokenizer's files in it."""
    shutil.copytree(folder, copy)
    for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model"):
        shutil.copyfile(other / name, copy / name)
    return copy


def test_the_two_tokenizers_are_of_one_size_and_differ(route: Route, other_tokenizer: Path) -> None:
    ours, other = load_tokenizer(route.tokenizer), load_tokenizer(other_tokenizer)
    assert len(ours) == len(other) and vocabulary_fingerprint(ours) != vocabulary_fingerprint(other)


def test_rows_meet_a_tokenizer(route: Route, other_tokenizer: Path, tmp_path: Path) -> None:
    rows = Path(shutil.copytree(route.rows, tmp_path / "rows"))
    manifest = runtime.read_json(rows / "manifest.json")
    runtime.write_json(rows / "manifest.json", {**manifest, "tokenizer": str(other_tokenizer)})
    config = pretrain.Config(rows=rows, base=str(route.base), train=tiny_training(1), output_dir=tmp_path / "out")
    ours, other = (vocabulary_fingerprint(load_tokenizer(folder)) for folder in (route.tokenizer, other_tokenizer))
    with pytest.raises(MismatchError, match=f"packed with vocabulary {ours}; expected the tokenizer's {other}"):
        pretrain.run(config)


def test_rows_meet_an_adapter_in_replay(route: Route, other_tokenizer: Path, tmp_path: Path) -> None:
    rows = pack.run(
        pack.Config(corpus=route.corpus, tokenizer=str(other_tokenizer), languages=["dna"], row_length=64, output_dir=tmp_path / "rows")
    )
    config = sft.Config(
        model=str(route.adapter), instructions=route.instructions, replay=rows, replay_shares={"dna": 0.5}, output_dir=tmp_path / "out"
    )
    with pytest.raises(MismatchError, match="were packed with vocabulary"):
        sft.run(config)


@pytest.mark.parametrize("stage", ["sft", "evaluate", "export"])
def test_an_adapter_meets_its_tokenizer(route: Route, tuned: Path, other_tokenizer: Path, tmp_path: Path, stage: str) -> None:
    adapter = swap_tokenizer(tuned, other_tokenizer, tmp_path / "adapter")
    with pytest.raises(MismatchError, match=r"the tokenizer has vocabulary \w{16}; expected \w{16}, with which the weights"):
        use(stage, adapter, route, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stage", ["sft", "evaluate", "export"])
def test_an_adapter_meets_its_base(route: Route, tuned: Path, other_tokenizer: Path, tmp_path: Path, stage: str) -> None:
    adapter = Path(shutil.copytree(tuned, tmp_path / "adapter"))
    manifest = runtime.read_json(adapter / "manifest.json")
    base = swap_tokenizer(route.base, other_tokenizer, tmp_path / "base")
    runtime.write_json(adapter / "manifest.json", {**manifest, "base": str(base)})
    with pytest.raises(MismatchError, match=r"has vocabulary \w{16}; expected \w{16}, on which the adapter"):
        use(stage, adapter, route, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stage", ["sft", "evaluate", "export"])
def test_an_exported_model_meets_its_tokenizer(route: Route, exported: Path, other_tokenizer: Path, tmp_path: Path, stage: str) -> None:
    model = swap_tokenizer(exported, other_tokenizer, tmp_path / "model")
    with pytest.raises(MismatchError, match=r"the tokenizer has vocabulary \w{16}; expected \w{16}, with which the weights"):
        use(stage, model, route, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_meets_another_prompt(route: Route, tuned: Path, tmp_path: Path) -> None:
    adapter = Path(shutil.copytree(tuned, tmp_path / "adapter"))
    manifest = runtime.read_json(adapter / "manifest.json")
    runtime.write_json(adapter / "manifest.json", {**manifest, "prompt": "0" * 16})
    with pytest.raises(MismatchError, match=r"was tuned with prompt 0{16}; expected \w{16}, template 'alpaca'"):
        use("evaluate", adapter, route, tmp_path / "out")


def test_a_folder_of_the_wrong_stage_is_refused(route: Route, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="was written by `instruct`"):
        pack.run(pack.Config(corpus=route.instructions, tokenizer=str(route.tokenizer), output_dir=tmp_path / "out"))
    with pytest.raises(InputError, match="was written by `corpus`"):
        pretrain.run(pretrain.Config(rows=route.corpus, base=str(route.base), output_dir=tmp_path / "out"))
    with pytest.raises(InputError, match="was written by `pack`"):
        sft.run(sft.Config(model=str(route.adapter), instructions=route.rows, output_dir=tmp_path / "out"))


def use(stage: str, model: Path, route: Route, folder: Path) -> None:
    """Give a model to a stage."""
    if stage == "sft":
        sft.run(sft.Config(model=str(model), instructions=route.instructions, train=tiny_training(1), output_dir=folder))
    elif stage == "evaluate":
        evaluate.run(evaluate.Config(model=str(model), instructions=route.instructions, num_resamples=10, output_dir=folder))
    else:
        export.run(export.Config(model=model, output_dir=folder))


def test_the_instructions_of_a_structure_task_ask_about_the_tokens_of_one_tokenizer(
    route: Route, other_tokenizer: Path, tmp_path: Path
) -> None:
    folder = structure_task(tmp_path / "tasks")
    config = instruct.Config(tasks=[folder / "fold.yaml"], tokenizer=other_tokenizer, output_dir=tmp_path / "instructions")
    instructions = instruct.run(config)
    with pytest.raises(MismatchError, match=r"asks about the tokens of vocabulary \w{16}; expected \w{16}"):
        sft.run(sft.Config(model=str(route.adapter), instructions=instructions, train=tiny_training(1), output_dir=tmp_path / "out"))


def structure_task(folder: Path) -> Path:
    """Write a secondary-structure task."""
    from tests.fixtures.tiny_vocabularies import proteins

    folder.mkdir()
    for split, count, seed in (("train", 12, 1), ("test", 6, 2)):
        rows = [f"{text},{('HHHEEECCC' * len(text))[: len(text)]}" for text in proteins(count, 80, seed)]
        (folder / f"{split}.csv").write_text("sequence,label\n" + "\n".join(rows) + "\n")
    (folder / "fold.yaml").write_text(
        "name: fold\ntitle: secondary structure prediction\nfamily: structure\nkinds: [protein]\nform: token\nper_protein: 2\n"
        "train: train.csv\ntest: test.csv\n"
    )
    return folder
