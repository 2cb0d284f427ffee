"""doctor: what this machine has, what will not work on it, and how to mend that; compiles DeepSpeed's CPU ops if asked."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from llama_gene import runtime
from llama_gene.errors import MachineError

PACKAGES = (
    "torch", "transformers", "peft", "accelerate", "tokenizers", "sentencepiece", "tiktoken", "protobuf", "deepspeed", "datasets",
    "bitsandbytes", "jsonargparse", "biopython", "dnaio", "scikit-learn", "liger-kernel",
)  # fmt: skip


@dataclass
class Config:
    """What to check."""

    build_ops: bool = False
    """Compile DeepSpeed's CPU communication op now (about a minute, once), instead of at the first launch."""


@dataclass(frozen=True)
class Finding:
    """One line of the report; `problem` says what will not work and what to do about it."""

    name: str
    value: str
    problem: str = ""


def run(config: Config) -> list[Finding]:
    """Print and return the findings. Raises MachineError when the ops are asked for and cannot be built."""
    if config.build_ops:
        build_ops()
    findings = [*_machine(), *_packages()]
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        print(f"{finding.name:<{width}}  {finding.value}")
    problems = [finding for finding in findings if finding.problem]
    print("\nWhat will not work here:" if problems else "\nEverything that this version does works here.")
    for finding in problems:
        print(f"- {finding.problem}")
    return findings


def build_ops() -> None:
    """Compile DeepSpeed's shared-memory communication op into TORCH_EXTENSIONS_DIR; a second call finds it there."""
    if sys.platform != "linux":
        runtime.get_logger().info("no DeepSpeed on %s: nothing to compile", sys.platform)
        return
    import torch

    if torch.cuda.is_available():
        runtime.get_logger().info("a GPU is there: processes talk through NCCL, nothing to compile")
        return
    from deepspeed.ops.op_builder import CPUAdamBuilder  # noqa: F401  (proves that the builders import)
    from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder

    runtime.get_logger().info("compiling DeepSpeed's CPU communication op (once)")
    try:
        ShareMemCommBuilder().load(verbose=False)
    except (RuntimeError, OSError, ImportError, subprocess.SubprocessError) as error:
        raise MachineError(
            f"DeepSpeed's CPU op cannot be compiled: {str(error).strip().splitlines()[0][:200]}",
            "a C++ compiler, ninja and Python headers",
            "Debian: apt-get install g++ python3-dev",
        ) from error


def _machine() -> list[Finding]:
    """Return what the machine has."""
    import psutil

    memory, disk = psutil.virtual_memory(), shutil.disk_usage(Path.cwd())
    little_memory = "" if memory.total > 3.5 * 2**30 else "less than 4 GB of memory: the demo does not fit"
    little_disk = "" if disk.free > 2 * 2**30 else "less than 2 GiB of disk is free: runs may not fit"
    return [
        Finding("system", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"),
        Finding("cores", str(runtime.num_cores())),
        Finding("memory", f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free", little_memory),
        Finding("disk", f"{disk.free / 2**30:.1f} GiB free here", little_disk),
        *_build_tools(),
        _gpu(),
        Finding("compiled ops", os.environ.get("TORCH_EXTENSIONS_DIR", "")),
    ]


def _build_tools() -> list[Finding]:
    """Return what DeepSpeed needs to compile its CPU ops; elsewhere than on Linux nothing is compiled."""
    compiler = shutil.which("c++") or shutil.which("g++")
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    found = {
        "C++ compiler": (_first_line([compiler, "--version"]) if compiler else "none", "g++"),
        "Python headers": (str(headers.parent) if headers.is_file() else "none", "python3-dev"),
    }
    findings = []
    for name, (value, package) in found.items():
        missing = value == "none" and sys.platform == "linux"
        problem = f"no {name}: DeepSpeed on CPU cannot compile its ops (Debian: apt-get install {package})" if missing else ""
        findings.append(Finding(name, value, problem))
    return findings


def _gpu() -> Finding:
    """Return the GPU that the driver sees, and whether torch can use it."""
    import torch

    if torch.cuda.is_available():
        sizes = [torch.cuda.get_device_properties(number).total_memory / 2**30 for number in range(torch.cuda.device_count())]
        names = (f"{torch.cuda.get_device_name(number)}, {size:.0f} GiB" for number, size in enumerate(sizes))
        return Finding("GPU", "; ".join(names))
    seen = "none"
    if shutil.which("nvidia-smi"):
        seen = _first_line(["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"])
    problem = "no GPU: fp16, 4-bit loading and 7B models are out of reach; the demo and small models run"
    if seen != "none":
        problem = f"torch {torch.__version__} cannot use the GPU: install a CUDA build of torch and a driver that is new enough for it"
    return Finding("GPU", seen, problem)


def _packages() -> list[Finding]:
    """Return the versions of the libraries that decide what works."""
    import torch

    optional = {
        "liger-kernel": "",
        "bitsandbytes": "bitsandbytes is missing: no 8-bit optimizers or 4-bit bases",
        "deepspeed": "DeepSpeed is missing (it is Linux only): training runs in one process, without ZeRO",
    }
    findings = [Finding("CUDA in torch", torch.version.cuda or "no (CPU build)")]
    for name in PACKAGES:
        version = runtime.package_version(name)
        problem = optional.get(name, f"{name} is missing: install the project again (make install)") if version == "not installed" else ""
        findings.append(Finding(name, version, problem))
    return findings


def _first_line(command: list[str]) -> str:
    """Return the first line that a command prints, or "none"."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout.strip() or "none").splitlines()[0]
