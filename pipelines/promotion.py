"""The end that every pipeline to a tuned model shares: measure it against its base, gate, and register what passes."""

from pathlib import Path
from typing import Any

from azure.ai.ml import load_component

COMPONENTS = Path(__file__).resolve().parent.parent / "components"

generate_answers = load_component(COMPONENTS / "generate_answers" / "component.yml")
score_answers = load_component(COMPONENTS / "score_answers" / "component.yml")
compare_candidates = load_component(COMPONENTS / "compare_candidates" / "component.yml")
gate_promotion = load_component(COMPONENTS / "gate_promotion" / "component.yml")
register_model = load_component(COMPONENTS / "register_model" / "component.yml")


def promote(
    *,
    base_model: Any,
    tuned_model: Any,
    eval_items: Any,
    policy: Any,
    privacy_decision: Any,
    registered_model_name: Any = None,
    max_new_tokens: Any,
    generation_batch_size: Any,
    seed: Any,
) -> dict[str, Any]:
    """Add the steps to the pipeline that calls this, and give its outputs; the same steps in each, by the same names.

    A plain function, not a pipeline of its own: so a job can still say on which cluster each of these steps runs.
    Without ``registered_model_name``, the tuned model is an adapter on the base, for `release_adapters` to register.
    """
    is_adapter = registered_model_name is None
    predictions, scores = {}, {}
    tuned = {"model": tuned_model, "base_model": base_model} if is_adapter else {"model": tuned_model}
    for candidate, model in (("base", {"model": base_model}), ("tuned", tuned)):
        answers = generate_answers(
            **model,
            eval_items=eval_items,
            candidate=candidate,
            max_new_tokens=max_new_tokens,
            batch_size=generation_batch_size,
        )
        answers.name = f"{candidate}_answers"
        predictions[candidate] = answers.outputs.predictions
    for candidate, answers in predictions.items():
        scored = score_answers(predictions=answers, eval_items=eval_items)
        scored.name = f"{candidate}_scores"
        scores[candidate] = scored.outputs.scores
    comparison = compare_candidates(
        baseline_scores=scores["base"],
        candidate_scores=scores["tuned"],
        eval_items=eval_items,
        baseline_predictions=predictions["base"],
        candidate_predictions=predictions["tuned"],
        seed=seed,
    )
    comparison.name = "comparison"
    gate = gate_promotion(comparison=comparison.outputs.comparison, policy=policy, privacy_decision=privacy_decision)
    gate.name = "gate"
    outputs = {
        "report": comparison.outputs.report,
        "comparison": comparison.outputs.comparison,
        "decision": gate.outputs.decision,
    }
    if is_adapter:
        return outputs
    registration = register_model(
        model=tuned_model,
        decision=gate.outputs.decision,
        comparison=comparison.outputs.comparison,
        registered_model_name=registered_model_name,
    )
    registration.name = "registration"
    return {**outputs, "manifest": registration.outputs.manifest}
