"""What a rollout asks of the place that it deploys to, be it Azure or this machine."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from slmkit.errors import UserError

REFUSED = 8
BEFORE_TAG = "traffic_before_rollout"  # on the endpoint, while a rollout is under way


class RefusedError(UserError):
    """The service said no: its code, its words and what to do, in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_code=REFUSED)


class HeldError(RefusedError):
    """Another rollout has the endpoint; its traffic is no longer this one's to change."""


@dataclass(frozen=True)
class Traffic:
    """Percentages by deployment: of the requests that it answers, and of those that it gets a copy of."""

    live: Mapping[str, int] = field(default_factory=dict)
    mirror: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("live", "mirror"):  # 0 % is no traffic, however it is written
            object.__setattr__(self, name, {key: share for key, share in getattr(self, name).items() if share})

    def as_tag(self) -> dict[str, str]:
        """What to keep with the endpoint in order to find the way back."""
        return {BEFORE_TAG: json.dumps([dict(self.live), dict(self.mirror)])}

    @classmethod
    def from_tags(cls, tags: Mapping[str, str] | None) -> "Traffic | None":
        """What ``as_tag`` has kept, or None: also where somebody has put in something else."""
        try:
            live, mirror = json.loads((tags or {}).get(BEFORE_TAG) or "null")
            return cls(live, mirror) if sum(live.values()) == 100 else None
        except (AttributeError, TypeError, ValueError):
            return None


@dataclass(frozen=True)
class Endpoint:
    """``interrupted`` is the traffic before a rollout that never came to its end."""

    scoring_uri: str
    traffic: Traffic
    deployments: Mapping[str, Mapping[str, str]]  # the tags of each
    interrupted: Traffic | None = None


@dataclass(frozen=True)
class Health:
    """``state`` is starting, healthy or failed; ``restarts`` counts instances that had to be started again."""

    state: str
    detail: str = ""
    restarts: int = 0


@dataclass(frozen=True)
class Counts:
    """Requests that ended: all of them, those that failed through no fault of the client, and the others' p95."""

    num_requests: int = 0
    num_failed: int = 0
    p95_seconds: float | None = None


@dataclass(frozen=True)
class Measured:
    live: Counts = Counts()
    mirrored: Counts = Counts()


@dataclass(frozen=True)
class Address:
    """Where one deployment takes chats whatever its traffic, and who it lets in."""

    url: str
    headers: Callable[[], dict[str, str]]
    model: str
    adapters: tuple[str, ...] = ()  # other names that it answers to


class Target(Protocol):
    kind: str  # as in the endpoint's JSON
    auth: str
    poll_seconds: float  # how often its figures are worth looking at
    traffic_folder: str | None  # where the requests of all deployments that collect them are

    def open(self) -> Endpoint:
        """The endpoint as it is; made first where there is none. ``RefusedError`` while another rollout has it."""

    def close(self) -> None:
        """The rollout is over: another one may have the endpoint."""

    def remember(self, traffic: Traffic | None) -> None:
        """Keep with the endpoint what traffic to go back to, for a rollout that is killed; None forgets it."""

    def set_traffic(self, traffic: Traffic) -> None:
        """All shares in one call."""

    def deploy(self, name: str) -> None:
        """Ask for the new deployment, with its autoscale rules; returns before it is healthy."""

    def health(self, name: str) -> Health: ...

    def metrics(self, seconds: float) -> dict[str, Measured]:
        """What each deployment did in the last seconds."""

    def logs(self, name: str, num_lines: int) -> list[str]: ...

    def delete(self, name: str) -> None: ...

    def address(self, name: str) -> Address: ...
