"""From raw documents to data sets: what the audit does not pass gets no further, and no personal data get in."""

import csv
import json
from pathlib import Path

import pytest
import yaml

from localml.runner import StepError
from localml.session import run_pipeline
from pipelines.synthesize import synthesize

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "pipelines" / "samples" / "documents"
COLUMNS = (("en", "utf-8-sig", "Phone"), ("ja", "cp932", "電話番号"), ("ko", "utf-8", "전화번호"))
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run the pipeline at the values of its preset; other values by name."""
    from azure.ai.ml import Input

    root = tmp_path_factory.mktemp("local")
    preset = ROOT / "pipelines" / "presets" / "synthesize-embedded.yml"
    settings = yaml.safe_load(preset.read_text(encoding="utf-8"))["inputs"]

    def run_once(name, **others):
        values = {**settings, **others}
        given = {key: Input(**value) if isinstance(value, dict) else value for key, value in values.items()}
        return run_pipeline(synthesize(**given), folder=preset.parent, root=root, name=name)

    run_once.root = root
    return run_once


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def telephones() -> set[str]:
    """As they stand in the samples."""
    found = set()
    for language, encoding, column in COLUMNS:
        with (SAMPLES / f"community-centers-{language}.csv").open(encoding=encoding, newline="") as rows:
            found |= {row[column] for row in csv.DictReader(rows)}
    return found - {""}


def test_the_data_sets_hold_what_was_audited_and_nothing_private(run):
    outcome = run("all")
    step = outcome.folder
    rows = [row for name in ("train_data", "validation_data", "test_data") for row in read(outcome.outputs[name])]
    decision = json.loads((step / "audit" / "decision").read_text(encoding="utf-8"))
    assert decision["verdict"] == "pass"
    approved = {row["id"] for row in read(step / "audit" / "approved_data")}
    assert {row["id"] for row in rows} <= approved and len(rows) > 0.9 * len(approved) > 900
    assert {row["origin"] for row in rows} == {
        *("coverage_seed", "synthesized_evolve", "synthesized_persona", "synthesized_taxonomy")
    }
    assert {row["language"] for row in rows} == {"en", "ja", "ko"}
    private, text = telephones(), json.dumps(rows, ensure_ascii=False)
    assert len(private) > 200 and not [number for number in private if number in text]
    held_out = {row["id"] for row in read(step / "collection" / "held_out_documents")}
    assert held_out and not held_out & {source for row in rows for source in row["source_ids"]}
    coverage = json.loads((step / "seeds" / "report" / "report.json").read_text(encoding="utf-8"))
    assert "coverage" in json.dumps(coverage)
    for report in ("privacy_report", "coverage_report", "dataset_report"):
        page = outcome.outputs[report]
        page = page / "report.html" if page.is_dir() else page
        assert "<html" in page.read_text(encoding="utf-8")


def test_what_fails_the_audit_gets_no_further(run, tmp_path):
    policy = tmp_path / "policy.yml"
    policy.write_text("verbatim: {intended_copying: []}\n")  # then no record may quote its source
    with pytest.raises(StepError, match="audit"):
        run("refused", privacy_policy={"type": "uri_file", "path": str(policy)})
    assert not (run.root / "jobs" / "refused" / "dataset").exists()
    (report,) = run.root.glob("work/*/outputs/report/report.html")
    assert "copy 80 characters" in report.read_text(encoding="utf-8")
