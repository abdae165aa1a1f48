"""Accounts."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from labeler.cli.base import cli, with_instance

if TYPE_CHECKING:
    from labeler.instance import Instance


@cli.group()
def user() -> None:
    """Accounts."""


@user.command(name="add")
@click.argument("name")
@click.option("--admin", is_flag=True, help="May change settings, import and export")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input")
@click.option("--project", "project_names", multiple=True, metavar="NAME", help="A project the reviewer works on")
@with_instance
def user_add(instance: Instance, name: str, admin: bool, password_stdin: bool, project_names: tuple[str, ...]) -> None:
    """Add an account and print a one-time sign-in link path (or set its password from standard input)."""
    from labeler import accounts

    password = sys.stdin.readline().rstrip("\n") if password_stdin else None
    members = [instance.store.projects.named(project)["id"] for project in project_names]
    id_ = accounts.add_reviewer(instance.store, name, password, accounts.ADMIN if admin else accounts.REVIEWER)
    for project_id in members:
        instance.store.write(
            lambda tx, project_id=project_id: instance.store.projects.add_member(  # type: ignore[misc]
                tx, project_id, id_, accounts.REVIEWER
            )
        )
    if password is None:
        click.echo(f"One-time sign-in, valid for a day: /welcome?token={accounts.one_time_link(instance.store, id_)}")
    else:
        click.echo(f"Added {name}.")
