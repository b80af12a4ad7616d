// Takes in files and drawings, and connects the parts of the page.

import { call, preview, transcribe } from "./api.js";
import { isSending, startCorrections } from "./corrections.js";
import { startDrawing } from "./draw.js";
import { startExport } from "./export.js";
import { named, onLanguage, switchLanguage, t } from "./i18n.js";
import { addFile, removeAll, unsaved } from "./lines.js";

const AT_ONCE = 2; // requests
const MAX_ALTERNATIVES = 5;
const $ = (selector) => document.querySelector(selector);
let offer;

function show(text, note = false) {
  const message = document.createElement("div");
  message.className = note ? "message note" : "message";
  const close = document.createElement("button");
  close.textContent = "×";
  close.ariaLabel = t("ok");
  close.addEventListener("click", () => message.remove());
  message.append(Object.assign(document.createElement("span"), { textContent: text }), close);
  $("#messages").append(message);
  if (note) setTimeout(() => message.remove(), 4000);
}

/** Return pairs of an image and its XML file, which have the same name, or are the only ones. */
function paired(given) {
  const stem = (file) => file.name.replace(/\.[^.]*$/, "").toLowerCase();
  const pages = given.filter((file) => /\.xml$/i.test(file.name));
  const images = given.filter((file) => !pages.includes(file));
  if (images.length === 1 && pages.length === 1) return [[images[0], pages[0]]];
  for (const page of pages) {
    if (!images.some((image) => stem(image) === stem(page))) show(t("imageMissing", page.name));
  }
  return images.map((image) => [image, pages.find((page) => stem(page) === stem(image))]);
}

async function read(given) {
  const waiting = paired(given);
  const model = offer.models.find(({ name }) => name === $("#model").value);
  const results = waiting.map(() => undefined);
  const next = async () => {
    for (let index; (index = results.indexOf(undefined)) >= 0;) {
      results[index] = null;
      const [image, xml] = waiting[index];
      try {
        if (image.size + (xml?.size ?? 0) > 0.99 * offer.max_bytes) { // an early refusal could break the connection
          throw new Error(t("tooLarge", image.name, Math.floor(offer.max_bytes / 1e6)));
        }
        await addFile(await transcribe(model.name, image, xml, alternatives(model), null), image, xml, preview);
      } catch (error) {
        show(error.message);
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, next));
}

function alternatives(model) {
  return model.alternatives ? MAX_ALTERNATIVES : 0;
}

/** Say which scripts and languages the chosen recognizer reads. */
function describe() {
  const { name, scripts, languages } = offer.models.find((model) => model.name === $("#model").value);
  const known = named("script", scripts) + (languages.length ? ` (${named("language", languages)})` : "");
  $("#reads").textContent = scripts.length ? t("reads", name, known) : "";
}

function toggleDrawing(open = !document.body.classList.contains("drawing")) {
  document.body.classList.toggle("drawing", open);
  $("#toggle-draw").ariaExpanded = open;
}

function takeFiles() {
  const chooser = $("#files");
  for (const id of ["#choose", "#add"]) $(id).addEventListener("click", () => chooser.click());
  chooser.addEventListener("change", () => {
    read([...chooser.files]);
    chooser.value = "";
  });
  addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  addEventListener("dragleave", (event) => event.relatedTarget ?? document.body.classList.remove("dragging"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    if (event.dataTransfer.files.length) read([...event.dataTransfer.files]);
  });
  addEventListener("paste", (event) => {
    const pasted = [...(event.clipboardData?.files ?? [])];
    if (pasted.length) read(pasted);
  });
}

async function start() {
  onLanguage(() => ($("#language").textContent = t("other")));
  $("#language").addEventListener("click", switchLanguage);
  offer = await (await call("/api/models")).json();
  $("#model").append(...offer.models.map(({ name }) => new Option(name, name)));
  $("#model-label").hidden = offer.models.length === 1;
  $("#model").addEventListener("change", describe);
  onLanguage(describe);
  takeFiles();
  startExport(show);
  startCorrections(offer, show);
  startDrawing(offer.models, alternatives, show, (answer, image) => addFile(answer, image, undefined, preview));
  $("#toggle-draw").addEventListener("click", () => toggleDrawing());
  $("#remove").addEventListener("click", () => {
    if (unsaved() && !confirm(t("leave"))) return;
    removeAll();
    toggleDrawing(false);
  });
  addEventListener("beforeunload", (event) => (unsaved() || isSending()) && event.preventDefault());
}

start().catch((error) => show(error.message));
