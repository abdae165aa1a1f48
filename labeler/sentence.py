"""Sentences that people meet: said in English, and able to say themselves in another language.

An error, the reason why a row was refused, the message of a run: each is a :class:`Sentence`, which is its English text
and keeps the template and what was filled in. The template is the key of the catalogue, so the page, a prompt, or a
plugin's own catalogue can say the same in another language, today or when it is read from the store a year from now.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, overload

# A hole of a template, such as %(name)s, or a per cent sign. None makes a text of a size that nobody meant.
_HOLE = re.compile(r"%(?:%|\(\w+\)[-+ #0]*\d{0,2}(?:\.\d{0,2})?[a-z])")


def N_(text: str) -> str:
    """Mark a text for the catalogue."""
    return text


class Sentence(str):
    """An English text made of ``template`` and ``values``: ``Sentence("At most %(n)s may be chosen", n=3)``.

    ``%(name)s`` in a template stands for a value and ``%(name)r`` for one in quotes; a template without values is taken
    as it is, per cent signs and all. A value is a text, a number, another sentence, an error that is said by its
    sentence, or something that is shown as ``str`` has it. Whoever knows nothing of templates has a ``str``.
    """

    template: str
    values: Mapping[str, str | float]

    def __new__(cls, template: str, /, **values: object) -> Sentence:
        if isinstance(template, Sentence) and not values:
            return template
        shown = {hole: value if isinstance(value, (str, int, float)) else str(value) for hole, value in values.items()}
        self = super().__new__(cls, template % shown if shown else template)
        self.template, self.values = str.__str__(template if shown else self), shown
        return self

    @classmethod
    def joined(cls, sentences: Iterable[str], mark: str = "; ") -> Sentence:
        """Return several as one, with ``mark`` between them."""
        holes = {f"s{n}": sentence for n, sentence in enumerate(sentences)}
        return cls(mark.join(f"%({hole})s" for hole in holes), **holes)

    def __str__(self) -> Sentence:
        # So ``str(error)`` is still a sentence: what is kept of an error, or said within another, can be translated.
        return self

    def __conform__(self, protocol: object) -> str:
        """Return what SQLite keeps of it: with its template, wherever it is written."""
        return stored(self)

    def say(self, translate: Callable[[str], str], named: Mapping[str, Callable[[str], str]] | None = None) -> str:
        """Return it with its template, and those of the sentences in it, as ``translate`` has them.

        ``named`` maps holes to what says their values in other words. A translation whose holes do not fit is a mistake
        of the catalogue's author: the English is returned.
        """
        named = named or {}
        values = {
            hole: value.say(translate, named)
            if isinstance(value, Sentence)
            else named[hole](str(value))
            if hole in named
            else value
            for hole, value in self.values.items()
        }
        # To a catalogue the empty text is the key of what is said of the catalogue itself.
        said = translate(self.template) if self.template else ""
        try:
            return said % values if values else said
        except (KeyError, TypeError, ValueError):
            return str.__str__(self)

    def mapped(self, change: Callable[[str], str]) -> Sentence:
        """Return it with each text that was filled in, and those of the sentences in it, as ``change`` has them."""
        changed = {
            hole: value.mapped(change)
            if isinstance(value, Sentence)
            else change(value)
            if isinstance(value, str)
            else value
            for hole, value in self.values.items()
        }
        return Sentence(self.template, **changed)

    def parts(self) -> list[Any]:
        """Return template and values as JSON holds them."""
        values = {hole: value.parts() if isinstance(value, Sentence) else value for hole, value in self.values.items()}
        return [self.template, values]


def stored(text: str) -> str:
    """Return a text as the store keeps it: a sentence with values as a JSON list of template and values."""
    if isinstance(text, Sentence) and text.values:
        return json.dumps(text.parts(), ensure_ascii=False)
    return str.__str__(text)


@overload
def recalled(text: None) -> None: ...


@overload
def recalled(text: str | list[Any]) -> Sentence: ...


def recalled(text: str | list[Any] | None) -> Sentence | None:
    """Return what :func:`stored` or :meth:`Sentence.parts` has kept; what an older program kept is English alone."""
    if text is None:
        return None
    if isinstance(text, list):
        return _of(text)
    if text.startswith('["') and text.endswith("}]"):
        try:
            return _of(json.loads(text))
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError, RecursionError):
            pass
    return Sentence(text)


def _of(parts: Any) -> Sentence:
    template, values = parts
    if values and "%" in _HOLE.sub("", template):
        raise ValueError(f"{template!r} is no template")
    return Sentence(
        template, **{hole: _of(value) if isinstance(value, list) else value for hole, value in values.items()}
    )
