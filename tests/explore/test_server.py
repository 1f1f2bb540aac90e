"""Who is served: whoever has the link, from this machine, from the page itself; and nothing but data is taken."""

import json

import pytest
from starlette.testclient import TestClient

from cotinterp.explore.server import FILES, LARGEST_REQUEST, WEB, explorer_app
from cotinterp.explore.widget import ExplorerWidget
from tests.explore.conftest import COT

HERE = "http://127.0.0.1:8765"
WRITE = {"ask": "write", "model": COT, "operands": [3, 4, 5, 6]}


@pytest.fixture
def stranger(explorer):
    """A client without the cookie; redirects are not followed."""
    app = explorer_app(explorer, port=8765, token="once")
    return TestClient(app, base_url=HERE, follow_redirects=False)


@pytest.fixture
def guest(stranger):
    """A client that has opened the link."""
    entered = stranger.get("/?token=once")
    assert (entered.status_code, entered.headers["location"]) == (303, "/")
    return stranger


def ask(client, request=WRITE, **headers):
    sent = {"Origin": HERE, "Content-Type": "application/json"} | headers
    return client.post("/api", content=json.dumps(request), headers={k: v for k, v in sent.items() if v is not None})


def test_the_link_is_good_once_and_leaves_a_cookie_that_no_script_reads(guest):
    assert guest.get("/").status_code == 200
    assert ask(guest).json()["answer"] == "18"
    again = guest.get("/?token=once")
    assert (again.status_code, "link has been used" in again.text) == (403, True)
    stranger = TestClient(guest.app, base_url=HERE, follow_redirects=False)
    assert stranger.get("/?token=once").status_code == 403
    assert ask(stranger).status_code == 403


def test_the_cookie_is_for_this_page_alone(stranger):
    cookie = stranger.get("/?token=once").headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert "once" not in cookie


@pytest.mark.parametrize("path", [*FILES, "/?token=guess", "/?token=", "/?token=%C3%A9"])
def test_a_stranger_is_shown_nothing(stranger, path):
    assert stranger.get(path).status_code == 403
    assert ask(stranger).status_code == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "127.0.0.1:9999", "127.0.0.1", ""])
def test_another_host_is_refused_before_anything_else(guest, host):
    assert guest.get("/", headers={"Host": host}).status_code == 421
    assert ask(guest, Host=host).status_code == 421


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "https://127.0.0.1:8765", None]
)
def test_another_page_cannot_ask(guest, origin):
    assert ask(guest, Origin=origin).status_code == 403


def test_a_request_is_a_bounded_json_object(guest):
    assert ask(guest, **{"Content-Type": "text/plain"}).status_code == 415
    assert ask(guest, [WRITE]).status_code == 400
    headers = {"Origin": HERE, "Content-Type": "application/json"}
    assert guest.post("/api", content="{", headers=headers).status_code == 400
    assert guest.post("/api", content="[" * 60_000, headers=headers).status_code == 400
    assert guest.post("/api", content=" " * (LARGEST_REQUEST + 1), headers=headers).status_code == 413
    assert ask(guest, WRITE | {"model": "../x"}).json() == {"error": "model: Input should be a valid integer"}


@pytest.mark.parametrize(
    "path", ["/session.py", "/..%2fsession.py", "/web/explore.js", "/explore.js/../session.py", "/api"]
)
def test_there_are_no_other_files(guest, path):
    assert guest.get(path).status_code in (404, 405)


def test_every_reply_keeps_the_page_to_itself(guest):
    for reply in (guest.get("/"), guest.get("/explore.js"), ask(guest), guest.get("/", headers={"Host": "x"})):
        policy = reply.headers["content-security-policy"]
        assert policy.startswith("default-src 'self'")
        assert "unsafe" not in policy
        assert reply.headers["cache-control"] == "no-store"
    assert "http" not in (WEB / "explore.js").read_text()


def test_the_notebook_shows_the_same_module_over_the_same_session(explorer, monkeypatch):
    widget, sent = ExplorerWidget(explorer), []
    monkeypatch.setattr(widget, "send", sent.append)
    widget._handle_custom_msg({"id": 5, "request": WRITE}, [])
    widget._handle_custom_msg("anything", [])
    assert sent[0] == {"id": 5, "answer": explorer.answer(WRITE)}
    assert "unknown request" in sent[1]["answer"]["error"]
    assert widget._esm == (WEB / "explore.js").read_text()
