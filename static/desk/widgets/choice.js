// One of the labels: radio buttons, chosen by their number. Scores stand beside them in a place that is always there.
import { make, say, titleOf } from "../words.js";

export function mount(element, schema, value, onChange, { language }) {
  const inputs = [...element.querySelectorAll("input")];

  element.addEventListener("change", () => onChange());

  const widget = {
    whole: true,
    value: () => inputs.find((input) => input.checked)?.value ?? (schema.optional ? "" : null),
    lines: (label) => [titleOf(schema, label, language)],
    setValue(next) {
      for (const input of inputs) input.checked = input.value === next;
    },
    suggest(next) {
      for (const input of inputs) input.parentElement.classList.toggle("was-suggested", input.value === next);
    },
    score(scores, scale) {
      for (const input of inputs) {
        const place = input.parentElement.querySelector("[data-chance]");
        const score = scores?.[input.value];
        if (!place) continue;
        place.replaceChildren(...(typeof score === "number" ? [make("span", { class: "sr-only" }, `${say(scale)} `), score.toFixed(2)] : []));
        place.style.setProperty("--share", typeof score === "number" ? score : 0);
        place.classList.toggle("has", typeof score === "number");
      }
    },
    focus: () => (inputs.find((input) => input.checked) ?? inputs[0])?.focus(),
    // A digit with Shift is the same label, and approves it: from the eleventh on labels have letters.
    onSlot(slot) {
      const input = inputs[slot < 10 ? slot : slot - 10];
      if (!input) return false;
      input.checked = true;
      onChange();
      return true;
    },
    // What may be left out can be taken out again.
    onCommand(name) {
      if (name !== "delete" || !schema.optional) return false;
      widget.setValue(null);
      onChange();
      return true;
    },
    complete: () => inputs.some((input) => input.checked),
    problem: () => (widget.value() === null ? { name: "choose" } : null),
  };
  widget.setValue(value);
  return widget;
}
