"""From a promoted model to a live endpoint on this machine by `release`; what is not promoted stays out."""

import json
import socket
from pathlib import Path

import openai
import pytest
from azure.ai.ml import Input

from localml.assets import Assets
from localml.endpoints import client
from localml.runner import StepError
from localml.session import run_pipeline
from pipelines.release import release
from slmkit import lineage

QUESTION = [{"role": "user", "content": "会館は何時に開きますか。 어디에 있나요?"}]


@pytest.fixture
def root(tmp_path):
    yield tmp_path / "local"
    client.stop_host(tmp_path / "local", seconds=60)


@pytest.fixture
def eval_items(tmp_path) -> Path:
    items = [{"id": f"q{i}", "messages": QUESTION, "references": ["at nine"], "slices": {}} for i in range(4)]
    (tmp_path / "eval_items").write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    return tmp_path / "eval_items"


def decision(path: Path, model: Path, verdict: str) -> Path:
    reason = {"rule": "superiority", "where": "f1", "observed": 0.9, "threshold": 0.05, "outcome": "pass", "text": "t"}
    content = {
        "verdict": verdict,
        "candidate": "tuned",
        "baseline": "base",
        "model_sha256": lineage.sha256(model),
        "comparison_sha256": "0" * 64,
        "reasons": [reason | {"outcome": "pass" if verdict == "promote" else "fail"}],
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def job(model: Path, decided: Path, eval_items: Path, port: int, quantization: str):
    return release(
        quantization=quantization,
        model=Input(type="custom_model", path=str(model)),
        decision=Input(type="uri_file", path=str(decided)),
        eval_items=Input(type="uri_file", path=str(eval_items)),
        registered_model_name="small-int4",
        endpoint_name="small",
        max_quality_drop=1.0,  # a model that has learned nothing has nothing to lose
        max_new_tokens=4,
        target="local",
        local_port=port,
        step_seconds=1,
    )


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.slow
def test_a_promoted_model_answers_chats_at_an_endpoint(small_model, eval_items, tmp_path, root):
    port = free_port()
    promoted = decision(tmp_path / "decision", small_model, "promote")
    outcome = run_pipeline(
        job(small_model, promoted, eval_items, port, "onnx-int4"), folder=tmp_path, root=root, name="release"
    )

    endpoint = json.loads(outcome.outputs["endpoint"].read_text(encoding="utf-8"))
    assert (endpoint["state"], endpoint["traffic"]) == ("rolled_out", {"blue": 100})
    manifest = json.loads(outcome.outputs["manifest"].read_text(encoding="utf-8"))
    assert manifest["source_model_sha256"] == lineage.sha256(small_model)
    quantized = outcome.folder / "quantization" / "quantized_model"
    assert manifest["model_sha256"] == lineage.sha256(quantized)
    assert Assets(tmp_path, root / "assets.yml", root).resolve("", "azureml:small-int4@champion") == quantized.resolve()

    asker = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")
    request = {"model": "any", "messages": QUESTION, "max_tokens": 8, "temperature": 0}
    whole = asker.chat.completions.create(**request)
    pieces = [chunk.choices[0].delta.content or "" for chunk in asker.chat.completions.create(**request, stream=True)]
    assert "".join(pieces) == whole.choices[0].message.content
    assert whole.usage.completion_tokens <= 8
    with pytest.raises(openai.BadRequestError):
        asker.chat.completions.create(model="any", messages=[])


@pytest.mark.slow
@pytest.mark.parametrize(("quantization", "refused_by"), [("onnx-int4", "quantization"), ("none", "deployment")])
def test_a_rejected_model_is_not_deployed(quantization, refused_by, small_model, eval_items, tmp_path, root):
    rejected = decision(tmp_path / "decision", small_model, "reject")
    port = free_port()
    with pytest.raises(StepError, match=rf"{refused_by}.*exit code 3") as failed:
        run_pipeline(
            job(small_model, rejected, eval_items, port, quantization), folder=tmp_path, root=root, name="release"
        )
    assert "reject" in failed.value.reason
    registration = root / "jobs" / "release" / "registration" / "manifest"
    if quantization == "none":
        assert not json.loads(registration.read_text())["registered"]
    else:
        assert not registration.exists()
    with socket.socket() as listener:  # nobody has taken the port
        listener.bind(("127.0.0.1", port))
