// The form that records a release, for who may.

import { prepare } from "./forms.js";
import { $ } from "./page.js";
import { ask, session } from "./session.js";

const WRITERS = ["deployer", "admin"];

let sent = { text: null, key: null }; // the release that was sent last: the same again is a retry

// Not randomUUID, which a browser has by https alone.
const newKey = () => [...crypto.getRandomValues(new Uint8Array(16))].join("-");

async function record(release) {
  const text = JSON.stringify(release);
  if (sent.text !== text) sent = { text, key: newKey() };
  await ask("/api/v1/releases", { method: "POST", json: release, headers: { "Idempotency-Key": sent.key } });
  sent = { text: null, key: null };
}

// Show the way to the form to who may record, and call `recorded` after each.
export function prepareRecord(recorded) {
  const draw = () => ($("record").hidden = !WRITERS.includes(session.account?.role));
  session.addEventListener("change", draw);
  draw();
  $("record").addEventListener("click", () => $("record-dialog").showModal());
  prepare($("record-form"), async (release) => {
    await record(release);
    recorded();
  });
}
