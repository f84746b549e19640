"""From raw documents to data sets of synthetic chats whose privacy was judged before anything learns from them."""

from pathlib import Path

from azure.ai.ml import Input, load_component
from azure.ai.ml.dsl import pipeline

COMPONENTS = Path(__file__).resolve().parent.parent / "components"

collect_documents = load_component(COMPONENTS / "collect_documents" / "component.yml")
redact_pii = load_component(COMPONENTS / "redact_pii" / "component.yml")
build_coverage_seed = load_component(COMPONENTS / "build_coverage_seed" / "component.yml")
generate_personas = load_component(COMPONENTS / "generate_personas" / "component.yml")
synthesize_chats = load_component(COMPONENTS / "synthesize_chats" / "component.yml")
audit_privacy = load_component(COMPONENTS / "audit_privacy" / "component.yml")
prepare_dataset = load_component(COMPONENTS / "prepare_dataset" / "component.yml")


@pipeline(
    name="synthesize",
    display_name="Synthesize",
    description="Raw documents -> redacted -> seeds that cover them, personas, chats -> privacy verdict -> data sets.",
)
def synthesize(
    raw_data: Input(type="uri_folder", description="Your documents: office files, pdf, html, text, tables, zip."),
    held_out_fraction: Input(type="number", default=0.1, description="Documents that only the audit sees."),
    pii_action: Input(type="string", default="mask", enum=["mask", "hash", "replace", "drop"]),
    teacher: Input(type="string", default="embedded", description="`embedded`, or the URL of an endpoint."),
    teacher_model: Input(type="string", default="embedded", description="Deployment at the endpoint."),
    teacher_auth: Input(type="string", default="azure", enum=["azure", "none"]),
    num_pairs_per_chunk: Input(type="integer", default=3),
    chunk_chars: Input(type="integer", default=1200),
    num_personas: Input(type="integer", default=120),
    max_num_chats: Input(type="integer", default=300, description="Synthesized chats, beside the seeds."),
    include_seed_chats: Input(type="boolean", default=True, description="Train on the seeds, too."),
    judge: Input(type="string", default="none", enum=["none", "teacher"]),
    scenario: Input(type="uri_file", optional=True, description="People whom the documents do not show, YAML."),
    taxonomy: Input(type="uri_file", optional=True, description="Topics that the documents do not have, YAML."),
    privacy_policy: Input(type="uri_file", optional=True, description="Thresholds; the default ones when absent."),
    guarded_data: Input(type="uri_file", optional=True, description="Evaluation sets that must not be trained on."),
    validation_fraction: Input(type="number", default=0.1),
    test_fraction: Input(type="number", default=0.2),
    seed: Input(type="integer", default=0),
):
    """Nothing reaches the data sets that the audit has not passed."""
    collection = collect_documents(raw_data=raw_data, held_out_fraction=held_out_fraction)
    redaction = redact_pii(records=collection.outputs.documents, action=pii_action)
    seeds = build_coverage_seed(
        documents=redaction.outputs.redacted_records,
        teacher=teacher,
        teacher_model=teacher_model,
        auth=teacher_auth,
        num_pairs_per_chunk=num_pairs_per_chunk,
        chunk_chars=chunk_chars,
        seed=seed,
    )
    cast = generate_personas(
        documents=redaction.outputs.redacted_records,
        scenario=scenario,
        teacher=teacher,
        teacher_model=teacher_model,
        auth=teacher_auth,
        num_personas=num_personas,
        seed=seed,
    )
    synthesis = synthesize_chats(
        seed_chats=seeds.outputs.chats,
        documents=redaction.outputs.redacted_records,
        personas=cast.outputs.personas,
        taxonomy=taxonomy,
        include_seed_chats=include_seed_chats,
        teacher=teacher,
        teacher_model=teacher_model,
        auth=teacher_auth,
        max_num_chats=max_num_chats,
        judge=judge,
        seed=seed,
    )
    audit = audit_privacy(
        real_data=collection.outputs.documents,
        held_out_data=collection.outputs.held_out_documents,
        synthetic_data=synthesis.outputs.chats,
        redaction_report=redaction.outputs.report,
        personas=cast.outputs.personas,
        policy=privacy_policy,
    )
    dataset = prepare_dataset(
        chats=audit.outputs.approved_data,
        guarded_data=guarded_data,
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        seed=seed,
    )
    return {
        "chats": audit.outputs.approved_data,
        "privacy_decision": audit.outputs.decision,
        "train_data": dataset.outputs.train_data,
        "validation_data": dataset.outputs.validation_data,
        "test_data": dataset.outputs.test_data,
        "eval_items": dataset.outputs.eval_items,
        "privacy_report": audit.outputs.report,
        "coverage_report": seeds.outputs.report,
        "dataset_report": dataset.outputs.report,
    }
