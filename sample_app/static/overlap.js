// The page /overlap: sends real requests that overlap, reads the sessions back, and draws what is in them.

const page = document.querySelector("#overlap");
/** How many requests a browser sends to one server at a time, over HTTP/1.1. */
const LANES = 6;
/** What a timeline shows at least, in milliseconds. */
const SPAN = 2800;
/** How long to wait for an answer, in milliseconds. */
const PATIENCE = 20000;
/** How long after the slow page the logout begins, in milliseconds. */
const MEANWHILE = 700;
const still = matchMedia("(prefers-reduced-motion: reduce)");

// -- Requests -----------------------------------------------------------------------------------------

/** An answer that is no success; without a status, no answer at all. */
class Failure extends Error {
  constructor(status) {
    super(status ? `The server answered ${status}.` : "The server did not answer.");
    this.status = status;
  }

  get advice() {
    if (this.status === 400) return "This page may be too old: load it again.";
    if (this.status === 503) return "It is busy, or its store is down: try again in a moment.";
    return "Try again in a moment.";
  }
}

async function call(path, options) {
  let answer;
  try {
    answer = await fetch(`${page.dataset.lab}/${path}`, { ...options, signal: AbortSignal.timeout(PATIENCE) });
  } catch {
    throw new Failure();
  }
  if (!answer.ok) throw new Failure(answer.status);
  return answer.json();
}

const read = (path) => call(path, { cache: "no-store" });

const post = (path, fields = {}) =>
  call(path, {
    method: "POST",
    headers: { "X-CSRF-Token": page.dataset.token },
    body: new URLSearchParams(fields),
  });

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// -- A timeline ---------------------------------------------------------------------------------------

/** Draws requests as bars, from when they were sent until they were answered. */
class Timeline {
  constructor(list) {
    this.rows = new Map([...list.children].map((row) => [row.dataset.row, { row }]));
  }

  begin() {
    this.origin = performance.now();
    this.going = true;
    for (const each of this.rows.values()) {
      each.from = each.to = undefined;
      this.mark(each, "waiting", "");
    }
    this.draw();
    if (!still.matches) requestAnimationFrame(() => this.tick());
  }

  end() {
    this.going = false;
    this.draw();
  }

  /** Draw a request while it is under way, and return its answer. */
  async run(name, request) {
    const each = this.rows.get(name);
    each.from = performance.now() - this.origin;
    this.mark(each, "running", "…");
    this.draw();
    try {
      const answer = await request();
      this.mark(each, "done", "200 OK");
      return answer;
    } catch (failure) {
      this.mark(each, "failed", failure.status ? `${failure.status}` : "none");
      throw failure;
    } finally {
      each.to = performance.now() - this.origin;
      this.draw();
    }
  }

  mark({ row }, state, text) {
    row.dataset.state = state;
    row.querySelector(".answer").textContent = text;
  }

  tick() {
    if (!this.going) return;
    this.draw();
    requestAnimationFrame(() => this.tick());
  }

  draw() {
    const now = performance.now() - this.origin;
    const span = Math.max(SPAN, ...[...this.rows.values()].map(({ from, to }) => (from === undefined ? 0 : (to ?? now))));
    for (const { row, from, to } of this.rows.values()) {
      const bar = row.querySelector(".bar");
      bar.style.left = `${(100 * (from ?? 0)) / span}%`;
      bar.style.width = from === undefined ? "0" : `${(100 * ((to ?? now) - from)) / span}%`;
    }
  }
}

/** Return how many of some requests had the session in hand at the same moment, by the server's clock. */
function mostAtOnce(times) {
  return Math.max(
    ...times.map(({ loaded }) => times.filter((other) => other.loaded <= loaded && loaded < other.changed).length),
  );
}

// -- A demonstration ----------------------------------------------------------------------------------

/** Several demonstrations would change the same sessions: one runs at a time, in all tabs. */
function alone(run) {
  if (!navigator.locks) return run();
  return navigator.locks.request("overlap", { ifAvailable: true }, (lock) => {
    if (!lock) throw new Error("A demonstration is running in another tab.");
    return run();
  });
}

const buttons = [];
let busy = false;

/**
 * Run a demonstration when its button is pressed.
 *
 * @param id the id of its section.
 * @param begin draws it as it is before it runs.
 * @param run sends the requests, draws what comes of them, and returns a sentence on it.
 */
function demonstration(id, begin, run) {
  const section = document.getElementById(id);
  const button = section.querySelector("button");
  const status = section.querySelector(".status");
  const timeline = new Timeline(section.querySelector(".timeline"));
  const label = button.textContent;

  async function demonstrate() {
    section.dataset.state = "running";
    status.textContent = "Requests are under way.";
    begin(section);
    timeline.begin();
    try {
      status.textContent = await run(section, timeline);
      section.dataset.state = "done";
    } finally {
      timeline.end();
    }
  }

  button.addEventListener("click", async () => {
    if (busy) return;
    busy = true;
    for (const each of buttons) each.setAttribute("aria-disabled", "true");
    button.textContent = "Running …";
    try {
      await alone(demonstrate);
    } catch (error) {
      section.dataset.state = "failed";
      status.textContent = [error.message, error.advice].filter(Boolean).join(" ");
    } finally {
      busy = false;
      for (const each of buttons) each.removeAttribute("aria-disabled");
      button.textContent = label === button.textContent ? label : "Run again";
    }
  });
  buttons.push(button);
  button.hidden = false;
}

const waysOf = (section) => [...section.querySelectorAll(".way")];

function judge(way, isGood, text) {
  const verdict = way.querySelector("[data-verdict]");
  way.dataset.result = isGood ? "good" : "bad";
  verdict.textContent = text;
}

// -- Ten requests -------------------------------------------------------------------------------------

const STATES = {
  waiting: "not sent",
  running: "under way",
  kept: "kept",
  lost: "lost",
  failed: "failed",
};

function mark(tile, state) {
  tile.dataset.state = state;
  tile.querySelector(".state").textContent = STATES[state];
}

const tilesOf = (section, number) => section.querySelectorAll(`[data-number="${number}"]`);

/** Draw which of the answered writes are in the sessions. */
function drawCarts(section, answered, stored) {
  for (const way of waysOf(section)) {
    const kept = new Set(stored[way.dataset.way]);
    for (const number of answered) {
      mark(way.querySelector(`[data-number="${number}"]`), kept.has(number) ? "kept" : "lost");
    }
    way.querySelector("[data-count]").textContent = answered.filter((number) => kept.has(number)).length;
  }
}

function clearCarts(section) {
  for (const tile of section.querySelectorAll("[data-number]")) mark(tile, "waiting");
  for (const way of waysOf(section)) {
    delete way.dataset.result;
    way.querySelector("[data-count]").textContent = "0";
    way.querySelector("[data-verdict]").textContent = "";
  }
}

async function sendTen(section, timeline) {
  await post("begin");
  const numbers = [...section.querySelectorAll(".timeline > li")].map((row) => Number(row.dataset.row));
  const waiting = [...numbers];
  const answered = [];
  const times = [];
  let asked = 0;
  let drawn = 0;
  let failure;

  async function look() {
    const turn = ++asked;
    const known = [...answered];
    const stored = await read("stored");
    // An answer that was overtaken by a later one is old.
    if (turn > drawn) {
      drawn = turn;
      drawCarts(section, known, stored);
    }
  }

  async function lane() {
    while (waiting.length) {
      const number = waiting.shift();
      for (const tile of tilesOf(section, number)) mark(tile, "running");
      try {
        times.push(await timeline.run(String(number), () => post("write", { number })));
        answered.push(number);
        await look();
      } catch (error) {
        waiting.length = 0;
        failure ??= error;
        if (!answered.includes(number)) for (const tile of tilesOf(section, number)) mark(tile, "failed");
      }
    }
  }

  await Promise.all(Array.from({ length: LANES }, lane));
  if (failure) throw failure;
  await look();
  const counts = waysOf(section).map((way) => {
    const count = Number(way.querySelector("[data-count]").textContent);
    const lost = numbers.length - count;
    judge(way, !lost, lost ? `${lost} lost, and each was answered 200 OK` : "all kept, merged into one cart");
    return count;
  });
  return `Beaker kept ${counts[0]} of ${numbers.length}, beaker_bridge ${counts[1]} of ${numbers.length}. Up to ${mostAtOnce(times)} requests were under way at once.`;
}

demonstration("ten", clearCarts, sendTen);

// -- Copies of a cookie -------------------------------------------------------------------------------

const OPENED = { login: "Ada’s session", cart: "her cart", nothing: "no session" };

function clearCopies(section) {
  for (const cookie of section.querySelectorAll("[data-cookie]")) {
    cookie.dataset.state = "waiting";
    cookie.querySelector("dd").textContent = "–";
  }
  for (const way of waysOf(section)) {
    delete way.dataset.result;
    way.querySelector("[data-verdict]").textContent = "";
  }
}

/** Try the copies of the cookies at some moment, and draw what they open; return how many open something, in each way. */
async function tryCopies(section, moment) {
  const copies = await read("copies");
  const open = {};
  for (const way of waysOf(section)) {
    open[way.dataset.way] = 0;
    for (const cookie of way.querySelectorAll(`[data-moment="${moment}"]`)) {
      const opened = copies[cookie.dataset.cookie][way.dataset.way];
      cookie.dataset.state = opened;
      cookie.querySelector("dd").textContent = OPENED[opened];
      if (opened !== "nothing") open[way.dataset.way] += 1;
    }
  }
  return open;
}

// -- A logout while a slow request is under way -------------------------------------------------------

async function logOutMeanwhile(section, timeline) {
  await post("begin");
  await timeline.run("login", () => post("login", { tab: "tab1" }));
  await tryCopies(section, "login");
  const slow = timeline.run("slow", () => post("write", { number: 1 }));
  const logout = pause(MEANWHILE).then(async () => {
    const answer = await timeline.run("logout", () => post("logout"));
    await tryCopies(section, "logout");
    return answer;
  });
  const [written, loggedOut] = await Promise.all([slow, logout]);
  const open = await tryCopies(section, "slow");
  for (const way of waysOf(section)) {
    const isOpen = open[way.dataset.way] > 0;
    judge(way, !isOpen, isOpen ? "the slow page has brought it back" : "the logout holds");
  }
  if (written.loaded >= loggedOut.changed || loggedOut.changed >= written.changed) {
    return "The requests did not overlap this time: run it again.";
  }
  const after = (way) => (open[way] ? "opens her session again" : "opens no session");
  return `When the slow page has ended, the copy ${after("beaker")} with Beaker, and ${after("ours")} with beaker_bridge.`;
}

demonstration("logout", clearCopies, logOutMeanwhile);

// -- A login in two tabs ------------------------------------------------------------------------------

async function logInTwice(section, timeline) {
  await post("begin");
  const times = await Promise.all(["tab1", "tab2"].map((tab) => timeline.run(tab, () => post("login", { tab }))));
  await timeline.run("logout", () => post("logout_everywhere"));
  const open = await tryCopies(section, "logout");
  for (const way of waysOf(section)) {
    const count = open[way.dataset.way];
    judge(way, !count, count ? `${count} of 3 cookies are still open` : "all three are closed");
  }
  if (mostAtOnce(times) < 2) return "The requests did not overlap this time: run it again.";
  return `After the logout, ${open.beaker} of 3 cookies open something with Beaker, ${open.ours} with beaker_bridge.`;
}

demonstration("login", clearCopies, logInTwice);
