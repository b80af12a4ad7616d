// Stores confirmed lines on the server, if it collects them, and shows what waits for training.

import { call } from "./api.js";
import { onLanguage, t } from "./i18n.js";
import { onDecision, refresh } from "./lines.js";

const STORED = "htr-name";
const $ = (selector) => document.querySelector(selector);
const pending = new Map(); // lines to send, with the text that was confirmed, or null to withdraw it
let sending = false;
let onTheWay = []; // lines of the request that is being sent
let latest; // what the server has collected

export const isSending = () => sending;

export function startCorrections(offer, show) {
  if (!offer.corrections) return;
  const ofLines = offer.models.filter((model) => !model.single_characters).map(({ name }) => name);
  onDecision((line) => {
    if (!ofLines.includes(line.file.model) || (line.confirmed && !line.text.trim())) return;
    const isKnown = line.stored !== undefined || pending.has(line) || onTheWay.includes(line);
    if (!line.confirmed && !isKnown) return;
    pending.set(line, line.confirmed ? line.text : null);
    if (!sending) send(show);
  });
  $("#private").dataset.i18n = "privateCollected";
  $("#who").value = name();
  $("#who").addEventListener("change", () => keepName($("#who").value.trim()));
  $("#open-corrections").hidden = false;
  $("#open-corrections").addEventListener("click", () => {
    $("#corrections").showModal();
    update().catch((error) => show(error.message));
  });
  onLanguage(() => {
    $("#private").textContent = t("privateCollected");
    display();
  });
  update().catch((error) => show(error.message));
}

/** Send what is pending, one request at a time, each with the lines of one image that have come in the meantime. */
async function send(show) {
  sending = true;
  while (pending.size) {
    const [[{ file }]] = pending;
    const lines = [...pending].filter(([line]) => line.file === file);
    onTheWay = lines.map(([line]) => line);
    for (const line of onTheWay) pending.delete(line);
    const form = new FormData();
    for (const one of [file.image, file.xmlFile]) if (one) form.append("files", one, one.name);
    form.append("lines", JSON.stringify(lines.map(([line, text]) => (
      { id: line.id, text, before: line.error ? null : line.recognized, confidence: line.confidence }))));
    form.append("model", file.model);
    form.append("who", name());
    try {
      await call("/api/corrections", form);
      for (const [line, text] of lines) line.stored = text ?? undefined;
    } catch (error) {
      show(t("notStored", error.message));
    }
    onTheWay = [];
    refresh();
  }
  sending = false;
  update().catch((error) => show(error.message));
}

async function update() {
  latest = await (await call("/api/corrections")).json();
  display();
}

function display() {
  $("#open-corrections").ariaLabel = `${t("corrections")} ${latest?.waiting ?? ""}`;
  $("#open-corrections b").textContent = latest?.waiting ?? "";
  if (!latest) return;
  const { waiting, lines, contradictions, last } = latest;
  const day = last && new Date(last.time).toLocaleDateString(document.documentElement.lang);
  const told = [
    t("waiting", waiting), t("collected", lines), contradictions.length && t("disagree", contradictions.length),
    !last ? t("noTraining") : last.promoted ? t("promoted", day, last.version)
      : t("refused", day, last.reason.split(";")[0]),
    last && t("gainNew", ...rates(last.new)), last?.old && t("gainOld", ...rates(last.old)),
  ];
  $("#collected").replaceChildren(...told.filter(Boolean).map((text) => (
    Object.assign(document.createElement("li"), { textContent: text }))));
}

function rates({ before, after, characters }) {
  return [before, after].map((edits) => `${(100 * edits / Math.max(1, characters)).toFixed(1)}\u00a0%`);
}

function name() {
  try {
    return localStorage.getItem(STORED) ?? "";
  } catch {
    return $("#who").value.trim(); // storage is switched off
  }
}

function keepName(text) {
  try {
    localStorage.setItem(STORED, text);
  } catch {
    // the name lasts as long as the page
  }
}
