// Who is signed in, and requests that stay signed in.
//
// The cookies are HttpOnly, so no script can see whether they are there. A flag, which is no secret, says that this
// browser was signed in: only then is it worth asking, and whoever never signs in causes no request that fails.

import { seen, sleep } from "./page.js";

const AUTH = "/api/v1/auth";
const FLAG = "signed-in"; // in localStorage: other tabs hear of a change
const TIMEOUT_MS = 5000;
const RETRY_MS = 5000;

// `account`: {name, role}, null for nobody, undefined until that is known. `ended`: there was a session, and it is over.
// Events: `change`, and `needed` when a request was refused because nobody is signed in.
export const session = Object.assign(new EventTarget(), { account: undefined, ended: false });

let refreshing = null; // the refresh under way: requests that are refused together share it

// What went wrong, for people; `status` is 0 where nothing answered, `errors` names fields: {location, message}.
export class Problem extends Error {
  constructor(detail, status = 0, errors = []) {
    super(detail);
    Object.assign(this, { status, errors });
  }
}

// Return the JSON of an answer, null where it has none. Throws a Problem.
async function send(path, { method = "GET", json, headers = {} } = {}) {
  let response = null;
  let found = null;
  const body = json && JSON.stringify(json);
  const given = { ...(json && { "Content-Type": "application/json" }), ...headers };
  try {
    const signal = AbortSignal.timeout(TIMEOUT_MS);
    response = await fetch(path, { method, headers: given, body, cache: "no-store", signal });
    found = response.status === 204 ? null : await response.json();
  } catch {
    throw new Problem(`The service does not answer${response ? ` (${response.status})` : ""}.`);
  }
  if (response.ok) return found;
  throw new Problem(found?.detail ?? `The service answers ${response.status}.`, response.status, found?.errors);
}

// Send a request; where the access token has expired, get another one and send it once more.
async function sendSignedIn(path, options) {
  try {
    return await send(path, options);
  } catch (problem) {
    if (problem.status !== 401 || !remembered()) throw problem;
    // Other tabs may do so at the same moment: for ten seconds each gets the same tokens.
    refreshing ??= send(`${AUTH}/refresh`, { method: "POST" }).finally(() => (refreshing = null));
    await refreshing;
  }
  return send(path, options);
}

// Send a request as whoever is signed in. Throws a Problem; one of status 401 means that signing in is needed.
export async function ask(path, options) {
  try {
    return await sendSignedIn(path, options);
  } catch (problem) {
    if (problem.status !== 401) throw problem;
    lose();
    session.dispatchEvent(new Event("needed"));
    throw session.ended ? new Problem("Your session has ended.", 401) : problem;
  }
}

export async function signIn(username, password) {
  const json = { username, password, cookie: true };
  const { account } = await send(`${AUTH}/login`, { method: "POST", json });
  become(account);
}

export async function signOut() {
  try {
    await send(`${AUTH}/logout`, { method: "POST" });
  } catch (problem) {
    if (problem.status !== 401) throw problem; // it had ended already
  }
  forget();
  become(null);
}

// Find out who is signed in, in this tab or in another one.
export async function recall() {
  if (!remembered() && !session.account) return become(null);
  for (;;) {
    try {
      return become(await sendSignedIn(`${AUTH}/me`));
    } catch (problem) {
      if (problem.status === 401) return lose();
    }
    await sleep(RETRY_MS);
    await seen();
  }
}

let known = ""; // what the last `change` said: a request that is refused again is no news

function become(account, ended = false) {
  if (account) remember(); // another tab may have been refused what this one was given
  const next = { account: account && { name: account.name, role: account.role }, ended };
  if (JSON.stringify(next) === known) return;
  known = JSON.stringify(next);
  Object.assign(session, next);
  session.dispatchEvent(new Event("change"));
}

function lose() {
  const ended = session.ended || remembered();
  forget();
  become(null, ended);
}

// A browser that keeps no cookies has no localStorage either, and throws.
function flag(change) {
  try {
    return change(localStorage);
  } catch {
    return null;
  }
}

const remembered = () => flag((storage) => storage.getItem(FLAG)) !== null;
const remember = () => flag((storage) => storage.setItem(FLAG, "yes"));
const forget = () => flag((storage) => storage.removeItem(FLAG));

addEventListener("storage", (event) => {
  if (event.key === FLAG || event.key === null) recall();
});
