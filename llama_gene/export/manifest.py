"""The manifest of an export: the SHA-256 of every file and a seal over the manifest itself; what was changed since is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_gene.errors import MismatchError
from llama_gene.export.card import SEALED
from llama_gene.export.structure import check_structure
from llama_gene.export.tensors import refuse_pickles
from llama_gene.runtime import MANIFEST_NAME, fingerprint, read_manifest, sha256, write_json
from llama_gene.tokenization.tokenizer import load_tokenizer, vocabulary_fingerprint

ACTION = "Export the model again"


def seal(folder: Path, known: Mapping[str, str] | None = None) -> None:
    """Add the SHA-256 of every file to the folder's manifest, and a seal over the manifest itself; call it last.

    `known` are digests taken while a file was written: what the disk holds is compared with them when the folder is verified.
    """
    manifest = read_manifest(folder, "export")
    manifest.pop("seal", None)
    manifest["files"] = {name: (known or {}).get(name) or sha256(folder / name) for name in file_names(folder)}
    write_json(folder / MANIFEST_NAME, {**manifest, "seal": fingerprint(manifest)})


def verify_export(folder: Path) -> dict[str, Any]:
    """Return the manifest of an exported folder in which nothing was changed since, and whose parts agree in size.

    Raises InputError for a folder that is no export or holds pickles, MismatchError naming what was changed, is missing or was added.
    """
    manifest = read_manifest(folder, "export")
    expected_seal = manifest.pop("seal", None)
    files: dict[str, str] = manifest.get("files", {})
    if expected_seal != fingerprint(manifest):
        raise MismatchError(f"{folder / MANIFEST_NAME} was changed after the export", "the manifest as it was sealed", ACTION)
    refuse_pickles(folder)
    found = file_names(folder)
    if missing := sorted(set(files) - set(found)):
        raise MismatchError(f"{folder} lacks {', '.join(missing)}", "every file of the export", ACTION)
    if added := sorted(set(found) - set(files)):
        raise MismatchError(f"{folder} holds {', '.join(added)}", "only the files of the export", "Remove what was added")
    for name, digest in files.items():
        if sha256(folder / name) != digest:
            raise MismatchError(f"{folder / name} was changed after the export", f"SHA-256 {digest[:16]}...", ACTION)
    vocabulary = vocabulary_fingerprint(load_tokenizer(folder))
    if vocabulary != manifest.get("vocabulary"):
        raise MismatchError(f"{folder}: vocabulary {vocabulary}", f"{manifest.get('vocabulary')}", ACTION)
    structure = check_structure(folder)
    if structure.padding_rows:
        raise MismatchError(f"{folder}: {structure.padding_rows:,} rows that no token has", "a row for each token", ACTION)
    return manifest


def is_export(folder: Path) -> bool:
    """Return whether a folder has a manifest of ours: then it is held to every byte.

    Raises MismatchError where the model card says that there is one: it was taken away or changed.
    """
    if (folder / MANIFEST_NAME).is_file() and read_manifest(folder).get("stage") == "export":
        return True
    card = folder / "README.md"
    if card.is_file() and SEALED in card.read_text(encoding="utf-8", errors="replace"):
        fault = f"{folder} lacks its {MANIFEST_NAME}, of which README.md tells, or it was changed"
        raise MismatchError(fault, "the manifest as it was sealed", ACTION)
    return False


def file_names(folder: Path) -> list[str]:
    """Return the files of a folder but for the manifest and what version control or the hub's client keep in hidden places."""
    # A link counts even where it leads to a folder or nowhere: what stands behind it was not written here.
    names = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file() or path.is_symlink()]
    return [name.as_posix() for name in names if name.as_posix() != MANIFEST_NAME and not any(part.startswith(".") for part in name.parts)]
