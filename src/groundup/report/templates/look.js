// Searches the texts that the page shows; all other searches are the browser's.
"use strict";
const box = document.getElementById("search"), said = document.getElementById("found");
const articles = [...document.querySelectorAll("#texts article")];
const texts = articles.map((article) => article.textContent.toLowerCase());
box.closest("p").hidden = false;
box.addEventListener("input", () => {
  const words = box.value.trim().toLowerCase();
  let found = 0;
  articles.forEach((article, n) => {
    article.hidden = !texts[n].includes(words);
    found += !article.hidden;
  });
  for (const details of document.querySelectorAll("#texts details")) {
    details.hidden = !details.querySelector("article:not([hidden])");
    if (words) details.open = true;
  }
  said.textContent = words ? `${found} of ${articles.length} texts` : "";
});
