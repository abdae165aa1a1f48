"""The backend "claude": models behind Anthropic's Messages API, with your own key."""

import httpx2

from labeler import Backend, BackendFactory, BackendFailure, Completion, LabelerError, Setting, hookimpl

ADDRESS = "https://api.anthropic.com"
FINISH = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length"}


class Claude(Backend):
    name = "claude"
    billed = True
    generation_settings = frozenset({"max_tokens", "temperature", "top_k", "top_p", "stop"})

    def __init__(self, address, key, model_id):
        self.model_id, self.base_url = model_id, address
        headers = {"x-api-key": key, "anthropic-version": "2023-06-01"}
        self._client = httpx2.Client(base_url=address, headers=headers, timeout=120)

    def complete(self, requests):
        for request in requests:
            yield self._answer(request)

    def _answer(self, request):
        asked = request.generation
        system = "\n\n".join(message["content"] for message in request.messages if message["role"] == "system")
        turns = [message for message in request.messages if message["role"] != "system"]
        body = {
            "model": self.model_id, "system": system, "messages": turns, "max_tokens": asked.max_tokens or 1024,
            "temperature": asked.temperature, "top_k": asked.top_k, "top_p": asked.top_p,
            "stop_sequences": list(asked.stop) or None,
        }  # fmt: skip
        try:
            answer = self._client.post("/v1/messages", json={k: v for k, v in body.items() if v is not None})
        except httpx2.HTTPError as error:
            return BackendFailure("connection", f"No connection to {self.base_url} ({error}).", retryable=True)
        if answer.status_code != 200:
            return _refused(answer)
        try:
            found = answer.json()
            text = "".join(part["text"] for part in found["content"] if part["type"] == "text")
            used = found["usage"]
            return Completion(
                text,
                used["input_tokens"],
                used["output_tokens"],
                finish=FINISH.get(found["stop_reason"]),
                model_id=self.model_id,
            )
        except (ValueError, KeyError, TypeError):
            return BackendFailure("server", "The answer of the server cannot be read.", retryable=True)

    def close(self):
        self._client.close()


def _refused(answer):
    status = answer.status_code
    if status in (401, 403):
        return BackendFailure("auth", "The server does not accept the key; check claude_api_key.", fatal=True)
    if status == 429:
        # It may be a date, too.
        wait = answer.headers.get("retry-after", "")
        seconds = float(wait) if wait.isdecimal() else 5.0
        return BackendFailure("rate_limit", "The server limits the rate.", retryable=True, retry_after=seconds)
    return BackendFailure("server", f"The server answers {status}.", retryable=status >= 500)


class ClaudeFactory(BackendFactory):
    name, shared = "claude", True

    def create(self, settings):
        key, model_id = settings.get("claude_api_key"), settings.get("model_id")
        if not key or not model_id:
            raise LabelerError("The claude backend needs claude_api_key, and a model id in the settings of the task")
        return Claude(settings.get("claude_base_url") or ADDRESS, key, model_id)


@hookimpl
def register_settings():
    address = Setting(
        "claude_base_url", "text", "", title={"ko": "Claude 주소", "en": "Address of Claude"}, empty=ADDRESS
    )
    key = Setting("claude_api_key", "text", title={"ko": "Claude 키", "en": "Key of Claude"}, secret=True, empty="none")
    return [address, key]


@hookimpl
def register_backends():
    return [ClaudeFactory()]
