// Show another state of this page: fetch it from this host and put its <main> in the place of ours.
// What the server sent was escaped there; scripts in a parsed document do not run.
const policy = window.trustedTypes
  ? window.trustedTypes.createPolicy("farebox", { createHTML: (text) => text })
  : { createHTML: (text) => text };

let latest = 0;

export async function show(address, { remember = false, focus = "" }) {
  const turn = ++latest;
  const main = document.querySelector("main");
  main.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(address, { credentials: "same-origin", headers: { Accept: "text/html" } });
    const text = await answer.text();
    if (turn !== latest) return;
    if (answer.redirected && new URL(answer.url).pathname === "/login") {
      location.assign("/login");
      return;
    }
    const fresh = new DOMParser().parseFromString(policy.createHTML(text), "text/html");
    main.replaceWith(document.adoptNode(fresh.querySelector("main")));
    document.title = fresh.title;
    if (remember) history.pushState(null, "", address);
    if (focus) {
      const link = [...document.querySelectorAll("main a")].find((one) => one.getAttribute("href") === focus);
      if (link) link.focus();
    }
  } catch {
    say("Farebox cannot be reached; trying again helps once it is back.");
    main.removeAttribute("aria-busy");
  }
}

export function showAgain() {
  return show(location.href, {});
}

export function say(text) {
  document.getElementById("said").textContent = text;
}
