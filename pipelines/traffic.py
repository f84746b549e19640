"""Questions to a deployed endpoint as its users would ask them: to see a monitor at work before there are users."""

from pathlib import Path

from azure.ai.ml import Input, load_component
from azure.ai.ml.dsl import pipeline

simulate_traffic = load_component(
    Path(__file__).resolve().parent.parent / "components" / "simulate_traffic" / "component.yml"
)


@pipeline(
    name="traffic",
    display_name="Simulated traffic",
    description="Evaluation questions -> requests to a deployed endpoint, in the style of its users.",
)
def traffic(
    endpoint: Input(type="uri_file", description="The endpoint as written by deploy_endpoint."),
    eval_items: Input(type="uri_file", description="The questions that are asked."),
    num_requests: Input(type="integer", default=200),
    concurrency: Input(type="integer", default=2, description="Requests at a time."),
    style: Input(type="string", default="plain", description="plain, one_line, question_first or casual."),
    max_new_tokens: Input(type="integer", default=64),
    seed: Input(type="integer", default=0),
):
    """One burst of requests."""
    simulation = simulate_traffic(
        endpoint=endpoint,
        eval_items=eval_items,
        num_requests=num_requests,
        concurrency=concurrency,
        style=style,
        max_new_tokens=max_new_tokens,
        seed=seed,
    )
    return {"period": simulation.outputs.period}
