"""lora_adapter: merged as PEFT merges, and refused where a server of many adapters could not serve it as trained."""

import json
import math
import shutil

import pytest

import model_training.loading
from model_inference import loading
from slmkit import lineage, lora_adapter
from slmkit.errors import UserError
from tests import lora_adapters


@pytest.fixture(scope="module")
def adapter(small_model, tmp_path_factory):
    return lora_adapters.write(small_model, tmp_path_factory.mktemp("lora") / "adapter")


@pytest.fixture
def copied(adapter, tmp_path):
    return shutil.copytree(adapter, tmp_path / "adapter")


def change(folder, **config):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))


def logits(model):
    import torch

    with torch.inference_mode():
        return model(torch.arange(5, 37)[None]).logits


@pytest.mark.parametrize(("use_rslora", "scale"), [(False, 8 / 4), (True, 8 / math.sqrt(4))])
def test_logits_are_those_that_peft_gives(small_model, copied, use_rslora, scale):
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    change(copied, use_rslora=use_rslora)
    read = lora_adapter.read(copied)
    assert (read.r, read.scale) == (4, scale)
    ours = logits(loading.load_model(small_model, adapter=read))
    base = AutoModelForCausalLM.from_pretrained(small_model, dtype=torch.float32)
    before = logits(base)
    adapted = peft.PeftModel.from_pretrained(base, copied).eval()
    torch.testing.assert_close(ours, logits(adapted), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours, logits(adapted.merge_and_unload()), rtol=1e-4, atol=1e-4)
    assert (ours - before).abs().max() > 1  # else nothing has been compared


def test_an_output_layer_is_changed_without_the_embeddings_that_share_its_weights(small_model, tmp_path):
    import torch
    from safetensors.torch import save_file

    model = loading.load_model(small_model)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    before = model.lm_head.weight.clone()
    low, high = torch.full((1, before.shape[1]), 2.0), torch.zeros(before.shape[0], 1)
    high[3] = 0.5
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 1, "lora_alpha": 3}))
    name = "base_model.model.lm_head.lora_{}.weight"
    save_file({name.format("A"): low, name.format("B"): high}, tmp_path / "adapter_model.safetensors")
    loading.merge(model, lora_adapter.read(tmp_path))
    assert torch.equal(model.model.embed_tokens.weight, before)
    before[3] += 3 * 0.5 * 2.0  # alpha / r, B, A
    torch.testing.assert_close(model.lm_head.weight.data, before)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"use_dora": True}, "use_dora: no server"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save: no server"),
        ({"rank_pattern": {"q_proj": 8}, "alpha_pattern": {"q_proj": 1}}, "rank_pattern, alpha_pattern: no server"),
        ({"init_lora_weights": "pissa_niter_4"}, "changes the base"),
        ({"peft_type": "IA3"}, "peft_type"),
        ({"bias": "all"}, "bias"),
        ({"r": 0}, "greater than or equal to 1"),
        ({"lora_alpha": "many"}, "lora_alpha"),
        ({"r": 8}, "are not of rank 8"),
        ({"r": "4"}, "r: Input should be a valid integer"),
        ({"use_rslora": "false"}, "use_rslora: Input should be a valid boolean"),  # true for PEFT and for a server
    ],
)
def test_more_than_plain_lora_is_refused(copied, config, said):
    change(copied, **config)
    with pytest.raises(UserError, match=said) as refused:
        lora_adapter.read(copied)
    assert len(str(refused.value).splitlines()) == 1


def test_weights_that_are_none_are_refused(copied, adapter):
    from safetensors.torch import load_file, save_file

    weights, tensors = copied / "adapter_model.safetensors", load_file(adapter / "adapter_model.safetensors")
    first = next(iter(tensors))
    for broken in (
        {key: value for key, value in tensors.items() if key != first},
        tensors | {first.replace("lora_A.weight", "lora_magnitude_vector"): tensors[first][0].clone()},
        {"base_model.model.lm_head.weight": tensors[first]},
        {},
    ):
        save_file(broken, weights)
        with pytest.raises(UserError, match="low-rank matrices"):
            lora_adapter.read(copied)
    for content in (b"", b"\xff" * 64, (2**62).to_bytes(8, "little") + b"{}", (2).to_bytes(8, "little") + b"[]"):
        weights.write_bytes(content)
        with pytest.raises(UserError, match="not a whole safetensors file"):
            lora_adapter.read(copied)
    weights.rename(copied / "adapter_model.bin")
    with pytest.raises(UserError, match=r"no adapter_model\.safetensors"):
        lora_adapter.read(copied)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("NaN", r"model\.layers\.0\.mlp\.down_proj comes to NaN or infinity"),
        ("too large", "comes to NaN or infinity"),
        ("embeddings", r"the base has no linear layer model\.embed_tokens"),
        ("cut short", r"adapter_model\.safetensors: damaged or cut short"),
    ],
)
def test_what_cannot_be_merged_is_refused(small_model, copied, broken, said):
    """Of NaN the likeliest token can be taken too, so it would be evaluated like any other adapter."""
    from safetensors.torch import load_file, save_file

    weights = copied / "adapter_model.safetensors"
    tensors, model = load_file(weights), loading.load_model(small_model)
    if broken == "NaN":
        next(value for key, value in tensors.items() if "0.mlp.down_proj.lora_B" in key)[0, 0] = float("nan")
    elif broken == "too large":
        change(copied, lora_alpha=1e308)
    elif broken == "embeddings":
        rows, columns = model.model.embed_tokens.weight.shape
        name = "base_model.model.model.embed_tokens.lora_{}.weight"
        tensors |= {name.format("A"): tensors[next(iter(tensors))].new_ones(4, columns)}
        tensors |= {name.format("B"): tensors[next(iter(tensors))].new_ones(rows, 4)}
    save_file(tensors, weights)
    if broken == "cut short":
        weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(UserError, match=said):
        loading.merge(model, lora_adapter.read(copied))


def test_an_adapter_beside_a_whole_model_is_refused(small_model, adapter, tmp_path):
    """Transformers puts it in use where PEFT is installed, so that one hash would be of two models."""
    both = shutil.copytree(small_model, tmp_path / "both")
    for file in adapter.iterdir():
        shutil.copy(file, both)
    for load_tokenizer in (loading.load_tokenizer, model_training.loading.load_tokenizer):
        with pytest.raises(UserError, match="has an adapter beside the model"):
            load_tokenizer(both)


def test_an_adapter_of_another_base_is_refused(small_model, adapter, copied, tmp_path):
    from safetensors.torch import load_file, save_file

    read = lora_adapter.read(adapter, small_model)
    lora_adapter.check_fits(read, small_model)
    made = {"inputs": {"base_model": {"sha256": lineage.sha256(small_model)}}}
    (copied / "lineage.json").write_text(json.dumps(made))
    lora_adapter.read(copied, small_model)

    other = shutil.copytree(small_model, tmp_path / "other")
    tensors = load_file(small_model / "model.safetensors")
    narrow = {key: value[:, :-1].contiguous() if "down_proj" in key else value for key, value in tensors.items()}
    shallow = {key: value for key, value in tensors.items() if "layers.1." not in key}
    for weights, said in ((narrow, "made for a layer model.layers.0.mlp.down_proj"), (shallow, "has no layer model.l")):
        save_file(weights, other / "model.safetensors")
        with pytest.raises(UserError, match=said) as refused:
            lora_adapter.check_fits(read, other)
        assert refused.value.exit_code == 4
    with pytest.raises(UserError, match="trained on another base") as refused:
        lora_adapter.read(copied, other)
    assert refused.value.exit_code == 4
    model = loading.load_model(small_model)
    del model.model.layers[1]
    with pytest.raises(UserError, match=r"no linear layer model\.layers\.2"):
        loading.merge(model, read)
