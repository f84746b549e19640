"""A text as it is meant (half width, nothing invisible in it), with the way back to where each character stood."""

import functools
import re
import unicodedata
from bisect import bisect_right

_INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u20d0-\u20ff\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff"
)
_DASHES = "‐‑‒–—―−⁃﹘﹣－─━ｰ"
_LAST_CODE = 0x1FBF9  # above it nothing stands for an ASCII character


def _compatible(code: int) -> str:
    return unicodedata.normalize("NFKC", chr(code))


@functools.cache
def _resized() -> re.Pattern:
    """What becomes more or fewer characters: invisible ones, letters with marks, Hangul in pieces, and such as ⑩."""
    several = "".join(
        chr(code) for code in range(0xA0, _LAST_CODE) if len(form := _compatible(code)) > 1 and form.isascii()
    )
    return re.compile(
        rf"[{_INVISIBLE}]+|[^\n][\u0300-\u036f\u3099\u309a\uff9e\uff9f]+"
        rf"|[\u1100-\u1112][\u1161-\u1175][\u11a8-\u11c2]?|[{re.escape(several)}]"
    )


@functools.cache
def _same_size() -> dict[int, str]:
    """Each character that stands for one ASCII character, such as wide letters and the digits of all scripts."""
    table = {}
    for code in range(0x80, _LAST_CODE):
        char = chr(code)
        digit = unicodedata.decimal(char, None)
        form = str(digit) if digit is not None else _compatible(code)
        if char.isspace():
            table[code] = "\n" if char in "\x85\u2028\u2029" else " "
        elif len(form) == 1 and (form.isascii() or "ｦ" <= char <= "ﾝ"):
            table[code] = form
    return table | dict.fromkeys(map(ord, _DASHES), "-")


class PlainText:
    """``text`` in plain characters, and ``span`` from a place in it to the place in the original."""

    def __init__(self, original: str) -> None:
        self.text = original
        # Where a stretch begins in the plain text and in the original, and where it ends there if it was resized.
        self._stretches: list[tuple[int, int, int | None]] = [(0, 0, None)]
        if original.isascii():
            return
        parts, length, done = [], 0, 0
        for match in _resized().finditer(original):
            form = unicodedata.normalize("NFKC", _dropped().sub("", match.group()))
            if form[:1].isdigit() and not form.isascii():
                form = form[0]  # a digit under a stroke or a dot is still read as the digit
            parts += (original[done : match.start()], form)
            length += match.start() - done
            self._stretches.append((length, match.start(), match.end()))
            length += len(form)
            done = match.end()
            self._stretches.append((length, done, None))
        self.text = ("".join(parts) + original[done:]).translate(_same_size())

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The place in the original of ``text[start:end]``, which is not empty."""
        return self._original(start)[0], self._original(end - 1)[1]

    def _original(self, place: int) -> tuple[int, int]:
        """The original characters behind one plain character, as start and end."""
        begin, original, end = self._stretches[bisect_right(self._stretches, place, key=lambda item: item[0]) - 1]
        if end is not None:
            return original, end
        return original + place - begin, original + place - begin + 1


@functools.cache
def _dropped() -> re.Pattern:
    return re.compile(rf"[{_INVISIBLE}]")
