// Complete: one editable text in which the continuation stands after the prompt, styled apart. Reads and writes the section `complete`.

import { button, problem, small } from "./conversation.js";
import { charactersIn, generate, isBusy, showContext } from "./generation.js";
import { forgetEdited, hideCard, isToken, tell } from "./tokens.js";
import { keepEnd, Writer } from "./writer.js";

const root = document.getElementById("text");
const after = document.getElementById("after");

export const text = () => root.textContent;
export const isEmpty = () => !text();

export function clear() {
  write("");
  showContext(0);
}

/** Puts in a text of the user's, in place of all. */
export function write(content) {
  after.replaceChildren();
  root.replaceChildren(content);
  tidy();
}

/** Lets the model go on from the end of the text. */
export async function send() {
  after.replaceChildren();
  const prompt = text();
  const made = document.createElement("span");
  made.className = "made";
  root.append(made);
  const writer = new Writer(made);
  editable(false);
  const result = await generate("v1/completions", (room) => ({ prompt: tail(prompt, room) }), writer);
  editable(true);
  tidy();
  if (document.activeElement === root) {
    getSelection().selectAllChildren(made.isConnected ? made : root);
    getSelection().collapseToEnd();
  }
  if (isEmpty()) return;  // it was cleared meanwhile
  const again = () => (made.remove(), send());
  keepEnd(() => {
    if (result.failure) after.append(problem(result.failure, again));
    else after.append(button("Try again", () => !isBusy() && again(), "again"), small(result.note));
  });
}

// The end of a text that is too long for the context, from the start of a word.
function tail(prompt, room) {
  const most = charactersIn(room);
  return prompt.length <= most ? prompt : prompt.slice(-most).replace(/^\S{0,40}\s+(?=\S)/, "");
}

function editable(on) {
  root.ariaReadOnly = String(!on);
  try {
    root.contentEditable = on ? "plaintext-only" : "false";
  } catch {
    root.contentEditable = "true";
  }
}

// A last line break shows only when something follows it: the <br>, which is not part of the text.
function tidy() {
  for (const made of root.querySelectorAll(".made")) if (!made.textContent) made.remove();
  if (root.lastChild?.nodeName !== "BR") {
    root.querySelector("br")?.remove();
    root.append(document.createElement("br"));
  }
  root.classList.toggle("blank", isEmpty());
}

// What is typed right after a continuation is the user's; the browser would put it inside.
function step(event) {
  if (!event.inputType.startsWith("insert") || event.isComposing) return;
  const typed = event.inputType === "insertParagraph" || event.inputType === "insertLineBreak" ? "\n" : event.data;
  const { anchorNode, isCollapsed } = getSelection();
  const made = (anchorNode?.closest ? anchorNode : anchorNode?.parentElement)?.closest(".made");
  if (!typed || !made || !isCollapsed || !atEnd(made)) return;
  event.preventDefault();
  const node = made.nextSibling?.nodeType === Node.TEXT_NODE ? made.nextSibling : document.createTextNode("");
  node.insertData(0, typed);
  made.after(node);
  getSelection().collapse(node, typed.length);
  root.dispatchEvent(new InputEvent("input"));
}

function atEnd(made) {
  const range = document.createRange();
  const { anchorNode, anchorOffset } = getSelection();
  range.setStart(anchorNode, anchorOffset);
  range.setEndAfter(made.lastChild ?? made);
  return !String(range);
}

root.addEventListener("beforeinput", step);
root.addEventListener("input", () => {
  forgetEdited(root);
  hideCard();
  after.replaceChildren();
  tidy();
});
// The caret, or a tap, says which token is meant: arrow keys go through the text as in every editor.
document.addEventListener("selectionchange", () => {
  const token = getSelection().anchorNode?.parentElement;
  if (!root.contains(token)) return;
  if (document.body.classList.contains("probable") && !isBusy() && token && isToken(token) && getSelection().isCollapsed) tell(token);
  else hideCard();
});
root.addEventListener("blur", hideCard);
editable(true);
tidy();
