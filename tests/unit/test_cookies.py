"""Our cookie: found in any header, verified, and written."""

import hmac
from datetime import datetime, timedelta, timezone

import pytest
from beaker.cookie import SimpleCookie
from beaker.session import SignedCookie
from hypothesis import example, given, settings
from hypothesis import strategies as st

from beaker_bridge import cookies
from beaker_bridge.cookies import HOST_ONLY, MAX_LIFETIME, CookieWriter, Signer, cookie_values, joined_values
from beaker_bridge.options.reader import given as given_options
from beaker_bridge.options.reader import read_options
from beaker_bridge.options.table import SessionOptions

NAME = "sid"
#: What stands before the cookie's value in base64 or hexadecimal.
VALUE = "0123456789abcdef+/=="
NOW = 1_700_000_000.5

latin1 = st.text(st.characters(max_codepoint=255))
examples = settings(deadline=None)

# -- Found -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "values"),
    [
        ("", []),
        ("sid=1", ["1"]),
        ("other=2; sid=1; third=3", ["1"]),
        ("sid=1;other=2", ["1"]),
        (" sid = 1 ", ["1"]),
        ("sid=", [""]),
        ("sid", []),
        ("sid; sid=1", ["1"]),
        ("SID=1; xsid=2; sidx=3; sid.=4", []),
        ("other=sid=1", []),
        ("sid=a=b==", ["a=b=="]),
        ('sid="1"', ["1"]),
        ("sid=1; sid=2;sid=1", ["1", "2", "1"]),
        (";;=;sid=1;=sid;", ["1"]),
        ("\tsid\t=\t1\t", ["1"]),
        ("sid\xa0=1; \x85sid=2; \x1csid=3; sid\x0b=4; \x0csid=5", []),
        ("sid=\xa01\x85; sid=2\xa0", ["\xa01\x85", "2\xa0"]),
    ],
)
def test_each_cookie_of_our_name_is_found(header, values):
    """Every value of our cookie comes, in the header's order and without quotes; nobody else's does."""
    assert list(cookie_values(header, NAME)) == values


SHOWN = f"{NAME}={VALUE}"


@pytest.mark.parametrize(
    ("header", "values"),
    [
        (f"lang=en, {SHOWN}", [VALUE]),
        (f"lang=en,{SHOWN}", [VALUE]),
        (f"lang=en ,\t{SHOWN}", [VALUE]),
        (f"lang=en,{SHOWN},tz=1", [VALUE]),
        (f"{SHOWN}, lang=en", [VALUE]),
        (f"{SHOWN},lang=en", [VALUE]),
        (f"{SHOWN}, lang=", [VALUE]),
        (f", {SHOWN},", [VALUE]),
        (f"{SHOWN}, lang=en; a=b", [VALUE]),
        (f"a=b; lang=en, {SHOWN}; c=d", [VALUE]),
        (f"lang=en, a=b; {SHOWN}, c=d", [VALUE]),
        (f'lang=en, {NAME}="{VALUE}", tz=1', [VALUE]),
        (f"{NAME}=1, {NAME}=2,{NAME}=3", ["1", "2", "3"]),
        (f'prefs={{"a": "b, c", "d": [1, 2]}}, {SHOWN}', [VALUE]),
        (f'q="a, \\", b", {SHOWN}', [VALUE]),
        (f'q="never closed; lang=en, {SHOWN}', [VALUE]),
        # Part of another application's value.
        (f'q="a, {SHOWN}"', []),
        (f'q="a, {SHOWN}', []),
        (f'q="a\\", {SHOWN}"', []),
        (f'q="a, {SHOWN}\\', []),
        (f'prefs={{"a": "b, {SHOWN}, c=d"}}', []),
        # No two pairs: a value with a comma in it is not what we signed.
        (f"{SHOWN},{VALUE}", []),
        (f"{SHOWN}, {VALUE[:-2]}", []),
        (f"{SHOWN},x;{SHOWN}, x", []),
        (f"lang=en,\xa0{SHOWN}", []),
        (f"lang=en, x{SHOWN}", []),
        (f"lang=en, {NAME}", []),
    ],
)
def test_lines_that_were_joined_with_a_comma(header, values):
    """In lines that HTTP/2 split and a server joined with a comma ours is found, and not in another's quotes."""
    assert joined_values(header, NAME) == values


@examples
@given(latin1)
@example('"\\' * 50)
@example(f'{NAME}="\\", {NAME}=' * 50)
def test_any_joined_header_at_all(header):
    """No header raises anything where its commas are looked at, and what is found stands in it."""
    assert all(value in header for value in joined_values(header, NAME))


@pytest.mark.parametrize(
    "others",
    [
        'prefs={"theme":"dark","list":[1,2]}',
        'json={"a": "b, c"}',
        "bad name=1",
        "bad[name]=1",
        "@=1",
        '"quoted"=1',
        'open="never closed',
        "naïve=café",
        "\xff\x80=\x00",
        "no equals sign",
        ",,,",
        "$Version=1",
        "expires=Thu, 01 Jan 1970",
    ],
)
def test_another_applications_cookie_never_hides_ours(others):
    """Whatever another application puts into the header, before or after ours, ours is found."""
    assert list(cookie_values(f"{others}; {NAME}=1", NAME)) == ["1"]
    assert list(cookie_values(f"{NAME}=1; {others}", NAME)) == ["1"]


@examples
@given(latin1)
@example(f"{NAME}=" * 3)
@example(f'{NAME}="')
def test_any_header_at_all(header):
    """No ``Cookie`` header raises anything, and what it holds is verified or not without raising either."""
    found = list(cookie_values(header, NAME))
    signer = Signer(["secret"])

    assert all(isinstance(value, str) for value in found)
    assert [signer.verify(value) for value in found] == [None] * len(found)


@examples
@given(latin1.filter(lambda text: ";" not in text), latin1.filter(lambda text: ";" not in text))
def test_ours_is_found_in_any_header(before, after):
    """Between any two other pairs, ours is found, and first where none of them has our name."""
    found = list(cookie_values(f"{before};{NAME}={VALUE};{after}", NAME))

    assert VALUE in found
    assert len(found) == 1 or NAME in before + after


@pytest.mark.parametrize("value", [VALUE, "a b", "x:y", "<>"])
def test_values_as_beaker_writes_them(value):
    """A value is read as Beaker's cookies write it: bare, or in quotes where it needs them."""
    written = SimpleCookie()
    written[NAME] = value
    pair = written.output(header="").strip()

    assert list(cookie_values(pair, NAME)) == [value]


# -- Verified ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", ["secret", "a secret with spaces, and more", "sëcret ☃", ""])
@pytest.mark.parametrize("value", ["0123456789abcdef" * 2, VALUE, "x"])
def test_beaker_verifies_our_signature(secret, value):
    """Beaker's ``SignedCookie`` accepts what we sign."""
    signed = Signer([secret]).sign(value)

    assert SignedCookie(secret, f"{NAME}={signed}")[NAME].value == value


@pytest.mark.parametrize("secret", ["secret", "a secret with spaces, and more", "sëcret ☃"])
@pytest.mark.parametrize("value", ["0123456789abcdef" * 2, VALUE, "x"])
def test_we_verify_beakers_signature(secret, value):
    """What Beaker's ``SignedCookie`` signs is accepted, as it stands in a header."""
    written = SignedCookie(secret)
    written[NAME] = value
    (signed,) = cookie_values(written.output(header=""), NAME)

    assert Signer([secret]).verify(signed) == (value, False)


@pytest.mark.parametrize(
    "forge",
    [
        lambda signed: signed[:-1],
        lambda signed: signed + "x",
        lambda signed: "0" + signed[1:] if signed[0] != "0" else "1" + signed[1:],
        lambda signed: signed.upper(),
        lambda signed: signed[:40],
        lambda signed: signed[40:],
        lambda signed: signed[:39],
        lambda signed: "",
        lambda signed: signed + "\xe9",
        lambda signed: "\xe9" + signed[1:],
    ],
    ids=[
        "cut",
        "longer",
        "changed",
        "case",
        "no value",
        "no signature",
        "short",
        "nothing",
        "latin-1",
        "latin-1 first",
    ],
)
def test_a_forged_cookie_is_refused(forge):
    """A cookie that is not what we signed has no value."""
    assert Signer(["secret"]).verify(forge(Signer(["secret"]).sign("0123456789abcdef"))) is None


@examples
@given(latin1, st.text(st.characters(codec="ascii"), min_size=1))
def test_only_the_secret_signs(secret, value):
    """Any value comes back under the secret that signed it, and under no other."""
    signed = Signer([secret]).sign(value)

    assert Signer([secret]).verify(signed) == (value, False)
    assert Signer([secret + "x"]).verify(signed) is None


def test_a_retired_secret_is_accepted_and_told():
    """A value that a retired secret signed is accepted, and is to be written anew; a removed secret opens nothing."""
    signed = {secret: Signer([secret]).sign("value") for secret in ("new", "old", "older", "removed")}
    signer = Signer(["new", "old", "older"])

    assert signer.verify(signed["new"]) == ("value", False)
    assert signer.verify(signed["old"]) == ("value", True)
    assert signer.verify(signed["older"]) == ("value", True)
    assert signer.verify(signed["removed"]) is None
    assert signer.sign("value") == signed["new"]


def test_without_a_secret_nothing_is_signed():
    """Without a secret, as Beaker has it, the cookie holds the value alone."""
    assert Signer([]).sign("value") == "value"
    assert Signer([]).verify("value") == ("value", False)


def test_signatures_are_compared_in_constant_time(monkeypatch):
    """The time of a comparison tells nobody how much of a forged signature was right."""
    compared, real = [], hmac.compare_digest

    def compare_digest(*both):
        compared.append(both)
        return real(*both)

    signatures = [Signer([secret]).sign("value")[:40] for secret in ("secret", "old")]
    forged = "0" * 40
    monkeypatch.setattr(cookies.hmac, "compare_digest", compare_digest)
    Signer(["secret", "old"]).verify(forged + "value")

    assert compared == [(signature, forged) for signature in signatures]


# -- Written -----------------------------------------------------------------------------------------


def attributes(header):
    """Return a cookie's first pair, and its attributes by their names in lower case."""
    first, *others = header.split("; ")
    return first, {name.lower(): value for name, _, value in (other.partition("=") for other in others)}


def written(*, https=True, now=NOW, value=VALUE, lifetime=None, domain=None, path=None, **options):
    """Return what is written under some options."""
    writer = CookieWriter(read_options(given_options({"key": NAME, **options})), Signer([]))
    return attributes(writer.write(value, https=https, now=now, lifetime=lifetime, domain=domain, path=path))


def test_a_cookie_by_default():
    """By default the cookie ends with the browser, and is HttpOnly, SameSite=Lax and, on https, Secure."""
    assert written() == (f"{NAME}={VALUE}", {"path": "/", "httponly": "", "samesite": "Lax", "secure": ""})


@pytest.mark.parametrize(
    ("secure", "https", "is_secure"),
    [
        ("auto", True, True),
        ("auto", False, False),
        (True, True, True),
        (True, False, True),
        (False, True, False),
        (False, False, False),
    ],
)
def test_secure(secure, https, is_secure):
    """``auto`` marks the cookie Secure where the request came over https; true and false always hold."""
    for header in (written(secure=secure, https=https)[1], deleted(secure=secure, https=https)[1]):
        assert ("secure" in header) is is_secure


@pytest.mark.parametrize(
    ("option", "attribute"),
    [("Lax", "Lax"), ("strict", "Strict"), ("None", "None"), (None, None), (False, None), ("false", None), ("", None)],
)
@pytest.mark.parametrize("secure", [True, "auto"])
def test_samesite(option, attribute, secure):
    """The cookie, and the one that deletes it, have the SameSite of the option, or none."""
    if option == "None":
        secure = True
    lifetimes = (written(samesite=option, secure=secure, lifetime=seconds) for seconds in (None, 60))

    for _, header in (*lifetimes, deleted(samesite=option, secure=secure)):
        assert header.get("samesite") == attribute


def test_httponly_can_be_left_out():
    """A site whose JavaScript reads the cookie can say so."""
    assert "httponly" not in written(httponly=False)[1]


@pytest.mark.parametrize("cookie_expires", [True, False, 60])
def test_partitioned(cookie_expires):
    """A cookie that is Partitioned says so however long it lives, and when it is deleted."""
    options = {"partitioned": "true", "secure": True, "samesite": "None", "cookie_expires": cookie_expires}

    assert written(**options)[1]["partitioned"] == ""
    assert deleted(**options)[1]["partitioned"] == ""
    assert "partitioned" not in written(secure=True)[1]


@pytest.mark.parametrize("name", ["my:app", ":", "a$!#%&'*+-.^_`|~:"])
def test_a_name_that_beaker_takes(name):
    """A name that is no token, but that Beaker and browsers take, is sent, and found as Beaker finds it."""
    pair, _ = written(key=name, value="1")

    assert pair == written(key=name, value="1", cookie_expires=60)[0] == f"{name}=1"
    assert deleted(key=name)[0] == f"{name}="
    assert SimpleCookie(pair)[name].value == "1"
    assert cookie_values(f"other=2; {pair}", name) == joined_values(f"other=2, {pair}", name) == ["1"]


def test_domain_and_path():
    """Domain and path are the options', unless the session has its own."""
    options = {"cookie_domain": ".example.org", "cookie_path": "/app"}
    _, by_option = written(**options)
    _, by_session = written(**options, domain="www.example.org", path="/other")

    assert (by_option["domain"], by_option["path"]) == (".example.org", "/app")
    assert (by_session["domain"], by_session["path"]) == ("www.example.org", "/other")
    assert "domain" not in written(**options, domain=HOST_ONLY)[1]
    assert "domain" not in deleted(**options, domain=HOST_ONLY)[1]
    assert "domain" not in written()[1]


def test_what_an_application_sets_cannot_break_out():
    """A domain or path that an application took from a request adds no attribute and no header."""
    _, header = written(domain="e.org; Secure\r\nX: y", path="/☃,; HttpOnly", httponly=False, https=False)

    assert set(header) == {"domain", "path", "samesite"}
    assert not {"\r", "\n", ";", ","} & set(header["domain"] + header["path"])


@pytest.mark.parametrize(
    ("option", "max_age", "expires"),
    [
        (3600, 3600, "Tue, 14-Nov-2023 23:13:20 GMT"),
        ("3600", 3600, "Tue, 14-Nov-2023 23:13:20 GMT"),
        (timedelta(hours=1), 3600, "Tue, 14-Nov-2023 23:13:20 GMT"),
        (False, 0x7FFFFFFF - 1_700_000_001, "Tue, 19-Jan-2038 03:14:06 GMT"),
        (datetime(2023, 11, 14, 22, 13, 30), 9, "Tue, 14-Nov-2023 22:13:29 GMT"),  # noqa: DTZ001 -- as Beaker takes it
        (datetime(2023, 11, 14, 23, 13, 30, tzinfo=timezone(timedelta(hours=1))), 9, "Tue, 14-Nov-2023 22:13:29 GMT"),
        (datetime(2023, 11, 14, tzinfo=timezone.utc), 0, "Tue, 14-Nov-2023 22:13:20 GMT"),
        (datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone.utc), MAX_LIFETIME, "Mon, 03-Dec-2091 01:27:27 GMT"),
    ],
    ids=["seconds", "a string", "timedelta", "never", "naive", "aware", "past", "far"],
)
def test_cookie_expires(option, max_age, expires):
    """The cookie lives as long as ``cookie_expires`` says; a time without a zone is UTC, as Beaker writes it."""
    _, header = written(cookie_expires=option)

    assert (header["max-age"], header["expires"]) == (str(max_age), expires)


@pytest.mark.parametrize(
    "now", [0x7FFFFFFF - 400 * 24 * 3600 + 1, 0x7FFFFFFF - 1, 0x7FFFFFFF, 0x7FFFFFFF + 1, 2**32, 10**11]
)
def test_never_stays_never(now):
    """Around the end of 32 bits of seconds, a cookie that never ends lives as long as browsers keep any."""
    _, header = written(cookie_expires=False, now=now)

    assert header["max-age"] == str(400 * 24 * 3600)
    assert header["expires"] == (datetime.fromtimestamp(now, timezone.utc) + timedelta(days=400)).strftime(
        "%a, %d-%b-%Y %T GMT"
    )


@pytest.mark.parametrize("option", [False, 3600, datetime(9999, 1, 1, tzinfo=timezone.utc)])
@pytest.mark.parametrize("now", [0, 0x7FFFFFFF, 0xFFFFFFFF, 10**10])
def test_a_lifetime_is_one_at_any_time(option, now):
    """Whatever the clock says, a cookie that has a lifetime is no deletion."""
    assert int(written(cookie_expires=option, now=now)[1]["max-age"]) > 0


def test_until_the_browser_closes():
    """With ``cookie_expires = true`` the browser is told no time."""
    assert not {"max-age", "expires"} & set(written(cookie_expires="true")[1])


@pytest.mark.parametrize("option", [True, False, 60])
@pytest.mark.parametrize(("lifetime", "max_age"), [(7200, 7200), (10**12, MAX_LIFETIME)])
def test_a_sessions_own_lifetime(option, lifetime, max_age):
    """A session that has its own lifetime gets it, whatever the option says, in bounds that a browser takes."""
    assert written(cookie_expires=option, lifetime=lifetime)[1]["max-age"] == str(max_age)


def deleted(*, https=True, domain=None, path=None, **options):
    """Return the cookie that makes the browser forget ours."""
    writer = CookieWriter(read_options(given_options({"key": NAME, **options})), Signer([]))
    return attributes(writer.delete(https=https, domain=domain, path=path))


def test_delete():
    """A cookie is forgotten under the domain and path that it was written for, with no value left."""
    first, header = deleted(cookie_domain=".example.org", path="/app", cookie_expires=3600)

    assert first == f"{NAME}="
    assert header["max-age"] == "0"
    assert header["expires"] == "Thu, 01-Jan-1970 00:00:00 GMT"
    assert (header["domain"], header["path"]) == (".example.org", "/app")
    assert {"secure", "httponly", "samesite"} <= set(header)


def test_what_is_written_is_read():
    """A signed value that we write is found and verified when the browser sends it back."""
    signer = Signer(["secret"])
    header = CookieWriter(SessionOptions(key=NAME), signer).write(VALUE, https=False, now=NOW)
    (value,) = cookie_values(header.partition(";")[0], NAME)

    assert signer.verify(value) == (VALUE, False)


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
@pytest.mark.parametrize("length", [0, 1, 32, 63, 64, 65, 127, 128, 129, 300])
def test_a_signature_is_the_hmac_of_rfc_2104(algorithm, length):
    """A signature is what Python's ``hmac`` makes, whatever the secret's length: a block, less, or more."""
    secret = "\u00fc" * (length // 2) + "k" * (length % 2)
    signed = Signer([secret], [algorithm]).sign("a" * 32)

    assert signed == hmac.new(secret.encode(), b"a" * 32, algorithm).hexdigest() + "a" * 32
