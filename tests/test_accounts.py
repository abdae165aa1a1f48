"""Accounts: passwords, one-time links, the throttle, and who may change whom."""

from __future__ import annotations

import sqlite3
import threading
import unicodedata

import pytest
from werkzeug import security

from labeler import accounts
from labeler.errors import Forbidden, InputError, LabelerError, NotFound, NotSignedIn, TextError, Throttled
from labeler.store import NewRecord, Store

PASSWORD = "한 줄의 긴 암호 문장"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store with an admin and a reviewer."""
    store = Store(tmp_path_factory.mktemp("accounts") / "labeler.db", synchronous="OFF")
    accounts.add_reviewer(store, "admin", None, accounts.ADMIN)
    accounts.add_reviewer(store, "김리뷰", PASSWORD)
    yield store
    store.close()


@pytest.fixture
def store(made, tmp_path):
    made.backup(tmp_path / "labeler.db")
    with Store(tmp_path / "labeler.db", synchronous="OFF") as copy:
        yield copy


def test_right_password_opens_and_wrong_one_does_not(store):
    """The account comes back for its password only; the message does not say what was wrong."""
    assert accounts.sign_in(store, "김리뷰", PASSWORD, "here")["name"] == "김리뷰"
    messages = []
    for name, password in (("김리뷰", PASSWORD + "x"), ("nobody", PASSWORD), ("김리뷰", "")):
        with pytest.raises(NotSignedIn) as error:
            accounts.sign_in(store, name, password, "here")
        messages.append(str(error.value))
    assert len(set(messages)) == 1


def test_name_is_found_however_it_was_typed(store):
    """A decomposed name, or one with a space around it, is the same name."""
    assert accounts.sign_in(store, " " + unicodedata.normalize("NFD", "김리뷰"), PASSWORD, "here")


def test_account_without_a_password_cannot_be_entered_by_one(store):
    """No default password exists: not an empty one, not the name."""
    for password in ("", "admin", "None"):
        with pytest.raises(NotSignedIn):
            accounts.sign_in(store, "admin", password, "here")


def test_password_is_never_stored(store):
    """The file holds a scrypt hash."""
    connection = sqlite3.connect(store.path)
    text = "\n".join(connection.iterdump())
    connection.close()
    assert PASSWORD not in text and "scrypt:" in text


def test_a_guess_costs_time(monkeypatch):
    """A password is hashed with 2 to the 15 rounds of scrypt, whatever the tests take to be quick."""
    monkeypatch.setattr(accounts, "generate_password_hash", security.generate_password_hash)
    assert accounts.hash_password(PASSWORD).startswith("scrypt:32768:8:1$")


@pytest.mark.parametrize("password", ["", "short", "x" * 9, "x" * 1001])
def test_password_has_a_length(store, password):
    """Too short or too long is refused with a reason, and no account is made."""
    with pytest.raises(InputError, match="password has at"):
        accounts.add_reviewer(store, "new", password)
    assert store.people.named("new") is None


@pytest.mark.parametrize("name", ["", "   ", "x" * 61, "a\nb", "a\x1b[0mb"])
def test_name_is_printable_and_short(store, name):
    """A name that would break a page or a log line is refused."""
    with pytest.raises(InputError):
        accounts.add_reviewer(store, name, None)


def test_name_with_nul_is_refused(store):
    """What no database stores alike is stopped at the door, at signing in too."""
    with pytest.raises(TextError):
        accounts.add_reviewer(store, "a\x00b", None)
    with pytest.raises(TextError):
        accounts.sign_in(store, "a\x00b", PASSWORD, "here")


def test_names_are_unique_and_roles_known(store):
    """Two accounts of one name, or a role that does not exist, are refused."""
    with pytest.raises(InputError, match="already"):
        accounts.add_reviewer(store, "김리뷰", None)
    with pytest.raises(InputError, match="owner"):
        accounts.add_reviewer(store, "new", None, "owner")


# The throttle


def fail(store, name, address, times):
    for _ in range(times):
        with pytest.raises(NotSignedIn):
            accounts.sign_in(store, name, "wrong password", address)


def test_sixth_failure_is_throttled_where_the_others_were_and_nowhere_else(store):
    """After five failures even the right password waits there; its owner, elsewhere, is not kept out by a stranger."""
    fail(store, "김리뷰", "one", 5)
    with pytest.raises(Throttled) as error:
        accounts.sign_in(store, "김리뷰", PASSWORD, "one")
    assert error.value.retry_after > 0
    assert accounts.sign_in(store, "김리뷰", PASSWORD, "two")


def test_name_is_throttled_everywhere_after_very_many_failures(store):
    """Guesses from many addresses are counted together too, at a limit that nobody meets by mistyping."""

    def work(tx):
        for n in range(100):
            store.people.add_attempt(tx, "김리뷰", f"address {n // 4}")

    store.write(work)
    with pytest.raises(Throttled):
        accounts.sign_in(store, "김리뷰", PASSWORD, "elsewhere")


def test_guesses_made_at_once_are_counted_before_they_are_looked_at(store):
    """Twenty at the same moment are as few as twenty in a row: five are tried."""
    errors = both(*[lambda: accounts.sign_in(store, "김리뷰", "wrong password", "one")] * 20)
    assert sum(isinstance(error, NotSignedIn) for error in errors) == 5
    assert sum(isinstance(error, Throttled) for error in errors) == 15


def test_failures_from_a_clock_that_ran_ahead_keep_nobody_out(store):
    """Once the clock is right again, what was counted tomorrow counts no more."""
    fail(store, "김리뷰", "one", 5)
    store.write(lambda tx: tx.run("UPDATE attempts SET at = at + 86400"))
    assert accounts.sign_in(store, "김리뷰", PASSWORD, "one")


def test_success_forgets_the_failures(store):
    """A person who mistypes a few times and then succeeds starts anew."""
    fail(store, "김리뷰", "one", 4)
    accounts.sign_in(store, "김리뷰", PASSWORD, "one")
    fail(store, "김리뷰", "one", 4)
    assert accounts.sign_in(store, "김리뷰", PASSWORD, "one")


def test_many_names_from_one_address_are_throttled(store):
    """Trying one password on many names stops after twenty, for that address."""

    def work(tx):
        for n in range(19):
            store.people.add_attempt(tx, f"name{n}", "one")

    store.write(work)
    fail(store, "name19", "one", 1)
    with pytest.raises(Throttled):
        accounts.sign_in(store, "김리뷰", PASSWORD, "one")
    assert accounts.sign_in(store, "김리뷰", PASSWORD, "two")


def test_throttle_ends(store):
    """After its time the name is open again."""
    fail(store, "김리뷰", "one", 5)
    store.write(lambda tx: tx.run("UPDATE attempts SET at = at - 301"))
    assert accounts.sign_in(store, "김리뷰", PASSWORD, "one")


# One-time links


def test_link_opens_once(store):
    """A one-time link signs in once; only its hash is stored."""
    admin = store.people.named("admin")
    token = accounts.one_time_link(store, admin["id"])
    assert store.db.value("SELECT COUNT(*) FROM tokens WHERE hash = :t", {"t": token}) == 0
    assert accounts.use_link(store, token)["id"] == admin["id"]
    for used in (token, "", "made up"):
        with pytest.raises(NotSignedIn, match="ask for a new one"):
            accounts.use_link(store, used)


def test_link_expires_and_does_not_open_a_closed_account(store):
    """After a day, or when the account was closed, a link is worth nothing."""
    admin, person = store.people.named("admin"), store.people.named("김리뷰")
    late = accounts.one_time_link(store, person["id"])
    store.write(lambda tx: tx.run("UPDATE tokens SET expires_at = expires_at - 86401"))
    closed = accounts.one_time_link(store, person["id"])
    accounts.change_account(store, person["id"], admin["id"], disabled=True)
    with pytest.raises(InputError, match="is closed"):
        accounts.one_time_link(store, person["id"])
    for token in (late, closed):
        with pytest.raises(NotSignedIn):
            accounts.use_link(store, token)


# Changes


@pytest.mark.parametrize("end", ["link", "password", "closed", "role"])
def test_other_links_of_an_account_end_with_what_ends_its_sessions(store, end):
    """Using one link, a new password, a closed account or another role: no older link signs in any more."""
    admin, person = store.people.named("admin")["id"], store.people.named("김리뷰")["id"]
    first, second = accounts.one_time_link(store, person), accounts.one_time_link(store, person)
    others = accounts.one_time_link(store, admin)
    if end == "link":
        accounts.use_link(store, first)
    elif end == "password":
        accounts.change_password(store, person, "another long one", PASSWORD)
    else:
        accounts.change_account(
            store, person, admin, disabled=end == "closed" or None, role=accounts.ADMIN if end == "role" else None
        )
        accounts.change_account(store, person, admin, disabled=False)
    with pytest.raises(NotSignedIn):
        accounts.use_link(store, second)
    assert accounts.use_link(store, others)["id"] == admin


def test_new_password_needs_the_old_one_and_ends_open_sessions(store):
    """Only who knows the old password sets a new one; the epoch that sessions carry moves on."""
    person = store.people.named("김리뷰")
    with pytest.raises(InputError, match="old password"):
        accounts.change_password(store, person["id"], "another long one", "guess")
    with pytest.raises(InputError, match="old password"):
        accounts.change_password(store, person["id"], "another long one")
    accounts.change_password(store, person["id"], "another long one", PASSWORD)
    assert store.people.get(person["id"])["epoch"] == person["epoch"] + 1
    assert accounts.sign_in(store, "김리뷰", "another long one", "here")
    with pytest.raises(NotSignedIn):
        accounts.sign_in(store, "김리뷰", PASSWORD, "here")


def test_first_password_needs_no_old_one(store):
    """Who came in by a link sets a password without one."""
    admin = store.people.named("admin")
    accounts.change_password(store, admin["id"], "the first password")
    assert accounts.sign_in(store, "admin", "the first password", "here")


def test_closed_account_cannot_sign_in_and_its_sessions_end(store):
    """Closing an account counts at once, and can be taken back."""
    admin, person = store.people.named("admin"), store.people.named("김리뷰")
    accounts.change_account(store, person["id"], admin["id"], disabled=True)
    assert store.people.get(person["id"])["epoch"] > person["epoch"]
    with pytest.raises(NotSignedIn):
        accounts.sign_in(store, "김리뷰", PASSWORD, "here")
    accounts.change_account(store, person["id"], admin["id"], disabled=False)
    assert accounts.sign_in(store, "김리뷰", PASSWORD, "here")


def test_nobody_changes_their_own_role(store):
    """So that an instance never loses its last admin."""
    admin = store.people.named("admin")
    with pytest.raises(InputError, match="another admin"):
        accounts.change_account(store, admin["id"], admin["id"], role=accounts.REVIEWER)
    assert store.people.get(admin["id"])["role"] == accounts.ADMIN


def test_role_changes_are_checked_and_on_record(store):
    """A new role counts, an unknown one is refused, and the event says who did it."""
    admin, person = store.people.named("admin"), store.people.named("김리뷰")
    accounts.change_account(store, person["id"], admin["id"], role=accounts.ADMIN)
    assert store.people.get(person["id"])["role"] == accounts.ADMIN
    with pytest.raises(InputError):
        accounts.change_account(store, person["id"], admin["id"], role="owner")
    with pytest.raises(NotFound):
        accounts.change_account(store, 4711, admin["id"], role=accounts.ADMIN)
    events = store.db.all("SELECT reviewer_id, detail FROM events WHERE kind = 'account changed'")
    assert [row["reviewer_id"] for row in events] == [admin["id"]]


def test_members_come_and_go(store):
    """A member has one role in a project; None takes the membership away."""
    admin, person = store.people.named("admin"), store.people.named("김리뷰")
    project = store.write(lambda tx: store.projects.create(tx, "p", "ko", {}))
    for role in ("reviewer", None, "admin"):
        accounts.set_member(store, project, person["id"], role, admin["id"])
        assert store.projects.member_role(project, person["id"]) == role
    for wrong in ({"role": "owner"}, {"role": "adjudicator"}, {"reviewer_id": 4711}, {"project_id": 4711}):
        given = {"project_id": project, "reviewer_id": person["id"], "role": "reviewer", "by": admin["id"]} | wrong
        with pytest.raises((InputError, NotFound)):
            accounts.set_member(store, **given)


def test_what_pages_show_holds_no_secret(store):
    """The public part of an account has no hash and no epoch."""
    assert set(accounts.public(store.people.named("김리뷰"))) == {"id", "name", "role", "language"}


# Two admins at once: each change is checked in the transaction that makes it


def second_admin(store):
    accounts.add_reviewer(store, "second", None, accounts.ADMIN)
    return [store.people.named(name)["id"] for name in ("admin", "second")]


def both(*calls):
    """Make calls at the same time; return the errors that they met."""
    errors = []

    def run(call):
        try:
            call()
        except LabelerError as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


@pytest.mark.parametrize("change", [{"role": accounts.REVIEWER}, {"disabled": True}])
def test_two_admins_who_shut_each_other_out_leave_one(store, change):
    """The second of the two is no admin any more when its turn comes."""
    one, two = second_admin(store)
    errors = both(
        lambda: accounts.change_account(store, one, two, **change),
        lambda: accounts.change_account(store, two, one, **change),
    )
    assert [type(error) for error in errors] == [Forbidden]
    assert store.write(store.people.admins) == 1


def test_last_admin_of_the_instance_stays_whoever_asks(store):
    """Also where an account is changed by an admin who cannot sign in any more."""
    one, two = second_admin(store)
    accounts.change_account(store, two, one, disabled=True)
    with pytest.raises(Forbidden):
        accounts.change_account(store, one, two, role=accounts.REVIEWER)
    assert store.people.get(one)["role"] == accounts.ADMIN


def test_two_admins_who_take_each_other_out_of_a_project_leave_one(store):
    """A project that has an admin of its own keeps one, taken out or given another role."""
    one, two = second_admin(store)
    project = store.write(lambda tx: store.projects.create(tx, "p", "ko", {}))
    for person in (one, two):
        accounts.set_member(store, project, person, "admin", one)
    errors = both(
        lambda: accounts.set_member(store, project, one, None, two),
        lambda: accounts.set_member(store, project, two, "reviewer", one),
    )
    assert len(errors) == 1 and "last admin" in str(errors[0])
    assert store.write(lambda tx: store.projects.admins(project, tx)) == 1


@pytest.mark.parametrize("how", ["closed", "taken out"])
def test_what_a_person_holds_is_free_once_they_are_gone(store, how):
    """Records do not wait for the lease of somebody who cannot come back to them."""
    admin, person = store.people.named("admin")["id"], store.people.named("김리뷰")["id"]
    project = store.write(lambda tx: store.projects.create(tx, "p", "ko", {}))
    accounts.set_member(store, project, person, "reviewer", admin)
    [one] = store.write(lambda tx: store.records.add(tx, project, [NewRecord("r", "리뷰")], ["sentiment"]))
    store.write(lambda tx: store.work.claim(tx, project, one.id, "sentiment", person, "page", 600.0))
    if how == "closed":
        accounts.change_account(store, person, admin, disabled=True)
    else:
        accounts.set_member(store, project, person, None, admin)
    assert store.work.holder(None, one.id, "sentiment") is None


# Names that a person takes for one


@pytest.mark.parametrize("name", ["Root", "ROOT", "ｒｏｏｔ", "root ", "r\ufe0foot"])
def test_name_that_looks_like_another_is_refused(store, name):
    """Case, width and letters that nobody sees make no other person."""
    accounts.add_reviewer(store, "root", None)
    with pytest.raises(InputError):
        accounts.add_reviewer(store, name, None)


@pytest.mark.parametrize("name", ["a  b", "\u3164", "\u2800", "\ufe0f", "a\u200bb", "r\u043e\u043et", "\u03c1oot"])
def test_name_that_nobody_could_tell_or_type_is_refused(store, name):
    """Blank-looking names, hidden letters, letters of two alphabets that look alike in one word."""
    accounts.add_reviewer(store, "a b", None)
    with pytest.raises(InputError):
        accounts.add_reviewer(store, name, None)


@pytest.mark.parametrize("name", ["Юрий Kim", "김 Kim", "José", "山田 太郎", "Ελένη", "reviewer2"])
def test_names_of_people_are_taken(store, name):
    """Any alphabet, and several in words of their own."""
    assert accounts.add_reviewer(store, name, None)


# What was done is on record


def acts(store):
    return [(row["kind"], row["who"], row["account"]) for row in store.events.acts(None, 100)]


def test_every_way_in_leaves_an_event(store):
    """Sign-in and failure, a link made (by whom) and used, a password set: never with the token or the password."""
    admin, person = store.people.named("admin")["id"], store.people.named("김리뷰")["id"]
    with pytest.raises(NotSignedIn):
        accounts.sign_in(store, "김리뷰", "wrong password", "here")
    with pytest.raises(NotSignedIn):
        accounts.sign_in(store, "my password typed as a name", "x", "here")
    accounts.sign_in(store, "김리뷰", PASSWORD, "here")
    token = accounts.one_time_link(store, person, admin)
    accounts.use_link(store, token, "there")
    accounts.set_password(store, person, "another long one", person)
    assert acts(store)[:6] == [
        ("password changed", "김리뷰", "김리뷰"),
        ("link used", "김리뷰", "김리뷰"),
        ("link made", "admin", "김리뷰"),
        ("signed in", "김리뷰", "김리뷰"),
        ("sign-in failed", None, None),
        ("sign-in failed", None, "김리뷰"),
    ]
    details = " ".join(row["detail"] for row in store.events.acts(None, 100))
    assert "here" in details and "there" in details
    assert not any(secret in details for secret in (token, "wrong password", "another long one", "my password"))
