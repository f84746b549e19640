"""finetune_model: packed chats train as if each stood alone, and as TRL trains them."""

import itertools

import pytest
import torch


@pytest.fixture(scope="module", autouse=True)
def _on_the_path(load_main):
    load_main("finetune_model")


LENGTHS = [5, 1, 17, 9, 30, 2]


def llama(**changes):
    import document_attention
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    values = {
        "vocab_size": 97,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "attn_implementation": document_attention.NAME,
    }
    return LlamaForCausalLM(LlamaConfig(**{**values, **changes}))


def rows(lengths=LENGTHS, vocab_size=97):
    draw = torch.Generator().manual_seed(1)
    ids = [torch.randint(vocab_size, (length,), generator=draw).tolist() for length in lengths]
    return [{"input_ids": row, "labels": [-100] * (len(row) // 3) + row[len(row) // 3 :]} for row in ids]


def collate(some):
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    return DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(some)


def summed_loss(model, batch):
    """Without any of our code but attention: the definition of the loss over the labels of one flat row."""
    labels = batch["labels"][0, 1:]
    logits = model(**{name: value for name, value in batch.items() if name != "labels"}, use_cache=False).logits[0, :-1]
    return torch.nn.functional.cross_entropy(logits, labels, reduction="sum")


def gradients(model):
    return {name: weight.grad.clone() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("attention", ["document_sdpa", "sdpa", "eager"])
def test_loss_and_gradients_of_a_packed_row_are_those_of_its_documents(attention):
    model, together = llama(), rows()
    model.set_attn_implementation(attention)
    packed = summed_loss(model, collate(together))
    packed.backward()
    found = gradients(model)
    model.zero_grad()
    model.set_attn_implementation("eager")
    alone = sum(summed_loss(model, collate([row])) for row in together if len(row["input_ids"]) > 1)
    alone.backward()
    assert packed.item() == pytest.approx(alone.item(), rel=1e-6)
    for name, gradient in gradients(model).items():
        assert found[name].allclose(gradient, atol=1e-5), name


def test_a_document_longer_than_the_sliding_window_sees_the_window():
    import document_attention
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=7,
    )
    model = MistralForCausalLM(config).eval()
    batch = collate(rows([20, 5, 8]))
    states = {}
    for attention in ("eager", document_attention.NAME):
        model.set_attn_implementation(attention)
        with torch.no_grad():
            inputs = {name: value for name, value in batch.items() if name != "labels"}
            states[attention] = model.model(**inputs, use_cache=False).last_hidden_state
    assert states["document_sdpa"].allclose(states["eager"], atol=1e-5)


def test_arguments_of_the_kernel_for_gpus(monkeypatch):
    """``varlen_attn`` replaced by its documented meaning; the tensors only pretend to be on a GPU."""
    import document_attention
    from torch.nn.attention import varlen

    def meaning(query, key, value, cu_q, cu_k, max_q, max_k, *, scale, window_size, enable_gqa):
        assert enable_gqa
        assert (max_q, max_k) == (8, 8)
        assert cu_q is cu_k
        out = torch.empty_like(query)
        for start, end in itertools.pairwise(cu_q.tolist()):
            for head in range(query.shape[1]):
                q = query[start:end, head].float()
                k, v = (x[start:end, head // (query.shape[1] // key.shape[1])].float() for x in (key, value))
                scores = q @ k.T * scale
                distance = torch.arange(end - start)[:, None] - torch.arange(end - start)[None]
                seen = (distance >= 0) & ((distance <= window_size[0]) | torch.tensor(window_size[0] < 0))
                out[start:end, head] = (scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v).to(out.dtype)
        return out

    class Pretends(torch.Tensor):
        is_cuda = True

    monkeypatch.setattr(varlen, "varlen_attn", meaning)
    torch.manual_seed(0)
    module = torch.nn.Module()
    module.num_key_value_groups = 2
    query, key, value = (torch.randn(1, heads, 16, 8, dtype=torch.bfloat16) for heads in (4, 2, 2))
    bounds = torch.tensor([0, 8, 11, 16], dtype=torch.int32)
    for window in (None, 3):
        options = {"cu_seq_lens_q": bounds, "max_length_q": 8, "sliding_window": window, "scaling": 0.3}
        expected = document_attention.attend_within_documents(module, query, key, value, None, **options)[0]
        found = document_attention.attend_within_documents(
            module, query.as_subclass(Pretends), key, value, None, **options
        )[0]
        assert found.shape == expected.shape == (1, 16, 4, 8)
        assert found.float().allclose(expected.float(), atol=2e-2)


@pytest.mark.parametrize("frozen", [(), ("weight",), ("hidden",)])
@pytest.mark.parametrize("bias", [False, True])
def test_chunked_loss_is_cross_entropy(monkeypatch, frozen, bias):
    import label_loss

    monkeypatch.setattr(label_loss, "_MIN_ROWS", 3)
    monkeypatch.setattr(label_loss, "_CHUNK_LOGITS", 100)  # three positions at a time
    torch.manual_seed(0)
    tensors = {"hidden": torch.randn(11, 6), "weight": torch.randn(33, 6), "bias": torch.randn(33) if bias else None}
    labels = torch.randint(33, (11,))
    found, expected = {}, {}
    for kept in (found, expected):
        inputs = {
            name: None if tensor is None else tensor.clone().requires_grad_(name not in frozen)
            for name, tensor in tensors.items()
        }
        if kept is found:
            loss = label_loss.LinearCrossEntropy.apply(*inputs.values(), labels)
            scored, right = label_loss.score_labels(*tensors.values(), labels)
            assert scored.item() == pytest.approx(loss.item(), rel=1e-6)
        else:
            logits = torch.nn.functional.linear(*inputs.values())
            loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
            assert right.equal(logits.argmax(-1) == labels)
        (loss / 7).backward()
        kept["loss"] = loss.detach()
        kept |= {name: value.grad for name, value in inputs.items() if value is not None and value.requires_grad}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].allclose(value, atol=1e-5), name


def test_no_label_is_no_loss_and_no_gradient():
    import label_loss

    hidden, weight = torch.randn(0, 6, requires_grad=True), torch.randn(33, 6, requires_grad=True)
    loss = label_loss.LinearCrossEntropy.apply(hidden, weight, None, torch.empty(0, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
    assert not hidden.grad.numel()
    assert not weight.grad.any()


def test_answers_are_right_only_as_a_whole():
    import packed_sft_trainer

    counted = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1, 1, 1], dtype=torch.bool)
    right = torch.tensor([1, 1, 0, 1, 1, 0], dtype=torch.bool)  # of the six that are counted
    assert packed_sft_trainer._answers_right(counted, right).tolist() == [True, False, False]


def train(kind, model, data, tmp_path, **changes):
    """The losses that a trainer logs, three passes over the data, in TRL's own order."""
    import packed_sft_trainer
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from trl import SFTConfig

    from model_training.training_log import TrainingLog

    words = {f"w{i}": i for i in range(97)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w1")), pad_token="w0", eos_token="w2"
    )
    config = SFTConfig(
        output_dir=str(tmp_path / kind.__name__),
        **{
            "num_train_epochs": 3,
            "per_device_train_batch_size": 4,
            "learning_rate": 1e-2,
            "logging_steps": 1,
            **changes,
        },
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        max_length=None,
    )
    ours = kind is packed_sft_trainer.PackedSFTTrainer
    extra = {"training_log": TrainingLog(1e11)} if ours else {}
    trainer = kind(model=model, args=config, train_dataset=Dataset.from_list(data), processing_class=tokenizer, **extra)
    trainer.train()
    return [(row["loss"], row["grad_norm"]) for row in trainer.state.log_history if "loss" in row]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_loss_curve_is_that_of_trl(tmp_path, accumulation):
    """Padded batches under TRL's own attention and loss, flat rows under ours: the same examples, the same curve."""
    import packed_sft_trainer
    from trl import SFTTrainer

    data = rows([5, 12, 17, 9, 30, 2, 21, 8, 14, 3, 11, 26])
    theirs = llama()
    theirs.set_attn_implementation("sdpa")
    changes = {"gradient_accumulation_steps": accumulation}
    expected = train(SFTTrainer, theirs, data, tmp_path, **changes)
    found = train(packed_sft_trainer.PackedSFTTrainer, llama(), data, tmp_path, **changes)
    assert len(found) == len(expected) == {1: 9, 2: 6}[accumulation]
    for (loss, norm), (their_loss, their_norm) in zip(found, expected, strict=True):
        assert loss == pytest.approx(their_loss, abs=1e-4)
        assert norm == pytest.approx(their_norm, abs=1e-3)
    assert found[-1][0] < found[0][0] - 0.4


def test_a_model_that_mixes_documents_is_refused(tmp_path):
    import packed_sft_trainer

    from slmkit.errors import UserError

    model = llama()
    norm = model.model.norm

    class Mixes(torch.nn.Module):
        """What a recurrent layer does: each token takes from the one before, whosever it is."""

        def forward(self, states):
            return norm(states + states.roll(1, dims=1))

    model.model.norm = Mixes()
    with pytest.raises(UserError, match="lets the chats of a row see each other"):
        train(packed_sft_trainer.PackedSFTTrainer, model, rows(), tmp_path)
