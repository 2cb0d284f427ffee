"""Workers: results in order, errors as they are, and nothing lost when a worker is killed."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from llama_gene.data.workers import run_tasks
from llama_gene.errors import ConfigError, InputError, MachineError, MissingFileError


def square(number: int) -> int:
    return number * number


def die_once(path: str) -> str:
    """Kill the own process the first time, write a file the second."""
    place = Path(path)
    if not place.exists():
        place.write_text("died")
        os.kill(os.getpid(), signal.SIGKILL)
    with place.with_suffix(".runs").open("a") as handle:
        handle.write("x")
    return place.name


def die(path: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def sleep_long(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(600)


def refuse(path: str) -> None:
    if path == "missing":
        raise MissingFileError(path, "a genome", "Download it")
    raise InputError(f"{path}, line 3: '!'", "a letter")


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_order_of_the_tasks(workers: int) -> None:
    assert run_tasks(square, range(7), workers) == [0, 1, 4, 9, 16, 25, 36]


def test_a_killed_worker_loses_nothing(tmp_path: Path) -> None:
    tasks = [str(tmp_path / name) for name in "abcd"]
    for name in "abc":
        Path(tmp_path / name).write_text("lives")
    assert run_tasks(die_once, tasks, workers=2) == ["a", "b", "c", "d"]
    assert (tmp_path / "d.runs").read_text() == "x"


def test_workers_that_are_killed_again_and_again_end_in_one_line() -> None:
    with pytest.raises(MachineError, match="3 worker processes were killed.*Use fewer workers and start again"):
        run_tasks(die, ["a", "b"], workers=2)


@pytest.mark.parametrize(
    ("task", "error", "message"),
    [("missing", MissingFileError, "missing does not exist; expected a genome. Download it."), ("g.fa", InputError, "g.fa, line 3: '!'")],
)
def test_an_error_of_a_worker_comes_home_as_it_was(task: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run_tasks(refuse, [task, task], workers=2)


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_data_workers import sleep_long; from llama_gene.data.workers import run_tasks\n"
        "if __name__ == '__main__': run_tasks(sleep_long, [sys.argv[2] + '/a', sys.argv[2] + '/b'], workers=2)"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    parent = subprocess.Popen([sys.executable, str(script), str(Path(__file__).parent), str(tmp_path)])
    pids = [tmp_path / "a", tmp_path / "b"]
    deadline = time.monotonic() + 60
    while not all(path.exists() and path.read_text() for path in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    workers = [psutil.Process(int(path.read_text())) for path in pids]
    parent.kill()
    parent.wait()
    gone, alive = psutil.wait_procs(workers, timeout=30)
    assert len(gone) == 2 and not alive


def test_no_workers_are_refused() -> None:
    with pytest.raises(ConfigError, match="workers is 0; expected at least 1"):
        run_tasks(square, [1], workers=0)


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="ray is installed")
def test_ray_that_is_not_installed_is_named_with_its_extra() -> None:
    with pytest.raises(MachineError, match=r"ray is not installed; expected the extra `scale`. pip install 'llama-gene\[scale\]'"):
        run_tasks(square, [1], engine="ray")


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray (extra `scale`) is not installed")
def test_ray_gives_the_same_results_and_starts_a_killed_task_again(tmp_path: Path) -> None:
    import ray

    here = str(Path(__file__).parent)  # where Ray's workers find the functions of this file
    ray.init(num_cpus=2, runtime_env={"env_vars": {"PYTHONPATH": here}}, log_to_driver=False, logging_level="error")
    try:
        assert run_tasks(square, range(5), engine="ray") == [0, 1, 4, 9, 16]
        assert run_tasks(die_once, [str(tmp_path / "a")], engine="ray") == ["a"]
        with pytest.raises(MissingFileError, match="missing does not exist; expected a genome"):
            run_tasks(refuse, ["missing"], engine="ray")
    finally:
        ray.shutdown()
