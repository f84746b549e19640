"""What a rule is: a check with a name, a one-line summary and the kinds of file that it looks at."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lint_rules.documents import Document
from slmkit.checked_files import Location

Found = Iterator[tuple[Location | int, str]]


@dataclass(frozen=True)
class Rule:
    name: str
    summary: str
    kinds: tuple[str, ...]
    check: Callable[[Document], Found]

    def findings(self, document: Document) -> Found:
        if not self.kinds or document.kind in self.kinds:
            yield from self.check(document)


def rule(*kinds: str) -> Callable[[Callable[[Document], Found]], Rule]:
    """Make a function a rule for these kinds of file, or for all; --list shows its name and docstring."""

    def of(check: Callable[[Document], Found]) -> Rule:
        return Rule(check.__name__.replace("_", "-"), check.__doc__ or "", kinds, check)

    return of


def is_count(value: object) -> bool:
    """A whole number; in Python a truth value is one, too."""
    return isinstance(value, int) and not isinstance(value, bool)
