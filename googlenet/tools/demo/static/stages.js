// The stages, and what a channel of one likes: asked for when it is clicked.

import { make } from './dom.js';

const number = (x) => x.toPrecision(3).replace('-', '−');

// A row of channels; the one that is chosen is shown below it.
export function stage(entry, seen, canAsk) {
  const shape = entry.shape.join(' x ');
  const buttons = entry.channels.map((channel) => {
    const name = `channel ${channel.channel}`;
    const image = make('img', { src: channel.image, alt: name, title: name });
    const button = make('button', { type: 'button' }, image);
    button.setAttribute('aria-pressed', 'false');
    button.onclick = () => choose(button, channel);
    return button;
  });
  const details = make('div', { className: 'looks', hidden: true });
  details.setAttribute('role', 'status');

  function choose(button, channel) {
    const isOpen = button.getAttribute('aria-pressed') === 'true';
    buttons.forEach((one) => one.setAttribute('aria-pressed', 'false'));
    details.hidden = isOpen;
    details.replaceChildren();
    if (isOpen) return;
    button.setAttribute('aria-pressed', 'true');
    show(details, entry.name, channel, seen, canAsk);
  }

  return make(
    'div',
    { className: 'stage' },
    make('div', {}, entry.name, make('small', { textContent: shape })),
    make('div', { className: 'channels' }, ...buttons),
    details,
  );
}

async function show(details, name, channel, seen, canAsk) {
  const likes = make('div', { className: 'likes' });
  details.append(
    make(
      'div',
      { className: 'fired' },
      make('h3', { textContent: `${name}, channel ${channel.channel}` }),
      make(
        'div',
        { className: 'pair' },
        picture(seen, 'The picture, and where the channel fired', channel.box),
        make('img', { src: channel.image, alt: 'Its map' }),
      ),
      make('p', {
        className: 'hint',
        textContent: `Largest value ${number(channel.value)}; the frame is what its position sees.`,
      }),
    ),
    likes,
  );
  if (!canAsk) return;
  const text = make('p', {
    className: 'hint',
    textContent: 'Looking through test images, once for this stage …',
  });
  likes.append(text);
  let body;
  let reply;
  try {
    reply = await fetch(`channels/${name}/${channel.channel}`, { method: 'POST' });
    body = await reply.json();
  } catch {
    text.textContent = 'The demo does not answer: is it still running?';
    return;
  }
  if (!reply.ok) {
    text.textContent = body.error;
    return;
  }
  const [height, width] = body.field;
  text.textContent =
    `What it likes: the best of ${body.count.toLocaleString('en')} test images. ` +
    `Receptive field: ${height} x ${width} pixels; the picture has ${body.size} x ${body.size}.`;
  likes.append(
    make(
      'div',
      { className: 'examples' },
      ...body.examples.map(({ image, label, value }) =>
        make(
          'figure',
          {},
          make('img', { src: image, alt: label }),
          make('figcaption', {}, label, make('small', { textContent: number(value) })),
        ),
      ),
    ),
  );
}

// An image with a frame; the sides of the frame are parts of the image's side.
function picture(source, alt, [top, left, bottom, right]) {
  const frame = make('span', { className: 'frame' });
  Object.assign(frame.style, {
    top: `${100 * top}%`,
    left: `${100 * left}%`,
    width: `${100 * (right - left)}%`,
    height: `${100 * (bottom - top)}%`,
  });
  return make('figure', {}, make('img', { src: source, alt }), frame);
}
