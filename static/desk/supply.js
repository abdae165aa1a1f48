// The supply of records: which one is in front, which lie ready behind it, and the claims that hold them from others.
import { prepared } from "./front.js";

const RETRY = 2000;
// A digit and Enter right after it need no word to the server in between.
const SOON = 400;
// While a person goes on, the server hears of their draft this often.
const TELLING = 3000;
// More records are asked for when fewer than two lie ready, so that one slow answer is not noticed, and up to five at
// once. All of them are held from others.
const AHEAD = 2;
const FEW = 5;
// Milliseconds until a suggestion that is being prepared is asked for again.
const PREPARING = 1000;

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

export class Supply {
  // `page` is what this page calls itself when it asks for records, `order` the order of the queue as the server is
  // asked for it. `front` shows records, `trouble` says what went wrong, `finish` is called when nothing is left, and
  // `marks` tell those who wait for it what lies ready.
  constructor({ api, outbox, drafts, front, trouble, page, order, finish, marks }) {
    Object.assign(this, { api, outbox, drafts, front, trouble, page, order, finish, marks });
    this.current = null;
    this.ahead = [];
    this.fetching = null;
    this.exhausted = false;
    // Counts the orders of the queue there have been: whoever waits for a record of an older one gives up.
    this.round = 0;
    // A word to the server about the draft waits for its time.
    this.telling = null;
    // Another record is on its way into the place of the current one.
    this.opening = false;
    this.renewing = null;
  }

  // Whether there is a record in front that stays there.
  get ready() {
    return this.current !== null && !this.opening;
  }

  // Show the next record: at once if it is here, else as soon as it comes.
  async bring() {
    const { round } = this;
    let waited = false;
    this.current = null;
    for (;;) {
      while (this.ahead.length) {
        const next = this.ahead.shift();
        // A claim that ran out in the drawer is worth nothing: others may have the record.
        if (performance.now() - next.came < next.lease * 900 || next.draft) return this.#show(next);
      }
      this.#rest();
      this.exhausted = false;
      try {
        await this.#prefetch();
      } catch (error) {
        // Signed out here, a person may sign in elsewhere.
        if (!error.passing && error.status !== 401) return;
        await pause(RETRY);
      }
      if (this.current || round !== this.round) return;
      if (this.exhausted && !this.ahead.length) {
        if (!this.leftOut || waited) return this.finish();
        waited = true;
        await this.outbox.settled().catch(() => {});
        if (this.current || round !== this.round) return;
      }
    }
  }

  // Open a record by its number; false if that failed, or if another is being opened.
  async open(recordId, draft) {
    if (this.current?.record_id === recordId && !draft) return true;
    return this.opening ? false : this.replace(() => this.reopen(recordId, draft));
  }

  // The same, where another record is being replaced already.
  async reopen(recordId, draft) {
    try {
      this.place(await this.api.post("open", { record_id: recordId, page: this.page }), draft);
      return true;
    } catch (error) {
      this.trouble.tell(error, "failed");
      return false;
    }
  }

  // Let another record come in the place of the current one. Gives back what `work` resolves to.
  async replace(work) {
    this.opening = true;
    this.#rest();
    try {
      return await work();
    } finally {
      this.opening = false;
      this.#rest();
    }
  }

  // Put a record in front that was asked for by its number. The one there is laid aside, to come back after it.
  place(payload, draft) {
    if (draft) this.drafts.set(payload.record_id, payload.version, draft.value);
    if (this.current && this.current.record_id !== payload.record_id) {
      this.ahead.unshift({ ...this.current, draft: this.front.draft() ?? this.current.draft });
    }
    this.ahead = this.ahead.filter((one) => one.record_id !== payload.record_id);
    this.#show(prepared(payload, draft));
  }

  // Go on without a word about the record in front, which is decided.
  leave() {
    this.#putBack([this.current]);
    this.bring();
  }

  // Go on in another order: what lay ready goes back to the queue. Drafts are kept in this tab.
  async reorder(order) {
    this.order = order;
    this.trouble.lacks(null);
    const round = (this.round += 1);
    const held = [this.current];
    this.current = null;
    this.#rest();
    // What is on its way is claimed already; given back before it came, it would be the first to come again.
    await this.fetching?.catch(() => {});
    held.push(...this.ahead.splice(0));
    await this.#putBack(held);
    if (round !== this.round) return;
    // An undo may have brought its record meanwhile.
    if (this.current) this.#stockUp();
    else this.bring();
  }

  // The page closes: others may have what it holds.
  close() {
    this.#putBack([this.current, ...this.ahead]);
  }

  // A person changed the form: keep the draft, here at once, and on the server with the word that keeps the claim.
  touched() {
    if (!this.current) return;
    const { record_id, version, token } = this.current;
    this.drafts.set(record_id, version, this.front.draft().value);
    if (!token || this.telling) return;
    this.telling = setTimeout((held) => this.#keepClaim(held), this.touchedAt ? TELLING : SOON, this.current);
    this.touchedAt = performance.now();
  }

  // What a decision takes along: the record that comes next, to be renewed with it.
  beside() {
    this.renewing = this.#renewable();
    return this.renewing ? { then: this.#asked(this.renewing) } : {};
  }

  // The decision is stored; `payload` is the record that it took along, null if that is another's by now.
  came(payload) {
    if (this.renewing && payload !== undefined) this.#renewed(this.renewing, payload);
  }

  // Renew the record that comes next in the background.
  async renewNext() {
    const next = this.#renewable();
    if (!next) return;
    try {
      this.#renewed(next, await this.api.post("renew", this.#asked(next)));
    } catch {
      // It is shown as it came.
    }
  }

  #show(next, again = false) {
    this.current = next;
    this.touchedAt = 0;
    clearTimeout(this.telling);
    this.telling = null;
    this.front.show(next, again);
    this.#rest();
    this.trouble.about(next);
    this.exhausted = false;
    this.#stockUp();
    if (next.preparing) this.#awaitSuggestion(next);
  }

  #rest() {
    this.front.rest(!this.ready);
  }

  // Fetch the next records into `ahead`; at most one request at a time. A person who waits gets one, which is quicker.
  #prefetch() {
    if (this.fetching) return this.fetching;
    // What is on its way to the server was left out of this answer; a skipped record among it may come again.
    this.leftOut = this.outbox.unsent > 0;
    const have = [this.current, ...this.ahead].filter(Boolean).map((one) => one.record_id).concat(this.outbox.ids());
    const count = this.current ? FEW - this.ahead.length : 1;
    this.fetching = this.api
      .post("next", { have: [...new Set(have)], page: this.page, count, ...this.order })
      .then((payload) => {
        this.fetching = null;
        this.trouble.answered();
        if (payload) {
          this.trouble.lacks(payload.lacks);
          this.ahead.push(...[payload, ...payload.more].map((one) => prepared(one)));
        }
        this.exhausted = !payload;
        this.#stockUp();
      })
      .catch((error) => {
        this.fetching = null;
        this.trouble.tell(error, "noRecord");
        throw error;
      });
    return this.fetching;
  }

  // Ask for more while there is room, in the background.
  #stockUp() {
    this.marks.ahead = this.exhausted ? "all" : String(this.ahead.length);
    if (this.current && this.ahead.length < AHEAD && !this.exhausted) this.#prefetch().catch(() => {});
  }

  // The server was still reading its examples when this record was opened: ask again until the suggestion is there, or
  // until the person has begun without it.
  async #awaitSuggestion(next) {
    const waits = () => this.current === next && this.ready && !this.front.draft();
    await pause(PREPARING);
    if (!waits()) return;
    try {
      const payload = await this.api.post("renew", { record_id: next.record_id, page: this.page });
      if (!payload || !waits()) return;
      if (payload.preparing || this.front.typing) this.#awaitSuggestion(next);
      else this.#show(prepared(payload), true);
    } catch {
      // It can be decided without one.
    }
  }

  // What was decided since the record came counts for it when it is renewed. Not the one in front, which a person looks
  // at, and none that a person has worked on.
  #renewable() {
    const next = this.ahead[0];
    return !next || next.draft || next.kept || this.drafts.get(next.record_id, next.version) ? null : next;
  }

  #asked(next) {
    return { record_id: next.record_id, suggestion_id: next.suggestion_id, page: this.page };
  }

  // It may also have come to the front meanwhile, or gone back to the queue.
  #renewed(next, payload) {
    const place = this.ahead.indexOf(next);
    if (place === -1) return;
    if (payload?.same) Object.assign(next, { lease: payload.lease, came: performance.now() });
    else this.ahead.splice(place, 1, ...(payload ? [prepared(payload)] : []));
    this.marks.renewed = String(next.record_id);
    this.#stockUp();
  }

  async #keepClaim(held) {
    // Of a record that was opened anew nothing of the old claim is true.
    if (this.current !== held) return;
    this.telling = null;
    const { record_id, token, version } = held;
    const draft = this.drafts.get(record_id, version);
    try {
      const answer = await this.api.post("touch", { record_id, token, version, draft: draft && { value: draft.value } });
      held.lease = answer.lease;
      if (!draft) return;
      held.kept = { value: draft.value };
      this.drafts.settle(record_id, draft);
    } catch (error) {
      if (error.status === 409 && this.current === held) this.trouble.lost(error);
    }
  }

  async #putBack(held) {
    const records = held.filter((one) => one?.token).map(({ record_id, token }) => ({ record_id, token }));
    if (records.length) await this.api.post("leave", { records }).catch(() => {});
  }
}
