// Completion: one editable text; generated text follows the prompt in spans of class `made`.

import { button, errorLine, small } from "./conversation.js";
import { estimateCharacters, generate, isBusy, showContext } from "./generation.js";
import { forgetEdited, hideCard, isToken, showCard } from "./tokens.js";
import { keepAtEnd, Writer } from "./writer.js";

const root = document.getElementById("text");
const after = document.getElementById("after");

export const text = () => root.textContent;
export const isEmpty = () => !text();

export function clear() {
  write("");
  showContext(0);
}

/** Replaces the whole text. */
export function write(content) {
  after.replaceChildren();
  root.replaceChildren(content);
  normalize();
}

/** Generates a continuation at the end of the text. */
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
  normalize();
  if (document.activeElement === root) {
    getSelection().selectAllChildren(made.isConnected ? made : root);
    getSelection().collapseToEnd();
  }
  if (isEmpty()) return;  // The user cleared it meanwhile.
  const again = () => (made.remove(), send());
  keepAtEnd(() => {
    if (result.failure) after.append(errorLine(result.failure, again));
    else after.append(button("Try again", () => !isBusy() && again(), "again"), small(result.note));
  });
}

// Returns the end of a text that exceeds the context, starting at a word.
function tail(prompt, room) {
  const most = estimateCharacters(room);
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

// A final line break is visible only if something follows it: a <br> that is not part of the text.
function normalize() {
  for (const made of root.querySelectorAll(".made")) if (!made.textContent) made.remove();
  if (root.lastChild?.nodeName !== "BR") {
    root.querySelector("br")?.remove();
    root.append(document.createElement("br"));
  }
  root.classList.toggle("blank", isEmpty());
}

// Text typed after generated text belongs to the user; the browser would insert it into the span.
function typeAfterGenerated(event) {
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

root.addEventListener("beforeinput", typeAfterGenerated);
root.addEventListener("input", () => {
  forgetEdited(root);
  hideCard();
  after.replaceChildren();
  normalize();
});
// The caret or a tap selects a token; arrow keys move the caret as in any editor.
document.addEventListener("selectionchange", () => {
  const token = getSelection().anchorNode?.parentElement;
  if (!root.contains(token)) return;
  if (document.body.classList.contains("probable") && !isBusy() && token && isToken(token) && getSelection().isCollapsed) showCard(token);
  else hideCard();
});
root.addEventListener("blur", hideCard);
editable(true);
normalize();
