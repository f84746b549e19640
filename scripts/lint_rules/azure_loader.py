"""What azure-ai-ml's own loader says about a file, as the same kind of finding."""

import json
import logging
import re
import warnings
from collections.abc import Iterator
from typing import Any

from lint_rules.documents import Document
from slmkit.checked_files import Location

# The newer forms, with settings of their own; by the type that they have to give.
BATCH_DEPLOYMENTS = {"model": "load_model_batch_deployment", "pipeline": "load_pipeline_component_batch_deployment"}
# Pipeline jobs are left to pipeline_jobs.py, and those of presets to the tests: loading all takes twenty seconds.
LOADERS = {
    "online_endpoint": "load_online_endpoint",
    "online_deployment": "load_online_deployment",
    "batch_endpoint": "load_batch_endpoint",
    "batch_deployment": "load_batch_deployment",
    "compute": "load_compute",
    "connection": "load_connection",
    "component": "load_component",
    "environment": "load_environment",
    "model": "load_model",
    "data": "load_data",
    "schedule": "load_schedule",
    "workspace": "load_workspace",
    "registry": "load_registry",
    "datastore": "load_datastore",
}


def refusals(document: Document) -> Iterator[tuple[Location, str]]:
    """Nothing for a kind that it has no loader for."""
    if document.kind not in LOADERS:
        return
    from azure.ai.ml.entities import _load_functions  # load_schedule stands nowhere else

    logging.getLogger("azure.ai.ml").setLevel(logging.ERROR)
    loader = LOADERS[document.kind]
    if document.kind == "batch_deployment":
        loader = BATCH_DEPLOYMENTS.get(str(document.at("type")), loader)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental classes
            entity = getattr(_load_functions, loader)(document.path)
            result = None
            if "create_monitor" in document.content:
                entity._to_rest_object()  # it has no _validate, and looks at its values here
            elif document.kind in ("component", "schedule"):
                result = entity._validate()
    except Exception as error:  # whatever it raises is its refusal
        hides = isinstance(error, NotImplementedError) and error.__context__  # as it does for a monitor
        cause = error.__context__ if hides else error
        yield from _said(str(cause).strip() or type(cause).__name__)
        return
    for place, message in (result.error_messages if result else {}).items():
        yield tuple(str(place).split(".")), f"{place}: {message}"


def _said(text: str) -> Iterator[tuple[Location, str]]:
    """Its JSON of messages by key, without the advice to visit a web page around that."""
    text = re.sub(r"\x1b\[\d*m", "", text)
    try:
        messages = json.JSONDecoder().raw_decode(text, text.index("{"))[0]
    except ValueError:
        yield (), f"{text:.300}"
        return
    if isinstance(errors := messages.get("errors"), list) and "result" in messages:  # the same once more, in JSON
        for error in errors:
            yield from _said(str(error.get("message")))
        return
    for where, message in _leaves(messages):
        yield where, f"{'.'.join(map(str, where)) or 'the file'}: {message:.300}; $schema says what is allowed"


def _leaves(messages: Any, where: Location = ()) -> Iterator[tuple[Location, str]]:
    if isinstance(messages, dict):
        for key, inner in messages.items():
            is_of_loader = key == "_schema" or messages.keys() == {"value"}  # no key of the file
            yield from _leaves(inner, where if is_of_loader else (*where, key))
    elif isinstance(messages, list) and not all(isinstance(message, str) for message in messages):
        # One for each form that is allowed: the one whose type it is, else the last, which is the written-out one.
        fitting = [form for form in messages if isinstance(form, dict) and "type" not in form]
        yield from _leaves((fitting or messages)[-1], where)
    else:
        said = " ".join(messages) if isinstance(messages, list) else str(messages)
        yield where, " ".join(said.split())
