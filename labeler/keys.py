"""The keys of the desk: every command with its key, and what a person chose in its place.

A key is written as the browser calls its place on the keyboard (``event.code``), so that it works with the Korean input
method on: ``KeyX``, ``Shift+Slash``, ``Ctrl+Enter``. The server checks a key, the page shows it, and the desk's script
is told which command each press stands for; all of them read it here. A new command is one more entry of
:data:`COMMANDS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from string import ascii_uppercase

from labeler.errors import InputError
from labeler.sentence import N_, Sentence

PLACES = 10
"""So many labels have a key of their own; with Shift it is that of a label ten places on."""


@dataclass(frozen=True)
class Command:
    """Something a key does. ``group`` is where it stands on the page of the keys, ``help`` what ``?`` says of it.

    ``shifted``: with Shift the key means more of the same, so that no other command can have it.
    """

    name: str
    key: str
    title: str
    group: str
    help: str = ""
    shifted: bool = False


DESK, TEXT, OTHER, LABELS = N_("Record"), N_("Text and form"), N_("Dialogs and comparing"), N_("Labels and parts")
COMMANDS = (
    Command("approve", "Enter", N_("Approve"), DESK, N_("Approve and go on")),
    Command("submit", "Ctrl+Enter", N_("Approve from anywhere"), DESK, N_("The same, from within a text field")),
    Command("empty", "Shift+Enter", N_("Approve as empty"), DESK,
            N_("Approve although nothing is given: nothing of this is in the text")),
    Command("skip", "Space", N_("Skip"), DESK, N_("Skip: it comes back after all others")),
    Command("reject", "KeyX", N_("Reject"), DESK, N_("Reject: no right answer to train on")),
    Command("undo", "Backspace", N_("Undo"), DESK, N_("Take back your last decision")),
    Command("second", "KeyS", N_("Second opinion"), DESK, N_("Apply the second opinion")),
    Command("ballot", "KeyV", N_("Answer of a person"), DESK,
            N_("Apply what one of several people said, one after another")),
    Command("note", "KeyF", N_("Flag or ask"), DESK, N_("Flag the record, or ask a colleague about it")),
    Command("guide", "KeyG", N_("Guidelines"), DESK, N_("Guidelines")),
    Command("keys", "Shift+Slash", N_("Keys"), DESK, N_("These keys")),
    Command("edit", "KeyE", N_("Go into the text field"), TEXT, N_("Go into the text field")),
    Command("filter", "Slash", N_("Look for a label"), TEXT),
    Command("mark", "KeyA", N_("Mark or add"), TEXT),
    Command("delete", "Delete", N_("Clear"), TEXT),
    Command("left", "ArrowLeft", N_("Word before"), TEXT, shifted=True),
    Command("right", "ArrowRight", N_("Next word"), TEXT, shifted=True),
    Command("up", "ArrowUp", N_("Sentence before; number up"), TEXT, shifted=True),
    Command("down", "ArrowDown", N_("Next sentence; number down"), TEXT, shifted=True),
    Command("home", "Home", N_("First word"), TEXT, shifted=True),
    Command("end", "End", N_("Last word"), TEXT, shifted=True),
    Command("point", "Period", N_("Decimal point"), TEXT),
    Command("minus", "Minus", N_("Minus"), TEXT),
    Command("theirs", "KeyK", N_("Keep theirs"), OTHER),
    Command("yours", "KeyO", N_("Overwrite with yours"), OTHER),
    Command("tie", "Equal", N_("Tie"), OTHER),
    Command("none", "KeyN", N_("None is good"), OTHER),
    *(Command(f"place{n + 1}", f"Digit{(n + 1) % PLACES}", Sentence(N_("Number %(n)s"), n=n + 1), LABELS, shifted=True)
      for n in range(PLACES)),
)  # fmt: skip
NAMED = {command.name: command for command in COMMANDS}
PRESETS: dict[str, dict[str, str]] = {
    "Labeler": {},
    # https://prodi.gy/docs: accept A, reject X, ignore Space, undo Backspace.
    "Prodigy": {"approve": "KeyA", "mark": "KeyM"},
    # Its keymap: submit Ctrl+Enter, skip Ctrl+Space, undo Ctrl+Z, delete a region Backspace. Alt with an arrow, which
    # moves there, is the browser's way back.
    "Label Studio": {"approve": "", "skip": "Ctrl+Space", "undo": "Ctrl+KeyZ", "delete": "Backspace"},
}

_DIGITS = {f"Digit{n}": str(n) for n in range(10)}
_LETTERS = {f"Key{letter}": letter for letter in ascii_uppercase}
_SHOWN = _DIGITS | _LETTERS | {
    "Enter": "↵", "Space": "␣", "Backspace": "⌫", "Delete": "Del", "Insert": "Ins", "Home": "Home", "End": "End",
    "PageUp": "PgUp", "PageDown": "PgDn", "ArrowLeft": "←", "ArrowRight": "→", "ArrowUp": "↑", "ArrowDown": "↓",
    "Minus": "−", "Equal": "=", "BracketLeft": "[", "BracketRight": "]", "Backslash": "\\", "Semicolon": ";",
    "Quote": "'", "Backquote": "`", "Comma": ",", "Period": ".", "Slash": "/",
}  # fmt: skip
_COMBINED = ("Ctrl+Enter", "Ctrl+Space", "Ctrl+Backspace", "Ctrl+KeyZ", "Alt+Enter")
"""What neither browsers nor systems keep for themselves, as far as a page may have it."""


def shown(key: str) -> str:
    """Return a key as people read it on a button: ``⇧A``, ``Ctrl ↵``, ``?``; empty for none."""
    if key == "Shift+Slash":
        return "?"
    *held, code = key.split("+")
    name = _SHOWN.get(code, "")
    gap = "" if held == ["Shift"] and code in _DIGITS | _LETTERS else " "
    return gap.join([*("⇧" if one == "Shift" else one for one in held), name])


def keys_of(own: Mapping[str, str]) -> dict[str, str]:
    """Return the key of every command for a person who chose ``own``; empty for a command without one.

    What a person chose counts before what a newer version has put on the same key: that command has none then. What is
    stored and cannot be read any more is left out.
    """
    chosen = {name: key for name, key in own.items() if name in NAMED and (not key or _possible(key))}
    taken = {press for name, key in chosen.items() for press in _presses(NAMED[name], key)}
    free = {
        command.name: "" if taken & _presses(command, command.key) else command.key
        for command in COMMANDS
        if command.name not in chosen
    }
    return {command.name: (chosen | free)[command.name] for command in COMMANDS}


def changed(own: Mapping[str, str], name: str, key: str) -> dict[str, str]:
    """Return what a person has chosen once the command ``name`` has ``key``; empty takes its key away.

    Raises :class:`InputError` for a command or a key that cannot be, and for a key of another command, with both names.
    """
    command = NAMED.get(name)
    if command is None:
        raise InputError("There is no command %(name)r", name=name[:40])
    _check(command, key)
    for other, has in keys_of(own).items():
        shared = _presses(NAMED[other], has) & _presses(command, key)
        if other != name and shared:
            raise InputError(
                "%(key)s is the key of “%(other)s” already; choose another for “%(title)s”, or change that one first",
                key=shown(min(shared)),
                other=Sentence(NAMED[other].title),
                title=Sentence(command.title),
            )
    rest = {one: has for one, has in own.items() if one != name}
    return rest if key == command.key else rest | {name: key}


def presses(keys: Mapping[str, str]) -> dict[str, str]:
    """Return which command each press stands for, digits and what goes by places left out."""
    return {
        press: name for name, key in keys.items() if NAMED[name].group != LABELS for press in _presses(NAMED[name], key)
    }


def slots(keys: Mapping[str, str]) -> list[str]:
    """Return the press of each place on a form: ten, ten more with Shift, then Shift with the letters that are free.

    A letter that a person gave to a command goes to no label: the labels after it move up by one letter.
    """
    first = [keys[f"place{n + 1}"] or f"Digit{(n + 1) % PLACES}" for n in range(PLACES)]
    second = [f"Shift+{key}" for key in first]
    taken = presses(keys).keys() | set(second)
    return first + second + [key for key in (f"Shift+{letter}" for letter in _LETTERS) if key not in taken]


def preset_of(own: Mapping[str, str]) -> str | None:
    """Return the name of the preset that a person has as it is; None if something was changed."""
    return next((name for name, keys in PRESETS.items() if keys == dict(own)), None)


def _presses(command: Command, key: str) -> set[str]:
    if not key:
        return set()
    return {key, f"Shift+{key}"} if command.shifted else {key}


def _possible(key: str) -> bool:
    bare = key.removeprefix("Shift+")
    return key in _COMBINED or bare in _SHOWN


def _check(command: Command, key: str) -> None:
    if not key:
        return
    if not _possible(key):
        raise InputError(
            "That key belongs to the browser or to the system; take a letter, a sign, an arrow, Enter, Space, "
            "Backspace or Delete, alone or with Shift"
        )
    if _digit(key) and key != command.key:
        raise InputError(
            "Digits stay with labels and numbers; choose another key for “%(title)s”", title=Sentence(command.title)
        )
    if command.shifted and "+" in key:
        raise InputError(
            "With Shift, “%(title)s” has a meaning of its own; choose a key that is pressed alone",
            title=Sentence(command.title),
        )


def _digit(key: str) -> bool:
    return key.removeprefix("Shift+") in _DIGITS
