"""Make personas from documents, scenarios and personas, that no one can be told apart by and a judge can check."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import combining_teacher
import direct_identifiers
import k_anonymity
import persona_report
import persona_sources
import yaml
from persona_record import Persona, Personas
from persona_sources import LANGUAGES, Source

from slmkit import cli, lineage, records, teacher, text_embedding, textstats, tracking
from slmkit.chat_client import AnswerError, ChatClient
from slmkit.errors import UserError

SPEC = Path(__file__).with_name("component.yml")
PROMPTS = yaml.safe_load(Path(__file__).with_name("prompts.yml").read_text(encoding="utf-8"))
MAX_PER_REQUEST = 5  # more at a time become alike
Write = Callable[[dict], None]


@dataclass(frozen=True)
class Args:
    personas: Path
    report: Path
    documents: Path | None = None
    scenario: Path | None = None
    teacher: str = "embedded"
    teacher_model: str = "embedded"
    auth: str = "azure"
    num_personas: int = 120
    num_rounds: int = 1
    text_chars: int = 2000
    quasi_identifiers: str = "language,occupation_group,age_band,region"
    min_cell_size: int = 3
    max_similarity: float = 0.85
    concurrency: int = 8
    max_retries: int = 6
    max_error_fraction: float = 0.05
    seed: int = 42


@dataclass(frozen=True)
class Request:
    source: Source
    num_personas: int
    part: int  # of those about the same source


def run(args: Args) -> dict[str, float]:
    quasi_identifiers = k_anonymity.parse_quasi_identifiers(args.quasi_identifiers)
    if not args.documents and not args.scenario:
        raise UserError("nothing to make personas from: give documents, a scenario file, or both")
    teacher_name = teacher.name(args.teacher, args.teacher_model)
    tracking.set_tags({"teacher": teacher_name})
    answers_so_far = teacher.keep_until_done(args.report)
    counts: Counter[str] = Counter()
    refused: list[dict] = []
    try:
        sources = read_sources(args, counts, refused.append)
        found, usage = asyncio.run(generate(args, sources, answers_so_far, counts, refused.append))
        anonymized = k_anonymity.anonymize(found, quasi_identifiers, args.min_cell_size)
        counts["kept"], counts["small_cell"] = len(anonymized.kept), len(anonymized.refused)
        refused += [{"reason": "small_cell", **persona} for persona in anonymized.refused]
    finally:  # also when too much was refused to go on
        with records.write_records(args.report / "quarantine.jsonl") as write:
            for row in refused:
                write(row)
    report = persona_report.write(args.report, teacher_name, args, counts, anonymized, usage)
    check(counts, args)
    with records.write_records(args.personas) as write:
        for persona in anonymized.kept:
            write(persona)
    teacher.forget(answers_so_far)

    metrics = {f"data/num_{name}": float(counts[name]) for name in ("requests", "candidates")}
    metrics["data/num_personas"] = float(counts["kept"])
    metrics["data/accepted_fraction"] = counts["kept"] / counts["candidates"]
    metrics |= {f"data/num_refused_{reason}": float(counts[reason]) for reason in persona_report.REASONS}
    metrics |= {f"data/{name}": float(value) for name, value in report["distinctness"].items()}
    metrics |= {f"teacher/{name}": float(value) for name, value in usage.items()}
    tracking.log_metrics(metrics)
    lineage.write(args, SPEC)
    print(
        f"teacher={teacher_name}: {counts['kept']} personas of {counts['candidates']} ({args.num_personas} asked for) "
        f"in {len(anonymized.cells)} cells of at least {args.min_cell_size}; mean similarity to the nearest other "
        f"{report['distinctness']['mean_nearest_similarity']:.2f}; see {args.report / 'report.html'}"
    )
    return metrics


def read_sources(args: Args, counts: Counter[str], refuse: Write) -> list[list[Source]]:
    """The documents and the scenarios, each a list that is not empty."""
    sources = []
    if args.documents:
        sources.append(
            persona_sources.sample_documents(
                args.documents, args.num_personas, args.text_chars, args.seed, counts, refuse
            )
        )
        records.check_share(counts["documents_refused"], counts["documents"], args.max_error_fraction, "documents")
    if args.scenario:
        sources.append(persona_sources.read_scenarios(args.scenario))
    if found := [some for some in sources if some]:
        return found
    raise UserError(f"{args.documents}: no document with an id and a text in {', '.join(LANGUAGES)}")


async def generate(
    args: Args, sources: list[list[Source]], answers_so_far: Path, counts: Counter[str], refuse: Write
) -> tuple[list[dict], dict[str, float]]:
    """The distinct personas of all rounds, and what the teacher was asked."""
    found: list[dict] = []
    async with teacher.connect(
        args.teacher,
        args.teacher_model,
        combining_teacher.answer,
        auth=args.auth,
        concurrency=args.concurrency,
        max_retries=args.max_retries,
        cache_path=answers_so_far,
    ) as client:
        for rounds_left in range(args.num_rounds, -1, -1):
            wanted = share(args.num_personas - len(found), rounds_left + 1, rounds_left)
            requests = [
                request
                for position, some in enumerate(sources)
                for request in plan(some, share(wanted, len(sources), position))
            ]
            candidates = [candidate async for candidate in ask(client, requests, args, counts, refuse)]
            new = distinct(found, candidates, args.max_similarity, counts, refuse)
            found += new
            sources = [[persona_sources.of_persona(persona) for persona in new]]
            if not new:
                break
        return found, client.usage.summary()


def share(total: int, parts: int, position: int) -> int:
    """The part at this position of a total that is divided as evenly as whole numbers allow."""
    return (position + 1) * total // parts - position * total // parts


def plan(sources: Sequence[Source], num_personas: int) -> Iterator[Request]:
    """Requests for as many personas, evenly over the sources; of too many sources, evenly chosen ones."""
    for position, source in enumerate(sources):
        wanted = share(num_personas, len(sources), position)
        for part, start in enumerate(range(0, wanted, MAX_PER_REQUEST)):
            yield Request(source, min(MAX_PER_REQUEST, wanted - start), part)


async def ask(client: ChatClient, requests: list[Request], args: Args, counts: Counter[str], refuse: Write):
    """The personas that pass the checks that need no other persona, in the order of the requests."""

    async def one(request: Request):
        return await client.complete_structured(prompt(request), Personas, seed=args.seed)

    async for request, result in client.each(requests, one):
        counts["requests"] += 1
        asked = {"source_ids": list(request.source.source_ids)}
        if isinstance(result, AnswerError):
            counts["requests_failed"] += 1
            refuse({"reason": str(result), **asked})
        elif result[1] is None:
            counts["requests_filtered"] += 1
            refuse({"reason": "the teacher or its content filter refused", **asked})
        else:
            for position, persona in enumerate(result[1].personas):
                row = record(persona, request.source)
                counts["candidates"] += 1
                if reason := reason_to_refuse(persona, position, request):
                    counts[reason] += 1
                    refuse({"reason": reason, **row})
                else:
                    yield row


def prompt(request: Request) -> list[dict[str, str]]:
    source = request.source
    system = f"{PROMPTS['tasks'][source.origin][source.language]}\n{PROMPTS['rules'][source.language]}"
    asked = {"origin": source.origin, "language": source.language, "num_personas": request.num_personas}
    if request.part:  # another request about the same
        asked["part"] = request.part + 1
    user = json.dumps({**asked, "material": source.material}, ensure_ascii=False)
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def record(persona: Persona, source: Source) -> dict:
    fields = persona.model_dump()
    row = {
        "id": records.content_id(json.dumps(fields, sort_keys=True, ensure_ascii=False), source.language),
        "persona": fields["persona"],
        "characteristics": fields["characteristics"],
        "behavior": fields["behavior"],
        "language": source.language,
        "origin": source.origin,
        "relation": fields["relation"],
        "source_ids": list(source.source_ids),
    }
    return row | ({"parent_id": source.parent_id} if source.parent_id else {})


def reason_to_refuse(persona: Persona, position: int, request: Request) -> str | None:
    if position >= request.num_personas:
        return "surplus"
    written = [persona.persona, *persona.behavior.goals, *persona.behavior.habits, *persona.behavior.constraints]
    if any(textstats.language(text) not in (request.source.language, "und") for text in written):
        return "wrong_language"
    return "direct_identifier" if direct_identifiers.found_in(persona.own_text()) else None


def distinct(
    found: list[dict], candidates: list[dict], max_similarity: float, counts: Counter[str], refuse: Write
) -> list[dict]:
    """The candidates that are not too similar to one found or to an earlier candidate."""
    if not candidates:
        return []
    rows = text_embedding.embed([persona["persona"] for persona in [*found, *candidates]])
    similarities = (rows @ rows.T).toarray()
    kept, new = list(range(len(found))), []
    for position, persona in enumerate(candidates, start=len(found)):
        nearest = float(similarities[position, kept].max(initial=0.0))
        if nearest >= max_similarity:
            counts["near_duplicate"] += 1
            refuse({"reason": "near_duplicate", "similarity": round(nearest, 3), **persona})
        else:
            kept.append(position)
            new.append(persona)
    return new


def check(counts: Counter[str], args: Args) -> None:
    """Stop when too much failed, or nothing came out."""
    records.check_share(counts["requests_failed"], counts["requests"], args.max_error_fraction, "requests")
    if not counts["kept"]:
        raise UserError(
            f"no persona is left of {counts['candidates']} (min_cell_size={args.min_cell_size}): see "
            f"{args.report / 'quarantine.jsonl'}"
        )


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
