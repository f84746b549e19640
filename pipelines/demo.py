"""The whole loop, small: raw documents -> seed chats -> fine-tuned, measured, gated and registered model."""

from pathlib import Path

from azure.ai.ml import Input, load_component
from azure.ai.ml.dsl import pipeline

from pipelines.finetune import finetune

COMPONENTS = Path(__file__).resolve().parent.parent / "components"

collect_documents = load_component(COMPONENTS / "collect_documents" / "component.yml")
build_coverage_seed = load_component(COMPONENTS / "build_coverage_seed" / "component.yml")


@pipeline(
    name="demo",
    display_name="Demo: raw documents to a gated model",
    description="Documents -> questions and answers about them -> fine-tuned small model, gated on evidence.",
)
def demo(
    raw_data: Input(type="uri_folder", description="Your documents: csv, jsonl, md, txt, html, docx, pdf."),
    registered_model_name: Input(type="string"),
    teacher: Input(type="string", default="embedded", description="`embedded`, or the URL of an endpoint."),
    teacher_model: Input(type="string", default="embedded", description="Deployment at the endpoint."),
    teacher_auth: Input(type="string", default="azure", enum=["azure", "none"]),
    num_pairs_per_chunk: Input(type="integer", default=3),
    chunk_chars: Input(type="integer", default=1200),
    model_name: Input(type="string", default="tiny"),
    method: Input(type="string", default="lora", enum=["lora", "full"]),
    learning_rate: Input(type="number", default=2e-4),
    num_train_epochs: Input(type="number", default=3),
    per_device_train_batch_size: Input(type="integer", default=8),
    max_length: Input(type="integer", default=2048),
    max_new_tokens: Input(type="integer", default=256),
    generation_batch_size: Input(type="integer", default=16),
    seed: Input(type="integer", default=0),
):
    """Wire the data stage to the `finetune` pipeline."""
    documents = collect_documents(raw_data=raw_data)
    seeds = build_coverage_seed(
        documents=documents.outputs.documents,
        teacher=teacher,
        teacher_model=teacher_model,
        auth=teacher_auth,
        num_pairs_per_chunk=num_pairs_per_chunk,
        chunk_chars=chunk_chars,
        seed=seed,
    )
    cycle = finetune(
        chats=seeds.outputs.chats,
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
        "report": cycle.outputs.report,
        "decision": cycle.outputs.decision,
        "manifest": cycle.outputs.manifest,
    }
