// What every part of the page uses. All text goes in as text, never as markup.

const SPEAK_MS = 5000; // a screen reader hears one summary at most in that time

export const $ = (id) => document.getElementById(id);
export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
export const count = (number, one) => `${number.toLocaleString("en")} ${one}${number === 1 ? "" : "s"}`;
export const clock = (date) => date.toLocaleTimeString("en-GB");

// An element; attributes that are null are left out.
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value != null) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// Nothing is asked while nobody looks.
export async function seen() {
  while (document.hidden) {
    await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
  }
}

const unsaid = new Map(); // what about → the last that is to be said about it

// Let a screen reader say TEXT, unless more is to be said ABOUT the same until it speaks.
export function announce(about, text) {
  if (unsaid.size === 0) {
    setTimeout(() => {
      const texts = [...unsaid.values()];
      $("announcements").textContent = texts.length > 3 ? `${texts.length} changes.` : texts.join(" ");
      unsaid.clear();
    }, SPEAK_MS);
  }
  unsaid.set(about, text);
}
