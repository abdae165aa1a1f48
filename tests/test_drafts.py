"""Prompt search: drafts of guidelines come from corrections, and other approvals say whether one is worth adopting."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from browsers import opened_browser, served, session_cookie
from conftest import enter
from fake_openai import Answer, completion, last_user
from flask.testing import FlaskClient
from test_cli import Shell
from test_replay import Lab
from test_web_pages import Page

from labeler import accounts, removal
from labeler.annotation.decisions import Decision
from labeler.app import create_app
from labeler.errors import Conflict, InputError
from labeler.evaluation import drafts, replay, search
from labeler.evaluation.drafts import Correction
from labeler.evaluation.measures import measured, weights
from labeler.evaluation.results import Results
from labeler.labels import Choice, Label
from labeler.prelabel import runs
from labeler.sentence import recalled
from labeler.worker import Worker

RULE = "Judge irony by what is meant."
HELPS, VAIN = f"Choose one label.\n- {RULE}", "Choose the one label that fits."


def words(n: int) -> str:
    """A text of its own: no two are near-duplicates."""
    return " ".join(f"{word}{n * 7919 % 9973}" for word in ("사과", "상자", "배송", "포장", "맛"))


def is_drafting(request: dict[str, Any]) -> bool:
    return drafts.NAME in str(request["messages"][0]["content"])


def answer(text: str) -> str:
    return json.dumps({drafts.NAME: text}, ensure_ascii=False)


class Model:
    """A model that takes irony at its word, unless the guidelines say otherwise. ``written`` are its drafts in turn."""

    def __init__(self, *written: str) -> None:
        self.written, self.asked = written, 0

    def __call__(self, request: dict[str, Any], n: int) -> Answer:
        if is_drafting(request):
            self.asked += 1
            return Answer(200, completion(self.written[(self.asked - 1) % len(self.written)], request))
        right = RULE in str(request["messages"][0]["content"]) or "irony" not in last_user(request)
        return Answer(200, completion(json.dumps({"sentiment": "positive" if right else "negative"}), request))


class Shop(Lab):
    """Records that people approved as positive; of every second one the model had said otherwise."""

    def label(self, count: int = 90) -> list[int]:
        texts = [f"{words(n)} {'plain' if n % 2 else 'irony'} marker-{n}." for n in range(count)]
        ids = self.add(*texts)
        self.server.behave(Model())
        settings = {"backend": "openai", "model_id": "gpt-4o-mini"}
        runs.start(self.store, self.id, "sentiment", ids, settings, None, self.kim)
        Worker(self.instance).run_until_idle()
        for id_ in ids:
            row = self.store.work.get(id_, "sentiment")
            given = Decision(id_, "approve", f"request-{id_}", row["version"], "positive", row["suggestion_id"])
            self.instance.decisions(self.project, self.task).decide(self.kim, given)
        self.server.requests.clear()
        return ids

    def plan(self, count: int = 2, sample: int = 200) -> search.Plan:
        return search.plan(self.instance, self.project, self.task, count, sample)

    def begin(self, *written: str, budget: float | None = None) -> int:
        """Start a search with as many drafts as the model writes; a worker is still to see it through."""
        self.server.behave(Model(*written))
        return search.start(self.instance, self.project, self.task, self.plan(len(written)), budget, self.kim)

    def search(self, *written: str, budget: float | None = None) -> int:
        id_ = self.begin(*written, budget=budget)
        Worker(self.instance).run_until_idle()
        return id_

    def judged(self, id_: int) -> dict[str, Any]:
        """Return the drafts of a search by their text; one that cannot be used by why."""
        results = Results(self.instance, id_)
        found = results.judged(results.report())
        return {one.draft.guidelines or (one.draft.failure.kind if one.draft.failure else ""): one for one in found}

    def drafting(self) -> list[Any]:
        return [request.json for request in self.server.requests if is_drafting(request.json)]

    @property
    def guidelines(self) -> str:
        return str(self.task.guided("en"))


@pytest.fixture
def shop(tmp_path: Any) -> Iterator[Shop]:
    made = Shop(tmp_path / "instance")
    made.label()
    yield made
    made.close()


# What drafts are made from, and what judges them


def test_no_draft_is_made_from_what_judges_it(shop: Shop) -> None:
    """Not a word of a held-out record reaches the prompt of a draft, and what does judges none."""
    id_ = shop.search(answer(HELPS), answer(VAIN), answer("Choose well."))
    asked = json.dumps(shop.drafting())
    seen = set(re.findall(r"marker-\d+\b", asked))
    judging = {row["text"].split()[-1].rstrip(".") for row in shop.store.replays.items(id_)}
    assert seen and len(judging) > 40
    assert not seen & judging


def test_near_duplicates_lie_on_one_side(shop: Shop) -> None:
    """A draft that saw one of them knows the others: they are drafted from together, or judge together."""
    text = "사과가 정말 달고 아삭해서 온 가족이 맛있게 먹었어요 다음에도 꼭 다시 살게요"
    pairs = [shop.add(f"{text} {words(n)}", f"{text} {words(n)}!") for n in range(6)]
    rows = {id_: shop.store.records.get(id_) for pair in pairs for id_ in pair}
    sides = {id_: search.is_held_out(row.cluster or row.content_hash) for id_, row in rows.items()}
    for first, second in pairs:
        assert rows[first].cluster == rows[second].cluster is not None
        assert sides[first] == sides[second]


def test_a_draft_sees_what_was_suggested_and_what_a_person_decided(shop: Shop) -> None:
    """With the guidelines and labels that stand; each review between marks of its own."""
    shop.search(answer(VAIN))
    system, user = (turn["content"] for turn in shop.drafting()[0]["messages"])
    assert shop.guidelines.strip() in system and "Overall, good outweighs bad." in system
    shown = re.findall(
        r'<review-(\w+)>\n.* irony .*\n</review-\1>\nThe model suggested: {"sentiment": "negative"}\n'
        r'A person decided: {"sentiment": "positive"}', user
    )  # fmt: skip
    assert len(shown) == user.count("The model suggested") == 12


def test_each_draft_is_shown_others(shop: Shop) -> None:
    """As far as there are more corrections: two that see the same would say the same."""
    first, second = shop.plan(2).drafts
    assert first.record_id != second.record_id
    assert set(first.shown) != set(second.shown)


def test_groups_are_of_one_confusion_and_near_each_other() -> None:
    """The largest comes first, and in each the one in its middle."""
    schema = Choice(*(Label(name) for name in ("a", "b", "c")))
    places = {"a": [0.0, 0.05, 0.1, 2.0, 2.05, 4.0], "c": [1.0]}
    found = [
        Correction(n, n, str(n), "", "", suggested, "b")
        for n, suggested in enumerate(name for name, angles in places.items() for _ in angles)
    ]
    angles = np.array([angle for one in places.values() for angle in one])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    groups = [[one.record_id for one in group] for group in drafts.grouped(found, vectors, schema)]
    assert {frozenset(group) for group in groups} == {frozenset(g) for g in ((0, 1, 2), (3, 4), (5,), (6,))}
    assert len(groups[0]) == 3


def test_what_is_missing_is_said(tmp_path: Any) -> None:
    """Without a model, without corrections, without approvals: each in a sentence that says what to do."""
    shop = Shop(tmp_path / "instance")
    with pytest.raises(InputError, match="label more of what a model suggested"):
        shop.plan()
    shop.label(20)
    with pytest.raises(InputError, match="approvals can judge a draft, and 20 are needed"):
        shop.plan()
    shop.instance.change_task(shop.id, "sentiment", {"backend": "nearest"})
    with pytest.raises(InputError, match="choose a backend that asks one"):
        shop.plan()
    shop.close()


# What is kept


def test_a_draft_that_helps_is_kept_and_one_that_does_not_is_not(shop: Shop) -> None:
    """The interval of the one lies above zero, that of the other holds it; all else is as the task is set."""
    id_ = shop.search(answer(HELPS), answer(VAIN))
    found = shop.judged(id_)
    assert found[HELPS].kept and found[HELPS].gain.low > 0.2
    assert not found[VAIN].kept and found[VAIN].gain.value == 0
    as_set, *judging = ({**arm["settings"], "draft": 0} for arm in shop.store.replays.arms(id_))
    assert judging == [as_set, as_set]


def test_the_more_drafts_are_judged_the_wider_the_interval_of_each(shop: Shop) -> None:
    """Those of earlier searches count as well: nobody finds a gain by searching often."""
    first = shop.judged(shop.search(answer(HELPS)))[HELPS].gain
    # The first draft is paid for: it is the same again.
    again = Results(shop.instance, shop.search(answer(VAIN), answer(VAIN)))
    assert again.together == 3
    second = next(one.gain for one in again.judged(again.report()) if one.kept)
    assert second.value == first.value and second.low < first.low
    # Of other guidelines nothing was judged yet.
    shop.instance.change_task(shop.id, "sentiment", {"guidelines": {"en": "Choose."}})
    assert Results(shop.instance, shop.search(answer(VAIN))).together == 1


def test_luck_seldom_keeps_a_draft() -> None:
    """Of searches with three drafts that change labels for no better and no worse, at most one in twenty keeps one."""
    chance, drawn = np.random.default_rng(7), weights(60, 2000)
    kept = 0
    for _ in range(300):
        gains = chance.choice([-1.0, 0.0, 1.0], size=(3, 60), p=[0.1, 0.8, 0.1])
        kept += any(measured(drawn @ one / 60, together=3).low > 0 for one in gains)
    assert kept <= 15


def test_a_draft_that_came_twice_is_judged_once(shop: Shop) -> None:
    """Its twin is named with the first."""
    id_ = shop.search(answer(HELPS), answer(HELPS))
    results = Results(shop.instance, id_)
    first, second = results.judged(results.report())
    assert len(shop.store.replays.arms(id_)) == 2
    assert first.same_as is None and second.same_as == 1 and second.gain == first.gain


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        ("Here are better guidelines: be kind.", "not_json"),
        (json.dumps({"sentiment": "positive"}), "shape"),
        (answer(""), "length"),
        (answer("x" * 5000), "length"),
    ],
)
def test_a_draft_that_cannot_be_read_is_shown_with_the_reason(shop: Shop, written: str, kind: str) -> None:
    """It is asked for once more, then a person sees what came; nothing is judged in its place."""
    id_ = shop.search(written)
    assert shop.judged(id_)[kind].draft.failure.raw == written
    assert len(shop.drafting()) == 2
    assert len(shop.store.replays.arms(id_)) == 1
    assert "No draft of the guidelines can be used" in recalled(shop.store.replays.get(id_)["message"])


def test_a_draft_that_quotes_a_review_cannot_be_used(shop: Shop) -> None:
    """Guidelines outlive the review, and go into every prompt."""
    made = shop.plan(1)
    quoted = made.corrections[made.drafts[0].shown[0]].text
    found = shop.judged(shop.search(answer(f"Positive is: {quoted}")))
    assert "quotes a review" in found["quoted"].draft.failure.message


def test_a_draft_that_changes_nothing_cannot_be_used(shop: Shop) -> None:
    """It would cost a judgement that is known."""
    assert "unchanged" in shop.judged(shop.search(answer(shop.guidelines)))


# What is paid


def test_a_budget_stops_the_drafts_and_nothing_is_paid_twice(shop: Shop) -> None:
    """The run of the drafts pauses; resumed, it asks for what is missing, and the judging follows."""
    shop.instance.change_task(shop.id, "sentiment", {"concurrency": 1, "backend": "openai"})
    id_ = shop.search(answer(HELPS), answer(VAIN), budget=0.0000001)
    run_id = shop.store.replays.get(id_)["drafts_run"]
    assert shop.store.ledger.run(run_id)["state"] == "paused"
    assert len(shop.drafting()) == 1 == len(shop.server.requests)
    assert shop.store.replays.waiting() == []
    runs.resume(shop.store, run_id, budget=1.0)
    Worker(shop.instance).run_until_idle()
    assert len(shop.drafting()) == 2
    # The runs that judge have a budget each, of their own.
    judging = [arm["run_id"] for arm in shop.store.replays.arms(id_)]
    assert {shop.store.ledger.run(one)["state"] for one in judging} == {"paused"}
    for one in judging:
        runs.resume(shop.store, one, budget=1.0)
    Worker(shop.instance).run_until_idle()
    assert shop.judged(id_)[HELPS].kept
    bodies = [json.dumps(_unmarked(request.json)) for request in shop.server.requests]
    assert len(bodies) == len(set(bodies))


def _unmarked(body: Any) -> Any:
    """A request without the random marks of its reviews."""
    return json.loads(re.sub(r"review-\w{8}", "review", json.dumps(body)))


def test_what_a_search_takes_is_said_before(shop: Shop) -> None:
    """The calls of drafting, and of judging the guidelines as is and each draft; nothing is asked for it."""
    made = shop.plan(2)
    drafting, judging = search.estimates(shop.instance, shop.project, made)
    assert drafting.calls == 2 and drafting.cost > 0
    # An answer is as long as the guidelines, not as a label.
    assert drafting.tokens_out > 2 * len(shop.guidelines) / 10
    assert judging.calls == 3 * len(made.items) and judging.cost > 0
    assert not shop.server.requests


def test_drafts_say_nothing_of_how_long_a_label_takes(shop: Shop) -> None:
    """The answers of a draft are texts: the estimate of a run of labels goes by labels."""
    place = shop.id, "sentiment", "openai", "gpt-4o-mini"
    before, pace = shop.store.ledger.past_calls(*place[1:]), shop.store.ledger.past_pace(*place)
    id_ = shop.begin(answer("Choose. " * 200))
    Worker(shop.instance).move_run(shop.store.replays.get(id_)["drafts_run"])
    assert shop.store.ledger.past_calls(*place[1:]) == before and shop.store.ledger.past_pace(*place) == pace
    assert shop.store.ledger.past_calls(drafts.NAME, "openai", "gpt-4o-mini")["n"] == 1


# What is adopted


def test_an_adopted_draft_is_one_version_that_can_be_undone(shop: Shop) -> None:
    """One event; the replay keeps what was measured and who adopted it, and the version before can be restored."""
    before, version = shop.guidelines, shop.store.projects.task_settings(shop.id, "sentiment")[0]
    id_ = shop.search(answer(HELPS), answer(VAIN))
    found, events = shop.judged(id_), shop.store.db.value("SELECT COUNT(*) FROM events")
    assert search.adopt(shop.instance, id_, found[HELPS].draft.number, shop.kim) == version + 1
    assert shop.guidelines == HELPS
    assert shop.store.db.value("SELECT COUNT(*) FROM events") == events + 1
    row = shop.store.replays.get(id_)
    assert (row["used_arm"], row["used_by"], row["guidelines"]) == (found[HELPS].arm.number, shop.kim, before.strip())
    assert shop.judged(id_)[HELPS].gain == found[HELPS].gain
    restored, _ = shop.instance.task_changes(shop.id, "sentiment").restored(version)
    shop.instance.change_task(shop.id, "sentiment", restored, shop.kim, back_to=version)
    assert shop.guidelines == before


def test_only_what_gained_is_adopted_and_only_under_the_guidelines_it_was_judged_by(shop: Shop) -> None:
    """Not what did not gain, not what was never judged, and nothing once somebody changed the task."""
    id_ = shop.search(answer(HELPS), answer(VAIN))
    found = shop.judged(id_)
    with pytest.raises(Conflict, match="is not shown to gain"):
        search.adopt(shop.instance, id_, found[VAIN].draft.number)
    with pytest.raises(InputError, match="has no draft with the number 7"):
        search.adopt(shop.instance, id_, 7)
    with pytest.raises(Conflict, match="judges drafts of guidelines"):
        replay.use(shop.instance, id_, 1)
    shop.instance.change_task(shop.id, "sentiment", {"guidelines": {"en": "Choose."}})
    with pytest.raises(Conflict, match="was changed since"):
        search.adopt(shop.instance, id_, found[HELPS].draft.number)
    assert shop.guidelines == "Choose."


def test_a_gain_counts_once_all_are_measured(shop: Shop) -> None:
    """Who looks again and again while it goes on would stop at a lucky moment."""
    id_ = shop.begin(answer(HELPS))
    worker = Worker(shop.instance)
    worker.move_run(shop.store.replays.get(id_)["drafts_run"])
    assert replay.walk(shop.instance, id_)
    first, second = shop.store.replays.arms(id_)
    worker.move_run(first["run_id"])
    assert shop.judged(id_)[HELPS].gain is None
    with pytest.raises(Conflict, match="is not shown to gain"):
        search.adopt(shop.instance, id_, 1)
    worker.move_run(second["run_id"])
    assert shop.judged(id_)[HELPS].kept


def test_a_task_that_changes_under_a_search_ends_it_with_a_reason(shop: Shop) -> None:
    """Drafts of other guidelines are not asked for."""
    id_ = shop.begin(answer(HELPS))
    shop.instance.change_task(shop.id, "sentiment", {"guidelines": {"en": "Choose."}})
    Worker(shop.instance).run_until_idle()
    run = shop.store.ledger.run(shop.store.replays.get(id_)["drafts_run"])
    assert run["state"] == "paused" and "was changed since" in recalled(run["message"])
    assert not shop.server.requests


def test_guidelines_are_edited_in_their_own_language(shop: Shop) -> None:
    """A project whose prompts fall back on Korean guidelines gets Korean ones."""
    korean = shop.instance.plugins.task("sentiment").guidelines["ko"]
    task = shop.task.__class__("sentiment", shop.task.schema, guidelines={"ko": korean})
    assert task.guided_in("en") == "ko"
    assert task.edited("고친 글", "en").guidelines == {"ko": "고친 글"}
    assert shop.task.edited("Edited", "en").guidelines["ko"] == shop.task.guidelines["ko"]


def test_a_record_that_is_removed_leaves_a_search(shop: Shop) -> None:
    """It judges no more, and no prompt shows it; what was asked for without it goes on."""
    id_ = shop.begin(answer(HELPS), answer(VAIN))
    drafted = shop.store.replays.drafts(id_)[0]
    gone = shop.store.replays.corrected(drafted.shown)[drafted.shown[1]]
    target = removal.Target(removal.RECORD, shop.id, gone["record_id"])
    removal.remove(shop.instance, target, removal.preview(shop.store, target).decisions)
    Worker(shop.instance).run_until_idle()
    assert gone["text"] not in json.dumps(shop.drafting(), ensure_ascii=False)
    assert shop.judged(id_)[HELPS].kept


def test_a_project_that_is_removed_takes_its_searches_along(shop: Shop) -> None:
    """Nothing of a draft is left."""
    shop.search(answer(HELPS))
    target = removal.Target(removal.PROJECT, shop.id, shop.id)
    removal.remove(shop.instance, target, removal.preview(shop.store, target).decisions)
    assert shop.store.db.value("SELECT COUNT(*) FROM replay_drafts") == 0


# The page


@pytest.fixture
def as_(shop: Shop) -> Callable[[str], FlaskClient]:
    """Return a signed-in client: an admin, or a reviewer of the project."""
    app = create_app(shop.instance, {"TESTING": True, "WTF_CSRF_ENABLED": False})
    people = {
        "admin": accounts.add_reviewer(shop.store, "admin", "a few plain words", accounts.ADMIN),
        "reviewer": accounts.add_reviewer(shop.store, "reviewer", "a few plain words"),
    }
    accounts.set_member(shop.store, shop.id, people["reviewer"], "reviewer", people["admin"])

    def sign_in(name: str) -> FlaskClient:
        client = app.test_client()
        client.environ_base["HTTP_ACCEPT_LANGUAGE"] = "en"
        enter(client, app, people[name])
        return client

    return sign_in


def test_a_search_goes_from_the_form_to_the_next_version(shop: Shop, as_: Any) -> None:
    """Estimated, started, looked at while it goes on, and adopted, with the diff and the interval in sight."""
    client, form = as_("admin"), {"task": "sentiment", "drafts": "2", "sample": "200"}
    shop.server.behave(Model(answer(HELPS), answer(VAIN)))
    estimated = Page(client.post(f"/projects/{shop.id}/replays/search", data=form).text).said
    assert "Drafts 2 2" in estimated and "Judging" in estimated and "$" in estimated
    assert not shop.store.replays.of_task(shop.id, "sentiment")
    started = client.post(f"/projects/{shop.id}/replays/search", data={**form, "action": "start"})
    waiting = client.get(f"{started.location}/progress").text
    assert "hx-trigger" in waiting and "0 of 2 drafts written" in Page(waiting).said
    Worker(shop.instance).run_until_idle()
    shown = client.get(started.location).text
    kept = next(one for one in shop.judged(1).values() if one.kept)
    gain = f"+{kept.gain.value:.2f} [+{kept.gain.low:.2f}, +{kept.gain.high:.2f}]"
    said = Page(shown).said
    assert gain in said and "It is not shown to gain" in said and f"Added: - {RULE}" in said
    # One press for what gained, none for what did not, and none for settings.
    assert re.findall(r'name="draft" value="(\d+)"', shown) == [str(kept.draft.number)]
    assert "/use" not in shown and "hx-trigger" not in shown
    adopted = client.post(f"{started.location}/adopt", data={"draft": kept.draft.number})
    assert adopted.status_code == 303 and shop.guidelines == HELPS
    after = client.get(started.location).text
    assert re.search(rf"Adopted: Draft {kept.draft.number} · .* · admin", Page(after).said)
    assert 'name="draft"' not in after


def test_only_an_admin_searches_and_adopts(shop: Shop, as_: Any) -> None:
    """It costs money and changes the task; a reviewer may look, where the project allows it."""
    shop.instance.change_project(shop.id, {"reviewers_may": ["numbers"]})
    client, id_ = as_("reviewer"), shop.search(answer(HELPS))
    assert client.post(f"/projects/{shop.id}/replays/search", data={"task": "sentiment"}).status_code == 403
    assert client.post(f"/projects/{shop.id}/replays/{id_}/adopt", data={"draft": "1"}).status_code == 403
    page = client.get(f"/projects/{shop.id}/replays/{id_}")
    assert page.status_code == 200 and "Adopt draft" not in page.text
    assert "Improve the guidelines" not in client.get(f"/projects/{shop.id}/replays").text


def test_what_did_not_gain_is_refused_by_the_address_too(shop: Shop, as_: Any) -> None:
    """Whoever sends the form by hand is told why."""
    id_ = shop.search(answer(VAIN))
    refused = as_("admin").post(f"/projects/{shop.id}/replays/{id_}/adopt", data={"draft": "1"})
    assert refused.status_code == 409 and "Draft 1 is not shown to gain" in Page(refused.text).said
    again = as_("admin").post(f"/projects/{shop.id}/replays/{id_}/again")
    assert again.status_code == 400 and "started from its own form" in Page(again.text).said


def test_a_search_that_waits_for_its_budget_is_not_asked_for_again_and_again(shop: Shop, as_: Any) -> None:
    """Its page names the run and the reason."""
    id_ = shop.search(answer(HELPS), budget=0.0)
    page = as_("admin").get(f"/projects/{shop.id}/replays/{id_}").text
    assert "hx-trigger" not in page and "Paused" in Page(page).said and "budget" in Page(page).said


def test_what_is_wrong_stands_by_the_form(shop: Shop, as_: Any) -> None:
    """What was typed stays."""
    form = {"task": "sentiment", "drafts": "99", "action": "start"}
    refused = as_("admin").post(f"/projects/{shop.id}/replays/search", data=form)
    assert refused.status_code == 400 and 'role="alert"' in refused.text and 'value="99"' in refused.text


@pytest.mark.parametrize("language", ["en", "ko"])
def test_hostile_text_in_a_draft_is_shown_as_text(shop: Shop, as_: Any, language: str) -> None:
    """In the diff, and in an answer that cannot be read."""
    hostile = "<script>alert(1)</script><img src=x onerror=alert(2)>{{ 7*7 }}"
    shop.instance.change_task(shop.id, "sentiment", {"concurrency": 1, "backend": "openai"})
    id_ = shop.search(answer(hostile), f"{hostile} is no JSON", f"{hostile} is no JSON")
    client = as_("admin")
    client.environ_base["HTTP_ACCEPT_LANGUAGE"] = language
    page = Page(client.get(f"/projects/{shop.id}/replays/{id_}").text)
    assert page.active == []
    assert page.said.count("<script>alert(1)</script><img src=x onerror=alert(2)>{{ 7*7 }}") == 2


def test_a_person_reads_a_draft_and_adopts_it_in_the_browser(shop: Shop) -> None:
    """The page follows the search by itself, shows the diff, and one press makes the next version."""
    shop.server.behave(Model(answer(HELPS)))
    app = create_app(shop.instance, {"TESTING": True})
    admin = accounts.add_reviewer(shop.store, "admin", "a few plain words", accounts.ADMIN)
    with opened_browser() as browser, served(app) as address:
        page = browser.new_page()
        page.context.add_cookies([session_cookie(app, admin) | {"url": address}])
        page.goto(f"{address}/projects/{shop.id}/replays?task=sentiment")
        form = page.locator("#search")
        form.get_by_label("How many drafts").fill("1")
        form.get_by_role("button", name="Start").click()
        page.get_by_text("0 of 1 drafts written").wait_for()
        Worker(shop.instance).run_until_idle()
        page.get_by_text("It is shown to gain.").wait_for()
        assert page.locator(".draft .diff .added").all_inner_texts()[-1].endswith(RULE)
        page.get_by_text("Made from 12 corrections").click()
        assert page.locator(".draft li", has_text="Negative → Positive").count() == 12
        page.get_by_role("button", name="Adopt draft 1").click()
        page.get_by_text("Adopted: Draft 1").wait_for()
        page.get_by_role("link", name="Versions").click()
        assert RULE in page.locator(".diff").first.inner_text()
    assert shop.guidelines == HELPS


# The command


TASK = ("--project", "reviews", "--task", "sentiment")


@pytest.fixture
def shell(shop: Shop) -> Shell:
    return Shell(shop.instance.folder.parent)


def test_the_command_tells_each_draft_and_adopts_one(shop: Shop, shell: Shell) -> None:
    """What it changes, what it gains, and how to adopt it."""
    shop.server.behave(Model(answer(HELPS), answer(VAIN)))
    shown = shell.ok("improve", *TASK, "--drafts", "2")
    number = shop.judged(1)[HELPS].draft.number
    assert re.search(rf"Draft {number}: agreement \+0\.\d\d \[.*\], shown to gain\.", shown)
    assert f"  +- {RULE}" in shown and "not shown to gain." in shown
    assert shown.splitlines()[-1] == f"Adopt one with --show 1 --adopt {number}."
    assert shown.endswith(shell.ok("improve", *TASK, "--show", "1"))
    assert "is not shown to gain" in shell.fails("improve", *TASK, "--show", "1", "--adopt", str(3 - number))
    done = shell.ok("improve", *TASK, "--show", "1", "--adopt", str(number))
    assert f"Draft {number} of replay 1 is the guidelines of sentiment now" in done
    assert shop.guidelines == HELPS


def test_a_dry_run_of_the_command_asks_nothing(shop: Shop, shell: Shell) -> None:
    """It says how many calls that would be."""
    shown = shell.ok("improve", *TASK, "--dry-run")
    assert "About 3 calls" in shown and shown.count("Nothing was called.") == 2
    assert not shop.server.requests and not shop.store.replays.of_task(shop.id, "sentiment")
    assert "--adopt DRAFT belongs to --show N" in shell.fails("improve", *TASK, "--adopt", "1")


def test_the_command_goes_on_with_what_was_stopped(shop: Shop, shell: Shell) -> None:
    """The run of the drafts is resumed; to look at the search then judges them."""
    shop.server.behave(Model(answer(HELPS)))
    stopped = shell("improve", *TASK, "--drafts", "1", "--budget", "0")
    assert stopped.exit_code == 1 and "labeler runs --resume" in stopped.stderr
    assert "Draft 1: no answer yet." in stopped.stdout
    run_id = shop.store.replays.get(1)["drafts_run"]
    shell.ok("runs", "--resume", str(run_id), "--budget", "1")
    judging = shell("improve", *TASK, "--show", "1")
    assert "Draft 1: not measured yet." in judging.stdout and judging.exit_code == 1
    for arm in shop.store.replays.arms(1):
        shell.ok("runs", "--resume", str(arm["run_id"]), "--budget", "1")
    assert "shown to gain." in shell.ok("improve", *TASK, "--show", "1")


def test_the_command_says_what_cannot_be_used(shop: Shop, shell: Shell) -> None:
    """The guidelines stay."""
    shop.server.behave(Model("no JSON"))
    shown = shell("improve", *TASK, "--drafts", "1")
    assert "Draft 1: cannot be used: " in shown.stdout
    assert shown.stdout.splitlines()[-1] == "None can be adopted; the guidelines stay as is."
    assert "No draft of the guidelines can be used" in shown.stderr


def test_the_command_leaves_replays_of_settings_alone(shop: Shop, shell: Shell) -> None:
    """One that waits still waits: what its models cost was not agreed to here."""
    number = compared(shop)
    assert "compares settings" in shell.fails("improve", *TASK, "--show", str(number))
    assert number in shop.store.replays.waiting()


def compared(shop: Shop) -> int:
    arms = replay.arms_of(shop.instance, shop.project, shop.task, {"backend": ["nearest"]})
    return replay.start(shop.instance, shop.project, shop.task, arms[1:], None)
