// The pages' behaviour: change the period without a reload, send forms to the API, look again now and then.
import { sendForm } from "./forms.js";
import { show, showAgain } from "./parts.js";

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-part]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
  event.preventDefault();
  show(link.href, { remember: true, focus: link.getAttribute("href") });
});

document.addEventListener("submit", (event) => {
  const form = event.target.closest("form[data-api], form[data-part]");
  if (!form) return;
  event.preventDefault();
  if (form.dataset.api) {
    sendForm(form);
    return;
  }
  const address = new URL(form.action);
  for (const [name, value] of new FormData(form)) if (value) address.searchParams.set(name, value);
  show(address.href, { remember: true });
});

window.addEventListener("popstate", () => show(location.href, {}));

setInterval(() => {
  const wanted = document.querySelector("main").dataset.again === "yes";
  const busy = document.querySelector("main form:focus-within, main section details[open]");
  if (wanted && !busy && !document.hidden) showAgain();
}, 5000);
