// The sampling controls. They start from the server's values; localStorage keeps only what the user changed.

const sheet = document.getElementById("settings");
const controls = [...sheet.querySelectorAll("[name]")];
const opener = document.getElementById("open-settings");
const wide = matchMedia("(min-width: 64rem)");
const DEFAULTS = { system: "", temperature: 0.8, top_p: 0.95, top_k: 0, min_p: 0, max_tokens: 256, seed: "", stop: "", fixed: false };

let serverDefaults = {};
let changed = validSettings(recall(localStorage, "settings", {}));

/** Returns a stored value; the fallback if there is none or the browser forbids storage. */
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
    // Storage is full or forbidden; the value is lost with the page.
  }
}

// Another version of the page may have stored other names and types.
function validSettings(kept) {
  return Object.fromEntries(Object.entries(kept).filter(([name, value]) => typeof value === typeof DEFAULTS[name] || (name === "seed" && value >= 0)));
}

const values = () => ({ ...DEFAULTS, ...serverDefaults, ...changed });

export const systemPrompt = () => values().system.trim();

/** Returns the sampling fields of a request, without an empty seed or list of stop strings. */
export function sampling() {
  const { temperature, top_p, top_k, min_p, max_tokens, seed, stop } = values();
  const strings = stop.split("\n").filter(Boolean).map(unescape).slice(0, 4);
  return { temperature, top_p, top_k, min_p, max_tokens, ...(seed !== "" && { seed }), ...(strings.length && { stop: strings }) };
}

const unescape = (line) => line.replace(/\\([nt\\])/g, (_, letter) => ({ n: "\n", t: "\t", "\\": "\\" })[letter]);

/** Sets the controls to the server's recommended values. */
export function setDefaults(info) {
  serverDefaults = validSettings(info.sampling);
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
  document.getElementById("reset").disabled = !Object.keys(changed).length;
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
  if (value === undefined) delete changed[control.name];
  else changed[control.name] = value;
  remember(localStorage, "settings", changed);
}

// Wide screens show the settings next to the text, narrow ones as a modal sheet.
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
  changed = {};
  remember(localStorage, "settings", changed);
  show();
});
show();
