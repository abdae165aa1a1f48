"""A webhook: each approval is sent as JSON to an address."""

import httpx2

from labeler import Setting, hookimpl


@hookimpl
def register_settings():
    title = {"ko": "웹훅 주소", "en": "Address of the webhook"}
    said = {"ko": "승인할 때마다 JSON을 보내요", "en": "Gets JSON for each approval"}
    return [Setting("webhook_url", "text", "", title=title, help=said, empty="nothing is sent")]


@hookimpl
def label_approved(project, task, record, value, settings):
    address = settings.get("webhook_url")
    if address:
        # Called in the background. What raises is tried again later, before what was approved after it.
        body = {"project": project, "task": task, "key": record.key, "text": record.text, "value": value}
        httpx2.post(address, json=body, timeout=10).raise_for_status()
