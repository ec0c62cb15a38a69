// Leave one of many equal things for axe, which asks each of them the same: a page has thousands of
// coloured words of code.  Of each colour the first word stays.  Formulas are MathJax's business,
// and what is folded is not asked at all.
() => {
  for (const folded of document.querySelectorAll("details:not([open]) > :not(summary)")) folded.remove();
  const seen = new Set();
  for (const word of document.querySelectorAll(".highlight span[class]")) {
    const kind = word.className + "|" + (word.closest(".cell_output") ? "out" : "in");
    if (seen.has(kind)) word.replaceWith(...word.childNodes);
    else seen.add(kind);
  }
  for (const code of document.querySelectorAll(".highlight pre")) code.normalize();
  for (const formula of document.querySelectorAll("mjx-container > *")) formula.remove();
}
