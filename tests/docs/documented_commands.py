"""The commands in the README and in docs/, as they stand there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
_COMMAND = re.compile(r"\s*(?:\$ )?(diffvqa|make) ")
_INLINE = re.compile(r"`(diffvqa [^`]+)`")
_PLACEHOLDER = re.compile(r"[|\[\]…]|\b(?:NAME|PATH|FOLDER|FILE|URL|VERB|MODEL|VIDEO|PICTURES)\b")


@dataclass(frozen=True)
class Documented:
    """A command.

    Attributes:
        page: Where it stands.
        line: On which line, from 1.
        text: Without its comment, continued lines joined.
        is_block: Whether it stands on a line of its own, to be copied.
    """

    page: str
    line: int
    text: str
    is_block: bool = True

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"

    @property
    def words(self) -> list[str]:
        """The command's words, without a file that it reads from standard input."""
        return shlex.split(self.text.partition("<")[0])

    @property
    def standard_input(self) -> str | None:
        """The file that it reads from standard input, if any."""
        return self.text.partition("<")[2].strip() or None

    @property
    def is_pattern(self) -> bool:
        """Whether it says how commands look, rather than being one."""
        return bool(_PLACEHOLDER.search(self.text))


def documented_commands() -> list[Documented]:
    """Return every command of every page, those within sentences included."""
    return [command for page in PAGES for command in _on_page(page)]


def _on_page(page: Path) -> Iterator[Documented]:
    name = page.relative_to(ROOT).as_posix()
    lines, inside_fence = page.read_text(encoding="utf-8").splitlines(), False
    number = 0
    while number < len(lines):
        line, begun = lines[number], number + 1
        number += 1
        if line.startswith("```"):
            inside_fence = not inside_fence
        elif (inside_fence or line.startswith("    ")) and _COMMAND.match(line):
            while line.rstrip().endswith("\\"):
                line = f"{line.rstrip()[:-1]} {lines[number].strip()}"
                number += 1
            text = re.split(r"\s+#", line, maxsplit=1)[0]
            yield from (
                Documented(name, begun, one.strip().removeprefix("$ ")) for one in text.split("&&") if one.strip()
            )
        else:
            yield from (Documented(name, begun, match, is_block=False) for match in _INLINE.findall(line))
