// Drawing a digit or a line with mouse, pen or finger; it is read whenever the pen rests.

import { transcribe } from "./api.js";
import { onLanguage, t } from "./i18n.js";
import { percent } from "./lines.js";

const PAUSE = 450; // milliseconds after which a drawing is read
const PEN = { digit: 0.07, line: 0.035 }; // width of a stroke, as a fraction of the height
const $ = (selector) => document.querySelector(selector);
const panel = $("#draw");
const canvas = $("#canvas");
const context = canvas.getContext("2d");
let kind = "digit";
let strokes = []; // each one a list of [x, y] as fractions of the height, since the canvas may change its size
let timer;
let request;
let latest; // the last reading and its picture
let count = 0;

/** Let the user draw what the given recognizers can read; `keep` takes a reading and its picture. */
export function startDrawing(models, alternatives, show, keep) {
  const recognizers = {
    digit: models.find((model) => model.single_characters),
    line: models.find((model) => !model.single_characters),
  };
  const buttons = { digit: $("#draw-digit"), line: $("#draw-line") };
  const choose = (name) => {
    kind = name;
    panel.classList.toggle("digit", kind === "digit");
    panel.classList.toggle("wide", kind === "line");
    for (const [one, button] of Object.entries(buttons)) {
      button.hidden = !recognizers[one];
      button.ariaPressed = one === kind;
    }
    reset();
  };
  const reset = () => {
    strokes = [];
    redraw();
    changed();
  };

  const changed = () => {
    clearTimeout(timer);
    request?.abort();
    latest = undefined;
    $("#keep").disabled = true;
    $("#stroke-undo").disabled = $("#stroke-clear").disabled = strokes.length === 0;
    $("#hint").hidden = strokes.length > 0;
    if (strokes.length) timer = setTimeout(read, PAUSE);
    else display();
  };

  const read = async () => {
    const blob = await new Promise((resolve) => canvas.toBlob(resolve));
    const image = new File([blob], `drawing-${count + 1}.png`, { type: "image/png" });
    image.isDrawing = true;
    request = new AbortController();
    try {
      const model = recognizers[kind];
      latest = [await transcribe(model.name, image, undefined, alternatives(model), request.signal), image];
      display(latest[0].lines[0]);
      $("#keep").disabled = false;
    } catch (error) {
      if (error.name !== "AbortError") show(error.message);
    }
  };

  const point = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.height, (event.clientY - box.top) / box.height];
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    clearTimeout(timer);
    strokes.push([point(event)]);
    redraw();
    $("#hint").hidden = true;
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!canvas.hasPointerCapture(event.pointerId)) return;
    strokes.at(-1).push(...(event.getCoalescedEvents?.() ?? [event]).map(point));
    redraw();
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, changed);

  for (const [name, button] of Object.entries(buttons)) button.addEventListener("click", () => choose(name));
  $("#stroke-undo").addEventListener("click", () => {
    strokes.pop();
    redraw();
    changed();
  });
  $("#stroke-clear").addEventListener("click", reset);
  $("#keep").addEventListener("click", async () => {
    count += 1;
    const [answer, image] = latest;
    reset();
    await keep(answer, image);
  });
  new ResizeObserver(redraw).observe(canvas);
  onLanguage(() => ($("#hint").textContent = t(kind === "digit" ? "hintDigit" : "hintLine")));
  choose(recognizers.digit ? "digit" : "line");
}

function redraw() {
  const height = 2 * canvas.clientHeight;
  $("#hint").textContent = t(kind === "digit" ? "hintDigit" : "hintLine");
  canvas.width = Math.max(1, 2 * canvas.clientWidth);
  canvas.height = Math.max(1, height);
  context.lineWidth = PEN[kind] * height;
  context.lineCap = context.lineJoin = "round";
  context.strokeStyle = "#14213d";
  for (const [first, ...others] of strokes) {
    context.beginPath();
    context.moveTo(first[0] * height, first[1] * height);
    for (const [x, y] of others.length ? others : [first]) context.lineTo(x * height, y * height);
    context.stroke();
  }
}

function display(line) {
  $("#reading strong").textContent = line?.text ?? "";
  const rows = line?.note ? [] : line?.alternatives ?? [];
  $("#reading ul").replaceChildren(...rows.map(({ text, confidence }) => {
    const row = document.createElement("li");
    const meter = Object.assign(document.createElement("meter"), { value: confidence, ariaLabel: text });
    const parts = [text, percent(confidence)].map((part) => Object.assign(document.createElement("span"), { textContent: part }));
    row.append(parts[0], meter, parts[1]);
    return row;
  }));
  if (line?.note) $("#reading strong").textContent = t("nothing");
}
