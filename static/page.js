// What every page needs: the theme button, the CSRF header for htmx, and a few small helpers marked by data attributes.

const root = document.documentElement;

function isDark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

for (const button of document.querySelectorAll("[data-theme-toggle]")) {
  button.addEventListener("click", () => {
    const theme = isDark() ? "light" : "dark";
    root.dataset.theme = theme;
    try {
      localStorage.setItem("labeler-theme", theme);
    } catch {
      // Storage is forbidden: the choice holds for this page.
    }
  });
}

document.addEventListener("htmx:configRequest", (event) => {
  event.detail.headers["X-CSRFToken"] = document.querySelector("meta[name=csrf-token]").content;
});

// Signed out, or gone: a page that polls stops and asks the server afresh.
document.addEventListener("htmx:responseError", (event) => {
  if ([401, 403, 404].includes(event.detail.xhr.status)) location.reload();
});

// Times come in UTC: they are written anew in the zone of whoever reads them, whose name stands beside.
function inOwnZone(part) {
  const named = (style, at) =>
    new Intl.DateTimeFormat(root.lang, { timeZoneName: style }).formatToParts(at).find((one) => one.type === "timeZoneName").value;
  const two = (number) => String(number).padStart(2, "0");
  for (const time of part.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    const day = [at.getFullYear(), two(at.getMonth() + 1), two(at.getDate())].join("-");
    time.textContent = `${day} ${two(at.getHours())}:${two(at.getMinutes())} ${named("short", at)}`;
    time.title = `${named("long", at)} (${Intl.DateTimeFormat().resolvedOptions().timeZone})`;
  }
}
inOwnZone(document);
// What a page that polls gets is in UTC again.
document.addEventListener("htmx:load", (event) => inOwnZone(event.target));

// A one-time link is used at once where there is a person's browser; the history holds a mark, so that "back" does not
// send it again.
for (const form of document.querySelectorAll("form[data-submit-once]")) {
  if (!history.state?.submitted) {
    history.replaceState({ submitted: true }, "");
    form.requestSubmit();
  }
}

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const field = document.getElementById(button.dataset.copy);
    field.select();
    try {
      await navigator.clipboard.writeText(field.value);
      button.textContent = button.dataset.done;
    } catch {
      // No permission: the text is selected, and the person can copy it.
    }
  });
}
