"""import_model: a model from any source arrives whole and checked; what is not whole is refused in a line."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from slmkit import lineage
from slmkit.errors import UserError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def main(load_main):
    return load_main("import_model")


@pytest.fixture
def given(small_model, tmp_path) -> Path:
    return shutil.copytree(small_model, tmp_path / "given")


@pytest.fixture
def bring_in(main, tmp_path):
    """Run the component in this process on a folder; returns where the model is."""

    def run(folder: Path | None, **flags) -> Path:
        flags.setdefault("model_folder", folder)
        main.run(main.Args(base_model=tmp_path / "out", report=tmp_path / "report", **flags))
        return tmp_path / "out"

    return run


def change(path: Path, **values: object) -> None:
    """Set keys of a JSON file; those that are None are taken out."""
    content = json.loads(path.read_text("utf-8")) | values
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def rewrite_weights(folder: Path, edit) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def split_in_shards(folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="2MB")


def test_folder_is_copied_whole_with_report_and_lineage(run_component, given, tmp_path):
    (given / "pytorch_model.bin").write_bytes(b"pickle")
    (given / "modeling_own.py").write_text("raise SystemExit")
    (given / "consolidated.safetensors").write_bytes(b"the same weights in another form")
    (given / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/else"}')
    (given / "LICENSE.md").write_text("MIT")
    done = run_component("import_model", model_folder=given, base_model=tmp_path / "out", report=tmp_path / "report")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
        *("chat_template.jinja", "LICENSE.md", "lineage.json"),
    }
    assert (tmp_path / "out/model.safetensors").read_bytes() == (given / "model.safetensors").read_bytes()
    first, last = done.stdout.strip().splitlines()
    assert "1,486,976 parameters" in first
    assert last.startswith("training on 4096 tokens")
    page = (tmp_path / "report/report.html").read_text("utf-8")
    assert "Qwen3ForCausalLM" in page
    assert "look at it" not in page
    rows = json.loads((tmp_path / "report/memory.json").read_text("utf-8"))["rows"]
    assert len(rows) == 3 * 2 * 2
    assert rows[0]["gradients"] == 4 * 1_486_976


def test_shards_are_copied_by_their_index(bring_in, given):
    split_in_shards(given)
    shards = {path.name for path in given.glob("*.safetensors")}
    assert len(shards) > 1
    (given / "model-00009-of-00009.safetensors").write_bytes(b"left over from another version")
    out = bring_in(given)
    assert {path.name for path in out.glob("*.safetensors")} == shards


AZURE_LAYOUTS = [
    ("mlflow_model_folder/model", "mlflow_model_folder/components/tokenizer"),
    ("mlflow_model_folder/data/model", "mlflow_model_folder/data/tokenizer"),
    ("Some-Model", "Some-Model"),
]


@pytest.mark.parametrize(("weights", "tokenizer"), AZURE_LAYOUTS)
@pytest.mark.parametrize("port", ["model_folder", "mlflow_model"])
def test_assets_of_azure_registries(bring_in, given, tmp_path, weights, tokenizer, port):
    asset = tmp_path / "asset"
    for folder in (weights, tokenizer):
        (asset / folder).mkdir(parents=True, exist_ok=True)
    for path in given.iterdir():
        of_model = path.name in ("config.json", "generation_config.json", "model.safetensors")
        shutil.move(path, asset / (weights if of_model else tokenizer))
    (asset / "MLmodel").write_text("flavors: {}")
    if "data" in weights:  # as the older flavor does
        (asset / "mlflow_model_folder/data/config").mkdir()
        shutil.copy(asset / weights / "config.json", asset / "mlflow_model_folder/data/config")
    out = bring_in(None, **{port: asset})
    assert {"model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"} <= {
        path.name for path in out.iterdir()
    }


def cached_on_this_machine(given: Path, home: Path) -> None:
    """The hub's cache: blobs, and a snapshot of links to them under the name of the commit."""
    repository = home / "hub/models--owner--name"
    snapshot = repository / "snapshots" / COMMIT
    for folder in (repository / "blobs", repository / "refs", snapshot):
        folder.mkdir(parents=True)
    (repository / "refs/main").write_text(COMMIT)
    for path in given.iterdir():
        shutil.move(path, repository / "blobs" / path.name)
        (snapshot / path.name).symlink_to(Path("../../blobs") / path.name)


def test_hub_model_names_its_commit(bring_in, given, tmp_path, monkeypatch, capsys):
    cached_on_this_machine(given, tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    out = bring_in(None, model_name="owner/name")
    said = capsys.readouterr().out
    assert f"revision main is commit {COMMIT} today; give revision={COMMIT} to get the same weights again" in said
    assert f"owner/name at {COMMIT}: 1,486,976 parameters" in said
    assert lineage.read(out)["parameters"]["revision"] == COMMIT
    assert not (out / "model.safetensors").is_symlink()
    bring_in(None, model_name="owner/name", revision=COMMIT)
    assert "today" not in capsys.readouterr().out


def test_snapshot_of_the_cache_as_a_folder(bring_in, given, tmp_path):
    cached_on_this_machine(given, tmp_path)
    out = bring_in(tmp_path / "hub/models--owner--name/snapshots" / COMMIT)
    assert (out / "model.safetensors").stat().st_size > 10**6


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("owner/no-such-model", "hf download owner/no-such-model --revision main --local-dir FOLDER"),
        ("not an id", "is no Hugging Face id"),
        ("azureml://registries/azureml/models/Phi-4/versions/1", "(azureml:...) as model_folder"),
    ],
)
def test_unknown_name_offline_is_one_line(run_component, tmp_path, name, expected):
    done = run_component(
        "import_model",
        model_name=name,
        base_model=tmp_path / "out",
        report=tmp_path / "report",
        env={"HF_HUB_OFFLINE": "1", "HF_HOME": tmp_path},
    )
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert name in done.stderr
    assert expected in done.stderr


def test_full_disk_is_named_and_leaves_nothing(given, tmp_path, root):
    main = root / "components/import_model/main.py"
    outputs = ["--base_model", tmp_path / "out", "--report", tmp_path / "report"]
    done = subprocess.run(
        [sys.executable, main, "--model_folder", given, *outputs],
        env={**os.environ, "PYTHONPATH": str(root / "components/_shared")},
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20)),
    )
    assert done.returncode == 1
    assert f"File too large: {tmp_path}/out" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def lose_a_shard(folder: Path) -> None:
    split_in_shards(folder)
    max(folder.glob("*.safetensors")).unlink()


def name_a_file_outside(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../model.safetensors"}}')


def link_outside(folder: Path) -> None:
    secret = folder.parent / "secret.json"
    secret.write_text("{}")
    (folder / "special_tokens_map.json").symlink_to(secret)


def two_models(folder: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(folder, folder / name, ignore=shutil.ignore_patterns("a", "b"))
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()


def only_an_adapter(folder: Path) -> None:
    (folder / "config.json").rename(folder / "adapter_config.json")


def add_tokens(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(folder)


def shorten_the_embedding(weights: dict) -> None:
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][:100].clone()


def diverge(weights: dict) -> None:
    weights["model.layers.1.mlp.up_proj.weight"].fill_(float("nan"))


def lose_a_tensor(weights: dict) -> None:
    del weights["model.layers.1.mlp.up_proj.weight"]


def edited(edit):
    return lambda folder: rewrite_weights(folder, edit)


def config(**values: object):
    return lambda folder: change(folder / "config.json", **values)


OWN_CODE = {"AutoConfig": "configuration_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnModel"}
REFUSED = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "no config.json here or in a folder below"),
    "config is no JSON": (lambda folder: (folder / "config.json").write_text("{"), "config.json is not JSON"),
    "config is a list": (lambda folder: (folder / "config.json").write_text("[]"), "is not a JSON object"),
    "unknown kind": (config(model_type="no_such_model"), "cannot read the model"),
    "own code": (config(model_type="own", auto_map=OWN_CODE), "the Python code that it brings .auto_map. is not run"),
    "quantized": (config(quantization_config={"quant_method": "gptq"}), "its weights are quantized"),
    "too many layers": (config(num_hidden_layers=10**9), "1000000000 layers by config.json, and only 35 tensors"),
    "two models": (two_models, r"more than one model \(a, b\)"),
    "only an adapter": (only_an_adapter, "an adapter without its base model"),
    "cut short": (cut, "model.safetensors is damaged or cut short"),
    "pickled": (lambda folder: (folder / "model.safetensors").rename(folder / "model.bin"), "no safetensors weights"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "no model.safetensors, and no"),
    "shard is missing": (lose_a_shard, "of its index is missing; copy the whole model"),
    "index names a file outside": (name_a_file_outside, r"names '../model.safetensors', which is no"),
    "index without a map": (
        lambda folder: (folder / "model.safetensors.index.json").write_text("{}"),
        "no weight_map",
    ),
    "link outside": (link_outside, "special_tokens_map.json is a link that leads out"),
    "NaN": (edited(diverge), "model.layers.1.mlp.up_proj.weight in model.safetensors holds NaN"),
    "tensor is missing": (edited(lose_a_tensor), "lack 1 parameters of Qwen3ForCausalLM"),
    "shape": (edited(shorten_the_embedding), r"embed_tokens.weight is \[100, 128\] in the weights and \[7575, 128\]"),
    "no tokenizer": (lambda folder: (folder / "tokenizer_config.json").unlink(), "no tokenizer_config.json"),
    "tokenizer is no tokenizer": (lambda folder: (folder / "tokenizer.json").write_text("{}"), "cannot read the model"),
    "more tokens than rows": (add_tokens, "the tokenizer has 7576 tokens and the embedding 7575 rows"),
    "special id too large": (
        lambda folder: change(folder / "generation_config.json", eos_token_id=[7574, 32000]),
        "eos_token_id 32000 of generation_config.json is outside the embedding of 7575 rows",
    ),
    "no eos": (lambda folder: change(folder / "tokenizer_config.json", eos_token=None), "no eos_token"),
    "no chat template": (lambda folder: (folder / "chat_template.jinja").unlink(), "has no chat template"),
    "template is no template": (
        lambda folder: (folder / "chat_template.jinja").write_text("{% for %}"),
        "cannot render a question and an answer",
    ),
    "template loses the answer": (
        lambda folder: (folder / "chat_template.jinja").write_text("{{ messages[0].content + messages[-2].content }}"),
        "loses what the assistant says",
    ),
}


@pytest.mark.parametrize(("spoil", "expected"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_whole_model_is_refused_and_leaves_nothing(bring_in, given, tmp_path, spoil, expected):
    spoil(given)
    with pytest.raises(UserError, match=expected):
        bring_in(given)
    assert list((tmp_path / "out").iterdir()) == []
    assert not (tmp_path / "report").exists()


def test_two_sources_are_refused(bring_in, given):
    with pytest.raises(UserError, match="both model_folder and mlflow_model"):
        bring_in(given, mlflow_model=given)


def test_own_code_is_left_out_where_transformers_has_the_class(bring_in, given, capsys):
    change(given / "config.json", auto_map=OWN_CODE)
    (given / "modeling_own.py").write_text("raise SystemExit")
    assert not (bring_in(given) / "modeling_own.py").exists()
    assert "the Python code" not in capsys.readouterr().out


def test_own_code_runs_when_it_is_trusted_and_is_told(run_component, given, tmp_path):
    change(given / "config.json", model_type="own", auto_map=OWN_CODE)
    (given / "configuration_own.py").write_text(
        "from transformers import Qwen3Config\nclass OwnConfig(Qwen3Config):\n    model_type = 'own'\n"
    )
    (given / "modeling_own.py").write_text(
        "from transformers import Qwen3ForCausalLM\nfrom .configuration_own import OwnConfig\n"
        "class OwnModel(Qwen3ForCausalLM):\n    config_class = OwnConfig\n"
    )
    outputs = {"base_model": tmp_path / "out", "report": tmp_path / "report"}
    home = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    done = run_component("import_model", model_folder=given, trust_remote_code=True, **outputs, env=home)
    assert done.returncode == 0, done.stderr
    assert "remote code: the Python code that the model brings was run" in done.stdout
    assert (tmp_path / "out/modeling_own.py").is_file()
    assert lineage.read(tmp_path / "out")["parameters"]["trust_remote_code"] is True
