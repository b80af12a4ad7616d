// Saves the lines as text, TSV or JSON lines, or each page as PAGE, ALTO, hOCR or PDF.

import { call } from "./api.js";
import { t } from "./i18n.js";
import { files, saved } from "./lines.js";

const TYPES = { text: ["txt", "text/plain"], tsv: ["tsv", "text/tab-separated-values"], jsonl: ["jsonl", "application/jsonl"] };
const PAGES = { page: "xml", alto: "xml", hocr: "hocr", pdf: "pdf" };
const stem = (name) => name.replace(/\.[^.]*$/, "");
const round = (confidence) => (confidence === null ? null : Number(confidence.toFixed(4)));

export function startExport(show) {
  for (const button of document.querySelectorAll("[data-format]")) {
    button.addEventListener("click", async () => {
      try {
        const { format } = button.dataset;
        const names = format in PAGES ? await savePages(format) : [saveList(format)];
        saved();
        show(t("exported", names.join(", ")), true);
      } catch (error) {
        show(error.message);
      }
    });
  }
}

function saveList(format) {
  const [ending, type] = TYPES[format];
  const name = `${files.length === 1 ? stem(files[0].name) : "transcriptions"}.${ending}`;
  download(new Blob([WRITERS[format]()], { type: `${type};charset=utf-8` }), name);
  return name;
}

const WRITERS = {
  text: () => files.map((file) => file.lines.map((line) => `${line.text}\n`).join("")).join("\n"),
  // the columns and fields of `htr transcribe`; a confirmed line is certain
  tsv: () => rows((file, line) => {
    const name = isOnPage(file, line) ? `${file.xml ?? file.name}#${line.id}` : file.name;
    return [name, line.text, certainty(line)?.toFixed(4) ?? ""].map((part) => part.replaceAll("\t", "\\t")).join("\t");
  }),
  jsonl: () => rows((file, line) => JSON.stringify({
    file: file.xml ?? file.name, line: isOnPage(file, line) ? line.id : null, text: line.text, confidence: round(line.confidence),
    ...(line.text !== line.recognized && { recognized: line.recognized }), confirmed: line.confirmed,
    ...(line.error && { error: line.error }),
  })),
};

function rows(write) {
  return files.flatMap((file) => file.lines.map((line) => `${write(file, line)}\n`)).join("");
}

/** Return whether a line is one of a page, with or without XML. */
function isOnPage(file, line) {
  return Boolean(file.xml || line.baseline?.length);
}

function certainty(line) {
  return line.confirmed ? 1 : line.confidence;
}

async function savePages(format) {
  const names = [];
  for (const file of files) {
    const form = new FormData();
    const source = file.xmlFile ?? file.image;
    form.append("file", source, source.name);
    form.append("format", format);
    if (file.xmlFile) form.append("image", file.image, file.image.name);
    if (file.model) form.append("model", file.model);
    const read = file.lines.filter((line) => !line.error || line.text);
    form.append("lines", JSON.stringify(read.map((line) => ({
      id: line.id, text: line.text, confidence: certainty(line) ?? 1,
      ...(!file.xml && line.baseline?.length && { polygon: line.polygon, baseline: line.baseline, region: line.region }),
    }))));
    const response = await call("/api/export", form);
    names.push(`${stem(source.name)}.${PAGES[format]}`);
    download(await response.blob(), names.at(-1));
  }
  return names;
}

function download(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
