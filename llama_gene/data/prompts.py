"""The prompt contract: one text around every question and answer, rendered to the same tokens wherever it is used.

Training, evaluation, chat, servers and exports all go through this module, or through the chat template that it writes, so that a model
never meets a prompt that it was not trained on (in the reference code training ended in `### Response: `, testing in `### Response:` and
a line break). One turn of the default template, `alpaca` (design.md section 4.4; LLaMA-Gene section 2.2.2; DNAHLM section 2.2):

    Below is an instruction that describes a task. Write a response that appropriately completes the request.

    ### Instruction:
    {user message}

    ### Response:
    {answer}{EOS}

The user message is the instruction or, with an input, the instruction, a blank line, `### Input:`, a newline and the input. Token ids are
[BOS, where the tokenizer has one] + prompt + answer + EOS; in a conversation the whole turn is repeated after each EOS.

Prompt and answer are encoded apart, so that the prompt's ids are by construction a prefix of prompt + answer's ids. The answer is encoded
behind the end of the prompt and the ids of that end are taken off again: a SentencePiece vocabulary would otherwise put its dummy prefix
(a space) in front of every answer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_gene.errors import ConfigError, InputError, did_you_mean
from llama_gene.runtime import fingerprint
from llama_gene.tokenization.tokenizer import encode_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class PromptTemplate:
    """The fixed texts of one turn: `before` user message `after` answer EOS."""

    name: str
    before: str
    """What precedes the user message."""
    after: str
    """What stands between the user message and the answer."""
    input_header: str
    """What stands between an instruction and its input inside a user message."""


ALPACA = PromptTemplate(
    name="alpaca",
    before=(
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\n"
    ),
    after="\n\n### Response:\n",
    input_header="\n\n### Input:\n",
)

# DNAHLM (section 2.2, step 3) prints the same text, so its name is only another name: both have the same fingerprint.
_TEMPLATES = {"alpaca": ALPACA, "dnahlm": ALPACA}


def get_template(name: str = "alpaca") -> PromptTemplate:
    """Return the template of that name. Raises ConfigError naming the nearest one.

    >>> get_template("dnahlm") is get_template("alpaca")
    True
    """
    if name not in _TEMPLATES:
        raise ConfigError(f"prompt template '{name}' is not known", f"one of {', '.join(_TEMPLATES)}", did_you_mean(name, _TEMPLATES))
    return _TEMPLATES[name]


def render_user(instruction: str, input: str = "", template: str | PromptTemplate = "alpaca") -> str:
    """Return the user message of an instruction and its (possibly empty) input.

    >>> render_user("Determine the splice sites.", "ACGT")
    'Determine the splice sites.\\n\\n### Input:\\nACGT'
    >>> render_user("Say hello.", "")
    'Say hello.'
    """
    return instruction + _resolve(template).input_header + input if input else instruction


def render_prompt(user_message: str, template: str | PromptTemplate = "alpaca") -> str:
    """Return the text of one turn up to where the answer begins (without BOS)."""
    resolved = _resolve(template)
    return resolved.before + user_message + resolved.after


def encode_prompt(
    tokenizer: PreTrainedTokenizerFast,
    user_message: str,
    template: str | PromptTemplate = "alpaca",
    history: Sequence[tuple[str, str]] = (),
) -> list[int]:
    """Return the ids of [BOS] + earlier turns + this turn up to where the answer begins.

    `history` holds the earlier (user message, answer) turns, oldest first. User text that spells a special token ("</s>") stays text.
    """
    ids = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
    for earlier_message, answer in history:
        ids += encode_text(tokenizer, render_prompt(earlier_message, template)) + encode_answer(tokenizer, answer, template)
    return ids + encode_text(tokenizer, render_prompt(user_message, template))


def encode_answer(tokenizer: PreTrainedTokenizerFast, answer: str, template: str | PromptTemplate = "alpaca") -> list[int]:
    """Return the ids of an answer as they follow the prompt's ids, EOS last.

    Raises InputError when the tokenizer has no end-of-sequence token: an answer without one never ends.
    """
    if tokenizer.eos_token_id is None:
        name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        raise InputError(f"tokenizer {name} has no end-of-sequence token", "an eos_token", "Set eos_token in its tokenizer_config.json")
    return [*encode_after(tokenizer, _resolve(template).after, answer), int(tokenizer.eos_token_id)]


def encode_after(tokenizer: PreTrainedTokenizerFast, before: str, text: str) -> list[int]:
    """Return the ids that `text` has when it follows `before`: ids(before + text) minus ids(before).

    Where a token would reach across the seam (a text that begins with a newline, say), a shorter end of `before` is tried; the last
    resort is the text's own encoding.
    """
    for anchor in (before, before[-1:]):
        anchor_ids = encode_text(tokenizer, anchor)
        ids = encode_text(tokenizer, anchor + text)
        if ids[: len(anchor_ids)] == anchor_ids:
            return ids[len(anchor_ids) :]
    return encode_text(tokenizer, text)


def chat_template(template: str | PromptTemplate = "alpaca") -> str:
    """Return the Jinja chat template that renders the same text: BOS where there is one, turns, EOS after each answer.

    With `add_generation_prompt` the text ends where the answer begins. A role other than user and assistant is refused, not dropped.
    """
    resolved = _resolve(template)
    before, after = json.dumps(resolved.before), json.dumps(resolved.after)
    refusal = json.dumps("This prompt template has user and assistant turns only; put other text into the user message.")
    return (
        "{%- if bos_token %}{{ bos_token }}{% endif -%}"
        "{%- for message in messages -%}"
        "{%- if message['role'] == 'user' -%}"
        f"{{{{ {before} + message['content'] }}}}"
        "{%- elif message['role'] == 'assistant' -%}"
        f"{{{{ {after} + message['content'] + eos_token }}}}"
        f"{{%- else -%}}{{{{ raise_exception({refusal}) }}}}{{%- endif -%}}"
        "{%- endfor -%}"
        f"{{%- if add_generation_prompt %}}{{{{ {after} }}}}{{% endif -%}}"
    )


def prompt_fingerprint(template: str | PromptTemplate = "alpaca") -> str:
    """Return 16 hex digits that name the rendered text: two names for the same text have the same fingerprint."""
    resolved = _resolve(template)
    return fingerprint([resolved.before, resolved.input_header, resolved.after])


def _resolve(template: str | PromptTemplate) -> PromptTemplate:
    return template if isinstance(template, PromptTemplate) else get_template(template)
