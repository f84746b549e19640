"""lora_targets: which layers of each family get adapters, and that these train, merge and come back from disk."""

import re

import pytest

from model_training.lora_targets import lora_targets
from slmkit.errors import UserError
from tests.model_training.model_families import CONFIGS, MOE, tiny_model

ATTENTION = ["k_proj", "o_proj", "q_proj", "v_proj"]
GATED = sorted([*ATTENTION, "down_proj", "gate_proj", "up_proj"])
EXPERTS = ["mlp.experts.down_proj", "mlp.experts.gate_up_proj"]
DENSE = [
    f"{part}.{layer}.weight" for part in ("mlp", "shared_expert") for layer in ("down_proj", "gate_proj", "up_proj")
]
EXPECTED = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3"), (GATED, None)),
    "phi": (["dense", "fc1", "fc2", "k_proj", "q_proj", "v_proj"], None),
    "phi3": (["down_proj", "gate_up_proj", "o_proj", "qkv_proj"], None),
    **dict.fromkeys(("phimoe", "mixtral", "qwen3_moe"), (ATTENTION, EXPERTS)),
    "qwen2_moe": (ATTENTION, sorted(EXPERTS + DENSE)),
}
# How many layers and tensors of experts, over two layers, have a pair of adapter matrices.
NUM_ADAPTED = {"phi": 12, "phi3": 8, "phimoe": 12, "mixtral": 12, "qwen3_moe": 12, "qwen2_moe": 8 + 3 + 2 + 3}


def with_adapters(family: str, target_modules: str | None = None, **config):
    from peft import LoraConfig, get_peft_model

    model = tiny_model(family)
    targets = lora_targets(model, target_modules, use_dora=config.get("use_dora", False))
    return get_peft_model(model, LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **targets, **config))


def batch():
    import torch

    return torch.randint(3, 64, (4, 16), generator=torch.Generator().manual_seed(0))


def loss_of(model) -> float:
    import torch

    with torch.no_grad():
        return model.eval()(input_ids=batch(), labels=batch()).loss.item()


def train(model, num_steps: int = 5) -> None:
    import torch

    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    for _ in range(num_steps):
        model.train()(input_ids=batch(), labels=batch()).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("family", CONFIGS)
def test_layers_of_each_family(family):
    modules, parameters = EXPECTED[family]
    for asked in (None, "all-linear"):
        assert lora_targets(tiny_model(family), asked) == {"target_modules": modules, "target_parameters": parameters}
    model = with_adapters(family)
    adapted = {name.rpartition(".lora_A.")[0] for name, _ in model.named_parameters() if ".lora_A." in name}
    assert len(adapted) == NUM_ADAPTED.get(family, 14)
    assert not [name for name in adapted if re.search(r"lm_head|router|gate$", name)]


@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("use_dora", [False, True])
@pytest.mark.parametrize("family", CONFIGS)
def test_adapters_train_merge_and_come_back(family, use_dora, use_rslora, tmp_path):
    """On experts, for which PEFT has no DoRA, the layers of the attention alone."""
    import torch
    from peft import PeftModel

    named = ",".join(ATTENTION) if use_dora and family in MOE else None
    model = with_adapters(family, named, use_dora=use_dora, use_rslora=use_rslora)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = loss_of(model)
    train(model)
    assert loss_of(model) < first
    changed = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert changed == {name for name in before if "lora_" in name}

    with torch.no_grad():
        expected = model.eval()(input_ids=batch()).logits
        model.save_pretrained(tmp_path)
        back = PeftModel.from_pretrained(tiny_model(family), tmp_path).eval()
        assert back(input_ids=batch()).logits.allclose(expected, atol=1e-5)
        merged = back.merge_and_unload()
        assert type(merged) is type(tiny_model(family))
        assert merged(input_ids=batch()).logits.allclose(expected, atol=1e-4)


@pytest.mark.parametrize(
    ("family", "asked", "expected"),
    [
        ("llama", "q_proj, v_proj", (["q_proj", "v_proj"], None)),
        ("llama", "layers.1.mlp.up_proj", (["model.layers.1.mlp.up_proj"], None)),
        ("phi3", "qkv_proj", (["qkv_proj"], None)),
        ("mixtral", "q_proj", (["q_proj"], None)),
        ("mixtral", "experts.down_proj", ([], ["mlp.experts.down_proj"])),
        ("qwen2_moe", "q_proj,shared_expert.up_proj", (["q_proj"], ["shared_expert.up_proj.weight"])),
    ],
)
def test_layers_that_are_asked_for(family, asked, expected):
    found = lora_targets(tiny_model(family), asked)
    assert (found["target_modules"], found["target_parameters"]) == expected
    names = [name for name, p in with_adapters(family, asked).named_parameters() if p.requires_grad]
    assert names
    assert all(re.search(r"q_proj|v_proj|up_proj|down_proj|experts", name) for name in names) or family == "phi3"


@pytest.mark.parametrize(
    ("family", "asked", "unknown", "known"),
    [
        ("phi3", "q_proj,o_proj,v_proj", "'q_proj', 'v_proj'", "down_proj, gate_up_proj, o_proj, qkv_proj"),
        ("llama", "lm_head", "'lm_head'", "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"),
        ("llama", "proj", "'proj'", "down_proj"),
        ("llama", "q_proj,", "''", "down_proj"),
        ("llama", " ", "''", "down_proj"),
        ("phimoe", "router", "'router'", "down_proj, gate_up_proj, k_proj, o_proj, q_proj, v_proj"),
        ("mixtral", "gate", "'gate'", "down_proj, gate_up_proj, k_proj"),
    ],
)
def test_a_layer_that_is_not_there(family, asked, unknown, known):
    with pytest.raises(UserError) as error:
        lora_targets(tiny_model(family), asked)
    model = type(tiny_model(family)).__name__
    assert str(error.value).startswith(f"target_modules: {unknown} is no layer of {model}; there are {known}")


@pytest.mark.parametrize("family", MOE)
@pytest.mark.parametrize("setting", [{"use_dora": True}, {"lora_dropout": 0.05}])
def test_what_adapters_on_experts_cannot(family, setting):
    with pytest.raises(
        UserError, match=r"lora_dropout=0 and use_dora=false, or target_modules=k_proj,o_proj,q_proj,v_proj"
    ):
        lora_targets(tiny_model(family), **setting)
    assert lora_targets(tiny_model(family), ",".join(ATTENTION), **setting)["target_parameters"] is None


def test_a_vision_tower_gets_no_adapters():
    """Text alone would never train them, and torch's DDP stops at parameters without a gradient."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    from tests.model_training.model_families import HEAD_DIM, SIZES

    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Gemma3Config(
        text_config={**SIZES, **HEAD_DIM},
        vision_config={**vision, "image_size": 8, "patch_size": 4},
        mm_tokens_per_image=4,
    )
    targets = lora_targets(Gemma3ForConditionalGeneration(config))
    model = get_peft_model(Gemma3ForConditionalGeneration(config), LoraConfig(r=2, **targets))
    adapted = {name.partition(".lora_")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert len(adapted) == 14
    assert all(".language_model.layers." in name for name in adapted)
    model(input_ids=torch.arange(3, 9)[None]).logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_layers_of_gpt2_are_no_linear_ones():
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2))
    assert lora_targets(model) == {"target_modules": ["c_attn", "c_fc", "c_proj"], "target_parameters": None}
