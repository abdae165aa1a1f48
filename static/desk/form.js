// The form of the task: mounts the widget of its schema, and knows whether a person has touched it.
import { keyName, nameSlots } from "./keys.js";
import { say } from "./words.js";

// A double click is one press.
const DOUBLE = 400;
const modules = new Map();

// Load the scripts of all widgets in `root`: each names its own, so that a plugin may bring one.
export async function loadWidgets(root) {
  const addresses = new Set([...root.querySelectorAll("[data-module]")].map((element) => element.dataset.module));
  await Promise.all([...addresses].map(async (address) => modules.set(address, await import(address))));
}

function mount(element, schema, value, onChange, context) {
  return modules.get(element.dataset.module).mount(element, schema, value, onChange, context);
}

// A value in words, one thing a line, for showing two of them side by side.
function lines(widget, value) {
  if (value === null || value === undefined) return [];
  return widget.lines?.(value) ?? [typeof value === "object" ? JSON.stringify(value) : String(value)];
}

export class Form {
  // `onTouch()` is called when the value was changed, `onHand(whole)` when a hand has changed it, or it was filled anew.
  constructor(root, { pane, language, onTouch, onHand, approve }) {
    this.element = root.querySelector("[data-form]");
    this.state = root.querySelector("[data-form-state]");
    this.button = root.querySelector('[data-do="approve"]');
    this.canBeEmpty = this.button.querySelector('[data-for="empty"]') !== null;
    this.complaint = root.querySelector("[data-complaint]");
    Object.assign(this, { onTouch, onHand });
    this.suggested = null;
    this.touched = false;
    const holder = this.element.querySelector("[data-widget]");
    nameSlots(this.element);
    const schema = JSON.parse(holder.dataset.schema);
    const context = { pane, language, mount, lines, approve, complain: (words) => this.complain(words) };
    this.widget = mount(holder, schema, null, () => this.#byHand(), context);
  }

  // Fill the form. `origin`: "suggestion", "decision" (what stands), "draft" (a person's own), or "empty".
  load({ value, suggested, origin, scores, scale }) {
    this.suggested = suggested ?? null;
    this.origin = origin;
    this.touched = origin === "draft";
    this.complain("");
    this.widget.setValue(value ?? null);
    this.widget.suggest?.(this.suggested);
    this.widget.score?.(scores ?? null, scale ?? "raw");
    this.element.classList.toggle("is-suggested", origin === "suggestion");
    this.widget.markSuggested?.(origin === "suggestion" ? value : null);
    this.#showState();
    this.onHand(false);
  }

  value() {
    return this.widget.value();
  }

  lines(value) {
    return lines(this.widget, value);
  }

  // Whether the value can be approved; if not, it is said why, and the part that it is about is marked.
  ready() {
    const problem = this.widget.problem();
    if (!problem) return true;
    const words = say(problem.name, problem.values);
    this.refuse(problem.part ? `${problem.part}: ${words}` : words, problem.item);
    return false;
  }

  // Say why the value cannot stay. The part of it that `item` names, if there is one, is marked, and in hand.
  refuse(words, item) {
    this.complain(words);
    this.widget.mark?.(item);
  }

  // Whether approving it would say that there is nothing of this in the record.
  get empty() {
    const value = this.widget.value();
    return this.canBeEmpty && (value === "" || (typeof value === "object" && value !== null && !Object.keys(value).length));
  }

  // Whether a hand has said all there is to say of this record, so that nothing can follow but the approval.
  get whole() {
    return (this.widget.complete?.() ?? false) && !this.empty && this.widget.problem() === null;
  }

  // Whether this press means that an empty form is right as it is: a click with Shift, or another one on the button that
  // said so. If not, say what does.
  meansEmpty(event) {
    const click = event.type === "click";
    const again = click && this.button.dataset.as === "again";
    if (click && (event.shiftKey || (again && event.timeStamp - this.askedAt > DOUBLE))) return true;
    const key = click ? "" : keyName("empty");
    if (!key && !again) {
      this.button.dataset.as = "again";
      this.askedAt = event.timeStamp;
    }
    this.complain(say(key ? "emptyKey" : "emptyAgain", { key }));
    return false;
  }

  // Take over a value by one key: it is a person's choice from then on.
  take(value) {
    this.widget.setValue(value);
    this.#changed();
    this.onHand(false);
  }

  complain(words) {
    this.complaint.textContent = words;
  }

  #byHand() {
    this.#changed();
    this.onHand(this.whole);
  }

  #changed() {
    this.complain("");
    this.touched = true;
    // Where parts are marked, each turns solid by itself.
    if (!this.widget.markSuggested) this.element.classList.remove("is-suggested");
    this.#showState();
    this.onTouch();
  }

  #showState() {
    const state = this.#stateName();
    this.button.dataset.as = this.empty ? "empty" : "it";
    this.state.hidden = state === null;
    this.state.dataset.state = state ?? "";
    this.state.textContent = state ? say(state) : "";
  }

  #stateName() {
    if (!this.touched) return { suggestion: "suggested", decision: "decided" }[this.origin] ?? null;
    if (this.suggested === null) return "yours";
    return same(this.value(), this.suggested) ? "accepted" : "corrected";
  }
}

// Whether two values are equal, whatever the order of their keys.
export function same(a, b) {
  if (a === b) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => same(a[key], b[key]));
}
