#!/usr/bin/env python
"""How often detect_drift alarms when nothing drifted, what it sees of drifts that are there, and what it costs.

--part alarms   windows of an unchanged world, several against each baseline: the share of them in which each signal
                says drift, and in which the decision is to act
--part power    the share of windows with a known drift that are called drift
--part scale    seconds and memory of the component over 10k, 30k and 100k rows

Traffic is simulated: customers of a shop chain ask in English, Japanese and Korean; conversations go on for a few
turns, the same questions come back, and hours differ in topic, load and errors (--bursts). Where real public questions
lie beside the repository they are asked instead with --questions real. Canaries answer right or wrong with a
difficulty of their own; an answer that is asked for again may differ.
"""

import argparse
import dataclasses
import datetime
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("_shared", "detect_drift", "compare_candidates", "score_answers")
PATHS = [str(ROOT / "components" / folder) for folder in FOLDERS]
sys.path[:0] = PATHS

import answer_drift  # noqa: E402
import canary_drift  # noqa: E402
import drift_history  # noqa: E402
import drift_policy  # noqa: E402
import drift_settings  # noqa: E402
import input_drift  # noqa: E402
import prompt_sensitivity  # noqa: E402
import service_drift  # noqa: E402
from drift_signal import Signal  # noqa: E402
from drift_snapshot import Canary  # noqa: E402

from slmkit.wilson_interval import wilson  # noqa: E402

REAL = ROOT.parent / "shared" / "data" / "benchmarks"
START = datetime.datetime(2026, 11, 16, tzinfo=datetime.UTC)
NUM_HOURS = 168  # a window is a week

# --- questions -------------------------------------------------------------------------------------------------------

PLACES = {
    "en": ["Myeongdong", "Gangnam", "Harbor Street", "Old Town", "Riverside", "North Gate", "Central Plaza", "Airport"],
    "ja": ["渋谷店", "新宿店", "梅田店", "札幌店", "横浜店", "博多店", "名古屋店", "京都店"],
    "ko": ["명동점", "강남점", "서초점", "해운대점", "대전점", "광주점", "인천점", "수원점"],
}
THINGS = {
    "en": ["laptop", "phone", "tablet", "camera", "headphones", "printer", "monitor", "charger", "keyboard", "router"],
    "ja": ["パソコン", "スマホ", "タブレット", "カメラ", "イヤホン", "プリンター", "モニター", "充電器", "時計"],
    "ko": ["노트북", "휴대폰", "태블릿", "카메라", "이어폰", "프린터", "모니터", "충전기", "키보드", "시계"],
}
TOPICS = {
    "en": [
        "When does the {place} store open on day {n}?",
        "How do I get to the {place} store by subway from exit {n}?",
        "Is the {thing} in stock at {place}? I need {n} of them.",
        "Can I return a {thing} that I bought {n} days ago at {place}?",
        "What is the phone number of {place}, counter {n}?",
        "My {thing} does not turn on since {n} days. Does the service center in {place} repair it?",
        "Which {thing} would you recommend below {n}0,000 won?",
    ],
    "ja": [
        "{place}の{n}日の営業時間を教えてください。",
        "{n}番出口から{place}までの行き方を教えてください。",
        "{place}に{thing}の在庫はありますか。{n}台必要です。",
        "{n}日前に{place}で買った{thing}を返品できますか。",
        "{place}の{n}番窓口の電話番号は何ですか。",
        "{thing}の電源が{n}日前から入りません。{place}で修理できますか。",
        "{n}万円以下でおすすめの{thing}はどれですか。",
    ],
    "ko": [
        "{place} {n}일 영업시간이 어떻게 되나요?",
        "{n}번 출구에서 {place}까지 어떻게 가나요?",
        "{place}에 {thing} 재고가 있나요? {n}개 필요합니다.",
        "{n}일 전에 {place}에서 산 {thing} 반품할 수 있나요?",
        "{place} {n}번 창구 전화번호가 뭐예요?",
        "{thing} 전원이 {n}일 전부터 안 켜져요. {place}에서 수리되나요?",
        "{n}만원 이하로 추천할 만한 {thing} 있나요?",
    ],
}
NEW_TOPICS = {  # what the world asks once it has changed
    "en": [
        "How many points do I have on membership card {n}, and do they expire?",
        "Does the subscription for the {thing} renew by itself after {n} months?",
        "Cancel my delivery {n} to {place}, please.",
    ],
    "ja": [
        "会員カード{n}のポイント残高と有効期限を教えてください。",
        "{thing}の定額プランは{n}か月後に自動更新されますか。",
        "{place}への配送{n}をキャンセルしてください。",
    ],
    "ko": [
        "멤버십 카드 {n} 포인트는 얼마이고 언제 소멸되나요?",
        "{thing} 구독은 {n}개월 뒤에 자동 갱신되나요?",
        "{place} 배송 {n} 취소해 주세요.",
    ],
}
LANGUAGES, LANGUAGE_SHARES = ("en", "ja", "ko"), (0.5, 0.3, 0.2)


class Questions:
    """Questions of topics; a changed world asks of other ones."""

    def __init__(self, real: bool):
        self.real = {}
        if real:
            rows = [json.loads(line) for line in (REAL / "gsm8k-train.jsonl").open(encoding="utf-8")]
            self.real["en"] = [row["question"] for row in rows]
            rows = [json.loads(line) for line in (REAL / "jcommonsenseqa-train.jsonl").open(encoding="utf-8")]
            self.real["ja"] = [row["question"] for row in rows]

    def ask(self, rng: np.random.Generator, language: str, topic: int, new: bool) -> str:
        if not new and language in self.real:
            those = self.real[language]
            # Topics are parts of the files: real questions do not say what they are about.
            return those[int((topic + rng.random()) * len(those) / len(TOPICS["en"])) % len(those)]
        templates = (NEW_TOPICS if new else TOPICS)[language]
        place, thing = (of[language][min(rng.geometric(0.25) - 1, len(of[language]) - 1)] for of in (PLACES, THINGS))
        return templates[topic % len(templates)].format(place=place, thing=thing, n=int(rng.integers(1, 60)))


@dataclasses.dataclass(frozen=True)
class World:
    """What traffic is drawn from."""

    questions: Questions
    bursts: float = 0.0  # how much hours differ, in topics, load and errors
    new_share: float = 0.0  # of conversations, about new topics
    slower: float = 1.0
    longer: float = 1.0  # answers
    failing: float = 0.0  # share of further errors

    def traffic(self, num_rows: int, seed: tuple[int, ...]) -> list[dict]:
        rng = np.random.default_rng(seed)
        num_topics = len(TOPICS["en"])
        usual = 1 / np.arange(1, num_topics + 1)
        topics = rng.dirichlet(usual / usual.sum() * (3 / self.bursts), size=NUM_HOURS) if self.bursts else None
        load = np.exp(0.3 * self.bursts * rng.normal(0, 1, NUM_HOURS))
        broken = 0.005 * np.where(rng.random(NUM_HOURS) < 0.1, 10 * self.bursts, 1.0)
        rows: list[dict] = []
        while len(rows) < num_rows:
            hour = int(rng.integers(NUM_HOURS))
            language = str(rng.choice(LANGUAGES, p=LANGUAGE_SHARES))
            new = rng.random() < self.new_share
            topic = int(rng.choice(num_topics, p=topics[hour] if self.bursts else usual / usual.sum()))
            messages: list[dict] = []
            at = hour * 3600 + rng.random() * 3000
            for _ in range(min(1 + rng.geometric(0.75) - 1, 5)):
                messages = [*messages, {"role": "user", "content": self.questions.ask(rng, language, topic, new)}]
                rows.append(self._row(rng, messages, language, at, load[hour], broken[hour]))
                messages = [*messages, {"role": "assistant", "content": rows[-1]["output"] or "-"}]
                at += 20 + rng.random() * 60
        rows = sorted(rows[:num_rows], key=lambda row: row["timestamp"])
        return [row | {"id": f"t{i}"} for i, row in enumerate(rows)]

    def _row(
        self, rng: np.random.Generator, messages: list[dict], language: str, at: float, load: float, broken: float
    ) -> dict:
        failed = rng.random() < broken + self.failing
        tokens = max(1, int(rng.lognormal(4.0, 0.5) * self.longer))
        latency = self.slower * load * (80 + 12 * tokens) * rng.lognormal(0, 0.25)
        time = START + datetime.timedelta(seconds=at)
        return {
            "timestamp": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "messages": messages,
            "output": None if failed else "answer " * (tokens // 2),
            "status": int(rng.choice([429, 500, 503])) if failed else 200,
            "latency_ms": float(latency),
            "prompt_tokens": 30 + sum(len(m["content"]) for m in messages) // (4 if language == "en" else 2),
            "completion_tokens": None if failed else tokens,
            "finish_reason": None if failed else "stop",
            "deployment": "blue",
            "model": "shop",
            "language": language,
            "error": "no answer" if failed else None,
        }


# --- canaries --------------------------------------------------------------------------------------------------------

ACCURACY = 0.7
OTHER_ANSWERS = 0.1  # of the answers, where the same prompt is asked again
EDITS = (None, "whitespace", "politeness")


def canaries(num: int, seed: tuple[int, ...]) -> Callable[..., list[Canary]]:
    """Asks the same canaries, two of a document, at each call; the model has got as much worse or longer as said."""
    world = np.random.default_rng(seed)
    skill = np.repeat(world.normal(1.1, 1.2, num), 2)[:num] + world.normal(0, 1.0, num)
    luck, length = world.logistic(size=num), world.lognormal(4.5, 0.4, num)
    languages = world.choice(LANGUAGES, p=LANGUAGE_SHARES, size=num)

    def answers(fall: float = 0.0, longer: float = 1.0) -> list[Canary]:
        found = []
        forgotten = world.random(num) < fall / ACCURACY
        for i in range(num):
            for edit, repeat in ((None, 0), (None, 1), *((edit, 0) for edit in EDITS[1:])):
                again = world.random() < OTHER_ANSWERS
                right = skill[i] > (world.logistic() if again else luck[i]) and not forgotten[i]
                said = f"r{i}" if right else f"w{i} {world.integers(9)}"
                num_words = max(1, round(length[i] * longer * (world.lognormal(0, 0.2) if again else 1.0) / 6))
                suffix = f":{edit}" if edit else f":r{repeat}" if repeat else ""
                found.append(
                    Canary(
                        id=f"c{i}{suffix}",
                        canary_id=f"c{i}",
                        edit=edit,
                        repeat=repeat,
                        cluster=f"d{i // 2}",
                        slices={"language": str(languages[i])},
                        output=f"{said}{' because' * num_words}",
                        score=float(right),
                        failed=False,
                        references=[f"r{i}"],
                    )
                )
        return found

    return answers


# --- what is measured ------------------------------------------------------------------------------------------------


def share(count: int, num: int) -> str:
    low, high = wilson(count, num)
    return f"{count / num:.1%} ({low:.0%} to {high:.0%})"


def watch(args: argparse.Namespace, questions: Questions, run: int) -> list[dict[str, str | float]]:
    """The verdicts and the action of each window that is held against one baseline."""
    policy, past, found = drift_settings.Policy(), [], []
    world = World(questions, args.bursts)
    ask = canaries(args.num_canaries, (run, 0))
    canaries_then, traffic_then = ask(), world.traffic(args.num_rows, (run, 1))
    served = {"endpoint": "e", "deployment": "blue", "model_sha256": "m"}
    for look in range(1, args.num_looks + 1):
        canaries_now, traffic_now = ask(), world.traffic(args.num_rows, (run, 1 + look))
        signals = [
            canary_drift.llm_drift(canaries_then, canaries_now, policy.llm_drift, look, run),
            answer_drift.prompt_drift(canaries_then, canaries_now, policy.prompt_drift, look, run),
            prompt_sensitivity.prompt_sensitivity(canaries_then, canaries_now, policy.prompt_sensitivity, look, run),
            input_drift.input_drift(traffic_then, traffic_now, policy.input_drift, run),
            service_drift.service_drift(traffic_then, traffic_now, policy.service_drift, run),
        ]
        decision = drift_policy.decide(policy, signals, past, "b", served, served)
        line = {"window": str(look), "created_at": "", "baseline_id": "b", "look": look, "decision_id": "", **served}
        findings = drift_history.findings(signals)
        past.append(drift_history.Line(signals=findings, action=decision["action"], **line))
        halves = next((e.current for e in signals[3].effects if e.name == "null_alarm_rate"), math.nan)
        found.append({**decision["signals"], "action": decision["action"], "halves": halves})
    return found


def alarms(args: argparse.Namespace, questions: Questions) -> None:
    num_baselines = -(-args.num_windows // args.num_looks)
    found = [window for run in range(num_baselines) for window in watch(args, questions, run)]
    num = len(found)
    print(
        f"\nNothing drifted: {num} windows, {args.num_looks} at each baseline; "
        f"{args.num_canaries} canaries and {args.num_rows:,} requests a window; bursts {args.bursts:g}"
    )
    print("| signal | drift | insufficient |\n|---|---|---|")
    for name in drift_policy.SIGNALS:
        verdicts = [window[name] for window in found]
        print(f"| {name} | {share(verdicts.count('drift'), num)} | {verdicts.count('insufficient')} |")
    acted = sum(window["action"] != "none" for window in found)
    print(f"| the decision: anything but none | {share(acted, num)} | |")
    halves = np.nanmean([window["halves"] for window in found])
    print(f"Of the halves of the baselines the plain test of input_drift alarms in {halves:.1%}.", flush=True)


def power(args: argparse.Namespace, questions: Questions) -> None:
    policy = drift_settings.Policy()

    of_canaries = {"llm_drift": canary_drift.llm_drift, "prompt_drift": answer_drift.prompt_drift}
    of_traffic = {"input_drift": input_drift.input_drift, "service_drift": service_drift.service_drift}

    def measure(name: str, drift: dict[str, float], num: int, run: int) -> Signal:
        settings = getattr(policy, name)
        if name in of_canaries:
            ask = canaries(num, (run, 3))
            return of_canaries[name](ask(), ask(**drift), settings, 1, run)
        then = World(questions, args.bursts).traffic(num, (run, 4))
        now = World(questions, args.bursts, **drift).traffic(num, (run, 5))
        return of_traffic[name](then, now, settings, run)

    drifts = {
        "accuracy -5 points": ("llm_drift", {"fall": 0.05}),
        "accuracy -10 points": ("llm_drift", {"fall": 0.10}),
        "accuracy -30 points": ("llm_drift", {"fall": 0.30}),
        "20 % of the inputs changed": ("input_drift", {"new_share": 0.2}),
        "50 % of the inputs changed": ("input_drift", {"new_share": 0.5}),
        "answers x0.5": ("prompt_drift", {"longer": 0.5}),
        "answers x2": ("prompt_drift", {"longer": 2.0}),
        "answers of traffic x0.5": ("service_drift", {"longer": 0.5}),
        "answers of traffic x2": ("service_drift", {"longer": 2.0}),
        "latency x1.5": ("service_drift", {"slower": 1.5}),
        "errors +5 points": ("service_drift", {"failing": 0.05}),
        "errors +50 points": ("service_drift", {"failing": 0.5}),
    }
    print(f"\nDrift that is there, seen in so many of {args.num_power_windows} windows; bursts {args.bursts:g}")
    print(f"| drift | signal | {' | '.join(f'n = {num}' for num in args.num_power_rows)} |")
    print("|---|---|" + "---|" * len(args.num_power_rows))
    for what, (name, drift) in drifts.items():
        if not what.startswith(tuple(args.drifts)):
            continue
        cells = []
        for num in args.num_power_rows:
            verdicts = [measure(name, drift, num, run).verdict for run in range(args.num_power_windows)]
            refused = verdicts.count("insufficient") == len(verdicts)
            cells.append("insufficient" if refused else f"{verdicts.count('drift') / len(verdicts):.0%}")
        print(f"| {what} | {name} | {' | '.join(cells)} |", flush=True)


def scale(args: argparse.Namespace, questions: Questions) -> None:
    """The component as a process, a baseline and then a window against it: all of its reading and writing too."""
    component = ROOT / "components" / "detect_drift" / "main.py"
    print("\n| requests a window | rows/s | seconds | CPU seconds | GiB |\n|---|---|---|---|---|")
    for num_rows in args.num_scale_rows:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for seed, window in enumerate(("before", "now")):
                rows = World(questions, args.bursts).traffic(num_rows, (6, seed))
                lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
                (folder / f"{window}.jsonl").write_text(lines, encoding="utf-8")
                outputs = {
                    port: folder / window / port for port in ("drift", "decision", "history", "snapshot", "report")
                }
                (folder / window).mkdir()
                flags = {"traffic": folder / f"{window}.jsonl", **outputs}
                flags |= {"baseline": folder / "before" / "snapshot"} if seed else {}
                command = [sys.executable, str(component), *(str(p) for f, v in flags.items() for p in (f"--{f}", v))]
                started = time.perf_counter()
                env = {**os.environ, "PYTHONPATH": os.pathsep.join(PATHS)}
                process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
                _, status, used = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
                seconds = time.perf_counter() - started
                if process.returncode:
                    sys.exit(f"{component} failed at {num_rows:,} rows")
        cpu = used.ru_utime + used.ru_stime
        print(
            f"| {num_rows:,} | {num_rows / seconds:,.0f} | {seconds:.1f} | {cpu:.1f} | {used.ru_maxrss / 2**20:.2f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("alarms", "power", "scale"), nargs="+", default=["alarms", "power", "scale"])
    parser.add_argument("--questions", choices=("templates", "real"), default="templates")
    parser.add_argument("--bursts", type=float, default=0.0, help="how much hours differ: 0 not at all, 1 much")
    parser.add_argument("--num_windows", type=int, default=200)
    parser.add_argument("--num_looks", type=int, default=4, help="windows against one baseline")
    parser.add_argument("--num_canaries", type=int, default=100)
    parser.add_argument("--num_rows", type=int, default=500, help="requests of a window")
    parser.add_argument("--num_power_windows", type=int, default=50)
    parser.add_argument("--drifts", nargs="+", default=[""], help="only the drifts whose names begin so")
    parser.add_argument("--num_power_rows", type=int, nargs="+", default=[50, 150, 500])
    parser.add_argument("--num_scale_rows", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    args = parser.parse_args()
    if args.questions == "real" and not REAL.is_dir():
        parser.error(f"no real questions at {REAL}")
    questions = Questions(args.questions == "real")
    for part in args.part:
        {"alarms": alarms, "power": power, "scale": scale}[part](args, questions)


if __name__ == "__main__":
    main()
