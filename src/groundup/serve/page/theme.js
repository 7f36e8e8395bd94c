// Sets the theme before the first paint, to avoid a flash. A module would run too late.
try {
  document.documentElement.dataset.theme = JSON.parse(localStorage.getItem("groundup.theme")) ?? "system";
} catch {
  // Storage is forbidden; the system's theme applies.
}
