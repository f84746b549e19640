"""Group the chats that must stay together, and put each group on a side that does not change when new groups come."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from slmkit.records import content_id

SIDES = ("train", "validation", "test")
_MIN_GROUPS_TO_FILL = 3


class Groups:
    """Disjoint sets of keys; a group is called by the smallest of its keys."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

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
    """What a chat shares with others; document keys sort first, so that a group is called by one where it has any."""
    documents = source_ids if split_by == "document" else []
    return [f"d{content_id(source)}" for source in documents] + [f"q{content_id(question)}" for question in questions]


def assign_sides(
    languages: Mapping[str, str], validation_fraction: float, test_fraction: float, seed: int
) -> dict[str, str]:
    """The side of each group, given the language of each.

    A group's place between 0 and 1 is a hash of its name and the seed, and both thresholds are the same in each
    language: the shares hold in each, up to chance, and new groups do not move old ones. Where chance leaves a side
    empty in a language that has three groups or more, the group nearest to its threshold fills it. That, too, never
    moves a group from train to another side later, so nothing trained on once is tested on afterwards.
    """
    sides = {}
    for language in sorted(set(languages.values())):
        names = (name for name, its_language in languages.items() if its_language == language)
        places = sorted((int(content_id(str(seed), name), 16) / 2**64, name) for name in names)
        fills = len(places) >= _MIN_GROUPS_TO_FILL
        threshold = 0.0
        for side, fraction in (("test", test_fraction), ("validation", validation_fraction)):
            threshold += fraction
            taken = [place for place in places if place[0] < threshold]
            if not taken and fills and fraction > 0:
                taken = places[:1]
            places = places[len(taken) :]
            sides |= {name: side for _, name in taken}
        sides |= {name: "train" for _, name in places}
    return sides


def choose_evenly(languages: Mapping[str, str], max_num: int, seed: int) -> set[str]:
    """The ids of at most ``max_num`` items, as many of each language as the languages allow; given id -> language."""
    ranks: Counter[str] = Counter()
    queue = []
    for item in sorted(languages, key=lambda item: content_id(str(seed), item)):
        ranks[languages[item]] += 1
        queue.append((ranks[languages[item]], languages[item], item))
    return {item for _, _, item in sorted(queue)[:max_num]}
