// Adds and removes rows of a table that is a form: <table data-rows>, buttons data-row-remove and data-row-add.

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-row-remove], [data-row-add]");
  if (!button) return;
  if ("rowRemove" in button.dataset) {
    button.closest("tr").remove();
    return;
  }
  const row = document.getElementById(button.dataset.rowAdd).content.cloneNode(true);
  const body = button.closest("article").querySelector("[data-rows] tbody");
  body.append(row);
  body.lastElementChild.querySelector("input").focus();
});
