"""Layers: who may import whom, and what the first import costs."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "transformers", "tokenizers", "peft", "datasets", "deepspeed", "numpy", "scipy", "sklearn", "matplotlib")


def contracts() -> list[dict[str, object]]:
    with (ROOT / "pyproject.toml").open("rb") as handle:
        return list(tomllib.load(handle)["tool"]["importlinter"]["contracts"])


def test_the_contracts_hold() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([str(lint), "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Contracts: {len(contracts())} kept, 0 broken." in done.stdout


def test_the_linter_sees_a_broken_layer(tmp_path: Path) -> None:
    """The check can fail: an import upwards and a torch import below `models` are both found in a copy of the tree's shape."""
    package = tmp_path / "llama_gene"
    for layer in ("", "recipes", "web", "export", "inference", "training", "models", "data", "tokenization", "sequences"):
        (package / layer).mkdir()
        (package / layer / "__init__.py").touch()
    for module in ("cli", "config", "runtime", "errors"):
        (package / f"{module}.py").touch()
    (package / "data" / "__init__.py").write_text("def late():\n    import torch\n    import llama_gene.training\n")
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([str(lint), "--no-cache"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Contracts: 0 kept, 2 broken." in done.stdout, done.stdout + done.stderr


def test_every_part_of_the_package_has_a_layer() -> None:
    package = ROOT / "llama_gene"
    parts = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()} - {"__init__"}
    layers = next(contract["layers"] for contract in contracts() if contract["type"] == "layers")
    assert isinstance(layers, list)
    assert {name.strip().removeprefix("llama_gene.") for layer in layers for name in layer.split("|")} == parts


@pytest.mark.parametrize("module", ["llama_gene", "llama_gene.cli", "llama_gene.config", "llama_gene.runtime"])
def test_the_first_imports_load_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_configs_of_all_stages_are_read_without_torch() -> None:
    code = "import sys, importlib; from llama_gene import cli, config\n"
    code += "for stage in cli.STAGES:\n    config.parse(stage, importlib.import_module(f'llama_gene.recipes.{stage}').Config, [])\n"
    code += "print([name for name in ('torch', 'peft', 'datasets', 'sklearn', 'matplotlib') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stdout + done.stderr


def test_the_public_names_are_there_and_a_wrong_one_is_refused() -> None:
    import llama_gene

    assert dir(llama_gene) == sorted(llama_gene.__all__)
    assert llama_gene.reverse_complement("ATGC") == "GCAT"
    with pytest.raises(AttributeError, match="no attribute 'reverse'"):
        llama_gene.reverse  # noqa: B018
