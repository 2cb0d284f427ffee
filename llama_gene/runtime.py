"""What every stage needs around its work: library switches, logging, seeds, whole files, manifests and fingerprints.

Nothing here imports torch. This is the only module that sets environment variables, and only those that libraries read.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from llama_gene.errors import InputError, LlamaGeneError, MachineError, MissingFileError

MANIFEST_NAME = "manifest.json"


def set_library_switches() -> None:
    """Set the switches that third-party libraries read from the environment; what the user has set stays.

    TIKTOKEN_CACHE_DIR="" : tiktoken caches *local* files by path, so a rewritten vocabulary would be read in its old form.
    TORCH_EXTENSIONS_DIR  : where DeepSpeed's compiled CPU ops live, compiled once for each environment: its paths are compiled in, and two
                            environments that share a place would compile against each other again and again.
    PATH                  : the environment's own bin folder first, so that torch finds its `ninja` when the environment is not activated.
    DS_ACCELERATOR=cpu    : without it DeepSpeed warns, on a machine without a GPU, that it found none.

    bitsandbytes warns on import (peft imports it) that a 4-bit CPU kernel of the hub is absent, which we never call: its logger for
    the CPU ops is set to errors only.
    """
    os.environ["TIKTOKEN_CACHE_DIR"] = ""
    scripts = str(Path(sys.executable).parent)
    if scripts not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = scripts + os.pathsep + os.environ.get("PATH", "")
    ops = fingerprint([sys.prefix, package_version("torch"), package_version("deepspeed")])
    os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(Path.home() / ".cache" / "llama_gene" / "torch_extensions" / ops))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # forked workers would otherwise warn on every batch
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TQDM_MININTERVAL", "0.5")
    if not has_gpu():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def set_single_process_rendezvous() -> None:
    """Give DeepSpeed the variables that a launcher would have set, so that one process needs no MPI (notes: stack, section 2)."""
    if "RANK" not in os.environ:
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))


@contextmanager
def page_switches(folder: Path) -> Iterator[None]:
    """Set, while a page is open, what gradio reads from the environment; what the user has set is put back afterwards.

    GRADIO_TEMP_DIR          : uploads go to a folder of their own. By default all users of a machine share one, which belongs to the first.
    GRADIO_ANALYTICS_ENABLED : nothing is reported anywhere.
    """
    wanted = {"GRADIO_TEMP_DIR": str(folder), "GRADIO_ANALYTICS_ENABLED": "False"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def free_port() -> int:
    """Return a TCP port of this host that nothing listens on now."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launch_environment(processes: int) -> dict[str, str]:
    """Return the environment for a launch of `processes` on this machine: library switches as set, the cores shared out, no chatter."""
    environment = dict(os.environ)
    environment.setdefault("OMP_NUM_THREADS", str(max(1, num_cores() // processes)))
    environment.setdefault("PYTHONWARNINGS", "ignore::FutureWarning")
    environment["PYTHONUNBUFFERED"] = "1"
    return environment


def has_gpu() -> bool:
    """Return whether an accelerator's tool or driver (NVIDIA, AMD, Intel) is here; torch, seconds to import, is not asked."""
    tools = ("nvidia-smi", "rocm-smi", "xpu-smi")
    return any(shutil.which(tool) for tool in tools) or any(Path("/dev", node).exists() for node in ("nvidiactl", "kfd", "dxg"))


def rank() -> int:
    """Return this process's rank, 0 when there is only one."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Return the number of processes of this launch."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    """Return this process's number on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_world_size() -> int:
    """Return the number of processes of this launch on this machine: torchrun sets the first variable, DeepSpeed's launcher the second."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or world_size())


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def get_logger(name: str = "llama_gene") -> logging.Logger:
    """Return a logger that speaks on rank 0 only (warnings and errors on every rank)."""
    logger = logging.getLogger(name)
    root = logging.getLogger("llama_gene")
    if not root.handlers:
        handler = _StderrHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        root.addHandler(handler)
        root.propagate = False
    root.setLevel(logging.INFO if rank() == 0 else logging.WARNING)
    return logger


class _StderrHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Write to what sys.stderr is now, not to what it was when the logger was made."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:  # type: ignore[override]
        """The stream to write to."""
        return sys.stderr


def progress(what: str, unit: str, total: int | None = None, position: int = 0) -> Any:
    """Return a tqdm bar for a `with` block, told of progress by `update(n)`: on rank 0, and only for work that takes over a second.

    `position` 1 is the line below an outer bar. Worker processes draw none: their bars would write over each other.
    """
    import multiprocessing

    from tqdm import tqdm

    silent = rank() != 0 or multiprocessing.parent_process() is not None
    return tqdm(desc=what, unit=f" {unit}", total=total, unit_scale=True, leave=False, delay=1, disable=silent, position=position)


def fingerprint(value: Any) -> str:
    """Return 16 hex digits that name a JSON-like value: the same value, the same digits, whatever the order of its keys.

    >>> fingerprint({"a": 1, "b": [2, 3]}) == fingerprint({"b": [2, 3], "a": 1})
    True
    """
    # `plain` is asked only for what JSON does not know: it takes two seconds for the merges of a vocabulary
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain_or_fail)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _plain_or_fail(value: Any) -> Any:
    """Return a dataclass or a path as JSON has it. Raises TypeError for anything else."""
    if isinstance(value, Path) or is_dataclass(value):
        return plain(value)
    raise TypeError(f"{type(value).__name__} has no fingerprint")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, 64 hex digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def file_hash(path: Path) -> str:
    """Return the first 16 hex digits of the SHA-256 of a file's bytes."""
    return sha256(path)[:16]


def hash_files(paths: Iterable[Path], known: Sequence[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
    """Return path, size, time of the last change (ns) and hash of each file; a hash in `known` is taken where the others are unchanged.

    So 48 GB of unchanged inputs are recognised without reading them. Raises MissingFileError.
    """
    before = {(entry.get("path"), entry.get("size"), entry.get("mtime_ns")): entry.get("sha256") for entry in known}
    found = []
    for path in paths:
        if not path.is_file():
            raise MissingFileError(path)
        status = path.stat()
        place = (str(path), status.st_size, status.st_mtime_ns)
        found.append({"path": place[0], "size": place[1], "mtime_ns": place[2], "sha256": before.get(place) or file_hash(path)})
    return found


def has_files(folder: Path, files: Iterable[Mapping[str, Any]]) -> bool:
    """Tell whether each of a manifest's files ({"file", "file_bytes"}) is there in its size."""
    paths = [(folder / entry["file"], entry["file_bytes"]) for entry in files]
    return all(path.is_file() and path.stat().st_size == size for path, size in paths)


def plain(value: Any) -> Any:
    """Return a value with dataclasses, paths and tuples turned into what JSON and YAML know."""
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}  # asdict makes nonsense of a Counter
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it into place if the block ends well, delete it if not.

    Raises InputError when `path` cannot be written, MachineError when the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with _one_line_for_disk(path):
        with _one_line_for_path(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            try:
                yield temporary
            except OSError as error:
                if error.errno in _FULL or error.filename != str(temporary):
                    raise
                fault = f"{path} cannot be written: {error.strerror}"
                raise InputError(fault, "a path that you may write to", "Choose another one") from error
            with _one_line_for_path(path):
                os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def whole_dir(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`; rename it into place if the block ends well, delete it if not.

    An earlier output at `path` stays until the new one is whole. Raises InputError as `check_output` does, MachineError when the disk is
    full.
    """
    check_output(path)
    target = path.resolve()  # a link, or ".", has no neighbour to rename from
    new_parents = _missing_parents(target)
    with _one_line_for_disk(path):
        with _one_line_for_path(path):
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
        earlier = temporary.with_suffix(".old")
        try:
            temporary.chmod(0o755)  # mkdtemp makes it private
            yield temporary
            with _one_line_for_path(path):
                if target.exists():
                    os.replace(target, earlier)
                os.replace(temporary, target)
        finally:
            if earlier.exists() and not target.exists():
                os.replace(earlier, target)
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(earlier, ignore_errors=True)
            remove_empty(new_parents)


def _missing_parents(path: Path) -> list[Path]:
    """Return the folders above a path that do not exist, the innermost first."""
    return [parent for parent in path.parents if not parent.exists()]


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove those of some folders that hold nothing, in the order given: the innermost first."""
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def make_dir(path: Path, said: Path) -> None:
    """Make a folder and its parents. Raises InputError or MachineError about `said` where that is refused, or the disk is full."""
    with _one_line_for_disk(said), _one_line_for_path(said):
        path.mkdir(parents=True, exist_ok=True)


@contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """Hold the output folder `path` against other runs while a block works on it; the system lets go of it when a process dies.

    Raises InputError when another run holds it. Where a file system knows no locks nothing is held.
    """
    lock = path.resolve().with_name(f".{path.resolve().name}.lock")
    new_parents = _missing_parents(lock)
    make_dir(lock.parent, path)
    with _one_line_for_disk(path), _one_line_for_path(path):
        handle = lock.open("w")
    with handle:
        held = _lock(handle, path)
        try:
            yield
        finally:
            if held:
                lock.unlink(missing_ok=True)
            remove_empty(new_parents)


def _lock(handle: IO[str], path: Path) -> bool:
    """Lock an open file; return whether that could be done here."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        return False
    taken = InputError(f"another run is writing {path}", "one run at a time", "Wait for it, or choose another output_dir")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise taken from error
    except OSError:
        return False
    if not Path(handle.name).exists() or not os.path.samefile(handle.name, handle.fileno()):
        raise taken  # it ended, and took its lock away, between our opening and our locking
    return True


def check_output(path: Path, stage: str | None = None) -> None:
    """Raise InputError when `path` cannot become an output folder: before the work rather than after it.

    It must be new, empty, or an earlier output of ours (of `stage`, if one is named), so that a mistyped path never deletes a user's
    folder, nor a stage the one that it reads from; and it must be possible to make it.
    """
    with _one_line_for_path(path):
        if path.is_dir() and not os.access(path, os.W_OK | os.X_OK):
            raise InputError(f"{path} cannot be written to", "a folder that you may write to", "Choose another one")
        if path.is_dir() and any(path.iterdir()):
            writer = _writer(path)
            if writer is None:
                raise InputError(f"{path} holds files and is not an earlier output", "a new or empty folder", "Choose another output_dir")
            if stage not in (None, writer):
                raise InputError(f"{path} is an output of `{writer}`", f"a new folder, or one of `{stage}`", "Choose another output_dir")
        elif path.exists() and not path.is_dir():
            raise InputError(f"{path} is a file", "a new or empty folder", "Choose another output_dir")
        place = path.resolve()
        while not place.exists():
            place = place.parent
        if not place.is_dir() or not os.access(place if place != path.resolve() else place.parent, os.W_OK | os.X_OK):
            why = "cannot be written to" if place.is_dir() else "is a file"
            raise InputError(f"{path} cannot be made: {place} {why}", "a folder that you may write to", "Choose another output_dir")


def leave_process_group() -> None:
    """Take leave of the other processes of a launch, all at the same time, at its end.

    A process whose neighbour leaves first, or that ends with threads of the group still running, is aborted now and then (SIGABRT,
    "terminate called without an active exception": twice in some hundred launches), and the launcher reports a failure of a whole run.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        with suppress(RuntimeError):  # another process has failed, and the launcher says so
            torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def exit_cleanly_on_sigterm() -> None:
    """Turn SIGTERM (a time limit of SLURM) into an orderly exit with code 143, so that nothing half-written stays behind."""
    import signal
    import threading

    def leave(number: int, frame: object) -> None:
        sys.exit(128 + number)

    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, leave)


def check_inputs_outside(out: Path, inputs: Iterable[Path | str | None]) -> None:
    """Raise InputError when an input is the output folder or lies in it: the output replaces the folder whole."""
    target = out.resolve()
    for name in inputs:
        place = Path(name).expanduser().resolve() if name is not None else None
        if place is not None and (place == target or (target in place.parents and place.exists())):
            fault = f"{name} lies in the output folder {out}, which is replaced as a whole"
            raise InputError(fault, "an output folder without inputs", "Choose another one")


def check_output_outside(out: Path, folders: Iterable[Path]) -> None:
    """Raise InputError when the output folder lies in a folder that is read and sealed: it would be a file too many there."""
    for folder in folders:
        if folder.resolve() in out.resolve().parents:
            raise InputError(f"the output folder {out} lies in {folder}, which is read", "one beside it", "Choose another output_dir")


def _writer(folder: Path) -> str | None:
    """Return the stage that wrote a folder, None when its manifest is missing or not one of ours (web pages have such a file, too)."""
    try:
        manifest = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    stage = manifest.get("stage") if isinstance(manifest, dict) and "version" in manifest else None
    return stage if isinstance(stage, str) else None


@contextmanager
def _one_line_for_path(path: Path) -> Iterator[None]:
    """Turn the system's refusal of an output path (permission, name, a file in the way) into an InputError."""
    try:
        yield
    except OSError as error:
        if isinstance(error, LlamaGeneError) or error.errno in _FULL:
            raise
        raise InputError(f"{path} cannot be written: {error.strerror}", "a path that you may write to", "Choose another one") from error


@contextmanager
def _one_line_for_disk(path: Path) -> Iterator[None]:
    """Turn a full disk into a MachineError."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise MachineError(
            f"the disk is full: {path} was not written", "free space", "Free some, or choose another place; nothing half-written is left"
        ) from error


_FULL = (errno.ENOSPC, errno.EDQUOT)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all; dataclasses and paths are understood."""
    write_text(path, json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises MissingFileError, or InputError with the line where it is not JSON."""
    if not path.is_file():
        raise MissingFileError(path, "a JSON file")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: {error.msg}", "JSON", "The file may be cut short; write it again") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text", "JSON", "The file may be damaged; write it again") from error


def write_manifest(folder: Path, stage: str, config: Any, **facts: Any) -> None:
    """Write `manifest.json`: stage, package version, config and the stage's own facts (counts, fingerprints)."""
    write_json(folder / MANIFEST_NAME, {"stage": stage, "version": package_version(), "config": plain(config), **facts})


def read_manifest(folder: Path, stage: str | None = None) -> dict[str, Any]:
    """Read a folder's manifest; with `stage`, refuse a folder that another stage wrote.

    Raises MissingFileError for a folder that does not exist, InputError for one that no stage of ours (or another one) wrote.
    """
    command = f"`llama-gene {stage}`" if stage else "a stage of llama-gene"
    if not folder.is_dir():
        raise MissingFileError(folder, f"the folder that {command} writes")
    if not (folder / MANIFEST_NAME).is_file():
        raise InputError(f"{folder} has no {MANIFEST_NAME}", f"the output of {command}", f"Run {command} first, or check the path")
    manifest = read_json(folder / MANIFEST_NAME)
    if not isinstance(manifest, dict) or "stage" not in manifest:
        raise InputError(f"{folder / MANIFEST_NAME} is not a manifest of ours", f"the output of {command}", "Check the path")
    if stage is not None and manifest["stage"] != stage:
        raise InputError(f"{folder} was written by `{manifest['stage']}`", f"the output of {command}", "Check the path")
    return manifest


def package_version(name: str = "llama-gene") -> str:
    """Return the installed version of a package, or 'not installed'."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
