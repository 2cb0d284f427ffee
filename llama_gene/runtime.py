"""What every stage needs around its work: library switches, logging, seeds, whole files, manifests and fingerprints.

Nothing here imports torch. This is the only module that sets environment variables, and only those that libraries read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from llama_gene.errors import InputError, MissingFileError

MANIFEST_NAME = "manifest.json"


def set_library_switches() -> None:
    """Set the switches that third-party libraries read from the environment; what the user has set stays.

    TIKTOKEN_CACHE_DIR="" : tiktoken caches *local* files by path, so a rewritten vocabulary would be read in its old form.
    TORCH_EXTENSIONS_DIR  : where DeepSpeed's compiled CPU ops live; one place for every run, compiled once.
    """
    os.environ["TIKTOKEN_CACHE_DIR"] = ""
    os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(Path.home() / ".cache" / "llama_gene" / "torch_extensions"))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # forked workers would otherwise warn on every batch
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TQDM_MININTERVAL", "0.5")
    os.environ.setdefault("BITSANDBYTES_NOWELCOME", "1")


def set_single_process_rendezvous() -> None:
    """Give DeepSpeed the variables that a launcher would have set, so that one process needs no MPI (notes: stack, section 2)."""
    if "RANK" not in os.environ:
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))


def free_port() -> int:
    """Return a TCP port of this host that nothing listens on now."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launch_environment(processes: int) -> dict[str, str]:
    """Return the environment for a launch of `processes` on this machine: the cores shared out, DeepSpeed's chatter off."""
    environment = dict(os.environ)
    environment.setdefault("OMP_NUM_THREADS", str(max(1, num_cores() // processes)))
    environment.setdefault("PYTHONWARNINGS", "ignore::FutureWarning")
    if shutil.which("nvidia-smi") is None:
        environment.setdefault("DS_ACCELERATOR", "cpu")
    environment["PYTHONUNBUFFERED"] = "1"
    return environment


def rank() -> int:
    """Return this process's rank, 0 when there is only one."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Return the number of processes of this launch."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def get_logger(name: str = "llama_gene") -> logging.Logger:
    """Return a logger that speaks on rank 0 only (warnings and errors on every rank)."""
    logger = logging.getLogger(name)
    root = logging.getLogger("llama_gene")
    if not root.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        root.addHandler(handler)
        root.propagate = False
    root.setLevel(logging.INFO if rank() == 0 else logging.WARNING)
    return logger


def fingerprint(value: Any) -> str:
    """Return 16 hex digits that name a JSON-like value: the same value, the same digits, whatever the order of its keys.

    >>> fingerprint({"a": 1, "b": [2, 3]}) == fingerprint({"b": [2, 3], "a": 1})
    True
    """
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def file_hash(path: Path) -> str:
    """Return the first 16 hex digits of the SHA-256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()[:16]


def plain(value: Any) -> Any:
    """Return a value with dataclasses, paths and tuples turned into what JSON and YAML know."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it into place if the block ends well, delete it if not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_dir(path: Path, overwrite: bool = True) -> Iterator[Path]:
    """Give a temporary folder beside `path`; rename it into place if the block ends well, delete it if not.

    Raises InputError when `path` holds something that is not an earlier artefact of ours (it has no manifest), so that a
    mistyped output path never deletes a user's folder.
    """
    if path.exists() and any(path.iterdir() if path.is_dir() else [path]):
        if not overwrite or not (path / MANIFEST_NAME).is_file():
            raise InputError(f"{path} exists and is not an earlier output", "a new or empty folder", "Choose another output_dir")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    temporary.chmod(0o755)
    try:
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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


def write_manifest(folder: Path, stage: str, config: Any, **facts: Any) -> None:
    """Write `manifest.json`: stage, package version, config and the stage's own facts (counts, fingerprints)."""
    write_json(folder / MANIFEST_NAME, {"stage": stage, "version": package_version(), "config": plain(config), **facts})


def read_manifest(folder: Path, stage: str | None = None) -> dict[str, Any]:
    """Read a folder's manifest; with `stage`, refuse a folder that another stage wrote."""
    if not folder.is_dir():
        raise MissingFileError(folder, f"the folder that `llama-gene {stage}` writes" if stage else "a folder")
    if not (folder / MANIFEST_NAME).is_file():
        raise InputError(f"{folder} has no {MANIFEST_NAME}", f"the output of `llama-gene {stage}`", f"Run `llama-gene {stage}` first")
    manifest: dict[str, Any] = read_json(folder / MANIFEST_NAME)
    if stage is not None and manifest.get("stage") != stage:
        raise InputError(f"{folder} was written by `{manifest.get('stage')}`", f"the output of `llama-gene {stage}`", "Check the path")
    return manifest


def package_version(name: str = "llama-gene") -> str:
    """Return the installed version of a package, or 'not installed'."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
