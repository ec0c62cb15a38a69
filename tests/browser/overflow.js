// The elements that make a page wider than its window, those inside a scrolling box left out.
() => {
  const root = document.scrollingElement;
  if (root.scrollWidth <= window.innerWidth) return [];
  const scrolls = (node) => {
    for (let up = node.parentElement; up && up !== document.body; up = up.parentElement)
      if (getComputedStyle(up).overflowX !== "visible") return true;
    return false;
  };
  const wide = [...document.body.querySelectorAll("*")].filter(
    (node) => node.getBoundingClientRect().right > window.innerWidth + 1 && !scrolls(node));
  const names = wide.slice(0, 3).map((node) => node.tagName + "." + node.className);
  return [root.scrollWidth + " px wide: " + (names.join(", ") || "?")];
}
