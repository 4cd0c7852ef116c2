"""Each page of the sample site in Chromium: as readable in the dark and on a phone, and whole without scripts."""

from __future__ import annotations

import re

import pytest

from tests.live_site import Visitor, configured, serving

pytestmark = [pytest.mark.once, pytest.mark.slow]

IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"
    " Version/18.1 Mobile/15E148 Safari/604.1"
)
PASSWORD = "correct horse battery"
TOLD = "You were logged out elsewhere. Was that not you? Then log in and change your password."
#: The pages that need no login, and the status of each.
OPEN_PAGES = {"/": 200, "/login": 200, "/cart": 200, "/report": 200, "/overlap": 200, "/nowhere": 404, "/error": 500}

#: What is wrong with the page that is shown: text of too little contrast (WCAG 2.2, 1.4.3), what is cut or sticks out,
#: fields without a label, buttons and links without a name, headings that skip a level, landmarks that are missing.
FAULTS = """(() => {
  const faults = [];
  const light = color => {
    const [r, g, b] = color.map(part => {
      const c = part / 255;
      return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const parts = color => color.match(/[\\d.]+/g).map(Number);
  const behind = element => {
    for (; element; element = element.parentElement) {
      const color = parts(getComputedStyle(element).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const shown = [...document.body.querySelectorAll('*')].filter(
    element => element.checkVisibility() && element.type !== 'hidden' && element.name !== 'username');
  for (const element of shown) {
    const box = element.getBoundingClientRect();
    const texts = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (texts || element.matches('input')) {
      const [one, other] = [parts(getComputedStyle(element).color), behind(element)].map(light).sort((a, b) => b - a);
      if ((one + 0.05) / (other + 0.05) < 4.5) faults.push(['contrast', element.outerHTML]);
    }
    if (box.right > innerWidth || box.left < 0) faults.push(['outside', element.outerHTML]);
    const section = element.closest('section');
    if (section && box.right > section.getBoundingClientRect().right) faults.push(['sticks out', element.outerHTML]);
    if (element.matches('input') && !element.labels.length) faults.push(['label', element.outerHTML]);
    if (element.matches('a, button') && !(element.ariaLabel || element.innerText).trim())
      faults.push(['name', element.outerHTML]);
    if (element.matches('button, input') && box.height < 24) faults.push(['small', element.outerHTML]);
  }
  const levels = [...document.querySelectorAll('h1, h2, h3, h4')].map(heading => +heading.tagName[1]);
  if (levels.filter(level => level === 1).length !== 1 || levels[0] !== 1
      || levels.some((level, at) => at && level > levels[at - 1] + 1))
    faults.push(['headings', levels]);
  if (!document.documentElement.lang || !document.title) faults.push(['title', '']);
  for (const landmark of ['body > header', 'body > main'])
    if (document.querySelectorAll(landmark).length !== 1) faults.push(['landmark', landmark]);
  const landmarks = 'header, main, footer, script, a.skip';
  const outside = [...document.body.children].filter(element => !element.matches(landmarks));
  if (outside.length) faults.push(['outside of landmarks', outside.map(element => element.outerHTML)]);
  const ids = [...document.querySelectorAll('[id]')].map(element => element.id);
  if (new Set(ids).size !== ids.length) faults.push(['ids', ids]);
  for (const name of ['aria-labelledby', 'aria-describedby', 'for'])
    for (const element of document.querySelectorAll(`[${name}]`))
      if (!document.getElementById(element.getAttribute(name))) faults.push([name, element.outerHTML]);
  return faults;
})()"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return the sample site, as development.ini starts it."""
    with serving(configured(tmp_path_factory.mktemp("site"))) as running:
        yield running


def faults(tab, page):
    """Return what is wrong with the page that a tab shows: light and dark, on a phone and on a desk."""
    found = []
    for scheme in ("light", "dark"):
        for width in (400, 1200):
            tab.show_as(scheme, width)
            background = tab.run("getComputedStyle(document.body).backgroundColor")
            is_light = sum(map(int, re.findall(r"\d+", background)[:3])) > 382
            found += [(page, scheme, width, *fault) for fault in tab.run(FAULTS)]
            found += [(page, scheme, width, "scheme", background)] * (is_light != (scheme == "light"))
    return found


def test_the_open_pages(site, tab):
    """Each page is readable, has no error in the browser's console, and is kept by no cache if it knows its visitor."""
    found, statuses, problems, kept = [], {}, [], []
    for page, status in OPEN_PAGES.items():
        tab.open(site.url + page)
        found += faults(tab, page)
        statuses[page] = tab.status
        # The console has an entry for each page that is no success.
        problems += [] if status >= 400 else tab.problems()
        if tab.texts("nav"):
            (answer,) = tab.fetch(site.url + page)
            kept += [page] * ("no-store" not in answer["headers"].get("cache-control", ""))

    assert found == []
    assert statuses == OPEN_PAGES
    assert problems == []
    assert kept == []


def test_by_keyboard(site, tab):
    """The first stop of the tabulator leads past the navigation; a form is filled and sent without a mouse."""
    tab.open(f"{site.url}/cart")
    stops = tab.press_by_keyboard("a.skip")
    content = tab.run("document.activeElement.tagName")
    with tab.leaving():
        tab.press_by_keyboard("button[value=Tea]")
    said = tab.texts(".message")
    with tab.leaving():
        tab.press_by_keyboard("nav a[href='/login']")
    tab.type("#name", "Ada")
    with tab.leaving():
        tab.press_by_keyboard("main button")

    assert (stops, content) == (1, "MAIN")
    assert said == ["Tea added."]
    assert tab.texts(".user") == ["Ada"]


def test_without_scripts(site, tab):
    """Without scripts a visitor fills a cart and empties it, has the report made anew, and is told what needs one."""
    tab.without_scripts()
    tab.open("data:text/html,<title>without</title><script>document.title = 'with'</script>")
    title = tab.run("document.title")
    tab.open(f"{site.url}/cart")
    said = []
    for selector in ("button[value=Tea]", "button[value=Bread]", "button[aria-label='Remove one of Tea']"):
        tab.click(selector)
        said += tab.texts(".message")
    found, cart = faults(tab, "/cart"), tab.texts("main th")
    tab.open(f"{site.url}/report")
    tab.click("main form button")
    said += tab.texts(".message")
    tab.open(f"{site.url}/overlap")
    buttons = tab.texts("main button")

    assert title == "without"
    assert found == []
    assert said == ["Tea added.", "Bread added.", "Tea removed.", "The old report is thrown away."]
    assert cart == ["Bread"]
    assert tab.text("noscript .message").startswith("Only a script can send ten requests at once")
    assert set(buttons) <= {""}


def test_the_pages_of_a_user(site, tab):
    """Without scripts a user logs another browser out, changes the password, and is told at the end; each page is as
    readable in the dark and on a phone.
    """
    user, phone = "Ada <of the pages>", Visitor(site, IPHONE)
    found = []
    tab.without_scripts()
    tab.open(f"{site.url}/login")
    tab.type("#name", user)
    tab.click("main button")
    found += faults(tab, "home")
    phone.log_in(user)
    tab.click("nav a[href='/sessions']")
    both = tab.text(".logins")
    found += faults(tab, "sessions")
    tab.click(".logins li:nth-child(2) button")
    ended, alone = tab.text(".message"), tab.text(".logins")
    found += faults(tab, "ended")
    tab.click("a.button")
    found += faults(tab, "password")
    tab.type("#new", PASSWORD)
    tab.click("main button")
    changed = tab.text(".message")
    tab.click("a.button")
    tab.type("#current", "wrong horse battery")
    tab.type("#new", PASSWORD)
    tab.click("main button")
    refused = tab.text(".problem")
    found += faults(tab, "refused")
    phone.log_in(user, PASSWORD)
    phone.submit("/sessions", "/sessions/end-others")
    tab.open(f"{site.url}/sessions")
    told, heading = tab.text(".problem"), tab.text("h1")
    found += faults(tab, "told")

    assert found == []
    assert both.startswith("Chrome on Linux This browser")
    assert "Safari on an iPhone" in both
    assert ended == "Safari on an iPhone is logged out."
    assert "Safari" not in alone
    assert changed == "Your password is changed, and you are logged out everywhere else: there was no other browser."
    assert refused == "That is not your current password."
    assert (told, heading) == (TOLD, "Log in")
