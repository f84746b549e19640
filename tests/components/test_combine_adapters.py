"""combine_adapters: a folder for one server, of adapters that were promoted on this base; register_model takes it."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from slmkit import lineage
from slmkit.errors import UserError
from tests import lora_adapters
from tests.components.test_model_registry import in_workspace

SPECS = Path(__file__).resolve().parents[2] / "components" / "deploy_endpoint" / "specs"


@pytest.fixture(scope="module")
def main(load_main):
    load_main("register_model")  # whose release_evidence is included
    return load_main("combine_adapters")


@pytest.fixture
def given(small_model, tmp_path) -> dict:
    """Two adapters, promoted."""
    ports = {"base_model": shutil.copytree(small_model, tmp_path / "base_model"), "adapter_names": "store,billing"}
    for i in (1, 2):
        folder = lora_adapters.write(small_model, tmp_path / f"adapter_{i}", seed=i, r=2 * i)
        data = {"sha256": str(i) * 64}
        made = {"component": "finetune_model", "version": "0.1.0", "parameters": {"lora_r": 2 * i}}
        (folder / "lineage.json").write_text(json.dumps(made | {"inputs": {"train_data": data}}))
        decision = lora_adapters.decide(tmp_path / f"decision_{i}", folder, small_model, candidate=f"tuned-{i}")
        ports |= {f"adapter_{i}": folder, f"decision_{i}": decision}
    return ports


@pytest.fixture
def combine(main, given, tmp_path):
    def run(**changes) -> tuple[Path, dict]:
        model, decision = tmp_path / "model", tmp_path / "decision"
        main.run(main.Args(**(given | {"model": model, "decision": decision} | changes)))
        return model, json.loads(decision.read_text("utf-8"))

    return run


@pytest.fixture
def refused(combine, tmp_path):
    def run(exit_code=1, **changes) -> str:
        with pytest.raises(UserError) as error:
            combine(**changes)
        assert error.value.exit_code == exit_code, error.value
        assert len(str(error.value).splitlines()) == 1
        assert not (tmp_path / "decision").exists()
        assert not any((tmp_path / "model").glob("*")) and "partial" not in str(error.value)
        return str(error.value)

    return run


def test_the_folder_says_what_was_decided_on_each(combine, given):
    given["base_model"].chmod(0o500)  # as a mount may be
    model, decision = combine()
    base_sha256, sha256 = lineage.sha256(given["base_model"]), [lineage.sha256(given[f"adapter_{i}"]) for i in (1, 2)]
    entries = [
        {
            "name": name,
            "r": 2 * i,
            "sha256": sha256[i - 1],
            "model_sha256": lineage.model_sha256(given[f"adapter_{i}"], given["base_model"]),
            "decision_sha256": lineage.sha256(given[f"decision_{i}"]),
            "verdict": "promote",
            "candidate": f"tuned-{i}",
            "baseline": "base",
        }
        for i, name in ((1, "store"), (2, "billing"))
    ]
    assert json.loads((model / "adapters.json").read_text()) == {"base_model_sha256": base_sha256, "adapters": entries}
    assert sorted(path.name for path in model.iterdir()) == [
        *("adapters", "adapters.json", "base", "decisions", "lineage.json"),
    ]
    assert lineage.sha256(model / "base") == base_sha256
    assert [lineage.sha256(model / "adapters" / name) for name in ("store", "billing")] == sha256
    assert lineage.read(model / "adapters" / "billing")["parameters"] == {"lora_r": 4}
    assert (model / "decisions" / "billing.json").read_bytes() == given["decision_2"].read_bytes()
    assert (decision["verdict"], decision["candidate"]) == ("promote", "store, billing")
    assert decision["model_sha256"] == lineage.sha256(model)
    assert [reason["rule"] for reason in decision["reasons"]] == ["adapter store", "adapter billing"]


@pytest.mark.parametrize("verdict", ["reject", "inconclusive"])
def test_what_was_not_promoted_is_refused(refused, given, verdict):
    lora_adapters.decide(given["decision_2"], given["adapter_2"], given["base_model"], verdict=verdict)
    assert f"the verdict on billing is {verdict}" in refused(3)


def test_a_decision_that_contradicts_itself_is_refused(refused, given):
    against = [{"rule": "floor", "outcome": "fail", "text": "too low"}]
    lora_adapters.decide(given["decision_1"], given["adapter_1"], given["base_model"], reasons=against)
    assert "contradicts its own reasons (floor)" in refused(3)


def test_another_adapter_than_was_evaluated_is_refused(refused, given):
    with (given["adapter_1"] / "adapter_model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    assert "not the model that was evaluated as tuned-1" in refused(4)


def test_decisions_in_another_order_are_refused(refused, given):
    swapped = {"decision_1": given["decision_2"], "decision_2": given["decision_1"]}
    assert "not the model that was evaluated" in refused(4, **swapped)


def test_another_base_of_the_same_shapes_is_refused(refused, given):
    with (given["base_model"] / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    assert "not the model that was evaluated" in refused(4)


def test_an_adapter_that_was_evaluated_at_an_endpoint_is_refused(refused, given):
    asked = {"model_sha256": None, "endpoint": "https://elsewhere/v1"}
    lora_adapters.decide(given["decision_1"], given["adapter_1"], given["base_model"], **asked)
    assert "evaluated at https://elsewhere/v1" in refused(4)


def test_the_lineage_of_a_decision_tells_the_adapter_and_the_base(refused, combine, given):
    """As generate_answers writes it beside its predictions, and each later step carries it along."""
    adapter, base = (lineage.sha256(given[port]) for port in ("adapter_1", "base_model"))
    asked = {"component": "generate_answers", "parameters": {"candidate": "tuned-1"}}
    asked["inputs"] = {"model": {"sha256": adapter}, "base_model": {"sha256": base}}
    beside = given["decision_1"].with_name("decision_1.lineage.json")
    beside.write_text(json.dumps({"inputs": {"comparison": {"lineage": asked}}, "parameters": {}}))
    combine()
    asked["inputs"]["base_model"]["sha256"] = "e" * 64
    beside.write_text(json.dumps({"inputs": {"comparison": {"lineage": asked}}, "parameters": {}}))
    for output in ("model", "decision"):
        path = given["decision_1"].with_name(output)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert "not the model that was evaluated" in refused(4)


def test_the_default_rank_is_what_the_server_takes(refused, main, given):
    spec = yaml.safe_load((SPECS / "vllm-multi-lora-gpu" / "deployment.yml").read_text())
    args = spec["environment_variables"]["SERVE_ARGS"].split()
    assert int(args[args.index("--max-lora-rank") + 1]) == main.Args.max_lora_rank
    assert int(args[args.index("--max-loras") + 1]) == main.MAX_ADAPTERS
    assert spec["environment_variables"]["SERVED_MODEL_NAME"] == main.NAME_OF_THE_BASE
    assert "rank 4, and the server takes 3; train billing" in refused(max_lora_rank=3)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("store", "1 names for 2 adapters"),
        ("store,billing,other", "3 names for 2 adapters"),
        ("store,store", "'store' stands there twice"),
        ("store,slm", "'slm', which is the base"),
        ("store,../base", "'../base': lower-case"),
        ("store,", "'': lower-case"),
        ("store,Store", "'Store': lower-case"),
        ("store,a b", "'a b': lower-case"),
        ("store,b=c", "'b=c': lower-case"),
    ],
)
def test_names_tell_the_adapters_apart(refused, names, said):
    assert said in refused(adapter_names=names)


def test_each_adapter_needs_its_decision(refused):
    assert "decision_2 is missing" in refused(decision_2=None)
    assert "adapter_2 is missing" in refused(adapter_2=None)


@pytest.mark.parametrize("name", ["adapter_model.bin", "training_args.bin", "state.PT", "deep/optimizer.pkl", "x.py"])
@pytest.mark.parametrize("port", ["adapter_2", "base_model"])
def test_what_may_run_code_is_refused(refused, given, port, name):
    (given[port] / name).parent.mkdir(exist_ok=True)
    (given[port] / name).write_bytes(b"\x80\x04.")
    assert "may run code" in refused()


def test_incomplete_folders_are_refused(refused, given, tmp_path):
    assert "not a folder" in refused(9, adapter_2=given["decision_2"])
    (given["adapter_2"] / "adapter_config.json").unlink()
    assert "no adapter_config.json, so no adapter" in refused()
    (given["base_model"] / "tokenizer.json").unlink()
    (given["base_model"] / "tokenizer_config.json").unlink()
    assert "no tokenizer" in refused(9)
    assert "no config.json" in refused(9, base_model=given["adapter_1"])


def test_a_base_that_has_an_adapter_itself_is_refused(refused, given):
    shutil.copy(given["adapter_1"] / "adapter_config.json", given["base_model"])
    assert "has an adapter beside the model" in refused()


@pytest.fixture
def register(load_main, combine, monkeypatch, tmp_path):
    workspace = in_workspace(monkeypatch)
    model, _ = combine()

    def run(**changes) -> tuple[dict, str]:
        main = load_main("register_model")
        ports = {"model": model, "decision": tmp_path / "decision", "registered_model_name": "shop"}
        outputs = {"manifest": tmp_path / "manifest", "model_card": tmp_path / "model_card"}
        main.run(main.Args(**(ports | outputs | changes)))
        return json.loads(outputs["manifest"].read_text("utf-8")), outputs["model_card"].read_text("utf-8")

    run.model, run.workspace = model, workspace
    return run


def test_the_folder_is_registered_with_every_decision(register, given):
    manifest, card = register()
    assert manifest["registered"] and manifest["model_sha256"] == lineage.sha256(register.model)
    sha256 = [lineage.sha256(given[f"adapter_{i}"]) for i in (1, 2)]
    assert manifest["adapters"] == {"store": sha256[0], "billing": sha256[1]}
    (created,) = register.workspace.created
    assert created.tags["adapters"] == "store, billing"
    for said in (
        f"| store | `{sha256[0][:16]}` | finetune_model lora_r=2 | 1111111111111111 |",
        f"| billing | `{sha256[1][:16]}` | finetune_model lora_r=4 | 2222222222222222 |",
        "Each adapter was evaluated on the base that stands here",
        "| adapter store | pass | store was promoted as tuned-1 against base |",
        "### billing: promote, tuned-2 against base",
        f"Decision with SHA-256 `{lineage.sha256(given['decision_2'])[:16]}` on",
        "| superiority | pass | the difference is at least +12.3 points |",
    ):
        assert said in card


def test_the_card_says_of_which_adapter_the_data_were_audited(given, request):
    ports = (given[port] for port in ("decision_1", "adapter_1", "base_model"))
    lora_adapters.decide(*ports, candidate="tuned-1", privacy_decision_sha256="b" * 64)
    (given["adapter_2"] / "lineage.json").write_text(json.dumps({"component": "x", "inputs": {}, "parameters": {}}))
    _, card = request.getfixturevalue("register")()
    assert "Not audited" not in card
    assert "- store: the gate saw an audit of the training data, see its rule privacy_verdict below." in card
    assert "- billing: not audited, no privacy decision stands behind it." in card
    assert "| x | not known |" in card


def corrupt(model: Path, name: str) -> None:
    """Change the folder, and the manifest and the decision with it as far as somebody who forges them would."""
    manifest = json.loads((model / "adapters.json").read_text())
    first = manifest["adapters"][0]
    if name == "adapter":
        with (model / "adapters" / "store" / "adapter_model.safetensors").open("ab") as file:
            file.write(b" ")
        first["sha256"] = lineage.sha256(model / "adapters" / "store")
    elif name == "base":
        (model / "base" / "config.json").open("a").write(" ")
        manifest["base_model_sha256"] = lineage.sha256(model / "base")
    elif name == "verdict":
        path = model / "decisions" / "store.json"
        path.write_text(path.read_text().replace("promote", "reject"))
        first["decision_sha256"] = lineage.sha256(path)
    elif name == "one more":
        shutil.copytree(model / "adapters" / "store", model / "adapters" / "other")
    elif name == "one less":
        del manifest["adapters"][0]
    elif name == "not the manifest's":
        (model / "adapters" / "store" / "README.md").write_text("changed")
    elif name == "a path":
        first["name"] = "../adapters/store"
    (model / "adapters.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("name", "exit_code", "said"),
    [
        ("adapter", 4, "not of this adapter on this base"),
        ("base", 4, "not of this adapter on this base"),
        ("verdict", 4, "the verdict is reject"),
        ("one more", 4, "names other adapters than are there"),
        ("one less", 4, "names other adapters than are there"),
        ("not the manifest's", 4, "not what adapters.json says"),
        ("a path", 1, "adapters.0.name"),
        ("folder", 4, "not the folder that was decided on"),
    ],
)
def test_registering_verifies_everything_again(register, tmp_path, name, exit_code, said):
    corrupt(register.model, name)
    if name == "folder":
        (register.model / "base" / "README.md").write_text("changed")
    else:
        decision = json.loads((tmp_path / "decision").read_text())
        decision["model_sha256"] = lineage.sha256(register.model)
        (tmp_path / "decision").write_text(json.dumps(decision))
    with pytest.raises(UserError, match=said) as refused:
        register()
    assert refused.value.exit_code == exit_code
    assert not register.workspace.created


def test_the_decision_on_one_adapter_is_none_on_the_folder(register, given):
    with pytest.raises(UserError, match="is it the output decision of combine_adapters") as refused:
        register(decision=given["decision_1"])
    assert refused.value.exit_code == 3
