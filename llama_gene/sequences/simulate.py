"""Simulated genomes, proteins and labelled tasks with known answers, for the demo and the tests. Nothing here is real biology.

What is simulated, and by which process:

genome      genes on both strands: promoter (CpG-rich stretch, TATA box at -30, initiator at the start site), start codon, biased
            codon usage, GT..AG introns, stop codon, polyadenylation signal; CpG-poor DNA between genes; one run of N a chromosome.
proteome    the proteins of those genes and more. Residues are drawn by a hidden Markov model of helix, strand and coil segments (least
            lengths 5, 3, 2) with strong propensities a la Chou-Fasman; PROSITE-like motifs are laid over it. Some are paralogs.
tasks       six tables. Rows come in families (an ancestor and its mutated copies); a family lies in one split only. `label` is what a
            model learns and is scored on, `oracle` the noise-free answer of the process; 6 % of the labels of a class are
            swapped (as many in as out, so classes stay balanced), hence a ceiling of 0.94. Exceptions: the genetic code is never
            wrong (central_dogma, ceiling 1), expression has Gaussian noise, and structure has the forward-backward posterior.
english     documents made from the Python language reference (`pydoc_data.topics`), so the text depends on the Python version.

Train, dev, valid and test are drawn from separate random streams, so that no sequence of one has a relative in another, and a
larger train split leaves the test split as it is. The same config gives the same bytes (law 15).

Each task but central_dogma carries a strong signal in local composition and short motifs (a k-mer model finds it) and a positional or
relational one beyond it. Test accuracy at the default sizes, seeds 0 to 2; k-mer model: logistic regression (C = 0.1) on counts of
DNA 3-5-mers and protein 1-2-mers; for secondary_structure the commonest state of each residue, per residue:

    task                   majority   k-mer model       oracle
    promoter_detection       0.50     0.76 to 0.80      0.94
    secondary_structure   0.41-0.43   0.73 to 0.74   0.84-0.85   (a linear model on 15 residues: 0.82)
    protein_interaction      0.50     0.73 to 0.81      0.94
    central_dogma            0.50     0.47 to 0.53      1.00
    protein_function         0.25     0.74 to 0.84      0.95
    promoter_expression   0.51-0.57   0.78 to 0.85   0.92-0.94   (two bins at the training median)

Families are unrelated by construction. A search by similarity still joins a few that share a binding domain (2 of 1,111 interaction
clusters hold families of two splits at seed 0): the domain is the shared mechanism, not a shared ancestor.
"""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llama_gene.errors import ConfigError
from llama_gene.sequences.alphabet import reverse_complement, translate

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
LABEL_NOISE = 0.06  # share of the rows of a class that carry another class's label
FAMILY_SIZES = (1, 1, 2, 3)  # drawn uniformly: 1.75 rows a family
MUTATION_RATE = 0.1  # substitutions per letter outside motifs between an ancestor and its relatives


@dataclass(frozen=True)
class SimulationConfig:
    """Sizes of the simulated data; the defaults take 2 to 3 CPU-seconds."""

    seed: int = 0
    """Seed of every random stream."""
    genome_train: int = 600_000
    """Least length of the training genome (bp, all chromosomes)."""
    genome_valid: int = 60_000
    """Least length of the held-out genome (bp)."""
    num_chromosomes: int = 4
    """Chromosomes of the training genome; the held-out genome has one."""
    proteome_train: int = 300_000
    """Least number of residues of the training proteome."""
    proteome_valid: int = 30_000
    """Least number of residues of the held-out proteome."""
    rows_train: int = 1_500
    """Training rows of each task but secondary_structure; a multiple of 4, so that classes balance."""
    rows_dev: int = 100
    """Development rows of each task but secondary_structure; a multiple of 4."""
    rows_test: int = 300
    """Test rows of each task but secondary_structure; a multiple of 4."""
    proteins_train: int = 400
    """Training proteins of secondary_structure."""
    proteins_dev: int = 40
    """Development proteins of secondary_structure."""
    proteins_test: int = 150
    """Test proteins of secondary_structure."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be met."""
        for name in ("rows_train", "rows_dev", "rows_test"):
            if getattr(self, name) < 4 or getattr(self, name) % 4:
                raise ConfigError(f"{name} {getattr(self, name)}", "a multiple of 4, so that classes balance exactly", f"Change {name}")
        for name in ("genome_train", "genome_valid", "num_chromosomes", "proteome_train", "proteome_valid"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} {getattr(self, name)}", "at least 1", f"Change {name}")
        for name in ("proteins_train", "proteins_dev", "proteins_test"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} {getattr(self, name)}", "at least 1", f"Change {name}")


def simulate(out_dir: Path, config: SimulationConfig = SimulationConfig()) -> dict[str, Any]:
    """Write genome, proteome, English and tasks into `out_dir`; return their counts (JSON-like).

    Files: genome.{train,valid}.fa, proteome.{train,valid}.fa, english.{train,valid}.jsonl, tasks/NAME.yaml,
    tasks/NAME/{train,dev,test}.csv, README.txt. The same config gives the same bytes.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {"simulated": True, "seed": config.seed}
    for split, num_chromosomes, num_bases, num_residues in (
        ("train", config.num_chromosomes, config.genome_train, config.proteome_train),
        ("valid", 1, config.genome_valid, config.proteome_valid),
    ):
        facts[split] = _write_genome_and_proteome(out_dir, config.seed, split, num_chromosomes, num_bases, num_residues)
        facts[split]["english_documents"] = _write_english(out_dir, split)
    facts["tasks"] = {task.name: _write_task(out_dir / "tasks", task, config) for task in TASKS}
    (out_dir / "README.txt").write_text(_README.format(seed=config.seed), encoding="utf-8")
    return facts


_README = """The DNA and the protein in this folder are SIMULATED: they come from no organism, and what a model scores on them
says nothing about biology. They were drawn by llama_gene/sequences/simulate.py with seed {seed}; its first lines say by which process.

genome.*.fa      SIMULATED chromosomes      proteome.*.fa    SIMULATED proteins (a header names the exons that code for it)
english.*.jsonl  documents made from `pydoc_data.topics`, the reference texts that Python's own help() shows (PSF licence)
tasks/NAME.yaml  a task; tasks/NAME/*.csv its rows: `label` is to be learned, `oracle` is the simulator's noise-free answer,
                 `group` is the family of the row (a family lies in one split only)
"""


# --- residues: helix, strand and coil segments -------------------------------------------------------------------------------

_STRUCTURES = "HEC"
_LEAST_LENGTHS = {"H": 5, "E": 3, "C": 2}
# Chance to go on once the least length is reached: mean lengths 37, 27 and 26 residues, longer than in nature (10, 5 and 6), so that the
# 31 residues that a question shows hold one or two segments and a model of a million weights finds the signal in minutes.
_STAY = {"H": 0.97, "E": 0.96, "C": 0.96}
_NEXT = {"H": {"E": 0.2, "C": 0.8}, "E": {"H": 0.2, "C": 0.8}, "C": {"H": 0.5, "E": 0.5}}
_FAVOURED = {  # relative propensities; every other residue has 0.5
    "H": {"A": 3.0, "L": 3.0, "E": 3.5, "K": 2.5, "M": 2.0, "Q": 2.2, "R": 2.0},
    "E": {"V": 4.0, "I": 4.0, "Y": 2.5, "F": 2.5, "W": 1.5, "T": 2.5},
    "C": {"G": 4.0, "P": 4.0, "N": 3.0, "D": 3.0, "S": 3.0},
}
_PROPENSITIES = {structure: [_FAVOURED[structure].get(residue, 0.5) for residue in RESIDUES] for structure in _STRUCTURES}


def _draw_structure(rng: random.Random, length: int) -> str:
    """Draw a string of H, E and C: segments of at least 5, 3 and 2 residues (the last may be cut)."""
    segments: list[str] = []
    num_drawn = 0
    structure = rng.choice(_STRUCTURES)
    while num_drawn < length:
        segment = _LEAST_LENGTHS[structure]
        while rng.random() < _STAY[structure]:
            segment += 1
        segments.append(structure * segment)
        num_drawn += segment
        following = _NEXT[structure]
        structure = rng.choices(list(following), list(following.values()))[0]
    return "".join(segments)[:length]


def _draw_residues(rng: random.Random, structure: str) -> str:
    """Draw a residue for each letter of a structure."""
    return "".join(rng.choices(RESIDUES, _PROPENSITIES[state])[0] for state in structure)


def _draw_protein(rng: random.Random, length: int) -> str:
    """Draw residues of an unstated structure."""
    return _draw_residues(rng, _draw_structure(rng, length))


def most_probable_structure(protein: str) -> str:
    """Return for each residue the state H, E or C of highest posterior under the generating process (forward-backward, exact).

    A segment type of least length n is a chain of n hidden states, of which the last may stay; so 5 + 3 + 2 states in all.
    """
    start, step, emission = _hidden_markov_model()
    evidence = emission[:, [RESIDUES.index(residue) for residue in protein]]  # (states, residues)
    forward = np.empty_like(evidence)
    backward = np.ones_like(evidence)
    for i in range(evidence.shape[1]):
        forward[:, i] = (start if i == 0 else forward[:, i - 1] @ step) * evidence[:, i]
        forward[:, i] /= forward[:, i].sum()
    for i in range(evidence.shape[1] - 2, -1, -1):
        backward[:, i] = step @ (evidence[:, i + 1] * backward[:, i + 1])
        backward[:, i] /= backward[:, i].sum()
    posterior = forward * backward
    of_type = np.stack([posterior[_state_types() == structure].sum(axis=0) for structure in _STRUCTURES])
    return "".join(_STRUCTURES[best] for best in of_type.argmax(axis=0))


@cache
def _state_types() -> NDArray[np.str_]:
    """Return the segment type of each hidden state: HHHHHEEECC."""
    return np.array(list("".join(structure * _LEAST_LENGTHS[structure] for structure in _STRUCTURES)))


@cache
def _hidden_markov_model() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return start (S,), step (S, S) and emission (S, 20) of the process that `_draw_structure` and `_draw_residues` follow."""
    types = _state_types()
    first = {structure: int(np.argmax(types == structure)) for structure in _STRUCTURES}
    start, step = np.zeros(len(types)), np.zeros((len(types), len(types)))
    emission = np.stack([np.array(_PROPENSITIES[structure]) / sum(_PROPENSITIES[structure]) for structure in types])
    for structure in _STRUCTURES:
        start[first[structure]] = 1 / len(_STRUCTURES)
        last = first[structure] + _LEAST_LENGTHS[structure] - 1
        for state in range(first[structure], last):
            step[state, state + 1] = 1.0
        step[last, last] = _STAY[structure]
        for following, chance in _NEXT[structure].items():
            step[last, first[following]] = (1 - _STAY[structure]) * chance
    return start, step, emission


# --- motifs ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Molecule:
    """One sequence of a row; relatives keep the letters at `fixed` and change others to `letters`."""

    text: str
    fixed: frozenset[int]
    letters: str


def _lay(rng: random.Random, text: str, pattern: str, start: int) -> _Molecule:
    """Lay a PROSITE-like pattern (`G-x(4)-G-K-[ST]`) over a protein from `start`; x keeps the residue that is there."""
    residues, fixed, position = list(text), set(), start
    for element in pattern.split("-"):
        if element.startswith("x"):
            bounds = [int(number) for number in re.findall(r"\d+", element)] or [1]
            position += rng.randint(bounds[0], bounds[-1])
            continue
        residues[position] = rng.choice(element.strip("[]"))
        fixed.add(position)
        position += 1
    return _Molecule("".join(residues), frozenset(fixed), RESIDUES)


def _longest(pattern: str) -> int:
    """Return the greatest length that a pattern can take (residues)."""
    return sum(int((re.findall(r"\d+", element) or ["1"])[-1]) for element in pattern.split("-"))


def _scramble(rng: random.Random, text: str, pattern: str, start: int) -> str:
    """Lay the letters of a pattern in a random other order, one beside the other: a decoy of the same composition."""
    letters = [rng.choice(element.strip("[]")) for element in pattern.split("-") if not element.startswith("x")]
    ordered = list(letters)
    while len(set(letters)) > 1 and letters == ordered:
        rng.shuffle(letters)
    return text[:start] + "".join(letters) + text[start + len(letters) :]


def _tilt(rng: random.Random, text: str, letters: str, share: float) -> str:
    """Replace a share of the letters by letters of a given composition."""
    return "".join(rng.choice(letters) if rng.random() < share else letter for letter in text)


FUNCTIONS = {  # function -> (motif, residues that the rest of the domain is rich in)
    "ATP binding": ("[AG]-x(4)-G-K-[ST]", "GKTVIL"),
    "zinc ion binding": ("C-x(2,4)-C-x(3)-[LIVMFYW]-x(8)-H-x(3,5)-H", "CHKFRS"),
    "serine protease activity": ("[ST]-x(1,2)-G-D-S-G-[GS]-[SAP]", "SGDWNA"),
    "DNA binding": ("W-F-x-N-R-[RK]-x-K", "RKNQEM"),
}
DOMAINS = {  # binding class -> (motif of the binder, motif of its ligand); the classes are those of SH3, PDZ and WW domains
    "SH3": ("A-L-Y-D-[FY]-x(2)-[DE]-x(2)-[EL]", "[RK]-P-L-P-x-[LI]-P"),
    "PDZ": ("[KR]-x(3)-G-L-G-F-x-[IV]-x-G", "[KR]-x-[RK]-E-[ST]-[DE]-[VL]"),
    "WW": ("G-W-[ED]-x(3)-[TD]-x-[DE]-G-[RK]", "[GST]-x-P-P-[PA]-Y"),
}
_BINDER_HINT, _LIGAND_HINT = "DEYFWL", "PRKSGQ"


# --- DNA ---------------------------------------------------------------------------------------------------------------------


def _draw_dna(rng: random.Random, length: int, gc: float, keep_cpg: float) -> str:
    """Draw bases of a GC share; of the CpG that chance makes, `keep_cpg` stay (others decay to TpG or CpA, as methylated ones do)."""
    text = "".join(rng.choices("ACGT", [(1 - gc) / 2, gc / 2, gc / 2, (1 - gc) / 2], k=length))
    return re.sub("CG", lambda match: match[0] if rng.random() < keep_cpg else rng.choice(["TG", "CA"]), text)


def _background(rng: random.Random, length: int) -> str:
    """Draw DNA between genes: 40 % GC, CpG-poor."""
    return _draw_dna(rng, length, 0.40, 0.25)


def _cpg_island(rng: random.Random, length: int) -> str:
    """Draw CpG-rich DNA: 65 % GC."""
    return _draw_dna(rng, length, 0.65, 1.0)


_TATA, _TATA_PLACE = "TATAAAAG", -31
_INITIATOR, _INITIATOR_PLACE = "TCAGTC", -2
_CORE_UPSTREAM, _CORE_LENGTH = 70, 100  # a promoter is 70 bp before the start site and 30 after


def _put(text: str, motif: str, start: int) -> str:
    """Write a motif over a text."""
    return text[:start] + motif + text[start + len(motif) :]


def _worn(rng: random.Random, motif: str, fidelity: float) -> str:
    """Copy a motif with errors: each base stays with the chance `fidelity`."""
    return "".join(base if rng.random() < fidelity else rng.choice("ACGT") for base in motif)


def _draw_promoter(rng: random.Random, is_cpg_rich: bool) -> _Molecule:
    """Draw 100 bp around a start site: TATA box within 2 bp of -31 and initiator at -2, each base kept with 0.95."""
    text = (_cpg_island if is_cpg_rich else _background)(rng, _CORE_LENGTH)
    tata = _CORE_UPSTREAM + _TATA_PLACE + rng.randint(-2, 2)
    initiator = _CORE_UPSTREAM + _INITIATOR_PLACE
    text = _put(_put(text, _worn(rng, _TATA, 0.95), tata), _worn(rng, _INITIATOR, 0.95), initiator)
    fixed = frozenset([*range(tata, tata + len(_TATA)), *range(initiator, initiator + len(_INITIATOR))])
    return _Molecule(text, fixed, "ACGT")


@cache
def _codon_usage(seed: int) -> dict[str, tuple[list[str], list[float]]]:
    """Return residue -> (codons, weights) of one simulated organism, biased to 2 to 1 and more between synonyms."""
    rng = random.Random(f"{seed}:codons")
    synonyms: dict[str, list[str]] = {}
    for codon in (a + b + c for a in "ACGT" for b in "ACGT" for c in "ACGT"):
        synonyms.setdefault(translate(codon), []).append(codon)
    return {residue: (codons, [rng.gammavariate(1.5, 1.0) + 0.1 for _ in codons]) for residue, codons in synonyms.items()}


def _code_for(rng: random.Random, protein: str, seed: int) -> str:
    """Draw DNA that codes for a protein ('*' is a stop), with this organism's codon usage."""
    usage = _codon_usage(seed)
    return "".join(rng.choices(*usage[residue])[0] for residue in protein)


def _draw_intron(rng: random.Random) -> str:
    """Draw 60 to 180 bp: GTRAGT, branch point, pyrimidine stretch, CAG."""
    branch = "CT" + rng.choice("AG") + "A" + rng.choice("CT")
    return f"GT{rng.choice('AG')}AGT{_draw_dna(rng, rng.randint(30, 150), 0.35, 0.25)}{branch}{_tilt(rng, 'T' * 15, 'CTAG', 0.4)}CAG"


# --- genome, proteome, English ---------------------------------------------------------------------------------------------------


def _draw_gene_product(rng: random.Random, earlier: list[str]) -> str:
    """Draw a protein of 100 to 350 residues from M on: a paralog of an earlier one (15 %), else new, with up to two domains."""
    if earlier and rng.random() < 0.15:
        return "M" + _mutate(rng, _Molecule(rng.choice(earlier)[1:], frozenset(), RESIDUES), rate=0.2).text
    text = _draw_protein(rng, rng.randint(100, 350))
    patterns = [motif for motif, _ in FUNCTIONS.values()] + [motif for pair in DOMAINS.values() for motif in pair]
    for start in (20, 60)[: rng.choice((0, 1, 1, 2))]:
        text = _lay(rng, text, rng.choice(patterns), start).text
    return "M" + text[1:]


def _draw_gene(rng: random.Random, protein: str, seed: int) -> tuple[str, list[tuple[int, int]]]:
    """Return the plus strand of one gene and the (start, end) of its coding exons in it."""
    coding = _code_for(rng, protein + "*", seed)
    cuts = sorted(rng.sample(range(30, len(coding) - 30), rng.choice((0, 1, 1, 2, 3))))
    text = _cpg_island(rng, 150) + _draw_promoter(rng, rng.random() < 0.75).text + _draw_dna(rng, rng.randint(10, 60), 0.5, 0.5) + "GCCACC"
    exons = []
    for start, end in zip([0, *cuts], [*cuts, len(coding)], strict=True):
        exons.append((len(text), len(text) + end - start))
        text += coding[start:end] + (_draw_intron(rng) if end < len(coding) else "")
    return text + _draw_dna(rng, rng.randint(60, 150), 0.4, 0.25) + "AATAAA" + _background(rng, 20), exons


def _write_genome_and_proteome(
    out_dir: Path, seed: int, split: str, num_chromosomes: int, num_bases: int, num_residues: int
) -> dict[str, int]:
    """Write genome.SPLIT.fa and proteome.SPLIT.fa; return their counts."""
    rng = random.Random(f"{seed}:genome:{split}")
    proteins: list[str] = []
    genome, proteome = [], []
    total_bases = 0
    for number in range(1, num_chromosomes + 1):
        name = f"sim_{split}_chr{number}"
        text = _background(rng, 500) + "N" * 50
        while len(text) < num_bases / num_chromosomes:
            text += _background(rng, rng.randint(200, 1200))
            proteins.append(_draw_gene_product(rng, proteins))
            gene, exons = _draw_gene(rng, proteins[-1], seed)
            strand = rng.choice("+-")
            if strand == "-":
                exons = [(len(gene) - end, len(gene) - start) for start, end in reversed(exons)]
                gene = reverse_complement(gene)
            where = ",".join(f"{len(text) + start + 1}-{len(text) + end}" for start, end in exons)
            proteome.append((f"sim_{split}_p{len(proteins)} SIMULATED protein, coded by {name}:{where}:{strand}", proteins[-1]))
            text += gene
        text += _background(rng, 500)
        genome.append((f"{name} SIMULATED DNA, of no organism, seed {seed}", text))
        total_bases += len(text)
    while sum(map(len, proteins)) < num_residues:
        proteins.append(_draw_gene_product(rng, proteins))
        proteome.append((f"sim_{split}_p{len(proteins)} SIMULATED protein, of no organism, seed {seed}", proteins[-1]))
    _write_fasta(out_dir / f"genome.{split}.fa", genome)
    _write_fasta(out_dir / f"proteome.{split}.fa", proteome)
    return {"bases": total_bases, "chromosomes": num_chromosomes, "proteins": len(proteins), "residues": sum(map(len, proteins))}


def _write_fasta(path: Path, records: Sequence[tuple[str, str]]) -> None:
    """Write (header, letters) in lines of 80."""
    with path.open("w", encoding="ascii", newline="\n") as handle:
        for header, letters in records:
            handle.write(f">{header}\n")
            handle.writelines(f"{letters[start : start + 80]}\n" for start in range(0, len(letters), 80))


def _write_english(out_dir: Path, split: str) -> int:
    """Write english.SPLIT.jsonl, a document a topic of Python's reference; every eighth topic by name is held out. Return their number."""
    from pydoc_data.topics import topics

    names = [name for number, name in enumerate(sorted(topics)) if (number % 8 == 7) == (split == "valid")]
    with (out_dir / f"english.{split}.jsonl").open("w", encoding="utf-8", newline="\n") as handle:
        for name in names:
            handle.write(json.dumps({"id": f"pydoc/{name}", "text": topics[name].strip()}, ensure_ascii=False) + "\n")
    return len(names)


# --- tasks -------------------------------------------------------------------------------------------------------------------

_Row = tuple[tuple[str, ...], str, str, str]  # sequences, label, group, oracle


@dataclass(frozen=True)
class _SimulatedTask:
    """One task: what its YAML says, and the function that draws the rows of a split."""

    name: str
    title: str
    family: str
    kinds: tuple[str, ...]
    columns: tuple[str, ...]
    draw: Callable[[random.Random, int, int], list[_Row]]  # (rng, number of rows, seed) -> rows; families numbered from 0
    labels: tuple[tuple[str, str], ...] = ()  # raw -> name
    bins: int = 0


def _write_task(tasks_dir: Path, task: _SimulatedTask, config: SimulationConfig) -> dict[str, Any]:
    """Write NAME.yaml and NAME/{train,dev,test}.csv; return the rows of each split."""
    (tasks_dir / task.name).mkdir(parents=True, exist_ok=True)
    num_rows = {}
    for split in ("train", "dev", "test"):
        size = getattr(config, f"{'proteins' if task.family == 'structure' else 'rows'}_{split}")
        rng = random.Random(f"{config.seed}:{task.name}:{split}")
        rows = task.draw(rng, size, config.seed)
        rng.shuffle(rows)
        with (tasks_dir / task.name / f"{split}.csv").open("w", encoding="ascii", newline="") as handle:
            writer = csv.writer(handle, lineterminator="\n")
            writer.writerow([*task.columns, "label", "group", "oracle"])
            writer.writerows([*sequences, label, f"{split}_{group}", oracle] for sequences, label, group, oracle in rows)
        num_rows[split] = len(rows)
    (tasks_dir / f"{task.name}.yaml").write_text(_yaml(task), encoding="utf-8")
    return num_rows


# What the YAML files take of the train rows: the demo's minutes go where a small model needs them.
_ROWS_TO_LEARN_IT = {"promoter_detection": 700, "protein_function": 1200, "secondary_structure": 3000}


def _yaml(task: _SimulatedTask) -> str:
    """Return the task's YAML; strings are quoted as JSON, which YAML reads."""
    lines = [
        "# SIMULATED data: see ../README.txt",
        f"name: {task.name}",
        f"title: {task.title}",
        f"family: {task.family}",
        f"kinds: [{', '.join(task.kinds)}]",
        f"columns: [{', '.join(task.columns)}]",
        "label_column: label",
    ]
    if task.labels:
        lines += ["labels:", *(f"  {json.dumps(raw)}: {json.dumps(name)}" for raw, name in task.labels)]
    lines += [f"{split}: {task.name}/{split}.csv" for split in ("train", "dev", "test")]
    if task.family == "regression":
        lines += ["balance_test: true"]
    if task.kinds == ("dna",):
        lines += ["strand: sense"]
    if task.family == "structure":  # the papers' form; test classes as even as those of the other tasks
        lines += ["form: token", "balance: true", "balance_test: true", "max_dev: 99", "max_test: 300"]
    if task.name in _ROWS_TO_LEARN_IT:
        lines += [f"max_train: {_ROWS_TO_LEARN_IT[task.name]}"]
    lines += ["group_column: group", "oracle_column: oracle", *([f"bins: {task.bins}"] if task.bins else []), "simulated: true"]
    return "\n".join(lines) + "\n"


def _mutate(rng: random.Random, molecule: _Molecule, rate: float = MUTATION_RATE) -> _Molecule:
    """Return a relative: substitutions outside the fixed letters."""
    text = "".join(
        rng.choice(molecule.letters) if i not in molecule.fixed and rng.random() < rate else letter
        for i, letter in enumerate(molecule.text)
    )
    return _Molecule(text, molecule.fixed, molecule.letters)


def _family_sizes(rng: random.Random, num_rows: int) -> Iterator[int]:
    """Yield family sizes that add up to `num_rows`."""
    while num_rows > 0:
        size = min(rng.choice(FAMILY_SIZES), num_rows)
        num_rows -= size
        yield size


_Molecules = tuple[_Molecule, ...]


def _draw_classes(
    rng: random.Random,
    num_rows: int,
    labels: Sequence[str],
    draw: Callable[[str], _Molecules],
    relative: Callable[[str, _Molecules], _Molecules],
    noise: float,
) -> list[_Row]:
    """Draw as many rows for each label; then each class gives the label of the next to the same number of its rows."""
    rows: list[_Row] = []
    num_families = 0
    for number, oracle in enumerate(labels):
        texts: list[tuple[tuple[str, ...], str]] = []
        for size in _family_sizes(rng, num_rows // len(labels)):
            ancestor = draw(oracle)
            for member in [ancestor, *(relative(oracle, ancestor) for _ in range(size - 1))]:
                texts.append((tuple(molecule.text for molecule in member), f"family{num_families}"))
            num_families += 1
        mislabelled = set(rng.sample(range(len(texts)), round(noise * len(texts))))
        for i, (sequences, group) in enumerate(texts):
            rows.append((sequences, labels[(number + 1) % len(labels)] if i in mislabelled else oracle, group, oracle))
    return rows


def _draw_promoter_rows(rng: random.Random, num_rows: int, seed: int) -> list[_Row]:
    """Promoter: TATA box and initiator in place, CpG-rich in 90 %. Non-promoter: CpG-rich in 12 %, 30 % with both motifs misplaced."""

    def draw(label: str) -> _Molecules:
        if label == "1":
            return (_draw_promoter(rng, rng.random() < 0.90),)
        text = (_cpg_island if rng.random() < 0.12 else _background)(rng, _CORE_LENGTH)
        fixed: set[int] = set()
        if rng.random() < 0.30:
            for motif, starts in ((_TATA, [*range(0, 30), *range(50, 90)]), (_INITIATOR, [*range(0, 60), *range(75, 90)])):
                start = rng.choice(starts)
                text = _put(text, _worn(rng, motif, 0.95), start)
                fixed.update(range(start, start + len(motif)))
        return (_Molecule(text, frozenset(fixed), "ACGT"),)

    return _draw_classes(rng, num_rows, ("0", "1"), draw, lambda _, ancestor: _mutate_all(rng, ancestor), LABEL_NOISE)


def _draw_structure_rows(rng: random.Random, num_rows: int, seed: int) -> list[_Row]:
    """A protein of 50 to 70 residues and its states; the oracle is the forward-backward posterior. Relatives share the states."""
    rows: list[_Row] = []
    for number, size in enumerate(_family_sizes(rng, num_rows)):
        structure = _draw_structure(rng, rng.randint(50, 70))
        ancestor = _draw_residues(rng, structure)
        for member in range(size):
            redrawn = zip(ancestor, _draw_residues(rng, structure), strict=True)
            protein = "".join(new if member and rng.random() < 2 * MUTATION_RATE else old for old, new in redrawn)
            rows.append(((protein,), structure, f"family{number}", most_probable_structure(protein)))
    return rows


def _draw_interaction_rows(rng: random.Random, num_rows: int, seed: int) -> list[_Row]:
    """Two proteins of 40 residues. They interact if one carries a binder and the other the ligand of the same class.

    Of the pairs that do not, 45 % lack the binder, 45 % lack the ligand and 10 % carry those of two classes. A protein that lacks its
    domain has in 30 % the motif's letters in another order.
    """

    def draw_partner(side: int, domain: str, is_present: bool) -> _Molecule:
        pattern, hint = DOMAINS[domain][side], (_BINDER_HINT, _LIGAND_HINT)[side]
        text = _draw_protein(rng, 40)
        start = rng.randint(4, 20)
        if is_present:
            left, right = max(0, start - 16), min(40, start + _longest(pattern) + 16)
            text = text[:left] + _tilt(rng, text[left:right], hint, 0.7) + text[right:]
            return _lay(rng, text, pattern, min(start, 40 - _longest(pattern)))
        return _Molecule(_scramble(rng, text, pattern, start) if rng.random() < 0.3 else text, frozenset(), RESIDUES)

    def draw(label: str) -> _Molecules:
        binder, other = rng.sample(sorted(DOMAINS), 2)
        if label == "1":
            return draw_partner(0, binder, True), draw_partner(1, binder, True)
        fault = rng.random()
        if fault < 0.1:
            return draw_partner(0, binder, True), draw_partner(1, other, True)
        return draw_partner(0, binder, fault < 0.55), draw_partner(1, binder, fault >= 0.55)

    return _draw_classes(rng, num_rows, ("0", "1"), draw, lambda _, ancestor: _mutate_all(rng, ancestor), LABEL_NOISE)


def _draw_dogma_rows(rng: random.Random, num_rows: int, seed: int) -> list[_Row]:
    """DNA of 45 to 75 bp and 15 to 25 residues: Conform if the DNA codes for the protein (standard code, first frame).

    Otherwise the protein is another family's (60 %), the DNA is shifted by one base (20 %) or its codons stand in reverse order (20 %).
    """

    def draw(label: str) -> _Molecules:
        length = rng.randint(15, 25)
        protein = _draw_protein(rng, length)
        dna = _code_for(rng, protein, seed)
        fault = rng.random()
        if label == "Not Conform" and fault < 0.6:
            protein = _draw_protein(rng, length)
        elif label == "Not Conform" and fault < 0.8:
            dna = dna[1:] + rng.choice("ACGT")
        elif label == "Not Conform":
            dna = "".join(dna[start : start + 3] for start in range(len(dna) - 3, -1, -3))
        return _Molecule(dna, frozenset(), "ACGT"), _Molecule(protein, frozenset(), RESIDUES)

    def relative(label: str, ancestor: _Molecules) -> _Molecules:
        if label == "Not Conform":
            return _mutate_all(rng, ancestor)
        protein = _mutate(rng, ancestor[1])
        pairs = zip(ancestor[1].text, protein.text, range(0, 3 * len(protein.text), 3), strict=True)
        codons = [ancestor[0].text[at : at + 3] if old == new else _code_for(rng, new, seed) for old, new, at in pairs]
        return _Molecule("".join(codons), frozenset(), "ACGT"), protein

    return _draw_classes(rng, num_rows, ("Not Conform", "Conform"), draw, relative, 0.0)


def _draw_function_rows(rng: random.Random, num_rows: int, seed: int) -> list[_Row]:
    """A protein of 50 residues whose motif fixes its function; 65 % have its composition too, 25 % the composition of another.

    70 % carry the letters of another function's motif in another order.
    """

    def draw(label: str) -> _Molecules:
        others = [name for name in FUNCTIONS if name != label]
        text = _draw_protein(rng, 50)
        chance = rng.random()
        hint = FUNCTIONS[label if chance < 0.65 else rng.choice(others)][1]
        text = _tilt(rng, text, hint, 0.27 if chance < 0.90 else 0.0)
        pattern = FUNCTIONS[label][0]
        start = rng.randint(0, 50 - _longest(pattern))
        if rng.random() < 0.7:
            decoy = FUNCTIONS[rng.choice(others)][0]
            text = _scramble(rng, text, decoy, rng.choice([0, 42]))
        return (_lay(rng, text, pattern, start),)

    return _draw_classes(rng, num_rows, tuple(FUNCTIONS), draw, lambda _, ancestor: _mutate_all(rng, ancestor), LABEL_NOISE)


_EXPRESSION_NOISE = 0.14  # standard deviation; that of the noise-free expression is about 0.9


def _draw_expression_rows(rng: random.Random, num_rows: int, seed: int) -> list[_Row]:
    """100 bp and the expression that they drive; the oracle is the expression before noise.

    Expression = 1.6 x (share of TATA box bases that match, if within 5 bp of its place) + 0.8 x (share of initiator bases that match)
    - 0.08 x (bp that the TATA box is out of place) + 4 x (GC share - 0.5) + 0.1 x (number of CpG). Relatives keep the motifs.
    """
    rows: list[_Row] = []
    for number, size in enumerate(_family_sizes(rng, num_rows)):
        out_of_place = rng.choice((-5, -3, -1, 0, 0, 1, 3, 5))
        tata = _worn(rng, _TATA, rng.choice((0.2, 0.6, 0.95, 0.95)))
        initiator = _worn(rng, _INITIATOR, rng.choice((0.4, 0.95)))
        places = (_CORE_UPSTREAM + _TATA_PLACE + out_of_place, _CORE_UPSTREAM + _INITIATOR_PLACE)
        text = _draw_dna(rng, _CORE_LENGTH, rng.uniform(0.33, 0.67), rng.uniform(0.2, 1.0))
        text = _put(_put(text, tata, places[0]), initiator, places[1])
        fixed = frozenset([*range(places[0], places[0] + len(tata)), *range(places[1], places[1] + len(initiator))])
        ancestor = _Molecule(text, fixed, "ACGT")
        for member in [ancestor, *(_mutate(rng, ancestor) for _ in range(size - 1))]:
            gc = (member.text.count("G") + member.text.count("C")) / len(member.text)
            expression = 1.6 * _match(tata, _TATA) + 0.8 * _match(initiator, _INITIATOR) - 0.08 * abs(out_of_place)
            expression += 4 * (gc - 0.5) + 0.1 * member.text.count("CG")
            measured = rng.gauss(expression, _EXPRESSION_NOISE)
            rows.append(((member.text,), f"{measured:.4f}", f"family{number}", f"{expression:.4f}"))
    return rows


def _match(found: str, motif: str) -> float:
    """Return the share of bases that agree.

    >>> _match("TATT", "TATA")
    0.75
    """
    return sum(a == b for a, b in zip(found, motif, strict=True)) / len(motif)


def _mutate_all(rng: random.Random, ancestor: _Molecules) -> _Molecules:
    """Return a relative of each molecule."""
    return tuple(_mutate(rng, molecule) for molecule in ancestor)


TASKS = (
    _SimulatedTask(
        "promoter_detection",
        "promoter detection",
        "classification",
        ("dna",),
        ("sequence",),
        _draw_promoter_rows,
        labels=(("1", "promoter"), ("0", "Non-promoter")),
    ),
    _SimulatedTask(
        "secondary_structure", "protein secondary structure prediction", "structure", ("protein",), ("sequence",), _draw_structure_rows
    ),
    _SimulatedTask(
        "protein_interaction",
        "protein-protein interaction",
        "pair",
        ("protein", "protein"),
        ("protein_a", "protein_b"),
        _draw_interaction_rows,
        labels=(("1", "interact"), ("0", "not interact")),
    ),
    _SimulatedTask("central_dogma", "central dogma", "pair", ("dna", "protein"), ("dna", "protein"), _draw_dogma_rows),
    _SimulatedTask("protein_function", "protein function prediction", "function", ("protein",), ("sequence",), _draw_function_rows),
    _SimulatedTask("promoter_expression", "promoter expression", "regression", ("dna",), ("sequence",), _draw_expression_rows, bins=2),
)
