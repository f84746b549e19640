"""check_endpoint: a report in any case, exit code 7 for a failed check, and a sign-in only where it may go."""

import json
import time
import types

import pytest

from slmkit.errors import UserError
from tests.components import chat_server


def written(folder, url: str, **more: object):
    path = folder / "endpoint.json"
    path.write_text(json.dumps({"name": "<support>", "scoring_uri": url, "model": "m", "auth": "none", **more}))
    return path


def test_a_good_endpoint_passes_with_a_report(run_component, tmp_path):
    with chat_server.running() as (url, _):
        done = run_component("check_endpoint", endpoint=written(tmp_path, url), report=tmp_path / "report")
    assert done.returncode == 0, done.stderr
    assert "6 of 6 checks passed" in done.stdout
    result = json.loads((tmp_path / "report" / "result.json").read_text())
    assert result["passed"] is True
    assert (result["num_requests"], result["num_failed"], len(result["seconds"])) == (20, 0, 20)
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "&lt;support&gt;" in page
    assert "<support>" not in page
    assert "data:image/svg+xml" in page


def test_a_failed_check_is_exit_code_7_and_one_line(run_component, tmp_path):
    with chat_server.running("5xx") as (url, _):
        done = run_component("check_endpoint", endpoint=written(tmp_path, url), report=tmp_path / "report")
    assert done.returncode == 7
    [line] = [line for line in done.stderr.splitlines() if line.startswith("check_endpoint: error:")]
    assert line.endswith("malformed_body failed: not JSON: expected a status of 4xx, got 500")
    assert json.loads((tmp_path / "report" / "result.json").read_text())["passed"] is False
    assert "malformed_body" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object; give the output endpoint of deploy_endpoint"),
        ('{"scoring_uri": "file:///etc/passwd", "model": "m", "auth": "none"}', "is not the URL of an endpoint"),
        ('{"scoring_uri": "https://x.azure.com/score", "model": "m", "auth": "key"}', "auth is 'key'"),
        ('{"scoring_uri": "https://x.azure.com/score", "model": "m", "auth": []}', "auth is '\\[\\]'"),
        ('{"scoring_uri": "https://x.azure.com/score", "model": "m", "auth": "none", "name": 1}', "name is not a text"),
        ('{"scoring_uri": "https://x/score", "model": "m", "auth": "none", "adapters": "a"}', "adapters is not a list"),
        ('{"scoring_uri": "https://x/score", "model": "m", "auth": "none", "adapters": [1]}', "adapters is not a list"),
        ('{"scoring_uri": "http://x.azure.com/score", "model": "m", "auth": "aad_token"}', "over https only"),
    ],
)
def test_what_is_no_endpoint_is_refused(load_main, tmp_path, content, said):
    main = load_main("check_endpoint")
    path = tmp_path / "endpoint.json"
    path.write_text(content)
    with pytest.raises(UserError, match=said):
        main.run(main.Args(path, tmp_path / "report"))


def test_token_of_azure_ml_over_https_or_on_this_machine_only(load_main, monkeypatch, tmp_path):
    main = load_main("check_endpoint")
    scopes = []

    class Credential:
        def get_token(self, scope: str):
            scopes.append(scope)
            return types.SimpleNamespace(token="secret-token", expires_on=time.time() + 3600)

    monkeypatch.setattr("azure.identity.DefaultAzureCredential", Credential)
    with chat_server.running() as (url, seen):
        args = main.Args(written(tmp_path, url, auth="aad_token"), tmp_path / "report", num_requests=3, concurrency=1)
        metrics = main.run(args)
    assert scopes == ["https://ml.azure.com/.default"]
    assert {headers["Authorization"] for headers in seen} == {"Bearer secret-token"}
    assert metrics["release/check_passed"] == 1.0
    assert 0 < metrics["release/p50_seconds"] <= metrics["release/p95_seconds"]
    assert "secret-token" not in (tmp_path / "report" / "result.json").read_text()
