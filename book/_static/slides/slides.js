// A deck of slides: arrows, space, Home and End, a swipe, or the two buttons; f fills the screen.
"use strict";
{
  const slides = [...document.querySelectorAll(".slide")];
  const place = document.getElementById("place");
  let at = 0;

  // A slide that is too full is set smaller, down to half.
  const fits = (slide, content) => {
    const edge = content.getBoundingClientRect().right + 1;
    const wide = [...content.querySelectorAll("mjx-container, table, img")].some((node) => node.getBoundingClientRect().right > edge);
    const cut = [...content.querySelectorAll("pre")].some((node) => node.scrollWidth > node.clientWidth + 1);
    return !wide && !cut && slide.scrollHeight <= slide.clientHeight;
  };
  const fit = (slide) => {
    const content = slide.querySelector(".content");
    for (let size = 1.6; size > 0.65; size -= 0.1) {
      content.style.fontSize = `${size}rem`;
      if (fits(slide, content)) return;
    }
  };

  const go = (number) => {
    slides[at].classList.remove("here");
    at = Math.max(0, Math.min(number, slides.length - 1));
    slides[at].classList.add("here");
    slides[at].scrollTop = 0;
    place.textContent = `${at + 1} / ${slides.length}`;
    history.replaceState(null, "", `#${at + 1}`);
    fit(slides[at]);
  };

  const KEYS = {
    ArrowRight: () => go(at + 1),
    ArrowDown: () => go(at + 1),
    PageDown: () => go(at + 1),
    " ": () => go(at + 1),
    ArrowLeft: () => go(at - 1),
    ArrowUp: () => go(at - 1),
    PageUp: () => go(at - 1),
    Home: () => go(0),
    End: () => go(slides.length - 1),
    f: () => (document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen()),
  };
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || !KEYS[event.key]) return;
    if (event.key === " " && event.target.closest("button, a")) return;
    event.preventDefault();
    KEYS[event.key]();
  });
  document.getElementById("back").onclick = () => go(at - 1);
  document.getElementById("on").onclick = () => go(at + 1);

  let began = null;
  addEventListener("touchstart", (event) => (began = event.touches[0]), { passive: true });
  addEventListener("touchend", (event) => {
    const x = event.changedTouches[0].clientX - began.clientX;
    const y = event.changedTouches[0].clientY - began.clientY;
    if (Math.abs(x) > 50 && Math.abs(x) > 2 * Math.abs(y)) go(at - Math.sign(x));
  });

  document.documentElement.classList.add("moves");
  const asked = () => Number(/\d+$/.exec(location.hash)?.[0]) - 1 || 0;
  addEventListener("hashchange", () => go(asked()));
  addEventListener("resize", () => fit(slides[at]));
  go(asked());
  window.MathJax?.startup?.promise?.then(() => fit(slides[at]));
  addEventListener("load", () => (window.MathJax?.startup?.promise ?? Promise.resolve()).then(() => fit(slides[at])));
}
