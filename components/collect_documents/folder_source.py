"""The files of a folder and of its subfolders, in one order on every machine."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pieces import RawFile, is_hidden, shown_name


def files_in_folder(folder: Path) -> Iterator[RawFile]:
    """The files but for hidden ones; a link that leads out of the folder is a file with a problem."""
    top = folder.resolve()
    unlisted: list[RawFile] = []

    def children(name: str) -> list[str]:
        try:
            with os.scandir(folder / name) as entries:
                return [entry.name + "/" * entry.is_dir(follow_symlinks=False) for entry in entries]
        except OSError as error:
            unlisted.append(RawFile(shown_name(name), None, f"the folder cannot be listed: {error.strerror}"))
            return []

    for name in walk(children):
        yield from unlisted
        unlisted.clear()
        problem = _problem(folder / name, top)
        yield RawFile(shown_name(name), None if problem else folder / name, problem)
    yield from unlisted


def walk(children: Callable[[str], Iterable[str]]) -> Iterator[str]:
    """The names of all files below the top, sorted; holds the names of one branch at a time, not of all.

    ``children`` gives the names in a folder (``""``, else ending in ``/``), those of folders with ``/`` at their end:
    sorted like that, a folder's files stand where they would if all paths were sorted as a whole.
    """
    pending = [""]
    while pending:
        name = pending.pop()
        if name and not name.endswith("/"):
            yield name
        else:
            visible = (child for child in children(name) if not is_hidden(child))
            pending += [name + child for child in sorted(visible, reverse=True)]


def _problem(path: Path, top: Path) -> str:
    try:
        if not path.resolve().is_relative_to(top):
            return "a link that leads out of the folder is not followed"
        if not path.is_file():
            return "a link to a folder is not followed" if path.is_dir() else "not a regular file"
    except (OSError, RuntimeError) as error:  # such as links in a circle
        return f"cannot be opened: {error}"
    return ""
