"""A plugin of pytest that counts warnings and prints a line for each kind.

With ``-W default`` it stands in for the rule that warnings are errors, where the versions are not the locked ones.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

_found: Counter[tuple[str, str, str]] = Counter()


def pytest_warning_recorded(warning_message: Any, when: str, nodeid: str) -> None:
    lines = str(warning_message.message).strip().splitlines() or [""]
    path = Path(warning_message.filename)
    parts = path.parts
    package = parts[parts.index("site-packages") + 1] if "site-packages" in parts else "/".join(parts[-2:])
    _found[warning_message.category.__name__, package, lines[0][:160]] += 1


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.section(f"{sum(_found.values())} warnings of {len(_found)} kinds")
    for (category, package, line), count in _found.most_common():
        terminalreporter.write_line(f"{count:5} x {category} in {package}: {line}")
