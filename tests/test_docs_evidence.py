"""The example of docs/evidence.md runs as it stands, on a regression head that is trained here."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from tests.test_recipes_classify_heads import run, value_task
from tests.tiny_models import save_model, tiny_llama, tiny_tokenizer

PAGE = Path(__file__).resolve().parents[1] / "docs" / "evidence.md"


def test_the_tool_call_of_the_page_cites_the_number_of_a_trained_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_model(tiny_llama(), tiny_tokenizer(), tmp_path / "base")
    run(model, value_task(tmp_path / "task", 24), tmp_path / "runs" / "strength", "regression")
    monkeypatch.chdir(tmp_path)
    [program] = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (tmp_path / "example.py").write_text(program)
    runpy.run_path(str(tmp_path / "example.py"))
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(r"The predicted strength is -?\d[\d.e+]*, says predict_regression\.", last), last
