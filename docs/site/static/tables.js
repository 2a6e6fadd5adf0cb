// Tables of results can be sorted: by a click on a heading, or by Enter or Space while it has the focus. Without scripts they stay as
// they are. A cell sorts by its first number; words (missing, say) come last, whichever way the numbers run.
"use strict";

const number = /^[^\d-]*(-?\d[\d,]*(?:\.\d+)?)/;

/** What a cell is compared by: [is a word, number or text]. */
function key(cell) {
  const text = cell.textContent.trim();
  const found = number.exec(text.replace(/−/g, "-"));
  return found ? [0, Number(found[1].replaceAll(",", ""))] : [1, text.toLowerCase()];
}

/** Whether most of a column's cells begin with a number: then it is sorted by numbers, the largest first. */
function isNumeric(rows, column) {
  const texts = rows.map((row) => row.cells[column].textContent.trim()).filter((text) => text && text !== "missing");
  return texts.filter((text) => /^[+\-−]?\d/.test(text)).length > texts.length / 2;
}

/** Sort a table by a column, the other way round if it is sorted by it already. */
function sort(table, heading, column) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const numeric = isNumeric(rows, column);
  const was = heading.getAttribute("aria-sort");
  const down = was ? was === "ascending" : numeric;
  const sign = down ? -1 : 1;
  const compare = (a, b) => {
    const [one, other] = [key(a.cells[column]), key(b.cells[column])];
    if (!numeric) return sign * a.cells[column].textContent.localeCompare(b.cells[column].textContent);
    if (one[0] !== other[0]) return one[0] - other[0];
    return one[0] ? 0 : sign * (one[1] - other[1]);
  };
  for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  body.append(...rows.sort(compare));
}

/** Let a table be sorted, if it has a head of one row, several rows, and no cell over two columns. */
function enable(table) {
  const head = table.tHead?.rows;
  const rows = table.tBodies[0]?.rows ?? [];
  if (head?.length !== 1 || rows.length < 2) return;
  const width = head[0].cells.length;
  if ([...rows].some((row) => row.cells.length !== width)) return;
  [...head[0].cells].forEach((heading, column) => {
    if (!heading.textContent.trim() && column) return;
    heading.classList.add("sortable");
    heading.tabIndex = 0;
    heading.title = "Sort";
    heading.addEventListener("click", () => sort(table, heading, column));
    heading.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      sort(table, heading, column);
    });
  });
}

document.addEventListener("DOMContentLoaded", () => document.querySelectorAll("article table.docutils").forEach(enable));
