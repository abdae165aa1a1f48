// What went wrong, said once for each cause, where it does not move the page.
import { make, say } from "./words.js";

export class Banners {
  constructor(root) {
    this.place = root.querySelector("[data-banners]");
  }

  // Show, replace or (without words) take away the banner called `name`. `extra` are buttons and links. What is said
  // already stays as it is: a button may be under a finger.
  show(name, words, extra = [], milliseconds = 0) {
    const old = this.place.querySelector(`[data-banner="${CSS.escape(name)}"]`);
    if (!words) return old?.remove();
    if (old?.firstChild.textContent === words) return undefined;
    const banner = make("p", { class: "banner", data: { banner: name } }, make("span", {}, words), ...[extra].flat());
    if (old) old.replaceWith(banner);
    else this.place.append(banner);
    if (milliseconds) setTimeout(() => banner.remove(), milliseconds);
    return undefined;
  }

  closeButton(name) {
    return button(say("close"), () => this.show(name, null), "quiet");
  }

  reloadButton() {
    return button(say("reload"), () => location.reload());
  }
}

export function button(words, work, kind = "") {
  const made = make("button", { type: "button", class: kind }, words);
  made.addEventListener("click", work);
  return made;
}
