"""The closed loop, simulated: weeks of traffic, a world that changes, and a monitor that starts the next cycle."""

from pathlib import Path
from typing import Any

from azure.ai.ml import Input, load_component
from azure.ai.ml.dsl import pipeline

from pipelines.cycle import cycle
from pipelines.demo import build_coverage_seed, collect_documents, redact_pii
from pipelines.finetune import prepare_dataset
from pipelines.monitor import monitor

COMPONENTS = Path(__file__).resolve().parent.parent / "components"

prepare_canaries = load_component(COMPONENTS / "prepare_canaries" / "component.yml")
simulate_traffic = load_component(COMPONENTS / "simulate_traffic" / "component.yml")


@pipeline(
    name="loop",
    display_name="Loop: from drift to the next model",
    description="A live endpoint is watched for six weeks; in the third, documents and prompts become others.",
    non_pipeline_inputs=["quantization"],
)
def loop(
    quantization: str,
    raw_data: Input(type="uri_folder", description="The documents of the first weeks."),
    fresh_data: Input(type="uri_folder", description="The documents from the third week on."),
    registered_model_name: Input(type="string", description="Name in the model registry of the tuned model."),
    released_model_name: Input(type="string", description="Name in the model registry of what is deployed."),
    endpoint_name: Input(type="string", description="The endpoint that is watched; made when it is not there."),
    retraining_pipeline: Input(type="string", description="What the monitor starts: a job file of `cycle`."),
    retraining_inputs: Input(type="string", default="{}", description="Its inputs where its preset has others."),
    policy: Input(type="uri_file", optional=True, description="Promotion policy; the default one when absent."),
    drift_policy: Input(type="uri_file", optional=True, description="Drift policy; the default one when absent."),
    num_pairs_per_chunk: Input(type="integer", default=4),
    chunk_chars: Input(type="integer", default=600),
    method: Input(type="string", default="full", enum=["lora", "full"]),
    learning_rate: Input(type="number", default=1e-3),
    num_train_epochs: Input(type="number", default=2),
    per_device_train_batch_size: Input(type="integer", default=2),
    max_new_tokens: Input(type="integer", default=64),
    generation_batch_size: Input(type="integer", default=32),
    metric: Input(type="string", default="exact_match", enum=["f1", "exact_match"]),
    max_quality_drop: Input(type="number", default=0.02, description="Loss of the metric that stops the release."),
    step_seconds: Input(type="number", default=5, description="How long each step of the rollout is watched."),
    local_port: Input(type="integer", optional=True, description="Port of the endpoint on this machine."),
    num_requests: Input(type="integer", default=200, description="What users ask in a week."),
    changed_style: Input(type="string", default="casual", description="How they word it from the third week on."),
    num_canaries: Input(type="integer", default=32),
    dry_run: Input(type="boolean", default=False, description="Say what would be triggered, and start nothing."),
    wait: Input(type="boolean", default=True, description="Until the triggered cycle has ended."),
    seed: Input(type="integer", default=0),
):
    """Nothing tells the monitor when the world changes, and in each week it may start the retraining, or not."""
    first = cycle(
        quantization=quantization,
        raw_data=raw_data,
        policy=policy,
        registered_model_name=registered_model_name,
        released_model_name=released_model_name,
        endpoint_name=endpoint_name,
        num_pairs_per_chunk=num_pairs_per_chunk,
        chunk_chars=chunk_chars,
        method=method,
        learning_rate=learning_rate,
        num_train_epochs=num_train_epochs,
        per_device_train_batch_size=per_device_train_batch_size,
        max_new_tokens=max_new_tokens,
        generation_batch_size=generation_batch_size,
        metric=metric,
        max_quality_drop=max_quality_drop,
        target="local",
        step_seconds=step_seconds,
        local_port=local_port,
        seed=seed,
    )
    # What users ask about the fresh documents: the steps and values of `demo`, so the retraining finds them done.
    collection = collect_documents(raw_data=fresh_data, held_out_fraction=0.1)
    redaction = redact_pii(records=collection.outputs.documents)
    seeds = build_coverage_seed(
        documents=redaction.outputs.redacted_records,
        question_types="short,boolean,long",
        num_pairs_per_chunk=num_pairs_per_chunk,
        chunk_chars=chunk_chars,
        seed=seed,
    )
    dataset = prepare_dataset(chats=seeds.outputs.chats, validation_fraction=0.1, test_fraction=0.2, seed=seed)

    def canaries(world: str, eval_items: Any) -> Any:
        chosen = prepare_canaries(eval_items=eval_items, num_canaries=num_canaries, seed=seed)
        chosen.name = f"{world}_canaries"
        return chosen.outputs.canary_items

    def week(number: int, world: dict[str, Any], endpoint: Any, canary_items: Any, **earlier: Any) -> Any:
        traffic = simulate_traffic(
            endpoint=endpoint,
            eval_items=world["eval_items"],
            style=world["style"],
            num_requests=num_requests,
            max_new_tokens=max_new_tokens,
            after=earlier.get("history"),
            seed=number,
        )
        traffic.name = f"week_{number}_traffic"
        watch = monitor(
            endpoint=endpoint,
            canary_items=canary_items,
            period=traffic.outputs.period,
            policy=drift_policy,
            window_name=f"week {number}",
            metric=metric,
            max_new_tokens=max_new_tokens,
            target="local",
            retraining_pipeline=retraining_pipeline,
            retraining_inputs=retraining_inputs,
            fresh_data=fresh_data,
            fresh_data_input="raw_data",
            dry_run=dry_run,
            wait=wait,
            seed=seed,
            **earlier,
        )
        watch.name = f"week_{number}"
        return watch.outputs

    old = {"eval_items": first.outputs.eval_items, "style": "plain"}
    new = {"eval_items": dataset.outputs.eval_items, "style": changed_style}
    old_canaries, new_canaries = canaries("old", old["eval_items"]), canaries("new", new["eval_items"])
    outputs = week(1, old, first.outputs.endpoint, old_canaries)
    baseline = outputs.snapshot
    for number, world in ((2, old), (3, new), (4, new)):
        outputs = week(number, world, outputs.endpoint, old_canaries, baseline=baseline, history=outputs.history)
    receipt, drift_report = outputs.receipt, outputs.report
    outputs = week(5, new, outputs.endpoint, new_canaries, history=outputs.history)
    baseline = outputs.snapshot
    outputs = week(6, new, outputs.endpoint, new_canaries, baseline=baseline, history=outputs.history)
    return {
        "report": outputs.report,
        "drift_report": drift_report,
        "receipt": receipt,
        "history": outputs.history,
        "decision": outputs.decision,
        "endpoint": outputs.endpoint,
    }
