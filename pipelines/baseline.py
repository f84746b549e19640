"""What the monitor compares with: canary questions, and what the deployed model answers to them while all is well."""

from pathlib import Path

from azure.ai.ml import Input, load_component
from azure.ai.ml.dsl import pipeline

from pipelines.monitor import monitor

prepare_canaries = load_component(
    Path(__file__).resolve().parent.parent / "components" / "prepare_canaries" / "component.yml"
)


@pipeline(
    name="baseline",
    display_name="Baseline of the monitor",
    description="Evaluation questions -> canaries, asked for the first time -> the snapshot to compare with.",
)
def baseline(
    endpoint: Input(type="uri_file", description="The endpoint as written by deploy_endpoint."),
    eval_items: Input(type="uri_file", description="Questions with references that the model was evaluated on."),
    traffic: Input(type="uri_folder", optional=True, description="Collected requests; the endpoint's own when absent."),
    endpoint_model: Input(type="string", optional=True, description="LoRA adapter to look at; all when absent."),
    period: Input(type="uri_file", optional=True, description="Start and end of the window, where they are known."),
    window_hours: Input(type="number", optional=True, description="Hours of traffic up to now; all when absent."),
    settle_seconds: Input(type="number", default=0, description="The window ends so long ago: logs come late."),
    num_canaries: Input(type="integer", default=100),
    metric: Input(type="string", default="exact_match", description="How canary answers are scored."),
    max_new_tokens: Input(type="integer", default=64),
    concurrency: Input(type="integer", default=4, description="Canary questions asked at a time."),
    history: Input(type="uri_file", optional=True, description="The monitor's so far: its cooldown and budget go on."),
    seed: Input(type="integer", default=0),
):
    """The first look of a monitor: there is nothing to compare with, so it becomes what is compared with."""
    canaries = prepare_canaries(eval_items=eval_items, num_canaries=num_canaries, seed=seed)
    first_look = monitor(
        endpoint=endpoint,
        canary_items=canaries.outputs.canary_items,
        traffic=traffic,
        endpoint_model=endpoint_model,
        period=period,
        history=history,
        window_name="baseline",
        window_hours=window_hours,
        settle_seconds=settle_seconds,
        metric=metric,
        max_new_tokens=max_new_tokens,
        concurrency=concurrency,
        seed=seed,
    )
    return {
        "canary_items": canaries.outputs.canary_items,
        "snapshot": first_look.outputs.snapshot,
        "history": first_look.outputs.history,
        "window": first_look.outputs.window,
        "report": first_look.outputs.report,
    }
