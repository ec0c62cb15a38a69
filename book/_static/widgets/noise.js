// A hundred estimates of one gradient, each from one trajectory, and what takes their noise away.
"use strict";
Kit.mount("noise", (root) => {
  const { make, button, choice, chance, dot, table, softmax, ridge } = Kit;
  const every = ridge.every(), NAMES = ["R(τ)", "Rₜ", "Rₜ − V", "Rₜ − B*"];
  let theta = table(() => 0), policy, weigh, aside, length, table4, kind = 0, seed = 1;

  /** The weighted scores of a trajectory, summed: a vector of 42 numbers, by row. */
  function estimate({ states, actions, rewards }, kind) {
    const found = Array(42).fill(0);
    let later = 0;
    const toGo = rewards.map((_, i) => rewards.slice(i).reduce((a, b) => a + b, 0));
    actions.forEach((a, t) => {
      const s = states[t], weight = [toGo[0], toGo[t], toGo[t] - weigh.v[s], toGo[t] - weigh.best[s]][kind];
      for (let b = 0; b < 3; b++) found[3 * s + b] += weight * ((a === b) - policy[s][b]);
    });
    return found;
  }

  /** Everything that can be said exactly of a policy: it adds up all trajectories. */
  function prepare() {
    policy = softmax(theta);
    const probs = every.map(({ states, actions, world }) => actions.reduce((p, a, t) => p * policy[states[t]][a], world));
    // B*(s): the mean reward-to-go, weighted by the squared length of the score.
    const above = Array(14).fill(0), below = Array(14).fill(0);
    every.forEach(({ states, actions, rewards }, n) => {
      let toGo = 0;
      for (let t = actions.length - 1; t >= 0; t--) {
        toGo += rewards[t];
        const s = states[t], size = probs[n] * [0, 1, 2].reduce((sum, b) => sum + ((actions[t] === b) - policy[s][b]) ** 2, 0);
        (above[s] += size * toGo), (below[s] += size);
      }
    });
    weigh = { v: ridge.values(policy, 1).v, best: above.map((x, s) => x / below[s] || 0) };
    const gradient = ridge.gradient(policy, 1).flat(), square = dot(gradient, gradient);
    length = Math.sqrt(square);
    table4 = NAMES.map((_, k) => {
      const variance = every.reduce((sum, tau, n) => { const x = estimate(tau, k); return sum + probs[n] * dot(x, x); }, 0) - square;
      return { variance, needed: variance / square };
    });
    // The direction at right angles to the gradient in which the whole return is noisiest.
    const across = every.map((tau) => { const x = estimate(tau, 0), share = dot(x, gradient) / square; return x.map((v, i) => v - share * gradient[i]); });
    const covariance = Array.from({ length: 42 }, () => Array(42).fill(0));
    across.forEach((x, n) => x.forEach((v, i) => { if (v) for (let j = 0; j < 42; j++) covariance[i][j] += probs[n] * v * x[j]; }));
    let vector = Array.from({ length: 42 }, (_, i) => 1 + (i % 5));
    for (let i = 0; i < 400; i++) {
      const next = covariance.map((row) => dot(row, vector)), size = Math.sqrt(dot(next, next));
      vector = next.map((v) => v / size);
    }
    const largest = vector.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a));
    aside = vector.map((v) => v * Math.sign(largest));
    weigh.gradient = gradient;
  }

  const SIZE = 13, centre = [150, 150], scale = 135 / SIZE;
  const picture = make("svg", { viewBox: "-14 0 314 322", role: "img" });
  const body = make("tbody"), note = make("output");
  const numbers = make("table", {}, make("thead", {}, make("tr", {}, ...["weight", "variance", "trajectories needed"].map((x) => make("th", { scope: "col" }, x)))), body);

  function draw() {
    const random = chance(seed), found = Array.from({ length: 100 }, () => estimate(ridge.climb(policy, random), kind));
    const points = found.map((x) => [dot(x, weigh.gradient) / length ** 2, dot(x, aside) / length]);
    const mean = [0, 1].map((i) => points.reduce((sum, p) => sum + p[i], 0) / 100);
    const at = ([x, y]) => [centre[0] + scale * x, centre[1] - scale * y].map((v) => v.toFixed(1));
    const ray = (p, attributes) => { const [x, y] = at(p); return make("line", { x1: centre[0], y1: centre[1], x2: x, y2: y, ...attributes }); };
    picture.replaceChildren(
      ...[-10, -5, 5, 10].flatMap((v) => [make("line", { class: "grid", x1: at([v, 0])[0], x2: at([v, 0])[0], y1: 15, y2: 285 }), make("line", { class: "grid", y1: at([0, v])[1], y2: at([0, v])[1], x1: 15, x2: 285 }), make("text", { x: at([v, 0])[0], y: 299, "text-anchor": "middle" }, String(v).replace("-", "−")), make("text", { x: 13, y: +at([0, v])[1] + 4, "text-anchor": "end" }, String(v).replace("-", "−"))]),
      // A picture inside the picture cuts off what lies outside.
      make("svg", { x: 15, y: 15, width: 270, height: 270, viewBox: "15 15 270 270" }, ...points.map((p) => ray(p, { class: kind < 2 ? "return" : "advantage", "stroke-opacity": 0.45 })),
        ...points.map((p) => { const [cx, cy] = at(p); return make("circle", { cx, cy, r: 2.2, class: kind < 2 ? "return-dot" : "advantage-dot" }); }),
        ray([1, 0], { class: "J", "stroke-width": 5 }),
        make("path", { class: "mean", d: (([x, y]) => `M${x - 6},${y - 6}l12,12m0,-12l-12,12`)(at(mean).map(Number)) })),
      make("text", { x: 150, y: 317, "text-anchor": "middle" }, "along the gradient, in its lengths"),
      make("text", { x: 150, y: 10, "text-anchor": "middle" }, "astray ↑"));
    picture.setAttribute("aria-label", `A hundred estimates as arrows round the exact gradient, from one trajectory each with the weight ${NAMES[kind]}; their mean lies at ${mean[0].toFixed(2)} along the gradient and ${mean[1].toFixed(2)} astray.`);
    body.replaceChildren(...table4.map(({ variance, needed }, k) => make("tr", { class: k === kind && "chosen" }, make("th", { scope: "row" }, NAMES[k]), make("td", {}, variance.toFixed(2)), make("td", {}, Math.round(needed)))));
    note.textContent = `mean of the hundred: ${mean.map((v) => v.toFixed(2).replace("-", "−")).join(" along, ")} astray`;
    root.values = { kind, table: table4, aside, gradient: weigh.gradient, best: weigh.best, mean, policy, found };
  }

  /** The policy after so many steps up the exact gradient, as in the text. */
  function climbed(steps) {
    theta = table(() => 0);
    for (let i = 0; i < steps; i++) {
      const uphill = ridge.gradient(softmax(theta), 1);
      theta = theta.map((row, s) => row.map((v, a) => v + 0.5 * uphill[s][a]));
    }
    prepare();
  }

  climbed(0);
  root.append(make("div", { class: "two" }, picture,
    make("div", {},
      choice("weight of a step", NAMES, 0, (k) => ((kind = k), draw())),
      choice("policy", ["uniform", "trained: 12 steps"], 0, (i) => (climbed(12 * i), draw())),
      make("div", { class: "buttons" }, button("another hundred", () => (seed++, draw())), note), numbers)));
  draw();
});
