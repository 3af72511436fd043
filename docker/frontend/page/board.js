// What runs where, and the releases.

import { $, announce, clock, element, seen, sleep } from "./page.js";
import { ask, session } from "./session.js";
import { prepareRecord } from "./record.js";

const READ_MS = 3000;
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
let age = "This page keeps trying.";

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
  const table = element(
    "table",
    { role: "table", "aria-labelledby": "environments-title" },
    element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, ...heads)),
    element("tbody", { role: "rowgroup" }, ...rows),
  );
  $("environments").replaceChildren(...(items.length ? [table] : []));
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

async function readReleases() {
  const items = [];
  let cursor = null;
  for (let page = 0; page < pages; page += 1) {
    const found = await ask(`/api/v1/releases?limit=${ROWS}${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`);
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

// With ANONYMOUS_READ=false, nothing stays in view of somebody who has signed out.
function showClosed() {
  drawRuns([]);
  drawReleases([], false);
  for (const id of ["environments-empty", "releases-empty"]) $(id).textContent = "Sign in to read this.";
  showState("away", "Not signed in");
}

// Read once; return whether there is anything to wait for but a sign-in.
async function readBoard() {
  try {
    const [running, [items, more]] = await Promise.all([ask("/api/v1/environments"), readReleases()]);
    drawRuns(running.items);
    drawReleases(items, more);
    age = `This is the board of ${clock(new Date())}.`;
    showState("live", "Live");
  } catch (problem) {
    if (problem.status === 401) showClosed();
    else if (!document.hidden) showState("away", `${problem.message} ${age}`);
    return problem.status !== 401;
  }
  return true;
}

async function watchBoard() {
  for (;;) {
    await seen();
    const woken = new Promise((resolve) => (wake = resolve));
    const open = await readBoard();
    for (const one of document.querySelectorAll("time")) {
      const text = relative(new Date(one.dateTime));
      if (one.textContent !== text) one.textContent = text;
    }
    // Not all pages at once, when a service comes back.
    await Promise.race([woken, ...(open ? [sleep(READ_MS + Math.random() * 500)] : [])]);
  }
}

$("older").addEventListener("click", () => {
  pages += 1;
  older = $("releases").children.length;
  wake();
});

session.addEventListener("change", () => wake());
prepareRecord(() => wake());
watchBoard();
