"""The OpenAI chat form, checked and completed for a server that does neither."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

END_OF_STREAM = b"data: [DONE]\n\n"


class ChatFormError(Exception):
    """What is wrong with a request, and in which of its fields."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.body = {
            "error": {"message": message, "type": "invalid_request_error", "param": field, "code": "invalid_value"}
        }


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow")

    type: str


class _Message(BaseModel):
    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[_Part] | None = None


_Count = Annotated[int, Field(ge=1, strict=True)]
_Number = Annotated[float, Field(allow_inf_nan=False)]


class _Chat(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    messages: Annotated[list[_Message], Field(min_length=1)]
    model: str | None = None
    max_tokens: _Count | None = None
    max_completion_tokens: _Count | None = None
    temperature: Annotated[_Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[_Number, Field(gt=0, le=1)] | None = None
    frequency_penalty: Annotated[_Number, Field(ge=-2, le=2)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None


def checked(body: bytes, model: str) -> bytes:
    """The request with the name that the server knows its model by, whatever the client called it."""
    try:
        content = json.loads(body)
        if not isinstance(content, dict):
            raise ChatFormError("the request is not a JSON object")
        _Chat.model_validate(content)
        return json.dumps(content | {"model": model}, ensure_ascii=False).encode()
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in found["loc"])
        raise ChatFormError(f"{field}: {found['msg']}", field) from None
    except UnicodeEncodeError:
        raise ChatFormError("half a character (a lone surrogate) is no text") from None
    except (ValueError, RecursionError):
        raise ChatFormError("the request is not JSON in UTF-8") from None
