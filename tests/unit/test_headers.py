"""What a response with our cookie says to caches (RFC 9111), beside what the application has said."""

from __future__ import annotations

import pytest

from beaker_bridge.request.headers import guarded

NOW = 2_000_000_000
PAST, FUTURE = "Sun, 06 Nov 1994 08:49:37 GMT", "Tue, 19 Jan 2038 03:14:07 GMT"
GUARD = 'no-cache="Set-Cookie"'

#: What stands: no cache that heeds it hands out the cookie to others.
STANDS = [
    "no-store",
    "NO-STORE",
    "public, no-store",
    "private",
    "Private, max-age=600",
    "max-age=600,private",
    GUARD,
    'max-age=600, no-cache="X-Own, set-cookie"',
    'public, No-Cache="Set-Cookie"',
    'no-cache="Set-Cookie" , max-age=600,',
    "\t, private,, foo bar",
    'private="Set-Cookie", max-age=600',
    "no-cache=Set-Cookie",
]
#: What the application has said, what is said instead, and what of it has let caches share the response.
CHANGES = {
    "max-age=600": ("max-age=600, private", ["max-age"]),
    "Max-Age=600": ("Max-Age=600, private", ["max-age"]),
    "public": ("private", ["public"]),
    "PUBLIC, max-age=60": ("max-age=60, private", ["max-age", "public"]),
    "s-maxage=60": ("private", ["s-maxage"]),
    "max-age=0, s-maxage=60, must-revalidate": ("max-age=0, must-revalidate, private", ["s-maxage"]),
    "public, private": ("private", ["public"]),
    "private, s-maxage=60": ("private", ["s-maxage"]),
    "max-age=0": ("max-age=0, private", []),
    "max-age": ("max-age, private", []),
    "no-cache": ("no-cache, private", []),
    'no-cache="X-Own", max-age=9': ('no-cache="X-Own", max-age=9, private', ["max-age"]),
    'private="X-Own"': ("private", []),
    'no-cache="private, no-store", immutable': ('no-cache="private, no-store", immutable, private', []),
    '"private", max-age=60': ("max-age=60, private", ["max-age"]),
    "no-store, must-understand, max-age=60": ("no-store, must-understand, max-age=60, private", ["max-age"]),
    "must-revalidate": ("must-revalidate, private", []),
    "stale-while-revalidate=60": ("stale-while-revalidate=60, private", []),
    "x-privately": ("x-privately, private", []),
    'private="X-Own", private': ("private", []),
    'no-cache="X-Own", no-cache="Set-Cookie"': ('no-cache="X-Own", no-cache="Set-Cookie", private', []),
    'no-cache, no-cache="Set-Cookie"': ('no-cache, no-cache="Set-Cookie", private', []),
    # Malformed: what follows a directive, up to the comma, is none.
    "max-age=600 private": ("max-age=600, private", ["max-age"]),
    "max-age=600\tprivate": ("max-age=600, private", ["max-age"]),
    "max-age=600; private": ("max-age=600, private", ["max-age"]),
    "max-age=600;private": ("max-age=600, private", ["max-age"]),
    'max-age=600; no-cache="Set-Cookie"': ("max-age=600, private", ["max-age"]),
    "max-age = 600": ("max-age, private", ["max-age"]),
    "max-age=600 no-store": ("max-age=600, private", ["max-age"]),
    "public no-store": ("private", ["public"]),
    "no-store public": ("no-store, private", []),
    "no-store=1, public": ("no-store=1, private", ["public"]),
    "no-store;": ("no-store, private", []),
    "private max-age=600": ("private", []),
    "private=": ("private", []),
    "private\xa0": ("private", []),
    "no-cache='Set-Cookie'": ("no-cache='Set-Cookie', private", []),
    'foo no-cache="set-cookie", max-age=600': ("foo, max-age=600, private", ["max-age"]),
    'public, No-Cache = "Set-Cookie"': ("No-Cache, private", ["public"]),
    'no-cache="Set-Cookie" x': ('no-cache="Set-Cookie", private', []),
    'no-cache="Set-Cookie, private': ("no-cache, private", []),
    'x="a \\" private': ("x, private", []),
    'x="a, private, b': ("x, private", []),
    'x"a, private, b"': ("x, private", []),
}


def rules(headers, field="cache-control"):
    return [value for name, value in headers if name.lower() == field]


@pytest.mark.parametrize("name", ["Cache-Control", "cache-control", "CACHE-CONTROL"])
@pytest.mark.parametrize("rule", STANDS)
def test_a_rule_that_keeps_a_cookie_from_others_stands(rule, name):
    """It is the application's, and stays as it is written."""
    headers = [("Content-Type", "text/html"), (name, rule)]

    assert guarded(headers, NOW) == (headers, [])


@pytest.mark.parametrize(("rule", "expected"), CHANGES.items(), ids=CHANGES)
def test_any_other_rule_becomes_private(rule, expected):
    """What is for the user's own browser stays; what is for shared caches goes, and is told."""
    headers, shared = guarded([("Cache-Control", rule)], NOW)

    assert (rules(headers), shared) == ([expected[0]], expected[1])


def test_several_lines_are_one_rule():
    """Lines of one name are one list (RFC 9110, 5.3)."""
    headers = [("Cache-Control", "public"), ("ETag", "x"), ("cache-control", "max-age=60")]

    assert guarded(headers, NOW) == ([("ETag", "x"), ("Cache-Control", "max-age=60, private")], ["max-age", "public"])
    assert guarded([*headers, ("Cache-Control", "no-store")], NOW) == ([*headers, ("Cache-Control", "no-store")], [])
    assert rules(guarded([("Cache-Control", text) for text in ('x="a', "private", 'b"')], NOW)[0]) == [
        'x="a, private, b", private'
    ]


@pytest.mark.parametrize("rule", [[], [("Cache-Control", "")], [("Cache-Control", ' , "" ')]])
def test_without_a_rule_the_cookie_alone_is_kept_from_caches(rule):
    """A response that nobody has said anything of may be kept for a while, without its cookie."""
    headers, shared = guarded([("Pragma", "no-cache"), *rule], NOW)

    assert (headers, shared) == ([("Pragma", "no-cache"), ("Cache-Control", GUARD)], [])


@pytest.mark.parametrize(
    ("expires", "expected", "shared"),
    [(FUTURE, "private", ["Expires"]), (PAST, GUARD, []), ("0", GUARD, []), ("", GUARD, []), ("soon", GUARD, [])],
)
def test_expires_alone_is_a_rule_as_long_as_it_lies_ahead(expires, expected, shared):
    """``Expires`` lets shared caches keep a response; what is no date is over."""
    headers, found = guarded([("expires", expires)], NOW)

    assert (rules(headers), found) == ([expected], shared)
    assert ("expires", expires) in headers


@pytest.mark.parametrize(("rule", "shared"), [("max-age=0", []), ("must-revalidate", ["Expires"])])
def test_expires_counts_where_no_rule_has_an_age(rule, shared):
    """``max-age`` comes before it (RFC 9111, 5.3)."""
    headers, found = guarded([("Expires", FUTURE), ("Cache-Control", rule)], NOW)

    assert (rules(headers), found) == ([f"{rule}, private"], shared)


@pytest.mark.parametrize("field", ["CDN-Cache-Control", "Cloudflare-CDN-Cache-Control"])
def test_a_rule_for_one_cache_is_guarded_too(field):
    """A cache goes by the field that is aimed at it, and not by ``Cache-Control`` (RFC 9213)."""
    headers, shared = guarded([("Cache-Control", "no-store"), (field, "max-age=600")], NOW)

    assert rules(headers) == ["no-store"]
    assert rules(headers, field.lower()) == ["max-age=600, private"]
    assert shared == ["max-age"]
