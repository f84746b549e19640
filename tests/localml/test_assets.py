"""What an asset that is not on this machine is made by."""

import pytest

from localml.assets import Assets
from localml.errors import RunError


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("azureml:slm-demo@latest", "is not on this machine; run pipelines/jobs/demo.yml first, or add 'azureml:slm-"),
        ("azureml:slm-demo:1", "is not on this machine; run pipelines/jobs/demo.yml first, or add"),
        ("azureml:slm-demo-eval-items@latest", "is not on this machine; run pipelines/jobs/demo.yml first, or add"),
        ("azureml:slm-demo-monitor-window@latest", "is not on this machine; run pipelines/jobs/baseline-local.yml fir"),
        ("azureml:my-docs:1", "is not on this machine; add 'azureml:my-docs:1: <local path>' to"),
        ("azureml:my-docs", "write a version: azureml:my-docs:1 or azureml:my-docs@latest"),
    ],
)
def test_what_to_do(reference, said, tmp_path):
    with pytest.raises(RunError) as caught:
        Assets(tmp_path, tmp_path / "assets.yml", tmp_path).resolve("inputs.data", reference)
    assert str(caught.value).replace(": write", " write").startswith(f"inputs.data: {reference} {said}")
