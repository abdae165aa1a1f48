// A number: its digits, the point and the minus sign, or steps up and down by the arrows.
import { mountTyped } from "../typed.js";

const NUMBER = /^[-+]?\d+(\.\d+)?$/;
// What is left of a sum of decimals in binary.
const NEAR = 1e-9;

export function mount(element, schema, value, onChange, context) {
  const { minimum, maximum, step, unit } = schema;

  const isStep = (number) => {
    const steps = (number - (minimum ?? 0)) / step;
    return Math.abs(steps - Math.round(steps)) < NEAR * Math.max(1, Math.abs(steps));
  };

  const widget = mountTyped(element, schema, onChange, context, {
    missing: "typeNumber",
    words: (number) => `${number} ${unit}`.trim(),
    read(text) {
      if (!NUMBER.test(text)) return { problem: { name: "notNumber" } };
      const number = Number(text);
      if (minimum !== null && number < minimum) return { problem: { name: "lowNumber", values: { n: minimum } } };
      if (maximum !== null && number > maximum) return { problem: { name: "highNumber", values: { n: maximum } } };
      if (step !== null && !isStep(number)) return { problem: { name: "stepNumber", values: { n: step } } };
      return { value: number };
    },
    typed(text, key) {
      if (key === "-") return text.startsWith("-") ? text.slice(1) : `-${text}`;
      if (key === undefined || (key === "." && text.includes("."))) return undefined;
      return key === "." && !/\d$/.test(text) ? `${text}0.` : text + key;
    },
    moved(number, steps) {
      const next = Number((number + steps * (step ?? 1)).toFixed(9));
      return Math.min(Math.max(next, minimum ?? -Infinity), maximum ?? Infinity);
    },
  });
  widget.setValue(value);
  return widget;
}
