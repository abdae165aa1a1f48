// Auto-advance: an answer that a person has made whole is approved by itself, after a pause in which any press stops it.
import { takesText } from "./words.js";

const PAUSE = 350;

export class Advance {
  // `on`: whether the person wants it. The button to approve shows the pause.
  constructor(root, { on, form, supply, dialogs, decisions }) {
    Object.assign(this, { on, form, supply, dialogs, decisions });
    this.button = root.querySelector('[data-do="approve"]');
    // Before anything else hears of the press: what it changes may begin the pause again.
    for (const press of ["keydown", "pointerdown"]) addEventListener(press, () => this.#stop(), true);
  }

  // The form was changed by hand, or filled anew; `whole`: nothing is left that the hand has not said.
  turn(whole) {
    this.#stop();
    if (!this.on || !whole) return;
    const { current } = this.supply;
    this.button.dataset.going = "";
    this.timer = setTimeout(() => {
      this.#stop();
      if (this.#stillMeans(current)) this.decisions.decide("approve");
    }, PAUSE);
  }

  #stillMeans(record) {
    const { form, supply, dialogs } = this;
    return supply.ready && supply.current === record && form.whole && !dialogs.open && !document.hidden && !takesText(document.activeElement);
  }

  #stop() {
    clearTimeout(this.timer);
    delete this.button.dataset.going;
  }
}
