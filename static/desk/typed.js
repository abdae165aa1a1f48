// A value of one line: typed in the field, or digit by digit from the desk, where the hand does not leave the keys.
import { onEnter } from "./keys.js";
import { say } from "./words.js";

// `read` returns {value} or {problem} of a text, `typed` the text with one more key, `moved` the value some steps on.
export function mountTyped(element, schema, onChange, context, { read, typed, moved, words, missing }) {
  const field = element.querySelector("input");
  const hint = element.querySelector("[data-hint]");
  let suggestion = null;
  // The first key on a record begins a new value; the next ones go on with it.
  let fresh = true;

  const text = () => field.value.trim();
  const found = () => (text() ? read(text()) : schema.optional ? { value: "" } : { problem: { name: missing } });
  const value = () => found().value ?? null;

  function show() {
    const other = suggestion !== null && value() !== suggestion;
    hint.textContent = other ? `${say("suggested")}: ${suggestion === "" ? say("empty") : words(suggestion)}` : "";
  }

  // A key that the value has no place for changes nothing.
  function put(next) {
    if (next === undefined) return false;
    field.value = next;
    fresh = false;
    show();
    onChange();
    return true;
  }

  field.addEventListener("input", () => put(field.value));
  onEnter(field, (event, empty) => context.approve(event, empty));

  return {
    value,
    lines: (one) => [one === "" ? "" : words(one)],
    setValue(next) {
      field.value = next ?? "";
      fresh = true;
      show();
    },
    suggest(next) {
      suggestion = next;
      show();
    },
    focus() {
      field.focus();
      field.select();
    },
    onDigit: (n) => put(typed(fresh ? "" : field.value, String(n))),
    onCommand(name) {
      const now = value();
      if (name === "delete") return put("");
      if ((name === "up" || name === "down") && now !== null && now !== "") return put(String(moved(now, name === "up" ? 1 : -1)));
      return put(typed(fresh ? "" : field.value, { point: ".", minus: "-" }[name]));
    },
    problem: () => found().problem ?? null,
  };
}
