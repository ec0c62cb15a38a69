// A symbol answers: who points at a symbol of a displayed equation, taps it, or goes through the
// equation with the arrow keys, is told what it means, what it is called in the code, and where the
// notation page says so.  The rows of that page are in `window.notation`; both they and the
// equations are set by MathJax, and compared by the letters of what it has set.
"use strict";
(() => {
  const RELATIONS = "∼≻=";
  const letters = (node) =>
    [...node.querySelectorAll("mjx-c")]
      .map((c) => /mjx-c([0-9A-F]+)/.exec(c.className))
      .map((code) => (code ? String.fromCodePoint(parseInt(code[1], 16)) : ""))
      .join("")
      .normalize("NFKC");

  // What an element of MathJax is, if it is a symbol: a letter with its accent, and what stands
  // below and above it.
  const read = (node) => {
    const kind = node.localName.slice(4), inside = [...node.children];
    if ((kind === "texatom" || kind === "mrow") && inside.length === 1) return read(inside[0]);
    if (kind === "mi" || (kind === "mo" && letters(node) === "∇")) return { base: letters(node) };
    if (kind === "mover") {
      const base = node.querySelector(":scope > mjx-base > *"), over = node.querySelector(":scope > mjx-over > mjx-mo");
      const under = base && over && read(base);
      return under && { ...under, base: under.base + letters(over) };
    }
    if (!["msub", "msup", "msubsup"].includes(kind)) return null;
    const base = read(inside[0]), script = [...(inside[1]?.children ?? [])].filter((x) => x.localName !== "mjx-spacer");
    if (!base || !script.length) return null;
    const [above, below] = kind === "msub" ? [null, script[0]] : [script[0], script[1]];
    return { base: base.base, sub: below && letters(below), sup: above && letters(above) };
  };

  // Names of a symbol, from the closest to the loosest: another index, another exponent.
  const names = ({ base, sub, sup }) => {
    if (base === "e" && sup) return []; // the number, not the error
    const found = [];
    if (sub && sup) found.push(`${base}^${sup}_${sub}`, `${base}^${sup}_*`);
    if (sub) found.push(`${base}_${sub}`, `${base}_*`);
    if (sup) found.push(`${base}^${sup}`);
    return [...found, base];
  };

  let known = null;
  const learn = () => {
    known = new Map();
    const chapter = /(\d\d)-[^/]*$/.exec(location.pathname)?.[1];
    const here = (window.notation ?? []).filter((row) => !row.only.length || row.only.includes(chapter));
    const loose = [];
    for (const row of here) {
      for (const tex of row.tex) {
        const first = MathJax.tex2chtml(tex).querySelector("mjx-math").firstElementChild;
        const next = first?.nextElementSibling;
        const symbol = first && !(next && RELATIONS.includes(letters(next) || " ")) && read(first);
        if (!symbol) continue;
        const [name, ...others] = names(symbol);
        const before = known.get(name) ?? [];
        // What belongs to this chapter alone takes the place of what holds everywhere.
        known.set(name, row.only.length && before[0]?.only.length === 0 ? [row] : [...before, row]);
        // A name below, as in t_env, makes another symbol, and a plain letter is often an index.
        if (/\p{L}{2}/u.test(symbol.sub ?? "")) continue;
        const index = (other) => row.only.length && /^[a-z]$/.test(other);
        loose.push(...others.filter((other) => !index(other)).map((other) => [other, row]));
      }
    }
    const close = new Set(known.keys());
    for (const [name, row] of loose) {
      const before = known.get(name) ?? [];
      if (!close.has(name) && !before.includes(row)) known.set(name, [...before, row]);
    }
  };
  const answer = (node) => {
    const symbol = read(node);
    const name = symbol && names(symbol).find((name) => known.has(name));
    return name && known.get(name);
  };

  // The largest symbol round a place, with what is known of it.
  const around = (place) => {
    let found = null;
    for (let node = place; node && node.localName !== "mjx-math"; node = node.parentElement) {
      if (node.localName.startsWith("mjx-") && answer(node)) found = node;
    }
    return found;
  };
  const symbolsOf = (box) => {
    const all = [...box.querySelectorAll("mjx-math *")].filter((node) => answer(node));
    return all.filter((node) => around(node) === node);
  };

  document.addEventListener("DOMContentLoaded", () => {
    const card = document.createElement("div");
    card.className = "symbol-card";
    card.setAttribute("role", "status");
    card.hidden = true;
    document.body.append(card);
    let chosen = null, leaving = 0;

    const hide = () => {
      chosen?.classList.remove("chosen");
      chosen = null;
      card.hidden = true;
    };
    const show = async (node) => {
      clearTimeout(leaving);
      if (node === chosen) return;
      hide();
      chosen = node;
      node.classList.add("chosen");
      const root = document.documentElement.dataset.content_root ?? "";
      MathJax.typesetClear([card]);
      card.innerHTML = answer(node)
        .map((row) => {
          const symbols = row.tex.map((tex) => `\\(${tex.replaceAll("<", "&lt;")}\\)`).join(", ");
          const code = row.code && `<p>In the code: ${row.code}</p>`;
          const link = `<a href="${root}book/notation.html#${row.anchor}">Notation: ${row.title}</a>`;
          return `<p><strong>${symbols}:</strong> ${row.says}</p>${code}<p>${link}</p>`;
        })
        .join("");
      await MathJax.typesetPromise([card]);
      if (chosen !== node) return;
      card.hidden = false;
      const place = node.getBoundingClientRect();
      const right = document.documentElement.clientWidth - card.offsetWidth - 8;
      card.style.left = `${Math.max(8, Math.min(place.left, right)) + scrollX}px`;
      const below = place.bottom + 6 + card.offsetHeight < innerHeight;
      card.style.top = `${(below ? place.bottom + 6 : place.top - 6 - card.offsetHeight) + scrollY}px`;
    };
    const leave = () => {
      clearTimeout(leaving);
      leaving = setTimeout(hide, 250);
    };

    const start = () => {
      learn();
      for (const box of document.querySelectorAll("article div.math")) {
        if (!symbolsOf(box).length) continue;
        const number = box.querySelector(".eqno")?.firstChild?.textContent ?? "";
        const formula = box.querySelector("mjx-container");
        formula.tabIndex = 0;
        formula.setAttribute("role", "group");
        formula.setAttribute("aria-label", `Equation ${number}: the arrow keys go through its symbols`);
        formula.classList.add("answers");
        formula.addEventListener("pointerover", (event) => {
          const node = event.pointerType !== "touch" && around(event.target);
          if (node) show(node);
          else leave();
        });
        formula.addEventListener("pointerleave", leave);
        formula.addEventListener("click", (event) => {
          const node = around(event.target);
          if (node) show(node);
        });
        formula.addEventListener("focus", () => {
          if (formula.matches(":focus-visible")) show(symbolsOf(box)[0]);
        });
        formula.addEventListener("blur", leave);
        formula.addEventListener("keydown", (event) => {
          const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
          if (!step) return;
          event.preventDefault();
          const all = symbolsOf(box), at = all.indexOf(chosen);
          const next = all[Math.max(0, Math.min(all.length - 1, at + step))];
          next.scrollIntoView({ block: "nearest", inline: "nearest" });
          show(next);
        });
      }
      card.addEventListener("pointerenter", () => clearTimeout(leaving));
      card.addEventListener("pointerleave", leave);
      card.addEventListener("focusin", () => clearTimeout(leaving));
      document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
      document.addEventListener("pointerdown", (event) => {
        if (!event.target.closest?.(".symbol-card, .answers")) hide();
      });
      document.documentElement.classList.add("symbols-answer");
    };
    // Not before the page is set, and not while the reader waits for it.
    addEventListener("load", () => window.MathJax?.startup?.promise?.then(() => (window.requestIdleCallback ?? setTimeout)(start)));
  });
})();
