"""Background work that any process may do: what one learned all know, and what fails holds nothing else up."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace

import pytest
from helpers import REVIEWS, Points, World
from test_runs import approve, lab, suggester  # noqa: F401

from labeler.instance import Instance
from labeler.prelabel import calibration, runs
from labeler.prelabel.calibration import Calibration
from labeler.retrieval.index import Query
from labeler.sentence import recalled
from labeler.store import NewRecord
from labeler.store.upkeep import LEASE, VECTORS
from labeler.worker import Worker


@pytest.fixture
def two(tmp_path):
    """A server and a worker: two open instances of one folder, of which each knows only what the store says."""
    with Instance(tmp_path / "instance") as server:
        project = server.create_project("topics", "en", {"tasks": ["sentiment"]})
        texts = [f"{word} {word} number {n}" for n in range(20) for word in ("sunny", "windy", "rainy")]
        news = [NewRecord(f"r{n}", text) for n, text in enumerate(texts)]
        server.store.write(lambda tx: server.store.records.add(tx, project, news, ["sentiment"]))
        with Instance(tmp_path / "instance") as worker:
            yield server, worker


def task_of(instance):
    project = instance.store.projects.get(1)
    return project, instance.project_task(project, "sentiment")


def approve_topics(instance, first, count):
    """Approve records by the word in their text."""
    project, task = task_of(instance)
    decisions = instance.decisions(project, task)
    labels = {"sunny": "positive", "windy": "neutral", "rainy": "negative"}
    ids = list(runs.select(instance.store, project["id"], "sentiment", None, True))[first : first + count]
    for id_ in ids:
        record = instance.store.records.get(id_)
        label = labels[record.text.split()[0]]
        instance.store.write(
            lambda tx, record=record, label=label: decisions.import_label(tx, record, label, "test", None)
        )


def test_a_server_answers_by_what_a_worker_fitted(two):
    """A server without background work uses the ensemble of a worker in another process, and its newest fit."""
    server, worker = two
    project, task = task_of(server)
    approve_topics(server, 0, 24)
    assert server.suggester_now(project, task).backend.name == "nearest"
    Worker(worker).run_until_idle()
    assert server.suggester_now(project, task).backend.name == "ensemble"
    assert server.ensemble(project, task).learned == worker.ensemble(project, task).learned != ""
    before = server.ensemble(project, task).learned
    approve_topics(server, 0, 9)
    Worker(worker).run_until_idle()
    assert server.ensemble(project, task).learned not in ("", before)


def test_looking_for_missing_vectors_costs_the_same_however_many_records_there_are(two):
    """Once all are there: an idle worker asks each second."""
    server, _ = two
    store, project = server.store, server.store.projects.get(1)
    embeddings, seen = server.chosen_embeddings(project), []

    def steps():
        for _ in embeddings.fill(1):
            pass
        assert embeddings.missing(1, 1) == 0
        count = []
        connection = store.db._local.held.connection
        connection.set_progress_handler(lambda: count.append(1) and 0, 1)
        assert embeddings.missing(1, 1) == 0
        connection.set_progress_handler(None, 0)
        return len(count)

    seen.append(steps())
    news = [NewRecord(f"more{n}", f"{n} and another review") for n in range(2000)]
    store.write(lambda tx: store.records.add(tx, 1, news, ["sentiment"]))
    seen.append(steps())
    assert seen[1] <= seen[0] + 50


def test_near_duplicates_of_a_file_that_is_coming_in_are_left_to_its_import(two):
    """It looks for those of many reviews at once; once it has ended, or died, the upkeep does what is left."""
    server, worker = two
    store = server.store
    id_ = store.write(lambda tx: store.records.start_import(tx, 1, "reviews.csv", {}, None, 1))
    Worker(worker).run_until_idle()
    assert len(store.clusters.unsigned(1, 100)) == 60
    store.write(lambda tx: tx.run("UPDATE imports SET alive_at = 0 WHERE id = ?", (id_,)))
    Worker(worker)._upkeep()
    assert store.clusters.unsigned(1, 100) == []


def test_a_worker_refreshes_the_front_for_decisions_of_another_process(two):
    """What was pre-labelled on the first day is renewed near the front where the order goes by its scores."""
    server, worker = two
    server.change_project(1, {"order": "score"})
    approve_topics(server, 0, 3)
    ids = list(runs.select(server.store, 1, "sentiment", None, True))
    runs.start(server.store, 1, "sentiment", ids, {"backend": "ensemble"})
    Worker(worker).run_until_idle()
    approve_topics(server, 0, 6)
    Worker(worker).run_until_idle()
    front = server.store.work.front(1, "sentiment", "score", 20, scored_by="ensemble")
    seqs = {server.store.suggestions.of_record(id_, "sentiment")[0].seq for id_ in front}
    # What came to the front by the new scores is older still.
    assert server.store.annotations.latest_seq(1, "sentiment") in seqs


def test_a_free_suggestion_waits_for_its_record_to_be_opened_in_any_other_order(two):
    """Opening a record makes it again anyway: to do it ahead would cost CPU after each decision, for nothing."""
    server, worker = two
    approve_topics(server, 0, 3)
    ids = list(runs.select(server.store, 1, "sentiment", None, True))
    runs.start(server.store, 1, "sentiment", ids, {"backend": "nearest"})
    Worker(worker).run_until_idle()
    made = server.store.db.value("SELECT COUNT(*) FROM suggestions")
    approve_topics(server, 0, 6)
    Worker(worker).run_until_idle()
    assert server.store.db.value("SELECT COUNT(*) FROM suggestions") == made


def test_decisions_made_while_no_worker_ran_are_followed_later(two):
    """How far decisions were followed stands in the store: a worker that starts later takes up the rest, once."""
    server, worker = two
    approve_topics(server, 0, 12)
    assert server.store.upkeep.due() == [(1, "sentiment")]
    Worker(worker).run_until_idle()
    assert server.store.upkeep.due() == []
    assert not Worker(server)._upkeep()


def test_two_workers_never_follow_one_task_at_the_same_time(two):
    """Whoever took a task holds it for its lease; when that has run out, another goes on."""
    server, worker = two
    approve_topics(server, 0, 3)
    upkeep = server.store.upkeep
    newest = server.store.write(lambda tx: upkeep.take(tx, 1, "sentiment", "one"))
    assert worker.store.upkeep.due() == []
    assert worker.store.write(lambda tx: upkeep.take(tx, 1, "sentiment", "two")) is None
    server.store.write(lambda tx: tx.run("UPDATE upkeep SET until = ?", (time.time() - 1,)))
    assert worker.store.write(lambda tx: upkeep.take(tx, 1, "sentiment", "two")) == newest
    server.store.write(lambda tx: upkeep.done(tx, 1, "sentiment", "one", newest))
    assert worker.store.upkeep.due() == [] and LEASE > 0
    server.store.write(lambda tx: upkeep.done(tx, 1, "sentiment", "two", newest))
    assert [tuple(row) for row in server.store.db.all("SELECT followed, until FROM upkeep")] == [(newest, 0)]


def test_a_probe_set_by_hand_is_fitted_though_nothing_was_decided_since(two):
    """Somebody who opens a record asks for the fit, and a worker in another process makes it."""
    server, worker = two
    # Near-duplicates are learned from once: eight others are what the probe needs.
    news = [NewRecord(f"d{n}", f"{('sunny', 'rainy')[n % 2]} {text}") for n, text in enumerate(REVIEWS)]
    server.store.write(lambda tx: server.store.records.add(tx, 1, news, ["sentiment"]))
    approve_topics(server, 60, 12)
    server.store.write(lambda tx: tx.run("UPDATE upkeep SET followed = newest"))
    server.change_task(1, "sentiment", {"backend": "probe"})
    project, task = task_of(server)
    assert server.suggester_now(project, task).backend.name == "nearest"
    Worker(worker).run_until_idle()
    assert server.suggester_now(project, task).backend.name == "probe"


class Broken(Points):
    def embed(self, texts):
        raise OSError("the model was not fetched")


def test_a_project_whose_embedder_fails_stops_no_other(two, caplog):
    """The failure is said once in the log and on that project's page, is tried again later, and ends."""
    server, worker = two
    broken = server.create_project("broken", "en", {"tasks": ["sentiment"]})
    news = [NewRecord("a", "some text")]
    server.store.write(lambda tx: server.store.records.add(tx, broken, news, ["sentiment"]))
    working = False
    for instance in two:
        instance.plugins.embedders["broken"] = lambda settings: Points(id_="mended") if working else Broken()
    server.change_project(broken, {"embedder": "broken"})
    approve_topics(server, 0, 24)
    background = Worker(worker)
    for _ in range(3):
        background.run_until_idle()
        server.store.write(lambda tx: tx.run("UPDATE upkeep SET until = 0 WHERE project_id = ?", (broken,)))
    assert [record.getMessage() for record in caplog.records] == [
        f"project {broken}, vectors: the model was not fetched"
    ]
    assert server.suggester_now(*task_of(server)).backend.name == "ensemble"
    (trouble,) = server.store.upkeep.troubles(broken)
    assert (trouble["place"], recalled(trouble["trouble"])) == (VECTORS, "OSError: the model was not fetched")
    working = True
    worker._embeddings.clear()
    background.run_until_idle()
    assert server.store.upkeep.troubles(broken) == []


def test_what_fails_waits_longer_each_time(two):
    """The waits double, up to ten minutes, and nothing is due meanwhile."""
    server, _ = two
    approve_topics(server, 0, 1)
    upkeep, waits = server.store.upkeep, []
    for _ in range(10):
        server.store.write(lambda tx: tx.run("UPDATE upkeep SET until = 0"))
        server.store.write(lambda tx: upkeep.take(tx, 1, "sentiment", "t"))
        server.store.write(lambda tx: upkeep.failed(tx, 1, "sentiment", "t", "broken"))
        waits.append(round(server.store.db.value("SELECT until FROM upkeep") - time.time()))
        assert upkeep.due() == []
    assert waits[:4] == [5, 10, 20, 40] and waits[-1] == 600


def test_a_task_whose_backend_is_not_set_up_keeps_no_other_from_being_followed(two):
    """Decisions on the task after it are taken up; the page of the project says what is wrong with the first."""
    server, worker = two
    server.change_project(1, {"tasks": ["emotion", "sentiment"]})
    server.change_task(1, "emotion", {"backend": "openai"})
    project = server.store.projects.all()[0]
    emotion = server.project_task(project, "emotion")
    decisions = server.decisions(project, emotion)
    record = next(iter(server.store.records.pages(1)))[0]
    server.store.write(lambda tx: decisions.import_label(tx, record, ["없음"], "test", None))
    approve_topics(server, 0, 24)
    Worker(worker).run_until_idle()
    assert server.store.upkeep.due() == []
    assert [row["place"] for row in server.store.upkeep.troubles(1)] == ["emotion"]
    assert server.suggester_now(*task_of(server)).backend.name == "ensemble"


def test_decisions_of_a_task_that_is_gone_trouble_nobody(two):
    server, worker = two
    approve_topics(server, 0, 3)
    server.change_project(1, {"tasks": ["emotion"]})
    Worker(worker).run_until_idle()
    assert server.store.upkeep.due() == [] and server.store.upkeep.troubles(1) == []


def test_a_calibration_is_fitted_again_by_growth_of_its_pairs(lab, monkeypatch):  # noqa: F811
    """Approvals of records that the model never scored are no reason; a tenth more scored ones is, once a minute."""
    fits = []
    monkeypatch.setattr(calibration, "fit", lambda *more: fits.append(1) or Calibration("choice", trained_on=5))
    lab.instance.change_task(lab.project["id"], "sentiment", {"backend": "openai", "k": 0})
    for id_ in lab.ids[:5]:
        approve(lab, id_)
    lab.move(lab.start(lab.ids[:5], purpose="calibrate"))
    own = suggester(lab)
    place = (lab.store, lab.project["id"], "sentiment", own.task.schema, "openai")
    made = [lab.suggestions(id_)[0] for id_ in lab.ids[:5]]

    def scored(record_id):
        """Say that the model gave scores to a record."""
        one = replace(made[0], record_id=record_id, scores={"positive": 1.0})
        lab.store.write(lambda tx: lab.store.suggestions.add(tx, lab.project["id"], one))

    for one in made:
        scored(one.record_id)
    calibration.refit(*place, made[0].model_id, own.prompt_digest)
    worker, kept = Worker(lab.instance), len(fits)

    def approved_after_minutes(record_id):
        lab.store.write(lambda tx: tx.run("UPDATE calibrations SET made_at = made_at - 120"))
        approve(lab, record_id)
        worker.run_until_idle()
        return len(fits) - kept

    assert [approved_after_minutes(id_) for id_ in lab.ids[5:10]] == [0, 0, 0, 0, 0]
    scored(lab.ids[5])
    assert approved_after_minutes(lab.ids[10]) == 1
    scored(lab.ids[6])
    approve(lab, lab.ids[11])
    worker.run_until_idle()
    assert len(fits) - kept == 1


# The file of the example index


def approved_points(folder, texts):
    """Import texts whose vectors are written in them, approve all, save the index; return what it finds at (1 0)."""
    with Instance(folder) as instance:
        instance.plugins.embedders["points"] = lambda settings: Points()
        if not instance.store.projects.all():
            instance.create_project("points", "en", {"tasks": ["sentiment"], "embedder": "points"})
        project, task = task_of(instance)
        if not (folder / "backup.db").exists():
            instance.store.backup(folder / "backup.db")
        news = [NewRecord(text, text) for text in texts]
        stored = instance.store.write(lambda tx: instance.store.records.add(tx, 1, news, ["sentiment"]))
        for one in stored:
            record = instance.store.records.get(one.id)
            decisions = instance.decisions(project, task)
            instance.store.write(
                lambda tx, decisions=decisions, record=record: decisions.import_label(tx, record, "positive", "", None)
            )
        hits = instance.index(project, task).search(Query(Points().embed(["(1 0)"])[0]), len(texts))
        return {instance.store.records.get(hit.entry.record_id).text: round(hit.similarity, 3) for hit in hits}


def test_a_restored_backup_is_searched_by_the_vectors_of_its_own_texts(tmp_path):
    """Records that got the numbers of others after a restore have their own vectors, though the old file stands."""
    assert approved_points(tmp_path, ["(0 1) a", "(0 1) b", "(0 1) c"]) == {f"(0 1) {name}": 0.0 for name in "abc"}
    for name in ("labeler.db", "labeler.db-wal", "labeler.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    shutil.copy(tmp_path / "backup.db", tmp_path / "labeler.db")
    assert list((tmp_path / "index").glob("*.index"))
    assert approved_points(tmp_path, ["(1 0) d", "(1 0) e", "(1 0) f"]) == {f"(1 0) {name}": 1.0 for name in "def"}


def test_what_a_killed_process_left_half_written_is_cleared_up(tmp_path):
    """Half-written files beside the index go at the next save once they are old; one that is being written stays."""
    world = World(tmp_path, ["(1 0) a", "(0 1) b"], embedder=Points())
    world.approve(world.records[0])
    index = world.index(tmp_path / "index")
    index.refresh()
    index.save()
    stem = index.path.stem
    old, young = (index.path.with_name(f"{stem}.{n}-1.tmp") for n in (1, 2))
    for left in (old, young):
        left.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    index.save()
    assert not old.exists() and young.exists() and index.path.exists()
    world.store.close()
