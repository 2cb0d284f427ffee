"""How many planted relatives the similarity search finds, how many unrelated pairs it joins, and whether a split by its clusters leaks.

Everything is simulated, from a seed: parents of several lengths, one relative of each, and unrelated sequences beside them. The letters
are drawn evenly, or as real ones are distributed: DNA like the human genome (41 % GC, few CpG; CpG islands in one sequence of five, poly-A
and microsatellites in one of ten), protein like Swiss-Prot (one sequence of ten with a stretch of few residues). A mutant of 80 % identity
has exactly one change in five letters; a homologue of 35 % keeps exactly 35 % of its residues, changes the others as BLOSUM62 has it, and
loses or gains one stretch of up to four for each 75.

    python benchmarks/relatives.py [--pairs 1000] [--unrelated 3000] [--kinds dna protein] [--letters even real] [--expected 0.001]

Prints Markdown: for each relation and length how many pairs `clusters` (for splits) and `find_relatives` (for the audit, at `--expected`)
find of the planted ones; how many that an exhaustive alignment tells from chance no seed finds; false pairs; relatives on two sides of a
split; seconds.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from functools import cache

from llama_gene.sequences.alphabet import get_alphabet, reverse_complement
from llama_gene.sequences.similarity import Thresholds, clusters, find_relatives, split_by_group

LETTERS = {"dna": "ACGT", "protein": "ACDEFGHIKLMNPQRSTVWY"}
LENGTHS = {"dna": (150, 200, 300), "protein": (50, 75, 100, 150, 300)}
# per cent, in the order of LETTERS
SWISS_PROT = (8.25, 1.38, 5.46, 6.72, 3.86, 7.07, 2.27, 5.91, 5.80, 9.65, 2.41, 4.06, 4.74, 3.93, 5.53, 6.65, 5.36, 6.86, 1.10, 2.92)
GENOME = {"A": (33, 17, 24, 26), "C": (35, 25, 5, 35), "G": (29, 21, 26, 24), "T": (22, 20, 25, 33)}  # the next base, ACGT
ISLAND = {"A": (18, 28, 38, 16), "C": (18, 36, 27, 19), "G": (17, 34, 36, 13), "T": (9, 35, 37, 19)}
Maker = Callable[[random.Random, str], str]


def draw(rng: random.Random, kind: str, length: int, real: bool) -> str:
    """Return a random sequence."""
    if not real:
        return "".join(rng.choices(LETTERS[kind], k=length))
    if kind == "protein":
        text = "".join(rng.choices(LETTERS[kind], SWISS_PROT, k=length))
        repeat = "".join(rng.choices(rng.choice(("QQP", "EKE", "GGS", "AAL")), k=min(25, length // 4)))
    else:
        table = ISLAND if rng.random() < 0.2 else GENOME
        text = rng.choice("ACGT")
        while len(text) < length:
            text += rng.choices("ACGT", table[text[-1]])[0]
        repeat = (rng.choice(("A", "CA", "GATA", "T")) * length)[: rng.randrange(20, 40)]
    if rng.random() < 0.1:
        at = rng.randrange(length - len(repeat))
        text = text[:at] + repeat + text[at + len(repeat) :]
    return text


def mutant(rng: random.Random, text: str, kind: str, identity: float, indels: float) -> str:
    """Return `text` with a change in exactly 1 - identity of its letters; a share `indels` of them are lost or gained letters."""
    places = rng.sample(range(len(text)), round((1 - identity) * len(text)))
    letters = list(text)
    for number, place in enumerate(places):
        if number < indels * len(places):
            letters[place] = "" if number % 2 else letters[place] + rng.choice(LETTERS[kind])
        else:
            letters[place] = rng.choice(LETTERS[kind].replace(text[place], ""))
    return "".join(letters)


@cache
def replacements(residue: str) -> tuple[float, ...]:
    """Return how probable each residue is in place of this one, in alignments of the BLOSUM62 kind."""
    from Bio.Align import substitution_matrices

    scores = substitution_matrices.load("BLOSUM62")
    return tuple(
        0.0 if other == residue else share * 2 ** (scores[residue, other] / 2)
        for other, share in zip(LETTERS["protein"], SWISS_PROT, strict=True)
    )


def homologue(rng: random.Random, text: str, identity: float) -> str:
    """Return a protein that keeps exactly `identity` of the residues, and one gap for each 75."""
    kept = set(rng.sample(range(len(text)), round(identity * len(text))))
    letters = [old if place in kept else rng.choices(LETTERS["protein"], replacements(old))[0] for place, old in enumerate(text)]
    for number in range(len(text) // 75):
        size, at = rng.randrange(1, 5), rng.randrange(10, len(text) - 10)
        if number % 2:
            letters[at : at + size] = [""] * size
        else:
            letters[at] += "".join(rng.choices(LETTERS["protein"], SWISS_PROT, k=size))
    return "".join(letters)


def makers(kind: str, real: bool) -> dict[str, Maker]:
    """Return what makes a relative of a parent, by name."""

    def window(rng: random.Random, text: str) -> str:
        start = len(text) // 2
        return text[start:] + draw(rng, kind, start, real)

    found: dict[str, Maker] = {
        "substring (half)": lambda rng, text: text[len(text) // 4 : len(text) // 4 + len(text) // 2],
        "shifted window (half)": window,
    }
    if kind == "dna":
        found |= {
            "reverse complement": lambda rng, text: reverse_complement(text),
            "shifted window, other strand": lambda rng, text: reverse_complement(window(rng, text)),
            "90 % identity, 1 in 4 changes an indel": lambda rng, text: mutant(rng, text, kind, 0.9, 0.25),
            "80 %, substitutions": lambda rng, text: mutant(rng, text, kind, 0.8, 0.0),
            "80 %, 1 in 4 changes an indel": lambda rng, text: mutant(rng, text, kind, 0.8, 0.25),
            "80 %, half of the changes indels": lambda rng, text: mutant(rng, text, kind, 0.8, 0.5),
            "80 %, 1 in 4 an indel, other strand": lambda rng, text: reverse_complement(mutant(rng, text, kind, 0.8, 0.25)),
            "70 %, 1 in 4 changes an indel": lambda rng, text: mutant(rng, text, kind, 0.7, 0.25),
        }
    else:
        for per_cent in (70, 50, 40, 35, 30):
            found[f"homologue, {per_cent} % identity"] = lambda rng, text, per_cent=per_cent: homologue(rng, text, per_cent / 100)
    return found


def measure(kind: str, real: bool, num_pairs: int, num_unrelated: int, expected: float, seed: int) -> None:
    """Plant, search, split; print one table."""
    rng, thresholds = random.Random(seed), Thresholds(expected=expected)
    lengths, named = LENGTHS[kind], list(makers(kind, real).items())
    classes = [(name, make, length) for name, make in named for length in lengths]
    planted = [classes[number % len(classes)] for number in range(num_pairs)]
    parents = [draw(rng, kind, length, real) for _, _, length in planted]
    children = [make(rng, text) for (_, make, _), text in zip(planted, parents, strict=True)]
    unrelated = [draw(rng, kind, lengths[number % len(lengths)], real) for number in range(num_unrelated)]
    sequences = parents + children + unrelated
    family = [*range(num_pairs), *range(num_pairs), *range(num_pairs, num_pairs + num_unrelated)]

    start = time.process_time()
    groups = clusters(sequences, kind)
    seconds = time.process_time() - start
    start = time.process_time()
    by_group: dict[int, list[int]] = {}
    for member, group in enumerate(groups):
        by_group.setdefault(group, []).append(member)
    relatives = find_relatives(sequences, kind, thresholds=thresholds)
    listed = time.process_time() - start
    found = {(relative.first, relative.second) for relative in relatives}
    false_pairs = sum(family[first] != family[second] for first, second in found)
    splits = split_by_group(groups, {"train": 0.7, "dev": 0.1, "test": 0.2}, seed)
    straddling = sum(splits[first] != splits[second] for first, second in found)
    leaked = sum(splits[number] != splits[num_pairs + number] for number in range(num_pairs))
    exhaustive = alignable(parents, children, sequences, kind, thresholds)

    print(f"\n### {kind}, {'letters as in real sequences' if real else 'even letters'} (simulated, seed {seed})\n")
    print("| relative | " + " | ".join(f"{length} {'bp' if kind == 'dna' else 'residues'}" for length in lengths) + " |")
    print("|---" * (len(lengths) + 1) + "|")
    for name, make in named:
        cells = []
        for length in lengths:
            own = [number for number in range(num_pairs) if planted[number] == (name, make, length)]
            joined = sum(groups[number] == groups[num_pairs + number] for number in own)
            hits = sum((number, num_pairs + number) in found for number in own)
            cells.append(f"{joined} / {hits} of {len(own)}")
        print(f"| {name} | " + " | ".join(cells) + " |")
    compared = len(sequences) * (len(sequences) - 1) // 2
    missed = sum(could and (number, num_pairs + number) not in found for number, could in enumerate(exhaustive))
    strangers = sum(len({family[member] for member in members}) - 1 for members in by_group.values())
    print(
        f"\n{len(sequences):,} sequences, {sum(map(len, sequences)):,} letters. Planted pairs listed: {len(found) - false_pairs:,} of "
        f"{num_pairs:,}; alignable ones missed: {missed}. False pairs: {false_pairs} of {compared:,} ({false_pairs / compared:.1e}). "
        f"Families that chance joined in clusters: {strangers}. "
        f"Listed pairs that straddle the split: {straddling}; planted ones: {leaked}. "
        f"clusters {seconds:.1f} s, find_relatives {listed:.1f} s CPU."
    )


def alignable(parents: list[str], children: list[str], sequences: list[str], kind: str, thresholds: Thresholds) -> list[bool]:
    """Return which planted pairs an alignment without seeds tells from chance, in a search of this size."""
    from llama_gene.sequences.similarity import _Search

    search = _Search(sequences, None, get_alphabet(kind), thresholds)
    strands = (0, 1) if kind == "dna" else (0,)
    number = len(parents)
    return [any(search.judge(pair, number + pair, strand, 0) for strand in strands) for pair in range(number)]


def main() -> None:
    parser = argparse.ArgumentParser(description="recall and false pairs of the similarity search, on planted relatives")
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--unrelated", type=int, default=3000)
    parser.add_argument("--kinds", nargs="+", default=["dna", "protein"], choices=["dna", "protein"])
    parser.add_argument("--letters", nargs="+", default=["even", "real"], choices=["even", "real"])
    parser.add_argument("--expected", type=float, default=0.001, help="chance pairs that a whole search may make")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for kind in arguments.kinds:
        for letters in arguments.letters:
            measure(kind, letters == "real", arguments.pairs, arguments.unrelated, arguments.expected, arguments.seed)


if __name__ == "__main__":
    main()
