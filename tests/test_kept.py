"""A file that is kept in memory is read when it has changed, and only then."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from helpers import numbered, open_instance

from labeler.errors import LabelerError
from labeler.kept import KeptFile

LONG_AGO = (1e9, 1e9)


class Watched:
    """A kept file of text, and ``reads``: what each reading found."""

    def __init__(self, path):
        self.path, self.reads = path, []
        self.kept = KeptFile(path, self._read)

    def _read(self, path):
        self.reads.append(None if path is None else path.read_text())
        return self.reads[-1]

    def write(self, text, times=LONG_AGO):
        self.path.write_text(text)
        os.utime(self.path, times)


@pytest.fixture
def watched(tmp_path):
    return Watched(tmp_path / "file")


def test_file_that_stays_as_it_is_is_read_once(watched):
    """Asked again, nothing is read."""
    watched.write("one")
    assert [watched.kept.now() for _ in range(3)] == ["one"] * 3
    assert watched.reads == ["one"]


def test_change_by_another_process_counts_at_the_next_call(watched):
    """Nobody has to say that the file was changed."""
    watched.write("one")
    assert watched.kept.now() == "one"
    subprocess.run([sys.executable, "-c", f"open({str(watched.path)!r}, 'w').write('two')"], check=True)
    assert watched.kept.now() == "two"


def test_change_within_one_tick_of_the_clock_is_seen(watched):
    """What was written just now may be written again with the same time and size: it is not kept yet."""
    watched.write("one", times=None)
    mark = watched.path.stat()
    assert watched.kept.now() == "one"
    watched.path.write_text("two")
    os.utime(watched.path, ns=(mark.st_atime_ns, mark.st_mtime_ns))
    assert watched.kept.now() == "two"


def test_other_file_in_its_place_is_seen(watched):
    """A file put there whole, as settings are written, is another one, even of the same age and size."""
    watched.write("one")
    assert watched.kept.now() == "one"
    other = Watched(watched.path.with_name("other"))
    other.write("two")
    other.path.replace(watched.path)
    assert watched.kept.now() == "two"


def test_file_may_come_and_go(watched):
    """While there is none, the reader is asked once what that means."""
    assert [watched.kept.now(), watched.kept.now()] == [None, None]
    assert watched.reads == [None]
    watched.write("here")
    assert watched.kept.now() == "here"
    watched.path.unlink()
    assert watched.kept.now() is None


def test_failure_is_not_kept(watched):
    """What cannot be read is tried again at the next call, and is not answered with what was there before."""
    watched.write("one")
    watched.kept.now()
    watched.path.write_bytes(b"\xff")
    os.utime(watched.path, LONG_AGO)
    for _ in range(2):
        with pytest.raises(UnicodeDecodeError):
            watched.kept.now()
    watched.write("two")
    assert watched.kept.now() == "two"


def test_settings_and_prices_of_an_instance_follow_their_files(tmp_path):
    """Both files may be edited by hand while the service runs; a fault in one is named at once."""
    with open_instance(tmp_path, "http://localhost:1/v1", numbered(1)) as instance:
        settings, prices = tmp_path / "settings.json", tmp_path / "prices.json"
        os.utime(settings, LONG_AGO)
        assert instance.settings["openai_base_url"] == "http://localhost:1/v1"
        settings.write_text('{"openai_model": "mine"}')
        assert instance.settings == {"openai_model": "mine"}
        assert instance.model_info("mine") is None
        prices.write_text('{"mine": {"context": 512}}')
        assert instance.model_info("mine").context == 512
        prices.write_text('{"mine": {"context": 0}}')
        with pytest.raises(LabelerError, match=r"mine\.context"):
            instance.model_info("mine")


def test_settings_that_a_caller_changes_are_its_own(tmp_path):
    """What is kept is not what is handed out."""
    with open_instance(tmp_path, "http://localhost:1/v1", numbered(1)) as instance:
        os.utime(tmp_path / "settings.json", LONG_AGO)
        instance.settings["openai_model"] = "other"
        assert instance.settings["openai_model"] == "gpt-4o-mini"
