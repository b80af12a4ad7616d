"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const sheet = document.getElementById("sheet"), more = document.getElementById("more");
const filter = document.getElementById("filter"), clear = document.getElementById("clear");
const count = document.getElementById("count");
const AT_ONCE = 30;
// as html.py; joiners and selectors, which scripts need, stay
const CODED = /(?![\u200c\u200d\ufe00-\ufe0f])[\p{Cc}\p{Cs}\p{Cn}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/u;
const CODED_ALL = new RegExp(CODED, "gu");
let shown = 0, chosen = [], wanted = null;

function element(tag, style, text) {
  const made = document.createElement(tag);
  if (style) made.className = style;
  if (text !== undefined) write(made, text);
  return made;
}

// Append text as text, with the code of each character that has no picture.
function write(parent, text) {
  let start = 0;
  for (const found of text.matchAll(CODED_ALL)) {
    parent.append(text.slice(start, found.index));
    const code = document.createElement("span");
    code.className = "code";
    code.textContent = "U+" + found[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    parent.append(code);
    start = found.index + found[0].length;
  }
  parent.append(text.slice(start));
}

// [kind, reference, hypothesis] of each run of an edit script such as 5=1s2d
function runs(script, reference, hypothesis) {
  const left = Array.from(reference), right = Array.from(hypothesis), parts = [];
  let i = 0, j = 0;
  for (const [, size, kind] of script.matchAll(/(\d+)([=sdi])/g)) {
    const first = kind === "i" ? 0 : +size, second = kind === "d" ? 0 : +size;
    parts.push([kind, left.slice(i, i + first).join(""), right.slice(j, j + second).join("")]);
    i += first;
    j += second;
  }
  return parts;
}

// [reference, hypothesis] of adjacent edits
function edits(script, reference, hypothesis) {
  const found = [];
  let open = false;
  for (const [kind, before, after] of runs(script, reference, hypothesis)) {
    if (kind === "=") open = false;
    else if (open) { found.at(-1)[0] += before; found.at(-1)[1] += after; }
    else { found.push([before, after]); open = true; }
  }
  return found;
}

function marked(parts, side) {
  const text = element("div", "text");
  text.dir = "auto";
  for (const part of parts) {
    if (!part[side]) continue;
    if (part[0] === "=") write(text, part[side]);
    else text.append(element("mark", part[0], part[side].replaceAll(" ", "␣")));
  }
  if (!text.childNodes.length) text.append(element("span", "none", "(nothing)"));
  return text;
}

function row(tag, text) {
  const made = element("div", "row");
  made.append(tag, text);
  return made;
}

function card(line) {
  const [id, group, reference, read, picture] = line;
  const made = element("article", "line"), several = data.letters.length > 1;
  if (picture) {
    const image = document.createElement("img");
    image.alt = "picture of the line";
    image.loading = "lazy";
    image.src = picture;
    made.append(image);
  }
  const notes = [];
  read.forEach((one, run) => {
    if (!one) return;
    const parts = runs(one[3], reference, one[0]);
    const chip = several ? element("b", "chip s" + run % 6, data.letters[run]) : null;
    if (!several || !made.querySelector(".row")) made.append(row(element("span", "tag", "reference"),
      several ? plain(reference) : marked(parts, 1)));
    const tag = element("span", "tag");
    if (chip) tag.append(chip, " ");
    tag.append("read");
    made.append(row(tag, marked(parts, 2)));
    const characters = Array.from(reference).length;
    const missing = several && parts.some(part => part[0] === "d") ? `, missing: ${parts.filter(part => part[0] === "d")
      .map(part => part[1].replaceAll(" ", "␣")).join(" ")}` : "";
    notes.push(`${several ? data.letters[run] + ": " : ""}${one[2]} edit${one[2] === 1 ? "" : "s"} in ${characters} ` +
      `characters${characters ? ` (CER ${(100 * one[2] / characters).toFixed(1)} %)` : ""}, confidence ` +
      `${(100 * one[1]).toFixed(1)} %${missing}`);
  });
  for (const note of notes) made.append(element("div", "small", note));
  made.append(element("div", "small", group && group !== id ? `${id} · ${group}` : id));
  return made;
}

function plain(text) {
  const made = element("div", "text", text);
  made.dir = "auto";
  if (!text) made.append(element("span", "none", "(nothing)"));
  return made;
}

function matches(line, words) {
  const [id, group, reference, read] = line;
  if (wanted) {
    const one = read[wanted.run];
    if (!one || !edits(one[3], reference, one[0]).some(([before, after]) => before === wanted.reference &&
      after === wanted.hypothesis)) return false;
  }
  if (!words) return true;
  return [id, group, reference, ...read.map(one => one ? one[0] : "")].some(text => text.toLowerCase().includes(words));
}

function select() {
  const kind = document.querySelector("input[name=kind]:checked").value;
  const words = filter.value.toLowerCase();
  // an edit or a word is looked for in all lines, since the others are only examples
  const all = kind === "all" || wanted || words;
  const lines = all && kind !== "all" ? order(kind) : kind === "all" ? data.lines : data.sets[kind].map(i => data.lines[i]);
  chosen = lines.filter(line => matches(line, words));
  shown = 0;
  sheet.replaceChildren();
  clear.hidden = !wanted;
  if (wanted) {
    clear.replaceChildren();
    write(clear, `✕ ${wanted.reference.replaceAll(" ", "␣") || "∅"} read as ${wanted.hypothesis.replaceAll(" ", "␣") || "∅"}`);
    clear.setAttribute("aria-label", "Show lines with any edits");
  }
  show();
}

// All lines, those of a kind first.
function order(kind) {
  const first = new Set(data.sets[kind]);
  return [...data.sets[kind].map(i => data.lines[i]), ...data.lines.filter((line, i) => !first.has(i))];
}

function show() {
  const next = chosen.slice(shown, shown + AT_ONCE);
  sheet.append(...next.map(card));
  shown += next.length;
  more.hidden = shown >= chosen.length;
  const format = number => number.toLocaleString("en");
  count.textContent = chosen.length ? `${format(shown)} of ${format(chosen.length)} lines shown` +
    ` (${format(data.lines.length)} in all).` : "No line matches.";
}

function sort(heading) {
  const table = heading.closest("table"), body = table.tBodies[0], column = heading.cellIndex;
  const value = row => row.cells[column].dataset.value;
  const rows = [...body.rows], numeric = rows.some(row => value(row) !== undefined);
  const before = heading.getAttribute("aria-sort");
  const falling = before ? before === "ascending" : numeric;
  const compare = numeric ? (a, b) => (value(a) ?? -1) - (value(b) ?? -1)
    : (a, b) => a.cells[column].textContent.localeCompare(b.cells[column].textContent, "en", { numeric: true });
  rows.sort((a, b) => falling ? compare(b, a) : compare(a, b));
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
  body.append(...rows);
}

document.querySelectorAll("table.data th button").forEach(button =>
  button.addEventListener("click", () => sort(button.closest("th"))));
document.querySelectorAll("button.edit").forEach(button => button.addEventListener("click", () => {
  const [reference, hypothesis] = data.edits[+button.dataset.run][+button.dataset.edit];
  wanted = { run: +button.dataset.run, reference, hypothesis };
  select();
  document.getElementById("lines").scrollIntoView();
  clear.focus({ preventScroll: true });
}));
document.querySelectorAll("input[name=kind]").forEach(input => input.addEventListener("change", select));
document.querySelector("form.controls").addEventListener("submit", event => event.preventDefault());
filter.addEventListener("input", select);
clear.addEventListener("click", () => { wanted = null; select(); filter.focus(); });
more.addEventListener("click", () => {
  const start = sheet.children.length;
  show();
  const first = sheet.children[start];
  if (first) { first.tabIndex = -1; first.focus({ preventScroll: true }); }
});
select();
