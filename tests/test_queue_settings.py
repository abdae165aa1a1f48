"""Settings that two people change at once, the queues that follow from them, and the order by a typed text."""

from __future__ import annotations

import html
import re
import threading

import pytest
from helpers import Points

from labeler import accounts
from labeler.instance import Instance
from labeler.store import NewRecord


@pytest.fixture
def shop(instance):
    """A project of one task with a few records; the instance is open twice, as in two processes."""
    project = instance.create_project("fruit", "en", {"tasks": ["sentiment"], "blind_share": 0.0})
    add(instance, project, *(f"리뷰 {n}" for n in range(4)))
    instance.fill_queues(project)
    return project


@pytest.fixture
def other(instance):
    """The same instance as another process has it."""
    with Instance(instance.folder) as opened:
        yield opened


def add(instance, project, *texts, group=None):
    news = [NewRecord(text, text, group) for text in texts]
    stored = instance.store.write(lambda tx: instance.store.records.add(tx, project, news, []))
    return [one.id for one in stored]


def settings_of(instance, project):
    return instance.store.projects.get(project)["settings"]


def meet(monkeypatch, *opened):
    """Let every instance read the settings before any of them writes: the worst of meetings."""
    barrier = threading.Barrier(len(opened))

    def waiting(write):
        def work(transaction):
            barrier.wait(10)
            return write(transaction)

        return work

    for one in opened:
        monkeypatch.setattr(one.store, "write", waiting(one.store.write))


def at_once(*calls):
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# Settings


def test_two_admins_change_two_settings_of_a_project_and_both_stand(instance, other, shop, monkeypatch):
    """Page and command line save at the same moment, in two processes: no change is lost."""
    meet(monkeypatch, instance, other)
    at_once(
        lambda: instance.change_project(shop, {"blind_share": 0.25}),
        lambda: other.change_project(shop, {"budget_day": 2.0}),
    )
    assert settings_of(instance, shop) | {"tasks": 0} == {"tasks": 0, "blind_share": 0.25, "budget_day": 2.0}


def test_two_admins_change_two_settings_of_a_task_and_both_stand(instance, other, shop, monkeypatch):
    """Each says what the settings were that they changed; a map goes by its languages."""
    seen = {"k": 4, "guidelines": {"en": "Old.", "ko": "예전."}}
    instance.change_task(shop, "sentiment", seen)
    meet(monkeypatch, instance, other)
    at_once(
        lambda: instance.change_task(shop, "sentiment", seen | {"k": 6}, seen=seen),
        lambda: other.change_task(
            shop, "sentiment", seen | {"guidelines": {"en": "New.", "ko": "예전."}, "style": "zero-shot"}, seen=seen
        ),
    )
    version, found = instance.store.projects.task_settings(shop, "sentiment")
    assert (version, found) == (3, {"k": 6, "guidelines": {"en": "New.", "ko": "예전."}, "style": "zero-shot"})


def test_two_processes_change_two_settings_of_the_instance_and_both_stand(instance, other, monkeypatch):
    """The file is read anew under the lock that all processes share."""
    meet(monkeypatch, instance, other)
    at_once(
        lambda: instance.change_settings({"openai_model": "m"}),
        lambda: other.change_settings({"timeout_seconds": 30}),
    )
    assert instance.settings == other.settings == {"openai_model": "m", "timeout_seconds": 30.0}


def form_of(page):
    """The fields of the form with the settings, as a browser would send them back; boxes that are ticked apart."""
    start = page.index('name="seen"')
    form = page[page.rindex("<form", 0, start) :]
    fields = {}
    for tag in re.findall(r"<(?:input|textarea|select)\b[^>]*>", form[: form.index("</form>")]):
        name, value = re.search(r'name="([^"]+)"', tag), re.search(r'value="([^"]*)"', tag)
        if name and 'type="checkbox"' not in tag and value:
            fields[name[1]] = html.unescape(value[1])
    return fields


def test_a_form_overwrites_only_what_was_changed_in_it(instance, client, project):
    """The form sends every field; another admin has saved since it was opened."""
    path = f"/projects/{project}/settings"
    fields = form_of(client.get(path).text)
    instance.change_project(project, {"budget_day": 3.0, "claim_minutes": 5.0})
    assert "budget_day" in fields
    fields |= {"blind_share": "0.5", "claim_minutes": "20"}
    del fields["tasks"], fields["refresh"]
    assert client.post(path, data=fields).status_code == 303
    found = settings_of(instance, project)
    assert (found["budget_day"], found["blind_share"], found["claim_minutes"]) == (3.0, 0.5, 20.0)


def test_a_broken_form_is_refused(client, project):
    """What a form was shown with is JSON of an object, or nothing is saved."""
    path = f"/projects/{project}/settings"
    fields = form_of(client.get(path).text)
    for seen in ("[1]", "{", '{"nothing": 1}'):
        assert client.post(path, data=fields | {"seen": seen}).status_code == 400


# Queues


def queued(instance, task):
    return [row["record_id"] for row in instance.store.db.all(
        "SELECT record_id FROM work WHERE task = :t ORDER BY record_id", {"t": task})]  # fmt: skip


def test_a_task_that_was_added_gets_its_queue_and_the_others_are_left_alone(instance, shop, monkeypatch):
    """A change that touches no queue writes to none."""
    instance.change_project(shop, {"tasks": ["sentiment", "keywords"]})
    assert queued(instance, "keywords") == queued(instance, "sentiment")
    monkeypatch.setattr(instance.store.work, "queue_through", lambda *_: pytest.fail("a queue was written"))
    monkeypatch.setattr("labeler.projects.refresh_groups", lambda *_: pytest.fail("products were renewed"))
    instance.change_project(shop, {"blind_share": 0.1})
    instance.change_task(shop, "sentiment", {"k": 2})


def test_a_kill_between_the_change_and_the_queue_loses_no_row(instance, other, shop, monkeypatch):
    """The change stands, the process is gone: the next one finds what is missing, from where it was left."""
    monkeypatch.setattr(instance, "fill_queues", lambda _: None)
    instance.change_project(shop, {"tasks": ["sentiment", "keywords"]})
    assert queued(instance, "keywords") == []
    other.fill_queues(shop)
    assert queued(other, "keywords") == queued(other, "sentiment")


def test_a_task_that_comes_back_gets_what_was_imported_meanwhile(instance, shop):
    instance.change_project(shop, {"tasks": ["sentiment", "keywords"]})
    instance.change_project(shop, {"tasks": ["sentiment"]})
    [late] = add(instance, shop, "늦게 온 리뷰")
    instance.change_project(shop, {"tasks": ["sentiment", "keywords"]})
    assert queued(instance, "keywords")[-1] == queued(instance, "sentiment")[-1] == late


def test_a_change_of_unit_changes_the_queue(instance, shop):
    """Pending reviews leave the queue and products come, and back."""
    add(instance, shop, "달아요", "짜요", group="사과")
    instance.fill_queues(shop)
    reviews = queued(instance, "sentiment")
    instance.change_task(shop, "sentiment", {"unit": "group"})
    products = queued(instance, "sentiment")
    assert [instance.store.records.get(id_).text for id_ in products] == ["- 달아요\n- 짜요"]
    instance.change_task(shop, "sentiment", {})
    assert queued(instance, "sentiment") == reviews


# The order by a typed text


@pytest.fixture
def points(instance, other, shop, monkeypatch):
    """300 records on a quarter of a circle, the farther the later; the 205 nearest are decided."""
    embedder = Points()
    for one in (instance, other):
        monkeypatch.setattr(one.plugins, "embedders", {"lexical": lambda _: embedder})
        one._embeddings.clear()
    ids = add(instance, shop, *(f"({1 - n / 300} {n / 300}) {n}" for n in range(300)))
    instance.fill_queues(shop)
    project = instance.store.projects.get(shop)
    for _ in instance.embeddings(project).fill(shop, lambda: False):
        pass
    task = instance.project_task(project, "sentiment")
    decisions = instance.decisions(project, task)
    kim = accounts.add_reviewer(instance.store, "kim", None)

    def decide(tx):
        for id_ in ids[:205]:
            record = next(record for record in records if record.id == id_)
            decisions.import_label(tx, record, "positive", "file.csv", None)

    records = list(instance.store.records.many(ids).values())
    instance.store.write(decide)
    return ids, kim


def queue_of(instance, project):
    found = instance.store.projects.get(project)
    return instance.queue(found, instance.project_task(found, "sentiment"))


def test_similar_brings_the_nearest_of_the_pending(instance, other, shop, points):
    """However many nearer ones are decided, in this process and in another."""
    ids, kim = points
    assert queue_of(instance, shop).next(kim, "similar", similar_to="(1 0)", page="a").record.id == ids[205]
    assert queue_of(other, shop).next(kim, "similar", similar_to="(1 0)", page="b").record.id == ids[206]
    assert queue_of(other, shop).next(kim, "similar", similar_to="(0 1)", page="c").record.id == ids[-1]


def test_similar_reads_the_vectors_once_for_a_text(instance, shop, points, monkeypatch):
    """The next records of a typed text cost no second look at the vectors; a new record takes its place anyway."""
    ids, kim = points
    queue = queue_of(instance, shop)
    have = [queue.next(kim, "similar", similar_to="(1 0)", page="a").record.id]
    read = []
    pages = instance.store.vectors.pages

    def counting(*args, **more):
        for page in pages(*args, **more):
            read.extend(row["id"] for row in page)
            yield page

    monkeypatch.setattr(instance.store.vectors, "pages", counting)
    have.append(queue.next(kim, "similar", have, "(1 0)", "a").record.id)
    assert have == ids[205:207] and read == []
    [new] = add(instance, shop, "(1 0.001) new")
    instance.fill_queues(shop)
    record = instance.store.records.get(new)
    instance.embeddings(instance.store.projects.get(shop)).vectors([(new, record.text)])
    assert queue.next(kim, "similar", have, "(1 0)", "a").record.id == new
    assert read == [new]
