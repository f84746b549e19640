"""From chats to a LoRA adapter with the gate's decision on it, on its base: what `release_adapters` takes."""

from pathlib import Path

from azure.ai.ml import Input, load_component
from azure.ai.ml.dsl import pipeline

from pipelines.promotion import promote

COMPONENTS = Path(__file__).resolve().parent.parent / "components"

prepare_dataset = load_component(COMPONENTS / "prepare_dataset" / "component.yml")
finetune_model = load_component(COMPONENTS / "finetune_model" / "component.yml")


@pipeline(
    name="finetune_adapter",
    display_name="Fine-tune an adapter",
    description="Chats -> train, validation and test sets -> LoRA adapter, compared on its base with the base, gated.",
)
def finetune_adapter(
    chats: Input(type="uri_file", description="Chats to learn from, JSONL."),
    base_model: Input(type="custom_model", description="The base that all adapters of an endpoint share."),
    policy: Input(type="uri_file", optional=True, description="Promotion policy; the default one when absent."),
    privacy_decision: Input(type="uri_file", optional=True, description="What audit_privacy decided on the chats."),
    validation_fraction: Input(type="number", default=0.1),
    test_fraction: Input(type="number", default=0.2),
    lora_r: Input(type="integer", default=16, description="At most the server's --max-lora-rank."),
    learning_rate: Input(type="number", default=2e-4),
    num_train_epochs: Input(type="number", default=3),
    per_device_train_batch_size: Input(type="integer", default=4, description="Packed rows of max_length tokens."),
    gradient_accumulation_steps: Input(type="integer", default=1),
    max_length: Input(type="integer", default=2048),
    max_new_tokens: Input(type="integer", default=256),
    generation_batch_size: Input(type="integer", default=16),
    seed: Input(type="integer", default=0),
):
    """Nothing is registered here: an adapter is released together with its base and those beside it."""
    dataset = prepare_dataset(
        chats=chats, validation_fraction=validation_fraction, test_fraction=test_fraction, seed=seed
    )
    tuned = finetune_model(
        base_model=base_model,
        train_data=dataset.outputs.train_data,
        validation_data=dataset.outputs.validation_data,
        merge_adapter=False,
        lora_r=lora_r,
        learning_rate=learning_rate,
        num_train_epochs=num_train_epochs,
        per_device_train_batch_size=per_device_train_batch_size,
        gradient_accumulation_steps=gradient_accumulation_steps,
        max_length=max_length,
        seed=seed,
    )
    outcome = promote(
        base_model=base_model,
        tuned_model=tuned.outputs.model,
        eval_items=dataset.outputs.eval_items,
        policy=policy,
        privacy_decision=privacy_decision,
        max_new_tokens=max_new_tokens,
        generation_batch_size=generation_batch_size,
        seed=seed,
    )
    return {
        "adapter": tuned.outputs.model,
        "training_report": tuned.outputs.report,
        "eval_items": dataset.outputs.eval_items,
        **outcome,
    }
