"""The command line: stages, help, exit codes."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import time
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llama_gene import cli, runtime
from llama_gene.config import parse
from llama_gene.errors import InputError


def test_help_names_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"], ["-h"], ["help"]):
        assert cli.main(arguments) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines if re.match(r"  \S", line)] == list(cli.STAGES)


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"llama-gene {runtime.package_version()}\n"


def test_help_answers_in_under_half_a_second() -> None:
    program = [sys.executable, "-m", "llama_gene.cli", "--help"]
    times = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run(program, capture_output=True, check=True)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.5, f"best of 5: {min(times):.2f} s"


@pytest.mark.parametrize("stage", cli.STAGES)
def test_every_stage_has_a_recipe_with_documented_defaults(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = importlib.import_module(f"llama_gene.recipes.{stage}")
    assert is_dataclass(recipe.Config) and callable(recipe.run)
    assert isinstance(parse(stage, recipe.Config, []), recipe.Config)  # every key has a default
    with pytest.raises(SystemExit) as leaving:
        cli.main([stage, "--help"])
    assert leaving.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for item in fields(recipe.Config):
        assert f"--{item.name}" in text
    assert cli.STAGES[stage] in text


@dataclass
class Config:
    """A stage for tests."""

    seed: int = 0
    """Seed."""
    output_dir: Path | None = None
    """Output."""


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A stage `try` whose recipe notes its config, or raises what is put into the list."""
    calls: list[Any] = []

    def run(config: Config) -> None:
        if calls and isinstance(calls[0], BaseException):
            raise calls[0]
        calls.append(config)

    monkeypatch.setitem(cli.STAGES, "try", "a stage for tests")
    monkeypatch.setitem(sys.modules, "llama_gene.recipes.try", SimpleNamespace(Config=Config, run=run))  # type: ignore[arg-type]
    return calls


def test_a_stage_gets_its_config_and_the_exit_code_is_0(stage: list[Any]) -> None:
    assert cli.main(["try", "--seed", "3"]) == 0
    assert stage == [Config(3)]


@pytest.mark.parametrize("argument", ["--local_rank=1", "--local-rank=1"])
def test_the_launchers_local_rank_is_accepted(stage: list[Any], argument: str) -> None:
    assert cli.main(["try", argument, "--seed", "3"]) == 0
    assert stage == [Config(3)]


def test_what_a_user_can_mend_is_one_line_and_exit_code_2(stage: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    stage.append(InputError("genome.fa,\n line 3: '*'", "DNA letters", "Mend it"))
    assert cli.main(["try"]) == 2
    assert capsys.readouterr().err == "llama-gene try: genome.fa, line 3: '*'; expected DNA letters. Mend it.\n"


def test_a_file_that_may_not_be_read_is_one_line(stage: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    stage.append(PermissionError(13, "Permission denied", "/root/genome.fa"))
    assert cli.main(["try"]) == 2
    assert capsys.readouterr().err == "llama-gene try: /root/genome.fa: Permission denied. Use a path that is yours.\n"


def test_what_is_our_fault_keeps_its_traceback(stage: list[Any]) -> None:
    stage.append(ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        cli.main(["try"])


def test_interrupted_is_130(stage: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    stage.append(KeyboardInterrupt())
    assert cli.main(["try"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_an_unknown_stage_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pretrian"]) == 2
    line = capsys.readouterr().err
    assert line.startswith("llama-gene pretrian: there is no stage 'pretrian'; expected one of corpus, vocab, ")
    assert line.endswith("Did you mean 'pretrain'?\n")


def test_an_output_folder_is_refused_before_the_work(stage: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert cli.main(["try", "--output_dir", str(tmp_path)]) == 2
    assert "holds files and is not an earlier output" in capsys.readouterr().err
    runtime.write_manifest(tmp_path, "corpus", {})
    assert cli.main(["try", "--output_dir", str(tmp_path)]) == 2
    assert "is an output of `corpus`; expected a new folder, or one of `try`" in capsys.readouterr().err
    assert stage == []
    runtime.write_manifest(tmp_path, "try", {})
    assert cli.main(["try", "--output_dir", str(tmp_path)]) == 0


def test_script_runs_a_stage_with_the_arguments_of_the_process(stage: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["launch/try.py", "--local_rank=0", "--seed", "5"])
    with pytest.raises(SystemExit) as leaving:
        cli.script("try")
    assert leaving.value.code == 0 and stage == [Config(5)]
