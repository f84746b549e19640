"""The hypothesis: which model, with or without documents at hand, is worth fine-tuning or putting to work?"""

from azure.ai.ml import Input
from azure.ai.ml.dsl import pipeline

from pipelines.evaluation import measure


@pipeline(
    name="select_model",
    display_name="Select a model",
    description="Candidates on benchmarks and on your own questions -> table with intervals and a recommendation.",
    non_pipeline_inputs=["candidates", "benchmarks"],
)
def select_model(
    candidates: list,
    benchmarks: list,
    eval_items: Input(type="uri_file", optional=True, description="Your own questions with references, JSONL."),
    benchmark_data: Input(type="uri_folder", optional=True, description="The folder with the benchmarks' files."),
    raw_data: Input(type="uri_folder", optional=True, description="Documents for the candidates with retrieval."),
    context_prompt: Input(
        type="uri_file", optional=True, description="How they see documents; retrieve_context's own."
    ),
    top_k: Input(type="integer", default=3, description="Chunks of documents that a question gets."),
    endpoint: Input(type="string", optional=True, description="Base URL of an OpenAI-compatible endpoint."),
    endpoint_model: Input(type="string", optional=True, description="Model or deployment at the endpoint."),
    auth: Input(type="string", default="azure", enum=["azure", "none"]),
    batch_size: Input(type="integer", default=16),
    seed: Input(type="integer", default=0),
):
    """The first candidate is the baseline of the comparison."""
    comparison = measure(
        candidates,
        benchmarks,
        eval_items=eval_items,
        benchmark_data=benchmark_data,
        raw_data=raw_data,
        context_prompt=context_prompt,
        top_k=top_k,
        endpoint=endpoint,
        endpoint_model=endpoint_model,
        auth=auth,
        batch_size=batch_size,
        seed=seed,
    )
    return {"comparison": comparison.outputs.comparison, "report": comparison.outputs.report}
