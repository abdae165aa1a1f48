// One of the labels: radio buttons, chosen by their number.
export function mount(element, schema, value, onChange) {
  const inputs = [...element.querySelectorAll("input")];

  element.addEventListener("change", () => onChange());

  const widget = {
    value: () => inputs.find((input) => input.checked)?.value ?? null,
    setValue(next) {
      for (const input of inputs) input.checked = input.value === next;
    },
    suggest(next) {
      for (const input of inputs) input.parentElement.classList.toggle("was-suggested", input.value === next);
    },
    focus: () => (inputs.find((input) => input.checked) ?? inputs[0])?.focus(),
    onDigit(n) {
      const input = inputs[n === 0 ? 9 : n - 1];
      if (!input) return false;
      input.checked = true;
      onChange();
      return true;
    },
    problem: () => (widget.value() === null ? { name: "choose" } : null),
  };
  widget.setValue(value);
  return widget;
}
