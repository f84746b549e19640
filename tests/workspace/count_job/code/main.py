"""Counts the words of a file, after a file of the given name has come; logs and registers as a component would."""

import os
import sys
import time
from pathlib import Path

text, wait_for, report, num_words, model = sys.argv[1:]
words = Path(text).read_text().split()
print(f"counting {len(words)} words", flush=True)
known = [os.environ.get(name) for name in ("AZUREML_ARM_WORKSPACE_NAME", "IDENTITY_ENDPOINT", "IDENTITY_HEADER")]
print(f"in workspace {known[0]}, signs in at {known[1]} with a secret: {bool(known[2])}", flush=True)
while wait_for != "nothing" and not Path(wait_for).exists():
    time.sleep(0.05)
(Path(report) / "index.html").write_text("<h1>Words</h1><script>alert(1)</script>")
(Path(report) / "by_length").mkdir()
(Path(report) / "by_length" / "9.txt").write_text("workspace")
Path(num_words).write_text(str(len(words)))
(Path(model) / "word.txt").write_text(max(words, key=len))
if wait_for == "nothing":
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    client, run = MlflowClient(), os.environ["MLFLOW_RUN_ID"]
    client.log_metric(run, "words", len(words))
    try:
        client.create_logged_model(os.environ["MLFLOW_EXPERIMENT_ID"])  # what log_model calls first
    except MlflowException as error:
        print(f"logged model: {error.message.splitlines()[0]}")
    client.create_registered_model("word")
    client.create_model_version("word", source=str(Path(text).parent), run_id=run, tags={"length": "9"})
