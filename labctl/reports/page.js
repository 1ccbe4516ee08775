"use strict";
// Sorting, filtering and values of points. Without this script the page has the same content.
(() => {
  const FEWEST_ROWS_TO_FILTER = 6;
  const REACH_PIXELS = 24;
  const collator = new Intl.Collator("en", { numeric: true });
  const make = (name, attributes = {}, text = "") => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.textContent = text;
    return element;
  };

  // Sorting: each heading is a button; a third click restores the order of the report.
  const isMissing = (cell) => ["", "-"].includes(cell.textContent.trim());
  const compared = (a, b) =>
    "key" in a.dataset && "key" in b.dataset
      ? a.dataset.key - b.dataset.key
      : collator.compare(a.textContent, b.textContent);
  const sortable = (table) => {
    const body = table.tBodies[0];
    const original = [...body.rows];
    const headings = [...table.tHead.rows[0].cells];
    if (original.length < 2) return;
    const sort = (column) => {
      const heading = headings[column];
      const now = heading.getAttribute("aria-sort");
      const next = { null: "ascending", ascending: "descending" }[now];
      for (const each of headings) each.removeAttribute("aria-sort");
      if (next) heading.setAttribute("aria-sort", next);
      const sign = next === "descending" ? -1 : 1;
      const rows = [...original];
      if (next)
        rows.sort((first, second) => {
          const [a, b] = [first.cells[column], second.cells[column]];
          return isMissing(a) - isMissing(b) || sign * compared(a, b);
        });
      body.append(...rows);
    };
    for (const [column, heading] of headings.entries()) {
      const button = make("button", { type: "button" });
      button.append(...heading.childNodes);
      button.addEventListener("click", () => sort(column));
      heading.append(button);
    }
  };

  // Filtering: a row stays if it has every word.
  const filter = (tables, text, result) => {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    let count = 0;
    for (const table of tables)
      for (const row of table.tBodies[0].rows) {
        const content = [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase();
        row.hidden = !words.every((word) => content.includes(word));
        shown += !row.hidden;
        count += 1;
      }
    result.textContent = `${shown} of ${count} rows`;
  };
  const filterable = (tables, place, label) => {
    const tools = make("p", { class: "tools" });
    const name = make("label", {}, `${label} `);
    const input = make("input", { type: "search" });
    const result = make("output");
    input.addEventListener("input", () => filter(tables, input.value, result));
    name.append(input);
    tools.append(name, " ", result);
    place.before(tools);
  };

  // Values: of the point next to the pointer, or by the arrow keys once the plot has focus.
  const tip = make("div", { class: "tip" });
  const said = make("p", { class: "said", role: "status" });
  const hide = () => tip.remove();
  const show = (text, box) => {
    tip.textContent = text;
    document.body.append(tip);
    const { width, height } = tip.getBoundingClientRect();
    const left = Math.min(box.right + 8, document.documentElement.clientWidth - width - 4);
    const above = box.top - height - 8;
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${above > 0 ? above : box.bottom + 8}px`;
  };
  const boxOf = (x, y) => ({ left: x, right: x, top: y, bottom: y });

  const plot = (svg) => {
    // Markers of a plot, or the boxes of a flame graph, which stay in their order.
    const points = [...svg.querySelectorAll(".values use, .values rect")].map((shape) => {
      const title = shape.querySelector("title");
      title.remove();
      const [x, y, width, height] = ["x", "y", "width", "height"].map(
        (name) => +shape.getAttribute(name),
      );
      return { x: x + width / 2, y: y + height / 2, width, height, text: title.textContent };
    });
    if (!points.length) return;
    if (points.every((each) => !each.width)) points.sort((a, b) => a.x - b.x || a.y - b.y);
    const mark = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    mark.setAttribute("class", "mark");
    mark.setAttribute("r", "4");
    let current = -1;
    const where = (point) => new DOMPoint(point.x, point.y).matrixTransform(svg.getScreenCTM());
    const point = (index) => {
      current = index;
      const { x, y, text } = points[index];
      mark.setAttribute("cx", x);
      mark.setAttribute("cy", y);
      svg.append(mark);
      const at = where(points[index]);
      show(text, boxOf(at.x, at.y));
    };
    const leave = () => {
      mark.remove();
      hide();
    };
    svg.setAttribute("tabindex", "0");
    svg.setAttribute("role", "application");
    svg.setAttribute("aria-roledescription", "plot");
    const name = svg.getAttribute("aria-label");
    svg.setAttribute("aria-label", `${name}. Arrow keys read its ${points.length} values.`);
    svg.addEventListener("pointermove", (event) => {
      let nearest = -1;
      let least = REACH_PIXELS;
      for (const [index, each] of points.entries()) {
        const from = where({ x: each.x - each.width / 2, y: each.y - each.height / 2 });
        const to = where({ x: each.x + each.width / 2, y: each.y + each.height / 2 });
        const distance = Math.hypot(
          Math.max(from.x - event.clientX, 0, event.clientX - to.x),
          Math.max(from.y - event.clientY, 0, event.clientY - to.y),
        );
        if (distance < least) [nearest, least] = [index, distance];
      }
      if (nearest < 0) leave();
      else point(nearest);
    });
    svg.addEventListener("pointerleave", leave);
    svg.addEventListener("blur", leave);
    const read = (index) => {
      point(Math.max(0, Math.min(points.length - 1, index)));
      said.textContent = points[current].text;
    };
    svg.addEventListener("focus", () => svg.matches(":focus-visible") && read(Math.max(0, current)));
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, PageDown: 10,
        PageUp: -10, Home: -Infinity, End: Infinity }[event.key];
      if (event.key === "Escape") leave();
      if (!step) return;
      event.preventDefault();
      read(current + step);
    });
  };

  const heatMap = (table) => {
    const cells = [...table.querySelectorAll("td[title]")];
    for (const [index, cell] of cells.entries()) {
      const text = cell.title;
      cell.removeAttribute("title");
      cell.setAttribute("tabindex", index ? "-1" : "0");
      cell.addEventListener("pointerenter", () => show(text, cell.getBoundingClientRect()));
      cell.addEventListener("pointerleave", hide);
      cell.addEventListener("blur", hide);
      cell.addEventListener("focus", () => {
        for (const each of cells) each.setAttribute("tabindex", each === cell ? "0" : "-1");
        show(text, cell.getBoundingClientRect());
        said.textContent = text;
      });
      cell.addEventListener("keydown", (event) => {
        if (event.key === "Escape") hide();
        const down = { ArrowDown: 1, ArrowUp: -1 }[event.key];
        const row = table.tBodies[0].rows[cell.parentNode.sectionRowIndex + (down || 0)];
        const next = { ArrowRight: cells[index + 1], ArrowLeft: cells[index - 1] }[event.key];
        const target = down ? row?.cells[cell.cellIndex] : next;
        if (down || event.key === "ArrowRight" || event.key === "ArrowLeft") event.preventDefault();
        if (cells.includes(target)) target.focus();
      });
    }
  };

  // A link to a closed part opens it.
  const open = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let each = target; each; each = each.parentElement)
      if (each.tagName === "DETAILS") each.open = true;
    target?.scrollIntoView();
  };

  // Paper has no closed parts.
  addEventListener("beforeprint", () => {
    for (const each of document.querySelectorAll("details.more")) each.open = true;
  });

  document.querySelector("main").append(said);
  for (const table of document.querySelectorAll("table.grid")) {
    sortable(table);
    const isShort = table.tBodies[0].rows.length < FEWEST_ROWS_TO_FILTER;
    const isSearched = table.closest(".search");
    if (!isShort && !isSearched) filterable([table], table.parentNode, "Filter rows:");
  }
  for (const part of document.querySelectorAll(".search"))
    filterable([...part.querySelectorAll("table.grid")], part, "Search:");
  document.querySelectorAll("figure.plot svg").forEach(plot);
  document.querySelectorAll("table.heat").forEach(heatMap);
  addEventListener("hashchange", open);
  if (location.hash) open();
})();
