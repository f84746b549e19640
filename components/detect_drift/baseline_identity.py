"""Whether a baseline is of the same model, asked the same questions in the same way; else a change means nothing."""

from drift_snapshot import Canary, Snapshot

from slmkit.errors import UserError


def check(baseline: Snapshot, current: Snapshot, accept_other_baseline: bool) -> list[str]:
    """What differs, in sentences, where it was accepted; a ``UserError`` of one line where it was not."""
    then, now = baseline.manifest, current.manifest
    if baseline.canaries and current.canaries and then["metric"] != now["metric"]:
        raise UserError(f"the baseline was scored in {then['metric']}, these canaries in {now['metric']}; take one")
    found = list(_differences(baseline, current))
    if found and not accept_other_baseline:
        raise UserError(
            f"the baseline is another one: {'; '.join(found)}. Leave out `baseline` to start a new one from this "
            "window, or set accept_other_baseline to compare all the same"
        )
    return [f"Compared all the same: {difference}." for difference in found]


def _differences(baseline: Snapshot, current: Snapshot):
    then, now = baseline.manifest, current.manifest
    if then.get("model") and now.get("model") and then["model"] != now["model"]:
        yield f"{then['model']:.80} was asked for it, {now['model']:.80} now"
    if then.get("model_sha256") and now.get("model_sha256") and then["model_sha256"] != now["model_sha256"]:
        yield f"it is of the model {then['model_sha256'][:12]}, now {now['model_sha256'][:12]} answers"
    if not (baseline.canaries and current.canaries):
        return
    if then["canary_items_sha256"] != now["canary_items_sha256"]:
        before, after = ({canary.id for canary in of.canaries} for of in (baseline, current))
        yield (
            f"its canaries are not these ({len(after - before)} new ids, {len(before - after)} gone, "
            f"{len(before & after)} in both)"
        )
    for name in sorted(then["asked_with"].keys() & now["asked_with"].keys()):
        if then["asked_with"][name] != now["asked_with"][name]:
            yield f"its answers were made with {name} {then['asked_with'][name]}, these with {now['asked_with'][name]}"
    lengths = [
        (before.prompt_tokens, after.prompt_tokens)
        for before, after in zip(*same_questions(baseline.canaries, current.canaries), strict=True)
        if before.prompt_tokens and after.prompt_tokens
    ]
    if sum(before != after for before, after in lengths) > len(lengths) / 2:
        before, after = (sum(column) / len(lengths) for column in zip(*lengths, strict=True))
        yield (
            f"the same questions took {before:.0f} prompt tokens on average, now {after:.0f}: another chat template, "
            "system prompt or tokenizer"
        )


def same_questions(baseline: list[Canary], current: list[Canary]) -> tuple[list[Canary], list[Canary]]:
    """The canaries that both hold, asked and expected alike, in the same order."""
    before = {canary.id: canary for canary in baseline}
    pairs = [
        (before[canary.id], canary)
        for canary in current
        if canary.id in before
        and (before[canary.id].question, before[canary.id].references) == (canary.question, canary.references)
    ]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]
