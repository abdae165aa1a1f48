"""A provider of OpenID Connect: discovery, sign-in, tokens that are really signed, and people who are signed in there.

It keeps to the protocol as Keycloak does: a code is good for one use, belongs to one address to come back to, and is
given for what only its browser knows (PKCE). What a test changes in ``Company`` makes it err or lie.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from browsers import served
from flask import Flask, jsonify, redirect, request
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

CLIENT_ID, CLIENT_SECRET = "labeler", "the secret of the client"
RSA, EC, STRANGERS = (
    RSAKey.generate_key(2048, {"kid": "first", "use": "sig"}),
    ECKey.generate_key("P-256", {"kid": "second", "use": "sig"}),
    RSAKey.generate_key(2048, {"kid": "first"}),
)
Claims = dict[str, Any]


def unsigned(head: dict[str, Any], claims: Claims, signature: bytes = b"") -> str:
    """A token that is put together by hand, as libraries refuse to."""
    parts = (json.dumps(head).encode(), json.dumps(claims).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def signed(claims: Claims, key: RSAKey | ECKey = RSA, **head: Any) -> str:
    alg = "ES256" if isinstance(key, ECKey) else "RS256"
    return jwt.encode({"alg": alg, "kid": key.kid, **head}, claims, key)


@dataclass
class Company:
    """What the provider knows: who is signed in there (``person``), and how tokens and answers are made.

    ``change`` is what becomes of the claims of a token, ``sign`` makes the token, ``answer`` changes what the browser
    brings back, ``described`` what the provider says of itself.
    """

    address: str = ""
    person: Claims = field(default_factory=lambda: {"sub": "7", "email": "kim@example.com", "email_verified": True})
    userinfo: Claims | None = None
    change: Claims = field(default_factory=dict)
    sign: Callable[[Claims], str] = signed
    answer: dict[str, str | None] = field(default_factory=dict)
    described: Claims = field(default_factory=dict)
    keys: list[RSAKey | ECKey] = field(default_factory=lambda: [RSA, EC])
    refusal: dict[str, str] | None = None
    asked: list[str] = field(default_factory=list)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def discovery(self) -> Claims:
        found = {
            "issuer": self.address,
            "authorization_endpoint": f"{self.address}/authorize",
            "token_endpoint": f"{self.address}/token",
            "jwks_uri": f"{self.address}/keys",
            "userinfo_endpoint": f"{self.address}/userinfo",
            "scopes_supported": ["openid", "email", "groups"],
            "id_token_signing_alg_values_supported": ["RS256", "ES256", "HS256", "none"],
        }
        return {name: value for name, value in (found | self.described).items() if value is not None}

    def authorize(self, asked: dict[str, str]) -> str:
        """Return where the browser is sent back to."""
        assert asked["response_type"] == "code" and asked["client_id"] == CLIENT_ID
        assert asked["code_challenge_method"] == "S256"
        self.asked.append(asked["scope"])
        code = secrets.token_urlsafe(8)
        self.codes[code] = asked
        answer = {"code": code, "state": asked["state"], "iss": self.address} | self.answer
        return f"{asked['redirect_uri']}?{urlencode({k: v for k, v in answer.items() if v is not None})}"

    def token(self, form: dict[str, str], who: tuple[str | None, str | None]) -> tuple[Claims, int]:
        if self.refusal is not None:
            return self.refusal, 400
        if who != (CLIENT_ID, CLIENT_SECRET.replace(" ", "+")) and who != (CLIENT_ID, CLIENT_SECRET):
            return {"error": "invalid_client"}, 401
        asked = self.codes.pop(form["code"], None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
        if asked is None or asked["redirect_uri"] != form["redirect_uri"]:
            return {"error": "invalid_grant"}, 400
        if asked["code_challenge"] != challenge.decode():
            return {"error": "invalid_grant"}, 400
        now = int(time.time())
        claims = {
            "iss": self.address, "aud": CLIENT_ID, "iat": now, "exp": now + 300, "nonce": asked["nonce"], **self.person,
        }  # fmt: skip
        claims = {name: value for name, value in (claims | self.change).items() if value is not None}
        return {"id_token": self.sign(claims), "access_token": "opaque", "token_type": "Bearer", "expires_in": 300}, 200


def provider(company: Company) -> Flask:
    app = Flask("provider")

    @app.get("/.well-known/openid-configuration")
    def discovery() -> Any:
        company.asked.append("discovery")
        return jsonify(company.discovery())

    @app.get("/keys")
    def keys() -> Any:
        return jsonify({"keys": [key.as_dict(private=False) for key in company.keys]})

    @app.get("/authorize")
    def authorize() -> Any:
        return redirect(company.authorize(request.args.to_dict()))

    @app.post("/token")
    def token() -> Any:
        company.asked.append("token")
        given = request.authorization
        who = (given.username, given.password) if given else (request.form.get("client_id"), None)
        found, status = company.token(request.form.to_dict(), who)
        return jsonify(found), status

    @app.get("/userinfo")
    def userinfo() -> Any:
        assert request.headers["Authorization"] == "Bearer opaque"
        return jsonify(company.userinfo)

    return app


@contextmanager
def running() -> Iterator[Company]:
    company = Company()
    with served(provider(company)) as address:
        company.address = address
        yield company
