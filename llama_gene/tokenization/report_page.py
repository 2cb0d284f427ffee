"""The vocabulary report on paper: report.json, a Markdown page for a reader who knows biology, and two figures.

The same numbers give the same bytes. All files are rendered before the first is put into place, so they appear together or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

from llama_gene.errors import InputError
from llama_gene.runtime import plain, whole_file

_SERIES = (("", "this tokenizer", "#3b6fb6"), ("_base", "base", "#888888"), ("_standalone", "stand-alone", "#d1742c"))

_SECTIONS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "Pieces",
        (
            ("vocab_size", "ids, specials included"),
            ("pieces", "pieces that the base does not hold (all, where no base is given)"),
            ("unreachable", "of them, never given by any text: merging their own letters ends elsewhere, or a word boundary cuts them"),
            ("unreachable_as_filed", "the same by the file's own word pattern (it differs only for dictionaries that GPT2Tokenizer runs)"),
            ("dead", "of them, not produced once on the texts below"),
            ("duplicates", "entries that repeat a piece or an id"),
            ("base_ids_changed", "base pieces and specials with another id, or none"),
            ("base_pieces_lost", "base pieces that occurred before and cannot any more"),
        ),
    ),
    (
        "Letters per token (more is shorter input)",
        (
            ("bases_per_token", "DNA bases per token"),
            ("bases_per_token_base", "the same with the base"),
            ("bases_per_token_standalone", "the same with a vocabulary trained on DNA alone: what a splice can hope for"),
            ("residues_per_token", "protein residues per token"),
            ("residues_per_token_base", "the same with the base"),
            ("residues_per_token_standalone", "the same with a vocabulary trained on protein alone"),
            ("protein_share_of_dna", "share of the tokens of DNA that are pieces made for protein"),
        ),
    ),
    (
        "English and code (what a language model knew before)",
        (
            ("english_lines", "lines of English"),
            ("english_lines_changed", "of them, encoded differently from the base"),
            ("english_tokens", "base tokens in them"),
            ("english_tokens_changed", "of them, replaced"),
            ("english_lines_changed_outside_genes", "lines changed, gene spans removed first"),
            ("english_tokens_outside_genes", "base tokens, gene spans removed first"),
            ("english_tokens_changed_outside_genes", "of them, replaced"),
            ("code_lines", "lines of program code"),
            ("code_lines_changed", "of them, encoded differently from the base"),
            ("code_tokens", "base tokens in them"),
            ("code_tokens_changed", "of them, replaced"),
        ),
    ),
    (
        "Faults of encoding",
        (
            ("roundtrip_failures", "texts that decode(encode(x)) changes"),
            ("library_mismatches", "texts that the format's own library and transformers encode differently"),
            ("load_seconds", "seconds to load it"),
        ),
    ),
    (
        "Stability of DNA",
        (
            ("snv_tokens_changed", "tokens that one point mutation replaces, mean"),
            ("phase_stability", "share of token boundaries that survive when 1 to 6 bases are cut off in front"),
            ("rc_stability", "share of token boundaries that are boundaries on the other strand, too"),
        ),
    ),
)

_DEFINITIONS = """\
- **Unreachable**: the definition of BPE (merge the best-ranked neighbours until none is left), run on the piece's own letters, does not
  give the piece; or the tokenizer's word pattern always cuts inside it. Looking a whole word up without merging does not count.
- **Replaced**: a base token counts as kept when the same id stands at the same place of the text. Gene spans, which are encoded anew on
  purpose, are runs of at least 6 nucleotide or 15 residue letters.
- **Library mismatches**: for a folder, AutoTokenizer as a user would call it; for a bare SentencePiece file, transformers' LlamaTokenizer.
- **One point mutation**: in seeded windows of 512 bases one base is replaced; counted are the original's tokens between the part in front
  and the part behind that stay the same.
- **Cut in front**: the same windows with 1 to 6 bases cut off; boundaries in the first 64 letters are left out. 1 means that a gene reads
  the same wherever a fragment begins.
- **Other strand**: boundaries of a window against the mirrored boundaries of its reverse complement. BPE reads from left to right, so this
  is far below 1 in any BPE; compare it between vocabularies.
- Averages weight by letters: all letters by all tokens."""


def write_report(numbers: Mapping[str, Any], out: Path, compared: Mapping[str, Mapping[str, Any]] | None = None) -> None:
    """Write `out` (JSON) and beside it STEM.md, STEM_lengths.png and STEM_compression.png, all of them or none.

    With `compared`, the reports by name of this and further tokenizers on the same texts, also STEM_drift.png: drift against compression.
    Raises InputError for a name that does not end in .json, and for a place that cannot be written.
    """
    import json

    if out.suffix != ".json":
        raise InputError(f"{out} does not end in .json", "report.json or another name in .json", "The page and the figures take its name")
    lengths, compression, drift = (out.with_name(f"{out.stem}_{what}.png") for what in ("lengths", "compression", "drift"))
    curve = [{"tokenizer": name, **_drift(other)} for name, other in (compared or {}).items()]
    page = markdown(numbers, [lengths.name, compression.name, *([drift.name] if compared else [])])
    if compared:
        numbers = {**numbers, "compared": curve}
        page += "\n" + _curve(curve)
    contents = {
        lengths: _lengths_figure(numbers["piece_lengths"]),
        compression: _compression_figure(numbers["by_source"]),
        **({drift: _drift_figure(curve)} if compared else {}),
        out.with_suffix(".md"): page.encode(),
        out: (json.dumps(plain(numbers), indent=2, ensure_ascii=False) + "\n").encode("utf-8", "replace"),
    }
    with ExitStack() as stack:
        for path, content in contents.items():
            stack.enter_context(whole_file(path)).write_bytes(content)


def markdown(numbers: Mapping[str, Any], figures: Sequence[str] = ()) -> str:
    """Return the numbers as a Markdown page: faults first, then each number with its meaning; what was not measured says so."""
    against = f" against `{numbers['base']}`" if numbers.get("base") else ""
    parts = [f"# Vocabulary report{against}", _faults(numbers["flags"])]
    for title, rows in _SECTIONS:
        parts.append(
            f"## {title}\n\n" + _table(["what", "value", "key"], [[what, _shown(numbers.get(key)), f"`{key}`"] for key, what in rows])
        )
    parts += _sources(numbers["by_source"])
    parts += [f"![{name}]({name})" for name in figures]
    parts += _examples(numbers)
    parts += ["## How it is measured", _DEFINITIONS, f"Read by {numbers['library']}; vocabulary fingerprint `{numbers['fingerprint']}`."]
    return "\n\n".join(parts) + "\n"


def _faults(flags: Sequence[Mapping[str, str]]) -> str:
    if not flags:
        return "## Faults\n\nNone found."
    return "## Faults\n\n" + "\n".join(f"- **{flag['fault']}**: {_cell(flag['detail'])}." for flag in flags)


def _sources(by_source: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the table of letters per token by input file, and that of changed lines."""
    keys = [f"letters_per_token{suffix}" for suffix, _, _ in _SERIES]
    rows = [
        [_code(name), entry["kind"], _shown(entry["letters"]), *(_shown(entry[key]) for key in keys)] for name, entry in by_source.items()
    ]
    lines = ["lines", "lines_changed", "tokens_base", "tokens_changed"]
    drift = [[_code(name), *(_shown(entry[key]) for key in lines)] for name, entry in by_source.items() if "lines" in entry]
    parts = []
    if rows:
        header = ["file", "kind", "letters", *(f"letters per token, {label}" for _, label, _ in _SERIES)]
        parts.append("## By input file\n\n" + _table(header, rows))
    if drift:
        parts.append(_table(["file", "lines", "lines changed", "base tokens", "of them replaced"], drift))
    return parts


def _examples(numbers: Mapping[str, Any]) -> list[str]:
    parts = []
    if numbers["english_examples"]:
        rows = [[_code(row["text"]), _tokens(row["base_tokens"]), _tokens(row["new_tokens"])] for row in numbers["english_examples"]]
        parts.append("## English that is encoded differently\n\n" + _table(["in", "base tokens", "tokens now"], rows))
    if numbers["unreachable_examples"]:
        rows = [[_code(row["piece"]), _tokens(row["becomes"])] for row in numbers["unreachable_examples"]]
        parts.append("## Pieces that cannot occur\n\n" + _table(["piece", "becomes"], rows))
    return parts


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _shown(value: Any) -> str:
    """Return a number as a reader expects it.

    >>> _shown(31740), _shown(6.1398), _shown(0.00021), _shown(None)
    ('31,740', '6.140', '0.00021', 'not measured')
    """
    if value is None:
        return "not measured"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) >= 0.01 or value == 0 else f"{value:.2g}"
    return f"{value:,}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _code(text: str) -> str:
    return f"`{_cell(text).replace('`', chr(0x2BC))}`"


def _tokens(tokens: Sequence[str]) -> str:
    return " ".join(f"`{token.replace(' ', '␣').replace('`', chr(0x2BC)).replace('|', chr(92) + '|')}`" for token in tokens if token)


def _lengths_figure(piece_lengths: Mapping[str, int]) -> bytes:
    """Return a PNG of how many pieces have how many letters."""
    figure, axes = _new_figure(6.0)
    axes.bar([int(length) for length in piece_lengths], list(piece_lengths.values()), color=_SERIES[0][2])
    axes.set(xlabel="letters in a piece", ylabel="pieces", title="Lengths of the pieces")
    return _png(figure)


def _compression_figure(by_source: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Return a PNG of letters per token by input file: this tokenizer, the base, the stand-alone vocabulary."""
    names = list(by_source)
    figure, axes = _new_figure(max(6.0, 2.0 + 1.1 * len(names)))
    width = 0.26
    for place, (suffix, label, color) in enumerate(_SERIES):
        values = [by_source[name].get(f"letters_per_token{suffix}") for name in names]
        shown = [(number + (place - 1) * width, value) for number, value in enumerate(values) if value is not None]
        if shown:
            axes.bar([at for at, _ in shown], [value for _, value in shown], width, color=color, label=label)
    axes.set_xticks(range(len(names)), [_short(name) for name in names], rotation=30, ha="right", fontsize=8)
    axes.set(ylabel="letters per token", title="Compression by input file")
    if names:
        axes.legend(fontsize=8, frameon=False)
    else:
        axes.text(0.5, 0.5, "no text was given", ha="center", va="center", transform=axes.transAxes)
    return _png(figure)


def _drift(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tokenizer's point on the curve: letters per token and the share of English tokens changed outside gene spans."""
    changed, tokens = numbers["english_tokens_changed_outside_genes"], numbers["english_tokens_outside_genes"]
    share = changed / tokens if tokens else None
    return {"bases_per_token": numbers["bases_per_token"], "residues_per_token": numbers["residues_per_token"], "english_changed": share}


def _curve(points: Sequence[Mapping[str, Any]]) -> str:
    """Return the points of the curve as a Markdown section."""
    rows = []
    for point in points:
        share = "not measured" if point["english_changed"] is None else f"{point['english_changed']:.3%}"
        rows.append([_code(str(point["tokenizer"])), _shown(point["bases_per_token"]), _shown(point["residues_per_token"]), share])
    header = ["tokenizer", "bases per token", "residues per token", "English tokens changed"]
    return "## Drift against compression\n\n" + _table(header, rows) + "\n"


def _drift_figure(points: Sequence[Mapping[str, Any]]) -> bytes:
    """Return a PNG with a point for each tokenizer: what English pays (up) for what genes gain (right)."""
    figure, axes = _new_figure(6.0)
    gains = [("residues_per_token", "residues per token (protein)"), ("bases_per_token", "bases per token (DNA)")]
    key, label = next(((key, label) for key, label in gains if any(point[key] is not None for point in points)), gains[0])
    for point in points:
        if point[key] is not None and point["english_changed"] is not None:
            axes.plot(point[key], 100 * point["english_changed"], "o", color=_SERIES[0][2])
            place = (point[key], 100 * point["english_changed"])
            axes.annotate(_short(str(point["tokenizer"])), place, textcoords="offset points", xytext=(4, 4), fontsize=7)
    axes.set(xlabel=label, ylabel="English tokens changed, %", title="Drift of English against compression")
    axes.set_ylim(bottom=0)
    return _png(figure)


def _short(name: str) -> str:
    """Return a file name that fits under a bar; matplotlib would read a dollar sign as mathematics."""
    name = name.replace("$", r"\$")
    return name if len(name) <= 28 else f"{name[:13]}...{name[-12:]}"


def _new_figure(width: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Any) -> bytes:
    """Return a figure's PNG; no date and no version inside: the same numbers, the same bytes."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()
