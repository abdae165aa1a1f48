"""The classifier: a small encoder learns approved labels, and comes back as a backend."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import PASSWORD, enter
from helpers import process, until

from labeler import Choice, Label, accounts
from labeler.app import create_app
from labeler.backends.base import BackendRequest
from labeler.backends.classifier import Card, ClassifierBackend, read_card
from labeler.backends.ensemble import pool
from labeler.backends.local.cards import CARD
from labeler.cli import cli
from labeler.errors import InputError, LabelerError, SettingError
from labeler.evaluation.bertscore import BertScore
from labeler.export import Options, Shares, export_task
from labeler.ingest.options import ImportOptions
from labeler.instance import Instance
from labeler.records import BackendFailure, Completion, Record
from labeler.training import folders, plans
from labeler.training.classifier import read_rows, temperature
from labeler.training.folders import Training
from labeler.training.sets import read_set
from labeler.training.work import fit

torch = pytest.importorskip("torch", reason="torch is not installed (labeler-rag[local])")
transformers = pytest.importorskip("transformers", reason="transformers is not installed (labeler-rag[local])")

GOOD = ("달아요", "맛있어요", "싱싱해요", "꼼꼼해요")
BAD = ("늦었어요", "썩었어요", "시어요", "찢어졌어요")
SOSO = ("그래요", "보통이에요", "무난해요", "평범해요")
THINGS = ("사과가", "배가", "귤이", "포도가", "상자가", "감이")
WHEN = ("오늘", "어제", "지난주에", "명절에", "아침에", "저녁에", "처음", "이번에")
WORDS = {"positive": GOOD, "negative": BAD, "neutral": SOSO}
QUICK = {"epochs": 8, "rate": 3e-3}
TOPICS = """
from labeler import Choices, Label, Task, hookimpl

@hookimpl
def register_tasks():
    return [Task("topics", Choices(Label("taste"), Label("delivery"), Label("price")))]
"""


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

    def __init__(self, folder: Path, rows: list[tuple[str, Any]], task: str = "sentiment") -> None:
        (folder / "plugins").mkdir(parents=True)
        (folder / "plugins" / "topics.py").write_text(TOPICS, encoding="utf-8")
        self.instance = Instance(folder)
        id_ = self.instance.create_project("shop", "ko", {"tasks": [task], "embedder": "lexical"})
        self.project = self.instance.store.projects.get(id_)
        self.task = self.instance.project_task(self.project, task)
        path = folder / "reviews.jsonl"
        lines = [{"id": f"r{n}", "text": text, "label": label} for n, (text, label) in enumerate(rows)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        self.instance.importer(self.project).run(path, ImportOptions("text", "id", "", {task: "label"}))

    @property
    def place(self) -> Path:
        return self.instance.folder

    def plan(
        self, model: Path, name: str = "mine", format_name: str = "csv", most: int | None = 16, **given: Any
    ) -> Training:  # fmt: skip
        """Plan a training on an export of what is approved."""
        folder = self.place / "exports" / format_name
        folder = folder if folder.exists() else self.export(format_name)
        plan, _ = plans.plan_of(
            folder, str(model), "classifier", None, most=most, device="cpu", given=QUICK | given,
            project_id=self.project["id"],
        )  # fmt: skip
        plans.task_of(self.instance, plan)
        return folders.begin(self.place, name, plan)

    def train(self, model: Path, name: str = "mine", **given: Any) -> Training:
        training = self.plan(model, name, **given)
        assert fit(training, lambda line: None)
        return training

    def export(self, format_name: str, **options: Any) -> Path:
        folder = self.place / "exports" / format_name
        export_task(
            self.instance.store, self.project, self.task, format_name, folder,
            formats=self.instance.plugins.exporters, shares=Shares(), options=Options(**options),
        )  # fmt: skip
        return folder

    def card(self, name: str = "mine") -> Card:
        return read_card(self.place / "models" / name)

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
    card, whole = shop.card(), folders.named(shop.place, "mine").card
    assert card.measured["test"]["agreement"] == 1.0
    assert (card.kind, card.labels) == ("choice", ("positive", "neutral", "negative"))
    assert sum(card.measured["rows"].values()) == len(reviews())
    assert (whole["method"], whole["objective"], whole["export"]["task"]) == ("classifier", "classify", "sentiment")
    assert whole["versions"]["torch"]
    assert whole["export"]["rows"] == card.measured["rows"]
    assert whole["parameters"]["trained"] == whole["parameters"]["all"] > 0
    said = (shop.place / "models" / "mine" / "README.md").read_text("utf-8")
    assert "| test | agreement 1, " in said
    assert "must be asked" not in said


def test_its_way_is_told_as_that_of_any_training(shop: Shop) -> None:
    """The loss of steps and of each epoch in validation, and what it says of three rows with how sure it is."""
    training = folders.named(shop.place, "mine")
    held = [line["step"] for line in training.log() if "eval_loss" in line]
    each = math.ceil(shop.card().measured["rows"]["train"] / 16)
    assert held == [each * n for n in range(1, len(held) + 1)]
    assert training.plan["total"] == held[-1]
    assert {sample["step"] for sample in training.samples()} == {0, *held}
    last = [one for one in training.samples() if one["step"] == held[-1]]
    assert len(last) == 3
    for one in last:
        label, sure = one["answered"].split()
        assert label == one["expected"]
        assert float(sure) > 0.9
    assert not (training.folder / "checkpoints").exists()


def test_its_chances_are_calibrated_on_validation(shop: Shop) -> None:
    """No other temperature has less loss on the validation rows, the plain one of 1 included."""
    card = shop.card()
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


@pytest.mark.parametrize("format_name", ["openai", "trl", "alpaca", "csv"])
def test_every_format_with_texts_and_labels_can_be_trained_on(shop: Shop, format_name: str) -> None:
    """Splits are those of the manifest, and a cell that was made safe for spreadsheets is what it was."""
    there = shop.place / "exports" / format_name
    rows = read_rows(read_set(there if there.exists() else shop.export(format_name), objective="classify"), shop.task)
    made = {split: [] for split in rows.splits}
    for row in shop.instance.store.splits.remembered(shop.project["id"]):
        record = shop.instance.store.records.get(row["id"])
        made[row["split"]].append((record.text, dict(reviews())[record.text]))
    assert {split: sorted(pairs) for split, pairs in rows.splits.items()} == {
        split: sorted(pairs) for split, pairs in made.items()
    }


def test_sets_of_labels_are_learned(tmp_path: Path) -> None:
    """Each has a chance of its own, how many are chosen is learned on validation, and ELECTRA does as well."""
    taste, delivery = ("달아요", "시어요"), ("늦었어요", "찢어졌어요")
    rows: list[tuple[str, Any]] = [
        (f"{when} {thing} {a} {b}", [name for name, words in topics.items() if {a, b} & set(words)])
        for topics in [{"taste": taste, "delivery": delivery}]
        for when in WHEN for thing in THINGS for a in (*taste, "보통이에요") for b in (*delivery, "그래요")
    ]  # fmt: skip
    shop = Shop(tmp_path / "shop", rows, "topics")
    shop.train(encoder(tmp_path / "tiny-electra", "electra"))
    both, one, none = shop.ask("모레 배가 달아요 늦었어요", "모레 배가 달아요 그래요", "모레 배가 보통이에요 그래요")
    assert [json.loads(said.text) for said in (both, one, none)] == [
        {"topics": ["taste", "delivery"]}, {"topics": ["taste"]}, {"topics": []}
    ]  # fmt: skip
    assert sum(both.scores.values()) > 1.5
    shop.instance.close()


@pytest.mark.parametrize(("kind", "reads"), [("bert", 32), ("roberta", 30)])
def test_of_a_text_as_much_is_read_as_the_encoder_has_positions_for(tmp_path: Path, kind: str, reads: int) -> None:
    """RoBERTa counts them from behind that of padding: two of its 32 are never used."""
    folder = encoder(tmp_path / kind, kind)
    shop = Shop(tmp_path / "shop", [(" ".join([text] * 20), label) for text, label in reviews()])
    training = shop.train(folder, most=None, epochs=1)
    assert training.plan["max_length"] == reads
    [said] = shop.ask(" ".join([reviews()[0][0]] * 20))
    assert said.text
    BertScore(str(folder), "cpu").read([" ".join([reviews()[0][0]] * 20)])
    shop.instance.close()


def test_it_ends_when_validation_gains_no_more(shop: Shop, bert: Path) -> None:
    """Of many epochs only some are made, and the best of them is kept."""
    training = shop.train(bert, "patient", epochs=40)
    held = [line["eval_loss"] for line in training.log() if "eval_loss" in line]
    epochs = shop.card("patient").epochs
    assert 2 <= epochs == len(held) - 2 < 30
    assert held[epochs - 1] < min(held) + 0.001


def test_rare_labels_weigh_more_only_if_it_helps(tmp_path: Path, bert: Path) -> None:
    """It is tried where labels are uneven, as a second round with steps of its own, and validation decides."""
    rows = reviews({"positive": GOOD, "negative": BAD[:1]})
    shop = Shop(tmp_path / "shop", rows)
    training = shop.train(bert, epochs=3, rate=1e-3)
    card, steps = shop.card(), [line["step"] for line in training.log() if "loss" in line]
    assert steps == list(range(1, training.plan["total"] + 1))
    assert len([line for line in training.log() if "eval_loss" in line]) > 3
    assert card.weights is None or card.weights[0] < card.weights[2]
    shop.instance.close()


def test_what_cannot_be_trained_is_said(shop: Shop, bert: Path, tmp_path: Path) -> None:
    """Each with one sentence; a plan that cannot be is refused before a folder is made."""
    with pytest.raises(SettingError, match="There is already a training called mine"):
        shop.plan(bert)
    with pytest.raises(SettingError, match="There is no model folder"):
        shop.train(tmp_path / "none", "other")
    assert folders.named(shop.place, "other").state == "failed"
    plan = shop.plan(bert, "third").plan
    with pytest.raises(SettingError, match="of the project away, which is not here"):
        plans.task_of(shop.instance, plan | {"project_id": None, "project": "away"})
    texts = shop.instance.create_project("texts", "ko", {"tasks": ["keywords"], "embedder": "lexical"})
    with pytest.raises(SettingError, match="has values of the kind keywords; choose another way"):
        plans.task_of(shop.instance, plan | {"project_id": texts, "task": "keywords"})
    with pytest.raises(SettingError, match="cannot be trained with sft; methods that can: lora"):
        plans.plan_of(shop.place / "exports" / "csv", str(bert), "classifier", "sft")
    with pytest.raises(InputError, match="is in the format csv, which cannot be trained from"):
        plans.plan_of(shop.place / "exports" / "csv", str(bert), "lora", None)


def test_a_torn_export_is_refused(shop: Shop) -> None:
    """What was trained on is what its manifest says."""
    folder = shop.export("messages")
    data = read_set(folder, objective="classify")
    with pytest.raises(SettingError, match="is of the task sentiment, not of topics"):
        read_rows(data, shop.instance.plugins.task("topics"))
    with (folder / "records.jsonl").open("a", encoding="utf-8") as file:
        file.write("{}\n")
    with pytest.raises(InputError, match=r"records.jsonl is not what the export wrote"):
        read_set(folder, objective="classify")


def test_too_few_approvals_for_a_split_are_said(tmp_path: Path, bert: Path) -> None:
    """Without rows in validation nobody knows when to end."""
    few = Shop(tmp_path / "few", [("사과가 달아요", "positive")])
    with pytest.raises(InputError, match=r"has no rows (to train on|in validation, and a classifier needs some)"):
        few.plan(bert)
    few.instance.close()


def test_it_stops_where_it_is_asked_to_and_goes_on_as_if_nothing_had_been(shop: Shop, bert: Path) -> None:
    """In the middle of an epoch: the rows that were left of it come next, and the weights are the same to the last."""

    def stop(line: str) -> None:
        if line.startswith("Step 7 of"):
            stopped.ask_to_stop()

    whole, stopped = shop.train(bert, "whole", epochs=2), shop.plan(bert, "stopped", epochs=2)
    assert not fit(stopped, stop)
    assert stopped.state == "paused"
    assert not stopped.card
    assert fit(stopped, lambda line: None)
    losses = [[(line["step"], line.get("loss")) for line in one.log()] for one in (whole, stopped)]
    assert losses[0] == losses[1]
    assert shop.card("stopped").measured == shop.card("whole").measured


def test_a_killed_training_goes_on(shop: Shop, bert: Path, tmp_path: Path) -> None:
    """kill -9: what is there is no model, and the command goes on from the last epoch."""
    words = (
        "train", "--project", "shop", "--task", "sentiment", "--method", "classifier", "--model", str(bert), "--name",
        "killed", "--epochs", "400", "--rate", "0.001", "--max-length", "16", "--device", "cpu",
    )  # fmt: skip
    training = Training(shop.place / "models" / "killed")
    with process(tmp_path, *words, LABELER_INSTANCE=str(shop.place)) as child:
        until(lambda: any(training.folder.glob("checkpoints/*/whole")) or child.poll() is not None, 120)
        assert child.poll() is None, (tmp_path / "server.log").read_text("utf-8")
        child.kill()
        child.wait()
    assert training.state == "paused"
    with pytest.raises(SettingError, match="There is no classifier 'killed'; there are: "):
        shop.backend("killed")
    before = max(line["step"] for line in training.log())
    plan = training.plan
    training.change(plan | {"numbers": plan["numbers"] | {"epochs": 3.0}})
    assert fit(training, lambda line: None)
    steps = [line["step"] for line in training.log() if "loss" in line]
    assert steps == sorted(set(steps))
    assert max(steps) >= before - plan["total"] // 400
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
                       ('{"method": "classifier", "classifier": {}}', "cannot be read; train it again")):  # fmt: skip
        (tmp_path / CARD).write_text(text, encoding="utf-8")
        with pytest.raises(SettingError, match=said):
            read_card(tmp_path)
    with pytest.raises(LabelerError, match="needs a model id: the name of a model that was trained"):
        shop.backend("")


def test_the_command_trains_and_says_how_to_use_it(shop: Shop, bert: Path) -> None:
    """One line a report, then what came of it."""
    shop.export("openai") if not (shop.place / "exports" / "openai").exists() else None
    done = CliRunner().invoke(
        cli, ["train", "--project", "shop", "--export", str(shop.place / "exports" / "openai"), "--method",
              "classifier", "--model", str(bert), "--name", "two", "--epochs", "2", "--rate", "0.003", "--max-length",
              "16", "--device", "cpu", "--instance", str(shop.place)]
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "eval_loss" in done.stdout
    assert "test: agreement " in done.stdout
    assert "Name it as the model of a task: backend classifier, model two" in done.stdout
    printed = CliRunner().invoke(
        cli, ["train", "--project", "shop", "--method", "classifier", "--model", str(bert), "--print", "trl",
              "--instance", str(shop.place)]
    )  # fmt: skip
    assert "The command is printed for the methods lora, qlora, full; classifier is trained here" in printed.stderr


def test_the_page_begins_one_and_shows_what_came_of_it(shop: Shop, bert: Path) -> None:
    """From any export with texts and labels; then how to use it, what it says of rows, and how the test rows agree."""
    shop.train(bert, "already", epochs=1)
    admin = accounts.add_reviewer(shop.instance.store, "admin", PASSWORD, accounts.ADMIN)
    app = create_app(shop.instance, {"WTF_CSRF_ENABLED": False})
    client = app.test_client()
    enter(client, app, admin)
    page, english = f"/projects/{shop.project['id']}/training", {"Accept-Language": "en"}
    csv = next(one for one in shop.instance.store.exports.all(shop.project["id"], 20) if one["format"] == "csv")
    begun = client.post(page, data={"export": csv["id"], "base": str(bert), "method": "classifier", "epochs": "1"})
    assert begun.status_code == 303, begun.text
    training = folders.named(shop.place, "sentiment-classifier")
    until(lambda: training.state in ("finished", "failed"), 240)
    assert training.state == "finished", (training.folder / "output.log").read_text("utf-8")
    shown = client.get(f"{page}/sentiment-classifier", headers=english).text
    for words in ("trained classifier, and its model to sentiment-classifier", "Read of a text", "Agreement in test"):
        assert words in shown, words
    refused = client.post(page, data={"export": csv["id"], "base": str(bert), "method": "lora"}, headers=english)
    assert refused.status_code == 400
    assert "is in the format csv, which cannot be trained from" in refused.text


def test_the_backend_of_language_models_refuses_it(shop: Shop) -> None:
    """Named there by mistake, it says where it belongs."""
    with pytest.raises(SettingError, match="The training mine made a classifier, which reads no prompt"):
        shop.instance.backend(shop.project, shop.task, "transformers", {"model_id": "mine"})


def test_what_every_text_says_is_asked(shop: Shop) -> None:
    """The empty text and one longer than the model reads are answered as well."""
    said = shop.ask("", "달아요 " * 500)
    assert all(isinstance(one, Completion) for one in said)
    assert json.loads(said[1].text) == {"sentiment": "positive"}
