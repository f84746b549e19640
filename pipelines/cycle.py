"""One turn of the loop: raw documents -> a model that the gate has promoted -> the endpoint that serves it."""

from azure.ai.ml import Input
from azure.ai.ml.dsl import pipeline

from pipelines.demo import demo
from pipelines.release import release


@pipeline(
    name="cycle",
    display_name="Cycle: raw documents to a live endpoint",
    description="Documents -> fine-tuned model, gated -> quantized, registered, rolled out to the endpoint blue/green.",
    non_pipeline_inputs=["quantization"],
)
def cycle(
    quantization: str,
    raw_data: Input(type="uri_folder", description="The documents as they are today."),
    registered_model_name: Input(type="string", description="Name in the model registry of the tuned model."),
    released_model_name: Input(type="string", description="Name in the model registry of what is deployed."),
    endpoint_name: Input(type="string", description="The endpoint to roll out to; made when it is not there."),
    policy: Input(type="uri_file", optional=True, description="Promotion policy; the default one when absent."),
    teacher_auth: Input(type="string", default="azure", enum=["azure", "none"]),
    teacher: Input(type="string", default="embedded", description="`embedded`, or the URL of an endpoint."),
    teacher_model: Input(type="string", default="embedded", description="Deployment at the endpoint."),
    num_pairs_per_chunk: Input(type="integer", default=3),
    chunk_chars: Input(type="integer", default=1200),
    model_name: Input(type="string", default="tiny"),
    method: Input(type="string", default="lora", enum=["lora", "full"]),
    learning_rate: Input(type="number", default=2e-4),
    num_train_epochs: Input(type="number", default=3),
    per_device_train_batch_size: Input(type="integer", default=4),
    max_new_tokens: Input(type="integer", default=64),
    generation_batch_size: Input(type="integer", default=16),
    metric: Input(type="string", default="f1", enum=["f1", "exact_match"]),
    max_quality_drop: Input(type="number", default=0.02, description="Loss of the metric that stops the release."),
    target: Input(type="string", default="azure", enum=["local", "azure"]),
    deployment_spec: Input(type="string", default="onnx-cpu", description="A folder of deploy_endpoint/specs."),
    step_seconds: Input(type="number", default=600, description="How long each step of the rollout is watched."),
    collect_traffic: Input(type="boolean", default=True, description="Keep requests and answers, for the monitor."),
    local_port: Input(type="integer", optional=True, description="Port on this machine, where the target is local."),
    seed: Input(type="integer", default=0),
):
    """What is not promoted is not released: the release stops, and the endpoint stays as it is."""
    tuning = demo(
        raw_data=raw_data,
        policy=policy,
        registered_model_name=registered_model_name,
        teacher=teacher,
        teacher_model=teacher_model,
        teacher_auth=teacher_auth,
        num_pairs_per_chunk=num_pairs_per_chunk,
        chunk_chars=chunk_chars,
        model_name=model_name,
        method=method,
        learning_rate=learning_rate,
        num_train_epochs=num_train_epochs,
        per_device_train_batch_size=per_device_train_batch_size,
        max_new_tokens=max_new_tokens,
        generation_batch_size=generation_batch_size,
        seed=seed,
    )
    rollout = release(
        quantization=quantization,
        model=tuning.outputs.model,
        decision=tuning.outputs.decision,
        comparison=tuning.outputs.comparison,
        privacy_decision=tuning.outputs.privacy_decision,
        eval_items=tuning.outputs.eval_items,
        registered_model_name=released_model_name,
        endpoint_name=endpoint_name,
        metric=metric,
        max_quality_drop=max_quality_drop,
        max_new_tokens=max_new_tokens,
        target=target,
        deployment_spec=deployment_spec,
        step_seconds=step_seconds,
        collect_traffic=collect_traffic,
        local_port=local_port,
    )
    return {
        "endpoint": rollout.outputs.endpoint,
        "eval_items": tuning.outputs.eval_items,
        "decision": tuning.outputs.decision,
        "report": tuning.outputs.report,
        "rollout_report": rollout.outputs.rollout_report,
        "manifest": rollout.outputs.manifest,
    }
