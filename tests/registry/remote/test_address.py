"""Addresses on the Hub: hf://user/name[@branch], and what is not one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pv.registry.errors import UsageError
from pv.registry.remote.address import HubTarget, parse_target


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("hf://alice/persona", HubTarget("alice/persona", "main")),
        ("hf://models/alice/persona", HubTarget("alice/persona", "main")),
        ("hf://Al-ice_1/p.e-r_1@dev", HubTarget("Al-ice_1/p.e-r_1", "dev")),
        ("hf://alice/persona@a%2Fb", HubTarget("alice/persona", "a/b")),
        ("hf://alice/persona@refs/pr/3", HubTarget("alice/persona", "refs/pr/3")),
    ],
)
def test_addresses(text: str, target: HubTarget) -> None:
    assert parse_target(text) == target
    assert parse_target(str(target)) == target


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("alice/persona", "did you mean hf://alice/persona?"),
        ("https://huggingface.co/alice/persona", "did you mean hf://alice/persona?"),
        ("/home/alice/persona", "write hf://USER/NAME"),
        ("hf://persona", "USER/NAME"),
        ("hf://alice/a/b", "USER/NAME"),
        ("hf://alice/a--b", "USER/NAME"),
        ("hf://alice/a..b", "USER/NAME"),
        ("hf://alice/a.git", "USER/NAME"),
        ("hf://alice/-a", "USER/NAME"),
        ("hf://alice/a b", "USER/NAME"),
        ("hf://alice/ä", "USER/NAME"),
        ("hf://alice/persona\n", "USER/NAME"),
        ("hf:///persona", "USER/NAME"),
        ("hf://", "USER/NAME"),
        ("hf://datasets/alice/rows", "hf://USER/NAME"),
        ("hf://alice/persona@", "@BRANCH"),
        ("hf://alice/persona@-x", "@BRANCH"),
        ("hf://alice/persona@a..b", "@BRANCH"),
        ("hf://alice/persona@a b", "@BRANCH"),
        ("hf://alice/persona@%2e%2e%2fmain", "@BRANCH"),
        ("hf://alice/persona@main/config.json", "%2F"),
    ],
)
def test_addresses_that_are_not(text: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_target(text)
    assert caught.value.hint is not None and hint in caught.value.hint


@given(st.text(max_size=40) | st.from_regex(r"[\w./@%:-]{0,40}"))
def test_any_address_is_a_target_or_a_usage_error(text: str) -> None:
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        target = parse_target(f"hf://{text}")
    except UsageError as error:
        assert error.hint
    else:
        validate_repo_id(target.repo)  # the client's own rule agrees
        assert parse_target(str(target)) == target
