"""Two nodes on one host: a hostfile without ssh, and launch/slurm.sh with torchrun's rendezvous; both equal one process (law 11).

Slurm is not needed: `srun`, `scontrol` and `scancel` are stand-ins that start the script's command once a node, as Slurm would.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from llama_gene import runtime
from llama_gene.models.settings import LoraSettings
from llama_gene.recipes import pretrain
from tests.conftest import tiny_training

ROOT = Path(__file__).resolve().parents[1]
STEPS, NODES = 8, 2
SRUN = """#!/usr/bin/env bash
while [[ "$1" == --* ]]; do shift; done
for node in $(seq 0 $((SLURM_JOB_NUM_NODES - 1))); do
  SLURM_NODEID=$node "$@" > "$STANDINS/node$node.log" 2>&1 &
  echo $! >> "$STANDINS/pids"
done
code=0
while read -r pid; do wait "$pid" || code=$?; done < "$STANDINS/pids"
exit $code
"""
SCONTROL = """#!/usr/bin/env bash
if [ "$1 $2" = "show hostnames" ]; then printf '127.0.0.1\\n127.0.0.2\\n'; else echo "$@" >> "$STANDINS/requeued"; fi
"""
SCANCEL = """#!/usr/bin/env bash
while read -r pid; do kill "-${1#--signal=}" "$pid"; done < "$STANDINS/pids"
"""


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a node."""
    return {**runtime.launch_environment(NODES), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **changes}


def slurm_environment(folder: Path, torchrun: Path, **changes: str) -> dict[str, str]:
    """Return the environment of a batch job of two nodes, with stand-ins for Slurm's commands."""
    folder.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("scancel", SCANCEL)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": str(NODES), "SLURM_JOB_NODELIST": "node[0-1]", "SLURM_CPUS_PER_TASK": "1"}
    paths = {"PATH": f"{folder}:{os.environ['PATH']}", "STANDINS": str(folder), "TORCHRUN": str(torchrun)}
    return environment(**job, **paths, PROCESSES="1", PORT=str(runtime.free_port()), **changes)


@pytest.fixture(scope="module")
def machine() -> None:
    """Skip where DeepSpeed cannot run."""
    if sys.platform != "linux" or not (shutil.which("c++") or shutil.which("g++")):
        pytest.skip("DeepSpeed runs on Linux, and needs a C++ compiler for its CPU ops")


@pytest.fixture(scope="module")
def config(base: Path, rows: Path) -> dict[str, Any]:
    """What is trained; a node has one process, and a step eight rows."""
    train = tiny_training(STEPS, batch_size=2, accumulation=2, deepspeed=ROOT / "ds_configs" / "zero2.json")
    return {"rows": rows, "base": str(base), "lora": {"rank": 4, "dropout": 0.0}, "train": train}


@pytest.fixture(scope="module")
def alone(config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The adapter that one process makes."""
    train = tiny_training(STEPS, batch_size=2, accumulation=4)
    folder = tmp_path_factory.mktemp("alone") / "adapter"
    return pretrain.run(pretrain.Config(**{**config, "lora": LoraSettings(**config["lora"]), "train": train, "output_dir": folder}))


def write_config(config: dict[str, Any], folder: Path) -> Path:
    """Write the YAML of a run into a new folder."""
    path = folder / "pretrain.yaml"
    runtime.write_text(path, yaml.safe_dump(runtime.plain({**config, "output_dir": folder / "adapter"})))
    return path


def check_equal(alone: Path, two: Path) -> None:
    """Compare the loss of each step and the saved weights."""
    one, other = ([entry["loss"] for entry in runtime.read_json(folder / "training.json")] for folder in (alone, two))
    assert len(one) == len(other) == STEPS and one[0] - min(one) > 0.3
    assert one == pytest.approx(other, abs=1e-4)
    weights = [load_file(folder / "adapter_model.safetensors") for folder in (alone, two)]
    assert weights[0].keys() == weights[1].keys()
    assert max(float((weights[0][name] - weights[1][name]).abs().max()) for name in weights[0]) < 1e-4
    assert json.loads((two / "manifest.json").read_text())["processes"] == NODES


@pytest.mark.usefixtures("machine")
def test_law_11_a_hostfile_of_two_nodes_without_ssh_equals_one_process(config: dict[str, Any], alone: Path, tmp_path: Path) -> None:
    yaml_path = write_config(config, tmp_path)
    (tmp_path / "hostfile").write_text("localhost slots=1\n127.0.0.2 slots=1\n")
    port = str(runtime.free_port())
    nodes = []
    for node in range(NODES):
        command = [sys.executable, "-m", "deepspeed.launcher.runner", "--hostfile", str(tmp_path / "hostfile"), "--no_ssh"]
        command += ["--node_rank", str(node), "--master_addr", "127.0.0.1", "--master_port", port]
        command += [str(ROOT / "launch" / "pretrain.py"), "--config", str(yaml_path)]
        log = (tmp_path / f"node{node}.log").open("w")
        nodes.append(subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=log, stderr=subprocess.STDOUT))
    codes = [node.wait(timeout=300) for node in nodes]
    assert codes == [0, 0], "".join((tmp_path / f"node{node}.log").read_text()[-2000:] for node in range(NODES))
    check_equal(alone, tmp_path / "adapter")


@pytest.mark.usefixtures("machine")
def test_law_11_the_slurm_script_on_two_nodes_equals_one_process(config: dict[str, Any], alone: Path, tmp_path: Path) -> None:
    yaml_path = write_config(config, tmp_path)
    job = slurm_environment(tmp_path / "standins", Path(sys.executable).with_name("torchrun"), CONFIG=str(yaml_path))
    done = subprocess.run(["bash", "launch/slurm.sh"], cwd=ROOT, env=job, capture_output=True, text=True, timeout=300, check=False)
    logs = "".join(path.read_text()[-2000:] for path in (tmp_path / "standins").glob("node*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    assert not (tmp_path / "standins" / "requeued").exists()
    check_equal(alone, tmp_path / "adapter")


TRAINING = """#!/usr/bin/env bash
trap 'exit {code}' TERM
touch "$STANDINS/started$SLURM_NODEID"
while true; do sleep 0.05; done
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="the script is one of bash")
@pytest.mark.parametrize(("code", "requeued"), [(1, True), (0, False)], ids=["stopped", "ended just then"])
def test_the_slurm_script_goes_back_into_the_queue_before_its_time_is_up(tmp_path: Path, code: int, requeued: bool) -> None:
    (tmp_path / "torchrun").write_text(TRAINING.format(code=code))
    (tmp_path / "torchrun").chmod(0o755)
    folder = tmp_path / "standins"
    job = subprocess.Popen(["bash", "launch/slurm.sh"], cwd=ROOT, env=slurm_environment(folder, tmp_path / "torchrun"))
    deadline = time.monotonic() + 30
    while not all((folder / f"started{node}").exists() for node in range(NODES)):
        assert time.monotonic() < deadline and job.poll() is None
        time.sleep(0.05)
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=30) == 0
    assert (folder / "requeued").exists() == requeued
    if requeued:
        assert (folder / "requeued").read_text() == "requeue 7\n"


@pytest.mark.parametrize(("count", "ending"), [("0", "--config F"), ("1", "--config F --train.restart false")])
def test_a_job_back_from_the_queue_does_not_obey_restart_again(tmp_path: Path, count: str, ending: str) -> None:
    (tmp_path / "torchrun").write_text('#!/usr/bin/env bash\necho "$@" >> "$STANDINS/asked"\n')
    (tmp_path / "torchrun").chmod(0o755)
    job = slurm_environment(tmp_path / "standins", tmp_path / "torchrun", CONFIG="F", SLURM_RESTART_COUNT=count)
    assert subprocess.run(["bash", "launch/slurm.sh"], cwd=ROOT, env=job, check=False).returncode == 0
    assert all(line.endswith(ending) for line in (tmp_path / "standins" / "asked").read_text().splitlines())


def test_the_slurm_script_passes_a_fault_on(tmp_path: Path) -> None:
    (tmp_path / "torchrun").write_text("#!/usr/bin/env bash\nexit 3\n")
    (tmp_path / "torchrun").chmod(0o755)
    done = subprocess.run(["bash", "launch/slurm.sh"], cwd=ROOT, env=slurm_environment(tmp_path / "standins", tmp_path / "torchrun"))
    assert done.returncode == 3 and not (tmp_path / "standins" / "requeued").exists()
