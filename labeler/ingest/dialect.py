"""Which character separates the cells of a text table, and whether its quotes mean anything.

``csv.Sniffer`` looks for letters that repeat, and in Korean text it finds syllables; here a delimiter is one of
four, and the right one gives the lines the same number of cells.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from dataclasses import dataclass

from labeler.errors import Doubt, FileRefused
from labeler.ingest.columns import is_known

DELIMITERS = (",", "\t", ";", "|")
NONE = "\x1f"
"""What the csv module splits at when a file has one column and no delimiter: a character that no text holds."""
_NAMED = {"\\t": "\t", "tab": "\t", "": NONE, "none": NONE}
_NAMES = {"\t": "tab", NONE: "none"}
_ROWS = 200
_TITLES = 15
_ALIKE = 0.8
"""A delimiter gives this share of the rows the same number of cells."""
_ESCAPED = re.compile(r'(?<!\\)((?:\\\\)*)\\"')


@dataclass(frozen=True, slots=True)
class Dialect:
    """``quotes``: a cell may be quoted. ``spaces``: a space may stand between delimiter and quote.

    ``backslash``: a quote inside a quoted cell has a backslash before it, as databases write it.
    """

    delimiter: str
    quotes: bool = True
    spaces: bool = False
    backslash: bool = False


def find_dialect(sample: str, complete: bool, *, delimiter: str | None, tab_first: bool, header: bool) -> Dialect:
    """Return the dialect of a file that begins with ``sample``; ``delimiter`` is what a person said, if anything."""
    chosen = _given(delimiter) if delimiter is not None else _sniffed(sample, complete, tab_first, header)
    # Written by a csv library, a quote after delimiter and space is doubled, so this is another hand.
    spaces = re.search(rf'{re.escape(chosen)} +"[^"\r\n{re.escape(chosen)}]', sample) is not None
    quotes = chosen != "\t" or _quotes_mean_something(sample, complete)
    backslash = '\\"' in sample and _broken(double_quotes(sample), chosen) < _broken(sample, chosen)
    return Dialect(chosen, quotes, spaces, backslash)


def double_quotes(text: str) -> str:
    """Return ``text`` with each quote that has a backslash before it doubled instead."""
    return _ESCAPED.sub(r'\1""', text)


def delimiter_name(delimiter: str) -> str:
    """Return a delimiter for a message: ``tab``, ``none`` or the character itself."""
    return _NAMES.get(delimiter, delimiter)


def _given(delimiter: str) -> str:
    found = _NAMED.get(delimiter, delimiter)
    if len(found) != 1 or found in '"\r\n\x00 ':
        raise FileRefused("The delimiter %(name)r cannot be used; give one character, or tab, or none", name=delimiter)
    return found


def _sniffed(sample: str, complete: bool, tab_first: bool, header: bool) -> str:
    scores: dict[str, tuple[float, int]] = {}
    for candidate in DELIMITERS:
        rows = [row for row in _rows(sample, complete, candidate) if any(row)]
        counts = [len(row) for row in rows]
        if not counts:
            continue
        titles = _titles(rows, counts) if header else 0
        cells = counts[titles]
        agreement = counts[titles:].count(cells) / (len(counts) - titles)
        # Prose without a header has commas too, but not the same number in every line.
        if cells > 1 and (header or agreement >= _ALIKE):
            scores[candidate] = agreement, cells
    best = [candidate for candidate in scores if scores[candidate] == max(scores.values())]
    if tab_first and "\t" in best:
        return "\t"
    agreement, cells = scores[best[0]] if best else (0.0, 0)
    # Where neither divides the rows, it is prose with marks in it, and no question of two tables.
    if len(best) > 1 and agreement >= _ALIKE:
        one, other = (delimiter_name(each) for each in best[:2])
        raise Doubt(
            "The delimiter is not clear: %(one)r and %(other)r both divide the rows into %(n)s cells",
            [{"delimiter": delimiter_name(each)} for each in best],
            one=one,
            other=other,
            n=cells,
        )
    return best[0] if best else NONE


def _titles(rows: list[list[str]], counts: list[int]) -> int:
    """Return how many lines of fewer cells stand above a table, 0 if what follows is no table."""
    for place, row in enumerate(rows[:_TITLES]):
        if sum(map(is_known, row)) > 1 and counts[place] > max(counts[:place], default=0):
            return place if counts[place:].count(counts[place]) >= 0.8 * (len(counts) - place) else 0
    cells, times = Counter(counts).most_common(1)[0]
    first = counts.index(cells)
    agreement = times / (len(counts) - first)
    plain = any(map(is_known, rows[first]))
    return first if cells > counts[0] and (agreement >= 0.8 if plain else times > 5 and agreement >= 0.9) else 0


def _broken(sample: str, delimiter: str) -> int:
    """Count the quotes of a sample that are broken."""
    reader, count = csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter, strict=True), 0
    while True:
        try:
            next(reader)
        except StopIteration:
            return count
        except csv.Error:
            count += 1


def _rows(sample: str, complete: bool, delimiter: str, *, strict: bool = False) -> list[list[str]]:
    """Return the first rows. The last one of a cut sample is left out."""
    rows = []
    reader = csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter, strict=strict)
    for row in reader:
        rows.append(row)
        if len(rows) == _ROWS and not strict:
            return rows
    return rows if complete else rows[:-1]


def _quotes_mean_something(sample: str, complete: bool) -> bool:
    """Tell whether a tab-separated file quotes its cells, or has quotes in its text and no rule for them.

    Many Korean corpora are of the second kind: a review that begins with a quote would swallow the next ones.
    """
    if '"' not in sample:
        return True
    if not complete:
        sample = sample[: max(sample.rfind("\n"), sample.rfind("\r")) + 1]
    try:
        quoted = [len(row) for row in _rows(sample, True, "\t", strict=True) if row]
    except csv.Error as error:
        # A quoted cell of several lines may just be cut at the end of the sample.
        return not complete and "unexpected end" in str(error) and "\n" not in sample[sample.rfind('"') :]
    plain = [line.count("\t") + 1 for line in re.split(r"[\r\n]+", sample) if line]
    return len(quoted) == len(plain) or len(set(plain)) > 1
