"""report: any tokenizer opened and measured; numbers checked where they are known by construction, and on the reference's files."""

from __future__ import annotations

import base64
import gzip
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from llama_gene.errors import InputError
from llama_gene.runtime import write_json
from llama_gene.tokenization.bpe import reference_encode
from llama_gene.tokenization.report import _middle, markdown, report, write_report
from llama_gene.tokenization.report_subject import open_subject
from llama_gene.tokenization.tokenizer import load_tokenizer, open_vocabulary, vocabulary_fingerprint, write_tokenizer
from tests.fixtures.tiny_tokenizers import tiktoken_like
from tests.fixtures.tiny_vocabularies import (
    DATA,
    ENGLISH,
    SENTENCES,
    edge_texts,
    genes,
    needs_data,
    only_dna_letters,
    proteins,
    spliced,
    structure_texts,
    with_structure,
)

KINDS = ["sentencepiece", "tiktoken"]
ISSUE_KEYS = [
    "pieces",
    "unreachable",
    "dead",
    "duplicates",
    "bases_per_token",
    "residues_per_token",
    "english_lines",
    "english_lines_changed",
    "english_tokens_changed",
    "roundtrip_failures",
    "library_mismatches",
    "protein_share_of_dna",
    "snv_tokens_changed",
    "phase_stability",
    "rc_stability",
    "fingerprint",
]


@pytest.mark.parametrize("kind", KINDS)
def test_law_04_english_drift_is_reported(kind: str) -> None:
    splice = spliced(kind)
    piece = splice.protein_pieces[0]
    assert splice.base.segment([piece]) != [[piece]]
    documents = ["The cell copies its partner.\nit is so", f"An acronym ({piece})."]
    numbers = report(splice.folder, base_of(kind), english={"a.txt": documents}, code={"b.py": ["x = 1\n\ny = 2"]})
    assert (numbers["english_lines"], numbers["english_lines_changed"]) == (3, 1)
    assert numbers["english_tokens_changed"] == len(splice.base.segment([piece])[0])
    [example] = numbers["english_examples"]
    assert f"({piece})" in example["text"] and piece in example["new_tokens"] and example["source"] == "a.txt"
    assert example["base_tokens"] == splice.base.segment([piece])[0]
    assert (numbers["code_lines"], numbers["code_lines_changed"], numbers["code_tokens_changed"]) == (2, 0, 0)


def test_gene_spans_are_left_out_only_where_the_key_says_so() -> None:
    kind = "sentencepiece"
    gene = genes(1)[0][:60]
    numbers = report(spliced(kind).folder, base_of(kind), english={"a": [f"We used the primer {gene} here.", "The cell copies."]})
    assert (numbers["english_lines_changed"], numbers["english_lines_changed_outside_genes"]) == (1, 0)
    assert numbers["english_tokens_changed"] > 5 and numbers["english_tokens_changed_outside_genes"] == 0
    assert 0 < numbers["english_tokens_outside_genes"] < numbers["english_tokens"]


@pytest.mark.parametrize("kind", KINDS)
def test_gene_numbers_are_those_of_the_texts(kind: str) -> None:
    splice = spliced(kind)
    dna, protein = genes(30, seed=31), proteins(30, seed=32)
    numbers = report(
        splice.folder, base_of(kind), dna={"a.fa": dna[:10], "b.fa": dna[10:]}, protein={"a.fa": protein}, english={"e": ENGLISH}
    )
    assert set(ISSUE_KEYS) <= numbers.keys()
    encoded = splice.full.native_encode(dna)
    assert encoded is not None
    assert numbers["bases_per_token"] == sum(map(len, dna)) / sum(map(len, encoded)) > 1.2 * numbers["bases_per_token_base"]
    assert numbers["residues_per_token"] > numbers["residues_per_token_base"]
    assert (numbers["pieces"], numbers["unreachable"], numbers["duplicates"], numbers["base_ids_changed"]) == (300, 0, 0, 0)
    assert (numbers["roundtrip_failures"], numbers["library_mismatches"], numbers["base_pieces_lost"]) == (0, 0, 0)
    assert 0 < numbers["dead"] < 300  # nothing holds a run of 64 N here
    assert sum(numbers["piece_lengths"].values()) == 300 and numbers["piece_lengths"]["64"] == 1
    assert list(numbers["by_source"]) == ["a.fa", "b.fa", "a.fa (protein)", "e"]
    first = numbers["by_source"]["a.fa"]
    assert first["letters_per_token"] == sum(map(len, dna[:10])) / sum(map(len, encoded[:10])) and first["kind"] == "dna"
    assert numbers["fingerprint"] == vocabulary_fingerprint(load_tokenizer(splice.folder))
    assert numbers["flags"] == []


@pytest.mark.parametrize("kind", KINDS)
def test_our_folder_has_no_mismatch_on_texts_that_break_tokenizers(kind: str) -> None:
    numbers = report(spliced(kind).folder, base_of(kind), english={"edge": [text for text in edge_texts() if "\u2581" not in text]})
    assert (numbers["library_mismatches"], numbers["roundtrip_failures"]) == (0, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_letters_of_a_namespaced_alphabet_are_text_and_no_pieces(kind: str, tmp_path: Path) -> None:
    vocabulary = with_structure(kind)
    write_tokenizer(vocabulary.tokenizer(), tmp_path)
    vocabulary.write_native(tmp_path)
    numbers = report(tmp_path, base_of(kind), english={"e": structure_texts()})
    assert (numbers["library_mismatches"], numbers["roundtrip_failures"], numbers["flags"]) == (0, 0, [])
    assert numbers["pieces"] == sum(piece not in spliced(kind).base.pieces() for piece in vocabulary.pieces())


def test_dead_counts_pieces_that_no_given_text_produces() -> None:
    splice = spliced("tiktoken")
    piece = splice.dna_pieces[-1]
    numbers = report(splice.folder, base_of("tiktoken"), dna={"one": [piece]})
    assert numbers["dead"] == 299


def test_the_standalone_vocabulary_stands_beside(tmp_path: Path) -> None:
    from tests.fixtures.tiny_vocabularies import train_sentencepiece_base

    alone = tmp_path / "alone.model"
    train_sentencepiece_base(genes(100), 400, alone)
    numbers = report(spliced("tiktoken").folder, dna={"a": genes(20, seed=5)}, standalone_dna=alone)
    assert numbers["bases_per_token_standalone"] == numbers["by_source"]["a"]["letters_per_token_standalone"] > 1.5
    assert numbers["residues_per_token_standalone"] is None


def test_what_has_no_text_is_none() -> None:
    numbers = report(spliced("sentencepiece").folder, base_of("sentencepiece"))
    measured = {"pieces", "unreachable", "duplicates", "fingerprint"}
    empty = ["code_lines", *(key for key in ISSUE_KEYS if key not in measured)]
    assert [numbers[key] for key in empty] == [None] * len(empty) and numbers["unreachable"] == 0
    assert "not measured" in markdown(numbers)


def test_without_a_base_all_pieces_count_and_no_drift_is_named() -> None:
    splice = spliced("tiktoken")
    numbers = report(splice.folder, english={"e": ENGLISH})
    assert numbers["pieces"] == len(splice.full.pieces())
    assert numbers["english_lines"] == len(ENGLISH) and numbers["english_lines_changed"] is None and numbers["base_ids_changed"] is None


def test_unreachable_pieces_are_counted_and_shown(tmp_path: Path) -> None:
    """A list without its lower merges, as an appended foreign list has: GATTACA without GATT and ACA."""
    splice = spliced("tiktoken")
    bad = splice.base.append(["GATTACAGATTACA"])
    assert reference_encode("GATTACAGATTACA", bad.rank) != ["GATTACAGATTACA"]
    write_tokenizer(bad.tokenizer(), tmp_path)
    bad.write_native(tmp_path)
    numbers = report(tmp_path, base_of("tiktoken"))
    assert (numbers["pieces"], numbers["unreachable"]) == (1, 1)
    [example] = numbers["unreachable_examples"]
    assert example["piece"] == "GATTACAGATTACA" == "".join(example["becomes"])
    assert faults(numbers) == ["unreachable pieces"]


def test_a_whole_word_shortcut_reaches_nothing() -> None:
    """` quokka` is a rank to which no merges lead: tiktoken finds it only as a whole word."""
    subject = open_subject(base_of("tiktoken"))
    assert subject.text(subject.encode(["a quokka"])[0][1:]) == " quokka" and len(subject.encode(["a quokka"])[0]) == 2
    assert subject.trace("\u0120quokka") != ["\u0120quokka"]


def test_a_piece_that_the_pre_tokenizer_cuts_is_unreachable(tmp_path: Path) -> None:
    """DNAHLM's fault, small: a dictionary made without a pattern and run with GPT-2's."""
    bare, folder = tmp_path / "dictionary.json.gz", tmp_path / "gpt2"
    merges = [("A", "C"), ("AC", "\u0120"), ("AC", "G")]
    content = dictionary(["AC", "AC\u0120", "ACG"], merges, use_regex=False)
    bare.write_bytes(gzip.compress(json.dumps(content).encode()))
    numbers = report(bare)
    assert (numbers["unreachable"], numbers["unreachable_as_filed"], numbers["pieces"]) == (1, 0, 256 + 3)
    assert numbers["unreachable_examples"] == [{"piece": "AC\u0120", "becomes": ["AC", "\u0120"]}]
    flag = flagged(numbers, "unreachable pieces")
    assert "1 of 259 pieces (0.4%)" in flag and "GPT2Tokenizer" in flag and "as the file itself says, 0" in flag
    folder.mkdir()
    write_json(folder / "encoder.json", content["model"]["vocab"])
    (folder / "vocab.bpe").write_text("#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in merges))
    for source in (folder, folder / "encoder.json", folder / "vocab.bpe"):
        by_class = report(source)
        assert (by_class["unreachable"], by_class["unreachable_as_filed"]) == (1, 1)  # its class has the pattern, nothing to explain
        assert "as the file itself says" not in flagged(by_class, "unreachable pieces")


def test_unigram_scores_in_a_bpe_model_are_flagged(tmp_path: Path) -> None:
    path = with_pieces(tmp_path, [("GAT", -5.62, 1), ("GATT", -12.18, 1)])
    numbers = report(path, base_of("sentencepiece"))
    assert "2 pieces have fractional scores (-5.62 to -12.18)" in flagged(numbers, "Unigram scores in a BPE model")
    assert "2 new pieces rank above base pieces" in flagged(numbers, "new scores above base scores")
    assert "2 pieces do not score below" in flagged(numbers, "score order is not id order")


def test_scores_that_collide_with_the_base_are_flagged(tmp_path: Path) -> None:
    path = with_pieces(tmp_path, [("GAT", -3.0, 1), ("\u2581GAT", -4.0, 1), ("GATC", -1e6, 1)])
    numbers = report(path, base_of("sentencepiece"))
    assert "2 new pieces have the score of a base piece" in flagged(numbers, "new scores collide with base scores")
    assert "1 gene pieces begin with a space (\u2581GAT)" in flagged(numbers, "space mark in gene pieces")
    assert "Unigram scores in a BPE model" not in faults(numbers)


def test_two_libraries_that_order_merges_differently_are_counted(tmp_path: Path) -> None:
    """sentencepiece merges by score, transformers by id: GA wins in one, AT in the other."""
    path = with_pieces(tmp_path, [("AT", -1e6, 1), ("GA", -1e5, 1)])
    numbers = report(path, base_of("sentencepiece"), dna={"a": ["CGATC", "CCCC"]})
    assert numbers["library_mismatches"] == 1 and numbers["texts"] == 2
    assert "1 of 2 texts differently" in flagged(numbers, "libraries disagree")


def test_a_unigram_model_is_measured_and_flagged(tmp_path: Path) -> None:
    import sentencepiece

    prefix = tmp_path / "unigram"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(genes(60)), model_prefix=str(prefix), vocab_size=120, model_type="unigram", minloglevel=2
    )
    with pytest.raises(InputError, match="not a BPE"):
        open_vocabulary(prefix.with_suffix(".model"))
    numbers = report(prefix.with_suffix(".model"), dna={"a": genes(5, seed=9)})
    assert numbers["bases_per_token"] > 1.5 and numbers["unreachable"] < numbers["pieces"] < 120
    assert "Unigram model" in faults(numbers) and "Unigram scores in a BPE model" not in faults(numbers)


def test_user_defined_pieces_cut_what_holds_them(tmp_path: Path) -> None:
    path = with_pieces(
        tmp_path, [("CC", -1e5, 1), ("ACC", -1e5 - 1, 1), ("<tag>", 0.0, 4), ("ACC<", -1e5 - 2, 1), ("CC<tag>", -1e5 - 3, 1)]
    )
    subject = open_subject(path)
    assert subject.trace("<tag>") == ["<tag>"] and subject.trace("ACC") == ["ACC"]
    assert subject.trace("CC<tag>") != ["CC<tag>"]
    assert subject.text(subject.encode(["x<tag>y"])[0]).strip() == "x<tag>y"


def test_repeated_pieces_are_counted_though_the_library_refuses_them(tmp_path: Path) -> None:
    path = with_pieces(tmp_path, [("GAT", -1e5, 1), ("GAT", -1e5 - 1, 1), ("e", -1e5 - 2, 1)])
    numbers = report(path, base_of("sentencepiece"), dna={"a": ["GATT"]})
    assert numbers["duplicates"] == 2
    assert "2 pieces are in it twice" in flagged(numbers, "repeated pieces")


def test_specials_that_moved_are_flagged(tmp_path: Path) -> None:
    """Ranks appended without a gap: a reader that counts specials from the number of ranks moves them."""
    lines = base_of("tiktoken").read_bytes().splitlines()
    lines.append(base64.b64encode(b"GATTACA") + b" %d" % len(lines))
    path = tmp_path / "appended.model"
    path.write_bytes(b"\n".join(lines) + b"\n")
    numbers = report(path, base_of("tiktoken"))
    first = len(lines) - 1
    assert f"256 of them against the base: <|begin_of_text|> {first} -> {first + 1}" in flagged(numbers, "special tokens moved")
    assert numbers["base_ids_changed"] == 256


def test_ranks_of_any_size_are_read(tmp_path: Path) -> None:
    """With holes where other tokenizers keep their specials; LLaMA-3's reader refuses it."""
    path = tmp_path / "ranks.tiktoken"
    words = [bytes([byte]) for byte in range(256)] + [b"AC", b"ACG"]
    path.write_bytes(b"".join(b"%s %d\n" % (base64.b64encode(word), rank + 7 * (rank >= 256)) for rank, word in enumerate(words)))
    with pytest.raises(InputError):
        open_vocabulary(path)
    numbers = report(path, dna={"a": ["ACGACG"]})
    assert (numbers["bases_per_token"], numbers["unreachable"], numbers["roundtrip_failures"]) == (3.0, 0, 0)
    assert "a rank file names no pattern" in faults(numbers)


def test_any_hugging_face_folder_is_measured(tmp_path: Path) -> None:
    tiktoken_like().save_pretrained(tmp_path)
    numbers = report(tmp_path, tmp_path / "tokenizer.json", dna={"a": genes(3)}, english={"e": ENGLISH})
    assert (numbers["pieces"], numbers["english_lines_changed"], numbers["roundtrip_failures"], numbers["library_mismatches"]) == (
        0,
        0,
        0,
        0,
    )
    assert report(tmp_path)["unreachable"] == 0


@pytest.mark.parametrize("model", ["wordpiece", "unigram"])
def test_models_that_do_not_merge_are_measured(model: str, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    if model == "wordpiece":
        backend: Any = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##c": 2, "ac": 3, "AC": 4}, unk_token="[UNK]"))
        backend.normalizer = normalizers.Lowercase()
        unreachable = ["AC"]
    else:
        backend = Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0), ("c", -1.0), ("ac", -9.0), ("aa", -1.5)], unk_id=0))
        unreachable = ["ac"]
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.save(str(tmp_path / "tokenizer.json"))
    numbers = report(tmp_path)
    assert [example["piece"] for example in numbers["unreachable_examples"]] == unreachable


def test_protein_share_of_dna_counts_tokens_of_the_protein_block(tmp_path: Path) -> None:
    """The protein step's guard left out: a piece of ACGT letters in the protein block fires in DNA."""
    splice = spliced("tiktoken")
    gene = "ACGT" * 3
    start = splice.dna.num_ids
    bad = splice.dna.append([gene[:12]])
    shutil.copytree(splice.folder, tmp_path / "good")
    for name, vocabulary, size in (("good", splice.full, 150), ("bad", bad, 1)):
        folder = tmp_path / name
        write_tokenizer(vocabulary.tokenizer(), folder)
        vocabulary.write_native(folder)
        steps = [
            {"kind": "dna", "first_id": start - 150, "size": 150},
            {"kind": "protein", "first_id": start, "size": size},
        ]
        write_json(folder / "manifest.json", {"stage": "vocab", "version": "0", "steps": steps})
    good = report(tmp_path / "good", dna={"a": [*genes(20), gene]})
    assert good["protein_share_of_dna"] == 0.0 and not only_dna_letters(splice.protein_pieces[0])
    texts = [gene, "ACGTACGTACGT"]
    share = report(tmp_path / "bad", dna={"a": texts})["protein_share_of_dna"]
    ids = [number for row in bad.native_encode(texts) or [] for number in row]
    assert share == sum(number >= start for number in ids) / len(ids)
    assert report(splice.folder, dna={"a": genes(3)})["protein_share_of_dna"] is None


def test_a_mutation_replaces_one_token_where_tokens_are_letters(tmp_path: Path) -> None:
    path = tmp_path / "letters.model"
    path.write_bytes(b"".join(b"%s %d\n" % (base64.b64encode(bytes([byte])), byte) for byte in range(256)))
    numbers = report(path, dna={"a": genes(3, length=1200)})
    assert (numbers["snv_tokens_changed"], numbers["phase_stability"], numbers["rc_stability"]) == (1.0, 1.0, 1.0)


def test_a_fixed_frame_is_not_stable() -> None:
    """Merges of a homopolymer count from the left: a cut by one base moves every boundary."""
    assert _middle([1, 2, 3, 4, 5], [1, 2, 9, 9, 9, 5]) == 2 and _middle([7], [7]) == 0
    splice = spliced("tiktoken")
    numbers = report(splice.folder, dna={"a": ["A" * 2000]})
    dictionary_like = report(splice.folder, dna={"a": genes(20, length=1200)})
    assert 0 <= numbers["phase_stability"] < dictionary_like["phase_stability"] <= 1
    assert 0 < dictionary_like["rc_stability"] < 1 < dictionary_like["snv_tokens_changed"] < 10


def test_stability_is_drawn_by_the_seed() -> None:
    texts = {"a": genes(10, length=1200)}
    keys = ("snv_tokens_changed", "phase_stability", "rc_stability")
    first, again, other = (report(spliced("sentencepiece").folder, dna=texts, seed=seed) for seed in (1, 1, 2))
    assert [first[key] for key in keys] == [again[key] for key in keys] != [other[key] for key in keys]


def test_the_report_is_json_markdown_and_two_figures_and_the_same_twice(tmp_path: Path) -> None:
    splice = spliced("tiktoken")
    numbers = report(splice.folder, base_of("tiktoken"), dna={"a$b.fa": genes(3)}, english={"e": ENGLISH + SENTENCES})
    for name in ("a", "b"):
        write_report(numbers, tmp_path / name / "run1.json")
    assert json.loads((tmp_path / "a" / "run1.json").read_text()) == numbers
    names = ["run1.json", "run1.md", "run1_compression.png", "run1_lengths.png"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    page = (tmp_path / "a" / "run1.md").read_text()
    assert "## Faults\n\nNone found." in page and "![run1_lengths.png](run1_lengths.png)" in page
    for key in ISSUE_KEYS:
        assert key == "fingerprint" or f"`{key}`" in page


def test_a_report_without_texts_has_both_figures(tmp_path: Path) -> None:
    write_report(report(base_of("sentencepiece")), tmp_path / "report.json")
    for name in ("report_lengths.png", "report_compression.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_nothing_half_written_stays(tmp_path: Path) -> None:
    numbers = report(base_of("tiktoken"))
    (tmp_path / "report.json").mkdir()  # the last of the four cannot be put into place
    (tmp_path / "report.json" / "x").touch()
    with pytest.raises(InputError):
        write_report(numbers, tmp_path / "report.json")
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    with pytest.raises(InputError, match=r"report\.txt does not end in \.json"):
        write_report(numbers, tmp_path / "report.txt")


def test_what_is_no_tokenizer_is_one_line(tmp_path: Path) -> None:
    cut = tmp_path / "cut.model"
    cut.write_bytes(base_of("sentencepiece").read_bytes()[:3000])
    prose = tmp_path / "prose.txt"
    prose.write_text("A protein is a chain.\n")
    alone = tmp_path / "vocab.json"
    write_json(alone, {"a": 0})
    damaged = tmp_path / "x.json.gz"
    damaged.write_bytes(gzip.compress(b"{}" * 1000)[:20])
    merges = tmp_path / "some.bpe"
    merges.write_text("#version: 0.2\na b\n")
    half = tmp_path / "half.tiktoken"
    half.write_text("QQ== 0\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    for path in (cut, prose, alone, damaged, merges, half, empty, tmp_path / "missing"):
        with pytest.raises(InputError) as caught:
            report(path)
        assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


@pytest.mark.real_data
@needs_data
def test_the_reference_dictionary_is_46_percent_unreachable() -> None:
    numbers = report(tokenizers() / "dnahlm_gpt2_bpe")
    assert (numbers["unreachable"], numbers["unreachable_as_filed"], numbers["vocab_size"]) == (22878, 0, 50000)
    assert "22,878 of 49,999 pieces (45.8%)" in flagged(numbers, "unreachable pieces") and "no decoder" in faults(numbers)
    assert "45.8%" in markdown(numbers)


@pytest.mark.real_data
@needs_data
def test_the_reference_merge_of_dnahlm_is_flagged() -> None:
    numbers = report(tokenizers() / "dnahlm_merged_dna_eng", tokenizers() / "llama2", dna={"a": genes(20)}, english={"e": ENGLISH})
    assert (numbers["pieces"], numbers["unreachable"], numbers["base_ids_changed"]) == (29957, 712, 0)
    assert "29,957 pieces have fractional scores (-5.62 to -12.18)" in flagged(numbers, "Unigram scores in a BPE model")
    assert "new scores above base scores" in faults(numbers) and "space mark in gene pieces" in faults(numbers)
    assert numbers["library_mismatches"] >= 20 and "libraries disagree" in faults(numbers)


@pytest.mark.real_data
@needs_data
def test_the_reference_merge_of_llama_gene_is_flagged() -> None:
    numbers = report(tokenizers() / "gene_eng_merged" / "tokenizer.model", tokenizers() / "llama2" / "tokenizer.model")
    assert (numbers["pieces"], numbers["unreachable"], numbers["base_pieces_lost"]) == (59643, 2707, 4)
    assert "31,446 new pieces have the score of a base piece" in flagged(numbers, "new scores collide with base scores")
    assert "score order is not id order" in faults(numbers) and "Unigram scores in a BPE model" not in faults(numbers)


@pytest.mark.real_data
@needs_data
def test_the_bases_have_no_faults_of_their_own() -> None:
    assert report(tokenizers() / "gpt2", dna={"a": genes(3)}, english={"e": ENGLISH})["flags"] == []
    numbers = report(tokenizers() / "llama2")
    assert (numbers["unreachable"], numbers["pieces"], numbers["flags"]) == (0, 31741, [])
    assert report(tokenizers() / "gene_bpe_unigram")["unreachable"] == 0


@cache
def base_of(kind: str) -> Path:
    """Return the base file behind which `spliced(kind)` stands."""
    return spliced(kind).folder.parent / "base.model"


def with_pieces(folder: Path, pieces: list[tuple[str, float, int]]) -> Path:
    """Write the tiny SentencePiece base with more pieces behind it, as a careless merge does."""
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    proto.ParseFromString(base_of("sentencepiece").read_bytes())
    for piece, score, kind in pieces:
        proto.pieces.add(piece=piece, score=score, type=kind)
    path = folder / "merged.model"
    path.write_bytes(proto.SerializeToString())
    return path


def dictionary(pieces: list[str], merges: list[tuple[str, str]], use_regex: bool) -> dict[str, Any]:
    """Return a byte-level tokenizer.json of 256 bytes and some pieces."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocab = {piece: number for number, piece in enumerate([*sorted(pre_tokenizers.ByteLevel.alphabet()), *pieces])}
    backend: Any = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    backend.decoder = decoders.ByteLevel()
    content: dict[str, Any] = json.loads(backend.to_str())
    return content


def faults(numbers: dict[str, Any]) -> list[str]:
    return [flag["fault"] for flag in numbers["flags"]]


def flagged(numbers: dict[str, Any], fault: str) -> str:
    """Return the detail of a fault that must be flagged."""
    [detail] = [flag["detail"] for flag in numbers["flags"] if flag["fault"] == fault]
    return detail


def tokenizers() -> Path:
    assert DATA is not None
    return Path(DATA) / "tokenizers"
