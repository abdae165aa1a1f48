"""The trial of a run: approved records first, what the model is worth beside the free suggestion, and both as one."""

from __future__ import annotations

import json
import random
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_openai import Answer, FakeOpenAI, completion, last_user
from helpers import kill, open_instance, python, until

from labeler.instance import Instance
from labeler.labels import Choice, Choices, Label
from labeler.prelabel import runs, stack, trial
from labeler.prelabel.current import CURRENT, OLDER, standing
from labeler.prelabel.stack import FREE, MODEL, TOGETHER, Case, Stack
from labeler.sentence import recalled
from labeler.store.audit import audit
from labeler.worker import Worker

GOOD = ("sweet", "fresh", "lovely", "perfect", "delicious", "crisp")
BAD = ("rotten", "late", "broken", "mouldy", "stale", "bitter")
THINGS = ("apples", "pears", "plums", "figs", "leeks", "beans", "nuts", "eggs", "milk", "rice", "tea", "corn")
APPROVED, PENDING = 60, 80
WORTH = "On 60 approved records this model agrees"


def reviews(count: int, seed: int = 3, clear: float = 0.5) -> list[tuple[str, str]]:
    """Return texts with their labels. The words of some tell nothing, so that nobody who counts words is always right.

    Whoever knows the number at the end of a text knows its label: it is even where that is positive.
    """
    rng, found = random.Random(seed), []
    for _ in range(count):
        label = rng.choice(("positive", "negative"))
        words = GOOD if label == "positive" else BAD
        said = rng.choices(words, k=2) if rng.random() < clear else rng.choices(GOOD + BAD, k=2)
        number = 2 * rng.randrange(10**6) + (label != "positive")
        found.append(
            (f"The {rng.choice(THINGS)} were {said[0]} and the {rng.choice(THINGS)} {said[1]} #{number}", label)
        )
    return found


def number_of(text: str) -> str:
    return re.findall(r"#(\d+)", text)[-1]


def right(share: float, seed: int = 1) -> Callable[[str], str]:
    """Return a model that is right about this share of texts, always about the same ones."""

    def answer(text: str) -> str:
        number = int(number_of(text))
        label, other = ("positive", "negative") if number % 2 == 0 else ("negative", "positive")
        return label if random.Random(f"{seed} {number}").random() < share else other

    return answer


class Lab:
    """A project of which the first 60 records are approved, and a server whose model answers as ``answer`` does."""

    def __init__(
        self, folder: Path, answer: Callable[[str], str], approved: int = APPROVED, scores: bool = True
    ) -> None:
        self.server, self.answer, self.scores = FakeOpenAI(), answer, scores
        self.server.__enter__()
        self.server.behave(self.behave)
        self.rows = reviews(APPROVED + PENDING)
        texts = [text for text, _ in self.rows]
        self.instance = open_instance(folder, self.server.base_url, texts, timeout_seconds=20.0)
        self.store, self.ledger = self.instance.store, self.instance.store.ledger
        self.project = self.store.projects.all()[0]
        self.ids = [self.store.records.by_key(self.project["id"], f"r{n}").id for n in range(len(texts))]
        self.gold = {id_: label for id_, (_, label) in zip(self.ids, self.rows, strict=True)}
        self.kim = self.store.write(lambda tx: self.store.people.create(tx, "kim", None, "reviewer"))
        self.approve(self.ids[:approved])

    def behave(self, request: dict[str, Any], n: int) -> Answer:
        text = json.dumps({"sentiment": self.answer(last_user(request))})
        asked = request if self.scores else {name: v for name, v in request.items() if "logprobs" not in name}
        return Answer(200, completion(text, asked))

    def close(self) -> None:
        self.instance.close()
        self.server.__exit__()

    @property
    def task(self) -> Any:
        return self.instance.project_task(self.project, "sentiment")

    def approve(self, ids: list[int]) -> None:
        decisions = self.instance.decisions(self.project, self.task)
        for id_ in ids:
            record = self.store.records.get(id_)
            self.store.write(lambda tx, r=record: decisions.import_label(tx, r, self.gold[r.id], "test", self.kim))

    def suggester(self, **settings: Any) -> Any:
        return self.instance.suggester(self.project, self.task, {"backend": "openai", "k": 0} | settings)

    def chosen(self, **settings: Any) -> trial.Trial | None:
        return trial.chosen(self.suggester(**settings), self.instance.ensemble(self.project, self.task))

    def start(self, budget: float | None = None, **settings: Any) -> int:
        settings = {"backend": "openai", "k": 0, "concurrency": 4} | settings
        ids = list(runs.select(self.store, self.project["id"], "sentiment", None, True))
        tried = self.chosen(**settings)
        return runs.start(self.store, self.project["id"], "sentiment", ids, settings, budget, trial=tried)

    def move(self, run_id: int) -> str:
        state = Worker(self.instance).move_run(run_id)
        assert audit(self.store) == []
        return state

    def found(self, run_id: int) -> Stack:
        found = trial.of_run(self.ledger.run(run_id))
        assert found is not None
        return found

    def suggested(self, run_id: int) -> dict[int, Any]:
        made = {id_: self.store.suggestions.of_record(id_, "sentiment") for id_ in self.ids}
        return {id_: s for id_, all_ in made.items() for s in all_[:1] if s.run_id == run_id}

    def agreement(self, run_id: int) -> float:
        made = self.suggested(run_id)
        return sum(s.value == self.gold[id_] for id_, s in made.items()) / len(made)

    def free(self, ids: list[int]) -> list[str]:
        found = self.instance.suggester(self.project, self.task, {"backend": "ensemble"})
        return [s.value for s in found.now(list(self.store.records.many(ids).values()), save=False)]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Callable[..., Lab]]:
    opened: list[Lab] = []

    def make(answer: Callable[[str], str] | None = None, **how: Any) -> Lab:
        opened.append(Lab(tmp_path / f"instance {len(opened)}", answer or right(0.95), **how))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


# What is asked


def test_approved_records_are_asked_first_and_then_the_rest(lab):
    """The first calls are those of the trial; what came of it is said before another one is made."""
    lab = lab()
    first = set(lab.ids[:APPROVED])
    asked: list[tuple[bool, bool]] = []

    def behave(request: dict[str, Any], n: int) -> Answer:
        number = number_of(last_user(request))
        mine = next(id_ for id_, (text, _) in zip(lab.ids, lab.rows, strict=True) if number_of(text) == number)
        asked.append((mine in first, bool(lab.ledger.run(run_id)["trial"])))
        return lab.behave(request, n)

    lab.server.behave(behave)
    run_id = lab.start()
    assert lab.move(run_id) == "finished"
    assert asked == [(True, False)] * APPROVED + [(False, True)] * PENDING
    run = lab.ledger.run(run_id)
    assert (run["total"], run["done"], run["calls"]) == (APPROVED + PENDING, APPROVED + PENDING, APPROVED + PENDING)


def test_trial_is_in_the_estimate(lab):
    """Records, calls, tokens and cost of the trial are counted before anybody pays."""
    lab = lab()
    suggester, pending = lab.suggester(), lab.ids[APPROVED:]
    info = lab.instance.price_of(suggester.backend)
    plain, tried = (runs.estimate(suggester, pending, info, trial=one) for one in (None, lab.chosen()))
    assert (plain.items, plain.trial, plain.calls) == (PENDING, 0, PENDING)
    assert (tried.items, tried.trial, tried.calls) == (PENDING + APPROVED, APPROVED, PENDING + APPROVED)
    assert tried.tokens_in > 1.5 * plain.tokens_in and tried.cost > 1.5 * plain.cost
    assert lab.server.requests == []


def test_trial_is_paid_from_the_budget(lab):
    """A budget that is reached in the trial stops the run there; with a larger one it goes on without a second call."""
    lab = lab()
    run_id = lab.start(budget=0.0005)
    assert lab.move(run_id) == "paused"
    run = lab.ledger.run(run_id)
    assert "The budget of $0.0005 is reached" in recalled(run["message"])
    assert 0 < run["calls"] < APPROVED and run["trial"] == ""
    runs.resume(lab.store, run_id, 5.0)
    assert lab.move(run_id) == "finished"
    assert lab.ledger.run(run_id)["calls"] == len(lab.server.requests) == APPROVED + PENDING


def test_own_label_and_near_duplicates_are_hidden(lab):
    """A record of the trial sees the labels of others only, as any other record would."""
    lab = lab()
    lab.store.write(lambda tx: lab.store.clusters.unite(tx, lab.project["id"], lab.ids[:2]))
    run_id = lab.start(k=4, retriever="similar")
    assert lab.move(run_id) in ("finished", "paused")
    numbers = [number_of(text) for text, _ in lab.rows]
    for request in lab.server.requests:
        shown = [str(turn["content"]) for turn in request.json["messages"]]
        own = number_of(shown[-1])
        alike = set(numbers[:2]) if own in numbers[:2] else {own}
        assert not any(number in text for number in alike for text in shown[:-1])
    # Of near-duplicates one is asked about.
    asked = [lab.ids.index(row["record_id"]) for row in lab.store.db.all("SELECT record_id FROM trial_items")]
    assert len(asked) == APPROVED - 1 and not {0, 1} <= set(asked)


def test_each_label_is_asked_about_in_its_share(lab):
    """Where more is approved than is asked about, the labels of the trial are those of all approvals."""
    lab = lab(approved=120)
    chosen = lab.chosen()
    assert len(chosen.record_ids) == trial.MOST and chosen == lab.chosen()
    share = {name: sum(lab.gold[id_] == name for id_ in lab.ids[:120]) / 2 for name in ("positive", "negative")}
    for name, wanted in share.items():
        assert abs(sum(lab.gold[id_] == name for id_ in chosen.record_ids) - wanted) <= 1


@pytest.mark.parametrize(
    "settings", [{"trial": False}, {"backend": "ensemble"}, {"mode": "cascade"}, {"joint": ["emotion"]}], ids=str
)
def test_some_runs_have_no_trial(lab, settings):
    """None that nobody wants or that is free; none where the free answers take part, or the prompt is another."""
    lab = lab()
    lab.instance.change_project(lab.project["id"], {"tasks": ["sentiment", "emotion"]})
    lab.project = lab.store.projects.all()[0]
    assert lab.chosen(**settings) is None


def test_too_few_approvals_make_no_trial(lab):
    """Twenty-nine approved records are too few, and the run goes as it always did."""
    lab = lab(approved=29)
    assert lab.chosen() is None
    run_id = lab.start()
    assert lab.move(run_id) == "finished"
    assert (lab.ledger.run(run_id)["trial"], len(lab.server.requests)) == (None, APPROVED + PENDING - 29)


def test_run_that_is_smaller_than_its_trial_has_none(lab):
    """Nobody pays for sixty answers to get fifty."""
    lab = lab()
    place = (lab.store, lab.project["id"], "sentiment", lab.ids[APPROVED : APPROVED + 50])
    run_id = runs.start(*place, {"backend": "openai", "k": 0}, trial=lab.chosen())
    assert (lab.ledger.run(run_id)["total"], lab.ledger.run(run_id)["trial"]) == (50, None)


def test_what_an_earlier_trial_asked_is_not_asked_again(lab):
    """A second run of the same model and prompt knows its answers, and says what they are worth now."""
    lab = lab()
    lab.move(lab.start())
    second = lab.start()
    assert lab.move(second) == "finished"
    run = lab.ledger.run(second)
    assert (len(lab.server.requests), run["total"], run["calls"]) == (APPROVED + PENDING, PENDING, 0)
    assert len(lab.found(second).judged) == APPROVED


# What becomes of the answers


def test_trial_leaves_desk_statistics_and_exports_alone(lab):
    """Approved records get no suggestion, whatever the model said of them; their agreement is nobody's."""
    lab = lab()
    before = [tuple(lab.store.work.get(id_, "sentiment")) for id_ in lab.ids[:APPROVED]]
    lab.move(lab.start())
    assert [tuple(lab.store.work.get(id_, "sentiment")) for id_ in lab.ids[:APPROVED]] == before
    assert all(lab.store.suggestions.of_record(id_, "sentiment") == [] for id_ in lab.ids[:APPROVED])
    assert lab.store.annotations.agreement(lab.project["id"], "sentiment", lab.task.version) == []
    exported = [
        row["record_id"] for page in lab.store.suggestions.newest_pages(lab.project["id"], "sentiment") for row in page
    ]
    assert sorted(exported) == lab.ids[APPROVED:]
    assert lab.store.counts.faults() == []


def test_what_is_said_is_what_the_rows_say(lab):
    """The numbers of the sentence are those of a query on what the model said and on what was approved."""
    lab = lab(right(0.7))
    run_id = lab.start()
    lab.move(run_id)
    said = lab.store.db.all(
        """SELECT t.record_id, json_extract(t.said, '$[0]') = json_extract(a.value, '$') AS agrees FROM trial_items t
           JOIN annotations a ON a.record_id = t.record_id AND a.superseded_by IS NULL WHERE t.run_id = ?""",
        (run_id,),
    )
    found = lab.found(run_id)
    assert {row["record_id"]: row["agrees"] for row in said} == {id_: model for id_, model, _, _ in found.judged}
    model, free, both = found.means
    assert model == sum(row["agrees"] for row in said) / APPROVED
    low, high = found.interval
    assert 0 < low < both < high < 1
    numbers = f"agrees {model:.2f}, the free suggestion {free:.2f}, both together {both:.2f} [{low:.2f}, {high:.2f}]"
    assert trial.sentence(found).startswith(f"On {APPROVED} approved records this model {numbers}; ")


def test_free_suggestion_has_not_seen_what_it_is_judged_by(lab):
    """Its agreement in a trial is that on records it was never shown, not that of a fit with its own examples."""
    lab = lab()
    run_id = lab.start()
    lab.move(run_id)
    seen = sum(v == lab.gold[id_] for id_, v in zip(lab.ids[:APPROVED], lab.free(lab.ids[:APPROVED]), strict=True))
    fresh = sum(v == lab.gold[id_] for id_, v in zip(lab.ids[APPROVED:], lab.free(lab.ids[APPROVED:]), strict=True))
    assert lab.found(run_id).means[1] == pytest.approx(fresh / PENDING, abs=0.12)
    assert seen / APPROVED > fresh / PENDING


@pytest.mark.parametrize("scores", [True, False], ids=["scored", "written"])
@pytest.mark.parametrize(("share", "uses"), [(0.95, {MODEL, TOGETHER}), (0.5, {FREE}), (0.05, {FREE})])
def test_what_is_shown_is_never_worse_than_the_free_suggestion(lab, share, uses, scores):
    """A good model is used, a bad one is not, and one that says the opposite is never turned around."""
    lab = lab(right(share), scores=scores)
    run_id = lab.start()
    state = lab.move(run_id)
    assert lab.found(run_id).use in uses
    assert state == ("paused" if uses == {FREE} else "finished")
    if state == "paused":
        run = lab.ledger.run(run_id)
        assert (recalled(run["message"]), run["calls"]) == (trial.ADDS_NOTHING, APPROVED)
        runs.resume(lab.store, run_id)
        assert lab.move(run_id) == "finished"
    free = lab.free(lab.ids[APPROVED:])
    worth = sum(v == lab.gold[id_] for id_, v in zip(lab.ids[APPROVED:], free, strict=True)) / PENDING
    assert lab.agreement(run_id) >= worth
    if uses == {FREE}:
        made = lab.suggested(run_id)
        assert [made[id_].value for id_ in lab.ids[APPROVED:]] == free


def test_suggestion_says_whose_it_is(lab):
    """Its note says that both made it; where the model alone would say something else, that is a step."""
    lab = lab(right(0.8))
    run_id = lab.start()
    lab.move(run_id)
    assert lab.found(run_id).use == TOGETHER
    made = lab.suggested(run_id)
    assert all("stacked" in s.made and s.backend == "openai" and s.billed and s.scores for s in made.values())
    own = {id_: max(s.scores, key=s.scores.__getitem__) for id_, s in made.items()}
    other = [s for id_, s in made.items() if own[id_] != s.value]
    assert other and all(json.loads(s.steps[-1].text) == {"sentiment": own[s.record_id]} for s in other)
    assert all(not s.steps for id_, s in made.items() if own[id_] == s.value)
    # Each of the three kinds of agreement is higher for both than for one.
    assert lab.agreement(run_id) > sum(own[id_] == lab.gold[id_] for id_ in made) / PENDING


def test_stacked_suggestion_is_current_until_something_is_learned(lab):
    """It is kept as any paid one: older after a new fit or another trial, but never made again by itself."""
    lab = lab(right(0.8))
    run_id = lab.start()
    lab.move(run_id)
    id_ = lab.ids[-1]
    record, made = lab.store.records.get(id_), lab.suggested(run_id)[id_]
    assert standing(lab.suggester(), record, made) == CURRENT
    lab.approve(lab.ids[APPROVED : APPROVED + 20])
    Worker(lab.instance).run_until_idle()
    assert standing(lab.suggester(), record, made) == OLDER
    assert lab.store.work.get(id_, "sentiment")["suggestion_id"] == made.id


# What goes wrong


def test_killed_worker_pays_nothing_twice(lab):
    """A process that is killed in the middle of a trial leaves its answers; another goes on, and asks no call again."""
    lab = lab()
    lab.server.behave(lambda request, n: replace(lab.behave(request, n), delay=0.05))
    lab.instance.change_settings({"lease_seconds": 1.0})
    run_id = lab.start(concurrency=2)
    code = """
import sys
from pathlib import Path
from labeler.instance import Instance
from labeler.worker import Worker
Worker(Instance(Path(sys.argv[1]))).move_run(int(sys.argv[2]))
"""
    process = python(code, str(lab.instance.folder), str(run_id))
    until(lambda: lab.ledger.run(run_id)["calls"] >= 10, 60)
    kill(process)
    assert lab.ledger.run(run_id)["trial"] == ""
    assert Worker(lab.instance).see_through(run_id) == "finished"
    run = lab.ledger.run(run_id)
    assert run["repeats"] <= 2 and len(lab.server.requests) <= run["calls"] <= APPROVED + PENDING + 2
    assert len(lab.found(run_id).judged) == APPROVED
    assert audit(lab.store) == []


def test_two_workers_share_a_trial(lab):
    """Both wait for its last answer, and no record of the rest is taken for one of the trial."""
    lab = lab(right(0.8))
    run_id = lab.start()
    other = open_instance(lab.instance.folder)
    threads = [threading.Thread(target=Worker(one).see_through, args=(run_id,)) for one in (lab.instance, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    made = lab.suggested(run_id)
    assert sorted(made) == lab.ids[APPROVED:] and all("stacked" in s.made for s in made.values())
    assert len(lab.server.requests) == APPROVED + PENDING
    assert audit(lab.store) == []


def test_answers_that_cannot_be_read_agree_with_nothing(lab):
    """A model that writes nonsense is paused by the brake as ever; one that does at times is worth as much less."""
    lab = lab()
    lab.server.behave(lambda request, n: Answer(200, completion("no idea", request)))
    run_id = lab.start()
    assert lab.move(run_id) == "paused"
    assert "The first 20 records all ended the same way" in recalled(lab.ledger.run(run_id)["message"])


def test_batches_wait_for_no_trial(lab):
    """The few calls of a trial are sent one by one: what the model is worth is known before the first file goes."""
    lab = lab()
    run_id = lab.start(executor="openai-batch")
    assert lab.move(run_id) == "running"
    assert len(lab.found(run_id).judged) == APPROVED
    (batch,) = lab.store.batches.of_run(run_id)
    assert batch["calls"] == PENDING


# The page and the command


def test_page_says_what_the_model_is_worth(lab, tmp_path):
    """The estimate names the trial, the run's page its outcome, and neither takes its records for suggestions."""
    from conftest import PASSWORD, enter

    from labeler import accounts
    from labeler.app import create_app

    lab = lab(right(0.5))
    app = create_app(lab.instance, {"TESTING": True})
    client = app.test_client()
    client.environ_base["HTTP_ACCEPT_LANGUAGE"] = "en"
    enter(client, app, accounts.add_reviewer(lab.store, "admin", PASSWORD, accounts.ADMIN))
    address, form = f"/projects/{lab.project['id']}/runs", {"task": "sentiment", "backend": "openai", "k": "0"}
    with client.session_transaction() as session:
        session["csrf_token"] = "x"
    app.config["WTF_CSRF_ENABLED"] = False
    seen = client.post(address, data=form | {"action": "estimate"}).text
    assert "This run would label 140 records" in seen and "60 of them are approved records" in seen
    client.post(address, data=form | {"action": "start"})
    (run,) = lab.ledger.runs(lab.project["id"])
    assert "First the model answers approved records" in client.get(f"{address}/{run['id']}").text
    lab.move(run["id"])
    page = client.get(f"{address}/{run['id']}").text
    assert WORTH in page and "the free suggestion is used" in page
    assert "The model adds nothing to the free suggestion" in page
    assert re.search(r"<dt>Suggestions</dt><dd>0</dd>", page)
    assert re.search(r"Approved, asked first</dt><dd>60</dd>", page)


def test_command_says_what_the_model_is_worth(lab, capsys):
    """One sentence as soon as the trial has ended, and the run stops where the model adds nothing."""
    from click.testing import CliRunner

    from labeler.cli import cli

    lab = lab(right(0.5))
    name, folder = lab.project["name"], str(lab.instance.folder)
    lab.instance.close()
    words = ["prelabel", "--project", name, "--task", "sentiment", "--backend", "openai", "--k", "0"]
    runner = CliRunner(env={"LABELER_INSTANCE": folder})
    seen = runner.invoke(cli, [*words, "--dry-run"]).output
    assert "140 records with openai gpt-4o-mini, 60 of them approved ones that say what the model is worth" in seen
    ended = runner.invoke(cli, words)
    assert ended.exit_code == 1 and len(lab.server.requests) == APPROVED
    assert ended.output.count(WORTH) == 1 and "the free suggestion is used." in ended.output
    assert "paused: 0 suggestions (0 unreadable), 0 failed; 60 approved records were asked first" in ended.output
    ended = runner.invoke(cli, [*words, "--no-trial", "--limit", "5"])
    assert ended.exit_code == 0 and len(lab.server.requests) == APPROVED + 5
    lab.instance = Instance(Path(folder))


# The stack itself

SENTIMENT = Choice(Label("positive"), Label("neutral"), Label("negative"))
TOPICS = Choices(*(Label(name) for name in ("taste", "price", "delivery", "packaging")))


def opinions(n: int, model: float, free: float, bias: float = 0.0, seed: int = 5) -> list[Case]:
    """Return records of which model and free suggestion see the right label so clearly, in nats, each through noise."""
    import numpy as np

    rng, names, cases = np.random.default_rng(seed), list(SENTIMENT.names), []
    for id_ in range(n):
        gold = int(rng.integers(3))

        def say(clear: float, lean: float, gold: int = gold) -> dict[str, float]:
            odds = np.exp(1.5 * (rng.normal(size=3) + clear * (np.arange(3) == gold)) + [lean, 0, 0])
            return dict(zip(names, (odds / odds.sum()).tolist(), strict=True))

        scores, chances = say(model, bias), say(free, 0.0)
        values = [max(found, key=found.__getitem__) for found in (scores, chances)]
        cases.append(Case(id_, names[gold], values[0], scores, values[1], chances))
    return cases


def worth(found: Stack, cases: list[Case]) -> float:
    values = [found.pooled(SENTIMENT, case.value, case.scores, case.free)[0] for case in cases]
    return sum(value == case.gold for value, case in zip(values, cases, strict=True)) / len(cases)


def test_two_that_err_apart_are_better_together():
    """On records never seen before, too, and about as much as cross-validation promised."""
    found, fresh = stack.fit(SENTIMENT, opinions(200, 1.5, 1.5), "", 200), opinions(1000, 1.5, 1.5, seed=6)
    model, free, both = found.means
    assert found.use == TOGETHER and both > max(model, free) + 0.03
    assert worth(found, fresh) == pytest.approx(both, abs=0.06)


def test_a_bias_is_taken_away():
    """A model that leans to one label whatever the text says is corrected by what was approved."""
    found, fresh = stack.fit(SENTIMENT, opinions(60, 2.5, 1.0, bias=5.0), "", 200), opinions(500, 2.5, 1.0, 5.0, 6)
    assert found.use == TOGETHER
    alone, free = (
        sum(v == c.gold for v, c in zip(values, fresh, strict=True)) / len(fresh)
        for values in ([case.value for case in fresh], [case.free_value for case in fresh])
    )
    assert worth(found, fresh) > max(alone, free) + 0.15


@pytest.mark.parametrize("seed", range(6))
def test_chance_adds_nothing_and_costs_nothing(seed):
    """A model that guesses is mostly not used; where chance lets it in, next to nothing is lost."""
    found, fresh = (
        stack.fit(SENTIMENT, opinions(60, 0.0, 1.5, seed=seed), "", 200),
        opinions(1000, 0.0, 1.5, seed=99),
    )
    free = sum(case.free_value == case.gold for case in fresh) / len(fresh)
    assert found.use == FREE or worth(found, fresh) > free - 0.02


def test_sets_are_pooled_label_by_label():
    """Of a set each label has its own chance, and as many are chosen as reviewers give."""
    import numpy as np

    rng, names, cases = np.random.default_rng(4), TOPICS.names, []
    for id_ in range(120):
        gold = rng.random(4) < 0.4
        chances = [1 / (1 + np.exp(-(rng.normal(size=4) + 1.5 * (2 * gold - 1)))) for _ in range(2)]
        values = [[name for name, chance in zip(names, row, strict=True) if chance > 0.5] for row in chances]
        said, free = (dict(zip(names, row.tolist(), strict=True)) for row in chances)
        cases.append(
            Case(id_, [n for n, one in zip(names, gold, strict=True) if one], values[0], said, values[1], free)
        )
    for given in (cases, [replace(case, scores=None) for case in cases]):
        found = stack.fit(TOPICS, given, "expected", 200)
        assert found.use == TOGETHER and found.means[2] > max(found.means[:2])
        value, score = found.pooled(TOPICS, given[0].value, given[0].scores, given[0].free)
        assert set(value) <= set(names) and 0 < score < 1


def test_stack_is_read_as_it_was_written():
    """What a run stored is what the next process pools by; under other labels nothing is pooled."""
    cases = opinions(60, 1.5, 1.5)
    found = stack.fit(SENTIMENT, cases, "", 200)
    again = Stack.from_json(json.loads(json.dumps(found.to_json())))
    assert again == found and again.digest == found.digest
    assert again.pooled(SENTIMENT, *_of(cases[0])) == found.pooled(SENTIMENT, *_of(cases[0]))
    assert found.pooled(Choice(Label("positive"), Label("negative")), *_of(cases[0])) is None


def _of(case: Case) -> tuple[Any, Any, Any]:
    return case.value, case.scores, case.free
