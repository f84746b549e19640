"""From promoted adapters to one live endpoint on this machine by `release_adapters`."""

import json
import socket

import openai
import pytest
from azure.ai.ml import Input

from localml.endpoints import client
from localml.session import run_pipeline
from pipelines.release_adapters import release_adapters
from tests import lora_adapters

QUESTION = [{"role": "user", "content": "会館は何時に開きますか。 어디에 있나요?"}]


@pytest.fixture
def root(tmp_path):
    yield tmp_path / "local"
    client.stop_host(tmp_path / "local", seconds=60)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.slow
def test_promoted_adapters_answer_by_their_names_at_one_endpoint(small_model, tmp_path, root):
    adapters = []
    for seed, name in enumerate(("store", "billing")):
        adapter = lora_adapters.write(small_model, tmp_path / name, seed=seed)
        decision = lora_adapters.decide(tmp_path / f"{name}-decision", adapter, small_model)
        adapters.append({"name": name, "adapter": str(adapter), "decision": str(decision)})
    port = free_port()
    job = release_adapters(
        adapters=adapters,
        base_model=Input(type="custom_model", path=str(small_model)),
        registered_model_name="small-adapters",
        endpoint_name="small",
        target="local",
        deployment_spec="transformers-multi-lora-cpu",
        traffic_steps="100",
        mirror_fraction=0.0,
        step_seconds=1,
        local_port=port,
    )
    outcome = run_pipeline(job, folder=tmp_path, root=root, name="release")

    endpoint = json.loads(outcome.outputs["endpoint"].read_text(encoding="utf-8"))
    assert (endpoint["state"], endpoint["traffic"]) == ("rolled_out", {"blue": 100})
    assert endpoint["adapters"] == ["billing", "store"]
    result = json.loads((outcome.outputs["check_report"] / "result.json").read_text(encoding="utf-8"))
    [check] = [check for check in result["checks"] if check["name"] == "adapters"]
    assert check["detail"] == "2 of 2 answer by their names; no-such-adapter is refused with 404"
    manifest = json.loads(outcome.outputs["manifest"].read_text(encoding="utf-8"))
    assert list(manifest["adapters"]) == ["store", "billing"]
    assert "### billing: promote, tuned against base" in outcome.outputs["model_card"].read_text(encoding="utf-8")

    asker = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
    said = {}
    for name in ("slm", "store", "billing"):
        request = {"model": name, "messages": QUESTION, "max_tokens": 8, "temperature": 0}
        whole = asker.chat.completions.create(**request)
        pieces = [part.choices[0].delta.content or "" for part in asker.chat.completions.create(**request, stream=True)]
        said[name] = whole.choices[0].message.content
        assert (whole.model, "".join(pieces)) == (name, said[name])
    assert len(set(said.values())) == 3
    with pytest.raises(openai.NotFoundError, match="'stor' does not exist; known: slm, billing, store"):
        asker.chat.completions.create(model="stor", messages=QUESTION)
