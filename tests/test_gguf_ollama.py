"""The Modelfile: what Ollama renders is the prompt of training, to the letter."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from llama_gene.data.prompts import ALPACA, PromptTemplate, get_template, render_prompt, render_user
from llama_gene.export.ollama import go_template, modelfile

CONVERSATIONS = [
    [("user", "Say hello.")],
    [("user", render_user("Determine the promoter of following dna sequence.", "ACGT{{ .Content }}\n\"'"))],
    [("user", "One."), ("assistant", "1"), ("user", "Two.")],
    [("user", "One."), ("assistant", "unfinish")],
]
TEMPLATES = [ALPACA, PromptTemplate("odd", 'é "quoted" {{ braces }}\n', "\n\\ \t", "\n")]


def expected(template: PromptTemplate, turns: list[tuple[str, str]], eos: str) -> str:
    """Return the prompt by `render_prompt`; an unfinished answer at the end has no EOS."""
    text = "".join(render_prompt(content, template) if role == "user" else content + eos for role, content in turns)
    return text.removesuffix(eos) if turns[-1][0] == "assistant" else text


def render(template: str, turns: list[tuple[str, str]]) -> str:
    """Render a Go template of this shape: one `range` over the messages, one `if` by role, one by position."""
    head, user, assistant, last = re.fullmatch(
        r"(\{\{- range .*? -\}\}\{\{- if .*? -\}\})(.*)\{\{- else if .*? -\}\}(.*)\{\{- else -\}\}(.*)\{\{- end -\}\}\{\{- end -\}\}",
        template, re.DOTALL,
    ).groups()  # type: ignore[union-attr]  # fmt: skip
    assert "$.Messages" not in head and last.startswith("{{ slice")
    text = ""
    for place, (role, content) in enumerate(turns):
        body = {"user": user, "assistant": assistant}[role]
        body = re.sub(r"\{\{ if gt .*? \}\}(.*)\{\{ end \}\}", r"\1" if place < len(turns) - 1 else "", body, flags=re.DOTALL)
        for quoted, field in re.findall(r'\{\{ (?:("(?:[^"\\]|\\.)*")|(\$message\.Content)) \}\}', body):
            text += json.loads(quoted) if quoted else content if field else ""
    return text


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
@pytest.mark.parametrize("turns", CONVERSATIONS)
def test_the_template_renders_our_prompt(template: PromptTemplate, turns: list[tuple[str, str]]) -> None:
    assert render(go_template(template, "</s>"), turns) == expected(template, turns, "</s>")


GO = """
package main

import ("encoding/json"; "os"; "text/template")

type Message struct{ Role, Content string }

func main() {
	var jobs []struct { Template string; Messages []Message }
	json.NewDecoder(os.Stdin).Decode(&jobs)
	for _, job := range jobs {
		parsed := template.Must(template.New("").Parse(job.Template))
		err := parsed.Execute(os.Stdout, map[string]any{"Messages": job.Messages})
		if err != nil { os.Stdout.WriteString("ERROR " + err.Error()) }
		os.Stdout.WriteString("\\x00")
	}
}
"""


@pytest.mark.skipif(shutil.which("go") is None, reason="no Go compiler: the template is read by Python only")
def test_gos_own_template_engine_renders_our_prompt_and_refuses_a_system_message(tmp_path: Path) -> None:
    (tmp_path / "render.go").write_text(GO)
    cases = [(template, turns) for template in TEMPLATES for turns in [*CONVERSATIONS, [("system", "Be brief."), ("user", "Hi.")]]]
    jobs = [
        {"Template": go_template(template, "</s>"), "Messages": [{"Role": role, "Content": content} for role, content in turns]}
        for template, turns in cases
    ]
    command = ["go", "run", str(tmp_path / "render.go")]
    done = subprocess.run(command, input=json.dumps(jobs), cwd=tmp_path, capture_output=True, text=True, timeout=500, check=True)
    for (template, turns), found in zip(cases, done.stdout.split("\x00"), strict=False):
        if turns[0][0] == "system":
            assert found.startswith("ERROR") and "user and assistant" in found
        else:
            assert found == expected(template, turns, "</s>")


def test_the_modelfile_names_file_prompt_and_greedy_decoding() -> None:
    text = modelfile("m-q8_0.gguf", get_template(), "</s>", 4096, "m")
    lines = text.splitlines()
    assert (
        lines[:2] == ["# m", "FROM ./m-q8_0.gguf"] and lines[2].startswith('TEMPLATE """{{- range') and lines[2].endswith('{{- end -}}"""')
    )
    assert lines[3:] == [
        "PARAMETER temperature 0", "PARAMETER repeat_penalty 1", 'PARAMETER stop "</s>"',
        "# Ollama cuts a longer prompt without a word. The model reads up to 4,096 tokens.", "PARAMETER num_ctx 4096",
    ]  # fmt: skip
    assert "PARAMETER num_ctx 8192" in modelfile("m.gguf", get_template(), "</s>", 131072, "m")
