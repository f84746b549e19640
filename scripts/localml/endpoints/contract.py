"""What the control API takes and refuses, in Azure ML's own words."""

from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

# Azure's rule for endpoints and deployments; what passes is safe as the name of a folder.
_NAME = r"^[A-Za-z][A-Za-z0-9-]{1,30}[A-Za-z0-9]$"
Name = Annotated[str, StringConstraints(pattern=_NAME)]
Percent = Annotated[int, Field(ge=0, le=100, strict=True)]
Seconds = Annotated[float, Field(gt=0, le=3600)]
MAX_MIRROR_PERCENT = 50


class ApiError(Exception):
    """A refusal: an HTTP status, a code to tell it by, and one line."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    def body(self) -> dict:
        """Azure's form of an error."""
        return {"error": {"code": self.code, "message": self.message}}


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=(), frozen=True)


class Named(_Body):
    name: Name


class EndpointBody(_Body):
    port: Annotated[int, Field(ge=1024, le=65535, strict=True)] | None = None
    tags: dict[str, str] = {}


class Probe(_Body):
    initial_delay: Annotated[float, Field(ge=0, le=3600)] = 10
    period: Seconds = 10
    timeout: Seconds = 2
    failure_threshold: int = Field(default=30, ge=1, le=1000)
    success_threshold: int = Field(default=1, ge=1, le=100)

    @property
    def deadline(self) -> float:
        """The seconds after its start in which a server must have answered."""
        return self.initial_delay + self.period * self.failure_threshold


class RequestSettings(_Body):
    request_timeout_ms: int = Field(default=5000, ge=1, le=180_000)
    max_concurrent_requests_per_instance: int = Field(default=1, ge=1, le=1000)
    max_queue_wait_ms: int = Field(default=500, ge=0, le=180_000)


class InferenceServer(_Body):
    kind: Literal["inference_server"]
    code: Path
    scoring_script: str

    @field_validator("scoring_script")
    @classmethod
    def _inside(cls, value: str) -> str:
        path = PurePosixPath(value)
        if path.is_absolute() or ".." in path.parts or path.suffix != ".py":
            raise ValueError("must be a .py file inside the code folder")
        return value


class TransformersServe(_Body):
    kind: Literal["transformers_serve"]


class Command(_Body):
    """Any other server; ``{port}`` and ``{model}`` in its arguments are filled in."""

    kind: Literal["command"]
    command: Annotated[list[str], Field(min_length=1)]
    scoring_path: Annotated[str, StringConstraints(pattern=r"^/[\w./-]*$")] = "/v1/chat/completions"
    liveness_path: Annotated[str, StringConstraints(pattern=r"^/[\w./-]*$")] = "/health"


_LowerCase = BeforeValidator(lambda value: str(value).lower())  # Azure ML takes True, "True" and "true"


class Collection(_Body):
    enabled: Annotated[Literal["true", "false"], _LowerCase]

    @property
    def is_enabled(self) -> bool:
        return self.enabled == "true"


class DataCollector(_Body):
    """What is logged of a deployment's requests; collections of a scoring script's own are Azure's alone."""

    collections: Annotated[dict[Literal["request", "response"], Collection], Field(min_length=1)]
    sampling_rate: Annotated[float, Field(ge=0, le=1)] = 1.0
    rolling_rate: Annotated[Literal["minute", "hour", "day"], _LowerCase] = "hour"


Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class DeploymentBody(_Body):
    server: Annotated[InferenceServer | TransformersServe | Command, Field(discriminator="kind")]
    model: Path
    environment_variables: dict[Variable, str] = {}
    instance_count: int = Field(default=1, ge=1, le=32)
    request_settings: RequestSettings = RequestSettings()
    liveness_probe: Probe = Probe()
    readiness_probe: Probe = Probe()
    data_collector: DataCollector | None = None
    tags: dict[str, str] = {}


class TrafficBody(_Body):
    traffic: dict[str, Percent]
    mirror_traffic: dict[str, Percent] = {}

    @model_validator(mode="after")
    def _sums(self) -> "TrafficBody":
        if sum(self.traffic.values()) not in (0, 100):
            raise ValueError(f"traffic: the percentages add up to {sum(self.traffic.values())}, not to 0 or 100")
        mirrors = [percent for percent in self.mirror_traffic.values() if percent]
        if len(mirrors) > 1:
            raise ValueError("mirror_traffic: one deployment only")
        if sum(mirrors) > MAX_MIRROR_PERCENT:
            raise ValueError(f"mirror_traffic: at most {MAX_MIRROR_PERCENT} percent")
        return self


class MetricTrigger(_Body):
    metric_name: Literal[
        "CpuUtilizationPercentage",
        "GpuUtilizationPercentage",
        "RequestsPerMinute",
        "RequestLatency_P50",
        "RequestLatency_P95",
    ]
    time_grain: timedelta = timedelta(minutes=1)
    statistic: Literal["Average", "Min", "Max", "Sum"] = "Average"
    time_window: timedelta = timedelta(minutes=5)
    time_aggregation: Literal["Average", "Minimum", "Maximum", "Total", "Last"] = "Average"
    operator: Literal["GreaterThan", "GreaterThanOrEqual", "LessThan", "LessThanOrEqual", "Equals", "NotEquals"]
    threshold: float
    metric_resource_uri: str | None = None

    @model_validator(mode="after")
    def _bounded(self) -> "MetricTrigger":
        if not timedelta(seconds=1) <= self.time_grain <= self.time_window <= timedelta(hours=1):
            raise ValueError("1 second <= time_grain <= time_window <= 1 hour must hold")
        return self


class ScaleAction(_Body):
    direction: Literal["Increase", "Decrease"]
    type: Literal["ChangeCount", "ExactCount", "PercentChangeCount"] = "ChangeCount"
    value: int = Field(ge=1, le=1000)
    cooldown: timedelta = timedelta(minutes=5)


class ScaleRule(_Body):
    metric_trigger: MetricTrigger
    scale_action: ScaleAction


class Capacity(_Body):
    minimum: int = Field(ge=1, le=32)
    maximum: int = Field(ge=1, le=32)
    default: int = Field(ge=1, le=32)

    @model_validator(mode="after")
    def _ordered(self) -> "Capacity":
        if not self.minimum <= self.default <= self.maximum:
            raise ValueError("minimum <= default <= maximum must hold")
        return self


class Profile(_Body):
    name: str = "default"
    capacity: Capacity
    rules: list[ScaleRule] = Field(default=[], max_length=10)


class AutoscaleBody(_Body):
    profiles: list[Profile] = Field(min_length=1, max_length=1)  # one at a time: schedules are Azure's alone
    enabled: bool = True
    name: str | None = None
    tags: dict[str, str] = {}


Body = TypeVar("Body", bound=_Body)


def read(body: object, kind: type[Body]) -> Body:
    """The body of a call as its model; 400 with where and what is wrong in one line."""
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in found['loc']) or 'body'}: {found['msg']}" for found in error.errors()
        ]
        raise ApiError(400, "BadRequest", "; ".join(problems[:5])) from None
