// Free text, with what was changed of the suggestion and how long it is.
import { showDiff } from "../diff.js";

export function mount(element, schema, value, onChange) {
  const area = element.querySelector("textarea");
  const changes = element.querySelector("[data-diff]");
  const length = element.querySelector("[data-length]");
  let suggestion = null;

  // As the server counts: code points, without white space around.
  const count = () => [...area.value.trim()].length;

  function show() {
    const n = count();
    length.textContent = `${n} / ${schema.maximum}`;
    length.classList.toggle("bad", n > schema.maximum || (n > 0 && n < schema.minimum));
    if (suggestion) showDiff(changes, suggestion, area.value.trim());
    else changes.replaceChildren();
  }

  area.addEventListener("input", () => {
    show();
    onChange();
  });

  const widget = {
    value: () => area.value.trim(),
    setValue(next) {
      area.value = next ?? "";
      show();
    },
    suggest(next) {
      suggestion = next ?? null;
      show();
    },
    focus() {
      area.focus();
      area.setSelectionRange(area.value.length, area.value.length);
    },
    problem() {
      const n = count();
      if (n > schema.maximum) return { name: "long", values: { n: n - schema.maximum } };
      return n < schema.minimum ? { name: "short", values: { n: schema.minimum - n } } : null;
    },
  };
  widget.setValue(value);
  return widget;
}
