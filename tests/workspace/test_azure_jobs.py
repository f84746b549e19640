"""From documents to a managed endpoint and its monitor: the jobs that Azure runs, in the local workspace."""

import json
from pathlib import Path

import pytest

import register
import submit
import workspace_client

JOBS = Path(__file__).resolve().parent.parent.parent / "pipelines" / "jobs"
pytestmark = [pytest.mark.slow, pytest.mark.submission]


def test_the_demo_and_the_azure_jobs_after_it_run_to_their_end(workspace, tmp_path, capsys, monkeypatch):
    """As README says."""
    client = workspace.client()
    monkeypatch.setattr(workspace_client, "connect", lambda args, registry=None: client)

    def run(name: str, *flags: str) -> None:
        code = submit.main(["--file", str(JOBS / f"{name}.yml"), "--name", f"whole-{name}", "--stream", *flags])
        assert code == 0, capsys.readouterr().err
        assert {step.status for step in client.jobs.list(parent_job_name=f"whole-{name}")} == {"Completed"}

    run("demo", "--download", "report", "--download-path", str(tmp_path))
    (report,) = tmp_path.rglob("report.html")
    assert "<title>tuned against base" in report.read_text(encoding="utf-8")
    assert client.models.get("slm-demo", label="latest").version == "1"  # so it was promoted
    assert register.main(["--only", "slm-serve"]) == 0
    try:
        run(
            "release-azure-cpu",
            "--set",
            "inputs.step_seconds=3",
            "inputs.min_requests=5",
            "inputs.collect_traffic=true",
        )
        assert client.online_endpoints.get("slm-demo-endpoint").traffic == {"blue": 100}
        run("baseline-azure", "--set", "inputs.settle_seconds=0", "inputs.num_canaries=20")
        run("monitor-azure", "--set", "inputs.settle_seconds=0")
    finally:
        client.online_endpoints.begin_delete("slm-demo-endpoint").result()
    client.jobs.download("whole-monitor-azure", output_name="decision", download_path=tmp_path)
    (decision,) = tmp_path.rglob("named-outputs/decision/*")
    assert json.loads(decision.read_text())["signals"]["llm_drift"] == "none"
