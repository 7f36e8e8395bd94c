// Writes a stream to the page: one append for each frame, text nodes only, nothing is rendered twice.

import { TokenJoiner, span, tokensOf } from "./tokens.js";

// Characters after which a block ends at a line break, so a frame lays out one block, not the whole answer.
const BLOCK = 800;

/** Calls `act`, which adds to the page, and keeps the end in view if it was before. */
export function keepAtEnd(act) {
  const { scrollHeight } = document.documentElement;
  const there = innerHeight + scrollY >= scrollHeight - 48;
  act();
  if (there) scrollTo(0, document.documentElement.scrollHeight);
}

export class Writer {
  text = "";
  #shown = "";
  #queue = [];
  #joiner = new TokenJoiner();
  #frame = 0;
  #tokens = false;

  /** Writes into `root`; with `blocks`, into a block for every few paragraphs. */
  constructor(root, blocks = false) {
    Object.assign(this, { root, blocks });
    root.classList.add("writing");
    if (blocks) this.#open();
  }

  /** Adds one streamed choice: its text, and its tokens if the server sent them. */
  take(text, logprobs) {
    this.text += text;
    const tokens = tokensOf(logprobs);
    this.#tokens ||= tokens.length > 0;
    if (this.#tokens) this.#queue.push(...tokens.map((token) => this.#joiner.push(token)).filter(Boolean));
    else if (text) this.#queue.push({ text });
    this.#frame ||= requestAnimationFrame(() => this.#flush());
  }

  /** Ends the answer; the page then shows exactly its text. */
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
    keepAtEnd(() => this.#merged().forEach((item) => this.#append(item)));
  }

  // Texts of one frame become one text.
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

  // Opens a new block if the last one is long and ends with a line break.
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

  // Tokens and text may differ: a stop string may end inside a token. The text is right.
  #reconcile() {
    if (this.#shown.startsWith(this.text)) cut(this.root, this.#shown.length - this.text.length);
    else if (this.text.startsWith(this.#shown)) this.#append({ text: this.text.slice(this.#shown.length) });
    else if (withoutReplacements(this.text) !== withoutReplacements(this.#shown)) this.root.replaceChildren(this.text);
  }
}

// Server and browser may show invalid bytes as different numbers of replacement characters.
const withoutReplacements = (text) => text.replaceAll("\ufffd", "");

// Removes `count` characters from the end.
function cut(root, count) {
  for (let node = last(root); count > 0 && node !== root; node = last(root)) {
    const { length } = node.textContent;
    if (length > count) return node.deleteData(length - count, count);
    count -= length;
    node.remove();
  }
}

const last = (node) => (node.lastChild ? last(node.lastChild) : node);
