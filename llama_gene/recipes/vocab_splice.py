"""vocab splice: a base tokenizer + pieces folders, in order -> one tokenizer folder, with a report of each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llama_gene import runtime
from llama_gene.errors import ConfigError, InputError
from llama_gene.recipes.vocab_train import earlier_steps, guard_of, load
from llama_gene.sequences.alphabet import get_alphabet

if TYPE_CHECKING:
    from llama_gene.tokenization.bpe import Vocabulary
    from llama_gene.tokenization.pieces import Pieces

LIBRARIES = ("sentencepiece", "tiktoken", "tokenizers", "transformers")
STEPS_DIR = "steps"
STAGE = "vocab"  # what it writes is what the whole stage writes


@dataclass
class Config:
    """vocab splice: a base + pieces folders -> one tokenizer folder."""

    base: str | None = None
    """Base to splice behind: a tokenizer.model (SentencePiece or tiktoken), a tokenizer or model folder (ours included), or a hub id."""
    pieces: list[str] = field(default_factory=list)
    """Folders of `vocab train`, DNA before protein; also a list of pieces (.txt) or, for method: paper, a SentencePiece .model."""
    method: Literal["continued", "paper"] = "continued"
    """continued: every piece is checked behind the base; paper: append as LLaMA-Gene did, own scores and all, for comparison."""
    isolate: bool = False
    """Cut gene runs out of their surroundings first, so that a gene is encoded the same wherever it stands (not for SentencePiece)."""
    template: str = "alpaca"
    """Prompt template that becomes the tokenizer's chat template."""
    alphabets: Path | None = None
    """YAML file of further alphabets that the pieces are of."""
    data_dir: Path | None = None
    """Folder in which base and pieces that are not in the current folder are looked up (LLAMA_GENE_DATA if unset)."""
    out: Path | None = None
    """Folder to write."""


def run(config: Config) -> Path:
    """Write the tokenizer folder; return it. Nothing is written unless every step succeeds."""
    if config.out is None:
        raise ConfigError("no out is given", "--out FOLDER")
    if not config.base or not config.pieces:
        raise ConfigError("base or pieces are missing", "--base TOKENIZER --pieces FOLDER [FOLDER ...]")
    load(config.alphabets)
    from llama_gene.data.prompts import chat_template
    from llama_gene.tokenization.inputs import find_base
    from llama_gene.tokenization.pieces import read_pieces
    from llama_gene.tokenization.report import report
    from llama_gene.tokenization.tokenizer import open_vocabulary

    sources = [Path(find_base(name, config.data_dir)) for name in config.pieces]
    base_source = find_base(config.base, config.data_dir)
    runtime.check_inputs_outside(config.out, [base_source, *sources])
    chat_template(config.template)  # a name that does not exist is said before the work
    given = [(source, read_pieces(source)) for source in sources]
    base = open_vocabulary(base_source)
    with runtime.whole_dir(config.out) as folder:
        vocabulary, steps = (base.isolated() if config.isolate else base), earlier_steps(base_source)
        reports = []
        for number, (source, pieces) in enumerate(given, start=1):
            before = vocabulary
            vocabulary, facts = _splice(vocabulary, source, pieces, steps, config.method)
            steps.append(facts)
            reports.append(report_step(folder, number, facts["kind"], before, vocabulary, steps))
        write_folder(folder, config, base, vocabulary, steps, config.template, base_path=config.base, isolate=config.isolate)
        write_lasting(reports[-1] if len(given) == 1 else report(folder, base_source), folder / "report.json")
    runtime.get_logger().info("vocab splice: %s %s ids in %s", f"{vocabulary.num_ids:,}", vocabulary.kind, config.out)
    for numbers in reports:
        log_report(numbers)
    return config.out


def append_step(vocabulary: Vocabulary, pieces: Sequence[str], facts: dict[str, Any]) -> tuple[Vocabulary, dict[str, Any]]:
    """Return the vocabulary with one step's pieces (or namespaced letters) behind it, and the facts with their first id."""
    namespaced = bool(facts.get("namespace"))
    first_id = vocabulary.num_ids
    spliced = vocabulary.append_letters(pieces) if namespaced else vocabulary.append(pieces)
    return spliced, {**facts, "first_id": first_id}


def _splice(
    vocabulary: Vocabulary, source: Path, given: Pieces, steps: Sequence[dict[str, Any]], method: str
) -> tuple[Vocabulary, dict[str, Any]]:
    """Return the vocabulary with the pieces of one source behind it, and the step's facts."""
    from llama_gene.tokenization.pieces import fit_pieces

    trained = str(given.facts.get("method", "continued"))
    facts = {"kind": given.kind, **{key: value for key, value in given.facts.items() if key in _KEPT_FACTS}, "source": source.name}
    if method == "paper":
        from llama_gene.tokenization.paper_splice import append_as_the_papers

        spliced, num_new = append_as_the_papers(vocabulary, given, source)
        already = len(given.pieces) - num_new
        return spliced, {**facts, "method": "paper", "size": num_new, "already_in_base": already, "first_id": vocabulary.num_ids}
    if trained == "paper" or given.scores is not None:
        raise InputError(
            f"{source} was trained as the papers do", "pieces of method: continued", "Train again, or splice with --method paper"
        )
    if given.facts.get("namespace"):
        return append_step(vocabulary, given.pieces, facts | {"size": len(given.pieces)})
    guard = guard_of(given.kind, [step["kind"] for step in steps if _is_known(step["kind"])]) if _is_known(given.kind) else None
    fitted = fit_pieces(vocabulary, given, guard) if guard else fit_pieces(vocabulary, given)
    replaced = {
        "unreachable": fitted.num_unreachable, "already_in_base": fitted.num_taken, "guarded": fitted.num_guarded,
        "from_reserve": fitted.num_refilled,
    }  # fmt: skip
    if fitted.num_refilled:
        runtime.get_logger().warning(
            "vocab splice: %s pieces of %s do not work behind this vocabulary (%s unreachable, %s in it, %s guarded); as many of its "
            "reserve replace them. Pieces trained with the vocabulary they come behind as --base compress better",
            f"{fitted.num_refilled:,}", source, f"{fitted.num_unreachable:,}", f"{fitted.num_taken:,}", f"{fitted.num_guarded:,}",
        )  # fmt: skip
    facts |= {"method": "continued", "size": len(fitted.pieces), "replaced": replaced, "pieces": runtime.fingerprint(fitted.pieces)}
    return append_step(vocabulary, fitted.pieces, facts)


_KEPT_FACTS = ("method", "inputs", "letters_read", "letters_used", "max_letters", "detours", "strict", "namespace")


def _is_known(kind: str) -> bool:
    """Return whether a kind is an alphabet: a bare list of pieces has none."""
    try:
        get_alphabet(kind)
    except ConfigError:
        return False
    return True


def report_step(
    folder: Path, number: int, kind: str, before: Vocabulary, after: Vocabulary, steps: Sequence[dict[str, Any]], **texts: Any
) -> dict[str, Any]:
    """Write `steps/N_kind.json`, the report of one step against the vocabulary before it, and return its numbers."""
    import tempfile

    from llama_gene.tokenization.report import report

    with tempfile.TemporaryDirectory() as scratch:
        old, new = Path(scratch) / "before", Path(scratch) / "after"
        for place, vocabulary, known in ((old, before, steps[:-1]), (new, after, steps)):
            _write_tokenizer(place, vocabulary, None)
            runtime.write_manifest(place, "vocab", {}, steps=list(known))
        numbers = report(new, old, **texts)
    write_lasting(numbers, folder / STEPS_DIR / f"{number}_{kind}.json")
    return numbers


def write_lasting(numbers: dict[str, Any], out: Path) -> None:
    """Write a report that belongs to an artefact: without the load time, so that the same inputs give the same bytes."""
    from llama_gene.tokenization.report import write_report

    write_report({**numbers, "load_seconds": None}, out)


def write_folder(
    folder: Path, config: Any, base: Vocabulary, vocabulary: Vocabulary, steps: Sequence[dict[str, Any]], template: str, **facts: Any
) -> None:
    """Write what a tokenizer folder holds: tokenizer, native file, chat template, manifest."""
    from llama_gene.data.prompts import chat_template
    from llama_gene.tokenization.tokenizer import vocabulary_fingerprint

    _write_tokenizer(folder, vocabulary, chat_template(template))
    before = {"path": facts.pop("base_path"), "vocab_size": base.num_ids, "vocabulary": vocabulary_fingerprint(base.tokenizer())}
    tokenizer = vocabulary.tokenizer()
    runtime.write_manifest(
        folder, "vocab", config,
        kind=vocabulary.kind, vocab_size=vocabulary.num_ids, vocabulary=vocabulary_fingerprint(tokenizer),
        pattern=vocabulary.pattern, base=before, steps=list(steps), libraries={name: runtime.package_version(name) for name in LIBRARIES},
        files={path.name: runtime.file_hash(path) for path in sorted(folder.glob("tokenizer*"))},
        **facts,
    )  # fmt: skip


def _write_tokenizer(folder: Path, vocabulary: Vocabulary, template: str | None) -> None:
    from llama_gene.tokenization.tokenizer import write_tokenizer

    write_tokenizer(vocabulary.tokenizer(), folder, template)
    vocabulary.write_native(folder)


def log_report(numbers: dict[str, Any]) -> None:
    """Log a report's first numbers, and a warning for each that should be 0."""
    log = runtime.get_logger()
    parts = [f"{numbers['pieces']:,} new pieces", f"{numbers['unreachable']} unreachable"]
    for key, what in (("bases_per_token", "bases"), ("residues_per_token", "residues")):
        if numbers[key] is not None:
            parts.append(f"{numbers[key]:.2f} {what} a token (base: {numbers[f'{key}_base']:.2f})")
    if numbers["english_lines"] is not None:
        parts.append(f"{numbers['english_lines_changed']:,} of {numbers['english_lines']:,} English lines changed")
    log.info("vocab: %s", ", ".join(parts))
    for key in ("unreachable", "duplicates", "base_ids_changed", "roundtrip_failures", "library_mismatches"):
        if numbers[key]:
            log.warning("vocab: %s is %s, not 0: see the report", key, numbers[key])
