"""Settings of cache regions that work with pyramid_beaker: what starts there starts here, and says what to do."""

from __future__ import annotations

import copy
import logging
import sys

import beaker.cache
import pyramid_beaker
import pytest
from beaker.cache import cache_region
from beaker.container import MemoryNamespaceManager
from beaker.exceptions import InvalidCacheBackendError, MissingCacheParameter
from hypothesis import given, settings
from hypothesis import strategies as st

from beaker_bridge import SettingsError, set_cache_regions_from_settings
from beaker_bridge.options.table import REGION_TABLE
from tests import machine
from tests.region_cases import SEED, Counted, no_region_left


@pytest.fixture(autouse=True)
def _no_region_left():
    with no_region_left():
        yield


@pytest.fixture
def told(caplog):
    """Return a function that sets regions from options without prefix, and returns what the log has then."""

    def set_regions(**options):
        caplog.clear()
        set_cache_regions_from_settings({f"cache.{name.replace('__', '.')}": value for name, value in options.items()})
        assert all(record.levelno == logging.WARNING for record in caplog.records)
        return caplog.messages

    return set_regions


def counting(region, *words):
    """Return a function that is cached in a region, and answers how often it was called."""
    calls = Counted()

    @cache_region(region, *words)
    def compute():
        return calls()

    return compute


def use(region):
    """Call a function that is cached in a region for the first time."""
    return counting(region)()


def test_each_row_says_for_which_types_it_counts():
    """The types of each row are types that exist."""
    machine.backend("ext:rediscluster")
    known = set(beaker.cache.clsmap._clsmap)

    assert all(set(row.stores) <= known for row in REGION_TABLE.values())


# -- Whatever stands in the file -----------------------------------------------------------------------

NAMES = [*REGION_TABLE, "regions", "sa.url", "sa.echo", "colour", "expires", "ttl", "", "."]
VALUES = ["", " ", "5", "-1", "true", "memory", "file", "ext:redis", "ext:memcached", "ext:database", "ext:sqla"]
VALUES += ["one two", "one", "redis://u:private@h", "h:1", "no.such", None, 5, True, object(), ["one"], {"sa.url": "x"}]


@settings(deadline=None, max_examples=150)
@given(
    st.dictionaries(
        st.builds("{}{}{}".format, *map(st.sampled_from, (["cache.", "beaker.cache."], ["", "one.", "two."], NAMES))),
        st.sampled_from(VALUES),
        max_size=7,
    )
)
def test_settings_define_regions_or_are_refused(options):
    """Whatever the settings are, they define regions, or an error names an option and shows no password."""
    errors = ()
    try:
        set_cache_regions_from_settings(options)
    except SettingsError as error:
        errors = error.errors

    assert all(str(error).startswith(("cache.", "beaker.cache.")) and "private" not in str(error) for error in errors)


# -- Regions that are not listed ---------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["cache.", "beaker.cache."])
@pytest.mark.parametrize("listed", [None, "", "short_term", "long"])
@pytest.mark.parametrize("options", [["expire"], ["type", "url", "sa.url", "flavour"], ["expires"]])
def test_a_region_that_is_not_listed(prefix, listed, options, caplog):
    """The options of a region that is not listed are ignored, with one warning that says what to do."""
    regions = {} if listed is None else {f"{prefix}regions": listed}
    labels = [f"{prefix}short_tern.{option}" for option in options]
    for _ in range(2):
        set_cache_regions_from_settings({**regions, **dict.fromkeys(labels, "5")})

    assert [*beaker.cache.cache_regions] == [listed] * bool(listed)
    assert caplog.messages == [
        (
            f"{', '.join(labels)}: ignored, since {prefix}regions does not list a region short_tern"
            f"{' (did you mean short_term?)' * (listed == 'short_term')}; list it there, or remove what is said of it"
        )
    ]


def test_pyramid_beakers_own_settings(caplog):
    """The settings of pyramid_beaker's tests define the regions that they define there."""
    settings = {**SEED, "cache.regions": "default_term, short_term", "cache.lock_dir": "foo", "cache.url": "127.0.0.1"}
    settings |= {"cache.default_term.type": "file", "cache.default_term.enabled": "false"}
    for more in ({}, {"cache.regions": ""}, {"cache.enabled": "false"}, {"cache.regions": "default_term"}):
        beaker.cache.cache_regions.clear()
        pyramid_beaker.set_cache_regions_from_settings({**settings, **more})
        theirs = copy.deepcopy(beaker.cache.cache_regions)
        beaker.cache.cache_regions.clear()
        set_cache_regions_from_settings({**settings, **more})

        assert beaker.cache.cache_regions == theirs
    assert caplog.messages


def test_a_region_within_the_name_of_another(told):
    """A region whose name continues a listed one's is not listed, either."""
    assert told(regions="a", a__b__expire="5") == [
        (
            "cache.a.b.expire: ignored, since cache.regions does not list a region a.b; list it there, or remove what"
            " is said of it"
        )
    ]


def test_another_backend_is_not_given_what_is_said_of_other_regions(monkeypatch, told):
    """The options of a region that is not listed reach no backend of somebody else's."""
    monkeypatch.setitem(beaker.cache.clsmap._clsmap, "ext:foreign", MemoryNamespaceManager)
    told(regions="one", type="ext:foreign", flavour="mild", two__colour="red")

    assert "flavour" in beaker.cache.cache_regions["one"]
    assert not [name for name in beaker.cache.cache_regions["one"] if "colour" in name]


# -- Names of regions --------------------------------------------------------------------------------


def test_a_name_with_spaces(told):
    """As in pyramid_beaker, a region may have spaces in its name: where options are given for it."""
    assert told(regions="short term, one two", **{"short term__expire": "5"}) == []
    assert {name: region["expire"] for name, region in beaker.cache.cache_regions.items()} == {
        "short term": 5,
        "one": 60,
        "two": 60,
    }


def test_a_name_twice(told):
    """A region that is listed twice is defined once, with its own options."""
    assert told(regions="one, two, one", one__expire="5") == [
        "cache.regions names the region one 2 times; once is enough"
    ]
    assert beaker.cache.cache_regions["one"]["expire"] == 5


def test_a_region_named_as_sqlalchemys_prefix(told):
    """A region may have the name sa; what begins so is then said of it."""
    assert told(regions="sa", sa__expire="5") == []
    assert beaker.cache.cache_regions["sa"]["expire"] == 5


@pytest.mark.parametrize("names", ["Ä, Käse", "a%s", "ONE, one", "a" * 300])
def test_odd_names(names, told):
    """Whatever a region is called, it works."""
    assert told(regions=names) == []
    assert [use(name) for name in names.split(", ")] == [1] * (names.count(", ") + 1)


# -- Empty texts -------------------------------------------------------------------------------------

#: The options that Beaker refuses as an empty string, and those that are ours.
NOT_EMPTY = {"type", "expire", "enabled", "key_length", "data_dir", "lock_dir"}
OURS = {"store_timeout", "store_error", "lock_timeout", "key_prefix"}


@pytest.mark.parametrize("option", [*REGION_TABLE, "sa.url", "sa.pool_size"])
@pytest.mark.parametrize("owner", ["", "one."])
def test_an_empty_text(option, owner, caplog):
    """An option that Beaker accepts as an empty string is ignored, with one warning; another one stops the start."""
    settings = {"cache.regions": "one", "cache.type": "memory", f"cache.{owner}{option}": " "}
    if option in NOT_EMPTY:
        with pytest.raises(Exception, match=r"Empty strings|must be"):
            pyramid_beaker.set_cache_regions_from_settings(settings)
    else:
        pyramid_beaker.set_cache_regions_from_settings(settings)
    beaker.cache.cache_regions.clear()
    if option in NOT_EMPTY | OURS:
        with pytest.raises(SettingsError, match=r"must be .*, got an empty string$") as raised:
            set_cache_regions_from_settings(settings)
        assert str(raised.value).startswith(f"cache.{owner}{option} ")
    else:
        set_cache_regions_from_settings(settings)
        assert caplog.messages == [f"cache.{owner}{option} is an empty string; it is ignored: remove it"]
        assert use("one") == 1


def test_an_empty_list_is_no_region(told):
    """An empty list of regions needs no word."""
    assert told(regions="", expire="5", url="redis://host") == []


# -- A store that lacks what it needs ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "missing", "theirs"),
    [
        ({"type": "file"}, ["data_dir", "file_dir"], "data_dir or file_dir is required"),
        ({"type": "file", "lock_dir": "/l"}, ["data_dir", "file_dir"], "data_dir or file_dir is required"),
        ({"type": "file", "file_dir": "/f"}, ["data_dir", "lock_dir"], "data_dir or lock_dir is required"),
        ({"type": "dbm"}, ["data_dir", "dbm_dir"], "data_dir or dbm_dir is required"),
        ({"type": "dbm", "dbm_dir": "/d"}, ["data_dir", "lock_dir"], "data_dir or lock_dir is required"),
        ({"type": "ext:redis"}, ["url"], "url is required"),
        ({"type": "ext:rediscluster"}, ["urls"], "urls is required"),
        ({"type": "ext:memcached"}, ["url"], "url is required"),
        ({"type": "memcached"}, ["url"], "url is required"),
        ({"type": "ext:database"}, ["url", "sa.url"], "url or sa.url is required"),
        ({"type": "ext:database", "sa.echo": "1"}, ["url", "sa.url"], "url or sa.url is required"),
        ({"type": "ext:sqla", "table": "sys"}, ["bind", "url"], "bind or url is required"),
        ({"type": "ext:sqla", "bind": "sys"}, ["table"], "table is required"),
        ({"type": "ext:mongodb"}, ["url"], "url is required"),
    ],
)
@pytest.mark.parametrize("owner", ["", "one."])
def test_what_a_type_needs(options, missing, theirs, owner, caplog):
    """An address or a directory that the type needs is asked for in one warning, and raises at the first use alone."""
    own = {f"cache.{owner}{name}": value for name, value in options.items()}
    if options["type"] == "ext:rediscluster":
        machine.backend("ext:rediscluster")
    set_cache_regions_from_settings({"cache.regions": "one, unharmed", "cache.unharmed.type": "memory", **own})
    kind = "ext:memcached" if options["type"] == "memcached" else options["type"]
    instead = "".join(f", or cache.{owner}{name}" for name in missing[1:])

    assert caplog.messages == [
        (
            f"cache.{owner}{missing[0]} must be given where cache.{owner}type = {kind}{instead}, got nothing;"
            " the first use of the cache region one raises an error"
        )
    ]
    with pytest.raises(MissingCacheParameter, match=f"cache region one: {theirs}: cache"):
        use("one")
    assert use("unharmed") == 1


def test_what_several_regions_need_is_said_once(told):
    """What many regions lack is one warning; an empty string is told as one, and not twice."""
    assert told(regions="one two", type="ext:redis", url="", two__url="") == [
        (
            "cache.url must be given where cache.type = ext:redis, got an empty string;"
            " the first use of the cache regions one, two raises an error"
        )
    ]


def test_the_label_has_the_settings_prefix(caplog):
    """What is missing is named as it would be given in these settings."""
    set_cache_regions_from_settings({"beaker.cache.regions": "one", "beaker.cache.type": "ext:redis"})

    assert caplog.messages[0].startswith("beaker.cache.url must be given where beaker.cache.type = ext:redis")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"type": "ext:redis", "url": "localhost:6379"}, "url must be the address of a Redis"),
        ({"type": "ext:rediscluster", "urls": "a:1"}, "urls must be the address of a Redis"),
        ({"type": "ext:memcached", "url": "http://host"}, "url must be a list of memcached's addresses"),
        ({"type": "ext:memcached", "url": "a;"}, "url must be a list of memcached's addresses"),
        ({"type": "ext:database", "url": "nosuch://host"}, "url must be a database URL"),
        ({"type": "ext:database", "sa.url": "nosuch://host"}, "sa.url must be a database URL"),
        ({"type": "ext:sqla", "bind": object(), "table": object()}, "table must be a table of SQLAlchemy's"),
        (
            {"type": "ext:database", "url": "sqlite:////d", "sa.pool_size": "many"},
            "sa.pool_size must be what SQLAlchemy",
        ),
        (
            {"type": "ext:database", "url": "sqlite:////d", "sa.connect_args": "x"},
            "sa.connect_args must be a JSON object",
        ),
        ({"type": "ext:redis", "url": "redis://h?nosuch=1"}, "url must be the address of a Redis: redis-py has no su"),
        ({"type": "dbm", "data_dir": "/d", "dbmmodule": "no.such.module"}, "dbmmodule must be a dotted name"),
        ({"type": "file", "data_dir": "/d", "digest_filenames": "maybe"}, "digest_filenames must be true or false"),
        ({"type": "ext:database", "url": "sqlite:////d", "sa_opts": "echo"}, "sa_opts must be a dict"),
    ],
)
@pytest.mark.parametrize("owner", ["", "one."])
def test_an_address_that_is_none(options, text, owner, caplog):
    """What Beaker fails on at the first use is told at the start, under its name, and raises at the first use alone."""
    own = {f"cache.{owner}{name}": value for name, value in options.items()}
    if options["type"] == "ext:rediscluster":
        machine.backend("ext:rediscluster")
    set_cache_regions_from_settings({"cache.regions": "one, unharmed", "cache.unharmed.type": "memory", **own})

    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"cache.{owner}{text}")
    assert caplog.messages[0].endswith("; the first use of the cache region one raises an error")
    with pytest.raises(SettingsError, match=rf"^cache region one: cache\.{owner}{text}"):
        use("one")
    assert use("unharmed") == 1


def test_a_region_of_its_own_is_no_part_of_what_is_wrong_for_all(told):
    """A region that has a right value of its own does not suffer from the wrong one for all."""
    (text,) = told(regions="one two", type="dbm", data_dir="/d", dbmmodule="no.such", two__dbmmodule="dbm.dumb")

    assert text.endswith("the first use of the cache region one raises an error")


def test_a_client_that_is_not_installed(monkeypatch, told):
    """A package that the type needs, and that is missing, is told at the start, and raises at the first use alone."""
    monkeypatch.setitem(sys.modules, "beaker_bridge.stores.redis", None)
    (text,) = told(regions="one", type="ext:redis", url="redis://host")

    assert text.startswith("cache.type = ext:redis needs a package that is missing")
    with pytest.raises(
        SettingsError, match=r"cache region one: cache\.type = ext:redis needs a package that is missing"
    ):
        use("one")


# -- A type that Beaker does not have ----------------------------------------------------------------

TYPES = "dbm, ext:database, ext:memcached, ext:mongodb, ext:redis, ext:rediscluster, ext:sqla, file, memory"


@pytest.mark.parametrize(
    ("kind", "meant"), [("redis", " (did you mean ext:redis?)"), ("Memory ", " (did you mean memory?)"), ("tape", "")]
)
def test_a_type_that_does_not_exist(kind, meant, told):
    """A type that Beaker does not have is told at the start; Beaker's own error is that of the first use."""
    assert told(regions="one", type=kind) == [
        (
            f"cache.type must be one of {TYPES} or another backend of Beaker's{meant}, got {kind.strip()!r}, which"
            " Beaker does not have yet; the first use of the cache region one raises an error"
        )
    ]
    with pytest.raises(TypeError, match=f"Unknown cache implementation '{kind.strip()}' of the cache region 'one'"):
        use("one")


def test_a_type_that_is_registered_later(monkeypatch, told):
    """A backend that is registered after the start is used as any other, with its own options."""
    given = []

    class Later(MemoryNamespaceManager):
        def __init__(self, namespace, flavour, **options):
            given.append(flavour)
            super().__init__(namespace, **options)

    told(regions="one", type="ext:later", flavour="mild")
    monkeypatch.setitem(beaker.cache.clsmap._clsmap, "ext:later", Later)
    compute = counting("one")

    assert [compute(), compute()] == [1, 1]
    assert given == ["mild"]


def test_a_type_that_an_entry_point_registers(monkeypatch, tmp_path, told):
    """Beaker's entry points are looked through once, at the first type that it does not know by itself."""
    # Before Beaker 1.14 they are those that pkg_resources found when it was imported.
    machine.backend("ext:rediscluster")
    (tmp_path / "later_backend.py").write_text("from beaker.container import MemoryNamespaceManager as Later\n")
    (tmp_path / "later-1.0.dist-info").mkdir()
    (tmp_path / "later-1.0.dist-info" / "entry_points.txt").write_text("[beaker.backends]\nlater = later_backend:Later")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(beaker.cache.clsmap, "initialized", False)
    known = set(beaker.cache.clsmap._clsmap)
    monkeypatch.setattr(beaker.cache.clsmap, "_clsmap", dict(beaker.cache.clsmap._clsmap))
    for alias in {"database", "google", "memcached", "sqla"} & known:
        del beaker.cache.clsmap._clsmap[alias]

    assert told(regions="one", type="later") == []
    assert use("one") == 1


def test_a_type_that_beaker_could_not_load(monkeypatch, told):
    """A backend that Beaker keeps as an error raises that at the first use."""
    monkeypatch.setitem(beaker.cache.clsmap._clsmap, "ext:broken", InvalidCacheBackendError("broken"))

    assert "got 'ext:broken'" in told(regions="one", type="ext:broken")[0]
    with pytest.raises(InvalidCacheBackendError, match=r"^broken$"):
        use("one")


@pytest.mark.parametrize(("kind", "error"), [("ext:google", InvalidCacheBackendError), ("ext:mongodb", RuntimeError)])
def test_another_backend_whose_client_is_not_installed(kind, error, told):
    """A backend of Beaker's that lacks its client raises what Beaker raises, as often as it is used."""
    told(regions="one", type=kind, url="mongodb://localhost/db", store_error="compute")
    compute = counting("one")
    for _ in range(2):
        with pytest.raises(error):
            compute()


# -- Options without effect --------------------------------------------------------------------------


def test_options_that_the_type_does_not_use(told):
    """What the types do not use is one warning for all regions, and one for each that has it of its own."""
    assert told(
        regions="one two", type="memory", lock_dir="/l", timeout="5m", two__url="redis://host", two__memcache_module="x"
    ) == [
        (
            "cache.lock_dir (for dbm, file), cache.timeout (accepted for Beaker's sake; expire is what counts):"
            " not used where cache.type = memory; remove them, or set the type that they are for"
        ),
        (
            "cache.two.url (for ext:database, ext:memcached, ext:redis, ext:sqla), cache.two.memcache_module (for"
            " ext:memcached): not used where cache.type = memory; remove them, or set the type that they are for"
        ),
    ]
    assert [use("one"), use("two")] == [1, 1]


def test_an_option_that_no_type_uses(told):
    """Of an option that counts for no type the warning names none to set."""
    assert told(regions="one", type="memory", timeout="5m") == [
        (
            "cache.timeout (accepted for Beaker's sake; expire is what counts): not used where cache.type = memory;"
            " remove it"
        )
    ]


def test_a_region_lists_no_regions(told):
    """The list of the regions, said of one of them, is no option, and no typing error for itself."""
    assert told(regions="one", type="memory", one__regions="two") == [
        "cache.one.regions is no option that beaker_bridge knows; it is ignored"
    ]


def test_an_option_that_one_of_the_regions_uses(told, tmp_path):
    """An option for all regions needs no word where one of them uses it."""
    assert told(regions="one two", type="memory", data_dir=str(tmp_path), two__type="file", urls="x") == [
        (
            "cache.urls (for ext:rediscluster): not used where the types are file, memory; remove it, or set the"
            " type that it is for"
        )
    ]


def test_an_option_of_regions_of_one_type(told):
    """Where all regions have the same type, each by itself or none at all, the warning names how it is given."""
    labels = {"one__type": "cache.one.type", "two__type": "cache.two.type"}
    for own in ({}, labels):
        (text,) = told(regions="one two", lock_dir="/l", one__lock_dir="/l", **dict.fromkeys(own, "memory"))[:1]
        where = ", ".join(own.values()) if own else "cache.type"

        assert text.startswith(f"cache.lock_dir (for dbm, file): not used where {where} = memory; remove it")


def test_a_wrong_value_of_what_nobody_uses(told):
    """Of an option without effect it does not matter whether it is right."""
    (text,) = told(regions="one", type="memory", dbmmodule="no.such.module", sa_opts="echo", sa__pool_size="many")

    assert text.startswith(
        "cache.dbmmodule (for dbm), cache.sa_opts (for ext:database, ext:sqla), cache.sa.pool_size (for"
    )


def test_another_backend_may_use_anything(monkeypatch, told):
    """What a backend of somebody else's uses, nobody knows."""
    monkeypatch.setitem(beaker.cache.clsmap._clsmap, "ext:foreign", MemoryNamespaceManager)

    assert told(regions="one", type="ext:foreign", timeout="5", log_file="x", sa__url="y", urls="z") == []


@pytest.mark.parametrize(
    ("option", "value", "kind"),
    [
        ("url", "redis://:private@host/0", "ext:redis"),
        ("url", "unix:///socket", "ext:redis"),
        ("url", "host:11211;other:11211", "ext:memcached"),
        ("url", "postgresql+psycopg://me:private@host/db", "ext:database"),
        ("url", "mongodb+srv://host/db", "ext:mongodb"),
        ("url", object(), "ext:database"),
        ("file_dir", "/f", "file"),
        ("dbm_dir", "/f", "dbm"),
        ("urls", "redis://a:1,redis://b:1", "ext:rediscluster"),
        ("sa.url", "sqlite:///x.db", "ext:database"),
        ("bind", "sys", "ext:sqla"),
    ],
)
@pytest.mark.parametrize("owner", ["", "one."])
def test_an_address_without_a_type(option, value, kind, owner, caplog):
    """An address for which there is no type, so that values are kept in memory, is an error in the log."""
    set_cache_regions_from_settings({"cache.regions": "one", f"cache.{owner}{option}": value})

    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "ERROR",
            (
                f"cache.{owner}{option} without cache.{owner}type: values are kept in memory, and lost when the process"
                f" ends; set cache.{owner}type = {kind}"
            ),
        )
    ]


def test_addresses_of_several_types_without_a_type(caplog):
    """All addresses without a type are in one error; what no address needs is a warning of its own."""
    options = {"cache.lock_dir": "/l", "cache.file_dir": "/f", "cache.url": "redis://h", "cache.username": "u"}
    set_cache_regions_from_settings({"cache.regions": "one", **options})

    assert [(record.levelname, record.getMessage().partition(" are kept")[0]) for record in caplog.records] == [
        ("ERROR", "cache.lock_dir, cache.file_dir, cache.url without cache.type: values"),
        (
            "WARNING",
            (
                "cache.username (for ext:redis, ext:rediscluster): not used where cache.type = memory; remove it, or"
                " set the type that it is for"
            ),
        ),
    ]


@pytest.mark.parametrize("option", ["expire", "type", "url", "sa.url", "colour"])
@pytest.mark.parametrize("listed", ["", "one"])
def test_an_empty_option_of_a_region_that_is_not_listed(option, listed, told):
    """Empty or not, the options of a region that is not listed are ignored with one warning."""
    (text,) = told(regions=listed, **{f"two__{option}": ""})

    assert text.startswith(f"cache.two.{option}: ignored, since cache.regions does not list a region two")


def test_what_is_wrong_is_not_missing_as_well(told):
    """Wrong options for SQLAlchemy are one warning: whether an address was among them nobody knows."""
    (text,) = told(regions="one", type="ext:database", sa_opts="echo")

    assert text.startswith("cache.sa_opts must be a dict, got a value that is not shown; the first use")


def test_the_login_of_other_regions(told):
    """A login for all regions is not asked of one in memcached, which has none; the others have it."""
    regions = {"one__type": "ext:redis", "one__url": "redis://h", "two__type": "ext:memcached", "two__url": "h:1"}

    assert told(regions="one two", username="u", **regions) == []
    assert beaker.cache.cache_regions["one"]["username"] == "u"
    assert "username" not in beaker.cache.cache_regions["two"]


def test_prefixes_that_differ(told, caplog):
    """Of an option that is given twice, and differently, the later one counts, as in pyramid_beaker."""
    set_cache_regions_from_settings({"cache.regions": "one", "beaker.cache.expire": "5", "cache.expire": "6"})

    assert beaker.cache.cache_regions["one"]["expire"] == 6
    assert caplog.messages == [
        "beaker.cache.expire and cache.expire differ: cache.expire counts, which comes later; remove one of them"
    ]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("expiration_time", "expire"),
        ("ttl", "expire"),
        ("max_age", "expire"),
        ("backend", "type"),
        ("location", "url"),
        ("directory", "data_dir"),
    ],
)
def test_what_other_caches_call_it(theirs, ours, told):
    """A name that another framework has for an option of ours is ignored with a hint; under our own prefix it stops."""
    assert told(regions="one", **{theirs: "5", f"one__{theirs}": "5"}) == [
        f"cache.{owner}{theirs} is no option that beaker_bridge knows; it is ignored; did you mean cache.{owner}{ours}?"
        for owner in ("", "one.")
    ]
    with pytest.raises(SettingsError, match=rf"did you mean beaker\.cache\.{ours}\?$"):
        set_cache_regions_from_settings({f"beaker.cache.{theirs}": "5"})


# -- Values that Beaker takes ------------------------------------------------------------------------


def test_expire_is_zero(told):
    """With ``expire = 0`` each call is computed, as with Beaker."""
    assert told(regions="one", expire="0") == []
    compute = counting("one")

    assert [compute(), compute()] == [1, 2]


@pytest.mark.parametrize("kind", ["memory", "redis", "memcached"])
def test_expire_is_for_ever(kind, request, told):
    """A value may be fresh for longer than a store can count."""
    url = {} if kind == "memory" else {"type": f"ext:{kind}", "url": request.getfixturevalue(f"{kind}_server").url}
    assert told(regions="one", expire="99999999999", store_error="raise", **url) == []
    compute = counting("one", request.node.nodeid)

    assert [compute(), compute()] == [1, 1]


@pytest.mark.parametrize("options", [{"username": "u"}, {"password": "private"}])
def test_memcached_takes_no_login(told, options):
    """A user or a password for memcached is one sentence at the start, and an error at the region's first use."""
    settings = {
        f"one__{name}": value for name, value in {"type": "ext:memcached", "url": "127.0.0.1:1", **options}.items()
    }
    (warning,) = told(regions="one", **settings)
    label = f"cache.one.{next(iter(options))}"
    with pytest.raises(SettingsError, match=f"{label} must be absent where cache.one.type = ext:memcached"):
        cache_region("one")(lambda: 1)()

    assert warning.startswith(f"{label} must be absent where cache.one.type = ext:memcached, which is asked without")
    assert "private" not in warning
