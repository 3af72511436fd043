// What the page shows comes from the service; all text goes in as text, never as markup.

const ASK_MS = 200; // five requests a second show a rolling update replica by replica
const ASK_AWAY_MS = 1000;
const ASK_TIMEOUT_MS = 2000;
const SHOWN = 60;
const RECENT = 10;
const MARKS = 4; // colours and patterns of the strip, in style.css
const SPEAK_MS = 5000; // a screen reader hears one summary at most in that time

const $ = (id) => document.getElementById(id);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const count = (number, one) => `${number.toLocaleString("en")} ${one}${number === 1 ? "" : "s"}`;
const clock = (date) => date.toLocaleTimeString("en-GB");
const still = matchMedia("(prefers-reduced-motion: reduce)");

// An element; attributes that are null are left out.
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value != null) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// A release is named by content: `sha256:` and 64 digits, with a suffix where only its settings differ.
function short(release) {
  const [name, settings] = release.replace(/^sha256:/, "").split("+");
  return (/^[0-9a-f]{20,}$/.test(name) ? name.slice(0, 12) : name) + (settings ? `+${settings.slice(0, 4)}` : "");
}

// Nothing is asked while nobody looks.
async function seen() {
  while (document.hidden) {
    await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
  }
}

// --- what a screen reader hears ---

const unsaid = new Map(); // what about → the last that is to be said about it

function announce(about, text) {
  if (unsaid.size === 0) {
    setTimeout(() => {
      const texts = [...unsaid.values()];
      $("announcements").textContent = texts.length > 3 ? `${texts.length} changes.` : texts.join(" ");
      unsaid.clear();
    }, SPEAK_MS);
  }
  unsaid.set(about, text);
}

// --- who answers ---

const answers = []; // the last SHOWN, oldest first: {release, failure, ms, at}
const marks = new Map(); // release → its place among the colours
const total = { asked: 0, failed: 0, since: new Date(), last: null };
let heard = ""; // what was announced last

async function ask() {
  const begun = performance.now();
  const answer = { release: null, failure: null, ms: 0, at: new Date() };
  try {
    const response = await fetch("/health", { cache: "no-store", signal: AbortSignal.timeout(ASK_TIMEOUT_MS) });
    answer.release = response.headers.get("X-Release");
    if (!response.ok || !answer.release) {
      answer.failure = `${response.status} from ${answer.release ? `release ${short(answer.release)}` : "the edge"}`;
    }
    await response.arrayBuffer();
  } catch (error) {
    answer.failure = error.name === "TimeoutError" ? `no answer in ${ASK_TIMEOUT_MS / 1000} s` : "no connection";
  }
  answer.ms = performance.now() - begun;
  return answer;
}

function note(answer) {
  answers.push(answer);
  if (answers.length > SHOWN) answers.shift();
  total.asked += 1;
  if (answer.failure) {
    total.failed += 1;
    total.last = answer;
  }
  const shown = new Set(answers.filter((one) => !one.failure).map((one) => one.release));
  for (const release of marks.keys()) if (!shown.has(release)) marks.delete(release);
  for (const release of shown) {
    if (marks.has(release)) continue;
    const used = new Set(marks.values());
    const free = [...Array(MARKS).keys()].find((mark) => !used.has(mark));
    marks.set(release, free ?? marks.size % MARKS);
  }
}

const name = (release) => element("code", { title: release, "data-mark": marks.get(release) }, short(release));

// What the last two seconds say: the strip and its legend remember longer.
function sentence() {
  const recent = answers.slice(-RECENT);
  const releases = [...marks.keys()].filter((name) => recent.some((one) => !one.failure && one.release === name));
  const failing = answers.length - 1 - answers.findLastIndex((one) => !one.failure);
  if (failing > 1) return [`No answer since ${clock(answers.at(-failing).at)}.`];
  if (releases.length === 0) return ["No answer yet."];
  const often = recent.some((one) => one.failure) ? ", not every time." : ".";
  if (releases.length === 1) return ["Release ", name(releases[0]), ` answers${often}`];
  const last = releases.pop();
  const listed = releases.flatMap((release, index) => [index ? ", " : "", name(release)]);
  return ["Releases ", ...listed, " and ", name(last), ` take turns${often}`];
}

function drawAnswers() {
  const counts = new Map([...marks.keys()].map((release) => [release, 0])); // in the order in which they appeared
  for (const one of answers) if (!one.failure) counts.set(one.release, counts.get(one.release) + 1);
  const failed = answers.filter((one) => one.failure).length;
  const bars = $("strip").children;
  const empty = SHOWN - answers.length;
  for (let index = 0; index < SHOWN; index += 1) {
    const one = answers[index - empty];
    bars[index].dataset.mark = one ? (one.failure ? "failed" : marks.get(one.release)) : "none";
  }
  const parts = [...counts].map(([release, number]) => `${number} answered by release ${short(release)}`);
  if (failed) parts.push(`${failed} failed`);
  const label = `The last ${count(answers.length, "request")}, oldest first: ${parts.join(", ")}.`;
  $("strip").setAttribute("aria-label", label);

  const words = sentence();
  const text = words.map((word) => word.textContent ?? word).join("");
  if ($("answer").textContent !== text) $("answer").replaceChildren(...words);

  drawLegend([...counts.keys()], [...counts.values()], failed);
  $("oldest").textContent = empty ? "" : `${Math.round((Date.now() - answers[0].at) / 1000)} s ago`;
  drawTally();
  speak([...counts.keys()], failed);
}

// Made anew only for other releases, so that a name can be read out and copied.
function drawLegend(releases, numbers, failed) {
  const legend = $("legend");
  const kinds = [...releases, ...(failed ? ["failed"] : [])];
  if (legend.dataset.kinds !== kinds.join(" ")) {
    legend.dataset.kinds = kinds.join(" ");
    const bar = (mark) => element("span", { class: "bar", "data-mark": mark, "aria-hidden": "true" });
    const items = releases.map((release) => element("li", {}, bar(marks.get(release)), name(release), ""));
    legend.replaceChildren(...items, ...(failed ? [element("li", {}, bar("failed"), "failed ", "")] : []));
  }
  const counts = failed ? [...numbers, failed] : numbers;
  counts.forEach((number, index) => (legend.children[index].lastChild.data = ` ${number}`));
}

function drawTally() {
  const times = answers.filter((one) => !one.failure).map((one) => one.ms).sort((one, other) => one - other);
  const median = times.length ? ` Median ${times[times.length >> 1].toFixed(0)} ms.` : "";
  const last = total.last ? ` (the last at ${clock(total.last.at)}: ${total.last.failure})` : "";
  const failed = total.failed ? `${total.failed.toLocaleString("en")} failed${last}` : "none failed";
  $("tally").textContent = `${count(total.asked, "request")} since ${clock(total.since)}, ${failed}.${median}`;
}

function speak(releases, failed) {
  const now = releases.length ? `Answered by release ${releases.map(short).join(" and ")}` : "Nothing answers";
  const text = `${now}${failed ? ", with failures" : ""}.`;
  if (heard && text !== heard) announce("answers", text);
  heard = text;
}

async function watchAnswers() {
  $("strip").append(...Array.from({ length: SHOWN }, () => element("span", { class: "bar", "data-mark": "none" })));
  let failures = 0;
  for (let asked = 0; ; asked += 1) {
    await seen();
    const begun = performance.now();
    const answer = await ask();
    if (document.hidden) continue; // a browser may cut what is in the background
    note(answer);
    failures = answer.failure ? failures + 1 : 0;
    if (!still.matches || asked % (2000 / ASK_MS) === 0) drawAnswers();
    await sleep((failures > 5 ? ASK_AWAY_MS : ASK_MS) - (performance.now() - begun));
  }
}

$("notice").remove();
watchAnswers();

// example-only
// --- the board ---

const READ_MS = 3000;
const READ_TIMEOUT_MS = 5000;
const ROWS = 30; // a page of releases
const MOST_PAGES = 10; // all pages that are shown are read again each time

const STATUS = { pending: "Pending", deployed: "Deployed", failed: "Failed", rolled_back: "Rolled back" };

const status = (item) => STATUS[item.status] ?? item.status; // the service may be newer than this page
const ago = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60]];

function symbol(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = svg.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "use"));
  use.setAttribute("href", `#${name}`);
  svg.setAttribute("class", "symbol");
  svg.setAttribute("aria-hidden", "true");
  return svg;
}

function relative(date) {
  const seconds = Math.max(0, (Date.now() - date) / 1000);
  const [unit, size] = UNITS.find(([, size]) => seconds >= size) ?? [];
  return unit ? ago.format(-Math.floor(seconds / size), unit) : "just now";
}

function time(text) {
  const date = new Date(text);
  const full = date.toLocaleString("en-GB", { dateStyle: "full", timeStyle: "long" });
  return element("time", { datetime: text, title: full }, relative(date));
}

function version(item) {
  if (!item.url) return element("span", { class: "version" }, item.version);
  return element("a", { class: "version", href: item.url, rel: "noreferrer", "data-part": "version" }, item.version);
}

function notes(text) {
  const [first] = text.split("\n", 1);
  if (first === text && text.length < 100) return element("p", { class: "notes" }, text);
  const summary = element("summary", { "data-part": "notes" }, first);
  return element("details", { class: "notes" }, summary, element("p", {}, text));
}

function releaseParts(item) {
  const where = [element("span", { class: "unseen" }, "in "), item.environment];
  const commit = item.commit ? [element("code", { title: item.commit }, item.commit.slice(0, 7))] : [];
  return [
    element("span", { class: "status" }, symbol(item.status), status(item)),
    " ",
    element("span", { class: "what" }, element("span", { class: "service" }, item.service), " ", version(item)),
    " ",
    element("span", { class: "where" }, ...where),
    " ",
    element("span", { class: "commit" }, ...commit),
    " ",
    time(item.created_at),
    ...(item.notes?.trim() ? [notes(item.notes.trim())] : []),
  ];
}

// Make NODES the children of PARENT, moving only what is not in its place.
function arrange(parent, nodes) {
  let at = parent.firstChild;
  for (const node of nodes) {
    if (node === at) at = at.nextSibling;
    else parent.insertBefore(node, at);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

const rows = new Map(); // release id → {text, node}
let runs = new Map(); // [service, environment] → what ran there when it was drawn last
let pages = 1;
let older = 0; // how many there were when older ones were asked for
let wake = () => {};

const place = (item) => JSON.stringify([item.service, item.environment]);

// A row for each service and a column for each environment: what is ahead of what is seen along a row. The roles say
// again that it is a table, since on a phone style.css makes blocks of it.
function drawRuns(items) {
  const now = new Map(items.map((item) => [place(item), JSON.stringify(item)]));
  const same = now.size === runs.size && [...now].every(([key, text]) => runs.get(key) === text);
  $("environments-empty").hidden = items.length > 0;
  $("environments-empty").textContent = "Nothing was deployed yet.";
  if (same) return;
  const environments = [...new Set(items.map((item) => item.environment))];
  const services = [...new Set(items.map((item) => item.service))].sort();
  const found = new Map(items.map((item) => [place(item), item]));
  const heads = ["Service", ...environments].map((name) => element("th", { role: "columnheader", scope: "col" }, name));
  const rows = services.map((service) => {
    const cells = environments.map((environment) => runCell(found.get(place({ service, environment })), now));
    const head = element("th", { role: "rowheader", scope: "row", class: "service" }, service);
    return element("tr", { role: "row" }, head, ...cells);
  });
  const focused = document.activeElement?.closest("td")?.dataset.key;
  $("environments").replaceChildren(
    element(
      "table",
      { role: "table", "aria-labelledby": "environments-title" },
      element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, ...heads)),
      element("tbody", { role: "rowgroup" }, ...rows),
    ),
  );
  if (focused) $("environments").querySelector(`td[data-key="${CSS.escape(focused)}"] a`)?.focus();
  runs = now;
}

function runCell(item, now) {
  if (!item) return element("td", { role: "cell" });
  const key = place(item);
  const fresh = runs.size && runs.get(key) !== now.get(key) ? "fresh" : null;
  const attributes = { role: "cell", class: fresh, "data-environment": item.environment, "data-key": key };
  return element("td", attributes, version(item), " ", time(item.since));
}

// Rows are left alone where nothing changed: focus, selection and open notes stay.
function drawReleases(items, more) {
  const oldest = items.findLastIndex((item) => rows.has(item.id)); // what comes after it was asked for, and is no news
  items.forEach((item, index) => {
    const text = JSON.stringify(item);
    const row = rows.get(item.id) ?? { text: null, node: element("li", { tabindex: "-1" }) };
    if (row.text === text) return;
    fill(row.node, item);
    rows.set(item.id, { text, node: row.node });
    if (index > oldest) return;
    row.node.classList.remove("fresh");
    requestAnimationFrame(() => row.node.classList.add("fresh"));
    announce(item.id, `${item.service} ${item.version} in ${item.environment}: ${status(item).toLowerCase()}.`);
  });
  const shown = new Set(items.map((item) => item.id));
  for (const id of rows.keys()) if (!shown.has(id)) rows.delete(id);
  arrange($("releases"), items.map((item) => rows.get(item.id).node));
  $("releases-empty").hidden = items.length > 0;
  $("releases-empty").textContent = "No release is recorded yet. POST /api/v1/releases records one.";
  $("older").hidden = !more;
  if (older && items.length > older) {
    $("releases").children[older].focus(); // where one reads on
    older = 0;
  }
}

function fill(node, item) {
  const part = node.contains(document.activeElement) ? document.activeElement.dataset.part : null;
  const open = node.querySelector("details")?.open ?? false;
  node.replaceChildren(...releaseParts(item));
  node.dataset.status = item.status;
  const details = node.querySelector("details");
  if (details) details.open = open;
  if (part) node.querySelector(`[data-part="${part}"]`)?.focus();
}

async function read(path) {
  let response = null;
  let found = null;
  try {
    response = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(READ_TIMEOUT_MS) });
    found = await response.json();
  } catch {
    throw new Error(`The service does not answer${response ? ` (${response.status})` : ""}.`);
  }
  if (!response.ok) throw new Error(found.detail ?? `The service answers ${response.status}.`);
  return found;
}

async function readReleases() {
  const items = [];
  let cursor = null;
  for (let page = 0; page < pages; page += 1) {
    const found = await read(`/api/v1/releases?limit=${ROWS}${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`);
    items.push(...found.items);
    cursor = found.next_cursor;
    if (!cursor) break;
  }
  return [items, cursor !== null && pages < MOST_PAGES];
}

function showState(state, text) {
  if ($("state").dataset.state !== state && state !== "connecting" && $("state").dataset.state !== "connecting") {
    announce("state", text);
  }
  $("state").dataset.state = state;
  if ($("state-text").textContent !== text) $("state-text").textContent = text;
}

async function watchBoard() {
  let age = "This page keeps trying.";
  for (;;) {
    await seen();
    let found;
    try {
      found = await Promise.all([read("/api/v1/environments"), readReleases()]);
    } catch (error) {
      if (document.hidden) continue;
      showState("away", `${error.message} ${age}`);
    }
    if (found) {
      const [running, [items, more]] = found;
      drawRuns(running.items);
      drawReleases(items, more);
      age = `This is the board of ${clock(new Date())}.`;
      showState("live", "Live");
    }
    for (const one of document.querySelectorAll("time")) {
      const text = relative(new Date(one.dateTime));
      if (one.textContent !== text) one.textContent = text;
    }
    // Not all pages at once, when a service comes back.
    await Promise.race([sleep(READ_MS + Math.random() * 500), new Promise((resolve) => (wake = resolve))]);
  }
}

$("older").addEventListener("click", () => {
  pages += 1;
  older = $("releases").children.length;
  wake();
});

watchBoard();
// /example-only
