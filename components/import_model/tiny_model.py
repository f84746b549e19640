"""Make the built-in tiny model: a tokenizer and a Qwen3-shaped network, trained from scratch on invented listings."""

import json
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

import tiny_corpus

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

NUM_STEPS = 300
BATCH_SIZE = 8
LEARNING_RATE = 3e-3
MAX_POSITIONS = 2048
MIN_LINES, MAX_LINES = 2, 9
# The share of the training in which the listings grow to MAX_LINES.
GROWTH = 0.4
# Weights in the loss: the first token of a value is the one that has to be looked up.
TEMPLATE_WEIGHT, FIRST_WEIGHT, REST_WEIGHT = 0.1, 4.0, 1.0
NUM_NEGATIVES = 512
NUM_WORD_MERGES = 1200

END_OF_TEXT, TURN_START, TURN_END = SPECIAL_TOKENS = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
# Two digits, one ideograph, kana or syllable, one word: a value is few tokens, and the same ones wherever it stands.
SPLIT = r"\p{N}{1,2}|[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}ー]|[A-Z]?[a-z]+|[A-Z]+|[\s\S]"
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message.role + '\n' -}}"
    "{%- if message.role == 'assistant' -%}"
    "{%- generation -%}{{- message.content + '<|im_end|>' -}}{%- endgeneration -%}"
    "{%- else -%}"
    "{{- message.content + '<|im_end|>' -}}"
    "{%- endif -%}"
    "{{- '\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)


def make(seed: int, num_steps: int = NUM_STEPS) -> "tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast]":
    """The trained model and its tokenizer; the same seed gives the same bytes on the same machine."""
    import torch

    torch.manual_seed(seed)
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        tokenizer = make_tokenizer()
        model = make_model(tokenizer)
        train(model, tokenizer, seed, num_steps)
    finally:
        torch.use_deterministic_algorithms(was_deterministic)
    return model.eval(), tokenizer


def make_tokenizer() -> "PreTrainedTokenizerFast":
    """Byte-level BPE: merges of words learned on the corpus, and merges that make every common character one token."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = to_bytes
    writer = tiny_corpus.Writer(seed=0)
    vocabulary = [*tiny_corpus.WORDS["english"], *(writer.word() for _ in range(6000))]
    words.train_from_iterator(
        [form for word in vocabulary for form in (word, word.capitalize())],
        trainers.BpeTrainer(
            vocab_size=256 + NUM_WORD_MERGES,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    learned = json.loads(words.to_str())["model"]
    merges = dict.fromkeys(map(tuple, learned["merges"]))
    digits = "0123456789"
    whole = [a + b for a in digits for b in digits]
    whole += tiny_corpus.HANGUL + tiny_corpus.KANJI + tiny_corpus.HIRAGANA + tiny_corpus.KATAKANA
    for text in whole + tiny_corpus.JA_KO_PUNCTUATION:
        symbols = to_bytes.pre_tokenize_str(text)[0][0]
        merges.update(dict.fromkeys((symbols[:end], symbols[end]) for end in range(1, len(symbols))))
    ids = {token: i for i, token in enumerate(sorted(learned["vocab"], key=learned["vocab"].get))}
    for left, right in merges:
        ids.setdefault(left + right, len(ids))

    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(SPLIT), "isolated"), to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        extra_special_tokens=[TURN_START],
        chat_template=CHAT_TEMPLATE,
        model_max_length=MAX_POSITIONS,
        clean_up_tokenization_spaces=False,
    )


def make_model(tokenizer: "PreTrainedTokenizerFast") -> "Qwen3ForCausalLM":
    import tiny_attention
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_hidden_layers=3,
        num_attention_heads=3,
        num_key_value_heads=3,
        head_dim=64,
        intermediate_size=192,
        initializer_range=0.05,
        tie_word_embeddings=True,
        max_position_embeddings=MAX_POSITIONS,
        rope_parameters={"rope_type": "default", "rope_theta": 1e7},
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen3ForCausalLM(config)
    tiny_attention.start(model, colon=tokenizer.convert_tokens_to_ids(":"))
    return model


def train(model: "Qwen3ForCausalLM", tokenizer: "PreTrainedTokenizerFast", seed: int, num_steps: int) -> None:
    """Next-token loss on the prose, none on the listing, which nobody could predict."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, step / (0.02 * num_steps)) * (1 - step / num_steps) + 0.01
    )
    model.train()
    for step, (ids, weights) in enumerate(batches(tokenizer, seed, num_steps), start=1):
        loss = prose_loss(model, ids, weights)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 50 == 0 or step == num_steps:
            print(f"tiny: step {step}/{num_steps}, loss {loss.item():.2f}", flush=True)


def prose_loss(model: "Qwen3ForCausalLM", ids: "torch.Tensor", weights: "torch.Tensor") -> "torch.Tensor":
    """Weighted cross-entropy over the tokens of the batch and some random others: the whole vocabulary costs a third
    of the time and teaches a copying model nothing more."""
    import torch

    embedding = model.model.embed_tokens.weight
    counted = weights[:, 1:] > 0
    hidden = model.model(input_ids=ids).last_hidden_state[:, :-1][counted]
    others = torch.randint(len(embedding), (NUM_NEGATIVES,))
    candidates, position = torch.unique(torch.cat([ids.flatten(), others]), return_inverse=True)
    targets = position[: ids.numel()].view_as(ids)[:, 1:][counted]
    losses = torch.nn.functional.cross_entropy(hidden @ embedding[candidates].T, targets, reduction="none")
    kept = weights[:, 1:][counted]
    return (losses * kept).sum() / kept.sum()


def batches(
    tokenizer: "PreTrainedTokenizerFast", seed: int, num_steps: int
) -> "Iterator[tuple[torch.Tensor, torch.Tensor]]":
    """Token ids and loss weights, padded on the right; listings of like length together, growing at first."""
    import torch

    writer, order = tiny_corpus.Writer(seed), random.Random(seed)
    pad = tokenizer.pad_token_id
    for start in range(0, num_steps, 16):
        longest = round(MIN_LINES + (MAX_LINES - MIN_LINES) * min(1.0, start / (GROWTH * num_steps)))
        num_batches = min(16, num_steps - start)
        listings = [
            writer.listing(order.randint(max(MIN_LINES, longest - 5), longest)) for _ in range(num_batches * BATCH_SIZE)
        ]
        rows = sorted(encode(tokenizer, listings), key=lambda row: len(row[0]))
        groups = [rows[i : i + BATCH_SIZE] for i in range(0, len(rows), BATCH_SIZE)]
        order.shuffle(groups)
        for group in groups:
            width = len(group[-1][0])
            ids = torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in group])
            weights = torch.tensor([weights + [0.0] * (width - len(weights)) for _, weights in group])
            yield ids, weights


def encode(
    tokenizer: "PreTrainedTokenizerFast", listings: list[tiny_corpus.Listing]
) -> list[tuple[list[int], list[float]]]:
    """Token ids and loss weights of each text. Values are cut out first, so that they are the same tokens anywhere."""
    texts = [text for listing in listings for text in (listing.lines, *(text for text, _ in listing.prose))]
    tokens = iter(tokenizer(texts, add_special_tokens=False)["input_ids"])
    rows = []
    for listing in listings:
        ids = list(next(tokens))
        weights = [0.0] * len(ids)
        for _, is_value in listing.prose:
            piece = next(tokens)
            first, rest = (FIRST_WEIGHT, REST_WEIGHT) if is_value else (TEMPLATE_WEIGHT, TEMPLATE_WEIGHT)
            ids += piece
            weights += [first, *[rest] * (len(piece) - 1)]
        rows.append((ids, weights))
    return rows
