"""Measure candidates on benchmarks: what to measure, and the steps that `select_model` and `benchmark` share."""

import hashlib
import re
from pathlib import Path
from typing import Any, Literal

from azure.ai.ml import Input, load_component
from pydantic import BaseModel, ConfigDict, model_validator

COMPONENTS = Path(__file__).resolve().parent.parent / "components"
COMBINED_AT_ONCE = 8  # inputs of combine_records

import_model = load_component(COMPONENTS / "import_model" / "component.yml")
collect_documents = load_component(COMPONENTS / "collect_documents" / "component.yml")
prepare_benchmark = load_component(COMPONENTS / "prepare_benchmark" / "component.yml")
retrieve_context = load_component(COMPONENTS / "retrieve_context" / "component.yml")
generate_answers = load_component(COMPONENTS / "generate_answers" / "component.yml")
score_answers = load_component(COMPONENTS / "score_answers" / "component.yml")
score_multiple_choice = load_component(COMPONENTS / "score_multiple_choice" / "component.yml")
combine_records = load_component(COMPONENTS / "combine_records" / "component.yml")
compare_candidates = load_component(COMPONENTS / "compare_candidates" / "component.yml")


class Candidate(BaseModel):
    """A model, by name or as a folder or asset, or the pipeline's endpoint; with `retrieval` it sees documents."""

    model_config = ConfigDict(extra="forbid")

    name: str
    model_name: str | None = None
    model_folder: str | None = None
    seed: int = 42
    endpoint: bool = False
    retrieval: bool = False

    @model_validator(mode="after")
    def _is_one_thing(self) -> "Candidate":
        if sum((bool(self.model_name), bool(self.model_folder), self.endpoint)) != 1:
            raise ValueError("a candidate has one of model_name, model_folder and endpoint: true")
        return self


class Benchmark(BaseModel):
    """Questions, and how they are asked: open ones, or with choices by a method of score_multiple_choice.

    `name` is what the items call their benchmark: a format of prepare_benchmark, or the name that `columns` gives.
    With `eval_items: true` they are the pipeline's own questions.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    metric: str
    method: Literal["open", "letter", "text", "text_per_byte", "text_per_token", "generate"] = "open"
    eval_items: bool = False
    files: str | None = None
    fewshot_files: str | None = None
    columns: str | None = None
    num_fewshot: int = 0
    max_num_items: int | None = None
    answer_pattern: str | None = None
    max_new_tokens: int = 256

    def prepared(self, benchmark_data: Any, seed: Any) -> Any:
        """The eval items of this benchmark."""
        optional = ("files", "fewshot_files", "columns", "max_num_items")
        step = prepare_benchmark(
            raw_data=benchmark_data,
            benchmark="columns" if self.columns else self.name,
            answer_style="text" if self.method.startswith("text") else "letter",
            num_fewshot=self.num_fewshot,
            seed=seed,
            **{name: value for name in optional if (value := getattr(self, name)) is not None},
        )
        step.name = f"{_node(self.name)}_items"
        return step.outputs.eval_items

    def measure(self, candidate: Candidate, source: dict[str, Any], eval_items: Any, batch_size: Any) -> Any:
        """Ask the candidate and score it; the step that has the scores, and the one that has the predictions."""
        place = f"{_node(candidate.name)}_{_node(self.name)}"
        asked = source | {"eval_items": eval_items, "candidate": candidate.name, "batch_size": batch_size}
        if self.method != "open":
            step = score_multiple_choice(method=self.method, **asked)
            step.name = f"{place}_scores"
            return step.outputs.scores, step.outputs.predictions
        answers = generate_answers(max_new_tokens=self.max_new_tokens, **asked)
        answers.name = f"{place}_answers"
        given = {"answer_pattern": self.answer_pattern} if self.answer_pattern else {}
        step = score_answers(
            predictions=answers.outputs.predictions, eval_items=eval_items, metrics=self.metric, **given
        )
        step.name = f"{place}_scores"
        return step.outputs.scores, answers.outputs.predictions


def measure(
    candidates: list[dict[str, Any]],
    benchmarks: list[dict[str, Any]],
    *,
    eval_items: Any = None,
    benchmark_data: Any = None,
    raw_data: Any = None,
    context_prompt: Any = None,
    top_k: Any = None,
    endpoint: Any = None,
    endpoint_model: Any = None,
    auth: Any = None,
    batch_size: Any,
    seed: Any,
) -> Any:
    """Add the steps that ask each candidate each benchmark; gives the step that compares them, the first as baseline.

    A plain function, not a pipeline of its own: how many steps there are stands in the preset.
    """
    candidates = [Candidate.model_validate(candidate) for candidate in candidates]
    benchmarks = [Benchmark.model_validate(benchmark) for benchmark in benchmarks]
    _check(candidates, benchmarks)
    if any((c.retrieval and raw_data is None) or (c.endpoint and endpoint is None) for c in candidates):
        raise ValueError("this pipeline takes neither documents nor an endpoint for its candidates; select_model does")
    items = {b.name: eval_items if b.eval_items else b.prepared(benchmark_data, seed) for b in benchmarks}
    retrieval = {"context_prompt": context_prompt, "top_k": top_k}
    augmented = _with_context(items, raw_data, retrieval) if any(c.retrieval for c in candidates) else {}
    sources = _sources(candidates, {"endpoint": endpoint, "endpoint_model": endpoint_model, "auth": auth})
    scores, predictions = {}, {}
    for candidate in candidates:
        asked = augmented if candidate.retrieval else items
        measured = [b.measure(candidate, sources[candidate.name], asked[b.name], batch_size) for b in benchmarks]
        scores[candidate.name], predictions[candidate.name] = zip(*measured, strict=True)
    baseline, *others = scores
    comparison = compare_candidates(
        baseline_scores=_combined(scores[baseline], "baseline_scores"),
        candidate_scores=_combined([file for name in others for file in scores[name]], "candidate_scores"),
        eval_items=_combined(list(items.values()), "eval_items"),
        baseline_predictions=_combined(predictions[baseline], "baseline_predictions"),
        candidate_predictions=_combined([file for name in others for file in predictions[name]], "predictions"),
        metric=_metrics(benchmarks),
        seed=seed,
    )
    comparison.name = "comparison"
    return comparison


def _check(candidates: list[Candidate], benchmarks: list[Benchmark]) -> None:
    """Enough of both, each with a name of its own, or steps would take each other's place."""
    if len(candidates) < 2 or not benchmarks:
        raise ValueError(
            f"{len(candidates)} candidates and {len(benchmarks)} benchmarks: a comparison needs a baseline, which is "
            "the first candidate, one more candidate, and a benchmark"
        )
    for named in (candidates, benchmarks):
        seen: dict[str, str] = {}
        for name in (one.name for one in named):
            if (node := _node(name)) in seen:
                raise ValueError(f"the names {seen[node]!r} and {name!r} make steps of one name; change one of them")
            seen[node] = name


def _metrics(benchmarks: list[Benchmark]) -> str:
    """As compare_candidates takes it: one metric, or one by benchmark."""
    if len(benchmarks) == 1:
        return benchmarks[0].metric
    return "{" + ", ".join(f"{benchmark.name}: {benchmark.metric}" for benchmark in benchmarks) + "}"


def _sources(candidates: list[Candidate], endpoint: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What each candidate is asked through; candidates of one model share its import."""
    imported: dict[tuple, Any] = {}
    sources = {}
    for candidate in candidates:
        if candidate.endpoint:
            sources[candidate.name] = endpoint
            continue
        key = (candidate.model_name, candidate.model_folder, candidate.seed)
        if key not in imported:
            given = {"model_name": candidate.model_name} if candidate.model_name else {}
            if candidate.model_folder:
                given["model_folder"] = Input(type="custom_model", path=candidate.model_folder)
            imported[key] = import_model(seed=candidate.seed, **given)
            imported[key].name = f"{_node(candidate.name)}_model"
        sources[candidate.name] = {"model": imported[key].outputs.base_model}
    return sources


def _with_context(items: dict[str, Any], raw_data: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """The items with what the documents say about them."""
    collection = collect_documents(raw_data=raw_data)
    collection.name = "collection"
    augmented = {}
    for name, eval_items in items.items():
        retrieval = retrieve_context(documents=collection.outputs.documents, eval_items=eval_items, **settings)
        retrieval.name = f"{_node(name)}_retrieval"
        augmented[name] = retrieval.outputs.augmented_eval_items
    return augmented


def _combined(files: list[Any], name: str) -> Any:
    """One file of many, since an input takes one output."""
    if len(files) > COMBINED_AT_ONCE:
        parts = [files[start : start + COMBINED_AT_ONCE] for start in range(0, len(files), COMBINED_AT_ONCE)]
        files = [_combined(part, f"{name}_{i}") for i, part in enumerate(parts, start=1)]
    if len(files) == 1:
        return files[0]
    step = combine_records(**{f"records_{i}": file for i, file in enumerate(files, start=1)})
    step.name = f"all_{name}"
    return step.outputs.combined_records


def _node(name: str) -> str:
    """The name as Azure ML takes it for a step: letters of ASCII, digits and _; any others by a hash."""
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    if not name.isascii():
        plain += f"_{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return plain if plain[:1].isalpha() else f"n{plain}"
