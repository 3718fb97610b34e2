"""HTTP Basic authentication (RFC 7617)."""

from __future__ import annotations

import pytest

from syncws.auth import basic_auth
from syncws.handshake import reject
from syncws.headers import Headers, build_authorization_basic
from syncws.http11 import Request


class Connection:
    """What the hook needs of a connection."""

    username = None

    def respond(self, status, text):
        return reject(status, text)


def authenticate(hook, *authorizations):
    """Call a hook; return the name of the user, and its response."""
    connection = Connection()
    headers = Headers([("Authorization", value) for value in authorizations])
    return connection, hook(connection, Request("/", headers))


def test_the_right_credentials_pass():
    hook = basic_auth(credentials=("hello", "iloveyou"))
    connection, response = authenticate(hook, build_authorization_basic("hello", "iloveyou"))
    assert response is None
    assert connection.username == "hello"


def test_a_refusal_asks_for_credentials():
    connection, response = authenticate(basic_auth("the lab", credentials=("hello", "iloveyou")))
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == 'Basic realm="the lab", charset="UTF-8"'
    assert response.body == b"Missing credentials\n"
    assert connection.username is None


@pytest.mark.parametrize(
    ("username", "password"),
    [
        ("hello", "iloveyou!"),
        ("hello", ""),
        ("hell", "oiloveyou"),
        ("Hello", "iloveyou"),
        ("", ""),
        ("other", "iloveyou"),
        ("hello", "\udcff"),
    ],
)
@pytest.mark.parametrize("credentials", [("hello", "iloveyou"), [("hello", "iloveyou")], []])
def test_the_wrong_credentials_are_refused(credentials, username, password):
    hook = basic_auth(credentials=credentials)
    connection, response = authenticate(hook, build_authorization_basic(username, password))
    assert response.status_code == 401
    assert response.body == b"Invalid credentials\n"
    assert connection.username is None


@pytest.mark.parametrize(
    "authorizations",
    [
        ["Bearer abc"],
        ["Basic"],
        ["Basic ???"],
        [""],
        [build_authorization_basic("hello", "iloveyou")] * 2,
    ],
)
def test_credentials_that_cannot_be_read_are_refused(authorizations):
    hook = basic_auth(credentials=("hello", "iloveyou"))
    connection, response = authenticate(hook, *authorizations)
    assert response.status_code == 401
    assert response.body == b"Unsupported credentials\n"
    assert connection.username is None


@pytest.mark.parametrize("credentials", [("a", "1"), ("b", "2:3"), ("é", "£")])
def test_several_users_may_have_credentials(credentials):
    hook = basic_auth(credentials=iter([("a", "1"), ("b", "2:3"), ("é", "£")]))
    connection, response = authenticate(hook, build_authorization_basic(*credentials))
    assert response is None
    assert connection.username == credentials[0]


def test_users_do_not_share_passwords():
    hook = basic_auth(credentials=[("a", "1"), ("b", "2")])
    _, response = authenticate(hook, build_authorization_basic("a", "2"))
    assert response.status_code == 401


@pytest.mark.parametrize("result", [True, False])
def test_check_credentials_decides(result):
    calls = []

    def check_credentials(username, password):
        calls.append((username, password))
        return result

    hook = basic_auth(check_credentials=check_credentials)
    _, response = authenticate(hook, build_authorization_basic("a", "1"))
    assert calls == [("a", "1")]
    assert (response is None) is result


@pytest.mark.parametrize(
    "kwargs", [{}, {"credentials": ("a", "1"), "check_credentials": lambda u, p: True}]
)
def test_credentials_come_from_one_place(kwargs):
    with pytest.raises(ValueError, match="provide either credentials or check_credentials"):
        basic_auth(**kwargs)


@pytest.mark.parametrize(
    "credentials", [1, "ab", ["ab"], [("a",)], [("a", 1)], ("a", b"1"), [("a", "1", "2")]]
)
def test_credentials_must_be_pairs_of_strings(credentials):
    with pytest.raises(TypeError, match="credentials"):
        basic_auth(credentials=credentials)


def test_a_username_with_a_colon_could_never_be_right():
    with pytest.raises(ValueError, match="must not contain a colon"):
        basic_auth(credentials=("a:b", "c"))


def test_the_realm_is_checked_before_serving():
    with pytest.raises(ValueError, match="invalid characters in realm"):
        basic_auth("a\r\nb", credentials=("a", "1"))
