// The small sign beside the counter: whether all that was decided is saved. It is the one place that says so.
import { say } from "./words.js";

// What is saved at once need not flicker.
const PATIENCE = 300;

export class Sign {
  constructor(root) {
    this.element = root.querySelector("[data-sign]");
  }

  // `waiting`: how many decisions are not saved; `failing`: one of them was sent in vain.
  show({ offline, failing, waiting }) {
    clearTimeout(this.timer);
    if (offline) this.#set("offline", waiting ? say("offlineWith", { n: waiting }) : say("offline"), say("offlineLong"));
    else if (failing) this.#set("unsaved", say("unsaved", { n: waiting }), say("unsavedLong"));
    else if (waiting) this.timer = setTimeout(() => this.#set("saving", say("saving")), PATIENCE);
    else this.#set("saved", say("saved"));
  }

  #set(state, words, title = "") {
    this.element.dataset.state = state;
    this.element.textContent = words;
    this.element.title = title;
  }
}
