"""The conversation of `chat` as it is typed or piped: lines in, commands, answers and bars out.

Each line is a command (`/...`), the beginning of FASTA records (`>...`, up to an empty line or a command), or text: a question, and where a
task is chosen one sequence (of a pair both, `####` between them). What cannot be used is said in one line in brackets, and the conversation
goes on. On a terminal lines are read through `readline`: without it the system cuts a line at 4,095 characters, and a sequence with it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from llama_gene import runtime
from llama_gene.data.askable import AskableTask, AskableTasks, AskedRow, read_pasted, read_rows_of
from llama_gene.errors import InputError, LlamaGeneError, did_you_mean
from llama_gene.inference.ask import LabelAnswer, ask, check_room_for, with_citations
from llama_gene.inference.chat_session import Conversation, split_fasta
from llama_gene.recipes.chat import HELP, print_cited, print_piece
from llama_gene.sequences.alphabet import first_fault, get_alphabet

BAR_WIDTH = 30
SHOWN_LABELS = 10
ROWS_AT_A_TIME = 16
"""Questions that are scored before their answers are shown: Ctrl-C loses no more."""
LONGEST_RAW_LINE = 4095
"""Characters of a line that a terminal hands over where no `readline` reads it."""


class Terminal:
    """A conversation with its chosen task and what was pasted and not asked about yet."""

    def __init__(self, conversation: Conversation, tasks: AskableTasks, max_records: int = 1000) -> None:
        self.conversation = conversation
        self.tasks = tasks
        self.max_records = max_records
        self.task: AskableTask | None = None
        self.pasted = ""
        self.answers: list[str] = []
        self.labelled: list[dict[str, Any]] = []
        """Label answers, as `/save` writes them."""
        self._waiting: list[str] = []
        """Lines that were read ahead."""
        self._is_terminal = sys.stdin is not None and sys.stdin.isatty()
        self._reads_long_lines = not self._is_terminal or _use_readline()

    def talk(self) -> list[str]:
        """Hold the conversation until `/quit` or the end of the input; return the answers."""
        print(HELP)
        while True:
            try:
                line = self._read("> ")
                if line is None or line == "/quit":
                    break
                self._handle(line)
            except _StoppedAnswerError:
                print("\n[stopped]")
            except KeyboardInterrupt:
                if not self._is_terminal:
                    raise
                print("\n[/quit or Ctrl-D leaves]")
            except ConversationError:
                raise
            except (LlamaGeneError, OSError) as error:  # said in one line, and the conversation goes on
                print(f"[{' '.join(str(error).split())}]")
        if self.pasted:
            print("[what was pasted last was not asked about]")
        return self.answers

    def _read(self, prompt: str = "") -> str | None:
        """Return the next line without outer blanks, None at the end. Raises InputError for one that is no text or may be cut."""
        if self._waiting:
            return self._waiting.pop()
        try:
            line = input(prompt if self._is_terminal else "")
            line.encode()  # where the locale is C, bytes that are no text come in as surrogates
        except EOFError:
            if self._is_terminal:
                print()
            return None
        except UnicodeError as error:
            raise ConversationError("standard input is not UTF-8 text", "lines of text", "Convert it") from error
        if not self._reads_long_lines and len(line) >= LONGEST_RAW_LINE:
            raise InputError(f"a line of {len(line):,} characters, where the terminal cuts", "shorter lines, or a file", "Use /load FILE")
        return line.strip()

    def _handle(self, line: str) -> None:
        """Do what one line says."""
        if line.startswith("/"):
            self._obey(*line[1:].split(maxsplit=1))
        elif line.startswith(">"):
            self._take_records(self._read_records(line))
        elif not line:
            return
        elif self.task is not None:
            try:
                rows = read_pasted(line.replace("####", "\n####\n"), self.task, self.max_records)
            except InputError as error:
                raise InputError(error.found, error.expected, f"{error.action}; /task off ends task {self.task.name}") from error
            self._ask_rows(rows)
        else:
            self._ask(line)

    # commands

    def _obey(self, name: str = "", rest: str = "") -> None:
        commands: dict[str, Callable[[str], None]] = {
            "help": lambda _: print(HELP), "reset": self._reset, "history": self._show_history,
            "save": self._save, "task": self._choose_task, "load": self._load,
        }  # fmt: skip
        if name not in commands:
            raise InputError(f"there is no command '/{name[:40]}'", "/help lists them", did_you_mean(name[:40], [*commands, "quit"]))
        commands[name](rest.strip())

    def _reset(self, _: str) -> None:
        self.conversation.reset()
        self.pasted = ""
        self.labelled = []
        print("[new conversation]")

    def _show_history(self, _: str) -> None:
        for user, answer in self.conversation.history:
            print(f"> {user}\n{answer}")
        for found in self.labelled:
            print(f"> {found['task']}: {found['name']}\n{found['label']}")
        if not self.conversation.history and not self.labelled:
            print("[nothing was said so far]")

    def _save(self, rest: str) -> None:
        if not rest:
            raise InputError("/save without a file", "/save FILE")
        path = Path(rest).expanduser()
        if path.exists():
            raise InputError(f"{path} exists", "a new file", "Choose another name")
        chat = self.conversation
        runtime.write_json(path, {"template": chat.template, "messages": chat.messages(), "labels": self.labelled})
        print(f"[{len(chat.history)} turns and {len(self.labelled)} label answers written to {path}]")

    def _choose_task(self, rest: str) -> None:
        if not rest:
            for task in self.tasks.by_name.values():
                print(f"  {task.name}: {task.title}, {' and '.join(task.kinds)}")
            if not self.tasks.by_name:
                raise InputError("no tasks are known", "task files", "Start with --tasks FILE.yaml or FOLDER")
            return
        if rest == "off":
            self.task = None
            print("[no task: questions are answered in the model's words]")
            return
        self.task = task = self.tasks.get(rest)
        print(f"[{task.name}: {task.instruction}]")
        needed = f"a {task.kinds[0]} sequence" if len(task.kinds) == 1 else f"{' and '.join(task.kinds)}, two records or A #### B,"
        print(f"[each line, and each record, is {needed} and is asked by itself]")
        evidence = self.conversation.evidence
        if evidence is not None and evidence.index.kind not in task.kinds:
            print(f"[the index holds {evidence.index.kind}: this task is asked without evidence]")

    def _load(self, rest: str) -> None:
        if not rest:
            raise InputError("/load without a file", "/load FILE")
        if self.task is None:
            raise InputError("no task is chosen", "what to ask of each record", "/task NAME first")
        self._ask_rows(read_rows_of(Path(rest).expanduser(), self.task, self.max_records))

    # sequences and questions

    def _read_records(self, header: str) -> str:
        """Return FASTA records typed or pasted after a first header, up to an empty line, a command or the end of input."""
        lines = [header]
        while line := self._read():
            if line.startswith("/"):
                self._waiting.append(line)
                break
            lines.append(line)
        return "\n".join(lines) + "\n"

    def _take_records(self, text: str) -> None:
        """Ask the task of pasted records, or keep them for the next question."""
        if self.task is not None:
            self._ask_rows(read_pasted(text, self.task, self.max_records))
            return
        _, added = split_fasta(text)
        check_is_sequence(added)
        self.pasted += text
        print(f"[{len(split_fasta(self.pasted)[1]):,} letters pasted; now ask about them]")

    def _ask(self, line: str) -> None:
        """Show the model's own words."""
        message, self.pasted = f"{line}\n{self.pasted}" if self.pasted else line, ""
        try:
            self.answers.append(self.conversation.ask(message, show=print_piece))
        except KeyboardInterrupt:
            raise _StoppedAnswerError from None
        print()
        print_cited(self.conversation.cited)

    def _ask_rows(self, rows: Sequence[AskedRow]) -> None:
        """Show the probabilities of a task's labels for each sequence; nothing is asked where one does not fit."""
        task, chat = self.task, self.conversation
        assert task is not None
        check_room_for(chat.model, chat.tokenizer, task, rows, chat.template)
        try:
            for start in range(0, len(rows), ROWS_AT_A_TIME):
                turn = rows[start : start + ROWS_AT_A_TIME]
                turn = with_citations(chat.model, chat.tokenizer, task, turn, chat.evidence, chat.template)
                for found in ask(chat.model, chat.tokenizer, task, turn, chat.template):
                    print(render_bars(found), flush=True)
                    if found.row.cited is not None:
                        print_cited(found.row.cited)
                    self.answers.append(found.label)
                    self.labelled.append({"task": task.name, **found.as_dict()})
        except KeyboardInterrupt:
            raise _StoppedAnswerError from None


class ConversationError(LlamaGeneError):
    """The input cannot be read on."""


class _StoppedAnswerError(Exception):
    """The user stopped an answer, not the chat."""


def render_bars(answer: LabelAnswer, width: int = BAR_WIDTH) -> str:
    """Return the name of a sequence and a bar for each label, likeliest first.

    >>> row = AskedRow("chr1:7", ("ACGT",))
    >>> print(render_bars(LabelAnswer(row, ("no", "promoter"), (0.25, 0.75), (-2.0, -0.9), 40), width=8))
    chr1:7 (4 letters)
      promoter  ██████   0.7500
      no        ██       0.2500
    """
    letters = " + ".join(f"{len(sequence):,}" for sequence in answer.row.sequences)
    lines = [f"{answer.row.name} ({letters} letters)", *(f"  ! {doubt}" for doubt in answer.row.doubts)]
    order = sorted(range(len(answer.labels)), key=lambda k: -answer.probabilities[k])
    longest = max(len(answer.labels[k]) for k in order[:SHOWN_LABELS])
    sign = "█" if "utf" in (getattr(sys.stdout, "encoding", "") or "utf-8").lower() else "#"
    for k in order[:SHOWN_LABELS]:
        chance = answer.probabilities[k]
        lines.append(f"  {answer.labels[k]:<{longest}}  {sign * round(chance * width):<{width}} {chance:.4f}")
    if len(order) > SHOWN_LABELS:
        rest = sum(answer.probabilities[k] for k in order[SHOWN_LABELS:])
        lines.append(f"  and {len(order) - SHOWN_LABELS} more labels, {rest:.4f} together")
    return "\n".join(lines)


def check_is_sequence(text: str) -> None:
    """Raise InputError where what follows FASTA headers is neither DNA, RNA nor protein.

    >>> check_is_sequence("ACGT\\n####\\nMKV")
    """
    for sequence in text.split("\n####\n"):
        fault = first_fault(sequence, get_alphabet("protein"))
        if not sequence or (fault is not None and all(first_fault(sequence, get_alphabet(kind)) is not None for kind in ("dna", "rna"))):
            found = "a pasted record without letters" if not sequence else f"{chr(fault or 0)!r} is no letter of DNA, RNA or protein"
            raise InputError(found, "records of sequences", "An empty line ends the records; then ask")


def _use_readline() -> bool:
    """Read typed lines through `readline`, line by line also where several are pasted; return whether it is there."""
    try:
        import readline
    except ImportError:  # some systems have none
        return False
    readline.parse_and_bind("set enable-bracketed-paste off")
    return True
