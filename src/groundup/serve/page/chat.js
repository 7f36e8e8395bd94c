// The page: chat and completion with one composer. Generated text is inserted as text, never as HTML.

import * as completion from "./completion.js";
import * as conversation from "./conversation.js";
import { isBusy, loadInfo, model, showContext, stop } from "./generation.js";
import { recall, remember, setDefaults } from "./settings.js";
import { hideCard, setTabStop } from "./tokens.js";

const element = (id) => document.getElementById(id);
const { body } = document;
const message = element("message");
const modes = { chat: conversation, complete: completion };
const mode = () => modes[body.dataset.mode];

async function init() {
  element("notice").hidden = true;
  try {
    await loadInfo();
  } catch (error) {
    element("notice").replaceChildren(conversation.errorLine(error.message, init));
    element("notice").hidden = false;
    return;
  }
  setDefaults(model);
  document.title = `${model.run} · groundup`;
  element("run").textContent = element("greeting").textContent = model.run;
  setMode(model.tuned ? "chat" : "complete");
}

function setMode(name) {
  stop();
  hideCard();
  body.dataset.mode = name;
  document.querySelector(`.modes [value=${name}]`).checked = true;
  const chat = name === "chat";
  element("chat").hidden = !chat;
  element("complete").hidden = chat;
  element("send").textContent = chat ? "Send" : "Continue";
  element("send").title = chat ? "Enter" : "Ctrl + Enter";
  element("about").textContent = introduction(chat);
  showPrompts(name);
  showContext(0);
  refresh();
}

function introduction(chat) {
  if (chat && !model.tuned) return "This model was not tuned for chat: it continues text, so Complete suits it.";
  const said = chat ? "Ask it something" : "Write the start of a text";
  return said + (model.prompts.some((prompt) => prompt.mode === body.dataset.mode) ? ", or choose a suggestion." : ".");
}

function showPrompts(name) {
  element("prompts").replaceChildren(...model.prompts.filter((prompt) => prompt.mode === name).map(promptItem));
}

function promptItem({ text, kind }) {
  const item = document.createElement("li");
  const button = conversation.button("", () => usePrompt(text), "");
  const words = conversation.small(text, "span");
  words.dir = "auto";
  button.append(words, conversation.small(kind ?? ""));
  item.append(button);
  return item;
}

function usePrompt(text) {
  if (isBusy()) return;
  if (mode() === completion) completion.write(text);
  submit(text);
}

async function submit(said) {
  if (isBusy() || !model.model) return;
  const chat = mode() === conversation;
  const text = chat ? said.trim() : completion.text();
  if (!text.trim()) return (chat ? message : element("text")).focus();
  if (chat) message.value = "";
  const answered = mode().send(text);
  refresh();
  if (chat && !matchMedia("(pointer: coarse)").matches) message.focus();
  await answered;
  refresh();
}

function refresh() {
  const empty = mode().isEmpty();
  element("empty").hidden = !empty;
  element("copy-all").disabled = element("clear").disabled = empty;
}

function clear() {
  stop();
  hideCard();
  mode().clear();
  refresh();
  (mode() === conversation ? message : element("text")).focus();
}

function showProbabilities(probable) {
  body.classList.toggle("probable", probable);
  element("legend").hidden = !probable;
  for (const place of document.querySelectorAll("#chat .body")) setTabStop(place, probable);
  hideCard();
  remember(localStorage, "probable", probable);
  element("probabilities").checked = probable;
}

function applyTheme(theme) {
  const names = { system: "as the system", light: "light", dark: "dark" };
  document.documentElement.dataset.theme = theme;
  element("theme").ariaLabel = element("theme").title = `Theme: ${names[theme] ?? names.system}`;
}

element("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  submit(message.value);
});
message.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  submit(message.value);
});
element("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  submit();
});
element("text").addEventListener("input", refresh);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.defaultPrevented && !document.querySelector("dialog:modal")) stop();
});
document.querySelector(".modes").addEventListener("change", ({ target }) => setMode(target.value));
element("probabilities").addEventListener("change", ({ target }) => showProbabilities(target.checked));
element("clear").addEventListener("click", clear);
element("copy-all").addEventListener("click", ({ target }) => conversation.copy(mode().text(), target));
element("theme").addEventListener("click", () => {
  const order = ["system", "light", "dark"];
  const next = order[(order.indexOf(document.documentElement.dataset.theme) + 1) % order.length];
  remember(localStorage, "theme", next);
  applyTheme(next);
});

applyTheme(recall(localStorage, "theme", "system"));
showProbabilities(recall(localStorage, "probable", false));
init();
