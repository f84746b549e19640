"""Whether two pairs of a chunk ask the same: the same answer, and questions that are alike."""

import re

from pair_checks import holds, says_yes_or_no

from slmkit.text_embedding import embed

# The similarity of two questions tells little by itself: those about a phone and a fax number are more alike than two
# wordings of one. Beside the same answer it does; a yes or no is the answer to too many questions for that.
# tests/components/test_build_coverage_seed_duplicates.py measures both.
MIN_SIMILARITY = 0.4
MIN_SIMILARITY_OF_YES_OR_NO = 0.9
MIN_SHARED_FRACTION = 0.6  # of the longer answer, to be the same: "Old Town" is not "33 Beacon Avenue, Old Town"


def same_fact(pair: tuple[str, str], other: tuple[str, str]) -> bool:
    (question, answer), (other_question, other_answer) = pair, other
    shorter, longer = sorted((answer, other_answer), key=len)
    if len(shorter) < MIN_SHARED_FRACTION * len(longer) or not holds(longer, shorter):
        return False
    if sorted(re.findall(r"\d+", question)) != sorted(re.findall(r"\d+", other_question)):
        return False
    rows = embed([question, other_question])
    least = MIN_SIMILARITY_OF_YES_OR_NO if says_yes_or_no(answer) else MIN_SIMILARITY
    return float((rows[0] @ rows[1].T).toarray()[0, 0]) >= least
