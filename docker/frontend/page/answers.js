// Who answers: the strip of the last requests, whatever else is on the page.

import { $, announce, clock, count, element, seen, sleep } from "./page.js";

const ASK_MS = 200; // five requests a second show a rolling update replica by replica
const ASK_AWAY_MS = 1000;
const ASK_TIMEOUT_MS = 2000;
const SHOWN = 60;
const RECENT = 10;
const MARKS = 4; // colours and patterns of the strip, in page.css

const still = matchMedia("(prefers-reduced-motion: reduce)");

// A release is named by content: `sha256:` and 64 digits, with a suffix where only its settings differ.
function short(release) {
  const [name, settings] = release.replace(/^sha256:/, "").split("+");
  return (/^[0-9a-f]{20,}$/.test(name) ? name.slice(0, 12) : name) + (settings ? `+${settings.slice(0, 4)}` : "");
}

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
