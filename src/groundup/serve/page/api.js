// Client of the OpenAI API: /info, streams of tokens, and the key.

import { recall, remember } from "./settings.js";

/** An error as one line for the user; `status` is 0 if the server did not answer. */
export class Failure extends Error {
  constructor(message, status = 0, code = "") {
    super(message);
    Object.assign(this, { status, code });
  }
}

let key = recall(sessionStorage, "key", "");

/** Sets the key of all requests; it is stored for this tab only. */
export function setKey(value) {
  key = value;
  remember(sessionStorage, "key", value);
}

export const info = async () => (await request("info", {})).json();

/** Calls `take(event)` for each event up to [DONE]; throws Failure, or AbortError if stopped. */
export async function stream(path, body, signal, take) {
  const response = await request(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  for await (const data of events(response.body, signal)) {
    if (data === "[DONE]") return;
    const piece = parse(data);
    if (piece.error) throw new Failure(`The server stopped: ${piece.error.message}`, 500, piece.error.code);
    take(piece);
  }
  throw new Failure("The connection was lost.");
}

async function request(path, options) {
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Failure("The server does not answer.");
  }
  if (response.ok) return response;
  throw await failure(response);
}

async function failure(response) {
  const { error } = await response.json().catch(() => ({}));
  const said = error?.message || `The server answered ${response.status}.`;
  if (response.status !== 429) return new Failure(said, response.status, error?.code);
  const wait = Number(response.headers.get("Retry-After"));
  return new Failure(`The server is busy${wait ? `; it asks to wait ${wait} second${wait === 1 ? "" : "s"}` : ""}.`, 429);
}

// Server-sent events are blocks of lines that end with an empty line (WHATWG HTML, section 9.2).
async function* events(body, signal) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (let read = await next(reader, signal); !read.done; read = await next(reader, signal)) {
      const blocks = (rest + read.value.replaceAll("\r", "")).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const lines = block.split("\n").filter((line) => line.startsWith("data:"));
        if (lines.length) yield lines.map((line) => line.slice(5).trimStart()).join("\n");
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function next(reader, signal) {
  try {
    return await reader.read();
  } catch (error) {
    throw signal.aborted ? new DOMException("stopped", "AbortError") : new Failure("The connection was lost.");
  }
}

function parse(data) {
  try {
    return JSON.parse(data);
  } catch {
    throw new Failure("The server sent something that is not JSON.", 500);
  }
}
