"""The plan of a rollout against a target in memory: every way through it, and the traffic that is left behind."""

import contextlib
import importlib
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

OURS = {"model_sha256": "a" * 64, "deployment_sha256": "c" * 64}
OTHERS = {"model_sha256": "b" * 64, "deployment_sha256": "c" * 64}


@pytest.fixture(scope="module")
def modules(load_main):
    load_main("deploy_endpoint")
    names = ("rollout", "rollout_rules", "rollout_target", "rollout_report")
    return types.SimpleNamespace(**{name: importlib.import_module(name) for name in names})


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class FakeTarget:
    """An endpoint in memory with ten requests a second, of which a deployment fails ``failing[name](percent, n)``.

    ``trouble(number, name)`` may raise at any call.
    """

    kind, auth, poll_seconds = "local", "none", 1.0

    def __init__(self, modules, clock, deployments=None, traffic=None, interrupted=None):
        self.t, self.clock = modules.rollout_target, clock
        self.deployments = dict(deployments or {})
        self.traffic = self.t.Traffic(traffic or {})
        self.interrupted = self.t.Traffic(interrupted) if interrupted else None
        self.calls, self.shifts = [], []
        self.rate, self.is_failing, self.p95 = 10, lambda name, percent: False, {}
        self.states, self.restarts, self.trouble, self.late = {}, {}, lambda number, call: None, False

    def _call(self, *call):
        self.calls.append(call)
        if not self.late or call[0] not in ("set_traffic", "remember"):
            self.trouble(len(self.calls), call)

    def _done(self):
        if self.late:
            self.trouble(len(self.calls), self.calls[-1])

    def open(self):
        self._call("open")
        return self.t.Endpoint("http://127.0.0.1:1/score", self.traffic, dict(self.deployments), self.interrupted)

    def close(self):
        self.closed = True

    def remember(self, traffic):
        self._call("remember", traffic)
        self.interrupted = traffic
        self._done()

    def set_traffic(self, traffic):
        self._call("set_traffic", traffic)
        assert sum(traffic.live.values()) in (0, 100)
        assert {*traffic.live, *traffic.mirror} <= self.deployments.keys()
        self.traffic = traffic
        self.shifts.append((dict(traffic.live), dict(traffic.mirror)))
        self._done()

    def deploy(self, name):
        self._call("deploy", name)
        self.deployments[name] = dict(OURS)

    def health(self, name):
        self._call("health", name)
        state = self.states.get(name, "healthy")
        state = state() if callable(state) else state
        return self.t.Health(state, f"{name} is {state}", self.restarts.get(name, lambda: 0)())

    def metrics(self, seconds):
        self._call("metrics", seconds)
        return {
            name: self.t.Measured(
                self._of(name, self.traffic.live, seconds), self._of(name, self.traffic.mirror, seconds)
            )
            for name in self.deployments
        }

    def _of(self, name, shares, seconds):
        percent = shares.get(name, 0)
        num = round(self.rate * seconds * percent / 100)
        return self.t.Counts(num, num if self.is_failing(name, percent) else 0, self.p95.get(name, 0.2))

    def logs(self, name, num_lines):
        self._call("logs", name)
        return [f"last line of {name}"]

    def delete(self, name):
        self._call("delete", name)
        assert not self.traffic.live.get(name)
        self.deployments.pop(name, None)

    def address(self, name):
        self._call("address", name)
        return self.t.Address("http://127.0.0.1:1/score", dict, "slm")


@pytest.fixture(scope="module")
def make(modules):
    """A rollout from the deployments, the traffic and the plan that are given."""

    def build(deployments=None, traffic=None, *, interrupted=None, smoke=(True, "20 requests"), probe=None, **plan):
        clock = Clock()
        target = FakeTarget(modules, clock, deployments, traffic, interrupted)
        limits = {"max_error_fraction": 0.01, "max_p95_increase_fraction": 1.0, "max_p95_seconds": None}
        limits = {
            **limits,
            "min_requests": 20,
            **{key: plan.pop(key) for key in [*plan] if key in (*limits, "min_requests")},
        }
        probes: list[int] = []

        def send(address, num, timeout_seconds):
            clock.sleep(0.1)
            probes.append(num)
            return probe(num) if probe else []

        result = types.SimpleNamespace(p95_seconds=0.1, checks=[])
        rollout = modules.rollout.Rollout(
            target,
            modules.rollout.Plan(
                **{"traffic_steps": (10, 50, 100), "mirror_percent": 20, "step_seconds": 30.0, **plan}
                | {
                    key: plan.get(key, value)
                    for key, value in (("startup_timeout_seconds", 60.0), ("keep_previous", True))
                },
                limits=modules.rollout_rules.Limits(**limits),
            ),
            dict(OURS),
            smoke_test=lambda address: (*smoke, result),
            probe=send,
            clock=clock,
            say=lambda line: None,
        )
        rollout.probes = probes
        return rollout, target

    return build


BLUE = {"blue": dict(OTHERS)}
ALL_BLUE = {"blue": 100}


def test_a_first_deployment_gets_everything_after_its_smoke_test(make):
    rollout, target = make()
    rollout.run()
    assert target.shifts == [({"blue": 100}, {})]
    assert [step.name for step in rollout.record.steps] == ["start", "smoke test"]
    assert (rollout.record.state, rollout.record.green, rollout.record.blue) == ("rolled_out", "blue", None)


def test_the_new_one_takes_over_in_steps(make):
    rollout, target = make(BLUE, ALL_BLUE)
    rollout.run()
    assert target.shifts == [
        ({"blue": 100}, {"green": 20}),
        ({"blue": 90, "green": 10}, {}),
        ({"blue": 50, "green": 50}, {}),
        ({"green": 100}, {}),
    ]
    assert [(step.name, step.outcome) for step in rollout.record.steps] == [
        (name, "passed") for name in ("start", "smoke test", "mirror", "10 %", "50 %", "100 %")
    ]
    # 10 requests a second for 30 seconds: 60 mirrored, then 30, 150 and 300.
    assert [step.green.num_requests for step in rollout.record.steps[2:]] == [60, 30, 150, 300]
    assert rollout.record.seconds == 120
    assert target.interrupted is None
    assert "blue" in target.deployments
    assert rollout.probes == []


def test_names_alternate_and_the_old_one_can_be_deleted(make):
    rollout, target = make({"green": dict(OTHERS)}, {"green": 100}, keep_previous=False)
    rollout.run()
    assert target.traffic.live == {"blue": 100}
    assert set(target.deployments) == {"blue"}


@pytest.mark.parametrize(
    ("broken_at", "name", "seconds"),
    # Three failures make sure: 2 requests a second while mirroring and 1 a second at 10 %.
    [((20,), "mirror", 2), ((10,), "10 %", 33), ((50,), "50 %", 61), ((100,), "100 %", 91)],
)
def test_a_failure_brings_the_traffic_back_at_once(make, broken_at, name, seconds):
    rollout, target = make(BLUE, ALL_BLUE)
    target.is_failing = lambda deployment, percent: deployment == "green" and percent in broken_at
    with pytest.raises(
        rollout.target.t.UserError, match=rf"green at {name}: \d+ of \d+ requests failed, surely"
    ) as failed:
        rollout.run()
    assert failed.value.exit_code == 6
    assert rollout.record.seconds == seconds
    assert target.shifts[-1] == ({"blue": 100}, {})
    assert rollout.record.after.live == {"blue": 100}
    assert target.interrupted is None
    assert "green" in target.deployments
    assert rollout.record.logs == ["last line of green"]
    assert rollout.record.state == "kept_blue"
    assert rollout.record.steps[-1].outcome == "failed"


def test_slower_than_the_old_one_and_slower_than_allowed(make):
    rollout, target = make(BLUE, ALL_BLUE)
    target.p95 = {"blue": 0.2, "green": 0.41}
    with pytest.raises(Exception, match=r"mirror: p95 is 0.41 s, the old deployment's 0.20 s") as failed:
        rollout.run()
    assert failed.value.exit_code == 6
    rollout, target = make(BLUE, ALL_BLUE, max_p95_seconds=0.3)
    target.p95 = {"blue": 0.2, "green": 0.31}
    with pytest.raises(Exception, match=r"more than max_p95_seconds 0.3"):
        rollout.run()
    rollout, target = make(BLUE, ALL_BLUE)
    target.p95 = {"blue": 0.2, "green": 0.39}
    rollout.run()


@pytest.mark.parametrize(("green", "is_slower"), [(0.09, False), (0.11, True)])
def test_milliseconds_more_are_no_slower_deployment(make, green, is_slower):
    """Of 0.005 seconds twice is soon seen on a busy machine; nobody who reads an answer feels it."""
    rollout, target = make(BLUE, ALL_BLUE)
    target.p95 = {"blue": 0.005, "green": green}
    with pytest.raises(Exception, match="max_p95_increase_fraction") if is_slower else contextlib.nullcontext():
        rollout.run()


def test_never_healthy_keeps_the_traffic_and_the_deployment(make):
    rollout, target = make(BLUE, ALL_BLUE)
    target.states["green"] = "starting"
    with pytest.raises(Exception, match="not healthy after 60 s") as failed:
        rollout.run()
    assert (failed.value.exit_code, target.shifts, rollout.record.logs) == (5, [], ["last line of green"])
    rollout, target = make(BLUE, ALL_BLUE)
    target.states["green"] = "failed"
    with pytest.raises(Exception, match="green at start: green is failed") as failed:
        rollout.run()
    assert (failed.value.exit_code, target.shifts) == (5, [])


def test_a_failed_smoke_test_moves_no_traffic(make):
    rollout, target = make(BLUE, ALL_BLUE, smoke=(False, "unicode_ja: mojibake"))
    with pytest.raises(Exception, match="green at smoke test: unicode_ja: mojibake") as failed:
        rollout.run()
    assert (failed.value.exit_code, target.shifts) == (7, [])
    rollout, target = make(smoke=(False, "no stream"))
    with pytest.raises(Exception, match="blue at smoke test"):
        rollout.run()
    assert (target.traffic.live, target.shifts) == ({}, [])


def test_an_instance_that_dies_is_noticed_before_any_client_meets_it(make):
    rollout, target = make(BLUE, ALL_BLUE)
    target.restarts["green"] = lambda: int(target.clock.now >= 40)
    with pytest.raises(Exception, match="green at 10 %: an instance ended and was started again") as failed:
        rollout.run()
    assert (failed.value.exit_code, rollout.record.seconds) == (6, 40)
    rollout, target = make(BLUE, ALL_BLUE)
    target.states["green"] = lambda: "starting" if target.clock.now >= 70 else "healthy"
    with pytest.raises(Exception, match="green at 50 %: green is starting"):
        rollout.run()
    assert target.traffic.live == {"blue": 100}


def test_without_traffic_probes_are_sent_and_judged(make):
    rollout, target = make(BLUE, ALL_BLUE)
    target.rate = 0
    rollout.run()
    assert target.traffic.live == {"green": 100}
    assert rollout.probes.count(20) == 4  # what each step is judged on
    assert set(rollout.probes) == {3, 20}
    assert rollout.record.steps[-1].detail.startswith("insufficient traffic: 0 requests")

    rollout, target = make(BLUE, ALL_BLUE, probe=lambda num: ["ReadTimeout"] * num)
    target.rate = 0
    with pytest.raises(Exception, match="green at mirror: 3 of 3 probes failed: ReadTimeout") as failed:
        rollout.run()
    assert (failed.value.exit_code, target.traffic.live) == (6, {"blue": 100})
    assert rollout.record.seconds < 5

    rollout, target = make(BLUE, ALL_BLUE, probe=lambda num: ["status 500"] * (num > 3))
    target.rate = 0
    with pytest.raises(Exception, match="1 of 20 probes failed"):
        rollout.run()


def test_what_serves_already_is_left_alone(make):
    rollout, target = make({"green": dict(OURS), "blue": dict(OTHERS)}, {"green": 100})
    rollout.run()
    assert [call[0] for call in target.calls] == ["open", "health"]
    assert (rollout.record.state, rollout.record.nothing_to_do) == ("rolled_out", True)
    assert target.closed


def test_what_serves_already_but_is_broken_is_replaced(make):
    rollout, target = make({"blue": dict(OURS)}, ALL_BLUE)
    target.states["blue"] = "failed"
    rollout.run()
    assert target.traffic.live == {"green": 100}


def test_a_way_back_to_a_deployment_that_is_gone_is_forgotten(make):
    """Else the traffic goes to whatever has its name the next time."""
    rollout, target = make({"green": dict(OTHERS)}, {"green": 100}, interrupted={"blue": 100})
    target.states["blue"] = "failed"
    with pytest.raises(Exception, match="blue is failed"):
        rollout.run()
    assert (target.interrupted, target.shifts) == (None, [])


def test_an_old_deployment_that_cannot_be_deleted_is_no_failure(make):
    rollout, target = make(BLUE, ALL_BLUE, keep_previous=False)

    def trouble(number, call):
        if call == ("delete", "blue"):
            raise target.t.RefusedError("Conflict: another operation")

    target.trouble = trouble
    rollout.run()
    assert (rollout.record.state, target.traffic.live) == ("rolled_out", {"green": 100})


def test_the_way_back_waits_until_another_change_is_over(make):
    """Azure refuses a second change of an endpoint for as long as the first one takes."""
    rollout, target = make(BLUE, ALL_BLUE)
    target.poll_seconds = 30.0
    target.is_failing = lambda name, percent: percent == 10
    changed = []

    def trouble(number, call):
        if call[0] == "set_traffic" and call[1].live.get("green") == 10:
            changed.append(target.clock.now)
            raise KeyboardInterrupt
        if changed and call[0] == "set_traffic" and target.clock.now < changed[0] + 120:
            raise target.t.RefusedError("Conflict: another operation")

    target.trouble, target.late = trouble, True
    with pytest.raises(KeyboardInterrupt):
        rollout.run()
    assert target.traffic.live == {"blue": 100}


@pytest.mark.parametrize(
    "tag", ["", "{", "[5, 6]", "[[], []]", '[{"blue": "x"}, {}]', "[{}, {}]", '{"live": 1, "mirror": 2}', "[{}]"]
)
def test_a_tag_that_somebody_changed_is_no_way_back(modules, tag):
    assert modules.rollout_target.Traffic.from_tags({"traffic_before_rollout": tag}) is None


def test_other_code_for_the_same_model_is_rolled_out(make):
    rollout, target = make({"blue": {**OURS, "deployment_sha256": "d" * 64}}, ALL_BLUE)
    rollout.run()
    assert target.traffic.live == {"green": 100}


@pytest.mark.parametrize(
    ("tags", "state", "deleted"), [(OURS, "healthy", 0), (OTHERS, "healthy", 1), (OURS, "failed", 1)]
)
def test_what_a_killed_rollout_left_is_used_or_replaced(make, tags, state, deleted):
    rollout, target = make(
        {"blue": dict(OTHERS), "green": dict(tags)}, {"blue": 50, "green": 50}, interrupted={"blue": 100}
    )
    target.states["green"] = lambda: "healthy" if ("deploy", "green") in target.calls else state
    rollout.run()
    assert target.shifts[0] == ({"blue": 100}, {})
    assert sum(call[0] == "delete" for call in target.calls) == deleted
    assert target.traffic.live == {"green": 100}
    assert target.interrupted is None


def test_killed_at_100_percent_is_not_taken_for_done(make):
    rollout, target = make({"blue": dict(OTHERS), "green": dict(OURS)}, {"green": 100}, interrupted={"blue": 100})
    rollout.run()
    assert [live for live, _ in target.shifts] == [
        {"blue": 100},
        {"blue": 100},
        {"blue": 90, "green": 10},
        {"blue": 50, "green": 50},
        {"green": 100},
    ]


def test_traffic_that_was_split_by_hand_is_not_touched(make):
    rollout, target = make({"blue": {}, "green": {}}, {"blue": 70, "green": 30})
    with pytest.raises(Exception, match=r"split by hand \(blue 70 %, green 30 %\)"):
        rollout.run()
    assert target.shifts == []


def test_a_way_back_that_is_blocked_is_said(make):
    rollout, target = make(BLUE, ALL_BLUE)
    target.is_failing = lambda name, percent: name == "green" and percent == 10

    def no_way_back(number, call):
        if call[0] == "set_traffic" and call[1].live == {"blue": 100} and not call[1].mirror:
            raise ConnectionError("gone")

    target.trouble = no_way_back
    with pytest.raises(Exception, match=r"could NOT be set back to blue 100 %: gone") as failed:
        rollout.run()
    assert failed.value.exit_code == 6
    assert rollout.record.after.live == {"blue": 90, "green": 10}  # the truth
    assert target.interrupted.live == {"blue": 100}  # for the next run


def test_there_is_no_way_back_where_another_rollout_has_the_endpoint(make):
    rollout, target = make(BLUE, ALL_BLUE)
    target.is_failing = lambda name, percent: name == "green" and percent == 10

    def held(number, call):
        if call[0] == "set_traffic" and call[1].live == {"blue": 100} and not call[1].mirror:
            raise target.t.HeldError("slm: another rollout is under way, in job b")

    target.trouble = held
    with pytest.raises(target.t.HeldError, match="another rollout is under way, in job b"):
        rollout.run()
    assert target.calls.count(("set_traffic", target.t.Traffic({"blue": 100}))) == 1


TROUBLES = [ConnectionError, KeyboardInterrupt, SystemExit, ValueError, MemoryError]


@given(
    data=st.data(),
    first=st.booleans(),
    at=st.sets(st.integers(1, 260), max_size=2),
    late=st.booleans(),
    broken=st.sampled_from([None, 10, 20, 50, 100]),
    rate=st.sampled_from([0, 1, 10]),
)
def test_whatever_happens_all_traffic_is_green_or_what_it_was(make, data, first, at, late, broken, rate):
    """At most two calls go wrong, before or after they took effect: fewer than the attempts of the way back."""
    rollout, target = make() if first else make(BLUE, ALL_BLUE)
    before = target.traffic
    target.rate, target.is_failing = rate, lambda name, percent: name == "green" and percent == broken

    def trouble(number, call):
        if number in at:
            raise data.draw(st.sampled_from(TROUBLES))("trouble")

    target.trouble, target.late = trouble, late
    try:
        rollout.run()
    except BaseException:
        assert target.traffic == before or rollout.record.state == "rolled_out"
    new = "blue" if first else "green"
    assert target.traffic in (before, target.t.Traffic({new: 100}))
    if rollout.record.endpoint:  # which was seen before anything was changed
        assert rollout.record.after == target.traffic


def test_the_limits(modules):
    counts, rules = modules.rollout_target.Counts, modules.rollout_rules
    limits = rules.Limits(0.01, 1.0, None, 20)
    # Wilson's interval at 99 %, worked out by hand: 3 of 100 begins at 0.0076, 5 of 100 at 0.0168.
    assert rules.surely_broken(counts(100, 3, 0.1), counts(), limits) is None
    assert "surely more than max_error_fraction 0.01" in rules.surely_broken(counts(100, 5), counts(), limits)
    assert rules.surely_broken(counts(2, 2), counts(), limits) is None  # two accidents
    # Above the old deployment though below the limit: 30 of 1000 begins at 0.0189, 5 of 1000 ends at 0.0149.
    loose = rules.Limits(0.1, 1.0, None, 20)
    assert "more than the 5 of 1000 of the old" in rules.surely_broken(counts(1000, 30), counts(1000, 5), loose)
    assert rules.surely_broken(counts(1000, 10), counts(1000, 5), loose) is None
    assert rules.broken(counts(100, 1, 0.1), counts(), limits) is None  # exactly what is allowed
    assert "2 of 100 requests failed, more than" in rules.broken(counts(100, 2, 0.1), counts(), limits)
    assert rules.broken(counts(19, 1, 9.0), counts(100, 0, 0.1), limits) is None  # too few to judge


def test_the_report_shows_where_it_failed(make, modules):
    rollout, target = make(BLUE, ALL_BLUE)
    target.is_failing = lambda name, percent: name == "green" and percent == 50
    with pytest.raises(modules.rollout.RolloutError):
        rollout.run()
    rollout.record.endpoint = target.t.Endpoint("http://127.0.0.1:8080/v1/chat/completions", target.traffic, {})
    rollout.record.logs = ["<script>alert(1)</script>"]
    page = modules.rollout_report.page("<b>shop</b>", rollout.record, rollout.plan, target)
    assert 'class="bad">traffic as before' in page
    assert "green at 50 %: 5 of 5 requests failed" in page
    assert '<li class="failed"><b>50 %</b>' in page
    assert '<li class=""><b>100 %</b>not reached' in page
    assert "curl -N http://127.0.0.1:8080/v1/chat/completions" in page
    assert "<script>" not in page and "<b>shop" not in page
    assert page.count("data:image/svg+xml") == 1
    assert "az account get-access-token" in modules.rollout_report.curl("https://h/score", "aad_token")


def test_probes(load_main, serve, modules):
    """Busy is not broken, unless it stays so."""
    load_main("deploy_endpoint")
    probes, address = importlib.import_module("rollout_probes"), modules.rollout_target.Address
    busy = serve(lambda number, body: (429, {}) if number < 3 else (200, {}))
    target = address(f"{busy.url}/chat/completions", lambda: {"azureml-model-deployment": "green"}, "slm")
    assert probes.probe(target, 2, 5.0) == []
    assert {headers["azureml-model-deployment"] for headers in busy.headers} == {"green"}
    assert busy.bodies[0] == {"model": "slm", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    full = serve(lambda number, body: (429, {}))
    assert probes.probe(address(full.url, dict, "slm"), 1, 0.3) == ["status 429"]
    broken = serve(lambda number, body: (500, {}) if number == 1 else None if number == 2 else (200, {}))
    assert sorted(probes.probe(address(broken.url, dict, "slm"), 4, 5.0)) == ["RemoteProtocolError", "status 500"]
