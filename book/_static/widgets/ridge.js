// The ridge in the reader's hands: set the probabilities, read J, V, Q and A, and climb.
"use strict";
Kit.mount("ridge", (root) => {
  const { make, button, slider, axes, chance, dot, ridge } = Kit;
  let policy = ridge.uniform.map((row) => [...row]), gamma = 1, chosen = -1, exact;
  let returns = [], last = null, random = chance(1);

  // The world: cells, arrows as wide as their probability, the last climb.
  const place = (s) => [52 + 98 * ridge.cells[s][1], 336 - 78 * ridge.cells[s][0]];
  const world = make("svg", { viewBox: "0 0 300 380", role: "img", class: "world" });
  const arrows = make("g", { class: "arrows" }), texts = make("g"), path = make("path", { class: "climb", fill: "none" });
  for (const x of [5, 295]) world.append(make("line", { class: "drop", x1: x, x2: x, y1: 0, y2: 300 }));
  const boxes = ridge.cells.map((_, s) => {
    const [x, y] = place(s);
    const box = make("rect", { x: x - 40, y: y - 23, width: 80, height: 46, rx: 6, class: s ? (ridge.pays[s] ? "pays" : "cell") : "start" });
    if (s < 10) box.addEventListener("click", () => choose(s));
    world.append(box);
    return box;
  });
  world.append(arrows, path, texts);

  function draw() {
    exact = ridge.values(policy, gamma);
    arrows.replaceChildren(), texts.replaceChildren();
    ridge.cells.forEach((_, s) => {
      const [x, y] = place(s), paid = ridge.pays[s];
      boxes[s].classList.toggle("chosen", s === chosen);
      texts.append(make("text", { x, y: y + (s < 10 ? 1 : 5), "text-anchor": "middle", class: "big" }, s < 10 ? exact.v[s].toFixed(2) : `+${paid}`));
      texts.append(make("text", { x, y: y + 17, "text-anchor": "middle" }, s ? (s < 10 && paid ? `${ridge.names[s]} +${paid}` : ridge.names[s]) : "start"));
      if (s < 10) policy[s].forEach((p, a) => p > 0.004 && arrows.append(make("line", { x1: x + 14 * (a - 1), y1: y - 23, x2: x + 38 * (a - 1), y2: y - 45, "stroke-width": 0.6 + 8 * p, "stroke-opacity": 0.35 + 0.65 * p })));
    });
    const shown = Math.max(chosen, 0);
    world.setAttribute("aria-label", `The ridge with the value of each cell; J is ${exact.v[0].toFixed(3)}, and the last climb went ${last ? last.states.map((s) => ridge.names[s]).join(", ") : "nowhere yet"}.`);
    rows.forEach(({ set, q, a }, i) => {
      set(policy[shown][i]);
      q.textContent = exact.q[shown][i].toFixed(2);
      a.textContent = exact.advantage[shown][i].toFixed(2).replace("-", "−");
    });
    head.textContent = chosen < 0 ? "every cell (Q and A of the start)" : ridge.names[chosen];
    goal.textContent = `J = ${exact.v[0].toFixed(3)}`;
    drawClimbs();
  }

  // The policy of one cell, or of all.
  const head = make("caption");
  const rows = ridge.actions.map((name, a) => {
    const p = slider(name, { min: 0, max: 1, step: 0.01, value: 1 / 3 }, (x) => move(a, x));
    const q = make("td"), advantage = make("td");
    return { ...p, q, a: advantage, row: make("tr", {}, make("th", { scope: "row" }, p.node), q, advantage) };
  });
  const quantities = make("table", {}, head, make("thead", {}, make("tr", {}, ...["probability", "Q", "A"].map((x) => make("th", { scope: "col" }, x)))), make("tbody", {}, ...rows.map(({ row }) => row)));
  const select = make("select", { onchange: () => choose(+select.value) }, make("option", { value: -1 }, "every cell"), ...ridge.live.map((s) => make("option", { value: s }, ridge.names[s])));

  function choose(s) {
    chosen = s;
    select.value = s;
    draw();
  }

  /** One probability is set; the two others share the rest as they did. */
  function move(a, x) {
    for (const s of chosen < 0 ? ridge.live : [chosen]) {
      const rest = 1 - policy[s][a];
      policy[s] = policy[s].map((p, i) => (i === a ? x : rest > 1e-9 ? (p / rest) * (1 - x) : (1 - x) / 2));
    }
    forget();
  }

  // Climbs, and their mean.
  const goal = make("output", { class: "goal" }), mean = make("output");
  const plot = axes({ height: 190, log: true, x: [1, 10000], y: [0, 14], xticks: [1, 10, 100, 1000, 10000], yticks: [0, 5, 10], xlabel: "climbs N", ylabel: "mean return", label: "The mean return of the climbs so far, against their number, and the expected return as a line." });
  const discounted = (rewards) => rewards.reduceRight((later, r) => r + gamma * later, 0);

  function climb(times) {
    for (let i = 0; i < times; i++) {
      last = ridge.climb(policy, random);
      returns.push(discounted(last.rewards));
    }
    draw();
  }

  function forget() {
    (returns = []), (last = null), (random = chance(1));
    draw();
  }

  function drawClimbs() {
    plot.clear();
    plot.line([[1, exact.v[0]], [10000, exact.v[0]]], { class: "J" });
    let sum = 0;
    const means = returns.map((r, i) => [i + 1, (sum += r) / (i + 1)]);
    const kept = means.filter((_, i) => i < 200 || i % Math.ceil(means.length / 400) === 0 || i === means.length - 1);
    plot.line(kept.filter(([n]) => n <= 10000), { class: "return" });
    const N = returns.length, average = sum / N;
    const spread = Math.sqrt(returns.reduce((total, r) => total + (r - average) ** 2, 0) / (N - 1) / N);
    mean.textContent = N ? `${N.toLocaleString("en")} climbs: mean ${average.toFixed(3)}${N > 1 ? ` ± ${spread.toFixed(3)}` : ""}` : "no climb yet";
    if (N === 1) plot.put(make("circle", { cx: plot.x(1), cy: plot.y(average), r: 3, class: "return-dot" }));
    const stops = last ? last.states.map((s) => (s === 13 ? null : place(s))) : [];
    if (stops.length && !stops[stops.length - 1]) {
      const [x, y] = stops[stops.length - 2];
      stops[stops.length - 1] = [x < 150 ? 4 : 296, y - 50];
    }
    path.setAttribute("d", stops.length ? "M" + stops.map(([x, y]) => `${x},${y}`).join("L") : "");
    root.values = { J: exact.v[0], ...exact, policy, gamma, mean: average, count: N };
  }

  const discount = slider("discount γ", { min: 0, max: 1, step: 0.05, value: 1 }, (x) => ((gamma = x), forget()));
  const set = (make) => () => ((policy = make().map((row) => [...row])), forget());
  root.append(
    make("div", { class: "two" }, world,
      make("div", {}, make("label", { class: "pick" }, "cell ", select), quantities, discount.node,
        make("div", { class: "buttons" }, button("uniform", set(() => ridge.uniform)), button("best", set(() => ridge.best(gamma)))), goal)),
    make("div", { class: "buttons" }, button("climb once", () => climb(1)), button("ten times", () => climb(10)), button("a thousand times", () => climb(1000)), button("forget", forget), mean),
    plot.node);
  draw();
});
