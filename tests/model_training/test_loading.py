"""model_training.loading: the precision that the hardware gains by."""

import json

import pytest
import torch

from model_training import loading


@pytest.fixture
def base_model(tmp_path):
    def make(hidden_size):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": hidden_size}))
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("gpu", "gpu_has_it", "amx", "hidden_size", "expected"),
    [
        (True, True, False, 64, True),
        (True, False, True, 4096, False),  # a T4 emulates it
        (False, False, True, 512, True),
        (False, False, True, 256, False),
        (False, False, False, 4096, False),
    ],
)
def test_bf16_where_the_hardware_gains_by_it(monkeypatch, base_model, gpu, gpu_has_it, amx, hidden_size, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: gpu_has_it or including_emulation)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    model = base_model(hidden_size)
    assert loading.use_bf16(None, model) is expected
    assert loading.use_bf16(True, model) is True
    assert loading.use_bf16(False, model) is False


@pytest.mark.parametrize(("free_bytes", "expected"), [(10**12, False), (10**6, True)])
def test_gradient_checkpointing_where_the_memory_would_not_suffice(monkeypatch, small_model, free_bytes, expected):
    settings = {"method": "full", "max_length": 1024, "per_device_train_batch_size": 4}
    assert loading.use_gradient_checkpointing(None, small_model, **settings) is False  # no GPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (0, free_bytes))
    assert loading.use_gradient_checkpointing(None, small_model, **settings) is expected
    assert loading.use_gradient_checkpointing(True, small_model, **settings) is True
