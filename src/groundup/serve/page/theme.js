// Sets the chosen theme before the first paint, so that the page does not flash in the other one. A classic script, for that reason.
try {
  document.documentElement.dataset.theme = JSON.parse(localStorage.getItem("groundup.theme")) ?? "system";
} catch {
  // Storage is forbidden: the theme of the system.
}
