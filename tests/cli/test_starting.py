"""``beaker-bridge check --start``: what only a started application shows."""

from __future__ import annotations

import pytest

from tests.cli.sites import FINE, SECRET
from tests.cli.test_check import SETTINGS, findings

# Processes, and what they print: what the interpreter adds does not differ.
pytestmark = pytest.mark.once

TWEENS = "\n    pyramid.tweens =\n        {}\n"
OURS, EXCVIEW = "beaker_bridge.session_tween_factory", "pyramid.tweens.excview_tween_factory"


def test_the_order_of_the_tweens(folder):
    """It is shown, the outermost first; nothing that the application prints is in the JSON object."""
    file = folder.write(FINE)
    shown, as_json = (folder.call("check", file, "--start", *more) for more in ((), ("--json",)))

    assert f"Tweens, the outermost first: {OURS}, {EXCVIEW}" in shown.text
    assert as_json.json["tweens"] == [OURS, EXCVIEW]
    assert (shown.code, as_json.code, as_json.json["findings"]) == (0, 0, [])
    assert "the application prints something" in as_json.err


@pytest.mark.parametrize(
    ("ini", "code", "level", "rule", "text"),
    [
        (FINE.replace("    pyramid.includes = beaker_bridge\n", ""), 0, "risky", "no-factory", "is none of ours"),
        (SETTINGS.replace("    pyramid.includes = beaker_bridge\n", ""), 2, "wrong", "no-factory", "is none of ours"),
        (FINE.replace("    pyramid.includes = beaker_bridge\n", ""), 0, "risky", "no-tween", f"{OURS} is missing"),
        (
            FINE.replace("clisite:main", "clisite:refusing"),
            2,
            "wrong",
            "start",
            "RuntimeError: the application refuses",
        ),
        (
            FINE.replace("clisite:main", "clisite:mute"),
            2,
            "wrong",
            "start",
            "the application does not start: ValueError",
        ),
        (FINE.replace("clisite:main", "clisite:plain"), 0, "risky", "no-pyramid", "no Pyramid application was found"),
        (SETTINGS + TWEENS.format(EXCVIEW), 2, "wrong", "start", "pyramid.tweens must hold"),
        (SETTINGS + TWEENS.format(f"{EXCVIEW} {OURS}"), 2, "wrong", "start", "got it under that"),
        (SETTINGS.replace("clisite:main", "clisite:under"), 2, "wrong", "tween-order", f"is under {EXCVIEW}"),
    ],
)
def test_what_is_wrong_with_it(folder, ini, code, level, rule, text):
    """An application that does not start, whose sessions are not ours, or whose tweens are in another order."""
    outcome = folder.call("check", folder.write(ini), "--start", "--json")

    assert outcome.code == code
    assert [each for name, each in findings(outcome, level) if name == rule and text in each]


@pytest.mark.parametrize("around", ["our filter", "Beaker's filter", "in other middleware", "around other middleware"])
def test_an_application_within_filters(folder, around):
    """The application is found in them."""
    line = {
        "our filter": "use = egg:beaker_bridge#session",
        "Beaker's filter": "use = egg:Beaker#beaker_session",
        "in other middleware": (
            "use = egg:beaker_bridge#session\n    filter-with = outer\n"
            "    [filter:outer]\n    paste.filter_app_factory = clisite:wrapping\n    [filter:rest]"
        ),
        "around other middleware": (
            "paste.filter_app_factory = clisite:wrapping\n    filter-with = inner\n"
            "    [filter:inner]\n    use = egg:beaker_bridge#session"
        ),
    }[around]
    outcome = folder.call(
        "check", folder.write(FINE.replace("use = egg:beaker_bridge#session", line)), "--start", "--json"
    )

    assert outcome.json["tweens"] == [OURS, EXCVIEW]


def test_a_session_factory_of_the_applications_code(folder):
    """Without options in the file, those that the application gives in Python are looked at."""
    file = folder.write("\n    [app:main]\n    use = call:clisite:coded\n")
    before = folder.call("check", file, "--json")
    outcome = folder.call("check", file, "--start", "--json")

    assert before.code == 2
    assert "no session is configured there" in findings(before, "wrong")[0][1]
    assert outcome.code == 0
    assert outcome.json["options"]["timeout"]["value"] == "77"
    assert outcome.json["options"]["data_serializer"]["value"] == "<Codec>"
    assert SECRET not in outcome.out
