"""From adapters that the gate has promoted to one endpoint for them all: combined, registered, rolled out, tried."""

from pathlib import Path
from typing import Annotated, Any

from azure.ai.ml import Input, load_component
from azure.ai.ml.dsl import pipeline
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

COMPONENTS = Path(__file__).resolve().parent.parent / "components"

combine_adapters = load_component(COMPONENTS / "combine_adapters" / "component.yml")
register_model = load_component(COMPONENTS / "register_model" / "component.yml")
deploy_endpoint = load_component(COMPONENTS / "deploy_endpoint" / "component.yml")
check_endpoint = load_component(COMPONENTS / "check_endpoint" / "component.yml")


class Adapter(BaseModel):
    """What requests call it, the adapter and the gate's decision on it, as assets or paths."""

    model_config = ConfigDict(extra="forbid")

    name: str
    adapter: str
    decision: str


ADAPTERS = TypeAdapter(Annotated[list[Adapter], Field(min_length=1, max_length=8)])


@pipeline(
    name="release_adapters",
    display_name="Release adapters",
    description="Promoted LoRA adapters on one base -> one folder -> registered -> rolled out blue/green -> tried.",
    non_pipeline_inputs=["adapters"],
)
def release_adapters(
    adapters: list,
    base_model: Input(type="custom_model", description="The base that the adapters were evaluated on."),
    registered_model_name: Input(type="string", description="Name in the model registry of base and adapters."),
    endpoint_name: Input(type="string", description="The endpoint to roll out to; made when it is not there."),
    max_lora_rank: Input(type="integer", default=64, description="--max-lora-rank of the deployment."),
    target: Input(type="string", default="azure", enum=["local", "azure"]),
    deployment_spec: Input(type="string", default="vllm-multi-lora-gpu", description="A multi-lora folder of specs."),
    instance_count: Input(type="integer", default=1),
    traffic_steps: Input(type="string", default="10,50,100", description="Percentages, one after the other."),
    mirror_fraction: Input(type="number", default=0.1),
    step_seconds: Input(type="number", default=600, description="How long each step is watched."),
    min_requests: Input(type="integer", default=20),
    max_error_fraction: Input(type="number", default=0.01),
    collect_traffic: Input(type="boolean", default=False, description="Keep requests and answers, for the monitor."),
    local_port: Input(type="integer", optional=True, description="Port on this machine, where the target is local."),
):
    """`adapters` is a value of the preset: a list of name, adapter and decision."""
    combination = combine_adapters(base_model=base_model, max_lora_rank=max_lora_rank, **_ports(adapters))
    registration = register_model(
        model=combination.outputs.model,
        decision=combination.outputs.decision,
        registered_model_name=registered_model_name,
    )
    deployment = deploy_endpoint(
        model=combination.outputs.model,
        manifest=registration.outputs.manifest,
        endpoint_name=endpoint_name,
        target=target,
        deployment_spec=deployment_spec,
        instance_count=instance_count,
        traffic_steps=traffic_steps,
        mirror_fraction=mirror_fraction,
        step_seconds=step_seconds,
        min_requests=min_requests,
        max_error_fraction=max_error_fraction,
        local_port=local_port,
        collect_traffic=collect_traffic,
    )
    check = check_endpoint(endpoint=deployment.outputs.endpoint)
    return {
        "manifest": registration.outputs.manifest,
        "model_card": registration.outputs.model_card,
        "rollout_report": deployment.outputs.report,
        "endpoint": deployment.outputs.endpoint,
        "check_report": check.outputs.report,
    }


def _ports(adapters: list[dict[str, Any]]) -> dict[str, Any]:
    """The inputs of combine_adapters."""
    given = ADAPTERS.validate_python(adapters)
    ports: dict[str, Any] = {"adapter_names": ",".join(one.name for one in given)}
    for i, one in enumerate(given, start=1):
        ports[f"adapter_{i}"] = Input(type="custom_model", path=one.adapter)
        ports[f"decision_{i}"] = Input(type="uri_file", path=one.decision)
    return ports
