// Chat: the turns of user and model, each with its actions.

import { estimateTokens, generate, isBusy, model, showContext } from "./generation.js";
import { systemPrompt } from "./settings.js";
import { setTabStop, enableTokenKeys } from "./tokens.js";
import { keepAtEnd, Writer } from "./writer.js";

const root = document.getElementById("chat");
let turns = [];

export const isEmpty = () => !turns.length;
export const text = () => turns.map(({ role, content }) => `${role === "user" ? "You" : model.run}: ${content}`).join("\n\n");

export function clear() {
  turns = [];
  root.replaceChildren();
  showContext(0);
}

/** Adds a user message and generates the answer. */
export function send(content) {
  const turn = add("user", content);
  turn.body.textContent = content;
  turn.acts.append(button("Edit", () => edit(turn)), copyButton(turn));
  const answered = answer();
  scrollTo(0, document.documentElement.scrollHeight);
  return answered;
}

async function answer() {
  const turn = add("assistant", "");
  const writer = new Writer(turn.body, true);
  const result = await generate("v1/chat/completions", (room) => requestBody(room, turn), writer);
  turn.content = writer.text;
  keepAtEnd(() => {
    if (writer.text) turn.acts.append(copyButton(turn));
    if (writer.text || !result.failure) turn.acts.append(button("Regenerate", () => regenerate(turn), "again"));
    if (result.note) turn.acts.append(small(result.note));
    if (result.failure) turn.element.append(errorLine(result.failure, () => regenerate(turn)));
  });
  setTabStop(turn.body);
}

// Returns the newest turns that fit into `room` tokens; the page marks where they begin.
function requestBody(room, current) {
  const said = turns.filter((turn) => turn !== current && turn.content);
  const system = systemPrompt();
  let first = said.length - 1;
  let left = room - estimateTokens(system) - estimateTokens(said[first].content);
  while (first > 0 && (left -= estimateTokens(said[first - 1].content)) >= 0) first--;
  // A conversation begins with the user, as in the tuning data.
  while (first < said.length - 1 && said[first].role !== "user") first++;
  markCutoff(first && said[first]);
  const messages = said.slice(first).map(({ role, content }) => ({ role, content }));
  return { messages: system ? [{ role: "system", content: system }, ...messages] : messages };
}

function markCutoff(turn) {
  root.querySelector(".seen")?.remove();
  if (!turn) return;
  const line = small("The model no longer sees what is above.", "p");
  line.className = "seen";
  turn.element.before(line);
}

function regenerate(turn) {
  if (isBusy()) return undefined;
  removeFrom(turn);
  return answer();
}

// Removes this turn and all later ones.
function removeFrom(turn) {
  for (const { element } of turns.splice(turns.indexOf(turn))) element.remove();
}

function edit(turn) {
  if (isBusy()) return;
  const form = document.createElement("form");
  const area = document.createElement("textarea");
  area.value = turn.content;
  area.ariaLabel = "Edit your message";
  const cancel = button("Cancel", () => (form.replaceWith(turn.body), turn.acts.querySelector("button").focus()));
  const resend = button("Send again", () => {}, "main");
  resend.type = "submit";
  form.append(area, cancel, resend);
  form.addEventListener("keydown", (event) => event.key === "Escape" && cancel.click());
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!area.value.trim() || isBusy()) return;
    removeFrom(turn);
    send(area.value.trim());
    document.getElementById("message").focus();
  });
  turn.body.replaceWith(form);
  area.focus();
}

function add(role, content) {
  const element = document.createElement("article");
  element.className = `turn ${role}`;
  const who = document.createElement("h2");
  who.textContent = role === "user" ? "You" : model.run;
  const body = document.createElement("div");
  body.className = "body";
  body.dir = "auto";
  const acts = document.createElement("div");
  acts.className = "acts";
  element.append(who, body, acts);
  root.append(element);
  if (role === "assistant") enableTokenKeys(body);
  const turn = { role, content, element, body, acts };
  turns.push(turn);
  return turn;
}

/** Returns a button without a frame. */
export function button(label, act, name = "quiet") {
  const element = document.createElement("button");
  element.type = "button";
  element.className = name === "again" ? "quiet again" : name;
  element.textContent = label;
  element.addEventListener("click", act);
  return element;
}

export function small(said, tag = "small") {
  const element = document.createElement(tag);
  element.textContent = said;
  return element;
}

/** Returns a line with an error message and a button to retry. */
export function errorLine(said, retry) {
  const line = small(said, "p");
  line.className = "problem";
  line.append(" ", button("Retry", () => !isBusy() && retry()));
  return line;
}

const copyButton = (turn) => button("Copy", ({ target }) => copy(turn.content, target));

/** Copies text, with a fallback for plain HTTP from another machine, where the clipboard API is off. */
export async function copy(content, told) {
  try {
    await navigator.clipboard.writeText(content);
  } catch {
    const area = document.body.appendChild(document.createElement("textarea"));
    area.value = content;
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  const label = told.dataset.label ?? (told.dataset.label = told.textContent);
  told.textContent = "Copied";
  setTimeout(() => (told.textContent = label), 1500);
}
