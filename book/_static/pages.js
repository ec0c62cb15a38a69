// What a page does once it is there: verdicts with the numbers of their equations, and boxes that
// scroll from the keyboard too.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  document.querySelector(".bd-sidebar-primary")?.setAttribute("role", "region");
  document.querySelector(".bd-sidebar-primary")?.setAttribute("aria-label", "The book");

  // These roles of Sphinx are deprecated, and not allowed where they stand.
  for (const node of document.querySelectorAll(".citation-list, .citation, .footnote-list, .footnote")) node.removeAttribute("role");

  // A fold is called what is written on it.
  for (const fold of document.querySelectorAll("summary[aria-label]")) fold.removeAttribute("aria-label");

  // The empty corner of a table heads nothing.
  for (const head of document.querySelectorAll("article th")) {
    if (!head.textContent.trim()) head.replaceWith(document.createElement("td"));
  }

  // A verdict names its equation by label: give it the number that the page shows.  The link
  // stands beside what opens, since a link inside a button cannot be reached by everybody.
  for (const verdict of document.querySelectorAll("details.verdict")) {
    const link = verdict.querySelector("summary a");
    if (!link) continue;
    const equation = document.querySelector(link.getAttribute("href"));
    const number = equation?.querySelector(".eqno")?.firstChild?.textContent;
    link.replaceWith(link.textContent);
    verdict.querySelector("summary").normalize();
    for (const said of verdict.querySelector("summary").childNodes)
      said.textContent = said.textContent.replace(/(\de)-(\d)/g, "$1\u2011$2");
    if (!number) continue;
    link.textContent = number;
    link.className = "verdict-number";
    const line = document.createElement("div");
    line.className = "verdict-line";
    verdict.replaceWith(line);
    line.append(link, verdict);
  }

  // A number shows its equation; a page carries those of other pages as TeX.
  const elsewhere = JSON.parse(document.getElementById("equations")?.textContent ?? "{}");
  const card = document.createElement("div");
  card.className = "equation-card";
  card.setAttribute("role", "tooltip");
  card.hidden = true;
  document.body.append(card);
  let shown = null;
  const hide = () => {
    shown = null;
    card.hidden = true;
  };
  addEventListener("keydown", (event) => event.key === "Escape" && hide());
  for (const link of document.querySelectorAll('article a[href*="#equation-"]')) {
    const [page, anchor] = link.getAttribute("href").split("#");
    const show = async () => {
      shown = link;
      const tex = elsewhere[anchor.slice("equation-".length)];
      const here = page === "" && document.getElementById(anchor)?.querySelector("mjx-container");
      if (here) {
        card.replaceChildren(here.cloneNode(true));
        for (const name of ["tabindex", "role", "aria-label"]) card.firstChild.removeAttribute(name);
      }
      else if (page && tex && window.MathJax?.typesetPromise) {
        card.textContent = `\\[${tex}\\]`;
        await MathJax.typesetPromise([card]);
      } else return;
      if (shown !== link) return;
      card.hidden = false;
      const place = link.getBoundingClientRect();
      card.style.left = `${Math.max(16, Math.min(place.left, innerWidth - card.offsetWidth - 16)) + scrollX}px`;
      card.style.top = `${place.bottom + scrollY + 4}px`;
    };
    for (const kind of ["mouseenter", "focus"]) link.addEventListener(kind, show);
    for (const kind of ["mouseleave", "blur", "click"]) link.addEventListener(kind, hide);
  }

  // What a cell has printed in three columns or far apart keeps its lines, and scrolls where it is
  // too wide; other lines wrap.
  for (const printed of document.querySelectorAll(".cell_output .stream pre")) {
    const lines = printed.textContent.split("\n").filter((line) => /\S {2,}\S.* {2,}\S|\S {4,}\S/.test(line));
    printed.classList.toggle("columns", lines.length > 2);
  }

  // A film can be stopped; it stands still from the start where less motion is asked for.
  for (const film of document.querySelectorAll("picture.film")) {
    const still = film.querySelector("source");
    const button = document.createElement("button");
    button.className = "film";
    const show = (moves) => {
      still.media = moves ? "print" : "all";
      button.textContent = moves ? "Stop" : "Play";
      button.setAttribute("aria-label", `${button.textContent} the film`);
      button.onclick = () => show(!moves);
    };
    show(!matchMedia("(prefers-reduced-motion: reduce)").matches);
    const box = document.createElement("div");
    box.className = "film";
    film.replaceWith(box);
    box.append(film, button);
  }

  const BOXES = "div.math mjx-container, p mjx-container, li mjx-container, td mjx-container, div.math, div.highlight pre, div.cell_output pre, .pst-scrollable-table-container, .drawing";
  // A box knows on which sides there is more.
  const ends = (box) => {
    const rest = box.scrollWidth - box.clientWidth - box.scrollLeft;
    const scrolls = box.matches(".scrolls");
    box.classList.toggle("more-left", scrolls && box.scrollLeft > 1);
    box.classList.toggle("more-right", scrolls && rest > 1);
  };
  document.addEventListener("scroll", (event) => event.target.matches?.(".scrolls") && ends(event.target), true);
  // A table that is too wide becomes a list for each row, with the names of the columns before its
  // entries; on a phone smaller letters are tried first.
  const names = (table) => {
    const heads = [...table.tHead.rows[0].cells];
    table.setAttribute("role", "table");
    for (const part of [table.tHead, ...table.tBodies]) part.setAttribute("role", "rowgroup");
    for (const head of heads) head.setAttribute("role", head.matches("th") ? "columnheader" : "cell");
    for (const row of table.rows) row.setAttribute("role", "row");
    for (const row of [...table.tBodies].flatMap((body) => [...body.rows])) {
      [...row.cells].forEach((cell, i) => {
        const name = document.createElement("span");
        cell.setAttribute("role", "cell");
        const said = [...cell.childNodes].filter((node) => !node.matches?.(".head"));
        cell.classList.toggle("empty", !said.some((node) => node.textContent.trim()));
        if (!i || cell.querySelector(".head") || !heads[i]?.textContent.trim()) return;
        name.className = "head";
        name.setAttribute("aria-hidden", "true");
        name.append(...(heads[i].querySelector("p") ?? heads[i]).cloneNode(true).childNodes);
        cell.prepend(name);
      });
    }
  };
  let widths = new WeakMap();
  const fit = () => {
    const phone = innerWidth <= 600;
    for (const box of document.querySelectorAll(".pst-scrollable-table-container")) {
      if (widths.get(box) === box.clientWidth) continue;
      widths.set(box, box.clientWidth);
      const table = box.querySelector("table");
      table.classList.remove("tight", "stacked", "even");
      // On a phone a row of more than a few lines reads better as a list.
      const fits = () => box.scrollWidth <= box.clientWidth + 1 && !(phone && [...table.rows].some((row) => row.cells.length > 2 && row.offsetHeight > 150));
      for (const kind of phone ? ["tight", "stacked"] : ["stacked"]) {
        if (fits() || !table.tHead) break;
        if (kind === "stacked") names(table);
        table.classList.add(kind);
      }
      // Of two columns neither is pressed together.
      table.classList.toggle("even", phone && [...table.rows].some((row) => row.cells.length === 2 && row.offsetHeight > 150));
    }
  };
  // The block that a formula in a line of text stands in; what is inline has no width.
  const lineOf = (box) => {
    let block = box.parentElement;
    while (!block.clientWidth && block !== document.body) block = block.parentElement;
    return block;
  };
  const reach = () => {
    fit();
    for (const box of document.querySelectorAll(BOXES)) {
      const line = box.matches("mjx-container:not([display])") && lineOf(box);
      const scrolls = line ? box.firstElementChild?.offsetWidth > line.clientWidth + 1 : box.scrollWidth > box.clientWidth + 1;
      box.classList.toggle("scrolls", scrolls);
      if (scrolls) box.tabIndex = 0;
      else if (!box.matches(".answers")) box.removeAttribute("tabindex");
      ends(box);
    }
  };
  let waiting = 0;
  const soon = () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(reach);
  };
  addEventListener("load", () => {
    soon();
    window.MathJax?.startup?.promise?.then(() => {
      widths = new WeakMap();
      soon();
    });
  });
  addEventListener("resize", soon);
  // Paper is white.
  let screen = null;
  addEventListener("beforeprint", () => {
    screen ??= document.documentElement.dataset.theme;
    document.documentElement.dataset.theme = "light";
  });
  addEventListener("afterprint", () => {
    if (screen) document.documentElement.dataset.theme = screen;
    screen = null;
  });
  document.addEventListener("toggle", soon, true);
  document.addEventListener("click", soon);
});

// Under each result of the search stands the sentence that has most of what was asked for; the
// page that searches brings the sentences of all others with it.
document.addEventListener("DOMContentLoaded", () => {
  const out = document.getElementById("search-results");
  if (!out || !window.sentences) return;
  const asked = new URLSearchParams(location.search).get("q") ?? "";
  const LENGTH = 220;
  const seen = new Set();
  let stems = null;
  // The stem of "entropy" is "entropi".
  const begins = (word, stem) => word.startsWith(stem) ? stem : stem.slice(0, -1);
  // Where a word begins so: "ppo" is not in "suppose".
  const begin = (stem) => new RegExp(`(?<![\\p{L}\\p{N}])${stem}`, "iu");
  // How many of the words a sentence has, and half a word more where it has them as they stand.
  const score = (sentence) => {
    const small = sentence.toLowerCase();
    const had = stems.filter((stem) => begin(stem).test(sentence)).length;
    // A heap of words, as the name of an argument, is no sentence.
    return sentence.length < 24 ? -1 : had && had + (small.includes(asked.toLowerCase().trim()) ? 0.5 : 0);
  };
  const line = (item) => {
    if (item.querySelector(".context")) return;
    const stemmer = new Stemmer();
    const words = asked.toLowerCase().split(/[^\p{L}\p{N}_]+/u).filter((word) => word && !stopwords.includes(word));
    stems ??= [...new Set(words.map((word) => begins(word, stemmer.stemWord(word))))];
    const link = item.querySelector("a");
    const [file, anchor] = link.getAttribute("href").split("#");
    const all = window.sentences[file.replace(/\.html$/, "")] ?? [];
    const here = all.slice(1).filter(([id]) => id === anchor);
    let best = null;
    for (const [id, title, lines] of here.length ? here : all) {
      for (const sentence of lines) {
        const had = score(sentence);
        if (!best || had > best.had) best = { id, title, sentence, had };
      }
    }
    if (!best) return;
    // Sphinx lists a page again where it was found in another way.
    const place = [file, best.id, best.sentence].join();
    if (seen.has(place)) return item.remove();
    seen.add(place);
    // An entry of the index has the title of its page: say which section it is.
    if (here.length && !item.querySelector(":scope > span") && all[0][1] !== best.title && !link.textContent.includes(" > ")) link.append(` > ${best.title}`);
    const said = document.createElement("p");
    said.className = "context";
    if (!here.length && best.id !== all[0][0]) {
      const section = document.createElement("a");
      section.href = `${file}#${best.id}`;
      section.textContent = best.title;
      said.append(section, ": ");
    }
    const first = Math.min(...stems.map((stem) => best.sentence.search(begin(stem))).filter((at) => at >= 0), best.sentence.length);
    const from = first + 60 < LENGTH || first === best.sentence.length ? 0 : best.sentence.lastIndexOf(" ", first - 60) + 1;
    const piece = best.sentence.slice(from, from + LENGTH);
    const more = from + LENGTH < best.sentence.length;
    const shown = (from ? "… " : "") + (more ? piece.slice(0, piece.lastIndexOf(" ")) + " …" : piece);
    const found = new RegExp(`((?<![\\p{L}\\p{N}])(?:${stems.join("|")})[\\p{L}\\p{N}_]*)`, "iu");
    for (const [i, part] of (stems.length ? shown.split(found) : [shown]).entries()) {
      if (i % 2) said.append(Object.assign(document.createElement("mark"), { textContent: part }));
      else said.append(part);
    }
    item.append(said);
  };
  const lines = () => {
    out.querySelectorAll("ul.search > li").forEach(line);
    const status = out.querySelector(".search-summary");
    const said = status?.textContent.replace(/\d+ page\(s\) matching the search query/, seen.size === 1 ? "one place" : `${seen.size} places`);
    if (status && said !== status.textContent) status.textContent = said;
  };
  new MutationObserver(lines).observe(out, { childList: true, subtree: true });
  lines();
});
