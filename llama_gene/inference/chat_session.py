"""A conversation with a model: what was said, how it is rendered, and the answer as it is generated; for the terminal and the page.

Every turn goes through the prompt contract (`data.prompts`): history is repeated turn by turn, EOS after each answer, as the chat template
renders it. A question that does not fit the context together with what was said and the room for its answer is refused and not
remembered. An answer that is stopped by the user stays in the history as far as it came, because that is what he read. With evidence the
neighbours of a question's sequences stand behind its instruction, as many as fit, in the history, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jinja2 import TemplateError

from llama_gene.data.evidence import Cited, EvidenceSource, question_with_evidence
from llama_gene.data.prompts import encode_prompt, render_user
from llama_gene.errors import InputError
from llama_gene.inference.generate import stream_answer
from llama_gene.inference.scoring import context_length

MAX_CHARS = 1_000_000
"""Characters of one message; a longer one cannot fit any context and is refused before it is encoded."""


class Conversation:
    """A model with what was said so far."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        template: str = "alpaca",
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        seed: int = 0,
        evidence: EvidenceSource | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.template = template
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature
        self.seed = seed
        self.evidence = evidence
        self.cited = Cited()
        """What the last question's prompt cites."""
        self.history: list[tuple[str, str]] = []
        """(user message, answer) of each turn, oldest first."""

    def reset(self) -> None:
        """Forget what was said."""
        self.history = []

    def ask(self, message: str, show: Callable[[str], None] | None = None) -> str:
        """Return the answer to a message, handing its pieces to `show` as they come; message and answer join the conversation.

        Raises InputError when conversation, message and room for the answer exceed the model's context; the message is not remembered then.
        KeyboardInterrupt while it is generated ends the answer, which is remembered as far as it came, and goes on to the caller.
        """
        for piece in self.stream(message):
            if show is not None:
                show(piece)
        return self.history[-1][1]

    def stream(self, message: str) -> Iterator[str]:
        """Yield the answer's pieces; the turn joins the conversation when the iterator ends, is closed or is interrupted after a piece.

        Raises as `ask`.
        """
        instruction, sequence = split_fasta(message)
        self.cited = self._cite(instruction, sequence)
        user = render_user(instruction + self.cited.block, sequence, template=self.template)
        prompt = self.encode(user)
        answer = ""
        is_refused = True
        try:
            for piece in stream_answer(self.model, self.tokenizer, prompt, self.max_new_tokens, self.temperature, self.seed):
                is_refused = False
                answer += piece
                yield piece
            is_refused = False
        finally:
            if not is_refused:
                self.history.append((user, answer.strip()))

    def _cite(self, instruction: str, sequence: str) -> Cited:
        """Return what a question's prompt cites, as much of it as fits beside what was said and the room for the answer."""
        if self.evidence is None or not sequence:
            return Cited()
        limit = context_length(self.model)

        def fits(row: Mapping[str, Any]) -> bool:
            user = render_user(row["instruction"], row["input"], self.template)
            return limit is None or len(self.encode(user)) + self.max_new_tokens <= limit

        return question_with_evidence(instruction, sequence, self.evidence.index, self.evidence.choice, fits)[1]

    def encode(self, user_message: str) -> list[int]:
        """Return the ids of what was said, and of a user message up to where its answer begins.

        Raises InputError for a message of more than a million characters.
        """
        if len(user_message) > MAX_CHARS:
            raise InputError(f"the message has {len(user_message):,} characters", f"at most {MAX_CHARS:,}", "It is never cut: send less")
        return encode_prompt(self.tokenizer, user_message, self.template, self.history)

    def messages(self) -> list[dict[str, str]]:
        """Return the conversation as a chat template takes it: roles user and assistant, in turn.

        >>> chat = Conversation(None, None)
        >>> chat.history = [("What is a gene?", "A stretch of DNA.")]
        >>> chat.messages()[1]
        {'role': 'assistant', 'content': 'A stretch of DNA.'}
        """
        return [{"role": role, "content": text} for turn in self.history for role, text in zip(("user", "assistant"), turn, strict=True)]


def check_chat_request(model: Any, tokenizer: Any, request: Mapping[str, Any]) -> None:
    """Check an OpenAI chat request before a server of others gets it, which may generate beyond the context without a word.

    Raises InputError for messages that the model's chat template refuses, and where they, with `max_tokens` if the request names it and
    one token if not, exceed the model's context.
    """
    messages, room = request.get("messages"), request.get("max_completion_tokens") or request.get("max_tokens") or 1
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
        raise InputError("a chat request without messages", '[{"role": "user", "content": "..."}]')
    if not isinstance(room, int) or room < 1:
        raise InputError(f"max_tokens {str(room)[:20]}", "1 or more")
    spoken = [{**message, "content": _text_of(message.get("content"))} for message in messages]
    try:
        ids = tokenizer.apply_chat_template(spoken, add_generation_prompt=True, tokenize=True, return_dict=True)["input_ids"]
    except (TemplateError, ValueError) as error:  # ValueError: the tokenizer has no chat template
        raise InputError(f"the messages cannot be rendered: {' '.join(str(error).split())[:200]}", "turns that the model knows") from error
    limit = context_length(model)
    if limit is not None and len(ids) + room > limit:
        found = f"the messages have {len(ids):,} tokens, {room:,} more are asked for"
        raise InputError(found, f"at most the model's {limit:,} together", "Nothing is cut: shorten the messages or max_tokens")


def _text_of(content: object) -> str:
    """Return the text of a message: a text, or a list of parts with texts."""
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise InputError("a message whose content is no text", "text: this model reads nothing else")
    return " ".join(map(str, texts))


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
