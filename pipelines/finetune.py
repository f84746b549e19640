"""From chats to a fine-tuned model that is registered only if it beats the model that it was made from."""

from pathlib import Path

from azure.ai.ml import Input, load_component
from azure.ai.ml.dsl import pipeline

from pipelines.promotion import promote

COMPONENTS = Path(__file__).resolve().parent.parent / "components"

prepare_dataset = load_component(COMPONENTS / "prepare_dataset" / "component.yml")
import_model = load_component(COMPONENTS / "import_model" / "component.yml")
finetune_model = load_component(COMPONENTS / "finetune_model" / "component.yml")


@pipeline(
    name="finetune",
    display_name="Fine-tune",
    description="Chats -> train, validation and test sets -> fine-tuned model, compared with its base, gated.",
)
def finetune(
    chats: Input(type="uri_file", description="Chats to learn from, JSONL."),
    registered_model_name: Input(type="string", description="Name in the model registry."),
    model_name: Input(type="string", default="tiny", description="Hugging Face id, or `tiny`."),
    model_folder: Input(type="custom_model", optional=True, description="A model asset or folder, instead of a name."),
    policy: Input(type="uri_file", optional=True, description="Promotion policy; the default one when absent."),
    privacy_decision: Input(type="uri_file", optional=True, description="What audit_privacy decided on the chats."),
    mixture_weights: Input(type="string", optional=True, description="Copies by origin, such as {evolve: 0.5}."),
    validation_fraction: Input(type="number", default=0.1),
    test_fraction: Input(type="number", default=0.2),
    method: Input(type="string", default="lora", enum=["lora", "qlora", "full"]),
    lora_r: Input(type="integer", default=16),
    learning_rate: Input(type="number", default=2e-4),
    num_train_epochs: Input(type="number", default=3),
    per_device_train_batch_size: Input(type="integer", default=4, description="Packed rows of max_length tokens."),
    gradient_accumulation_steps: Input(type="integer", default=1),
    max_length: Input(type="integer", default=2048),
    deepspeed: Input(type="string", default="none", enum=["none", "zero1", "zero2", "zero3", "zero3_offload"]),
    early_stopping_patience: Input(type="integer", optional=True, description="Stop when validation gets no better."),
    max_new_tokens: Input(type="integer", default=256),
    generation_batch_size: Input(type="integer", default=16),
    seed: Input(type="integer", default=0),
):
    """Measure before and after on held-out documents, and promote on the evidence alone."""
    dataset = prepare_dataset(
        chats=chats,
        mixture_weights=mixture_weights,
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        seed=seed,
    )
    base = import_model(model_name=model_name, model_folder=model_folder, seed=seed)
    tuned = finetune_model(
        base_model=base.outputs.base_model,
        train_data=dataset.outputs.train_data,
        validation_data=dataset.outputs.validation_data,
        method=method,
        lora_r=lora_r,
        learning_rate=learning_rate,
        num_train_epochs=num_train_epochs,
        per_device_train_batch_size=per_device_train_batch_size,
        gradient_accumulation_steps=gradient_accumulation_steps,
        max_length=max_length,
        deepspeed=deepspeed,
        early_stopping_patience=early_stopping_patience,
        seed=seed,
    )
    outcome = promote(
        base_model=base.outputs.base_model,
        tuned_model=tuned.outputs.model,
        eval_items=dataset.outputs.eval_items,
        policy=policy,
        privacy_decision=privacy_decision,
        registered_model_name=registered_model_name,
        max_new_tokens=max_new_tokens,
        generation_batch_size=generation_batch_size,
        seed=seed,
    )
    return {
        "model": tuned.outputs.model,
        "training_report": tuned.outputs.report,
        "eval_items": dataset.outputs.eval_items,
        **outcome,
    }
