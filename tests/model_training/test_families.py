"""Each family, on rows of several documents: what a document's tokens see is that document alone."""

import itertools

import pytest

from tests.model_training.model_families import CONFIGS, tiny_model

LENGTHS = (3, 17, 1, 9)  # longer and shorter than the sliding windows


@pytest.mark.parametrize("attn_implementation", ["eager", "sdpa", "auto"])
@pytest.mark.parametrize("family", CONFIGS)
def test_documents_of_a_row_do_not_see_each_other(family, attn_implementation, load_main):
    """The hidden states in a flat row, as TRL's collator makes it, are those of each document alone.

    ``auto`` is what finetune_model takes for the family, against Transformers' own eager attention.
    """
    import torch
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    load_main("finetune_model")
    from document_attention import best_attention

    if attn_implementation == "auto":
        attn_implementation = best_attention(tiny_model(family).config, max(LENGTHS))

    if (family, attn_implementation) == ("gemma2", "sdpa"):  # caps its attention scores, which sdpa cannot
        with pytest.raises(ValueError, match="does not support"):
            tiny_model(family, attn_implementation=attn_implementation)
        return
    model = tiny_model(family, attn_implementation=attn_implementation)
    generator = torch.Generator().manual_seed(0)
    documents = [torch.randint(3, 64, (length,), generator=generator).tolist() for length in LENGTHS]
    collator = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    row = collator([{"input_ids": ids, "labels": ids} for ids in documents])
    labels = row.pop("labels")
    assert row["input_ids"].shape == (1, sum(LENGTHS))
    assert "attention_mask" not in row
    with torch.no_grad():
        packed = model.base_model(**row, use_cache=False).last_hidden_state[0]
        as_one = model.base_model(input_ids=row["input_ids"], use_cache=False).last_hidden_state[0]
        model.set_attn_implementation("eager")
        assert not as_one[LENGTHS[0] :].allclose(packed[LENGTHS[0] :], atol=0.1)
        for ids, (start, end) in zip(
            documents, itertools.pairwise(itertools.accumulate(LENGTHS, initial=0)), strict=True
        ):
            assert labels[0, start] == -100
            alone = model.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0]
            assert packed[start:end].allclose(alone, atol=1e-5), (start, (packed[start:end] - alone).abs().max())
