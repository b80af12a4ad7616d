// The texts of the page, in English and Chinese.

const TEXTS = {
  en: {
    other: "中文", recognizer: "Recognizer", readImage: "Read an image",
    readImageHelp: "An image of a handwritten page, line or digit, or a page together with its PAGE or ALTO file.",
    reads: "{0} reads {1}.", unknownScript: "Low confidence: perhaps in a script that {0} does not read, or hard to read.",
    chooseFiles: "Choose files", orDrop: "or drop or paste them anywhere", draw: "Draw", digit: "Digit", line: "Line",
    canvas: "Area to draw on", hintDigit: "Draw a digit here", hintLine: "Write a line here", undo: "Undo",
    clear: "Clear", keep: "Add to the lines", addFiles: "Add files", export: "Export", text: "Text",
    removeAll: "Remove all", zoomIn: "Enlarge", zoomOut: "Reduce", zoomFit: "Fit", ok: "OK",
    private: "Images are sent to this server only, and are not stored.",
    privateCollected: "Images are sent to this server only. Lines that you confirm are stored there for training.",
    stored: "✓ stored", notStored: "Not stored: {0}", corrections: "Corrections", yourName: "Your name",
    waiting: "Corrected lines that wait for training: {0}", collected: "Lines collected: {0}",
    disagree: "Lines left out because texts contradict each other: {0}", noTraining: "The recognizer has not been trained on them yet.",
    promoted: "Last training ({0}): better, so it is version {1} now.", refused: "Last training ({0}) refused: {1}",
    gainNew: "Errors in corrections it has not seen: {0} → {1}", gainOld: "Errors in old data: {0} → {1}", close: "Close",
    tokenNeeded: "Enter the token that htr serve printed.", confirmed: "✓ confirmed", edited: "edited",
    confirm: "Confirm this line", lineNumber: "Line {0}", progress: "{0} of {1} lines confirmed",
    allConfirmed: "All {0} lines confirmed. Export them.", nothing: "no writing found",
    leave: "Remove all lines? Corrections that were not exported are lost.",
    imageMissing: "{0}: choose the image of the page together with its XML file",
    tooLarge: "{0}: larger than {1} MB; scale it down or save it as JPEG",
    failed: "The server cannot be reached. Is htr serve still running?", exported: "Saved {0}",
    keys: "{Enter} confirm, next line · {↑} {↓} or {Tab} move · {Alt}+{1}–{5} alternatives · {Esc} undo",
  },
  zh: {
    other: "English", recognizer: "识别模型", readImage: "识别图片",
    readImageHelp: "一页或一行手写文字、一个数字的图片，或整页图片及其 PAGE 或 ALTO 文件。",
    reads: "{0} 可以识别：{1}。", unknownScript: "置信度低：这一页可能是 {0} 不认识的文字，或字迹难以辨认。",
    chooseFiles: "选择文件", orDrop: "也可以把文件拖放或粘贴到页面上", draw: "手写", digit: "数字", line: "一行文字",
    canvas: "书写区域", hintDigit: "在这里写一个数字", hintLine: "在这里写一行字", undo: "撤销",
    clear: "清除", keep: "加入列表", addFiles: "添加文件", export: "导出", text: "文本",
    removeAll: "全部移除", zoomIn: "放大", zoomOut: "缩小", zoomFit: "适合宽度", ok: "确定",
    private: "图片只发送到本服务器，不会被保存。",
    privateCollected: "图片只发送到本服务器。确认过的行会保存在服务器上，用于训练。",
    stored: "✓ 已保存", notStored: "未保存：{0}", corrections: "修改记录", yourName: "你的名字",
    waiting: "等待训练的修改行数：{0}", collected: "已收集的行数：{0}",
    disagree: "因内容互相矛盾而未使用的行数：{0}", noTraining: "识别模型还没有用这些行训练过。",
    promoted: "上次训练（{0}）：效果更好，现为版本 {1}。", refused: "上次训练（{0}）未采用：{1}",
    gainNew: "未见过的修改行的错误率：{0} → {1}", gainOld: "旧数据的错误率：{0} → {1}", close: "关闭",
    tokenNeeded: "请输入 htr serve 显示的令牌。", confirmed: "✓ 已确认", edited: "已修改",
    confirm: "确认这一行", lineNumber: "第 {0} 行", progress: "已确认 {0} / {1} 行",
    allConfirmed: "全部 {0} 行已确认，可以导出。", nothing: "没有找到文字",
    leave: "移除所有行？未导出的修改将丢失。",
    imageMissing: "{0}：请同时选择该页的图片和 XML 文件",
    tooLarge: "{0}：超过 {1} MB，请缩小图片或另存为 JPEG",
    failed: "无法连接服务器。htr serve 是否仍在运行？", exported: "已保存 {0}",
    keys: "{Enter} 确认并到下一行 · {↑} {↓} 或 {Tab} 移动 · {Alt}+{1}–{5} 候选 · {Esc} 撤销",
  },
};
const STORED = "htr-language";
const listeners = [];
let language = stored() ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");

function stored() {
  try {
    const name = localStorage.getItem(STORED);
    return name in TEXTS ? name : undefined;
  } catch {
    return undefined; // storage is switched off
  }
}

export function t(key, ...values) {
  return TEXTS[language][key].replace(/\{(\d)\}/g, (all, index) => values[index] ?? all);
}

/** Return the names of scripts and languages, given by their codes, such as Latn and fr. */
export function named(type, codes) {
  const names = new Intl.DisplayNames([language === "zh" ? "zh-CN" : "en"], { type });
  return codes.map((code) => names.of(code)).join(language === "zh" ? "、" : ", ");
}

/** Call a function now and whenever the language changes. */
export function onLanguage(listener) {
  listeners.push(listener);
  listener();
}

export function switchLanguage() {
  language = language === "en" ? "zh" : "en";
  try {
    localStorage.setItem(STORED, language);
  } catch {
    // the choice lasts as long as the page
  }
  listeners.forEach((listener) => listener());
}

onLanguage(() => {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const element of document.querySelectorAll("[data-i18n]")) element.textContent = t(element.dataset.i18n);
  for (const element of document.querySelectorAll("[data-i18n-label]")) {
    element.ariaLabel = element.title = t(element.dataset.i18nLabel);
  }
  const keys = t("keys").split(/\{([^}]*)\}/).map((part, index) => {
    if (index % 2 === 0) return part;
    const key = document.createElement("kbd");
    key.textContent = part;
    return key;
  });
  document.querySelector("#keys").replaceChildren(...keys);
});
