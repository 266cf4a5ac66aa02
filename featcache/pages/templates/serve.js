"use strict";

// Images that are dropped, pasted or chosen go to the server one a request, some at once: it puts
// those of concurrent requests through the encoder together. Whatever it answers becomes text.

const AT_ONCE = 6;
const TRIES = 60;
const drop = document.querySelector("#drop");
const input = document.querySelector("#files");
const list = document.querySelector("#answers");
const status = document.querySelector("#status");
const most = Number(drop.dataset.bytes);
const queue = [];
let busy = 0, done = 0, total = 0;

// Control characters, and those that turn text round, are shown as escapes.
const plain = text => String(text).replace(
  /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, c => `\\u{${c.codePointAt(0).toString(16)}}`);

function element(name, className, ...children) {
  const made = document.createElement(name);
  made.className = className;
  made.append(...children);
  return made;
}

function bar(share) {
  const space = "http://www.w3.org/2000/svg";
  const made = document.createElementNS(space, "svg");
  made.setAttribute("class", "bar");
  made.setAttribute("viewBox", "0 0 100 2");
  made.setAttribute("preserveAspectRatio", "none");
  made.setAttribute("aria-hidden", "true");
  for (const [name, width] of [["rail", 100], ["fill", 100 * share]]) {
    const part = document.createElementNS(space, "rect");
    part.setAttribute("class", name);
    part.setAttribute("width", width.toFixed(1));
    part.setAttribute("height", "2");
    made.append(part);
  }
  return made;
}

function preview(file) {
  const frame = element("div", "frame");
  const image = element("img", "");
  image.alt = plain(file.name);
  image.addEventListener("load", () => URL.revokeObjectURL(image.src));
  image.addEventListener("error", () => {
    URL.revokeObjectURL(image.src);
    image.replaceWith(element("p", "missing", element("span", "", "No preview")));
  });
  image.src = URL.createObjectURL(file);
  frame.append(image);
  return frame;
}

function verdict(found) {
  const [best] = found.candidates;
  if (found.rejected) return element("p", "verdict none", "None of these");
  if (found.set && found.set.length > 1)
    return element("p", "verdict unsure", `Not sure: one of ${found.set.length}`);
  return element("p", "verdict", plain(best.class));
}

function answer(tile, found) {
  const inside = new Set((found.set ?? found.candidates.slice(0, 1)).map(c => c.label));
  const rows = found.candidates.map(c => element(
    "div", inside.has(c.label) && !found.rejected ? "inside" : "outside",
    element("p", "line", element("span", "class", plain(c.class)),
      element("span", "cosine", `${(100 * c.probability).toFixed(1)} %`)),
    bar(c.probability)));
  tile.waits.replaceWith(verdict(found), ...rows);
}

function refuse(tile, sentence) {
  tile.waits.replaceWith(element("p", "verdict problem", plain(sentence)));
}

const pause = seconds => new Promise(resolve => setTimeout(resolve, 1000 * seconds));

async function send(tile) {
  if (tile.file.size > most) {
    refuse(tile, `It has more than ${most / 2 ** 20} MiB.`);
    return;
  }
  for (let tries = 0; tries < TRIES; tries++) {
    const form = new FormData();
    form.append("images", tile.file, tile.file.name || "image");
    const response = await fetch("predict", {method: "POST", body: form});
    if (response.status === 429) {
      await pause(Number(response.headers.get("Retry-After")) || 1);
      continue;
    }
    const said = await response.json();
    const found = said.predictions?.[0];
    if (response.ok && found) answer(tile, found);
    else refuse(tile, found ? `It ${found.problem}.` : said.detail);
    return;
  }
  refuse(tile, "The server stayed busy; drop it again later.");
}

async function work() {
  while (queue.length) {
    const tile = queue.shift();
    try {
      await send(tile);
    } catch {
      refuse(tile, "The server does not answer. Is it still running?");
    }
    done += 1;
    tell();
  }
}

function tell() {
  status.textContent = done < total ? `${done} of ${total} images`
    : `${total} ${total === 1 ? "image" : "images"}`;
}

function take(files) {
  const tiles = [...files].map(file => {
    const waits = element("p", "verdict waits", "…");
    const item = element("li", "tile", preview(file), waits, element("p", "where", plain(file.name)));
    return {file, waits, item};
  });
  list.prepend(...tiles.map(tile => tile.item));
  queue.push(...tiles);
  total += tiles.length;
  tell();
  while (busy < AT_ONCE && queue.length) {
    busy += 1;
    work().finally(() => { busy -= 1; });
  }
}

input.addEventListener("change", () => { take(input.files); input.value = ""; });
document.addEventListener("paste", event => take(event.clipboardData.files));
for (const name of ["dragover", "dragleave", "drop"])
  document.addEventListener(name, event => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragover");
    if (name === "drop") take(event.dataTransfer.files);
  });
