"""``beaker-bridge check``: each thing that it finds, and its exit code."""

from __future__ import annotations

import pytest

from tests.cli.sites import FINE, PASSWORD, SECRET, with_option

# Processes, and what they print: what the interpreter adds does not differ.
pytestmark = pytest.mark.once

SETTINGS = f"""
    [app:main]
    use = call:clisite:main
    pyramid.includes = beaker_bridge
    session.type = file
    session.data_dir = %(here)s/data
    session.key = mysite
    session.secret = {SECRET}
    session.timeout = 3600
    session.purge_every = 3600
"""
SERVER = "\n    [server:main]\n    use = egg:waitress#main\n    {}\n"
#: A change of the fine site, the rule that finds it, and a part of its sentence.
RISKY = {
    "no secret": (with_option(FINE, secret=None), "no-secret", "secret is not set"),
    "a short secret": (with_option(FINE, secret="short"), "notice", "secret is shorter than 32 bytes"),
    "pickle": (with_option(FINE, data_serializer="pickle"), "pickle", "data_serializer = pickle"),
    "pickle still read": (with_option(FINE, legacy_serializer="pickle"), "pickle", "legacy_serializer = pickle"),
    "no timeout": (with_option(FINE, timeout=None), "no-timeout", "timeout is not set"),
    "no purge": (with_option(FINE, purge_every=None), "no-purge", "purge_every is not set"),
    "default key": (with_option(FINE, key=None), "notice", "key is not set"),
    "unused option": (with_option(FINE, url="redis://h/0"), "notice", "url (for ext:database, "),
    "memory and waitress's processes": (
        with_option(FINE, type="memory", data_dir=None, purge_every=None) + SERVER.format("workers = 4"),
        "memory-with-processes",
        "[server:main] workers = 4",
    ),
    "memory and uwsgi": (
        with_option(FINE, type="memory", data_dir=None, purge_every=None) + "\n    [uwsgi]\n    processes = 2\n",
        "memory-with-processes",
        "[uwsgi] processes = 2",
    ),
    "memory and a uwsgi whose options have a %": (
        with_option(FINE, type="memory", data_dir=None, purge_every=None)
        + "\n    [uwsgi]\n    workers = 2\n    logformat = %(addr) %(method)\n    ini = %n\n",
        "memory-with-processes",
        "[uwsgi] workers = 2",
    ),
    "not secure behind https": (
        with_option(FINE, secure="false") + SERVER.format("url_scheme = https"),
        "not-secure",
        "[server:main] url_scheme",
    ),
    "not secure behind a trusted proxy": (
        with_option(FINE, secure="false") + SERVER.format("trusted_proxy_headers = x-forwarded-proto"),
        "not-secure",
        "trusted_proxy_headers",
    ),
    "not secure with a certificate": (
        with_option(FINE, secure="false") + SERVER.format("certfile = cert.pem"),
        "not-secure",
        "[server:main] certfile",
    ),
    "not secure behind a prefix": (
        with_option(FINE, secure="false")
        + "    filter-with = prefix\n    [filter:prefix]\n    use = egg:PasteDeploy#prefix\n    force_port = 443\n",
        "not-secure",
        "[filter:prefix] force_port",
    ),
    "not secure behind a scheme": (
        with_option(FINE, secure="false")
        + "    filter-with = prefix\n    [filter:prefix]\n    use = egg:PasteDeploy#prefix\n    scheme = https\n",
        "not-secure",
        "[filter:prefix] scheme",
    ),
    "filter and settings": (
        FINE.replace("pyramid.includes", "session.timeout = 60\n    session.key = mysite\n    pyramid.includes"),
        "filter-and-settings",
        "where they differ: session.timeout;",
    ),
    "unlisted region": (
        FINE.replace("pyramid.includes", "cache.regions = a\n    cache.b.expire = 5\n    pyramid.includes"),
        "notice",
        "cache.b.expire: ignored, since cache.regions does not list a region b",
    ),
}
WRONG = {
    "a wrong value": (with_option(FINE, timeout="1h"), "settings", "timeout must be a whole number"),
    "a typing error": (with_option(FINE, timeuot="60"), "settings", "did you mean timeout?"),
    "a directory that cannot be made": (with_option(FINE, data_dir="/dev/null/data"), "settings", "data_dir must be"),
    "wrong settings beside the filter": (
        FINE.replace("pyramid.includes", "session.timeout = 1h\n    pyramid.includes"),
        "settings",
        "session.timeout must be",
    ),
    "a wrong region": (
        FINE.replace("pyramid.includes", "cache.regions = a\n    cache.expire = 1h\n    pyramid.includes"),
        "settings",
        "cache.expire must be",
    ),
    "a region that cannot be used": (
        FINE.replace("pyramid.includes", "cache.regions = a\n    cache.type = file\n    pyramid.includes"),
        "notice",
        "the first use of the cache region a raises an error",
    ),
    "an address without a type": (
        with_option(FINE, type=None, data_dir=None, url=f"redis://u:{PASSWORD}@h/0"),
        "notice",
        "url without type",
    ),
    "no session": (
        "\n    [app:main]\n    use = call:clisite:main\n",
        "settings",
        "no session is configured there",
    ),
    "a store that is down": (
        with_option(FINE, type="ext:redis", data_dir=None, purge_every=None, url=f"redis://u:{PASSWORD}@localhost:1/0"),
        "store",
        "ext:redis cannot be reached",
    ),
    "a wrong value in Beaker's own filter": (
        with_option(FINE, timeout="1h").replace("beaker_bridge#session", "Beaker#beaker_session"),
        "settings",
        "timeout must be a whole number",
    ),
    "Beaker's own filter refuses": (
        with_option(FINE, **{"session.timeout": "1h"}).replace("beaker_bridge#session", "Beaker#beaker_session"),
        None,
        "Beaker's own filter refuses its options",
    ),
}


def findings(outcome, level):
    """Return what was found, as rules and sentences."""
    return [(each["rule"], each["text"]) for each in outcome.json["findings"] if each["level"] == level]


def test_a_site_that_is_fine(folder):
    """Nothing is found, each option says where it is written, and nothing is left behind."""
    file = folder.write(FINE)
    before = sorted(folder.path.iterdir())
    outcome = folder.call("check", "--strict", file)

    assert (outcome.code, outcome.err) == (0, "the module prints something\n")
    assert "Nothing is wrong, and nothing is risky." in outcome.out
    assert "Store: write, read, swap, delete: ok" in outcome.out
    assert [line.split() for line in outcome.out.splitlines() if line.split()[:1] in (["timeout"], ["secret"])] == [
        ["timeout", "3600", "[filter:session]"],
        ["secret", "…", "[filter:session]"],
    ]
    assert sorted(path for path in folder.path.iterdir() if path.name != "__pycache__") == before


@pytest.mark.parametrize("case", RISKY)
def test_what_is_risky(folder, case):
    """It is found once; the exit code is 0, and 1 with ``--strict``."""
    ini, rule, text = RISKY[case]
    outcome = folder.call("check", "--json", folder.write(ini))
    found = findings(outcome, "risky")

    assert (outcome.code, findings(outcome, "wrong")) == (0, [])
    assert [name for name, _ in found] == [rule]
    assert text in found[0][1]
    assert folder.call("check", "--strict", folder.write(ini)).code == 1


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong(folder, case):
    """The exit code is 2, and the sentence says what to correct, without a password."""
    ini, rule, text = WRONG[case]
    outcome = folder.call("check", "--json", folder.write(ini))

    assert outcome.code == 2
    if rule is None:
        assert text in outcome.json["error"]
    else:
        assert [name for name, each in findings(outcome, "wrong") if text in each] == [rule]
    assert PASSWORD not in outcome.out + outcome.err
    assert SECRET not in outcome.out + outcome.err


def test_settings_that_say_the_same_as_the_filter(folder):
    """They are not ignored: nothing is found."""
    ini = FINE.replace("pyramid.includes", "session.timeout = 3600\n    session.key = mysite\n    pyramid.includes")

    assert folder.call("check", "--strict", folder.write(ini)).code == 0


def test_cron_purges(folder):
    """With ``--cron`` nobody asks for ``purge_every``."""
    assert folder.call("check", "--strict", "--cron", folder.write(with_option(FINE, purge_every=None))).code == 0


def test_a_database_that_is_down(folder):
    """The store is asked for its table first; that fails."""
    url = f"postgresql+psycopg://user:{PASSWORD}@127.0.0.1:1/x"
    ini = with_option(FINE, type="ext:database", data_dir=None, url=url, **{"sa.pool_size": 5, "sa.echo": "false"})
    outcome = folder.call("check", "--json", folder.write(ini))

    assert outcome.code == 2
    assert "ext:database cannot be reached" in findings(outcome, "wrong")[0][1]
    assert outcome.json["options"]["url"]["value"] == "postgresql+psycopg://user:…@127.0.0.1:1/x"
    assert outcome.json["options"]["sa_opts"] == {
        "name": "sa_opts",
        "value": "sa.pool_size = 5, sa.echo = false",
        "written": "[filter:session] sa.*",
        "default": "",
    }
    assert PASSWORD not in outcome.out + outcome.err


def test_options_of_a_backend_that_we_do_not_know(folder):
    """They are shown, with what may be a secret hidden."""
    ini = with_option(
        FINE, namespace_class="tests.cli.losing.Losing", whole_keys="a\n        b", bucket_token=PASSWORD, bucket="b"
    )
    options = folder.call("check", "--json", folder.write(ini)).json["options"]

    assert options["namespace_class"]["value"] == "tests.cli.losing.Losing"
    assert options["whole_keys"]["value"] == "a, b"
    assert options["bucket_token"] == {
        "name": "bucket_token",
        "value": "…",
        "written": "[filter:session]",
        "default": "",
    }


def test_every_option_is_text(folder):
    """Values are as an ``.ini`` has them."""
    options = folder.call("check", "--json", folder.write(FINE)).json["options"]

    assert {name: options[name]["value"] for name in ("secure", "auto", "store_timeout", "reissue_time", "secret")} == {
        "secure": "auto",
        "auto": "false",
        "store_timeout": "2",
        "reissue_time": "360",
        "secret": "…",
    }


@pytest.mark.parametrize("case", ["a directory that cannot be made", "wrong settings beside the filter"])
def test_options_that_are_right_beside_what_is_wrong(folder, case):
    """They are shown, and what is risky about them is found."""
    ini = with_option(WRONG[case][0], secret=None)
    outcome = folder.call("check", "--json", folder.write(ini))

    assert outcome.code == 2
    assert outcome.json["options"]["timeout"]["value"] == "3600"
    assert [rule for rule, _ in findings(outcome, "risky")] == ["no-secret"]
    assert (outcome.json["store"] is None) == (case == "a directory that cannot be made")
