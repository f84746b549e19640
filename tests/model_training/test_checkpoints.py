"""model_training.checkpoints: what is complete goes on, what is not does not, and the batch stays the same."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model_training import checkpoints
from slmkit.errors import UserError

IDENTITY = {"seed": 1}


def write(folder: Path, step: int, world_size: int = 1, accumulation: int = 1) -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    (checkpoint / f"global_step{step}").mkdir(parents=True)
    save_file({"weight": torch.ones(3)}, checkpoint / "model.safetensors")
    for name in ("optimizer.pt", "rng_state.pth", f"global_step{step}/part_0.pt"):
        torch.save({"state": torch.ones(100)}, checkpoint / name)
    (checkpoint / "trainer_state.json").write_text('{"global_step": 4}')
    checkpoints.mark_complete(checkpoint, world_size, accumulation)
    return checkpoint


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two checkpoints of one run, the later one first in no directory order."""
    assert checkpoints.prepare(tmp_path, IDENTITY) is None
    write(tmp_path, 9)
    write(tmp_path, 10)
    return tmp_path


def test_the_last_one_goes_on(folder):
    assert checkpoints.prepare(folder, IDENTITY).name == "checkpoint-10"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("name", ["complete.json", "trainer_state.json", "model.safetensors", "optimizer.pt"])
@pytest.mark.parametrize("spoil", [Path.unlink, cut])
def test_a_kill_while_it_was_written_loses_that_one_alone(folder, capsys, name, spoil):
    spoil(folder / "checkpoint-10" / name)
    assert checkpoints.prepare(folder, IDENTITY).name == "checkpoint-9"
    assert "checkpoint-10 is not used" in capsys.readouterr().err
    assert not (folder / "checkpoint-10").exists()


@pytest.mark.parametrize("name", ["optimizer.pt", "rng_state.pth", "global_step10/part_0.pt"])
def test_a_flipped_byte_is_seen(folder, name):
    flip(folder / "checkpoint-10" / name)
    assert checkpoints.prepare(folder, IDENTITY).name == "checkpoint-9"


def test_without_its_last_process_a_checkpoint_is_not_complete(folder):
    """The marker comes last, so a folder in which everything stands but the marker is not used."""
    shutil.copytree(folder / "checkpoint-10", folder / "checkpoint-11")
    (folder / "checkpoint-11" / "complete.json").unlink()
    assert checkpoints.prepare(folder, IDENTITY).name == "checkpoint-10"


def test_another_run_starts_anew(folder, capsys):
    assert checkpoints.prepare(folder, {"seed": 2}) is None
    assert "checkpoint-10 belongs to another run and is removed" in capsys.readouterr().err
    assert not list(folder.glob("checkpoint-*"))


def test_other_processes_remove_nothing(folder, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    cut(folder / "checkpoint-10" / "optimizer.pt")
    assert checkpoints.prepare(folder, IDENTITY).name == "checkpoint-9"
    assert checkpoints.prepare(folder, {"seed": 2}) is None
    assert {path.name for path in folder.glob("checkpoint-*")} == {"checkpoint-9", "checkpoint-10"}


@pytest.mark.parametrize(
    ("before", "accumulation", "now", "expected"), [(1, 1, 1, 1), (2, 1, 1, 2), (1, 4, 2, 2), (8, 2, 4, 4)]
)
def test_the_batch_of_a_step_stays_the_same(tmp_path, before, accumulation, now, expected):
    checkpoint = write(tmp_path, 5, before, accumulation)
    assert checkpoints.gradient_accumulation_steps(checkpoint, 99, now) == expected
    assert checkpoints.gradient_accumulation_steps(None, 99, now) == 99


def test_a_number_of_processes_that_does_not_divide_it(tmp_path):
    checkpoint = write(tmp_path, 5, world_size=2, accumulation=2)
    with pytest.raises(UserError, match=r"checkpoint-5 was written by 2 processes .* which 3 processes cannot share"):
        checkpoints.gradient_accumulation_steps(checkpoint, 1, 3)


def test_only_deepspeed_needs_conversion(tmp_path):
    checkpoint = write(tmp_path, 5, world_size=2)
    assert not checkpoints.needs_conversion(checkpoint, 1)
    (checkpoint / "latest").write_text("global_step5")
    assert checkpoints.needs_conversion(checkpoint, 1)
    assert not checkpoints.needs_conversion(checkpoint, 2)
    assert not checkpoints.needs_conversion(None, 2)


def test_what_cannot_be_converted_says_how_to_go_on(tmp_path):
    checkpoint = write(tmp_path, 5, world_size=2)
    (checkpoint / "latest").write_text("global_step5")
    with pytest.raises(UserError, match=r"checkpoint-5 cannot be read by another number of processes .* go on with 2"):
        checkpoints.convert(checkpoint)


def test_the_marker_names_every_file(tmp_path):
    content = json.loads((write(tmp_path, 5, 2, 3) / "complete.json").read_text())
    assert content["world_size"] == 2
    assert content["gradient_accumulation_steps"] == 3
    assert set(content["file_bytes"]) == {
        *("model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json", "global_step5/part_0.pt")
    }
