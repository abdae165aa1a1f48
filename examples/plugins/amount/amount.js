export function mount(element, schema, value, onChange) {
  const [number, unit] = element.querySelectorAll("input, select");
  element.addEventListener("input", () => onChange());
  const widget = {
    value: () => (number.value === "" ? null : { number: Number(number.value), unit: unit.value }),
    setValue(next) {
      number.value = next?.number ?? "";
      unit.value = next?.unit ?? "g";
    },
    problem: () => (widget.value() === null ? { name: "typeNumber" } : null),
    focus: () => number.focus(),
    onDigit(n) {
      number.value += n;
      onChange();
      return true;
    },
  };
  widget.setValue(value);
  return widget;
}
