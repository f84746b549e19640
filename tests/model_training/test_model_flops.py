"""model_training.model_flops against operations counted by hand and by torch's own counter."""

import pytest
import torch

from model_training.model_flops import model_flops, peak_flops


def llama(**changes):
    from transformers import LlamaConfig, LlamaForCausalLM

    values = {
        "vocab_size": 50,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    return LlamaForCausalLM(LlamaConfig(**{**values, **changes}))


# A layer: queries and output 16x16, keys and values 16x8, three of 16x24, two norms of 16; a norm at the end.
PER_LAYER = 2 * 256 + 2 * 128 + 3 * 384 + 2 * 16
WEIGHTS = 2 * PER_LAYER + 16


def test_full_training_by_hand():
    found = model_flops(llama())
    assert found.per_token == 6 * WEIGHTS
    assert found.per_label == 6 * 50 * 16
    assert found.per_pair == 12 * 16 * 2
    assert found.of(10, 4, 55) == 10 * 6 * WEIGHTS + 4 * 4800 + 55 * 384


def test_frozen_weights_need_no_gradient_of_their_own():
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(llama(), LoraConfig(r=2, target_modules=["q_proj"]))
    assert model_flops(model).per_token == 4 * WEIGHTS + 6 * 2 * (16 * 2 + 2 * 16)
    assert model_flops(model).per_label == 4 * 50 * 16


def test_a_token_visits_some_of_the_experts():
    from transformers import MixtralConfig, MixtralForCausalLM

    values = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    model = MixtralForCausalLM(MixtralConfig(**values, **heads, num_local_experts=8, num_experts_per_tok=2))
    attention, router, norms = 2 * 256 + 2 * 128, 8 * 16, 3 * 16
    assert model_flops(model).per_token == 6 * (attention + router + norms + 2 * 3 * 384)


def test_matches_the_counter_of_torch():
    """Forward and backward of one document, every position a label; torch counts matrix products, norms it does not."""
    from torch.utils.flop_counter import FlopCounterMode

    model, length = llama(attn_implementation="eager"), 20
    ids = torch.arange(length)[None]
    with FlopCounterMode(display=False) as counter:
        model(ids, labels=ids).loss.backward()
    flops = model_flops(model)
    norms = 6 * (5 * 16) * length
    # Eager attention computes the pairs above the diagonal, too.
    expected = flops.of(length, length, length * length) - norms
    # The first layer's inputs are embeddings, whose gradient is a look-up and not a product, but they need one.
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.02)


def test_peak_is_that_of_this_machine():
    """A product of matrices of another size cannot be much faster than the peak."""
    peak = peak_flops(torch.float32)
    assert 1e9 < peak < 1e14
