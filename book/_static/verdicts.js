// A verdict names its equation by label: give it the number that the page shows.
document.addEventListener("DOMContentLoaded", () => {
  for (const link of document.querySelectorAll(".verdict summary a")) {
    const equation = document.querySelector(link.getAttribute("href"));
    const number = equation?.querySelector(".eqno")?.firstChild?.textContent;
    if (number) link.textContent = `${number} ${link.textContent}`;
  }
});
