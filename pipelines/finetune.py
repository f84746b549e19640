"""From chats to a fine-tuned model that is registered only if it beats the model that it was made from."""

from pathlib import Path

from azure.ai.ml import Input, load_component
from azure.ai.ml.dsl import pipeline

COMPONENTS = Path(__file__).resolve().parent.parent / "components"

prepare_dataset = load_component(COMPONENTS / "prepare_dataset" / "component.yml")
import_model = load_component(COMPONENTS / "import_model" / "component.yml")
finetune_model = load_component(COMPONENTS / "finetune_model" / "component.yml")
generate_answers = load_component(COMPONENTS / "generate_answers" / "component.yml")
score_answers = load_component(COMPONENTS / "score_answers" / "component.yml")
compare_candidates = load_component(COMPONENTS / "compare_candidates" / "component.yml")
gate_promotion = load_component(COMPONENTS / "gate_promotion" / "component.yml")
register_model = load_component(COMPONENTS / "register_model" / "component.yml")


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
    validation_fraction: Input(type="number", default=0.1),
    test_fraction: Input(type="number", default=0.2),
    method: Input(type="string", default="lora", enum=["lora", "full"]),
    learning_rate: Input(type="number", default=2e-4),
    num_train_epochs: Input(type="number", default=3),
    per_device_train_batch_size: Input(type="integer", default=8),
    gradient_accumulation_steps: Input(type="integer", default=1),
    max_length: Input(type="integer", default=2048),
    max_new_tokens: Input(type="integer", default=256),
    generation_batch_size: Input(type="integer", default=16),
    seed: Input(type="integer", default=0),
):
    """Measure before and after on held-out documents, and promote on the evidence alone."""
    dataset = prepare_dataset(
        chats=chats, validation_fraction=validation_fraction, test_fraction=test_fraction, seed=seed
    )
    base = import_model(model_name=model_name, model_folder=model_folder, seed=seed)
    tuned = finetune_model(
        base_model=base.outputs.base_model,
        train_data=dataset.outputs.train_data,
        validation_data=dataset.outputs.validation_data,
        method=method,
        learning_rate=learning_rate,
        num_train_epochs=num_train_epochs,
        per_device_train_batch_size=per_device_train_batch_size,
        gradient_accumulation_steps=gradient_accumulation_steps,
        max_length=max_length,
        seed=seed,
    )
    base_answers = generate_answers(
        model=base.outputs.base_model,
        eval_items=dataset.outputs.eval_items,
        candidate="base",
        max_new_tokens=max_new_tokens,
        batch_size=generation_batch_size,
    )
    tuned_answers = generate_answers(
        model=tuned.outputs.model,
        eval_items=dataset.outputs.eval_items,
        candidate="tuned",
        max_new_tokens=max_new_tokens,
        batch_size=generation_batch_size,
    )
    base_scores = score_answers(predictions=base_answers.outputs.predictions, eval_items=dataset.outputs.eval_items)
    tuned_scores = score_answers(predictions=tuned_answers.outputs.predictions, eval_items=dataset.outputs.eval_items)
    comparison = compare_candidates(
        baseline_scores=base_scores.outputs.scores,
        candidate_scores=tuned_scores.outputs.scores,
        eval_items=dataset.outputs.eval_items,
        baseline_predictions=base_answers.outputs.predictions,
        candidate_predictions=tuned_answers.outputs.predictions,
        seed=seed,
    )
    gate = gate_promotion(comparison=comparison.outputs.comparison, policy=policy)
    registration = register_model(
        model=tuned.outputs.model,
        decision=gate.outputs.decision,
        comparison=comparison.outputs.comparison,
        registered_model_name=registered_model_name,
    )
    return {
        "model": tuned.outputs.model,
        "report": comparison.outputs.report,
        "decision": gate.outputs.decision,
        "manifest": registration.outputs.manifest,
    }
