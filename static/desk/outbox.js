// Decisions and notes on their way to the server. Each stays here, and in this tab's sessionStorage, until the server has
// answered for good; sent again with the same request_key it is stored once.
import { ApiError } from "./api.js";
import { recall, remember } from "./memory.js";
import { painted } from "./seen.js";

const FIRST_PAUSE = 1000;
const LONGEST_PAUSE = 20000;

export class Outbox {
  // `on` is told `saved(item, answer)`, `refused(item, error)`, `trouble(error)` where an item will be sent again,
  // `clear()` where it was, and `changed()` where more or less is on its way than before. `on.beside(item)` gives back
  // what goes along each time that an item is sent.
  constructor(api, key, on) {
    this.api = api;
    this.key = key;
    this.on = on;
    const kept = recall(key);
    this.waiting = kept?.waiting ?? [];
    this.stopped = kept?.stopped ?? [];
    this.sending = null;
    // The one of it that a request was made for.
    this.underWay = null;
    this.listeners = [];
    this.pause = 0;
    this.troubled = false;
  }

  // Begin with what an earlier page of this tab left behind.
  resume() {
    for (const item of this.stopped) this.on.refused(item, new ApiError(item.status, item.answer));
    this.#pump();
  }

  push(item) {
    this.waiting.push(item);
    this.#keep();
    this.#pump();
  }

  // Record ids that are not the queue's to give out again.
  ids() {
    return [...this.waiting, ...this.stopped].filter((item) => item.name !== "note").map((item) => item.content.record_id);
  }

  get unsent() {
    return this.waiting.length;
  }

  // Take the newest decision back if it never left this page; null if it may have reached the server.
  takeBack() {
    const item = this.waiting.findLast((one) => one.name !== "note");
    if (!item || item.name !== "decide" || item.tries) return null;
    this.waiting = this.waiting.filter((other) => other !== item);
    this.#keep();
    return item;
  }

  // Resolves when all that was waiting has been answered, to whether the newest decision was stored; rejects if it could
  // not be sent.
  async settled() {
    const newest = this.waiting.findLast((item) => item.name === "decide");
    if (this.waiting.length) await new Promise((resolve, reject) => this.listeners.push({ resolve, reject }));
    return !this.stopped.includes(newest);
  }

  drop(item) {
    this.stopped = this.stopped.filter((other) => other !== item);
    this.#keep();
  }

  // Send a refused item again, changed.
  again(item, changes) {
    this.drop(item);
    Object.assign(item.content, changes);
    item.tries = 0;
    this.push(item);
  }

  // Whether closing this tab loses a decision: it cannot be sent, or a person has to say what becomes of it.
  get atRisk() {
    return (this.troubled && this.waiting.length > 0) || this.stopped.length > 0;
  }

  // The page closes, and nobody is left to send what waits its turn: it goes out at once. The next page of this tab, if
  // there is one, sends it again, and it is stored once.
  flush() {
    const rest = this.waiting.filter((item) => item !== this.underWay);
    for (const item of rest) item.tries = (item.tries ?? 0) + 1;
    this.#keep();
    for (const item of rest) this.api.post(item.name, item.content).catch(() => {});
  }

  retryNow() {
    clearTimeout(this.timer);
    this.timer = null;
    this.#pump();
  }

  async #pump() {
    if (this.sending || this.timer || !this.waiting.length) return;
    const item = (this.sending = this.waiting[0]);
    item.tries = (item.tries ?? 0) + 1;
    this.#keep();
    let error = null;
    let answer = null;
    try {
      // The page goes on first: a person waits for the next record, and nobody for this. What goes along is what lies
      // ready then.
      await painted();
      this.underWay = item;
      answer = await this.api.post(item.name, { ...item.content, ...this.on.beside(item) });
    } catch (caught) {
      error = caught;
    }
    this.sending = null;
    this.underWay = null;
    if (error && (error.passing || error.status === 401 || error.status === 403)) return this.#later(error);
    this.waiting.shift();
    this.pause = 0;
    if (this.troubled) {
      this.troubled = false;
      this.on.clear();
    }
    if (!error) this.on.saved(item, answer);
    else if (item.name !== "skip") this.#stop(item, error);
    this.#keep();
    this.#pump();
    if (!this.waiting.length) this.#tell("resolve");
  }

  #later(error) {
    this.pause = Math.min(Math.max(this.pause * 2, FIRST_PAUSE), LONGEST_PAUSE);
    this.troubled = true;
    this.timer = setTimeout(() => this.retryNow(), this.pause);
    this.on.trouble(error);
    this.#tell("reject", error);
  }

  #stop(item, error) {
    item.status = error.status;
    item.answer = { said: error.message, current: error.current, item: error.item };
    this.stopped.push(item);
    this.on.refused(item, error);
  }

  #tell(how, detail) {
    for (const listener of this.listeners.splice(0)) listener[how](detail);
  }

  #keep() {
    const empty = !this.waiting.length && !this.stopped.length;
    remember(this.key, empty ? null : { waiting: this.waiting, stopped: this.stopped });
    this.on.changed();
  }
}

// How many drafts a tab keeps.
const DRAFTS = 50;

// The drafts of this tab: what a person had changed on a record before it was decided, until the server has kept it too.
// The newest are kept, by their turn: an object goes through its numbered keys by number, whenever they were set.
export class Drafts {
  constructor(key) {
    this.key = key;
  }

  // Forget a draft that the server has kept, unless it was changed meanwhile.
  settle(recordId, { turn }) {
    if (recall(this.key)?.[recordId]?.turn === turn) this.set(recordId);
  }

  get(recordId, version) {
    const draft = recall(this.key)?.[recordId];
    return draft && draft.version === version ? draft : null;
  }

  set(recordId, version, value) {
    const all = recall(this.key) ?? {};
    delete all[recordId];
    const turn = ([, draft]) => draft.turn ?? 0;
    const kept = Object.entries(all).sort((a, b) => turn(a) - turn(b));
    if (value !== undefined) kept.push([recordId, { version, value, turn: (kept.length ? turn(kept.at(-1)) : 0) + 1 }]);
    remember(this.key, Object.fromEntries(kept.slice(-DRAFTS)));
  }
}
