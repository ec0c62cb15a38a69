// The clip: one sample's two terms, and a batch of twenty whose gradients go out one by one.
"use strict";
Kit.mount("clip", (root) => {
  const { make, button, slider, choice, axes, chance, table, softmax, ridge } = Kit;
  const RATE = 0.5, GAMMA = 0.9, BATCH = 20;
  let rho = 1.1, epsilon = 0.2, sign = 1, seed = 1, theta, batch, steps;
  const bound = (r) => Math.min(Math.max(r, 1 - epsilon), 1 + epsilon);
  /** Where the clipped term is the smaller one, nothing of θ is left in the minimum. */
  const flat = (r, A) => bound(r) * A < r * A;

  const one = axes({ height: 230, x: [0, 2], y: [-2, 2], xticks: [0, 0.5, 1, 1.5, 2], yticks: [-2, -1, 0, 1, 2], xlabel: "ratio ρ", ylabel: "objective", label: "The unclipped term, the clipped term and their minimum against the ratio." });
  const many = axes({ height: 230, x: [0.4, 1.8], y: [-6, 9], xticks: [0.5, 1, 1.5], yticks: [-5, 0, 5], xlabel: "ratio ρ", ylabel: "advantage Â", label: "Twenty samples by ratio and advantage; those without a gradient are grey." });
  const terms = make("tbody"), count = make("output", { class: "said" });

  const shade = (plot, from, to, low, high) => plot.put(make("rect", { class: "flat", x: plot.x(from), width: Math.max(plot.x(to) - plot.x(from), 0), y: plot.y(high), height: plot.y(low) - plot.y(high) }));

  function draw() {
    one.clear(), many.clear();
    if (sign > 0) shade(one, 1 + epsilon, 2, -2, 2);
    else shade(one, 0, 1 - epsilon, -2, 2);
    const points = Array.from({ length: 201 }, (_, i) => i / 100);
    one.line(points.map((r) => [r, r * sign]), { class: "ratio", "stroke-dasharray": "6 4" });
    one.line(points.map((r) => [r, bound(r) * sign]), { class: "kl", "stroke-dasharray": "2 4" });
    one.line(points.map((r) => [r, Math.min(r * sign, bound(r) * sign)]), { class: "J", "stroke-width": 3 });
    const least = Math.min(rho * sign, bound(rho) * sign), slope = flat(rho, sign) ? 0 : sign;
    one.put(make("circle", { class: "J-dot", cx: one.x(rho), cy: one.y(least), r: 5.5 }));
    const rows = { "ρ Â": rho * sign, "clip(ρ) Â": bound(rho) * sign, "the smaller": least, "slope by ρ": slope };
    terms.replaceChildren(...Object.entries(rows).map(([name, v]) => make("tr", { class: name === "slope by ρ" && slope === 0 && "chosen" }, make("th", { scope: "row" }, name), make("td", {}, (name === "slope by ρ" && slope === 0 ? "0: no gradient" : v.toFixed(2)).replace("-", "−")))));

    shade(many, 1 + epsilon, 1.8, 0, 9), shade(many, 0.4, 1 - epsilon, -6, 0);
    const policy = softmax(theta);
    const ratios = batch.map(({ s, a }) => policy[s][a] * 3), out = batch.map(({ A }, i) => flat(ratios[i], A));
    batch.forEach(({ A }, i) => many.put(make("circle", { class: out[i] ? "off-dot" : "advantage-dot", cx: many.x(Math.min(Math.max(ratios[i], 0.42), 1.78)), cy: many.y(A), r: 5 })));
    const off = out.filter(Boolean).length;
    count.textContent = `after ${steps} ${steps === 1 ? "step" : "steps"}: ${off} of ${BATCH} without a gradient`;
    root.values = { rho, epsilon, sign, least, slope, batch, ratios, out, steps, rate: RATE };
  }

  /** Steps that the uniform policy took, with what followed less the value. */
  function collect() {
    const random = chance(seed), { v } = ridge.values(ridge.uniform, GAMMA);
    batch = [];
    while (batch.length < BATCH) {
      const { states, actions, rewards } = ridge.climb(ridge.uniform, random);
      actions.forEach((a, t) => batch.push({ s: states[t], a, A: rewards.slice(t).reduceRight((later, r) => r + GAMMA * later, 0) - v[states[t]] }));
    }
    batch.length = BATCH;
    restart();
  }

  function restart() {
    (theta = table(() => 0)), (steps = 0);
    draw();
  }

  /** A step of gradient ascent on the mean of the minimum, in a table of logits. */
  function climb(times) {
    for (; times > 0; times--, steps++) {
      const policy = softmax(theta), uphill = table(() => 0);
      for (const { s, a, A } of batch) {
        const ratio = policy[s][a] * 3;
        if (!flat(ratio, A)) for (let b = 0; b < 3; b++) uphill[s][b] += (ratio * A * ((a === b) - policy[s][b])) / BATCH;
      }
      theta = theta.map((row, s) => row.map((v, a) => v + RATE * uphill[s][a]));
    }
    draw();
  }

  const move = (set) => (v) => (set(v), draw());
  root.append(
    choice("the action was", ["good: Â = 1", "bad: Â = −1"], 0, (i) => ((sign = 1 - 2 * i), draw())),
    make("div", { class: "sliders" },
      slider("ρ", { min: 0, max: 2, step: 0.01, value: rho }, move((v) => (rho = v))).node,
      slider("ε", { min: 0.05, max: 0.5, step: 0.05, value: epsilon }, (v) => ((epsilon = v), restart())).node),
    make("div", { class: "two" }, one.node, make("table", {}, terms)),
    make("p", { class: "key" }, make("span", { class: "sample ratio" }), " ρ Â ", make("span", { class: "sample kl dotted" }), " clip(ρ) Â ", make("span", { class: "sample J" }), " the smaller; shaded: no gradient"),
    make("div", { class: "buttons" }, button("one step", () => climb(1)), button("ten steps", () => climb(10)), button("back to ρ = 1", restart), button("another batch", () => (seed++, collect()))),
    count, many.node);
  collect();
});
