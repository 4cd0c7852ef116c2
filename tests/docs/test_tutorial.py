"""The tutorial's steps, as a reader goes through them: each file as it is printed, with a real site and a browser."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from threading import Thread

import pytest

from tests.docs.reader import Front, Project, Tab, changed_lines, state_after, written
from tests.machine import program
from tests.servers import POLL, wait_until

pytestmark = [pytest.mark.once, pytest.mark.slow]
PAGES = {page.name[0]: page for page in written()}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The reader's project, installed."""
    made = Project(tmp_path_factory.mktemp("tutorial"))
    made.make()
    return made


@pytest.fixture
def at(project):
    """Return a function that goes on to the end of a page, and starts the site there."""
    started = []

    def go_to(page):
        project.go_to(page)
        serving = project.serving()
        started.append(serving)
        serving.__enter__()
        return project

    yield go_to
    for serving in started:
        serving.__exit__(None, None, None)


def sees(tab, page, *texts):
    """Say that the reader sees on the site what the page says is seen."""
    for text in texts:
        assert f'"{text}"' in PAGES[page].words, text
        assert text in tab.text, tab.text


def log_in(tab, password="correct horse"):
    tab.open("/login")
    tab.fill_in(Name="ann", Password=password)
    tab.press("Log in")


# -- The pages ---------------------------------------------------------------------------------------


def test_changed_lines_are_highlighted():
    """In a file that the reader has already, each new or different line is highlighted, and no other one."""
    before: dict[str, str] = {}
    found, right = {}, {}
    for page in written():
        for path, block in page.files():
            if path in before:
                name = block.options["name"]
                found[name] = block.options.get("emphasize-lines")
                right[name] = changed_lines(before[path], block.text)
            else:
                assert "emphasize-lines" not in block.options
            before[path] = block.text
        before = state_after(page.name)

    assert found == right


def test_a_step_is_short():
    """No file has more lines than a screen, so a step is seen at a glance."""
    assert max(block.text.count("\n") for page in written() for _, block in page.files()) <= 50


def test_every_page_has_its_test():
    """No step escapes the tests."""
    assert {f"test_page_{page.name}" for page in written()} <= globals().keys()


@pytest.mark.ci
def test_the_site_starts_after_each_file(project):
    """A page's files are in an order in which ``--reload`` finds no fault, whenever one of them is saved."""
    project.go_to("1")

    assert [project.starts_after_each(page.name) for page in written()] == [""] * len(PAGES)


def test_page_1_visits(project):
    """The page counts each visitor's visits, also over a restart; and a file that is saved restarts the site."""
    project.go_to("1")
    with project.serving():
        tab = Tab(project)
        tab.open("/")
        sees(tab, "1", "Visit 1")
        tab.reload()
        sees(tab, "1", "Visit 2")
        private = Tab(project)
        private.open("/")
        sees(private, "1", "Visit 1")
    with project.serving(reloading=True):
        tab.reload()
        sees(tab, "1", "Visit 3")
        home = project.folder / "mysite/views.py"
        home.write_text(home.read_text().replace('["visits"]}', '["visits"] * 100}'))
        wait_until(lambda: has_reloaded(tab, home))

    assert tab.cookie().name == "mysite.session"


def has_reloaded(tab, file):
    """Say whether a change in a file is seen; the file is saved again, as it may have changed before it was watched."""
    file.touch()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with suppress(OSError):
            tab.reload()
            if "00" in tab.text:
                return True
        time.sleep(POLL)
    return False


def test_page_2_messages(at):
    """The note is saved and shown as it was written, its message is shown once, a form without a token is refused."""
    project = at("2")
    tab = Tab(project)
    tab.open("/")
    tab.fill_in(A="Buy milk")
    tab.press("Save")
    sees(tab, "2", "Your note is saved.")
    tab.reload()
    kept, text = tab.value("A note to yourself"), tab.text
    (hostile,) = re.findall(r"Save ``(.+?)`` as a note", PAGES["2"].words)
    tab.fill_in(A=hostile)
    tab.press("Save")
    program("curl")
    forged = project.shell(PAGES["2"].blocks["messages-forged"].text)

    assert (kept, "Your note" in text) == ("Buy milk", False)
    assert tab.value("A note to yourself") == hostile
    assert "Bad CSRF token received" in forged.stdout


def test_page_3_login(at):
    """Who asks for the account logs in first, and comes back to it under a new id, with what was in the session."""
    tab = Tab(at("3"))
    tab.open("/")
    tab.fill_in(A="Buy milk")
    tab.press("Save")
    before = tab.cookie().value
    tab.choose("Account")
    sees(tab, "3", "Please log in first.")
    tab.fill_in(Name="ann", Password="wrong")
    tab.press("Log in")
    sees(tab, "3", "That name or password is wrong.")
    tab.fill_in(Name="nobody", Password="correct horse")
    tab.press("Log in")
    sees(tab, "3", "That name or password is wrong.")
    tab.fill_in(Name="ann", Password="correct horse")
    tab.press("Log in")
    sees(tab, "3", "Welcome, ann.", "Account of ann")
    caching = tab.headers["Cache-Control"]
    after = tab.cookie().value
    tab.choose("Home")

    assert "no-store" in caching
    assert before != after
    assert tab.value("A note to yourself") == "Buy milk"


def test_page_4_cart(project):
    """The cart is changed in place; of two requests that overlap, as the slow view has them, neither loses its item.

    What is not sold is not added.
    """
    project.go_to("4")
    with project.serving():
        tab = Tab(project)
        tab.open("/")
        tab.choose("Cart")
        tab.press("Add apple")
        tab.press("Add bread")
        sees(tab, "4", "Cart (2)")
        tab.page.find("button", value="apple")["value"] = "gold"
        tab.press("Add apple")
        refused = tab.status
        tab.open("/cart")
    project.write({"mysite/cart.py": PAGES["4"].blocks["cart-slow"].text})
    with project.serving():
        other = Tab(project, tab)
        for each in (tab, other):
            each.open("/cart")
        clicks = [Thread(target=tab.press, args=["Add cheese"]), Thread(target=other.press, args=["Add apple"])]
        for click in clicks:
            click.start()
        for click in clicks:
            click.join()
        other.reload()
        sees(other, "4", "Cart (4)")

    assert refused == 400
    assert [each.status for each in (tab, other)] == [200, 200]


def test_page_5_logout(at):
    """A logout ends the session in all tabs, and its data is gone from the store."""
    project = at("5")
    tab = Tab(project)
    tab.open("/")
    tab.fill_in(A="Buy milk")
    tab.press("Save")
    log_in(tab)
    other = Tab(project, tab)
    other.open("/account")
    tab.press("Log out")
    sees(tab, "5", "You are logged out.", "Visit 1", "Cart (0)")
    note = tab.value("A note to yourself")
    other.reload()
    sees(other, "5", "Please log in first.")
    stored = b"".join(path.read_bytes() for path in (project.folder / "data").rglob("*.cache"))

    assert note == ""
    assert b"milk" not in stored


def test_page_6_everywhere(project):
    """Ann sees her two browsers, also one that logged in before there were notes, and logs it out, which is told so."""
    home, library = Tab(project), Tab(project, user_agent="Mozilla/5.0 Chrome/140.0 Safari/537.36")
    project.go_to("5")
    with project.serving():
        log_in(library)
    project.write(state_after("6"))
    with project.serving():
        log_in(home)
        home.choose("Account")
        sees(home, "6", "Where you are logged in", "(this browser)")
        before = logins(home)
        log_in(library)
        home.reload()
        after = logins(home)
        home.press("Log out everywhere else")
        sees(home, "6", "Other browsers that are logged out: 1.")
        library.choose("Home")
        sees(library, "6", "You were logged out elsewhere.")
        library.reload()
        home.reload()

    assert (before, after) == (["A browser", "Firefox"], ["Chrome", "Firefox"])
    assert "logged out" not in library.text
    assert "Account of ann" in home.text


def logins(tab):
    return sorted(each.get_text().split(",")[0].strip() for each in tab.page.find_all("li"))


@pytest.fixture
def production(project):
    """The project in production, with a secret as the page makes it."""
    project.go_to("7")
    blocks = PAGES["7"].blocks
    secret = project.shell(blocks["production-secret"].text).stdout.strip()
    project.secret = secret
    project.write({"production.ini": blocks["production-ini"].text.replace("PUT-IT-HERE", secret)})
    project.shell(blocks["production-mode"].text)
    return project


def check(project, ini):
    command = PAGES["7"].blocks["production-check"].text.splitlines()[1]
    return project.shell(command.replace("production.ini", ini))


def test_page_7_production(production, redis_server):
    """The settings for production have no risk, with files and with Redis; those for development have one."""
    blocks = PAGES["7"].blocks
    files = check(production, "production.ini")
    development = check(production, "development.ini")
    written_ = (production.folder / "production.ini").read_text()
    section = blocks["production-redis"].text.replace("PUT-IT-HERE", production.secret)
    section = section.replace("redis://localhost:6379/0", redis_server.url)
    before, _, after = written_.partition("[filter:session]")
    production.write({"production.ini": before + section + "\n[server:main]" + after.partition("[server:main]")[2]})
    redis = check(production, "production.ini")
    end = blocks["production-checked"].text

    assert re.fullmatch("[0-9a-f]{64}", production.secret)
    assert (production.folder / "production.ini").stat().st_mode & 0o777 == 0o600
    assert [(each.returncode, each.stdout.strip()[-len(end) + 1 :] + "\n") for each in (files, redis)] == [(0, end)] * 2
    assert "0 wrong, 1 risky" in development.stdout


def test_page_7_production_behind_nginx(production, tmp_path, certificate):
    """Behind nginx the whole site works over https, and its cookie is as the page has it."""
    with Front(tmp_path, production, certificate) as front, production.serving(line="production-start"):
        tab = Tab(front)
        tab.open("/")
        log_in(tab)
        tab.choose("Cart")
        tab.press("Add bread")
        tab.choose("Account")
        tab.press("Log out everywhere else")
        cookie = tab.cookie()

    assert "Account of ann" in tab.text
    assert (cookie.name, cookie.secure, cookie.domain_specified) == ("__Host-mysite", True, False)
    assert f"``{cookie.name}``" in PAGES["7"].words
    assert {'"Secure"', '"HttpOnly"', '"Lax"'} <= set(re.findall('"[A-Za-z]+"', PAGES["7"].words))
    assert (cookie.has_nonstandard_attr("HttpOnly"), cookie.get_nonstandard_attr("SameSite")) == (True, "Lax")
