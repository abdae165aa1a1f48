"""``labeler doctor --deep`` names the rows that contradict each other, ``--repair`` makes again what is derived."""

from __future__ import annotations

import json

import pytest

from labeler.doctor import examine
from labeler.export import service
from labeler.instance import Instance
from labeler.prelabel import runs
from labeler.store import NewRecord
from labeler.worker import Worker


@pytest.fixture
def folder(tmp_path):
    """A closed instance with reviews of two products, approvals, a run, an index and an export."""
    with Instance(tmp_path / "instance") as instance:
        project = instance.create_project("shop", "en", {"tasks": ["sentiment", "summary_polarity"]})
        instance.change_task(project, "summary_polarity", {"unit": "group"})
        texts = [
            "the apples were sweet and crisp",
            "delivery was late again",
            "the apples were sweet and crisp!!",
            "so so",
        ]
        news = [NewRecord(f"r{n}", text, group=f"P{n % 2}") for n, text in enumerate(texts)]
        add = instance.store.records.add
        instance.store.write(lambda tx: add(tx, project, news, ["sentiment"]))
        Worker(instance).run_until_idle()
        found = instance.store.projects.get(project)
        task = instance.project_task(found, "sentiment")
        ids = list(runs.select(instance.store, project, "sentiment", None, True))
        decisions = instance.decisions(found, task)
        record = instance.store.records.get(ids[0])
        instance.store.write(lambda tx: decisions.import_label(tx, record, "positive", "test", None))
        runs.start(instance.store, project, "sentiment", ids[1:], {"backend": "nearest"})
        Worker(instance).run_until_idle()
        service.export_task(
            instance.store, found, task, "trl", tmp_path / "training", formats=instance.plugins.exporters
        )
    return tmp_path / "instance"


def change(folder, sql, *values):
    """Change rows behind the program's back."""
    with Instance(folder) as instance:
        assert instance.store.write(lambda tx: tx.run(sql, values)) > 0


def bad(findings):
    return [finding.text for finding in findings if not finding.good]


def test_a_sound_instance_passes_in_depth(folder):
    """Nothing is wrong, each thing that was looked at is named, and looking changes nothing."""
    before = (folder / "labeler.db").read_bytes()
    findings = examine(folder, deep=True)
    assert bad(findings) == []
    text = "\n".join(finding.text for finding in findings)
    for words in ("sum of the calls", "queue is what", "pages count", "made for its record", "by its words",
                  "its reviews say", "one cluster", "files of every export", "example index"):  # fmt: skip
        assert words in text
    assert (folder / "labeler.db").read_bytes() == before


DERIVED = {
    "counts of runs": ("UPDATE runs SET done = done + 5", "Run 1 counts"),
    "state in the queue": ("UPDATE work SET state = 'pending', annotation_id = NULL WHERE record_id = 1", "Record 1"),
    "pointer to a foreign suggestion": (
        "UPDATE work SET suggestion_id = (SELECT MAX(id) FROM suggestions) WHERE record_id = 2 AND task = 'sentiment'",
        "Record 2, sentiment: the queue shows a suggestion that is not its own",
    ),
    "counts of pages": ("UPDATE counts SET n = n + 1 WHERE what = 'work'", "count of work of 1, sentiment, approved"),
    "words": ("INSERT INTO record_search (record_search) VALUES ('delete-all')", "cannot be found by their words"),
    "text of a product": (
        "UPDATE records SET text = 'torn', content_hash = 'torn' WHERE kind = 'group' AND grp = 'P0'", "'P0'"
    ),
    "clusters": ("UPDATE records SET cluster = id WHERE cluster <> id", "not in the cluster"),
}  # fmt: skip


@pytest.mark.parametrize("what", DERIVED)
def test_what_is_derived_is_named_and_made_again(folder, what):
    """A look in depth names the row and changes nothing; a repair makes it right, says so, and all is well after."""
    sql, named = DERIVED[what]
    with Instance(folder) as instance:
        instance.store.write(lambda tx: tx.run(sql))
    assert any(named in text for text in bad(examine(folder, deep=True))), bad(examine(folder, deep=True))
    assert bad(examine(folder)) == []
    repaired = examine(folder, repair=True)
    assert bad(repaired) == []
    assert any(finding.text.startswith("Mended: ") and named in finding.text for finding in repaired)
    assert bad(examine(folder, deep=True)) == []


def test_what_was_paid_or_decided_is_named_and_never_changed(folder):
    """Money that does not add up is for people to look at: no repair touches it."""
    change(folder, "UPDATE runs SET spent = 7.5")
    before = bad(examine(folder, deep=True))
    assert any("Run 1 counts $7.500000 as spent" in text for text in before)
    assert bad(examine(folder, repair=True)) == before


def test_an_index_that_differs_is_made_again(folder):
    """An index that holds what is not approved any more is named, and built anew by a repair."""
    with Instance(folder) as instance:
        project = instance.store.projects.get(1)
        index = instance.index(project, instance.project_task(project, "sentiment"))
        index.refresh()
        index.save()
    change(folder, "UPDATE annotations SET superseded_by = id WHERE task = 'sentiment'")
    change(folder, "UPDATE work SET state = 'pending', annotation_id = NULL")
    assert any("The index of shop, sentiment differs" in text for text in bad(examine(folder)))


def test_a_file_of_an_export_that_was_changed_is_named(folder):
    """What a trainer would read is not what was exported: doctor says which file."""
    path = folder.parent / "training" / "records.jsonl"
    path.write_text(path.read_text() + json.dumps({"id": "more"}) + "\n")
    assert any(str(path) in text for text in bad(examine(folder, deep=True)))


def test_deep_look_is_taken_whatever_else_is_wrong(folder):
    """A plugin that is disabled is no reason to leave the books unread."""
    change(folder, "UPDATE runs SET done = done + 1")
    (folder / "plugins").mkdir(exist_ok=True)
    (folder / "plugins" / "broken.py").write_text("1 / 0\n")
    bad = [finding.text for finding in examine(folder, deep=True) if not finding.good]
    assert any("Plugin" in text for text in bad) and any(text.startswith("Run 1 counts") for text in bad)
