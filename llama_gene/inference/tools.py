"""Tool calls: a model hands a question to a small trained model and answers with its number (LLaMA-Gene 2.2.2.5, "function call format").

    question + the tools there are      ->  the model answers with one block and nothing else:

        ```tool_call
        {"name": "predict_regression", "arguments": {"model": "promoter_strength", "sequence": "input"}}
        ```

    the call is checked, the tool runs  ->  its number is the next message  ->  the model answers, citing the number

*Strict.* A call is JSON of exactly `name` and `arguments`; the name is one of the registered tools; the arguments are exactly the tool's
parameters, each one of a closed list or a sequence of the tool's alphabet ("input" stands for the sequence of the question, so a model
need not copy it). Nothing in a block is ever executed: a name picks a function from a table that the caller made. What is wrong with a
call is told to the model, which may try again; after MOST_CALLS its last answer stands, and `ToolAnswer` says that nothing was predicted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llama_gene.data.prompts import encode_prompt, render_user
from llama_gene.errors import ConfigError, InputError, did_you_mean
from llama_gene.sequences.alphabet import check_letters, get_alphabet

MARK = "tool_call"
INPUT = "input"
MOST_CALLS = 3
MOST_LETTERS = 20_000
"""Letters of an answer that is read as a call."""
_BLOCK = re.compile(rf"```{MARK}\n(.*?)\n?```", re.DOTALL)

Answerer = Callable[[Sequence[tuple[str, str]], str], str]
"""What answers: given the earlier (message, answer) turns and a message. A model (`model_answerer`), or a script."""


@dataclass(frozen=True)
class Parameter:
    """An argument of a tool: one of `choices`, or a sequence of the alphabet `kind`. Exactly one of the two is set."""

    kind: str = ""
    choices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.kind) == bool(self.choices):
            raise ConfigError("a parameter of both or none of kind and choices", "one of them")


@dataclass(frozen=True)
class Tool:
    """A function that a model may call by name; it gets checked arguments and returns a number."""

    name: str
    description: str
    parameters: Mapping[str, Parameter]
    call: Callable[[Mapping[str, str]], float]


@dataclass(frozen=True)
class ToolCall:
    """A checked call, "input" already replaced by the question's sequence."""

    name: str
    arguments: dict[str, str]


@dataclass
class ToolAnswer:
    """The last answer, what was called with which result, the faults of calls that were refused, and whether each number is cited."""

    text: str = ""
    results: list[tuple[ToolCall, float]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    @property
    def is_cited(self) -> bool:
        """Whether the text holds every number that a tool returned, as it was told to the model."""
        numbers = re.findall(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?", self.text)
        return bool(self.results) and all(spoken(value) in numbers for _, value in self.results)


def describe_tools(tools: Sequence[Tool]) -> str:
    """Return what a question says of the tools."""
    lines = ["Tools:"]
    for tool in tools:
        said = [f"{name} ({'one of ' + ', '.join(p.choices) if p.choices else p.kind})" for name, p in tool.parameters.items()]
        lines.append(f"{tool.name}: {tool.description} Arguments: {'; '.join(said)}")
    lines.append(f'To call one, answer with a {MARK} block and nothing else; "{INPUT}" stands for the sequence of the question.')
    return "\n".join(lines)


def render_call(name: str, arguments: Mapping[str, str]) -> str:
    """Return a call as a model writes it.

    >>> print(render_call("predict_regression", {"model": "strength", "sequence": "input"}))
    ```tool_call
    {"name": "predict_regression", "arguments": {"model": "strength", "sequence": "input"}}
    ```
    """
    return f"```{MARK}\n{json.dumps({'name': name, 'arguments': dict(arguments)}, ensure_ascii=False)}\n```"


def parse_call(text: str, tools: Sequence[Tool], sequence: str = "") -> ToolCall | None:
    """Return the call that an answer is; None for an answer that holds none. Raises InputError for anything that is not a whole call."""
    if MARK not in text:
        return None
    if len(text) > MOST_LETTERS:
        raise InputError(f"a call of {len(text):,} letters", f"at most {MOST_LETTERS:,}", f'Write "{INPUT}" for the sequence')
    match = _BLOCK.fullmatch(text.strip())
    if match is None or text.count(MARK) > 1:
        raise InputError("a call with other text around it, cut short, or several", f"one {MARK} block and nothing else")
    try:
        value = json.loads(match[1], object_pairs_hook=_unique)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"a call that is no JSON ({error})", '{"name": ..., "arguments": {...}}') from error
    if not isinstance(value, dict) or set(value) != {"name", "arguments"} or not isinstance(value["arguments"], dict):
        raise InputError("a call of other keys", '{"name": ..., "arguments": {...}}')
    known = {tool.name: tool for tool in tools}
    if not isinstance(value["name"], str) or value["name"] not in known:
        raise InputError(f"a call of '{value['name']}'", f"one of {', '.join(known)}", did_you_mean(str(value["name"]), known))
    return ToolCall(value["name"], _checked(known[value["name"]], value["arguments"], sequence))


def converse(answer: Answerer, instruction: str, sequence: str, tools: Sequence[Tool], template: str = "alpaca") -> ToolAnswer:
    """Return the answer to a question about a sequence, after the calls that it took (at most MOST_CALLS)."""
    told = ToolAnswer()
    history: list[tuple[str, str]] = []
    message = render_user(f"{instruction}\n\n{describe_tools(tools)}", sequence, template)
    known = {tool.name: tool for tool in tools}
    for _ in range(MOST_CALLS):
        told.text = answer(history, message)
        history.append((message, told.text))
        try:
            call = parse_call(told.text, tools, sequence)
            if call is None:
                return told
            value = float(known[call.name].call(call.arguments))
        except InputError as error:
            told.refused.append(str(error))
            message = f"The call was refused: {error}"
            continue
        told.results.append((call, value))
        message = f"{call.name} returned {spoken(value)}. Answer the question and cite this number."
    told.text = answer(history, message)
    return told


def model_answerer(model: Any, tokenizer: Any, template: str = "alpaca", max_new_tokens: int = 128) -> Answerer:
    """Return a model as something that answers, greedily."""
    from llama_gene.inference.generate import generate_answers

    def answer(history: Sequence[tuple[str, str]], message: str) -> str:
        prompt = encode_prompt(tokenizer, message, template, history)
        return generate_answers(model, tokenizer, [prompt], max_new_tokens)[0].strip()

    return answer


def spoken(value: float) -> str:
    """Return a number as the model is told it: four digits.

    >>> spoken(0.123456), spoken(-2.0)
    ('0.1235', '-2')
    """
    return f"{value:.4g}"


def _checked(tool: Tool, arguments: Mapping[str, Any], sequence: str) -> dict[str, str]:
    """Return arguments that a tool may be called with. Raises InputError."""
    if set(arguments) != set(tool.parameters):
        raise InputError(f"{tool.name} with {', '.join(arguments) or 'no arguments'}", f"exactly {', '.join(tool.parameters)}")
    checked = {}
    for name, parameter in tool.parameters.items():
        value = arguments[name]
        if not isinstance(value, str) or not value:
            raise InputError(f"{name} is no text", "text in quotes")
        if parameter.choices and value not in parameter.choices:
            raise InputError(f"{name} '{value}'", f"one of {', '.join(parameter.choices)}", did_you_mean(value, parameter.choices))
        if parameter.kind:
            value = sequence if value == INPUT else value
            if not value:
                raise InputError("the question has no sequence", "one, or the letters in the call")
            check_letters(value, get_alphabet(parameter.kind), f"argument {name}")
        checked[name] = value
    return checked


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's keys. Raises InputError for one that is given twice."""
    if len({key for key, _ in pairs}) < len(pairs):
        raise InputError("a call with a key twice", "each key once")
    return dict(pairs)
