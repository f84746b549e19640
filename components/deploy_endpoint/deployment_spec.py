"""A deployment as specs/ describes it, with what the step fills in; the same YAML for Azure and for this machine."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from slmkit import lineage
from slmkit.errors import UserError

HERE = Path(__file__).parent
SPECS = HERE / "specs"
CHAT_PATH = "/v1/chat/completions"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.txt")
# Azure ML's names for the bodies of requests and responses, and its form of both deployments.
DATA_COLLECTOR = {
    "collections": {"request": {"enabled": "true"}, "response": {"enabled": "true"}},
    "sampling_rate": 1.0,
}
COLLECTS_TAG = "collects_traffic"
PASSED_ON = ("environment_variables", "request_settings", "liveness_probe", "readiness_probe")


@dataclass(frozen=True)
class DeploymentSpec:
    name: str  # of the folder below specs/
    model: Path
    model_uri: str  # as registered
    model_sha256: str
    instance_count: int
    autoscaled: bool
    collects_traffic: bool = False

    @property
    def folder(self) -> Path:
        return SPECS / self.name

    @property
    def deployment(self) -> dict[str, Any]:
        return yaml.safe_load((self.folder / "deployment.yml").read_text(encoding="utf-8"))

    @property
    def autoscale(self) -> dict[str, Any] | None:
        """The rules of autoscale.yml, which must allow ``instance_count``; None where they are not wanted."""
        if not self.autoscaled:
            return None
        path = self.folder / "autoscale.yml"
        rules = yaml.safe_load(path.read_text(encoding="utf-8"))
        for profile in rules["profiles"]:
            low, high = int(profile["capacity"]["minimum"]), int(profile["capacity"]["maximum"])
            if not low <= self.instance_count <= high:
                raise UserError(
                    f"instance_count {self.instance_count}: {path.name} of {self.name} keeps it from {low} to {high}; "
                    "choose one of these, or set autoscale to false"
                )
        return rules

    @property
    def code(self) -> Path | None:
        """The folder with the scoring script; None where a container brings its own server."""
        configured = self.deployment.get("code_configuration")
        return (self.folder / configured["code"]).resolve() if configured else None

    @property
    def served_model_name(self) -> str:
        """What a request names as its model."""
        return self.deployment.get("environment_variables", {}).get("SERVED_MODEL_NAME", "slm")

    @property
    def scoring_path(self) -> str:
        """Where it takes chats: a container on the server's own path, a scoring script on Azure ML's."""
        return "/score" if self.code else CHAT_PATH

    @property
    def takes_adapters(self) -> bool:
        """Whether the model is a folder base/ with LoRA adapters beside it."""
        return "multi-lora" in self.name

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names by which a request picks one of the model's LoRA adapters."""
        return tuple(sorted(path.name for path in (self.model / "adapters").iterdir())) if self.takes_adapters else ()

    def check_model(self) -> None:
        """A folder that no server could load is refused before anything is asked of a service."""
        has_adapters = (self.model / "base").is_dir() and (self.model / "adapters").is_dir()
        if has_adapters != self.takes_adapters:
            needed = "base/ and adapters/, as combine_adapters writes them" if self.takes_adapters else "one model"
            raise UserError(f"{self.model}: deployment_spec {self.name} serves {needed}", exit_code=9)
        if self.takes_adapters and (self.model / "adapters" / self.served_model_name).exists():
            raise UserError(
                f"{self.model}: an adapter has the name of the base, {self.served_model_name} (SERVED_MODEL_NAME of "
                f"deployment_spec {self.name}); a request could not tell them apart",
                exit_code=9,
            )
        folders = [self.model / "base"] if self.takes_adapters else [self.model, *self.model.glob("*/")]
        if not any((folder / name).is_file() for folder in folders for name in TOKENIZER_FILES):
            raise UserError(
                f"{folders[0]}: no tokenizer ({', '.join(TOKENIZER_FILES)}); save it beside the weights and register "
                "again",
                exit_code=9,
            )

    def identity(self) -> dict[str, str]:
        """The tags that tell whether a deployment is this model served by this code with these settings."""
        digest = hashlib.sha256((self.folder / "deployment.yml").read_bytes())
        if self.code:
            digest.update(lineage.sha256(self.code).encode())
        if self.collects_traffic:
            digest.update(json.dumps(DATA_COLLECTOR).encode())
        return {"model_sha256": self.model_sha256, "deployment_sha256": digest.hexdigest()}

    def tags(self) -> dict[str, str]:
        collects = {COLLECTS_TAG: "true"} if self.collects_traffic else {}
        return {**self.identity(), "model_uri": self.model_uri, "deployment_spec": self.name, **collects}

    def local_body(self) -> dict[str, Any]:
        """The deployment in the form of the local endpoint host."""
        deployment = self.deployment
        if self.code:
            script = deployment["code_configuration"]["scoring_script"]
            server = {"kind": "inference_server", "code": str(self.code), "scoring_script": script}
        else:
            server = {"kind": "transformers_serve"}
        return {
            "server": server,
            "model": str(self.model.resolve()),
            "instance_count": self.instance_count,
            "tags": self.tags(),
            **({"data_collector": DATA_COLLECTOR} if self.collects_traffic else {}),
            **{key: deployment[key] for key in PASSED_ON if key in deployment},
        }
