"""What a suggester is made of: the settings of a task, of a run, and what the backend has."""

from __future__ import annotations

import openai_calls
import pytest
from helpers import numbered, open_instance

from labeler.errors import SettingError
from labeler.prelabel import runs
from labeler.worker import Worker

clean_environment, server = openai_calls.clean_environment, openai_calls.server


@pytest.fixture
def instance(tmp_path, server):
    with open_instance(tmp_path / "instance", server.base_url, numbered(6)) as opened:
        yield opened


@pytest.fixture
def make(instance):
    id_ = instance.store.projects.all()[0]["id"]
    instance.change_project(id_, {"tasks": ["sentiment", "keywords", "summary_polarity"]})
    project = instance.store.projects.get(id_)

    def made(task="sentiment", **overrides):
        return instance.suggester(project, instance.project_task(project, task), {"backend": "openai"} | overrides)

    made.project = project
    return made


def test_settings_of_a_run_win_over_those_of_the_task(instance, make):
    """What is given for one run stands on top of what the task is set to."""
    instance.change_task(make.project["id"], "sentiment", {"temperature": 0.3, "style": "one-shot", "top_p": 0.9})
    found = make(temperature=0.7)
    assert (found.generation.temperature, found.generation.top_p, found.style.name) == (0.7, 0.9, "one-shot")


def test_only_settings_that_a_person_chose_are_explicit(instance, make):
    """The default temperature may be left out for a model that has none; one that was chosen may not."""
    assert make().generation.explicit == frozenset()
    instance.change_task(make.project["id"], "sentiment", {"seed": 7})
    assert make(stop=["\n"]).generation.explicit == {"seed", "stop"}


def test_setting_that_the_server_is_known_to_refuse_is_refused_before_a_run(instance, make, server):
    """A test call recorded that the model takes no top_k: a run that asks for it never starts."""
    found = {"top_k": False, "temperature": True}
    instance.store.write(lambda tx: instance.store.models.record(tx, "openai", server.base_url, "gpt-4o-mini", found))
    with pytest.raises(SettingError, match="gpt-4o-mini has no setting top_k; clear it"):
        make(top_k=40)
    assert make(temperature=0.5).generation.temperature == 0.5


def test_free_backend_is_told_of_a_generation_setting_only_for_this_run(instance, make):
    """A task's temperature is there for its LLM; asking `nearest` for one in a run is a mistake worth a sentence."""
    instance.change_task(make.project["id"], "sentiment", {"temperature": 0.7})
    assert make(backend="nearest").backend.name == "nearest"
    with pytest.raises(SettingError, match="backend nearest has no setting temperature"):
        make(backend="nearest", temperature=0.2)


def test_settings_of_a_paid_backend_do_not_hinder_the_free_one_at_the_desk(instance, make):
    """A task that is sent in batches, or together with another, is suggested for at the desk as ever."""
    instance.change_task(make.project["id"], "sentiment", {"executor": "openai-batch", "joint": ["keywords"]})
    found = instance.suggester_now(make.project, instance.project_task(make.project, "sentiment"))
    assert (found.backend.name, dict(found.joint)) == ("nearest", {})
    with pytest.raises(SettingError, match="nearest has no batches"):
        make(backend="nearest", executor="openai-batch")


def test_free_suggester_is_kept_until_what_it_is_made_of_changes(instance, make):
    """A page asks for it with each decision. New settings of the task give another, and a paid one is always new."""
    before = make(backend="nearest")
    assert make(backend="nearest") is before
    instance.change_task(make.project["id"], "sentiment", {"retriever": "mmr"})
    after = make(backend="nearest")
    assert type(after.retriever) is not type(before.retriever)
    assert make() is not make()


def test_joint_tasks_ask_the_same_model(instance, make):
    """The tasks of one call go to one backend and model, whatever their own settings say."""
    instance.change_task(make.project["id"], "keywords", {"backend": "nearest", "model_id": "other"})
    found = make(joint=["keywords", "sentiment"], model_id="mine")
    assert list(found.joint) == ["keywords"]
    assert (found.joint["keywords"].backend.name, found.joint["keywords"].backend.model_id) == ("openai", "mine")


def test_cascade_asks_for_one_task_at_a_time(make):
    """A cascade of several tasks has no meaning, and is refused with what to do."""
    with pytest.raises(SettingError, match="one task at a time"):
        make(joint=["keywords"], mode="cascade")


def test_reviews_and_products_are_not_asked_together(instance, make):
    """A task on single reviews and one on all reviews of a product have no common record."""
    instance.change_task(make.project["id"], "summary_polarity", {"unit": "group"})
    with pytest.raises(SettingError, match="cannot be asked together"):
        make(joint=["summary_polarity"])


def test_persona_and_wording_reach_the_prompt_in_the_language_of_the_project(instance, make):
    """What is set for another language stays out of the prompt."""
    words = {
        "persona": {"ko": "당신은 과일 가게 주인입니다.", "en": "You sell fruit."},
        "answer_wording": {"en": "Be brief."},
    }
    instance.change_task(make.project["id"], "sentiment", words)
    found = make()
    language = make.project["language"]
    record = instance.store.records.get(next(runs.select(instance.store, make.project["id"], "sentiment", 1, True)))
    system = found.flow(found.prepare([record])[0]).step()[0].messages[0]["content"]
    assert words["persona"][language] in system
    assert ("Be brief." in system) is (language == "en")


def test_estimate_learns_lengths_and_times_from_earlier_calls(instance, make):
    """Before the first call the time is unknown; afterwards it and the length of answers are those of real calls."""
    suggester, info = make(), instance.model_info("gpt-4o-mini")
    ids = list(runs.select(instance.store, make.project["id"], "sentiment", None, True))
    before = runs.estimate(suggester, ids, info)
    assert (before.seconds, before.measured, before.calls) == (None, 0, 6)
    run_id = runs.start(instance.store, make.project["id"], "sentiment", ids, {"backend": "openai", "k": 0})
    assert Worker(instance).move_run(run_id) == "finished"
    after = runs.estimate(suggester, ids, info)
    assert after.measured == 6 and after.seconds > 0
    assert after.tokens_out == instance.store.ledger.run(run_id)["tokens_out"]


def test_estimate_counts_every_call_of_a_way_of_prompting(make, instance):
    """Five samples are five calls, and a check is a second one."""
    ids = list(runs.select(instance.store, make.project["id"], "sentiment", None, True))
    info = instance.model_info("gpt-4o-mini")
    plain, checked, voted = (
        runs.estimate(make(style=style), ids, info) for style in ("few-shot", "verify-and-edit", "self-consistency")
    )
    assert (plain.calls, checked.calls, voted.calls) == (6, 12, 30)
    assert plain.cost < checked.cost < voted.cost


def test_estimate_of_a_batch_is_at_the_price_of_a_batch(make, instance):
    """What the page shows before a batch is sent is half of what single calls would cost."""
    ids = list(runs.select(instance.store, make.project["id"], "sentiment", None, True))
    info = instance.model_info("gpt-4o-mini")
    single, batch = (runs.estimate(make(), ids, info, batch=batch) for batch in (False, True))
    assert batch.cost == pytest.approx(single.cost / 2)
