"""The stage `doctor`: what it sees, and what it says will not work."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import namedtuple
from typing import Any

import psutil
import pytest
import torch

from llama_gene import runtime
from llama_gene.errors import MachineError
from llama_gene.recipes import doctor
from llama_gene.recipes.doctor import Config, Finding, run

Disk = namedtuple("Disk", "total used free")


def problems() -> str:
    return " | ".join(finding.problem for finding in run(Config()) if finding.problem)


def test_it_prints_a_line_for_each_finding(capsys: pytest.CaptureFixture[str]) -> None:
    findings = run(Config())
    names = [finding.name for finding in findings]
    assert names[:8] == ["system", "cores", "memory", "disk", "C++ compiler", "Python headers", "GPU", "compiled ops"]
    assert set(doctor.PACKAGES) < set(names)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[: len(names)]] == names
    assert Finding("torch", torch.__version__) in findings


def test_little_disk_and_memory_are_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Disk(0, 0, 2**30))
    memory = psutil.virtual_memory()._replace(total=2 * 2**30, available=2**30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert "less than 4 GB of memory" in problems() and "less than 2 GiB of disk" in problems()


@pytest.mark.skipif(sys.platform != "linux", reason="DeepSpeed compiles on Linux only")
def test_a_missing_compiler_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "no C++ compiler: DeepSpeed on CPU cannot compile its ops (Debian: apt-get install g++)" in problems()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU that torch can use")
def test_no_gpu_and_a_gpu_that_torch_cannot_use_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "no GPU: fp16, 4-bit loading and 7B models are out of reach" in problems()
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(doctor, "_first_line", lambda command: "NVIDIA H200, 143771 MiB")
    found = next(finding for finding in run(Config()) if finding.name == "GPU")
    assert found.value == "NVIDIA H200, 143771 MiB" and "cannot use the GPU: install a CUDA build of torch" in found.problem


def test_missing_packages_say_what_they_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "package_version", lambda name: "not installed")
    said = problems()
    assert "DeepSpeed is missing (it is Linux only): training runs in one process, without ZeRO" in said
    assert "peft is missing: install the project again (make install)" in said
    assert "liger-kernel" not in said  # an extra


def test_a_command_that_says_nothing_is_none() -> None:
    assert doctor._first_line([sys.executable, "-c", "pass"]) == "none"
    assert doctor._first_line([sys.executable, "-c", "print('a'); print('b')"]) == "a"


@pytest.mark.skipif(sys.platform != "linux" or torch.cuda.is_available(), reason="compiled on Linux without a GPU only")
def test_an_op_that_cannot_be_compiled_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder

    def refuse(self: Any, verbose: bool = True) -> None:
        raise subprocess.CalledProcessError(1, ["c++"])

    monkeypatch.setattr(ShareMemCommBuilder, "load", refuse)
    with pytest.raises(MachineError, match=r"DeepSpeed's CPU op cannot be compiled: .*; expected a C\+\+ compiler"):
        run(Config(build_ops=True))
