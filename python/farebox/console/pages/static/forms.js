// Send a form to the API as JSON. Each attempt has a key of its own, kept until it is answered, so that sending
// the same form twice after a lost answer changes nothing twice.
import { say, showAgain } from "./parts.js";

export async function sendForm(form) {
  if (form.dataset.confirm && !confirm(form.dataset.confirm)) return;
  const button = form.querySelector("button");
  const said = form.querySelector("[role=alert]");
  form.dataset.key ||= newKey();
  button.disabled = true;
  if (said) said.textContent = "";
  try {
    const answer = await fetch(form.dataset.api, {
      method: form.dataset.method || "POST",
      credentials: "same-origin",
      headers: {
        "Content-Type": "application/json",
        "Idempotency-Key": form.dataset.key,
        "X-CSRF-Token": document.querySelector("meta[name=csrf]").content,
      },
      body: JSON.stringify(fieldsOf(form)),
    });
    const document_ = await answer.json();
    if (answer.status < 500) delete form.dataset.key;
    if (!answer.ok) throw new Error(document_.error ? document_.error.message : answer.statusText);
    await done(form, document_);
  } catch (error) {
    if (said) said.textContent = error.message;
    else say(error.message);
  } finally {
    button.disabled = false;
  }
}

function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((one) => one.toString(16).padStart(2, "0")).join("");
}

function fieldsOf(form) {
  const fields = {};
  for (const input of form.querySelectorAll("input[name], select[name]")) {
    const value = input.type === "checkbox" ? (input.checked ? "yes" : "") : input.value.trim();
    const kind = input.dataset.kind || "text";
    if (kind === "switch") fields[input.name] = value === "yes";
    else if (!value && kind !== "null") continue;
    else if (kind === "null" && !value) fields[input.name] = null;
    else if (kind === "number" || kind === "null") fields[input.name] = Number.parseInt(value, 10);
    else if (kind === "list") fields[input.name] = value.split(",").map((one) => one.trim()).filter(Boolean);
    else if (kind === "days") fields[input.name] = Date.now() + Number.parseInt(value, 10) * 86400000;
    else fields[input.name] = value;
  }
  return fields;
}

async function done(form, answer) {
  if (form.dataset.then) {
    location.assign(form.dataset.then);
    return;
  }
  const shown = form.dataset.shows ? answer[form.dataset.shows] : "";
  await showAgain();
  say(`${form.dataset.done || "Done."}${shown ? ` ${shown}` : ""}`);
}
