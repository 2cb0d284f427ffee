"""The pages say what is true: commands, flags, files and tests exist, and the routes that the pages promise are walked as they stand."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from llama_gene import cli
from llama_gene.config import field_names
from tests.tiny_models import save_model, tiny_llama, tiny_tokenizer

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("launch/**/README.md")])
TREES = ("llama_gene", "vocab", "ds_configs", "launch", "benchmarks", "tests", "docs")
WORKED = "bash"  # the language of blocks that a reader runs here; sh: on another machine, or with files of his own


def blocks(page: Path, *languages: str) -> list[str]:
    """Return the fenced blocks of a page in some languages, in order."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language in languages]


def commands(text: str) -> list[str]:
    """Return the command lines of a shell block: continued lines joined, here-documents, quoted programs and comments left out."""
    text = re.sub(r"<<'(\w+)'\n.*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r'-c "\n.*?^"$', "", text.replace("\\\n", " "), flags=re.MULTILINE | re.DOTALL)
    return [part.strip() for line in text.splitlines() for part in re.split(r"&&|;", line.split(" #")[0]) if part.strip()]


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def test_the_readme_shows_a_command_before_line_20() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    start = lines.index("```bash")
    assert start + 1 < 20
    assert lines[start + 1 : start + 4] == ["git clone URL_OF_THIS_REPOSITORY llama-gene", "cd llama-gene", "make demo"]


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_name_stages_flags_targets_and_files_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    lines = [line for block in blocks(page, "bash", "sh") for line in commands(block)]
    lines += re.findall(r"`((?:llama-gene|make) [^`]+)`", text)
    for line in lines:
        words = shlex.split(line, comments=True)
        check_command([word for word in words if "=" not in word or word.startswith("--")], line)
    for target in re.findall(r"`make (\w+)`", text):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target


def check_command(words: list[str], line: str) -> None:
    """Check a command of ours: `llama-gene STAGE ...`, `make TARGET`, a launcher with launch/STAGE.py, or a script of vocab/."""
    if words[:1] == ["make"] and len(words) > 1:
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), line
    for place, word in enumerate(words):
        if re.match(r"(launch|vocab)/\w+\.(py|sh)$", word):
            assert (ROOT / word).is_file(), line
        if word.startswith("launch/") and word.endswith(".py"):
            check_flags(Path(word).stem, words[place + 1 :], line)
            return
    if words[:1] == ["llama-gene"] and len(words) > 1 and words[1] not in ("STAGE", "--help", "--version"):
        check_flags(words[1], words[2:], line)


def check_flags(stage: str, words: list[str], line: str) -> None:
    """Check that a stage exists and knows its flags, and that the files of ours that it is given are there."""
    assert stage in cli.STAGES, line
    if words and f"{stage} {words[0]}" in cli.PARTS:
        stage = f"{stage}_{words[0]}"
    known = {"config", "print_config", "help", *field_names(importlib.import_module(f"llama_gene.recipes.{stage}").Config)}
    for flag in (word[2:].split("=")[0] for word in words if word.startswith("--")):
        assert flag in known, f"{line}: --{flag}"
    for word in words:
        if word.startswith(("launch/", "ds_configs/", "vocab/")):
            assert (ROOT / word).exists(), line


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target
    for name in re.findall(rf"(?<![\w/.])((?:{'|'.join(TREES)})/[\w./*-]*\w/?)(?![\w{{*])", text):
        if not re.search(r"\b[A-Z]+\b(?!\.md)", name):  # launch/STAGE.py stands for any
            assert any(path.is_file() or any(path.iterdir()) for path in ROOT.glob(name.rstrip("/"))), name


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_no_page_names_a_path_of_one_machine(page: Path) -> None:
    assert not re.search(r"(?<![\w.])/(?:work|tmp|root|home|mnt|Users)/|shared/", page.read_text(encoding="utf-8"))


def test_the_tree_of_the_readme_is_the_tree() -> None:
    [tree] = [block for block in blocks(ROOT / "README.md", "text") if block.startswith("llama_gene/")]
    named = {(("llama_gene/" if line.startswith("  ") else "") + line.split()[0]).rstrip("/") for line in tree.splitlines()}
    for name in named:
        assert (ROOT / name).is_file() or any((ROOT / name).iterdir()), name  # version control keeps no empty folder
    hidden = {"__init__.py", "py.typed", "__pycache__"}
    packages = {f"llama_gene/{path.name}" for path in (ROOT / "llama_gene").iterdir() if path.name not in hidden}
    assert packages <= named


def test_every_page_is_linked_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in ROOT.glob("docs/*.md"):
        assert f"(docs/{page.name})" in readme, page.name


def test_laws_and_guarded_lines_of_the_papers_page_exist() -> None:
    page = (ROOT / "docs/papers.md").read_text(encoding="utf-8")
    sources = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_*.py")}
    existing = {name for text in sources.values() for name in re.findall(r"^def (test_\w+)", text, re.MULTILINE)}
    for name in re.findall(r"`(test_\w+)`", page):
        assert name in existing, name
    laws = {int(row.split("|")[1]): row for row in page.split("\n## ")[1].splitlines() if re.match(r"\| \d+ \|", row)}
    assert sorted(laws) == list(range(1, 16))
    for number, row in laws.items():
        tests = {name for name in existing if name.startswith(f"test_law_{number:02}_")}
        assert not tests or tests & set(re.findall(r"`(test_law_\w+)`", row)), f"law {number} has tests that docs/papers.md does not name"
        guarded = re.findall(r"`(llama_gene/[\w/]+\.py)`: `([^`]+)`", row)
        assert guarded or not tests, f"law {number} names no guarded line"
        for path, code in guarded:
            assert code in (ROOT / path).read_text(encoding="utf-8"), f"{path}: {code}"


def test_version_licence_and_citation_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"] == "Apache-2.0"
    assert len(citation["references"]) == 2
    assert project["version"] in (ROOT / "CHANGELOG.md").read_text()
    assert "Version 2.0, January 2004" in (ROOT / "LICENSE").read_text()


def test_a_fasta_and_a_csv_reach_a_scored_table_with_at_most_ten_lines_of_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import random

    run_yaml, task_yaml = blocks(ROOT / "docs/own_data.md", "yaml")[:2]
    written = [line for text in (run_yaml, task_yaml) for line in text.splitlines() if line.strip()]
    assert len(written) == 9  # as the pages say; at most ten were promised
    place = Path("launch/configs/own_data")
    for name, text in (("run.yaml", run_yaml), ("task.yaml", task_yaml)):
        assert yaml.safe_load((ROOT / place / name).read_text()) == yaml.safe_load(text), f"{place / name} is not what the page says"
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / place / name).write_text(text)
    rng = random.Random(0)
    data = tmp_path / "my_folder"
    data.mkdir()
    (data / "genome.fa").write_text("".join(f">contig{i}\n{''.join(rng.choices('ACGT', k=7000))}\n" for i in range(2)))
    rows = ["".join(rng.choices("ACGT", k=50)) for _ in range(60)]
    lines = [f"{row[:20] + 'TATAAAAG' + row[28:] if i % 2 else row},{'promoter' if i % 2 else 'other'}" for i, row in enumerate(rows)]
    (data / "labels.csv").write_text("sequence,label\n" + "\n".join(lines) + "\n")
    save_model(tiny_llama(), tiny_tokenizer(), tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    given = ["--data_dir", "my_folder", "--base", "base", "--num_questions", "0"]
    assert cli.main(["run", "--config", str(place / "run.yaml"), *given]) == 0
    table = (tmp_path / "runs/own_data/7_results/results.md").read_text()
    assert re.search(r"\| my_task \| classification \| accuracy \| \d+ \|( [\d.-]+ \|)+ [\d.]+ \[[\d.]+, [\d.]+\] \|", table)
    assert "| dna | base |" in table
    assert (tmp_path / "runs/own_data/8_model/model.safetensors").is_file()


def test_a_base_that_cannot_be_had_is_one_line_that_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise OSError("401 Client Error: gated repository")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    monkeypatch.setattr("time.sleep", lambda _: None)  # without a network the hub's library waits 46 s between its tries
    (tmp_path / "genome.fa").write_text(">chr\n" + "ACGTTGCA" * 100 + "\n")
    arguments = [
        "--config",
        str(ROOT / "launch/configs/own_data/run.yaml"),
        "--data_dir",
        str(tmp_path),
        "--base",
        "meta-llama/Llama-2-7b-hf",
    ]
    assert cli.main(["run", *arguments, "--output_dir", str(tmp_path / "run")]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("llama-gene run:")]
    for word in ("meta-llama/Llama-2-7b-hf", "HF_TOKEN", "HF_HOME", "HF_ENDPOINT", "huggyllama/llama-7b"):
        assert word in line
    assert not (tmp_path / "run/2_vocab").exists()


def test_the_walkthrough_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks in order: our own commands in this process (an import of torch each would take minutes), the rest in bash."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    ours = re.compile(r"^llama-gene (?:.*\\\n)*.*$", re.MULTILINE)
    for block in blocks(ROOT / "docs/walkthrough.md", WORKED):
        place = 0
        for match in ours.finditer(block):
            shell(block[place : match.start()])
            arguments = shlex.split(match.group().replace("\\\n", " "))[1:]
            assert cli.main(arguments) == 0, match.group()
            place = match.end()
        shell(block[place:])
    folder = tmp_path / "runs/walkthrough"
    assert sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0].isdigit()) == [
        "0_base", "1_corpus", "2_vocab", "3_rows", "4_pretrained", "5_instructions", "6_tuned", "7_results", "8_model",
    ]  # fmt: skip
    assert "simulated" in (folder / "7_results/results.md").read_text()


def shell(script: str) -> None:
    """Run a script of bash and stop at its first failure."""
    if script.strip():
        subprocess.run(["bash", "-euo", "pipefail", "-c", script], check=True, stdout=subprocess.DEVNULL)
