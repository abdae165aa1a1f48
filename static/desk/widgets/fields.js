// Named parts, each with a widget of its own. The digits go to the part that was in hand last, at first to the first.
import { takesText, titleOf } from "../words.js";

export function mount(element, schema, value, onChange, context) {
  const parts = [...element.querySelectorAll(":scope > .part")].map((section) => {
    const name = section.dataset.part;
    const inner = section.querySelector("[data-widget]");
    const part = { name, section, schema: schema.parts[name], suggested: null };
    part.widget = context.mount(inner, part.schema, null, () => {
      section.classList.remove("is-suggested");
      section.removeAttribute("aria-invalid");
      onChange();
    }, context);
    section.addEventListener("focusin", () => turnTo(part));
    return part;
  });
  let active;

  function turnTo(part) {
    active = part;
    for (const { section } of parts) section.classList.toggle("active", section === part.section);
  }

  // Where a digit is the whole value of a part, the next one is for the next part; Tab goes on from there, too.
  function goOn() {
    const next = parts[parts.indexOf(active) + 1];
    (next?.widget.whole ? next : active).widget.focus();
  }

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
    onDigit(n) {
      const used = active.widget.onDigit?.(n) ?? false;
      if (used && active.widget.whole) goOn();
      return used;
    },
    onCommand: (name, shift) => active.widget.onCommand?.(name, shift) ?? false,
    problem() {
      for (const part of parts) {
        const problem = part.widget.problem();
        if (problem) return { ...problem, item: part.name, part: part.section.querySelector("h2").textContent };
      }
      return null;
    },
  };
  widget.setValue(value);
  return widget;
}
