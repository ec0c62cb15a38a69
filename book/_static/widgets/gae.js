// GAE over twelve steps whose endings the reader sets, with two flags and with one.
"use strict";
Kit.mount("gae", (root) => {
  const { make, slider, axes } = Kit;
  const T = 12, VALUE = 10, RUN = 0, TERMINATED = 1, TRUNCATED = 2;
  const NAMES = ["running", "terminated", "truncated"], SIGNS = ["·", "✕", "‖"];
  const rewards = Array(T).fill(1), ends = Array(T).fill(RUN);
  rewards[2] = 4;
  (ends[4] = TERMINATED), (ends[8] = TRUNCATED);
  let gamma = 0.9, lambda = 0.95, from = 0;

  /** δ and Â, from the last step to the first; `terminated` takes the next value, either flag the sum. */
  function gae(terminated, truncated) {
    const delta = rewards.map((r, t) => r + gamma * (terminated[t] ? 0 : VALUE) - VALUE), advantage = Array(T);
    let later = 0;
    for (let t = T - 1; t >= 0; t--) advantage[t] = later = delta[t] + gamma * lambda * (terminated[t] || truncated[t] ? 0 : later);
    return { delta, advantage };
  }

  const options = { height: 170, x: [-0.5, T - 0.5], y: [-11, 5], xticks: [], yticks: [-10, -5, 0, 5], xlabel: "" };
  const panels = [["two flags", ""], ["one flag: wrong", ""]].map(([name]) => axes({ ...options, height: 140, ylabel: name, foot: 12, label: `TD errors as bars and advantages as dots over twelve steps, with ${name}.` }));
  const weights = axes({ ...options, height: 130, y: [0, 1.05], yticks: [0, 0.5, 1], ylabel: "weight", xticks: [0, 2, 4, 6, 8, 10], xlabel: "step t", label: "The weight of each TD error in the chosen advantage." });
  const buttons = ends.map((_, t) => make("button", { type: "button", onclick: () => ((ends[t] = (ends[t] + 1) % 3), draw()) }));
  const said = make("output", { class: "said" });

  function draw() {
    const terminated = ends.map((e) => e === TERMINATED), truncated = ends.map((e) => e === TRUNCATED);
    const two = gae(terminated, truncated), one = gae(ends.map((e) => e !== RUN), truncated);
    // What of each TD error is in the advantage of the chosen step: (γλ)^b up to its end.
    let weight = 1;
    const share = ends.map((_, t) => { if (t < from) return 0; const now = weight; weight = ends[t] ? 0 : weight * gamma * lambda; return now; });
    [two, one].forEach(({ delta, advantage }, i) => {
      const panel = panels[i];
      panel.clear();
      delta.forEach((d, t) => panel.put(make("rect", { class: "bar", x: panel.x(t - 0.28), width: panel.x(0.56) - panel.x(0), y: panel.y(Math.max(d, 0)), height: Math.abs(panel.y(d) - panel.y(0)) })));
      ends.forEach((e, t) => e && panel.put(make("line", { class: e === TERMINATED ? "death" : "cut", x1: panel.x(t + 0.5), x2: panel.x(t + 0.5), y1: panel.top, y2: panel.bottom })));
      advantage.forEach((a, t) => panel.put(make("circle", { class: i && Math.abs(a - two.advantage[t]) > 1e-9 ? "wrong-dot" : "advantage-dot", cx: panel.x(t), cy: panel.y(a), r: t === from ? 5.5 : 3.6 })));
    });
    weights.clear();
    share.forEach((w, t) => w && weights.put(make("rect", { class: "bar", x: weights.x(t - 0.28), width: weights.x(0.56) - weights.x(0), y: weights.y(w), height: weights.y(0) - weights.y(w) })));
    buttons.forEach((b, t) => {
      b.textContent = SIGNS[ends[t]];
      b.className = ["", "death", "cut"][ends[t]];
      b.setAttribute("aria-label", `step ${t}: ${NAMES[ends[t]]}`);
    });
    const [right, wrong] = [two, one].map(({ advantage }) => advantage[from].toFixed(3).replace("-", "−"));
    said.textContent = `step ${from}: Â = ${right} with two flags, ${wrong} with one`;
    root.values = { rewards, terminated, truncated, value: VALUE, gamma, lambda, delta: two.delta, advantage: two.advantage, wrong: one.advantage, weights: share };
  }

  const move = (set) => (x) => (set(x), draw());
  root.append(
    make("div", { class: "sliders" },
      slider("γ", { min: 0, max: 1, step: 0.01, value: gamma }, move((x) => (gamma = x))).node,
      slider("λ", { min: 0, max: 1, step: 0.01, value: lambda }, move((x) => (lambda = x))).node,
      slider("Â of step", { min: 0, max: T - 1, step: 1, value: 0, digits: 0 }, move((x) => (from = x))).node),
    said, panels[0].node,
    make("div", { class: "steps", role: "group", "aria-label": "how each step ends" }, ...buttons),
    make("p", { class: "key" }, "· running, ✕ terminated: the world ended, ‖ truncated: a time limit"),
    panels[1].node, weights.node);
  draw();
});
