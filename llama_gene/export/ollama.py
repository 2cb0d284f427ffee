"""An Ollama Modelfile beside the GGUF file: the same prompt as training, evaluation and chat, and answers that are not drawn by lot.

Ollama writes its templates in Go's template language. The fixed texts stand in it as quoted strings, so that no editor or parser can
take a newline away. BOS is not among them: llama.cpp puts it before the text. A last turn of the assistant is an answer to go on with,
so it gets no EOS. A system message has no place in the prompt and ends in an error, as in our chat template, not in silence.
"""

from __future__ import annotations

import json

from llama_gene.data.prompts import PromptTemplate

CONTEXT = 8192
"""Ollama reserves memory for the whole context when it loads a model: more than this only by the user's own hand."""


def modelfile(gguf_name: str, template: PromptTemplate, eos: str, max_length: int, title: str) -> str:
    """Return the text of a Modelfile for `ollama create NAME -f Modelfile`.

    `max_length` is the longest input of the model, in tokens. Decoding is greedy and without Ollama's penalty on repeated tokens,
    which would forbid a gene its repeats.
    """
    return "\n".join(
        [
            f"# {title}",
            f"FROM ./{gguf_name}",
            f'TEMPLATE """{go_template(template, eos)}"""',
            "PARAMETER temperature 0",
            "PARAMETER repeat_penalty 1",
            f"PARAMETER stop {_quoted(eos)}",
            f"# Ollama cuts a longer prompt without a word. The model reads up to {max_length:,} tokens.",
            f"PARAMETER num_ctx {min(max_length, CONTEXT)}",
            "",
        ]
    )


def go_template(template: PromptTemplate, eos: str) -> str:
    """Return the prompt as a Go template over Ollama's `.Messages`.

    >>> "Q: " in go_template(PromptTemplate("short", "Q: ", "\\nA: ", "\\n"), "</s>")
    True
    """
    return (
        "{{- range $i, $message := .Messages -}}"
        '{{- if eq $message.Role "user" -}}'
        f"{{{{ {_quoted(template.before)} }}}}{{{{ $message.Content }}}}{{{{ {_quoted(template.after)} }}}}"
        '{{- else if eq $message.Role "assistant" -}}'
        "{{ $message.Content }}"
        f"{{{{ if gt (len (slice $.Messages $i)) 1 }}}}{{{{ {_quoted(eos)} }}}}{{{{ end }}}}"
        '{{- else -}}{{ slice "user and assistant turns only" 99 }}'
        "{{- end -}}"
        "{{- end -}}"
    )


def _quoted(text: str) -> str:
    """Return a text as a string of Go, which JSON's are (below U+10000 with escapes, above it as themselves)."""
    return json.dumps(text, ensure_ascii=False)
