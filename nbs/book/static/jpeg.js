// What JPEG does to a spectrum: a slider over qualities, the difference of fakes and reals, and a
// face saved so, in every <div class="jpeg-explorer">. Its data stand in the page; no network.
document.addEventListener("DOMContentLoaded", () => {
  const svgNode = (name, attributes, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const width = 460, height = 230, left = 58, right = 10, top = 12, bottom = 42;

  for (const box of document.querySelectorAll(".jpeg-explorer")) {
    const { frequency, steps } = JSON.parse(box.dataset.curves);
    const values = steps.flatMap((step) => step.curve);
    const low = Math.min(0, ...values), high = Math.max(0, ...values);
    const last = frequency[frequency.length - 1];
    const x = (f) => left + f / last * (width - left - right);
    const y = (v) => top + (high - v) / (high - low) * (height - top - bottom);
    const points = (curve) => curve.map((v, i) => `${x(frequency[i]).toFixed(1)},${y(v).toFixed(1)}`).join(" ");

    const label = document.createElement("label"), told = document.createElement("p");
    const input = document.createElement("input");
    Object.assign(input, { type: "range", min: 0, max: steps.length - 1, step: 1 });
    input.value = 0;
    label.append("quality ", input);
    told.setAttribute("aria-live", "polite");
    const svg = svgNode("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
    const face = document.createElement("img");
    face.alt = "A rendered face, saved at the chosen quality.";
    box.append(label, svg, ...(steps[0].face ? [face] : []), told);

    const draw = () => {
      const step = steps[input.value], [auc, from, to] = step.auc.map((v) => v === null ? "?" : v.toFixed(2));
      const name = step.quality ? `JPEG of quality ${step.quality}` : "Faces as they are";
      input.setAttribute("aria-valuetext", name);
      svg.replaceChildren();
      for (const value of [0, low]) {
        svg.append(svgNode("line", { x1: left, x2: width - right, y1: y(value), y2: y(value), class: "jpeg-grid" }));
        svg.append(svgNode("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" },
          value.toFixed(2).replace("-", "−").replace("0.00", "0")));
      }
      for (const f of [0, 0.25, 0.5]) {
        svg.append(svgNode("text", { x: x(f), y: height - bottom + 18, "text-anchor": "middle" }, f));
      }
      svg.append(svgNode("text", { x: (left + width) / 2, y: height - 6, "text-anchor": "middle" },
        "cycles per pixel; fake − real, standard deviations"));
      svg.append(svgNode("polyline", { points: points(steps[0].curve), class: "jpeg-before" }));
      svg.append(svgNode("polyline", { points: points(step.curve), class: "jpeg-curve" }));
      if (step.face) face.src = step.face;
      const size = step.bytes ? ` A face takes ${step.bytes.toLocaleString("en")} bytes.` : "";
      told.textContent = `${name}: the system that was trained on unsaved faces has an AUC of ` +
        `${auc} [${from}, ${to}].${size}`;
      svg.setAttribute("aria-label", told.textContent);
    };
    input.addEventListener("input", draw);
    draw();
  }
});
