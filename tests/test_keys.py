"""The keys of a person: which can be, what they collide with, and that they are stored with the account."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from conftest import enter
from flask import Flask
from flask.testing import FlaskClient
from helpers import migrations_before
from test_web_access import token_of

from labeler import accounts, keys
from labeler.errors import InputError
from labeler.store import Store
from labeler.store import migrations as schema


def doubled(found: Mapping[str, str]) -> list[str]:
    """Return the presses that stand for two things: a command and a command, or a command and a label."""
    all_ = [press for name, key in found.items() for press in keys._presses(keys.NAMED[name], key)]
    all_ += [press for press in keys.slots(found) if press not in all_]
    return [press for press in set(all_) if all_.count(press) > 1]


@pytest.mark.parametrize("preset", keys.PRESETS)
def test_no_preset_gives_one_key_to_two_commands(preset: str) -> None:
    found = keys.keys_of(keys.PRESETS[preset])
    assert doubled(found) == [] and keys.preset_of(keys.PRESETS[preset]) == preset
    # Label Studio knows one key to approve by, which works in text fields too.
    assert [name for name, key in found.items() if not key] == ["approve"] * (preset == "Label Studio")


def test_a_key_that_was_chosen_counts_and_can_be_given_back() -> None:
    own = keys.changed({}, "skip", "KeyJ")
    assert keys.keys_of(own)["skip"] == "KeyJ" and keys.preset_of(own) is None
    assert keys.changed(own, "skip", "Space") == {}
    assert keys.keys_of(keys.changed({}, "reject", ""))["reject"] == ""


@pytest.mark.parametrize(
    ("command", "key", "both"),
    [
        ("skip", "KeyX", ("Reject", "Skip", "X is")),
        ("mark", "Shift+ArrowLeft", ("Word before", "Mark or add", "⇧ ← is")),
        ("left", "KeyS", ("Second opinion", "Word before", "S is")),
        ("place1", "KeyG", ("Guidelines", "Number 1", "G is")),
    ],
)
def test_a_key_of_another_command_is_refused_with_both_names(command: str, key: str, both: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as refused:
        keys.changed({}, command, key)
    assert all(name in str(refused.value) for name in both)


def test_two_keys_are_swapped_by_taking_one_away_first() -> None:
    own = keys.changed(keys.changed({}, "reject", ""), "second", "KeyX")
    assert keys.keys_of(keys.changed(own, "reject", "KeyS"))["reject"] == "KeyS"


@pytest.mark.parametrize("key", ["Ctrl+KeyW", "Alt+ArrowLeft", "F5", "Escape", "Shift+Tab", "Ctrl+Shift+KeyT", "x"])
def test_what_belongs_to_the_browser_cannot_be_a_key(key: str) -> None:
    with pytest.raises(InputError, match="belongs to the browser or to the system"):
        keys.changed({}, "skip", key)


@pytest.mark.parametrize(("command", "key"), [("skip", "Digit3"), ("skip", "Shift+Digit3"), ("place1", "Digit2")])
def test_digits_stay_with_labels_and_numbers(command: str, key: str) -> None:
    with pytest.raises(InputError, match="Digits stay with labels and numbers"):
        keys.changed({}, command, key)


def test_a_key_that_has_a_meaning_with_shift_is_pressed_alone() -> None:
    with pytest.raises(InputError, match="has a meaning of its own"):
        keys.changed({}, "place1", "Shift+KeyQ")


def test_a_command_that_does_not_exist_has_no_key() -> None:
    with pytest.raises(InputError, match="There is no command 'fly'"):
        keys.changed({}, "fly", "KeyF")


def test_a_letter_of_a_command_goes_to_no_label() -> None:
    """The labels after the twentieth go by Shift and the letters that are free."""
    assert keys.slots(keys.keys_of({}))[20:23] == ["Shift+KeyA", "Shift+KeyB", "Shift+KeyC"]
    own = keys.changed(keys.changed({}, "skip", "Shift+KeyB"), "place1", "KeyC")
    found = keys.slots(keys.keys_of(own))
    assert (found[0], found[10]) == ("KeyC", "Shift+KeyC") and found[20:22] == ["Shift+KeyA", "Shift+KeyD"]
    assert doubled(keys.keys_of(own)) == []


def test_a_key_of_a_person_counts_before_what_a_newer_version_puts_there() -> None:
    """The command has no key then, and what cannot be read any more is left out."""
    found = keys.keys_of({"skip": "KeyG", "gone": "KeyP", "undo": "F13"})
    assert (found["skip"], found["guide"], found["undo"]) == ("KeyG", "", "Backspace") and doubled(found) == []


@pytest.mark.parametrize(
    ("key", "name"),
    [("Shift+KeyA", "⇧A"), ("Shift+Enter", "⇧ ↵"), ("Ctrl+Enter", "Ctrl ↵"), ("Shift+Slash", "?"), ("", "")],
)
def test_keys_have_short_names(key: str, name: str) -> None:
    assert keys.shown(key) == name


# Stored with the account


def test_keys_are_stored_with_the_account(client: FlaskClient, app: Flask, people: dict[str, int]) -> None:
    """They are there in another browser, end no session, and are nobody else's."""
    token = {"X-CSRFToken": token_of(client, "/account")}
    answer = client.post("/account/keys", json={"command": "skip", "key": "KeyJ"}, headers=token)
    assert answer.status_code == 200 and answer.json["names"]["skip"] == "J"
    other = app.test_client()
    enter(other, app, people["admin"])
    assert 'value="J"' in other.get("/account/keys").text and client.get("/account").status_code == 200
    somebody = app.test_client()
    enter(somebody, app, people["reviewer"])
    assert 'value="J"' not in somebody.get("/account/keys").text


def test_a_conflict_is_said_and_nothing_is_stored(client: FlaskClient, store: Store, people: dict[str, int]) -> None:
    token = {"X-CSRFToken": token_of(client, "/account")}
    answer = client.post("/account/keys", json={"command": "skip", "key": "KeyX"}, headers=token)
    assert answer.status_code == 400 and "“건너뛰기”" in answer.json["said"] and "“제외”" in answer.json["said"]
    assert store.people.get(people["admin"])["desk"] is None


def test_a_preset_replaces_keys_and_leaves_the_switch(
    client: FlaskClient, store: Store, people: dict[str, int]
) -> None:
    token = token_of(client, "/account")
    client.post("/account/keys/advance", data={"csrf_token": token, "advance": "1"})
    client.post("/account/keys/preset", data={"csrf_token": token, "preset": "Prodigy"})
    desk = accounts.desk_of(store.people.get(people["admin"]))
    assert desk == {"keys": keys.PRESETS["Prodigy"], "advance": True}
    client.post("/account/keys/preset", data={"csrf_token": token, "preset": "Labeler"})
    assert accounts.desk_of(store.people.get(people["admin"])) == {"keys": {}, "advance": True}
    assert client.post("/account/keys/preset", data={"csrf_token": token, "preset": "vi"}).status_code == 400


def test_accounts_from_before_have_the_usual_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = schema.migrations
    monkeypatch.setattr(schema, "migrations", migrations_before(known, "m041"))
    with Store(tmp_path / "labeler.db") as store:
        kim = store.write(lambda tx: store.people.create(tx, "kim", None, "reviewer"))
    monkeypatch.setattr(schema, "migrations", known)
    with Store(tmp_path / "labeler.db") as store:
        assert accounts.desk_of(store.people.get(kim)) == {"keys": {}, "advance": False}
