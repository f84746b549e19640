"""What each rule of the policy says to the numbers, in sentences for a compliance officer."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from privacy_policy import Check, Policy, outcome

NO_FORMAL_GUARANTEE = "There is no formal guarantee: no privacy ledger was given."


def share(value: float) -> str:
    return f"{100 * value:.1f} %"


def check_personal_data(policy: Policy, compared: Any) -> Check:
    """``compared`` is a Comparison."""
    most, found = policy.personal_data.max_reappearing_values, compared.reappearing.total()
    if found:
        kinds = ", ".join(f"{number} {kind}" for kind, number in compared.reappearing.most_common())
        text = (
            f"{found} distinct values of personal data in the real records stand in synthetic ones too ({kinds}; "
            f"{len(compared.texts)} synthetic records hold one)."
        )
    else:
        text = (
            f"None of the personal data found in the real records ({compared.real.total()} findings) stands in a "
            "synthetic one."
        )
    return Check(
        rule="personal_data",
        asked="Do e-mail addresses, telephone numbers and the like of real people stand in the synthetic data?",
        text=text,
        observed=found,
        threshold=f"at most {most} values",
        outcome=outcome(found <= most),
        not_shown="What the detector misses (see its recall below); names and addresses, which it does not look for.",
    )


def check_verbatim(policy: Policy, judged: tuple[int, int], intended: tuple[int, int], control: Any) -> Check:
    """``judged`` and ``intended`` are how many copy what they should not, of how many; ``control`` is the Rate among
    held-out pieces, or None."""
    rules = policy.verbatim
    most = rules.max_copied_fraction
    spans = f"{rules.span_chars.latin} characters ({rules.span_chars.east_asian} in Japanese and Korean) or more"
    (copied, num), (strayed, num_intended) = judged, intended
    excesses, sentences = [], []
    if num:
        expected = control.value if control else 0.0
        excesses.append(copied / num - expected)
        sentences.append(
            f"{copied} of {num} synthetic records ({share(copied / num)}) copy {spans} from one real record"
            + (
                f"; of held-out texts, which the synthesis never saw, {share(expected)} do (interval "
                f"{share(control.low)} to {share(control.high)})."
                if control
                else "; without held-out records nobody knows how many would by chance."
            )
        )
    if num_intended:
        excesses.append(strayed / num_intended)
        sentences.append(
            f"{num_intended}{' more' if num else ''} records quote the documents that they name, on purpose "
            f"({', '.join(rules.intended_copying)}); {strayed or 'none'} of them copy {spans} from another one."
        )
    observed = max(excesses)
    return Check(
        rule="verbatim",
        asked="Do synthetic records copy passages of real ones?",
        text=" ".join(sentences),
        observed=observed,
        threshold=f"at most {share(most)} above the held-out share",
        outcome=outcome(observed <= most),
        not_shown="Paraphrases and translations: they tell the same and share no long span.",
    )


def check_canaries(policy: Policy, canaries: list | None) -> Check:
    rules = policy.canaries
    observed, holds, text = None, None, "No canaries were planted (or none given to this audit)."
    if canaries:
        observed = sum(canary.exposure for canary in canaries) / len(canaries)
        verbatim = sum(canary.verbatim for canary in canaries)
        holds = verbatim <= rules.max_verbatim and observed <= rules.max_mean_exposure
        text = (
            f"{verbatim} of {len(canaries)} planted secrets stand in the synthetic data; their mean exposure is "
            f"{observed:.1f} bits (1.4 where nothing was memorized)."
        )
    return Check(
        rule="canaries",
        asked="Do secrets planted in the real data beforehand come out of the synthesis?",
        text=text,
        observed=observed,
        threshold=f"at most {rules.max_verbatim} verbatim and {rules.max_mean_exposure:g} bits in the mean",
        outcome=outcome(holds),
        not_shown="What a model has learnt but not written: exposure is measured on the texts, not on a model.",
    )


def check_personas(policy: Policy, personas: list[Mapping[str, Any]] | None) -> Check:
    rules = policy.personas
    observed, holds, text = None, None, "No personas were given."
    if personas:
        cells = Counter(tuple(_values(persona, rules.quasi_identifiers)) for persona in personas)
        small = sum(number for number in cells.values() if number < rules.min_cell_size)
        observed, smallest = small / len(personas), min(cells.values())
        holds = observed <= rules.max_small_cell_fraction
        text = (
            f"{len(personas)} personas fall into {len(cells)} combinations of {', '.join(rules.quasi_identifiers)}; "
            f"the rarest is shared by {smallest}, and {share(observed)} are in one of fewer than {rules.min_cell_size}."
        )
    return Check(
        rule="personas",
        asked="Could a persona be one real person, by a rare combination of traits?",
        text=text,
        observed=observed,
        threshold=f"at most {share(rules.max_small_cell_fraction)} in combinations of fewer than {rules.min_cell_size}",
        outcome=outcome(holds),
        not_shown="What the free text of a persona gives away beyond these fields.",
    )


def _values(persona: Mapping[str, Any], names: Iterable[str]) -> Iterable[str]:
    characteristics = persona.get("characteristics") or {}
    for name in names:
        yield str(characteristics.get(name, persona.get(name)))


def check_guarantee(policy: Policy, ledger: Mapping[str, Any] | None, num_covered: int, num: int) -> Check:
    rules = policy.guarantee
    observed, holds, text = None, None, NO_FORMAL_GUARANTEE
    if ledger:
        observed, delta = ledger["epsilon"], ledger["delta"]
        within = observed <= rules.max_epsilon and delta <= rules.max_delta
        holds = (num_covered == num or None) if within else False
        text = (
            f"{num_covered} of {num} synthetic records come from a private synthesis with (epsilon, delta) = "
            f"({observed:.2f}, {delta:g}) for {ledger['unit']} of {ledger['dataset']!r}, all runs so far together; "
            + ("the others have no formal guarantee." if num_covered < num else "nothing else went in.")
        )
    return Check(
        rule="guarantee",
        asked="Is there a mathematical bound on what can be learned about anyone in the real data?",
        text=text,
        observed=observed,
        threshold=f"epsilon at most {rules.max_epsilon:g} at delta at most {rules.max_delta:g}",
        outcome=outcome(holds),
        not_shown="Runs over the same data whose ledgers were not handed on, and other uses of the data.",
    )


QUESTIONS = {
    "singling_out": (
        "Singling out: does a synthetic record repeat a phrase that only one real record holds?",
        "A rare fact told in other words.",
    ),
    "linkability": (
        "Linkability: do the two halves of a real record lead to the same synthetic record?",
        "Links through records of other data sets, which an attacker may have.",
    ),
    "inference": (
        "Inference: does the synthetic record nearest to one half of a real record give away the other half?",
        "Inference of one chosen attribute by a model made for it; by chance this attack wins every second time.",
    ),
}


def check_attack(policy: Policy, rule: str, attack: Any, why_not: str) -> Check:
    rules = policy.attacks
    asked, not_shown = QUESTIONS[rule]
    observed, holds, text = None, None, why_not
    if attack:
        observed, holds = attack.advantage, attack.holds(rules.max_advantage)
        text = (
            f"{asked.partition(':')[0]} works for {share(attack.source.value)} of {attack.source.num} real records "
            f"({share(attack.source.low)} to {share(attack.source.high)}) and for {share(attack.control.value)} of "
            f"{attack.control.num} that the synthesis never saw ({share(attack.control.low)} to "
            f"{share(attack.control.high)}): an advantage of {100 * attack.advantage:+.1f} points "
            f"({100 * attack.low:+.1f} to {100 * attack.high:+.1f})."
        )
        if holds is None:
            text += " The threshold lies within the interval: more records would decide."
    return Check(
        rule=rule,
        asked=asked,
        text=text,
        observed=observed,
        threshold=f"an advantage of at most {100 * rules.max_advantage:g} points",
        outcome=outcome(holds),
        not_shown=not_shown,
    )
