"""The schedules load in azure-ai-ml, pass the lint, and become the requests that the service is sent."""

import logging
import warnings
from pathlib import Path

import pytest

import lint

SCHEDULES = Path(__file__).resolve().parents[2] / "pipelines" / "schedules"


@pytest.fixture
def load():
    from azure.ai.ml.entities._load_functions import load_schedule

    def loaded(name):
        logging.getLogger("azure.ai.ml").setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental classes
            return load_schedule(SCHEDULES / name)

    return loaded


def test_all_pass_the_lint():
    files = sorted(SCHEDULES.glob("*.yml"))
    assert [file.stem for file in files] == ["azure-model-monitor", "benchmark-weekly", "monitor-daily"]
    assert [str(finding) for file in files for finding in lint.check(file)] == []


def test_the_monitor_of_each_day(load):
    schedule = load("monitor-daily.yml")
    trigger = schedule._to_rest_object().properties.trigger
    assert (trigger.frequency, trigger.interval, trigger.time_zone) == ("day", 1, "Tokyo Standard Time")
    assert (trigger.schedule.hours, trigger.schedule.minutes) == ([5], [30])
    assert "drift" in schedule.create_job.jobs


def test_each_week_is_a_cycle_of_its_own(load):
    schedule = load("benchmark-weekly.yml")
    assert schedule._validate().passed
    trigger = schedule._to_rest_object().properties.trigger
    assert (trigger.expression, trigger.time_zone) == ("0 3 * * 1", "Tokyo Standard Time")
    job = schedule.create_job
    assert job.inputs["cycle"]._data == "${{creation_context.trigger_time}}"
    # What a job adds to the history is what the next one that is submitted starts from.
    assert job.inputs["earlier_history"].path == f"{job.outputs['history'].name}@latest"


def test_azure_s_own_monitor(load):
    monitor = load("azure-model-monitor.yml")._to_rest_object().properties.action.monitor_definition
    assert monitor.monitoring_target.deployment_id == "azureml:slm-demo-endpoint:blue"
    signals = {name: signal.signal_type for name, signal in monitor.signals.items()}
    assert signals == {"request_drift": "DataDrift", "request_quality": "DataQuality"}
    assert {signal["mode"] for signal in monitor.signals.values()} == {"Enabled"}
    windows = monitor.signals["request_drift"]
    assert (windows.production_data["windowSize"], windows.production_data["windowOffset"]) == ("P1D", "P0D")
    assert (windows.reference_data["windowSize"], windows.reference_data["windowOffset"]) == ("P7D", "P1D")
