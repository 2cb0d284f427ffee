"""Stage 7, chat: ask a model questions one-shot, from held-out instructions, in a conversation, or (`--web`) on a page in the browser.

A conversation takes text, FASTA records and commands (`HELP`). With `/task NAME` every sequence that is pasted or loaded is asked in that
task's words and answered by the probability of each label, drawn as bars; without, the model writes its answer token by token. With
`--evidence` the prompt cites the nearest annotated sequences of an index, and they are shown under the answer. Ctrl-C
stops an answer, not the chat; piped input works as typed input does. Over-long questions are refused in one line with the numbers;
neither the question nor the conversation is ever truncated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_gene import runtime
from llama_gene.errors import ConfigError, InputError, LlamaGeneError, MachineError, MismatchError

if TYPE_CHECKING:
    from llama_gene.data.askable import AskableTasks
    from llama_gene.data.evidence import Cited, EvidenceSource

HELP = """Type a question, or paste FASTA records (an empty line ends them) and then ask about them.
/task NAME     ask that task of every sequence from now on; /task lists them, /task off ends it
/load FILE     ask the task of each record of a FASTA or FASTQ file, plain or compressed
/history       what was said so far
/save FILE     write it down, as JSON
/reset         a new conversation
/help, /quit   this text; leave (as Ctrl-D does). Ctrl-C stops an answer."""


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
    tasks: list[Path] = field(default_factory=list)
    """Tasks for `/task`: YAML files, folders of them, or a folder written by `llama-gene instruct`. Empty: those that the model was tuned
    on, which an export carries and an adapter's manifest names by their folder, where that is still there."""
    words: str = "default"
    """Words of the instructions of `tasks` that are YAML files: default, paper or dnahlm."""
    max_records: int = 1000
    """Most records of a file or a paste that are asked at a time; with more nothing is asked."""
    template: str | None = None
    """Prompt template; unset: the one that the model was tuned with."""
    evidence: Path | None = None
    """Folder written by `llama-gene index`: the nearest annotated sequences of each asked sequence stand in its prompt, as many as fit, and
    under the answer."""
    evidence_max_identity: float = 1.0
    """Records with an alignment above this share of equal letters are passed over."""
    evidence_hits: int = 3
    """At most so many neighbours a sequence."""
    max_new_tokens: int = 64
    """Longest answer, in tokens."""
    temperature: float = 0.0
    """0: always the likeliest token; above 0: drawn, the more freely the higher."""
    seed: int = 0
    """Seed of drawn tokens and of the choice of held-out questions."""
    web: bool = False
    """A page in the browser instead of the terminal (extra `web`)."""
    host: str = "127.0.0.1"
    """Web: address to listen at. Any other than this machine's own lets everyone who reaches it ask: there is no password."""
    port: int | None = None
    """Web: port to listen at; unset: the first free one from 7860 on."""


def run(config: Config) -> list[str]:
    """Answer; return the answers."""
    if config.model is None:
        raise ConfigError("no model is given", "--model FOLDER")
    if config.temperature < 0 or config.max_new_tokens < 1 or config.max_records < 1:
        raise ConfigError(
            f"temperature {config.temperature}, max_new_tokens {config.max_new_tokens}, max_records {config.max_records}",
            "at least 0, at least 1 and at least 1",
        )
    if config.question and config.instructions is not None:
        raise ConfigError("question and instructions are both given", "one of them")
    if config.evidence is not None and config.instructions is not None:
        raise ConfigError(
            "evidence and instructions are both given", "one of them", "`llama-gene evaluate --evidence` measures with evidence"
        )
    _check_web(config)
    evidence = _evidence(config)
    held_out = _held_out(config) if config.instructions is not None else []
    template = prompt_template(config.model, config.template)
    tasks = _tasks(config)

    from llama_gene.inference.chat_session import Conversation
    from llama_gene.models.adapters import load_model
    from llama_gene.recipes.chat_terminal import Terminal

    model, tokenizer = load_model(config.model)
    if config.web:
        return _serve_page(config, model, tokenizer, template, tasks, evidence)
    conversation = Conversation(model, tokenizer, template, config.max_new_tokens, config.temperature, config.seed, evidence)
    if held_out:
        return _ask_held_out(conversation, held_out)
    if config.question:
        answers = []
        for question in [config.question] if isinstance(config.question, str) else config.question:
            print(f"> {question}")
            answers.append(conversation.ask(question, show=print_piece))
            print()
            print_cited(conversation.cited)
            conversation.reset()
        return answers
    return Terminal(conversation, tasks, config.max_records).talk()


def prompt_template(model: str, asked: str | None) -> str:
    """Return the name of the prompt template: the one asked for, else the model's own. Another than the model's own is said aloud.

    Raises ConfigError for an unknown name, MismatchError where none is asked for and the model was tuned with another text under that name.
    """
    from llama_gene.data.prompts import prompt_fingerprint

    facts = _facts(model)
    name: str = asked or facts.get("template") or "alpaca"
    known = prompt_fingerprint(name)  # refuses a name that nobody knows
    if facts.get("prompt") not in (None, known):
        if asked is None:
            raise MismatchError(
                f"{model} was tuned with prompt {facts['prompt']}",
                f"{known}, template '{name}' of this version",
                "Use the version that tuned it, or name a template to ask it with another prompt",
            )
        runtime.get_logger().warning("template '%s' is not the prompt that %s was tuned with", name, model)
    return name


def tuned_on(model: str) -> Path | None:
    """Return the folder of instructions that a model was tuned on, None where it is not named or not there."""
    named = (_facts(model).get("config") or {}).get("instructions")
    return Path(named) if named and (Path(named) / runtime.MANIFEST_NAME).is_file() else None


def own_tasks(model: str) -> AskableTasks:
    """Return the tasks that a model was tuned on: those that an export carries, else those of its instructions where they are here.

    Raises what `read_askable_tasks` raises; without either there are no tasks.
    """
    from llama_gene.data.askable import read_askable_tasks, read_carried_tasks

    carried = _facts(model).get("tuned_on")
    if carried:
        return read_carried_tasks(carried)
    folder = tuned_on(model)
    return read_askable_tasks([folder] if folder is not None else [])


def print_piece(piece: str) -> None:
    """Show a piece of an answer at once."""
    print(piece, end="", flush=True)


def print_cited(cited: Cited) -> None:
    """Show what an answer's prompt cites, if anything was looked for."""
    if words := cited.render():
        print(words, flush=True)


def _evidence(config: Config) -> EvidenceSource | None:
    """Return where neighbours come from, None without an index. Raises what `open_index` raises, ConfigError for a senseless choice."""
    if config.evidence is None:
        return None
    from llama_gene.data.evidence import EvidenceChoice, EvidenceSource
    from llama_gene.data.evidence_index import open_index

    choice = EvidenceChoice(config.evidence_hits, config.evidence_max_identity)
    return EvidenceSource(open_index(config.evidence), choice)


def _check_web(config: Config) -> None:
    """Raise ConfigError where the keys of the page contradict each other or the terminal's, MachineError without the extra."""
    from importlib.util import find_spec

    if not config.web:
        if config.host != Config.host or config.port is not None:
            raise ConfigError("host or port is given without the page that listens there", "both with --web only", "Add --web")
        return
    if config.question or config.instructions is not None:
        raise ConfigError("web is given with question or instructions, which are answered in the terminal", "one of them")
    if config.port is not None and not 0 < config.port < 65536:
        raise ConfigError(f"port {config.port}", "1 to 65535, or none: the first free one from 7860 on")
    if find_spec("gradio") is None:
        raise MachineError("the page needs gradio, which is not installed", "the extra `web`", "pip install 'llama-gene[web]'")


def _serve_page(config: Config, model: Any, tokenizer: Any, template: str, tasks: Any, evidence: EvidenceSource | None = None) -> list[str]:
    """Show the page until Ctrl-C or SIGTERM; no answer is returned."""
    import threading

    from llama_gene.web.chat_page import PageModel, open_page
    from llama_gene.web.page_guard import LOOPBACK

    runtime.exit_cleanly_on_sigterm()
    name = Path(str(config.model)).name
    asked = PageModel(model, tokenizer, name, template, config.max_new_tokens, config.temperature, config.seed, evidence)
    for task, reason in tasks.refused.items():
        runtime.get_logger().info("chat: task %s is not on the page: %s", task, reason)
    with open_page(asked, tasks, config.host, config.port, config.max_records) as address:
        if config.host not in LOOPBACK:
            runtime.get_logger().warning("chat: %s is open to everyone who reaches this machine; there is no password", address)
        print(f"open {address} in a browser; Ctrl-C ends it", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print()
    return []


def _facts(model: str) -> dict[str, Any]:
    """Return a model folder's manifest, nothing where it has none."""
    manifest = Path(model).expanduser() / runtime.MANIFEST_NAME
    return dict(runtime.read_json(manifest)) if manifest.is_file() else {}


def _tasks(config: Config) -> AskableTasks:
    """Return the tasks for `/task`."""
    from llama_gene.data.askable import AskableTasks, read_askable_tasks

    if config.tasks:
        return read_askable_tasks(config.tasks, config.words)
    try:
        return own_tasks(str(config.model))
    except LlamaGeneError as error:  # not asked for: the chat goes on without
        runtime.get_logger().warning("chat: no tasks of %s: %s", config.model, error)
        return AskableTasks()


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


def _ask_held_out(conversation: Any, examples: Sequence[dict[str, Any]]) -> list[str]:
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


def _ask_example(conversation: Any, example: dict[str, Any]) -> str:
    """Return the model's answer to an instruction example."""
    from llama_gene.data.prompts import encode_prompt, render_user
    from llama_gene.inference.generate import generate_answers

    user = render_user(example["instruction"], example["input"], conversation.template)
    prompt = encode_prompt(conversation.tokenizer, user, conversation.template)
    return generate_answers(
        conversation.model, conversation.tokenizer, [prompt], conversation.max_new_tokens,
        temperature=conversation.temperature, seed=conversation.seed,
    )[0]  # fmt: skip


def _brief(text: str, width: int = 60) -> str:
    """Return a text in one line of at most `width` letters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 3] + "..."
