"""What a deployed model is asked and answers, held against a baseline: drift, a decision, the next cycle."""

from pathlib import Path

from azure.ai.ml import Input, load_component
from azure.ai.ml.dsl import pipeline

COMPONENTS = Path(__file__).resolve().parent.parent / "components"

collect_traffic = load_component(COMPONENTS / "collect_traffic" / "component.yml")
generate_answers = load_component(COMPONENTS / "generate_answers" / "component.yml")
score_answers = load_component(COMPONENTS / "score_answers" / "component.yml")
detect_drift = load_component(COMPONENTS / "detect_drift" / "component.yml")
trigger_retraining = load_component(COMPONENTS / "trigger_retraining" / "component.yml")


@pipeline(
    name="monitor",
    display_name="Monitor",
    description="Traffic and canary questions of a window -> drift against the baseline -> decision -> next cycle.",
)
def monitor(
    endpoint: Input(type="uri_file", description="The endpoint as written by deploy_endpoint."),
    canary_items: Input(type="uri_file", description="Canary questions of prepare_canaries; the same ones each time."),
    traffic: Input(type="uri_folder", optional=True, description="Collected requests; the endpoint's own when absent."),
    endpoint_model: Input(type="string", optional=True, description="LoRA adapter to look at; all when absent."),
    earlier_window: Input(type="uri_file", optional=True, description="Window of the last run; this one starts there."),
    period: Input(type="uri_file", optional=True, description="Start and end of the window, where they are known."),
    baseline: Input(type="uri_folder", optional=True, description="Snapshot of the run to compare with."),
    history: Input(type="uri_file", optional=True, description="History that the last run gave."),
    policy: Input(type="uri_file", optional=True, description="Drift policy; the default one when absent."),
    window_name: Input(type="string", optional=True),
    window_hours: Input(type="number", optional=True, description="Hours up to now, where there is no earlier window."),
    settle_seconds: Input(type="number", default=0, description="The window ends so long ago: logs come late."),
    metric: Input(type="string", default="exact_match", description="How canary answers are scored."),
    max_new_tokens: Input(type="integer", default=64),
    concurrency: Input(type="integer", default=4, description="Canary questions asked at a time."),
    target: Input(type="string", default="azure", enum=["azure", "github", "local"], description="What is triggered."),
    retraining_pipeline: Input(type="string", optional=True, description="Pipeline component, or a job file here."),
    retraining_inputs: Input(type="string", optional=True, description="Its inputs, such as {seed: 1}."),
    fresh_data: Input(type="uri_folder", optional=True, description="Documents as they are now."),
    fresh_data_input: Input(type="string", optional=True, description="Input of the retraining that takes them."),
    repository: Input(type="string", optional=True, description="OWNER/NAME at GitHub, for the target github."),
    github_app_id: Input(type="string", optional=True),
    github_installation_id: Input(type="string", optional=True),
    github_key_url: Input(type="string", optional=True, description="Key in Key Vault that signs for the GitHub App."),
    dry_run: Input(type="boolean", default=True, description="Say what would be triggered, and start nothing."),
    wait: Input(type="boolean", default=False, description="Until the triggered cycle has ended."),
    seed: Input(type="integer", default=0),
):
    """One look: measure, compare, decide; what follows from the decision is started only where dry_run is false."""
    collection = collect_traffic(
        endpoint=endpoint,
        traffic=traffic,
        earlier_window=earlier_window,
        period=period,
        endpoint_model=endpoint_model,
        exclude_items=canary_items,  # the monitor's own questions are no traffic
        window_name=window_name,
        window_hours=window_hours,
        settle_seconds=settle_seconds,
        seed=seed,
    )
    canary_answers = generate_answers(
        deployed_endpoint=endpoint,
        endpoint_model=endpoint_model,
        eval_items=canary_items,
        candidate="live",
        max_new_tokens=max_new_tokens,
        concurrency=concurrency,
        max_error_fraction=1.0,  # an endpoint that fails is a finding, not the end of the monitor
    )
    canary_scores = score_answers(
        predictions=canary_answers.outputs.predictions, eval_items=canary_items, metrics=metric
    )
    drift = detect_drift(
        canary_items=canary_items,
        predictions=canary_answers.outputs.predictions,
        scores=canary_scores.outputs.scores,
        traffic=collection.outputs.records,
        window=collection.outputs.window,
        endpoint=endpoint,
        baseline=baseline,
        earlier_history=history,
        policy=policy,
        metric=metric,
        seed=seed,
    )
    retraining = trigger_retraining(
        decision=drift.outputs.decision,
        endpoint=endpoint,
        target=target,
        pipeline=retraining_pipeline,
        pipeline_inputs=retraining_inputs,
        fresh_data=fresh_data,
        fresh_data_input=fresh_data_input,
        repository=repository,
        github_app_id=github_app_id,
        github_installation_id=github_installation_id,
        github_key_url=github_key_url,
        dry_run=dry_run,
        wait=wait,
    )
    return {
        "report": drift.outputs.report,
        "decision": drift.outputs.decision,
        "drift": drift.outputs.drift,
        "receipt": retraining.outputs.receipt,
        "history": drift.outputs.history,
        "snapshot": drift.outputs.snapshot,
        "window": collection.outputs.window,
        "endpoint": retraining.outputs.current_endpoint,
    }
