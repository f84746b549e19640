"""Whether two windows of traffic hold enough requests to be compared."""

from drift_signal import Signal


def unready(name: str, baseline: list[dict], current: list[dict], min_num_rows: int) -> Signal | None:
    """The verdict where there is nothing, or too little, to judge by."""
    if not baseline or not current:
        where = "this window" if baseline else "the baseline"
        return Signal(name, "no_data", (), (f"There is no traffic in {where}.",))
    if min(len(baseline), len(current)) < min_num_rows:
        said = f"{len(baseline):,} requests in the baseline and {len(current):,} in this window"
        return Signal(name, "insufficient", (), (f"{said}: {min_num_rows} each are needed.",))
    return None
