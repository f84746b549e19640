"""The whole loop, small: raw documents -> redacted, audited seed chats -> tuned, gated and registered model."""

from pathlib import Path

from azure.ai.ml import Input, load_component
from azure.ai.ml.dsl import pipeline

from pipelines.finetune import finetune

COMPONENTS = Path(__file__).resolve().parent.parent / "components"

collect_documents = load_component(COMPONENTS / "collect_documents" / "component.yml")
redact_pii = load_component(COMPONENTS / "redact_pii" / "component.yml")
build_coverage_seed = load_component(COMPONENTS / "build_coverage_seed" / "component.yml")
audit_privacy = load_component(COMPONENTS / "audit_privacy" / "component.yml")


@pipeline(
    name="demo",
    display_name="Demo: raw documents to a gated model",
    description="Documents -> questions and answers about them -> fine-tuned small model, gated on evidence.",
)
def demo(
    raw_data: Input(type="uri_folder", description="Your documents: csv, jsonl, md, txt, html, docx, pdf."),
    registered_model_name: Input(type="string"),
    policy: Input(type="uri_file", optional=True, description="Promotion policy; the default one when absent."),
    held_out_fraction: Input(type="number", default=0.1, description="Documents that only the audit sees."),
    teacher: Input(type="string", default="embedded", description="`embedded`, or the URL of an endpoint."),
    teacher_model: Input(type="string", default="embedded", description="Deployment at the endpoint."),
    teacher_auth: Input(type="string", default="azure", enum=["azure", "none"]),
    question_types: Input(type="string", default="short,boolean,long", description="What is scored by exact match."),
    num_pairs_per_chunk: Input(type="integer", default=3),
    chunk_chars: Input(type="integer", default=1200),
    model_name: Input(type="string", default="tiny"),
    method: Input(type="string", default="lora", enum=["lora", "full"]),
    learning_rate: Input(type="number", default=2e-4),
    num_train_epochs: Input(type="number", default=3),
    per_device_train_batch_size: Input(type="integer", default=4),
    max_length: Input(type="integer", default=2048),
    max_new_tokens: Input(type="integer", default=256),
    generation_batch_size: Input(type="integer", default=16),
    seed: Input(type="integer", default=0),
):
    """Wire the data stage to the `finetune` pipeline."""
    collection = collect_documents(raw_data=raw_data, held_out_fraction=held_out_fraction)
    redaction = redact_pii(records=collection.outputs.documents)
    seeds = build_coverage_seed(
        documents=redaction.outputs.redacted_records,
        teacher=teacher,
        teacher_model=teacher_model,
        auth=teacher_auth,
        question_types=question_types,
        num_pairs_per_chunk=num_pairs_per_chunk,
        chunk_chars=chunk_chars,
        seed=seed,
    )
    audit = audit_privacy(
        real_data=collection.outputs.documents,
        held_out_data=collection.outputs.held_out_documents,
        synthetic_data=seeds.outputs.chats,
        redaction_report=redaction.outputs.report,
    )
    cycle = finetune(
        chats=audit.outputs.approved_data,
        privacy_decision=audit.outputs.decision,
        policy=policy,
        registered_model_name=registered_model_name,
        model_name=model_name,
        method=method,
        learning_rate=learning_rate,
        num_train_epochs=num_train_epochs,
        per_device_train_batch_size=per_device_train_batch_size,
        max_length=max_length,
        max_new_tokens=max_new_tokens,
        generation_batch_size=generation_batch_size,
        seed=seed,
    )
    return {
        "model": cycle.outputs.model,
        "training_report": cycle.outputs.training_report,
        "report": cycle.outputs.report,
        "privacy_report": audit.outputs.report,
        "privacy_decision": audit.outputs.decision,
        "eval_items": cycle.outputs.eval_items,
        "comparison": cycle.outputs.comparison,
        "decision": cycle.outputs.decision,
        "manifest": cycle.outputs.manifest,
    }
