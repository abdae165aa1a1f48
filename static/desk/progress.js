// How far the task is: the counter, and the strip of the last decisions.
import { make, say } from "./words.js";

export class Progress {
  // `open(recordId)` is called for a decision that is to be corrected.
  constructor(root, api, open) {
    this.api = api;
    this.open = open;
    this.counter = root.querySelector("[data-counts]");
    this.strip = root.querySelector("[data-strip]");
    this.counts = JSON.parse(this.counter.dataset.counts);
    // Decided on this page since the counts came.
    this.since = 0;
    this.waiting = root.querySelector("[data-waiting]");
    this.showStrip(JSON.parse(this.strip.dataset.strip));
    this.waits(this.counts);
  }

  // Say how many notes wait for this person: questions and, for who adjudicates, flags.
  waits(waiting) {
    const said = ["questions", "flags"].filter((name) => waiting[name]).map((name) => say(name, { n: waiting[name] }));
    this.waiting.hidden = !said.length;
    this.waiting.textContent = said.join(" · ");
  }

  showStrip(strip) {
    const items = strip.map((row) => {
      const title = row.state === "rejected" ? say("rejected") : row.label || say("empty");
      // What was not shown before a decision stands where it was decided, and nowhere near the next record.
      const below = row.told ? make("span", { class: "told" }, row.told) : make("span", {}, row.text);
      const button = make("button", { type: "button", title: [title, row.told, row.text].filter(Boolean).join(" — ") },
        make("b", {}, title), below);
      button.classList.add(row.state);
      if (/^#[0-9a-f]{3,8}$/i.test(row.color) && row.state !== "rejected") button.style.setProperty("--label", row.color);
      button.addEventListener("click", () => {
        button.blur();
        this.open(row.record_id);
      });
      return make("li", {}, button);
    });
    this.strip.replaceChildren(...items);
  }

  count(change) {
    this.since += change;
    const done = this.counts.done + this.since;
    this.counter.querySelector('[data-count="done"]').textContent = String(done);
    this.counter.querySelector('[data-count="total"]').textContent = String(this.counts.total);
    Object.assign(this.counter.querySelector("progress"), { max: Math.max(this.counts.total, 1), value: done });
    if (change && this.since % 25 === 0) this.refresh();
  }

  async refresh() {
    try {
      this.counts = await this.api.get("counts");
      this.since = 0;
      this.count(0);
      this.waits(this.counts);
    } catch {
      // The counter is a courtesy.
    }
  }
}
