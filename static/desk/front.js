// The record in front: what the page shows of it, whether it takes keys, and how long a person has looked at it.
import { follow } from "./address.js";
import { Seen } from "./seen.js";
import { paint, takesText } from "./words.js";

// A press before a record could be seen, or right after, was meant for the one before.
const UNSEEN = 120;
// Milliseconds until it is asked which words moved a suggestion: who decides at once has no eye for them.
const LOOK = 600;

// Returns a record as the server sent it, with its HTML read, so that it can be shown at once. `draft`: a person's value.
export function prepared(payload, draft) {
  const template = document.createElement("template");
  template.innerHTML = payload.html;
  paint(template.content);
  const slots = Object.fromEntries([...template.content.querySelectorAll("[data-slot]")].map((slot) => [slot.dataset.slot, slot]));
  return { ...payload, html: null, slots, draft, came: performance.now() };
}

export class Front {
  constructor(root, { api, form, pane, drafts }) {
    this.root = root;
    this.api = api;
    this.form = form;
    this.pane = pane;
    this.drafts = drafts;
    this.seen = new Seen(root, UNSEEN);
    this.side = root.querySelector("[data-side]");
    this.end = root.querySelector("[data-done]");
    this.record = null;
    this.resting = true;
    // Whether to go into the text field of the record that is awaited.
    this.editing = false;
    this.#begin();
    document.addEventListener("visibilitychange", () => this.#turn());
    this.side.addEventListener("toggle", () => this.record && this.#explain(this.record));
  }

  // Nothing is left to show.
  get done() {
    return this.root.classList.contains("is-done");
  }

  // Show a record; its keys rest until `rest(false)`. `again`: it is the one in front, and its time goes on.
  show(next, again = false) {
    const { slots } = next;
    // Asked before anything is changed: afterwards the browser would have to lay out the page for the answer.
    const [read, aside] = [this.pane.element.scrollTop, this.side.scrollTop];
    this.record = next;
    this.root.classList.remove("is-done");
    this.end.hidden = true;
    if (!again) this.#leaveField();
    if (!takesText(document.activeElement)) getSelection()?.removeAllRanges();
    for (const name of ["meta", "notes", "status", "side"]) this.#slot(name).replaceChildren(...slots[name].cloneNode(true).childNodes);
    // Styles that the script set do not survive cloning everywhere.
    paint(this.side);
    // What is to be settled is decided by what stands there.
    if (next.ballots.length) this.side.open = true;
    this.pane.load(slots.text.cloneNode(true));
    if (read) this.pane.element.scrollTop = again ? read : 0;
    if (aside && !again) this.side.scrollTop = 0;
    this.root.querySelector(".work").classList.toggle("is-suspicious", slots.meta.querySelector(".warn") !== null);
    this.form.load({ ...this.#content(next), scores: next.scores, scale: next.scale });
    this.root.dataset.record = next.record_id;
    this.root.dataset.state = next.state;
    if (!again) this.#begin();
    this.seen.begin();
    follow({ record: next.record_id });
    this.#explain(next);
  }

  // While no record is there, or another is on its way into its place, nothing is chosen, typed or decided: it would be
  // lost, or land on the wrong one. The key that goes into the text field counts for the record that comes.
  rest(resting) {
    this.resting = resting;
    this.root.classList.toggle("is-waiting", resting && !this.done);
    if (resting) this.#leaveField();
    this.form.element.inert = resting;
    if (!resting && this.editing) this.edit();
  }

  // Scroll the text by its pages; false if all of it is in sight.
  readOn(pages) {
    const { element } = this.pane;
    if (element.scrollHeight <= element.clientHeight) return false;
    element.scrollBy({ top: 0.85 * pages * element.clientHeight });
    return true;
  }

  edit() {
    this.editing = this.root.classList.contains("is-waiting");
    if (!this.editing) this.form.widget.focus();
  }

  // Say that nothing is left. Whether there ever was anything is the counter's to know.
  async finish(progress) {
    const explain = () => {
      const why = progress.counts.total ? "decided" : "empty";
      for (const part of this.end.querySelectorAll("[data-why]")) part.hidden = part.dataset.why !== why;
    };
    this.root.classList.remove("is-waiting");
    this.root.classList.add("is-done");
    this.editing = false;
    follow({ record: null });
    explain();
    this.end.hidden = false;
    await progress.refresh();
    explain();
  }

  // What a person has made of the record, or null.
  draft() {
    return this.form.touched ? { value: this.form.value() } : null;
  }

  // Why it is so, in the words of an adjudicator, and whether that becomes a line of the guidelines.
  reason() {
    const reason = this.side.querySelector("[data-reason]")?.value.trim();
    return reason ? { reason, guideline: this.side.querySelector("[data-guideline]").checked } : {};
  }

  // How long the record was looked at, without the time that the page was hidden.
  seconds() {
    const hidden = this.hiddenFor + (this.hiddenSince === null ? 0 : performance.now() - this.hiddenSince);
    return Math.round(performance.now() - this.shownAt - hidden) / 1000;
  }

  // Words stand in a field of the form that are no part of its value yet.
  get typing() {
    return this.#field?.value > "";
  }

  // The text field of the form that has the focus. One elsewhere is none of the record's: what is typed there goes on.
  get #field() {
    const { activeElement } = document;
    return takesText(activeElement) && this.form.element.contains(activeElement) ? activeElement : null;
  }

  #leaveField() {
    this.#field?.blur();
  }

  #slot(name) {
    return this.root.querySelector(`[data-slot="${name}"]`);
  }

  // This tab's own draft is newer than what the server has kept: see Supply.
  #content({ record_id, version, draft: own, kept, decided, suggested }) {
    const draft = own ?? this.drafts.get(record_id, version) ?? kept;
    if (draft) return { value: draft.value, suggested, origin: "draft" };
    if (decided !== null) return { value: decided, suggested, origin: "decision" };
    return { value: suggested, suggested, origin: suggested === null ? "empty" : "suggestion" };
  }

  #begin() {
    this.shownAt = performance.now();
    this.hiddenFor = 0;
    this.hiddenSince = document.hidden ? this.shownAt : null;
  }

  // The page was hidden, or is seen again.
  #turn() {
    if (document.hidden) this.hiddenSince = performance.now();
    else if (this.hiddenSince !== null) {
      this.hiddenFor += performance.now() - this.hiddenSince;
      this.hiddenSince = null;
    }
  }

  // Say which words moved the suggestion, where somebody looks at what stands beside it.
  async #explain(next) {
    await new Promise((resolve) => setTimeout(resolve, LOOK));
    const place = this.root.querySelector("[data-moved]");
    if (this.record !== next || this.resting || !place || place.dataset.moved || !this.side.open) return;
    place.dataset.moved = "asked";
    try {
      const { html } = await this.api.get(`moved/${next.record_id}/${next.suggestion_id}`);
      if (this.record !== next || !html) return;
      place.innerHTML = html;
      place.dataset.moved = "there";
      paint(place);
    } catch {
      // It can be decided without them.
    }
  }
}
