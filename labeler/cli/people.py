"""Accounts."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from labeler.cli.base import cli, with_instance, with_new_instance
from labeler.errors import NotFound
from labeler.text import one_line

if TYPE_CHECKING:
    from labeler.instance import Instance
    from labeler.store import Row

_FROM_STDIN = click.option("--password-stdin", is_flag=True, help="Read the password from standard input")


@cli.group()
def user() -> None:
    """Accounts."""


@user.command(name="add")
@click.argument("name")
@click.option("--admin", is_flag=True, help="May do everything: settings, people, import, export, paid runs")
@_FROM_STDIN
@click.option("--project", "project_names", multiple=True, metavar="NAME", help="A project the reviewer works on")
@click.option("--email", metavar="ADDRESS", help="The e-mail by which the company's sign-in knows the person")
@with_new_instance
def user_add(
    instance: Instance,
    name: str,
    admin: bool,
    password_stdin: bool,
    project_names: tuple[str, ...],
    email: str | None,
) -> None:
    """Add an account and print a one-time sign-in link path (or set its password from standard input)."""
    from labeler import accounts

    password = _typed() if password_stdin else None
    members = [instance.store.projects.named(project)["id"] for project in project_names]
    email = accounts.checked_email(email) if email else None
    id_ = accounts.add_reviewer(instance.store, name, password, accounts.ADMIN if admin else accounts.REVIEWER)
    for project_id in members:
        accounts.set_member(instance.store, project_id, id_, accounts.REVIEWER, None)
    if email:
        accounts.set_email(instance.store, id_, email)
    if password is None:
        _print_link(instance, id_)
    else:
        click.echo(f"Added {name}.")


@user.command(name="list")
@with_instance
def user_list(instance: Instance) -> None:
    """List the accounts: role, projects, and whether they can sign in with a password."""
    store = instance.store
    for row in store.people.all():
        names = ", ".join(one_line(project["name"]) for project in store.projects.of_member(row["id"]))
        states = [row["role"], *(["closed"] if row["disabled"] else [] if row["has_password"] else ["no password yet"])]
        click.echo(f"{one_line(row['name'])}: {', '.join(states)}{f'; member of {names}' if names else ''}")


@user.command(name="link")
@click.argument("name")
@with_instance
def user_link(instance: Instance, name: str) -> None:
    """Print a one-time sign-in link for an account, for example for a forgotten password."""
    _print_link(instance, _named(instance, name)["id"])


@user.command(name="password")
@click.argument("name")
@_FROM_STDIN
@with_instance
def user_password(instance: Instance, name: str, password_stdin: bool) -> None:
    """Set the password of an account, typed twice, without the old one; it is signed out everywhere."""
    from labeler import accounts

    person = _named(instance, name)
    password = _typed() if password_stdin else click.prompt("New password", hide_input=True, confirmation_prompt=True)
    accounts.set_password(instance.store, person["id"], password)
    click.echo(f"Set the password of {person['name']}.")


@user.command(name="email")
@click.argument("name")
@click.argument("email", metavar="ADDRESS")
@with_instance
def user_email(instance: Instance, name: str, email: str) -> None:
    """Set the e-mail by which the company's sign-in knows a person; "" removes it. Who had it before is forgotten."""
    from labeler import accounts

    person = _named(instance, name)
    accounts.set_email(instance.store, person["id"], email or None)
    click.echo(f"Set the e-mail of {person['name']}." if email else f"{person['name']} has no e-mail any more.")


@user.command(name="close")
@click.argument("name")
@with_instance
def user_close(instance: Instance, name: str) -> None:
    """Close an account: it is signed out and frees its records. An admin can open it again on the page."""
    from labeler import accounts

    person = _named(instance, name)
    accounts.change_account(instance.store, person["id"], None, disabled=True)
    click.echo(f"Closed the account of {person['name']}; what they labeled stays.")


def _typed() -> str:
    return sys.stdin.readline().rstrip("\r\n")


def _named(instance: Instance, name: str) -> Row:
    person = instance.store.people.named(name)
    if person is None:
        names = ", ".join(row["name"] for row in instance.store.people.all()[:20]) or "none yet"
        raise NotFound(f"No account {name!r}; there are: {names}")
    return person


def _print_link(instance: Instance, reviewer_id: int) -> None:
    from labeler import accounts

    token = accounts.one_time_link(instance.store, reviewer_id)
    click.echo(f"One-time sign-in, valid for a day: /welcome?token={token}")
    click.echo("Put the address of your server before it, such as http://127.0.0.1:8765.", err=True)
