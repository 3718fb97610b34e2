"""Opcodes, close codes and states, as the registries of RFC 6455 §11 have them."""

from __future__ import annotations

import pytest

from syncws.opcodes import (
    CLOSE_CODE_EXPLANATIONS,
    INTERNAL_CLOSE_CODES,
    OK_CLOSE_CODES,
    Close,
    CloseCode,
    Opcode,
    State,
    is_sendable_close_code,
)


def test_opcodes_are_those_of_the_registry():
    assert {opcode.name: opcode.value for opcode in Opcode} == {
        "CONT": 0,
        "TEXT": 1,
        "BINARY": 2,
        "CLOSE": 8,
        "PING": 9,
        "PONG": 10,
    }


def test_states_are_in_the_order_in_which_they_are_passed():
    assert list(State) == [State.CONNECTING, State.OPEN, State.CLOSING, State.CLOSED]


def test_sendable_close_codes_are_those_of_the_registry_that_a_frame_may_carry():
    sendable = [code for code in range(65536) if is_sendable_close_code(code)]
    assert sendable == [1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)]


@pytest.mark.parametrize("code", [-1, 0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65536])
def test_reserved_close_code_is_not_sendable(code):
    assert not is_sendable_close_code(code)


def test_internal_close_codes_are_three():
    assert {1005, 1006, 1015} == INTERNAL_CLOSE_CODES


def test_ok_close_codes_are_three():
    assert {1000, 1001, 1005} == OK_CLOSE_CODES


def test_every_close_code_has_an_explanation():
    assert set(CLOSE_CODE_EXPLANATIONS) == set(CloseCode)


@pytest.mark.parametrize(
    ("close", "text"),
    [
        (Close(1000), "1000 (OK)"),
        (Close(CloseCode.GOING_AWAY), "1001 (going away)"),
        (Close(1001, "bye"), "1001 (going away) bye"),
        (Close(1002, "incorrect masking"), "1002 (protocol error) incorrect masking"),
        (Close(1003), "1003 (unsupported data)"),
        (Close(1004), "1004 (unknown)"),
        (Close(1005), "1005 (no status received [internal])"),
        (Close(1006), "1006 (abnormal closure [internal])"),
        (Close(1007), "1007 (invalid frame payload data)"),
        (Close(1008), "1008 (policy violation)"),
        (Close(1009), "1009 (message too big)"),
        (Close(1010), "1010 (mandatory extension)"),
        (Close(1011), "1011 (internal error)"),
        (Close(1012), "1012 (service restart)"),
        (Close(1013), "1013 (try again later)"),
        (Close(1014), "1014 (bad gateway)"),
        (Close(1015), "1015 (TLS handshake failure [internal])"),
        (Close(2999), "2999 (unknown)"),
        (Close(3000), "3000 (registered)"),
        (Close(3999), "3999 (registered)"),
        (Close(4000), "4000 (private use)"),
        (Close(4999, "mine"), "4999 (private use) mine"),
        (Close(5000), "5000 (unknown)"),
    ],
)
def test_close_explains_its_code(close, text):
    assert str(close) == text
