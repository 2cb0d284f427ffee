"""Stage 7, chat: ask a model questions in the terminal, one-shot, from held-out instructions, or in a conversation.

Over-long questions are refused in one line; neither the question nor the conversation is ever truncated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_gene import runtime
from llama_gene.errors import ConfigError, InputError

HELP = """Type a question, or paste a FASTA record (it ends with an empty line) and then ask about it.
/reset starts a new conversation, /quit leaves."""


@dataclass
class Config:
    """Ask a model."""

    model: str | None = None
    """Adapter or model folder, or a hub id."""
    question: list[str] | str = field(default_factory=list)
    """A question, or a list of them, answered one by one; a FASTA record after a question becomes its input. Empty: a conversation."""
    instructions: Path | None = None
    """Folder written by `llama-gene instruct`: ask held-out questions with known answers and mark them right or wrong."""
    num_questions: int = 20
    """How many of them, taken from the tasks in turn."""
    template: str | None = None
    """Prompt template; unset: the one that the model was tuned with."""
    max_new_tokens: int = 64
    """Longest answer, in tokens."""
    temperature: float = 0.0
    """0: always the likeliest token; above 0: drawn, the more freely the higher."""
    seed: int = 0
    """Seed of drawn tokens and of the choice of held-out questions."""


def run(config: Config) -> list[str]:
    """Answer; return the answers."""
    if config.model is None:
        raise ConfigError("no model is given", "--model FOLDER")
    if config.temperature < 0 or config.max_new_tokens < 1:
        raise ConfigError(f"temperature {config.temperature}, max_new_tokens {config.max_new_tokens}", "at least 0 and at least 1")
    if config.question and config.instructions is not None:
        raise ConfigError("question and instructions are both given", "one of them")
    held_out = _held_out(config) if config.instructions is not None else []

    from llama_gene.models.adapters import load_model

    manifest = Path(config.model) / runtime.MANIFEST_NAME
    facts = runtime.read_json(manifest) if manifest.is_file() else {}
    template = config.template or facts.get("template") or "alpaca"
    model, tokenizer = load_model(config.model)
    conversation = Conversation(model, tokenizer, template, config)
    if held_out:
        return _ask_held_out(conversation, held_out)
    if config.question:
        answers = []
        for question in [config.question] if isinstance(config.question, str) else config.question:
            print(f"> {question}")
            answers.append(conversation.ask(question, show=_print_piece))
            print()
            conversation.reset()
        return answers
    return _talk(conversation)


class Conversation:
    """A model with what was said so far."""

    def __init__(self, model: Any, tokenizer: Any, template: str, config: Config) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.template = template
        self.config = config
        self.history: list[tuple[str, str]] = []

    def reset(self) -> None:
        """Forget what was said."""
        self.history = []

    def ask(self, message: str, show: Callable[[str], None] | None = None) -> str:
        """Return the answer to a message, handing its pieces to `show` as they come; message and answer join the conversation.

        Raises InputError when conversation, message and room for the answer exceed the model's context; the message is not remembered then.
        """
        from llama_gene.data.prompts import encode_prompt, render_user
        from llama_gene.inference.generate import stream_answer

        user = render_user(*split_fasta(message), template=self.template)
        prompt = encode_prompt(self.tokenizer, user, self.template, self.history)
        answer = ""
        config = self.config
        for piece in stream_answer(self.model, self.tokenizer, prompt, config.max_new_tokens, config.temperature, config.seed):
            answer += piece
            if show is not None:
                show(piece)
        self.history.append((user, answer.strip()))
        return answer.strip()


def split_fasta(message: str) -> tuple[str, str]:
    """Return (instruction, sequence): the lines before the first FASTA header, and the records' lines joined without headers.

    Several records are joined with the pair separator. Lines of a sequence lose blanks and become upper case.

    >>> split_fasta("Determine the promoter of following dna sequence.\\n>chr1:1-8 test\\nacgt\\nACGT")
    ('Determine the promoter of following dna sequence.', 'ACGTACGT')
    >>> split_fasta("What is a gene?")
    ('What is a gene?', '')
    """
    question: list[str] = []
    records: list[list[str]] = []
    for line in message.splitlines():
        if line.startswith(">"):
            records.append([])
        elif records:
            records[-1].append("".join(line.split()).upper())
        else:
            question.append(line)
    return "\n".join(question).strip(), "\n####\n".join("".join(lines) for lines in records)


def _talk(conversation: Conversation) -> list[str]:
    """Hold a conversation on the terminal; return the answers."""
    print(HELP)
    answers: list[str] = []
    pasted = ""
    while True:
        try:
            line = input("> ").strip()
            if line.startswith(">"):
                pasted += _read_record(line)
                _, sequence = split_fasta(pasted)
                print(f"[{len(sequence):,} letters pasted; now ask about them]")
                continue
        except EOFError:
            print()
            return answers
        if line == "/quit":
            return answers
        if line == "/reset":
            conversation.reset()
            pasted = ""
            print("[new conversation]")
        elif line.startswith("/"):
            print(HELP)
        elif line:
            try:
                answers.append(conversation.ask(f"{line}\n{pasted}" if pasted else line, show=_print_piece))
                print()
            except InputError as error:  # said in one line, and the conversation goes on
                print(f"[{error}]")
            pasted = ""


def _read_record(header: str) -> str:
    """Return a FASTA record typed or pasted after its header, up to an empty line or the end of input."""
    lines = [header]
    while True:
        try:
            line = input().strip()
        except EOFError:
            break
        if not line:
            break
        lines.append(line)
    return "\n".join(lines) + "\n"


def _print_piece(piece: str) -> None:
    print(piece, end="", flush=True)


def _held_out(config: Config) -> list[dict[str, Any]]:
    """Return num_questions held-out examples, from the tasks in turn, drawn with the seed."""
    import random

    from llama_gene.data.instructions import read_examples

    assert config.instructions is not None
    runtime.read_manifest(config.instructions, "instruct")
    by_task: dict[str, list[dict[str, Any]]] = {}
    for example in read_examples(config.instructions / "test.jsonl"):
        by_task.setdefault(example["task"], []).append(dict(example))
    rng = random.Random(f"{config.seed}/questions")
    for rows in by_task.values():
        rng.shuffle(rows)
    longest = max((len(rows) for rows in by_task.values()), default=0)
    in_turn = [rows[turn] for turn in range(longest) for rows in by_task.values() if turn < len(rows)]
    if not in_turn:
        raise InputError(f"{config.instructions / 'test.jsonl'} has no example", "held-out questions", "Run `llama-gene instruct` again")
    return in_turn[: config.num_questions]


def _ask_held_out(conversation: Conversation, examples: Sequence[dict[str, Any]]) -> list[str]:
    """Ask each example apart, mark its answer, print one line each and the sum; return the answers."""
    from llama_gene.inference.metrics import semantic_match

    answers: list[str] = []
    num_right = num_refused = 0
    for number, example in enumerate(examples, start=1):
        conversation.reset()
        head = f"{number:3}. {example['task']}: {_brief(example['input'])}"
        try:
            # Not as text with a FASTA header: the input stands in the prompt exactly as in training.
            answer = _ask_example(conversation, example)
        except InputError as error:
            num_refused += 1
            print(f"{head}\n     refused: {error}")
            continue
        found = semantic_match(answer, example["labels"]) if example["labels"] else answer.strip()
        right = found is not None and found.lower() == example["output"].strip().lower()
        num_right += right
        answers.append(answer)
        print(f"{head}\n     {'right' if right else 'WRONG'}: '{answer}'" + ("" if right else f", known answer '{example['output']}'"))
    asked = len(examples) - num_refused
    print(f"{num_right} of {asked} right" + (f", {num_refused} refused as too long" if num_refused else ""))
    return answers


def _ask_example(conversation: Conversation, example: dict[str, Any]) -> str:
    """Return the model's answer to an instruction example."""
    from llama_gene.data.prompts import encode_prompt, render_user
    from llama_gene.inference.generate import generate_answers

    config = conversation.config
    user = render_user(example["instruction"], example["input"], conversation.template)
    prompt = encode_prompt(conversation.tokenizer, user, conversation.template)
    return generate_answers(
        conversation.model, conversation.tokenizer, [prompt], config.max_new_tokens, temperature=config.temperature, seed=config.seed
    )[0]


def _brief(text: str, width: int = 60) -> str:
    """Return a text in one line of at most `width` letters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 3] + "..."
