"use strict";
// The page works without this script. It filters the list of mistakes, folds the table of contents
// on a narrow screen, and opens what is folded before printing.
const filter = document.querySelector(".filter");
if (filter) {
  const rows = [...document.querySelectorAll(".errors > li")];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const apply = () => {
    const { label, predicted, words } = filter.elements;
    const wanted = words.value.toLowerCase().trim();
    let shown = 0;
    rows.forEach((row, at) => {
      row.hidden =
        (label.value !== "" && row.dataset.label !== label.value) ||
        (predicted.value !== "" && row.dataset.predicted !== predicted.value) ||
        !texts[at].includes(wanted);
      shown += row.hidden ? 0 : 1;
    });
    const others = document.querySelector(".others");
    if (others && (label.value || predicted.value || wanted)) others.open = true;
    filter.querySelector("output").textContent = `${shown} of ${rows.length}`;
  };
  filter.hidden = false;
  filter.addEventListener("input", apply);
  filter.addEventListener("submit", (event) => event.preventDefault());
  apply();
}
const contents = document.querySelector(".contents");
if (matchMedia("(max-width: 1099px)").matches) contents.open = false;
addEventListener("beforeprint", () => {
  document.querySelectorAll("details.message, details.fold").forEach((one) => (one.open = true));
});
