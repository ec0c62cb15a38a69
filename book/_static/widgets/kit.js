// What the figures that move have in common: elements, sliders, axes, a seeded chance, the ridge.
"use strict";
window.Kit = (() => {
  const SVG = new Set("svg g rect circle line path text polygon".split(" "));

  /** An element of HTML or SVG; `on…` attributes are listeners, and false ones are left out. */
  function make(name, attributes = {}, ...children) {
    const svg = SVG.has(name);
    const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else if (value !== false) node.setAttribute(key, value);
    }
    node.append(...children);
    return node;
  }

  const button = (text, onclick) => make("button", { type: "button", onclick }, text);

  /** A labelled slider; `.value` is a number, and `set` moves it without telling anybody. */
  function slider(label, { min, max, step, value, digits = 2, show = (x) => x.toFixed(digits) }, tell) {
    const input = make("input", { type: "range", min, max, step, value });
    const output = make("output", {}, show(value));
    const set = (x) => {
      input.value = x;
      output.textContent = show(x);
      input.setAttribute("aria-valuetext", show(x));
    };
    input.addEventListener("input", () => (set(+input.value), tell(+input.value)));
    set(value);
    return { node: make("label", { class: "slider" }, make("span", {}, label), input, output), set, input };
  }

  /** Radio buttons; `tell` is called with the number of the chosen one. */
  let groups = 0;
  function choice(legend, names, chosen, tell) {
    const name = `choice-${++groups}`;
    const radio = (text, i) =>
      make("label", {}, make("input", { type: "radio", name, value: i, checked: i === chosen && "", onchange: () => tell(i) }), text);
    return make("fieldset", {}, make("legend", {}, legend), ...names.map(radio));
  }

  /** A drawing area with axes: `x` and `y` turn numbers into places, `clear` begins a new picture. */
  function axes({ width = 420, height = 220, x: [x0, x1], y: [y0, y1], xlabel, ylabel, xticks, yticks, label, log = false, left = 52, foot = 38 }) {
    const right = width - 24, top = 12, bottom = height - foot;
    const along = (v) => (log ? Math.log(v / x0) / Math.log(x1 / x0) : (v - x0) / (x1 - x0));
    const x = (v) => left + (right - left) * along(v);
    const y = (v) => bottom - ((bottom - top) * (v - y0)) / (y1 - y0);
    const marks = make("g");
    const node = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
    for (const v of xticks)
      node.append(make("line", { class: "grid", x1: x(v), x2: x(v), y1: top, y2: bottom }), make("text", { x: x(v), y: bottom + 15, "text-anchor": "middle" }, String(v)));
    for (const v of yticks)
      node.append(make("line", { class: "grid", x1: left, x2: right, y1: y(v), y2: y(v) }), make("text", { x: left - 6, y: y(v) + 4, "text-anchor": "end" }, String(v).replace("-", "−")));
    node.append(marks, make("text", { x: (left + right) / 2, y: height - 6, "text-anchor": "middle" }, xlabel));
    node.append(make("text", { x: 11, y: (top + bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 11 ${(top + bottom) / 2})` }, ylabel));
    const put = (...nodes) => marks.append(...nodes);
    const line = (points, attributes) => {
      const inside = points.filter(([, v]) => Number.isFinite(v)).map(([u, v]) => `${x(u).toFixed(1)},${y(v).toFixed(1)}`);
      put(make("path", { fill: "none", d: inside.length ? `M${inside.join("L")}` : "", ...attributes }));
    };
    return { node, x, y, put, line, left, right, top, bottom, clear: () => marks.replaceChildren() };
  }

  /** Numbers of [0, 1) that follow from a seed (mulberry32). */
  function chance(seed) {
    let state = seed >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let z = Math.imul(state ^ (state >>> 15), 1 | state);
      z = (z + Math.imul(z ^ (z >>> 7), 61 | z)) ^ z;
      return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
    };
  }

  const pick = (probs, u) => {
    for (let i = 0; i < probs.length - 1; i++) if ((u -= probs[i]) < 0) return i;
    return probs.length - 1;
  };

  const dot = (a, b) => a.reduce((sum, v, i) => sum + v * b[i], 0);
  const table = (f) => Array.from({ length: 14 }, (_, s) => [0, 1, 2].map((a) => f(s, a)));
  const softmax = (logits) => logits.map((row) => {
    const top = Math.max(...row), e = row.map((v) => Math.exp(v - top)), sum = e[0] + e[1] + e[2];
    return e.map((v) => v / sum);
  });

  // The ridge, as ppo_lib.exact.mdp.ridge makes it.
  const cells = [[0, 1]];
  for (let row = 1; row <= 4; row++) for (let column = 0; column < 3; column++) cells.push([row, column]);
  const pays = { 1: 2, 2: 2, 3: 4, 10: 10, 11: 2, 12: 4 };
  const FALLEN = 13, LIVE = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
  const ridge = {
    cells,
    pays,
    live: LIVE,
    names: ["start", ...cells.slice(1).map(([row, column]) => row + "LMR"[column]), "fallen"],
    actions: ["left", "up", "right"],
    uniform: table(() => 1 / 3),
    /** Where the step leads that was meant as one action and went as another. */
    next(s, went) {
      const [row, column] = cells[s], to = column + went - 1;
      return to < 0 || to > 2 ? FALLEN : 3 * row + 1 + to;
    },
    /** The probability that an action goes as another. */
    slips: (meant, went) => (meant === went ? 0.8 : 0.1),
    /** Q, V and A by Bellman's equations, from the top down: a step only leads upwards. */
    values(policy, gamma) {
      const q = table(() => 0), v = Array(14).fill(0);
      for (const s of [...LIVE].reverse()) {
        for (let a = 0; a < 3; a++)
          for (let went = 0; went < 3; went++) {
            const to = ridge.next(s, went);
            q[s][a] += ridge.slips(a, went) * ((pays[to] || 0) + gamma * v[to]);
          }
        v[s] = dot(policy[s], q[s]);
      }
      return { q, v, advantage: table((s, a) => (s < 10 ? q[s][a] - v[s] : 0)) };
    },
    /** How often each state is visited in an episode, discounted, from the start up. */
    visits(policy, gamma) {
      const d = Array(14).fill(0);
      d[0] = 1;
      for (const s of LIVE)
        for (let a = 0; a < 3; a++) for (let went = 0; went < 3; went++) d[ridge.next(s, went)] += gamma * d[s] * policy[s][a] * ridge.slips(a, went);
      return d;
    },
    /** The gradient of J for a table of logits, [14][3]. */
    gradient(policy, gamma) {
      const d = ridge.visits(policy, gamma), { advantage } = ridge.values(policy, gamma);
      return table((s, a) => d[s] * policy[s][a] * advantage[s][a]);
    },
    /** The best policy: in each state the action of the largest Q. */
    best(gamma) {
      const policy = table(() => 0);
      for (const s of [...LIVE].reverse()) {
        const { q } = ridge.values(policy, gamma);
        policy[s][q[s].indexOf(Math.max(...q[s]))] = 1;
      }
      return policy;
    },
    /** One climb, drawn. */
    climb(policy, random) {
      const states = [0], actions = [], rewards = [];
      for (let s = 0; s < 10; s = states[states.length - 1]) {
        const a = pick(policy[s], random());
        const to = ridge.next(s, pick([0, 1, 2].map((went) => ridge.slips(a, went)), random()));
        actions.push(a), rewards.push(pays[to] || 0), states.push(to);
      }
      return { states, actions, rewards };
    },
    /** Every trajectory, with the world's part of its probability. */
    every() {
      const found = [];
      (function extend(states, actions, rewards, world) {
        const s = states[states.length - 1];
        if (s >= 10) return found.push({ states, actions, rewards, world });
        for (let a = 0; a < 3; a++)
          for (let went = 0; went < 3; went++) {
            const to = ridge.next(s, went);
            extend([...states, to], [...actions, a], [...rewards, pays[to] || 0], world * ridge.slips(a, went));
          }
      })([0], [], [], 1);
      return found;
    },
  };

  /** Fill every `<div class="widget" data-widget=name>` of the page. */
  function mount(name, fill) {
    for (const root of document.querySelectorAll(`.widget[data-widget="${name}"]`)) fill(root);
  }

  return { make, button, slider, choice, axes, chance, pick, dot, table, softmax, ridge, mount };
})();
