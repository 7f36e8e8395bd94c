// Puts a stream on the page: one append a frame, never a second rendering of what stands. Writes nodes, only as text.

import { Joiner, span, tokensOf } from "./tokens.js";

// A block ends at a line break after so many characters, so that a frame lays out one block and not the whole answer.
const BLOCK = 800;

/** Does what makes the page longer, and stays at its end if the reader is there. */
export function keepEnd(act) {
  const { scrollHeight } = document.documentElement;
  const there = innerHeight + scrollY >= scrollHeight - 48;
  act();
  if (there) scrollTo(0, document.documentElement.scrollHeight);
}

export class Writer {
  text = "";
  #shown = "";
  #queue = [];
  #joiner = new Joiner();
  #frame = 0;
  #tokens = false;

  /** Writes into `root`; with `blocks`, in a block for every few paragraphs. */
  constructor(root, blocks = false) {
    Object.assign(this, { root, blocks });
    root.classList.add("writing");
    if (blocks) this.#open();
  }

  /** Takes one streamed choice: its text, and its tokens where the server sent them. */
  take(text, logprobs) {
    this.text += text;
    const tokens = tokensOf(logprobs);
    this.#tokens ||= tokens.length > 0;
    if (this.#tokens) this.#queue.push(...tokens.map((token) => this.#joiner.push(token)).filter(Boolean));
    else if (text) this.#queue.push({ text });
    this.#frame ||= requestAnimationFrame(() => this.#flush());
  }

  /** Ends the answer; what is shown is then exactly what was said. */
  finish() {
    cancelAnimationFrame(this.#frame);
    const last = this.#joiner.flush();
    if (last) this.#queue.push(last);
    this.#flush();
    this.root.classList.remove("writing");
    if (this.#shown !== this.text) this.#reconcile();
  }

  #flush() {
    this.#frame = 0;
    keepEnd(() => this.#merged().forEach((item) => this.#append(item)));
  }

  // Plain pieces of one frame become one piece.
  #merged() {
    const queue = this.#queue.splice(0);
    return this.#tokens || !queue.length ? queue : [{ text: queue.map((item) => item.text).join("") }];
  }

  #append(item) {
    this.#shown += item.text;
    if (item.parts) {
      this.#open(item.text);
      this.place.append(span(item));
      return;
    }
    for (const piece of this.blocks ? item.text.split(/(?<=\n)/) : [item.text]) {
      this.#open(piece);
      if (this.place.lastChild?.nodeType === Node.TEXT_NODE) this.place.lastChild.appendData(piece);
      else this.place.append(piece);
    }
  }

  // The place for the next piece: a new block when the last one is long and ends with a line break.
  #open(piece = "") {
    if (!this.blocks) {
      this.place = this.root;
    } else if (!this.place || (this.length > BLOCK && this.broken)) {
      this.place = this.root.appendChild(document.createElement("div"));
      this.length = 0;
    }
    this.length += piece.length;
    this.broken = piece.endsWith("\n");
  }

  // A stop string cut the text in the middle of a token, or a stop came between tokens and text: the text is what counts.
  #reconcile() {
    if (this.#shown.startsWith(this.text)) cut(this.root, this.#shown.length - this.text.length);
    else if (this.text.startsWith(this.#shown)) this.#append({ text: this.text.slice(this.#shown.length) });
    else if (sound(this.text) !== sound(this.#shown)) this.root.replaceChildren(this.text);
  }
}

// Broken bytes may be shown as more or fewer replacement characters by the server than by the browser.
const sound = (text) => text.replaceAll("\ufffd", "");

// Takes that many characters from the end.
function cut(root, count) {
  for (let node = last(root); count > 0 && node !== root; node = last(root)) {
    const { length } = node.textContent;
    if (length > count) return node.deleteData(length - count, count);
    count -= length;
    node.remove();
  }
}

const last = (node) => (node.lastChild ? last(node.lastChild) : node);
