"""Signing in with the account of a company: OpenID Connect by the authorization code flow, with PKCE, state and nonce.

:class:`Provider` knows the protocol and nothing of our accounts: it says where to send a browser, and who came back.
Which account that opens is decided by :func:`labeler.accounts.sign_in_by`. A token counts if one of the provider's own
keys has signed it with RS256 or ES256, for us, for this very sign-in, and if it is valid now.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Self

from labeler import strictjson
from labeler.accounts import Identity, checked_email
from labeler.errors import InputError, JsonError, NotSignedIn, ProviderError
from labeler.extras import require
from labeler.settings import is_safe_address
from labeler.text import one_line

if TYPE_CHECKING:
    import httpx2
    from authlib.integrations.httpx_client import OAuth2Client

log = logging.getLogger("labeler.oidc")

SECRET_VARIABLE = "LABELER_OIDC_CLIENT_SECRET"
"""The environment variable that wins over the setting oidc_client_secret."""
BEGUN_SECONDS = 600.0
"""How long a person may take at the provider."""
_ALGORITHMS = ("RS256", "ES256")
# In seconds: how long a provider may take to answer, how long its description and its not answering are remembered,
# and how much its clock may differ from ours.
_TIMEOUT, _KEPT, _FAILED, _LEEWAY = 10.0, 3600.0, 5.0, 60
_ADDRESSES = ("authorization_endpoint", "token_endpoint", "jwks_uri")
_CODE = re.compile(r"[a-z_]{1,40}")


class Registration(NamedTuple):
    """How Labeler is known to a provider. ``groups`` says whether it is to be asked for them."""

    issuer: str
    client_id: str
    client_secret: str
    groups: bool

    def __repr__(self) -> str:
        return f"Registration(issuer={self.issuer!r}, client_id={self.client_id!r})"

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self | None:
        """Return what the settings of the instance say; None where no provider is set up."""
        issuer, client_id = settings.get("oidc_issuer"), settings.get("oidc_client_id")
        if not issuer or not client_id:
            return None
        secret = os.environ.get(SECRET_VARIABLE, "").strip() or settings.get("oidc_client_secret") or ""
        return cls(issuer, client_id, secret, any(one[:1] != "@" for one in settings.get("oidc_allowed") or ()))


class Begun(NamedTuple):
    """What the session of a browser keeps while a person is at the provider."""

    state: str
    nonce: str
    verifier: str
    at: float


def code_of(begun: Begun | None, answer: Mapping[str, str], issuer: str) -> str:
    """Return the code that a browser brought back. Nothing is asked of the provider for an answer that is not ours.

    Raises :class:`NotSignedIn`.
    """
    fits = begun is not None and secrets.compare_digest(begun.state.encode(), answer.get("state", "").encode())
    if begun is None or not fits or not 0 <= time.time() - begun.at <= BEGUN_SECONDS:
        raise NotSignedIn("This sign-in was not begun in this browser, or took too long; begin again")
    if answer.get("iss", issuer) != issuer:
        raise NotSignedIn("The answer comes from another provider than %(issuer)s; begin again", issuer=issuer)
    if "code" not in answer:
        raise NotSignedIn("The provider did not sign you in (%(why)s); begin again", why=_coded(answer.get("error")))
    return answer["code"]


def _coded(error: object) -> str:
    """Return an error code of the protocol; whoever makes an address must not be able to write on our page."""
    return error if isinstance(error, str) and _CODE.fullmatch(error) else "?"


class Provider:
    """A provider with its description and its keys, which are fetched when they are needed and kept for an hour.

    Threads share one. Raises :class:`MissingExtra` where Authlib is not installed.
    """

    def __init__(self, registered: Registration) -> None:
        require("oidc")
        self.registered = registered
        self._lock = threading.Lock()
        self._kept: tuple[float, Mapping[str, Any] | ProviderError] | None = None

    def begin(self, back: str) -> tuple[str, Begun]:
        """Return where to send a browser that is to come to the address ``back``, and what to keep until then.

        Raises :class:`ProviderError`.
        """
        from authlib.oauth2.client import OAuth2Client

        known = self._known()
        scopes = ["openid", "email"]
        if self.registered.groups and "groups" in (known.get("scopes_supported") or ()):
            scopes.append("groups")
        begun = Begun(secrets.token_urlsafe(24), secrets.token_urlsafe(24), secrets.token_urlsafe(48), time.time())
        client = OAuth2Client(None, self.registered.client_id, code_challenge_method="S256")
        address, _ = client.create_authorization_url(
            known["authorization_endpoint"],
            state=begun.state,
            code_verifier=begun.verifier,
            nonce=begun.nonce,
            redirect_uri=back,
            scope=" ".join(scopes),
        )
        return address, begun

    def identity(self, code: str, begun: Begun, back: str) -> Identity:
        """Redeem a code and return who the provider says it is. Raises :class:`NotSignedIn`, :class:`ProviderError`."""
        known = self._known()
        with self._client() as client:
            token = self._redeemed(client, known, code, begun, back)
            claims = self._trusted(token, begun.nonce)
            more = self._more(client, known, token, claims)
        told = claims if "email" in claims else more
        groups = claims.get("groups", more.get("groups"))
        named = groups if isinstance(groups, list) else [groups]
        return Identity(
            self.registered.issuer,
            str(claims["sub"]),
            _verified_email(told),
            frozenset(one for one in named if isinstance(one, str)),
        )

    def _client(self) -> OAuth2Client:
        from authlib.integrations.httpx_client import OAuth2Client

        known, method = self._known(), "none"
        if self.registered.client_secret:
            # The standard: whoever says nothing takes the first.
            taken = known.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
            method = "client_secret_basic" if "client_secret_basic" in taken else "client_secret_post"
        return OAuth2Client(
            self.registered.client_id,
            self.registered.client_secret or None,
            token_endpoint_auth_method=method,
            timeout=_TIMEOUT,
        )

    def _redeemed(
        self, client: OAuth2Client, known: Mapping[str, Any], code: str, begun: Begun, back: str
    ) -> Mapping[str, Any]:
        import httpx2
        from authlib.integrations.base_client import OAuthError

        try:
            token: Mapping[str, Any] = client.fetch_token(
                known["token_endpoint"],
                grant_type="authorization_code",
                code=code,
                code_verifier=begun.verifier,
                redirect_uri=back,
            )
        except OAuthError as error:
            self._tell(f"{error.error}: {error.description}")
            raise NotSignedIn(
                "The provider did not sign you in (%(why)s); begin again", why=_coded(error.error)
            ) from None
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            self._unusable(known["token_endpoint"], error)
        return token

    def _trusted(self, token: Mapping[str, Any], nonce: str) -> Mapping[str, Any]:
        """Return what a token says, checked. Raises :class:`NotSignedIn`."""
        from authlib.oidc.core import CodeIDToken
        from joserfc.errors import ClaimError, ExpiredTokenError, JoseError

        wanted = {"iss": self.registered.issuer, "aud": self.registered.client_id}
        try:
            decoded = self._decoded(token["id_token"])
            claims: Mapping[str, Any] = CodeIDToken(
                decoded.claims,
                decoded.header,
                {name: {"essential": True, "value": value} for name, value in wanted.items()}
                | {"sub": {"essential": True}},
                {"nonce": nonce, "client_id": self.registered.client_id, "access_token": token.get("access_token")},
            )
            claims.validate(leeway=_LEEWAY)  # type: ignore[attr-defined]
        except (JoseError, ValueError, TypeError, KeyError) as error:
            self._tell(f"its token was refused: {error}")
            if isinstance(error, ExpiredTokenError) or (
                isinstance(error, ClaimError) and error.claim in ("nbf", "iat")
            ):
                raise NotSignedIn(
                    "The provider's answer is not valid at %(now)s, the time of this server; an admin sets its clock",
                    now=f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
                ) from None
            _distrust(getattr(error, "claim", None) or getattr(error, "error", None) or "id_token")
        return claims

    def _decoded(self, id_token: str) -> Any:
        from joserfc import jwt
        from joserfc.errors import InvalidKeyIdError
        from joserfc.jwk import KeySet
        from joserfc.jws import JWSRegistry

        # What a provider adds to the head of a token is its own affair, but what it marks as critical.
        registry = JWSRegistry(algorithms=_ALGORITHMS, strict_check_header=False)
        try:
            return jwt.decode(id_token, KeySet.import_key_set(self._known()["jwks"]), registry=registry)
        except InvalidKeyIdError:
            # A provider changes its keys now and then.
            return jwt.decode(id_token, KeySet.import_key_set(self._known(fresh=True)["jwks"]), registry=registry)

    def _more(
        self, client: OAuth2Client, known: Mapping[str, Any], token: Mapping[str, Any], claims: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Return what the provider says beside the token, if the token lacks something that is needed."""
        lacks = "email" not in claims or (self.registered.groups and "groups" not in claims)
        address = known.get("userinfo_endpoint")
        if not lacks or not address:
            return {}
        head = {"Authorization": f"Bearer {token.get('access_token')}"}
        more = self._fetched(address, lambda: client.request("GET", address, headers=head, withhold_token=True))
        if more.get("sub") != claims["sub"]:
            _distrust("sub")
        return more

    def _known(self, fresh: bool = False) -> Mapping[str, Any]:
        """Return the provider's description with its keys as ``jwks``. One thread fetches while the others wait."""
        with self._lock:
            now = time.monotonic()
            if fresh or self._kept is None or self._kept[0] < now:
                try:
                    self._kept = now + _KEPT, self._described()
                except ProviderError as error:
                    self._kept = time.monotonic() + _FAILED, error
            found = self._kept[1]
        if isinstance(found, ProviderError):
            raise found
        return found

    def _described(self) -> Mapping[str, Any]:
        import httpx2

        issuer = self.registered.issuer
        place = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
        with httpx2.Client(timeout=_TIMEOUT) as client:
            found = self._fetched(place, lambda: client.get(place))
            if found.get("issuer") != issuer:
                said = found.get("issuer")
                raise ProviderError(
                    "The provider at %(address)s calls itself %(issuer)r; an admin enters that as oidc_issuer",
                    address=place,
                    issuer=said[:200] if isinstance(said, str) else "",
                )
            for name in (*_ADDRESSES, *(["userinfo_endpoint"] if "userinfo_endpoint" in found else [])):
                named = found.get(name)
                # A provider on the network must not send us to what only this machine reaches.
                if not isinstance(named, str) or not is_safe_address(named) or named[:5] != issuer[:5]:
                    raise ProviderError("%(address)s names no https address as %(name)s", address=place, name=name)
            keys = self._fetched(found["jwks_uri"], lambda: client.get(found["jwks_uri"]))
        return {**found, "jwks": keys}

    def _fetched(self, address: str, get: Callable[[], httpx2.Response]) -> Mapping[str, Any]:
        """Return the JSON object at an address. Raises :class:`ProviderError`."""
        import httpx2

        try:
            answer = get()
            if answer.status_code != 200:
                self._unusable(address, f"HTTP {answer.status_code}")
            found = strictjson.loads(answer.content)
        except (httpx2.HTTPError, httpx2.InvalidURL, JsonError) as error:
            self._unusable(address, error)
        if not isinstance(found, dict):
            self._unusable(address, "no JSON object")
        return found

    def _unusable(self, address: str, why: object) -> NoReturn:
        self._tell(f"{address}: {why}")
        raise ProviderError(
            "The provider does not answer as it should (%(address)s: %(why)s); try again later, or sign in with a "
            "password",
            address=address,
            why=str(why)[:200],
        )

    def _tell(self, said: str) -> None:
        """Write to the log what only an admin can mend."""
        secret = self.registered.client_secret
        log.warning("%s: %s", self.registered.issuer, one_line(said.replace(secret, "…") if secret else said)[:500])


def _distrust(what: str) -> NoReturn:
    raise NotSignedIn("The provider's answer cannot be trusted (%(what)s); begin again", what=what)


def _verified_email(told: Mapping[str, Any]) -> str | None:
    """Return the e-mail of an identity if its provider vouches for it.

    Entra ID never says email_verified; xms_edov says there that the company owns the domain, and has to be asked for.
    """
    vouched = told["email_verified"] if "email_verified" in told else told.get("xms_edov")
    try:
        return checked_email(told.get("email") or "") if vouched in (True, "true", "1") else None
    except (InputError, AttributeError):
        return None
