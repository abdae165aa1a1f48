"""The backend "ollama": a model of a server that speaks Ollama's own protocol."""

import httpx2

from labeler import Backend, BackendFactory, BackendFailure, Completion, LabelerError, Setting, hookimpl

ADDRESS = "http://127.0.0.1:11434"


class Ollama(Backend):
    name = "ollama"
    billed = True
    generation_settings = frozenset({"max_tokens", "temperature", "top_k", "top_p", "seed", "stop"})

    def __init__(self, address, model_id):
        self.model_id, self.base_url = model_id, address
        self._client = httpx2.Client(base_url=address, timeout=120)

    def complete(self, requests):
        for request in requests:
            yield self._answer(request)

    def _answer(self, request):
        asked = request.generation
        options = {
            "num_predict": asked.max_tokens, "temperature": asked.temperature, "top_k": asked.top_k,
            "top_p": asked.top_p, "seed": asked.seed, "stop": list(asked.stop) or None,
        }  # fmt: skip
        body = {"model": self.model_id, "messages": list(request.messages), "stream": False}
        body |= {"options": {name: value for name, value in options.items() if value is not None}}
        if request.json_schema:
            body["format"] = dict(request.json_schema)
        try:
            answer = self._client.post("/api/chat", json=body)
            answer.raise_for_status()
            found = answer.json()
            return Completion(
                found["message"]["content"],
                found.get("prompt_eval_count"),
                found.get("eval_count"),
                finish=found.get("done_reason"),
                model_id=self.model_id,
            )
        except httpx2.HTTPStatusError as error:
            busy = error.response.status_code >= 500
            return BackendFailure("server", f"Ollama answers {error.response.status_code}.", retryable=busy)
        except httpx2.HTTPError as error:
            return BackendFailure("connection", f"No connection to {self.base_url} ({error}).", retryable=True)
        except (ValueError, KeyError, TypeError):
            return BackendFailure("server", "The answer of Ollama cannot be read.", retryable=True)

    def close(self):
        self._client.close()


class OllamaFactory(BackendFactory):
    name, shared = "ollama", True

    def create(self, settings):
        if not settings.get("model_id"):
            raise LabelerError("The ollama backend needs a model id; set it for the task")
        return Ollama(settings.get("ollama_base_url") or ADDRESS, settings["model_id"])


@hookimpl
def register_settings():
    title = {"ko": "Ollama 주소", "en": "Address of Ollama"}
    return [Setting("ollama_base_url", "text", "", title=title, empty=ADDRESS)]


@hookimpl
def register_backends():
    return [OllamaFactory()]
