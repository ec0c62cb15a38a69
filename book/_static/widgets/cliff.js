// Along the gradient: what the surrogate promises, what is earned, and what two restraints make of it.
"use strict";
Kit.mount("cliff", (root) => {
  const { make, slider, choice, axes, dot, table, softmax, ridge, cliffStart } = Kit;
  const GAMMA = 0.9, FAR = 8, POINTS = 160, KINDS = ["none", "penalty", "clip"];
  const column = (s) => (s < 13 ? ridge.cells[s][1] : 0);
  let shared = 1, kind = 0, beta = 0.5, epsilon = 0.2, x = 2, line, plot;

  /** The old policy, and the unit vector along the gradient of J in its parameters. */
  function begin() {
    const theta = table((s, a) => (shared ? cliffStart[column(s)][a] : 0)), old = softmax(theta);
    let uphill = ridge.gradient(old, GAMMA), square = uphill.flat().reduce((sum, v) => sum + v * v, 0);
    if (shared) {
      const sums = [0, 1, 2].map((c) => [0, 1, 2].map((a) => ridge.live.reduce((sum, s) => sum + (column(s) === c ? uphill[s][a] : 0), 0)));
      square = sums.flat().reduce((sum, v) => sum + v * v, 0);
      uphill = table((s, a) => sums[column(s)][a]);
    }
    const u = uphill.map((row) => row.map((v) => v / Math.sqrt(square)));
    const values = ridge.values(old, GAMMA);
    return { theta, old, u, J: values.v[0], A: values.advantage, d: ridge.visits(old, GAMMA), counts: ridge.visits(old, 1) };
  }

  /** All that is shown at a distance x. */
  function at(x) {
    const { theta, old, u, J, A, d, counts } = start;
    const policy = softmax(theta.map((row, s) => row.map((v, a) => v + x * u[s][a])));
    const found = { x, J: ridge.values(policy, GAMMA).v[0], surrogate: J, clip: J, penalty: J, kl: 0, largest: 0, ratios: [] };
    let steps = 0, squares = 0;
    for (const s of ridge.live) {
      const kl = dot(old[s], old[s].map((p, a) => Math.log(p / policy[s][a])));
      for (let a = 0; a < 3; a++) {
        const ratio = policy[s][a] / old[s][a], weight = d[s] * old[s][a];
        const clipped = Math.min(Math.max(ratio, 1 - epsilon), 1 + epsilon);
        found.surrogate += weight * ratio * A[s][a];
        found.clip += weight * Math.min(ratio * A[s][a], clipped * A[s][a]);
        squares += counts[s] * old[s][a] * ratio ** 2;
        found.largest = Math.max(found.largest, ratio);
        found.ratios.push({ s, a, ratio, weight: counts[s] * old[s][a] });
      }
      found.penalty -= beta * d[s] * kl;
      found.kl += counts[s] * kl;
      steps += counts[s];
    }
    found.penalty += found.surrogate - J;
    found.kl /= steps;
    found.share = steps / squares;
    found.objective = found[["surrogate", "penalty", "clip"][kind]];
    return found;
  }

  let start = begin();
  const holder = make("div"), readout = make("tbody"), said = make("output", { class: "said" });
  const strip = axes({ height: 130, left: 50, log: true, x: [0.05, 20], y: [-0.6, 2.6], xticks: [0.1, 0.5, 1, 2, 10], yticks: [], xlabel: "ratio ρ of each state and action", ylabel: "", label: "The ratios of all states and actions, on a logarithmic axis." });

  function draw() {
    line = Array.from({ length: POINTS + 1 }, (_, i) => at((FAR * i) / POINTS));
    const low = Math.floor(Math.min(...line.map((p) => p.J)) - 0.5), high = Math.ceil(Math.max(...line.map((p) => p.surrogate)));
    const ticks = Array.from({ length: high - low + 1 }, (_, i) => low + i);
    plot = axes({ height: 240, x: [0, FAR], y: [low, high], xticks: [0, 2, 4, 6, 8], yticks: ticks, xlabel: "distance along the gradient", ylabel: "return", label: "Expected return, surrogate and objective against the distance." });
    holder.replaceChildren(plot.node);
    const now = at(x), peak = line.reduce((best, p) => (p.objective > best.objective + 1e-9 ? p : best));
    const seen = (key) => line.filter((p) => p[key] >= low).map((p) => [p.x, p[key]]);
    plot.put(make("line", { class: "here", x1: plot.x(x), x2: plot.x(x), y1: plot.top, y2: plot.bottom }));
    plot.line(seen("surrogate"), { class: "surrogate", "stroke-dasharray": "6 4" });
    if (kind) plot.line(seen("objective"), { class: "kl" });
    plot.line(seen("J"), { class: "J" });
    plot.put(make("circle", { class: "J-dot", cx: plot.x(x), cy: plot.y(now.J), r: 5 }), make("circle", { class: "peak", cx: plot.x(peak.x), cy: plot.y(peak.objective), r: 6, fill: "none" }));
    strip.clear();
    if (kind === 2) strip.put(make("rect", { class: "band", x: strip.x(1 - epsilon), width: strip.x(1 + epsilon) - strip.x(1 - epsilon), y: strip.top, height: strip.bottom - strip.top }));
    ridge.actions.forEach((name, a) => strip.put(make("text", { x: 4, y: strip.y(a) + 4 }, name)));
    for (const { a, ratio, weight } of now.ratios) strip.put(make("circle", { class: "ratio-dot", cx: strip.x(Math.min(Math.max(ratio, 0.05), 20)), cy: strip.y(a), r: 2 + 7 * Math.sqrt(weight) }));
    const rows = { "expected return J": now.J.toFixed(3), surrogate: now.surrogate.toFixed(3), [`objective: ${KINDS[kind]}`]: now.objective.toFixed(3), "largest ratio": now.largest.toFixed(2), "effective share": now.share.toFixed(2), "KL a step": now.kl.toFixed(4) };
    readout.replaceChildren(...Object.entries(rows).map(([name, v]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, v.replace("-", "−")))));
    const where = peak.x === FAR ? "rises to the end of the line" : `is highest at ${peak.x.toFixed(2)}`;
    said.textContent = `The objective ${where}, where J is ${at(peak.x).J.toFixed(3)}; at the start J is ${start.J.toFixed(3)}.`;
    betaSlider.node.hidden = kind !== 1;
    epsilonSlider.node.hidden = kind !== 2;
    root.values = { ...now, shared, beta, epsilon, start: start.J, peak: peak.x, policy: start.old, u: start.u };
  }

  const move = (set) => (v) => (set(v), draw());
  const distance = slider("distance", { min: 0, max: FAR, step: 0.05, value: x }, move((v) => (x = v)));
  const betaSlider = slider("β", { min: 0, max: 3, step: 0.05, value: beta }, move((v) => (beta = v)));
  const epsilonSlider = slider("ε", { min: 0.05, max: 0.5, step: 0.05, value: epsilon }, move((v) => (epsilon = v)));
  root.append(
    choice("the policy sees", ["its column", "its state"], 0, (i) => ((shared = 1 - i), (start = begin()), draw())),
    choice("restraint", KINDS, 0, (k) => ((kind = k), draw())),
    make("div", { class: "sliders" }, distance.node, betaSlider.node, epsilonSlider.node), said, holder,
    make("p", { class: "key" }, make("span", { class: "sample J" }), " J ", make("span", { class: "sample surrogate" }), " surrogate ", make("span", { class: "sample kl" }), " objective under the restraint, ringed where it is highest"),
    make("table", {}, readout), strip.node);
  draw();
});
