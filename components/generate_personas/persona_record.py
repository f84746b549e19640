"""What a persona is: the values that its fields may take, and the form in which a teacher gives it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

AGE_BANDS = ("under 18", "18-24", "25-34", "35-44", "45-54", "55-64", "65 or over")
OCCUPATION_GROUPS = (
    *("management", "professional", "office", "service", "trade", "agriculture"),
    *("student", "unpaid_care", "retired", "not_working"),
)
EXPERIENCES = ("first_time", "occasional", "regular", "expert")  # with what the material is about
TONES = ("formal", "friendly", "terse", "cautious", "enthusiastic", "impatient")


class _Strict(BaseModel):
    model_config = ConfigDict(str_strip_whitespace=True, extra="forbid")


class Characteristics(_Strict):
    age_band: Literal[AGE_BANDS]
    occupation: str = Field(min_length=1, max_length=80)
    occupation_group: Literal[OCCUPATION_GROUPS]
    region: str | None = Field(max_length=60)
    experience: Literal[EXPERIENCES]


class Behavior(_Strict):
    tone: Literal[TONES]
    goals: list[str] = Field(min_length=1, max_length=5)
    habits: list[str] = Field(min_length=1, max_length=5)
    constraints: list[str] = Field(max_length=5)


class Persona(_Strict):
    persona: str = Field(min_length=8, max_length=400)
    relation: str = Field(min_length=1, max_length=60)
    characteristics: Characteristics
    behavior: Behavior

    def own_text(self) -> str:
        """All that is written freely, to be checked."""
        who, how = self.characteristics, self.behavior
        free = [self.persona, self.relation, who.occupation, who.region or "", *how.goals, *how.habits]
        return "\n".join([*free, *how.constraints])


class Personas(_Strict):
    personas: list[Persona]
