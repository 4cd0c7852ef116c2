"""``beaker-bridge check --from-pyramid-beaker``: what the move changes, option by option, and what to write."""

from __future__ import annotations

import re

import pytest

from tests.cli.sites import PASSWORD, SECRET
from tests.docs import pages

# Processes, and what they print: what the interpreter adds does not differ.
pytestmark = pytest.mark.once

PAGE = " ".join(pages.read("moving/pyramid_beaker").replace("``", "").split())

OLD = f"""
    [app:main]
    use = call:clisite:main
    session.type = file
    session.data_dir = %(here)s/data
    session.key = mysite
    session.secret = {SECRET}
    session.data_serializer = json
    session.httponly = true
    session.secure = true
    session.invalidate_corrupt = true
"""


def move(folder, *lines, ini=OLD):
    """Return the outcome for a site with some more lines, and its changes by option."""
    names = {line.partition("=")[0].strip() for line in lines}
    kept = [line for line in ini.splitlines() if line.partition("=")[0].strip() not in names]
    text = "\n".join([*kept, *(f"    {line}" for line in lines if not line.endswith("= absent")), ""])
    outcome = folder.call("check", "--from-pyramid-beaker", "--json", folder.write(text))
    return outcome, {change["option"]: change for change in outcome.json["changes"]}


@pytest.mark.parametrize(
    ("line", "changes", "write"),
    [
        ("session.data_serializer = absent", "sessions are pickles", "session.data_serializer = pickle at first"),
        ("session.data_serializer = pickle", "sessions are pickles", "session.data_serializer = pickle at first"),
        ("session.data_serializer = json", "nothing", ""),
        ("session.httponly = absent", "it is true, and was false", "if a script of yours reads the cookie"),
        ("session.secure = absent", "it is auto, and was false", ""),
        (
            "session.invalidate_corrupt = absent",
            "a damaged record is a new session",
            "session.invalidate_corrupt = false",
        ),
        (
            "session.invalidate_corrupt = false",
            "since Beaker takes each text for true; now it is false",
            "true, to keep it",
        ),
        ("session.use_cookies = no", "since Beaker takes each text for true; now it is false", "true, to keep it"),
        ("session.use_cookies = true", "nothing", ""),
        ("session.secret = absent", "the same; but set it", "session.secret = a long random text"),
        ("session.key = absent", "another application with Beaker's own name", "session.key = a name of its own"),
        ("session.timeout = 3600", "at most every tenth of it", "reissue_time"),
        ("session.cookie_expires = 3600", "renewed while it is used", ""),
        ("session.cookie_expires = false", "2038-01-19, but 400 days from now at least", ""),
        ("session.cookie_expires = true", "nothing", ""),
        ("session.cookie_expires = 0", "session.cookie_expires = 0 is false", "correct it"),
        ("session.data_dir = %(here)s/data", "cannot be made or written stops the start", ""),
        (
            "session.encrypt_key = 0123456789abcdef0123456789abcdef",
            "session.validate_key must be given where session.encrypt_key is",
            "correct it",
        ),
        ("session.samesite =", "nothing", ""),
        ("session.samesite = Sometimes", "the site does not start: session.samesite must be", "correct it"),
        (
            "session.cookie_domain = https://example.org",
            "the site does not start: session.cookie_domain must be",
            "correct it",
        ),
        ("session.validate_key = true", "the word true, which anybody can guess", "correct it"),
        ("session.timeout = 1h", "session.timeout must be a whole number", "correct it"),
        ("session.url = redis://h/0", "session.url (for ext:database, ", "correct it"),
        ("session.lock_dir =", "session.lock_dir must be", "correct it"),
        ("session.schema_name =", "is an empty string; it is ignored", "correct it"),
        ("session.timeuot = 5", "did you mean session.timeout?", "correct it"),
        ("session.session_class = x", "no option that beaker_bridge knows", "correct it"),
        ("pyramid.includes = pyramid_beaker pyramid_tm", "it names pyramid_beaker", "beaker_bridge in its place"),
    ],
)
def test_what_changes_for_an_option(folder, line, changes, write):
    """Each option says what changes, and what to write."""
    outcome, found = move(folder, line)
    option = line.partition("=")[0].strip()
    said = found.get(option, {"changes": ""})
    if changes not in said["changes"]:
        # An option that is not there.
        said = found[""]

    assert changes in said["changes"]
    assert write in said["write"]
    assert outcome.code == (2 if said["is_needed"] else 0)


@pytest.mark.parametrize(
    ("type_", "line", "changes"),
    [
        ("ext:redis", f"session.password = {PASSWORD}", "Beaker ignored it; now it counts"),
        ("ext:redis", "session.username = me", "Beaker ignored it; now it counts"),
        ("file", f"session.password = {PASSWORD}", "not used where"),
        ("cookie", "session.data_serializer = pickle", "sessions in cookies are pickles, and JSON cannot read those"),
        ("cookie", f"session.encrypt_key = {SECRET}", "is not compressed any more"),
        ("ext:database", f"session.encrypt_key = {SECRET}", "without a cipher the site does not start"),
        ("ext:database", "session.sa.pool_size = 5", "Beaker ignored sa.* options; now they count"),
        ("ext:database", "session.purge_every = absent", "expired sessions can be removed from the store"),
    ],
)
def test_what_changes_for_a_type(folder, type_, line, changes):
    """Some of it depends on the type of the store."""
    url = {"ext:redis": "redis://h/0", "ext:database": "sqlite://"}.get(type_)
    outcome, found = move(
        folder,
        f"session.type = {type_}",
        f"session.url = {url or 'absent'}",
        f"session.validate_key = {SECRET}",
        *(["session.data_dir = absent"] if type_ != "file" else []),
        line,
    )

    assert changes in found[line.partition("=")[0].strip()]["changes"]
    assert not re.search(f"{SECRET}|{PASSWORD}", outcome.out + outcome.err)


def test_without_options(folder):
    """A site that had none is told what to set."""
    outcome, found = move(folder, ini="\n    [app:main]\n    use = call:clisite:main\n")

    assert list(found) == ["session.type"]
    assert found["session.type"]["write"] == "session.type and session.secret"
    assert outcome.code == 0


@pytest.mark.parametrize(
    ("lines", "option", "changes", "code"),
    [
        (["cache.regions = a", "cache.a.expire = 5"], "cache.a.expire", "nothing", 0),
        (["cache.regions = a", "cache.b.expire = 5"], "cache.b.expire", "does not list a region b", 0),
        (["cache.regions = a", "cache.expire = 1h"], "cache.expire", "cache.expire must be", 2),
        (
            ["cache.regions = a", "cache.type = ext:database", "cache.url = sqlite://", "cache.table_name = t"],
            "cache.table_name",
            "it counts for each region",
            0,
        ),
        (["cache.regions = a", "cache.url = redis://h/0"], "", "cache.url without cache.type", 0),
    ],
)
def test_what_changes_for_regions(folder, lines, option, changes, code):
    """Cache regions' settings are gone through, too."""
    outcome, found = move(folder, *lines)
    said = found.get(option) or found["cache.url"]

    assert changes in said["changes"]
    assert outcome.code == code


def test_what_is_written(folder):
    """The table names where each option is, and what stays is one line; the documentation has the rest."""
    outcome = folder.call("check", "--from-pyramid-beaker", folder.write(OLD + "    session.timeout = 60\n"))

    assert outcome.code == 0
    assert max(map(len, outcome.out.splitlines())) <= 80
    assert "Nothing changes for session.type, session.key, session.secret," in outcome.out
    assert "From pyramid_beaker" in outcome.out
    assert PAGE.startswith("From pyramid_beaker")


@pytest.mark.parametrize(
    "fact",
    [
        "data_serializer is json, not pickle",
        "httponly is true",
        "secure is auto: Secure is set where the request came over https",
        "invalidate_corrupt is true: a damaged record is a new session",
        "cookie_expires = false is Beaker's 2038-01-19, but 400 days from now at least",
        "invalidate_corrupt = false and use_cookies = false were true",
        "ext:redis uses username and password, where url has none of its own, and sa.* options count for ext:database",
        "What is encrypted into a cookie is not compressed",
        "that cannot be made or written stops the start",
        "An option for all regions counts for each of them",
    ],
)
def test_the_facts_are_those_of_the_page(fact):
    """What the command says of a change is a row of the page's table."""
    assert fact in PAGE
