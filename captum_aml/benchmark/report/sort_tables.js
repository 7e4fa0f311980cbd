// Sorts the tables of class "sortable" by the column whose head is pressed; missing values last.
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const first = head.dataset.first || "ascending";
      const second = first === "ascending" ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? second : first;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const keyed = Array.from(body.rows, (row) => {
        const cell = row.cells[column];
        const key = "numeric" in head.dataset ? parseFloat(cell.dataset.value) : cell.textContent;
        return { row, key, missing: Number.isNaN(key) };
      });
      keyed.sort((a, b) => {
        if (a.missing || b.missing) return a.missing - b.missing;
        if (typeof a.key === "string") return sign * a.key.localeCompare(b.key);
        return a.key === b.key ? 0 : sign * (a.key < b.key ? -1 : 1);
      });
      body.append(...keyed.map((entry) => entry.row));
    });
  });
}
