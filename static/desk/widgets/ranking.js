// An order of items: each press puts the next item in its place. What is left last takes the last place by itself.
import { say, titleOf } from "../words.js";

export function mount(element, schema, value, onChange, { language }) {
  const inputs = [...element.querySelectorAll("input")];
  const hint = element.querySelector("[data-hint]");
  let order = [];
  let suggestion = null;

  const complete = () => order.length === inputs.length;
  const words = (names) => names.map((name) => titleOf(schema, name, language)).join(" > ");

  function show() {
    for (const input of inputs) {
      const place = order.indexOf(input.value);
      input.checked = place !== -1;
      input.parentElement.querySelector("[data-place]").textContent = place === -1 ? "" : String(place + 1);
    }
    const other = suggestion?.length && suggestion.join() !== order.join();
    hint.textContent = [words(order), other ? `(${say("suggested")}: ${words(suggestion)})` : ""].filter(Boolean).join(" ");
  }

  // Over a whole order a press begins a new one; an item that has its place already is taken out.
  function press(name) {
    if (complete()) order = [name];
    else if (order.includes(name)) order = order.filter((other) => other !== name);
    else order = [...order, name];
    if (order.length === inputs.length - 1) order.push(inputs.find((input) => !order.includes(input.value)).value);
    show();
    onChange();
  }

  element.addEventListener("change", (event) => press(event.target.value));

  const widget = {
    value: () => (complete() ? [...order] : schema.optional && !order.length ? "" : null),
    lines: (names) => (names === "" ? [""] : names.map((name, n) => `${n + 1}. ${titleOf(schema, name, language)}`)),
    setValue(next) {
      order = [...(next ?? [])];
      show();
    },
    suggest(next) {
      suggestion = next;
      show();
    },
    focus: () => inputs[0].focus(),
    onSlot(slot) {
      const input = inputs[slot];
      if (input) press(input.value);
      return input !== undefined;
    },
    onCommand(name) {
      if (name !== "delete") return false;
      order = [];
      show();
      onChange();
      return true;
    },
    complete,
    problem: () => (widget.value() === null ? { name: "rankAll" } : null),
  };
  widget.setValue(value);
  return widget;
}
