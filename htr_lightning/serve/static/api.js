// Calls of the server's API.

import { t } from "./i18n.js";

const STORED = "htr-token";
const ATTEMPTS = 5; // while the server is busy
const dialog = document.querySelector("#token");
const busy = document.querySelector("#busy");
let token = sessionStorage.getItem(STORED);
let running = 0;

const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  keepToken(given);
  history.replaceState(null, "", location.pathname); // not in bookmarks, and not over a shoulder
}

function keepToken(text) {
  token = text;
  sessionStorage.setItem(STORED, text);
}

function askForToken() {
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      keepToken(document.querySelector("#token-text").value.trim());
      resolve();
    }, { once: true });
    if (!dialog.open) dialog.showModal();
  });
}

/** Call the API; throw an Error with the server's message if it refuses. */
export async function call(path, form, signal) {
  busy.hidden = ++running === 0;
  try {
    for (let attempt = 1; ; attempt++) {
      const headers = token ? { Authorization: `Bearer ${token}` } : {};
      let response;
      try {
        response = await fetch(path, { method: form ? "POST" : "GET", body: form, headers, signal });
      } catch (error) {
        throw error.name === "AbortError" ? error : new Error(t("failed"));
      }
      if (response.status === 401) {
        await askForToken();
        continue;
      }
      if (attempt < ATTEMPTS && (response.status === 429 || response.status === 503)) {
        await new Promise((resolve) => setTimeout(resolve, 1000 * Number(response.headers.get("Retry-After"))));
        continue;
      }
      if (!response.ok) throw new Error((await response.json()).error);
      return response;
    }
  } finally {
    busy.hidden = --running === 0;
  }
}

/** Transcribe an image, with its XML file if it is a page. */
export async function transcribe(model, image, xml, nBest, signal) {
  const form = new FormData();
  form.append("files", image, image.name);
  if (xml) form.append("files", xml, xml.name);
  form.append("model", model);
  form.append("n_best", nBest);
  const answer = await (await call("/api/transcribe", form, signal)).json();
  return { ...answer.files[0], model: answer.model };
}

/** Return the address of an image that this browser can show. */
export async function preview(image) {
  const form = new FormData();
  form.append("file", image, image.name);
  return URL.createObjectURL(await (await call("/api/preview", form)).blob());
}
