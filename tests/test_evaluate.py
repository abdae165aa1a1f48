"""Evaluation: arms stand side by side on the test split, and what they learn from is train alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import enter
from fake_openai import FakeOpenAI
from test_cli import Shell
from test_replay import BAD, GOOD, Lab, saying
from test_web_pages import Page

from labeler import accounts
from labeler.app import create_app
from labeler.errors import InputError, NotFound
from labeler.evaluation import apart, heldout, replay, rouge
from labeler.evaluation.measures import Answers, Measure, weights
from labeler.evaluation.results import ArmResult, Report, Results
from labeler.evaluation.verdict import verdict
from labeler.export.splits import TEST, TRAIN, VALIDATION
from labeler.labels import Choice, Fields, Label, Text
from labeler.prelabel import runs
from labeler.store import NewRecord
from labeler.worker import Worker

LABELS = Choice(Label("a"), Label("b"))


class Bench(Lab):
    """A lab whose records have left in splits: two of three in train."""

    ids: list[int]

    def split(self, places: dict[int, str]) -> None:
        splits = self.store.splits
        assert self.store.write(lambda tx: splits.remember(tx, self.id, places.items(), splits.newest(self.id)))

    def fill(self, count: int = 36) -> None:
        self.ids = self.stream(count)
        self.split({id_: TEST if n % 3 == 2 else TRAIN for n, id_ in enumerate(self.ids)})

    @property
    def tested(self) -> list[int]:
        return self.ids[2::3]

    def text(self, record_id: int) -> str:
        return self.store.records.get(record_id).text

    def evaluate(self, *wanted: dict[str, Any], budget: float | None = None, on: str = TEST) -> int:
        arms = replay.each_kind(self.instance, self.project, self.task, wanted)
        id_ = replay.start(self.instance, self.project, self.task, arms, None, budget, self.kim, on)
        Worker(self.instance).run_until_idle()
        return id_

    def report(self, *wanted: dict[str, Any]) -> Report:
        return Results(self.instance, self.evaluate(*wanted)).report()

    def answer_right(self) -> None:
        """Let the server say what is approved."""
        rows = self.store.db.all("SELECT r.text, a.value FROM annotations a JOIN records r ON r.id = a.record_id")
        right = {row["text"]: json.loads(row["value"]) for row in rows}

        def answer(request: Any, n: int) -> Any:
            last = request["messages"][-1]["content"]
            return saying(request, next(value for text, value in right.items() if text in last))

        self.server.behave(answer)


FREE, NEAREST, MODEL = {"backend": "ensemble"}, {"backend": "nearest"}, {"backend": "openai"}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "instance")
    made.fill()
    yield made
    made.close()


# What it is measured on, and what must not be seen


def test_the_approved_records_of_the_test_split_are_measured(bench: Bench) -> None:
    """All of them and no other; one that nobody approved yet has no truth."""
    more = bench.add("처음 보는 상품이에요 그럭저럭")
    bench.split({more[0]: TEST})
    id_ = bench.evaluate(NEAREST)
    assert sorted(row["record_id"] for row in bench.store.replays.items(id_)) == sorted(bench.tested)


def test_a_frozen_test_set_is_measured_by_its_name(bench: Bench) -> None:
    """What left as test later is not in it; a name that nobody froze is refused."""
    some = bench.tested[:4]
    bench.store.write(lambda tx: bench.store.splits.freeze(tx, bench.id, "spring", some))
    id_ = bench.evaluate(NEAREST, on="spring")
    assert sorted(row["record_id"] for row in bench.store.replays.items(id_)) == sorted(some)
    with pytest.raises(NotFound, match="There is no frozen test set 'autumn' in this project"):
        bench.evaluate(NEAREST, on="autumn")


def test_only_what_is_approved_in_train_is_known(bench: Bench) -> None:
    """Neither validation, nor test, nor what left in no export; the later approvals of train count too."""
    late = bench.add("나중에 들어온 리뷰예요", "어느 파일에도 없는 리뷰예요", "검증용 리뷰 하나예요")
    for id_ in late:
        bench.approve(id_, "positive")
    bench.split({late[0]: TRAIN, late[2]: VALIDATION})
    report = bench.report(NEAREST)
    assert report.known == len(bench.ids) - len(bench.tested) + 1


def test_a_twin_in_train_does_not_help(bench: Bench) -> None:
    """A near-duplicate of a test record that once left for train is no example, and nothing is learned from it."""
    text = "사과가 정말 달고 아삭해서 온 가족이 맛있게 먹었어요 다음에도 꼭 다시 살게요"
    twin, own = bench.add(text, text + "!")
    bench.approve(own, "neutral")
    bench.split({own: TEST})
    before = bench.evaluate(NEAREST, FREE)
    bench.approve(twin, "neutral")
    bench.split({twin: TRAIN})
    assert bench.store.records.get(twin).cluster == bench.store.records.get(own).cluster
    after = bench.evaluate(NEAREST, FREE)
    for arm in range(2):
        said = [bench.store.replays.said(id_, arm) for id_ in (before, after)]
        assert {id_: (one.value, one.score) for id_, one in said[0].items()} == {
            id_: (one.value, one.score) for id_, one in said[1].items()
        }
        assert said[1][own].value != "neutral"


def test_a_review_of_a_tested_product_is_not_learned_from(bench: Bench) -> None:
    """Splits are closed under products: one that came later under a tested product is no train record any more."""
    records = [NewRecord("p1", "향이 좋은 배예요", group="pear"), NewRecord("p2", "물이 많은 배예요", group="pear")]
    add = bench.store.records.add
    stored = bench.store.write(lambda tx: add(tx, bench.id, records, ["sentiment"]))
    Worker(bench.instance).run_until_idle()
    for one in stored:
        bench.approve(one.id, "positive")
    before = heldout.learnable(bench.store, bench.id, "sentiment")
    bench.split({stored[0].id: TRAIN, stored[1].id: TEST})
    assert heldout.learnable(bench.store, bench.id, "sentiment") == before


def test_prompts_show_train_records_alone(bench: Bench) -> None:
    """Of a model too: no other test record and none of validation stands in its prompt."""
    bench.instance.change_task(bench.id, "sentiment", {"retriever": "similar", "k": 8})
    bench.evaluate(MODEL)
    texts = {id_: bench.text(id_) for id_ in bench.ids}
    assert len(bench.server.requests) == len(bench.tested)
    for request in bench.server.requests:
        turns = [turn["content"] for turn in request.json["messages"] if turn["role"] == "user"]
        shown = {id_ for id_, text in texts.items() if any(text in turn for turn in turns[:-1])}
        assert len(shown) == 8 and shown.isdisjoint(bench.tested)


def test_near_duplicates_in_the_test_split_count_once(bench: Bench) -> None:
    """Ten copies of one review are one piece of evidence, and would make the interval look sure."""
    text = "포도가 싱싱하고 알이 굵어서 아이들이 정말 좋아했어요 재구매 의사 있습니다"
    copies = bench.add(text, text + "!", text + "~")
    for id_ in copies:
        bench.approve(id_, "positive")
    bench.split(dict.fromkeys(copies, TEST))
    assert bench.report(NEAREST).n == len(bench.tested) + 1


def test_without_a_test_split_it_says_what_to_do(tmp_path: Path) -> None:
    """Nothing is started, and nothing is measured on train."""
    lab = Bench(tmp_path / "instance")
    lab.stream(6)
    with pytest.raises(InputError, match="export the task with a share of test"):
        lab.evaluate(NEAREST)
    assert not lab.store.replays.of_task(lab.id, "sentiment")
    lab.close()


# What it says


def test_an_arm_that_is_right_everywhere_is_one(bench: Bench) -> None:
    """And so are both ends of its interval."""
    bench.answer_right()
    report = bench.report(MODEL, NEAREST)
    assert report.arms[0].numbers["agreement"] == Measure(1.0, 1.0, 1.0)
    assert report.best == 0 and report.arms[0].behind is None and report.arms[0].p is None


def test_every_number_is_one_of_rows(bench: Bench) -> None:
    """Agreement, difference, p, unreadable answers and seconds, counted with SQL."""
    unreadable = [bench.text(id_) for id_ in bench.tested[::4]]

    def answer(request: Any, n: int) -> Any:
        prompt = str(request["messages"])
        return saying(request, "no label" if any(text in prompt for text in unreadable) else "positive")

    bench.server.behave(answer)
    id_ = bench.evaluate(MODEL, NEAREST)
    report = Results(bench.instance, id_).report()
    sql = """SELECT s.value = a.value AS hit, s.failure LIKE 'parse:%' AS unread FROM replay_items i
             JOIN annotations a ON a.id = i.annotation_id
             JOIN replayed s ON s.replay_id = i.replay_id AND s.record_id = i.record_id
             WHERE i.replay_id = ? AND s.arm = ? ORDER BY i.record_id"""
    rows = [bench.store.db.all(sql, (id_, arm)) for arm in range(2)]
    hits = [[bool(row["hit"]) for row in one] for one in rows]
    for arm, hit, of in zip(report.arms, hits, rows, strict=True):
        assert arm.numbers["agreement"].value == pytest.approx(sum(hit) / len(bench.tested))
        assert arm.unread == sum(bool(row["unread"]) for row in of)
    assert report.arms[0].unread == len(unreadable)
    best, other = hits[report.best], hits[1 - report.best]
    only = [sum(a and not b for a, b in zip(*pair, strict=True)) for pair in ((best, other), (other, best))]
    behind = report.arms[1 - report.best]
    assert behind.behind is not None and behind.behind.value == pytest.approx((only[0] - only[1]) / len(best))
    assert behind.p == apart.mcnemar(*only)
    taken = bench.store.db.value("SELECT seconds FROM replay_arms WHERE replay_id = ? AND arm = 1", (id_,))
    assert taken > 0 and report.arms[1].seconds == pytest.approx(taken / len(bench.tested))


def test_a_model_is_asked_through_the_ledger_resumed_and_not_paid_twice(bench: Bench) -> None:
    """A budget pauses its run, the table says how far it came, and a second evaluation asks for nothing."""
    id_ = bench.evaluate(MODEL, NEAREST, budget=0.00001)
    first, run_id = Results(bench.instance, id_).report(), bench.store.replays.arms(id_)[0]["run_id"]
    assert not first.ended and 0 < first.n < len(bench.tested)
    runs.resume(bench.store, run_id, 1.0)
    Worker(bench.instance).run_until_idle()
    report = Results(bench.instance, id_).report()
    assert report.ended and report.n == len(bench.tested) == len(bench.server.requests)
    again = bench.report(MODEL, NEAREST)
    assert len(bench.server.requests) == len(bench.tested)
    assert again.arms[0].run["reused"] == len(bench.tested) and again.arms[0].run["spent"] == 0
    assert again.arms[0].numbers == report.arms[0].numbers
    # What all was answered before says nothing of what it would take.
    assert report.arms[0].cost > 0 and again.arms[0].cost is again.arms[0].seconds is None


@pytest.mark.parametrize(("a", "b"), [(0, 0), (1, 0), (3, 9), (9, 3), (5, 5), (0, 12), (40, 71)])
def test_mcnemar_is_the_binomial_test_of_scipy(a: int, b: int) -> None:
    """Of the records that only one of two is right on, each has half by chance."""
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(a, a + b).pvalue if a + b else 1.0
    assert apart.mcnemar(a, b) == pytest.approx(expected)


def test_the_permutation_test_is_near_that_of_all_signs() -> None:
    """With few records scipy can draw every sign there is."""
    stats = pytest.importorskip("scipy.stats")
    found = np.random.default_rng(2).normal(0.4, 1.0, 12)
    exact = stats.permutation_test((found,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    assert apart.permutation(found) == pytest.approx(exact, abs=0.015)
    assert apart.permutation(np.zeros(5)) == 1.0


def test_two_equal_arms_are_rarely_told_apart() -> None:
    """Of two that are equally good by chance, at most 5 % look different; of a much better one all do."""
    chance, apart_ = np.random.default_rng(4), 0
    for _ in range(200):
        a, b = (chance.random((2, 100)) < 0.8).astype(float)
        apart_ += apart.p_value(LABELS, a, b) < 0.05
    assert apart_ / 200 <= 0.07
    assert apart.p_value(LABELS, np.ones(100), (np.arange(100) % 2).astype(float)) < 1e-6


def arm(number: int, low: float, behind: Measure | None, p: float | None) -> ArmResult:
    return ArmResult(number, {}, None, False, {"agreement": Measure(low, low, low)}, behind=behind, p=p)


def test_one_sentence_says_what_the_table_says() -> None:
    """Worse is what both the interval and the test say; the rest cannot be told apart."""
    arms = [
        arm(0, 0.8, Measure(0.06, 0.02, 0.11), 0.004),
        arm(1, 0.86, None, None),
        arm(2, 0.84, Measure(0.02, -0.03, 0.07), 0.4),
        arm(3, 0.83, Measure(0.03, 0.001, 0.07), 0.06),
    ]
    said = verdict(Report({}, arms, 120, 120, 120, best=1), ["adapter", "gpt", "ensemble", "nearest"])
    assert said == (
        "Agrees most on 120 records: gpt, 0.86 [0.86, 0.86]. Worse: adapter, by 0.06 [0.02, 0.11] (p 0.0040). "
        "Cannot be told apart from it on so many records: ensemble; nearest"
    )


def test_more_arms_make_intervals_wider_and_p_larger(bench: Bench) -> None:
    """Each is compared with the one that looks best, so all comparisons have to hold together."""
    bench.server.behave(lambda request, n: saying(request, "positive"))
    few, many = bench.report(MODEL, NEAREST), bench.report(MODEL, NEAREST, FREE)
    assert few.best == many.best == 1
    assert many.arms[0].p == min(1.0, 2 * few.arms[0].p)
    pair = few.arms[0].behind, many.arms[0].behind
    assert pair[0].value == pair[1].value and pair[1].high - pair[1].low >= pair[0].high - pair[0].low


# Texts


def test_the_longest_common_sequence_is_that_of_the_plain_table() -> None:
    """The bits find what the table of Wagner and Fischer finds."""

    def plain(a: list[str], b: list[str]) -> int:
        row = [0] * (len(b) + 1)
        for left in a:
            before = row
            row = [0]
            for n, right in enumerate(b):
                row.append(before[n] + 1 if left == right else max(before[n + 1], row[n]))
        return row[-1]

    chance = np.random.default_rng(1)
    for _ in range(200):
        a, b = (chance.choice(list("abcde"), size=chance.integers(0, 30)).tolist() for _ in range(2))
        assert rouge.common(a, b) == plain(a, b)


def test_rouge_l_is_that_of_its_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of three words in order, of two and of three: F1 is 2 * 2 / (2 + 3)."""
    monkeypatch.setattr(rouge, "unit", lambda: rouge.WORDS)
    rouge.tokens.cache_clear()
    assert rouge.agreement(Text(), "배가 달아요", "배가 정말 달아요!") == pytest.approx(0.8)
    parts = Fields((Label("good"), Text()), (Label("bad"), Text()))
    assert rouge.agreement(parts, {"good": "달아요"}, {"good": "달아요", "bad": "비싸요"}) == 0.5
    assert rouge.agreement(parts, {}, {}) == 1.0 and rouge.agreement(parts, None, {}) == 0.0
    assert rouge.agreement(LABELS, "a", "a") is None
    rouge.tokens.cache_clear()


def test_korean_is_compared_by_morphemes() -> None:
    """An ending that is politer changes a word and leaves its stem."""
    pytest.importorskip("kiwipiepy")
    rouge.tokens.cache_clear()
    assert rouge.unit() == rouge.MORPHEMES
    assert "맛있" in rouge.tokens("배가 맛있어요.") and "." not in rouge.tokens("배가 맛있어요.")
    assert rouge.agreement(Text(), "배가 맛있어요", "배가 맛있습니다") > 0.6


def test_texts_have_rouge_l_and_labels_do_not() -> None:
    """Beside chrF, which is the agreement of texts."""
    found = Answers(Text(), ["달아요", "써요"], ["달아요", None], [None, None]).all(weights(2))
    assert found["rouge_l"].value == found["agreement"].value == 0.5
    assert "rouge_l" not in Answers(LABELS, ["a"], ["a"], [None]).all(weights(1))


# The page


@pytest.fixture
def client(bench: Bench) -> Any:
    app = create_app(bench.instance, {"TESTING": True, "WTF_CSRF_ENABLED": False})
    made = app.test_client()
    made.environ_base["HTTP_ACCEPT_LANGUAGE"] = "en"
    enter(made, app, accounts.add_reviewer(bench.store, "admin", "a few plain words", accounts.ADMIN))
    return made


def test_the_page_shows_an_evaluation_and_opens_its_records(bench: Bench, client: Any) -> None:
    """Started from the form of replays; each number of the report stands there, and its cell opens the records."""
    bench.server.behave(lambda request, n: saying(request, "no label"))
    form = {"task": "sentiment", "action": "start", "held_out": "1", "backend": ["nearest", "openai"]}
    address = client.post(f"/projects/{bench.id}/replays", data=form).location
    Worker(bench.instance).run_until_idle()
    shown, report = client.get(address).text, Results(bench.instance, 1).report()
    assert report.replay["held_out"] == TEST
    page = Page(shown).said
    for one in report.arms:
        measure = one.numbers["agreement"]
        assert f"{measure.value:.2f} [{measure.low:.2f}, {measure.high:.2f}]" in page
    assert "Agrees most on 12 records" in page and "24 approved records of the train split" in page
    assert "McNemar" in page and "as it was set" not in page
    worst = next(one.number for one in report.arms if one.unread)
    links = [link.replace("&amp;", "&") for link in re.findall(rf'href="([^"]*records\?arm={worst}[^"]*)"', shown)]
    by_name = {re.sub(r".*arm=\d+&?", "", link): Page(client.get(link).text).said for link in links}
    assert "12 records that a person would have to correct" in by_name[""]
    assert "12 records whose answer could not be read" in by_name["unread=1"]
    assert "12 records with another label than by" in by_name[f"than={report.best}"]


def test_an_evaluation_that_is_started_again_is_one_again(bench: Bench, client: Any) -> None:
    """On the test split of now, not on the newest approvals."""
    bench.evaluate(NEAREST)
    client.post(f"/projects/{bench.id}/replays/1/again")
    assert bench.store.replays.get(2)["held_out"] == TEST
    assert "Test split" in Page(client.get(f"/projects/{bench.id}/replays?task=sentiment").text).said


# The command

TASK = ("--project", "shop", "--task", "sentiment")


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A project whose labels came with the file, and left once in splits."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "LABELER_INSTANCE"):
        monkeypatch.delenv(name, raising=False)
    made = Shell(tmp_path)
    lines = [
        json.dumps({"text": f"{(GOOD, BAD)[n % 2][n // 2 % 6]} {n}번", "label": ("positive", "negative")[n % 2]})
        for n in range(60)
    ]
    (tmp_path / "labelled.jsonl").write_text("\n".join(lines), encoding="utf-8")
    made.ok("import", str(tmp_path / "labelled.jsonl"), "--project", "shop", "--label", "sentiment=label")
    made.ok("export", *TASK, "--format", "csv", "--split", "0.5,0,0.5", "--out", str(tmp_path / "out"))
    return made


def test_the_command_prints_one_table_and_what_it_says(shell: Any) -> None:
    """Without an option the free backends are compared; --show prints the same again."""
    shown = shell.ok("evaluate", *TASK)
    assert re.search(r"Evaluation 1: sentiment, \d+ records of the test split; \d+ approved records", shown)
    head = next(line for line in shown.splitlines() if line.startswith("arm "))
    assert all(name in head for name in ("agreement", "macro F1", "kappa", "behind the best", "unreadable", "s in all"))
    assert "Agrees most on" in shown.splitlines()[-1] and "p is by McNemar's test, exact" in shown
    assert shell.ok("evaluate", *TASK, "--show", "1") == shown


def test_the_json_holds_the_same_numbers(shell: Any) -> None:
    """Every arm with its measures, as the table has them."""
    with FakeOpenAI() as server:
        shell.ok("settings", f"openai_base_url={server.base_url}", "openai_model=gpt-4o-mini")
        said = json.loads(shell.ok("evaluate", *TASK, "--arm", "nearest", "--arm", "openai:gpt-4o", "--json"))
    assert [one["settings"]["backend"] for one in said["arms"]] == ["nearest", "openai"]
    assert said["arms"][1]["settings"]["model_id"] == "gpt-4o" and said["arms"][1]["cost"] > 0
    assert said["ended"] and said["records"] == said["arms"][0]["n"] and said["test_set"] == TEST
    measure = said["arms"][said["best"] - 1]["numbers"]["agreement"]
    assert f"{measure['value']:.2f} [{measure['low']:.2f}, {measure['high']:.2f}]" in said["sentence"]
    assert json.loads(shell.ok("evaluate", *TASK, "--show", "1", "--json")) == said


def test_an_estimate_is_of_the_test_split(shell: Any) -> None:
    """It calls and stores nothing."""
    shown = shell.ok("evaluate", *TASK, "--arm", "openai:gpt-4o", "--dry-run")
    n = int(re.search(r"(\d+) records with openai", shown)[1])
    assert 15 < n < 45
    assert "There is no replay number 1" in shell.fails("evaluate", *TASK, "--show", "1")


def test_a_replay_is_no_evaluation(shell: Any) -> None:
    """And names what is wrong with an arm as everywhere."""
    shell.ok("replay", *TASK, "--sample", "5")
    assert "is no evaluation" in shell.fails("evaluate", *TASK, "--show", "1")
    assert "No backend 'magic'" in shell.fails("evaluate", *TASK, "--arm", "magic:gpt")
