"""The classifier: a small encoder learns approved labels, and comes back as a backend."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import kill, python, until

from labeler import Choice, Choices, Label, Task
from labeler.backends.base import BackendRequest
from labeler.backends.classifier import CARD, ClassifierBackend, read_card
from labeler.backends.ensemble import pool
from labeler.cli import cli
from labeler.errors import Conflict, InputError, LabelerError, SettingError
from labeler.export import Options, Shares, export_task
from labeler.ingest.options import ImportOptions
from labeler.instance import Instance
from labeler.records import BackendFailure, Completion, Record
from labeler.training.classifier import Progress, Settings, read_rows, temperature, train_classifier

torch = pytest.importorskip("torch", reason="torch is not installed (labeler-rag[local])")
transformers = pytest.importorskip("transformers", reason="transformers is not installed (labeler-rag[local])")

GOOD = ("달아요", "맛있어요", "싱싱해요", "꼼꼼해요")
BAD = ("늦었어요", "썩었어요", "시어요", "찢어졌어요")
SOSO = ("그래요", "보통이에요", "무난해요", "평범해요")
THINGS = ("사과가", "배가", "귤이", "포도가", "상자가", "감이")
WHEN = ("오늘", "어제", "지난주에", "명절에", "아침에", "저녁에", "처음", "이번에")
WORDS = {"positive": GOOD, "negative": BAD, "neutral": SOSO}
QUICK = Settings(epochs=8, rate=3e-3, longest=16)
TOPICS = Task("topics", Choices(Label("taste"), Label("delivery"), Label("price")))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other's core take many times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def reviews(words: dict[str, tuple[str, ...]] = WORDS) -> list[tuple[str, str]]:
    """Different texts, each with the label that its last word tells."""
    return [
        (f"{when} 온 {thing} {word}", label)
        for when in WHEN for thing in THINGS for label, of_label in words.items() for word in of_label
    ]  # fmt: skip


def encoder(folder: Path, kind: str = "bert") -> Path:
    """Write an encoder of random weights as the hub would hold it, with a WordPiece vocabulary of the texts."""
    words = sorted({word for text, _ in reviews() for word in text.split()})
    folder.mkdir()
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(tokens), encoding="utf-8")
    transformers.BertTokenizerFast(vocab=str(vocabulary), do_lower_case=False).save_pretrained(folder)
    torch.manual_seed(3)
    config = transformers.AutoConfig.for_model(
        kind, vocab_size=len(tokens), hidden_size=32, embedding_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=32, hidden_dropout_prob=0.0,
    )  # fmt: skip
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder(tmp_path_factory.mktemp("models") / "tiny-bert")


class Shop:
    """An instance with one project, whose records are approved but for the newest."""

    def __init__(self, folder: Path, rows: list[tuple[str, Any]], task: Task | None = None) -> None:
        self.instance = Instance(folder)
        if task is not None:
            self.instance.plugins.tasks[task.name] = task
        name = task.name if task else "sentiment"
        id_ = self.instance.create_project("shop", "ko", {"tasks": [name], "embedder": "lexical"})
        self.project = self.instance.store.projects.get(id_)
        self.task = self.instance.project_task(self.project, name)
        path = folder / "reviews.jsonl"
        lines = [{"id": f"r{n}", "text": text, "label": label} for n, (text, label) in enumerate(rows)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        self.instance.importer(self.project).run(path, ImportOptions("text", "id", "", {name: "label"}))

    def train(self, model: Path, name: str = "mine", **more: Any) -> Path:
        more = {"settings": QUICK} | more
        return train_classifier(self.instance, self.project, self.task, str(model), name, **more)

    def export(self, format_name: str, **options: Any) -> Path:
        folder = self.instance.folder / "exports" / format_name
        export_task(
            self.instance.store, self.project, self.task, format_name, folder,
            formats=self.instance.plugins.exporters, shares=Shares(), options=Options(**options),
        )  # fmt: skip
        return folder

    def backend(self, name: str = "mine") -> ClassifierBackend:
        made = self.instance.backend(self.project, self.task, "classifier", {"model_id": name})
        assert isinstance(made, ClassifierBackend)
        return made

    def ask(self, *texts: str, name: str = "mine") -> list[Any]:
        requests = [BackendRequest(Record(0, 1, "", text), self.task.name, self.task.schema) for text in texts]
        return list(self.backend(name).complete(requests))


NEW = [("모레 온 사과가 썩었어요", None), ("모레 온 배가 달아요", None), ("모레 온 귤이 무난해요", None)]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> Iterator[Shop]:
    """One where a classifier was trained."""
    made = Shop(tmp_path_factory.mktemp("shop"), [*reviews(), *NEW])
    made.train(bert)
    yield made
    made.instance.close()


# Training


def test_it_learns_what_tells_the_labels_apart(shop: Shop) -> None:
    """The test rows, which it never saw, are all right; the card says from what, with what and how well."""
    card = read_card(shop.instance.folder / "models" / "mine")
    assert card.measured["test"]["agreement"] == 1.0
    assert (card.task, card.kind, card.labels) == ("sentiment", "choice", ("positive", "neutral", "negative"))
    assert sum(card.measured["rows"].values()) == len(reviews())
    assert card.trained["versions"]["torch"]
    (export,) = shop.instance.store.exports.all(shop.project["id"], 5)
    assert card.trained["export"]["files"].items() <= export["manifest"]["files"].items()


def test_its_chances_are_calibrated_on_validation(shop: Shop) -> None:
    """No other temperature has less loss on the validation rows, the plain one of 1 included."""
    card = read_card(shop.instance.folder / "models" / "mine")
    measured = card.measured["validation"]
    assert card.temperature != 1.0
    assert measured["log_loss"] <= measured["log_loss_plain"]


def test_a_temperature_undoes_what_is_too_sure() -> None:
    """Outputs that are four times as large as their chances are divided by about four."""
    chance = np.random.default_rng(1)
    true = chance.normal(size=(4000, 3))
    odds = np.cumsum(pool.chances(true, True), axis=1)
    member = np.eye(3, dtype=bool)[(chance.random((4000, 1)) > odds).sum(axis=1)]
    assert temperature(4 * true, member, True) == pytest.approx(4.0, rel=0.15)


@pytest.mark.parametrize("format_name", ["openai", "trl", "csv"])
def test_every_training_format_can_be_trained_on(shop: Shop, format_name: str) -> None:
    """Splits are those of the manifest, and a cell that was made safe for spreadsheets is what it was."""
    rows = read_rows(shop.export(format_name), shop.task)
    made = read_rows(shop.export("csv", formula_safe=False), shop.task)
    assert {split: sorted(pairs) for split, pairs in rows.splits.items()} == {
        split: sorted(pairs) for split, pairs in made.splits.items()
    }


def test_sets_of_labels_are_learned(tmp_path: Path) -> None:
    """Each has a chance of its own, how many are chosen is learned on validation, and ELECTRA does as well."""
    taste, delivery = ("달아요", "시어요"), ("늦었어요", "찢어졌어요")
    rows: list[tuple[str, Any]] = [
        (f"{when} {thing} {a} {b}", [name for name, words in topics.items() if {a, b} & set(words)])
        for topics in [{"taste": taste, "delivery": delivery}]
        for when in WHEN for thing in THINGS for a in (*taste, "보통이에요") for b in (*delivery, "그래요")
    ]  # fmt: skip
    shop = Shop(tmp_path / "shop", rows, TOPICS)
    shop.train(encoder(tmp_path / "tiny-electra", "electra"))
    both, one, none = shop.ask("모레 배가 달아요 늦었어요", "모레 배가 달아요 그래요", "모레 배가 보통이에요 그래요")
    assert [json.loads(said.text) for said in (both, one, none)] == [
        {"topics": ["taste", "delivery"]}, {"topics": ["taste"]}, {"topics": []}
    ]  # fmt: skip
    assert sum(both.scores.values()) > 1.5
    shop.instance.close()


def test_it_ends_when_validation_gains_no_more(shop: Shop, bert: Path) -> None:
    """Of many epochs only some are made, the best of them is kept, and nothing is written before the end."""
    seen: list[Progress] = []
    models = shop.instance.folder / "models"

    def note(at: Progress) -> None:
        seen.append(at)
        assert [path.name for path in models.iterdir() if "patient" in path.name] == []

    folder = shop.train(bert, "patient", settings=replace(QUICK, epochs=40), progress=note)
    held = [at.validation for at in seen if at.validation is not None]
    epochs = read_card(folder).trained["epochs"]
    assert 2 <= epochs == len(held) - QUICK.patience < 30
    assert held[epochs - 1] < min(held) + 0.001


def test_rare_labels_weigh_more_only_if_it_helps(tmp_path: Path, bert: Path) -> None:
    """It is tried where labels are uneven, and validation decides."""
    rows = reviews({"positive": GOOD, "negative": BAD[:1]})
    shop, seen = Shop(tmp_path / "shop", rows), list[Progress]()
    card = read_card(shop.train(bert, settings=replace(QUICK, epochs=3, rate=1e-3), progress=seen.append))
    assert any(at.weighted for at in seen)
    assert not all(at.weighted for at in seen)
    assert card.trained.get("weights") is None or card.trained["weights"][0] < card.trained["weights"][2]
    shop.instance.close()


def test_what_cannot_be_trained_is_said(shop: Shop, bert: Path, tmp_path: Path) -> None:
    """Each with one sentence, before anything is loaded or written."""
    with pytest.raises(Conflict, match="There is a model mine already"):
        shop.train(bert)
    with pytest.raises(SettingError, match=r"A model cannot be called '\.\./mine'"):
        shop.train(bert, "../mine")
    with pytest.raises(SettingError, match="There is no model folder"):
        shop.train(tmp_path / "none", "other")
    keywords = replace(shop.task, schema=shop.instance.plugins.task("keywords").schema)
    with pytest.raises(SettingError, match="has values of the kind keywords; choose another way"):
        train_classifier(shop.instance, shop.project, keywords, str(bert), "other")
    with pytest.raises(SettingError, match="There is no export in"):
        shop.train(bert, "other", export=tmp_path)
    with pytest.raises(SettingError, match="epochs must be more than 0"):
        Settings(epochs=0)
    assert [path.name for path in (shop.instance.folder / "models").iterdir() if "other" in path.name] == []


def test_a_torn_export_is_refused(shop: Shop) -> None:
    """What was trained on is what its manifest says."""
    folder = shop.export("trl")
    with (folder / "records.jsonl").open("a", encoding="utf-8") as file:
        file.write("{}\n")
    with pytest.raises(SettingError, match=r"records.jsonl is not the file that its manifest describes; export again"):
        read_rows(folder, shop.task)
    with pytest.raises(SettingError, match="is of the task sentiment, not of topics"):
        read_rows(folder, TOPICS)


def test_without_approved_labels_there_is_nothing_to_train_on(tmp_path: Path, bert: Path) -> None:
    """Said as by any export; with too few for a split, which one."""
    shop = Shop(tmp_path / "shop", [("사과가 달아요", None)])
    with pytest.raises(InputError, match="Nothing to export"):
        shop.train(bert)
    few = Shop(tmp_path / "few", [("사과가 달아요", "positive")])
    with pytest.raises(SettingError, match=r"has no rows in (train|validation); approve more records"):
        few.train(bert)
    shop.instance.close()
    few.instance.close()


KILLED = """if True:
    import sys, time
    from pathlib import Path
    from labeler.instance import Instance
    from labeler.training import classifier

    def stay(*given, **more):
        Path(sys.argv[3]).touch()
        time.sleep(60)

    classifier.write_private = stay
    instance = Instance(Path(sys.argv[1]))
    (project,) = instance.store.projects.all()
    task = instance.project_task(project, "sentiment")
    settings = classifier.Settings(epochs=1, longest=16)
    classifier.train_classifier(instance, project, task, sys.argv[2], "killed", settings=settings)
"""


def test_a_training_that_is_killed_while_it_writes_leaves_nothing_that_loads(
    shop: Shop, bert: Path, tmp_path: Path
) -> None:
    """The weights are there, and no name leads to them; the next training of that name clears up."""
    there, models = tmp_path / "there", shop.instance.folder / "models"
    process = python(KILLED, str(shop.instance.folder), str(bert), str(there))
    until(there.exists, 90)
    kill(process)
    assert len(list(models.glob(".killed.*/model.safetensors"))) == 1
    with pytest.raises(SettingError, match="There is no classifier 'killed'; there are: "):
        shop.backend("killed")
    shop.train(bert, "killed", settings=replace(QUICK, epochs=1))
    assert list(models.glob(".killed.*")) == []
    assert shop.backend("killed").model_id == "killed"


def test_an_encoder_without_its_weights_is_refused(shop: Shop, bert: Path, tmp_path: Path) -> None:
    """Only what is laid on the encoder may be new."""
    from safetensors.torch import load_file, save_file

    torn = tmp_path / "torn"
    shutil.copytree(bert, torn)
    kept = {name: value for name, value in load_file(torn / "model.safetensors").items() if ".layer.1." not in name}
    save_file(kept, torn / "model.safetensors", {"format": "pt"})
    with pytest.raises(SettingError, match=r"has no weights for 16 parts of its encoder, such as bert\.encoder"):
        shop.train(torn, "torn")


# The backend


def test_it_suggests_in_a_run_through_the_ledger(shop: Shop) -> None:
    """Each pending record gets a label with scores; no trial, no example, no cost; asked again, nothing is."""
    arguments = ["prelabel", "--project", "shop", "--task", "sentiment", "--backend", "classifier", "--model", "mine"]
    folder = str(shop.instance.folder)
    done = CliRunner().invoke(cli, [*arguments, "--instance", folder])
    assert done.exit_code == 0, done.output
    found = [shop.instance.store.records.by_key(shop.project["id"], f"r{len(reviews()) + n}") for n in range(3)]
    said = [shop.instance.store.suggestions.newest_billed(one.id, "sentiment") for one in found]
    assert [one.value for one in said] == ["negative", "positive", "neutral"]
    assert [list(one.evidence) for one in said] == [[], [], []]
    assert [sum(one.scores.values()) for one in said] == pytest.approx([1, 1, 1])
    calls = "SELECT COUNT(*) FROM calls"
    assert shop.instance.store.db.value(calls) == 3
    assert shop.instance.store.db.value("SELECT SUM(cost) FROM calls") == 0
    again = CliRunner().invoke(cli, [*arguments, "--instance", folder, "--again"])
    assert again.exit_code == 0, again.output
    assert shop.instance.store.db.value(calls) == 3


def test_other_labels_than_its_card_are_refused(shop: Shop) -> None:
    """A run pauses before anything is asked: a chance of another label would be a guess."""
    schema = Choice(Label("positive"), Label("negative"))
    request = BackendRequest(Record(0, 1, "", "사과가 달아요"), "sentiment", schema)
    (said,) = shop.backend().complete([request])
    assert isinstance(said, BackendFailure)
    assert said.fatal
    assert said.message == (
        "The classifier mine was trained on the labels positive, neutral, negative, and the task has positive, "
        "negative; train it again"
    )
    with pytest.raises(SettingError, match="train it again"):
        ClassifierBackend(shop.instance.folder / "models" / "mine", "mine", lambda: schema).ready()


def test_a_batch_says_what_each_text_alone_says(shop: Shop) -> None:
    """Padding is not read."""
    texts = [text for text, _ in NEW] + ["달아요"]
    together, alone = shop.ask(*texts), [shop.ask(text)[0] for text in texts]
    for a, b in zip(together, alone, strict=True):
        assert isinstance(a, Completion)
        assert (a.text, a.tokens_in) == (b.text, b.tokens_in)
        assert a.scores == pytest.approx(b.scores, abs=1e-5)


def test_a_damaged_card_is_said(shop: Shop, tmp_path: Path) -> None:
    """A folder without one is no classifier, nor is a model of another kind."""
    with pytest.raises(SettingError, match="There is no classifier 'tiny'; there are: "):
        shop.backend("tiny")
    for text, said in (("{", "holds no trained classifier"), ('{"method": "lora"}', "is no classifier"),
                       ('{"method": "classifier"}', "cannot be read; train it again")):  # fmt: skip
        (tmp_path / CARD).write_text(text, encoding="utf-8")
        with pytest.raises(SettingError, match=said):
            read_card(tmp_path)
    with pytest.raises(LabelerError, match="needs a model id: the name of a model that was trained"):
        shop.backend("")


def test_the_command_trains_and_says_how_to_use_it(shop: Shop, bert: Path) -> None:
    """Progress by epoch on standard error, what came of it on standard output."""
    done = CliRunner().invoke(
        cli, ["train-classifier", "--project", "shop", "--task", "sentiment", "--model", str(bert), "--name", "two",
              "--epochs", "2", "--rate", "0.003", "--longest", "16", "--instance", str(shop.instance.folder)]
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "on validation" in done.stderr
    assert "test: agreement " in done.stdout
    assert "labeler prelabel --project shop --task sentiment --backend classifier --model two" in done.stdout


def test_what_every_text_says_is_asked(shop: Shop) -> None:
    """The empty text and one longer than the model reads are answered as well."""
    said = shop.ask("", "달아요 " * 500)
    assert all(isinstance(one, Completion) for one in said)
    assert json.loads(said[1].text) == {"sentiment": "positive"}
