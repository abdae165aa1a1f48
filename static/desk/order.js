// The order of the queue, as the person sets it in the bar.
import { follow } from "./address.js";
import { composes, isEnter } from "./keys.js";

export class Order {
  // `changed({order, similar_to})` is called with what the server is to be asked for from now on.
  constructor(root, changed) {
    this.form = root.querySelector("[data-order]");
    this.changed = changed;
    const { order, similar_to: similar } = this.form.elements;
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#change();
    });
    order.addEventListener("change", () => this.#change());
    similar.addEventListener("keydown", (event) => {
      // Implicit submission also happens while the input method composes.
      if (composes(event) && isEnter(event)) event.preventDefault();
    });
  }

  #change() {
    const { order, similar_to: similar } = this.form.elements;
    const bySimilar = order.value === "similar";
    similar.hidden = !bySimilar;
    const text = bySimilar ? similar.value.trim() : "";
    if (bySimilar && !text) return similar.focus();
    follow({ record: null, order: order.value, similar: text });
    document.activeElement?.blur();
    this.changed({ order: order.value, similar_to: text });
  }
}
