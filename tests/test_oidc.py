"""Signing in with the account of a company, at a real provider with real tokens; and every way to lie to us."""

from __future__ import annotations

import hmac
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import oidc_provider
import pytest
from browsers import opened_browser, served
from click.testing import CliRunner
from conftest import PASSWORD, enter
from flask import Flask
from flask.testing import FlaskClient
from joserfc.jwk import ECKey, RSAKey
from oidc_provider import CLIENT_ID, CLIENT_SECRET, EC, RSA, STRANGERS, Claims, Company, signed, unsigned
from test_web_access import token_of
from werkzeug.test import TestResponse

from labeler import accounts
from labeler.app import create_app
from labeler.cli import cli
from labeler.errors import InputError, SettingError
from labeler.instance import Instance
from labeler.oidc import Registration
from labeler.store import Store
from labeler.web.address import PublicUrl

BACK = "/sign-in/company/back"
EMAIL = "kim@example.com"


@pytest.fixture(scope="module")
def running() -> Iterator[Company]:
    with oidc_provider.running() as company:
        yield company


@pytest.fixture
def company(running: Company, instance: Instance) -> Company:
    """A provider that is set up, and that behaves."""
    running.__init__(running.address)  # type: ignore[misc]
    instance.change_settings(
        {"oidc_issuer": running.address, "oidc_client_id": CLIENT_ID, "oidc_client_secret": CLIENT_SECRET}
    )
    return running


@pytest.fixture
def kim(store: Store, people: dict[str, int]) -> int:
    """The number of an account with an e-mail."""
    id_ = accounts.add_reviewer(store, "kim", PASSWORD)
    accounts.set_email(store, id_, EMAIL)
    return id_


@pytest.fixture
def browser(app: Flask) -> FlaskClient:
    """A browser that nobody is signed in with yet."""
    return app.test_client()


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def away(browser: FlaskClient, **query: str) -> str:
    """Press the button, and be sent back by the provider; the address that is to be opened then."""
    sent = browser.get("/sign-in/company", query_string=query)
    assert sent.status_code == 303, sent.text
    with pytest.raises(urllib.error.HTTPError) as moved:
        urllib.request.build_opener(_Stay).open(sent.location)
    with moved.value:
        return str(moved.value.headers["Location"])


def come_back(browser: FlaskClient, address: str) -> TestResponse:
    parts = urlsplit(address)
    return browser.get(f"{parts.path}?{parts.query}", headers={"Accept-Language": "en"})


def sign_in(browser: FlaskClient, **query: str) -> TestResponse:
    return come_back(browser, away(browser, **query))


def who(browser: FlaskClient) -> int | None:
    """The number of whoever is signed in, by what the server thinks."""
    if browser.get("/account").status_code != 200:
        return None
    with browser.session_transaction() as session:
        return int(session["reviewer"])


# The road


def test_who_has_a_verified_email_gets_the_account_with_it(browser: FlaskClient, company: Company, kim: int) -> None:
    """The person comes back signed in, to the page that was asked for."""
    answer = sign_in(browser, next="/account")
    assert (answer.status_code, answer.location) == (303, "/account")
    assert who(browser) == kim


def test_a_link_outlives_the_email(browser: FlaskClient, company: Company, kim: int, store: Store) -> None:
    """From the second time on it is the provider's own number of a person that counts, with or without an e-mail."""
    sign_in(browser)
    company.person = {"sub": "7", "email": "new.name@example.com", "email_verified": False}
    other = browser.application.test_client()
    sign_in(other)
    assert who(other) == kim


def test_letters_may_be_large_or_small(browser: FlaskClient, company: Company, kim: int) -> None:
    company.person["email"] = "Kim@Example.com"
    sign_in(browser)
    assert who(browser) == kim


def test_a_key_of_an_elliptic_curve_signs_too(browser: FlaskClient, company: Company, kim: int) -> None:
    """ES256 is as good as RS256."""
    company.sign = lambda claims: signed(claims, EC)
    sign_in(browser)
    assert who(browser) == kim


def test_entra_vouches_for_the_domain_of_an_email(browser: FlaskClient, company: Company, kim: int) -> None:
    """It never says email_verified."""
    company.person = {"sub": "7", "email": EMAIL, "xms_edov": True}
    sign_in(browser)
    assert who(browser) == kim


def test_what_the_token_lacks_is_asked_for(browser: FlaskClient, company: Company, kim: int) -> None:
    """As Okta's tokens lack the e-mail, which it tells beside them."""
    company.person, company.userinfo = {"sub": "7"}, {"sub": "7", "email": EMAIL, "email_verified": True}
    sign_in(browser)
    assert who(browser) == kim


def test_a_client_without_a_basic_secret_posts_it(browser: FlaskClient, company: Company, kim: int) -> None:
    """Each provider says how it wants to hear the secret."""
    company.described = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    original, seen = company.token, []
    try:
        company.token = lambda form, _: (  # type: ignore[method-assign]
            seen.append(form["client_secret"]) or original(form, (form["client_id"], form["client_secret"]))
        )
        sign_in(browser)
    finally:
        del company.token
    assert (who(browser), seen) == (kim, [CLIENT_SECRET])


def test_the_provider_is_described_once(browser: FlaskClient, company: Company, kim: int) -> None:
    """Its description and its keys are kept for an hour."""
    for _ in range(3):
        sign_in(browser)
    assert company.asked.count("discovery") == 1


def test_a_new_key_of_the_provider_is_fetched(browser: FlaskClient, company: Company, kim: int) -> None:
    sign_in(browser)
    new = RSAKey.generate_key(2048, {"kid": "third"})
    company.keys, company.sign = [new], lambda claims: signed(claims, new)
    assert sign_in(browser.application.test_client()).status_code == 303


def test_people_are_sent_back_to_the_public_address(instance: Instance, company: Company, kim: int) -> None:
    """Behind a proxy it is --public-url that counts, with its path."""
    app = create_app(instance, {"LABELER_PUBLIC_URL": PublicUrl.read("https://example.com/tools/labeler")})
    back = away(app.test_client())
    assert back.startswith("https://example.com/tools/labeler/sign-in/company/back?")


def test_the_session_is_one_like_any_other(browser: FlaskClient, company: Company, kim: int, store: Store) -> None:
    """Signing out ends it for every copy of its cookie, and a new password ends all of them."""
    app = browser.application
    sign_in(browser)
    copy = app.test_client()
    cookie = browser.get_cookie(app.config["SESSION_COOKIE_NAME"])
    assert cookie is not None
    copy.set_cookie(app.config["SESSION_COOKIE_NAME"], cookie.value)
    browser.post("/sign-out", data={"csrf_token": token_of(browser, "/account")})
    assert who(copy) is None
    sign_in(browser)
    accounts.set_password(store, kim, "other plain words")
    assert who(browser) is None


def test_a_session_from_before_is_not_gone_on_with(browser: FlaskClient, company: Company, kim: int) -> None:
    """Whoever planted a cookie beforehand knows nothing of the session; the language of the page stays."""
    with browser.session_transaction() as session:
        session["secret"], session["by_link"], session["language"] = "planted", True, "en"
    sign_in(browser)
    with browser.session_transaction() as session:
        assert (session.get("by_link"), session["language"], session["reviewer"]) == (None, "en", kim)
        assert session["secret"] != "planted"
        assert "company" not in session


def test_what_was_done_says_who_came_and_was_linked(
    browser: FlaskClient, company: Company, kim: int, store: Store
) -> None:
    sign_in(browser)
    company.person["sub"] = "8"
    sign_in(browser)
    kinds = [(row["kind"], row["who"]) for row in store.events.acts(None, 3)]
    assert kinds == [("sign-in failed", None), ("signed in", "kim"), ("account linked", "kim")]


# Which account


def refused(browser: FlaskClient, status: int, words: str) -> None:
    """Sign in, and be told why not, on the page to sign in at."""
    answer = sign_in(browser)
    assert (answer.status_code, words in answer.text) == (status, True), answer.text
    assert 'name="password"' in answer.text
    assert who(browser) is None


@pytest.mark.parametrize(
    "person",
    [
        {"email": EMAIL, "email_verified": False},
        {"email": EMAIL},
        {"email": EMAIL, "email_verified": False, "xms_edov": True},
        {"email": EMAIL, "email_verified": "false"},
        {"email": "kim@example.com\u0131", "email_verified": True},
        {"email": "not an address", "email_verified": True},
        {"email": ["kim@example.com"], "email_verified": True},
        {},
    ],
)
def test_an_email_that_nobody_verified_opens_nothing(
    browser: FlaskClient, company: Company, kim: int, person: Claims
) -> None:
    """Anybody may write somebody else's address into their profile."""
    company.person, company.userinfo = {"sub": "7", **person}, {"sub": "7"}
    refused(browser, 403, "does not say that your e-mail is verified")


def test_a_verified_email_elsewhere_says_nothing_of_the_one_in_the_token(
    browser: FlaskClient, company: Company, kim: int
) -> None:
    """Both come from one place, or neither counts."""
    company.person = {"sub": "7", "email": EMAIL}
    company.userinfo = {"sub": "7", "email": "mine@example.com", "email_verified": True, "groups": ["staff"]}
    browser.application.extensions["labeler"].change_settings({"oidc_allowed": ["staff"]})
    refused(browser, 403, "does not say that your e-mail is verified")


def test_what_is_said_of_somebody_else_does_not_count(browser: FlaskClient, company: Company, kim: int) -> None:
    """The answer beside the token must be about the person of the token."""
    company.person, company.userinfo = {"sub": "7"}, {"sub": "1", "email": EMAIL, "email_verified": True}
    refused(browser, 401, "cannot be trusted (sub)")


def test_a_name_opens_nothing(browser: FlaskClient, company: Company, store: Store, people: dict[str, int]) -> None:
    """An account that is called like an e-mail is not that of who has it: only an admin says whose e-mail it is."""
    accounts.add_reviewer(store, EMAIL, None)
    refused(browser, 403, f"No account has the e-mail {EMAIL}")


def test_a_closed_account_stays_closed(
    browser: FlaskClient, company: Company, kim: int, store: Store, people: dict[str, int]
) -> None:
    """Whether it was linked before or not."""
    accounts.change_account(store, kim, people["admin"], disabled=True)
    refused(browser, 403, "The account of kim is closed")
    accounts.change_account(store, kim, people["admin"], disabled=False)
    sign_in(browser)
    accounts.change_account(store, kim, people["admin"], disabled=True)
    refused(browser, 403, "The account of kim is closed")


def test_who_gets_a_used_email_does_not_get_its_account(
    browser: FlaskClient, company: Company, kim: int, store: Store
) -> None:
    """Until an admin enters it again: then who had it before is out, at once."""
    sign_in(browser)
    company.person["sub"] = "8"
    newcomer = browser.application.test_client()
    refused(newcomer, 403, "belongs to somebody who had it before")
    accounts.set_email(store, kim, EMAIL)
    assert who(browser) is None
    sign_in(newcomer)
    assert who(newcomer) == kim
    company.person["sub"] = "7"
    refused(browser, 403, "belongs to somebody who had it before")


def test_an_email_is_that_of_one_account(store: Store, kim: int, people: dict[str, int]) -> None:
    with pytest.raises(InputError, match="belongs to the account of kim"):
        accounts.set_email(store, people["reviewer"], " KIM@example.com ")


def test_only_domains_and_groups_of_the_list_come_in(
    browser: FlaskClient, company: Company, kim: int, instance: Instance
) -> None:
    """One of them is enough, and also for who was linked before."""
    for allowed, groups, status in (
        (["@example.com"], None, 303),
        (["@EXAMPLE.com"], None, 303),
        (["@other.com"], None, 403),
        (["@ample.com"], None, 403),
        (["staff"], ["staff", "more"], 303),
        (["staff"], "staff", 303),
        (["@other.com", "staff"], ["staff"], 303),
        (["staff"], ["Staff"], 403),
        (["kim"], None, 403),
    ):
        instance.change_settings({"oidc_allowed": allowed})
        company.userinfo = {"sub": "7"}
        company.person = {"sub": "7", "email": EMAIL, "email_verified": True} | ({"groups": groups} if groups else {})
        answer = sign_in(browser.application.test_client())
        assert answer.status_code == status, (allowed, groups)
        assert status == 303 or "none of the domains and groups" in answer.text
    assert company.asked[-2:] == ["openid email groups", "token"]


def test_who_is_new_gets_an_account_where_that_is_wanted(
    browser: FlaskClient, company: Company, instance: Instance, store: Store, people: dict[str, int]
) -> None:
    """As a reviewer of nothing, and only from the list."""
    refused(browser, 403, "No account has the e-mail")
    instance.change_settings({"oidc_allowed": ["@example.com"], "oidc_new_accounts": True})
    sign_in(browser)
    person = store.people.get(who(browser) or 0)
    assert person is not None
    assert (person["name"], person["role"], person["password"]) == (EMAIL, "reviewer", None)
    company.person = {"sub": "9", "email": "park@other.com", "email_verified": True}
    refused(browser.application.test_client(), 403, "none of the domains and groups")


def test_a_list_that_was_emptied_by_hand_makes_no_accounts(
    browser: FlaskClient, company: Company, instance: Instance, people: dict[str, int]
) -> None:
    """Else all the people of Google would be in."""
    path = instance.folder / "settings.json"
    path.write_text(path.read_text().replace("{", '{"oidc_new_accounts": true,', 1))
    refused(browser, 403, "No account has the e-mail")


# Attacks


def forged_with_the_public_key(claims: Claims) -> str:
    """A token that is signed by what everybody can read, for whom takes it for a shared secret."""
    head = {"alg": "HS256", "kid": "first"}
    told = unsigned(head, claims).rpartition(".")[0].encode()
    return unsigned(head, claims, hmac.digest(RSA.as_pem(private=False), told, "sha256"))


OWN = ECKey.generate_key("P-256", {"kid": "second"})
TOKENS: dict[str, tuple[str, Any]] = {
    "another nonce": ("nonce", {"change": {"nonce": "that of another sign-in"}}),
    "no nonce": ("nonce", {"change": {"nonce": None}}),
    "another issuer": ("iss", {"change": {"iss": "https://evil.example"}}),
    "another audience": ("aud", {"change": {"aud": "another client"}}),
    "for another of several": ("azp", {"change": {"aud": [CLIENT_ID, "another"], "azp": "another"}}),
    "for one of several": ("azp", {"change": {"aud": [CLIENT_ID, "another"]}}),
    "nobody": ("sub", {"change": {"sub": None}}),
    "nobody in particular": ("sub", {"change": {"sub": ""}}),
    "without an end": ("exp", {"change": {"exp": None}}),
    "alg none": ("unsupported_algorithm", {"sign": lambda c: unsigned({"alg": "none"}, c)}),
    "HS256 with the public key": ("unsupported_algorithm", {"sign": forged_with_the_public_key}),
    "another's key of the same name": ("bad_signature", {"sign": lambda c: signed(c, STRANGERS)}),
    "an unknown key": ("invalid_key_id", {"sign": lambda c: signed(c, STRANGERS, kid="unknown")}),
    "a key of its own within": ("bad_signature", {"sign": lambda c: signed(c, OWN, jwk=OWN.as_dict(private=False))}),
    "changed after it was signed": (
        "bad_signature",
        {"sign": lambda c: ".".join((signed(c).split(".")[0], unsigned({}, c | {"sub": "1"}).split(".")[1], "AA"))},
    ),
    "no token": ("", {"sign": lambda c: "nonsense"}),
}


@pytest.mark.parametrize("attack", TOKENS)
def test_a_token_that_is_not_quite_right_opens_nothing(
    browser: FlaskClient, company: Company, kim: int, attack: str
) -> None:
    """The sentence says what was wrong, by the word of the standard, and nothing of it is taken."""
    why, lie = TOKENS[attack]
    for name, value in lie.items():
        setattr(company, name, value)
    refused(browser, 401, "cannot be trusted (" + why)


@pytest.mark.parametrize("change", [{"exp": -3600}, {"iat": 3600}, {"nbf": 3600}])
def test_a_token_of_another_time_names_the_clock(
    browser: FlaskClient, company: Company, kim: int, change: dict[str, int]
) -> None:
    """An expired token, or one of tomorrow, mostly means a clock that is wrong; a minute is forgiven."""
    company.change = {name: int(time.time()) + seconds for name, seconds in change.items()}
    refused(browser, 401, "the time of this server")
    company.change = {name: int(time.time()) + (seconds > 0) * 100 - 50 for name, seconds in change.items()}
    assert sign_in(browser).status_code == 303


@pytest.mark.parametrize(
    "answer",
    [{"state": "guessed"}, {"state": None}, {"state": ""}, {"state": "한"}, {"iss": "https://evil.example"}],
)
def test_an_answer_to_another_question_is_not_looked_at(
    browser: FlaskClient, company: Company, kim: int, answer: dict[str, str | None]
) -> None:
    """The provider is not even asked what its code is worth."""
    company.answer = answer
    assert sign_in(browser).status_code == 401
    assert "token" not in company.asked
    assert who(browser) is None


def test_an_answer_is_for_the_browser_that_asked(browser: FlaskClient, company: Company, kim: int) -> None:
    """Nobody can be signed in as somebody else by a link that is sent to them."""
    back = away(browser)
    other = browser.application.test_client()
    assert come_back(other, back).status_code == 401
    away(other)
    assert come_back(other, back).status_code == 401
    assert who(other) is None
    assert come_back(browser, back).status_code == 303


def test_a_code_is_worth_nothing_in_another_browser(browser: FlaskClient, company: Company, kim: int) -> None:
    """Also with the right state: the provider asks for what only the browser that began knows."""
    stolen = away(browser).split("code=")[1].split("&")[0]
    other = browser.application.test_client()
    company.answer = {"code": stolen}
    answer = sign_in(other)
    assert (answer.status_code, "did not sign you in (invalid_grant)" in answer.text) == (401, True)


def test_a_code_is_used_once(browser: FlaskClient, company: Company, kim: int) -> None:
    """The address again opens nothing, not even with a copy of the cookie from before."""
    app = browser.application
    back = away(browser)
    cookie = browser.get_cookie(app.config["SESSION_COOKIE_NAME"])
    assert cookie is not None
    assert come_back(browser, back).status_code == 303
    browser.post("/sign-out", data={"csrf_token": token_of(browser, "/account")})
    assert come_back(browser, back).status_code == 401
    copy = app.test_client()
    copy.set_cookie(app.config["SESSION_COOKIE_NAME"], cookie.value)
    assert "invalid_grant" in come_back(copy, back).text
    assert who(browser) is None and who(copy) is None


def test_a_sign_in_that_took_too_long_is_begun_again(browser: FlaskClient, company: Company, kim: int) -> None:
    back = away(browser)
    with browser.session_transaction() as session:
        begun, target = session["company"]
        session["company"] = [[*begun[:3], begun[3] - 601], target]
    answer = come_back(browser, back)
    assert (answer.status_code, "took too long" in answer.text) == (401, True)


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:1", "x"])
def test_signing_in_never_leads_to_another_site(browser: FlaskClient, company: Company, kim: int, target: str) -> None:
    assert sign_in(browser, next=target).location == "/"


def test_an_error_of_the_provider_cannot_write_on_our_page(browser: FlaskClient, company: Company, kim: int) -> None:
    """Its code is shown if it is one; what else an address carries is not."""
    company.answer = {"code": None, "error": "access_denied", "error_description": "Call this number"}
    answer = sign_in(browser)
    assert "did not sign you in (access_denied)" in answer.text and "Call" not in answer.text
    assert answer.text.count("state=") == 0
    company.answer = {"code": None, "error": "Call this number"}
    assert "Call" not in sign_in(browser).text


def test_failed_sign_ins_are_throttled_by_address(browser: FlaskClient, company: Company, kim: int) -> None:
    """Twenty, as with passwords; what another site makes a browser open does not count."""
    for _ in range(25):
        assert browser.get(f"{BACK}?state=x&code=y").status_code == 401
    company.refusal = {"error": "invalid_grant"}
    for _ in range(20):
        assert sign_in(browser).status_code == 401
    company.refusal = None
    answer = sign_in(browser)
    assert (answer.status_code, int(answer.headers["Retry-After"])) == (429, 300)


def test_who_succeeds_is_not_counted(browser: FlaskClient, company: Company, kim: int) -> None:
    """A whole office comes from one address."""
    for _ in range(22):
        assert sign_in(browser).status_code == 303


def test_no_secret_is_in_the_log_or_in_the_database(
    browser: FlaskClient, company: Company, kim: int, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even where the provider says it back."""
    caplog.set_level(logging.DEBUG)
    back = away(browser)
    with browser.session_transaction() as session:
        state, nonce, verifier, _ = session["company"][0]
    code = back.split("code=")[1].split("&")[0]
    come_back(browser, back)
    company.refusal = {"error": "invalid_client", "error_description": f"{CLIENT_SECRET} is wrong"}
    sign_in(browser)
    stored = "\n".join(str(tuple(row)) for row in store.db.all("SELECT * FROM events"))
    ours = "\n".join(record.getMessage() for record in caplog.records if record.name != "werkzeug")
    assert "invalid_client: … is wrong" in ours
    for secret in (CLIENT_SECRET, code, state, nonce, verifier, "opaque"):
        assert secret not in ours and secret not in stored


# A provider that cannot be used


def test_a_provider_that_is_not_there_is_named(
    browser: FlaskClient, company: Company, kim: int, instance: Instance
) -> None:
    """Passwords work meanwhile, and the next who come are not kept waiting for it."""
    with served(Flask("gone")) as gone:
        pass
    instance.change_settings({"oidc_issuer": gone})
    answer = browser.get("/sign-in/company", headers={"Accept-Language": "en"})
    assert (answer.status_code, f"{gone}/.well-known/openid-configuration" in answer.text) == (502, True)
    form = {"csrf_token": token_of(browser), "name": "kim", "password": PASSWORD}
    assert browser.post("/sign-in", data=form).status_code == 303


def test_a_provider_that_was_away_is_asked_again_after_a_while(
    browser: FlaskClient, company: Company, kim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For five seconds nobody waits for it again."""
    company.described = {"issuer": "https://elsewhere.example"}
    answer = browser.get("/sign-in/company", headers={"Accept-Language": "en"})
    assert "calls itself &#39;https://elsewhere.example&#39;" in answer.text
    company.described = {}
    assert browser.get("/sign-in/company").status_code == 502
    assert company.asked.count("discovery") == 1
    monkeypatch.setattr("labeler.oidc._FAILED", 0.0)
    later = time.monotonic() + 6
    monkeypatch.setattr("labeler.oidc.time.monotonic", lambda: later)
    assert sign_in(browser).status_code == 303


@pytest.mark.parametrize(
    ("described", "words"),
    [
        ({"token_endpoint": None}, "names no https address as token_endpoint"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "names no https address as authorization_endpoint"),
        ({"jwks_uri": "https://keys.example"}, "names no https address as jwks_uri"),
        ({"userinfo_endpoint": "http://192.168.0.1/"}, "names no https address as userinfo_endpoint"),
        ({"jwks_uri": "/nothing"}, "names no https address as jwks_uri"),
    ],
)
def test_a_description_that_leads_elsewhere_is_refused(
    browser: FlaskClient, company: Company, described: Claims, words: str
) -> None:
    """To addresses that others can read, or that only this machine reaches from where the provider is not."""
    company.described = described
    answer = browser.get("/sign-in/company", headers={"Accept-Language": "en"})
    assert (answer.status_code, words in answer.text) == (502, True), answer.text


def test_a_page_that_is_no_description_is_named(browser: FlaskClient, company: Company) -> None:
    """Such as the address of another page of the provider."""
    browser.application.extensions["labeler"].change_settings({"oidc_issuer": f"{company.address}/keys"})
    answer = browser.get("/sign-in/company", headers={"Accept-Language": "en"})
    assert (answer.status_code, "HTTP 404" in answer.text) == (502, True)


def test_without_the_extra_the_page_says_what_to_install(
    browser: FlaskClient, company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    answer = browser.get("/sign-in/company")
    assert (answer.status_code, "labeler-rag[oidc]" in answer.text) == (501, True)


def test_a_folder_that_cannot_be_written_lets_in_who_was_linked(
    browser: FlaskClient, company: Company, kim: int, instance: Instance
) -> None:
    """And says to others that it is the first time, which would have to be written down."""
    with Instance(instance.folder, read_only=True) as looked_at:
        browser = create_app(looked_at, {"TESTING": True}).test_client()
        refused(browser, 403, "for the first time")
    sign_in(create_app(instance, {"TESTING": True}).test_client())
    with Instance(instance.folder, read_only=True) as looked_at:
        browser = create_app(looked_at, {"TESTING": True}).test_client()
        assert sign_in(browser).status_code == 303
        assert who(browser) == kim


# Setting it up


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"oidc_issuer": "http://login.example.com"}, "oidc_issuer must be an https address"),
        ({"oidc_issuer": "https://user:key@login.example.com"}, "oidc_issuer must be"),
        ({"oidc_issuer": "https://login.example.com/?a=b"}, "oidc_issuer must be"),
        ({"oidc_issuer": "https://[login"}, "oidc_issuer must be"),
        ({"oidc_allowed": ["kim@example.com"]}, "write a domain as @example.com"),
        ({"oidc_allowed": ["@com"]}, "write a domain as @example.com"),
        ({"oidc_new_accounts": True}, "needs a domain or a group in oidc_allowed"),
    ],
)
def test_settings_that_would_let_in_nobody_or_everybody_are_refused(
    instance: Instance, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(SettingError, match=words):
        instance.change_settings(settings)
    assert instance.settings == {}


def test_the_secret_of_the_environment_wins_and_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"oidc_issuer": "https://a.example", "oidc_client_id": "b", "oidc_client_secret": "stored"}
    found = Registration.of(settings)
    assert found is not None and found.client_secret == "stored" and "stored" not in repr(found)
    monkeypatch.setenv("LABELER_OIDC_CLIENT_SECRET", " outer ")
    found = Registration.of(settings)
    assert found is not None and found.client_secret == "outer"


def test_the_button_is_there_once_it_is_set_up(browser: FlaskClient, company: Company, instance: Instance) -> None:
    """With the name that people know; without a provider there is only the password."""
    english = {"Accept-Language": "en"}
    assert "Sign in with the account of the company" in browser.get("/sign-in", headers=english).text
    instance.change_settings({"oidc_title": "<Shop>"})
    assert "Sign in with &lt;Shop&gt;" in browser.get("/sign-in?next=/account", headers=english).text
    instance.change_settings({"oidc_client_id": None})
    assert "/sign-in/company" not in browser.get("/sign-in").text
    for path in ("/sign-in/company", BACK):
        assert browser.get(path).location == "/sign-in"


def test_an_admin_says_whose_email_it_is(
    app: Flask, company: Company, store: Store, people: dict[str, int], client: FlaskClient
) -> None:
    """At a new account, and at one that is there; the page says who was linked."""
    token = token_of(client, "/people")
    form = {"csrf_token": token, "name": "park", "role": "reviewer", "email": "no address"}
    assert client.post("/people/accounts", data=form).status_code == 400
    assert store.people.named("park") is None
    assert client.post("/people/accounts", data=form | {"email": "Park@example.com"}).status_code == 200
    path = f"/people/{people['reviewer']}/email"
    assert client.post(path, data={"csrf_token": token, "email": "park@example.com"}).status_code == 400
    assert client.post(path, data={"csrf_token": token, "email": EMAIL}).status_code == 303
    browser = app.test_client()
    sign_in(browser)
    assert who(browser) == people["reviewer"]
    page = client.get("/people", headers={"Accept-Language": "en"}).text
    assert page.count('<span class="tag">') == 1 and "park@example.com" in page
    assert client.post(path, data={"csrf_token": token, "email": ""}).status_code == 303
    assert who(browser) is None


def test_the_command_line_says_whose_email_it_is(instance: Instance, store: Store) -> None:
    """As *People* does."""

    def said(*words: str) -> str:
        done = CliRunner().invoke(cli, ["user", *words, "--instance", str(instance.folder)])
        return done.output + (str(done.exception) if done.exception else "")

    said("add", "kim", "--email", EMAIL)
    assert store.people.named("kim")["email"] == EMAIL  # type: ignore[index]
    assert "e-mail address" in said("add", "park", "--email", "park")
    assert store.people.named("park") is None
    assert "Set the e-mail of kim" in said("email", "kim", "kim@shop.example")
    assert "no e-mail any more" in said("email", "kim", "")
    assert store.people.named("kim")["email"] is None  # type: ignore[index]


def test_the_settings_say_what_the_provider_must_know(
    app: Flask, company: Company, people: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address that people are sent back to; the secret is on no page."""
    monkeypatch.setenv("LABELER_OIDC_CLIENT_SECRET", "outer")
    client = app.test_client()
    enter(client, app, people["admin"])
    page = client.get("/settings").text
    assert "<code>http://localhost/sign-in/company/back</code>" in page
    assert "LABELER_OIDC_CLIENT_SECRET" in page
    assert CLIENT_SECRET not in page and "outer" not in page


@pytest.mark.browser
def test_a_person_presses_the_button_and_is_in(app: Flask, company: Company, kim: int) -> None:
    """The whole road in a browser: nothing of the policy of the pages is in the way, and signing out ends it."""
    with opened_browser() as chromium, served(app) as address:
        page = chromium.new_page()
        page.goto(f"{address}/account")
        page.click("a[href^='/sign-in/company']")
        page.wait_for_url(f"{address}/account")
        assert page.locator("input[name=new]").count() == 1
        page.close()
