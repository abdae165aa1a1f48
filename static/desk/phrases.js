// Phrases marked in the text, with or without labels: what the widgets of keywords and spans have in common.
import { onEnter } from "./keys.js";
import { codePointAt, tidy, wordsOf } from "./offsets.js";
import { make, say, titleOf } from "./words.js";

export function mountPhrases(element, schema, value, onChange, context) {
  const { pane, complain } = context;
  const list = element.querySelector(".phrases");
  const field = element.querySelector('.adding input[type="text"]');
  const byHand = element.querySelector("[data-mark-selection]");
  const choices = [...element.querySelectorAll('.picks input[type="radio"]')];
  const colors = Object.fromEntries((schema.labels ?? []).map((label) => [label.name, label.color]));
  const titles = Object.fromEntries((schema.labels ?? []).map((label) => [label.name, label.title?.[context.language] || label.name]));
  const longest = Number(element.dataset.longest) || 10000;
  // Phrases that were taken out stay as ghosts with their number, so that the same key puts them back.
  let items = [];
  let suggested = new Set();
  let words = [];
  let cursor = null;
  // The items of the marks that are drawn.
  let shown = [];

  const label = () => choices.find((input) => input.checked)?.value ?? null;
  const keyOf = (item) => `${item.label ?? ""}/${item.start}/${item.end}`;
  const standing = () => items.filter((item) => !item.gone);
  const order = (a, b) => a.start - b.start || a.end - b.end;

  function draw() {
    list.replaceChildren(...items.map(chip));
    const marks = standing().map((item) => ({
      start: item.start, end: item.end, color: item.label ? colors[item.label] : undefined, item,
    }));
    shown = marks.map((mark) => mark.item);
    if (cursor) marks.push({ ...cursorRange(), kind: "cursor" });
    drawMarks(marks);
  }

  function chip(item, n) {
    const number = choices.length || n > 8 ? [] : [make("kbd", {}, String(n + 1))];
    const kind = item.label ? [make("small", {}, titles[item.label] ?? item.label)] : [];
    const button = make(
      "button",
      { type: "button", title: say(item.gone ? "restore" : "remove") },
      ...number, make("span", { class: "title" }, item.text), ...kind, make("span", { class: "cross" }, item.gone ? "+" : "×"),
    );
    if (item.label && colors[item.label]) button.style.setProperty("--label", colors[item.label]);
    button.classList.toggle("gone", Boolean(item.gone));
    button.classList.toggle("was-suggested", suggested.has(keyOf(item)));
    button.addEventListener("click", () => switchItem(item));
    return make("li", {}, button);
  }

  function changed() {
    items.sort(order);
    draw();
    onChange();
  }

  function overlapping(range, name) {
    return standing().filter((item) => item.start < range.end && range.start < item.end && (item.label ?? null) === name);
  }

  function switchItem(item) {
    if (item.gone) {
      // What overlaps it gives way, as for a new phrase.
      for (const other of overlapping(item, item.label ?? null)) other.gone = true;
      item.gone = false;
    } else item.gone = true;
    changed();
  }

  // Mark a range of code points. It takes the place of what it overlaps (of the same label). Returns why it cannot be, or null.
  function mark(range, name) {
    const text = pane.slice(range.start, range.end);
    if (range.end - range.start > longest) return { name: "tooLongPhrase", values: { n: longest } };
    const crossed = overlapping(range, name);
    if (schema.maximum && standing().length - crossed.length >= schema.maximum) return { name: "tooMany", values: { n: schema.maximum } };
    items = items.filter((item) => !crossed.includes(item) && keyOf(item) !== keyOf({ ...range, label: name }));
    items.push({ ...(name ? { label: name } : {}), text, start: range.start, end: range.end });
    if (cursor) cursor.anchor = cursor.head = Math.max(cursor.anchor, cursor.head);
    changed();
    return null;
  }

  const tell = (problem) => problem && complain(say(problem.name, problem.values));
  const add = (range) => tell(mark(range, label()));
  const typedText = () => field.value.normalize("NFC").trim();

  // Mark the first place of the typed phrase that is free. Returns why it cannot be, or null.
  function markTyped() {
    const typed = typedText();
    const name = label();
    let from = pane.text.indexOf(typed);
    while (from >= 0) {
      const range = { start: codePointAt(pane.at, from), end: codePointAt(pane.at, from + typed.length) };
      if (!overlapping(range, name).length) {
        const problem = mark(range, name);
        if (!problem) field.value = "";
        return problem;
      }
      from = pane.text.indexOf(typed, from + 1);
    }
    return { name: "notVerbatim" };
  }

  function cursorRange() {
    const [from, to] = [Math.min(cursor.anchor, cursor.head), Math.max(cursor.anchor, cursor.head)];
    const [start, end] = tidy(pane.text, words[from][0], words[to][1]);
    return { start: codePointAt(pane.at, start), end: codePointAt(pane.at, end) };
  }

  function move(step, grow) {
    if (!words.length) return;
    const last = words.length - 1;
    if (!cursor) cursor = { anchor: step > 0 ? 0 : last, head: step > 0 ? 0 : last };
    else {
      const head = Math.min(Math.max(cursor.head + step, 0), last);
      cursor = { anchor: grow ? cursor.anchor : head, head };
    }
    draw();
    pane.element.querySelector(".cursor")?.scrollIntoView({ block: "nearest" });
  }

  // Mark what the cursor holds, or take away the mark that is exactly there.
  function markCursor() {
    const range = cursorRange();
    const same = standing().find((item) => item.start === range.start && item.end === range.end && (item.label ?? null) === label());
    if (same) switchItem(same);
    else add(range);
  }

  onEnter(field, (event) => {
    if (typedText()) tell(markTyped());
    else context.approve(event);
  });
  byHand.addEventListener("click", () => {
    const range = pane.selection();
    getSelection().removeAllRanges();
    if (range) add(range);
  });
  // A press on the button must not collapse the selection that it is about.
  byHand.addEventListener("pointerdown", (event) => event.preventDefault());
  for (const input of choices) input.addEventListener("change", (event) => event.stopPropagation());
  const drawMarks = pane.join(element, {
    onSelect: (range) => add(range),
    onMark: (n) => shown[n] && switchItem(shown[n]),
    onSelection: (range) => (byHand.hidden = !range),
  });

  const widget = {
    value: () => standing().map(({ gone, ...item }) => item),
    lines: (phrases) => phrases.map(({ text, label: name }) => (name ? `${text} [${titleOf(schema, name, context.language)}]` : text)),
    setValue(next) {
      items = (next ?? []).map((item) => ({ ...item })).sort(order);
      words = wordsOf(pane.text);
      cursor = null;
      field.value = "";
      draw();
    },
    suggest(next) {
      suggested = new Set((next ?? []).map(keyOf));
      draw();
    },
    focus: () => field.focus(),
    onDigit(n) {
      const index = n === 0 ? 9 : n - 1;
      if (choices.length) {
        if (!choices[index]) return false;
        choices[index].checked = true;
        if (cursor) add(cursorRange());
        return true;
      }
      if (!items[index]) return false;
      switchItem(items[index]);
      return true;
    },
    onCommand(name, shift) {
      if (name === "left" || name === "right") move(name === "right" ? 1 : -1, shift);
      else if (name === "mark" && cursor) markCursor();
      else if (name === "delete" && cursor) {
        const { start, end } = cursorRange();
        for (const item of standing()) if (item.start < end && start < item.end) item.gone = true;
        changed();
      } else if (name === "escape" && cursor) {
        cursor = null;
        draw();
      } else return false;
      return true;
    },
    // A phrase that was typed and not added yet is meant to be one.
    problem: () => (typedText() ? markTyped() : null),
  };
  widget.setValue(value);
  return widget;
}
