// Chat: turns of the user and the model, each with what can be done to it. Reads and writes the section `chat`.

import { cost, generate, isBusy, model, showContext } from "./generation.js";
import { systemPrompt } from "./settings.js";
import { reach, rove } from "./tokens.js";
import { keepEnd, Writer } from "./writer.js";

const root = document.getElementById("chat");
let turns = [];

export const isEmpty = () => !turns.length;
export const text = () => turns.map(({ role, content }) => `${role === "user" ? "You" : model.run}: ${content}`).join("\n\n");

export function clear() {
  turns = [];
  root.replaceChildren();
  showContext(0);
}

/** Adds what the user wrote and lets the model answer it. */
export function send(content) {
  const turn = add("user", content);
  turn.body.textContent = content;
  turn.acts.append(button("Edit", () => edit(turn)), copier(turn));
  const answered = answer();
  scrollTo(0, document.documentElement.scrollHeight);
  return answered;
}

async function answer() {
  const turn = add("assistant", "");
  const writer = new Writer(turn.body, true);
  const result = await generate("v1/chat/completions", (room) => ask(room, turn), writer);
  turn.content = writer.text;
  keepEnd(() => {
    if (writer.text) turn.acts.append(copier(turn));
    if (writer.text || !result.failure) turn.acts.append(button("Regenerate", () => regenerate(turn), "again"));
    if (result.note) turn.acts.append(small(result.note));
    if (result.failure) turn.element.append(problem(result.failure, () => regenerate(turn)));
  });
  reach(turn.body);
}

// The newest turns that fit; what was left out is marked on the page, since the model no longer sees it.
function ask(room, current) {
  const said = turns.filter((turn) => turn !== current && turn.content);
  const system = systemPrompt();
  let first = said.length - 1;
  let left = room - cost(system) - cost(said[first].content);
  while (first > 0 && (left -= cost(said[first - 1].content)) >= 0) first--;
  // A conversation begins with the user, as every one did that the model was tuned on.
  while (first < said.length - 1 && said[first].role !== "user") first++;
  mark(first && said[first]);
  const messages = said.slice(first).map(({ role, content }) => ({ role, content }));
  return { messages: system ? [{ role: "system", content: system }, ...messages] : messages };
}

function mark(turn) {
  root.querySelector(".seen")?.remove();
  if (!turn) return;
  const line = small("The model no longer sees what is above.", "p");
  line.className = "seen";
  turn.element.before(line);
}

function regenerate(turn) {
  if (isBusy()) return undefined;
  drop(turn);
  return answer();
}

// Takes away this turn and all after it.
function drop(turn) {
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
    drop(turn);
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
  if (role === "assistant") rove(body);
  const turn = { role, content, element, body, acts };
  turns.push(turn);
  return turn;
}

/** A quiet button. */
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

/** One line that says what went wrong, with a way to try again. */
export function problem(said, retry) {
  const line = small(said, "p");
  line.className = "problem";
  line.append(" ", button("Retry", () => !isBusy() && retry()));
  return line;
}

const copier = (turn) => button("Copy", ({ target }) => copy(turn.content, target));

/** Copies text, also where the clipboard is not open to a page: over plain HTTP from another machine. */
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
