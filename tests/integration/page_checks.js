// Uses a page as a reader does and leaves what it saw in `window.seen` as text of the frame.
"use strict";
addEventListener("load", async () => {
  const seen = {};
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const text = (selector) => document.querySelector(selector)?.textContent ?? null;
  const press = (element, key) =>
    element.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));

  seen.overflow = document.documentElement.scrollWidth - innerWidth;

  const grid = document.querySelector("table.grid");
  const column = all("thead th", grid).findIndex((th) => /^(ratio|since)/.test(th.textContent));
  if (column > 0) {
    const button = grid.tHead.rows[0].cells[column].querySelector("button");
    const order = () => all("tbody tr", grid).map((row) => row.cells[column].textContent);
    seen.sorted = [order()];
    for (let click = 0; click < 3; click += 1) {
      button.click();
      seen.sorted.push([button.parentNode.getAttribute("aria-sort"), order()]);
    }
  }

  const search = document.querySelector("input[type=search]");
  if (search) {
    search.value = "MAX_ACTIVE=4 faster";
    search.dispatchEvent(new Event("input"));
    seen.filtered = [text("output"), all("tbody tr:not([hidden])", grid).length];
    search.value = "";
    search.dispatchEvent(new Event("input"));
  }

  const svg = document.querySelector("figure.plot svg");
  if (svg) {
    svg.focus();
    press(svg, "Home");
    seen.first = [text(".tip"), text("[role=status]")];
    press(svg, "ArrowRight");
    seen.second = text(".tip");
    press(svg, "Escape");
    seen.escaped = text(".tip");
    svg.blur();
    const use = svg.querySelector(".values use");
    const at = new DOMPoint(use.getAttribute("x"), use.getAttribute("y"));
    const { x, y } = at.matrixTransform(svg.getScreenCTM());
    svg.dispatchEvent(new PointerEvent("pointermove", { clientX: x + 2, clientY: y - 2 }));
    seen.pointed = text(".tip");
    svg.dispatchEvent(new PointerEvent("pointerleave"));
    seen.left = text(".tip");
  }

  const flame = document.querySelector("svg.flame");
  if (flame) {
    flame.focus();
    press(flame, "Home");
    seen.flame = [text(".tip"), text("[role=status]")];
    press(flame, "ArrowDown");
    seen.flame.push(text(".tip"));
    flame.blur();
    const box = all("rect", flame).find((rect) => rect.getAttribute("class").includes("longer"));
    const { left, bottom } = box.getBoundingClientRect();
    flame.dispatchEvent(
      new PointerEvent("pointermove", { clientX: left + 1, clientY: bottom - 1 }),
    );
    seen.flame.push(text(".tip"));
    flame.dispatchEvent(new PointerEvent("pointerleave"));
  }

  const heat = document.querySelector("table.heat");
  if (heat) {
    heat.querySelector("td[tabindex='0']").focus();
    seen.heat = [text(".tip")];
    for (const key of ["ArrowRight", "ArrowDown"]) {
      press(document.activeElement, key);
      seen.heat.push(text(".tip"));
    }
    document.activeElement.blur();
  }

  const link = document.querySelector("a[href^='#console-']");
  if (link) {
    const target = document.getElementById(link.hash.slice(1));
    const before = target.open;
    location.hash = link.hash;
    await new Promise((resolve) => setTimeout(resolve, 50));
    seen.opened = [before, target.open];
  }

  for (const each of all("details")) each.open = true;
  const found = await axe.run(document, { resultTypes: ["violations"] });
  seen.rules = found.passes.length;
  seen.violations = found.violations.map(
    (each) => `${each.id}: ${each.nodes.slice(0, 3).map((node) => node.html.slice(0, 200))}`,
  );
  parent.document.getElementById("seen").textContent +=
    `${JSON.stringify([frameElement.name, seen])}\n`;
});
