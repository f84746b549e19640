"""A named output of a finished job is a data asset of this machine that a later job can name."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from localml.data_assets import DataAssets
from localml.errors import RunError


@pytest.fixture
def assets(tmp_path):
    return DataAssets(tmp_path)


def test_versions_count_up_and_the_same_content_is_no_new_one(assets, tmp_path):
    assert assets.register("decision", None, tmp_path / "a", "hash a", "job1") == "1"
    assert assets.register("decision", None, tmp_path / "a", "hash a", "job2") == "1"
    assert assets.register("decision", None, tmp_path / "b", "hash b", "job3") == "2"
    assert assets.register("decision", "7", tmp_path / "c", "hash c", "job4") == "7"
    assert assets.register("decision", "7", tmp_path / "d", "hash c", "job5") == "7"
    assert assets.register("decision", "2026-11", tmp_path / "d", "hash d", "job6") == "2026-11"
    assert assets.register("decision", None, tmp_path / "a", "hash a", "job7") == "8"
    assert assets.register("other", None, tmp_path / "a", "hash a", "job8") == "1"
    places = {reference: assets.path_of(f"azureml:decision{reference}") for reference in (":1", ":7", ":2026-11")}
    assert places == {":1": tmp_path / "a", ":7": tmp_path / "c", ":2026-11": tmp_path / "d"}
    assert assets.path_of("azureml:decision@latest") == tmp_path / "a"
    assert assets.path_of("azureml:unknown:1") is None
    assert assets.path_of("azureml://datastores/x/paths/y") is None


def test_a_version_never_changes(assets, tmp_path):
    assets.register("decision", "1", tmp_path / "a", "hash a", "job1")
    with pytest.raises(RunError, match="azureml:decision:1 is there already with other content, from job job1"):
        assets.register("decision", "1", tmp_path / "b", "hash b", "job2")
    with pytest.raises(RunError, match="azureml:decision:2: this machine has 1, @latest of decision"):
        assets.path_of("azureml:decision:2")


def test_two_that_finish_at_once_both_count(assets, tmp_path):
    with ThreadPoolExecutor(8) as pool:
        numbers = pool.map(lambda n: assets.register("x", None, tmp_path / "a", f"hash {n}", "job"), range(40))
        assert sorted(map(int, numbers)) == list(range(1, 41))
    assert len(json.loads((tmp_path / "data_assets.json").read_text())["x"]) == 40
    assert not list(tmp_path.glob("*.partial"))


def test_a_damaged_file_is_one_line(assets, tmp_path):
    (tmp_path / "data_assets.json").write_text("{")
    with pytest.raises(RunError, match=r"data_assets\.json: not JSON"):
        assets.path_of("azureml:x:1")


def test_a_named_output_that_no_step_gives_stops_the_job_before_it_starts(toys):
    say = toys.component("say", "pathlib.Path(args.out).write_text('x')")
    done = toys.run(toys.job({"said": {"component": say}}, outputs={"words": {"type": "uri_file", "name": "toy"}}))
    assert done.returncode == 2
    assert "outputs.words: no step gives it, so it cannot be registered as 'toy'" in done.stderr


def test_a_job_reads_what_another_one_named(toys):
    make = toys.component("make", "pathlib.Path(args.out).write_text(args.word)", {"word": {"type": "string"}})
    read = toys.component(
        "read", "pathlib.Path(args.out).write_text(pathlib.Path(args.text).read_text() + '!')", {"text": "text"}
    )
    named = {"type": "uri_file", "name": "toy-words"}
    nodes = {"made": {"component": make, "inputs": {"word": "one"}, "outputs": {"out": "${{parent.outputs.words}}"}}}
    first = toys.job(nodes, "first", outputs={"words": named})
    for _ in range(2):  # the second one reuses the step
        done = toys.run(first)
        assert done.returncode == 0, done.stderr
        assert "output words is azureml:toy-words:1\n" in done.stdout
    nodes["made"]["inputs"]["word"] = "two"
    assert "azureml:toy-words:2\n" in toys.run(toys.job(nodes, "second", outputs={"words": named})).stdout

    texts = {version: {"type": "uri_file", "path": f"azureml:toy-words{version}"} for version in (":1", "@latest")}
    nodes = {
        f"read{number}": {"component": read, "inputs": {"text": text}} for number, text in enumerate(texts.values())
    }
    done = toys.run(toys.job(nodes, "reader"), "--name", "reads-named-outputs")
    assert done.returncode == 0, done.stderr
    assert [toys.output("reads-named-outputs", f"read{number}") for number in (0, 1)] == ["one!", "two!"]

    texts[":1"]["path"] = "azureml:toy-words:9"
    nodes["read0"]["inputs"] = {"text": texts[":1"]}
    done = toys.run(toys.job(nodes, "unknown"))
    assert done.returncode == 2
    assert "error: azureml:toy-words:9: this machine has 1, 2, @latest of toy-words" in done.stderr
