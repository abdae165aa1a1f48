"""The format for the library ``datasets`` and the hub: Parquet by split, and a card that says what is in it."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from labeler import strictjson
from labeler.errors import MissingExtra
from labeler.export.files import CARD, ExportFile
from labeler.export.formats.base import Context, ExportRow, TrainingFormat, json_line, plain, yaml
from labeler.sentence import N_

_GROUP = 1 << 23
"""How much JSON goes into one group of rows, in bytes; a reader takes in a whole group at once."""
_TEXT = {"dtype": "string", "_type": "Value"}
_ALL = "default"


class ParquetFile(ExportFile):
    """Takes what columns there are, then lines of JSON, and writes Parquet."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(folder, name)
        self.held = 0
        """How many bytes the rows take in memory."""
        self._lines: list[bytes] = []
        self._waiting = 0
        self._schema: Any = None
        self._writer: Any = None
        self._sink = _Sink(self.put)

    def write(self, text: str, rows: int = 1) -> None:
        if self._schema is None:
            self._begin(text)
            return
        self._lines.append(text.encode("utf-8"))
        self._waiting += len(self._lines[-1])
        self.rows += rows
        if self._waiting >= _GROUP:
            self._flush()

    def finish(self) -> None:
        if not self._writer.is_open:
            return
        self._flush()
        self._writer.close()
        super().finish()

    def abandon(self) -> None:
        # The writer ends its file when it is forgotten, and nothing of that may be written.
        self._sink.put = len
        super().abandon()

    def _begin(self, features: str) -> None:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        columns = strictjson.loads(features)
        # Where the library ``datasets`` looks for what Parquet has no type for: the names of labels.
        known = {"huggingface": strictjson.dumps({"info": {"features": columns}})}
        self._schema = pa.schema([(name, _arrow(feature)) for name, feature in columns.items()], known)
        self._writer = ParquetWriter(pa.PythonFile(self._sink, "w"), self._schema)

    def _flush(self) -> None:
        from pyarrow import json

        if not self._lines:
            return
        data, self._lines, self._waiting = b"".join(self._lines), [], 0
        # One block: what lies across the border of two could not be read.
        read = json.ReadOptions(use_threads=False, block_size=len(data) + 1)
        how = json.ParseOptions(explicit_schema=self._schema, unexpected_field_behavior="error")
        table = json.read_json(io.BytesIO(data), read, how)
        self.held += table.nbytes
        self._writer.write_table(table)


class _Sink(io.RawIOBase):
    """A stream for pyarrow that ends in ``put``."""

    def __init__(self, put: Callable[[bytes], object]) -> None:
        self.put = put

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        held = bytes(data)
        self.put(held)
        return len(held)


class Dataset(TrainingFormat):
    """Columns id, group, text, label and messages. README.md is the card: what ``load_dataset(folder)`` reads first.

    ``label`` is a class label where the task chooses one of its labels, a list of them where it chooses several, and a
    number where it is one; anything else is text, or JSON as in a table.
    """

    name = "dataset"
    suffix = ".parquet"
    description = N_("A folder for the library datasets and the hub: Parquet files and a card")
    file = ParquetFile

    def prepared(self, context: Context) -> Context:
        """Raises :class:`MissingExtra` without pyarrow."""
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise MissingExtra("pyarrow", "parquet") from None
        return context

    def head(self, context: Context) -> str:
        return strictjson.dumps(_features(context))

    def row(self, row: ExportRow, context: Context) -> str:
        record = row.record
        label = _coded(row.label, _label(context))
        return json_line(
            {"id": record.key, "group": record.group, "text": record.text, "label": label, "messages": row.messages}
        )

    def about(self, files: Mapping[str, ExportFile], context: Context) -> Mapping[str, str]:
        task, language = context.task, context.style.language
        paths = [{"split": split, "path": file.name} for split, file in files.items()]
        head = {
            "language": [language],
            "task_categories": ["text-generation", *(["text-classification"] if _label(context) != _TEXT else [])],
            "configs": [{"config_name": _ALL, "data_files": paths}],
            "dataset_info": {
                "config_name": _ALL,
                "features": [{"name": name, **_described(feature)} for name, feature in _features(context).items()],
                "splits": [
                    {"name": split, "num_bytes": file.held, "num_examples": file.rows}
                    for split, file in files.items()
                    if isinstance(file, ParquetFile)
                ],
            },
        }
        licence = "# license: write here under which licence these texts and labels may be used\n"
        rows = "".join(f"- {split}: {file.rows:,} rows\n" for split, file in files.items())
        return {CARD: f"---\n{licence}{yaml(head)}---\n\n# {task.titled(language)}\n\n{_BODY}{_made(context)}{rows}"}


_BODY = """Texts with labels that people approved in Labeler.

`label` is what they decided, `messages` is the same as a conversation to train a language model with: the instructions
of the task, the text, and the answer. Texts of one product, and texts that are nearly the same, are in one split.

"""


def _made(context: Context) -> str:
    """Return what a card says of texts that no customer wrote."""
    if not context.written:
        return ""
    return (
        f"A language model wrote {context.written:,} of the texts, after others of the same label; people decided on "
        "the label of each. They are in train alone, and `records.jsonl` names them (`provenance.written`).\n\n"
    )


def _features(context: Context) -> dict[str, Any]:
    """Return the columns as the library ``datasets`` describes them."""
    messages = [{"role": _TEXT, "content": _TEXT}]
    return {"id": _TEXT, "group": _TEXT, "text": _TEXT, "label": _label(context), "messages": messages}


def _label(context: Context) -> Any:
    """Return the feature of a task's labels, by the JSON schema of its answers."""
    return _feature(context.task.schema.json_schema()) or _TEXT


def _feature(schema: Mapping[str, Any]) -> Any:
    names = schema.get("enum", ())
    if names and all(isinstance(name, str) for name in names):
        return {"names": list(names), "_type": "ClassLabel"}
    if schema.get("type") == "integer":
        return {"dtype": "int64", "_type": "Value"}
    items = _feature(schema["items"]) if schema.get("type") == "array" else None
    return [items] if items else None


def _coded(label: Any, feature: Any) -> Any:
    """Return a label as its column holds it."""
    if isinstance(feature, list):
        return [_coded(item, feature[0]) for item in label]
    if feature["_type"] == "ClassLabel":
        return feature["names"].index(label)
    return label if feature["dtype"] != "string" else plain(label)


def _arrow(feature: Any) -> Any:
    import pyarrow as pa

    if isinstance(feature, list):
        return pa.list_(_arrow(feature[0]))
    if "_type" not in feature:
        return pa.struct([(name, _arrow(inner)) for name, inner in feature.items()])
    return pa.string() if feature.get("dtype") == "string" else pa.int64()


def _described(feature: Any) -> dict[str, Any]:
    """Return a feature as the head of a card has it."""
    if isinstance(feature, list):
        inner = _described(feature[0])
        return {"list": inner.get("struct", inner.get("dtype"))}
    if "_type" not in feature:
        return {"struct": [{"name": name, **_described(inner)} for name, inner in feature.items()]}
    if feature["_type"] == "ClassLabel":
        return {"dtype": {"class_label": {"names": {str(n): name for n, name in enumerate(feature["names"])}}}}
    return {"dtype": feature["dtype"]}
