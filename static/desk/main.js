// The desk: one record in front of the reviewer, the next one already here, decisions sent in the background.
import { Api } from "./api.js";
import { Banners } from "./banners.js";
import { Dialogs } from "./dialogs.js";
import { Form, loadWidgets } from "./form.js";
import { commandOf } from "./keys.js";
import { recall, remember } from "./memory.js";
import { Drafts, Outbox } from "./outbox.js";
import { Progress } from "./progress.js";
import { Seen } from "./seen.js";
import { Sign } from "./sign.js";
import { TextPane } from "./textpane.js";
import { make, paint, say, takesText } from "./words.js";

// A press before a record could be seen, or right after, was meant for the one before.
const UNSEEN = 120;
const RETRY = 2000;
// How long it is said that a press did not count.
const TOLD = 2500;
// A digit and Enter right after it need no word to the server in between.
const SOON = 400;
// More records are asked for when fewer than two lie ready, so that one slow answer is not noticed, and up to five at
// once. All of them are held from others.
const AHEAD = 2;
const FEW = 5;
// Milliseconds until it is asked which words moved a suggestion: who decides at once has no eye for them.
const LOOK = 600;
// Milliseconds until a suggestion that is being prepared is asked for again.
const PREPARING = 1000;

class Desk {
  constructor(root) {
    this.root = root;
    this.config = JSON.parse(root.dataset.config);
    this.api = new Api(this.config.api, (reachable) => this.reached(reachable));
    this.order = { order: this.config.order, similar_to: this.config.similar };
    this.current = null;
    this.ahead = [];
    // Counts the orders of the queue there have been: whoever waits for a record of an older one gives up.
    this.round = 0;
    // What the order has too little of to go by, as it was said last.
    this.lacks = null;
    // Another record is on its way into the place of the current one.
    this.opening = false;
    // Whether to go into the text field of the record that is awaited.
    this.editing = false;
    this.seen = new Seen(root, UNSEEN);
    this.banners = new Banners(root);
    this.sign = new Sign(root);
    this.progress = new Progress(root, this.api, (recordId) => this.openRecord(recordId));
    this.pane = new TextPane(root.querySelector('[data-slot="text"]'));
    this.dialogs = new Dialogs(root);
    this.form = new Form(root, {
      pane: this.pane, language: this.config.language, onTouch: () => this.touched(), approve: (event) => this.decide("approve", event),
    });
    const key = `labeler.${this.config.reviewer}.${this.config.project}.${this.config.task}`;
    this.drafts = new Drafts(`${key}.drafts`);
    this.outbox = new Outbox(this.api, `${key}.outbox`, (...args) => this.heard(...args), (item) => this.beside(item));
    // What this page calls itself when it asks for records. A reload goes on under that name. While the page is open it
    // is not in the tab's memory: a duplicated tab begins with a copy of it.
    this.name = `${key}.page`;
    this.page = recall(this.name) ?? newKey();
    remember(this.name, null);
    this.listen();
    paint(root);
  }

  part(name) {
    return this.root.querySelector(`[data-${name}]`);
  }

  slot(name) {
    return this.root.querySelector(`[data-slot="${name}"]`);
  }

  async start() {
    this.outbox.resume();
    this.showSign();
    const { record } = this.config;
    // A decision that is on its way is not asked for again.
    if (record && !this.outbox.ids().includes(record)) await this.openRecord(record);
    if (!this.current) await this.bring();
  }

  // Records: fetch, show, move on

  prepare(payload, draft) {
    const template = document.createElement("template");
    template.innerHTML = payload.html;
    paint(template.content);
    const slots = Object.fromEntries([...template.content.querySelectorAll("[data-slot]")].map((slot) => [slot.dataset.slot, slot]));
    return { ...payload, html: null, slots, draft, came: performance.now() };
  }

  ids() {
    return [...new Set([this.current, ...this.ahead].filter(Boolean).map((one) => one.record_id).concat(this.outbox.ids()))];
  }

  // Fetch the next records into `ahead`; at most one request at a time. A person who waits gets one, which is quicker.
  prefetch() {
    if (this.fetching) return this.fetching;
    // What is on its way to the server was left out of this answer; a skipped record among it may come again.
    this.leftOut = this.outbox.unsent > 0;
    this.fetching = this.api
      .post("next", { have: this.ids(), page: this.page, count: this.current ? FEW - this.ahead.length : 1, ...this.order })
      .then((payload) => {
        this.fetching = null;
        this.banners.show("noRecord", null);
        if (payload) this.warnOf(payload.lacks);
        if (payload) this.ahead.push(...[payload, ...payload.more].map((one) => this.prepare(one)));
        this.exhausted = !payload;
        this.stockUp();
      })
      .catch((error) => {
        this.fetching = null;
        this.trouble(error, "noRecord");
        throw error;
      });
    return this.fetching;
  }

  // Say that the order has little to go by: once, until that changes.
  warnOf(lacks) {
    if (lacks === this.lacks) return;
    this.lacks = lacks;
    this.banners.show("lacks", lacks, this.banners.closeButton("lacks"));
  }

  // Ask for more while there is room, in the background.
  stockUp() {
    this.root.dataset.ahead = this.exhausted ? "all" : String(this.ahead.length);
    if (this.current && this.ahead.length < AHEAD && !this.exhausted) this.prefetch().catch(() => {});
  }

  // Show the next record: at once if it is here, else as soon as it comes.
  async bring() {
    const round = this.round;
    let waited = false;
    this.current = null;
    for (;;) {
      while (this.ahead.length) {
        const next = this.ahead.shift();
        // A claim that ran out in the drawer is worth nothing: others may have the record.
        if (performance.now() - next.came < next.lease * 900 || next.draft) return this.show(next);
      }
      this.rest();
      this.exhausted = false;
      try {
        await this.prefetch();
      } catch (error) {
        if (!error.passing) return;
        await new Promise((resolve) => setTimeout(resolve, RETRY));
      }
      if (this.current || round !== this.round) return;
      if (this.exhausted && !this.ahead.length) {
        if (this.leftOut && !waited) {
          waited = true;
          await this.outbox.settled().catch(() => {});
          if (this.current || round !== this.round) return;
          continue;
        }
        return this.finish();
      }
    }
  }

  // Nothing is left. Whether there ever was anything is the counter's to know.
  async finish() {
    const done = this.part("done");
    const explain = () => {
      const why = this.progress.counts.total ? "decided" : "empty";
      for (const part of done.querySelectorAll("[data-why]")) part.hidden = part.dataset.why !== why;
    };
    this.root.classList.remove("is-waiting");
    this.root.classList.add("is-done");
    this.editing = false;
    this.follow(null);
    explain();
    done.hidden = false;
    await this.progress.refresh();
    explain();
  }

  // The address names the record in front, so that a reload shows it again. It takes the place of the one before: "back"
  // leads to where the person came from, and what changes the language leads back here.
  follow(recordId) {
    const address = new URL(location.href);
    if (recordId) address.searchParams.set("record", recordId);
    else address.searchParams.delete("record");
    if (address.href !== location.href) history.replaceState(null, "", address);
    for (const field of document.querySelectorAll('.top input[name="next"]')) field.value = address.pathname + address.search;
  }

  show(next) {
    const { slots } = next;
    this.current = next;
    this.root.classList.remove("is-done");
    this.part("done").hidden = true;
    if (document.activeElement && takesText(document.activeElement)) document.activeElement.blur();
    getSelection()?.removeAllRanges();
    this.slot("meta").replaceChildren(...slots.meta.cloneNode(true).childNodes);
    this.slot("status").replaceChildren(...slots.status.cloneNode(true).childNodes);
    this.slot("side").replaceChildren(...slots.side.cloneNode(true).childNodes);
    // Styles that the script set do not survive cloning everywhere.
    paint(this.root.querySelector(".side"));
    this.slot("side").parentElement.scrollTop = 0;
    this.pane.load(slots.text.cloneNode(true));
    this.root.querySelector(".work").classList.toggle("is-suspicious", slots.meta.querySelector(".warn") !== null);
    this.form.load(this.filling(next));
    this.root.dataset.record = next.record_id;
    this.root.dataset.state = next.state;
    this.shownAt = performance.now();
    this.hiddenFor = 0;
    this.hiddenSince = document.hidden ? this.shownAt : null;
    this.touchedAt = 0;
    this.seen.begin();
    this.rest();
    if (next.task_version !== this.config.taskVersion) this.banners.show("changed", say("changed"), this.banners.reloadButton());
    this.banners.show("held", next.held_by ? say("heldBy", { name: next.held_by }) : null);
    this.exhausted = false;
    this.stockUp();
    this.follow(next.record_id);
    if (next.preparing) this.awaitSuggestion(next);
    this.explain(next);
  }

  // Say which words moved the suggestion, where somebody looks at what stands beside it.
  async explain(next) {
    await new Promise((resolve) => setTimeout(resolve, LOOK));
    const place = this.part("moved");
    if (this.current !== next || this.opening || !place || place.dataset.moved || !this.part("side").open) return;
    place.dataset.moved = "asked";
    try {
      const { html } = await this.api.get(`moved/${next.record_id}/${next.suggestion_id}`);
      if (this.current !== next || !html) return;
      place.innerHTML = html;
      place.dataset.moved = "there";
      paint(place);
    } catch {
      // It can be decided without them.
    }
  }

  // The server was still reading its examples when this record was opened: ask again until the suggestion is there, or
  // until the person has begun without it.
  async awaitSuggestion(next) {
    const waits = () => this.current === next && !this.opening && !this.form.touched;
    await new Promise((resolve) => setTimeout(resolve, PREPARING));
    if (!waits()) return;
    try {
      const payload = await this.api.post("renew", { record_id: next.record_id, page: this.page });
      if (!payload || !waits()) return;
      if (payload.preparing) return this.awaitSuggestion(next);
      const since = this.shownAt;
      this.show(this.prepare(payload));
      this.shownAt = since;
    } catch {
      // It can be decided without one.
    }
  }

  // While no record is there, or another is on its way into its place, nothing is chosen, typed or decided: it would be
  // lost, or land on the wrong one. The key that goes into the text field counts for the record that comes.
  rest() {
    const resting = !this.current || this.opening;
    this.root.classList.toggle("is-waiting", resting && !this.root.classList.contains("is-done"));
    if (resting && takesText(document.activeElement) && this.form.element.contains(document.activeElement)) document.activeElement.blur();
    this.form.element.inert = resting;
    if (!resting && this.editing) this.edit();
  }

  edit() {
    this.editing = this.root.classList.contains("is-waiting");
    if (!this.editing) this.form.widget.focus();
  }

  filling(next) {
    return { ...this.content(next), scores: next.scores, scale: next.scale };
  }

  content(next) {
    const draft = next.draft ?? this.drafts.get(next.record_id, next.version);
    if (draft) return { value: draft.value, suggested: next.suggested, origin: "draft" };
    if (next.decided !== null) return { value: next.decided, suggested: next.suggested, origin: "decision" };
    if (next.suggested !== null) return { value: next.suggested, suggested: next.suggested, origin: "suggestion" };
    return { value: null, suggested: null, origin: "empty" };
  }

  // Lay the current record aside, with its draft, to come back to it after another one.
  layAside() {
    if (!this.current) return;
    const draft = this.form.touched ? { value: this.form.value() } : this.current.draft;
    this.ahead.unshift({ ...this.current, draft });
    this.current = null;
  }

  // The record that comes next, to be renewed in the background: what was decided since it came counts for it then.
  // Not the one in front, which a person looks at, and none that a person has worked on.
  renewable() {
    const next = this.ahead[0];
    return !next || next.draft || this.drafts.get(next.record_id, next.version) ? null : next;
  }

  asked(next) {
    return { record_id: next.record_id, suggestion_id: next.suggestion_id, page: this.page };
  }

  // What a decision takes along: the record to renew with it.
  beside(item) {
    this.renewing = item.name === "decide" ? this.renewable() : null;
    return this.renewing ? { then: this.asked(this.renewing) } : {};
  }

  async renewNext() {
    const next = this.renewable();
    if (!next) return;
    try {
      this.renewed(next, await this.api.post("renew", this.asked(next)));
    } catch {
      // It is shown as it came.
    }
  }

  // Without a payload the record is another's by now; it may also have come to the front, or gone back to the queue.
  renewed(next, payload) {
    const place = this.ahead.indexOf(next);
    if (place === -1) return;
    if (payload?.same) Object.assign(next, { lease: payload.lease, came: performance.now() });
    else this.ahead.splice(place, 1, ...(payload ? [this.prepare(payload)] : []));
    this.root.dataset.renewed = String(next.record_id);
    this.stockUp();
  }

  open(recordId) {
    return this.api.post("open", { record_id: recordId, page: this.page });
  }

  // Let another record come in the place of the current one. Gives back what `work` resolves to.
  async replace(work) {
    this.opening = true;
    this.rest();
    try {
      return await work();
    } finally {
      this.opening = false;
      this.rest();
    }
  }

  // Open a record by its number; false if that failed, or if another is being opened.
  async openRecord(recordId, draft) {
    if (this.current?.record_id === recordId && !draft) return true;
    return this.opening ? false : this.replace(() => this.fetchRecord(recordId, draft));
  }

  async fetchRecord(recordId, draft) {
    try {
      const payload = await this.open(recordId);
      if (this.current?.record_id !== recordId) this.layAside();
      this.ahead = this.ahead.filter((one) => one.record_id !== recordId);
      this.show(this.prepare(payload, draft));
      return true;
    } catch (error) {
      this.trouble(error, "failed");
      return false;
    }
  }

  // Decisions

  // Whether the press of this event can be about the current record.
  takes(event) {
    return this.current !== null && !this.opening && !this.dialogs.open && this.seen.answers(event);
  }

  // The same; a press that does not count is told so.
  counts(event) {
    const taken = this.takes(event);
    if (taken) this.part("swallowed").textContent = "";
    else this.swallow();
    return taken;
  }

  swallow() {
    if (this.dialogs.open || this.root.classList.contains("is-done")) return;
    const place = this.part("swallowed");
    place.textContent = say(this.current && !this.opening ? "tooEarly" : "notHere");
    clearTimeout(this.telling);
    this.telling = setTimeout(() => (place.textContent = ""), TOLD);
  }

  decide(action, event) {
    if (!this.counts(event)) return;
    const problem = action === "approve" ? this.form.problem() : null;
    if (problem) return this.form.complain(problem);
    if (action === "approve" && this.form.empty && !this.form.meansEmpty(event)) return;
    const { record_id, version, task_version, suggestion_id, blind } = this.current;
    const value = action === "approve" ? this.form.value() : null;
    const started = performance.now();
    const content = { record_id, action, value, version, task_version, suggestion_id, blind, seconds: this.seconds(), request_key: newKey(), force: false };
    const draft = this.form.touched ? { value: this.form.value() } : null;
    this.outbox.push({ name: "decide", content, text: clip(this.pane.text), draft: draft ?? { value }, was: this.current.state });
    this.undoing = null;
    this.advance();
    this.root.dataset.swap = String(performance.now() - started);
  }

  skip(event) {
    if (!this.counts(event)) return;
    if (this.current.state !== "pending") {
      this.putBack([this.current]);
      return this.bring();
    }
    this.outbox.push({ name: "skip", content: { record_id: this.current.record_id } });
    this.advance();
  }

  // Without a pause if the next record is here.
  advance() {
    this.current = null;
    this.bring();
  }

  undo(event) {
    // While the next record is awaited, the last decision can be taken back all the same.
    if (this.opening || this.dialogs.open || (this.current && !this.takes(event))) return this.swallow();
    this.replace(() => this.takeBack());
  }

  async takeBack() {
    const unsent = this.outbox.takeBack();
    try {
      if (unsent) {
        // What cannot be opened again now stays on its way.
        if (!(await this.fetchRecord(unsent.content.record_id, unsent.draft))) this.outbox.push(unsent);
        return;
      }
      this.outbox.retryNow();
      await this.outbox.settled();
      // An answer that got lost is asked for again, and takes nothing more back.
      this.undoing ??= newKey();
      const payload = await this.api.post("undo", { page: this.page, request_key: this.undoing });
      this.undoing = null;
      this.layAside();
      this.ahead = this.ahead.filter((one) => one.record_id !== payload.record_id);
      const undone = payload.undone;
      const draft = undone?.state === "approved" ? { value: undone.value } : undefined;
      this.drafts.set(payload.record_id);
      this.show(this.prepare(payload, draft));
      this.progress.showStrip(payload.strip);
      this.progress.count(payload.state === "pending" ? -1 : 0);
      this.renewNext();
    } catch (error) {
      if (!error.passing) this.undoing = null;
      if (error.status === 404) this.banners.show("failed", say("nothingToUndo"), this.banners.closeButton("failed"), 3000);
      else this.trouble(error, "failed");
    }
  }

  // The form was changed by a person: keep the draft, and keep the claim alive (not more often than needed).
  touched() {
    if (!this.current) return;
    const { record_id, version, token, lease } = this.current;
    this.drafts.set(record_id, version, this.form.value());
    if (!token || (this.touchedAt && performance.now() - this.touchedAt < (lease * 1000) / 3)) return;
    this.touchedAt = performance.now();
    setTimeout((held) => this.keepClaim(held), SOON, this.current);
  }

  async keepClaim(held) {
    // Of a record that was opened anew nothing of the old claim is true.
    if (this.current !== held) return;
    try {
      const { record_id, token, version } = held;
      held.lease = (await this.api.post("touch", { record_id, token, version })).lease;
    } catch (error) {
      if (error.status === 409 && this.current === held) this.banners.show("held", error.message);
    }
  }

  seconds() {
    const hidden = this.hiddenFor + (this.hiddenSince === null ? 0 : performance.now() - this.hiddenSince);
    return Math.round(performance.now() - this.shownAt - hidden) / 1000;
  }

  // What the outbox says

  heard(event, item, detail) {
    if (event === "changed") return this.showSign();
    if (event === "saved" && item.name === "decide") {
      this.drafts.set(item.content.record_id);
      if (detail.note) this.banners.show("moved", detail.note, this.banners.closeButton("moved"));
      if (this.renewing && detail.then !== undefined) this.renewed(this.renewing, detail.then);
      this.progress.showStrip(detail.strip);
      // A repeated one may be in the counts that the page came with.
      if (detail.repeated) this.progress.refresh();
      else this.progress.count(item.was === "pending" ? 1 : 0);
      this.live(say(detail.state));
    } else if (event === "trouble") {
      this.unsentBecause = detail.status;
      this.trouble(detail, "unsent");
      this.showSign();
    } else if (event === "clear") for (const name of ["unsent", "noRecord", "failed"]) this.banners.show(name, null);
    else if (event === "refused") this.refused(item, detail);
  }

  refused(item, error) {
    if (error.status === 409 && !error.current?.text_changed) {
      (this.conflicts ??= []).push({ item, error });
      this.settleConflicts();
      return;
    }
    const name = `refused-${item.content.request_key}`;
    const open = make("button", { type: "button" }, say("openAgain"));
    const discard = make("button", { type: "button", class: "quiet" }, say("discard"));
    const over = () => {
      this.outbox.drop(item);
      this.banners.show(name, null);
    };
    open.addEventListener("click", async () => {
      if (await this.openRecord(item.content.record_id, item.draft)) over();
    });
    discard.addEventListener("click", over);
    this.banners.show(name, `${say("refused", { why: error.message })} — ${item.text}`, [open, discard]);
  }

  async settleConflicts() {
    if (this.settling || !this.conflicts?.length) return;
    this.settling = true;
    while (this.conflicts.length) {
      const { item, error } = this.conflicts[0];
      const choice = await this.dialogs.conflict(this.form, item, error);
      if (choice === "later") break;
      this.conflicts.shift();
      if (choice === "yours") this.outbox.again(item, { force: true, version: error.current?.version ?? item.content.version });
      else {
        this.outbox.drop(item);
        this.drafts.set(item.content.record_id);
      }
    }
    this.settling = false;
    const look = make("button", { type: "button" }, say("look"));
    look.addEventListener("click", () => this.settleConflicts());
    this.banners.show("conflicts", this.conflicts.length ? say("conflicts", { n: this.conflicts.length }) : null, look);
  }

  // Say what went wrong, once, where it does not move the page. What mends itself is told by the sign alone.
  trouble(error, name) {
    if (error.status === 401) {
      const here = encodeURIComponent(location.pathname + location.search);
      return this.banners.show("unsent", say("signedOut"), make("a", { href: `${this.config.signIn}?next=${here}`, role: "button" }, say("signIn")));
    }
    if (error.status === 403) return this.banners.show("unsent", say("stale"), this.banners.reloadButton());
    if (error.status === 507) return this.banners.show("unsent", say("full"));
    if (name === "unsent" || (name === "noRecord" && error.status === 0)) return this.banners.show(name, null);
    if (name === "noRecord" && error.passing) return this.banners.show(name, say("noRecord"));
    const why = error.status === 0 ? say("unreached") : say("failed", { why: error.message });
    return this.banners.show(name, why, this.banners.closeButton(name));
  }

  showSign() {
    const { unsent, stopped, troubled } = this.outbox;
    const offline = !this.api.reachable || (troubled && this.unsentBecause === 0);
    this.sign.show({ offline, failing: troubled || stopped.length > 0, waiting: unsent + stopped.length });
  }

  // The server begins or ceases to answer.
  reached(reachable) {
    this.showSign();
    clearInterval(this.asking);
    if (reachable) return this.banners.show("failed", null);
    this.live(say("offlineLong"));
    // Where nothing else is on its way, the counter finds out when the server is back.
    this.asking = setInterval(() => this.progress.refresh(), 2 * RETRY);
    return undefined;
  }

  live(words) {
    this.part("live").textContent = words;
  }

  // Order of the queue

  async changeOrder() {
    const form = this.part("order");
    const { order, similar_to: similar } = form.elements;
    similar.hidden = order.value !== "similar";
    if (order.value === "similar" && !similar.value.trim()) return similar.focus();
    this.order = { order: order.value, similar_to: order.value === "similar" ? similar.value.trim() : "" };
    this.warnOf(null);
    const address = new URL(location.href);
    address.searchParams.delete("record");
    address.searchParams.set("order", order.value);
    if (this.order.similar_to) address.searchParams.set("similar", this.order.similar_to);
    else address.searchParams.delete("similar");
    history.replaceState(null, "", address);
    document.activeElement?.blur();
    // The other order begins now: what lay ready goes back to the queue. Drafts are kept in this tab.
    const round = (this.round += 1);
    const held = [this.current];
    this.current = null;
    this.rest();
    // What is on its way is claimed already; given back before it came, it would be the first to come again.
    await this.fetching?.catch(() => {});
    held.push(...this.ahead.splice(0));
    await this.putBack(held.filter(Boolean));
    if (round !== this.round) return;
    // An undo may have brought its record meanwhile.
    if (this.current) this.stockUp();
    else this.bring();
  }

  putBack(held) {
    const records = held.filter((one) => one.token).map(({ record_id, token }) => ({ record_id, token }));
    return records.length ? this.api.post("leave", { records }).catch(() => {}) : Promise.resolve();
  }

  // Events

  listen() {
    document.addEventListener("keydown", (event) => this.onKey(event));
    this.root.addEventListener("click", (event) => this.onClick(event));
    // A button that the mouse pressed gives the keys back.
    this.root.addEventListener("pointerup", () => setTimeout(() => {
      const focused = document.activeElement;
      if (focused instanceof HTMLElement && focused.matches("button, summary, input[type=radio], input[type=checkbox]") && !this.dialogs.open) focused.blur();
    }));
    const order = this.part("order");
    order.addEventListener("submit", (event) => {
      event.preventDefault();
      this.changeOrder();
    });
    order.elements.order.addEventListener("change", () => this.changeOrder());
    order.elements.similar_to.addEventListener("keydown", (event) => {
      // Implicit submission also happens while the input method composes.
      if (event.isComposing && event.code === "Enter") event.preventDefault();
    });
    this.part("tasks")?.addEventListener("change", (event) => location.assign(event.target.value));
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) this.hiddenSince = performance.now();
      else if (this.hiddenSince !== null) {
        this.hiddenFor += performance.now() - this.hiddenSince;
        this.hiddenSince = null;
        this.progress.refresh();
      }
    });
    addEventListener("online", () => this.outbox.retryNow());
    addEventListener("pagehide", () => {
      remember(this.name, this.page);
      this.putBack([this.current, ...this.ahead].filter(Boolean));
    });
    addEventListener("beforeunload", (event) => this.outbox.troubled && this.outbox.unsent && event.preventDefault());
    addEventListener("pageshow", (event) => event.persisted && location.reload());
    const narrow = matchMedia("(max-width: 900px)");
    const fold = () => (this.part("side").open = !narrow.matches);
    narrow.addEventListener("change", fold);
    fold();
    this.part("side").addEventListener("toggle", () => this.current && this.explain(this.current));
  }

  onKey(event) {
    if (this.dialogs.open) return;
    const command = commandOf(event);
    if (!command) return;
    if (this.run(command, event)) event.preventDefault();
  }

  onClick(event) {
    const button = event.target.closest("[data-do], [data-example-id]");
    if (!button) return;
    if (button.dataset.exampleId) this.example(Number(button.dataset.exampleId));
    else this.run({ name: button.dataset.do }, event);
  }

  // Returns whether the command was one of ours.
  run({ name, digit, shift }, event) {
    switch (name) {
      case "approve": this.root.classList.contains("is-done") ? this.bring() : this.decide("approve", event); break;
      case "empty":
        if (!this.form.empty) return false;
        this.decide("approve", event);
        break;
      case "again": this.bring(); break;
      case "reject": this.decide("reject", event); break;
      case "skip": this.skip(event); break;
      case "undo": this.undo(event); break;
      case "digit": return this.digit(digit, shift, event);
      case "edit": this.edit(); break;
      case "second": this.second(event); break;
      case "guide": this.toggleGuide(); break;
      case "keys": this.dialogs.showKeys(); break;
      case "escape": return this.escape();
      case "nothing": break;
      case "mark": case "delete": return this.counts(event) && (this.form.widget.onCommand?.(name, shift) ?? false);
      default:
        if (!this.form.element.inert) return this.form.widget.onCommand?.(name, shift) ?? false;
        if (name === "filter") this.edit();
        return name === "filter";
    }
    return true;
  }

  digit(digit, shift, event) {
    if (!this.counts(event)) return false;
    const known = this.form.widget.onDigit?.(digit) ?? false;
    // One key for the label and the approval, where a digit is the whole value.
    if (known && shift && this.form.widget.whole) this.decide("approve", event);
    return known;
  }

  escape() {
    this.editing = false;
    if (takesText(document.activeElement)) {
      document.activeElement.blur();
      return true;
    }
    if (this.form.widget.onCommand?.("escape")) return true;
    if (!this.part("guide").hidden) this.toggleGuide();
    return true;
  }

  second(event) {
    if (!this.counts(event)) return;
    if (this.current.second === null) this.form.complain(say("noSecond"));
    else this.form.take(this.current.second);
  }

  toggleGuide() {
    const guide = this.part("guide");
    guide.hidden = !guide.hidden;
    for (const button of this.root.querySelectorAll('[aria-controls="guide"]')) button.setAttribute("aria-expanded", String(!guide.hidden));
  }

  // Show an example beside the record that it was asked for; over another one it would swallow the next key.
  async example(id) {
    const { current } = this;
    const asked = (this.asked = {});
    const wanted = () => this.asked === asked && this.current === current && !this.opening && !this.dialogs.open;
    try {
      const { html } = await this.api.get(`example/${id}`);
      if (wanted()) this.dialogs.showExample(html);
    } catch (error) {
      if (wanted()) this.trouble(error, "failed");
    }
  }
}

function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function clip(text) {
  const line = text.replace(/\s+/gu, " ").trim();
  return [...line].length > 120 ? `${[...line].slice(0, 120).join("")}…` : line;
}

// Scripts of widgets come from plugins, too: one that fails must not look like a desk that has nothing to do.
async function begin(root) {
  try {
    await loadWidgets(root);
    new Desk(root).start();
  } catch (error) {
    const banners = new Banners(root);
    banners.show("failed", say("noForm", { why: error.message }), banners.reloadButton());
    throw error;
  }
}

const root = document.getElementById("desk");
if (root) begin(root);
