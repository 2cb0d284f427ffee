"""The nearest neighbour by alignment: a row gets the answer of the training row that it aligns with best.

What finds the hits: MMseqs2 or, for protein, DIAMOND where they are on PATH; else this package's own search (`sequences.similarity`),
with E-value 10 where the audit of splits asks for 0.001, since a doubtful neighbour is better than none. Hits of programs are ranked by
bits, our own by the number of equal letters in the alignment. Mutants of one sequence (rows of one length, alike in 80 % of their
letters) are all relatives of each other: there the nearest is the one with the fewest differences, and no program is asked.

Rows that are equally near share their answers evenly. A row without a hit gets the majority, and `coverage` says how many had one. A pair
needs a training pair that holds a hit of *each* of its members (of two sequences of one kind either way round); the sum of both ranks it.
Tasks that read one strand only (`strand: sense`) take hits on that strand.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from llama_gene.errors import ConfigError, MachineError
from llama_gene.inference.baselines.rows import Baseline, Example, Target, majority_baseline
from llama_gene.inference.baselines.simple import NO_ROWS, letter_codes, prior, wild_type

Engine = Literal["auto", "package", "mmseqs", "diamond"]
EXPECTED = 10.0
MOST_HITS = 50
"""Hits of one sequence that are looked at in pairs."""
_BLOCK = 256  # mutants at a time

Hits = dict[str, dict[str, float]]
"""Sequence asked about -> sequence of train -> how near it is, higher is nearer."""


def run_neighbour(
    target: Target, train_rows: Sequence[Example], rows: Sequence[Example], kinds: Sequence[str], engine: Engine = "auto"
) -> Baseline:
    """Return the nearest neighbours' answers. Raises ConfigError for an engine that is not there, MachineError where it fails."""
    known = [train_rows[i] for i in target.rows] if target.labels else list(train_rows)
    if not known:
        return Baseline("neighbour", reason=NO_ROWS)
    is_alike = len(set(kinds)) == 1  # both members of a pair are searched among all members
    both_strands = rows[0].get("strand", "") != "sense"
    hits: list[Hits] = []
    engines: list[str] = []
    for place, kind in enumerate(kinds[:1] if is_alike else kinds):
        places = range(len(kinds)) if is_alike else (place,)
        asked, there = ([row["sequences"][i] for row in part for i in places] for part in (rows, known))
        found, name = find_hits(asked, there, kind, engine, both_strands)
        hits.append(found)
        engines.append(name)
    nearest = _nearest_pairs(known, rows, hits, is_alike) if len(kinds) == 2 else _nearest_rows(known, rows, hits[0])
    note, coverage = f"by {' and '.join(dict.fromkeys(engines))}", float(np.mean([bool(numbers) for numbers in nearest]))
    if not target.labels:
        commonest = str(majority_baseline(known))
        answers = [str(known[numbers[0]]["output"]) if numbers else commonest for numbers in nearest]
        return Baseline("neighbour", answers=answers, note=note, coverage=coverage)
    shares = prior(target)
    scores = np.array([target.marks[numbers].mean(0) if numbers else shares for numbers in nearest])
    values = None
    if target.values is not None:
        mean = float(target.values.mean())
        values = np.array([float(target.values[numbers].mean()) if numbers else mean for numbers in nearest])
    return Baseline("neighbour", scores=scores, numbers=values, note=note, coverage=coverage)


def find_hits(
    queries: Sequence[str], targets: Sequence[str], kind: str, engine: Engine = "auto", both_strands: bool = True
) -> tuple[Hits, str]:
    """Return the hits of each query among the targets, and in words what found them. A query that is a target has a hit in itself."""
    asked, there = list(dict.fromkeys(queries)), list(dict.fromkeys(targets))
    wild = wild_type(there)
    if wild is not None and all(len(text) == len(wild) for text in [*asked, *there]):
        return _mutant_hits(asked, there), "fewest differences"
    name = _engine(engine, kind)
    if name == "package":
        found, words = _package_hits(asked, there, kind, both_strands), "this package's search"
    else:
        found, words = _program_hits(name, asked, there, kind, both_strands), {"mmseqs": "MMseqs2", "diamond": "DIAMOND"}[name]
    known = set(there)
    for text in asked:
        if text in known:  # low complexity may hide a sequence from itself
            found[text][text] = math.inf
    return found, words


def _engine(engine: Engine, kind: str) -> str:
    """Return the program to use."""
    if engine == "auto":
        wanted = ("mmseqs", "diamond") if kind == "protein" else ("mmseqs",) if kind == "dna" else ()
        return next((name for name in wanted if shutil.which(name)), "package")
    if engine == "diamond" and kind != "protein":
        raise ConfigError(f"DIAMOND is asked to align {kind}", "protein", "Choose mmseqs or package")
    if engine != "package" and shutil.which(engine) is None:
        raise ConfigError(f"there is no '{engine}' on PATH", "the program, or engine package", "Install it")
    return engine


def _package_hits(queries: list[str], targets: list[str], kind: str, both_strands: bool) -> Hits:
    """Return the hits of the package's own search, ranked by equal letters."""
    from llama_gene.sequences.similarity import Thresholds, find_relatives

    hits: Hits = defaultdict(dict)
    for hit in find_relatives(queries, kind, others=targets, thresholds=Thresholds(expected=EXPECTED)):
        if both_strands or hit.strand == 1:
            hits[queries[hit.first]][targets[hit.second]] = hit.identity * hit.length
    return hits


def _program_hits(name: str, queries: list[str], targets: list[str], kind: str, both_strands: bool) -> Hits:
    """Return the hits of MMseqs2 or DIAMOND, ranked by bits."""
    with tempfile.TemporaryDirectory() as folder:
        query, target, table = (str(Path(folder) / file) for file in ("query.fasta", "target.fasta", "hits.tsv"))
        for path, texts in ((query, queries), (target, targets)):
            Path(path).write_text("".join(f">{number}\n{text}\n" for number, text in enumerate(texts)), encoding="ascii")
        if name == "mmseqs":
            options = ["--format-output", "query,target,bits", "-e", f"{EXPECTED:g}", "--threads", "1", "-v", "1"]
            if kind == "dna":
                options += ["--search-type", "3", "--strand", "2" if both_strands else "1"]
            _call(["mmseqs", "easy-search", query, target, table, str(Path(folder) / "work"), *options])
        else:
            base = str(Path(folder) / "target.dmnd")
            _call(["diamond", "makedb", "--in", target, "--db", base, "--threads", "1", "--quiet"])
            options = ["--sensitive", "--evalue", f"{EXPECTED:g}", "--max-target-seqs", str(MOST_HITS), "--threads", "1", "--quiet"]
            _call(
                [
                    "diamond",
                    "blastp",
                    "--query",
                    query,
                    "--db",
                    base,
                    "--out",
                    table,
                    "--outfmt",
                    "6",
                    "qseqid",
                    "sseqid",
                    "bitscore",
                    *options,
                ]
            )
        hits: Hits = defaultdict(dict)
        for line in Path(table).read_text(encoding="ascii").splitlines():
            first, second, bits = line.split("\t")
            own = hits[queries[int(first)]]
            own[targets[int(second)]] = max(float(bits), own.get(targets[int(second)], 0.0))
        return hits


def _call(command: list[str]) -> None:
    """Run a program. Raises MachineError with the last line that it said."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise MachineError(f"{' '.join(command[:2])} failed: {said}", "a search that ends well", "Set the engine to package")


def _mutant_hits(queries: list[str], targets: list[str]) -> Hits:
    """Return for each query the targets with the fewest differing letters (all have one length)."""
    letters = sorted(set("".join(targets)))
    length = len(targets[0])
    asked, there = (letter_codes(texts, letters, length).astype(np.int16) for texts in (queries, targets))
    wild = np.array([np.bincount(column, minlength=len(letters)).argmax() for column in there.T], np.int16)
    changed_there = _marks(there, wild, len(letters))
    hits: Hits = defaultdict(dict)
    for start in range(0, len(queries), _BLOCK):
        part = asked[start : start + _BLOCK]
        sites, same = (one @ two.T for one, two in zip(_marks(part, wild, len(letters)), changed_there, strict=True))
        counts = [np.asarray(one[0].sum(1)).reshape(-1) for one in (_marks(part, wild, len(letters)), changed_there)]
        # a place where both are mutated alike does not differ; where they are mutated differently it was counted twice
        distances = counts[0][:, None] + counts[1][None, :] - np.asarray(sites.todense()) - np.asarray(same.todense())
        for i, row in enumerate(distances):
            hits[queries[start + i]] = {targets[j]: -float(row[j]) for j in np.flatnonzero(row == row.min()).tolist()}
    return hits


def _marks(codes: NDArray[np.int16], wild: NDArray[np.int16], num_letters: int) -> tuple[Any, Any]:
    """Return two sparse matrices of mutations: (N, places) and (N, places x letters)."""
    from scipy.sparse import csr_matrix

    rows, places = np.nonzero(codes != wild)
    ones, length = np.ones(len(rows), np.float32), codes.shape[1]
    letters = codes[rows, places].astype(np.int64)
    # an unknown letter equals no other one: it is a mutated place without a letter
    is_known = letters >= 0
    named = csr_matrix(
        (ones[is_known], (rows[is_known], places[is_known] * num_letters + letters[is_known])), shape=(len(codes), length * num_letters)
    )
    return csr_matrix((ones, (rows, places)), shape=(len(codes), length)), named


def _best(scores: Mapping[int, float]) -> list[int]:
    """Return the keys with the highest score."""
    most = max(scores.values(), default=0.0)
    return [key for key, score in scores.items() if score == most]


def _nearest_rows(known: Sequence[Example], rows: Sequence[Example], hits: Hits) -> list[list[int]]:
    """Return the numbers of the nearest training rows of each row, none where nothing was hit."""
    members: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(known):
        members[row["sequences"][0]].append(number)
    nearest = []
    for row in rows:
        own = hits.get(row["sequences"][0], {})
        most = max(own.values(), default=0.0)
        nearest.append([number for text, score in own.items() if score == most for number in members[text]])
    return nearest


def _nearest_pairs(known: Sequence[Example], rows: Sequence[Example], hits: Sequence[Hits], is_alike: bool) -> list[list[int]]:
    """Return the numbers of the nearest training pairs of each pair."""
    partners: dict[str, list[tuple[str, int]]] = defaultdict(list)  # first member -> second member and the pair's number
    for number, row in enumerate(known):
        one, two = row["sequences"]
        partners[one].append((two, number))
        if is_alike and one != two:
            partners[two].append((one, number))
    best_hits: dict[tuple[int, str], dict[str, float]] = {}

    def of(side: int, text: str) -> dict[str, float]:
        key = (side, text)
        if key not in best_hits:
            own = hits[side].get(text, {})
            chosen = sorted(own, key=lambda other: -own[other])[:MOST_HITS]
            best_hits[key] = {other: min(own[other], 2.0 * len(other)) for other in chosen}  # a sequence itself: more than any alignment
        return best_hits[key]

    nearest = []
    for row in rows:
        one, two = row["sequences"]
        first, second = of(0, one), of(0 if is_alike else 1, two)
        scores: dict[int, float] = {}
        for text, score in first.items():
            for other, number in partners[text]:
                if other in second:
                    scores[number] = max(scores.get(number, 0.0), score + second[other])
        nearest.append(_best(scores))
    return nearest
