"""evaluate --english: the harness's tasks on base and model, in results.json and results.md."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llama_gene import cli, runtime
from tests.test_inference_harness import needs_harness, write_english_tasks
from tests.tiny_models import save_adapter


@needs_harness
def test_english_tasks_are_asked_of_base_and_model_and_written(tmp_path: Path) -> None:
    adapter, tasks = save_adapter(tmp_path), write_english_tasks(tmp_path / "tasks")
    out = tmp_path / "out"
    command = f"evaluate --model {adapter} --base {tmp_path / 'base'} --english own_group --english_include {tasks} --output_dir {out}"
    assert cli.main(command.split()) == 0
    report = json.loads((out / "results.json").read_text())
    assert {row["task"] for row in report["english"]["tasks"]} == {"own_even", "own_last_word", "own_group"}
    assert report["tasks"] == [] and report["languages"] == {}
    assert "| own_group | acc ↑ | 17 | - | " in (out / "results.md").read_text()


@needs_harness
def test_a_task_of_the_hub_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(f"evaluate --model {tmp_path} --english arc_easy --output_dir {tmp_path / 'out'}".split()) == 2
    assert "arc_easy (allenai/ai2_arc)" in capsys.readouterr().err


def test_without_the_harness_english_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "package_version", lambda name="llama-gene": "not installed")
    assert cli.main(f"evaluate --model {tmp_path} --english arc_easy --output_dir {tmp_path / 'out'}".split()) == 2
    assert capsys.readouterr().err == (
        "llama-gene evaluate: lm-evaluation-harness is not installed; expected lm-eval 0.4.12 or newer. "
        'Install it: pip install "llama-gene[harness]".\n'
    )
