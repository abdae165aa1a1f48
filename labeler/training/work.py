"""The work: a planned training is made by nobody else meanwhile, and left whole or able to go on."""

from __future__ import annotations

import logging
from collections.abc import Callable

from labeler.backends.local.memory import free_memory, is_out_of_memory
from labeler.errors import BackendError, Conflict, LabelerError
from labeler.sentence import Sentence
from labeler.training import classifier
from labeler.training.folders import Training
from labeler.training.methods import CLASSIFIER

log = logging.getLogger(__name__)


def fit(training: Training, tell: Callable[[str], None]) -> bool:
    """Train, or go on with what was begun, until the card stands; ``tell`` gets a line for each report.

    Returns False where somebody asked it to stop: then it goes on from there another time. Raises
    :class:`LabelerError` with one clear sentence, which also stands in the folder; :class:`Conflict` where the training
    runs already, or is at its end.
    """
    with training.held():
        if training.card:
            raise Conflict("The training %(name)s is finished; begin another one", name=training.name)
        try:
            return _run(training, tell)
        except LabelerError as error:
            training.fail(str(error))
            raise
        except Exception as error:
            if not is_out_of_memory(error):
                log.exception("The training %s failed", training.name)
            said = _what_failed(error)
            training.fail(said)
            raise BackendError(said) from error
        finally:
            free_memory()


def _run(training: Training, tell: Callable[[str], None]) -> bool:
    # A classifier needs neither peft nor trl.
    if training.plan["method"] == CLASSIFIER:
        return classifier.train(training, tell)
    from labeler.training.fit import Fit

    return Fit(training, tell).run()


def _what_failed(error: Exception) -> Sentence:
    if is_out_of_memory(error):
        return Sentence(
            "Memory was not enough for this training; take the method lora or qlora, fewer rows at once, a smaller"
            " model, or leave long rows out (max_length)"
        )
    reason = next((line.strip() for line in str(error).split("\n") if line.strip()), "")
    return Sentence(
        "The training failed with an unexpected %(error)s (%(reason)s); the log has more",
        error=type(error).__name__,
        reason=reason[:300].rstrip("."),
    )
