"""Run independent tasks in worker processes: on this machine, or on the machines of a Ray cluster.

A task writes its result whole or not at all, under a name that depends on its content. So it does not matter who runs it, in which order
and how often: 1, 2 and 4 workers leave the same bytes, and what was finished before a kill is there afterwards.

On this machine: the standard library's process pool, started with "spawn" (forking a process that has threads can hang). When a worker is
killed (most often for memory) the pool breaks at once instead of waiting for ever, and what is unfinished goes to a new pool; after
MAX_DEATHS that is the user's to mend. docs/adr/0006 says why not datatrove's executor.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Literal, TypeVar

from llama_gene import runtime
from llama_gene.errors import ConfigError, MachineError

Engine = Literal["local", "ray"]
MAX_DEATHS = 3  # workers killed in one call before giving up

Task = TypeVar("Task")
Result = TypeVar("Result")


def run_tasks(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int = 1, engine: Engine = "local", what: str = "tasks"
) -> list[Result]:
    """Return `function(task)` of each task, in the order of the tasks; `function` must be importable by name.

    An error of a task ends the call with that error, MachineError says that workers were killed; finished tasks have written their files.
    """
    check_workers(workers, engine)
    with runtime.progress(what, "tasks", len(tasks)) as bar:
        if engine == "ray":
            return _run_on_ray(function, tasks, bar)
        if workers == 1 or len(tasks) <= 1:
            results = []
            for task in tasks:
                results.append(function(task))
                bar.update()
            return results
        return _run_in_pools(function, tasks, min(workers, len(tasks)), bar)


def check_workers(workers: int, engine: Engine) -> None:
    """Raise ConfigError for no workers, MachineError for an engine that is not installed."""
    if workers < 1:
        raise ConfigError(f"workers is {workers}", "at least 1", "Set workers to the number of cores, or leave it out")
    if engine == "ray" and importlib.util.find_spec("ray") is None:
        raise MachineError("engine is ray, and ray is not installed", "the extra `scale`", "pip install 'llama-gene[scale]'")


def _end_with_parent() -> None:
    """In a worker: end when the process that started it is gone, killed or not; else workers would hold memory and pipes for ever."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _run_in_pools(function: Callable[[Task], Result], tasks: Sequence[Task], workers: int, bar: Any) -> list[Result]:
    """Run tasks in a process pool, and what a broken pool left over in a new one."""
    results: dict[int, Result] = {}
    deaths = 0
    while len(results) < len(tasks):
        strangers = set(multiprocessing.active_children())
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _end_with_parent)
        try:
            numbers: dict[Future[Result], int] = {
                pool.submit(function, task): number for number, task in enumerate(tasks) if number not in results
            }
            pending = set(numbers)
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    results[numbers[future]] = future.result()
                    bar.update()
        except BrokenProcessPool as error:
            deaths += 1
            if deaths == MAX_DEATHS:
                raise MachineError(
                    f"{deaths} worker processes were killed, most often a sign of too little memory",
                    f"{workers} workers that live (in a script of your own: behind `if __name__ == '__main__':`)",
                    "Use fewer workers and start again: what is finished is reused",
                ) from error
            runtime.get_logger().warning("a worker process was killed; its task is started again")
        except BaseException:
            for process in set(multiprocessing.active_children()) - strangers:  # else the pool would first finish what is under way
                process.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return [results[number] for number in range(len(tasks))]


def _run_on_ray(function: Callable[[Task], Result], tasks: Sequence[Task], bar: Any) -> list[Result]:
    """Run tasks on the Ray cluster that RAY_ADDRESS names, else on this machine; Ray starts a task again whose worker died."""
    import ray

    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level="warning")
    remote = ray.remote(max_retries=MAX_DEATHS)(function)
    references = [remote.remote(task) for task in tasks]
    pending = list(references)
    while pending:
        done, pending = ray.wait(pending)
        bar.update(len(done))
        try:
            ray.get(done)  # an error ends the call at once, not after the last task
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from error
        except ray.exceptions.WorkerCrashedError as error:
            raise MachineError("workers of Ray were killed", "workers that live", "Give them more memory and start again") from error
    return list(ray.get(references))
