"""The start of the tiny model's attention: heads that look back and heads that match, so that a minute is enough.

From random weights, copying a value out of a listing takes far more than a minute of two cores to appear. The three
layers therefore start as the known circuit for it, and training does the rest:
  layer 0  writes into each position what stood one and two tokens before it, and the mean of the tokens of a key;
  layer 1  finds the place where the last tokens stood before and copies what followed ("induction"), and gathers the
           words of the question;
  layer 2  finds the line whose key shares most with these words, and copies the first token after its colon.
The parts live in subspaces of the residual stream that are orthogonal to each other at the start. The start alone
answers nothing: it prefers the right line in two of five cases, where one in eight would be chance.
"""

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import Qwen3ForCausalLM

# Dimensions for one token, for a mean of tokens, and for the mark of a value's start.
SLOT_SIZE = 20
BAG_SIZE = 36
MARK_SIZE = 8
# Random weights added to the heads above, small enough to leave them in charge.
NOISE = 0.004
# Which frequencies of RoPE a head uses to look back, as {index: share}: the faster, the sharper.
ONE_TOKEN = dict(enumerate((0.3, 0.2, 0.15, 0.12, 0.1, 0.06, 0.04, 0.03)))
ONE_KEY = {2: 0.25, 4: 0.35, 6: 0.3, 31: 0.1}
ONE_QUESTION = {5: 0.25, 8: 0.35, 31: 0.4}


@torch.no_grad()
def start(model: "Qwen3ForCausalLM", colon: int) -> None:
    """Set the starting weights; ``colon`` is the token between key and value."""
    size, head_dim = model.config.hidden_size, model.config.head_dim
    basis = torch.linalg.qr(torch.randn(size, size))[0].T
    constant, previous, second, line, content = basis.split(
        [1, SLOT_SIZE, SLOT_SIZE, BAG_SIZE, size - 2 * SLOT_SIZE - BAG_SIZE - 1]
    )
    reduced = torch.linalg.qr(torch.randn(len(content), SLOT_SIZE))[0].T @ content
    bag = torch.linalg.qr(torch.randn(len(content), BAG_SIZE))[0].T @ content

    embedding = model.model.embed_tokens.weight
    noise = torch.randn(len(embedding), len(content)) / len(content) ** 0.5
    embedding.copy_(0.7 * noise @ content + 0.35 * constant + 0.1 * torch.randn_like(embedding) / size**0.5)
    mark = torch.nn.functional.normalize(reduced @ embedding[colon], dim=0)[:MARK_SIZE, None] * constant

    # Matching needs frequencies that hardly turn over a few hundred tokens.
    half = head_dim // 2
    slow = _both_halves(half - SLOT_SIZE // 2, half, half)
    bag_slow = _both_halves(half - BAG_SIZE // 2, half, half)
    next_slow = _both_halves(half - BAG_SIZE // 2 - MARK_SIZE // 2, half - BAG_SIZE // 2, half)

    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.mul_(0.3)
        layer.mlp.down_proj.weight.mul_(0.3)
    _look_back(model, 0, 0, 1, ONE_TOKEN, constant, reduced, 0.08 * previous)
    _look_back(model, 0, 1, 2, ONE_TOKEN, constant, reduced, 0.08 * second)
    _look_back(model, 0, 2, 4, ONE_KEY, constant, bag, 0.4 * line)
    _match(model, 1, 0, [(slow, reduced, previous)], content, 0.2)
    _match(model, 1, 1, [(slow, previous, second)], content, 0.2)
    _look_back(model, 1, 2, 12, ONE_QUESTION, constant, bag, 0.3 * line)
    _match(model, 2, 0, [(bag_slow, line, line), (next_slow, 8 * mark, second[:MARK_SIZE])], content, 0.3)
    for layer, sharpness in zip(model.model.layers, (1.6, 1.4, 1.4), strict=True):
        layer.self_attn.q_norm.weight.fill_(sharpness)
        layer.self_attn.k_norm.weight.fill_(sharpness)
    model.model.norm.weight.fill_(2.0)


def _both_halves(start: int, end: int, half: int) -> torch.Tensor:
    """The dimensions of a head that the given frequencies turn: RoPE pairs dimension i with i + half."""
    return torch.cat([torch.arange(start, end), torch.arange(start + half, end + half)])


def _look_back(model, layer, head, distance, shares, constant, read, write) -> None:
    """A head that attends ``distance`` tokens back, whatever stands there, and writes what it reads into a slot."""
    attention, head_dim = model.model.layers[layer].self_attn, model.config.head_dim
    half = head_dim // 2
    amplitude = torch.zeros(half)
    amplitude[list(shares)] = torch.tensor(list(shares.values())).sqrt()
    angle = distance * model.config.rope_parameters["rope_theta"] ** (-torch.arange(half) / half)
    key = torch.cat([amplitude, torch.zeros(half)])
    query = torch.cat([amplitude * angle.cos(), -amplitude * angle.sin()])
    rows = slice(head * head_dim, (head + 1) * head_dim)
    for projection, vector in ((attention.q_proj, query), (attention.k_proj, key)):
        projection.weight[rows] = 0.5 * vector[:, None] * constant + NOISE * torch.randn(head_dim, len(constant[0]))
    _carry(attention, rows, read, write)


def _match(model, layer, head, parts, content, gain) -> None:
    """A head that attends where ``key`` reads what ``query`` reads here, and copies the token that stands there."""
    attention, head_dim = model.model.layers[layer].self_attn, model.config.head_dim
    rows = slice(head * head_dim, (head + 1) * head_dim)
    for projection in (attention.q_proj, attention.k_proj):
        projection.weight[rows] = NOISE * torch.randn(head_dim, content.shape[1])
    for dimensions, query, key in parts:
        attention.q_proj.weight[rows.start + dimensions] += 0.5 * query
        attention.k_proj.weight[rows.start + dimensions] += 0.5 * key
    _carry(attention, rows, content, gain * content)


def _carry(attention, rows, read, write) -> None:
    used = slice(rows.start, rows.start + len(read))
    attention.v_proj.weight[rows] = 0
    attention.o_proj.weight[:, rows] = 0
    attention.v_proj.weight[used] = read
    attention.o_proj.weight[:, used] = write.T
