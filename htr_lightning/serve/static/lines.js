// The list of lines: their texts are corrected and confirmed here, also with the keyboard alone.

import { onLanguage, t } from "./i18n.js";
import { clearPicture, drawStrip, openPicture, showLine } from "./picture.js";

const GOOD = 0.95; // confidence per character: about two errors in a line of 40
const FAIR = 0.85;
const list = document.querySelector("#lines");
const progress = document.querySelector("#progress");
export const files = [];
let history = []; // what was changed, last one last: [line, text, confirmed] as it was before
let changed = false; // since the last export
const listeners = [];

const visible = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    visible.unobserve(target);
    drawStrip(target, ...target.owner);
  }
}, { rootMargin: "400px" });

const widths = new ResizeObserver((entries) => entries.forEach(({ target }) => fit(target)));

/** Give a text field the height of its text. */
function fit(input) {
  input.style.height = "auto";
  input.style.height = `${input.scrollHeight + 2}px`;
}

/** Add a transcribed file to the list. */
export async function addFile(answer, image, xml, preview) {
  const file = { ...answer, image, xmlFile: xml };
  file.lines = answer.lines.map((line) => ({ ...line, file, recognized: line.text, confirmed: false, level: level(line) }));
  await openPicture(file, preview);
  const isFirst = files.length === 0;
  files.push(file);
  const title = document.createElement("li");
  title.className = "file";
  title.textContent = file.name;
  if (file.unknown_script) {
    const why = make("p", "why note");
    onLanguage(() => (why.textContent = t("unknownScript", file.model)));
    title.append(why);
  }
  list.append(title, ...file.lines.map(element));
  refresh();
  document.body.classList.add("working");
  document.querySelector("#work").hidden = false;
  if (isFirst || image.isDrawing) file.lines[0]?.input.focus();
}

export function removeAll() {
  files.length = 0;
  history = [];
  changed = false;
  list.replaceChildren();
  clearPicture();
  document.body.classList.remove("working");
  document.querySelector("#work").hidden = true;
}

/** Call a function with each line that is confirmed, and each one whose confirmation is undone or that is edited then. */
export function onDecision(listener) {
  listeners.push(listener);
}

export const unsaved = () => changed;

export function saved() {
  changed = false;
}

function level({ confidence, error }) {
  if (error || confidence < FAIR) return "poor";
  return confidence < GOOD ? "fair" : "good";
}

const make = (tag, className, properties = {}) => Object.assign(document.createElement(tag), { className, ...properties });

function element(line) {
  line.element = make("li", "line");
  line.element.dataset.level = line.level;
  line.number = make("span", "number");
  line.state = make("span", "state");
  const meta = make("div", "meta");
  meta.append(line.number, make("b", "", { textContent: line.error ? "" : percent(line.confidence) }), line.state);
  line.input = make("textarea", "", { value: line.text, rows: 1, dir: "auto", spellcheck: false, autocomplete: "off",
    autocapitalize: "off", enterKeyHint: "next" }); // a line of writing may take several rows on a phone
  widths.observe(line.input);
  line.button = make("button", "", { type: "button", textContent: "✓", tabIndex: -1 });
  const edit = make("div", "edit");
  edit.append(line.input, line.button);
  line.element.append(meta);
  if (line.box) {
    const strip = make("canvas", "strip", { owner: [line.file, line] });
    strip.addEventListener("click", () => line.input.focus());
    line.element.append(strip);
    visible.observe(strip);
  }
  line.element.append(edit);
  const doubts = doubtsOf(line);
  if (doubts) line.element.append(doubts);
  const why = line.error ?? line.note;
  if (why) line.element.append(make("p", line.error ? "why" : "why note", { textContent: why }));
  line.element.append(alternativesOf(line));
  line.input.addEventListener("focus", () => activate(line));
  line.input.addEventListener("input", () => change(line, line.input.value.replace(/\s*[\r\n]+\s*/g, " "), false));
  line.input.addEventListener("change", () => (line.typing = false));
  line.input.addEventListener("keydown", (event) => press(event, line));
  line.button.addEventListener("click", () => confirmAndGo(line));
  return line.element;
}

/** Return the words of a line that should be checked, each of which can be chosen, or null if there are none. */
function doubtsOf(line) {
  const places = [...line.recognized.matchAll(/\S+/g)];
  const unsure = line.words.map(({ confidence }, index) => ({ confidence, place: places[index] }))
    .filter(({ confidence, place }) => place && confidence < FAIR);
  if (!unsure.length || places.length === 1) return null; // a single word is the line
  const box = make("div", "doubts");
  for (const { confidence, place } of unsure) {
    const button = make("button", "", { type: "button", tabIndex: -1, title: percent(confidence), dir: "auto",
      textContent: place[0] });
    button.addEventListener("click", () => {
      line.input.focus();
      const start = line.text === line.recognized ? place.index : line.text.indexOf(place[0]);
      if (start >= 0) line.input.setSelectionRange(start, start + place[0].length);
    });
    box.append(button);
  }
  return box;
}

function alternativesOf(line) {
  const box = make("div", "alternatives");
  const others = line.alternatives.filter(({ text }) => text !== line.recognized).slice(0, 5);
  line.others = others.map(({ text }) => text);
  others.forEach(({ text, confidence }, index) => {
    const button = make("button", "", { type: "button", tabIndex: -1, title: percent(confidence), dir: "auto" });
    button.append(make("kbd", "", { textContent: index + 1 }), text);
    button.addEventListener("click", () => choose(line, index));
    box.append(button);
  });
  return box;
}

export function percent(confidence) {
  return `${Math.floor(100 * confidence)} %`; // 99.6 % is not certain
}

function activate(line) {
  list.querySelector(".active")?.classList.remove("active");
  line.element.classList.add("active");
  line.typing = false;
  showLine(line.file, line);
  line.element.scrollIntoView({ block: "nearest" });
}

/** Set the text and state of a line; what is typed in one go is one change. */
function change(line, text, confirmed) {
  if (!(line.typing && !confirmed)) history.push([line, line.text, line.confirmed]);
  line.typing = !confirmed;
  const withdrawn = line.confirmed && !confirmed; // the text that was confirmed is no longer what the person says
  set(line, text, confirmed);
  if (withdrawn) listeners.forEach((listener) => listener(line));
}

function set(line, text, confirmed) {
  changed = true;
  line.text = text;
  line.confirmed = confirmed;
  if (line.input.value !== text) line.input.value = text;
  fit(line.input);
  refresh();
}

function choose(line, index) {
  if (index >= line.others.length) return;
  line.typing = false;
  change(line, line.others[index], false);
  line.typing = false;
  line.input.focus();
}

function undo() {
  const last = history.pop();
  if (!last) return;
  const [line, text, confirmed] = last;
  line.typing = false;
  set(line, text, confirmed);
  line.input.focus();
  listeners.forEach((listener) => listener(line));
}

function confirmAndGo(line) {
  change(line, line.input.value, true);
  line.typing = false;
  listeners.forEach((listener) => listener(line));
  const all = files.flatMap((file) => file.lines);
  const next = all[all.indexOf(line) + 1] ?? all.find((one) => !one.confirmed);
  if (next) next.input.focus();
  else document.querySelector("#export button").focus();
}

function move(line, step) {
  const all = files.flatMap((file) => file.lines);
  all[all.indexOf(line) + step]?.input.focus();
}

function press(event, line) {
  if (event.isComposing) return; // Enter and arrows belong to the input method
  const digit = event.altKey && /^Digit[1-5]$/.test(event.code) && Number(event.code.at(-1));
  if (event.key === "Enter" && !event.shiftKey) confirmAndGo(line);
  else if (event.key === "ArrowDown") move(line, 1);
  else if (event.key === "ArrowUp" || event.key === "Enter") move(line, -1);
  else if (event.key === "Escape") undo();
  else if (digit) choose(line, digit - 1);
  else return;
  event.preventDefault();
}

export function refresh() {
  const all = files.flatMap((file) => file.lines);
  all.forEach((line, index) => {
    line.number.textContent = index + 1;
    line.input.ariaLabel = t("lineNumber", index + 1);
    line.button.ariaLabel = line.button.title = t("confirm");
    for (const one of [line.element, line.outline]) one.classList.toggle("confirmed", line.confirmed);
    line.state.textContent = line.confirmed ? t(line.stored === line.text ? "stored" : "confirmed") : line.text !== line.recognized ? t("edited") : "";
  });
  const confirmed = all.filter((line) => line.confirmed).length;
  const done = all.length > 0 && confirmed === all.length;
  progress.textContent = done ? t("allConfirmed", all.length) : t("progress", confirmed, all.length);
}

onLanguage(refresh);
