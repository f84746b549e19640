"""What a monitoring policy may hold: how each signal is measured, and what follows when it drifts."""

from typing import Annotated, Literal

import pydantic

Share = Annotated[float, pydantic.Field(ge=0, le=1)]
Alpha = Annotated[float, pydantic.Field(ge=0.01, lt=0.5)]  # what a few hundred permutations can still show
Ratio = Annotated[float, pydantic.Field(ge=1)]
Action = Literal["retrain", "alert", "none"]


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SignalSettings(Strict):
    """What follows from a signal: its action, once it drifts now and in k of its last n windows with a verdict."""

    action: Action = "alert"
    num_drift_windows: pydantic.PositiveInt = 2  # k
    num_windows: pydantic.PositiveInt = 3  # n

    @pydantic.model_validator(mode="after")
    def _reachable(self) -> "SignalSettings":
        if self.num_drift_windows > self.num_windows:
            raise ValueError("num_drift_windows is above num_windows: it could never act")
        return self


class AlphaSpending(Strict):
    """The false alarms allowed over a schedule of looks at a baseline, and how they are spread; then it starts anew."""

    alpha: Annotated[float, pydantic.Field(gt=0, le=0.5)] = 0.05
    num_looks: pydantic.PositiveInt = 12
    spending: Literal["pocock", "obrien_fleming"] = "pocock"  # about alike at each look, or most of it at the last


class CanarySettings(SignalSettings):
    """What the signals of the canaries share."""

    looks: AlphaSpending = AlphaSpending()
    min_canaries: pydantic.PositiveInt = 20  # below it: insufficient
    max_failed_fraction: Share = 0.1  # of the requests; above it: insufficient
    num_resamples: Annotated[int, pydantic.Field(ge=999)] = 9999


class LlmDriftSettings(CanarySettings):
    action: Action = "retrain"
    min_fall: Share = 0.02  # of the metric; a smaller one is no drift, however sure
    min_slice_canaries: pydantic.PositiveInt = 20


class PromptDriftSettings(CanarySettings):
    action: Action = "retrain"
    answer_pattern: str | None = None  # as score_answers takes it; without one the whole output is the answer
    min_answers_changed: Share = 0.05  # beyond those that change from one repeat to the next
    min_characters_change: Annotated[float, pydantic.Field(ge=0)] = 0.25  # 0.25: to 125 % or more, or to 80 % or less
    min_rate_change: Share = 0.05  # of refusals, parse failures and switches of language


class PromptSensitivitySettings(CanarySettings):
    answer_pattern: str | None = None
    min_fall: Share = 0.05  # of consistency and of the worst-case metric


class InputDriftSettings(SignalSettings):
    """Another traffic is one by which a change is both significant and at least as large as these."""

    action: Action = "retrain"
    alpha: Alpha = 0.02  # of one window, all measures together
    min_num_rows: Annotated[int, pydantic.Field(ge=20)] = 150  # on either side
    min_num_conversations: Annotated[int, pydantic.Field(ge=20)] = 50  # different ones, on either side
    max_num_rows: Annotated[int, pydantic.Field(ge=150, le=10_000)] = 2_000  # of either side, whose texts are compared
    min_auc: Annotated[float, pydantic.Field(ge=0.5, lt=1)] = 0.55  # about what one new question in ten makes
    min_mmd: Share = 0.001  # of the distance between two questions
    min_length_psi: Annotated[float, pydantic.Field(ge=0)] = 0.1  # by convention moderate; 0.25 is large
    min_language_distance: Share = 0.1  # Jensen-Shannon; 50:50 that turns into 62:38


class ServiceDriftSettings(SignalSettings):
    """Slower, dearer or failing more: by a change that is both significant and at least as large as these."""

    alpha: Alpha = 0.02  # of one window, all measures together
    min_num_rows: Annotated[int, pydantic.Field(ge=40)] = 100  # on either side
    min_latency_p50_ratio: Ratio = 1.2
    min_latency_p95_ratio: Ratio = 1.3
    min_tokens_ratio: Ratio = 1.2  # more tokens per answer, or fewer by as much
    min_error_increase: Share = 0.02  # of all requests
    min_throttled_increase: Share = 0.02
    max_error_fraction: Share = 0.1  # drift above it, however the errors fell, if the baseline was below


class Rollback(Strict):
    """An accuracy far below the baseline's in one of the first windows after the deployment or its model changed."""

    min_accuracy_drop: Annotated[float, pydantic.Field(gt=0, le=1)] = 0.1
    num_windows: pydantic.PositiveInt = 1


class RetrainBudget(Strict):
    """So many retrainings, at most, in so many windows."""

    num_retrains: pydantic.NonNegativeInt = 2
    num_windows: pydantic.PositiveInt = 30


class Policy(Strict):
    llm_drift: LlmDriftSettings = LlmDriftSettings()
    prompt_drift: PromptDriftSettings = PromptDriftSettings()
    prompt_sensitivity: PromptSensitivitySettings = PromptSensitivitySettings()
    input_drift: InputDriftSettings = InputDriftSettings()
    service_drift: ServiceDriftSettings = ServiceDriftSettings()
    rollback: Rollback | None = Rollback()
    cooldown_windows: pydantic.NonNegativeInt = 3
    retrain_budget: RetrainBudget = RetrainBudget()
    max_insufficient_windows: pydantic.PositiveInt = 3
