// What keys and buttons do. A press that cannot be about the record in front does nothing, and that is said.
import { commandOf } from "./keys.js";
import { say, takesText } from "./words.js";

// How long it is said that a press did not count, in milliseconds.
const TOLD = 2500;
// What the mouse pressed, and gives the keys back.
const PRESSED = "button, summary, input[type=radio], input[type=checkbox]";

export class Commands {
  constructor(root, { api, supply, front, decisions, dialogs, notes, trouble }) {
    Object.assign(this, { api, supply, front, decisions, dialogs, notes, trouble });
    this.root = root;
    this.form = front.form;
    this.guide = root.querySelector("[data-guide]");
    this.swallowed = root.querySelector("[data-swallowed]");
    document.addEventListener("keydown", (event) => this.#onKey(event));
    root.addEventListener("click", (event) => this.#onClick(event));
    root.addEventListener("pointerup", () => setTimeout(() => {
      if (document.activeElement?.matches(PRESSED) && !dialogs.open) document.activeElement.blur();
    }));
  }

  // Approve by the press of `event`, if it counts; `empty`: though nothing is given.
  approve(event, empty) {
    if (this.#counts(event)) this.decisions.decide("approve", event, empty);
  }

  #onKey(event) {
    if (this.dialogs.open) return;
    const command = commandOf(event);
    if (command ? this.#run(command, event) : this.#readOn(event)) event.preventDefault();
  }

  // A text that is longer than its box is read on by page keys, whatever has the focus.
  #readOn({ code, target, ctrlKey, altKey, metaKey }) {
    const pages = { PageDown: 1, PageUp: -1 }[code];
    if (!pages || takesText(target) || ctrlKey || altKey || metaKey) return false;
    return this.front.readOn(pages);
  }

  #onClick(event) {
    const button = event.target.closest("[data-do], [data-example-id], [data-ballot]");
    if (!button) return;
    if (button.dataset.ballot) return this.#counts(event) && this.#ballot(Number(button.dataset.ballot));
    if (button.dataset.exampleId) this.#example(Number(button.dataset.exampleId));
    else this.#run({ name: button.dataset.do }, event);
  }

  // Returns whether the command was one of ours.
  #run(command, event) {
    const { name, shift } = command;
    const { form, front, supply } = this;
    switch (name) {
      case "empty":
        // In a field with words it is a new line.
        if (!form.empty && takesText(event.target)) return false;
      // Falls through.
      case "approve": case "submit": front.done ? supply.bring() : this.approve(event, name === "empty"); break;
      case "again": supply.bring(); break;
      case "reject": if (this.#counts(event)) this.decisions.decide("reject", event); break;
      case "skip": if (this.#counts(event)) this.decisions.skip(); break;
      case "undo": this.#undo(event); break;
      case "note": if (this.#counts(event)) this.notes.begin(); break;
      case "digit": return this.#digit(command, event);
      case "edit": front.edit(); break;
      case "second": if (this.#counts(event)) this.#second(); break;
      case "ballot": if (this.#counts(event)) this.#ballot(); break;
      case "guide": this.#toggleGuide(); break;
      case "keys": this.dialogs.showKeys(); break;
      case "escape": this.#escape(); break;
      case "nothing": break;
      case "mark": case "delete": return this.#counts(event) && this.#widget(name, shift);
      // One that does not count changes nothing, be it by the browser's own way with a radio button.
      case "up": case "down": case "point": case "minus": return this.#counts(event) ? this.#widget(name, shift) : !front.done;
      default:
        if (!front.resting) return this.#widget(name, shift);
        if (name === "filter") front.edit();
        return name === "filter";
    }
    return true;
  }

  #widget(name, shift) {
    return this.form.widget.onCommand?.(name, shift) ?? false;
  }

  // Whether the press of this event can be about the record in front.
  #takes(event) {
    return this.supply.ready && !this.dialogs.open && this.front.seen.answers(event);
  }

  // The same; a press that does not count is told so.
  #counts(event) {
    const taken = this.#takes(event);
    if (taken) this.swallowed.textContent = "";
    else this.#swallow();
    return taken;
  }

  #swallow() {
    if (this.dialogs.open || this.front.done) return;
    this.swallowed.textContent = say(this.supply.ready ? "tooEarly" : "notHere");
    clearTimeout(this.telling);
    this.telling = setTimeout(() => (this.swallowed.textContent = ""), TOLD);
  }

  // While the next record is awaited, the last decision can be taken back all the same.
  #undo(event) {
    const { current, opening } = this.supply;
    if (opening || this.dialogs.open || (current && !this.#takes(event))) this.#swallow();
    else this.decisions.undo();
  }

  #digit({ digit, slot, shift }, event) {
    const { widget } = this.form;
    if (!this.#counts(event)) return false;
    const known = (widget.onSlot ? widget.onSlot(slot) : digit !== null && widget.onDigit?.(digit)) ?? false;
    // One key for the label and the approval, where a digit is the whole value.
    if (known && shift && digit !== null && widget.whole) this.approve(event);
    return known;
  }

  #escape() {
    this.front.editing = false;
    if (takesText(document.activeElement)) document.activeElement.blur();
    else if (!this.#widget("escape") && !this.guide.hidden) this.#toggleGuide();
  }

  #second() {
    const { second } = this.supply.current;
    if (second === null) this.form.complain(say("noSecond"));
    else this.form.take(second);
  }

  // Take what one of several people said; by the key one after another.
  #ballot(chosen) {
    const { ballots, record_id } = this.supply.current;
    const there = ballots.map((value, nth) => nth).filter((nth) => ballots[nth] !== null);
    if (!there.length) return this.form.complain(say("noBallots"));
    if (this.voted?.record_id !== record_id) this.voted = { record_id, nth: -1 };
    this.voted.nth = chosen ?? there.find((nth) => nth > this.voted.nth) ?? there[0];
    this.form.take(ballots[this.voted.nth]);
  }

  #toggleGuide() {
    this.guide.hidden = !this.guide.hidden;
    for (const button of this.root.querySelectorAll('[aria-controls="guide"]')) button.setAttribute("aria-expanded", String(!this.guide.hidden));
  }

  // Show an example beside the record that it was asked for; over another one it would swallow the next key.
  async #example(id) {
    const { current } = this.supply;
    const asked = (this.asked = {});
    const wanted = () => this.asked === asked && this.supply.current === current && !this.supply.opening && !this.dialogs.open;
    try {
      const { html } = await this.api.get(`example/${id}`);
      if (wanted()) this.dialogs.showExample(html);
    } catch (error) {
      if (wanted()) this.trouble.tell(error, "failed");
    }
  }
}
