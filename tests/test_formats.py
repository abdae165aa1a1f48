"""Formats of a training set: each loads with what reads it, and says what people approved."""

from __future__ import annotations

import base64
import itertools
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_export import ALL_TRAIN, NASTY, PATIENT, World, exported_keys, found, lines, snapshot, world  # noqa: F401
from tiny_models import CHATML, byte_tokenizer

from labeler import Choice, Choices, Keywords, Label, PromptStyle, Rating, Record, Spans, Task, strictjson
from labeler import built_in as built_in_plugins
from labeler.conformance import values_of
from labeler.errors import BackendError, InputError, MissingExtra, SettingError, StoreError
from labeler.export import Context, ExportRow, Options, PreferenceFormat, Shares, TrainingFormat, built_in, hub
from labeler.export.files import ExportFile
from labeler.export.formats import TEMPLATES, dataset, yaml
from labeler.export.formats.text import rendering
from labeler.plugins import load_plugins

# Preference sets have tests of their own: their rows come from suggestions.
FORMATS: dict[str, Any] = {
    name: format_ for name, format_ in built_in().items() if not isinstance(format_, PreferenceFormat)
}
CHAT = ("openai", "messages", "trl", "alpaca", "sharegpt", "llamafactory", "axolotl", "text", "dataset")
CHATTED = Options(template="chatml")
TASKS = load_plugins(built_in_plugins, entry_points=False).tasks
SYSTEM = {"role": "system", "content": "Choose."}
SHOWN = [
    {"role": "user", "content": "맛있어요"},
    {"role": "assistant", "content": '{"sentiment": "positive"}'},
]
ASKED = {"role": "user", "content": "별로예요"}
ANSWER = '{"sentiment": "negative"}'


def row_of(*prompt: Any, text: str = "별로예요", value: Any = "negative", label: Any = None) -> ExportRow:
    return ExportRow(1, Record(1, 1, "r1", text), value, value if label is None else label, "train", prompt, ANSWER)


def written(name: str, row: ExportRow) -> Any:
    """Return a row as a format of JSON lines writes it."""
    return strictjson.loads(FORMATS[name].row(row, Context(TASKS["sentiment"], PromptStyle())))


def fill(world: World, count: int = 30) -> None:  # noqa: F811
    for n in range(count):
        world.approve(f"r{n}", f"{NASTY[n % len(NASTY)]} {n}", ("positive", "neutral", "negative")[n % 3])


def loaded(folder: Path) -> Any:
    """Return what the library ``datasets`` reads from a folder, told nothing but where it is."""
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    return datasets.load_dataset(str(folder), cache_dir=str(folder.parent / "cache"))


# What all of them keep


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("suggestions", "conll")])
def test_a_folder_loads_at_once(world: World, name: str) -> None:  # noqa: F811
    """``load_dataset(folder)`` finds every row in its split, and no split without rows."""
    fill(world)
    result = world.export(name, shares=Shares(0.6, 0.4, 0.0), options=CHATTED)
    read = loaded(result.folder)
    counts = {split: n for split, n in result.manifest["counts"].items() if split != "all" and n}
    assert {split: len(rows) for split, rows in read.items()} == counts and len(counts) == 2


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("suggestions", "conll")])
def test_two_exports_are_the_same_byte_for_byte(world: World, name: str) -> None:  # noqa: F811
    """Equal labels make equal files, whatever was written before."""
    fill(world, 12)
    first, second = (snapshot(world.export(name, world.folder / at, options=CHATTED).folder) for at in ("a", "b"))
    assert first.pop("manifest.json") and second.pop("manifest.json") and first == second


def answers(name: str, folder: Path) -> list[str]:
    """Return the answers of a folder's rows, in the order of its file."""
    if name == "dataset":
        return [row["messages"][-1]["content"] for row in loaded(folder)["train"]]
    ends = {
        "trl": lambda row: row["completion"][-1]["content"],
        "alpaca": lambda row: row["output"],
        "sharegpt": lambda row: row["conversations"][-1]["value"],
        "text": lambda row: row["text"].rpartition("<|im_start|>assistant\n")[2].removesuffix("<|im_end|>"),
    }
    read = ends.get(name, lambda row: row["messages"][-1]["content"])
    return [read(row) for row in lines(folder / "train.jsonl")]


@pytest.mark.parametrize("task_name", ["sentiment", "emotion", "keywords", "categories", "usage"])
@pytest.mark.parametrize("name", CHAT)
def test_answers_read_back_as_the_value(world: World, name: str, task_name: str) -> None:  # noqa: F811
    """What a model learns to answer is read by the task's parser as what people approved, for every kind of label."""
    world.task = task = TASKS[task_name]
    kept = []
    for n, text in enumerate(NASTY):
        values = values_of(task, text)
        value = values[n % len(values)]
        record_id = world.record(f"r{n}", f"{text} {n}")
        world.annotate(record_id, value, task_version=task.version)
        kept.append((world.store.records.get(record_id), value))
    result = world.export(name, shares=ALL_TRAIN, options=CHATTED)
    keys = exported_keys(result)
    rows = [(record, value) for record, value in kept if record.key in keys]
    assert len(rows) > 10
    for answer, (record, value) in zip(answers(name, result.folder), rows, strict=True):
        assert task.parse_completion(answer, record) == value


@pytest.mark.parametrize("task_name", ["summary_polarity", "summary_category"])
def test_summaries_read_back_as_the_value(world: World, task_name: str) -> None:  # noqa: F811
    """The same for summaries, which have parts."""
    world.task = task = TASKS[task_name]
    parts = list(task.schema.json_schema()["properties"])
    for n, text in enumerate(NASTY):
        value = {part: text if place == n % len(parts) else "" for place, part in enumerate(parts)}
        world.annotate(world.record(f"r{n}", f"{text} {n}"), value, task_version=task.version)
    result = world.export("trl", shares=ALL_TRAIN)
    rows = [strictjson.loads(line) for line in (result.folder / "records.jsonl").read_bytes().splitlines()]
    for answer, row in zip(answers("trl", result.folder), rows, strict=True):
        read = task.parse_completion(answer, Record(1, 1, row["id"], row["text"]))
        assert read == task.schema.parse(row["label"], row["text"])


def test_descriptions_are_in_the_catalogue() -> None:
    """The page has a line of its own for each format, in Korean too."""
    from babel.messages.pofile import read_po

    path = Path(__file__).parent.parent / "labeler" / "translations" / "ko" / "LC_MESSAGES" / "messages.po"
    with path.open("rb") as stream:
        known = {message.id: message.string for message in read_po(stream)}
    assert all(known.get(made.description) for made in FORMATS.values())


# Conversations


def test_openai_and_messages_differ_in_examples_alone() -> None:
    """Without examples both write the same; with them, OpenAI is told not to learn their answers again."""
    plain_row, shown = row_of(SYSTEM, ASKED), row_of(SYSTEM, *SHOWN, ASKED)
    answer = {"role": "assistant", "content": ANSWER}
    assert written("openai", plain_row) == written("messages", plain_row) == {"messages": [SYSTEM, ASKED, answer]}
    assert written("messages", shown) == {"messages": [SYSTEM, *SHOWN, ASKED, answer]}
    assert written("openai", shown)["messages"][2] == {**SHOWN[1], "weight": 0}
    assert written("openai", shown)["messages"][-1] == answer


def test_alpaca_keeps_examples_as_history() -> None:
    """Examples are pairs of question and answer, and the input is the last question alone."""
    row = written("alpaca", row_of(SYSTEM, *SHOWN, ASKED))
    assert row["history"] == [[SHOWN[0]["content"], SHOWN[1]["content"]]]
    assert (row["system"], row["instruction"], row["input"], row["output"]) == ("Choose.", "", "별로예요", ANSWER)


def test_sharegpt_has_its_own_names() -> None:
    """human and gpt take turns; the system message is a column. A trainer leaves out what does not take turns."""
    row = written("sharegpt", row_of(SYSTEM, {"role": "user", "content": "Now:"}, ASKED))
    assert row == {
        "conversations": [{"from": "human", "value": "Now:\n\n별로예요"}, {"from": "gpt", "value": ANSWER}],
        "system": "Choose.",
    }


def llama_factory(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the first row of a set, and the same by the rules of LLaMA-Factory's parser and converters (0.9.5).

    As soon as columns are named, each that is not is none; tags likewise. "sharegpt" takes the system message from the
    first message or from its column, and leaves out a row whose turns do not alternate.
    """
    info = strictjson.loads((folder / "dataset_info.json").read_bytes())[name]
    columns, tags = info["columns"], info.get("tags", {})
    row = lines(folder / info["file_name"])[0]
    if info["formatting"] == "alpaca":
        asked = "\n".join(row[columns[part]] for part in ("prompt", "query") if row[columns[part]])
        turns = [text for pair in row[columns["history"]] for text in pair] + [asked]
        return row, {"system": row[columns["system"]], "prompt": turns, "response": row[columns["response"]]}
    messages = row[columns["messages"]]
    roles = [message[tags["role_tag"]] for message in messages]
    system = row[columns["system"]] if "system" in columns else ""
    if roles[0] == tags["system_tag"]:
        system, messages, roles = messages[0][tags["content_tag"]], messages[1:], roles[1:]
    assert roles == [tags["user_tag"], tags["assistant_tag"]] * (len(roles) // 2)
    assert info["formatting"] == "sharegpt", "'openai' would add a line to the system message"
    said = [message[tags["content_tag"]] for message in messages]
    return row, {"system": system, "prompt": said[:-1], "response": said[-1]}


@pytest.mark.parametrize("name", ["alpaca", "sharegpt", "llamafactory"])
def test_llama_factory_reads_what_is_served(world: World, name: str) -> None:  # noqa: F811
    """Through ``dataset_info.json``, system message, question and answer are those of the messages."""
    world.approve("r1", "맛있어요")
    served = lines(world.export("messages", world.folder / "m", shares=ALL_TRAIN).folder / "train.jsonl")[0]["messages"]
    result = world.export(name, world.folder / "l", shares=ALL_TRAIN)
    _, read = llama_factory(result.folder, "sentiment_train")
    assert [read["system"], *read["prompt"], read["response"]] == [message["content"] for message in served]


def test_axolotl_has_a_block_for_each_file(world: World) -> None:  # noqa: F811
    """The block names the files that are there, the keys of their rows, and validates by no share of train."""
    load = pytest.importorskip("yaml").safe_load
    fill(world)
    folder = world.export("axolotl", shares=Shares(0.6, 0.4, 0.0)).folder
    block = load((folder / "axolotl.yaml").read_text(encoding="utf-8"))
    (train,), (test,) = block["datasets"], block["test_datasets"]
    assert (train["path"], test["path"], block["val_set_size"]) == ("train.jsonl", "validation.jsonl", 0)
    assert (folder / train["path"]).is_file() and (folder / test["path"]).is_file()
    assert train["type"] == "chat_template" and train["field_messages"] in lines(folder / "train.jsonl")[0]
    shown = written("axolotl", row_of(SYSTEM, *SHOWN, ASKED))["messages"]
    assert [message.get(train["message_field_training"]) for message in shown] == [None, None, False, None, None]


def test_yaml_reads_back() -> None:
    """The few lines that write YAML give again what they were given, whatever it looks like."""
    load = pytest.importorskip("yaml").safe_load
    value = {
        "a": {"0": "null", "no: #": ["y", "1.0", {"b": 1, "c": [1, 2.5]}]},
        "list": [{"n": []}, {}],
        "text": "é\n:",
    }
    assert load(yaml(value)) == value


# Plain text


def test_built_in_templates_are_those_of_the_models() -> None:
    """The templates by name write what the templates of the models write, but for the token that a tokenizer adds."""
    trl = find_spec("trl")
    if trl is None or trl.origin is None:
        pytest.skip("trl, which has the templates, is not installed")
    folder = Path(trl.origin).parent / "chat_templates"
    messages: Any = [SYSTEM, {"role": "user", "content": " 맛있어요 \n"}, SHOWN[1], ASKED, SHOWN[1]]
    for name, source in (("chatml", "qwen2_5"), ("llama3", "llama3"), ("gemma3", "gemma3")):
        tokenizer = byte_tokenizer((folder / f"{source}.jinja").read_text(encoding="utf-8"), "<bos>")
        theirs = tokenizer.apply_chat_template(messages, tokenize=False)
        assert TEMPLATES[name](messages) == theirs.removeprefix("<bos>"), name


def test_a_folder_has_its_own_template(tmp_path: Path) -> None:
    """Tokenised as any text, a row has the tokens of the chat: what the tokenizer puts first stands there once."""
    messages: Any = [SYSTEM, ASKED, SHOWN[1]]
    tokenizer = byte_tokenizer("{{ bos_token }}" + CHATML, "<s>")
    tokenizer.save_pretrained(tmp_path)
    text = rendering(str(tmp_path))(messages)
    assert text.startswith("<|im_start|>system\nChoose.<|im_end|>")
    assert tokenizer(text)["input_ids"] == tokenizer.apply_chat_template(messages, return_dict=False)


def test_what_would_have_to_be_guessed_is_refused(world: World, tmp_path: Path) -> None:  # noqa: F811
    """No template, a name that is none, a folder without tokenizer or template: each is said, nothing is written."""
    world.approve("r1", "맛있어요")
    for template in ("", "qwen", str(tmp_path / "none")):
        with pytest.raises(SettingError, match="one of chatml, llama3, gemma3"):
            world.export("text", options=Options(template=template))
    with pytest.raises(SettingError, match="no tokenizer that can be loaded"):
        rendering(str(tmp_path))
    byte_tokenizer(None).save_pretrained(tmp_path / "base")
    with pytest.raises(SettingError, match="no chat template"):
        rendering(str(tmp_path / "base"))
    byte_tokenizer("{{ raise_exception('no system') }}").save_pretrained(tmp_path / "odd")
    with pytest.raises(SettingError, match=r"refuses the messages \(no system\)"):
        world.export("text", options=Options(template=str(tmp_path / "odd")))
    with pytest.raises(SettingError, match="in turn"):
        TEMPLATES["gemma3"]([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}])
    assert not world.folder.exists() or not list(world.folder.iterdir())


# The library datasets


@pytest.mark.parametrize(
    ("schema", "value", "held"),
    [
        (Choice(Label("bad"), Label("좋음")), "좋음", 1),
        (Choices(Label("taste"), Label("price")), ["price"], [1]),
        (Rating(), 4, 4),
        (Keywords(), [{"text": "맛", "start": 0, "end": 1}], '["맛"]'),
    ],
)
def test_a_label_has_the_type_of_its_task(world: World, schema: Any, value: Any, held: Any) -> None:  # noqa: F811
    """Labels of a closed list are class labels with names, numbers are numbers, and the rest is JSON."""
    world.task = Task("other", schema)
    world.approve("r1", "맛 좋고", value)
    read = loaded(world.export("dataset", shares=ALL_TRAIN).folder)["train"]
    assert (read[0]["id"], read[0]["text"], read[0]["label"]) == ("r1", "맛 좋고", held)
    feature = read.features["label"]
    names = getattr(feature, "names", getattr(getattr(feature, "feature", None), "names", None))
    assert names == (list(schema.names) if isinstance(schema, (Choice, Choices)) else None)


def test_a_card_says_what_is_there(world: World) -> None:  # noqa: F811
    """Its head has configs, splits and features for the hub, and leaves the licence to people."""
    card = pytest.importorskip("huggingface_hub").DatasetCard
    fill(world)
    result = world.export("dataset", shares=Shares(0.6, 0.4, 0.0))
    text = (result.folder / "README.md").read_text(encoding="utf-8")
    data = card(text).data.to_dict()
    assert data["language"] == ["ko"] and "license" not in data and "# license:" in text
    files = [{"split": split, "path": f"{split}.parquet"} for split in ("train", "validation")]
    assert data["configs"] == [{"config_name": "default", "data_files": files}]
    splits = {split["name"]: split["num_examples"] for split in data["dataset_info"]["splits"]}
    assert splits == {split: result.manifest["counts"][split] for split in ("train", "validation")}


def test_rows_go_out_in_groups(world: World, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Memory holds one group of rows at a time, and the file reads the same."""
    parquet = pytest.importorskip("pyarrow.parquet")
    fill(world)
    monkeypatch.setattr(dataset, "_GROUP", 5000)
    file = world.export("dataset", shares=ALL_TRAIN).folder / "train.parquet"
    assert parquet.ParquetFile(file).num_row_groups > 5
    ids = parquet.read_table(file).column("id").to_pylist()
    assert len(ids) > 20 and ids == sorted(ids, key=lambda id_: int(id_[1:]))


def test_a_full_disk_leaves_no_half_of_a_parquet_file(world: World, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """What fails on the way leaves the earlier export, and a writer that is forgotten writes nothing more."""
    fill(world, 12)
    world.export("dataset")
    old = snapshot(world.folder)
    world.approve("late", "늦었어요")

    def fail(file: ExportFile, data: bytes) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(ExportFile, "put", fail)
        with pytest.raises(StoreError):
            world.export("dataset")
    assert snapshot(world.folder) == old and len(list(world.folder.iterdir())) == len(old)


def test_a_readme_of_somebody_else_stays(world: World) -> None:  # noqa: F811
    """A folder with a README of its own takes any export but the one that would write over it."""
    world.approve("r1", "맛있어요")
    world.folder.mkdir()
    (world.folder / "README.md").write_text("mine")
    with pytest.raises(InputError, match=r"holds README\.md, which no export wrote"):
        world.export("dataset", shares=ALL_TRAIN)
    assert snapshot(world.folder) == {"README.md": b"mine"}
    world.export("openai", shares=ALL_TRAIN)
    assert (world.folder / "README.md").read_text() == "mine"


class Hub(BaseHTTPRequestHandler):
    """The few answers of a hub that an upload asks for."""

    protocol_version = "HTTP/1.1"
    posted: list[tuple[str, bytes]]
    status: int

    def do_GET(self) -> None:
        there = [{"type": "file", "path": "test.parquet", "size": 1, "oid": "0"}]
        self._answer(there if "/tree/" in self.path else {}, self.status)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.posted.append((self.path, body))
        address = f"http://{self.headers['Host']}/datasets/shop/reviews"
        if self.path.endswith("/repos/create"):
            self._answer({"url": address, "name": "shop/reviews", "id": "1"}, self.status)
        elif "/preupload/" in self.path:
            asked = json.loads(body)["files"]
            self._answer({"files": [{**one, "uploadMode": "regular", "shouldIgnore": False} for one in asked]})
        elif "/commit/" in self.path:
            self._answer({"commitUrl": f"{address}/commit/{'b' * 40}", "commitOid": "b" * 40, "hookOutput": ""})
        else:
            self._answer({"errors": [], "warnings": []})

    def _answer(self, body: Any, status: int = 200) -> None:
        sent = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    pytest.importorskip("huggingface_hub")
    kept = type("Kept", (Hub,), {"posted": [], "status": 200})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kept)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    # It reads the environment once, perhaps in a test that let nothing ask a hub.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    yield kept
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_data_set_goes_to_the_hub_in_private(world: World, served: type[Hub]) -> None:  # noqa: F811
    """Card and Parquet go into a private repository, an old split there is removed; records and manifest stay here."""
    fill(world, 12)
    result = world.export("dataset", shares=ALL_TRAIN)
    hub.check("dataset", "shop/reviews")
    assert hub.push(result, "shop/reviews").endswith("/datasets/shop/reviews")
    made = next(json.loads(body) for path, body in served.posted if path.endswith("/repos/create"))
    assert made["visibility"] == "private" and made["type"] == "dataset"
    commit = next(body for path, body in served.posted if "/commit/" in path)
    acts = [json.loads(line) for line in commit.splitlines()]
    sent = {a["value"]["path"]: base64.b64decode(a["value"]["content"]) for a in acts if a["key"] == "file"}
    assert sent == {name: (result.folder / name).read_bytes() for name in ("README.md", "train.parquet")}
    assert [a["value"]["path"] for a in acts if a["key"] == "deletedFile"] == ["test.parquet"]


def test_a_hub_that_refuses_is_named(world: World, served: type[Hub]) -> None:  # noqa: F811
    """The export stands, and the sentence says so."""
    fill(world, 3)
    served.status = 403
    with pytest.raises(BackendError, match=r"^'shop/reviews' could not be put .*403.* is complete$"):
        hub.push(world.export("dataset", shares=ALL_TRAIN), "shop/reviews")


def test_a_push_is_checked_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another format, a name without owner and a missing token are refused."""
    hub_package = pytest.importorskip("huggingface_hub")
    with pytest.raises(InputError, match="Only the format dataset"):
        hub.check("openai", "shop/reviews")
    with pytest.raises(InputError, match="write OWNER/NAME"):
        hub.check("dataset", "reviews")
    monkeypatch.setattr(hub_package, "get_token", lambda: None)
    with pytest.raises(SettingError, match="set HF_TOKEN"):
        hub.check("dataset", "shop/reviews")


# Tags

NAMES = Spans(Label("fruit"), Label("place of origin"))


def tagged(text: str, *spans: tuple[str, str], tokens: str = "", schema: Any = NAMES) -> tuple[list[list[str]], Any]:
    """Return the lines that conll writes for labelled phrases, and the kinds of its warnings."""
    conll: Any = FORMATS["conll"]
    value = schema.parse([{"label": label, "text": phrase} for label, phrase in spans], text)
    context = conll.prepared(Context(Task("names", schema), PromptStyle(), tokens=tokens))
    row = row_of(text=text, value=value)
    block = conll.row(row, context)
    assert block.endswith("\n\n")
    return [line.split("\t") for line in block.splitlines()[:-1]], conll.warnings(row, context)


def test_conll_has_tokens_offsets_and_tags() -> None:
    """One token a line with its place in code points and in UTF-16 units; an emoji has two of those."""
    rows, warnings = tagged("👍 청송 사과 최고", ("place of origin", "청송"), ("fruit", "사과"))
    assert rows == [
        ["👍", "0", "1", "0", "2", "O"],
        ["청송", "2", "4", "3", "5", "B-place_of_origin"],
        ["사과", "5", "7", "6", "8", "B-fruit"],
        ["최고", "8", "10", "9", "11", "O"],
    ]
    assert not warnings


def test_conll_names_what_a_tag_cannot_hold() -> None:
    """A particle behind a label has its tag too, and of labels that share a token the first is kept: both are named."""
    rows, warnings = tagged("부사 사과가", ("fruit", "부사 사과"))
    assert [row[-1] for row in rows] == ["B-fruit", "I-fruit"] and warnings == ["between_tokens"]
    rows, warnings = tagged("청송사과", ("place of origin", "청송"), ("fruit", "사과"))
    assert [row[-1] for row in rows] == ["B-place_of_origin"] and warnings == ["between_tokens", "shared_tokens"]
    rows, warnings = tagged("청송사과", ("place of origin", "청송"), ("fruit", "사과"), tokens="characters")
    assert [row[-1] for row in rows] == ["B-place_of_origin", "I-place_of_origin", "B-fruit", "I-fruit"]
    assert not warnings


@PATIENT
@given(st.text(min_size=1), st.data())
def test_characters_keep_every_border(text: str, data: Any) -> None:
    """Cut into characters, the tags give the keywords again, wherever they begin and end."""
    conll: Any = FORMATS["conll"]
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)))
    places = [(a, b) for a, b in zip(cuts[::2], cuts[1::2], strict=False) if text[a:b] == text[a:b].strip() != ""]
    value = [{"text": text[a:b], "start": a, "end": b} for a, b in places]
    context = conll.prepared(Context(Task("words", Keywords()), PromptStyle(), tokens="characters"))
    block = conll.row(row_of(text=text, value=value), context)
    rows = [line.split("\t") for line in block.split("\n") if line]
    read: list[list[int]] = []
    for _, start, end, *units, tag in rows:
        if tag == "B-keyword":
            read.append([int(start), int(end)])
        elif tag == "I-keyword":
            read[-1][1] = int(end)
        wide = text.encode("utf-16-le", "surrogatepass")[2 * int(units[0]) : 2 * int(units[1])]
        assert wide.decode("utf-16-le", "surrogatepass") == text[int(start) : int(end)]
    assert [tuple(place) for place in read] == places


def test_conll_through_an_export(world: World) -> None:  # noqa: F811
    """The manifest names the records whose labels the tokens do not fit; other tasks and tokens are refused."""
    world.task = Task("words", Keywords())
    world.approve("r1", "사과가 달다", [{"text": "사과", "start": 0, "end": 2}])
    result = world.export("conll", shares=ALL_TRAIN)
    assert found(result.manifest, "warnings") == {"between_tokens": ["r1"]}
    assert (result.folder / "train.conll").read_text(encoding="utf-8").startswith("사과가\t0\t3\t0\t3\tB-keyword\n")
    with pytest.raises(SettingError, match="No tokens 'bpe'; there are: whitespace, characters, kiwi"):
        world.export("conll", options=Options(tokens="bpe"))
    world.task = TASKS["sentiment"]
    with pytest.raises(SettingError, match="'sentiment' has none"):
        world.export("conll")


@pytest.mark.skipif(find_spec("kiwipiepy") is None, reason="kiwipiepy is not installed (labeler-rag[kiwi])")
def test_morphemes_are_tokens() -> None:
    """Particles are tokens of their own, syllables that two morphemes share are one, and no letter is in two."""
    rows, warnings = tagged("👍 사과가 맛있었어요 배송했다", ("fruit", "사과"), tokens="kiwi")
    assert [row[0] for row in rows[:3]] == ["👍", "사과", "가"] and rows[1][-1] == "B-fruit" and not warnings
    assert all(int(a[2]) <= int(b[1]) for a, b in itertools.pairwise(rows))


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """kiwipiepy and pyarrow are extras; the sentence says how to install them."""
    monkeypatch.setitem(__import__("sys").modules, "kiwipiepy", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtra, match=r"\[kiwi\]"):
        tagged("사과", tokens="kiwi")
    with pytest.raises(MissingExtra, match=r"\[parquet\]"):
        FORMATS["dataset"].prepared(Context(TASKS["sentiment"], PromptStyle()))


def test_every_format_is_one_of_ours() -> None:
    """Names are those that people give, and each is a format for training but one."""
    assert {*CHAT, "csv", "conll", "suggestions"} <= set(FORMATS)
    assert [name for name, made in FORMATS.items() if not isinstance(made, TrainingFormat)] == ["suggestions"]
