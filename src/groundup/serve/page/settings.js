// The sampling controls: shows the server's values, sends the user's, remembers in localStorage only what the user changed.

const sheet = document.getElementById("settings");
const controls = [...sheet.querySelectorAll("[name]")];
const opener = document.getElementById("open-settings");
const wide = matchMedia("(min-width: 64rem)");
const START = { system: "", temperature: 0.8, top_p: 0.95, top_k: 0, min_p: 0, max_tokens: 256, seed: "", stop: "", fixed: false };

let served = {};
let chosen = known(recall(localStorage, "settings", {}));

/** Reads what `remember` kept; the fallback when there is nothing, or the browser forbids storage. */
export function recall(storage, name, fallback) {
  try {
    return JSON.parse(storage.getItem(`groundup.${name}`)) ?? fallback;
  } catch {
    return fallback;
  }
}

export function remember(storage, name, value) {
  try {
    storage.setItem(`groundup.${name}`, JSON.stringify(value));
  } catch {
    // Storage is full or forbidden: the value lasts as long as the page.
  }
}

// What another version of the page kept may have other names and types.
function known(kept) {
  return Object.fromEntries(Object.entries(kept).filter(([name, value]) => typeof value === typeof START[name] || (name === "seed" && value >= 0)));
}

const values = () => ({ ...START, ...served, ...chosen });

export const systemPrompt = () => values().system.trim();

/** The fields of a request: an empty seed is left out, and so is an empty list of stop strings. */
export function sampling() {
  const { temperature, top_p, top_k, min_p, max_tokens, seed, stop } = values();
  const strings = stop.split("\n").filter(Boolean).map(unescape).slice(0, 4);
  return { temperature, top_p, top_k, min_p, max_tokens, ...(seed !== "" && { seed }), ...(strings.length && { stop: strings }) };
}

const unescape = (line) => line.replace(/\\([nt\\])/g, (_, letter) => ({ n: "\n", t: "\t", "\\": "\\" })[letter]);

/** Takes the server's own sampling values as the start of every control. */
export function startFrom(info) {
  served = known(info.sampling);
  document.getElementById("max_tokens").max = info.context;
  show();
}

function show() {
  const now = values();
  for (const control of controls) {
    if (control.type === "checkbox") control.checked = now[control.name];
    else control.value = now[control.name];
    output(control);
  }
  document.body.classList.toggle("fixed", now.fixed);
  document.getElementById("reset").disabled = !Object.keys(chosen).length;
}

function output(control) {
  const place = sheet.querySelector(`output[for="${control.name}"]`);
  if (place) place.textContent = Number(control.value).toFixed(2);
}

function read(control) {
  if (control.type === "checkbox") return control.checked;
  if (control.type === "range") return Number(control.value);
  if (control.type !== "number") return control.value;
  if (control.value === "") return control.name === "seed" ? "" : undefined;
  const top = control.max === "" ? Number.MAX_SAFE_INTEGER : Number(control.max);
  return Math.min(Math.max(Math.round(Number(control.value)), Number(control.min)), top);
}

function change(control) {
  const value = read(control);
  if (value === undefined) delete chosen[control.name];
  else chosen[control.name] = value;
  remember(localStorage, "settings", chosen);
}

// On a wide screen the settings stand beside the text; on a narrow one they are a sheet over it.
function open() {
  if (sheet.open) return close();
  if (wide.matches) sheet.show();
  else sheet.showModal();
  document.body.classList.toggle("beside", wide.matches);
}

function close() {
  sheet.close();
  opener.focus();
}

sheet.addEventListener("input", ({ target }) => (change(target), output(target)));
sheet.addEventListener("change", ({ target }) => (change(target), show()));
sheet.addEventListener("close", () => document.body.classList.remove("beside"));
sheet.addEventListener("keydown", (event) => event.key === "Escape" && !event.defaultPrevented && (event.preventDefault(), close()));
sheet.addEventListener("click", (event) => event.target === sheet && close());
opener.addEventListener("click", open);
wide.addEventListener("change", () => sheet.open && close());
document.getElementById("reset").addEventListener("click", () => {
  chosen = {};
  remember(localStorage, "settings", chosen);
  show();
});
show();
