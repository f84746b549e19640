"""Answers in JSON that follow a pydantic model: how to ask for them, how to read them, how to ask again."""

import functools
import re
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pydantic import BaseModel

ModelT = TypeVar("ModelT", bound="BaseModel")

_KEPT_IN_STRICT = ("$defs", "anyOf", "const", "description", "enum", "items", "properties", "type")


@functools.cache
def response_format(answer_type: "type[BaseModel]") -> dict[str, Any]:
    """The request's ``response_format`` for a pydantic model, within what strict structured output allows."""
    schema = _strict(answer_type.model_json_schema())
    return {"type": "json_schema", "json_schema": {"name": answer_type.__name__, "strict": True, "schema": schema}}


def parse_answer(answer_type: type[ModelT], text: str) -> ModelT:
    """The answer as the pydantic model; ``ValueError`` with a one-line reason when it is not one."""
    from pydantic import ValidationError

    fenced = re.fullmatch(r"\s*```(?:json)?\s*(.*?)\s*```\s*", text, re.DOTALL)  # endpoints without structured output
    try:
        return answer_type.model_validate_json(fenced[1] if fenced else text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from None


def ask_again(text: str, reason: str) -> list[dict[str, str]]:
    """The turns that follow a malformed answer."""
    again = f"That is not what was asked for ({reason}). Answer again, only with JSON that follows the schema."
    return [{"role": "assistant", "content": text or "(nothing)"}, {"role": "user", "content": again}]


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    """Every property required, no other allowed, and no bounds: pydantic checks those in the answer."""
    if "$ref" in schema:  # beside which strict output allows nothing
        return {"$ref": schema["$ref"]}
    kept = {name: value for name, value in schema.items() if name in _KEPT_IN_STRICT}
    for name, value in kept.items():
        if name in ("$defs", "properties"):
            kept[name] = {key: _strict(part) for key, part in value.items()}
        elif name == "anyOf":
            kept[name] = [_strict(part) for part in value]
        elif name == "items":
            kept[name] = _strict(value)
    if kept.get("type") == "object":
        kept |= {"required": list(kept.get("properties", {})), "additionalProperties": False}
    return kept
