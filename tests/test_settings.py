"""Settings: every one has a type, bounds and a default, and a wrong value says what is allowed."""

from __future__ import annotations

import pytest

from labeler.errors import SettingError
from labeler.instance import Instance
from labeler.settings import PROJECT, TASK, Setting, changed_settings, read_settings


def test_nothing_given_means_the_defaults():
    """An empty form is the defaults, and none of them has to be stored."""
    for table, settings in (("project", PROJECT), ("task", TASK)):
        empty = {setting.name: "" for setting in settings if setting.kind != "labels"}
        assert read_settings(table, {}) == read_settings(table, empty)
        assert changed_settings(table, empty) == {}
    assert read_settings("project", {})["blind_share"] == 0.05


def test_defaults_lie_within_their_own_bounds():
    """Every default would be taken if somebody typed it."""
    for setting in (*PROJECT, *TASK):
        if setting.default is not None and setting.kind != "labels":
            assert setting.read(setting.default) == setting.default


@pytest.mark.parametrize(
    ("table", "name", "raw", "value"),
    [
        ("task", "k", "8", 8),
        ("task", "k", 0, 0),
        ("task", "temperature", "0.5", 0.5),
        ("task", "temperature", 1, 1.0),
        ("task", "backend", "  openai ", "openai"),
        ("task", "pinned", ["a", "b"], ["a", "b"]),
        ("task", "guidelines", {"ko": "글"}, {"ko": "글"}),
        ("task", "seed", "42", 42),
        ("project", "order", "random", "random"),
        ("project", "refresh", "off", False),
        ("project", "refresh", "On", True),
        ("project", "refresh", "0", False),
        ("project", "refresh", False, False),
    ],
)
def test_typed_text_and_json_are_read_alike(table, name, raw, value):
    """A value comes as typed text from a form or as JSON, and is stored in its own type."""
    read = read_settings(table, {name: raw})[name]
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    ("table", "name", "raw"),
    [
        ("task", "k", "many"),
        ("task", "k", "65"),
        ("task", "k", -1),
        ("task", "k", 3.5),
        ("task", "k", True),
        ("task", "k", "9" * 5000),
        ("task", "temperature", "nan"),
        ("task", "temperature", float("inf")),
        ("task", "temperature", [1]),
        ("task", "temperature", True),
        ("task", "budget", "-1"),
        ("task", "style", "chatty"),
        ("task", "pinned", "a, b"),
        ("task", "pinned", [1]),
        ("task", "guidelines", "글"),
        ("task", "backend", 7),
        ("project", "order", "newest"),
        ("project", "blind_share", "1.5"),
        ("project", "claim_minutes", "0"),
        ("project", "refresh", "maybe"),
    ],
)
def test_wrong_value_is_refused_by_name(table, name, raw):
    """The message names the setting, so that a person knows which field to mend."""
    with pytest.raises(SettingError, match=name):
        read_settings(table, {name: raw})


@pytest.mark.parametrize("table", ["project", "task"])
def test_unknown_setting_lists_those_there_are(table):
    """A misspelled name is refused, not ignored."""
    with pytest.raises(SettingError, match=r"'temprature'.*there are"):
        read_settings(table, {"temprature": 1})


def test_message_of_a_number_names_the_bounds():
    """Out of bounds says which bounds."""
    with pytest.raises(SettingError, match=r"size is 9; it must lie between 1 and 5"):
        Setting("size", "int", 1, 1, 5).read("9")


def test_only_what_differs_is_stored():
    """A value equal to the default is not stored, so that a better default reaches old projects."""
    assert changed_settings("task", {"k": "4", "temperature": "0", "style": "few-shot"}) == {"k": 4}


def test_every_setting_says_what_it_is_for():
    """The page and the manual show these lines."""
    assert [setting.name for setting in (*PROJECT, *TASK) if not setting.help and setting.name != "labels"] == []


def test_settings_of_one_version_are_read_once(tmp_path):
    """A request asks for those of its project a dozen times; whoever changes what it got changes nobody else's."""
    with Instance(tmp_path / "instance") as instance:
        project = instance.store.projects.get(instance.create_project("shop"))
        again = instance.store.projects.get(project["id"])
        assert again["settings"] is project["settings"]
        first = instance.project_settings(project)
        first["order"] = "random"
        assert instance.project_settings(again)["order"] == "oldest"
        instance.change_project(project["id"], {"order": "score"})
        assert instance.project_settings(instance.store.projects.get(project["id"]))["order"] == "score"


def test_a_task_with_settings_of_its_own_is_made_once_a_version(tmp_path):
    """Its labels are not read anew for each request."""
    with Instance(tmp_path / "instance") as instance:
        project = instance.store.projects.get(instance.create_project("shop"))
        instance.change_task(project["id"], "sentiment", {"guidelines": {"en": "Choose one."}})
        task = instance.task_of(project, "sentiment")
        assert instance.task_of(project, "sentiment") is task
        instance.change_task(project["id"], "sentiment", {"guidelines": {"en": "Choose the best one."}})
        assert instance.task_of(project, "sentiment").guided("en") == "Choose the best one."
