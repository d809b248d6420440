// The server's API: requests, the key, and refusals as one kind of error.

import { keep, kept } from "./dom.js";

const NAME = "trichrome-key";
let key = kept("sessionStorage", NAME);
let asking = null;
let askForKey = async () => "";

/** How the page asks for a key: an async function of whether one was refused. */
export function askWith(ask) {
  askForKey = ask;
}

/** What the server refused or could not do. status: 0 where it wasn't reached. */
export class Refused extends Error {
  constructor(status, { message, id = null, type = "" }, wait = null) {
    super(message);
    Object.assign(this, { status, id, type, wait });
  }
}

export const indexes = () => call("indexes");

/** The values of a field and how many passages have each. */
export const values = (index, field) =>
  call(`indexes/${encodeURIComponent(index)}/values?field=${encodeURIComponent(field)}`);

/** One ranking. signal: aborts it. */
export const search = (index, body, signal) =>
  call(`indexes/${encodeURIComponent(index)}/search`, { body, signal });

async function call(path, { body, signal } = {}) {
  for (;;) {
    const used = key;
    const headers = used ? { Authorization: `Bearer ${used}` } : {};
    const request = body
      ? { method: "POST", headers: { ...headers, "Content-Type": "application/json" }, body: JSON.stringify(body) }
      : { headers };
    let response;
    try {
      response = await fetch(path, { ...request, signal, cache: "no-store" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused(0, { message: "The server could not be reached. Is it running?" });
    }
    if (response.ok) return await read(response);
    if (response.status !== 401) throw await refusal(response);
    if (used === key) await replaceKey(used !== null); // else another request has asked for it already
  }
}

async function read(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(response.status, { message: "The answer broke off, or is not this server's." });
  }
}

async function refusal(response) {
  const wait = Number(response.headers.get("Retry-After")) || null;
  try {
    return new Refused(response.status, (await response.json()).error, wait);
  } catch {
    return new Refused(response.status, { message: `${response.statusText || "An error"}, without a reason.` }, wait);
  }
}

/** One question at a time, however many requests wait for its answer. */
async function replaceKey(wrong) {
  asking ??= askForKey(wrong).finally(() => (asking = null));
  key = await asking;
  keep("sessionStorage", NAME, key);
}
