// Sign in, sign out, and who is signed in.

import { prepare } from "./forms.js";
import { $, announce } from "./page.js";
import { recall, session, signIn, signOut } from "./session.js";

const dialog = $("sign-in-dialog");
let shown; // the account, undefined before the first is known

function draw() {
  const { account, ended } = session;
  const left = document.activeElement === $("sign-out") && !account;
  $("who").textContent = account ? `${account.name}, ${account.role}` : ended ? "Your session has ended." : "";
  $("sign-in").hidden = Boolean(account);
  $("sign-out").hidden = !account;
  if (left) $("sign-in").focus();
  if (shown !== undefined || ended) announce("account", $("who").textContent || "Signed out.");
  shown = account;
  if (account && dialog.open) {
    dialog.close(); // whether here or in another tab
    $("sign-out").focus(); // below another dialog it cannot have the focus, which goes back there
  }
}

function offer(why) {
  $("sign-in-why").textContent = why;
  if (!dialog.open) dialog.showModal();
}

session.addEventListener("change", draw);
session.addEventListener("needed", () => offer(session.ended ? "Your session has ended." : "Only for people with an account."));
$("sign-in").addEventListener("click", () => offer(""));
$("sign-out").addEventListener("click", async () => {
  try {
    await signOut();
  } catch (problem) {
    $("who").textContent = `Still signed in: ${problem.message}`;
    announce("account", $("who").textContent);
  }
});
prepare($("sign-in-form"), async ({ username, password }) => {
  try {
    await signIn(username, password);
  } catch (problem) {
    $("password").focus();
    $("password").select();
    throw problem;
  }
});
recall();
