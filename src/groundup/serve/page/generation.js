// Runs one generation at a time: streams into a writer, asks for a key if needed, shortens what does not fit.

import { Failure, info, setKey, stream } from "./api.js";
import { sampling } from "./settings.js";

const element = (id) => document.getElementById(id);
const status = element("status");
const dialog = element("key");

export let model = { model: "", context: 0, tuned: true, prompts: [] };
let controller;
// A guess until the first usage is known. If it is too high, a request is refused and sent again.
let charactersPerToken = 4;
// Tokens around the text of a turn: <|im_start|>, role, line break, <|im_end|>, line break.
const TURN_TOKENS = 6;

export const isBusy = () => Boolean(controller);
export const stop = () => controller?.abort();

/** Estimates the tokens of a turn, and the characters of a number of tokens. */
export const estimateTokens = (text) => text.length / charactersPerToken + TURN_TOKENS;
export const estimateCharacters = (tokens) => Math.max(Math.floor(tokens * charactersPerToken), 1);

/** Loads /info, and asks for the key until the server accepts it. */
export async function loadInfo() {
  model = await withKey(info);
}

/**
 * Streams an answer. `make(room)` returns a request body of about `room` tokens, or the smallest possible.
 * Returns {note} about the end, or {failure} with an error message.
 */
export async function generate(path, make, writer) {
  const probable = document.body.classList.contains("probable");
  const began = performance.now();
  const result = {};
  busy(new AbortController());
  try {
    await withKey(() => generateFitting(path, make, writer, probable, result));
    result.note = noteOf(result, (performance.now() - began) / 1000);
  } catch (error) {
    if (error.name === "AbortError") result.note = "Stopped.";
    else result.failure = messageOf(error);
  }
  writer.finish();
  busy(undefined);
  status.textContent = result.failure ?? (writer.text.slice(0, 2000) || "The model returned no text.");
  return result;
}

const messageOf = (error) => (error instanceof Failure ? error.message : `The page failed: ${error.message}`);

async function generateFitting(path, make, writer, probable, result) {
  let room = model.context - Math.min(sampling().max_tokens, model.context / 4);
  for (;;) {
    const body = make(room);
    try {
      return await generateOnce(path, body, writer, probable, result);
    } catch (error) {
      room = Math.min(room, sizeOf(body)) * 0.75;
      if (error.code !== "context_length_exceeded" || sizeOf(make(room)) >= sizeOf(body)) throw error;
    }
  }
}

async function generateOnce(path, body, writer, probable, result) {
  const logprobs = !probable ? {} : body.messages ? { logprobs: true, top_logprobs: 5 } : { logprobs: 5 };
  await stream(path, { model: model.model, ...body, ...sampling(), ...logprobs }, controller.signal, (piece) => {
    const choice = piece.choices?.[0];
    if (choice) writer.take(choice.delta?.content ?? choice.text ?? "", choice.logprobs);
    if (choice?.finish_reason) result.finish = choice.finish_reason;
    if (piece.usage) recordUsage(piece.usage, body, result);
  });
}

const turnsOf = ({ messages, prompt }) => messages ?? [{ content: prompt }];
const sizeOf = (body) => turnsOf(body).reduce((sum, turn) => sum + estimateTokens(turn.content), 0);

function recordUsage(usage, body, result) {
  result.tokens = usage.completion_tokens;
  result.full = usage.total_tokens >= model.context;
  showContext(usage.total_tokens);
  const turns = turnsOf(body);
  const characters = turns.reduce((sum, turn) => sum + turn.content.length, 0);
  // The ratio of a short text says little about the next one.
  if (characters > 100) charactersPerToken = characters / Math.max(usage.prompt_tokens - TURN_TOKENS * turns.length, characters / 8);
}

/** Shows how much of the context is used; hidden for 0. */
export function showContext(used) {
  element("context").hidden = !used || !model.context;
  element("meter").value = used / model.context;
  element("used").textContent = `${used.toLocaleString("en")} of ${model.context.toLocaleString("en")}`;
}

function noteOf({ finish, tokens, full }, seconds) {
  if (tokens === undefined) return "";
  const limit = finish !== "length" ? "" : full ? " (the context is full)" : " (the limit)";
  return `${tokens.toLocaleString("en")} token${tokens === 1 ? "" : "s"}${limit} in ${seconds.toFixed(1)} s`;
}

function busy(now) {
  controller = now;
  const [send, halt] = [element("send"), element("stop")];
  const focused = [send, halt].includes(document.activeElement);
  send.hidden = Boolean(now);
  halt.hidden = !now;
  if (focused) (now ? halt : send).focus();
  if (now) status.textContent = "The model is writing.";
  document.body.classList.toggle("busy", Boolean(now));
}

async function withKey(act) {
  for (let why = "It is kept in this tab only."; ; why = "That key was not accepted.") {
    try {
      return await act();
    } catch (error) {
      if (error.status !== 401 || !(await askKey(why))) throw error;
    }
  }
}

// Resolves to whether a key was entered.
function askKey(why) {
  element("key-why").textContent = why;
  element("key-input").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((done) => dialog.addEventListener("close", () => done(Boolean(dialog.returnValue)), { once: true }));
}

dialog.addEventListener("submit", (event) => {
  event.preventDefault();
  setKey(element("key-input").value);
  dialog.close("given");
});
element("key-cancel").addEventListener("click", () => dialog.close());
element("stop").addEventListener("click", stop);
