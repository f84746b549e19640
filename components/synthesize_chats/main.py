"""Make chats by mutating seeds, in the voice of personas and along a taxonomy, and keep those that pass every check."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import chat_inputs
import rule_teacher
import synthesis_report
import taxonomy_tree
from chat_inputs import Inputs
from chat_synthesis import Synthesis
from synthesis_tasks import MODES

from slmkit import cli, lineage, records, teacher, tracking
from slmkit.errors import UserError

SPEC = Path(__file__).with_name("component.yml")
NEEDS = {"evolve": "seed_chats", "persona": "personas", "taxonomy": "taxonomy"}
Write = Callable[[dict], None]


@dataclass(frozen=True)
class Args:
    chats: Path
    report: Path
    seed_chats: Path | None = None
    documents: Path | None = None
    personas: Path | None = None
    taxonomy: Path | None = None
    modes: str | None = None
    include_seed_chats: bool = False
    teacher: str = "embedded"
    teacher_model: str = "embedded"
    auth: str = "azure"
    max_num_chats: int = 300
    max_total_tokens: int | None = None
    num_evolve_rounds: int = 1
    num_chats_per_persona: int = 1
    num_turns: int = 2
    min_chats_per_leaf: int = 3
    excerpt_chars: int = 1200
    include_context: bool = True
    judge: str = "none"
    min_judge_score: int = 4
    max_similarity: float = 0.93
    concurrency: int = 8
    max_retries: int = 6
    max_error_fraction: float = 0.05
    seed: int = 42


def run(args: Args) -> dict[str, float]:
    modes = parse_modes(args)
    teacher_name = teacher.name(args.teacher, args.teacher_model)
    tracking.set_tags({"teacher": teacher_name, "modes": ",".join(modes)})
    answers_so_far = teacher.keep_until_done(args.report)
    counts: Counter[str] = Counter()
    refused: list[dict] = []
    with records.write_records(args.chats) as write:
        try:
            inputs = read_inputs(args, modes, counts, refused.append)
            if args.include_seed_chats and args.seed_chats:
                for chat in chat_inputs.usable_seed_chats(args.seed_chats, inputs.documents):
                    write(chat)
            synthesis, usage = asyncio.run(
                synthesize(args, modes, inputs, answers_so_far, counts, write, refused.append)
            )
        finally:  # also when too much was refused to go on
            with records.write_records(args.report / "quarantine.jsonl") as quarantine:
                for row in refused:
                    quarantine(row)
        report = synthesis_report.write_json(args, teacher_name, modes, synthesis, usage)
        check(args, modes, counts)
    synthesis_report.write_page(args.report, report)
    teacher.forget(answers_so_far)

    metrics = synthesis_report.metrics(report) | {f"teacher/{name}": float(value) for name, value in usage.items()}
    tracking.log_metrics(metrics)
    lineage.write(args, SPEC)
    by_mode = ", ".join(f"{mode} {row['kept']} of {row['candidates']}" for mode, row in report["modes"].items())
    print(f"teacher={teacher_name}: {report['num_chats']} chats ({by_mode}); see {args.report / 'report.html'}")
    return metrics


def parse_modes(args: Args) -> list[str]:
    """The modes asked for, or else those that there is an input for."""
    given = [mode for mode in MODES if getattr(args, NEEDS[mode])]
    if args.modes is None:
        if not given:
            raise UserError("nothing to make chats from: give seed_chats, personas or a taxonomy")
        return given
    chosen = [part.strip() for part in args.modes.split(",") if part.strip()]
    if unknown := [mode for mode in chosen if mode not in MODES]:
        raise UserError(f"modes: {unknown[0]!r} is not one of {', '.join(MODES)}")
    if not chosen:
        raise UserError(f"modes is empty: name at least one of {', '.join(MODES)}")
    if missing := [mode for mode in chosen if mode not in given]:
        raise UserError(f"mode {missing[0]} needs the input {NEEDS[missing[0]]}, which is not given")
    return [mode for mode in MODES if mode in chosen]


def read_inputs(args: Args, modes: list[str], counts: Counter[str], refuse: Write) -> Inputs:
    share, inputs = args.max_error_fraction, Inputs()
    if args.documents:
        inputs.documents = chat_inputs.read_documents(args.documents, share, counts, refuse)
    if args.seed_chats:
        inputs.seeds = chat_inputs.read_seeds(args.seed_chats, inputs.documents, share, counts, refuse)
    if args.personas:
        inputs.personas = chat_inputs.read_personas(args.personas, share, counts, refuse)
    if args.taxonomy:
        inputs.taxonomy = taxonomy_tree.read_taxonomy(args.taxonomy)
        gap = next(taxonomy_tree.gaps(inputs.taxonomy), None)
        if gap and args.teacher == teacher.EMBEDDED and "taxonomy" in modes:
            raise UserError(f"{args.taxonomy}: {gap}, and the embedded teacher is no model that could fill it in")
    return inputs


async def synthesize(
    args: Args,
    modes: list[str],
    inputs: Inputs,
    answers_so_far: Path,
    counts: Counter[str],
    write: Write,
    refuse: Write,
) -> tuple[Synthesis, dict[str, float]]:
    """Write the chats of one mode after the other, each at most its share of what is left; gives what it cost."""
    async with teacher.connect(
        args.teacher,
        args.teacher_model,
        rule_teacher.answer,
        auth=args.auth,
        concurrency=args.concurrency,
        max_retries=args.max_retries,
        cache_path=answers_so_far,
    ) as client:
        synthesis = Synthesis(client, args, counts, write, refuse)
        synthesis.seen.add_all([(seed.context, seed.question) for seed in inputs.seeds])
        for modes_left, mode in zip(range(len(modes), 0, -1), modes, strict=True):
            quota = -(-(args.max_num_chats - synthesis.num_kept) // modes_left)
            if mode == "evolve":
                await synthesis.evolve(inputs, quota)
            elif mode == "persona":
                await synthesis.talk(inputs, quota)
            else:
                await synthesis.teach(inputs.taxonomy, quota)
        return synthesis, client.usage.summary()


def check(args: Args, modes: list[str], counts: Counter[str]) -> None:
    """Stop when too much failed, or nothing came out."""
    for mode in modes:
        records.check_share(
            counts[f"{mode}/failed"], counts[f"{mode}/asked"], args.max_error_fraction, f"requests of mode {mode}"
        )
    if not sum(counts[f"{mode}/kept"] for mode in modes):
        raise UserError(
            f"no chat came out of {sum(counts[f'{mode}/asked'] for mode in modes)} requests: see "
            f"{args.report / 'quarantine.jsonl'}"
        )


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
