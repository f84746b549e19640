"""After each cycle the same benchmarks: better or worse than the champion, and how it went over the cycles."""

from pathlib import Path

from azure.ai.ml import Input, load_component
from azure.ai.ml.dsl import pipeline

from pipelines.evaluation import measure

COMPONENTS = Path(__file__).resolve().parent.parent / "components"

track_benchmarks = load_component(COMPONENTS / "track_benchmarks" / "component.yml")


@pipeline(
    name="benchmark",
    display_name="Benchmark",
    description="The champion and the model of this cycle on the same benchmarks -> better or worse, and the trend.",
    non_pipeline_inputs=["candidates", "benchmarks"],
)
def benchmark(
    candidates: list,
    benchmarks: list,
    cycle: Input(type="string", description="Name of this cycle, such as its date."),
    earlier_history: Input(type="uri_file", optional=True, description="The history that the last cycle gave."),
    eval_items: Input(type="uri_file", optional=True, description="Your own questions with references, JSONL."),
    benchmark_data: Input(type="uri_folder", optional=True, description="The folder with the benchmarks' files."),
    batch_size: Input(type="integer", default=16),
    seed: Input(type="integer", default=0),
):
    """The first candidate is the champion."""
    comparison = measure(
        candidates,
        benchmarks,
        eval_items=eval_items,
        benchmark_data=benchmark_data,
        batch_size=batch_size,
        seed=seed,
    )
    trend = track_benchmarks(comparison=comparison.outputs.comparison, earlier_history=earlier_history, cycle=cycle)
    return {
        "comparison": comparison.outputs.comparison,
        "report": comparison.outputs.report,
        "history": trend.outputs.history,
        "trend_report": trend.outputs.report,
    }
