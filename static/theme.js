// Sets the theme before the page is painted. Without a choice of the person's own, the system decides.
(() => {
  try {
    const chosen = localStorage.getItem("labeler-theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch {
    // Storage is forbidden: the system decides.
  }
})();
