// A form in a dialog. What the service refuses is said beside the field, or at the form's end.

import { $, element } from "./page.js";

// Let FORM, in a dialog, call `send` with its filled fields as an object, and close where that does not throw.
export function prepare(form, send) {
  const dialog = form.closest("dialog");
  let busy = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (busy) return; // a disabled button would lose the focus
    busy = true;
    clear(form);
    try {
      await send(Object.fromEntries([...new FormData(form)].filter(([, value]) => value !== "")));
      dialog.close();
    } catch (problem) {
      refuse(form, problem);
    } finally {
      busy = false;
    }
  });
  form.querySelector("[data-cancel]").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    clear(form);
    form.reset();
  });
}

function clear(form) {
  form.querySelector("[role=alert]").textContent = "";
  for (const field of form.querySelectorAll("[aria-invalid]")) {
    $(`${field.id}-error`).remove();
    field.removeAttribute("aria-invalid");
    field.removeAttribute("aria-describedby");
  }
}

function refuse(form, { message, errors = [] }) {
  const field = ({ location }) => form.elements.namedItem(location.replace(/^body\./, ""));
  for (const error of errors) if (field(error)) mark(field(error), error.message);
  form.querySelector("[role=alert]").textContent = errors.length && errors.every(field) ? "" : message;
  form.querySelector("[aria-invalid]")?.focus();
}

function mark(field, text) {
  const id = `${field.id}-error`;
  if ($(id)) return $(id).append(` ${text}`); // wrong in two ways
  field.after(element("p", { class: "refused", id }, text));
  field.setAttribute("aria-invalid", "true");
  field.setAttribute("aria-describedby", id);
}
