"""The export format "conll": a word and its tag a line, B-, I- or O, as models that tag words are trained on."""

import re

from labeler import hookimpl
from labeler.export import TrainingFormat


class Conll(TrainingFormat):
    name = "conll"
    suffix = ".conll"
    description = "One word and its tag a line, for labels that mark stretches of the text"

    def row(self, row, context):
        spans = [span for span in row.value if "start" in span] if isinstance(row.value, list) else []
        lines = [f"{word.group()}\t{_tag(word, spans)}" for word in re.finditer(r"\S+", row.record.text)]
        return "\n".join(lines) + "\n\n"


def _tag(word, spans):
    for span in spans:
        if span["start"] <= word.start() < span["end"]:
            return f"{'B' if word.start() == span['start'] else 'I'}-{span['label']}"
    return "O"


@hookimpl
def register_exporters():
    return [Conll()]
