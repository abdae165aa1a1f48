"""A command and a page: how many records there are."""

import click
from flask import Blueprint, current_app

from labeler import hookimpl


@hookimpl
def register_commands(cli):
    @cli.command()
    def hello():
        """Say hello."""
        click.echo("안녕하세요")


@hookimpl
def register_blueprints():
    page = Blueprint("hello", __name__)

    @page.get("/hello")
    def hello():
        # Whoever is not signed in does not get here.
        projects = current_app.extensions["labeler"].store.projects.all()
        return f"<p>안녕하세요. {len(projects)} projects.</p>"

    return [page]
