"""The walk: stages that build on each other, each kept and reused."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from llama_gene import runtime
from llama_gene.data.settings import CutPolicy, Source, SplitPolicy
from llama_gene.errors import ConfigError
from llama_gene.models.adapters import base_weights
from llama_gene.models.settings import LoraSettings
from llama_gene.recipes import corpus, evaluate, instruct, pack, pretrain, run, sft, vocab
from llama_gene.recipes.run import _trainers
from llama_gene.training.settings import WatchSettings
from tests.conftest import Route, tiny_training


def two_stages(route: Route, folder: Path) -> run.Config:
    """DNA, then DNA and protein, on the toy data."""
    files = {"dna": "genome.fa", "protein": "proteome.fa", "english": "english.jsonl"}
    sources = [Source(language, inputs=[str(route.corpus.parent / name)]) for language, name in files.items()]
    lora = LoraSettings(rank=2, dropout=0.0)
    stages = [
        pretrain.Config(shares=shares, lora=lora, train=tiny_training(3, learning_rate=1e-3))
        for shares in ({"dna": 0.8, "english": 0.2}, {"dna": 0.4, "protein": 0.4, "english": 0.2})
    ]
    return run.Config(
        output_dir=folder,
        base=str(route.base),
        corpus=corpus.Config(
            sources=sources,
            cut=CutPolicy(min_fragment=60, max_fragment=200),
            split=SplitPolicy(valid_fraction=0.15),
        ),
        vocab=vocab.Config(steps=[vocab.Step("dna", size=96), vocab.Step("protein", size=96)]),
        pack=pack.Config(row_length=64),
        pretrain_stages=stages,
        instruct=instruct.Config(tasks=[route.corpus.parent / "tasks" / "tata.yaml"]),
        sft=sft.Config(max_length=256, lora=lora, replay_shares={"english": 0.2}, train=tiny_training(2)),
        evaluate=evaluate.Config(max_documents=2, num_resamples=20),
        num_questions=0,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sft": sft.Config(dry_run=True)}, "sft has dry_run or preview set; expected neither, in a run"),
        ({"pretrain": pretrain.Config(preview=3), "pretrain_stages": []}, "pretrain has dry_run or preview set"),
        ({"pretrain": pretrain.Config(shares={"dna": 1.0})}, "pretrain and pretrain_stages are both given"),
        (
            {"pretrain_stages": [pretrain.Config(), pretrain.Config(lora=LoraSettings(rows="new"))]},
            r"pretrain_stages\[1\].lora.rows is 'new'; expected all: the first stage has grown the vocabulary",
        ),
    ],
)
def test_what_cannot_be_walked_through_is_said_before_any_work(route: Route, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run.run(replace(two_stages(route, tmp_path / "run"), **change))
    assert not (tmp_path / "run").exists()


def test_checkpoints_outlive_a_change_that_decides_no_weight(route: Route, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restarted = []
    monkeypatch.setattr(run._Walk, "_launch", lambda self, stage, config, path: restarted.append(config.train.restart))
    walk = run._Walk(two_stages(route, tmp_path), tmp_path)
    for changes in ({}, {}, {"logging_steps": 7, "save_steps": 3, "watch": WatchSettings(tokens=5)}, {"learning_rate": 0.5}):
        config = pretrain.Config(rows=route.rows, base=str(route.base), train=tiny_training(3, **changes))
        walk.stage("pretrain", config, tmp_path / "out", None, after=[])
    assert restarted == [True, False, False, True]


def test_two_stages_build_on_each_others_merged_model_and_are_reused(
    route: Route, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run.run(two_stages(route, tmp_path / "run"))
    first, second = (runtime.read_manifest(folder / name, "pretrain") for name in ("4_1_pretrained", "4_pretrained"))
    assert first["base"] == str(route.base.resolve()) and second["base"] == str((folder / "4_1_model").resolve())
    assert second["base_weights"] == base_weights(second["base"]) != first["base_weights"]
    assert first["shares"] == {"dna": 0.8, "english": 0.2} and set(second["shares"]) == {"dna", "protein", "english"}
    assert first["vocabulary"] == second["vocabulary"] == second["base_vocabulary"] != first["base_vocabulary"]
    assert runtime.read_manifest(folder / "6_tuned", "sft")["base"] == str((folder / "4_model").resolve())
    assert runtime.read_manifest(folder / "8_model", "export")["vocabulary"] == second["vocabulary"]
    card = (folder / "8_model" / "README.md").read_text(encoding="utf-8")
    assert card.count("- `pretrain`: 3 steps") == 2 and "- `sft`: 2 steps" in card and "- dna: " in card
    assert f"`{route.base.name}` with" in card and str(folder) not in (folder / "8_model" / "manifest.json").read_text(encoding="utf-8")
    # the second stage starts where the first one ended
    assert second["held_out"][0]["held_out/dna"] == pytest.approx(first["held_out"][-1]["held_out/dna"], rel=1e-4)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/manifest.json")}
    run.run(two_stages(route, tmp_path / "run"))
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/manifest.json")} == before
    capsys.readouterr()


def test_sigterm_goes_to_the_trainers_under_a_launcher_and_not_to_what_they_started(tmp_path: Path) -> None:
    tracker = "import time; time.sleep(60)"
    trainer = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {tracker!r}]); time.sleep(60)"
    launcher = (
        "import os, subprocess, sys, time\n"
        f"for rank in '01': subprocess.Popen([sys.executable, '-c', {trainer!r}], env={{**os.environ, 'RANK': rank}})\n"
        "time.sleep(60)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "RANK"}
    root = subprocess.Popen([sys.executable, "-c", launcher], env=environment)
    tree: list[Any] = []
    try:
        deadline = time.monotonic() + 30
        while len(tree := psutil.Process(root.pid).children(recursive=True)) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.2)  # the last one may not have read its environment yet
        found = _trainers(root.pid)
        assert len(found) == 2 and all(process.ppid() == root.pid for process in found)
    finally:
        for process in [*tree, root]:
            process.kill()
        root.wait()
