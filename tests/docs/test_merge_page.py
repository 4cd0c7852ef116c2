"""docs/explanation/merge.rst: its pictures, its examples, and what it says of them."""

from __future__ import annotations

import configparser
import re

import pytest

from tests.docs.pages import examples, read
from tests.requests import Browser, config_of

from diagrams import merge  # isort: skip -- tests.docs.pages makes it importable

PAGE = read("explanation/merge")
EXAMPLES = examples(PAGE)
NONE = frozenset()


def test_each_rule_has_its_picture():
    """The page shows the picture of each rule, once."""
    assert sorted(re.findall(r"^\.\. diagram:: (\S+)$", PAGE, re.MULTILINE)) == sorted(merge.RULES)


@pytest.mark.parametrize(
    ("name", "result", "conflicts"),
    [
        ("merge-one-key", {"lang": "fr", "cart": ["tea", "rice"]}, NONE),
        ("merge-same", {"visits": 2}, NONE),
        ("merge-deletion", {}, {"user"}),
        ("merge-dict", {"prefs": {"lang": "fr", "size": 12}}, NONE),
        ("merge-appended", {"cart": ["tea", "milk", "rice"]}, NONE),
        ("merge-removed", {"cart": ["milk"]}, NONE),
        ("merge-set", {"tags": {"sale"}}, NONE),
        ("merge-flash", {"_f_": ["Sent."]}, NONE),
        ("merge-flash-twice", {"user": "ann", "_f_": ["Saved.", "Saved."]}, NONE),
        ("merge-conflict", {"order": {"item": "tea", "total": 6}}, {"order"}),
        ("merge-first-set", {"user": "ann", "position": [48.9, 2.3, 52.5, 13.4]}, NONE),
        ("merge-whole-keys", {"user": "ann", "position": [52.5, 13.4]}, {"position"}),
        ("merge-gone", None, None),
        ("merge-exclusive", {"votes": 3}, None),
    ],
)
def test_what_the_pictures_show(name, result, conflicts):
    """Each picture shows what the page says beside it."""
    outcome = merge.made(name)

    assert (outcome.result, outcome.conflicts) == (result, conflicts)


def test_who_has_made_a_value():
    """A picture marks what one request alone has put into the session as that request's."""
    picture = merge.draw("merge-appended").render("x")

    assert '<tspan class="first">&quot;milk&quot;</tspan>, <tspan class="later">&quot;rice&quot;</tspan>]' in picture


def test_a_deletion_wins_in_both_orders():
    """A key is deleted whichever of the two is first."""
    rule = merge.RULES["merge-deletion"]

    assert merge.overlap(rule.before, rule.later, rule.first).result == {}


def test_a_total_that_is_right_for_neither():
    """Of two orders whose totals agree by chance both changes are kept, as the page warns."""
    outcome = merge.overlap(
        'session["order"] = {"item": "tea", "quantity": 1, "total": 3}',
        'session["order"].update(item="milk", total=6)',
        'session["order"].update(quantity=2, total=6)',
    )

    assert (outcome.result, outcome.conflicts) == ({"order": {"item": "milk", "quantity": 2, "total": 6}}, NONE)


def test_how_changes_merge(caplog):
    """The keys in ``whole_keys`` are the later commit's, as the example has it, and what is given up can be logged."""
    parser = configparser.ConfigParser()
    parser.read_string("[app:main]\n" + EXAMPLES["whole"])
    browser = Browser(config_of(whole_keys=parser["app:main"]["session.whole_keys"]))
    browser.write(began=True)
    one, other = browser.begin(), browser.begin()
    one.session.update(position=[1, 2], log=[1])
    other.session.update(position=[3, 4], log=[2])
    browser.end(one)
    browser.end(other)
    example: dict = {}
    exec(EXAMPLES["conflicts"], example)
    example["log_conflicts"](*other.events)

    assert browser.read() == {"began": True, "position": [3, 4], "log": [1, 2]}
    assert caplog.messages[-1] == "two requests changed session['position'], and one change was given up"
