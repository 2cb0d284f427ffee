"""The token ids of a GGUF file by llama.cpp itself, beside ours: the one check that no reading of the file replaces.

llama.cpp has encoders of its own. A file whose vocabulary it cuts or merges in another way loads, answers and is wrong, without an error.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path

from llama_gene.errors import InputError
from llama_gene.tokenization.tokenizer import encode_text, load_tokenizer


def ids_by_llama_cpp(path: Path, texts: Sequence[str]) -> list[list[int]] | None:
    """Return the ids that llama.cpp gives to texts, BOS where the file asks for it, None where `llama-cpp-python` is not installed.

    Only the vocabulary of the file is loaded. Text that spells a special token stays text. Raises InputError for a file that does not open.
    """
    try:
        import llama_cpp
    except ImportError:
        return None
    said = io.StringIO()
    try:
        with redirect_stderr(said):  # it warns that a vocabulary alone has no context length
            model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    except ValueError as error:
        reason = " ".join(said.getvalue().split())[-200:]
        raise InputError(f"llama.cpp does not open {path} ({reason})", "a whole GGUF file", "Write it again") from error
    try:
        return [model.tokenize(text.encode(), add_bos=True, special=False) for text in texts]
    finally:
        model.close()


def ids_by_us(folder: Path, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids that the same texts have in training and evaluation."""
    tokenizer = load_tokenizer(folder)
    start: list[int] = tokenizer.backend_tokenizer.encode("").ids
    return [start + encode_text(tokenizer, text) for text in texts]
