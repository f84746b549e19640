"""Jobs of a local workspace by the real client: logs, outputs, assets and pages of one that ran to its end."""

import contextlib
import io
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import requests
from azure.ai.ml import load_job

from localml.workspace import settings

JOB = Path(__file__).resolve().parent / "count_job" / "job.yml"
NAME = "words-1"
pytestmark = pytest.mark.slow  # the one job of all these tests takes its time


@pytest.fixture(scope="module")
def client(workspace):
    return workspace.client()


@pytest.fixture(scope="module")
def streamed(client) -> str:
    """What ``stream`` shows of a job, which has ended then."""
    from azure.ai.ml.operations import _job_ops_helper

    job = load_job(JOB)
    job.name, job.tags = NAME, {"kind": "count"}
    client.jobs.create_or_update(job)
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.MonkeyPatch.context() as patch:
        patch.setattr(_job_ops_helper, "_wait_before_polling", lambda _: 0.2)  # else up to a minute too late
        client.jobs.stream(NAME)
    return out.getvalue()


@pytest.fixture(scope="module")
def page(client, streamed) -> str:
    return client.jobs.get(NAME).studio_url


def read(url: str) -> tuple[int, str, str]:
    """Status, text and content security policy."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, answer.read().decode(), answer.headers["Content-Security-Policy"]
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), error.headers["Content-Security-Policy"]


def test_stream_shows_the_states_of_the_steps(client, streamed):
    assert "▶ count_words" in streamed
    assert "✔ count_words" in streamed
    assert client.jobs.get(NAME).status == "Completed"


def test_what_was_submitted_is_not_shown_twice(workspace, client, streamed):
    shown = client.jobs._get_job(NAME).properties.as_dict()
    assert shown["experimentName"] == "words"
    assert not {"submitted", "process", "started", "output_uris"} & shown.keys()


def test_download_of_all_brings_outputs_and_logs(client, streamed, tmp_path):
    client.jobs.download(NAME, download_path=tmp_path, all=True)
    found = {str(file.relative_to(tmp_path)): file.read_text() for file in tmp_path.rglob("*") if file.is_file()}
    log = found.pop("artifacts/logs/azureml/executionlogs.txt")
    assert "finished" in log
    assert "[count_words]" not in log
    assert "counting 5 words" in found.pop("artifacts/user_logs/count_words/std_log.txt")
    assert found == {
        "named-outputs/report/index.html": "<h1>Words</h1><script>alert(1)</script>",
        "named-outputs/report/by_length/9.txt": "workspace",
        "named-outputs/num_words/num_words": "5",
        "named-outputs/model/word.txt": "workspace",
    }


def test_download_of_one_output(client, streamed, tmp_path):
    client.jobs.download(NAME, download_path=tmp_path, output_name="num_words")
    assert [file.read_text() for file in tmp_path.rglob("*") if file.is_file()] == ["5"]


def test_child_jobs_are_listed_and_found_by_name(client, streamed):
    (child,) = client.jobs.list(parent_job_name=NAME)
    found = client.jobs.get(child.name)
    assert (found.display_name, found.status) == ("count_words", "Completed")


def test_the_log_of_a_step_says_what_azure_does_not_have(workspace, client, streamed):
    details = client.jobs._runs_operations.get_run_details(f"{NAME}_count_words")
    (address,) = details.log_files.values()
    pipeline = client.jobs._requests_pipeline
    text = pipeline.get(address).text()
    assert "counting 5 words" in text
    assert "failed with error code 404" in text.partition("logged model: ")[2]
    assert pipeline.get(f"{address[:-1]}{'0' if address[-1] != '0' else '1'}").status_code == 403


def test_a_step_finds_the_workspace_that_its_job_is_in(workspace, streamed):
    known = workspace.variables
    log = (workspace.root / "workspace" / "jobs" / NAME / "std_log.txt").read_text()
    assert f"in workspace local, signs in at {known['IDENTITY_ENDPOINT']} with a secret: True" in log
    kept = [file for file in (workspace.root / "jobs").rglob("*") if file.is_file()]
    assert kept
    assert not [file for file in kept if known["IDENTITY_HEADER"].encode() in file.read_bytes()]


def test_mlflows_server_answers_nobody_else(workspace, streamed):
    address = f"{settings.read(workspace.root).tracking_url}/api/2.0/mlflow/experiments/get?experiment_id=0"
    for token, status in ((None, 401), ("é", 401), (workspace.variables["MLFLOW_TRACKING_TOKEN"], 200)):
        headers = {"Authorization": f"Bearer {token}".encode()} if token else {}
        assert requests.get(address, headers=headers, timeout=30).status_code == status


def test_named_outputs_are_assets_of_the_workspace(client, streamed):
    assert client.data.get("num-words", label="latest").version == "1"
    assert client.models.get("longest-word", label="latest").type == "custom_model"


def test_a_model_of_mlflows_registry_is_one_of_the_workspace(client, streamed, tmp_path):
    assert client.models.get("word", label="latest").tags == {"length": "9"}
    client.models.download("word", "1", download_path=tmp_path)
    assert [file.read_text() for file in tmp_path.rglob("words.txt")] == ["a workspace on this machine\n"]


def test_archived_jobs_are_listed_when_asked_for(client, streamed):
    from azure.ai.ml.constants import ListViewType

    def names(view: ListViewType) -> list[str]:
        return [job.name for job in client.jobs.list(list_view_type=view)]

    client.jobs.archive(NAME)
    assert NAME not in names(ListViewType.ACTIVE_ONLY)
    assert NAME in names(ListViewType.ARCHIVED_ONLY)
    client.jobs.restore(NAME)
    assert NAME in names(ListViewType.ACTIVE_ONLY)


def test_tags_are_added_to_those_that_are_there(client, streamed):
    assert client.jobs.update(NAME, tags={"seen": "yes"}).tags == {"kind": "count", "seen": "yes"}


def test_the_studio_link_opens_the_steps_and_the_reports(page):
    status, text, policy = read(page)
    assert status == 200
    assert "Words of a file" in text
    assert "count_words" in text
    assert "/outputs/report/index.html" in text
    assert policy.startswith("sandbox")
    before, _, query = page.partition("?")
    assert query.endswith("&tid=00000000-0000-0000-0000-000000000001")
    status, text, policy = read(f"{before}/outputs/report/index.html")
    assert text.startswith("<h1>Words</h1>")
    assert "default-src 'none'" in policy  # so the script does not run
    assert "counting 5 words" in read(f"{before}/logs/count_words")[1]


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("/outputs/report/..%2f..%2fstep.json", 404),
        ("/outputs/report/%2e%2e/%2e%2e/step.json", 404),
        ("/outputs/report//etc/passwd", 404),
        ("/outputs/none/index.html", 404),
        ("/more", 404),
    ],
)
def test_nothing_else_is_shown(page, end, status):
    assert read(page.partition("?")[0] + end)[0] == status


def test_a_page_needs_the_signature_of_its_job(page):
    assert read(page.replace(f"/runs/{NAME}", "/runs/words-2"))[0] == 403
    assert read(page.replace("/runs/", "é/runs/".encode("ascii", "xmlcharrefreplace").decode()))[0] in (403, 404)
