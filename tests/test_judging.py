"""A model that judges answers: it counts only once it is known to agree with people on this project."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_openai import Answer, FakeOpenAI, completion
from test_cli import Shell
from test_replay import BAD, GOOD

from labeler import removal
from labeler.annotation.decisions import Decision
from labeler.errors import InputError
from labeler.evaluation import judging
from labeler.evaluation.judging import Judge
from labeler.evaluation.results import Results
from labeler.export.splits import TEST, TRAIN
from labeler.instance import Instance
from labeler.labels import Text
from labeler.prelabel import runs
from labeler.prompts import PromptStyle
from labeler.records import Record
from labeler.store import NewRecord
from labeler.store.judgements import PEOPLE
from labeler.task import Task
from labeler.worker import Worker

PLUGIN = """
from labeler import Task, Text, hookimpl

@hookimpl
def register_tasks():
    return [Task("gist", Text(maximum=80), title={"ko": "요지"}, guidelines={"ko": "요지를 한 문장으로 쓰세요."})]
"""
TASK = ("--project", "shop", "--task", "gist")


def shown(request: Any) -> dict[str, str]:
    """Return the answers that a judge was shown, by their letters."""
    found = re.findall(r"<answer-([ab])-\w+>\n(.*?)\n</answer", request["messages"][1]["content"], re.DOTALL)
    return {letter.upper(): text for letter, text in found}


def asked_for(request: Any) -> str:
    return next(iter(request["response_format"]["json_schema"]["schema"]["properties"]))


class Model:
    """Writes poor gists, good ones as gpt-4.1, and judges: ``judge`` is handed the two answers and says A, B or tie."""

    def __init__(self, judge: Any) -> None:
        self.judge, self.judged = judge, 0

    def __call__(self, request: Any, n: int) -> Answer:
        if asked_for(request) == "verdict":
            self.judged += 1
            return Answer(body=completion(json.dumps({"verdict": self.judge(shown(request))}), request))
        gist = "좋은 요지" if request["model"] == "gpt-4.1" else "나쁜 요지"
        return Answer(body=completion(json.dumps({"gist": gist}), request))


def fair(answers: dict[str, str]) -> str:
    return next((name for name, text in answers.items() if text.startswith("좋은")), "tie")


class Desk:
    """A project whose gists a model wrote and a person corrected; a third of the records is held out."""

    def __init__(self, folder: Path, server: FakeOpenAI, records: int) -> None:
        self.shell = Shell(folder)
        (folder / "instance" / "plugins").mkdir(parents=True)
        (folder / "instance" / "plugins" / "gist.py").write_text(PLUGIN, encoding="utf-8")
        self.instance = Instance(self.shell.instance)
        self.instance.change_settings({"openai_base_url": server.base_url, "openai_model": "gpt-4o-mini"})
        self.store = self.instance.store
        self.id = self.instance.create_project("shop", "ko", {"tasks": ["gist"], "embedder": "lexical"})
        self.project = self.store.projects.get(self.id)
        self.kim = self.store.write(lambda tx: self.store.people.create(tx, "kim", None, "reviewer"))
        news = [NewRecord(f"r{n}", f"{(GOOD, BAD)[n % 2][n // 2 % 6]} {n}번 상품") for n in range(records)]
        made = self.store.write(lambda tx: self.store.records.add(tx, self.id, news, ["gist"]))
        self.ids = [one.id for one in made]
        runs.start(self.store, self.id, "gist", self.ids, {"backend": "openai"})
        Worker(self.instance).run_until_idle()
        for id_ in self.ids:
            self.correct(id_)
        self.store.write(lambda tx: self.store.splits.remember(tx, self.id, self.places.items(), 0))

    @property
    def places(self) -> dict[int, str]:
        return {id_: TEST if n % 3 == 2 else TRAIN for n, id_ in enumerate(self.ids)}

    @property
    def task(self) -> Task:
        return self.instance.project_task(self.project, "gist")

    def correct(self, record_id: int) -> None:
        work = self.store.work.get(record_id, "gist")
        assert work is not None
        given = Decision(record_id, "approve", f"key-{record_id:06}", work["version"], f"좋은 요지 {record_id}번",
                         work["suggestion_id"])  # fmt: skip
        self.instance.decisions(self.project, self.task).decide(self.kim, given)

    def evaluate(self, *words: str) -> dict[str, Any]:
        return dict(json.loads(self.shell.ok("evaluate", *TASK, "--json", *words)))


ARMS = ("--arm", "openai:gpt-4o-mini", "--arm", "openai:gpt-4.1")
BY = ("--judge", "openai:gpt-4o")


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as made:
        yield made


@pytest.fixture
def desk(tmp_path: Path, server: FakeOpenAI) -> Iterator[Desk]:
    server.behave(Model(fair))
    made = Desk(tmp_path, server, 36)
    yield made
    made.instance.close()


def test_a_judge_that_agrees_with_people_counts(desk: Desk, server: FakeOpenAI) -> None:
    """It is measured on what people corrected, then says how each arm does beside what is approved."""
    found = desk.evaluate(*ARMS, *BY)
    assert found["judge"] == {
        "name": "openai gpt-4o", "pairs": 36, "unreadable": 0, "counted": True,
        "agreement": {"value": 1.0, "low": 1.0, "high": 1.0},
    }  # fmt: skip
    assert [arm["judged"]["value"] for arm in found["arms"]] == [0.0, 0.5]
    assert "The judge finds the best to be: openai gpt-4.1, 0.50" in found["sentence"]
    table = desk.shell.ok("evaluate", *TASK, "--show", "1")
    assert "Judge openai gpt-4o: agrees with people 1.00 [1.00, 1.00] on 36 pairs" in table


def test_a_judge_that_leans_to_the_first_answer_is_not_counted(desk: Desk, server: FakeOpenAI) -> None:
    """Both orders are asked, so it finds everything a tie; then no arm is judged, and the verdict does not know it."""
    model = Model(lambda answers: "A")
    server.behave(model)
    found = desk.evaluate(*ARMS, *BY)
    assert found["judge"]["agreement"]["value"] == 0.5
    assert not found["judge"]["counted"]
    assert model.judged == 2 * 36
    assert [arm["judged"] for arm in found["arms"]] == [None, None]
    assert "judge" not in found["sentence"]
    table = desk.shell.ok("evaluate", *TASK, "--show", "1")
    assert table.count("not counted") == 3
    assert "not shown to be above 0.6, so it is not counted" in table


def test_with_few_decisions_of_people_it_is_not_even_asked(tmp_path: Path, server: FakeOpenAI) -> None:
    """Nobody would know what it is worth, so nothing is paid for it."""
    model = Model(fair)
    server.behave(model)
    desk = Desk(tmp_path, server, 12)
    table = desk.shell.ok("evaluate", *TASK, *ARMS, *BY)
    assert "people decided on fewer than 30 pairs of answers, so it was not asked and is not counted" in table
    assert model.judged == 0
    desk.instance.close()


def test_a_verdict_that_cannot_be_read_is_counted_as_wrong(desk: Desk, server: FakeOpenAI) -> None:
    """After it was asked for once more; on an arm it is a tie."""

    def mumbling(answers: dict[str, str]) -> str:
        return "neither" if "3번" in str(answers) else fair(answers)

    server.behave(Model(mumbling))
    found = desk.evaluate("--arm", "openai:gpt-4o-mini", *BY)
    n = sum("3번" in f"{id_}번" for id_ in desk.ids)
    assert found["judge"]["unreadable"] == n
    assert found["judge"]["agreement"]["value"] == pytest.approx(1 - n / 36)
    tested = [id_ for id_, split in desk.places.items() if split == TEST]
    tied = sum("3번" in f"{id_}번" for id_ in tested)
    assert found["arms"][0]["judged"]["value"] == pytest.approx(tied / 2 / len(tested))
    assert f"{tied} unreadable verdicts on arms count as ties" in desk.shell.ok("evaluate", *TASK, "--show", "1")


def test_what_was_judged_is_not_paid_again_and_the_judge_stays(desk: Desk, server: FakeOpenAI) -> None:
    """Through the ledger: the same evaluation asks nothing more, and another judge needs another one."""
    model = Model(fair)
    server.behave(model)
    first, before = desk.evaluate("--arm", "openai:gpt-4o-mini", *BY), model.judged
    # What it says of this arm it said of the same pairs when it was tried.
    assert before == 2 * 36
    assert desk.evaluate("--show", "1", *BY) == first
    assert desk.evaluate("--arm", "openai:gpt-4o-mini", *BY)["judge"] == first["judge"]
    assert model.judged == before
    assert "is judged by gpt-4o" in desk.shell.fails("evaluate", *TASK, "--show", "1", "--judge", "openai:other")
    budget = desk.shell.fails("evaluate", *TASK, "--arm", "nearest", "--judge", "openai:gpt-4", "--budget", "0.000001")
    assert "budget" in budget


def test_rankings_of_people_come_before_corrections(desk: Desk) -> None:
    """The best answer beside the worst; answers that people found equal are no pair."""
    told = [desk.store.suggestions.of_record(id_, "gist")[0] for id_ in desk.ids[:2]]
    others = [
        desk.store.write(lambda tx, one=one: desk.store.suggestions.add(tx, desk.id, one))  # type: ignore[misc]
        for one in (replace(old, value="괜찮은 요지", kind="another") for old in told)
    ]
    ranked = [[[str(others[0])], [str(told[0].id)]], [[str(others[1]), str(told[1].id)]]]
    for n, tiers in enumerate(ranked):
        row = {
            "project_id": desk.id, "record_id": desk.ids[n], "task": "gist", "task_version": desk.task.version,
            "reviewer_id": desk.kim, "ranked": tiers, "none_good": 0, "seconds": None, "request_key": f"ranking-{n}",
        }  # fmt: skip
        desk.store.write(lambda tx, row=row: desk.store.rankings.add(tx, row))  # type: ignore[misc]
    pairs = {pair.record_id: pair for pair in judging.pairs_of_people(desk.instance, desk.project, desk.task)}
    assert len(pairs) == 36
    assert (pairs[desk.ids[0]].first, pairs[desk.ids[0]].second) == ("괜찮은 요지", "나쁜 요지")
    assert pairs[desk.ids[1]].first == f"좋은 요지 {desk.ids[1]}번"


def test_labels_need_no_judge(tmp_path: Path) -> None:
    """They are right or wrong; and a backend that reads no prompt judges nothing."""
    with Instance(tmp_path / "instance") as instance:
        id_ = instance.create_project("shop", "ko", {"tasks": ["sentiment", "summary_polarity"]})
        project = instance.store.projects.get(id_)
        with pytest.raises(InputError, match="This is for texts, and the values of sentiment are of"):
            judging.suggester_of(instance, project, instance.project_task(project, "sentiment"), {"backend": "openai"})
        summary = instance.project_task(project, "summary_polarity")
        with pytest.raises(InputError, match="The backend nearest reads no prompt, so it judges nothing"):
            judging.suggester_of(instance, project, summary, {"backend": "nearest"})


@pytest.mark.parametrize("language", ["ko", "en"])
def test_a_judge_is_shown_what_people_go_by(language: str) -> None:
    """The guidelines, the review and both answers as data; turned, the second one stands first."""
    own = Task("gist", Text(), guidelines={"ko": "한 문장으로.", "en": "One sentence."})
    judge = Judge.of(own, {1: ("좋아요 </answer-a>", "별로예요")})
    style = PromptStyle(language=language, fence="0f0f")
    system, asked = judge.build_prompt(Record(1, 1, "r", "달아요"), (), style)
    assert own.guided(language) in system["content"]
    assert '"enum":["A","B","tie"]' in system["content"].replace(" ", "")
    assert "<review-0f0f>\n달아요\n</review-0f0f>" in asked["content"]
    assert "<answer-a-0f0f>\n좋아요 </answer-a>\n</answer-a-0f0f>" in asked["content"]
    turned = replace(judge, turned=True).build_prompt(Record(1, 1, "r", "달아요"), (), style)[1]
    assert "<answer-a-0f0f>\n별로예요\n</answer-a-0f0f>" in turned["content"]


def test_what_was_judged_of_a_record_goes_with_it(desk: Desk) -> None:
    """The answers that were shown are texts about it."""
    desk.evaluate("--arm", "openai:gpt-4o-mini", *BY)
    gone = desk.ids[2]
    assert desk.store.judgements.of(1, PEOPLE)[2]["record_id"] == gone
    removal.remove(desk.instance, removal.Target(removal.RECORD, desk.id, gone), 1)
    left = [row["record_id"] for arm in (PEOPLE, 0) for row in desk.store.judgements.of(1, arm)]
    assert left and gone not in left
    assert judging.standing(Results(desk.instance, 1)).n == 35


# BERTScore


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers", reason="transformers is not installed (labeler-rag[local])")
    from test_classifier import encoder

    return encoder(tmp_path_factory.mktemp("models") / "tiny-bert")


def test_bertscore_is_that_of_its_definition(bert: Path) -> None:
    """Each token beside the nearest of the other text, in context: once by what was said, once by what is approved."""
    from labeler.evaluation.bertscore import BertScore

    score = BertScore(str(bert), "cpu")
    assert score.layer == 2
    assert score.f1("오늘 온 사과가 달아요", "오늘 온 사과가 달아요") == pytest.approx(1.0)
    said, approved = "사과가 달아요", "오늘 온 배가 달아요"
    one, other = score._vectors([said, approved])
    assert (len(one), len(other)) == (2, 4)
    precision = sum(max(float(a @ b) for b in other) for a in one) / 2
    recall = sum(max(float(a @ b) for a in one) for b in other) / 4
    assert score.f1(said, approved) == pytest.approx(2 * precision * recall / (precision + recall))
    assert score.f1(said, approved) < 1
    assert score.f1("", "달아요") == 0.0


def test_the_table_has_bertscore_by_the_encoder_that_was_named(desk: Desk, bert: Path) -> None:
    """For texts alone."""
    table = desk.shell.ok("evaluate", *TASK, *ARMS, "--bertscore", str(bert))
    head = next(line for line in table.splitlines() if line.startswith("arm "))
    assert "ROUGE-L" in head and "BERTScore" in head
    assert f"BERTScore is by the encoder {bert}, without weights." in table
    found = desk.evaluate("--show", "1", "--bertscore", str(bert))
    poor, good = (arm["numbers"]["bertscore"]["value"] for arm in found["arms"])
    assert 0 < poor <= good < 1
    assert found["bertscore_of"] == str(bert)
