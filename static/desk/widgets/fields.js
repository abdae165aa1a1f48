// Named parts, each with a widget of its own. The digits go to the part that has the focus, else to the first.
import { titleOf } from "../words.js";

export function mount(element, schema, value, onChange, context) {
  const parts = [...element.querySelectorAll(":scope > .part")].map((section) => {
    const name = section.dataset.part;
    const inner = section.querySelector("[data-widget]");
    const part = { name, section, schema: schema.parts[name], suggested: null };
    part.widget = context.mount(inner, part.schema, null, () => {
      section.classList.remove("is-suggested");
      onChange();
    }, context);
    return part;
  });
  const active = () => parts.find((part) => part.section.contains(document.activeElement)) ?? parts[0];

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
      }
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
    focus: () => active()?.widget.focus(),
    onDigit: (n) => active()?.widget.onDigit?.(n) ?? false,
    onCommand: (name, shift) => active()?.widget.onCommand?.(name, shift) ?? false,
    problem() {
      for (const part of parts) {
        const problem = part.widget.problem();
        if (problem) return { ...problem, part: part.section.querySelector("h2").textContent };
      }
      return null;
    },
  };
  widget.setValue(value);
  return widget;
}
