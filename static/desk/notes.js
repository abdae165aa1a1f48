// Notes on the record in front: a flag for whoever adjudicates, or a question to a colleague. They go on their way like
// decisions, and decide nothing.
import { button } from "./banners.js";
import { newKey } from "./decisions.js";
import { composes, isEnter } from "./keys.js";
import { say } from "./words.js";

export class Notes {
  constructor(root, { api, outbox, dialogs, supply, front, progress, trouble }) {
    Object.assign(this, { api, outbox, supply, front, progress, trouble });
    this.dialog = dialogs.all.note;
    this.form = this.dialog.querySelector("[data-noting]");
    this.to = this.dialog.querySelector("[data-to]");
    this.slot = root.querySelector('[data-slot="notes"]');
    // What the words in the dialog are about; left and opened again there, they are still in it.
    this.about = {};
    this.slot.addEventListener("click", (event) => this.#onClick(event));
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    this.form.elements.text.addEventListener("keydown", (event) => this.#onKey(event));
  }

  // Open the dialog for a note on the record in front: a new one, or with `thread` an answer.
  begin(thread = null, draft = null) {
    const { record_id } = this.front.record;
    const { text, to } = this.form.elements;
    if (draft || this.about.record_id !== record_id || this.about.thread !== thread) {
      text.value = draft?.text ?? "";
      to.value = draft?.to ?? "";
    }
    this.about = { record_id, thread };
    this.to.hidden = thread !== null;
    this.dialog.showModal();
    text.focus();
  }

  // A note is stored.
  saved({ record_id, html, waiting }) {
    this.#show(record_id, html);
    this.progress.waits(waiting);
    this.trouble.announce(say("noted"));
  }

  // The server does not take a note: its words are not lost, be the record another's by now.
  refused(item, error) {
    const { record_id, thread, text, to, request_key } = item.content;
    const over = () => {
      this.outbox.drop(item);
      this.trouble.over(request_key);
    };
    const again = button(say("noteAgain"), async () => {
      if (!(await this.supply.open(record_id))) return;
      over();
      // A note that was closed meanwhile takes no answer: a new one says it.
      this.begin(error.status === 409 ? null : thread, { text, to });
    });
    this.trouble.banners.show(request_key, `${say("noteRefused", { why: error.message })} — ${text}`, [again, button(say("discard"), over, "quiet")]);
  }

  #onKey(event) {
    // Both belong to the input method while a syllable is composed.
    if (composes(event)) {
      if (event.code === "Escape") event.preventDefault();
    } else if (isEnter(event) && !event.shiftKey && !event.repeat) {
      event.preventDefault();
      this.#send();
    }
  }

  #onClick(event) {
    const pressed = event.target.closest("[data-note]");
    if (!pressed || !this.supply.ready) return;
    const thread = Number(pressed.closest("[data-thread]").dataset.thread);
    if (pressed.dataset.note === "answer") this.begin(thread);
    else this.#close(thread);
  }

  #send() {
    const { text, to } = this.form.elements;
    if (!text.value.trim()) return;
    const content = { ...this.about, text: text.value, to: Number(to.value) || null, request_key: newKey() };
    this.outbox.push({ name: "note", content });
    this.about = {};
    text.value = "";
    this.dialog.close();
  }

  async #close(thread) {
    const { record_id } = this.front.record;
    try {
      const answer = await this.api.post("close-note", { record_id, thread });
      this.#show(record_id, answer.html);
      this.progress.waits(answer.waiting);
    } catch (error) {
      this.trouble.tell(error, "failed");
    }
  }

  // Show the notes of a record, wherever it lies by now.
  #show(recordId, html) {
    for (const one of [this.supply.current, ...this.supply.ahead]) {
      if (one?.record_id === recordId) one.slots.notes.innerHTML = html;
    }
    if (this.front.record?.record_id === recordId) this.slot.innerHTML = html;
  }
}
