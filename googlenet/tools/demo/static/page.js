// Sends a picture to the server and shows the answer, without any library.

import { byId, make, percent, signed } from './dom.js';
import { offer, showMap } from './map.js';
import { stage } from './stages.js';

let about = null;
let last = null; // picture and true class, sent again when light and dark are swapped
let latest = 0; // number of the last request; answers to older ones are ignored
let answer = null;
let chosen = 0;

async function start() {
  about = await (await fetch('about')).json();
  const [size, , channels] = about.size;
  byId('about').textContent =
    `${about.variant}, trained on ${about.data} for ` +
    `${about.step.toLocaleString('en')} steps: ${about.classes} classes, ` +
    `images of ${size} x ${size} pixels, ${channels === 1 ? 'grey' : 'colour'}`;
  const isBright = ['fashion_mnist', 'mnist'].includes(about.data);
  byId('invert-help').hidden = !isBright;
  byId('examples-box').hidden = !about.examples.length;
  offer(about.methods, () => answer && showChosen());
  byId('likes-help').hidden = !about.likes;
  about.examples.forEach((name, i) => {
    const image = make('img', { src: `examples/${i}`, alt: '' });
    const button = make('button', { type: 'button', title: name }, image);
    button.setAttribute('aria-label', `Test image ${i + 1}: ${name}`);
    button.onclick = async () =>
      sendAndLook(await (await fetch(`examples/${i}`)).blob(), name);
    byId('examples').append(button);
  });
}

// The result of an older picture would be taken for that of the one that failed.
function fail(text) {
  answer = last = null;
  byId('result').hidden = true;
  byId('truth').textContent = byId('status').textContent = '';
  byId('error').textContent = text;
  byId('error').hidden = false;
  byId('output').removeAttribute('aria-busy');
}

async function send(picture, trueClass = '') {
  const number = ++latest;
  if (picture.size > about.max_bytes) {
    const mib = about.max_bytes / 2 ** 20;
    fail(`The picture is larger than ${mib} MiB: make it smaller.`);
    return;
  }
  byId('error').hidden = true;
  byId('status').textContent = 'Computing …';
  byId('output').setAttribute('aria-busy', 'true');
  const invert = byId('invert').checked ? '?invert=1' : '';
  const sent = { picture, trueClass, invert };
  last = sent;
  let reply;
  let body;
  try {
    reply = await fetch(`answer${invert}`, { method: 'POST', body: picture });
    body = await reply.json();
  } catch {
    if (number === latest) fail('The demo does not answer: is it still running?');
    return;
  }
  if (number !== latest) return;
  if (!reply.ok) {
    fail(body.error);
    return;
  }
  answer = { ...body, sent };
  chosen = 0;
  show();
}

// Returns the map of a class of the picture that was answered.
async function ask({ sent }, method, label) {
  let reply;
  let body;
  try {
    reply = await fetch(`explain/${method}/${label}${sent.invert}`, {
      method: 'POST',
      body: sent.picture,
    });
    body = await reply.json();
  } catch {
    throw new Error('The demo does not answer: is it still running?');
  }
  if (!reply.ok) throw new Error(body.error);
  return body;
}

// Scrolls to the result, which is below the input on a narrow screen. Drawing
// calls `send` instead, so that the canvas stays in view.
async function sendAndLook(picture, trueClass) {
  await send(picture, trueClass);
  if (matchMedia('(max-width: 52rem)').matches) byId('output').scrollIntoView();
}

function show() {
  const best = answer.classes[0];
  byId('status').textContent = `${best.name}, ${percent(best.probability)}`;
  const { trueClass } = last;
  byId('truth').textContent =
    trueClass && `True class: ${trueClass}${trueClass === best.name ? '' : ', so this is an error'}`;
  byId('output').removeAttribute('aria-busy');
  byId('result').hidden = false;
  document.querySelectorAll('.seen').forEach((image) => {
    image.src = answer.seen;
  });
  byId('classes').replaceChildren(...answer.classes.map(classButton));
  byId('stages').replaceChildren(...answer.stages.map((entry) => stage(entry, answer.seen, about.likes)));
  showChosen();
}

function classButton(entry, index) {
  const bar = make('span', { className: 'bar' });
  bar.style.width = `${100 * entry.probability}%`;
  const button = make(
    'button',
    { type: 'button' },
    bar,
    make('span', { textContent: entry.name }),
    make('span', {
      className: 'number',
      textContent: percent(entry.probability),
    }),
  );
  button.onclick = () => {
    chosen = index;
    showChosen();
  };
  return make('li', {}, button);
}

function showChosen() {
  const entry = answer.classes[chosen];
  byId('classes').querySelectorAll('button').forEach((button, i) => {
    button.setAttribute('aria-pressed', String(i === chosen));
  });
  byId('map-title').textContent = `Where it looks: ${entry.name}`;
  showMap(answer, entry, ask);
  byId('branch-text').textContent = answer.blocks.length
    ? `Drop of the logit of ${entry.name} when the branch is set to zero: ` +
      '+ is evidence for the class, − against.'
    : 'This network has no blocks that concatenate branches.';
  const effects = answer.blocks.flatMap((block) =>
    block.branches.map((branch) => Math.abs(branch.effects[chosen])),
  );
  const largest = Math.max(...effects, 1e-12);
  byId('blocks').replaceChildren(
    ...answer.blocks.map((block) => blockRow(block, largest)),
  );
}

function blockRow(block, largest) {
  const cells = block.branches.map((branch) => {
    const effect = branch.effects[chosen];
    const bar = make('span', { className: `bar ${effect < 0 ? 'against' : 'for'}` });
    bar.style.width = `${(100 * Math.abs(effect)) / largest}%`;
    const cell = make(
      'div',
      { className: 'cell' },
      bar,
      make('small', { textContent: branch.name.replaceAll('conv_', '') }),
      make('span', { className: 'number', textContent: signed(effect) }),
    );
    cell.setAttribute('role', 'cell');
    return cell;
  });
  const name = make('div', { textContent: block.name });
  name.setAttribute('role', 'rowheader');
  const row = make('div', { className: 'block' }, name, ...cells);
  row.setAttribute('role', 'row');
  return row;
}

// Drawing, in white on black like the images of MNIST and Fashion-MNIST.
const canvas = byId('draw');
const context = canvas.getContext('2d');
const pen = { x: 140, y: 140, down: false };
let pause = 0;

function clear() {
  context.fillStyle = '#000';
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.strokeStyle = '#fff';
  context.lineWidth = 18;
  context.lineCap = context.lineJoin = 'round';
}

function lineTo(x, y) {
  context.beginPath();
  context.moveTo(pen.x, pen.y);
  context.lineTo(x, y);
  context.stroke();
  Object.assign(pen, { x, y });
}

function place(event) {
  const box = canvas.getBoundingClientRect();
  return [
    ((event.clientX - box.left) * canvas.width) / box.width,
    ((event.clientY - box.top) * canvas.height) / box.height,
  ];
}

function sendDrawing() {
  clearTimeout(pause);
  pause = setTimeout(() => canvas.toBlob((picture) => send(picture), 'image/png'), 250);
}

canvas.onpointerdown = (event) => {
  canvas.setPointerCapture(event.pointerId);
  const [x, y] = place(event);
  Object.assign(pen, { x, y, down: true });
  lineTo(x, y);
};
canvas.onpointermove = (event) => {
  if (pen.down) lineTo(...place(event));
};
canvas.onpointerup = canvas.onpointercancel = () => {
  if (pen.down) sendDrawing();
  pen.down = false;
};
let keyPen = false;
canvas.onkeydown = (event) => {
  const move = {
    ArrowLeft: [-8, 0], ArrowRight: [8, 0], ArrowUp: [0, -8], ArrowDown: [0, 8],
  }[event.key];
  if (event.key === ' ') keyPen = !keyPen;
  else if (!move) return;
  event.preventDefault();
  const [dx, dy] = move ?? [0, 0];
  const x = Math.min(Math.max(pen.x + dx, 0), canvas.width);
  const y = Math.min(Math.max(pen.y + dy, 0), canvas.height);
  if (keyPen) {
    lineTo(x, y);
    sendDrawing();
  } else {
    Object.assign(pen, { x, y });
  }
  byId('pen').classList.toggle('down', keyPen);
  byId('pen').style.left = `${(100 * x) / canvas.width}%`;
  byId('pen').style.top = `${(100 * y) / canvas.height}%`;
};
byId('pen').style.left = byId('pen').style.top = '50%';
byId('clear').onclick = clear;
clear();

byId('file').onchange = (event) => {
  const [file] = event.target.files;
  if (file) sendAndLook(file);
  event.target.value = ''; // the same file may be chosen again
};
byId('invert').onchange = () => {
  if (last) send(last.picture, last.trueClass);
};
// Pictures can be dropped anywhere: otherwise the browser would open a file
// that is dropped outside of the box, and leave the page.
document.ondragover = (event) => {
  event.preventDefault();
  byId('drop').classList.add('over');
};
document.ondragleave = () => byId('drop').classList.remove('over');
document.ondrop = (event) => {
  event.preventDefault();
  byId('drop').classList.remove('over');
  const [file] = event.dataTransfer.files;
  if (file) sendAndLook(file);
};
document.onpaste = (event) => {
  const [file] = event.clipboardData.files;
  if (file) sendAndLook(file);
};

start().catch(() => fail('The demo does not answer: is it still running?'));
