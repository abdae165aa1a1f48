// The compare screen: answers are put in order by their numbers, and kept by a form. A page shows one record.
import { commandOf } from "./desk/keys.js";
import { paint } from "./desk/words.js";

class Compare {
  constructor(root) {
    this.root = root;
    this.cards = [...root.querySelectorAll("[data-answer]")];
    this.form = root.querySelector("[data-rank]");
    this.status = root.querySelector("[data-status]");
    this.begun = performance.now();
    // The cards in the order in which they were chosen, each with whether it ties with the one before.
    this.chosen = [];
    this.tying = false;
    document.addEventListener("keydown", (event) => this.#onKey(event));
    root.addEventListener("click", (event) => this.#onClick(event));
    root.querySelector("[data-tasks]")?.addEventListener("change", (event) => location.assign(event.target.value));
  }

  #onKey(event) {
    const command = commandOf(event);
    if (command && this.#run(command.name, command.digit)) event.preventDefault();
  }

  #onClick(event) {
    const card = event.target.closest("[data-answer]");
    const button = event.target.closest("button[data-do]");
    if (card) this.#choose(card);
    else if (button) this.#run(button.dataset.do);
  }

  // Returns whether the command was one of ours.
  #run(name, digit) {
    if (name === "undo") return this.#undo();
    if (name === "nothing") return true;
    if (!this.form) return false;
    switch (name) {
      case "digit": return digit === 0 ? this.#none() : this.#choose(this.cards[digit - 1]);
      case "approve": case "submit": return this.#save();
      case "tie": return this.#tie();
      case "none": return this.#none();
      case "skip": location.assign(this.root.querySelector('[data-do="skip"]').href); return true;
      case "escape": return this.#set([]);
      default: return false;
    }
  }

  // Give a card the next place; one that has a place loses it.
  #choose(card) {
    if (!card) return false;
    const others = this.chosen.filter((one) => one.card !== card);
    const ties = this.tying && others.length > 0;
    return this.#set(others.length < this.chosen.length ? others : [...others, { card, ties }]);
  }

  #tie() {
    this.tying = !this.tying && this.chosen.length > 0;
    return this.#show();
  }

  #undo() {
    if (this.chosen.length) return this.#set(this.chosen.slice(0, -1));
    return this.#submit(this.root.querySelector("[data-undo]"));
  }

  #set(chosen) {
    this.chosen = chosen;
    this.tying = false;
    return this.#show();
  }

  // The names of the chosen cards, those that tie together.
  #tiers() {
    const tiers = [];
    for (const { card, ties } of this.chosen) {
      if (ties && tiers.length) tiers.at(-1).push(card.dataset.answer);
      else tiers.push([card.dataset.answer]);
    }
    return tiers;
  }

  #show() {
    const tiers = this.#tiers();
    for (const card of this.cards) {
      const place = tiers.findIndex((tier) => tier.includes(card.dataset.answer)) + 1;
      card.querySelector("[data-place]").textContent = place || "";
      card.setAttribute("aria-pressed", String(place > 0));
    }
    this.root.querySelector('[data-do="tie"]').setAttribute("aria-pressed", String(this.tying));
    this.status.textContent = "";
    return true;
  }

  #save() {
    const tiers = this.#tiers();
    if (!tiers.length) {
      this.status.textContent = this.status.dataset.empty;
      return true;
    }
    const placed = new Set(tiers.flat());
    const rest = this.#names().filter((name) => !placed.has(name));
    return this.#send(rest.length ? [...tiers, rest] : tiers);
  }

  #none() {
    this.form.elements.none.value = "1";
    return this.#send([this.#names()]);
  }

  #names() {
    return this.cards.map((card) => card.dataset.answer);
  }

  #send(tiers) {
    this.form.elements.ranked.value = JSON.stringify(tiers);
    this.form.elements.seconds.value = ((performance.now() - this.begun) / 1000).toFixed(2);
    return this.#submit(this.form);
  }

  // A second press while the page goes on sends nothing more.
  #submit(form) {
    if (form && !this.sent) {
      this.sent = true;
      form.submit();
    }
    return true;
  }
}

// Shown again from the browser's memory: what was ranked there is kept already.
addEventListener("pageshow", (event) => event.persisted && location.reload());
const root = document.getElementById("compare");
paint(root);
new Compare(root);
root.dataset.ready = "";
