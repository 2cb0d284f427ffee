"""Two processes under DeepSpeed, killed by SIGKILL at random steps and started again with the same command until they are done.

A tiny base learns DNA and English rows through launch/pretrain.py, dropout on, once uninterrupted and once killed: both processes and the
launcher at once, then the second process alone, then the first. Printed for each restart: the checkpoint it went on from, how many of the
following losses and gradient norms equal the uninterrupted run's bit by bit (at least 20 before the next kill), and which rows it read:
those of the steps after its checkpoint, each once, and no other. At the end the two adapters must be equal, bit by bit.

    python -m benchmarks.crash [--work FOLDER] [--zero 1 2 3] [--kills 3] [--seed 17]

It starts itself under the launcher (`--job`), where it notes every row that the training loop reads, then runs launch/pretrain.py.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from llama_gene import runtime

ROOT = Path(__file__).resolve().parents[1]
BATCH, ACCUMULATION, PROCESSES = 2, 2, 2
ROWS_A_STEP = BATCH * ACCUMULATION * PROCESSES
SAVE_STEPS = 4
AFTER = 20  # losses compared after each restart
BETWEEN = 2 * SAVE_STEPS + AFTER  # the fewest steps from one kill to the next: AFTER of them are in a checkpoint
VICTIMS = ("all", "1", "0")  # who is killed, in turns


@dataclass(frozen=True)
class Outcome:
    """What one kill and the restart after it did."""

    victims: str
    killed_in: int  # step in whose rows the processes were reading
    resumed_from: int
    equal: int  # losses and gradient norms after the restart that equal the uninterrupted run's, without a gap
    compared: int  # how many there are, up to the next kill's checkpoint
    again: int  # rows read once more: of the steps since the checkpoint
    wrong: int  # rows read before the checkpoint, twice, or left out


def prepare(folder: Path) -> dict[str, object]:
    """Write a tiny base and rows; return the settings that all runs share."""
    from llama_gene.data.settings import CutPolicy, Source
    from llama_gene.recipes import corpus, pack
    from tests.fixtures.tiny_vocabularies import ENGLISH, SENTENCES, genes
    from tests.tiny_models import save_model, tiny_llama, tiny_tokenizer

    (folder / "genome.fa").write_text("".join(f">contig{i}\n{text}\n" for i, text in enumerate(genes(12, 600))))
    texts = [" ".join(random.Random(i).sample(SENTENCES, 6)) for i in range(40)] + ENGLISH
    (folder / "english.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    sources = [Source("dna", inputs=[str(folder / "genome.fa")]), Source("english", inputs=[str(folder / "english.jsonl")])]
    corpus.run(corpus.Config(sources=sources, cut=CutPolicy(min_fragment=60, max_fragment=200), output_dir=folder / "corpus"))
    base = save_model(tiny_llama(), tiny_tokenizer(), folder / "base")
    rows = pack.run(pack.Config(corpus=folder / "corpus", tokenizer=str(base), row_length=64, output_dir=folder / "rows"))
    return {"rows": str(rows), "base": str(base), "lora": {"rank": 4, "dropout": 0.1}}


def write_config(folder: Path, name: str, shared: dict[str, object], zero: str, steps: int) -> Path:
    """Write the YAML of one run; return its path."""
    train = {
        "steps": steps, "batch_size": BATCH, "accumulation": ACCUMULATION, "learning_rate": 0.005, "precision": "fp32", "logging_steps": 1,
        "save_steps": SAVE_STEPS, "deepspeed": str(ROOT / "ds_configs" / f"zero{zero}.json"),
    }  # fmt: skip
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**shared, "train": train, "output_dir": str(folder / name)}))
    return path


def start(config: Path, notes: Path) -> subprocess.Popen[bytes]:
    """Start two processes on a run, in a session of their own; what they read is noted in `notes`."""
    notes.mkdir(parents=True)
    environment = {**runtime.launch_environment(PROCESSES), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "deepspeed.launcher.runner", "--num_gpus", str(PROCESSES), "--master_port", str(runtime.free_port())]
    command += [str(Path(__file__).resolve()), "--job", str(config), "--notes", str(notes)]
    with (notes / "log").open("wb") as log:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)


def job(config: Path, notes: Path, local_rank: str) -> None:
    """Run launch/pretrain.py in this process, noting its process id and every place of the index that it reads."""
    from llama_gene.training.trainer import IndexedRows

    (notes / f"{runtime.rank()}.pid").write_text(str(os.getpid()))
    read = IndexedRows.__getitem__
    with (notes / f"{runtime.rank()}.places").open("w", buffering=1) as places:  # a line is with the system before a kill

        def noted(rows: IndexedRows, place: int) -> tuple[list[int], list[int], list[int]]:
            places.write(f"{place}\n")
            return read(rows, place)

        IndexedRows.__getitem__ = noted  # type: ignore[method-assign]  # in this measuring process only
        sys.argv = ["pretrain.py", local_rank, "--config", str(config)]
        runpy.run_path(str(ROOT / "launch" / "pretrain.py"), run_name="__main__")


def places(notes: Path) -> list[int]:
    """Return the places of the index that a launch has read, in order."""
    found = [line for path in notes.glob("*.places") for line in path.read_text().split("\n")[:-1]]
    return sorted(int(line) for line in found)


def finish(process: subprocess.Popen[bytes], notes: Path, seconds: float = 400) -> None:
    """Wait for a run to end well. Raises RuntimeError with the end of its log."""
    if process.wait(timeout=seconds) != 0:
        raise RuntimeError(f"the run ended with {process.returncode}:\n" + (notes / "log").read_text(errors="replace")[-3000:])


def kill_at(process: subprocess.Popen[bytes], notes: Path, step: int, victims: str, seconds: float = 400) -> None:
    """Kill `victims` when rows of `step` are read, and wait until all have ended."""
    deadline = time.monotonic() + seconds
    while max(places(notes), default=0) < step * ROWS_A_STEP:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"step {step} was not reached:\n" + (notes / "log").read_text(errors="replace")[-3000:])
        time.sleep(0.005)
    if victims == "all":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        os.kill(int((notes / f"{victims}.pid").read_text()), signal.SIGKILL)
    process.wait(timeout=120)  # the launcher ends the others
    for path in notes.glob("*.pid"):
        wait_for_end(int(path.read_text()))


def wait_for_end(pid: int, seconds: float = 60) -> None:
    """Wait until a process is gone (it may be nobody's child any more)."""
    deadline = time.monotonic() + seconds
    while Path(f"/proc/{pid}").exists() and "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text():
        if time.monotonic() > deadline:
            raise RuntimeError(f"process {pid} goes on")
        time.sleep(0.05)


def whole_step(work: Path) -> int:
    """Return the step of the newest sealed checkpoint, 0 without one."""
    return max((int(path.parent.name.rsplit("-", 1)[1]) for path in work.glob("checkpoint-*/whole")), default=0)


def history(folder: Path) -> dict[int, tuple[float, float]]:
    """Return step -> loss and gradient norm of a finished run."""
    entries = json.loads((folder / "training.json").read_text())
    return {int(entry["step"]): (entry["loss"], entry["grad_norm"]) for entry in entries}


def same_adapter(one: Path, other: Path) -> bool:
    """Tell whether two adapters have the same tensors, bit by bit."""
    import torch
    from safetensors.torch import load_file

    first, second = (load_file(folder / "adapter_model.safetensors") for folder in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def measure(folder: Path, shared: dict[str, object], zero: str, kills: int, seed: int) -> tuple[list[Outcome], bool, int]:
    """Train once uninterrupted and once killed `kills` times; return what each restart did, whether the adapters are equal, the steps."""
    rng = random.Random(seed)
    kill_steps = [SAVE_STEPS + rng.randint(1, 6)]
    while len(kill_steps) < kills:
        kill_steps.append(kill_steps[-1] + BETWEEN + rng.randint(0, 6))
    steps = kill_steps[-1] + BETWEEN
    whole = write_config(folder, f"whole{zero}", shared, zero, steps)
    finish(start(whole, folder / f"notes{zero}" / "whole"), folder / f"notes{zero}" / "whole")
    killed = write_config(folder, f"killed{zero}", shared, zero, steps)
    resumed, reads = [0], []
    for number, step in enumerate(kill_steps):
        notes = folder / f"notes{zero}" / str(number)
        kill_at(start(killed, notes), notes, step, VICTIMS[number % len(VICTIMS)])
        resumed.append(whole_step(folder / f"killed{zero}.work"))
        reads.append(places(notes))
    notes = folder / f"notes{zero}" / "last"
    finish(start(killed, notes), notes)
    reads.append(places(notes))
    wanted, found = history(folder / f"whole{zero}"), history(folder / f"killed{zero}")
    outcomes = []
    for number in range(len(kill_steps)):
        begin, end = resumed[number + 1], resumed[number + 2] if number + 2 < len(resumed) else steps
        same = [found.get(step) == wanted[step] for step in range(begin + 1, end + 1)]
        after = reads[number + 1]
        must = set(range(begin * ROWS_A_STEP, end * ROWS_A_STEP))
        wrong = len(after) - len(set(after)) + len(must - set(after)) + sum(place < begin * ROWS_A_STEP for place in after)
        outcomes.append(
            Outcome(
                victims={"all": "all", "0": "first", "1": "second"}[VICTIMS[number % len(VICTIMS)]],
                killed_in=max(reads[number]) // ROWS_A_STEP + 1,
                resumed_from=begin,
                equal=same.index(False) if False in same else len(same),
                compared=len(same),
                again=sum(place >= begin * ROWS_A_STEP for place in reads[number]),
                wrong=wrong,
            )
        )
    return outcomes, found == wanted and same_adapter(folder / f"whole{zero}", folder / f"killed{zero}"), steps


def table(zero: str, outcomes: Sequence[Outcome], equal: bool) -> list[str]:
    """Return the rows of the Markdown table."""
    lines = []
    for place, one in enumerate(outcomes):
        end = ("equal" if equal else "DIFFERENT") if place == len(outcomes) - 1 else ""
        row = [f"ZeRO-{zero}", one.victims, one.killed_in, one.resumed_from, f"{one.equal} of {one.compared}", one.again, one.wrong, end]
        lines.append("| " + " | ".join(map(str, row)) + " |")
    return lines


def main() -> int:
    """Measure and print; 1 when something differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="a new folder that is kept; by default a temporary one")
    parser.add_argument("--zero", nargs="+", default=["2", "3"], help="ZeRO stages, as in ds_configs/zeroN.json")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--notes", type=Path, help=argparse.SUPPRESS)
    local_rank = next((item for item in sys.argv if re.match("--local[_-]rank", item)), "")
    asked = parser.parse_args([item for item in sys.argv[1:] if item != local_rank])
    runtime.set_library_switches()
    if asked.job is not None:
        job(asked.job, asked.notes, local_rank)
        return 0
    folder = asked.work or Path(tempfile.mkdtemp(prefix="crash."))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        shared = prepare(folder)
        lines, good = [], True
        for zero in asked.zero:
            outcomes, equal, steps = measure(folder, shared, zero, asked.kills, asked.seed)
            lines += table(zero, outcomes, equal)
            good = good and equal and all(one.equal == one.compared >= AFTER and not one.wrong for one in outcomes)
        print(
            f"{PROCESSES} processes, {steps} steps of {ROWS_A_STEP} rows, a checkpoint every {SAVE_STEPS}, dropout 0.1, seed {asked.seed}\n"
        )
        print("| | killed | in step | gone on from | equal losses and norms after it | rows read again | wrong rows | adapter at the end |")
        print("|---|---|---|---|---|---|---|---|")
        print("\n".join(lines))
    finally:
        if asked.work is None:
            shutil.rmtree(folder, ignore_errors=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
