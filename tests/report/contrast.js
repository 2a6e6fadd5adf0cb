// The contrast of every visible text, and of every coloured line of a figure, with what lies behind it (WCAG 2.2).
const parse = (text) => (text.match(/[\d.]+/g) || []).map(Number);
const luminance = ([r, g, b]) => {
  const linear = [r, g, b].map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
};
const ratio = (a, b) => {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
};
const behind = (element) => {
  for (let node = element; node; node = node.parentElement) {
    const colour = parse(getComputedStyle(node).backgroundColor);
    if (colour.length && (colour.length < 4 || colour[3] === 1)) return colour;
  }
  return [255, 255, 255];
};

const faint = [];
let texts = 0;
let lines = 0;
for (const element of document.body.querySelectorAll("*")) {
  const own = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
  const style = getComputedStyle(element);
  if (!own || !element.checkVisibility() || ["SCRIPT", "STYLE", "desc"].includes(element.tagName)) continue;
  texts += 1;
  const colour = parse(element instanceof SVGElement ? style.fill : style.color);
  const found = ratio(colour, behind(element));
  if (!(found >= 4.5)) faint.push(`${element.tagName} "${element.textContent.trim().slice(0, 40)}" ${found.toFixed(2)}`);
}
for (const path of document.querySelectorAll("figure > svg path")) {
  const style = getComputedStyle(path);
  if (!path.getAttribute("style")?.includes("stroke: var(--series") || style.strokeOpacity !== "1") continue;
  lines += 1;
  const found = ratio(parse(style.stroke), behind(path));
  if (!(found >= 3)) faint.push(`line ${style.stroke} ${found.toFixed(2)}`);
}
return { texts, lines, faint, page: luminance(parse(getComputedStyle(document.body).backgroundColor)) };
