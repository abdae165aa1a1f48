// The page of a person's keys: a field takes the next press as its key, and the server says whether it can have it.
import { Api } from "./desk/api.js";
import { pressOf } from "./desk/keys.js";

// What a field leaves to the browser: keys that only hold others, and those that lead on or away.
const NOT_OURS = /^(?:Shift|Control|Alt|Meta|OS|CapsLock|Tab|Escape|Lang\d|F\d)/;

class KeysPage {
  constructor(root) {
    this.root = root;
    this.api = new Api(root.dataset.address);
    root.addEventListener("keydown", (event) => this.#onKey(event));
    root.addEventListener("click", ({ target }) => target.dataset.clear && this.#give(target.dataset.clear, ""));
  }

  #onKey(event) {
    const { command } = event.target.dataset;
    if (event.code === "Escape") event.target.blur();
    if (!command || event.repeat || NOT_OURS.test(event.code)) return;
    event.preventDefault();
    this.#give(command, pressOf(event));
  }

  async #give(command, key) {
    const why = this.root.querySelector(`[data-why="${command}"]`);
    try {
      const { names } = await this.api.post("", { command, key });
      for (const field of this.root.querySelectorAll("[data-command]")) field.value = names[field.dataset.command];
      document.querySelector("[data-preset]").value = "";
      for (const other of this.root.querySelectorAll("[data-why]")) other.hidden = true;
    } catch (error) {
      why.textContent = error.message;
      why.hidden = false;
    }
  }
}

const root = document.querySelector("[data-keys-page]");
new KeysPage(root);
root.dataset.ready = "";
