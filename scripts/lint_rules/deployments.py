"""Rules for deployments: what they run, how long they may take, and how they are probed."""

from lint_rules.documents import Document
from lint_rules.rule import Found, is_count, rule

MIN_TIMEOUT_MS, MAX_TIMEOUT_MS = 1_000, 180_000
PROBES = ("liveness_probe", "readiness_probe", "startup_probe")


@rule("online_deployment")
def request_timeout(document: Document) -> Found:
    """a request timeout over 180 s, where Azure cuts off, or under 1 s, where seconds were meant"""
    for key in ("request_timeout_ms", "max_queue_wait_ms"):
        value = document.at("request_settings", key)
        if value is None:
            continue
        least = MIN_TIMEOUT_MS if key == "request_timeout_ms" else 0
        if not is_count(value) or not least <= value <= MAX_TIMEOUT_MS:
            yield (
                ("request_settings", key),
                f"{value!r:.20} ms; write {least} to {MAX_TIMEOUT_MS} (milliseconds: Azure cuts off after 180 s)",
            )


@rule()
def instance_count(document: Document) -> Found:
    """an instance_count below 1"""
    for where, value in document.everything():
        if where and where[-1] == "instance_count" and is_count(value) and value < 1:
            yield where, f"{value} instances serve nobody; write 1 or more, or take the traffic and the deployment away"


@rule("online_deployment", "batch_deployment")
def inline_environment(document: Document) -> Found:
    """a deployment that describes its environment in place, which nobody registered"""
    if isinstance(document.at("environment"), dict):
        yield ("environment",), "an inline environment; register it and write azureml:NAME:VERSION"


@rule()
def variable_type(document: Document) -> Found:
    """an environment variable that is not a string, so that YAML decides what the process reads"""
    for where, value in document.everything():
        if len(where) > 1 and where[-2] == "environment_variables" and not isinstance(value, str):
            yield where, f"a {type(value).__name__}, not a string; write in quotes what the process should read"


@rule("online_deployment")
def probe(document: Document) -> Found:
    """a probe with numbers that make no sense"""
    for name in PROBES:
        settings = document.mapping(name)
        for key, value in settings.items():
            least = 0 if key == "initial_delay" else 1
            if not is_count(value) or value < least:
                yield (name, key), f"{value!r:.20}; write {least} or more"
        period, timeout = settings.get("period", 10), settings.get("timeout", 2)
        if is_count(period) and is_count(timeout) and timeout > period > 0:
            yield (
                (name, "timeout" if "timeout" in settings else "period"),
                f"a probe waits {timeout} s and the next is due after {period} s; make the timeout the shorter one",
            )
        if name != "readiness_probe" and settings.get("success_threshold", 1) != 1:
            yield (name, "success_threshold"), "must be 1 for this probe, as Kubernetes has it; write 1"
