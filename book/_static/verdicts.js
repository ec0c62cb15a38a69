// A verdict names its equation by label: give it the number that the page shows, and a link.
document.addEventListener("DOMContentLoaded", () => {
  for (const block of document.querySelectorAll(".cell_output .stream pre")) {
    block.innerHTML = block.innerHTML.replace(/✓ (eq-[a-z0-9-]+)(.*)\n?/g, (_, label, rest) => {
      const equation = document.getElementById(`equation-${label}`);
      const number = equation?.querySelector(".eqno")?.firstChild?.textContent;
      const link = number ? `<a href="#equation-${label}">${number}</a> ` : "";
      return `<span class="verdict">✓ ${link}${label}${rest}</span>`;
    });
  }
});
