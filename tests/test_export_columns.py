"""What an export does with all of its rows at once is what it would do with one after the other."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from labeler.export.contacts import may_have, which_may_have
from labeler.export.files import ExportFile
from labeler.export.seen import Placed, Texts, Waiting, components, several
from labeler.export.splits import Components

CODES = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=40)


@given(CODES)
def test_components_are_those_of_one_link_after_the_other(rows: list[tuple[int, int, int]]) -> None:
    """Records hang together by any column, 0 ties nobody, and the first record names a component."""
    columns = np.array(rows, dtype=np.int64).T
    links = [[("record", n), *((place, code) for place, code in enumerate(row) if code)] for n, row in enumerate(rows)]
    tied = Components(links)
    first: dict[object, int] = {}
    expected = [first.setdefault(tied.root(("record", n)), n) for n in range(len(rows))]
    assert components(columns, len(rows)).tolist() == expected


@given(st.lists(st.text(alphabet="가a 1２٣-.@＠", max_size=24), max_size=8))
def test_contact_data_is_looked_for_in_many_texts_as_in_each(texts: list[str]) -> None:
    """Digits of any alphabet and full-width signs count alike, whatever stands in the text before."""
    assert which_may_have(texts) == [n for n, text in enumerate(texts) if may_have(text)]


def test_what_stands_more_than_once_is_told() -> None:
    """None of something is not the same as none of something."""
    assert several(np.array([0, 0, 3, 5, 3])).tolist() == [False, False, True, False, True]


def test_each_annotation_is_taken_once() -> None:
    """In whatever order annotations come, each has its split once, and what nobody took is told."""
    waiting = Waiting(Placed([(7, "train"), (-2, "test"), (3, "validation")]))
    assert waiting.take([3, 4, -2]) == ["validation", None, "test"]
    assert waiting.take([3, 9]) == [None, None]
    assert waiting.left() == [7]


def test_texts_come_back_as_they_went() -> None:
    """Also empty ones, and across the pages in which they are kept."""
    kept, texts = Texts(), [f"k{n}" * (n % 3) for n in range(2500)]
    for text in texts:
        kept.append(text)
    assert [kept[n] for n in range(2500)] == texts


def test_a_file_is_what_was_written_however_rows_begin(tmp_path: Path) -> None:
    """Rows that begin alike, less and less, and not at all, make the bytes and the hash of their text."""
    rng = random.Random(2)
    rows = [("머리말 " * 40)[: rng.choice((160, 159, 80, 0))] + f"{n} \U0001f600\n" for n in range(3000)]
    file = ExportFile(tmp_path, "train.jsonl")
    file.write("\ufeffhead\n", rows=0)
    for row in rows:
        file.write(row)
    file.finish()
    data = ("\ufeffhead\n" + "".join(rows)).encode()
    assert (tmp_path / "train.jsonl.tmp").read_bytes() == data
    assert file.entry() == {"rows": 3000, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
