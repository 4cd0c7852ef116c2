"""Values through JSON: which keep their type, which come back as another, and which are refused."""

import json
import logging
import sys
from collections import Counter, OrderedDict, defaultdict, namedtuple
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, IntEnum
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from beaker.middleware import SessionMiddleware as BeakerMiddleware
from beaker.util import JsonSerializer as BeakerJSONSerializer
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markupsafe import Markup
from translationstring import TranslationString
from webob import Response
from webtest import TestApp

from beaker_bridge import SessionMiddleware
from beaker_bridge.exceptions import SessionValueError
from beaker_bridge.record import json_types, serializers
from beaker_bridge.record.codec import RecordCodec
from beaker_bridge.record.fields import SEAL_WORD
from beaker_bridge.record.json_types import HTML, TAG, PlainMarkup
from beaker_bridge.record.serializers import JSONSerializer
from beaker_bridge.record.tagging import MAX_DEPTH
from beaker_bridge.session.merge import merge
from tests.requests import Browser, Clock, Request, config_of

laws = settings(deadline=None, max_examples=60)
KEYS = {"type": "cookie", "validate_key": "v" * 32}


def through_json(value):
    """Return what another process reads of a value that was written."""
    return JSONSerializer().loads(JSONSerializer().dumps({"v": value}))["v"]


def exactly(value):
    """Return a value with its types, and what an equality does not see of it."""
    kind = type(value)
    if kind is dict:
        return kind, {key: exactly(item) for key, item in value.items()}
    if kind in (list, tuple):
        return kind, list(map(exactly, value))
    if kind is set:
        return kind, sorted(map(repr, map(exactly, value)))
    if kind in (datetime, time):
        zone = value.tzinfo.key if isinstance(value.tzinfo, ZoneInfo) else None
        return kind, repr(value.replace(tzinfo=None)), value.utcoffset(), zone
    if kind is TranslationString:
        return kind, str(value), exactly([value.domain, value.default, value.mapping, value.context])
    return kind, repr(value)


# -- Texts with more to them -------------------------------------------------------------------------


class Literal(Markup):
    """HTML of a class that derives from markupsafe's."""


class Html(str):
    """HTML of a class of its own."""

    __slots__ = ()

    def __html__(self):
        return f"<p>{self}</p>"


ADDED = TranslationString("added", domain="shop", default="${n} added", mapping={"n": 2}, context="cart")
TEXTS = [
    ADDED,
    TranslationString("added"),
    TranslationString("added", default=""),
    TranslationString(
        "added", default=Markup("<b>${n}</b>"), mapping={"n": Markup("<i>2</i>"), "at": date(2024, 1, 2)}
    ),
    TranslationString("a", domain=TranslationString("b", mapping={"m": ADDED}), context=Markup("c")),
    TranslationString("${bb}", mapping={TAG: ["tuple", [1]]}),
    Markup("<b>x</b>"),
    Markup(""),
    Markup("\ud800 ä \U0001f600"),
]
PLACES = {
    "alone": lambda text: text,
    "list": lambda text: ["a", text, 1],
    "dict": lambda text: {"a": text},
    "tuple": lambda text: ("a", text),
    "set": lambda text: {text},
    "tuple in a set": lambda text: {(text, 1)},
    "deep": lambda text: [({"a": [{text}]}, 1)],
    "a dict that looks like a tag": lambda text: {TAG: ["tuple", [text]]},
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_translations_and_html_are_carried_exactly(text, place):
    """A translation, with its domain, default, mapping and context, and HTML come back as they were, anywhere."""
    assert exactly(through_json(place(text))) == exactly(place(text))


@pytest.mark.parametrize(("text", "html"), [(Literal("<b>"), "<b>"), (Html("x"), "<p>x</p>")])
def test_a_text_that_is_html_comes_back_as_markup(text, html):
    """A text of any class with ``__html__`` comes back as the ``Markup`` of what that returns."""
    assert exactly(through_json([text])) == exactly([Markup(html)])


def test_html_without_markupsafe(monkeypatch):
    """Where markupsafe is not installed, HTML is a text of a class of ours, which templates take for HTML."""
    written = JSONSerializer().dumps({"v": PlainMarkup("<b>")})
    json_types.markup_class.cache_clear()
    try:
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "markupsafe", None)
            value = JSONSerializer().loads(written)["v"]
    finally:
        json_types.markup_class.cache_clear()

    assert type(value) is PlainMarkup
    assert value.__html__() == value == "<b>"
    assert exactly(through_json(value)) == exactly(Markup("<b>"))


@pytest.mark.parametrize("text", [TranslationString("added", mapping=[1]), TranslationString("a", mapping={1: 2})])
def test_a_translation_whose_mapping_is_none_is_refused(text):
    """A translation whose mapping could not be read back is refused."""
    with pytest.raises(SessionValueError, match=r"^session\['v'\] cannot be stored: the (mapping|key) "):
        RecordCodec(JSONSerializer()).serialize({"v": text})


class Unrendered(str):
    """A text whose HTML is not there yet."""

    __slots__ = ()

    def __html__(self):
        return None


def test_html_that_is_no_text_is_refused():
    """A text whose ``__html__()`` returns no text is refused, and the error says so."""
    with pytest.raises(SessionValueError) as caught:
        RecordCodec(JSONSerializer()).serialize({"v": Unrendered("x")})

    assert "session['v'] cannot be stored: __html__() of a Unrendered returns a NoneType, not a text" in str(
        caught.value
    )


@pytest.mark.parametrize("options", [{}, KEYS, {**KEYS, "encrypt_key": "e" * 32}], ids=["stored", "cookie", "sealed"])
@pytest.mark.parametrize("text", [ADDED, Markup("<b>x</b>")])
def test_a_flash_message_keeps_its_type(options, text):
    """A translation, or HTML, that one request flashes the next one pops; nothing else is in the session."""
    browser = Browser(config_of(**options))
    request = browser.begin()
    request.session.flash(text)
    browser.end(request)
    request = browser.begin()

    assert list(request.session) == ["_f_"]
    assert exactly(request.session.pop_flash()) == exactly([text])


def test_the_move_from_pickle_keeps_them():
    """A pickled session with a translation and HTML goes on as JSON, with ``legacy_serializer``."""
    clock = Clock()
    browser = Browser(config_of(data_serializer="pickle", clock=clock))
    browser.write(texts=TEXTS)
    moving = config_of(legacy_serializer="pickle", clock=clock)
    moving.store = browser.config.store
    browser.config = moving
    browser.write(another=1)
    moved = config_of(clock=clock)
    moved.store = moving.store
    browser.config = moved

    assert exactly(browser.read()) == exactly({"texts": TEXTS, "another": 1})


@pytest.mark.parametrize("options", [{}, KEYS, {**KEYS, "encrypt_key": "e" * 32}], ids=["stored", "cookie", "sealed"])
def test_a_touch_keeps_them(options):
    """A request that only reads, and renews the access time, in another process than the one that wrote."""
    clock = Clock()
    browser = Browser(config_of(clock=clock, **options))
    browser.write(texts=TEXTS)
    for _ in range(2):
        clock.now += 1000
        another = config_of(clock=clock, **options)
        another.store = browser.config.store
        browser.config = another

        assert exactly(browser.read()) == exactly({"texts": TEXTS})
        assert browser.begin().session.last_accessed == clock.now


@pytest.mark.parametrize("secret", [None, "s" * 32])
def test_the_way_back_to_pickle_keeps_them(secret):
    """A process that still writes pickles reads them from JSON, with ``legacy_serializer = json``."""
    browser = Browser(config_of(secret=secret))
    browser.write(texts=TEXTS)
    before = config_of(secret=secret, data_serializer="pickle", legacy_serializer="json")
    before.store = browser.config.store
    browser.config = before

    assert exactly(browser.read()) == exactly({"texts": TEXTS})


@pytest.mark.parametrize("options", [{}, KEYS], ids=["stored", "cookie"])
def test_what_nobody_changed_is_not_written_again(options):
    """A session with HTML in it is the same bytes each time: neither a second commit nor ``auto`` writes it again."""
    config = config_of(auto=True, **options)
    browser = Browser(config)
    request = browser.write(message=Markup("<b>"))
    before = request.loaded._state.record.raw
    request.session.changed()
    request.commit()
    reading = browser.begin()
    assert reading.session["message"] == "<b>"
    browser.end(reading)

    assert request.loaded._state.record.raw == before == reading.loaded._state.record.raw


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Markup("x"), "x"),
        (TranslationString("x"), "x"),
        (TranslationString("x"), Markup("x")),
        (TranslationString("x", domain="a"), TranslationString("x", domain="b")),
        (TranslationString("x", default="a"), TranslationString("x", default="b")),
        (TranslationString("x", mapping={"n": 1}), TranslationString("x", mapping={"n": True})),
        (TranslationString("x", context="a"), TranslationString("x", context="b")),
        (TranslationString("x", default="a"), TranslationString("x", default=Markup("a"))),
        (0.0, -0.0),
    ],
)
def test_equal_texts_are_not_the_same(one, other):
    """The merge and the detection of changes compare what is more to a text, which Python's equality does not."""
    assert one == other
    for base, changed in ((one, other), (other, one), ([one], [other]), ({"a": one}, {"a": other})):
        merged = merge({"v": base}, {"v": changed}, {"v": base, "w": 1}).record
        reverse = merge({"v": base}, {"v": base, "w": 1}, {"v": changed}).record

        assert exactly(merged["v"]) == exactly(reverse["v"]) == exactly(changed)
        assert JSONSerializer().encode(base) != JSONSerializer().encode(changed)


def test_a_translation_is_the_same_whatever_the_order_of_its_mapping():
    """A translation that two requests read is unchanged, and is no conflict."""
    base, ours = (TranslationString("x", mapping=mapping) for mapping in ({"a": 1, "b": [2]}, {"b": [2], "a": 1}))

    assert merge({"v": base}, {"v": ours}, {}) == ({}, frozenset())


@pytest.mark.parametrize(
    "change",
    [
        lambda session: session["text"].mapping.update(n=3),
        lambda session: setattr(session["text"], "default", "x"),
        lambda session: session["texts"].__setitem__(0, str(session["texts"][0])),
    ],
    ids=["mapping", "default", "plain"],
)
def test_a_translation_that_is_changed_in_place_is_saved(change):
    """What is changed within a translation, or from one to its plain text, is seen, and saved."""
    browser = Browser(config_of())
    browser.write(text=through_json(ADDED), texts=[through_json(ADDED)])
    request = browser.begin()
    change(request.session)
    browser.end(request)

    assert exactly(browser.read()) == exactly(dict(request.session))
    assert exactly(browser.read()) != exactly({"text": ADDED, "texts": [ADDED]})


# -- What a user wrote is never HTML -----------------------------------------------------------------


def rewritten_by_beaker(plain, **changes):
    """Return a record as a process of Beaker's writes it anew, which escapes nothing."""
    return BeakerJSONSerializer().dumps({**BeakerJSONSerializer().loads(plain), **changes})


def forgeries(tag, word):
    """Yield JSON that a user may send, who has even seen a tag of his session, and a word."""
    _, seal, text = tag[TAG]
    for content in (
        [HTML, "<script>"],
        [HTML, "", "<script>"],
        [HTML, seal, "<script>"],
        [HTML, seal, [text]],
        [HTML, word, "<script>"],
        [HTML, json_types.Seals(word, ["another key"]).seal("<script>"), "<script>"],
        [HTML, None, "<script>"],
        [HTML, "\ud800", "<script>"],
        [HTML, seal, text, 1],
        [HTML],
        HTML,
    ):
        yield {TAG: content}
        yield [{"a": {TAG: content, SEAL_WORD: word}}, {SEAL_WORD: word}]


@pytest.mark.parametrize("serializer", [JSONSerializer(), JSONSerializer(["a key"])], ids=["stored", "cookie"])
def test_a_users_json_is_no_html(serializer):
    """JSON that looks like a tag for HTML, written by a process of Beaker's, stays what it is; ours stays HTML."""
    plain = serializer.dumps({"ours": Markup("<b>"), "a": 1})
    record = BeakerJSONSerializer().loads(plain)
    for forged in forgeries(record["ours"], record[SEAL_WORD]):
        read = serializer.loads(rewritten_by_beaker(plain, forged=forged))

        assert exactly(read) == exactly({"ours": Markup("<b>"), "a": 1, "forged": forged})
        assert exactly(serializer.loads(serializer.dumps(read))) == exactly(read)


@pytest.mark.parametrize("word", [None, 5, "", "\ud800", "another", ["list"]])
def test_html_under_another_word_stays_what_it_is(word):
    """A tag for HTML in a record that names no word, or another one, is a dict."""
    record = BeakerJSONSerializer().loads(JSONSerializer().dumps({"v": Markup("<b>")}))
    tag = record["v"]
    for changed in ({"v": tag}, {"v": tag, SEAL_WORD: word}, {"v": tag, "w": {SEAL_WORD: record[SEAL_WORD]}}):
        read = JSONSerializer().loads(BeakerJSONSerializer().dumps(changed))

        assert exactly(read["v"]) == exactly(tag)


@pytest.mark.parametrize("options", [{"secret": "s" * 32}, KEYS], ids=["stored", "cookie"])
def test_who_knows_the_word_cannot_seal(options):
    """Who can read his cookie, and the word in it, or chooses a word, makes no HTML of it: that needs the key."""
    codec = config_of(**options).codec
    plain = codec.serialize({"ours": Markup("<b>")})
    for word in (BeakerJSONSerializer().loads(plain)[SEAL_WORD], "chosen"):
        forged = {TAG: [HTML, json_types.Seals(word, [""]).seal("<script>"), "<script>"]}
        read = codec.serializer.loads(rewritten_by_beaker(plain, forged=forged, **{SEAL_WORD: word}))

        assert exactly(read["forged"]) == exactly(forged)


@pytest.mark.parametrize("name", ["secret", "validate_key"])
def test_html_survives_a_new_key(name):
    """HTML is HTML under the keys that an option retires, too, until it is written anew."""
    options = {} if name == "secret" else {"type": "cookie"}
    browser = Browser(config_of(**options, **{name: "v" * 32}))
    browser.write(message=Markup("<b>"))
    renewed = config_of(**options, **{name: "w" * 32, f"previous_{name}s": ["v" * 32]})
    renewed.store = browser.config.store
    browser.config = renewed
    for _ in range(2):
        assert exactly(browser.read()) == exactly({"message": Markup("<b>")})
    last = config_of(**options, **{name: "w" * 32})
    last.store = renewed.store
    browser.config = last

    assert exactly(browser.read()) == exactly({"message": Markup("<b>")})


def test_the_word_is_no_key_of_the_session():
    """The record's word is shown to no application, and cannot be set; a record without HTML has none."""
    browser = Browser(config_of())
    browser.write(message=Markup("<b>"))
    assert list(browser.read()) == ["message"]
    with pytest.raises(SessionValueError, match="own"):
        browser.begin().session[SEAL_WORD] = "a"
    raw = JSONSerializer().dumps({"a": 1, "t": ADDED})

    assert SEAL_WORD not in BeakerJSONSerializer().loads(raw)


def test_a_process_of_beakers_that_shares_the_store(tmp_path):
    """What a process of Beaker's stores of a user is no HTML, and costs no session; ours comes through it unharmed."""
    seen = {}

    def application(environ, start_response):
        session = environ["beaker.session"]
        body = environ["wsgi.input"].read()
        session.update(json.loads(body) if body else {"html": Markup("<b>"), "translation": ADDED})
        session.save()
        seen.update({key: value for key, value in session.items() if not key.startswith("_")})
        return Response("stored")(environ, start_response)

    options = {"type": "file", "data_dir": str(tmp_path), "secret": "s" * 32, "data_serializer": "json"}
    ours, beakers = (
        TestApp(SessionMiddleware(application, **options)),
        TestApp(BeakerMiddleware(application, **options)),
    )
    beakers.cookiejar = ours.cookiejar
    ours.post("/")
    beakers.post("/", json.dumps({"more": 1}))
    seal = seen["html"][TAG][1]
    forged = [
        {TAG: content} for content in ([HTML, seal, "<script>"], [HTML, "<script>"], ["datetime", 5], ["eval", 1])
    ]
    beakers.post("/", json.dumps({"form": forged}))
    for more in (2, 3):
        ours.post("/", json.dumps({"more": more}))

        assert exactly(seen) == exactly(
            {"html": Markup("<b>"), "translation": ADDED, "more": more, "form": forged},
        )


UNKNOWN = [
    {TAG: ["eval", 1]},
    {TAG: ["eval", {TAG: ["tuple", [1, {TAG: 5}]]}]},
    {TAG: [["list"], 1]},
    {TAG: []},
    {TAG: {TAG: 1}},
    {TAG: None},
    {TAG: "datetime"},
    {TAG: ["tuple", [1]], "b": 1},
]


@pytest.mark.parametrize("value", UNKNOWN)
def test_an_unknown_tag_is_written_back_unchanged(value):
    """A tag that we do not know, which a later release may have written, is a dict, and is written back as it was."""
    plain = BeakerJSONSerializer().dumps({"v": value})
    read = JSONSerializer().loads(plain)

    assert BeakerJSONSerializer().loads(JSONSerializer().dumps(read)) == {"v": value}


MALFORMED = [
    ["datetime", 5],
    ["datetime", ["2024-01-01", 7, None]],
    ["date", None],
    ["time", "noon"],
    ["timedelta", [1, 2]],
    ["timedelta", [1e300, 0, 0]],
    ["Decimal", 5],
    ["Decimal", "much"],
    ["Decimal", "1e999999999999999999999"],
    ["UUID", 5],
    ["bytes", "?"],
    ["bytes", [1]],
    ["tuple", "abc"],
    ["set", [[]]],
    ["set", {"a": 1}],
    ["dict", [[5, 1]]],
    ["dict", ["ab"]],
    ["dict", 5],
    ["TranslationString", ["x", None, "x", ["a"], None]],
    ["TranslationString", [5, None, "x", None, None]],
    ["TranslationString", "x"],
    ["tuple", [1], 2],
    ["tuple"],
]


@pytest.mark.parametrize("content", MALFORMED, ids=repr)
def test_a_known_tag_with_another_content_stays_a_dict(content):
    """A user's JSON that a process of Beaker's wrote, and that only looks like a type of ours, costs no session."""
    value = {TAG: content}
    read = JSONSerializer().loads(BeakerJSONSerializer().dumps({"v": value}))["v"]

    assert exactly(read) == exactly(value) == exactly(through_json(read))


contents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["1", "2024-01-01", "YQ=="]),
    lambda children: (
        st.lists(children, max_size=5)
        | st.dictionaries(st.text() | st.just(TAG), children, max_size=3)
        | st.builds(lambda name, content: {TAG: [name, content]}, st.sampled_from(sorted(json_types._NAMES)), children)
    ),
    max_leaves=8,
)


@laws
@given(contents)
@example({TAG: ["dict", [[TAG, ["tuple", [1]]]]]})
def test_whatever_beaker_wrote_is_read_and_written(value):
    """JSON of any content is read, never as HTML; what is read of it can be written, and is then read the same."""
    read = JSONSerializer().loads(BeakerJSONSerializer().dumps({"v": value}))["v"]

    assert "Markup(" not in repr(exactly(read))
    assert exactly(through_json(read)) == exactly(read)


# -- What comes back as another type -----------------------------------------------------------------


class Colour(IntEnum):
    """An enumeration of numbers."""

    RED = 3


class Mood(str, Enum):
    """An enumeration of texts."""

    GOOD = "good"
    TAG = TAG


class Ratio(float, Enum):
    """An enumeration of fractions."""

    HALF = 0.5


class Key(str):
    """A text of a class of its own."""

    __slots__ = ()


class Apart(str):
    """A text that is equal to no other."""

    __slots__ = ()

    def __eq__(self, other):
        return self is other

    def __hash__(self):
        return id(self)


class Whole(int):
    """A number that shows itself in its own way."""

    def __repr__(self):
        return "whole"

    __str__ = __int__ = __index__ = __repr__


class Later(datetime):
    """A time of a class of its own, as those of pandas: with nanoseconds, and not to be replaced."""

    def isoformat(self, *args, **kwargs):
        return super().isoformat(*args, **kwargs) + "000"

    def replace(self, **changes):
        raise NotImplementedError

    def __str__(self):
        return "later"

    __repr__ = __str__


class Day(date):
    """A date of a class of its own."""

    def isoformat(self):
        return "today"


class Hour(time):
    """A time of day of a class of its own."""

    def isoformat(self, *args):
        return "noon"


class Span(timedelta):
    """A duration of a class of its own, which counts its days in another way, as pendulum's."""

    days = seconds = 7


class Money(Decimal):
    """A Decimal of a class of its own."""

    def __str__(self):
        return f"EUR {super().__str__()}"


class Bytes(bytes):
    """Bytes of a class of their own."""


class Number(UUID):
    """A UUID of a class of its own."""


class Rows(list):
    """A list of a class of its own, which has a hash."""

    def __hash__(self):
        return 1


class Chosen(set):
    """A set of a class of its own."""


class Translated(TranslationString):
    """A translation of a class of its own."""


Point = namedtuple("Point", "x y")  # noqa: PYI024 -- an application's
BASES = [
    (Colour.RED, 3),
    (Mood.GOOD, "good"),
    (Ratio.HALF, 0.5),
    (Key("k"), "k"),
    (Whole(5), 5),
    (OrderedDict(a=(1,)), {"a": (1,)}),
    (defaultdict(list, a=[(1,)]), {"a": [(1,)]}),
    (Counter("aab"), {"a": 2, "b": 1}),
    ({Key("k"): 1}, {"k": 1}),
    ({Mood.GOOD: Mood.GOOD}, {"good": "good"}),
    ({Markup("k"): 1, TranslationString("t"): 2}, {"k": 1, "t": 2}),
    ({Mood.TAG: ["tuple", [1]]}, {TAG: ["tuple", [1]]}),
    (Rows([(1,)]), [(1,)]),
    (Chosen({1}), {1}),
    ({Colour.RED, (Mood.GOOD,)}, {3, ("good",)}),
    (Point(1, Mood.GOOD), (1, "good")),
    (Later(2024, 1, 2, 3, 4, 5, 6, fold=1), datetime(2024, 1, 2, 3, 4, 5, 6, fold=1)),  # noqa: DTZ001 -- is what is tried
    (Later(2024, 7, 2, tzinfo=ZoneInfo("Asia/Tokyo")), datetime(2024, 7, 2, tzinfo=ZoneInfo("Asia/Tokyo"))),
    (Day(2024, 1, 2), date(2024, 1, 2)),
    (Hour(1, 2, 3, 4, fold=1), time(1, 2, 3, 4, fold=1)),
    (Span(days=-1, microseconds=5), timedelta(days=-1, microseconds=5)),
    (Money("1.50"), Decimal("1.50")),
    (Bytes(b"x"), b"x"),
    (Number(int=5), UUID(int=5)),
    (Translated("x", mapping=OrderedDict(n=Colour.RED)), TranslationString("x", mapping={"n": 3})),
]


@pytest.fixture
def told(caplog, monkeypatch):
    """Return the warnings that are told, in a process that has told of nothing yet."""
    monkeypatch.setattr(serializers, "_told", set())
    caplog.set_level(logging.WARNING, "beaker_bridge")
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(("value", "read"), BASES, ids=[type(value).__name__ for value, _ in BASES])
def test_a_subclass_comes_back_as_what_it_derives_from_and_is_told(value, read, told):
    """A value of a derived class comes back as the class that it derives from; a warning names key and type, once."""
    for _ in range(2):
        assert exactly(through_json([value])) == exactly([read])

    assert len(set(told())) == len(told()) > 0
    assert all(message.startswith("session['v'] holds a ") for message in told())


def test_the_warning_names_both_types(told):
    """The warning names the key in the session, the type, and what comes back: one for each key and type."""
    codec = RecordCodec(JSONSerializer())
    record = {"mood": [Mood.GOOD, {"a": Mood.GOOD}], "at": Mood.GOOD, Key("k"): 1, "html": Html("x"), "plain": (1, {2})}
    for _ in range(3):
        codec.serialize(record)
    codec.serialize({"mood": 1})
    codec.serializer.encode({"another": Mood.GOOD})

    name = f"{__name__}.Mood"
    assert [message.split(", which JSON brings back as ") for message in told()] == [
        [f"session['mood'] holds a {name}", "str: store that, or one of the types that survive JSON"],
        [f"session['at'] holds a {name}", "str: store that, or one of the types that survive JSON"],
        [
            f"session['k'] holds a {__name__}.Key",
            "str: store that, or one of the types that survive JSON",
        ],
    ]


def test_the_warnings_have_an_end(told):
    """Keys that are made of a user's number do not fill the log, or the memory."""
    for number in range(serializers._MAX_TOLD + 10):
        JSONSerializer().dumps({f"cart of {number}": Counter()})

    assert len(told()) == serializers._MAX_TOLD == len(serializers._told)


def test_what_survives_is_not_told(told):
    """Nothing is said of what comes back as it was."""
    through_json([*TEXTS, {"a": (1, {2})}, b"x", Decimal(1), date(2024, 1, 2)])

    assert told() == []


# -- Times and zones ---------------------------------------------------------------------------------


class OwnZone(tzinfo):
    """A time zone of an application's, with a key that no ``ZoneInfo`` has, or that another one has."""

    key = "Asia/Tokyo"

    def utcoffset(self, moment):
        return timedelta(hours=3)

    def dst(self, moment):
        return None

    def tzname(self, moment):
        return "own"


@pytest.mark.parametrize("key", ["Asia/Tokyo", "Etc/GMT-3", "", 5, None])
def test_a_zone_of_ones_own_comes_back_as_its_offset(key, monkeypatch):
    """A zone that is no ``ZoneInfo`` comes back as its offset, whatever else it has a key for."""
    monkeypatch.setattr(OwnZone, "key", key)
    moment = datetime(2024, 1, 2, 3, tzinfo=OwnZone())

    read = through_json([moment, moment.timetz()])
    assert read == [moment, moment.timetz()]
    assert [value.tzinfo for value in read] == [timezone(timedelta(hours=3))] * 2


@pytest.mark.parametrize("key", ["Mars/Olympus", "America", "../UTC", "", "Asia/Tokyo\0"])
@pytest.mark.parametrize("fold", [0, 1])
def test_a_zone_that_this_machine_does_not_know(key, fold):
    """A time in a zone that is not known here, as on a machine with other tables, keeps its offset."""
    content = ["2024-10-27T02:30:00+02:00", fold, key]
    plain = BeakerJSONSerializer().dumps({"v": {TAG: ["datetime", content]}})

    read = JSONSerializer().loads(plain)["v"]
    assert exactly(read) == exactly(datetime(2024, 10, 27, 2, 30, fold=fold, tzinfo=timezone(timedelta(hours=2))))


def test_a_zone_that_is_another_here():
    """Where a zone's tables differ, the moment stands, by its offset."""
    with open_zone("Asia/Tokyo") as file:
        moment = datetime(2024, 1, 2, 3, tzinfo=ZoneInfo.from_file(file, key="Europe/Paris"))

    read = through_json(moment)
    assert read == moment
    assert read.utcoffset() == timedelta(hours=9)


def open_zone(key):
    """Open the tables of a zone."""
    from importlib.resources import files
    from pathlib import Path
    from zoneinfo import TZPATH

    found = [Path(folder, key) for folder in TZPATH if Path(folder, key).exists()]
    return found[0].open("rb") if found else files("tzdata.zoneinfo").joinpath(key).open("rb")


def test_a_zone_without_a_name():
    """A ``ZoneInfo`` that has no key comes back as its offset."""
    with open_zone("Asia/Tokyo") as file:
        moment = datetime(2024, 1, 2, 3, tzinfo=ZoneInfo.from_file(file))

    assert through_json(moment) == moment


@pytest.mark.parametrize(
    "content",
    [
        ["2024-10-27T02:30:00", 1, "Europe/Paris"],
        ["2024-10-27T02:30:00", 1, None],
        ["2024-10-27T02:30:00+01:00", 1, None],
        "2024-10-27T02:30:00+01:00",
    ],
)
def test_a_time_of_an_earlier_release_is_read(content):
    """A time that was written without its offset beside the zone is read."""
    read = JSONSerializer().loads(BeakerJSONSerializer().dumps({"v": {TAG: ["datetime", content]}}))["v"]

    zone = {"Europe/Paris": ZoneInfo("Europe/Paris"), None: None}[content[2] if isinstance(content, list) else None]
    assert read.replace(tzinfo=None, fold=0) == datetime(2024, 10, 27, 2, 30)  # noqa: DTZ001 -- the rest is beside it
    assert zone is None or (read.tzinfo is zone and read.utcoffset() == timedelta(hours=1))


# -- Written and read --------------------------------------------------------------------------------


def base_of(value):
    """Return what the documentation says that comes back for a value."""
    if isinstance(value, str) and hasattr(value, "__html__"):
        return Markup(value.__html__())
    if isinstance(value, TranslationString):
        text = TranslationString(str.__str__(value), base_of(value.domain), None, base_of(value.mapping))
        text.default, text.context = base_of(value.default), base_of(value.context)
        return text
    if isinstance(value, dict):
        return {str.__str__(key): base_of(item) for key, item in value.items()}
    for kind in (list, tuple, set):
        if isinstance(value, kind):
            return kind(map(base_of, value))
    return dict_of_bases().get(value, value) if isinstance(value, (Enum, Key)) else value


def dict_of_bases():
    """Return what comes back for the members of enumerations."""
    return {Colour.RED: 3, Mood.GOOD: "good", Mood.TAG: TAG, Ratio.HALF: 0.5, Key("k"): "k"}


texts = st.text(st.characters()) | st.sampled_from(["\ud800", "\ud800\udc00", "a\udc00\ud800", "\U00010000", "\\ud800"])
any_key = texts | st.sampled_from([TAG, SEAL_WORD + "s", Mood.GOOD, "good", Mood.TAG, Key("k"), "k", Markup("k")])
zones = st.sampled_from([None, timezone.utc, ZoneInfo("Europe/Paris"), ZoneInfo("Asia/Tokyo"), OwnZone()])
scalars = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), texts, texts.map(Markup), st.binary(max_size=3)),
    st.sampled_from([Colour.RED, 3, Mood.GOOD, "good", Ratio.HALF, Key("k"), 10**4299, object(), ...]),
    st.sampled_from([timedelta.min, timedelta.max, Decimal("-NaN"), Decimal("sNaN12"), Decimal("-0E+9999")]),
    st.datetimes(timezones=zones, allow_imaginary=True),
    st.times(timezones=zones),
)


def is_hashable(value):
    """Say whether a set can hold a value, which a signalling NaN is none of."""
    try:
        hash(value)
    except TypeError:
        return False
    return True


hashables = st.recursive(
    scalars | st.builds(TranslationString, texts, default=texts, mapping=st.dictionaries(any_key, scalars, max_size=1)),
    lambda children: st.lists(children, max_size=2).map(tuple) | st.lists(children, max_size=2).map(Rows),
    max_leaves=4,
).filter(is_hashable)
#: What may stand where a tag has its name: a text that is HTML, or a translation, equals the name.
names = st.sampled_from(sorted(json_types._NAMES)).flatmap(
    lambda name: st.sampled_from([name, Markup(name), TranslationString(name)])
)
anything = st.recursive(
    hashables | st.sets(hashables, max_size=3),
    lambda children: st.one_of(
        st.lists(children, max_size=3),
        st.tuples(children, children).map(lambda pair: Point(*pair)),
        st.dictionaries(any_key, children, max_size=3).map(OrderedDict),
        st.builds(lambda name, content: {TAG: [name, content]}, names, children),
        st.builds(lambda mapping: TranslationString("x", mapping=mapping), st.dictionaries(any_key, children)),
    ),
    max_leaves=6,
)


@settings(laws, max_examples=150)
@given(anything)
@example({TAG: Mood.GOOD})
@example({Mood.TAG: ["tuple", [1]]})
@example({Rows([1])})
@example({(Rows([1]),)})
@example({Apart("x"), "x"})
@example({Apart("x"): 1, "x": 2})
@example("\ud800\udc00")
@example({"\ud800\udc00": 1})
@example(Markup("\ud800\udc00"))
@example(["\ud800", "\udc00"])
@example({float("nan"), Decimal("NaN")})
@example({TAG: [HTML, "x", "y"]})
@example({TAG: [Markup("set"), [1]]})
@example({TAG: [TranslationString("tuple"), [1]]})
def test_whatever_is_written_is_read(value):
    """What is not refused is read, equal in type and content, or as what the documentation says that comes back."""
    try:
        plain = JSONSerializer().dumps({"v": value})
    except (TypeError, ValueError):
        return

    assert exactly(JSONSerializer().loads(plain)["v"]) == exactly(base_of(value))


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("\ud800\udc00", "a text in it has the two halves of a character as two"),
        ([{"\ud83d\ude00": 1}], "a text in it has the two halves of a character as two"),
        ({(1, "a\udbff\udfff")}, "a text in it has the two halves of a character as two"),
        ({Rows([1])}, "a set cannot hold a list, as which a Rows would come back"),
        ({(1, (Rows([1]),))}, "a set cannot hold a list, as which a Rows would come back"),
        ({Apart("x"), "x"}, "two items of a set are one as JSON"),
        ({Apart("x"): 1, "x": 2}, "two of its keys are one text"),
        (datetime(2024, 1, 2, tzinfo=timezone(timedelta(microseconds=-5))), "an offset from UTC of less than a second"),
        (time(1, 2, 3, tzinfo=timezone(timedelta(microseconds=5))), "an offset from UTC of less than a second"),
        (10**5000, "Exceeds the limit (4300"),
        ([frozenset({1})], "a value of type frozenset is not JSON"),
        ({frozenset({1})}, "a value of type frozenset is not JSON"),
    ],
    ids=range(12),
)
def test_what_would_come_back_as_another_is_refused(value, told):
    """A value that could be written, and would be read as another one or not at all, is refused, and its key named."""
    with pytest.raises(SessionValueError) as caught:
        RecordCodec(JSONSerializer()).serialize({"a": 1, "v": value})

    assert str(caught.value).startswith("session['v'] cannot be stored: ")
    assert told in str(caught.value)


@pytest.mark.parametrize("text", ["\U0001f600", "\ud83d", "\ude00\ud83d", "\\ud83d\\ude00", ["\ud83d", "\ude00"]])
def test_a_half_character_alone_is_carried(text):
    """Characters beyond 16 bits, and halves of them that do not meet, come back as they were."""
    assert through_json([text, {"a": text}]) == [text, {"a": text}]


def nested(step, depth, value=1):
    """Return a value that is so many steps deep."""
    for _ in range(depth):
        value = step(value)
    return value


STEPS = {
    "list": lambda value: [value],
    "dict": lambda value: {"a": value},
    "tag": lambda value: {TAG: value},
    "known tag": lambda value: {TAG: ["dict", value]},
    "tag in a list": lambda value: {TAG: ["tuple", [value]]},
    "tuple": lambda value: (value,),
    "translation": lambda value: TranslationString("x", mapping={"n": value}),
    "ordered": lambda value: OrderedDict(a=value),
    "rows": lambda value: Rows([value, Markup("x")]),
}


WRITER = JSONSerializer()


def json_equal(one, other):
    """Say whether two values have the same JSON; their equality would go too deep."""
    return WRITER.encode(one) == WRITER.encode(other)


def below(frames, action):
    """Return what an action returns, so many frames further down."""
    return below(frames - 1, action) if frames else action()


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_as_deep_as_is_written_is_read(step):
    """The deepest value that is written is read, also far down in a web request; a deeper one is refused, and named."""
    deepest, plain = 0, b""
    for depth in range(MAX_DEPTH + 10):
        try:
            plain = JSONSerializer().dumps({"v": nested(step, depth)})
        except ValueError:
            break
        deepest = depth
    value = below(300, lambda: JSONSerializer().loads(plain))["v"]

    assert deepest > 40
    assert json_equal(value, nested(step, deepest))
    with pytest.raises(SessionValueError, match=r"^session\['v'\] cannot be stored: it is nested too deeply"):
        below(300, lambda: RecordCodec(JSONSerializer()).serialize({"v": nested(step, deepest + 1)}))


@pytest.mark.parametrize("step", ["list", "dict", "tag", "ordered"])
def test_as_deep_as_is_written_is_merged(step):
    """What is written can be merged, far down in a web request: also where both have changed the deep value."""
    base, ours, theirs = ({"v": nested(STEPS[step], MAX_DEPTH - 5, leaf), "w": leaf} for leaf in "abc")
    merged = below(100, lambda: merge(base, ours, theirs)).record
    beside = below(100, lambda: merge(base, {**base, "w": 1}, theirs)).record

    assert json_equal(merged, ours)
    assert json_equal(beside, {**theirs, "w": 1})


def test_a_users_nested_tags_are_carried():
    """The body of a request that nests our tag as deep as that reads it, is stored and read."""
    body = '{"__bb__":' * 245 + "1" + "}" * 245

    assert json.dumps(through_json(json.loads(body)), separators=(",", ":")) == body


# -- Refused where it is assigned --------------------------------------------------------------------

ASSIGNMENTS = {
    "item": lambda session, value: session.__setitem__("v", value),
    "setdefault": lambda session, value: session.setdefault("v", value),
    "update": lambda session, value: session.update({"a": 1, "v": value}),
    "pairs": lambda session, value: session.update([("a", 1), ("v", value)]),
    "keywords": lambda session, value: session.update(a=1, v=value),
    "union": lambda session, value: session.__ior__({"a": 1, "v": value}),
}
REFUSED = [
    (object(), "a value of type object is not JSON (it is of type object)"),
    ({5: 1}, "the key 5 is of type int, JSON would turn it into a string (it is of type dict)"),
    (OrderedDict({None: 1}), "the key None is of type NoneType"),
    ({"a": object()}, "a value of type object is not JSON"),
    ([1, 2, frozenset()], "a value of type frozenset is not JSON"),
    ((1, 1j), "a value of type complex is not JSON"),
    ({1j}, "a value of type complex is not JSON"),
    (["a"] * 31 + [object()], "a value of type object is not JSON"),
    (bytearray(b"x"), "a value of type bytearray is not JSON"),
    (Exception, "a value of type type is not JSON"),
]


@pytest.mark.parametrize("assign", ASSIGNMENTS.values(), ids=ASSIGNMENTS)
@pytest.mark.parametrize(("value", "message"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_no_json_is_refused_where_it_is_assigned(value, message, assign):
    """A value that is seen not to be JSON raises at that line, with its key; the session is as it was."""
    browser = Browser(config_of())
    request = browser.begin()
    with pytest.raises(SessionValueError) as caught:
        assign(request.session, value)
    browser.end(request)

    assert f"session['v'] cannot be stored: {message}" in str(caught.value)
    assert caught.value.name == "v"
    assert dict(request.session) == {}
    assert request.set_cookie is None


@pytest.mark.parametrize("message", [object(), [object()], {1: "x"}])
def test_a_message_that_is_no_json_is_refused_where_it_is_flashed(message):
    """A flash message that is not JSON raises at that line, with its queue's key; the queue is as it was."""
    request = Request(config_of())
    request.session.flash("good", "errors")
    with pytest.raises(SessionValueError, match=r"^session\['_f_errors'\] cannot be stored"):
        request.session.flash(message, "errors")

    assert request.session.peek_flash("errors") == ["good"]


@pytest.mark.parametrize("key", [5, None, ("a",), b"a"])
def test_a_key_that_is_no_text_is_refused_where_it_is_assigned(key):
    """A key of the session that JSON would turn into a text raises at that line."""
    request = Request(config_of())
    with pytest.raises(SessionValueError, match="JSON would turn it into a string"):
        request.session[key] = 1

    assert dict(request.session) == {}


@pytest.mark.parametrize(
    "value", [[[object()]], {"a": {5: 1}}, ["a"] * 32 + [object()], {**dict.fromkeys(map(str, range(32))), 5: 1}]
)
def test_what_lies_deeper_is_refused_at_the_commit(value):
    """An assignment looks at the first items, and no deeper; the rest is refused when the session is written."""
    request = Request(config_of())
    request.session["v"] = value
    with pytest.raises(SessionValueError, match=r"^session\['v'\] cannot be stored"):
        request.commit()


class Own(JSONSerializer):
    """A serializer of an application's, which knows more than ours."""

    def dumps(self, record):
        return super().dumps({"all": repr(dict(record))})

    def loads(self, plain):
        return eval(super().loads(plain)["all"])


@pytest.mark.parametrize("serializer", ["pickle", Own()], ids=["pickle", "an own one"])
def test_an_applications_serializer_is_not_second_guessed(serializer):
    """What pickle, or a serializer of the application's own, may take is not judged by us."""
    browser = Browser(config_of(data_serializer=serializer))
    request = browser.write(v={5: 1j}, w=3j)
    request.session[5] = frozenset()
    request.session.flash(1j)
    browser.end(request)

    assert browser.read() == {"v": {5: 1j}, "w": 3j, 5: frozenset(), "_f_": [1j]}
