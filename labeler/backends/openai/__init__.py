"""The backend ``openai``: chat completions of OpenAI, or of any server that speaks the same protocol.

One call is one request on the wire: nothing is repeated here, because the ledger of calls decides what is asked (and
paid) again. Servers differ in what they take, so a refused parameter (HTTP 400 or 422, which costs nothing) is
renamed or left out, remembered, and the call is sent again in the form the server takes.

::

    settings.py      where to send, and with which key
    backend.py       OpenAIBackend: one request in, one completion or failure out
    body.py          what is sent, encoded once for each task
    capabilities.py  what a server takes: recorded, learned from refusals, probed with one call
    wire.py          the HTTP client: time, size and connections
    answers.py       what came back: completions, refusals, failures
    context.py       how many tokens a model reads, where the server says so
    scores.py        scores of labels from the log probabilities of an answer
    limits.py        what the headers say of rate limits and waiting
    batches.py       files and batches: calls at a discount, answered within a day
    hiding.py        keys stay out of messages, logs and stored answers
"""

from labeler.backends.openai.backend import OpenAIBackend, probe
from labeler.backends.openai.batches import BatchClient
from labeler.backends.openai.body import strict_schema
from labeler.backends.openai.capabilities import Capabilities
from labeler.backends.openai.settings import (
    OPENAI_URL,
    OpenAISettings,
    checked_key,
    is_configured,
    openai_settings,
    refuse_metadata,
    same_server,
)
from labeler.backends.openai.wire import MAX_ANSWER

__all__ = [
    "MAX_ANSWER",
    "OPENAI_URL",
    "BatchClient",
    "Capabilities",
    "OpenAIBackend",
    "OpenAISettings",
    "checked_key",
    "is_configured",
    "openai_settings",
    "probe",
    "refuse_metadata",
    "same_server",
    "strict_schema",
]
