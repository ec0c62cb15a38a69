// What a page is asked once its mathematics are set: a list of faults, in words.
() => {
  const faults = [];
  const short = (text) => text.trim().replace(/\s+/g, " ").slice(0, 80);
  for (const node of document.querySelectorAll("mjx-merror, [data-mjx-error]"))
    faults.push("TeX error: " + short(node.getAttribute("data-mjx-error") || node.textContent));
  for (const node of document.querySelectorAll(".math"))
    if (!node.querySelector("mjx-container")) faults.push("TeX left: " + short(node.textContent));
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const parent = walker.currentNode.parentElement;
    if (parent.closest("code, pre, script, style, noscript, textarea, mjx-container")) continue;
    const text = walker.currentNode.textContent;
    if (/\$|\\\(|\\\[|\\begin\{/.test(text)) faults.push("TeX left: " + short(text));
    if (text.includes("???")) faults.push("unresolved: " + short(parent.textContent));
    if (/^\s*\|[\s\S]*\|\s*[—-]+\|/.test(text)) faults.push("table left: " + short(text));
    if (/\{(eq|ref|numref|cite|doc)[^}]*\}`/.test(text)) faults.push("role left: " + short(text));
  }
  for (const image of document.images) {
    const name = image.src.slice(0, 4) === "data" ? "data:" : image.src.split("/").pop();
    const alt = image.getAttribute("alt");
    // Sphinx writes the path where there is no text; beside its own words a logo may have none.
    const words = alt && !/\.(png|svg|jpe?g|gif)$/.test(alt);
    if (image.closest("article") ? !words : alt === null) faults.push("no alt text: " + name);
    if (image.complete && !image.naturalWidth) faults.push("picture missing: " + name);
  }
  for (const root of document.querySelectorAll(".widget"))
    if (!root.values) faults.push("a figure that does not move: " + root.dataset.widget);
  for (const box of document.querySelectorAll("div.math, div.math mjx-container, div.highlight pre, div.pst-scrollable-table-container"))
    if (box.scrollWidth > box.clientWidth + 1 && box.tabIndex < 0)
      faults.push("scrolls, but not from the keyboard: " + short(box.textContent));
  return faults;
}
