"""quantize_model: the quantized weights and the measurements against references worked out independently."""

import importlib.util
import inspect
import json
import math
import random
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from slmkit.errors import UserError

COMPONENTS = Path(__file__).resolve().parents[2] / "components"
SERVING = COMPONENTS / "deploy_endpoint" / "serving"
PAIRS = [([5, 6, 7, 8, 9, 10], [11, 12, 13]), ([300, 20, 21], [22]), (list(range(400, 450)), [30, 31, 32, 33])]


@pytest.fixture(scope="module", autouse=True)
def component(load_main):
    if str(SERVING) not in sys.path:
        sys.path.append(str(SERVING))
    return load_main("quantize_model")


def built(source: Path, target: Path, **options: object) -> Path:
    import onnx_int4
    import quantizer_log

    target.mkdir(exist_ok=True)
    with quantizer_log.captured(target.with_suffix(".log")):
        onnx_int4.quantize(source, target, **options)
    return target


@pytest.fixture(scope="module")
def in_float32(small_model, tmp_path_factory) -> Path:
    return built(small_model, tmp_path_factory.mktemp("float32"), group_size=32, precision="fp32")


@pytest.mark.parametrize("group_size", [32, 64])
def test_each_weight_is_within_a_step(small_model, tmp_path, group_size):
    """Dequantized by hand: (q - 8) * scale, q in four bits, low half of a byte first."""
    import onnx
    from onnx import numpy_helper
    from safetensors.numpy import load_file

    folder = built(small_model, tmp_path / "int4", group_size=group_size)
    model = onnx.load(folder / "model.onnx")
    initializers = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    weights = load_file(small_model / "model.safetensors")
    nodes = [node for node in model.graph.node if node.op_type == "MatMulNBits"]
    levels = {a.i for node in nodes for a in node.attribute if a.name == "accuracy_level"}
    assert levels == {4}
    checked = 0
    for node in nodes:
        name = node.input[1].removesuffix(".MatMul.weight_Q4").replace(".attn.", ".self_attn.")
        if "qkv" in name:  # three matrices in one
            continue
        weight = weights["model.embed_tokens.weight" if name == "lm_head" else f"{name}.weight"]
        packed, scales = initializers[node.input[1]], initializers[node.input[2]]
        quantized = np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(packed), -1, group_size).astype(int) - 8
        assert scales.shape == (len(weight), math.ceil(weight.shape[1] / group_size))
        steps = np.abs(scales)[:, :, None]
        padded = np.pad(weight, ((0, 0), (0, quantized.shape[1] * group_size - weight.shape[1])))
        error = np.abs(padded.reshape(quantized.shape) - quantized * scales[:, :, None]) / np.where(steps > 0, steps, 1)
        # 16 levels reach from -8 to 7 steps: only what lies beyond 7 may be off by more than half a step.
        inside = padded.reshape(quantized.shape) / np.where(steps > 0, scales[:, :, None], 1) <= 7.5
        assert error[inside].max() <= 0.5 + 1e-4
        assert error.max() <= 1 + 1e-4
        checked += 1
    assert checked >= 13  # o, gate, up and down of three layers, and the last layer


def transformers_loss(folder: Path) -> float:
    """By Transformers' own loss, which leaves out what is labelled -100."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    total = 0.0
    for prompt, reference in PAIRS:
        tokens = torch.tensor([prompt + reference])
        labels = torch.tensor([[-100] * len(prompt) + reference])
        with torch.inference_mode():
            total += float(model(tokens, labels=labels).loss) * len(reference)
    return total / sum(len(reference) for _, reference in PAIRS)


def test_perplexity_is_that_of_transformers_loss(small_model, in_float32):
    import reference_losses

    expected = math.exp(transformers_loss(small_model))
    assert reference_losses.perplexity(small_model, PAIRS) == pytest.approx(expected, rel=1e-5)
    assert reference_losses.perplexity(in_float32, PAIRS) == pytest.approx(expected, rel=1e-3)


def test_onnx_answers_as_transformers_generates(small_model, in_float32):
    import engines
    import torch
    from transformers import AutoModelForCausalLM

    engine = engines.load(in_float32, 1)
    model = AutoModelForCausalLM.from_pretrained(small_model, dtype=torch.float32).eval()
    for prompt, _ in PAIRS:
        answered = model.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False)[0, len(prompt) :].tolist()
        end = answered.index(model.config.eos_token_id) if model.config.eos_token_id in answered else None
        assert list(engine.stream(prompt, 8)) == answered[:end]


@pytest.mark.parametrize("tied", [True, False])
def test_odd_sizes_and_separate_embeddings(small_model, tmp_path, tied):
    """40 columns in groups of 32, an odd vocabulary; the last hidden layer has to come out nearly the same."""
    import onnxruntime_genai
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config

    tokenizer = AutoTokenizer.from_pretrained(small_model)
    torch.manual_seed(0)
    sizes = {"hidden_size": 40, "intermediate_size": 56, "num_hidden_layers": 1, "vocab_size": len(tokenizer)}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
    config = Qwen3Config(**sizes, **heads, tie_word_embeddings=tied, max_position_embeddings=64, eos_token_id=1)
    model = AutoModelForCausalLM.from_config(config).eval()
    assert len(tokenizer) % 2, "an odd vocabulary"
    model.save_pretrained(tmp_path / "source")
    tokenizer.save_pretrained(tmp_path / "source")
    folder = built(tmp_path / "source", tmp_path / "int4", group_size=32)
    tokens = [5, 700, 33, 900]
    with torch.inference_mode():
        expected = model(torch.tensor([tokens])).logits[0].numpy()
    loaded = onnxruntime_genai.Model(str(folder))
    params = onnxruntime_genai.GeneratorParams(loaded)
    params.set_search_options(max_length=8)
    generator = onnxruntime_genai.Generator(loaded, params)
    generator.append_tokens(np.array(tokens, dtype=np.int32))
    given = generator.get_output("logits")[0]
    for ours, theirs in zip(given, expected, strict=True):
        assert np.dot(ours, theirs) / np.linalg.norm(ours) / np.linalg.norm(theirs) > 0.95
    # 40 columns are two groups with a scale of 4 bytes each: padded to 64 where they are multiplied, as they are else.
    embeddings = len(tokenizer) * ((32 + 8) + (0 if tied else 20 + 8))
    assert embeddings < (folder / "model.onnx.data").stat().st_size < embeddings + 30_000


def test_the_architectures_are_those_of_the_builder():
    import onnx_int4
    from onnxruntime_genai.models import builder

    known = set(re.findall(r'architectures\[0\] == "(\w+)"', inspect.getsource(builder.create_model)))
    assert set(onnx_int4.ARCHITECTURES) <= known


def test_no_change_in_a_hundred_items_is_no_certainty():
    """Two imagined items, +1 and -1: 102 items, variance 2 / 102 * 102 / 101, Student's t of 101 degrees 1.98373."""
    from paired_difference import paired_difference

    found = paired_difference([1.0] * 100, [1.0] * 100, range(100))
    half = 1.98373 * math.sqrt(2 * 102 / 101) / 102
    assert (found.mean, found.low, found.high) == (0, pytest.approx(-half, rel=1e-5), pytest.approx(half, rel=1e-5))
    alone = paired_difference([1.0], [0.0], ["a"])
    assert (alone.mean, alone.low) == (-1, -1)
    assert alone.high > 0.5


def test_twins_in_a_cluster_are_no_more_evidence_than_one():
    from paired_difference import paired_difference

    draws = random.Random(1)
    before, after = ([float(draws.random() < share) for _ in range(60)] for share in (0.7, 0.5))
    one = paired_difference(before, after, range(60))
    twins = paired_difference(before * 2, after * 2, [*range(60), *range(60)])
    assert (twins.low, twins.high) == (pytest.approx(one.low), pytest.approx(one.high))
    strangers = paired_difference(before * 2, after * 2, range(120))
    assert strangers.high - strangers.low < 0.75 * (twins.high - twins.low)


def test_the_interval_agrees_with_a_bootstrap_where_much_changed():
    from paired_difference import paired_difference
    from scipy.stats import bootstrap

    draws = np.random.default_rng(3)
    means, sizes = draws.normal(-0.1, 0.4, 80), draws.integers(1, 6, 80)
    differences = np.clip(np.repeat(means, sizes), -1, 1)
    clusters = np.repeat(np.arange(80), sizes)
    found = paired_difference([0.0] * len(clusters), list(differences), list(clusters))
    totals = np.bincount(clusters, differences)
    reference = bootstrap(
        (totals, sizes),
        lambda t, n, axis: t.sum(axis=axis) / n.sum(axis=axis),
        paired=True,
        method="percentile",
        n_resamples=4000,
        rng=draws,
    ).confidence_interval
    width = reference.high - reference.low
    assert found.low == pytest.approx(reference.low, abs=0.1 * width)
    assert found.high == pytest.approx(reference.high, abs=0.1 * width)


def test_groups_divide_the_columns_of_every_layer(small_model, tmp_path):
    import gptq_weights
    import source_model

    config = json.loads((small_model / "config.json").read_text())
    columns = {config["hidden_size"], config["intermediate_size"], config["num_attention_heads"] * config["head_dim"]}
    largest = max(size for size in (128, 64, 32) if not any(number % size for number in columns))
    source = source_model.Source(small_model, config)
    assert gptq_weights.fitting_group_size(source, 128) == largest
    assert gptq_weights.fitting_group_size(source, 32) == 32
    (tmp_path / "config.json").write_text(json.dumps(config | {"intermediate_size": 40}))
    with pytest.raises(UserError, match=r"down_proj has 40 columns"):
        gptq_weights.fitting_group_size(source_model.Source(tmp_path, config), 128)


def test_the_gptq_spec_is_valid_and_mirrored_by_its_arguments(component):
    from azure.ai.ml import load_component

    folder = COMPONENTS / "quantize_model"
    result = load_component(folder / "gptq.yml")._validate()
    assert result.passed, result.error_messages
    spec = yaml.safe_load((folder / "gptq.yml").read_text(encoding="utf-8"))
    sys.modules.setdefault("main", component)
    import gptq_main

    fields = gptq_main.GptqArgs.__dataclass_fields__
    ports = spec["inputs"] | spec["outputs"]
    assert set(fields) == set(ports)
    for name, port in ports.items():
        if "default" in port:
            assert fields[name].default == port["default"], name
        flag = f"--{name} ${{{{{'inputs' if name in spec['inputs'] else 'outputs'}.{name}}}}}"
        assert (f"$[[{flag}]]" if port.get("optional") else flag) in spec["command"]
    common = yaml.safe_load((folder / "component.yml").read_text(encoding="utf-8"))
    for name in ("metric", "max_quality_drop", "max_new_tokens", "num_threads", "eval_items"):
        assert ports[name] == common["inputs"][name], name


@pytest.mark.skipif(importlib.util.find_spec("llmcompressor") is None, reason="llm-compressor has its own environment")
def test_gptq_is_repeatable_and_loads(small_model, tmp_path):
    import gptq_weights
    import reference_losses
    from transformers import AutoTokenizer

    chats = [[{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": f"{i}!"}] for i in range(20)]
    assert gptq_weights.sampled(chats, 8, 1) == gptq_weights.sampled(chats, 8, 1) != gptq_weights.sampled(chats, 8, 2)
    weights = []
    for name in ("one", "two"):
        gptq_weights._quantize(small_model, tmp_path / name, chats, 32, 64, seed=1)
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    config = json.loads((tmp_path / "one" / "config.json").read_text())["quantization_config"]
    assert config["quant_method"] == "compressed-tensors"
    assert "lm_head" in config["ignore"]
    AutoTokenizer.from_pretrained(small_model).save_pretrained(tmp_path / "one")
    float32, gptq = (reference_losses.perplexity(folder, PAIRS) for folder in (small_model, tmp_path / "one"))
    assert gptq == pytest.approx(float32, rel=0.2)
    assert gptq != float32
