"""Schedules of the local workspace, by azure-ai-ml: kept, switched off and on, listed, and refused."""

import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError


@pytest.fixture(scope="module")
def client(workspace):
    from azure.ai.ml.constants._common import LROConfigurations

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LROConfigurations, "POLL_INTERVAL", 0.2)
        yield workspace.client()


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A pipeline of one small step."""
    from azure.ai.ml import load_component
    from azure.ai.ml.entities import PipelineJob

    folder = tmp_path_factory.mktemp("scheduled")
    (folder / "component.yml").write_text(
        "name: says_hello\nversion: 0.1.0\ntype: command\ncommand: echo hello\nenvironment: {image: image}\n"
    )
    return PipelineJob(
        jobs={"hello": load_component(folder / "component.yml")()}, settings={"default_compute": "cpu-cluster"}
    )


def schedule(job, name="nightly", **trigger):
    from azure.ai.ml.entities import CronTrigger, JobSchedule

    given = {"expression": "0 3 * * 1-5", "time_zone": "Tokyo Standard Time"} | trigger
    return JobSchedule(name=name, trigger=CronTrigger(**given), create_job=job, tags={"team": "slm"})


def test_a_schedule_is_switched_off_and_on_and_deleted(client, job):
    made = client.schedules.begin_create_or_update(schedule(job)).result()
    assert made.is_enabled
    found = client.schedules.get("nightly")
    assert (found.trigger.expression, found.trigger.time_zone) == ("0 3 * * 1-5", "Tokyo Standard Time")
    assert found.tags == {"team": "slm"}
    assert list(found.create_job.jobs) == ["hello"]

    client.schedules.begin_disable("nightly").result()
    assert not client.schedules.get("nightly").is_enabled
    views = {
        view: [each.name for each in client.schedules.list(list_view_type=view)]
        for view in ("EnabledOnly", "DisabledOnly", "All")
    }
    assert views == {"EnabledOnly": [], "DisabledOnly": ["nightly"], "All": ["nightly"]}
    client.schedules.begin_enable("nightly").result()
    assert [each.name for each in client.schedules.list()] == ["nightly"]

    with pytest.raises(HttpResponseError, match="disable it first"):
        client.schedules.begin_delete("nightly").result()
    client.schedules.begin_disable("nightly").result()
    client.schedules.begin_delete("nightly").result()
    with pytest.raises(ResourceNotFoundError):
        client.schedules.get("nightly")


@pytest.mark.parametrize(
    ("trigger", "said"),
    [
        ({"expression": "0 25 * * *"}, "'25' is not within 0 to 23"),
        ({"expression": "0 3 * *"}, "five fields"),
        ({"expression": "*/0 3 * * *"}, r"'\*/0' is not within"),
        ({"expression": "0 3 31-40 * *"}, "'31-40' is not within 1 to 31"),
    ],
)
def test_a_schedule_with_no_time_is_refused(client, job, trigger, said):
    with pytest.raises(HttpResponseError, match=said) as refused:
        client.schedules.begin_create_or_update(schedule(job, **trigger)).result()
    assert refused.value.error.code == "UserError"
