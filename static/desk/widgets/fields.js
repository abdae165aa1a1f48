// Named parts, each with a widget of its own. The digits go to the part that was in hand last, at first to the first;
// where all parts are texts, which take no digits, they go to the parts.
import { composes } from "../keys.js";
import { takesText, titleOf } from "../words.js";

export function mount(element, schema, value, onChange, context) {
  const parts = [...element.querySelectorAll(":scope > .part")].map((section) => {
    const name = section.dataset.part;
    const inner = section.querySelector("[data-widget]");
    const part = { name, section, schema: schema.parts[name], suggested: null };
    part.widget = context.mount(inner, part.schema, null, () => {
      section.classList.remove("is-suggested");
      section.removeAttribute("aria-invalid");
      byHand.add(part);
      onChange();
    }, context);
    section.addEventListener("focusin", () => turnTo(part));
    return part;
  });
  element.style.setProperty("--parts", parts.length);
  const texts = parts.every((part) => part.widget.add);
  let active;
  // The parts that a hand has changed since the form was filled.
  const byHand = new Set();

  function turnTo(part) {
    active = part;
    for (const { section } of parts) section.classList.toggle("active", section === part.section);
  }

  // Where a digit is the whole value of a part, the next one is for the next part; Tab goes on from there, too.
  function goOn() {
    const next = parts[parts.indexOf(active) + 1];
    (next?.widget.whole ? next : active).widget.focus();
  }

  // A digit goes into a part, or puts the sentence in hand there; with Shift it empties the part.
  function reach(slot) {
    const part = parts[slot % 10];
    if (!part || slot >= 20) return false;
    turnTo(part);
    if (slot >= 10) part.widget.empty();
    else if (context.pane.sentence) part.widget.add(context.pane.sentence);
    else part.widget.focus();
    return true;
  }

  // Alt with an arrow takes the sentence at the cursor along into the part above or below.
  element.addEventListener("keydown", (event) => {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.code];
    const other = parts[parts.indexOf(active) + step];
    if (!event.altKey || !texts || !other || !takesText(event.target) || composes(event)) return;
    event.preventDefault();
    const sentence = active.widget.cut();
    if (sentence) other.widget.add(sentence);
    other.widget.focus();
  });

  const widget = {
    value() {
      const found = {};
      for (const part of parts) {
        const inner = part.widget.value();
        if (inner !== null && inner !== "" && !(Array.isArray(inner) && !inner.length)) found[part.name] = inner;
      }
      return found;
    },
    setValue(next) {
      byHand.clear();
      for (const part of parts) {
        part.widget.setValue(next?.[part.name] ?? null);
        part.section.classList.remove("is-suggested");
        part.section.removeAttribute("aria-invalid");
      }
      const inHand = element.contains(document.activeElement) ? document.activeElement : null;
      // Who is in a text field stays there; a button that was pressed last is of the record before.
      if (takesText(inHand)) return;
      inHand?.blur();
      turnTo(parts[0]);
    },
    lines: (whole) => Object.entries(whole).map(([name, inner]) => {
      const part = parts.find((other) => other.name === name);
      return `${titleOf(schema, name, context.language)}: ${context.lines(part?.widget ?? {}, inner).join(", ")}`;
    }),
    suggest(next) {
      for (const part of parts) part.widget.suggest?.(next ? (next[part.name] ?? null) : null);
    },
    // Each part turns solid by itself once it is touched.
    markSuggested(next) {
      for (const part of parts) part.section.classList.toggle("is-suggested", next?.[part.name] !== undefined);
    },
    // The part stays marked until it is changed.
    mark(name) {
      const wrong = parts.find((part) => part.name === name);
      if (!wrong) return;
      wrong.section.setAttribute("aria-invalid", "true");
      turnTo(wrong);
      wrong.widget.focus();
    },
    focus: () => active.widget.focus(),
    onSlot(slot) {
      if (texts) return reach(slot);
      const inner = active.widget;
      const used = (inner.onSlot ? inner.onSlot(slot) : slot < 20 && inner.onDigit?.((slot + 1) % 10)) ?? false;
      if (used && active.widget.whole) goOn();
      return used;
    },
    complete: () => parts.every((part) => byHand.has(part) && part.widget.complete?.()),
    onCommand: (name, shift) => active.widget.onCommand?.(name, shift) ?? false,
    problem() {
      for (const part of parts) {
        const problem = part.widget.problem();
        if (problem) return { ...problem, item: part.name, part: titleOf(schema, part.name, context.language) };
      }
      return null;
    },
  };
  widget.setValue(value);
  return widget;
}
