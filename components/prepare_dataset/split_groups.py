"""Group the chats that must stay together, and put each group on a side that does not change when new groups come."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from slmkit.records import content_id

SIDES = ("train", "validation", "test")
_MIN_GROUPS_TO_FILL = 3
_NOTABLE = 0.1  # from what was wanted, on either side
_LARGE = 2  # times as many chats as the median group


class Groups:
    """Disjoint sets of keys; a group is called by the smallest of its keys."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._parents

    def find(self, key: str) -> str:
        root = key
        while (parent := self._parents.setdefault(root, root)) != root:
            root = parent
        while key != root:
            self._parents[key], key = root, self._parents[key]
        return root

    def link(self, keys: Iterable[str]) -> None:
        """Put all keys into one group."""
        roots = sorted({self.find(key) for key in keys})
        for root in roots[1:]:
            self._parents[root] = roots[0]


def group_keys(source_ids: Sequence[str], questions: Sequence[str], split_by: str) -> list[str]:
    """What a chat shares with others; document keys sort first, so that a group is called by one where it has any.

    A later question ("And after that?") is only the same together with those before it.
    """
    documents = source_ids if split_by == "document" else []
    asked = [questions[: number + 1] for number in range(len(questions))]
    return [f"d{content_id(source)}" for source in documents] + [f"q{content_id(*turns)}" for turns in asked]


class Group(NamedTuple):
    language: str
    size: int  # in chats
    trained: bool = False  # a chat of it was trained on before


def assign_sides(
    groups: Mapping[str, Group], validation_fraction: float, test_fraction: float, seed: int
) -> dict[str, str]:
    """The side of each group, by its name.

    A group's place between 0 and 1 is a hash of its name and the seed, and both thresholds are the same in each
    language: the shares hold in each, up to chance, and new groups do not move old ones. Where chance leaves a side
    empty in a language that has three groups or more, the group nearest to its threshold fills it. That, too, never
    moves a group from train to another side later, so nothing trained on once is tested on afterwards.

    A few documents with hundreds of chats among many with a few would leave the shares to chance. So large groups are
    dealt, the largest first, to the side that lacks most chats. Being large depends on the other groups and can end
    when the dataset grows: then a group may change sides, unless `trained` says that it must not.
    """
    sides = {name: "train" for name, group in groups.items() if group.trained}
    wanted = {"train": 1 - validation_fraction - test_fraction, "validation": validation_fraction}
    wanted["test"] = test_fraction
    for language in sorted({group.language for group in groups.values()}):
        sizes = {name: group.size for name, group in groups.items() if group.language == language}
        open_ = {name: size for name, size in sizes.items() if name not in sides}
        large = _large(sizes, wanted) & open_.keys()
        places = sorted((int(content_id(str(seed), name), 16) / 2**64, name) for name in open_.keys() - large)
        fills = len(sizes) >= _MIN_GROUPS_TO_FILL
        threshold = 0.0
        for side in ("test", "validation"):
            threshold += wanted[side]
            taken = [place for place in places if place[0] < threshold]
            if not taken and fills and wanted[side] > 0:
                taken = places[:1]
            places = places[len(taken) :]
            sides |= {name: side for _, name in taken}
        sides |= {name: "train" for _, name in places}
        lacking = {side: share * sum(sizes.values()) for side, share in wanted.items()}
        for name in sizes.keys() - large:
            lacking[sides[name]] -= sizes[name]
        for name in sorted(large, key=lambda name: (-sizes[name], name)):
            sides[name] = max(SIDES, key=lambda side: lacking[side])
            lacking[sides[name]] -= sizes[name]
    return sides


def _large(sizes: Mapping[str, int], wanted: Mapping[str, float]) -> set[str]:
    """The groups that are larger than most of their language, and alone fill half of a held-out side."""
    held_out = [share for side, share in wanted.items() if side != "train" and share > 0]
    least = max(_LARGE * median(sizes.values()), min(held_out, default=1) / 2 * sum(sizes.values()))
    return {name for name, size in sizes.items() if size > least}


def split_notes(groups: Mapping[str, Group], sides: Mapping[str, str], wanted: Mapping[str, float]) -> list[str]:
    """Where the split is not what was asked for, since groups cannot be divided."""
    notes = []
    for language in sorted({group.language for group in groups.values()}):
        sizes = dict.fromkeys(SIDES, 0)
        for name, group in groups.items():
            if group.language == language:
                sizes[sides[name]] += group.size
        num_chats = sum(sizes.values())
        for side in SIDES:
            share = sizes[side] / num_chats
            if wanted[side] > 0 and not sizes[side]:
                notes.append(f"{language}: no chats in {side}, too few groups")
            elif abs(share - wanted[side]) > _NOTABLE:
                notes.append(
                    f"{language}: {share:.0%} of the chats are in {side}, {wanted[side]:.0%} were wanted; "
                    "its groups are few or uneven"
                )
    return notes


def choose_evenly(languages: Mapping[str, str], max_num: int, seed: int) -> set[str]:
    """The ids of at most ``max_num`` items, as many of each language as the languages allow; given id -> language."""
    ranks: Counter[str] = Counter()
    queue = []
    for item in sorted(languages, key=lambda item: content_id(str(seed), item)):
        ranks[languages[item]] += 1
        queue.append((ranks[languages[item]], languages[item], item))
    return {item for _, _, item in sorted(queue)[:max_num]}
