"""Where to send, and with which key."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn
from urllib.parse import urlsplit

from labeler.errors import SettingError
from labeler.sentence import N_

OPENAI_URL = "https://api.openai.com/v1"
LOCAL_KEY = "no-key"
"""Sent to a server that was set up without a key: the SDK refuses to send none."""

# Azure wants the version of its API in the query: .../openai/deployments/NAME?api-version=2024-10-21
_VERSION = re.compile(r"api-version=[\w.-]{1,40}")
# Metadata services that are not link-local: of AWS by IPv6, Alibaba, Azure, Oracle.
_METADATA = ("fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")
_AZURE = re.compile(r"\.azure\.(com|us|cn)\Z")


class OpenAISettings(NamedTuple):
    """Where to send and with which key; the key is left out of ``repr``."""

    api_key: str | None
    base_url: str | None

    def __repr__(self) -> str:
        return f"OpenAISettings(api_key={'set' if self.api_key else None}, base_url={self.base_url!r})"


def openai_settings(instance: Mapping[str, Any]) -> OpenAISettings:
    """Return (api_key, base_url): OPENAI_API_KEY and OPENAI_BASE_URL win over the instance's settings.

    ``instance`` holds them as ``openai_api_key`` and ``openai_base_url``. Empty counts as not set. Raises
    :class:`SettingError` for a base_url that is no http or https address.
    """
    api_key = os.environ.get("OPENAI_API_KEY", "").strip() or _text_setting(instance, "openai_api_key")
    base_url = os.environ.get("OPENAI_BASE_URL", "").strip() or _text_setting(instance, "openai_base_url")
    return OpenAISettings(api_key, None if base_url is None else checked_url(base_url))


def is_configured(instance: Mapping[str, Any]) -> bool:
    """Say whether there is a key, or a server of one's own that may need none."""
    return any(openai_settings(instance))


def checked_url(url: str) -> str:
    """Return the address without a slash at its end. The only query it may have is Azure's ``?api-version=``."""
    url = url.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        _refuse_url(N_("openai_base_url is not an address; example: %(address)s"))
    if parts.scheme not in ("http", "https") or not parts.hostname:
        _refuse_url(N_("openai_base_url must be an http or https address; example: %(address)s"))
    if parts.username is not None or parts.password is not None:
        _refuse_url(
            N_(
                "openai_base_url must not contain a user or password; put the key into openai_api_key; "
                "example: %(address)s"
            )
        )
    if parts.fragment or (parts.query and not _VERSION.fullmatch(parts.query)):
        _refuse_url(
            N_("openai_base_url must not contain # or ?, other than ?api-version= of Azure; example: %(address)s")
        )
    if not url.isprintable() or " " in url:
        _refuse_url(N_("openai_base_url contains a space or a control character; example: %(address)s"))
    return url


def refuse_metadata(url: str) -> None:
    """Raise :class:`SettingError` for an address where clouds give keys away, by whatever name it is called.

    Private addresses are meant: a server of one's own. A name that nobody knows now is met when it is asked.
    """
    try:
        found = {str(item[4][0]) for item in socket.getaddrinfo(urlsplit(url).hostname, None)}
    except (OSError, UnicodeError):
        return
    for address in map(_address, found):
        if address.is_link_local or str(address) in _METADATA:
            _refuse_url(
                N_(
                    "openai_base_url is an address of this machine's cloud, which is no model server; "
                    "example: %(address)s"
                )
            )


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def same_server(one: str | None, other: str | None) -> bool:
    """Whether two addresses, None being OpenAI's own, are of one server: a key for one is a key for the other."""
    return (
        len(
            {
                (parts.scheme, parts.hostname, parts.port)
                for parts in map(urlsplit, (one or OPENAI_URL, other or OPENAI_URL))
            }
        )
        == 1
    )


def wants_api_key_header(url: str) -> bool:
    """Say whether the server reads the key from the header ``api-key``, as Azure's do, and not as a bearer token."""
    parts = urlsplit(url)
    return bool(parts.query) or bool(_AZURE.search(parts.hostname or ""))


def checked_key(key: str | None) -> str | None:
    """Return the key without white space around it, None if there is none. The message never shows the key.

    Raises :class:`SettingError` for one with a character that no key has.
    """
    key = (key or "").strip()
    if not key:
        return None
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise SettingError("The OpenAI key contains a space, a line end or a character that no key has; copy it again")
    return key


def _text_setting(instance: Mapping[str, Any], name: str) -> str | None:
    value = instance.get(name)
    if value is not None and not isinstance(value, str):
        raise SettingError("%(setting)s must be text, not %(kind)s", setting=name, kind=type(value).__name__)
    return (value or "").strip() or None


def _refuse_url(template: str) -> NoReturn:
    # The address itself stays out of the message: it may carry a password.
    raise SettingError(template, address="http://127.0.0.1:8000/v1")
