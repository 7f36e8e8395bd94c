// Tokens with probabilities: joins them into whole characters, colors them, and shows details in a card.

const LIMITS = [0.9, 0.5, 0.2, 0.05, 0.01];
const card = document.getElementById("token");
const about = new WeakMap();
const encoder = new TextEncoder();
let shown;

/** Returns the color step of a probability: 0 is nearly certain, 5 is below the last limit, as in the legend. */
export const colorStep = (probability) => LIMITS.filter((limit) => probability < limit).length;

/** Returns the tokens of a streamed choice, of chat or completion, as [{bytes, logprob, top: [{bytes, logprob}]}]. */
export function tokensOf(logprobs) {
  if (!logprobs) return [];
  if (logprobs.content) return logprobs.content.map((item) => ({ ...plain(item), top: (item.top_logprobs ?? []).map(plain) }));
  return (logprobs.tokens ?? []).map((token, n) => ({
    bytes: logprobs.bytes?.[n] ?? bytesOf(token),
    logprob: logprobs.token_logprobs[n],
    top: Object.entries(logprobs.top_logprobs?.[n] ?? {}).map(([text, logprob]) => ({ bytes: bytesOf(text), logprob })),
  }));
}

const plain = ({ token, bytes, logprob }) => ({ bytes: bytes ?? bytesOf(token), logprob });

// The completions API has no bytes: it writes part of a character as "bytes:\xe2\x80".
function bytesOf(text) {
  const parts = /^bytes:((?:\\x[0-9a-f]{2})+)$/i.exec(text);
  return parts ? parts[1].slice(2).split("\\x").map((hex) => parseInt(hex, 16)) : [...encoder.encode(text)];
}

/** Joins tokens until their bytes are whole characters; `push` returns {text, parts} or undefined. */
export class TokenJoiner {
  parts = [];

  push(token) {
    this.parts.push(token);
    const bytes = this.parts.flatMap((part) => part.bytes);
    return isIncomplete(bytes) && this.parts.length < 4 ? undefined : this.flush(bytes);
  }

  flush(bytes = this.parts.flatMap((part) => part.bytes)) {
    if (!this.parts.length) return undefined;
    const parts = this.parts.splice(0);
    return { text: decode(bytes), parts };
  }
}

const decode = (bytes) => new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(bytes));

// Whether the last character lacks bytes: the lead byte of n bytes is fewer than n places before the end.
function isIncomplete(bytes) {
  for (let back = 1; back <= Math.min(3, bytes.length); back++) {
    const byte = bytes[bytes.length - back];
    if (byte >= 0xc0) return back < (byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2);
    if (byte < 0x80) return false;
  }
  return false;
}

/** Returns a span for joined tokens. Several tokens form one character; their probabilities are multiplied. */
export function span({ text, parts }) {
  const element = document.createElement("span");
  const probability = Math.exp(parts.reduce((sum, part) => sum + (part.logprob ?? 0), 0));
  element.className = `t p${colorStep(probability)}${text.startsWith("\n") ? " newline" : ""}`;
  element.textContent = text;
  about.set(element, { text, parts, probability });
  return element;
}

export const isToken = (node) => about.has(node);

/** Drops the tokens whose text was edited: their probabilities no longer apply. */
export function forgetEdited(root) {
  for (const token of root.querySelectorAll(".t")) {
    if (about.get(token)?.text === token.textContent) continue;
    about.delete(token);
    token.className = "";
  }
}

/** Shows a card next to a token: the most likely tokens at its position and its rank among them. */
export function showCard(element) {
  const { parts, probability } = about.get(element);
  card.replaceChildren();
  if (parts.length > 1) card.append(`${parts.length} tokens make this text: ${percent(probability)}`);
  for (const part of parts) {
    const others = part.top.filter((other) => !same(other, part));
    const choices = [part, ...(parts.length > 1 ? [] : others)].sort((one, other) => other.logprob - one.logprob);
    card.append(...choices.map((choice) => row(choice, choice === part)));
  }
  card.hidden = false;
  shown = element;
  positionCard();
}

export function hideCard() {
  card.hidden = true;
}

const same = (a, b) => String(a.bytes) === String(b.bytes);
const percent = (share) => (share >= 0.9995 ? "100 %" : share < 0.0001 ? "< 0.01 %" : `${(share * 100).toFixed(share < 0.1 ? 2 : 1)} %`);

/** Returns text with control, format and space characters made visible. */
export function visible(text) {
  const names = { " ": "␣", "\n": "↵", "\t": "⇥" };
  return text.replace(/[\p{C}\p{Z}]/gu, (c) => names[c] ?? `U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`);
}

const show = (bytes) => {
  const text = decode(bytes);
  return text.includes("\ufffd") ? bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(" ") : visible(text);
};

function row({ bytes, logprob }, taken) {
  const line = document.createElement("div");
  line.className = taken ? "choice taken" : "choice";
  const [name, share, bar] = ["bdi", "span", "i"].map((tag) => line.appendChild(document.createElement(tag)));
  name.textContent = show(bytes) || "the end";
  share.textContent = percent(Math.exp(logprob));
  bar.style.width = `${Math.max(Math.exp(logprob) * 100, 1)}%`;
  return line;
}

function positionCard() {
  if (card.hidden) return;
  const edge = 8;
  const box = shown.getClientRects()[0] ?? shown.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = card;
  const left = Math.min(Math.max(box.left, edge), document.documentElement.clientWidth - width - edge);
  const below = box.bottom + edge + height < innerHeight;
  card.style.left = `${left}px`;
  card.style.top = `${Math.max(below ? box.bottom + edge : box.top - height - edge, edge)}px`;
}

/** Adds or removes the single tab stop of an answer's tokens. */
export function setTabStop(root, on = document.body.classList.contains("probable")) {
  const stop = root.querySelector(".t[tabindex]");
  if (on) describe(stop ?? root.querySelector(".t"));
  else for (const name of ["tabindex", "role", "aria-label", "aria-describedby"]) stop?.removeAttribute(name);
}

// Only the focused token has a role and a label: ten thousand would be slow.
function describe(element) {
  if (!element) return;
  const { text, probability } = about.get(element);
  Object.assign(element, { tabIndex: 0, role: "button", ariaLabel: `${visible(text)}, ${percent(probability)}` });
  element.setAttribute("aria-describedby", card.id);
}

/** Makes arrows, Home and End move between tokens, and a click select one (roving tabindex). */
export function enableTokenKeys(root) {
  const go = (element) => {
    setTabStop(root, false);
    describe(element);
    element.focus();
  };
  root.addEventListener("click", ({ target }) => isToken(target) && document.body.classList.contains("probable") && go(target));
  root.addEventListener("focusin", ({ target }) => isToken(target) && showCard(target));
  root.addEventListener("focusout", hideCard);
  root.addEventListener("keydown", (event) => {
    if (!isToken(event.target)) return;
    if (event.key === "Escape" && !card.hidden) return hideCard(), event.stopPropagation();
    const to = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
    if (to) event.preventDefault(), go(neighbor(root, event.target, to));
  });
}

function neighbor(root, element, to) {
  const all = [...root.querySelectorAll(".t")];
  return all[Math.min(Math.max(all.indexOf(element) + to, 0), all.length - 1)];
}

addEventListener("scroll", positionCard, { passive: true });
