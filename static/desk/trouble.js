// What goes wrong: no answer, a decision that is refused or in conflict, a person who is signed out. It is said once,
// where it does not move the page.
import { Banners, button } from "./banners.js";
import { Sign } from "./sign.js";
import { make, say } from "./words.js";

// Where nothing is on its way, the server is asked this often whether it is back. In milliseconds.
const ASKING = 4000;

export class Trouble {
  // `ask(item, error)` shows a conflict and resolves to what is chosen; `reopen(recordId, draft)` opens a record and
  // resolves to whether it did; `refuse(words, item)` says there what is wrong; `ping()` sends any request.
  constructor(root, { api, outbox, drafts, signIn, taskVersion, ask, reopen, refuse, ping }) {
    Object.assign(this, { api, outbox, drafts, signIn, taskVersion, ask, reopen, refuse, ping });
    this.banners = new Banners(root);
    this.sign = new Sign(root);
    this.live = root.querySelector("[data-live]");
    this.conflicts = [];
    // What the order has too little of to go by, as it was said last.
    this.lacking = null;
  }

  // Say what went wrong. What mends itself is told by the sign alone.
  tell(error, name) {
    if (error.status === 401) return this.banners.show("unsent", say("signedOut"), this.#signIn());
    if (error.status === 403) return this.banners.show("unsent", say("stale"), this.banners.reloadButton());
    if (error.status === 507) return this.banners.show("unsent", say("full"));
    if (name === "unsent" || (name === "noRecord" && error.status === 0)) return this.over(name);
    if (name === "noRecord" && error.passing) return this.banners.show(name, say("noRecord"));
    return this.note(name, error.status === 0 ? say("unreached") : say("failed", { why: error.message }));
  }

  // Say something that a person closes.
  note(name, words, milliseconds = 0) {
    this.banners.show(name, words, this.banners.closeButton(name), milliseconds);
  }

  over(name) {
    this.banners.show(name, null);
  }

  // Say something to who only listens.
  announce(words) {
    this.live.textContent = words;
  }

  // Say that the order has little to go by: once, until that changes.
  lacks(words) {
    if (words === this.lacking) return;
    this.lacking = words;
    this.note("lacks", words);
  }

  // What is to be known of a record that comes to the front.
  about({ task_version, held_by }) {
    if (task_version !== this.taskVersion) this.banners.show("changed", say("changed"), this.banners.reloadButton());
    this.banners.show("held", held_by ? say("heldBy", { name: held_by }) : null);
  }

  // Somebody else has the record in front.
  lost(error) {
    this.banners.show("held", error.message);
  }

  // The server begins or ceases to answer.
  reached(reachable) {
    this.showSign();
    clearInterval(this.asking);
    if (reachable) return this.over("failed");
    this.announce(say("offlineLong"));
    // Where nothing else is on its way, the answer to this says when the server is back.
    this.asking = setInterval(this.ping, ASKING);
    return undefined;
  }

  // Records come again: what is said of decisions holds as long as one cannot be sent.
  answered() {
    this.over("noRecord");
    if (!this.outbox.troubled) this.over("unsent");
  }

  // A decision could not be sent, and will be sent again.
  unsent(error) {
    this.because = error.status;
    this.tell(error, "unsent");
    this.showSign();
  }

  // What could not be sent was.
  sent() {
    for (const name of ["unsent", "noRecord", "failed"]) this.over(name);
  }

  showSign() {
    const { unsent, stopped, troubled } = this.outbox;
    const offline = !this.api.reachable || (troubled && this.because === 0);
    this.sign.show({ offline, failing: troubled || stopped.length > 0, waiting: unsent + stopped.length });
  }

  // The server took a decision for good, and did not store it.
  refused(item, error) {
    if (error.status === 409 && !error.current?.text_changed) {
      this.conflicts.push({ item, error });
      this.#settleConflicts();
    } else this.#offer(item, error);
  }

  // A decision that cannot be stored as it is can be opened again with its draft.
  #offer(item, error) {
    const name = `refused-${item.content.request_key}`;
    const over = () => {
      this.outbox.drop(item);
      this.over(name);
    };
    const open = button(say("openAgain"), async () => {
      if (!(await this.reopen(item.content.record_id, item.draft))) return;
      over();
      this.refuse(error.message, error.item);
    });
    this.banners.show(name, `${say("refused", { why: error.message })} — ${item.text}`, [open, button(say("discard"), over, "quiet")]);
  }

  // Ask about one conflict after another, until the person puts one off.
  async #settleConflicts() {
    if (this.settling || !this.conflicts.length) return;
    this.settling = true;
    while (this.conflicts.length) {
      const { item, error } = this.conflicts[0];
      const choice = await this.ask(item, error);
      if (choice === "later") break;
      this.conflicts.shift();
      if (choice === "yours") this.outbox.again(item, { force: true, version: error.current?.version ?? item.content.version });
      else {
        this.outbox.drop(item);
        this.drafts.set(item.content.record_id);
      }
    }
    this.settling = false;
    const left = this.conflicts.length;
    this.banners.show("conflicts", left ? say("conflicts", { n: left }) : null, button(say("look"), () => this.#settleConflicts()));
  }

  #signIn() {
    const here = encodeURIComponent(location.pathname + location.search);
    return make("a", { href: `${this.signIn}?next=${here}`, role: "button" }, say("signIn"));
  }
}
