"""What is wrong with a job file or a --set, in one line with what to do."""

import re
from pathlib import Path

import pytest

from localml import jobfile
from localml.errors import RunError

PIPELINES = Path(__file__).resolve().parents[2] / "pipelines"
DEMO = PIPELINES / "jobs" / "demo.yml"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("inputs.raw_data.path=my/documents", "nothing there, neither from {here} nor beside the job file; check"),
        ("inputs.raw_data.path=/my/documents", "nothing there; check the path"),
        ("input.raw_data.path=/tmp", "a job has no 'input'; did you mean inputs.raw_data.path?"),
        ("seed=1", "a job has no 'seed'; did you mean inputs.seed?"),
        ("dispaly_name=x", "a job has no 'dispaly_name'; did you mean display_name?"),
        ("xyz=1", "a job has no 'xyz'; its inputs: raw_data, registered_model_name, policy"),
        ("inputs.raw_data.pth=/tmp", "an input has no 'pth'; did you mean inputs.raw_data.path?"),
        ("inputs.raw_dat.path=/tmp", "the job has no input 'raw_dat'; it has: raw_data, registered_model_name"),
    ],
)
def test_set(setting, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError) as caught:
        jobfile.load(DEMO, [setting])
    key = setting if "nothing there" in said else setting.partition("=")[0]
    assert str(caught.value).startswith(f"--set {key}: {said.format(here=tmp_path)}")


@pytest.mark.parametrize(
    "setting",
    [
        "inputs.raw_data.path=../samples",  # beside the job file
        "inputs.raw_data.path=here",
        "inputs.raw_data.path=azureml:documents:1",
        "inputs.raw_data.path=azureml://datastores/mine/paths/documents",
        "outputs.model.path=azureml://datastores/mine/paths/model",
    ],
)
def test_a_path_that_is_there_or_elsewhere(setting, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert jobfile.load(DEMO, [setting])


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("pipelines/presets/demo.yml", "a preset; its job is pipelines/jobs/demo.yml"),
        ("components/collect_documents/component.yml", "a component; a job uses it, see pipelines/jobs"),
        ("components/batch_score/component.yml", "a component; a job uses it, see pipelines/jobs"),
        ("pipelines/components/demo.yml", "a pipeline component; a job uses it, see pipelines/jobs"),
        ("pipelines/schedules/monitor-daily.yml", "a schedule; its job is pipelines/jobs/monitor-azure.yml"),
        ("pipelines/schedules/azure-model-monitor.yml", "a schedule; its job is not in a file"),
    ],
)
def test_what_is_no_job(file, said, monkeypatch):
    monkeypatch.chdir(PIPELINES.parent)
    with pytest.raises(RunError, match=f"^{re.escape(f'{file} is {said}')}$"):
        jobfile.load(Path(file))


def test_a_misspelt_type_of_an_input(tmp_path):
    file = tmp_path / "job.yml"
    file.write_text("type: pipeline\ninputs: {data: {type: uri_fodler, path: x}}\njobs: {}\n")
    with pytest.raises(RunError, match=r"job.yml: inputs.data.type: there is no 'uri_fodler'; there are: uri_file, "):
        jobfile.load(file)
