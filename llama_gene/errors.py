"""Errors that a user can act on.

Every error that this package raises on purpose says three things: what was found, what was expected, and what to do.
The command line prints them as one line and exits with code 2; anything else keeps its traceback.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path


class LlamaGeneError(Exception):
    """What was found, what was expected, what to do.

    >>> print(LlamaGeneError("genome.fa, line 812: '*'", "DNA letters (ACGT and IUPAC codes)", "For proteins set kind: protein"))
    genome.fa, line 812: '*'; expected DNA letters (ACGT and IUPAC codes). For proteins set kind: protein.
    """

    def __init__(self, found: str, expected: str = "", action: str = "") -> None:
        self.found = found
        self.expected = expected
        self.action = action
        super().__init__(found, expected, action)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.found, self.expected, self.action)  # children have other arguments; workers send errors home

    def __str__(self) -> str:
        message = self.found
        if self.expected:
            message += f"; expected {self.expected}"
        if self.action:
            message += f". {self.action}"
        return message if message.endswith((".", "?", "!")) else message + "."


class InputError(LlamaGeneError, ValueError):
    """A file, a record or a value that the user gave cannot be read or used."""


class MissingFileError(LlamaGeneError, FileNotFoundError):
    """A file or folder that the user named does not exist, or a file stands where a folder was named."""

    def __init__(self, path: Path | str, what: str = "a file", action: str = "Check the path") -> None:
        super().__init__(f"{path} " + ("is a file" if os.path.isfile(path) else "does not exist"), what, action)


class ConfigError(LlamaGeneError, ValueError):
    """A config has an unknown key, a missing value or values that contradict each other."""


class MismatchError(LlamaGeneError, ValueError):
    """Two artefacts do not belong together: their fingerprints or sizes differ."""


class MachineError(LlamaGeneError, RuntimeError):
    """This machine lacks something that the step needs (compiler, disk, GPU, network)."""


def _rebuild(kind: type[LlamaGeneError], found: str, expected: str, action: str) -> LlamaGeneError:
    """Return an error as it was before it was pickled."""
    error = kind.__new__(kind)
    LlamaGeneError.__init__(error, found, expected, action)
    return error


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question that names the nearest known word, or an empty string when none is near; case does not count.

    >>> did_you_mean("packk", ["corpus", "pack"])
    "Did you mean 'pack'?"
    """
    choices = list(known)
    # As a whole first; then by the last part alone, since a key may stand under another parent.
    for part in (str.lower, _last_part):
        names = {part(choice): choice for choice in reversed(choices)}
        close = difflib.get_close_matches(part(word), list(names), n=1, cutoff=0.5)
        if close:
            return f"Did you mean '{names[close[0]]}'?"
    return ""


def _last_part(key: str) -> str:
    return key.lower().rsplit(".", 1)[-1]
