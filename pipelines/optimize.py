"""From chats to the best of many fine-tuned models, which is registered only if it beats the model it was made from."""

from pathlib import Path

from azure.ai.ml import Input, load_component
from azure.ai.ml.dsl import pipeline

from pipelines.promotion import promote

COMPONENTS = Path(__file__).resolve().parent.parent / "components"

prepare_dataset = load_component(COMPONENTS / "prepare_dataset" / "component.yml")
import_model = load_component(COMPONENTS / "import_model" / "component.yml")
finetune_model = load_component(COMPONENTS / "finetune_model" / "component.yml")


@pipeline(
    name="optimize",
    display_name="Optimize",
    description="Chats -> a sweep of fine-tunings -> that of the lowest validation loss compared with its base, gated.",
)
def optimize(
    chats: Input(type="uri_file", description="Chats to learn from, JSONL."),
    registered_model_name: Input(type="string", description="Name in the model registry."),
    model_name: Input(type="string", default="tiny", description="Hugging Face id, or `tiny`."),
    model_folder: Input(type="custom_model", optional=True, description="A model asset or folder, instead of a name."),
    policy: Input(type="uri_file", optional=True, description="Promotion policy; the default one when absent."),
    privacy_decision: Input(type="uri_file", optional=True, description="What audit_privacy decided on the chats."),
    validation_fraction: Input(type="number", default=0.1),
    test_fraction: Input(type="number", default=0.2),
    method: Input(type="string", default="lora", enum=["lora", "qlora", "full"]),
    per_device_train_batch_size: Input(type="integer", default=4, description="Packed rows of max_length tokens."),
    gradient_accumulation_steps: Input(type="integer", default=1),
    max_length: Input(type="integer", default=2048),
    load_best_model_at_end: Input(type="boolean", default=True, description="A trial gives its best weights."),
    eval_steps: Input(type="integer", default=50, description="A validation loss for the early termination policy."),
    max_new_tokens: Input(type="integer", default=256),
    generation_batch_size: Input(type="integer", default=16),
    seed: Input(type="integer", default=0),
):
    """What the sweep varies and when it ends are values, and stand in the preset."""
    dataset = prepare_dataset(
        chats=chats, validation_fraction=validation_fraction, test_fraction=test_fraction, seed=seed
    )
    base = import_model(model_name=model_name, model_folder=model_folder, seed=seed)
    tuned = finetune_model(
        base_model=base.outputs.base_model,
        train_data=dataset.outputs.train_data,
        validation_data=dataset.outputs.validation_data,
        method=method,
        per_device_train_batch_size=per_device_train_batch_size,
        gradient_accumulation_steps=gradient_accumulation_steps,
        max_length=max_length,
        load_best_model_at_end=load_best_model_at_end,
        eval_steps=eval_steps,
        save_steps=eval_steps,
        seed=seed,
    ).sweep(primary_metric="eval/loss", goal="minimize", sampling_algorithm="random")
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
