"""The plan of a rollout: the new deployment takes over all traffic step by step, or the traffic is what it was."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import rollout_rules
from rollout_rules import Limits
from rollout_target import Address, Counts, Endpoint, HeldError, Target, Traffic

from slmkit.errors import UserError

NEVER_HEALTHY, ROLLED_BACK, SMOKE_TEST = 5, 6, 7
SILENT_SECONDS = 3.0  # without an answer from the new deployment, after which it is asked something
NUM_PROBES = 3
PROBE_SECONDS = 5.0, 60.0  # the least and the most that a probe may take
LOG_LINES = 40
RESTORE_ATTEMPTS = 10  # a look apart: Azure refuses a change for minutes while another one is under way


class RolloutError(UserError):
    """The new deployment did not take over; the traffic is what it was."""


@dataclass(frozen=True)
class Plan:
    traffic_steps: tuple[int, ...]
    mirror_percent: int
    step_seconds: float
    startup_timeout_seconds: float
    keep_previous: bool
    limits: Limits


@dataclass
class Step:
    """One stage and what was seen in it; ``outcome`` is passed, failed or stopped."""

    name: str
    traffic: Traffic
    began_seconds: float
    ended_seconds: float = 0.0
    outcome: str = "stopped"
    detail: str = ""
    green: Counts = field(default_factory=Counts)
    blue: Counts = field(default_factory=Counts)
    num_probes: int = 0


@dataclass
class Record:
    """What happened, for the report; ``samples`` are what was seen at each look."""

    started_at: float = field(default_factory=time.time)
    endpoint: Endpoint | None = None
    blue: str | None = None
    green: str | None = None
    before: Traffic = field(default_factory=Traffic)
    after: Traffic = field(default_factory=Traffic)
    state: str = "kept_blue"
    steps: list[Step] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    failure: str | None = None
    logs: list[str] = field(default_factory=list)
    seconds: float = 0.0
    smoke_test: Any = None
    nothing_to_do: bool = False


@dataclass
class Rollout:
    """``identity`` are the tags by which a deployment of the same model and code is known.

    ``smoke_test(address)`` gives (passed, why, result); ``probe(address, num, timeout_seconds)`` sends short chats and
    gives the reason of each that failed.
    """

    target: Target
    plan: Plan
    identity: dict[str, str]
    smoke_test: Callable[[Address], tuple[bool, str, Any]]
    probe: Callable[[Address, int, float], list[str]]
    record: Record = field(default_factory=Record)
    clock: Any = time
    say: Callable[[str], None] = print
    _touched: bool = False
    _remembered: bool = False

    def run(self) -> None:
        """Roll out; raises once the traffic is back where it was."""
        self._began = self.clock.monotonic()
        try:
            self._run()
        except Exception as error:
            self.record.failure = self.record.failure or " ".join(str(error).split())
            raise
        finally:
            self.record.seconds = self._elapsed()
            self.target.close()

    def _run(self) -> None:
        record, target = self.record, self.target
        endpoint = target.open()
        if (interrupted := endpoint.interrupted) is not None:
            if interrupted.live.keys() | interrupted.mirror.keys() <= endpoint.deployments.keys():
                self.say(f"a rollout was interrupted: traffic goes back to {shares(interrupted.live)} first")
                target.set_traffic(interrupted)
            target.remember(None)  # else it would be gone back to when another deployment has that name
            endpoint = target.open()
        record.endpoint, record.before = endpoint, endpoint.traffic
        record.after = endpoint.traffic
        record.blue = blue = live_deployment(endpoint)
        if blue and self._is_reusable(endpoint, blue):
            record.green, record.state, record.nothing_to_do = blue, "rolled_out", True
            self.say(f"nothing to do: {blue} serves this model to all requests already")
            return
        record.green = green = "green" if blue == "blue" else "blue"
        if green in endpoint.deployments and not self._is_reusable(endpoint, green):
            self.say(f"{green}: an earlier deployment without traffic is replaced")
            target.delete(green)
        with self._traffic_restored_on_failure():
            self._start(green)
            self._check(green)
            if blue:
                self._shift(blue, green)
            else:
                self._set_traffic(Traffic({green: 100}))
            self._forget()
            record.state = "rolled_out"
        if blue and not self.plan.keep_previous:
            try:
                target.delete(blue)
            except UserError as error:
                self.say(f"{blue} has no traffic any more, but could not be deleted: {error}")

    def _is_same(self, endpoint: Endpoint, name: str) -> bool:
        return self.identity.items() <= dict(endpoint.deployments.get(name, {})).items()

    def _is_reusable(self, endpoint: Endpoint, name: str) -> bool:
        return self._is_same(endpoint, name) and self.target.health(name).state != "failed"

    @contextlib.contextmanager
    def _traffic_restored_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.record.state = "kept_blue"
            if self._touched:
                self._restore()
            with contextlib.suppress(Exception):  # the reason counts more than its logs
                self.record.logs = self.target.logs(self.record.green, LOG_LINES)
            raise

    def _restore(self) -> None:
        """Traffic as it was, whatever is in the way: a second Ctrl-C is, and so is a call that fails once."""
        before = self.record.before
        for attempt in range(1, RESTORE_ATTEMPTS + 1):
            try:
                self.target.set_traffic(before)
                break
            except HeldError:
                raise
            except BaseException as error:
                if attempt == RESTORE_ATTEMPTS:
                    raise RolloutError(
                        f"the traffic could NOT be set back to {shares(before.live)}: {error}; set it by hand, or run "
                        "this again, which does so first",
                        exit_code=ROLLED_BACK,
                    ) from error
                with contextlib.suppress(BaseException):
                    self.clock.sleep(self.target.poll_seconds)
        self._sample({})
        self.record.after = before
        self._sample({})
        self.say(f"traffic is back to {shares(before.live)}")
        with contextlib.suppress(Exception):  # it says what is true now anyway
            self._forget()

    def _forget(self) -> None:
        if self._remembered:
            self.target.remember(None)
            self._remembered = False

    def _set_traffic(self, traffic: Traffic) -> None:
        self._touched = True
        self.target.set_traffic(traffic)
        self._sample({})
        self.record.after = traffic
        self._sample({})

    def _start(self, green: str) -> None:
        """Ask for the deployment and wait until it is healthy."""
        with self._step("start") as step:
            self.target.deploy(green)
            deadline = self.clock.monotonic() + self.plan.startup_timeout_seconds
            while (health := self.target.health(green)).state == "starting":
                if self.clock.monotonic() > deadline:
                    self._fail(step, f"not healthy after {self.plan.startup_timeout_seconds:g} s", NEVER_HEALTHY)
                self.clock.sleep(min(self.target.poll_seconds, 0.2 * self.plan.startup_timeout_seconds))
            if health.state == "failed":
                self._fail(step, health.detail or "the deployment failed", NEVER_HEALTHY)
            self._started = health

    def _check(self, green: str) -> None:
        with self._step("smoke test") as step:
            passed, step.detail, self.record.smoke_test = self.smoke_test(self.target.address(green))
            if not passed:
                self._fail(step, step.detail, SMOKE_TEST)

    def _shift(self, blue: str, green: str) -> None:
        self._remembered = True
        self.target.remember(self.record.before)
        if self.plan.mirror_percent:
            self._set_traffic(Traffic({blue: 100}, {green: self.plan.mirror_percent}))
            self._watch("mirror", blue, green)
        for percent in self.plan.traffic_steps:
            self._set_traffic(Traffic({blue: 100 - percent, green: percent}))
            self._watch(f"{percent} %", blue, green)

    def _watch(self, name: str, blue: str, green: str) -> None:
        """Look at the new deployment until the step is over; raises at the first sure sign that it is broken."""
        plan, target = self.plan, self.target
        health = self._started
        most, began = 0, self.clock.monotonic()
        answered = began
        with self._step(name) as step:
            while True:
                self.clock.sleep(target.poll_seconds)
                now = self.clock.monotonic()
                self._look(step, now - began, blue, green)
                health, earlier = target.health(green), health
                if health.restarts > self._started.restarts:
                    self._fail(step, "an instance ended and was started again")
                if health.state == "failed" or health.state == earlier.state == "starting":  # not just a blink
                    self._fail(step, health.detail)
                if why := rollout_rules.surely_broken(step.green, step.blue, plan.limits):
                    self._fail(step, why)
                if step.green.num_requests > most:  # so far: the edge of the window that is counted is not sharp
                    most, answered = step.green.num_requests, now
                elif now - answered >= max(SILENT_SECONDS, 2 * (step.blue.p95_seconds or 0)):
                    self._probe(step, green, NUM_PROBES, 1.0)
                    answered = self.clock.monotonic()
                if now - began >= plan.step_seconds:
                    break
            if (missing := plan.limits.min_requests - step.green.num_requests) > 0:
                step.detail = f"insufficient traffic: {step.green.num_requests} requests, probes made up for the rest"
                self._probe(step, green, missing, plan.limits.max_error_fraction)
                self._look(step, self.clock.monotonic() - began, blue, green)
            if why := rollout_rules.broken(step.green, step.blue, plan.limits):
                self._fail(step, why)

    def _look(self, step: Step, seconds: float, blue: str, green: str) -> None:
        measured = self.target.metrics(seconds)
        if green in measured:
            step.green = measured[green].mirrored if step.traffic.mirror else measured[green].live
        if blue in step.traffic.live and blue in measured:
            step.blue = measured[blue].live
        elif len(self.record.steps) > 1:  # at 100 % the old deployment is what it was in the step before
            step.blue = self.record.steps[-2].blue
        self._sample({"step": step.name, "blue": _plain(step.blue), "green": _plain(step.green)})

    def _probe(self, step: Step, green: str, num: int, max_error_fraction: float) -> None:
        """Ask what no client asks; more failures than the share allows, or nothing but failures, ends the rollout."""
        usual = max(step.blue.p95_seconds or 0, getattr(self.record.smoke_test, "p95_seconds", None) or 0)
        least, most = PROBE_SECONDS
        reasons = self.probe(self.target.address(green), num, min(most, max(least, 4 * usual)))
        step.num_probes += num
        if len(reasons) == num or len(reasons) > max_error_fraction * num:
            self._fail(step, f"{len(reasons)} of {num} probes failed: {reasons[0]}")

    @contextlib.contextmanager
    def _step(self, name: str) -> Iterator[Step]:
        step = Step(name, self.record.after, self._elapsed())
        self.record.steps.append(step)
        try:
            yield step
            step.outcome = "passed"
        finally:
            step.ended_seconds = self._elapsed()
            said = f": {step.detail}" if step.detail else ""
            self.say(f"{step.ended_seconds:8.1f} s  {name:<10}  {step.outcome}{said}")

    def _fail(self, step: Step, why: str, exit_code: int = ROLLED_BACK) -> None:
        step.outcome, step.detail = "failed", why
        raise RolloutError(f"{self.record.green} at {step.name}: {why}", exit_code=exit_code)

    def _elapsed(self) -> float:
        return self.clock.monotonic() - self._began

    def _sample(self, seen: dict[str, Any]) -> None:
        traffic = self.record.after
        self.record.samples.append(
            {"seconds": round(self._elapsed(), 2), "live": traffic.live, "mirror": traffic.mirror, **seen}
        )


def live_deployment(endpoint: Endpoint) -> str | None:
    """The deployment that answers everybody, if any."""
    live = endpoint.traffic.live
    if len(live) > 1:
        raise UserError(
            f"the traffic is split by hand ({shares(live)}): give one deployment 100 % before a new one is rolled out"
        )
    return next(iter(live), None)


def shares(live: Any) -> str:
    return ", ".join(f"{name} {share} %" for name, share in live.items()) or "none"


def _plain(counts: Counts) -> dict[str, Any]:
    return dataclasses.asdict(counts)
