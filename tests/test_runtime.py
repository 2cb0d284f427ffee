"""Runtime: whole files, manifests, fingerprints, library switches."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from llama_gene import runtime
from llama_gene.errors import InputError, MachineError, MissingFileError


def names(folder: Path) -> list[str]:
    """Return what a folder holds, hidden entries included."""
    return sorted(path.name for path in folder.iterdir())


def earlier_output(folder: Path, stage: str = "corpus") -> Path:
    folder.mkdir()
    (folder / "old.txt").write_text("old")
    runtime.write_manifest(folder, stage, {})
    return folder


# --- whole files and folders -----------------------------------------------------------------------------------------------------


def test_whole_file_appears_only_when_the_block_ends_well(tmp_path: Path) -> None:
    with runtime.whole_file(tmp_path / "new" / "a.txt") as temporary:
        temporary.write_text("all of it")
        assert not (tmp_path / "new" / "a.txt").exists()
    assert (tmp_path / "new" / "a.txt").read_text() == "all of it" and names(tmp_path / "new") == ["a.txt"]


def test_whole_file_leaves_nothing_behind_and_keeps_the_old_file_on_an_exception(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError, match="stop"), runtime.whole_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("half of")
        raise RuntimeError("stop")
    assert names(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"


def test_whole_dir_appears_only_when_the_block_ends_well(tmp_path: Path) -> None:
    with runtime.whole_dir(tmp_path / "runs" / "out") as folder:
        (folder / "a.txt").write_text("a")
        assert not (tmp_path / "runs" / "out").exists()
    assert names(tmp_path / "runs") == ["out"] and names(tmp_path / "runs" / "out") == ["a.txt"]
    assert (tmp_path / "runs" / "out").stat().st_mode & 0o777 == 0o755


def test_whole_dir_leaves_nothing_behind_on_an_exception(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stop"), runtime.whole_dir(tmp_path / "out") as folder:
        (folder / "a.txt").write_text("a")
        raise RuntimeError("stop")
    assert names(tmp_path) == []


def test_whole_dir_takes_back_the_parents_that_it_made(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(RuntimeError, match="stop"), runtime.whole_dir(tmp_path / "mine" / "new" / "deep" / "out"):
        raise RuntimeError("stop")
    assert names(tmp_path) == ["mine"] and names(tmp_path / "mine") == []


def test_whole_dir_replaces_an_earlier_output_at_the_end_only(tmp_path: Path) -> None:
    out = earlier_output(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt), runtime.whole_dir(out):
        raise KeyboardInterrupt
    assert names(out) == ["manifest.json", "old.txt"]
    with runtime.whole_dir(out) as folder:
        (folder / "new.txt").write_text("new")
        assert names(out) == ["manifest.json", "old.txt"]
    assert names(out) == ["new.txt"] and names(tmp_path) == ["out"]


def test_whole_dir_writes_through_a_link_to_a_folder(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk", target_is_directory=True)
    with runtime.whole_dir(tmp_path / "out") as folder:
        (folder / "a.txt").write_text("a")
    assert (tmp_path / "out").is_symlink() and names(tmp_path / "disk") == ["a.txt"]


def test_whole_dir_refuses_a_folder_without_manifest_and_keeps_it(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(InputError, match="thesis holds files and is not an earlier output; expected a new or empty folder"):
        with runtime.whole_dir(tmp_path / "thesis"):
            pass
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


def test_whole_dir_refuses_a_folder_whose_manifest_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "manifest.json").write_text('{"short_name": "a web page", "icons": []}')
    with pytest.raises(InputError, match="not an earlier output"), runtime.whole_dir(tmp_path / "page"):
        pass


def test_check_output_refuses_a_file_a_place_below_a_file_and_another_stages_folder(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(InputError, match=r"a\.txt is a file; expected a new or empty folder"):
        runtime.check_output(tmp_path / "a.txt")
    with pytest.raises(InputError, match=r"out cannot be made: .*a\.txt is a file"):
        runtime.check_output(tmp_path / "a.txt" / "out")
    with pytest.raises(InputError, match="cannot be written: File name too long"):
        runtime.check_output(tmp_path / ("x" * 300))
    out = earlier_output(tmp_path / "out", "corpus")
    with pytest.raises(InputError, match="out is an output of `corpus`; expected a new folder, or one of `pack`"):
        runtime.check_output(out, "pack")
    runtime.check_output(out, "corpus")
    runtime.check_output(tmp_path / "not" / "there" / "yet", "pack")
    assert names(tmp_path) == ["a.txt", "out"]


def test_a_folder_that_may_not_be_written_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # tests may run as root, who may write everywhere
    with pytest.raises(InputError, match=r"out cannot be made: .* cannot be written to"):
        runtime.check_output(tmp_path / "out")


@pytest.mark.parametrize("what", ["file", "dir"])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, what: str) -> None:
    whole = {"file": runtime.whole_file, "dir": runtime.whole_dir}[what]
    with pytest.raises(MachineError, match=r"the disk is full: .*out was not written; expected free space"):
        with whole(tmp_path / "out"):
            raise OSError(errno.ENOSPC, "No space left on device")
    assert names(tmp_path) == []


def test_whole_file_onto_a_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="out cannot be written: Is a directory"):
        runtime.write_text(tmp_path / "out", "text")
    assert names(tmp_path) == ["out"]


# --- manifests -------------------------------------------------------------------------------------------------------------------


@dataclass
class Settings:
    seed: int
    folder: Path


def test_manifest_holds_stage_version_config_and_facts(tmp_path: Path) -> None:
    runtime.write_manifest(tmp_path, "pack", Settings(3, Path("a/b")), rows=7)
    assert runtime.read_manifest(tmp_path, "pack") == {
        "stage": "pack", "version": runtime.package_version(), "config": {"seed": 3, "folder": "a/b"}, "rows": 7,
    }  # fmt: skip


def test_read_manifest_says_which_stage_is_missing_or_wrote_the_folder(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no does not exist; expected the folder that `llama-gene corpus` writes"):
        runtime.read_manifest(tmp_path / "no", "corpus")
    with pytest.raises(InputError, match=r"has no manifest\.json; expected the output of `llama-gene corpus`"):
        runtime.read_manifest(tmp_path, "corpus")
    runtime.write_manifest(tmp_path, "vocab", {})
    with pytest.raises(InputError, match="was written by `vocab`; expected the output of `llama-gene corpus`"):
        runtime.read_manifest(tmp_path, "corpus")
    for content in ("[1]", '{"name": "page"}'):
        (tmp_path / "manifest.json").write_text(content)
        with pytest.raises(InputError, match="is not a manifest of ours"):
            runtime.read_manifest(tmp_path)


def test_read_json_names_the_line_of_a_fault(tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_text('{"a": 1,\n"b": ')
    with pytest.raises(InputError, match=r"cut\.json, line 2: Expecting value; expected JSON"):
        runtime.read_json(tmp_path / "cut.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"binary\.json is not UTF-8 text"):
        runtime.read_json(tmp_path / "binary.json")


# --- fingerprints ----------------------------------------------------------------------------------------------------------------


def test_fingerprint_is_16_known_digits_and_ignores_the_order_of_keys() -> None:
    assert runtime.fingerprint({"a": 1, "b": [2, 3]}) == runtime.fingerprint({"b": (2, 3), "a": 1}) == "efbd0040190fb087"
    assert runtime.fingerprint({"a": 1, "b": [3, 2]}) != "efbd0040190fb087"


def test_file_hash_is_the_beginning_of_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"ACGT")
    assert runtime.file_hash(tmp_path / "a") == "1dff3e84fe7877e0"


def test_plain_turns_dataclasses_paths_and_tuples_into_json() -> None:
    assert runtime.plain({"s": Settings(1, Path("a")), 2: (Path("b"), None)}) == {"s": {"seed": 1, "folder": "a"}, "2": ["b", None]}


# --- process ---------------------------------------------------------------------------------------------------------------------


def test_only_rank_0_logs_information_and_every_rank_logs_warnings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    runtime.get_logger().info("hello")
    runtime.get_logger().warning("careful")
    monkeypatch.setenv("RANK", "0")
    runtime.get_logger().info("done")
    assert [line.split(" ", 1)[1] for line in capsys.readouterr().err.splitlines()] == ["careful", "done"]


def test_progress_shows_nothing_for_quick_work_and_real_counts_for_slow_work(capsys: pytest.CaptureFixture[str]) -> None:
    with runtime.progress("pack", "documents", 3) as bar:
        bar.update(3)
    assert capsys.readouterr().err == ""
    with runtime.progress("pack", "documents") as bar:
        bar.start_t -= 2  # two seconds ago
        bar.last_print_t -= 2
        bar.update(1500)
    assert "pack: 1.50k documents" in capsys.readouterr().err


def test_library_switches_keep_what_the_user_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCH_EXTENSIONS_DIR", "TOKENIZERS_PARALLELISM", "HF_HUB_DISABLE_TELEMETRY", "TQDM_MININTERVAL", "TIKTOKEN_CACHE_DIR"):
        monkeypatch.setenv(name, "mine")
    monkeypatch.setenv("DS_ACCELERATOR", "cuda")
    runtime.set_library_switches()
    assert os.environ["TORCH_EXTENSIONS_DIR"] == "mine" and os.environ["DS_ACCELERATOR"] == "cuda"
    assert os.environ["TIKTOKEN_CACHE_DIR"] == ""  # a stale vocabulary would be read otherwise


@pytest.mark.parametrize(("gpu", "accelerator"), [(True, None), (False, "cpu")])
def test_deepspeed_is_told_of_the_cpu_where_no_gpu_is(monkeypatch: pytest.MonkeyPatch, gpu: bool, accelerator: str | None) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "to be deleted")  # so that the end of the test restores the outer value
    monkeypatch.delenv("DS_ACCELERATOR")
    monkeypatch.setattr(runtime, "has_gpu", lambda: gpu)
    runtime.set_library_switches()
    assert os.environ.get("DS_ACCELERATOR") == accelerator
    assert runtime.launch_environment(2).get("DS_ACCELERATOR") == accelerator


def test_importing_peft_and_deepspeed_after_the_switches_prints_nothing() -> None:
    code = "from llama_gene import runtime; runtime.set_library_switches(); import peft, bitsandbytes"
    code += "; from deepspeed.accelerator import get_accelerator; get_accelerator()" if sys.platform == "linux" else ""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


def test_the_switch_for_bitsandbytes_touches_its_cpu_operations_only() -> None:
    runtime.set_library_switches()
    assert logging.getLogger("bitsandbytes.backends.cpu.ops").level == logging.ERROR
    assert logging.getLogger("bitsandbytes").level == logging.NOTSET


def test_launch_environment_shares_out_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(runtime, "num_cores", lambda: 8)
    assert runtime.launch_environment(3)["OMP_NUM_THREADS"] == "2"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert runtime.launch_environment(3)["OMP_NUM_THREADS"] == "5"


def test_single_process_rendezvous_is_set_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    runtime.set_single_process_rendezvous()
    assert (os.environ["RANK"], os.environ["WORLD_SIZE"], runtime.rank(), runtime.world_size()) == ("0", "1", 0, 1)
    port = os.environ["MASTER_PORT"]
    runtime.set_single_process_rendezvous()
    assert os.environ["MASTER_PORT"] == port


def test_version_of_what_is_not_installed_is_said() -> None:
    assert runtime.package_version("no-such-package") == "not installed"
    assert json.dumps(runtime.package_version("numpy")) != '"not installed"'


def test_an_input_in_the_output_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "genome.fa").write_text(">a\nACGT\n")
    for name in (tmp_path / "out" / "genome.fa", tmp_path / "out", str(tmp_path / "out")):
        with pytest.raises(InputError, match="lies in the output folder"):
            runtime.check_inputs_outside(tmp_path / "out", [name])
    runtime.check_inputs_outside(tmp_path / "out", [tmp_path / "genome.fa", None, "org/model"])


def test_two_runs_do_not_write_one_output_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    code = "import sys, time; from pathlib import Path; from llama_gene import runtime\nwith runtime.sole_writer(Path(sys.argv[1])):\n"
    code += "    print('held', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    with pytest.raises(InputError, match="another run is writing .*out"), runtime.sole_writer(tmp_path / "out"):
        pass
    with runtime.sole_writer(tmp_path / "new" / "another"):
        pass
    other.kill()
    other.wait()
    with runtime.sole_writer(tmp_path / "out"):
        pass
    assert not list(tmp_path.iterdir())
