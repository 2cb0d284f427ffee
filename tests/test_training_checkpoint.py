"""Law 7: a run that was killed goes on as if it had not been, from the last checkpoint that is whole."""

from __future__ import annotations

import errno
import json
import logging
import os
import random
import re
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
from peft import PeftModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from llama_gene import cli, runtime
from llama_gene.errors import ConfigError, InputError, LlamaGeneError, MachineError
from llama_gene.models.adapters import attach_lora, save_adapter
from llama_gene.models.settings import LoraSettings
from llama_gene.training import checkpoint, trainer
from llama_gene.training.checkpoint import (
    Launch,
    MarkWhole,
    check_weights,
    claim_folder,
    expected_shapes,
    last_whole_checkpoint,
    one_line_for_full_disk,
    seal,
    seal_fault,
    weights_fault,
)
from llama_gene.training.trainer import IndexedRows, train
from tests import two_processes as jobs
from tests.conftest import tiny_training
from tests.tiny_models import tiny_gpt2, tiny_llama

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


def write_checkpoint(folder: Path, step: int, sealed: bool = True) -> Path:
    """Write what a checkpoint of one process must hold, in small; return its folder."""
    path = folder / f"checkpoint-{step}"
    (path / "global_step").mkdir(parents=True)
    save_file({"lora_A.weight": torch.full((4, 8), float(step)), "head.weight": torch.ones(3)}, path / "adapter_model.safetensors")
    for name in ("trainer_state.json", "rng_state.pth", "global_step/optimizer.pt"):
        (path / name).write_bytes(b"0123456789" * 400)
    if sealed:
        seal(path, step)
    return path


def save_step(
    folder: Path, step: int, keep: int = 2, model: Any = None, callback: MarkWhole | None = None, best: int | None = None
) -> None:
    """Do what the Trainer does once a checkpoint is written."""
    state = SimpleNamespace(global_step=step, best_model_checkpoint=best and str(folder / f"checkpoint-{best}"))
    (callback or MarkWhole(keep)).on_save(SimpleNamespace(output_dir=str(folder)), state, None, model=model)


def names(folder: Path) -> list[str]:
    """Return what lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """What our logger says."""
    monkeypatch.setattr(runtime.get_logger(), "propagate", True)
    caplog.set_level(logging.INFO, "llama_gene")
    return caplog


def test_checkpoint_10_is_later_than_checkpoint_9(tmp_path: Path) -> None:
    for step in (10, 9, 100, 2):
        write_checkpoint(tmp_path, step, sealed=step != 100)
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert not (tmp_path / "checkpoint-100").exists()
    save_step(tmp_path, 10)
    assert names(tmp_path) == ["checkpoint-10", "checkpoint-9"]
    assert last_whole_checkpoint(tmp_path / "nowhere") is None


def test_the_seal_names_step_processes_and_every_file(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, 7)
    found = json.loads((path / "whole").read_text())
    assert found["step"] == 7 and found["processes"] == 1
    assert sorted(found["files"]) == ["adapter_model.safetensors", "global_step/optimizer.pt", "rng_state.pth", "trainer_state.json"]
    assert found["files"]["rng_state.pth"] == {"bytes": 4000, "crc32": "b0cc7542"}
    assert seal_fault(path) is None


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("flip", "global_step/optimizer.pt has CRC-32 [0-9a-f]{8}, not b0cc7542"),
        ("cut", "global_step/optimizer.pt has 3,999 bytes, not 4,000"),
        ("remove", "global_step/optimizer.pt is not there"),
        ("seal", "its file 'whole' is not a seal"),
        ("old seal", "its file 'whole' is not a seal"),
        ("folder", "global_step/optimizer.pt is not there"),
    ],
)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_taken(
    tmp_path: Path, damage: str, said: str, log: pytest.LogCaptureFixture
) -> None:
    for step in (3, 6):
        write_checkpoint(tmp_path, step)
    victim = tmp_path / "checkpoint-6" / "global_step" / "optimizer.pt"
    content = victim.read_bytes()
    if damage == "flip":
        victim.write_bytes(content[:2000] + bytes([content[2000] ^ 1]) + content[2001:])
    elif damage == "cut":
        victim.write_bytes(content[:-1])
    elif damage in ("remove", "folder"):
        victim.unlink()
        if damage == "folder":
            victim.mkdir()
    else:
        (tmp_path / "checkpoint-6" / "whole").write_text("6\n" if damage == "old seal" else '{"step": 6, "files": {"adap')
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-3"
    assert names(tmp_path) == ["checkpoint-3", "damaged-checkpoint-6"]
    assert re.search(rf"checkpoint-6 is damaged and not used \(now damaged-checkpoint-6\): {said}", log.text)
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-3"


def test_without_a_whole_checkpoint_there_is_none(tmp_path: Path) -> None:
    (write_checkpoint(tmp_path, 3) / "rng_state.pth").write_bytes(b"")
    assert last_whole_checkpoint(tmp_path) is None
    assert names(tmp_path) == ["damaged-checkpoint-3"]


def test_the_only_good_checkpoint_is_never_deleted(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 2)
    (write_checkpoint(tmp_path, 4) / "rng_state.pth").write_bytes(b"cut")  # damaged since it was sealed
    save_file({"lora_A.weight": torch.zeros(0)}, write_checkpoint(tmp_path, 6, sealed=False) / "adapter_model.safetensors")
    save_step(tmp_path, 6, keep=1)
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-4"]  # the newest was not whole
    write_checkpoint(tmp_path, 8, sealed=False)
    save_step(tmp_path, 8, keep=2)
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-4", "checkpoint-8"]  # of the two that are kept, the damaged one is none
    write_checkpoint(tmp_path, 10, sealed=False)
    save_step(tmp_path, 10, keep=1)
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-10"


def test_the_best_checkpoint_is_kept(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        write_checkpoint(tmp_path, step, sealed=step != 6)
    save_step(tmp_path, 6, keep=1, best=2)
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-6"]


def test_what_a_kill_leaves_of_a_deleted_checkpoint_has_no_seal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (2, 4):
        write_checkpoint(tmp_path, step, sealed=step != 4)
    monkeypatch.setattr(checkpoint.shutil, "rmtree", lambda path, **named: None)  # killed before it got anywhere
    save_step(tmp_path, 4, keep=1)
    assert marked(tmp_path) == [4]


SHAPES = {"lora_A.weight": (4, 8), "head.weight": (3,)}


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"lora_A.weight": (4, 8), "head.weight": (3,)}, None),
        ({"lora_A.weight": (4, 8), "head.weight": (3,), "more": (1,)}, None),
        ({"lora_A.weight": (4, 8), "head.weight": (0,)}, r"tensor head.weight is empty: its shape is \[0\]"),
        ({"lora_A.weight": (4, 8), "head.weight": (3,), "more": (4, 0)}, r"tensor more is empty: its shape is \[4, 0\]"),
        ({"lora_A.weight": (4, 8)}, "tensor head.weight is missing"),
        ({"lora_A.weight": (2, 8), "head.weight": (3,)}, r"tensor lora_A.weight has shape \[2, 8\], not \[4, 8\]"),
    ],
)
def test_weights_are_looked_at_before_they_count(tmp_path: Path, tensors: dict[str, tuple[int, ...]], said: str | None) -> None:
    for place, (name, shape) in enumerate(tensors.items()):  # in several files, as large models are
        save_file({name: torch.zeros(shape)}, tmp_path / f"model-{place}.safetensors")
    fault = weights_fault(tmp_path, SHAPES)
    assert fault is None if said is None else re.fullmatch(said, fault or "")


def test_weights_that_cannot_be_read_do_not_count(tmp_path: Path) -> None:
    assert weights_fault(tmp_path, SHAPES) == "there are no weights (*.safetensors)"
    save_file({"lora_A.weight": torch.zeros(4, 8)}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_model.safetensors").write_bytes((tmp_path / "adapter_model.safetensors").read_bytes()[:-1])
    assert re.match("adapter_model.safetensors cannot be read: ", weights_fault(tmp_path, {}) or "")
    with pytest.raises(LlamaGeneError, match=r"cannot be read.*; expected whole weights. The checkpoints are kept"):
        check_weights(tmp_path, tiny_llama())


@pytest.mark.parametrize("kind", ["lora", "tied lora", "lora alone", "gpt2 lora", "whole", "tied whole", "gpt2"])
def test_the_expected_shapes_are_those_of_the_saved_weights(tmp_path: Path, kind: str) -> None:
    model: Any = tiny_gpt2() if "gpt2" in kind else tiny_llama(tied="tied" in kind)
    if "lora" in kind:
        settings = LoraSettings(rank=4)
        if kind == "lora alone":
            settings.modules_to_save = []
        elif kind == "gpt2 lora":
            settings.target_modules, settings.modules_to_save = ["c_attn"], ["wte"]
        model = attach_lora(model, settings)
        save_adapter(model, tmp_path)
    else:
        model.save_pretrained(tmp_path, max_shard_size="30KB")
    found: dict[str, tuple[int, ...]] = {}
    for path in tmp_path.glob("*.safetensors"):
        with safe_open(path, "pt") as handle:
            found |= {name: tuple(handle.get_slice(name).get_shape()) for name in handle.keys()}  # noqa: SIM118
    assert expected_shapes(model) == found and len(found) > 5
    check_weights(tmp_path, model)


def test_a_part_of_zero_3_counts_in_full() -> None:
    model = tiny_llama()
    whole = expected_shapes(model)
    for parameter in model.parameters():  # what ZeRO-3 leaves between two uses
        parameter.ds_shape = parameter.shape  # type: ignore[attr-defined]
        parameter.data = torch.empty(0)
    assert expected_shapes(model) == whole


@pytest.mark.parametrize("missing", ["trainer_state.json", "rng_state.pth"])
def test_a_checkpoint_that_cannot_be_resumed_bit_by_bit_is_not_sealed(tmp_path: Path, missing: str, log: pytest.LogCaptureFixture) -> None:
    (write_checkpoint(tmp_path, 2, sealed=False) / missing).unlink()
    save_step(tmp_path, 2)
    (write_checkpoint(tmp_path, 4, sealed=False) / missing).write_bytes(b"")
    save_step(tmp_path, 4)
    assert names(tmp_path) == [] and f"{missing} was not written" in log.text and f"{missing} is empty" in log.text


def test_the_states_of_all_processes_are_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(runtime, "world_size", lambda: 2)
    (write_checkpoint(tmp_path, 2, sealed=False) / "rng_state.pth").rename(tmp_path / "checkpoint-2" / "rng_state_0.pth")
    save_step(tmp_path, 2)
    assert "step 2 is not whole and is deleted" in log.text and "rng_state_1.pth was not written" in log.text


def broken_saves(monkeypatch: pytest.MonkeyPatch, bad: set[int]) -> None:
    """Have the adapter's files of some steps hold an empty tensor, as a wrong ZeRO-3 save does."""
    save = trainer.save_adapter

    def broken(model: PeftModel, folder: Path | str, state_dict: dict[str, Any] | None = None) -> None:
        save(model, folder, state_dict)
        if Path(folder).name in {f"checkpoint-{step}" for step in bad}:
            path = Path(folder) / "adapter_model.safetensors"
            tensors = load_file(path)
            tensors["base_model.model.lm_head.weight"] = torch.empty(0)
            save_file(tensors, path)

    monkeypatch.setattr(trainer, "save_adapter", broken)


def test_training_survives_one_bad_checkpoint_and_not_two_in_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    rows, settings = {"all": jobs.uneven_rows()}, tiny_training(12, save_steps=2, keep_checkpoints=1)
    with monkeypatch.context() as patch:
        broken_saves(patch, {4, 8, 12})
        train(fresh(), rows, {"all": 1.0}, 1, settings, tmp_path / "one", "key")
    assert marked(tmp_path / "one") == [10] and not (tmp_path / "one" / "checkpoint-12").exists()
    assert log.text.count("tensor base_model.model.lm_head.weight is empty: its shape is [0]") == 3
    broken_saves(monkeypatch, {6, 8})
    with pytest.raises(LlamaGeneError, match=r"the checkpoint of step 8 is not whole, after that of step 6: tensor base_model\S+ is empty"):
        train(fresh(), rows, {"all": 1.0}, 1, settings, tmp_path / "two", "key")
    assert marked(tmp_path / "two") == [4]


def test_a_best_checkpoint_that_is_not_whole_ends_the_run_at_once(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 2)
    (write_checkpoint(tmp_path, 4, sealed=False) / "trainer_state.json").unlink()
    with pytest.raises(LlamaGeneError, match=r"step 4 is not whole, the best on dev: trainer_state.json was not written"):
        save_step(tmp_path, 4, best=4)
    assert marked(tmp_path) == [2]


def full_disk(kind: str) -> Exception:
    """Return what a library raises when the disk is full, as measured on a tmpfs of 3 MB."""
    if kind == "system":
        return OSError(errno.ENOSPC, "No space left on device", "trainer_state.json")
    if kind == "safetensors":
        return SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    return RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598")


@pytest.mark.parametrize("kind", ["torch", "safetensors", "system"])
def test_a_full_disk_leaves_the_earlier_checkpoint_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    work, save = tmp_path / "work", torch.save

    def filling(value: Any, path: Any, *rest: Any, **named: Any) -> None:
        if str(path).endswith("checkpoint-4/optimizer.pt"):
            Path(path).write_bytes(b"half")
            raise full_disk(kind)
        save(value, path, *rest, **named)

    rows, settings = {"all": jobs.uneven_rows()}, tiny_training(6, save_steps=2, keep_checkpoints=1)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", filling)
        with pytest.raises(
            MachineError, match=r"the disk is full: \S*checkpoint-4 was not written \(.*MiB free without it\); expected free"
        ):
            train(fresh(), rows, {"all": 1.0}, 1, settings, work, "key")
    assert [path.name for path in work.glob("*checkpoint*")] == ["checkpoint-2"] and marked(work) == [2]
    resumed, _ = train(fresh(), rows, {"all": 1.0}, 1, settings, work, "key")
    whole, _ = train(fresh(), rows, {"all": 1.0}, 1, settings, tmp_path / "whole", "key")
    assert [entry["loss"] for entry in resumed.history] == [entry["loss"] for entry in whole.history]


def test_a_full_disk_under_the_seal_or_the_last_save_is_one_line_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path, 2)
    write_checkpoint(tmp_path, 4, sealed=False)

    def full(path: Path) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded", str(path))

    monkeypatch.setattr(checkpoint, "_flush", full)
    with pytest.raises(MachineError, match="the disk is full"):
        save_step(tmp_path, 4, keep=1)
    assert names(tmp_path) == ["checkpoint-2"]
    with pytest.raises(MachineError, match="the disk is full: its own words"), one_line_for_full_disk(tmp_path / "final"):
        (tmp_path / "final").mkdir()
        raise MachineError("the disk is full: its own words")
    assert names(tmp_path) == ["checkpoint-2"]


@pytest.mark.parametrize("error", [RuntimeError("CUDA error"), OSError(errno.EACCES, "Permission denied"), ValueError("a bug")])
def test_another_error_while_saving_stays_what_it_is(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)[-5:]) as caught, one_line_for_full_disk(tmp_path / "checkpoint-2"):
        raise error
    assert caught.value is error


def test_only_the_first_process_deletes_and_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkpoint-3").mkdir()
    monkeypatch.setattr(runtime, "rank", lambda: 1)
    assert last_whole_checkpoint(tmp_path) is None and (tmp_path / "checkpoint-3").is_dir()
    save_step(tmp_path, 3)
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


def test_with_as_many_rows_a_step_another_number_of_processes_goes_on(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    work = tmp_path / "work"
    claim_folder(work, "key", restart=False, launch=Launch(2, 16))
    claim_folder(work, "key", restart=False, launch=Launch(2, 16))
    assert not log.text
    claim_folder(work, "key", restart=False, launch=Launch(1, 16))
    assert "going on with 1 processes where 2 wrote: the same rows, another dropout" in log.text
    with pytest.raises(ConfigError, match=r"holds checkpoints of 16 rows a step \(1 processes\), this launch takes 8 \(2 processes\)"):
        claim_folder(work, "key", restart=False, launch=Launch(2, 8))
    with pytest.raises(ConfigError, match="of another config or of other rows"):
        claim_folder(work, "other", restart=False, launch=Launch(1, 16))
    claim_folder(work, "key", restart=True, launch=Launch(2, 8))
    assert runtime.read_json(work / "key.json") == {"key": "key", "launch": {"processes": 2, "rows_a_step": 8, "deepspeed": None}}


def test_deepspeed_refuses_another_number_of_processes_with_the_command_that_goes_on(tmp_path: Path) -> None:
    work = tmp_path / "work"
    claim_folder(work, "key", restart=False, launch=Launch(2, 16, "zero2.json"))
    wanted = r"holds DeepSpeed checkpoints of 2 processes, this launch has 4; expected 2 processes.*`deepspeed --num_gpus 2`"
    with pytest.raises(ConfigError, match=wanted):
        claim_folder(work, "key", restart=False, launch=Launch(4, 16, "zero2.json"))
    claim_folder(work, "key", restart=False, launch=Launch(2, 16, "zero2.json"))


def test_rows_go_on_where_they_stopped_when_a_step_is_cut_otherwise(tmp_path: Path) -> None:
    settings = {"save_steps": 3, "batch_size": 4, "accumulation": 1}
    interrupted(tmp_path / "work", 7, **settings)
    places = Unreadable(jobs.uneven_rows())
    places.numbers = frozenset(jobs.row_order()[: 6 * 4])  # those of the steps before the checkpoint are not read again
    settings |= {"batch_size": 1, "accumulation": 4}
    resumed, _ = train(fresh(), {"all": places}, {"all": 1.0}, 1, tiny_training(24, **settings), tmp_path / "work", "key")
    assert [entry["step"] for entry in resumed.history] == list(range(1, 25)) and resumed.new_tokens == 18 * 4 * 32
