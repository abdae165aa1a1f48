// Phrases marked in the text, with or without labels: what the widgets of keywords and spans have in common.
import { onEnter, slotName } from "./keys.js";
import { codePointAt, tidy, wordsOf } from "./offsets.js";
import { make, say, titleOf } from "./words.js";

const MOVES = ["left", "right", "up", "down", "home", "end"];

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
  // The words of the text, in code points, and what a key marks or takes out: suggested phrases, and the words beside.
  let words = [];
  let slots = [];
  // Where the word cursor stands: numbers of words, and the phrase that it grows, if one was marked just now.
  let cursor = null;
  // The items of the marks that are drawn.
  let shown = [];

  const label = () => choices.find((input) => input.checked)?.value ?? null;
  const keyOf = (item) => `${item.label ?? ""}/${item.start}/${item.end}`;
  const standing = () => items.filter((item) => !item.gone);
  const order = (a, b) => a.start - b.start || a.end - b.end;
  const meet = (a, b) => a.start < b.end && b.start < a.end;
  const slotAt = (range) => slots.findIndex((slot) => meet(slot, range));

  function draw() {
    list.replaceChildren(...items.map(chip));
    const marks = standing().map((item) => ({
      start: item.start, end: item.end, color: item.label ? colors[item.label] : undefined, item, key: slotName(slotAt(item)),
    }));
    shown = marks.map((mark) => mark.item);
    slots.forEach((slot, n) => {
      if (!standing().some((item) => meet(item, slot))) marks.push({ ...slot, kind: "candidate", key: slotName(n) });
    });
    if (cursor) marks.push({ ...cursorRange(), kind: "cursor" });
    drawMarks(marks);
  }

  function chip(item) {
    const number = [make("kbd", {}, slotName(slotAt(item)))];
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
    return standing().filter((item) => meet(item, range) && (item.label ?? null) === name);
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

  function wordsIn(text) {
    return wordsOf(text).map(([from, to]) => {
      const [start, end] = tidy(text, from, to);
      return { start: codePointAt(pane.at, start), end: codePointAt(pane.at, end) };
    });
  }

  function cursorRange() {
    const [from, to] = [Math.min(cursor.anchor, cursor.head), Math.max(cursor.anchor, cursor.head)];
    return { start: words[from].start, end: words[to].end };
  }

  // The word that a key leads to from the word `head`; -1 and the number of words stand for no cursor yet.
  function target(name, head) {
    const last = words.length - 1;
    const openings = pane.sentences.map(({ start }) => words.findIndex((word) => word.end > start)).filter((n) => n >= 0);
    const to = {
      left: head - 1, right: head + 1, home: 0, end: last,
      up: openings.findLast((n) => n < head) ?? 0, down: openings.find((n) => n > head) ?? last,
    }[name];
    return Math.min(Math.max(to, 0), last);
  }

  function move(name, grow) {
    if (!words.length) return;
    const from = cursor?.head ?? (name === "left" || name === "up" ? words.length : -1);
    const head = target(name, from);
    const growing = grow && cursor;
    cursor = { anchor: growing ? cursor.anchor : head, head, phrase: growing ? cursor.phrase : null };
    if (cursor.phrase) growPhrase();
    else draw();
    pane.element.querySelector(".cursor")?.scrollIntoView({ block: "nearest" });
  }

  // What the cursor holds takes the place of the phrase that was marked just now.
  function growPhrase() {
    const { phrase } = cursor;
    items = items.filter((item) => item !== phrase);
    const problem = mark(cursorRange(), null);
    if (problem) items.push(phrase);
    tell(problem);
    cursor.phrase = problem ? phrase : phraseAt(cursorRange());
    if (problem) changed();
  }

  const phraseAt = (range) => standing().find((item) => item.start === range.start && item.end === range.end && (item.label ?? null) === label());

  // Mark what the cursor holds, or take away the mark that is exactly there.
  function markCursor() {
    const range = cursorRange();
    const same = phraseAt(range);
    if (same) switchItem(same);
    else add(range);
    cursor = { anchor: Math.max(cursor.anchor, cursor.head), head: Math.max(cursor.anchor, cursor.head), phrase: null };
    draw();
  }

  // The key of a place takes out what is marked there, puts it back, or marks it; then Shift and the arrows make it longer.
  function press(slot) {
    const crossed = overlapping(slot, null);
    const gone = items.find((item) => item.gone && meet(item, slot));
    if (crossed.length) {
      for (const item of crossed) item.gone = true;
      cursor = null;
      return changed();
    }
    if (gone) switchItem(gone);
    else add(slot);
    const phrase = overlapping(slot, null)[0];
    const held = phrase ? words.map((word, n) => (meet(word, phrase) ? n : -1)).filter((n) => n >= 0) : [];
    cursor = held.length ? { anchor: held[0], head: held.at(-1), phrase } : null;
    draw();
  }

  onEnter(field, (event, empty) => {
    if (typedText()) tell(markTyped());
    else context.approve(event, empty);
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
      words = wordsIn(pane.text);
      const beside = words.filter((word) => !items.some((item) => meet(item, word)));
      slots = choices.length ? [] : [...items.map(({ start, end }) => ({ start, end })), ...beside].sort(order);
      cursor = null;
      field.value = "";
      draw();
    },
    suggest(next) {
      suggested = new Set((next ?? []).map(keyOf));
      draw();
    },
    focus: () => field.focus(),
    onSlot(slot) {
      if (slots[slot]) press(slots[slot]);
      else if (choices[slot]) {
        choices[slot].checked = true;
        if (cursor) markCursor();
      } else return false;
      return true;
    },
    onCommand(name, shift) {
      if (MOVES.includes(name)) move(name, shift);
      else if (name === "mark" && cursor) markCursor();
      else if (name === "delete" && cursor) {
        const { start, end } = cursorRange();
        for (const item of standing()) if (meet(item, { start, end })) item.gone = true;
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
