// Denholtz's conditional term, drawn anew for each Φ, τ and batch: the figure in every
// <div class="term-explorer">. It needs no network.
document.addEventListener("DOMContentLoaded", () => {
  const svgNode = (name, attributes) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    return node;
  };
  const width = 360, height = 230, left = 44, right = 12, top = 14, bottom = 40;
  const x = (mean) => left + mean * (width - left - right);
  const y = (value, limit) => top + (1 - value / limit) / 2 * (height - top - bottom);
  const bracket = (mean, n, tau) => 1 / Math.cosh(Math.min(tau * n * (1 - mean), 40)) ** 2;
  const written = (value) => Number(value.toPrecision(2)).toString().replace("-", "−");

  for (const box of document.querySelectorAll(".term-explorer")) {
    const sliders = [["Φ", -2, 1, 0.05, 0], ["τ", -3, 1, 0.05, -1], ["n", 0, 8, 1, 4]];
    const inputs = {};
    for (const [name, min, max, step, value] of sliders) {
      const label = document.createElement("label");
      const input = Object.assign(document.createElement("input"), { type: "range", min, max, step });
      input.value = value;
      const shown = document.createElement("output");
      const named = document.createElement("span");
      named.textContent = name;
      label.append(named, input, shown);
      box.append(label);
      inputs[name] = { input, shown };
    }
    const label = document.createElement("label"), penalty = document.createElement("input");
    penalty.type = "checkbox";
    label.append(penalty, " as the text describes it: plus, not minus");
    box.append(label);
    const svg = svgNode("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
    const told = document.createElement("p");
    told.setAttribute("aria-live", "polite");
    box.append(svg, told);

    const draw = () => {
      const phi = 10 ** inputs["Φ"].input.value, tau = 10 ** inputs["τ"].input.value;
      const n = 2 ** inputs["n"].input.value, sign = penalty.checked ? 1 : -1;
      inputs["Φ"].shown.textContent = written(phi);
      inputs["τ"].shown.textContent = written(tau);
      inputs["n"].shown.textContent = `${n} images a batch`;
      const limit = 1.15 * phi;
      const points = [...Array(201).keys()].map((i) => {
        const mean = i / 200;
        return `${x(mean).toFixed(1)},${y(sign * phi * bracket(mean, n, tau), limit).toFixed(1)}`;
      });
      svg.replaceChildren();
      for (const value of [-phi, 0, phi]) {
        svg.append(svgNode("line", { x1: left, x2: width - right, y1: y(value, limit),
          y2: y(value, limit), class: "term-grid" }));
        const text = svgNode("text", { x: left - 6, y: y(value, limit) + 4, "text-anchor": "end" });
        text.textContent = written(value);
        svg.append(text);
      }
      for (const mean of [0, 0.25, 0.5, 0.75, 1]) {
        const text = svgNode("text", { x: x(mean), y: height - bottom + 16, "text-anchor": "middle" });
        text.textContent = mean;
        svg.append(text);
      }
      const title = svgNode("text", { x: x(0.5), y: height - 6, "text-anchor": "middle" });
      title.textContent = "mean prediction of the batch";
      svg.append(title, svgNode("polyline", { points: points.join(" "), class: "term-curve" }));
      const half = sign * phi * bracket(0.5, n, tau), all = sign * phi;
      told.textContent = `nτ = ${written(n * tau)}. The term adds ${written(half)} where the mean ` +
        `prediction is one half, and ${written(all)} where all are 1: ` +
        (sign < 0 ? "always saying “fake” lowers the loss." : "always saying “fake” raises the loss.");
      svg.setAttribute("aria-label", told.textContent);
    };
    for (const { input } of Object.values(inputs)) input.addEventListener("input", draw);
    penalty.addEventListener("change", draw);
    draw();
  }
});
