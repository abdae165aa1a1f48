"""A reader of files that end in .colons: one review a line, as id::text."""

from labeler import hookimpl
from labeler.errors import FileRefused
from labeler.ingest.rows import Row, RowError, RowSource


def rows(lines):
    for number, line in enumerate(lines, 1):
        id_, mark, text = line.partition("::")
        yield Row(number, {"id": id_, "text": text}) if mark else RowError(number, None, "the line has no ::")


def read(path, options):
    try:
        lines = path.read_text(encoding=options.encoding or "utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise FileRefused(f"{path.name} is not UTF-8 ({error}); save it as UTF-8") from error
    return RowSource("colons", ["id", "text"], path.stat().st_size, rows(lines), lambda: 0, lambda: None)


@hookimpl
def register_importers():
    return [(".colons", read)]
