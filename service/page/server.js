// Asking this server, and what its refusals mean in words. Knows nothing of elements.

let key = ""; // nowhere else: not in storage, not in an address

/** Whether it can be sent; "" asks without one. */
export function useKey(given) {
  const fit = /^[\x21-\x7e]*$/.test(given);
  if (fit) key = given;
  return fit;
}

export const hasKey = () => key !== "";

/** An answer that is none: `problem` is what the server says (RFC 9457), or what we can. */
export class Refused extends Error {
  constructor(problem) {
    super(problem.title);
    this.problem = problem;
  }
}

/**
 * The JSON at `path`; with a `body`, of a POST. Paths are beside the page, wherever that is.
 * Throws `Refused`, and what `signal` throws.
 */
export async function ask(path, { body, signal } = {}) {
  const response = await sent(path, { body, signal });
  try {
    return await response.json();
  } catch (error) {
    throw signal?.aborted ? error : broken(error);
  }
}

/** The text at `path`. */
export async function read(path, { signal } = {}) {
  return (await sent(path, { signal })).text();
}

async function sent(path, { body, signal }) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const options = { headers, signal, cache: "no-store" };
  if (body !== undefined) {
    options.method = "POST";
    options.body = JSON.stringify(body);
    headers["Content-Type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    throw signal?.aborted ? error : broken(error);
  }
  if (response.ok) return response;
  throw new Refused(await problemOf(response));
}

const broken = (error) =>
  new Refused({ status: 0, title: "The server does not answer", detail: "", cause: error });

async function problemOf(response) {
  const { status } = response;
  const wait = Number(response.headers.get("Retry-After")) * 1000 || undefined;
  try {
    const problem = await response.json();
    if (typeof problem.detail === "string") return { retry_after_ms: wait, ...problem, status };
  } catch {
    // not JSON: below
  }
  const detail = `Something answered ${status} that does not speak as this server does: a proxy before it?`;
  return { status, title: response.statusText || `Status ${status}`, detail, retry_after_ms: wait };
}

/** What to do about a problem, in a sentence. */
export function advice(problem) {
  const wait = problem.retry_after_ms;
  const soon = wait ? `Ask again in ${(wait / 1000).toFixed(wait < 10_000 ? 1 : 0)} s.` : "Ask again in a moment.";
  switch (problem.status) {
    case 0:
      return "Is it running, and is there a way to it? What you wrote stays here.";
    case 401:
      return hasKey() ? "Check the key." : "Give it above: whoever runs the server has one for you.";
    case 403:
      return "Ask whoever runs the server for a key that may.";
    case 404:
      return "What is served may have changed: the Catalog says what there is.";
    case 408:
      return "The way to the server is slow; send a shorter text, or ask again.";
    case 409:
      return "Ask less: a larger drop, a lower F1 or more milliseconds. Those that miss by least come first:";
    case 413:
      return "Send a shorter text, or choose fewer variants.";
    case 422:
      return "Change what it names, and ask again.";
    case 429:
      return `Too much is asked just now. ${soon}`;
    case 500:
      return "That is a mistake of the server’s; its log has more under the id below.";
    case 502:
    case 503:
      return soon;
    case 504:
      return "It took too long. Send a shorter text, or ask again when less is asked.";
    default:
      return "";
  }
}
