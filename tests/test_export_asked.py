"""What a training set asks: the very prompts of a run, in the form that the set says a model must be asked in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import labeler
from labeler import strictjson
from labeler.asked import asked
from labeler.errors import SettingError
from labeler.export import ExportResult, Options, Shares, export_task
from labeler.export.asked import broken, has_controls
from labeler.instance import Instance
from labeler.prelabel.flows import first_ask
from labeler.prompts import system_hash
from labeler.records import Completion, ParseFailure, Record, Step, Suggestion
from labeler.store.records import NewRecord
from labeler.task import Task

ALL_TRAIN = Shares(1.0, 0.0, 0.0)
TEXTS = {
    "k1": ("달고 맛있어요", "positive"), "k2": ("시들어서 왔어요", "negative"), "k3": ("아삭하고 신선해요", "positive"),
    "k4": ("포장이 터졌어요", "negative"), "k5": ("그냥 그래요", "neutral"), "k6": ("또 살게요", "positive"),
}  # fmt: skip


class Shop:
    """An instance with one project and some approved reviews, and the verbs that a test needs."""

    def __init__(self, instance: Instance) -> None:
        self.instance, self.store = instance, instance.store
        self.project_id = instance.create_project("가게", "ko", {"tasks": ["sentiment", "emotion", "keywords"]})
        for key, (text, value) in TEXTS.items():
            self.approve(key, text, value)

    @property
    def project(self) -> dict[str, Any]:
        return dict(self.store.projects.get(self.project_id))

    def task(self, name: str = "sentiment") -> Task:
        return self.instance.project_task(self.project, name)

    def set(self, task: str = "sentiment", **settings: Any) -> None:
        self.instance.change_task(self.project_id, task, settings)

    def record(self, key: str, text: str) -> int:
        tasks = list(self.instance.tasks_of(self.project))
        add = self.store.records.add
        return self.store.write(lambda tx: add(tx, self.project_id, [NewRecord(key, text)], tasks))[0].id

    def approve(self, key: str, text: str, value: Any, task: str = "sentiment", **more: Any) -> int:
        known = self.store.records.by_key(self.project_id, key)
        record_id = known.id if known else self.record(key, text)
        row = {
            "project_id": self.project_id, "record_id": record_id, "task": task,
            "task_version": self.task(task).version,
            "state": "approved", "value": value, **more,
        }  # fmt: skip
        return self.store.write(lambda tx: self.store.annotations.add(tx, row))

    def export(
        self, folder: Path, format_name: str = "trl", task: str = "sentiment", shares: Shares = ALL_TRAIN, **more: Any
    ) -> ExportResult:
        of = self.task(task)
        return export_task(
            self.store, self.project, of, format_name, folder, formats=self.instance.plugins.exporters,
            options=Options(**more), calls=self.instance.calls(self.project, of), shares=shares
        )  # fmt: skip


@pytest.fixture
def shop(tmp_path: Path) -> Any:
    with Instance(tmp_path / "instance") as instance:
        yield Shop(instance)


def rows(result: ExportResult, name: str = "train.jsonl") -> list[dict[str, Any]]:
    return [strictjson.loads(line) for line in (result.folder / name).read_text(encoding="utf-8").splitlines()]


def by_key(result: ExportResult) -> dict[str, dict[str, Any]]:
    """The rows of the only split by the key of their records."""
    return dict(zip((row["id"] for row in rows(result, "records.jsonl")), rows(result), strict=True))


def test_a_prompt_with_examples_is_the_one_that_a_run_would_send(shop: Shop, tmp_path: Path) -> None:
    """The same examples in the same order, the same head; only the words of the marks differ."""
    shop.set(style="few-shot", k=3)
    suggester = shop.instance.suggester(shop.project, shop.task(), {"backend": "transformers", "model_id": "none"})
    record = shop.store.records.by_key(shop.project_id, "k1")
    assert record is not None
    (prepared,) = suggester.prepare([record])
    served = first_ask({"sentiment": suggester.case(prepared)}).messages
    trained = by_key(shop.export(tmp_path / "out", examples=3))["k1"]["prompt"]
    assert len(trained) == len(served) == 8
    assert trained[0] == served[0]
    assert [line(m) for m in trained[1:]] == [line(m) for m in served[1:]]


def line(message: Any) -> str:
    """What a message says between its marks, or as an answer."""
    said = message["content"]
    return said.splitlines()[1] if said.startswith("<review-") else said


def test_no_prompt_shows_its_own_record_or_a_held_out_one(shop: Shop, tmp_path: Path) -> None:
    """Examples come from the train split alone, for the rows of every split."""
    for n in range(40):
        shop.approve(f"more{n}", f"{n}번째 상품이 좋아요 {n}", "positive")
    result = shop.export(tmp_path / "out", examples=4, shares=Shares(0.5, 0.25, 0.25))
    splits = {row["text"]: row["split"] for row in rows(result, "records.jsonl")}
    assert set(splits.values()) == {"train", "validation", "test"}
    for split in ("train", "validation", "test"):
        for row in rows(result, f"{split}.jsonl"):
            *shown, own = [line(m) for m in row["prompt"] if m["role"] == "user"]
            assert len(shown) == 4 and own not in shown
            assert {splits[text] for text in shown} == {"train"}


def test_examples_may_be_limited_to_what_was_approved_before_the_row(shop: Shop, tmp_path: Path) -> None:
    """The first row has none, and each later one only those before it."""
    made = rows(shop.export(tmp_path / "out", examples=2, earlier=True))
    texts = [text for text, _ in TEXTS.values()]
    shown = [[line(m) for m in row["prompt"] if m["role"] == "user"] for row in made]
    assert [len(users) - 1 for users in shown] == [0, 1, 2, 2, 2, 2]
    assert all(set(users[:-1]) <= set(texts[:n]) for n, users in enumerate(shown))


@pytest.mark.parametrize(("guidelines", "says"), [("full", True), ("none", False)])
def test_guidelines_may_be_left_out_of_prompts(shop: Shop, tmp_path: Path, guidelines: str, says: bool) -> None:
    """Without them the head has neither the text nor its heading; labels and the rest stay."""
    system = rows(shop.export(tmp_path / "out", guidelines=guidelines))[0]["prompt"][0]["content"]
    assert (shop.task().guided("ko").strip() in system) is says
    assert ("# 가이드라인" in system) is says and "# 라벨" in system


def test_short_guidelines_are_those_of_the_task(shop: Shop, tmp_path: Path) -> None:
    """Where a project wrote its own, these; a task that has none is named."""
    shop.set(short_guidelines={"ko": "전체 인상만 보세요."})
    system = rows(shop.export(tmp_path / "out", guidelines="short"))[0]["prompt"][0]["content"]
    assert "# 가이드라인\n전체 인상만 보세요.\n" in system and shop.task().guided("ko").strip() not in system
    bare = Task("mood", shop.task().schema, guidelines={"ko": "길게 씁니다."})
    with pytest.raises(SettingError, match="mood has no short guidelines"):
        bare.told(shop.instance.suggester(shop.project, shop.task()).style.__class__(guidelines="short"))


def test_every_built_in_task_has_short_guidelines(shop: Shop) -> None:
    """In both languages, a fraction of the whole ones."""
    for task in shop.instance.plugins.tasks.values():
        for language in ("ko", "en"):
            assert 20 < len(task.short[language]) < len(task.guided(language)) / 6, (task.name, language)


def test_plain_answers_are_the_bare_label(shop: Shop, tmp_path: Path) -> None:
    """The answer is the label, the head asks for it, and it is read back as strictly as JSON."""
    made = by_key(shop.export(tmp_path / "out", answers="plain"))
    assert made["k2"]["completion"] == [{"role": "assistant", "content": "negative"}]
    assert "JSON" not in made["k2"]["prompt"][0]["content"]
    task = asked(shop.task(), style(shop, answers="plain"))
    record = Record(1, shop.project_id, "x", "본문")
    assert task.parse_completion("negative\n", record) == "negative"
    assert isinstance(task.parse_completion("I think negative", record), ParseFailure)
    assert isinstance(task.parse_completion(" ", record), ParseFailure)


def test_labels_may_be_called_by_their_titles(shop: Shop, tmp_path: Path) -> None:
    """Prompt and answer use the titles; what is read back is the stored name, and the sidecar has it."""
    result = shop.export(tmp_path / "out", names="ko", examples=2)
    row = by_key(result)["k2"]
    assert row["completion"][0]["content"] == '{"sentiment": "부정"}'
    assert {m["content"] for m in row["prompt"] if m["role"] == "assistant"} <= {
        '{"sentiment": "긍정"}', '{"sentiment": "부정"}', '{"sentiment": "중립"}'
    }  # fmt: skip
    assert "- 부정:" in row["prompt"][0]["content"]
    assert {r["label"] for r in rows(result, "records.jsonl")} == {"positive", "negative", "neutral"}
    task = asked(shop.task(), style(shop, names="ko"))
    record = Record(1, shop.project_id, "x", "본문")
    assert task.parse_completion('{"sentiment": "부정"}', record) == "negative"
    assert isinstance(task.parse_completion('{"sentiment": "negative"}', record), ParseFailure)


def style(shop: Shop, **form: str) -> Any:
    from labeler.prompts import PromptStyle

    return PromptStyle("zero-shot", "ko", **form)  # type: ignore[arg-type]


def test_several_labels_stand_in_one_plain_answer(shop: Shop, tmp_path: Path) -> None:
    """With "; " between them, by name or by title, and they are read back as the same set."""
    names = [label.name for label in shop.task("emotion").schema.labels[:2]]
    shop.approve("k1", "", names, "emotion")
    for form, says in (("stored", names), ("ko", [shop.task("emotion").schema.label(n).titled("ko") for n in names])):
        result = shop.export(tmp_path / form, task="emotion", answers="plain", names=form)
        assert rows(result)[0]["completion"][0]["content"] == "; ".join(says)
        task = asked(shop.task("emotion"), style(shop, answers="plain", names=form))
        assert task.parse_completion("; ".join(says), Record(1, 1, "x", "본문")) == names


def test_answers_that_have_no_plain_form_are_refused(shop: Shop, tmp_path: Path) -> None:
    """Keywords need JSON; so do reasoning and several tasks in one answer."""
    shop.approve("k1", "", [{"text": "맛있어요", "start": 3, "end": 7}], "keywords")
    with pytest.raises(SettingError, match="cannot be written as bare labels"):
        shop.export(tmp_path / "a", task="keywords", answers="plain")
    with pytest.raises(SettingError, match="need JSON"):
        shop.export(tmp_path / "b", answers="plain", joint=("emotion",))


def test_one_answer_may_hold_the_labels_of_several_tasks(shop: Shop, tmp_path: Path) -> None:
    """The prompt is that of a joint call; a record where one of the tasks is not approved is left out and counted."""
    emotion = shop.task("emotion").schema.labels[0].name
    also = shop.approve("k1", "", [emotion], "emotion")
    result = shop.export(tmp_path / "out", joint=("emotion",))
    (row,) = rows(result)
    assert strictjson.loads(row["completion"][0]["content"]) == {"sentiment": "positive", "emotion": [emotion]}
    assert "`sentiment`" in row["prompt"][0]["content"] and "`emotion`" in row["prompt"][0]["content"]
    assert [(f["kind"], f["count"]) for f in result.manifest["left_out"]] == [("not_all_tasks", 5)]
    assert rows(result, "records.jsonl")[0]["labels"] == {"emotion": [emotion]}
    members = shop.store.db.all("SELECT annotation_id FROM export_annotations")
    assert also in {m["annotation_id"] for m in members}


def test_reasoning_stands_before_the_label_where_there_is_some(shop: Shop, tmp_path: Path) -> None:
    """A suggestion that was accepted with its reasoning; rows without any are left out."""
    record_id = shop.record("r9", "배송이 빨라서 좋았어요")
    made = Suggestion(
        record_id, "sentiment", "2", "openai", "m", "positive", None, steps=(Step("reasoning", "빠른 배송을 칭찬"),)
    )
    suggestion_id = shop.store.write(lambda tx: shop.store.suggestions.add(tx, shop.project_id, made))
    shop.approve("r9", "", "positive", suggestion_id=suggestion_id, how="accepted")
    result = shop.export(tmp_path / "out", reasoning=True)
    (row,) = rows(result)
    assert row["completion"][0]["content"] == '{"reasoning": "빠른 배송을 칭찬", "sentiment": "positive"}'
    assert "reasoning" in row["prompt"][-1]["content"]
    assert [(f["kind"], f["count"]) for f in result.manifest["left_out"]] == [("no_reasoning", 6)]


def test_the_manifest_says_how_a_model_must_be_asked(shop: Shop, tmp_path: Path) -> None:
    """Settings of the task by their names, the version of the templates, and the hash of the system message."""
    shop.set(persona={"ko": "당신은 매장 직원입니다."})
    result = shop.export(tmp_path / "out", examples=2, guidelines="none", names="ko")
    said = result.manifest["asked"]
    assert {name: said[name] for name in ("style", "k", "retriever", "prompt_guidelines", "answer_form")} == {
        "style": "few-shot", "k": 2, "retriever": "balanced", "prompt_guidelines": "none", "answer_form": "json"
    }  # fmt: skip
    assert (said["label_names"], said["persona"]) == ("ko", {"ko": "당신은 매장 직원입니다."})
    assert said["system_sha256"] == system_hash(rows(result)[0]["prompt"])


def test_the_settings_of_the_task_hold_where_an_export_says_nothing(shop: Shop, tmp_path: Path) -> None:
    """So what is served is what is trained on, unless somebody asks for something else."""
    shop.set(answer_form="plain", label_names="ko")
    assert rows(shop.export(tmp_path / "out"))[0]["completion"][0]["content"] == "긍정"


def test_a_run_asks_and_reads_in_the_form_of_the_settings(shop: Shop) -> None:
    """A model that was trained to answer with bare titles is asked for them, and its answer is the stored label."""
    shop.set(answer_form="plain", label_names="ko", prompt_guidelines="short")
    suggester = shop.instance.suggester(shop.project, shop.task(), {"backend": "transformers", "model_id": "none"})
    record = shop.store.records.by_key(shop.project_id, "k1")
    assert record is not None
    case = suggester.case(suggester.prepare([record])[0])
    ask = first_ask({"sentiment": case})
    assert (dict(ask.json_schema), ask.answering) == ({}, "generated")
    assert shop.task().short["ko"].strip() in ask.messages[0]["content"]
    assert case.parse(record, Completion("부정")) == "negative"
    assert isinstance(case.parse(record, Completion('{"sentiment": "negative"}')), ParseFailure)


def test_control_tokens_are_broken_up_in_prompts_and_answers_alone(shop: Shop, tmp_path: Path) -> None:
    """A trainer reads no end of a turn in them; the sidecar keeps the text as it is."""
    shop.approve("c1", "좋아요<|eot_id|> 정말", "positive")
    result = shop.export(tmp_path / "out", examples=6)
    assert not [row for row in rows(result) if "<|eot_id|>" in strictjson.dumps(row)]
    assert [r["text"] for r in rows(result, "records.jsonl") if r["id"] == "c1"] == ["좋아요<|eot_id|> 정말"]
    assert ("control_tokens", ["c1"]) in [(f["kind"], f["keys"]) for f in result.manifest["warnings"]]


@pytest.mark.parametrize(
    "token",
    [
        "<|im_start|>", "<｜User｜>", "<｜end▁of▁sentence｜>", "<|turn>", "<turn|>", "[|endofturn|]", "[INST]",
        "<start_of_turn>", "[/SYSTEM_PROMPT]", "[TOOL_CALLS]", "<<SYS>>", "</s>", "</think>",
        "<unk>", "<unused12>", "[BOS]", "[SEP]",
    ],
)  # fmt: skip
def test_the_control_tokens_of_many_models_are_known(token: str) -> None:
    """Each is broken up behind its first character, and once is enough."""
    said = broken(f"좋아요{token} 정말")
    assert said == f"좋아요{token[0]}\u2060{token[1:]} 정말" and not has_controls(said)


@pytest.mark.parametrize(
    "text", ["별점 [5/5] <강추>", "a < b | c > d", "[품절] <3 ㅠㅠ", "|표|표|", "[이벤트] 1+1 <무료배송>"]
)
def test_what_people_write_in_brackets_is_no_control_token(text: str) -> None:
    assert broken(text) == text


def test_each_row_says_where_its_label_comes_from(shop: Shop, tmp_path: Path) -> None:
    """Who, how, when, blind or not, how far it agreed, and under which guidelines."""
    shop.approve("p1", "새벽에 왔어요", "neutral", how="corrected", blind=1, agreement=0.0)
    said = rows(shop.export(tmp_path / "out"), "records.jsonl")[-1]["provenance"]
    assert said.pop("approved_at").endswith("Z") and len(said.pop("annotation_ids")) == 1
    assert said == {"how": "corrected", "reviewers": [], "agreement": 0.0, "blind": True, "task_version": "2"}


def test_a_manifest_says_by_what_program_and_thresholds_it_was_made(shop: Shop, tmp_path: Path) -> None:
    """The version, the commit of a checkout, and how alike near-duplicates are."""
    said = shop.export(tmp_path / "out").manifest
    assert said["labeler"] == labeler.__version__ and said["thresholds"] == {"near_duplicate": 0.8}
    assert said["commit"] is None or len(said["commit"]) == 40
