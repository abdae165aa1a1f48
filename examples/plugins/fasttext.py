"""The export format "fasttext": the labels and the text of a record on one line, as fastText trains from it."""

from labeler import hookimpl
from labeler.export import TrainingFormat


class FastText(TrainingFormat):
    name = "fasttext"
    suffix = ".txt"
    description = "Labels and text on one line, for fastText"
    asks = False

    def row(self, row, context):
        labels = [f"__label__{label}".replace(" ", "_") for label in context.task.schema.strata(row.value)]
        # A line end of any kind would begin another record.
        return " ".join([*labels, *row.record.text.split()]) + "\n"


@hookimpl
def register_exporters():
    return [FastText()]
