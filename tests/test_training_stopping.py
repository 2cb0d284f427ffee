"""SIGTERM ends a run with a checkpoint and exit code 0, and the same command goes on as if it had not been sent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from llama_gene import cli, runtime
from llama_gene.errors import LlamaGeneError
from llama_gene.models.adapters import attach_lora
from llama_gene.models.settings import LoraSettings
from llama_gene.training.stopping import StopOnSigterm, StoppedEarly
from llama_gene.training.trainer import IndexedRows, TrainResult, train
from tests import two_processes as jobs
from tests.conftest import tiny_training
from tests.tiny_models import tiny_llama

STEPS, ROWS_A_STEP = 12, 8


class Signalling(list):  # type: ignore[type-arg]
    """Rows that send SIGTERM to their own process when one of `numbers` is read."""

    numbers: frozenset[int] = frozenset()

    def __getitem__(self, number: Any) -> Any:
        if number in self.numbers:
            signal.raise_signal(signal.SIGTERM)
        return super().__getitem__(number)


@pytest.fixture(autouse=True)
def caught() -> Iterator[None]:
    """A SIGTERM that nobody takes over fails the test instead of ending the tests."""

    def fail(number: int, frame: object) -> None:
        raise AssertionError("SIGTERM was not taken over")

    before = signal.signal(signal.SIGTERM, fail)
    yield
    signal.signal(signal.SIGTERM, before)


def rows(stop_in: int | None = None, place: int = 0) -> dict[str, Any]:
    """Return the uneven rows; when a place of step `stop_in` is read, SIGTERM comes. (The loader reads one batch ahead.)"""
    found = Signalling(jobs.uneven_rows())
    if stop_in is not None:
        found.numbers = frozenset([jobs.row_order()[(stop_in - 1) * ROWS_A_STEP + place]])
    return {"all": found}


def run(work: Path, row_sets: dict[str, Any], dropout: float = 0.1, **changes: Any) -> tuple[TrainResult, Path]:
    """Train a fresh adapter for twelve steps of eight rows."""
    values = {"batch_size": 2, "accumulation": 4, **changes}
    model = attach_lora(tiny_llama(), LoraSettings(rank=4, dropout=dropout))
    return train(model, row_sets, {"all": 1.0}, 1, tiny_training(STEPS, **values), work, "key")


def losses(result: TrainResult) -> dict[int, float]:
    """Return step -> loss."""
    return {int(entry["step"]): entry["loss"] for entry in result.history}


def test_the_handler_is_put_back_whatever_happens() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopOnSigterm() as stop:
        assert signal.getsignal(signal.SIGTERM) not in (before, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # the launcher's, after Slurm's
        assert stop.asked
    assert signal.getsignal(signal.SIGTERM) == before
    with pytest.raises(InterruptedError), StopOnSigterm():
        raise InterruptedError
    assert signal.getsignal(signal.SIGTERM) == before


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    seen: list[Any] = []

    def work() -> None:
        with StopOnSigterm():
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before] and signal.getsignal(signal.SIGTERM) == before


def test_who_was_not_asked_goes_on() -> None:
    stop = StopOnSigterm()
    control = SimpleNamespace(should_save=False, should_training_stop=False)
    stop.on_step_end(SimpleNamespace(device=torch.device("cpu")), SimpleNamespace(global_step=3, max_steps=9), control)
    assert not control.should_save and not control.should_training_stop
    stop.raise_if_stopped()


def test_the_line_says_where_it_stopped_and_what_goes_on() -> None:
    assert str(StoppedEarly("step 12")) == "stopped at step 12; the same command goes on."
    assert "from the last whole checkpoint: that of this step is not whole" in str(StoppedEarly("step 12", saved=False))
    assert isinstance(StoppedEarly("sft"), LlamaGeneError) and StoppedEarly.exit_code == 0


@pytest.mark.parametrize(("save_steps", "logging_steps"), [(0, 1), (4, 5)])
def test_law_07_a_run_stopped_by_sigterm_goes_on_bitwise(tmp_path: Path, save_steps: int, logging_steps: int) -> None:
    changes = {"save_steps": save_steps, "logging_steps": logging_steps}
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(StoppedEarly, match=r"stopped at step 5; the same command goes on\.$"):
        run(tmp_path / "work", rows(stop_in=6), **changes)
    assert signal.getsignal(signal.SIGTERM) == before
    assert (tmp_path / "work" / "checkpoint-5" / "whole").is_file() and not (tmp_path / "work" / "final").exists()
    left = rows()
    left["all"] = jobs.BrokenRows(left["all"], set(jobs.row_order()[: 5 * ROWS_A_STEP]))  # those are not read again
    resumed, adapter = run(tmp_path / "work", left, **changes)
    whole, uninterrupted = run(tmp_path / "whole", rows(), **changes)
    one, other = (load_file(folder / "adapter_model.safetensors") for folder in (adapter, uninterrupted))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    if logging_steps == 1:  # else the stop adds a line to the log, and the next mean is over fewer steps
        assert losses(resumed) == losses(whole) and len(losses(whole)) == STEPS


def test_a_signal_in_the_last_step_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    on_step_end = StopOnSigterm.on_step_end

    def asked_in_the_last(self: StopOnSigterm, args: Any, state: Any, *rest: Any, **named: Any) -> Any:
        if state.global_step == STEPS:
            signal.raise_signal(signal.SIGTERM)
            read.append(state.global_step)
        return on_step_end(self, args, state, *rest, **named)

    monkeypatch.setattr(StopOnSigterm, "on_step_end", asked_in_the_last)
    result, adapter = run(tmp_path / "work", rows())
    assert read == [STEPS] and result.steps == STEPS and (adapter / "adapter_model.safetensors").is_file()


def test_the_command_line_ends_with_0_and_one_line_and_goes_on(
    base: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {"rows": rows, "base": str(base), "lora": {"rank": 2}, "train": tiny_training(8), "output_dir": tmp_path / "out"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(runtime.plain(config)))
    read = IndexedRows.__getitem__

    def signalling(self: IndexedRows, place: int) -> Any:
        if place == 12:
            signal.raise_signal(signal.SIGTERM)
        return read(self, place)

    with monkeypatch.context() as patch:
        patch.setattr(IndexedRows, "__getitem__", signalling)
        assert cli.main(["pretrain", "--config", str(tmp_path / "config.yaml")]) == 0
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("llama-gene pretrain: stopped at step ") and line.endswith("; the same command goes on.")
    assert not (tmp_path / "out").exists() and (tmp_path / "out.work").is_dir()
    assert cli.main(["pretrain", "--config", str(tmp_path / "config.yaml")]) == 0
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file() and not (tmp_path / "out.work").exists()


@pytest.fixture(scope="module")
def stopped_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes of plain DDP, of which only the second receives SIGTERM, in step 5; return their working folder."""
    if not torch.distributed.is_available():
        pytest.skip("this torch has no torch.distributed")
    work = tmp_path_factory.mktemp("pair") / "work"
    root = Path(__file__).resolve().parents[1]
    shared = {**runtime.launch_environment(2), "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(runtime.free_port())}
    command = [sys.executable, "-m", "tests.test_training_stopping", str(work)]
    environments = [{**shared, "RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
    pair = [subprocess.Popen(command, cwd=root, env=each, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for each in environments]
    try:
        said = [process.communicate(timeout=240)[0].decode(errors="replace") for process in pair]
    finally:
        for process in pair:
            process.kill()
    assert [process.returncode for process in pair] == [0, 0], "\n".join(text[-3000:] for text in said)
    return work


def test_all_processes_stop_at_the_same_step_when_one_is_asked(stopped_pair: Path) -> None:
    said = [json.loads((stopped_pair.parent / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert said == [{"asked": False, "stopped_at": 4, "saved": True}, {"asked": True, "stopped_at": 4, "saved": True}]
    assert (stopped_pair / "checkpoint-4" / "rng_state_1.pth").is_file()


def test_one_process_goes_on_where_two_of_plain_ddp_stopped(stopped_pair: Path, tmp_path: Path) -> None:
    left = jobs.BrokenRows(jobs.uneven_rows(), set(jobs.row_order()[: 4 * ROWS_A_STEP]))
    resumed, _ = run(stopped_pair, {"all": left}, dropout=0.0, batch_size=8, accumulation=1)
    whole, _ = run(tmp_path / "whole", rows(), dropout=0.0, batch_size=8, accumulation=1)
    assert losses(resumed).keys() == losses(whole).keys() and resumed.new_tokens == 8 * ROWS_A_STEP * 32
    assert losses(resumed) == pytest.approx(losses(whole), abs=1e-5)
    assert whole.history[-1]["loss"] < whole.history[0]["loss"] - 0.05  # it learns: an adapter that started again would be seen


def main(work: Path) -> None:
    """Be one of two processes: train until the second one's SIGTERM, and write what each knew."""
    stop_in = 5 if runtime.rank() == 1 else None
    asked: list[bool] = []
    on_step_end = StopOnSigterm.on_step_end

    def noted(self: StopOnSigterm, *rest: Any, **named: Any) -> Any:
        asked[:] = [self.asked]
        return on_step_end(self, *rest, **named)

    StopOnSigterm.on_step_end = noted  # type: ignore[method-assign]
    row_sets = rows(stop_in, place=2)  # the second process reads places 2, 3, 6 and 7 of each step
    try:
        run(work, row_sets, dropout=0.0, batch_size=2, accumulation=2)
    except StoppedEarly as stopped:
        step = int(str(stopped).split("step ")[1].split(";")[0])
        saved = "not whole" not in str(stopped)
        runtime.write_json(work.parent / f"{runtime.rank()}.json", {"asked": asked[0], "stopped_at": step, "saved": saved})
        return
    raise AssertionError(f"rank {runtime.rank()} was not stopped")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    runtime.set_library_switches()
    main(Path(sys.argv[1]))
