"""The gate promotes what learned and rejects what did not: the same cycle on true and on shuffled answers."""

import json
import random
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def node(component: str, **inputs: object) -> dict:
    return {"type": "command", "component": str(ROOT / "components" / component / "component.yml"), "inputs": inputs}


def data(path: Path) -> dict:
    return {"type": "uri_file", "path": str(path)}


def run_job(folder: Path, root: Path, name: str, jobs: dict) -> Path:
    import run

    job = folder / f"{name}.yml"
    settings = {"default_compute": "azureml:cpu-cluster"}
    job.write_text(yaml.safe_dump({"type": "pipeline", "settings": settings, "jobs": jobs}), encoding="utf-8")
    assert run.main(["-f", str(job), "--root", str(root), "--name", name]) == 0
    return root / "jobs" / name


def cycle(train_data: Path, dataset: Path) -> dict:
    """The cycle of pipelines/finetune.py from a training file on."""
    items = data(dataset / "eval_items")
    settings = yaml.safe_load((ROOT / "pipelines" / "presets" / "finetune-tiny.yml").read_text(encoding="utf-8"))[
        "inputs"
    ]
    names = ("method", "learning_rate", "num_train_epochs", "per_device_train_batch_size", "max_length", "seed")
    jobs = {
        "base": node("import_model", model_name="tiny", seed=settings["seed"]),
        "tuned": node(
            "finetune_model",
            base_model="${{parent.jobs.base.outputs.base_model}}",
            train_data=data(train_data),
            validation_data=data(dataset / "validation_data"),
            **{name: settings[name] for name in names},
        ),
    }
    for who, model in (("base", "base.outputs.base_model"), ("tuned", "tuned.outputs.model")):
        answers = {"model": f"${{{{parent.jobs.{model}}}}}", "eval_items": items, "candidate": who}
        jobs[f"{who}_answers"] = node("generate_answers", **answers, max_new_tokens=64, batch_size=32)
        predictions = f"${{{{parent.jobs.{who}_answers.outputs.predictions}}}}"
        jobs[f"{who}_scores"] = node("score_answers", predictions=predictions, eval_items=items)
    jobs["comparison"] = node(
        "compare_candidates",
        baseline_scores="${{parent.jobs.base_scores.outputs.scores}}",
        candidate_scores="${{parent.jobs.tuned_scores.outputs.scores}}",
        eval_items=items,
    )
    jobs["gate"] = node("gate_promotion", comparison="${{parent.jobs.comparison.outputs.comparison}}")
    jobs["registration"] = node(
        "register_model",
        model="${{parent.jobs.tuned.outputs.model}}",
        decision="${{parent.jobs.gate.outputs.decision}}",
        registered_model_name="honesty",
    )
    return jobs


def shuffled(train_data: Path, target: Path) -> Path:
    """The same questions with the answers of other questions of the same language."""
    chats = [json.loads(line) for line in train_data.read_text(encoding="utf-8").splitlines()]
    by_language: dict[str, list[str]] = {}
    for chat in chats:
        by_language.setdefault(chat["language"], []).append(chat["messages"][-1]["content"])
    draw = random.Random(0)
    for answers in by_language.values():
        draw.shuffle(answers)
    for chat in chats:
        chat["messages"][-1]["content"] = by_language[chat["language"]].pop()
    target.write_text("".join(json.dumps(chat, ensure_ascii=False) + "\n" for chat in chats), encoding="utf-8")
    return target


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> tuple[Path, Path, Path]:
    """A folder, the store that both cycles share (so the base model is made once), and the data set."""
    folder = tmp_path_factory.mktemp("honesty")
    root = folder / "local"
    jobs = {"dataset": node("prepare_dataset", chats=data(ROOT / "pipelines" / "samples" / "chats.jsonl"), seed=0)}
    return folder, root, run_job(folder, root, "data", jobs) / "dataset"


def decision(outputs: Path) -> tuple[dict, dict]:
    return json.loads((outputs / "gate" / "decision").read_text()), json.loads(
        (outputs / "registration" / "manifest").read_text()
    )


def test_true_answers_are_promoted_and_registered(workplace):
    folder, root, dataset = workplace
    verdict, manifest = decision(run_job(folder, root, "true", cycle(dataset / "train_data", dataset)))
    assert verdict["verdict"] == "promote", verdict["reasons"]
    assert manifest["registered"] is True


def test_shuffled_answers_are_rejected_and_not_registered(workplace):
    folder, root, dataset = workplace
    train_data = shuffled(dataset / "train_data", folder / "shuffled.jsonl")
    verdict, manifest = decision(run_job(folder, root, "shuffled", cycle(train_data, dataset)))
    assert verdict["verdict"] == "reject", verdict["reasons"]
    assert manifest["registered"] is False


def test_no_held_out_question_and_no_held_out_document_was_trained_on(workplace):
    *_, dataset = workplace

    def read(name: str) -> list[dict]:
        return [json.loads(line) for line in (dataset / name).read_text(encoding="utf-8").splitlines()]

    trained = read("train_data") + read("validation_data")
    held_out = read("test_data")
    assert len(held_out) >= 50

    def questions(chats: list[dict]) -> set[str]:
        return {chat["messages"][0]["content"].split("\n\n")[-1].casefold() for chat in chats}

    def documents(chats: list[dict]) -> set[str]:
        return {source for chat in chats for source in chat["source_ids"]}

    assert not questions(trained) & questions(held_out)
    assert not documents(trained) & documents(held_out)
    assert {item["id"] for item in read("eval_items")} == {chat["id"] for chat in held_out}
