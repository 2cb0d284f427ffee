"""Clean stops: SIGTERM (a time limit of Slurm, a spot machine that is taken back) ends a run with a checkpoint and exit code 0.

The signal may reach one process only: DeepSpeed's launcher sends it to rank 0 and waits up to 30 s before it tells the next. So each rank
notes its own, and at the end of a step all take the largest of the notes (one number, all-reduced): they save and stop at the same step,
or else some would wait for the others in a collective for ever. (transformers' `enable_jit_checkpoint` does not agree over ranks.)
"""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from transformers import TrainerCallback

from llama_gene import runtime
from llama_gene.errors import LlamaGeneError
from llama_gene.training.checkpoint import WHOLE, is_distributed


class StoppedEarly(LlamaGeneError):
    """A run was asked to stop, and did: no output was written, nothing went wrong. The command line prints it and exits with 0."""

    exit_code = 0

    def __init__(self, where: str, saved: bool = True) -> None:
        start = "" if saved else " from the last whole checkpoint: that of this step is not whole"
        super().__init__(f"stopped at {where}; the same command goes on{start}")


class StopOnSigterm(TrainerCallback):
    """Save and stop at the end of the step in which any process received SIGTERM; put it before callbacks that look at `should_save`.

    As a context manager around `Trainer.train` it takes the signal over, and puts the handler that was there back, whatever happens.

    >>> with StopOnSigterm() as stop:
    ...     signal.raise_signal(signal.SIGTERM)
    >>> stop.asked
    True
    """

    def __init__(self) -> None:
        self.asked = False  # this process was sent SIGTERM
        self.stopped_at: int | None = None
        self.saved = False
        self._before: Any = None

    def __enter__(self) -> StopOnSigterm:
        if threading.current_thread() is threading.main_thread():  # the only one that may
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
            self._before = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True  # a second signal changes nothing: the step and its checkpoint are finished first

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Agree, and if asked have the Trainer save and stop; the last step ends the run as it would have."""
        if state.global_step < state.max_steps and _any_rank(self.asked, args.device):
            self.stopped_at = state.global_step
            control.should_save = control.should_training_stop = True
        return control

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note whether the checkpoint of the stop is whole."""
        self.saved = self.stopped_at is not None and (Path(args.output_dir) / f"checkpoint-{self.stopped_at}" / WHOLE).is_file()

    def raise_if_stopped(self) -> None:
        """Raise StoppedEarly, on every rank, when training was stopped before its last step: no final output must be written."""
        if self.stopped_at is not None:
            if is_distributed():
                runtime.leave_process_group()
            raise StoppedEarly(f"step {self.stopped_at}", self.saved)


def _any_rank(asked: bool, device: torch.device) -> bool:
    """Return whether any process was asked to stop; alone, whether this one was."""
    if not is_distributed():
        return asked
    note = torch.tensor([int(asked)], device=device)  # NCCL wants it on the GPU
    torch.distributed.all_reduce(note, op=torch.distributed.ReduceOp.MAX)
    return bool(note.item())
