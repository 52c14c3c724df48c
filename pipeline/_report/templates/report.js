"use strict";
(() => {
  const tip = document.getElementById("tip");
  const STYLES = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "stroke-linejoin", "font", "text-anchor"];

  const show = (event) => {
    const mark = event.target instanceof Element ? event.target.closest("[data-tip]") : null;
    tip.hidden = mark === null;
    if (mark === null) return;
    tip.textContent = mark.dataset.tip;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 8))}px`;
    tip.style.top = `${event.clientY + 18 + height > innerHeight ? event.clientY - height - 10 : event.clientY + 18}px`;
  };

  // A file of its own has no style sheet: every mark carries its look with it.
  const standalone = (svg) => {
    const copy = svg.cloneNode(true);
    const originals = svg.querySelectorAll("*");
    copy.querySelectorAll("*").forEach((mark, number) => {
      const style = getComputedStyle(originals[number]);
      mark.setAttribute("style", STYLES.map((name) => `${name}:${style.getPropertyValue(name)}`).join(";"));
    });
    const { width, height } = svg.viewBox.baseVal;
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    copy.setAttribute("width", width);
    copy.setAttribute("height", height);
    const ground = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    ground.setAttribute("width", "100%");
    ground.setAttribute("height", "100%");
    ground.setAttribute("fill", getComputedStyle(document.body).backgroundColor);
    copy.prepend(ground);
    return new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" });
  };

  const save = (blob, name) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };

  const savePng = (svg, name) => {
    const picture = new Image();
    picture.onload = () => {
      const canvas = document.createElement("canvas");
      canvas.width = 2 * svg.viewBox.baseVal.width;
      canvas.height = 2 * svg.viewBox.baseVal.height;
      canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => save(blob, name));
      URL.revokeObjectURL(picture.src);
    };
    picture.src = URL.createObjectURL(standalone(svg));
  };

  document.addEventListener("pointermove", show);
  document.addEventListener("scroll", () => { tip.hidden = true; });
  document.addEventListener("click", (event) => {
    const kind = event.target instanceof HTMLElement ? event.target.dataset.save : undefined;
    if (kind === undefined) return;
    const svg = event.target.closest("figure").querySelector("svg");
    const name = `${svg.dataset.name.replace(/[^\w.-]+/g, "-").toLowerCase()}.${kind}`;
    if (kind === "svg") save(standalone(svg), name);
    else savePng(svg, name);
  });
})();
