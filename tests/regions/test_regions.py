"""Cache regions from settings: what is inherited, converted, refused, and told."""

from __future__ import annotations

import copy
import logging
import sys
from datetime import timedelta

import beaker.cache
import pyramid_beaker
import pytest
import sqlalchemy as sa
from beaker.cache import Cache, cache_region
from beaker.container import MemoryNamespaceManager
from pyramid.config import Configurator
from pyramid.response import Response
from webtest import TestApp

import beaker_bridge
from beaker_bridge import SettingsError, set_cache_regions_from_settings
from beaker_bridge.options.table import REGION_TABLE
from beaker_bridge.regions.define import _masked
from beaker_bridge.regions.namespace import RegionNamespace
from tests.region_cases import SEED, Counted, no_region_left, sqla_arguments


@pytest.fixture(autouse=True)
def _no_region_left():
    with no_region_left():
        yield


def regions(**settings):
    """Set regions from options, given without prefix and with ``__`` for a dot, and return Beaker's dict of them."""
    set_cache_regions_from_settings({f"cache.{name.replace('__', '.')}": value for name, value in settings.items()})
    return beaker.cache.cache_regions


def faults(**settings):
    """Return what is wrong with options, a fault a line."""
    with pytest.raises(SettingsError) as raised:
        regions(**settings)
    assert not beaker.cache.cache_regions
    return [str(error) for error in raised.value.errors]


# -- What is inherited -------------------------------------------------------------------------------


def test_the_seeds_example_is_what_pyramid_beaker_makes_of_it():
    """The seed's settings make the very regions that pyramid_beaker makes."""
    pyramid_beaker.set_cache_regions_from_settings(SEED)
    theirs = copy.deepcopy(beaker.cache.cache_regions)
    beaker.cache.cache_regions.clear()
    set_cache_regions_from_settings(SEED)

    assert beaker.cache.cache_regions == theirs
    assert {name: region["expire"] for name, region in theirs.items()} == {
        "default_term": 300,
        "second": 1,
        "short_term": 60,
        "long_term": 3600,
    }


def test_the_seeds_defaults():
    """As the seed promises: ``type`` is memory, and ``expire`` 60 seconds; the others are not set."""
    assert regions(regions="one") == {
        "one": {
            "type": "memory",
            "expire": 60,
            "lock_dir": None,
            "url": None,
            "data_dir": None,
            "enabled": True,
            "key_length": 250,
        }
    }


def test_a_region_inherits_what_it_does_not_say():
    """Each option for all regions is a region's own, unless it has another one."""
    found = regions(
        regions="one two",
        type="file",
        expire="5",
        lock_dir="/locks",
        data_dir="/data",
        url="somewhere",
        enabled="no",
        key_length="100",
        file_dir="/files",
        table_name="table",
        memcache_module="bmemcached",
        two__type="memory",
        two__expire="7",
        two__lock_dir="/other",
        two__data_dir="/others",
        two__url="elsewhere",
        two__enabled="yes",
        two__key_length="200",
        two__file_dir="/own",
        two__table_name="own",
        two__memcache_module="memcache",
    )

    assert found["one"] == {
        "type": "file",
        "expire": 5,
        "lock_dir": "/locks",
        "data_dir": "/data",
        "url": "somewhere",
        "enabled": False,
        "key_length": 100,
        "file_dir": "/files",
        "table_name": "table",
        "memcache_module": "bmemcached",
    }
    assert found["two"] == {
        "type": "memory",
        "expire": 7,
        "lock_dir": "/other",
        "data_dir": "/others",
        "url": "elsewhere",
        "enabled": True,
        "key_length": 200,
        "file_dir": "/own",
        "table_name": "own",
        "memcache_module": "memcache",
    }


def test_sqlalchemys_options_are_inherited_one_by_one():
    """``sa.*`` become Beaker's ``sa_opts``: a region adds its own to those for all, or replaces them."""
    found = regions(
        regions="one two",
        type="ext:database",
        sa_opts={"sa.echo": "false"},
        sa__url="sqlite:///all.db",
        sa__pool_size="3",
        two__sa_opts={"sa.max_overflow": "1"},
        two__sa__url="sqlite:///two.db",
    )

    assert found["one"]["sa_opts"] == {"sa.echo": "false", "sa.url": "sqlite:///all.db", "sa.pool_size": "3"}
    assert found["two"]["sa_opts"] == {
        "sa.echo": "false",
        "sa.url": "sqlite:///two.db",
        "sa.pool_size": "3",
        "sa.max_overflow": "1",
    }


def test_a_regions_own_sa_url_counts_more_than_an_inherited_url():
    """``url`` and ``sa.url`` both name the database: the one that stands nearest is used."""
    found = regions(
        regions="one two three",
        type="ext:database",
        url="sqlite:///all.db",
        two__sa__url="sqlite:///two.db",
        three__url="sqlite:///three.db",
        three__sa__url="sqlite:///other.db",
    )

    assert [found[name]["url"] for name in ("one", "two", "three")] == ["sqlite:///all.db", None, "sqlite:///three.db"]


def test_nothing_in_python_is_not_set():
    """``None``, as Python's and Beaker's defaults have it, is what is inherited, or the default."""
    found = regions(regions=["one"], type=None, expire=5, one__expire=None, one__data_dir=None, sa_opts=None)

    assert (found["one"]["type"], found["one"]["expire"], found["one"]["data_dir"]) == ("memory", 5, None)


# -- What is read ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        "one,two,three",
        "one, two , three,",
        "one two\tthree",
        "\n    one\n    two\n    three\n",
        "one,\ntwo three",
        ["one", "two", "three"],
        ("one", " two ", "three", ""),
    ],
)
def test_the_list_of_regions(names):
    """``regions`` takes commas, spaces and line breaks, and Python's lists."""
    assert list(regions(regions=names)) == ["one", "two", "three"]


@pytest.mark.parametrize("names", ["", " , ", None, []])
def test_no_regions(names):
    """An empty list defines nothing."""
    assert regions(regions=names, expire=5) == {}


def test_settings_without_a_word_of_caches():
    """Settings of others define nothing."""
    set_cache_regions_from_settings({"pyramid.includes": "", 5: "no text", "cachet.regions": "one"})

    assert beaker.cache.cache_regions == {}


@pytest.mark.parametrize(
    ("option", "given", "value"),
    [
        *[("expire", given, 90) for given in ("90", " 90 ", 90, 90.0, timedelta(seconds=90))],
        *[("enabled", given, False) for given in ("false", "No", "off", "0", False)],
        *[("enabled", given, True) for given in ("true", "Yes", "on", "1", True)],
        *[("key_length", given, 0) for given in ("0", 0)],
        *[("dbmmodule", given, sys.modules["json"]) for given in ("json", sys.modules["json"])],
        ("data_dir", " /data ", "/data"),
        ("digest_filenames", "false", False),
    ],
)
def test_values_are_converted(option, given, value):
    """Texts from an ``.ini`` and Python's values become what Beaker expects."""
    region = regions(**{"regions": "one", f"one__{option}": given})["one"]

    assert region[option] == value
    assert type(region[option]) is type(value)


def test_both_prefixes():
    """``beaker.cache.`` is read as ``cache.`` is, and both may say the same."""
    set_cache_regions_from_settings(
        {"beaker.cache.regions": "one", "cache.regions": " one", "beaker.cache.expire": "5", "cache.one.key_length": 7}
    )

    assert (beaker.cache.cache_regions["one"]["expire"], beaker.cache.cache_regions["one"]["key_length"]) == (5, 7)


def test_names_that_begin_alike():
    """A region's options are its own, also where its name continues another's."""
    found = regions(regions="a a.b ab", a__expire=1, a__b__expire=2, ab__expire=3)

    assert {name: region["expire"] for name, region in found.items()} == {"a": 1, "a.b": 2, "ab": 3}


# -- What is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        *[("expire", value, "a whole number of seconds") for value in ("1h", "", "-1", -1, 1.5, True, "nan")],
        *[("enabled", value, "true or false") for value in ("maybe", "", 2)],
        *[("key_length", value, "a whole number, 0 or more") for value in ("long", "-1", True, 1.5)],
        *[("data_dir", value, "a non-empty string") for value in ("", 5)],
        ("lock_dir", " ", "a non-empty string"),
        ("type", "", "a non-empty string"),
        *[("store_timeout", value, "a number of seconds over 0") for value in ("soon", "0", -1)],
        ("lock_timeout", "0", "a number of seconds over 0"),
        ("store_error", "empty", "one of compute, raise"),
    ],
)
def test_a_wrong_value(option, value, rule):
    """A wrong value is told with option, rule and value, for all regions as for one of them."""
    for name in (option, f"one__{option}"):
        told = faults(**{"regions": "one", name: value})
        shown = value.strip() if isinstance(value, str) else value

        assert len(told) == 1
        assert told[0].startswith(f"cache.{name.replace('__', '.')} must be {rule}")
        assert told[0].endswith(", got an empty string" if shown == "" else f", got {shown!r}")


def test_a_wrong_value_is_told_without_regions_too():
    """What is wrong for all regions is wrong where there is none."""
    assert faults(expire="soon")[0].startswith("cache.expire must be")


@pytest.mark.parametrize("names", [5, ["one", 5]])
def test_a_wrong_list(names):
    """A list that is none is told."""
    assert faults(regions=names) == [
        f"cache.regions must be a list of regions' names, with commas, spaces or line breaks between them, got {names}"
    ]


def test_all_faults_are_told_at_once():
    """One start tells of everything that is wrong."""
    told = faults(regions="one two three", expire="soon", one__enabled="", two__expires=5, three__lock_timeout=0)

    assert told == [
        "cache.expire must be a whole number of seconds, 0 or more, got 'soon'",
        "cache.one.enabled must be true or false, got an empty string",
        "cache.three.lock_timeout must be a number of seconds over 0 (68 years at most), got 0",
        "cache.two.expires is no option that beaker_bridge knows; did you mean cache.two.expire?",
    ]


def test_a_fault_is_data():
    """Each fault has the option's name and the value."""
    with pytest.raises(SettingsError) as raised:
        regions(regions="one two", one__expire="soon", two__enabled="maybe")

    assert [(error.name, error.value) for error in raised.value.errors] == [
        ("one.expire", "soon"),
        ("two.enabled", "maybe"),
    ]


def test_nothing_is_set_where_something_is_wrong():
    """Settings with a fault change no region."""
    regions(regions="one")
    with pytest.raises(SettingsError):
        regions(regions="one two", one__expire=5, two__expire=-1)

    assert {name: region["expire"] for name, region in beaker.cache.cache_regions.items()} == {"one": 60}


def test_passwords_are_not_told():
    """A fault quotes no password."""
    told = faults(
        regions="one", type="ext:database", data_dir={"password": "private"}, one__passwort="private", expire=""
    )

    assert "private" not in "".join(told)


# -- Options that nobody knows -----------------------------------------------------------------------


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_an_unknown_option_is_told_once(caplog):
    """Under ``cache.``, which others may use, an unknown option is warned about once, and ignored."""
    for _ in range(2):
        regions(regions="one", colour="red", one__flavour="mild")

    assert warnings_of(caplog) == [
        "cache.colour is no option that beaker_bridge knows; it is ignored",
        "cache.one.flavour is no option that beaker_bridge knows; it is ignored",
    ]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("expires", "expire"),
        ("data-dir", "data_dir"),
        ("Lock_Dir", "lock_dir"),
        ("one.typ", "one.type"),
        ("region", "regions"),
    ],
)
def test_a_near_miss(name, meant):
    """An option that is nearly a known one stops the start, and the known one is named."""
    assert faults(regions="one", **{name.replace(".", "__"): "5"}) == [
        f"cache.{name} is no option that beaker_bridge knows; did you mean cache.{meant}?"
    ]


def test_an_unknown_option_under_beakers_prefix():
    """Under ``beaker.cache.``, which is nobody else's, an unknown option stops the start."""
    with pytest.raises(SettingsError, match=r"^beaker\.cache\.flavour is no option that beaker_bridge knows$"):
        set_cache_regions_from_settings({"beaker.cache.flavour": "mild"})


def test_others_cache_settings_are_left_alone(caplog):
    """Without ``cache.regions`` an application with another cache under ``cache.`` starts, with warnings."""
    assert regions(backend="dogpile.cache.redis", arguments__url="redis://host", expiration_time="5m") == {}
    assert len(warnings_of(caplog)) == 3


def test_another_backends_options_pass_through(monkeypatch, caplog):
    """What we do not know may be the option of a backend that we do not know; it is handed over as it is."""
    monkeypatch.setitem(beaker.cache.clsmap._clsmap, "ext:foreign", MemoryNamespaceManager)
    found = regions(regions="one two", flavour="mild", one__type="ext:foreign", one__colour="red", two__colour="red")

    assert (found["one"]["flavour"], found["one"]["colour"]) == ("mild", "red")
    assert not found["two"].keys() & {"flavour", "colour"}
    assert warnings_of(caplog) == ["cache.two.colour is no option that beaker_bridge knows; it is ignored"]


# -- Beaker's dict of regions ------------------------------------------------------------------------


def test_the_same_region_twice(caplog):
    """To define a region again as it is changes nothing, and is not told, whichever defaults are written out."""
    before = regions(regions="one", one__expire=5)["one"]
    after = regions(regions="one two", one__expire="5", one__key_length=250, store_error="compute")["one"]

    assert before is after
    assert not warnings_of(caplog)


def test_two_applications_define_a_region_differently(caplog):
    """Another definition of a region takes its place, and the log names both applications and what differs."""
    Configurator(settings=SEED).include(beaker_bridge)
    settings = {"cache.regions": "second", "cache.expire": 2, "cache.url": "redis://me:private@host"}
    # As a module of that name would call it.
    exec(
        "set_cache_regions(settings)",
        {"__name__": "shop.main", "set_cache_regions": set_cache_regions_from_settings, "settings": settings},
    )

    (told,) = warnings_of(caplog)
    assert told.startswith("the cache region second is defined twice in this process, and differently:")
    assert f"by {__name__} with expire = 1, url = None; " in told
    assert "by shop.main with expire = 2, url = redis://me:…@host. " in told
    assert beaker.cache.cache_regions["second"]["expire"] == 2


@pytest.mark.parametrize(("option", "value"), [("lock_timeout", 0.5), ("store_error", "raise"), ("key_length", 5)])
def test_regions_that_differ_in_any_option(caplog, option, value):
    """Each option tells two definitions apart, ours as well as Beaker's."""
    regions(regions="one")
    found = regions(regions="one", **{f"one__{option}": value})["one"]

    assert f"by {__name__} with {option} = {value}." in warnings_of(caplog)[0]
    assert found["type"].region.effective[option] == value


def test_a_region_that_somebody_else_has_defined(caplog):
    """A region of code that does not know us is replaced by ours; where it differs, that is told."""
    alike = {**regions(regions="one")["one"], "type": "memory"}
    beaker.cache.cache_regions.update(one=alike, two={"expire": 5, "type": "memory"}, three={})
    found = regions(regions="one two three")

    assert len(warnings_of(caplog)) == 1
    assert "region two is defined twice in this process, and differently: by other code with" in warnings_of(caplog)[0]
    assert all(hasattr(region["type"], "region") for region in found.values())


def test_a_dict_of_regions_that_was_replaced(monkeypatch):
    """Beaker's dict is looked up when regions are set: tests replace it."""
    monkeypatch.setattr(beaker.cache, "cache_regions", {})

    assert list(regions(regions="one")) == ["one"]
    assert list(beaker.cache.cache_regions) == ["one"]


def test_the_type_of_a_region():
    """A region's type is Beaker's word for all who read it, and leads Beaker to our namespace manager."""
    kind = regions(regions="one")["one"]["type"]
    copied = copy.deepcopy(beaker.cache.cache_regions)

    assert kind == "memory"
    assert {kind: 1}["memory"] == 1
    assert isinstance(beaker.cache.clsmap[kind]("namespace"), RegionNamespace)
    assert beaker.cache.clsmap["memory"] is MemoryNamespaceManager
    assert copied["one"]["type"] is kind


def test_regions_that_are_alike_are_two():
    """Beaker tells its caches apart by a region's text: regions of one content have two."""
    found = regions(regions="one two")

    assert found["one"] == found["two"]
    assert str(found["one"]) != str(found["two"])


def test_an_entry_point_of_beakers_still_works():
    """Backends that Beaker loads by entry points are looked for as before."""
    regions(regions="one")

    with pytest.raises(KeyError):
        beaker.cache.clsmap["ext:nosuch"]


def test_beakers_own_error_quotes_no_options():
    """Beaker opens a cache while it handles a KeyError that quotes all options: that shows their address to nobody."""
    regions(regions="one", type="ext:redis", url="redis://localhost?private=1")
    with pytest.raises(SettingsError) as raised:
        cache_region("one")(hello)(None)
    not_found = raised.value.__context__.__context__

    assert isinstance(not_found, KeyError)
    assert "private" not in str(not_found)
    assert "hello" in str(not_found)


def test_an_error_of_the_applications_stays_as_it_is():
    """Who opens a cache while handling another KeyError finds that unchanged."""
    found = regions(regions="one")

    def look_up():
        try:
            return {}["key"]
        except KeyError:
            Cache("name", **found["one"])
            raise

    with pytest.raises(KeyError, match=r"^'key'$"):
        look_up()


# -- Pyramid -----------------------------------------------------------------------------------------

CATEGORY = "beaker_bridge cache regions"


def hello(request):
    return Response("<html><body>hello</body></html>")


def application(*includes, **settings):
    """Return an application that includes us, and its registry."""
    config = Configurator(
        settings={**settings, "session.type": "memory", "session.secret": "a secret for tests, of 32 bytes or more"}
    )
    for include in includes:
        config.include(include)
    config.add_route("home", "/")
    config.add_view(hello, route_name="home")
    app = config.make_wsgi_app()
    return TestApp(app, extra_environ={"REMOTE_ADDR": "127.0.0.1"}), app.registry


def test_include_sets_the_regions(caplog):
    """``config.include('beaker_bridge')`` sets them; the application may do so, too."""
    set_cache_regions_from_settings(SEED)
    application("beaker_bridge", **SEED)

    assert list(beaker.cache.cache_regions) == ["default_term", "second", "short_term", "long_term"]
    assert not warnings_of(caplog)


def test_include_stops_where_a_region_is_wrong():
    """A wrong region stops the start with the fault itself, not one that Pyramid has wrapped."""
    with pytest.raises(SettingsError, match=r"^cache\.second\.expire must be"):
        application("beaker_bridge", **{**SEED, "cache.second.expire": "soon"})


def test_a_script_sees_the_regions():
    """Each region is an introspectable, with the options that hold, and without passwords."""
    url = "postgresql+psycopg://me:private@host/db"
    options = {"cache.regions": "one", "cache.type": "ext:database", "cache.url": url}
    _, registry = application("beaker_bridge", **options)
    found = [entry["introspectable"] for entry in registry.introspector.get_category(CATEGORY)]

    assert [(dict(one), one.title, one.type_name) for one in found] == [
        (
            {
                "name": "one",
                "type": "ext:database",
                "expire": 60,
                "enabled": True,
                "key_length": 250,
                "url": "postgresql+psycopg://me:…@host/db",
            },
            "cache region one",
            "cache region",
        )
    ]


def test_the_debug_toolbar_shows_the_regions():
    """The toolbar's introspection panel has a section for the regions, with each of them."""
    app, _ = application("beaker_bridge", "pyramid_debugtoolbar", **SEED)
    app.get("/")
    page = app.get("/_debug_toolbar/").text

    assert CATEGORY in page
    assert all(f"cache region {name}" in page for name in ("default_term", "second", "short_term", "long_term"))


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("url", "redis://:private@host/0", "redis://:…@host/0"),
        ("url", "redis://host/0?password=private&db=1", "redis://host/0?…"),
        ("urls", "redis://me:private@a:1,redis://me:private@b:2", "redis://me:…@a:1,redis://me:…@b:2"),
        ("url", "postgresql+psycopg://me:pri@vate@host/db", "…"),
        ("url", "127.0.0.1:11211;unix:/path", "127.0.0.1:11211;unix:/path"),
        ("password", "private", "…"),
        ("sa_opts", {"sa.url": "x://a:private@h", "sa.connect_args": {"passwd": "private"}, "sa.echo": True}, None),
        ("expire", 5, 5),
        ("url", None, None),
    ],
)
def test_passwords_are_not_shown(name, value, shown):
    """Wherever a password may stand in an option, it is left out, and the rest is shown."""
    if isinstance(value, dict):
        shown = {"sa.url": "x://a:…@h", "sa.connect_args": {"passwd": "…"}, "sa.echo": True}

    assert _masked(name, value) == shown


def test_objects_are_shown_by_their_class(request, tmp_path):
    """An engine or a client is shown by its class: what it says of itself may be anything."""
    arguments = sqla_arguments(request, tmp_path)
    regions(regions="one", type="ext:sqla", **arguments)
    shown = beaker.cache.cache_regions["one"]["type"].region.shown()

    assert (shown["bind"], shown["table"]) == ("<Engine>", "<Table>")
    assert isinstance(arguments["bind"], sa.Engine)


def test_functions_are_cached_after_the_start():
    """A function that is decorated at import, before any region is set, is cached once they are."""
    calls = Counted()

    @cache_region("second")
    def compute():
        return calls()

    application("beaker_bridge", **SEED)

    assert [compute(), compute()] == [1, 1]


# -- The table ---------------------------------------------------------------------------------------


def test_every_option_is_explained():
    """Each option has a help text."""
    assert [name for name, row in REGION_TABLE.items() if not row.help] == []
