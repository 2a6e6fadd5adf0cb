"use strict";

// A click on a column's name sorts by it; another click turns the order round. Missing values stay at the end.
const key = (row, column) => {
  const cell = row.cells[column];
  return cell.dataset.number === undefined ? cell.innerText.trim() : Number(cell.dataset.number);
};

function compare(a, b) {
  return typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
}

function sort(head) {
  const numeric = head.classList.contains("number");
  const first = numeric ? "descending" : "ascending";
  const other = numeric ? "ascending" : "descending";
  const order = head.getAttribute("aria-sort") === first ? other : first;
  const sign = order === "ascending" ? 1 : -1;
  for (const sibling of head.parentElement.cells) sibling.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", order);
  const body = head.closest("table").tBodies[0];
  const rows = [...body.rows].map((row) => [key(row, head.cellIndex), row]);
  const known = rows.filter(([value]) => !numeric || typeof value === "number");
  const missing = rows.filter((row) => !known.includes(row));
  known.sort(([a], [b]) => sign * compare(a, b));
  body.append(...[...known, ...missing].map(([, row]) => row));
}

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => sort(button.closest("th")));
}

// The page follows the system's colours until the reader chooses otherwise.
const themes = ["auto", "light", "dark"];
const toggle = document.getElementById("theme");
toggle.hidden = false;
toggle.addEventListener("click", () => {
  const theme = themes[(themes.indexOf(document.documentElement.dataset.theme) + 1) % themes.length];
  document.documentElement.dataset.theme = theme;
  toggle.textContent = `Theme: ${theme}`;
});

// What is folded away on the screen is printed all the same.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((item) => (item.open = true)));
