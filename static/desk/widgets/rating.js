// A number on a scale: the digit is the number. On a scale to ten, 0 is ten.
export function mount(element, schema, value, onChange) {
  const inputs = [...element.querySelectorAll("input")];

  element.addEventListener("change", () => onChange());

  const widget = {
    whole: true,
    value() {
      const input = inputs.find((other) => other.checked);
      return input ? Number(input.value) : schema.optional ? "" : null;
    },
    setValue(next) {
      for (const input of inputs) input.checked = Number(input.value) === next;
    },
    suggest(next) {
      for (const input of inputs) input.parentElement.classList.toggle("was-suggested", Number(input.value) === next);
    },
    focus: () => (inputs.find((input) => input.checked) ?? inputs[0])?.focus(),
    onDigit(n) {
      const wanted = n === 0 && schema.low > 0 ? 10 : n;
      const input = inputs.find((other) => Number(other.value) === wanted);
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
    problem: () => (widget.value() === null ? { name: "chooseNumber" } : null),
  };
  widget.setValue(value);
  return widget;
}
