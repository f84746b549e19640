"""model_training.failures: what stops a training is one line that helps."""

import errno
import re
from pathlib import Path

import pytest
import torch

from model_training import failures
from slmkit.errors import UserError


@pytest.fixture
def explained(small_model, tmp_path):
    def start(**changes):
        values = {"batch_size": 4, "accumulation": 1, "max_length": 1024, "method": "full"}
        return failures.explained(small_model, tmp_path, **{**values, **changes})

    return start


def no_memory_of_this_machine():
    torch.empty(2**60)


def no_memory_of_a_gpu():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


@pytest.mark.parametrize("fail", [no_memory_of_this_machine, no_memory_of_a_gpu])
def test_out_of_memory_names_three_settings_with_numbers(explained, fail):
    with pytest.raises(UserError) as error, explained():
        fail()
    text = str(error.value)
    assert "per_device_train_batch_size=2 with gradient_accumulation_steps=2" in text
    found = [float(number) for number in re.findall(r"about ([\d.]+) GB", text)]
    half, now, checkpointing, lora = found
    assert max(half, checkpointing) < now
    assert lora <= now  # of a model as small as this the logits take most
    assert re.search(r"gradient_checkpointing=true .*; method=lora .*; deepspeed=zero3 on several GPUs", text)
    assert "no checkpoint was written yet" in text


def test_out_of_memory_with_one_row(explained, tmp_path):
    (tmp_path / "checkpoint-30").mkdir()
    (tmp_path / "checkpoint-30" / "complete.json").write_text("{}")
    with pytest.raises(UserError, match=r"max_length=512.*checkpoint-30 is kept"), explained(batch_size=1):
        no_memory_of_this_machine()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_space_for_a_checkpoint(explained, number):
    expected = "no space left for a checkpoint; free some or raise save_steps"
    with pytest.raises(UserError, match=expected), explained():
        raise OSError(number, "No space left on device")


def test_torch_reports_a_full_disk_in_its_own_words(explained):
    expected = "no space left for a checkpoint"
    with pytest.raises(UserError, match=expected), explained(), Path("/dev/full").open("wb") as full:
        torch.save({"state": torch.ones(10**6)}, full)


def test_other_errors_stay_what_they_are(explained):
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), explained():
        torch.ones(2, 3) @ torch.ones(2, 3)
