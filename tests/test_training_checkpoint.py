"""Law 7: a run that was killed goes on as if it had not been, from the last checkpoint that is whole."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from llama_gene import cli, runtime
from llama_gene.errors import ConfigError, InputError
from llama_gene.models.adapters import attach_lora
from llama_gene.models.settings import LoraSettings
from llama_gene.training.checkpoint import MarkWhole, claim_folder, last_whole_checkpoint
from llama_gene.training.trainer import IndexedRows, train
from tests import two_processes as jobs
from tests.conftest import tiny_training
from tests.tiny_models import tiny_llama

STEPS, BATCH = 60, 4


def history(folder: Path) -> list[dict[str, float]]:
    """Return what a run logged at each step."""
    names = ("step", "loss", "grad_norm", "learning_rate")
    return [{name: entry[name] for name in names} for entry in json.loads((folder / "training.json").read_text())]


def test_law_07_resume_equals_uninterrupted_after_sigkill(base: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_settings = tiny_training(STEPS, batch_size=BATCH, save_steps=1, keep_checkpoints=2)
    config = {"rows": rows, "base": str(base), "lora": {"rank": 4, "dropout": 0.1}, "train": train_settings}
    for name in ("killed", "whole"):
        values = runtime.plain({**config, "output_dir": tmp_path / name})
        if name == "whole":
            values["train"]["save_steps"] = 0
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(values))
    work = tmp_path / "killed.work"

    kill_at = random.Random(17).randint(2, STEPS // 2)
    command = [sys.executable, "-m", "llama_gene.cli", "pretrain", "--config", str(tmp_path / "killed.yaml")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ))
    try:
        deadline = time.monotonic() + 300
        while not any(step >= kill_at for step in marked(work)):
            assert process.poll() is None and time.monotonic() < deadline, "the run ended before it could be killed"
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL and not (tmp_path / "killed").exists()
    resumed_from = max(marked(work))
    assert 1 < kill_at <= resumed_from < STEPS
    # What a kill in the middle of a save leaves: a later checkpoint, all but complete. It must not be used.
    half = work / f"checkpoint-{STEPS - 1}"
    shutil.copytree(work / f"checkpoint-{resumed_from}", half, dirs_exist_ok=True)
    (half / "whole").unlink()
    corrupt = half / "adapter_model.safetensors"
    corrupt.write_bytes(corrupt.read_bytes()[: corrupt.stat().st_size // 2])

    places: list[int] = []
    read = IndexedRows.__getitem__
    monkeypatch.setattr(IndexedRows, "__getitem__", lambda self, place: places.append(place) or read(self, place))
    assert cli.main(["pretrain", "--config", str(tmp_path / "killed.yaml")]) == 0
    assert places == list(range(resumed_from * BATCH, STEPS * BATCH))  # no row twice, none left out
    places.clear()
    assert cli.main(["pretrain", "--config", str(tmp_path / "whole.yaml")]) == 0
    assert places == list(range(STEPS * BATCH))

    killed, whole = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("killed", "whole"))
    assert killed.keys() == whole.keys() and all(torch.equal(killed[name], whole[name]) for name in whole)
    assert history(tmp_path / "killed") == history(tmp_path / "whole") and len(history(tmp_path / "whole")) == STEPS
    manifests = [runtime.read_manifest(tmp_path / name) for name in ("killed", "whole")]
    assert manifests[0]["tokens"] == manifests[1]["tokens"]
    assert not work.exists()


def marked(work: Path) -> list[int]:
    """Return the steps of the whole checkpoints."""
    return [int(path.parent.name.rsplit("-", 1)[1]) for path in work.glob("checkpoint-*/whole")]


class Unreadable(list):  # type: ignore[type-arg]
    """Rows of which some cannot be read."""

    numbers: frozenset[int] = frozenset()

    def __getitem__(self, number: Any) -> Any:
        if number in self.numbers:
            raise InterruptedError(f"row {number}")
        return super().__getitem__(number)


def interrupted(folder: Path, at_step: int, **changes: Any) -> None:
    """Train on the uneven rows, four a step, until a step whose rows cannot be read."""
    rows = Unreadable(jobs.uneven_rows())
    rows.numbers = frozenset(jobs.row_order()[at_step * 4 :])
    with pytest.raises(InterruptedError):
        train(fresh(), {"all": rows}, {"all": 1.0}, 1, tiny_training(24, **changes), folder, "key")


def fresh() -> Any:
    """Return a fresh adapter."""
    return attach_lora(tiny_llama(), LoraSettings(rank=4, dropout=0.1))


def test_law_07_the_log_is_the_same_when_checkpoints_fall_between_log_lines(tmp_path: Path) -> None:
    changes = {"logging_steps": 5, "save_steps": 3}
    interrupted(tmp_path / "work", 8, **changes)
    assert marked(tmp_path / "work") == [3, 6]
    resumed, _ = train(fresh(), {"all": jobs.uneven_rows()}, {"all": 1.0}, 1, tiny_training(24, **changes), tmp_path / "work", "key")
    whole, _ = train(fresh(), {"all": jobs.uneven_rows()}, {"all": 1.0}, 1, tiny_training(24, **changes), tmp_path / "whole", "key")
    assert [(entry["step"], entry["loss"]) for entry in resumed.history] == [(entry["step"], entry["loss"]) for entry in whole.history]
    assert resumed.tokens == whole.tokens == whole.new_tokens == 96 * 32 and resumed.new_tokens == 18 * 4 * 32


def test_older_checkpoints_go_only_when_a_newer_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[list[int]]] = []
    on_save = MarkWhole.on_save

    def watched(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        before = sorted(marked(tmp_path / "work"))
        on_save(self, args, state, control, **kwargs)
        seen.append([before, sorted(marked(tmp_path / "work"))])

    monkeypatch.setattr(MarkWhole, "on_save", watched)
    settings = tiny_training(10, save_steps=2, keep_checkpoints=1)
    train(fresh(), {"all": jobs.uneven_rows()}, {"all": 1.0}, 1, settings, tmp_path / "work", "key")
    assert seen == [[[], [2]], [[2], [4]], [[4], [6]], [[6], [8]], [[8], [10]]]


def test_checkpoint_10_is_later_than_checkpoint_9(tmp_path: Path) -> None:
    for step in (10, 9, 100, 2):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if step != 100:
            (tmp_path / f"checkpoint-{step}" / "whole").write_text("")
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert not (tmp_path / "checkpoint-100").exists()
    state = SimpleNamespace(global_step=10, is_world_process_zero=True, best_model_checkpoint=None)
    MarkWhole(keep=2).on_save(SimpleNamespace(output_dir=str(tmp_path)), state, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-9"]
    assert last_whole_checkpoint(tmp_path / "nowhere") is None


def test_only_the_first_process_deletes_and_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkpoint-3").mkdir()
    monkeypatch.setattr(runtime, "rank", lambda: 1)
    assert last_whole_checkpoint(tmp_path) is None and (tmp_path / "checkpoint-3").is_dir()
    MarkWhole(2).on_save(SimpleNamespace(output_dir=str(tmp_path)), SimpleNamespace(global_step=3, is_world_process_zero=False), None)
    assert not (tmp_path / "checkpoint-3" / "whole").exists()
    claim_folder(tmp_path / "work", "key", restart=False)
    assert not (tmp_path / "work").exists()


def test_a_working_folder_belongs_to_one_config(tmp_path: Path) -> None:
    work = tmp_path / "work"
    claim_folder(work, "one", restart=False)
    (work / "checkpoint-5").mkdir()
    claim_folder(work, "one", restart=False)
    assert (work / "checkpoint-5").is_dir()
    with pytest.raises(ConfigError, match=r"checkpoints of another config or of other rows.*--train.restart true"):
        claim_folder(work, "two", restart=False)
    assert (work / "checkpoint-5").is_dir()
    claim_folder(work, "two", restart=True)
    assert not (work / "checkpoint-5").exists()
    claim_folder(work, "two", restart=False)


@pytest.mark.parametrize("restart", [False, True])
def test_a_folder_that_is_not_ours_is_never_emptied(tmp_path: Path, restart: bool) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="is not a working folder"):
        claim_folder(tmp_path, "key", restart)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
