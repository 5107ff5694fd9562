"use strict";
// Similarity of one patch to all patches of all images, worked out from the features that the page carries.
const told = JSON.parse(document.getElementById("features").textContent);
const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
const table = bytes(told.table);
const size = told.scale.length;
const scale = Float32Array.from(told.scale);
const images = told.images.map((image, number) => {
  const numbers = new Int16Array(bytes(image.codes).buffer);
  const stage = document.getElementById("stage-" + number);
  return {
    ...image, stage, features: Float32Array.from(numbers, (value, at) => value * scale[at % size]),
    canvas: stage.querySelector("canvas"), frame: stage.querySelector(".patch"), values: null,
  };
});
const output = document.getElementById("chosen");
let chosen = { image: 0, patch: 0 };

function compared(image, query) {
  const count = image.rows * image.columns, values = new Float32Array(count);
  for (let patch = 0; patch < count; patch++) {
    let sum = 0;
    for (let at = 0; at < size; at++) sum += image.features[patch * size + at] * query[at];
    values[patch] = sum;
  }
  return values;
}

function paint(image, low) {
  const context = image.canvas.getContext("2d"), pixels = context.createImageData(image.columns, image.rows);
  image.values.forEach((value, patch) => {
    const share = Math.min(1, Math.max(0, (value - low) / Math.max(1 - low, 1e-6))), entry = 3 * Math.round(255 * share);
    pixels.data.set([table[entry], table[entry + 1], table[entry + 2], 255], 4 * patch);
  });
  context.putImageData(pixels, 0, 0);
}

const place = (image, patch) => `row ${Math.floor(patch / image.columns)}, column ${patch % image.columns}`;

function select(number, patch, remember) {
  const own = images[number];
  if (!own || !(patch >= 0 && patch < own.rows * own.columns)) return;
  chosen = { image: number, patch };
  const query = own.features.subarray(patch * size, (patch + 1) * size);
  let low = 1;
  for (const image of images) {
    image.values = compared(image, query);
    for (const value of image.values) low = Math.min(low, value);
  }
  images.forEach((image, other) => {
    paint(image, low);
    image.frame.style.display = other === number ? "block" : "none";
    const what = `similarity to ${place(own, patch)} of ${own.name}`;
    image.stage.setAttribute("aria-label", `${image.name}: ${what}; arrow keys move the patch`);
  });
  Object.assign(own.frame.style, {
    left: 100 * (patch % own.columns) / own.columns + "%", width: 100 / own.columns + "%",
    top: 100 * Math.floor(patch / own.columns) / own.rows + "%", height: 100 / own.rows + "%",
  });
  document.getElementById("low").textContent = low.toFixed(2);
  output.textContent = `${own.name}: ${place(own, patch)}`;
  if (remember) history.replaceState(null, "", `#image=${number}&patch=${patch}`);
}

function under(event, image) {
  const box = image.stage.getBoundingClientRect();
  const column = Math.floor((event.clientX - box.left) / box.width * image.columns);
  const row = Math.floor((event.clientY - box.top) / box.height * image.rows);
  const inside = column >= 0 && row >= 0 && column < image.columns && row < image.rows;
  return inside ? row * image.columns + column : -1;
}

images.forEach((image, number) => {
  image.stage.addEventListener("click", event => select(number, under(event, image), true));
  image.stage.addEventListener("pointermove", event => {
    const patch = under(event, image);
    image.stage.title = patch < 0 ? "" : `${place(image, patch)}: similarity ${image.values[patch].toFixed(2)}`;
  });
  image.stage.addEventListener("keydown", event => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], Enter: [0, 0], " ": [0, 0] }[event.key];
    if (!step) return;
    event.preventDefault();
    const from = chosen.image === number ? chosen.patch : image.start;
    const row = Math.floor(from / image.columns) + step[0], column = from % image.columns + step[1];
    if (row >= 0 && column >= 0 && row < image.rows && column < image.columns) select(number, row * image.columns + column, true);
  });
});

document.getElementById("cover").addEventListener("input", event =>
  document.documentElement.style.setProperty("--cover", event.target.value / 100));

// Each image is in the page once; it lies under its maps, too.
document.querySelectorAll("[data-under]").forEach(stack => {
  stack.style.backgroundImage = `url(${document.getElementById(stack.dataset.under).src})`;
});

function follow() {
  const asked = new URLSearchParams(location.hash.slice(1));
  if (asked.has("image") || asked.has("patch")) select(Number(asked.get("image")), Number(asked.get("patch")), false);
}
select(0, images[0].start, false);
follow();
addEventListener("hashchange", follow);
