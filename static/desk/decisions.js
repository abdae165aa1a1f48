// What a person decides about the record in front: it goes on its way to the server, and can be taken back.
import { say } from "./words.js";

// Characters by which a decision is known where it is told of.
const CLIP = 120;
// How long it is said that there is nothing to undo, in milliseconds.
const TOLD = 3000;

export class Decisions {
  constructor({ api, outbox, drafts, supply, front, progress, trouble, marks }) {
    Object.assign(this, { api, outbox, drafts, supply, front, progress, trouble, marks });
    // The key of an undo whose answer did not come.
    this.undoing = null;
  }

  // Approve or reject the record in front. `event` is the press that asked for it; `empty`: one that means an empty form.
  decide(action, event, empty = false) {
    const { form, pane } = this.front;
    if (action === "approve" && !form.ready()) return;
    if (action === "approve" && form.empty && !empty && !form.meansEmpty(event)) return;
    const { record_id, version, task_version, suggestion_id, blind, state } = this.supply.current;
    const value = action === "approve" ? form.value() : null;
    const started = performance.now();
    const content = {
      record_id, action, value, version, task_version, suggestion_id, blind, seconds: this.front.seconds(), request_key: newKey(), force: false, ...this.front.reason(),
    };
    this.outbox.push({ name: "decide", content, text: clip(pane.text), draft: this.front.draft() ?? { value }, was: state });
    this.undoing = null;
    this.supply.bring();
    this.marks.swap = String(performance.now() - started);
  }

  // Let the record in front come again after all others; one that is decided stays as it is.
  skip() {
    const { record_id, state } = this.supply.current;
    if (state !== "pending" && state !== "disputed") return this.supply.leave();
    this.outbox.push({ name: "skip", content: { record_id } });
    this.supply.bring();
  }

  undo() {
    this.supply.replace(() => this.#takeBack());
  }

  // A decision is stored.
  saved(item, answer) {
    this.drafts.set(item.content.record_id);
    if (answer.note) this.trouble.note("moved", answer.note);
    this.supply.came(answer.then);
    this.progress.showStrip(answer.strip);
    // A repeated one may be in the counts that the page came with.
    if (answer.repeated) this.progress.refresh();
    else this.progress.count(item.was === "pending" ? 1 : 0);
    const [last] = answer.strip;
    const told = last?.record_id === item.content.record_id ? last.told : "";
    const saved = say(answer.came_to === "pending" ? "waits" : answer.state);
    this.trouble.announce([saved, told].filter(Boolean).join(". "));
  }

  async #takeBack() {
    const unsent = this.outbox.takeBack();
    if (unsent) {
      // What cannot be opened again now stays on its way.
      if (!(await this.supply.reopen(unsent.content.record_id, unsent.draft))) this.outbox.push(unsent);
      return;
    }
    try {
      this.outbox.retryNow();
      // What was refused stands nowhere: it is asked about, and the one before it stays.
      if (!(await this.outbox.settled())) return;
      // An answer that got lost is asked for again, and takes nothing more back.
      this.undoing ??= newKey();
      const payload = await this.api.post("undo", { page: this.supply.page, request_key: this.undoing });
      this.undoing = null;
      this.#tookBack(payload);
    } catch (error) {
      if (!error.passing) this.undoing = null;
      if (error.status === 404) this.trouble.note("failed", say("nothingToUndo"), TOLD);
      else this.trouble.tell(error, "failed");
    }
  }

  #tookBack(payload) {
    const { record_id, state, strip, undone } = payload;
    this.drafts.set(record_id);
    this.supply.place(payload, undone?.state === "approved" ? { value: undone.value } : undefined);
    this.progress.showStrip(strip);
    this.progress.count(state === "pending" ? -1 : 0);
    this.supply.renewNext();
  }
}

// A name that nothing else has.
export function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function clip(text) {
  const line = text.replace(/\s+/gu, " ").trim();
  return [...line].length > CLIP ? `${[...line].slice(0, CLIP).join("")}…` : line;
}
