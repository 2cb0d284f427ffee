"""Heads for classes, residues and numbers on causal models and on encoders. B rows, T tokens, K labels, N rows in all.

    sequence      one label a row           AutoModelForSequenceClassification
    residue       one label a letter        AutoModelForTokenClassification, (B, T, K)
    regression    one number a row          AutoModelForSequenceClassification with one output, trained on scaled values

The classes are transformers' own for the model's family, so that its `pipeline` loads what is written. An encoder is what has a masked
language-model class (BERT, ESM); a causal model is read as in `heads`. A causal model's residue head sees what stands before a residue and
nothing behind it. Residue rows have a token a letter, whatever the vocabulary: letters of a causal model are encoded one by one, and a
vocabulary that cannot spell one letter as one token is refused. Long sequences are cut into windows, and no residue is lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from llama_gene import runtime
from llama_gene.data.instructions import Example
from llama_gene.data.prompts import encode_after
from llama_gene.data.supervised import EncodedPrompt, encode_sequences
from llama_gene.errors import ConfigError, InputError, LlamaGeneError
from llama_gene.models.build import load_base
from llama_gene.models.encoders import (
    encode_spelled,
    find_spelling,
    load_any_tokenizer,
    load_config,
    load_whole,
    model_name,
    outer_ids,
    spell,
)
from llama_gene.models.heads import pad_rows, padding_id, write_row_tokenizer
from llama_gene.tokenization.tokenizer import load_tokenizer, vocabulary_fingerprint

Head = Literal["sequence", "residue", "regression"]
IGNORED = -100
"""Hugging Face's label for tokens without loss."""


@dataclass(frozen=True)
class Reader:
    """How sequences become rows of ids for a head; `spelling` is None for a causal model: [BOS] sequence EOS."""

    tokenizer: Any
    spelling: str | None

    def encode(self, example: Example, max_length: int) -> EncodedPrompt | None:
        """Return a row of at most `max_length` tokens, its sequences shortened no more than needed; None where that is not enough."""
        spelling = self.spelling
        if spelling is None:
            return encode_sequences(self.tokenizer, example, max_length)

        def encode_input(text: str) -> list[int]:
            parts = [spell(part, spelling) for part in text.split("\n")]
            ids: list[int] = self.tokenizer(*parts, add_special_tokens=True, truncation=False, verbose=False)["input_ids"]
            return ids

        return encode_sequences(self.tokenizer, example, max_length, encode_input)

    def windows(self, sequence: str, max_length: int) -> list[LetterWindow]:
        """Return rows with a token a letter that cover the sequence, in order. Raises InputError where a letter is not one token."""
        around = len(self._letters("A")[0]) - 1
        size = max_length - around
        if size < 1:
            raise ConfigError(f"max_length is {max_length}", f"more than {around}, the special tokens", "Raise --max_length")
        return [
            LetterWindow(*self._letters(sequence[start : start + size]), start=start, size=len(sequence[start : start + size]))
            for start in range(0, len(sequence), size)
        ]

    def _letters(self, text: str) -> tuple[list[int], int]:
        """Return the ids of a text with a token a letter, and the place of its first letter's token."""
        if self.spelling is None:
            before = [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]
            pieces = [encode_after(self.tokenizer, "\n", letter) for letter in text]
            if any(len(piece) != 1 for piece in pieces):
                raise self._not_letters(next(letter for letter, piece in zip(text, pieces, strict=True) if len(piece) != 1))
            return [*before, *(piece[0] for piece in pieces), self.tokenizer.eos_token_id], len(before)
        ids = encode_spelled(self.tokenizer, text, self.spelling)
        outer = outer_ids(self.tokenizer)
        places = [place for place, i in enumerate(ids) if i not in outer]
        if len(places) != len(text) or self.spelling.endswith("-mers"):
            raise self._not_letters(text[:10])
        return ids, places[0]

    def _not_letters(self, text: str) -> InputError:
        return InputError(
            f"'{text}' is not a token a letter in this vocabulary", "a vocabulary of letters", "Use another model, or --head sequence"
        )

    @property
    def fingerprint(self) -> str:
        """What names the vocabulary."""
        if self.spelling is None:
            return vocabulary_fingerprint(self.tokenizer)
        return runtime.fingerprint([self.spelling, sorted(self.tokenizer.get_vocab().items())])

    def write(self, folder: Path) -> None:
        """Write the tokenizer's files."""
        if self.spelling is None:
            write_row_tokenizer(self.tokenizer, folder)
        else:
            self.tokenizer.save_pretrained(folder)


@dataclass(frozen=True)
class LetterWindow:
    """Ids with a token a letter; the letters `start` to `start + size` of a sequence stand from token `first` on."""

    input_ids: list[int]
    first: int
    start: int
    size: int


def is_encoder(name_or_path: str | Path) -> bool:
    """Return whether a model is an encoder; False also for what cannot be read, which its loader will say."""
    try:
        return type(load_config(model_name(name_or_path))) in MODEL_FOR_MASKED_LM_MAPPING
    except LlamaGeneError:
        return False


def open_reader(name_or_path: str | Path, texts: Sequence[str]) -> Reader:
    """Return how a model reads sequences; `texts` decide an encoder's spelling. Raises what `load_encoder` raises."""
    if is_encoder(name_or_path):
        name = model_name(name_or_path)
        tokenizer = load_any_tokenizer(name)
        return Reader(tokenizer, find_spelling(tokenizer, texts, name))
    tokenizer = load_tokenizer(name_or_path)
    if tokenizer.eos_token_id is None:
        raise InputError(f"the tokenizer of {name_or_path} has no end-of-text token", "one, to end a row", "Set eos_token in its config")
    return Reader(tokenizer, None)


def new_head(name_or_path: str | Path, reader: Reader, head: Head, labels: Sequence[str], seed: int = 0) -> Any:
    """Return a model's body, in float32, under a fresh head drawn from the seed; `labels` go into its config (regression: none).

    Raises what `load_encoder` and `load_base` raise, and ConfigError for a family without such a class.
    """
    kind: Any = AutoModelForTokenClassification if head == "residue" else AutoModelForSequenceClassification
    name = model_name(name_or_path)
    config = load_config(name)
    names = ["value"] if head == "regression" else list(labels)
    changes = {
        "id2label": dict(enumerate(names)),
        "label2id": {label: k for k, label in enumerate(names)},
        "problem_type": "regression" if head == "regression" else "single_label_classification",
    }
    torch.manual_seed(seed)
    if reader.spelling is not None:
        config.update(changes)
        if config.pad_token_id is None:
            config.pad_token_id = reader.tokenizer.pad_token_id or 0
        return load_whole(kind, name, config)
    causal: Any = load_base(name)
    causal.config.update({**changes, "pad_token_id": padding_id(reader.tokenizer)})
    try:
        with torch.device("meta"):  # its body is replaced at once
            model: Any = kind.from_config(causal.config)
    except ValueError as error:
        raise ConfigError(
            f"{name} is a {causal.config.model_type}", f"a family with a class for --head {head}", "Use another base"
        ) from error
    setattr(model, model.base_model_prefix, causal.base_model)
    for layer_name, layer in list(model.named_children()):
        if layer_name != model.base_model_prefix and isinstance(layer, torch.nn.Linear):
            fresh = torch.nn.Linear(layer.in_features, len(names), bias=layer.bias is not None)
            torch.nn.init.normal_(fresh.weight, std=causal.config.initializer_range)
            if fresh.bias is not None:
                torch.nn.init.zeros_(fresh.bias)
            setattr(model, layer_name, fresh)
    return model


def head_layers(model: Any) -> list[str]:
    """Return the names of the layers above a model's body: what trains whole under LoRA."""
    return [name for name, layer in model.named_children() if name != model.base_model_prefix and any(True for _ in layer.parameters())]


def linear_layers(model: Any) -> list[str]:
    """Return the full names of the linear layers of a model's body: what LoRA updates where nobody names any."""
    from transformers.pytorch_utils import Conv1D

    body = getattr(model, model.base_model_prefix)
    found = [name for name, layer in body.named_modules() if isinstance(layer, (torch.nn.Linear, Conv1D)) and "pooler" not in name]
    return [f"{model.base_model_prefix}.{name}" for name in found]


def letter_logits(model: Any, windows: Sequence[LetterWindow], batch_tokens: int = 16384) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Yield (number, logits of its letters (size, K)) of each window, longest first."""
    order = sorted(range(len(windows)), key=lambda i: -len(windows[i].input_ids))
    start = 0
    with torch.inference_mode():
        while start < len(order):
            batch = order[start : start + max(1, batch_tokens // len(windows[order[start]].input_ids))]
            inputs = pad_rows([windows[i].input_ids for i in batch], model.config.pad_token_id)
            logits_BTK = model(**{name: values.to(model.device) for name, values in inputs.items()}).logits.double().cpu().numpy()
            for row, i in enumerate(batch):
                window = windows[i]
                yield i, logits_BTK[row, window.first : window.first + window.size]
            start += len(batch)
