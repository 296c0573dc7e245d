// The map of a class over the picture, by the method that is chosen.

import { byId, signed } from './dom.js';

const IN_ANSWER = 'class_activation_map'; // computed with each answer
const found = new WeakMap(); // by answer: maps by method and class
let latest = 0; // number of the last map; older ones that come later are ignored

export function offer(methods, changed) {
  byId('method').replaceChildren(
    ...methods.map(({ name, title }) => new Option(title, name)),
  );
  byId('method').onchange = changed;
}

function draw(map, text) {
  byId('overlay').hidden = !map;
  if (map) byId('overlay').src = map;
  byId('map-text').textContent = text;
}

// `ask(answer, method, class)` sends its picture and returns the map.
export async function showMap(answer, entry, ask) {
  const number = ++latest;
  const method = byId('method').value;
  const { text: title } = byId('method').selectedOptions[0];
  byId('overlay').alt = `${title} of ${entry.name}`;
  if (method === IN_ANSWER) {
    draw(
      entry.map,
      `Class activation map. Orange: more evidence for ${entry.name} than on ` +
        `average in this picture, blue: less (strongest colour: ` +
        `±${entry.scale.toFixed(2)}). The logit ${signed(entry.logit)} is the ` +
        `sum of that average, ${signed(entry.logit - entry.bias)}, and the bias, ` +
        `${signed(entry.bias)}.`,
    );
    return;
  }
  draw('', 'Computing …');
  const key = `${method}/${entry.class}`;
  if (!found.has(answer)) found.set(answer, {});
  const maps = found.get(answer);
  try {
    maps[key] ??= await ask(answer, method, entry.class);
  } catch (error) {
    if (number === latest) draw('', error.message);
    return;
  }
  if (number !== latest) return;
  const { map, scale, text, signed: hasSign } = maps[key];
  draw(
    map,
    `${title}: ${text}. Orange: for ${entry.name}` +
      (hasSign ? ', blue: against it' : '') +
      ` (strongest colour: ${hasSign ? '±' : ''}${scale.toPrecision(3)}).`,
  );
}
