"""The hash that signs our cookie, and the change from one to another."""

from __future__ import annotations

import hmac
from itertools import permutations

import pytest

from beaker_bridge.cookies import Signer
from beaker_bridge.exceptions import SettingsError
from beaker_bridge.options.reader import given, read_options
from tests.requests import Browser, config_of

ALGORITHMS = ("sha1", "sha256", "sha512")
SECRETS = ["the secret, of 32 bytes or even more", "the secret that was there before it"]
ID = "0123456789abcdef" * 2


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_signature_is_an_hmac(algorithm):
    """The signature is the HMAC of the value in hexadecimal, and stands before it."""
    signed = Signer(SECRETS, [algorithm]).sign(ID)

    assert signed == hmac.digest(SECRETS[0].encode(), ID.encode(), algorithm).hex() + ID
    assert Signer(SECRETS, [algorithm]).verify(signed) == (ID, False)


def test_beakers_is_the_default():
    """Without the option cookies are signed as Beaker signs them."""
    assert Signer(SECRETS).sign(ID) == Signer(SECRETS, ["sha1"]).sign(ID)
    assert read_options(given({})).sign_algorithm == "sha1"


@pytest.mark.parametrize(("new", "old"), list(permutations(ALGORITHMS, 2)))
def test_another_hash_is_accepted_only_where_it_is_named(new, old):
    """What another hash has signed is accepted, and to be signed anew, where the options say so, and only there."""
    signed = Signer(SECRETS, [old]).sign(ID)

    assert Signer(SECRETS, [new]).verify(signed) is None
    assert Signer(SECRETS, [new, old]).verify(signed) == (ID, True)
    assert Signer(SECRETS, [new, old]).verify(signed[1:]) is None
    assert Signer(SECRETS, [new, old]).verify(signed + "0") is None
    assert Signer(SECRETS, [new, old]).verify("") is None


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_retired_secret_is_accepted_with_each_hash(algorithm):
    """Secret and hash can be changed at once."""
    signed = Signer(SECRETS[1:], ["sha1"]).sign(ID)

    assert Signer(SECRETS, [algorithm, "sha1"]).verify(signed) == (ID, True)


@pytest.mark.parametrize("kind", ["file", "cookie"])
def test_a_change_over_logs_nobody_out(kind, tmp_path):
    """Who comes while both hashes are accepted stays logged in when the old one is not accepted any more."""
    options = {"type": kind, "data_dir": str(tmp_path), "secret": SECRETS[0], "validate_key": SECRETS[1]}
    browser, idle = Browser(config_of(**options)), Browser(config_of(**options))
    browser.write(user="ada")
    idle.write(user="bob")
    browser.config = config_of(**options, sign_algorithm="sha256", previous_sign_algorithms=["sha1"])
    during = browser.read()
    browser.config = idle.config = config_of(**options, sign_algorithm="sha256")

    assert during == {"user": "ada"}
    assert browser.read() == {"user": "ada"}
    assert idle.read() == {}


@pytest.mark.parametrize("option", ["sign_algorithm", "previous_sign_algorithms"])
def test_an_unknown_hash_stops_the_start(option):
    """A hash that is none of the three is a fault that names the option and the rule."""
    with pytest.raises(SettingsError, match=f"^{option} must be .*sha512.*, got 'md5'$"):
        read_options(given({option: "md5"}))
