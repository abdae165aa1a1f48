"""Accounts: passwords, one-time sign-in links, identities of a company, and the throttle on failed sign-ins.

No default password exists.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from werkzeug.security import check_password_hash, generate_password_hash

from labeler import strictjson
from labeler.errors import Forbidden, InputError, LabelerError, NotFound, NotSignedIn, Throttled
from labeler.sentence import N_
from labeler.store import Row, Store, Tx
from labeler.text import checked_name, clean_text

REVIEWER, ADJUDICATOR, OBSERVER, ADMIN = "reviewer", "adjudicator", "observer", "admin"
ROLES = (REVIEWER, ADMIN)
"""Of an account: an admin sees and does everything, in every project."""
MEMBER_ROLES = (REVIEWER, ADJUDICATOR, OBSERVER, ADMIN)
"""Of a member of a project: an adjudicator decides what reviewers disagree on, an observer sees and changes nothing."""
SIGN_IN = "sign-in"
_NAME = N_("A person needs a name of 1 to %(most)s printable characters")
MIN_PASSWORD = 10
_LINK_SECONDS = 24 * 3600.0
_WINDOW = 300.0
# Failures in that time: of one name from one address, of one name from anywhere, from one address.
_BY_BOTH, _BY_NAME, _BY_ADDRESS = 5, 100, 20
_EMAIL = re.compile(r"[!-?A-~]{1,64}@[a-z0-9-]+(\.[a-z0-9-]+)+")


class Identity(NamedTuple):
    """Who a provider says that somebody is: a ``subject`` that never changes, and an e-mail if it was verified."""

    issuer: str
    subject: str
    email: str | None
    groups: frozenset[str]

    def is_of(self, allowed: Sequence[str]) -> bool:
        """Whether one of the domains (``@example.com``) or groups is theirs. No list allows everybody."""
        domain = f"@{self.email.rpartition('@')[2]}" if self.email else None
        return not allowed or any(one.lower() == domain if one[:1] == "@" else one in self.groups for one in allowed)


def add_reviewer(store: Store, name: str, password: str | None, role: str = REVIEWER, by: int | None = None) -> int:
    """Add an account and return its number. ``password`` None: it can only be entered by a one-time link.

    Here and below ``by`` is the admin who does it; None for whoever works on the instance by command.
    Raises :class:`InputError` for a name or a role that cannot be.
    """
    name = checked_name(name, _NAME, 60)
    if role not in ROLES:
        raise InputError("No role %(role)r; there are: %(names)s", role=role, names=", ".join(ROLES))
    digest = None if password is None else hash_password(password)
    return store.write(lambda tx: _add(store, tx, name, digest, role, by))


def _add(store: Store, tx: Tx, name: str, digest: str | None, role: str, by: int | None) -> int:
    id_ = store.people.create(tx, name, digest, role)
    store.events.add(tx, "account added", reviewer_id=by, detail={"account": id_, "role": role})
    return id_


def hash_password(password: str) -> str:
    """Return the scrypt hash of a password. Raises :class:`InputError` if it is too short or too long."""
    if len(password) < MIN_PASSWORD:
        raise InputError("A password has at least %(n)s characters; a few words make a good one", n=MIN_PASSWORD)
    if len(password) > 1000:
        raise InputError("A password has at most 1000 characters")
    return generate_password_hash(password, method="scrypt")


# Compared with when the name is unknown, so that a wrong name takes as long as a wrong password.
_NOBODY = generate_password_hash(secrets.token_hex(16), method="scrypt")


def sign_in(store: Store, name: str, password: str, address: str) -> Row:
    """Return the account. Raises :class:`NotSignedIn`, or :class:`Throttled` after repeated failures.

    An attempt is counted before the password is looked at, so that guesses made at once are as few as those made one
    after another. The short limit is one of name and address together: a stranger elsewhere keeps nobody out.
    """
    name = clean_text(name, "name")
    if store.read_only:
        return _sign_in_to_look(store, name, password, address)
    store.write(lambda tx: _count_attempt(store, tx, name, address))
    person = store.people.named(name)
    right = check_password_hash((person["password"] if person else None) or _NOBODY, password)
    detail = {"account": person["id"] if person else None, "address": address}
    if person is None or not right or person["disabled"]:
        # Not the name that was typed: people type their password there.
        store.write(lambda tx: store.events.add(tx, "sign-in failed", detail=detail))
        raise NotSignedIn("The name or the password is wrong")

    def work(tx: Tx) -> None:
        store.people.clear_attempts(tx, name, address)
        store.events.add(tx, "signed in", reviewer_id=person["id"], detail=detail)

    store.write(work)
    return person


def _count_attempt(store: Store, tx: Tx, name: str, address: str) -> None:
    both, by_name, by_address = store.people.attempts(tx, name, address, _WINDOW)
    if both >= _BY_BOTH or by_name >= _BY_NAME or by_address >= _BY_ADDRESS:
        raise Throttled("Too many failed sign-ins; wait five minutes and try again", _WINDOW)
    store.people.add_attempt(tx, name, address)


def sign_out(store: Store, reviewer_id: int, session: str, seconds: float) -> None:
    """End one session by its secret; a copy of its cookie, which lives for ``seconds``, opens nothing any more."""
    store.write(lambda tx: store.people.end_session(tx, reviewer_id, _digest(session), time.time() + seconds))


def of_session(store: Store, reviewer_id: int, session: str) -> Row | None:
    """Return the account of a session; None if it was signed out."""
    return store.people.of_session(reviewer_id, _digest(session))


def sign_in_by(
    store: Store, ask: Callable[[], Identity], allowed: Sequence[str], new: bool, attempt: str, address: str
) -> Row:
    """Return the account of whom a company's provider knows; ``ask`` asks it, and raises what went wrong.

    The first time, the account is the one whose e-mail is the verified one of the identity; from then on it is the one
    that was linked so, whatever becomes of the e-mail. A name opens nothing: anybody may call an account anything.
    With ``new``, and a list of whom that is for, a person without an account gets one. ``attempt`` is a text of its own
    for each attempt, so that only the limit of an address is met. Raises :class:`NotSignedIn`, :class:`Forbidden`,
    :class:`Throttled`, :class:`InputError` for an e-mail that cannot be the name of a new account.
    """
    if store.read_only:
        return _sign_in_by_to_look(store, ask, allowed, attempt, address)
    store.write(lambda tx: _count_attempt(store, tx, attempt, address))
    try:
        identity = ask()
        person: Row = store.write(lambda tx: _entered(store, tx, identity, allowed, new, address))
    except LabelerError:
        detail = {"account": None, "address": address}
        store.write(lambda tx: store.events.add(tx, "sign-in failed", detail=detail))
        raise
    store.write(lambda tx: store.people.clear_attempts(tx, attempt, address))
    return person


def _entered(store: Store, tx: Tx, identity: Identity, allowed: Sequence[str], new: bool, address: str) -> Row:
    _check_allowed(identity, allowed)
    person = store.people.linked(tx, identity.issuer, identity.subject)
    if person is None:
        person = _found_by_email(store, tx, identity, new and bool(allowed))
        _check_open(person)
        store.people.link(tx, person["id"], identity.issuer, identity.subject)
        store.events.add(tx, "account linked", reviewer_id=person["id"], detail={"account": person["id"]})
    _check_open(person)
    detail = {"account": person["id"], "address": address}
    store.events.add(tx, "signed in", reviewer_id=person["id"], detail=detail)
    return person


def _found_by_email(store: Store, tx: Tx, identity: Identity, new: bool) -> Row:
    if identity.email is None:
        raise Forbidden("The provider does not say that your e-mail is verified; ask an admin")
    person = store.people.with_email(tx, identity.email)
    if person is not None and person["issuer"] == identity.issuer:
        # Addresses are given to new people when old ones leave.
        raise Forbidden(
            "The account with the e-mail %(email)s belongs to somebody who had it before; if it is you, an admin "
            "enters the e-mail again under People",
            email=identity.email,
        )
    if person is None and new:
        id_ = _add(store, tx, checked_name(identity.email, _NAME, 60), None, REVIEWER, None)
        store.people.set_email(tx, id_, identity.email)
        person = store.people.get(id_, tx)
    if person is None:
        raise Forbidden(
            "No account has the e-mail %(email)s; an admin enters it under People, at your account or at a new one",
            email=identity.email,
        )
    return person


def _check_allowed(identity: Identity, allowed: Sequence[str]) -> None:
    if not identity.is_of(allowed):
        raise Forbidden("You are in none of the domains and groups that may sign in here; ask an admin")


def _check_open(person: Row) -> None:
    if person["disabled"]:
        raise Forbidden("The account of %(name)s is closed; an admin opens it again under People", name=person["name"])


def _sign_in_by_to_look(
    store: Store, ask: Callable[[], Identity], allowed: Sequence[str], attempt: str, address: str
) -> Row:
    _check_recent(store, attempt, address)
    try:
        identity = ask()
        _check_allowed(identity, allowed)
        person = store.people.linked(store.db, identity.issuer, identity.subject)
        if person is None:
            raise Forbidden("You sign in here for the first time, and nothing can be changed at the moment")
        _check_open(person)
    except LabelerError:
        store.people.unwritten.append((time.monotonic(), attempt, address))
        raise
    return person


def checked_email(raw: str) -> str:
    """Return an e-mail address in small letters. Raises :class:`InputError` for what is none, or not in ASCII.

    Other alphabets have letters that look like those of another address.
    """
    email = raw.strip().lower()
    if not raw.isascii() or len(email) > 254 or not _EMAIL.fullmatch(email):
        raise InputError("%(value)r is no e-mail address; example: kim@example.com", value=raw[:80])
    return email


def set_email(store: Store, reviewer_id: int, email: str | None, by: int | None = None) -> None:
    """Say by which e-mail a company's provider knows an account; None: by none.

    Also the same e-mail again: whoever the account was linked to by it is signed out, and whoever has the e-mail now is
    linked when they sign in. Raises :class:`InputError`, :class:`NotFound` for nobody.
    """
    checked = checked_email(email) if email else None

    def work(tx: Tx) -> None:
        _check_admin(store, tx, by)
        if store.people.get(reviewer_id, tx) is None:
            raise NotFound("There is no account number %(number)s", number=reviewer_id)
        store.people.set_email(tx, reviewer_id, checked)
        detail = {"account": reviewer_id, "email": checked}
        store.events.add(tx, "account changed", reviewer_id=by, detail=detail)

    store.write(work)


def _check_recent(store: Store, name: str, address: str) -> None:
    recent = [attempt for attempt in list(store.people.unwritten) if attempt[0] > time.monotonic() - _WINDOW]
    both = sum(attempt[1:] == (name, address) for attempt in recent)
    if both >= _BY_BOTH or sum(attempt[2] == address for attempt in recent) >= _BY_ADDRESS:
        raise Throttled("Too many failed sign-ins; wait five minutes and try again", _WINDOW)


def _sign_in_to_look(store: Store, name: str, password: str, address: str) -> Row:
    """Sign in where nothing can be written; failures are counted by this process, which is the only one that knows."""
    _check_recent(store, name, address)
    person = store.people.named(name)
    right = check_password_hash((person["password"] if person else None) or _NOBODY, password)
    if person is None or not right or person["disabled"]:
        store.people.unwritten.append((time.monotonic(), name, address))
        raise NotSignedIn("The name or the password is wrong")
    return person


def one_time_link(store: Store, reviewer_id: int, by: int | None = None) -> str:
    """Return a fresh one-time token for a sign-in link, valid for a day. Only its hash is stored."""
    token = secrets.token_urlsafe(24)

    def work(tx: Tx) -> None:
        person = store.people.get(reviewer_id, tx)
        if person is None:
            raise NotFound("There is no account number %(number)s", number=reviewer_id)
        if person["disabled"]:
            raise InputError(
                "The account of %(name)s is closed; an admin opens it again under People", name=person["name"]
            )
        store.people.add_token(tx, reviewer_id, SIGN_IN, _digest(token), time.time() + _LINK_SECONDS)
        store.events.add(tx, "link made", reviewer_id=by, detail={"account": reviewer_id})

    store.write(work)
    return token


def use_link(store: Store, token: str, address: str = "") -> Row:
    """Return the account of a one-time token, and use up all links of it. Raises :class:`NotSignedIn`."""

    def work(tx: Tx) -> Row | None:
        id_ = store.people.use_token(tx, SIGN_IN, _digest(token))
        person = store.people.get(id_, tx) if id_ is not None else None
        if person is None or person["disabled"]:
            return None
        store.people.void_tokens(tx, person["id"])
        detail = {"account": person["id"], "address": address}
        store.events.add(tx, "link used", reviewer_id=person["id"], detail=detail)
        return person

    person = store.write(work)
    if person is None:
        raise NotSignedIn("This sign-in link was used already or has expired; ask for a new one, or restart the server")
    return person


def change_password(store: Store, reviewer_id: int, new: str, old: str | None = None) -> None:
    """Set one's own new password; the old one is needed if there is one. See :func:`set_password`.

    Raises :class:`InputError` where the old one is wrong.
    """
    person = store.people.get(reviewer_id)
    if person is not None and person["password"] is not None and not check_password_hash(person["password"], old or ""):
        raise InputError("The old password is wrong")
    set_password(store, reviewer_id, new, reviewer_id)


def set_password(store: Store, reviewer_id: int, new: str, by: int | None = None) -> None:
    """Set a new password without the old one. All open sessions of the account end, and its links are void."""
    digest = hash_password(new)

    def work(tx: Tx) -> None:
        store.people.change(tx, reviewer_id, password=digest)
        store.events.add(tx, "password changed", reviewer_id=by, detail={"account": reviewer_id})

    store.write(work)


def change_account(
    store: Store, reviewer_id: int, by: int | None, *, role: str | None = None, disabled: bool | None = None
) -> None:
    """Change the role of an account, or close or open it. Its open sessions end, and what it holds is free again.

    Nobody changes their own, and an instance never loses its last admin. That is checked in the transaction that makes
    the change, and so is that ``by`` is still an admin: two admins who close each other's account at the same moment
    leave one. Raises :class:`Forbidden`, or :class:`InputError` with what to do.
    """
    if reviewer_id == by:
        raise InputError("You cannot change the role of your own account or close it; ask another admin")
    if role is not None and role not in ROLES:
        raise InputError("No role %(role)r; there are: %(names)s", role=role, names=", ".join(ROLES))
    given = {"role": role, "disabled": None if disabled is None else int(disabled)}
    changes = {name: value for name, value in given.items() if value is not None}

    def work(tx: Tx) -> None:
        _check_admin(store, tx, by)
        store.people.change(tx, reviewer_id, **changes)
        if disabled:
            store.work.release_all(tx, reviewer_id)
            store.notes.pass_on(tx, reviewer_id)
        if store.people.admins(tx) == 0:
            raise InputError("An instance needs an admin who can sign in; make another account one first")
        store.events.add(tx, "account changed", reviewer_id=by, detail={"account": reviewer_id, **changes})

    store.write(work)


def set_member(store: Store, project_id: int, reviewer_id: int, role: str | None, by: int | None) -> None:
    """Give an account a role in a project, or take it out with None; then what it holds there is free again.

    A project that has an admin of its own keeps one: that and the right of ``by`` are checked in the transaction that
    makes the change, so that two who do it to each other at the same moment leave one.
    Raises :class:`InputError` for an unknown role or the last admin, :class:`NotFound` for nobody.
    """
    if role is not None and role not in MEMBER_ROLES:
        raise InputError("No role %(role)r; there are: %(names)s", role=role, names=", ".join(MEMBER_ROLES))
    if store.people.get(reviewer_id) is None:
        raise NotFound("There is no account number %(number)s", number=reviewer_id)
    store.projects.get(project_id)

    def work(tx: Tx) -> None:
        _check_admin(store, tx, by)
        before = store.projects.admins(project_id, tx)
        if role is None:
            store.projects.remove_member(tx, project_id, reviewer_id)
        else:
            store.projects.add_member(tx, project_id, reviewer_id, role)
        if role in (None, OBSERVER):
            store.work.release_all(tx, reviewer_id, project_id)
            store.notes.pass_on(tx, reviewer_id, project_id)
        if before and store.projects.admins(project_id, tx) == 0:
            raise InputError("This is the project's last admin; make another member its admin first")
        detail = {"account": reviewer_id, "role": role}
        store.events.add(tx, "member changed", project_id=project_id, reviewer_id=by, detail=detail)

    store.write(work)


def _check_admin(store: Store, tx: Tx, reviewer_id: int | None) -> None:
    """Raise :class:`Forbidden` if somebody was an admin when the request came in, and no longer is."""
    if reviewer_id is None:
        return
    person = store.people.get(reviewer_id, tx)
    if person is None or person["role"] != ADMIN or person["disabled"]:
        raise Forbidden("Only an admin may do this")


def desk_of(person: Row) -> dict[str, Any]:
    """Return how a person has set up the desk: ``keys``, those that are not the usual ones, and ``advance``."""
    stored: dict[str, Any] = strictjson.loads(person["desk"] or "{}")
    return {"keys": {}, "advance": False} | stored


def set_up_desk(store: Store, reviewer_id: int, change: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """Store what ``change`` makes of a person's desk, and return it. Raises what ``change`` raises."""

    def work(tx: Tx) -> dict[str, Any]:
        person = store.people.get(reviewer_id, tx)
        assert person is not None
        found = change(desk_of(person))
        store.people.change(tx, reviewer_id, desk=strictjson.dumps(found))
        return found

    return store.write(work)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def public(person: Row) -> dict[str, Any]:
    """Return what pages may show of an account."""
    return {name: person[name] for name in ("id", "name", "role", "language")}
