"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const TEXTS = {
  en: {
    other: "中文", skip: "Skip to the lines", heading: "Label errors",
    about: "The {0} most suspicious of {1} references, most suspicious first. Each was judged by a recognizer that was trained without it. Confirm those that are right and correct the others; then save the corrections and use them with data.texts=FILE.",
    keys: "Enter: save and go on · Alt+Enter: take what was read and go on · ↑ ↓: move · Esc: back to the reference",
    progress: "{0} of {1} checked, {2} corrected", save: "Save corrections ({0})", reference: "reference", read: "read as",
    keep: "It is right", take: "Take what was read", text: "Text of line {0}", confirmed: "✓ right", corrected: "✎ corrected",
    score: "score {0}", nothing: "nothing",
  },
  zh: {
    other: "English", skip: "跳到文字行", heading: "标注错误",
    about: "在 {1} 行参考文本中，最可疑的 {0} 行，最可疑的在前。每一行都由没有用它训练过的模型判断。请确认正确的，改正错误的，然后保存修改，用 data.texts=FILE 使用。",
    keys: "Enter：保存并继续 · Alt+Enter：采用识别结果并继续 · ↑ ↓：移动 · Esc：恢复参考文本",
    progress: "已检查 {0} / {1} 行，改正 {2} 行", save: "保存修改（{0}）", reference: "参考文本", read: "识别为",
    keep: "参考文本正确", take: "采用识别结果", text: "第 {0} 行的文本", confirmed: "✓ 正确", corrected: "✎ 已改正",
    score: "得分 {0}", nothing: "空",
  },
};
const STORED = `htr-label-errors ${data.title} ${data.total} ${data.lines[0]?.id}`;
const byId = (id) => document.getElementById(id);
const list = byId("list");
let language = navigator.language.startsWith("zh") ? "zh" : "en";
let saved = {}; // text of each checked line, by its id

const t = (key, ...values) => TEXTS[language][key].replace(/\{(\d)\}/g, (_, place) => values[place]);
const make = (tag, className, properties = {}) => Object.assign(document.createElement(tag), { className, ...properties });
const oneLine = (text) => text.replace(/\s*[\t\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+\s*/g, " ").trim();

try { // a page that was opened from disk may have no storage
  saved = JSON.parse(localStorage.getItem(STORED)) ?? {};
} catch { saved = {}; }

function store() {
  try { localStorage.setItem(STORED, JSON.stringify(saved)); } catch { /* saved as a file only */ }
}

function marked(line, side) {
  const text = make("div", "text", { dir: "auto" });
  for (const [same, ...both] of line.parts) {
    if (same) text.append(both[side]);
    else text.append(make("mark", both[side] ? "" : "none", { textContent: both[side] }));
  }
  return text;
}

function card(line, index) {
  const box = make("li", "card");
  line.box = box;
  line.state = make("b", "");
  line.score_ = make("span", "");
  const meta = make("div", "meta");
  meta.append(make("span", "", { textContent: index + 1 }), line.state, line.score_, make("span", "", { textContent: line.id }));
  const pair = make("div", "pair");
  line.tags = [make("span", "tag"), make("span", "tag")];
  pair.append(line.tags[0], marked(line, 0), line.tags[1], marked(line, 1));
  line.input = make("textarea", "", { value: saved[line.id] ?? line.text, rows: 1, dir: "auto", spellcheck: false,
    autocomplete: "off", enterKeyHint: "next" });
  line.keep = make("button", "", { type: "button", tabIndex: -1 });
  line.take = make("button", "", { type: "button", tabIndex: -1 });
  const actions = make("div", "actions");
  actions.append(line.keep, line.take);
  box.append(meta);
  if (line.image) box.append(make("img", "", { src: line.image, alt: "", loading: "lazy" }));
  box.append(pair, line.input, actions);
  line.keep.addEventListener("click", () => decide(line, line.text));
  line.take.addEventListener("click", () => decide(line, line.reading));
  line.input.addEventListener("input", () => fit(line.input));
  line.input.addEventListener("focus", () => box.scrollIntoView({ block: "nearest" }));
  line.input.addEventListener("keydown", (event) => press(event, line));
  return box;
}

function fit(input) {
  input.style.height = "auto";
  input.style.height = `${input.scrollHeight + 2}px`;
}

function decide(line, text) {
  const kept = oneLine(text) || line.text; // a line without text would not be read back
  line.input.value = kept;
  fit(line.input);
  saved[line.id] = kept;
  store();
  refresh();
  move(line, 1);
}

function move(line, step) {
  const next = data.lines[data.lines.indexOf(line) + step];
  if (next) next.input.focus();
  else if (step > 0) byId("save").focus();
}

function press(event, line) {
  if (event.isComposing) return; // Enter and arrows belong to the input method
  if (event.key === "Enter") decide(line, event.altKey ? line.reading : line.input.value);
  else if (event.key === "ArrowDown") move(line, 1);
  else if (event.key === "ArrowUp") move(line, -1);
  else if (event.key === "Escape") {
    line.input.value = line.text;
    delete saved[line.id];
    store();
    refresh();
    fit(line.input);
  } else return;
  event.preventDefault();
}

const corrected = () => data.lines.filter((line) => line.id in saved && saved[line.id] !== line.text);

function refresh() {
  document.documentElement.lang = language;
  document.querySelectorAll("[data-text]").forEach((node) => (node.textContent = t(node.dataset.text)));
  byId("about").textContent = t("about", data.lines.length, data.total);
  byId("keys").textContent = t("keys");
  byId("language").textContent = t("other");
  byId("progress").textContent = t("progress", data.lines.filter((line) => line.id in saved).length, data.lines.length,
    corrected().length);
  byId("save").textContent = t("save", corrected().length);
  byId("save").disabled = !corrected().length;
  data.lines.forEach((line, index) => {
    const state = !(line.id in saved) ? "" : saved[line.id] === line.text ? "confirmed" : "corrected";
    line.box.className = `card ${state}`;
    line.state.textContent = state && t(state);
    line.score_.textContent = t("score", line.score);
    line.tags[0].textContent = t("reference");
    line.tags[1].textContent = t("read");
    line.input.ariaLabel = t("text", index + 1);
    line.keep.textContent = t("keep");
    line.take.textContent = t("take");
  });
}

byId("save").addEventListener("click", () => {
  const texts = { ...data.known, ...Object.fromEntries(corrected().map(({ id }) => [id, saved[id]])) };
  const rows = Object.entries(texts).map(([id, text]) => `${id}\t${text}\n`);
  const url = URL.createObjectURL(new Blob(["id\ttext\n", ...rows], { type: "text/tab-separated-values" }));
  make("a", "", { href: url, download: "corrected.tsv" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
});
byId("language").addEventListener("click", () => { language = language === "en" ? "zh" : "en"; refresh(); });
list.append(...data.lines.map(card));
refresh();
data.lines.forEach((line) => fit(line.input));
data.lines.find((line) => !(line.id in saved))?.input.focus();
