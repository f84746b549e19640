"""From a model that the gate has promoted to an endpoint that serves it: smaller, registered, rolled out, tried."""

from pathlib import Path

from azure.ai.ml import Input, load_component
from azure.ai.ml.dsl import pipeline

COMPONENTS = Path(__file__).resolve().parent.parent / "components"

quantize_model = load_component(COMPONENTS / "quantize_model" / "component.yml")
quantize_model_gptq = load_component(COMPONENTS / "quantize_model" / "gptq.yml")
register_model = load_component(COMPONENTS / "register_model" / "component.yml")
deploy_endpoint = load_component(COMPONENTS / "deploy_endpoint" / "component.yml")
check_endpoint = load_component(COMPONENTS / "check_endpoint" / "component.yml")


@pipeline(
    name="release",
    display_name="Release",
    description="Promoted model -> quantized within a quality limit -> registered -> rolled out blue/green -> tried.",
    non_pipeline_inputs=["quantization"],
)
def release(
    quantization: str,
    model: Input(type="custom_model", description="The model that was promoted."),
    decision: Input(type="uri_file", description="The gate's decision on it."),
    registered_model_name: Input(type="string", description="Name in the model registry of what is deployed."),
    endpoint_name: Input(type="string", description="The endpoint to roll out to; made when it is not there."),
    eval_items: Input(type="uri_file", description="Questions that the smaller model is tried on."),
    calibration_chats: Input(type="uri_file", optional=True, description="Chats to calibrate GPTQ on."),
    comparison: Input(type="uri_file", optional=True, description="What was decided on, for the model card."),
    privacy_decision: Input(type="uri_file", optional=True, description="The privacy audit, for the model card."),
    metric: Input(type="string", default="f1", enum=["f1", "exact_match"]),
    max_quality_drop: Input(type="number", default=0.02, description="Loss of the metric that stops the release."),
    max_new_tokens: Input(type="integer", default=64),
    target: Input(type="string", default="azure", enum=["local", "azure"]),
    deployment_spec: Input(type="string", default="onnx-cpu", description="A folder of deploy_endpoint/specs."),
    instance_count: Input(type="integer", default=1),
    traffic_steps: Input(type="string", default="10,50,100", description="Percentages, one after the other."),
    mirror_fraction: Input(type="number", default=0.1),
    step_seconds: Input(type="number", default=600, description="How long each step is watched."),
    min_requests: Input(type="integer", default=20),
    max_error_fraction: Input(type="number", default=0.01),
    local_port: Input(type="integer", optional=True, description="Port on this machine, where the target is local."),
    collect_traffic: Input(type="boolean", default=False, description="Keep requests and answers, for the monitor."),
):
    """`quantization` is a value of the preset: onnx-int4, bnb-nf4, bnb-int8, gptq-w4a16 or none."""
    released, quantization_report = model, None
    if quantization != "none":
        limits = {"metric": metric, "max_quality_drop": max_quality_drop, "max_new_tokens": max_new_tokens}
        limits["decision"] = decision  # nothing is quantized that is not to be released
        if quantization == "gptq-w4a16":
            smaller = quantize_model_gptq(
                model=model, eval_items=eval_items, calibration_chats=calibration_chats, **limits
            )
        else:
            smaller = quantize_model(model=model, eval_items=eval_items, method=quantization, **limits)
        smaller.name = "quantization"
        released, quantization_report = smaller.outputs.quantized_model, smaller.outputs.report
    registration = register_model(
        model=released,
        decision=decision,
        comparison=comparison,
        privacy_decision=privacy_decision,
        quantization_report=quantization_report,
        registered_model_name=registered_model_name,
    )
    deployment = deploy_endpoint(
        model=released,
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
    outputs = {
        "manifest": registration.outputs.manifest,
        "model_card": registration.outputs.model_card,
        "rollout_report": deployment.outputs.report,
        "endpoint": deployment.outputs.endpoint,
        "check_report": check.outputs.report,
    }
    return outputs if quantization_report is None else {"quantization_report": quantization_report, **outputs}
