"""Write texts like private ones, with an (epsilon, delta) guarantee, by Private Evolution."""

import asyncio
import dataclasses
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gaussian_accounting
import privacy_ledger
import public_grammar
import yaml
from privacy_ledger import Ledger, Run
from rounds_so_far import RoundsSoFar

from slmkit import cli, lineage, records, teacher, tracking
from slmkit.errors import UserError

if TYPE_CHECKING:
    from private_evolution import Candidate, Evolution

SPEC = Path(__file__).with_name("component.yml")
DEFAULT_TOPICS = Path(__file__).with_name("public_topics.yml")
LANGUAGES = ("en", "ja", "ko")
ORIGIN = "private_evolution"
TOLERANCE = 1e-9  # of an epsilon that is reached exactly, but for rounding


@dataclass(frozen=True)
class Args:
    private_documents: Path
    dataset: str
    min_num_records: int
    delta: float
    documents: Path
    report: Path
    ledger: Path
    epsilon: float | None = None
    sigma: float | None = None
    max_total_epsilon: float | None = None
    previous_ledger: Path | None = None
    person_field: str | None = None
    public_topics: Path | None = None
    languages: str = "en"
    num_texts: int = 50
    num_variations: int = 4
    num_rounds: int = 5
    selection: str = "rank"
    vote_threshold: float = 0.0
    teacher: str = "embedded"
    teacher_model: str = "embedded"
    auth: str = "azure"
    concurrency: int = 8
    max_retries: int = 6
    max_error_fraction: float = 0.2
    seed: int = 42


def run(args: Args) -> dict[str, float]:
    import guarantee_report

    sigma = noise(args)
    check_signal(args, sigma)
    topics = read_topics(args)
    unit = "one person" if args.person_field else "one record"
    so_far = RoundsSoFar(args.report / "rounds.jsonl", parameters(args))
    ledger = privacy_ledger.opened(args.dataset, unit, args.delta, args.previous_ledger, args.ledger)
    this = next((earlier for earlier in ledger.runs if earlier.id == so_far.run_id), None)
    if this is None:
        this = Run(so_far.run_id, sigma, args.num_rounds)
        ledger.runs.append(this)
    check_budget(args, ledger)

    answers_so_far = teacher.keep_until_done(args.report)
    texts, usage = asyncio.run(evolve(args, topics, ledger, this, so_far, answers_so_far))
    with records.write_records(args.documents) as write:
        for language, text in texts:
            write(document(language, text))
    this.finished = True
    ledger.write(args.ledger)
    teacher_name = teacher.name(args.teacher, args.teacher_model)
    num_candidates = args.num_texts * args.num_variations
    with records.whole_file(args.report / "report.html") as partial:
        page = guarantee_report.render(ledger, this, len(texts), teacher_name, num_candidates)
        partial.write_text(page, encoding="utf-8")
    so_far.forget()
    teacher.forget(answers_so_far)

    # Nothing else that was computed on private data: the number of records, too, is private.
    tracking.log_params(
        {"epsilon": ledger.epsilon(), "delta": args.delta, "sigma": sigma, "num_rounds": args.num_rounds}
    )
    metrics = {"privacy/epsilon": ledger.epsilon(), "data/num_texts": float(len(texts))}
    metrics |= {f"teacher/{name}": value for name, value in usage.items()}
    tracking.log_metrics(metrics)
    # Without the private input, whose hash would be a function of every record.
    lineage.write(dataclasses.replace(args, private_documents=None), SPEC)
    print(
        f"{len(texts)} texts by {teacher_name}; sigma={sigma:.4g}, {this.rounds_spent} rounds; all runs over "
        f"{args.dataset!r}: ({ledger.epsilon():.4g}, {args.delta:g})-differentially private for {unit}"
    )
    return metrics


async def evolve(
    args: Args, topics: dict, ledger: Ledger, this: Run, so_far: RoundsSoFar, answers_so_far: Path
) -> tuple[list["Candidate"], dict[str, float]]:
    """Rounds of candidates, votes and selection. A round is in the ledger before its noise is drawn."""
    from private_evolution import Evolution
    from private_votes import Voters

    evolution = Evolution(
        topics,
        args.num_texts,
        args.num_variations,
        args.selection,
        args.vote_threshold,
        args.max_error_fraction,
        args.seed,
    )
    kept = replay(evolution, so_far)
    voters = Voters(args.private_documents, args.person_field)
    async with teacher.connect(
        args.teacher,
        args.teacher_model,
        public_grammar.answer,
        auth=args.auth,
        concurrency=args.concurrency,
        max_retries=args.max_retries,
        cache_path=answers_so_far,
    ) as client:
        for number in range(len(so_far.rounds), args.num_rounds):
            candidates = await evolution.candidates(client, number, kept)
            ledger.spend(this, args.ledger, with_tolerance(args.max_total_epsilon))
            votes = voters.noisy_votes([text for _, text in candidates], this.sigma)
            so_far.add(candidates, votes)
            kept = evolution.select(candidates, votes, number)
        return kept, client.usage.summary()


def replay(evolution: "Evolution", so_far: RoundsSoFar) -> list["Candidate"]:
    """What the last round that is known kept."""
    if not so_far.rounds:
        return []
    last = so_far.rounds[-1]
    return evolution.select([tuple(c) for c in last["candidates"]], last["votes"], len(so_far.rounds) - 1)


def noise(args: Args) -> float:
    """Sigma, as given or from epsilon."""
    if not 0 < args.delta < 1:
        raise UserError(f"delta={args.delta:g} must lie between 0 and 1, and much below 1 / number of records")
    if (args.epsilon is None) == (args.sigma is None):
        raise UserError("give either epsilon (the noise follows from it) or sigma")
    for name in ("epsilon", "sigma", "max_total_epsilon"):
        value = getattr(args, name)
        if value is not None and value <= 0:
            raise UserError(f"{name}={value:g} must be above 0")
    if args.sigma is not None:
        return args.sigma
    return gaussian_accounting.sigma_for(args.epsilon, args.delta, args.num_rounds)


def check_signal(args: Args, sigma: float) -> None:
    """Refuse what would be noise: the votes that a text kept can expect must reach the noise on them.

    The true number of records must not decide, since the refusal would tell it: a declared one does.
    """
    expected = args.min_num_records / args.num_texts
    if expected < sigma:
        enough = args.min_num_records / sigma
        raise UserError(
            f"{args.min_num_records} records give {expected:.2g} votes to each of {args.num_texts} texts, the noise "
            f"is sigma={sigma:.3g}: the result would be noise. Have {math.ceil(sigma * args.num_texts)} records"
            + (f", or ask for {int(enough)} texts" if enough >= 1 else "")
            + ", or allow a larger epsilon or fewer rounds"
        )


def check_budget(args: Args, ledger: Ledger) -> None:
    total, most = ledger.epsilon(planned=True), args.max_total_epsilon
    if most is not None and total > with_tolerance(most):
        raise UserError(
            f"this run would bring {args.dataset!r} to epsilon={total:.4g} at delta={args.delta:g} "
            f"(spent so far: {ledger.epsilon():.4g}), above max_total_epsilon={most:g}; nothing was spent"
        )


def with_tolerance(epsilon: float | None) -> float | None:
    return None if epsilon is None else epsilon * (1 + TOLERANCE)


def read_topics(args: Args) -> dict[str, dict[str, Any]]:
    languages = [part.strip() for part in args.languages.split(",") if part.strip()]
    if unknown := [language for language in languages if language not in LANGUAGES]:
        raise UserError(f"languages: {unknown[0]!r} is not one of {', '.join(LANGUAGES)}")
    path = args.public_topics or DEFAULT_TOPICS
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    for language in languages or [""]:
        part = found.get(language) if isinstance(found, dict) else None
        if not isinstance(part, dict) or set(part) != {"scenario", "topics"}:
            raise UserError(f"{path}: {language!r} needs exactly scenario and topics")
        topics = part["topics"]
        if not isinstance(part["scenario"], str) or not isinstance(topics, list) or not topics:
            raise UserError(f"{path}: {language}: scenario is a text, and topics a list of at least one")
        part["topics"] = list(map(str, topics))
    return {language: found[language] for language in languages}


def parameters(args: Args) -> str:
    """Those on which a resumed run must agree; none of them is computed on private data."""
    names = ("dataset", "delta", "epsilon", "sigma", "person_field", "languages", "num_texts", "num_variations")
    names += ("num_rounds", "selection", "vote_threshold", "teacher", "teacher_model", "seed")
    return records.content_id(*(str(getattr(args, name)) for name in names))


def document(language: str, text: str) -> dict[str, Any]:
    return {
        "id": records.content_id(text),
        "text": text,
        "source": ORIGIN,
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "media_type": "text/plain",
        "language": language,
        "origin": ORIGIN,
    }


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
