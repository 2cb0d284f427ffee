"""The chat page: pick a task, drop a FASTA file or paste sequences, see the probability of each label; or chat.

gradio draws it. What a visitor gives is read by `questions`, asked by `inference.ask`, and shown as bars (`gr.Label`), as a sequence
coloured by token (`token_colours`) and as a table with its CSV. One model answers one visitor at a time: both tabs share one queue, and
"Stop" is a mark that the work looks at after every few records or every token, so that what was answered until then is kept.

The page is for the machine that it runs on: bound to loopback unless told otherwise, behind `page_guard`, with a temporary folder of its
own that is deleted when it closes. There is no password; docs/chat.md says how to reach it from another machine. Text of a visitor is
shown as text: HTML is escaped, Markdown is not rendered, nothing that he sends is executed.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from llama_gene import runtime
from llama_gene.data.askable import AskableTask, AskableTasks, AskedRow
from llama_gene.data.evidence import Cited, EvidenceSource
from llama_gene.data.prompts import render_prompt
from llama_gene.errors import InputError, LlamaGeneError, MachineError
from llama_gene.inference.ask import LabelAnswer, ask, with_citations
from llama_gene.inference.chat_session import Conversation
from llama_gene.inference.scoring import context_length
from llama_gene.web import token_colours
from llama_gene.web.page_guard import PageGuard, allowed_hosts
from llama_gene.web.questions import (
    MAX_UPLOAD_BYTES,
    SUFFIXES,
    Questions,
    Refusal,
    example_text,
    read_questions,
    table_of,
    write_table,
)
from llama_gene.web.token_colours import TokenMap, draw_tokens

ROWS_A_TURN = 8  # records between two looks at "Stop"
TABLE_TURNS = 20  # at most so many times is the table of a batch drawn while it grows
MAX_LISTED = 50  # refused records that are listed on the page; the table and its CSV have all
MOST_BARS = 12
MAX_WAITING = 32  # visitors in the queue
MAX_PASTED = MAX_UPLOAD_BYTES // 2  # characters

_STYLE = (
    """
.gradio-container { max-width: 1180px !important; margin: 0 auto !important; }
.head h1 { font-size: 1.45rem; font-weight: 650; margin: .4rem 0 .1rem; } .head p { margin: 0; color: #6b7280; font-size: .9rem; }
.about { font-size: .9rem; line-height: 1.5; } .about b { font-weight: 600; }
.counts { font-size: .85rem; color: #6b7280; margin: .2rem 0; }
.note { padding: .55rem .8rem; border-left: 4px solid #94a3b8; background: #f1f5f9; color: #1f2937; border-radius: 4px; line-height: 1.45; }
.note.wrong { border-color: #c2410c; background: #fff3ea; } .note.done { border-color: #3f7d58; background: #eef6f0; }
.note progress { width: 100%; height: .6rem; accent-color: #3f7d58; }
.refused { font-size: .88rem; } .refused li { margin: .15rem 0; overflow-wrap: anywhere; }
.refused ul, .cited ul { padding-left: 1.2rem; list-style: disc; } .cited ul { list-style: none; margin: .2rem 0 0; }
textarea { font-family: ui-monospace, "DejaVu Sans Mono", Consolas, monospace !important; font-size: 13px !important; }
.block.padded:has(> .html-container) { padding-top: .2rem; padding-bottom: .2rem; }
#table th span { white-space: nowrap; word-break: normal; }
#turns .message-content > span { white-space: pre-wrap; overflow-wrap: anywhere; }
#refused:not(:has(.note)), #chat_status:not(:has(.note)) { display: none; }
footer { display: none !important; }
"""
    + token_colours.STYLE
)


@dataclass(frozen=True)
class PageModel:
    """The model that the page asks, and how it answers in the chat."""

    model: Any
    tokenizer: Any
    name: str
    """As the visitor reads it."""
    template: str = "alpaca"
    max_new_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0
    evidence: EvidenceSource | None = None
    """Where neighbours come from that the prompts cite."""


@dataclass
class Visit:
    """One visitor's page, as the server knows it; gradio hands each its own."""

    name: str = ""
    """Drawn on first use; the visitor's own name for his session never becomes part of a path."""
    is_stopping: bool = False
    """"Stop" was pressed."""

    def folder(self, root: Path) -> Path:
        """Return the folder of this visitor's files."""
        self.name = self.name or secrets.token_hex(8)
        (root / self.name).mkdir(exist_ok=True)
        return root / self.name


@dataclass(frozen=True)
class Answers:
    """What the table shows."""

    task: AskableTask | None = None
    found: dict[int, LabelAnswer] = field(default_factory=dict)
    """Place among the questions, from 1 -> its answer."""


@contextmanager
def open_page(
    asked: PageModel, tasks: AskableTasks, host: str = "127.0.0.1", port: int | None = None, max_records: int = 1000
) -> Iterator[str]:
    """Serve the page while the block runs, and give its address. Without a port, the first free one from 7860 on is taken.

    `max_records` is the most questions of one text or file; with more nothing is asked.

    Raises MachineError where gradio is not installed, or where nothing can be bound to host and port.
    """
    try:
        import gradio  # noqa: F401
        from starlette.middleware import Middleware
    except ImportError as error:
        raise MachineError(f"the page needs gradio ({error})", "the extra 'web'", "pip install 'llama-gene[web]'") from error

    with tempfile.TemporaryDirectory(prefix="llama_gene_page_") as name, runtime.page_switches(Path(name)):
        page = ChatPage(asked, tasks, Path(name), max_records)
        blocks = page.build()
        guard = Middleware(PageGuard, folder=Path(name), hosts=allowed_hosts(host))  # type: ignore[arg-type]
        try:
            blocks.launch(
                server_name=host, server_port=port, prevent_thread_lock=True, quiet=True, inbrowser=False, share=False, show_error=False,
                max_file_size=MAX_UPLOAD_BYTES, app_kwargs={"middleware": [guard], "docs_url": None, "redoc_url": None},
                root_path="", footer_links=[], run_history=False, enable_monitoring=False, ssr_mode=False, pwa=False, mcp_server=False,
                theme=_theme(), css=_STYLE,
            )  # fmt: skip
        except OSError as error:
            where = f"{host}:{port}" if port is not None else host
            raise MachineError(
                f"the page cannot be served at {where} ({error})", "a free port of this machine", "Give another --port"
            ) from error
        try:
            yield str(blocks.local_url)
        finally:
            blocks.close(verbose=False)


class ChatPage:
    """What the page does; `build` lays it out."""

    def __init__(self, asked: PageModel, tasks: AskableTasks, folder: Path, max_records: int) -> None:
        self.asked = asked
        self.tasks = tasks
        self.folder = folder
        self.max_records = max_records
        self.token_map = TokenMap(asked.tokenizer)

    # --- layout ------------------------------------------------------------------------------------------------------------------

    def build(self) -> Any:
        """Return the page as gradio's Blocks."""
        import gradio as gr

        with gr.Blocks(title="LLaMA-Gene", analytics_enabled=False, delete_cache=(600, 3600)) as blocks:
            visit = gr.State(Visit())
            gr.HTML(self._head())
            with gr.Tab("Ask a task"):
                if self.tasks.by_name:
                    self._build_task_tab(gr, visit)
                else:
                    gr.HTML(
                        _note("No task is given: start the page with --tasks and a task's YAML file or a folder of `llama-gene instruct`.")
                    )
            with gr.Tab("Chat"):
                self._build_chat_tab(gr, visit)
        blocks.queue(max_size=MAX_WAITING, api_open=False)
        return blocks

    def _build_task_tab(self, gr: Any, visit: Any) -> None:
        first = next(iter(self.tasks.by_name))
        with gr.Row():
            with gr.Column(scale=2, min_width=340):
                choices = [(f"{task.title} ({name})", name) for name, task in self.tasks.by_name.items()]
                task = gr.Dropdown(choices, value=first, label="Task", elem_id="task")
                about = gr.HTML(self.describe(first), elem_id="about")
                text = gr.Textbox(
                    label="Sequences: FASTA, or one bare sequence", lines=7, max_lines=14, max_length=MAX_PASTED, elem_id="text",
                    placeholder=">name\nACGT...", info=f"at most {self.max_records:,} questions at a time",
                )  # fmt: skip
                upload = gr.File(
                    label=f"or a FASTA file, at most {MAX_UPLOAD_BYTES // 2**20} MB",
                    file_types=list(SUFFIXES),
                    height=150,
                    elem_id="upload",
                )
                with gr.Row():
                    start = gr.Button("Ask", variant="primary", elem_id="ask", min_width=80)
                    stop = gr.Button("Stop", variant="stop", elem_id="stop", min_width=80)
                    example = gr.Button("Example", elem_id="example", min_width=80)
                    clear = gr.Button("Clear", elem_id="clear", min_width=80)
            with gr.Column(scale=3, min_width=420):
                status = gr.HTML(_note("Press 'Example', then 'Ask'."), elem_id="status")
                bars = gr.Label(label="Probability of each label", num_top_classes=MOST_BARS, elem_id="bars", visible=False)
                drawn = gr.HTML(elem_id="drawn")
        refused = gr.HTML(elem_id="refused")
        table = gr.Dataframe(
            label="All records: click a row to see it above", interactive=False, wrap=True, max_height=380, elem_id="table", visible=False,
            buttons=[],
        )  # fmt: skip
        download = gr.DownloadButton("Download the table (CSV)", elem_id="download", visible=False)
        answers = gr.State(Answers())
        outputs = [status, bars, drawn, refused, table, download, answers]
        private = {"api_visibility": "private"}
        task.change(self.describe, task, about, show_progress="hidden", **private)
        example.click(self.example, task, [text, upload], show_progress="hidden", **private)
        start.click(
            self.answer, [task, text, upload, visit], outputs, concurrency_id="model", concurrency_limit=1, show_progress="minimal",
            show_progress_on=[status], **private,
        )  # fmt: skip
        stop.click(self.stop, visit, show_progress="hidden", **private)

        def pick(answers: Answers, event: Any) -> tuple[Any, Any]:
            return self.pick(answers, int(event.row_value[0]))

        pick.__annotations__ = {"event": gr.SelectData}  # gradio hands the event to whoever names its type, which a string cannot here
        table.select(pick, answers, [bars, drawn], show_progress="hidden", **private)
        clear.click(self.clear, None, [text, upload, *outputs], show_progress="hidden", **private)

    def _build_chat_tab(self, gr: Any, visit: Any) -> None:
        turns = gr.Chatbot(
            label="Conversation", height=440, render_markdown=False, allow_tags=False, buttons=[], feedback_options=None,
            placeholder="Ask anything. A FASTA record behind a question becomes its input.", elem_id="turns", layout="bubble",
        )  # fmt: skip
        status = gr.HTML(elem_id="chat_status")
        message = gr.Textbox(
            show_label=False,
            lines=1,  # with more, Enter would not send
            max_lines=10,
            max_length=MAX_PASTED,
            placeholder="What is a promoter?",
            elem_id="message",
            autofocus=True,
        )
        with gr.Row():
            send = gr.Button("Send", variant="primary", elem_id="send", min_width=80)
            stop = gr.Button("Stop", variant="stop", elem_id="chat_stop", min_width=80)
            new = gr.Button("New conversation", elem_id="new", min_width=80)
        gr.HTML('<p class="counts">Enter sends, Shift+Enter begins a line. Answers are a language model\'s: check them.</p>')
        history = gr.State([])
        private = {"api_visibility": "private"}
        gr.on(
            [send.click, message.submit], self.say, [message, turns, history, visit], [turns, message, status, history],
            concurrency_id="model", concurrency_limit=1, show_progress="hidden", **private,
        )  # fmt: skip
        stop.click(self.stop, visit, show_progress="hidden", **private)
        turns.clear(lambda: ("", []), None, [status, history], show_progress="hidden", **private)  # the bin in its corner
        new.click(lambda: ([], "", "", []), None, [turns, message, status, history], show_progress="hidden", **private)

    def _head(self) -> str:
        limit = context_length(self.asked.model)
        reads = f" · reads at most {limit:,} tokens" if limit is not None else ""
        words = f"{escape(self.asked.name)}{reads} · nothing leaves the machine that serves this page · for research, not diagnosis"
        return f'<div class="head"><h1>LLaMA-Gene</h1><p>{words}</p></div>'

    # --- events ------------------------------------------------------------------------------------------------------------------

    def describe(self, name: str) -> str:
        """Return what a task asks, as HTML."""
        task = self.tasks.get(name)
        kinds = " and ".join(kind.upper() if kind in ("dna", "rna") else kind for kind in task.kinds)
        count = "one sequence a question" if len(task.kinds) == 1 else "two records a question, one after the other"
        words = task.instruction.replace("{sequence}", "...")
        return f'<div class="about"><b>{kinds}</b>, {count}. The model reads: <i>{escape(words)}</i></div>'

    def example(self, name: str) -> tuple[str, None]:
        """Return sequences that a task can be asked about, and no file."""
        return example_text(self.tasks.get(name)), None

    def stop(self, visit: Visit) -> None:
        """Let what this visitor started end after what it is at."""
        visit.is_stopping = True

    def answer(self, name: str, text: str | None, upload: str | None, visit: Visit) -> Iterator[tuple[Any, ...]]:
        """Yield (status, bars, drawing, refused, table, download, answers) as a batch goes on."""
        import gradio as gr

        kept = gr.skip()
        hidden = gr.update(visible=False)
        visit.is_stopping = False
        try:
            task = self.tasks.get(name)
            questions = read_questions(task, text or "", Path(upload) if upload else None, self.max_records)
            questions.refuse_too_long(self.asked.model, self.asked.tokenizer, self.asked.template)
        except LlamaGeneError as error:
            yield _note(str(error), "wrong"), hidden, "", "", hidden, hidden, Answers()
            return
        refused = _list_refused(questions.refused)
        total, shown = len(questions.rows), 0
        done: dict[int, LabelAnswer] = {}
        yield _progress(0, total), kept, kept, refused, kept, kept, kept
        numbers = list(questions.rows)
        for start in range(0, total, ROWS_A_TURN):
            turn = numbers[start : start + ROWS_A_TURN]
            try:
                rows = self._cite(task, [questions.rows[number] for number in turn])
                found = ask(self.asked.model, self.asked.tokenizer, task, rows, self.asked.template)
            except LlamaGeneError as error:
                yield _note(str(error), "wrong"), kept, kept, refused, kept, kept, kept
                return
            is_first = not done
            done.update(zip(turn, found, strict=True))
            if is_first:
                bars, drawn = self._show(task, found[0])
                yield _progress(len(done), total), bars, drawn, refused, *self._table(questions, done, visit), Answers(task, done)
            elif len(done) * TABLE_TURNS // total > shown:
                shown = len(done) * TABLE_TURNS // total
                yield _progress(len(done), total), kept, kept, kept, *self._table(questions, done, visit), Answers(task, done)
            else:
                yield _progress(len(done), total), kept, kept, kept, kept, kept, kept
            if visit.is_stopping:
                break
        if not done:
            yield _note(_sum_up(0, 0, questions.refused), "wrong"), hidden, "", refused, *self._table(questions, done, visit), Answers()
            return
        manner = "done" if len(done) == total else ""
        yield (
            _note(_sum_up(len(done), total, questions.refused), manner),
            kept,
            kept,
            refused,
            *self._table(questions, done, visit),
            Answers(task, done),
        )

    def pick(self, answers: Answers, number: int) -> tuple[Any, Any]:
        """Return bars and drawing of the record whose row was clicked."""
        import gradio as gr

        if answers.task is None or number not in answers.found:
            return gr.skip(), gr.skip()  # a refused record
        return self._show(answers.task, answers.found[number])

    def clear(self) -> tuple[Any, ...]:
        """Return an empty page."""
        import gradio as gr

        hidden = gr.update(visible=False)
        return "", None, _note("Press 'Example', then 'Ask'."), hidden, "", "", hidden, hidden, Answers()

    def say(
        self, message: str | None, turns: list[Any], history: list[tuple[str, str]], visit: Visit
    ) -> Iterator[tuple[list[Any], Any, str, list[tuple[str, str]]]]:
        """Yield (conversation as shown, message box, status, conversation as the model reads it) as the answer comes."""
        import gradio as gr

        visit.is_stopping = False
        said = (message or "").strip()
        if not said:
            yield turns, gr.skip(), _note("Write something first.", "wrong"), history
            return
        asked = self.asked
        conversation = Conversation(
            asked.model, asked.tokenizer, asked.template, asked.max_new_tokens, asked.temperature, asked.seed, asked.evidence
        )
        conversation.history = [(user, answer) for user, answer in history]
        answer = ""
        shown = [*turns, _turn("user", said)]
        pieces = conversation.stream(said)
        try:
            for piece in pieces:
                answer += piece
                yield [*shown, _turn("assistant", answer)], "", "", history
                if visit.is_stopping:
                    pieces.close()  # type: ignore[attr-defined]
                    break
        except InputError as error:
            yield turns, said, _note(str(error), "wrong"), history
            return
        words = [answer.strip() or "(no answer: the model ended at once)", conversation.cited.render()]
        shown.append(_turn("assistant", "\n\n".join(filter(None, words))))
        yield shown, "", "", conversation.history

    # --- parts -------------------------------------------------------------------------------------------------------------------

    def _cite(self, task: AskableTask, rows: list[AskedRow]) -> list[AskedRow]:
        """Return the rows with what their prompts cite, as they are without an index."""
        return with_citations(self.asked.model, self.asked.tokenizer, task, rows, self.asked.evidence, self.asked.template)

    def _show(self, task: AskableTask, answer: LabelAnswer) -> tuple[Any, str]:
        """Return bars and drawing of one answer."""
        import gradio as gr

        chances = dict(zip(answer.labels, answer.probabilities, strict=True))
        prompt = render_prompt(task.user_message(answer.row.sequences, self.asked.template, answer.row.block), self.asked.template)
        parts = [f"<h3>{escape(answer.row.name)}</h3>"]
        after = 0
        for sequence, kind in zip(answer.row.sequences, task.kinds, strict=True):
            after = max(after, prompt.find(sequence, after))
            parts.append(draw_tokens(sequence, self.token_map.spans(prompt, sequence, after), kind))
            after += len(sequence)
        if answer.row.cited is not None:
            parts.append(_list_cited(answer.row.cited))
        parts += [_note(doubt) for doubt in answer.row.doubts]
        return gr.update(value=chances, visible=True), "".join(parts)

    def _table(self, questions: Questions, answers: dict[int, LabelAnswer], visit: Visit) -> tuple[Any, Any]:
        """Return the table and the button that downloads it, and write its file: one for each visitor, rewritten."""
        import gradio as gr

        head, lines = table_of(questions, answers)
        path = visit.folder(self.folder) / "answers.csv"
        write_table(path, head, lines)
        widths = ["55px", "170px", "80px", "125px", "130px", *["145px"] * len(questions.task.labels), "260px"]
        shown = gr.update(value={"headers": head, "data": lines}, column_widths=widths, visible=True)
        return shown, gr.update(value=str(path), visible=True)


def _note(words: str, manner: str = "") -> str:
    """Return a sentence in a box: `wrong`, `done`, or neither."""
    role = "alert" if manner == "wrong" else "status"
    return f'<div class="note {manner}" role="{role}">{escape(words)}</div>' if words else ""


def _turn(role: str, text: str) -> dict[str, str]:
    """Return what was said as the page shows it: gradio reads HTML in it even where it renders no Markdown, and `<3di:d>` is no tag."""
    return {"role": role, "content": escape(text, quote=False)}


def _progress(done: int, total: int) -> str:
    """Return how far a batch is."""
    return f'<div class="note" role="status">{done:,} of {total:,} answered<progress value="{done}" max="{max(total, 1)}"></progress></div>'


def _sum_up(done: int, total: int, refused: list[Refusal]) -> str:
    """Return a batch in a sentence."""
    words = f"{done:,} answered" if done == total else f"Stopped: {done:,} of {total:,} answered"
    return f"{words}, {len(refused):,} refused: see below." if refused else f"{words}."


def _list_refused(refused: list[Refusal]) -> str:
    """Return the refused records with their reasons, as HTML."""
    if not refused:
        return ""
    lines = [
        f"<li><b>{escape(refusal.name)}</b> (record {refusal.number:,}): {escape(refusal.reason)}</li>" for refusal in refused[:MAX_LISTED]
    ]
    more = f"<p>and {len(refused) - MAX_LISTED:,} more: the table has all.</p>" if len(refused) > MAX_LISTED else ""
    return f'<div class="refused note wrong"><b>{len(refused):,} not asked:</b><ul>{"".join(lines)}</ul>{more}</div>'


def _list_cited(cited: Cited) -> str:
    """Return what an answer's prompt cites, as HTML; nothing where nothing was looked for."""
    head, *lines = cited.render().splitlines() or [""]
    items = "".join(f"<li>{escape(line.strip())}</li>" for line in lines)
    return f'<div class="cited note">{escape(head)}<ul>{items}</ul></div>' if head else ""


def _theme() -> Any:
    """Return quiet colours, and fonts that every machine has: none is fetched."""
    from gradio.themes import Base, colors

    return Base(
        primary_hue=colors.emerald,
        neutral_hue=colors.slate,
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "Consolas", "monospace"],
    )
