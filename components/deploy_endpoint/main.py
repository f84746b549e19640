"""Deploy a registered model: blue/green in steps, watched, and back to the old deployment at the first failure."""

import json
import re
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import rollout_probes
from deployment_spec import COLLECTS_TAG, DeploymentSpec
from rollout import Plan, Record, Rollout
from rollout_rules import Limits
from rollout_target import Address, Target

from slmkit import cli, lineage, records, tracking
from slmkit.errors import UserError

SPEC = Path(__file__).with_name("component.yml")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{1,30}[A-Za-z0-9]")  # Azure's rule
NOT_REGISTERED, OTHER_MODEL = 3, 4


@dataclass(frozen=True)
class Args:
    model: Path
    manifest: Path
    endpoint_name: str
    endpoint: Path
    report: Path
    target: str = "local"
    deployment_spec: str = "onnx-cpu"
    instance_count: int = 1
    autoscale: bool = True
    traffic_steps: str = "10,50,100"
    mirror_fraction: float = 0.1
    step_seconds: float = 30.0
    min_requests: int = 20
    max_error_fraction: float = 0.01
    max_p95_increase_fraction: float = 1.0
    startup_timeout_seconds: float = 1200.0
    keep_previous: bool = True
    allow_public_network: bool = False
    collect_traffic: bool = False
    max_p95_seconds: float | None = None
    local_port: int | None = None


def run(args: Args) -> dict[str, float]:
    manifest = read_manifest(args.manifest)
    plan = read_plan(args)
    spec = DeploymentSpec(
        args.deployment_spec,
        args.model,
        manifest["uri"],
        manifest["model_sha256"],
        args.instance_count,
        args.autoscale,
        args.collect_traffic,
    )
    spec.check_model()
    check_hash(args.model, manifest)
    _ = spec.autoscale  # which may not allow instance_count
    target = connect(args, spec)
    check_registered(manifest)

    def smoke_test(address: Address) -> tuple[bool, str, Any]:
        check_hash(args.model, manifest)  # again, now that the server has read it
        return rollout_probes.smoke_test(address)

    rollout = Rollout(target, plan, spec.identity(), smoke_test, rollout_probes.probe)
    signal.signal(signal.SIGTERM, stop_once)
    signal.signal(signal.SIGINT, stop_once)
    try:
        rollout.run()
    except BaseException:
        if rollout.record.endpoint is not None:
            try:
                write(args, spec, plan, target, rollout.record)
            except Exception as error:  # why the rollout failed counts more
                print(f"the report could not be written: {' '.join(str(error).split())}", file=sys.stderr)
        raise
    make_champion(manifest)
    write(args, spec, plan, target, rollout.record)
    print(f"{args.endpoint_name}: {rollout.record.green} answers all requests at {rollout.record.endpoint.scoring_uri}")
    return metrics(rollout.record)


def read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}") from None
    if not isinstance(manifest, dict) or "registered" not in manifest or not manifest.get("model_sha256"):
        raise UserError(f"{path}: no registered or model_sha256; is it the manifest of register_model?")
    if manifest["registered"] is not True:
        raise UserError(
            f"{manifest.get('name')}: nothing was registered, so nothing is deployed: {manifest.get('why')}",
            exit_code=NOT_REGISTERED,
        )
    if missing := [key for key in ("name", "version", "uri") if not manifest.get(key)]:
        raise UserError(f"{path}: no {', '.join(missing)}; is it the manifest of register_model?")
    return manifest


def check_hash(model: Path, manifest: dict[str, Any]) -> None:
    sha256 = lineage.sha256(model)
    if sha256 != manifest["model_sha256"]:
        raise UserError(
            f"{model}: not the model that was registered as {manifest['uri']} (SHA-256 {sha256[:16]}, registered: "
            f"{manifest['model_sha256'][:16]}); deploy what register_model was given",
            exit_code=OTHER_MODEL,
        )


def check_registered(manifest: dict[str, Any]) -> None:
    """The registry itself knows this version, with this hash: a manifest is a file, and anybody can write one."""
    import model_registry

    name, version = manifest["name"], str(manifest["version"])
    found = model_registry.find(name, version=version, registry_name=registry_name(manifest))
    if found is None or found.uri != manifest["uri"]:
        raise UserError(
            f"{name} version {version}: the registry has no {manifest['uri']} under this name; run register_model",
            exit_code=NOT_REGISTERED,
        )
    if found.tags.get("model_sha256") != manifest["model_sha256"]:
        raise UserError(
            f"{manifest['uri']}: another model (SHA-256 {str(found.tags.get('model_sha256'))[:16]}) than its manifest "
            f"says ({manifest['model_sha256'][:16]}); run register_model",
            exit_code=OTHER_MODEL,
        )


def registry_name(manifest: dict[str, Any]) -> str | None:
    """The shared registry, where it is not that of the workspace."""
    found = re.match(r"azureml://registries/([^/]+)/", manifest["uri"])
    return found and found[1]


def read_plan(args: Args) -> Plan:
    if not NAME.fullmatch(args.endpoint_name):
        raise UserError(
            f"endpoint_name {args.endpoint_name!r}: 3 to 32 letters, digits and '-', beginning with a letter and not "
            "ending with '-'"
        )
    try:
        steps = tuple(int(step) for step in args.traffic_steps.split(","))
    except ValueError:
        steps = ()
    if not steps or steps[-1] != 100 or steps[0] < 1 or list(steps) != sorted(set(steps)):
        raise UserError(
            f"traffic_steps {args.traffic_steps!r}: rising percentages that end with 100, such as 10,50,100"
        )
    limits = Limits(args.max_error_fraction, args.max_p95_increase_fraction, args.max_p95_seconds, args.min_requests)
    return Plan(
        traffic_steps=steps,
        mirror_percent=round(100 * args.mirror_fraction),
        step_seconds=args.step_seconds,
        startup_timeout_seconds=args.startup_timeout_seconds,
        keep_previous=args.keep_previous,
        limits=limits,
    )


def connect(args: Args, spec: DeploymentSpec) -> Target:
    if args.target == "azure":
        import azure_endpoint

        return azure_endpoint.connect(args.endpoint_name, spec, public=args.allow_public_network)
    from local_endpoint import LocalEndpoint

    return LocalEndpoint(args.endpoint_name, spec, args.local_port)


def stop_once(signum: int, frame: FrameType | None) -> None:
    """A second signal does not disturb the way back that the first one starts."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def write(args: Args, spec: DeploymentSpec, plan: Plan, target: Target, record: Record) -> None:
    """The endpoint and the report, whichever way it ended."""
    import rollout_report

    is_out = record.state == "rolled_out"
    serving = record.green if is_out else record.blue
    tags = spec.tags() if is_out else record.endpoint.deployments.get(serving, {})
    endpoint = {
        "name": args.endpoint_name,
        "target": target.kind,
        "scoring_uri": record.endpoint.scoring_uri,
        "deployment": serving,
        "model": spec.served_model_name,
        "adapters": list(spec.adapters) if is_out else [],
        "model_sha256": tags.get("model_sha256"),
        "collected_traffic": target.traffic_folder if COLLECTS_TAG in tags else None,
        "auth": target.auth,
        "state": record.state,
        "traffic": dict(record.after.live),
    }
    with records.whole_file(args.endpoint) as partial:
        partial.write_text(json.dumps(endpoint, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    with records.whole_folder(args.report) as folder:
        said = json.dumps(rollout_report.as_json(record, plan), ensure_ascii=False, indent=2, default=str)
        (folder / "rollout.json").write_text(said + "\n", encoding="utf-8")
        page = rollout_report.page(args.endpoint_name, record, plan, target)
        (folder / "report.html").write_text(page, encoding="utf-8")
    tracking.log_artifact(args.report)
    tracking.log_metrics(metrics(record))
    tracking.set_tags({"rollout": record.state})
    lineage.write(args, SPEC)


def metrics(record: Record) -> dict[str, float]:
    return {"release/rolled_out": float(record.state == "rolled_out"), "release/rollout_seconds": record.seconds}


def make_champion(manifest: dict[str, Any]) -> None:
    """The version that answers everybody gets the alias; without it the rollout stands all the same."""
    import model_registry

    try:
        model_registry.set_alias(
            manifest["name"], str(manifest["version"]), "champion", registry_name=registry_name(manifest)
        )
    except Exception as error:
        print(f"the alias champion was not moved: {' '.join(str(error).split())}", file=sys.stderr)


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
