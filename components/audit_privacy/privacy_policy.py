"""The policy of an audit, and what each of its rules says in words that need no statistician."""

from dataclasses import dataclass
from typing import Annotated, Literal

import pydantic

Share = Annotated[float, pydantic.Field(ge=0, le=1)]
Rule = Literal[
    "personal_data",
    "verbatim",
    "canaries",
    "personas",
    "guarantee",
    "singling_out",
    "linkability",
    "inference",
]
Outcome = Literal["pass", "fail", "not_judged"]


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class PersonalData(Strict):
    max_reappearing_values: pydantic.NonNegativeInt = 0
    allowed_values: list[str] = []


class Characters(Strict):
    latin: Annotated[int, pydantic.Field(ge=4, le=1000)]
    east_asian: Annotated[int, pydantic.Field(ge=4, le=1000)]


class Verbatim(Strict):
    span_chars: Characters = Characters(latin=80, east_asian=40)
    ngram_chars: Characters = Characters(latin=24, east_asian=12)
    boilerplate_fraction: Share = 0.01
    boilerplate_min_records: Annotated[int, pydantic.Field(ge=2)] = 5
    max_copied_fraction: Share = 0.01
    intended_copying: list[str] = []

    @pydantic.model_validator(mode="after")
    def spans_hold_an_ngram(self) -> "Verbatim":
        for script in ("latin", "east_asian"):
            if getattr(self.span_chars, script) < getattr(self.ngram_chars, script):
                raise ValueError(f"span_chars.{script} is below ngram_chars.{script}: shorter spans are not looked for")
        return self


class Attacks(Strict):
    max_advantage: Share = 0.1
    confidence_level: Annotated[float, pydantic.Field(gt=0, lt=1)] = 0.95
    min_num_records: Annotated[int, pydantic.Field(ge=10)] = 50


class Canaries(Strict):
    max_verbatim: pydantic.NonNegativeInt = 0
    max_mean_exposure: pydantic.PositiveFloat = 3.0


class Personas(Strict):
    quasi_identifiers: Annotated[list[str], pydantic.Field(min_length=1)] = [
        *("language", "occupation_group", "age_band", "region")
    ]
    min_cell_size: pydantic.PositiveInt = 3
    max_small_cell_fraction: Share = 0.0


class Guarantee(Strict):
    max_epsilon: pydantic.PositiveFloat = 10.0
    max_delta: Annotated[float, pydantic.Field(gt=0, lt=1)] = 1e-5


class Policy(Strict):
    must_be_judged: list[Rule] = ["personal_data", "verbatim"]
    personal_data: PersonalData = PersonalData()
    verbatim: Verbatim = Verbatim()
    attacks: Attacks = Attacks()
    canaries: Canaries = Canaries()
    personas: Personas = Personas()
    guarantee: Guarantee = Guarantee()


@dataclass(frozen=True)
class Check:
    """One rule: what was asked, what was found, and what that leaves open. ``text`` is the finding in one sentence."""

    rule: Rule
    asked: str
    text: str
    observed: float | None
    threshold: str
    outcome: Outcome
    not_shown: str


def outcome(holds: bool | None) -> Outcome:
    return "not_judged" if holds is None else "pass" if holds else "fail"


def reasons_to_fail(policy: Policy, checks: list[Check]) -> list[str]:
    """Each in one sentence; none of them means pass."""
    failed = [check.text for check in checks if check.outcome == "fail"]
    asked = [check for check in checks if check.rule in policy.must_be_judged and check.outcome == "not_judged"]
    return failed + [f"The policy wants {check.rule} judged, and it cannot be: {check.text}" for check in asked]
