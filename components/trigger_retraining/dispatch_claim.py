"""Which run sends the event of a decision: a tag in MLflow says it, since GitHub keeps no list of events."""

import os
import sys
import time
from typing import Any

from retraining_job import BY_SERVICE

from slmkit.errors import UserError

DECISION, STATE = "retraining_decision_id", "retraining_dispatch"  # plain names, which every store can search for
SENDING, SENT, LEFT = "sending", "sent", "left to another run"
POLL_SECONDS, MAX_SECONDS = 1.0, 120.0
MAX_ATTEMPTS = 4


def claim(decision_id: str) -> str | None:
    """The run that has sent the event; None where it is for this one to send it.

    Each run writes its claim before it looks for others, so of two at once at least one sees the other. A run that was
    opened later takes its claim back before an earlier one; an earlier one waits to see what a later one, which may
    have been alone when it looked, does. A run that has ended otherwise than by sending has no claim, and who has
    waited for it claims anew.
    """
    client, run_id = _open_run()
    if client is None:
        print("no MLflow run is open: nothing tells whether this decision was sent before", file=sys.stderr)
        return None
    try:
        own = client.get_run(run_id)
        if own.data.tags.get(DECISION) == decision_id and own.data.tags.get(STATE) == SENT:
            return run_id
        client.set_tag(run_id, DECISION, decision_id)
        claimed, deadline = False, time.monotonic() + MAX_SECONDS
        while time.monotonic() < deadline:
            others = _others(client, own, decision_id)
            sent = next((run.info.run_id for run in others if _state(run) == SENT), None)
            if sent or any(_opened(run) < _opened(own) for run in others):
                client.set_tag(run_id, STATE, LEFT)
                claimed = False
                if sent:
                    return sent
            elif not claimed:
                client.set_tag(run_id, STATE, SENDING)
                claimed = True
                continue
            elif not others:
                return None
            time.sleep(POLL_SECONDS)
    except Exception as error:  # whatever a store or its plugin raises
        raise UserError(
            f"MLflow does not tell whether this decision was sent before ({type(error).__name__}); start again",
            BY_SERVICE,
        ) from None
    ids = ", ".join(run.info.run_id for run in others)
    raise UserError(f"another run is about to send this event and does not end: {ids}", BY_SERVICE)


def sent() -> bool:
    """Note that this run has sent the event. False if that failed: it is sent all the same, so nothing is raised."""
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            client, run_id = _open_run()
            if client is not None:
                client.set_tag(run_id, STATE, SENT)
            return True
        except Exception as error:  # whatever a store or its plugin raises
            said = type(error).__name__
        if attempt < MAX_ATTEMPTS:
            time.sleep(2.0**attempt)
    print(f"MLflow did not take note that the event is sent ({said}, {MAX_ATTEMPTS} attempts)", file=sys.stderr)
    return False


def _others(client: Any, own: Any, decision_id: str) -> list[Any]:
    """The other runs that have sent the event or are about to."""
    found = client.search_runs([own.info.experiment_id], f"tags.{DECISION} = '{decision_id}'", max_results=100)
    return [
        run
        for run in found
        if run.info.run_id != own.info.run_id
        and (_state(run) == SENT or (_state(run) == SENDING and run.info.status == "RUNNING"))
    ]


def _state(run: Any) -> str | None:
    """As the tag says it; a run that came to its end has sent what it was sending, noted or not."""
    state = run.data.tags.get(STATE)
    return SENT if state == SENDING and run.info.status == "FINISHED" else state


def _opened(run: Any) -> tuple[int, str]:
    return run.info.start_time, run.info.run_id


def _open_run() -> tuple[Any, str]:
    run_id = os.environ.get("MLFLOW_RUN_ID") or os.environ.get("AZUREML_RUN_ID") or ""
    if not run_id or not os.environ.get("MLFLOW_TRACKING_URI"):
        return None, ""
    from mlflow import MlflowClient

    return MlflowClient(), run_id
