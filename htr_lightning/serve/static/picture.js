// The picture of a page or line, with the outlines of its lines.

const SVG = "http://www.w3.org/2000/svg";
const STEP = 1.5; // of the zoom
const MAX_ZOOM = 8;
const viewport = document.querySelector("#viewport");
const sheet = document.querySelector("#sheet");
let shown;
let zoom = 1;

/** Load the picture of a file, and create its outlines. */
export async function openPicture(file, preview) {
  const image = new Image();
  image.alt = file.name;
  image.src = URL.createObjectURL(file.image);
  try {
    await image.decode();
  } catch {
    image.src = await preview(file.image); // a format that the browser does not know
    await image.decode();
  }
  // some programs draw lines on the stored pixels, without the rotation that the camera noted
  const wide = (width, height) => Math.sign(width - height);
  if (wide(image.naturalWidth, image.naturalHeight) === -wide(file.width, file.height)) image.className = "stored";
  const overlay = document.createElementNS(SVG, "svg");
  overlay.setAttribute("viewBox", `0 0 ${file.width} ${file.height}`);
  overlay.setAttribute("preserveAspectRatio", "none");
  for (const line of file.lines) {
    line.outline = document.createElementNS(SVG, "polygon");
    line.outline.setAttribute("points", line.polygon.map((point) => point.join()).join(" "));
    line.outline.dataset.level = line.level;
    line.outline.addEventListener("click", () => line.input.focus());
    overlay.append(line.outline);
  }
  file.picture = image;
  file.overlay = overlay;
}

/** Show the picture of a file, and scroll to one of its lines. */
export function showLine(file, line) {
  if (shown !== file) {
    shown = file;
    sheet.replaceChildren(file.picture, file.overlay);
    setZoom(1);
  }
  sheet.querySelector(".active")?.classList.remove("active");
  line.outline.classList.add("active");
  line.outline.parentNode.append(line.outline); // above its neighbours
  scrollTo(line);
}

export function clearPicture() {
  shown = undefined;
  sheet.replaceChildren();
}

function scrollTo(line) {
  if (!line.box) return;
  const scale = sheet.clientWidth / shown.width;
  const [left, top, right, bottom] = line.box.map((side) => side * scale);
  viewport.scrollTo({
    left: right - left < viewport.clientWidth ? (left + right - viewport.clientWidth) / 2 : left - 8,
    top: (top + bottom - viewport.clientHeight) / 2,
  });
}

function setZoom(value) {
  zoom = Math.min(MAX_ZOOM, Math.max(1, value));
  sheet.style.width = `${100 * zoom}%`;
}

for (const button of document.querySelectorAll("[data-zoom]")) {
  button.addEventListener("click", () => {
    setZoom({ in: zoom * STEP, out: zoom / STEP, fit: 1 }[button.dataset.zoom]);
    const active = shown?.lines.find((line) => line.outline.classList.contains("active"));
    if (active) scrollTo(active);
  });
}

/** Draw the part of the picture that contains a line. */
export function drawStrip(canvas, file, line) {
  const [left, top, right, bottom] = line.box;
  const scale = file.picture.naturalWidth / (file.picture.className ? file.height : file.width);
  const size = Math.min(1, 112 / (bottom - top), 1400 / (right - left));
  canvas.width = Math.max(1, Math.round((right - left) * size));
  canvas.height = Math.max(1, Math.round((bottom - top) * size));
  const [x, y, width, height] = [left, top, right - left, bottom - top].map((side) => side * scale);
  canvas.getContext("2d").drawImage(file.picture, x, y, width, height, 0, 0, canvas.width, canvas.height);
}
