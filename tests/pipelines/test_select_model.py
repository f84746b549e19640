"""Candidates of every kind - a model, the same with documents, a real server - through `select_model`; then the cycles
of `benchmark`."""

import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from azure.ai.ml import Input

from localml.session import run_pipeline
from pipelines.benchmark import benchmark
from pipelines.evaluation import Benchmark, Candidate
from pipelines.select_model import select_model

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "pipelines" / "samples"
QUIZ = {
    "name": "quiz",
    "files": "quiz.csv",
    "columns": "{benchmark: quiz, id: id, question: question, choices: [A, B, C, D], gold: answer, gold_is: letter}",
    "max_num_items": 24,
    "metric": "accuracy",
}
QUESTIONS = {"name": "questions", "eval_items": True, "metric": "exact_match", "max_new_tokens": 16}


@pytest.fixture(scope="module")
def server(small_model):
    """`transformers serve` on loopback; gives its base URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve = Path(sys.executable).with_name("transformers")
    command = [serve, "serve", small_model, "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(20)


def wait_until_healthy(url: str, process: subprocess.Popen) -> None:
    for _ in range(240):
        assert process.poll() is None, "the server ended by itself"
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    pytest.fail("the server did not come up")


def file(path: Path) -> Input:
    return Input(type="uri_file", path=str(path))


def folder(path: Path) -> Input:
    return Input(type="uri_folder", path=str(path))


@pytest.mark.slow
def test_models_documents_and_a_server_side_by_side(small_model, server, tmp_path):
    job = select_model(
        candidates=[
            {"name": "small", "model_folder": str(small_model)},
            {"name": "small, with documents", "model_folder": str(small_model), "retrieval": True},
            {"name": "served", "endpoint": True},
        ],
        benchmarks=[QUESTIONS],
        eval_items=few_questions(tmp_path),
        raw_data=folder(SAMPLES / "documents"),
        context_prompt=file(SAMPLES / "context_prompt.yml"),
        top_k=1,
        endpoint=server,
        endpoint_model=str(small_model),
        auth="none",
    )
    outcome = run_pipeline(job, folder=tmp_path, root=tmp_path / "local", name="select")
    comparison = json.loads(outcome.outputs["comparison"].read_text(encoding="utf-8"))
    assert [one["name"] for one in comparison["candidates"]] == ["small", "small, with documents", "served"]
    assert comparison["num_items"] == 12
    assert comparison["recommendation"]["reason"] in (outcome.outputs["report"] / "report.html").read_text("utf-8")

    # The server has the weights of the first candidate, so that both say the same.
    answers = {
        name: {row["id"]: row["output"] for row in read(outcome.folder / f"{name}_questions_answers" / "predictions")}
        for name in ("small", "served")
    }
    assert len(answers["small"]) == 12 and answers["served"] == answers["small"]
    retrieved = read(outcome.folder / "questions_retrieval" / "augmented_eval_items")
    found = [item["context_ids"] == item["source_ids"] for item in retrieved]
    assert sum(found) > 0.7 * len(found), "the documents that the questions are about"


@pytest.mark.slow
def test_a_cycle_is_added_to_the_history(small_model, tmp_path):
    earlier = [
        {"cycle": "week-1", "time": "2026-01-05T00:00:00+00:00", "candidate": name, "benchmark": "quiz"}
        | {"metric": "accuracy", "mean": 0.5, "low": 0.3, "high": 0.7, "num_items": 24, "eval_items_sha256": "0" * 64}
        for name in ("champion", "current")
    ]
    (tmp_path / "history").write_text("".join(json.dumps(row) + "\n" for row in earlier), encoding="utf-8")
    job = benchmark(
        candidates=[
            {"name": "champion", "model_folder": str(small_model)},
            {"name": "current", "model_folder": str(small_model)},
        ],
        benchmarks=[QUIZ | {"method": "letter"}],
        benchmark_data=folder(SAMPLES / "benchmark"),
        cycle="week-2",
        earlier_history=file(tmp_path / "history"),
    )
    outcome = run_pipeline(job, folder=tmp_path, root=tmp_path / "local", name="week-2")
    comparison = json.loads(outcome.outputs["comparison"].read_text(encoding="utf-8"))
    assert {part["benchmark"]: part["num_items"] for part in comparison["benchmarks"]} == {"quiz": 24}
    assert (outcome.outputs["trend_report"] / "report.html").is_file()
    rows = read(outcome.outputs["history"])
    assert rows[:2] == earlier
    added = rows[2:]
    assert [row["candidate"] for row in added] == ["champion", "current"]
    assert added[0]["mean"] == added[1]["mean"], "one model under two names"


@pytest.mark.parametrize(
    ("kind", "values", "complaint"),
    [
        (Candidate, {"name": "x"}, "one of model_name, model_folder and endpoint"),
        (Candidate, {"name": "x", "model_name": "tiny", "endpoint": True}, "one of model_name"),
        (Candidate, {"name": "x", "model_name": "tiny", "rag": True}, "rag"),
        (Benchmark, {"name": "gsm8k"}, "metric"),
        (Benchmark, {"name": "gsm8k", "metric": "numeric", "method": "chat"}, "method"),
    ],
)
def test_what_is_no_candidate_or_benchmark(kind, values, complaint):
    with pytest.raises(ValueError, match=complaint):
        kind.model_validate(values)


MODELS = [{"name": "a", "model_name": "tiny"}, {"name": "b", "model_name": "tiny"}]


@pytest.mark.parametrize(
    ("candidates", "complaint"),
    [
        (MODELS[:1], "1 candidates and 1 benchmarks: a comparison needs a baseline"),
        ([*MODELS, MODELS[0]], "the names 'a' and 'a' make steps of one name"),
        (
            [MODELS[0] | {"name": "a-b"}, MODELS[0] | {"name": "A b"}],
            "the names 'a-b' and 'A b' make steps of one name",
        ),
        ([MODELS[0], MODELS[1] | {"retrieval": True}], "select_model does"),
        ([MODELS[0], {"name": "served", "endpoint": True}], "select_model does"),
    ],
)
def test_what_makes_no_comparison(candidates, complaint):
    with pytest.raises(ValueError, match=complaint):
        benchmark(candidates=candidates, benchmarks=[QUIZ], benchmark_data=folder(SAMPLES / "benchmark"), cycle="1")


def test_names_in_any_script_are_steps_of_azure_ml():
    candidates = [{"name": name, "model_name": "tiny"} for name in ("기준", "새 모델", "4b")]
    job = select_model(candidates=candidates, benchmarks=[QUIZ], benchmark_data=folder(SAMPLES / "benchmark"))
    assert len(job.jobs) == 11  # items, model, answers and scores of three, two files of two candidates, comparison
    assert all(re.fullmatch("[a-z][a-z0-9_]*", name) for name in job.jobs)


def few_questions(folder: Path) -> Input:
    """Every ninth of the samples, in all three languages."""
    lines = (SAMPLES / "questions.jsonl").read_text(encoding="utf-8").splitlines()[::9]
    (folder / "questions").write_text("\n".join(lines), encoding="utf-8")
    return file(folder / "questions")


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
