// The dialogs of the desk. While one is open, the keys of the desk rest.
import { diff } from "./diff.js";
import { commandOf } from "./keys.js";
import { Seen } from "./seen.js";
import { make, paint, say } from "./words.js";

// A dialog that comes up by itself must not be answered by a key or click meant for the record.
const GUARD = 400;

export class Dialogs {
  constructor(root) {
    this.root = root;
    this.all = Object.fromEntries([...root.querySelectorAll("dialog")].map((dialog) => [dialog.dataset.dialog, dialog]));
    for (const dialog of Object.values(this.all)) {
      for (const button of dialog.querySelectorAll("[data-close]")) button.addEventListener("click", () => dialog.close());
      // A closed dialog gives the focus back to the button that opened it, where Enter would open it again.
      dialog.addEventListener("close", () => document.activeElement?.matches("button, summary") && document.activeElement.blur());
      dialog.addEventListener("click", (event) => event.target === dialog && dialog.dataset.dialog !== "conflict" && dialog.close());
    }
    this.seen = new Seen(this.all.conflict, GUARD);
    this.all.keys.addEventListener("keydown", (event) => {
      if (commandOf(event)?.name === "keys") this.all.keys.close();
    });
  }

  get open() {
    return Object.values(this.all).some((dialog) => dialog.open);
  }

  showKeys() {
    this.all.keys.showModal();
  }

  showExample(html) {
    const place = this.all.example.querySelector("[data-example]");
    place.innerHTML = html;
    paint(place);
    if (!this.all.example.open) this.all.example.showModal();
  }

  // Show what stands beside what was sent; resolves to "theirs", "yours" or "later".
  conflict(form, item, error) {
    const dialog = this.all.conflict;
    const part = (name) => dialog.querySelector(`[data-conflict="${name}"]`);
    const current = error.current ?? {};
    const name = current.reviewer ?? current.held_by ?? say("somebody");
    part("title").textContent = current.held_by ? say("conflictHeld", { name }) : current.reviewer ? say("conflictDecided", { name }) : error.message;
    part("text").textContent = item.text;
    // Who only holds the record has not said anything yet.
    const theirs = this.#lines(form, "value" in current ? current.state : "pending", current.value);
    const yours = this.#lines(form, item.content.action === "approve" ? "approved" : "rejected", item.content.value);
    part("theirs").replaceChildren(...compared(theirs, yours, "del"));
    part("yours").replaceChildren(...compared(theirs, yours, "ins"));
    return new Promise((resolve) => {
      const choose = (choice) => {
        dialog.removeEventListener("keydown", onKey);
        dialog.removeEventListener("cancel", onCancel);
        dialog.onclick = null;
        dialog.close();
        resolve(choice);
      };
      const onKey = (event) => {
        const { name } = commandOf(event) ?? {};
        if ((name === "theirs" || name === "yours") && this.seen.answers(event)) choose(name);
      };
      const onCancel = (event) => {
        event.preventDefault();
        choose("later");
      };
      dialog.addEventListener("keydown", onKey);
      dialog.addEventListener("cancel", onCancel);
      dialog.onclick = (event) => {
        const button = event.target.closest("[data-choose]");
        if (button && this.seen.answers(event)) choose(button.dataset.choose);
      };
      dialog.showModal();
      this.seen.begin();
      // Not on a button: Enter would answer.
      part("title").focus();
    });
  }

  #lines(form, state, value) {
    if (state === "rejected") return [say("rejected")];
    if (state !== "approved") return [say("notYet")];
    const lines = form.lines(value);
    return lines.length && lines.some(Boolean) ? lines : [say("empty")];
  }
}

// One side of a comparison: its lines, with what the other side does not have marked.
function compared(theirs, yours, kind) {
  if (theirs.length === 1 && yours.length === 1) {
    const parts = diff(theirs[0], yours[0]).filter(([part]) => part === "same" || part === kind);
    return [make("p", {}, ...parts.map(([part, text]) => (part === "same" ? text : make(part, {}, text))))];
  }
  const [mine, others] = kind === "del" ? [theirs, yours] : [yours, theirs];
  return mine.map((line) => make("p", {}, others.includes(line) ? line : make(kind, {}, line)));
}
