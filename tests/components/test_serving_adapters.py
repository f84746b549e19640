"""serving/lora_engine: each adapter answers as the model that it was merged into, whoever else is being answered."""

import sys
import threading

import flask
import openai
import pytest

from model_inference import loading
from slmkit import lora_adapter
from tests import inference_server, lora_adapters

if str(inference_server.SERVING) not in sys.path:
    sys.path.append(str(inference_server.SERVING))

import engines
import lora_engine
import score

ASKED = [{"role": "user", "content": "東京まで? 한국어"}]
NUM_TOKENS = 12


@pytest.fixture(scope="module")
def folder(small_model, tmp_path_factory):
    """As combine_adapters writes it: an adapter on two kinds of layers, and one on the first kind only, by rsLoRA."""
    folder = tmp_path_factory.mktemp("adapters")
    (folder / "base").symlink_to(small_model)
    lora_adapters.write(small_model, folder / "adapters" / "store", seed=1)
    one_kind = lora_adapters.LAYERS[:1]
    lora_adapters.write(small_model, folder / "adapters" / "billing", seed=2, r=2, layers=one_kind, use_rslora=True)
    return folder


@pytest.fixture(scope="module")
def engine(folder) -> engines.Engine:
    return lora_engine.LoraEngine(folder, num_threads=1)


@pytest.fixture(scope="module")
def expected(small_model, folder, engine):
    """Greedy tokens by name: the likeliest next token, one by one, of the models that the adapters are merged into."""
    import torch

    prompt = engine.encode_chat(ASKED)
    tokens = {}
    for name in ("base", "store", "billing"):
        adapter = None if name == "base" else lora_adapter.read(folder / "adapters" / name)
        model, ids = loading.load_model(small_model, adapter=adapter), list(prompt)
        with torch.inference_mode():
            for _ in range(NUM_TOKENS):
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        tokens[name] = ids[len(prompt) :]
    assert len(set(map(tuple, tokens.values()))) == 3  # else nothing has been compared
    return tokens


def answered(engine: engines.Engine) -> list[int]:
    return list(engine.stream(engine.encode_chat(ASKED), NUM_TOKENS))


def until_end(engine: engines.Engine, tokens: list[int]) -> list[int]:
    return tokens[: next((i for i, token in enumerate(tokens) if token in engine._ends), None)]


def test_an_adapter_answers_as_the_merged_model(engine, expected):
    assert sorted(engine.adapters) == ["billing", "store"]
    for named, name in ((engine, "base"), *((engine.adapters[name], name) for name in ("store", "billing"))):
        assert answered(named) == until_end(engine, expected[name])


def test_answers_that_are_made_at_the_same_time_do_not_mix(engine, expected):
    asked = [("base", engine), *engine.adapters.items()] * 3
    got, together = [None] * len(asked), threading.Barrier(len(asked))

    def answer(place: int) -> None:
        together.wait(30)
        got[place] = answered(asked[place][1])

    threads = [threading.Thread(target=answer, args=(place,)) for place in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert got == [until_end(engine, expected[name]) for name, _ in asked]


@pytest.fixture
def client(engine, monkeypatch):
    monkeypatch.setattr(score, "engine", engine, raising=False)
    monkeypatch.setattr(score, "model_name", "slm", raising=False)
    monkeypatch.setattr(score, "admission", score.Admission(1, 0), raising=False)
    app = flask.Flask("test")
    app.add_url_rule("/score", view_func=lambda: score.run(flask.request), methods=["POST"])
    return app.test_client()


def test_a_request_picks_an_adapter_by_its_name(client, engine, expected):
    tokenizer = engine._tokenizer
    for asked, name, called in (
        ({"model": "store"}, "store", "store"),
        ({"model": "billing"}, "billing", "billing"),
        ({"model": "slm"}, "base", "slm"),
        ({"model": None}, "base", "slm"),
        ({}, "base", "slm"),
    ):
        said = client.post("/score", json={"messages": ASKED, "max_tokens": NUM_TOKENS, **asked}).json
        text = tokenizer.decode(until_end(engine, expected[name]), skip_special_tokens=True)
        assert (said["model"], said["choices"][0]["message"]["content"]) == (called, text.rstrip("\ufffd"))


@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_name_is_a_404_in_openai_s_form(client, stream):
    said = client.post("/score", json={"messages": ASKED, "model": "stor", "stream": stream})
    error = said.json["error"]
    assert said.status_code == openai.NotFoundError.status_code == 404
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", "model", "model_not_found")
    assert error["message"] == "the model 'stor' does not exist; known: slm, billing, store"
    assert len(client.post("/score", json={"messages": ASKED, "model": "x" * 10**6}).data) < 500
    assert client.post("/score", json={"messages": ASKED, "model": 5}).status_code == 400


def test_the_folder_is_found_where_azure_ml_mounts_it(folder, tmp_path):
    (tmp_path / "combined").symlink_to(folder)
    assert score.model_folder(tmp_path) == tmp_path / "combined"
    assert score.model_folder(folder) == folder


@pytest.mark.parametrize("broken", ["no weights", "no config", "more than LoRA", "other shape", "NaN"])
def test_what_is_no_adapter_of_the_base_is_not_served(small_model, tmp_path, broken):
    from safetensors.torch import load_file, save_file

    (tmp_path / "base").symlink_to(small_model)
    adapter = lora_adapters.write(small_model, tmp_path / "adapters" / "store")
    weights = adapter / "adapter_model.safetensors"
    tensors = load_file(weights)
    first = next(iter(tensors))
    if broken == "no weights":
        weights.unlink()
    elif broken == "no config":
        (adapter / "adapter_config.json").unlink()
    elif broken == "more than LoRA":
        save_file(tensors | {first.replace("lora_A.weight", "lora_magnitude_vector"): tensors[first].clone()}, weights)
    elif broken == "NaN":
        save_file(tensors | {first: tensors[first] * float("nan")}, weights)
    else:
        save_file(tensors | {first: tensors[first][:, 1:].contiguous()}, weights)
    with pytest.raises(engines.UnusableModelError, match="no LoRA adapter of this base"):
        lora_engine.LoraEngine(tmp_path, num_threads=1)


def test_a_base_without_adapters_is_not_served_under_any_name(small_model, tmp_path):
    (tmp_path / "base").symlink_to(small_model)
    (tmp_path / "adapters").mkdir()
    with pytest.raises(engines.UnusableModelError, match="no adapter below adapters/"):
        lora_engine.LoraEngine(tmp_path, num_threads=1)
