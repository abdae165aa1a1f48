// Free text, with what was changed of the suggestion and how long it is. Sentences of the record are taken over by a key.
import { showDiff } from "../diff.js";

const sentences = typeof Intl.Segmenter === "function" ? new Intl.Segmenter(undefined, { granularity: "sentence" }) : null;

export function mount(element, schema, value, onChange, { pane }) {
  const area = element.querySelector("textarea");
  const changes = element.querySelector("[data-diff]");
  const length = element.querySelector("[data-length]");
  let suggestion = null;
  let takenOut = "";

  // As the server counts: code points, without white space around.
  const count = () => [...area.value.trim()].length;

  function show() {
    const n = count();
    length.textContent = `${n} / ${schema.maximum}`;
    length.classList.toggle("bad", n > schema.maximum || (n > 0 && n < schema.minimum));
    if (suggestion) showDiff(changes, suggestion, area.value.trim());
    else changes.replaceChildren();
  }

  function put(words) {
    area.value = words;
    show();
    onChange();
  }

  // What is selected in the field, or the sentence at its cursor, as UTF-16 units.
  function inHand() {
    const { value: words, selectionStart: start, selectionEnd: end } = area;
    if (start < end) return [start, end];
    const found = sentences?.segment(words).containing(Math.min(start, words.length - 1));
    return found ? [found.index, found.index + found.segment.length] : [0, words.length];
  }

  area.addEventListener("input", () => put(area.value));

  const widget = {
    value: () => area.value.trim(),
    setValue(next) {
      area.value = next ?? "";
      takenOut = "";
      show();
    },
    // Behind what stands there.
    add: (words) => put([area.value.trim(), words].filter(Boolean).join(" ")),
    // Take the sentence at the cursor out; returns it.
    cut() {
      const [start, end] = inHand();
      const words = area.value.slice(start, end).trim();
      if (words) put([area.value.slice(0, start).trim(), area.value.slice(end).trim()].filter(Boolean).join(" "));
      return words;
    },
    // Take all out; once more puts it back.
    empty() {
      const words = area.value.trim();
      if (words || takenOut) put(words ? "" : takenOut);
      takenOut = words;
    },
    onCommand(name) {
      if (name === "up" || name === "down") pane.walk(name === "down" ? 1 : -1);
      else if (name === "mark" && pane.sentence) widget.add(pane.sentence);
      else if (name === "escape" && pane.sentence) pane.walk(0);
      else if (name === "delete") widget.empty();
      else return false;
      return true;
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
