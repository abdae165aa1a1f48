// A day: its eight digits, or days on and back by the arrows.
import { mountTyped } from "../typed.js";

const ISO = /^\d{4}-\d{2}-\d{2}$/;
const DAY = 86400000;

// The day of a text, or null: the 30th of February has none.
function dayOf(text) {
  const day = ISO.test(text) ? new Date(`${text}T00:00:00Z`) : null;
  return day && !Number.isNaN(day.getTime()) && textOf(day) === text ? day : null;
}

const textOf = (day) => day.toISOString().slice(0, 10);

export function mount(element, schema, value, onChange, context) {
  const widget = mountTyped(element, schema, onChange, context, {
    missing: "typeDate",
    words: (day) => day,
    read: (text) => (dayOf(text) ? { value: text } : { problem: { name: "notDate" } }),
    typed(text, key) {
      const digits = (text + key).replace(/\D/g, "");
      if (!/^\d$/.test(key ?? "") || digits.length > 8) return undefined;
      return [digits.slice(0, 4), digits.slice(4, 6), digits.slice(6)].filter(Boolean).join("-");
    },
    moved: (day, steps) => textOf(new Date(dayOf(day).getTime() + steps * DAY)),
  });
  widget.setValue(value);
  return widget;
}
