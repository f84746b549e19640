"""What a promotion policy may hold: the rules that it sets, and where each of them looks."""

from typing import Annotated, Literal

import pydantic

Share = Annotated[float, pydantic.Field(ge=0, le=1)]
Slice = Annotated[dict[str, str], pydantic.Field(min_length=1, max_length=1)]


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, coerce_numbers_to_str=True)


class Target(Strict):
    """Where a rule looks: at one benchmark, at one slice, or at all questions."""

    metric: str | None = None  # absent, the one that the comparison is about
    benchmark: str | None = None
    slice: Slice | None = None

    @pydantic.model_validator(mode="after")
    def _one_place(self) -> "Target":
        if self.benchmark and self.slice:
            raise ValueError("benchmark or slice, not both")
        return self


class Superiority(Target):
    min_difference: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.0


class Guard(Target):
    """Non-inferiority: the candidate may be worse, but by less than the margin."""

    margin: Annotated[float, pydantic.Field(gt=0, lt=1)]


class Floor(Target):
    min_score: Share
    statistic: Literal["mean", "low"] = "mean"


class Policy(Strict):
    """The rules, of which all that are set must pass.

    One target is declared for superiority, and no guard is left out: so their number calls for no correction (Holm's or
    another), which is for whoever looks at many differences and reports the best.
    """

    superiority: Superiority | None = None
    guards: tuple[Guard, ...] = ()
    confidence_level: Annotated[float, pydantic.Field(gt=0, lt=1)] = 0.95
    floors: tuple[Floor, ...] = ()
    above_chance: bool = False
    max_failure_fraction: Share | None = None
    min_num_items: pydantic.PositiveInt | None = None
    max_cost_per_1000: pydantic.PositiveFloat | None = None
    max_cost_ratio: pydantic.PositiveFloat | None = None
    max_latency_p95_ms: pydantic.PositiveFloat | None = None
    max_latency_p95_ratio: pydantic.PositiveFloat | None = None
    privacy_verdict: Literal["required", "if_given"] = "if_given"

    @pydantic.model_validator(mode="after")
    def _some_evidence(self) -> "Policy":
        if not self.superiority and not self.guards:
            raise ValueError("no rule of evidence; set superiority, guards or both")
        return self
