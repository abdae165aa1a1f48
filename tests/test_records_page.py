"""The table of records: what the page shows of a query, what it counts, and the views that people keep."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from typing import Any
from urllib.parse import unquote

import pytest
from flask import Flask
from flask.testing import FlaskClient
from test_web_pages import token_of

from labeler.annotation.decisions import Decision
from labeler.instance import Instance
from labeler.records import Suggestion
from labeler.store import Store


@pytest.fixture
def labelled(instance: Instance, store: Store, people: dict[str, int], project: int) -> list[int]:
    """The project's records: one approved as negative, the others pending with a suggestion and a score."""
    found = store.projects.get(project)
    task = instance.task_of(found, "sentiment")
    ids = [row["id"] for row in store.db.all("SELECT id FROM records ORDER BY id")]
    for n, id_ in enumerate(ids):
        made = Suggestion(id_, "sentiment", task.version, "nearest", None, "positive", None, score=0.3 + n / 10)

        def work(tx: Any, made: Suggestion = made) -> None:
            suggestion = store.suggestions.add(tx, project, made)
            store.work.suggested(tx, made.record_id, "sentiment", suggestion, made.score, None)

        store.write(work)
    decision = Decision(ids[1], "approve", "request-of-mine", 0, "negative")
    instance.decisions(found, task).decide(people["reviewer"], decision)
    return ids


def rows_of(text: str) -> list[int]:
    return [int(number) for number in re.findall(r'data-record="(\d+)"', text)]


def test_a_query_is_shown_as_a_table_with_links_to_the_desk(
    client: FlaskClient, project: int, labelled: list[int]
) -> None:
    """Label, suggestion, score and person stand in the row; the text leads to the record at the desk."""
    text = client.get(f"/projects/{project}/records?q=task:sentiment+label:부정").text
    assert rows_of(text) == [labelled[1]]
    assert "부정" in text and "긍정" in text and "0.40" in text and "reviewer" in text
    assert f"/projects/{project}/label/sentiment?record={labelled[1]}" in text
    assert rows_of(client.get(f"/projects/{project}/records?task=sentiment&sort=highest").text) == labelled[::-1]


def test_what_is_wrong_with_a_query_stands_above_the_table(
    client: FlaskClient, project: int, labelled: list[int]
) -> None:
    """The sentence is shown, what was typed stays, and nothing is listed that nobody asked for."""
    answer = client.get(f"/projects/{project}/records?q=lable:x&task=sentiment")
    assert answer.status_code == 400 and rows_of(answer.text) == []
    assert "없는 조건이에요: lable (label?)" in html.unescape(answer.text) and 'value="lable:x"' in answer.text
    assert client.get(f"/projects/{project}/records?q=score<1").status_code == 400
    assert client.get(f"/projects/{project}/records?q=task:nothing").status_code == 400


def test_columns_are_chosen_by_the_address(client: FlaskClient, project: int, labelled: list[int]) -> None:
    """Only the chosen ones are shown, metadata among them, and the links to other pages keep them."""
    text = client.get(f"/projects/{project}/records?task=sentiment&column=key&column=meta.stars").text
    heads = re.findall(r'<th scope="col">([^<]*)</th>', text)
    assert heads == ["텍스트", "키", "stars"]


def test_counts_say_how_many_have_each_value_and_lead_there(
    client: FlaskClient, project: int, labelled: list[int]
) -> None:
    """Each value leads to the query with it; the one that is asked for is marked, and leads back."""
    text = client.get(f"/projects/{project}/records/counts?task=sentiment").text
    links = {title: html.unescape(url) for url, title in re.findall(r'href="([^"]*)"[^>]*>([^<]*)</a>', text)}
    assert rows_of(client.get(links["부정"]).text) == [labelled[1]]
    asked = client.get(f"/projects/{project}/records/counts?task=sentiment&q=label:negative").text
    assert 'aria-current="true">부정' in asked
    back = html.unescape(re.search(r'href="([^"]*)" aria-current', asked)[1])  # type: ignore[index]
    assert len(rows_of(client.get(back).text)) == len(labelled)
    assert client.get(f"/projects/{project}/records/counts?q=lable:x").status_code == 400


def test_a_view_is_kept_for_everybody_and_removed_by_whoever_made_it(
    client: FlaskClient, as_person: Any, app: Flask, project: int, labelled: list[int]
) -> None:
    """It stands above the table with its query, order and columns; a name of another person is not taken over."""
    other = as_person("reviewer")
    form = {"name": "불만", "address": "q=label%3Anegative&task=sentiment&sort=decided&strange=1",
            "csrf_token": token_of(other, "/account")}  # fmt: skip
    kept = other.post(f"/projects/{project}/records/views", data=form)
    assert kept.status_code == 303 and "strange" not in kept.location
    text = client.get(f"/projects/{project}/records").text
    link = html.unescape(re.search(r'class="chip" href="([^"]*)" title="reviewer">불만', text)[1])  # type: ignore[index]
    assert rows_of(client.get(link).text) == [labelled[1]]
    form["csrf_token"] = token_of(client, "/account")
    refused = client.post(f"/projects/{project}/records/views", data=form)
    assert refused.status_code == 400 and "다른 사람이 저장한" in refused.text
    number = re.search(r"records/views/(\d+)/remove", text)[1]  # type: ignore[index]
    token = {"csrf_token": token_of(other, "/account")}
    assert other.post(f"/projects/{project}/records/views/{number}/remove", data=token).status_code == 303
    assert "불만" not in client.get(f"/projects/{project}/records").text


def test_a_key_that_looks_like_a_field_is_found(client: FlaskClient, store: Store, project: int) -> None:
    from labeler.store import NewRecord

    rows = [NewRecord("shop:17", "키가 이상한 리뷰")]
    store.write(lambda tx: store.records.add(tx, project, rows, ["sentiment"]))
    for typed in ("shop:17", 'key:"shop:17"'):
        assert "키가 이상한 리뷰" in client.get(f"/projects/{project}/records", query_string={"q": typed}).text


def test_open_notes_have_a_column_and_counts_that_lead_to_them(
    client: FlaskClient, instance: Instance, people: dict[str, int], project: int, labelled: list[int]
) -> None:
    """A flag as a mark, a question by the name of who is asked; the command line says the same."""
    found = instance.store.projects.get(project)
    room = instance.notes(found, instance.task_of(found, "sentiment"))
    room.write(people["reviewer"], labelled[0], "모르겠어요", "request one")
    room.write(people["admin"], labelled[2], "맞죠?", "request two", people["reviewer"])
    table = f"/projects/{project}/records?task=sentiment&column=notes"
    cells = re.findall(r"<td>(?:<span[^>]*>(⚑)</span> )?(\w*)</td>", client.get(table).text)
    assert cells == [("", ""), ("", ""), ("", "reviewer"), ("", ""), ("⚑", "")]
    counts = client.get(f"/projects/{project}/records/counts?task=sentiment").text
    links = [html.unescape(link) for link in re.findall(r'href="([^"]*)"', counts)]
    for term, record in (("flagged:yes", labelled[0]), ("asked:reviewer", labelled[2])):
        (link,) = [link for link in links if term in unquote(link)]
        assert rows_of(client.get(link).text) == [record]
    command = [sys.executable, "-m", "labeler", "records", "--instance", str(instance.folder), "--project"]
    asked = [*command, found["name"], "--task", "sentiment", "--query", "asked:reviewer", "--format", "jsonl"]
    said = subprocess.run(asked, capture_output=True, text=True).stdout
    assert '"flagged":false' in said and '"asked":["reviewer"]' in said


def test_the_command_lists_counts_and_writes_what_the_page_shows(
    instance: Instance, project: int, labelled: list[int]
) -> None:
    """The same query on the command line: as text, as CSV, as JSON Lines, and as numbers."""
    name = instance.store.projects.get(project)["name"]

    def said(*words: str) -> str:
        command = [sys.executable, "-m", "labeler", "records", "--instance", str(instance.folder), "--project", name]
        done = subprocess.run([*command, *words], capture_output=True, text=True)
        return done.stdout + done.stderr

    assert "approved  Negative 0.40  reviewer" in said("--query", "task:sentiment label:부정")
    table = said("--task", "sentiment", "--query", "state:approved", "--format", "csv").splitlines()
    assert table[0] == "key,text,product,state,label,suggested,score,agreement,by,how,decided,flagged,asked"
    assert len(table) == 2 and ",approved,negative,positive,0.4,,reviewer," in table[1]
    assert '"label":"negative"' in said("--task", "sentiment", "--query", "label:negative", "--format", "jsonl")
    assert "state: pending" in said("--task", "sentiment", "--count")
    assert "There is no field lable (label?)" in said("--query", "lable:x")


def test_an_act_is_looked_at_done_checked_and_undone(
    client: FlaskClient, as_person: Any, instance: Instance, store: Store, project: int, labelled: list[int]
) -> None:
    """The preview changes nothing; then the label is given, the records of the act are found, and all is undone."""
    form = {"csrf_token": token_of(client, "/account"), "task": "sentiment", "q": "-배송", "scope": "all",
            "kind": "label", "label": "neutral"}  # fmt: skip
    path = f"/projects/{project}/records/acts"
    seen = client.post(f"{path}/preview", data=form).text
    changing = len(labelled) - 1
    assert f"레코드 {changing}개에 적용" in seen
    assert store.work.counts(project, "sentiment")["approved"] == 1
    done = client.post(path, data=form)
    assert done.status_code == 303
    shown = client.get(done.location).text
    assert "끝남" in shown or "완료" in shown
    found = html.unescape(re.search(r'href="([^"]*act[^"]*)"[^>]*>레코드 보기', shown)[1])  # type: ignore[index]
    assert len(rows_of(client.get(found).text)) == changing
    assert store.work.counts(project, "sentiment")["approved"] == 1 + changing
    assert as_person("reviewer").post(path, data=form).status_code in (400, 403)
    token = {"csrf_token": form["csrf_token"]}
    assert client.post(f"{done.location}/undo", data=token).status_code == 303
    assert store.work.counts(project, "sentiment")["approved"] == 1


def test_only_ticked_records_are_changed_and_none_ticked_is_refused(
    client: FlaskClient, store: Store, project: int, labelled: list[int]
) -> None:
    form = {"csrf_token": token_of(client, "/account"), "task": "sentiment", "q": "", "scope": "chosen",
            "kind": "reject", "record": [str(labelled[0])]}  # fmt: skip
    assert client.post(f"/projects/{project}/records/acts", data=form).status_code == 303
    assert store.work.get(labelled[0], "sentiment")["state"] == "rejected"
    assert store.work.counts(project, "sentiment")["rejected"] == 1
    refused = client.post(f"/projects/{project}/records/acts/preview", data=form | {"record": []})
    assert refused.status_code == 400 and "선택해 주세요" in refused.text


def test_a_facet_with_a_blank_in_its_name_leads_back(
    client: FlaskClient, store: Store, project: int, labelled: list[int], people: dict[str, int]
) -> None:
    """What is quoted in the query is marked as chosen like any other."""
    store.write(lambda tx: tx.run("UPDATE reviewers SET name = 'kim lee' WHERE id = ?", [people["reviewer"]]))
    query = {"task": "sentiment", "q": 'state:approved by:"kim lee"'}
    asked = client.get(f"/projects/{project}/records/counts", query_string=query).text
    back = html.unescape(re.search(r'href="([^"]*)" aria-current="true">kim lee', asked)[1])  # type: ignore[index]
    assert "kim" not in back and rows_of(client.get(back).text) == [labelled[1]]
