"""Whether a page can be read: light and dark, on a phone and on a desk."""

from __future__ import annotations

import re

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
