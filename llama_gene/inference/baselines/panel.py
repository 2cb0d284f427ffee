"""All baselines of a task by name: what can be measured is, and what cannot says why.

    majority gc kmer positional neighbour          every family
    identity translation                           pairs
    kmer_ridge positional_ridge mutations          regression

    >>> train = [{"output": o, "sequences": [s]} for o, s in [("yes", "GCGC"), ("no", "ATAT"), ("yes", "GGCC"), ("no", "TTAA")]]
    >>> row = {"output": "yes", "sequences": ["GCCG"]}
    >>> found = run_baselines(["gc", "identity"], train, [row], ["dna"], "classification", ["no", "yes"])
    >>> found["gc"].scores.argmax(1).tolist(), found["identity"].reason
    ([1], 'rows are no pairs')

Everything is fitted on the training rows alone. The control: with `shuffle_labels(train_rows)` all of them must sit at the majority, on
the mean over shuffles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llama_gene.errors import ConfigError, InputError, did_you_mean
from llama_gene.inference.baselines.neighbour import Engine, run_neighbour
from llama_gene.inference.baselines.pairs import Match, run_identity, run_translation
from llama_gene.inference.baselines.rows import Baseline, Example, read_target
from llama_gene.inference.baselines.simple import NO_ROWS, run_gc, run_kmer, run_majority, run_mutations, run_positional, run_ridge

NAMES = (
    "majority",
    "gc",
    "kmer",
    "positional",
    "neighbour",
    "identity",
    "translation",
    "kmer_ridge",
    "positional_ridge",
    "mutations",
)
TITLES = {
    "majority": "majority",
    "gc": "GC content",
    "kmer": "k-mer logistic regression",
    "positional": "positional logistic regression",
    "neighbour": "nearest neighbour",
    "identity": "identity only",
    "translation": "translation",
    "kmer_ridge": "k-mer ridge",
    "positional_ridge": "positional ridge",
    "mutations": "mutation count",
}
"""What tables call them."""
CONTROLLED = ("kmer", "positional", "neighbour", "identity", "kmer_ridge", "positional_ridge")
"""What must sit at the majority when it is trained on shuffled labels. The others fit one or two numbers a row: whichever side of a
threshold shuffled labels pick, all rows follow, and the score is far from chance on either side."""


def run_baselines(
    names: Sequence[str],
    train_rows: Sequence[Example],
    rows: Sequence[Example],
    kinds: Sequence[str],
    family: str,
    labels: Sequence[str],
    seed: int = 0,
    *,
    translation: Match | None = None,
    engine: Engine = "auto",
) -> dict[str, Baseline]:
    """Return a result for each name, in their order; one that does not apply has no scores, and a reason.

    `labels` is the closed list of answers; with free text (empty) only majority and neighbour answer, or pass the training answers as
    labels. `translation` matches DNA and protein; `engine` says what aligns. Raises ConfigError for an unknown name, and InputError where
    there is no row to answer.
    """
    for name in names:
        if name not in NAMES:
            raise ConfigError(f"there is no baseline '{name}'", f"one of {', '.join(NAMES)}", did_you_mean(name, NAMES))
    if not rows:
        raise InputError("there is no row to answer", "at least one")
    if not train_rows:
        return {name: Baseline(name, reason=NO_ROWS) for name in names}
    target = read_target(train_rows, labels, family)
    runners: dict[str, Callable[[], Baseline]] = {
        "majority": lambda: run_majority(target, train_rows, rows),
        "gc": lambda: run_gc(target, train_rows, rows, kinds),
        "kmer": lambda: run_kmer(target, train_rows, rows, kinds, family, seed),
        "positional": lambda: run_positional(target, train_rows, rows, kinds, family, seed),
        "neighbour": lambda: run_neighbour(target, train_rows, rows, kinds, engine),
        "identity": lambda: run_identity(target, train_rows, rows, kinds, seed),
        "translation": lambda: run_translation(target, train_rows, rows, kinds, translation),
        "kmer_ridge": lambda: run_ridge("kmer_ridge", target, train_rows, rows, kinds, family, seed),
        "positional_ridge": lambda: run_ridge("positional_ridge", target, train_rows, rows, kinds, family, seed),
        "mutations": lambda: run_mutations(target, train_rows, rows, kinds),
    }
    return {name: runners[name]() for name in names}
