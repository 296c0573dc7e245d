// Elements and numbers, for the other files of the page.

export const byId = (id) => document.getElementById(id);
export const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
export const signed = (x) => (x < 0 ? '−' : '+') + Math.abs(x).toFixed(2);
export const percent = (x) => `${(100 * x).toFixed(1)} %`;
