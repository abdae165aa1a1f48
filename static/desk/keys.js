// Which command a key press is. Only the physical key counts (event.code): with a Hangul input method on, event.key
// is a jamo or "Process", keyCode is 229, and isComposing may be true although no text field has the focus.
import { takesText } from "./words.js";

const COMMANDS = {
  Enter: "approve", NumpadEnter: "approve", Space: "skip", KeyX: "reject", Backspace: "undo", KeyE: "edit", KeyF: "note", KeyG: "guide",
  KeyS: "second", KeyV: "ballot", KeyA: "mark", Delete: "delete", Escape: "escape", ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up",
  ArrowDown: "down", Home: "home", End: "end", Period: "point", NumpadDecimal: "point", Minus: "minus", NumpadSubtract: "minus",
};
// What a key that is held down may do again; a decision never.
const REPEATS = new Set(["left", "right", "up", "down", "home", "end"]);
// The places that have a key of their own: the digits, Shift with a digit, Shift with a letter. The template shows them.
const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const DIGITS = 10;

// Whether a press belongs to the input method: Enter that ends a syllable, an arrow among its candidates. Safari has
// ended the syllable by then, and only keyCode tells.
export function composes(event) {
  return event.isComposing || event.keyCode === 229;
}

export function isEnter({ code }) {
  return code === "Enter" || code === "NumpadEnter";
}

// Call `work(event)` at Enter in a field of one line.
export function onEnter(field, work) {
  field.addEventListener("keydown", (event) => {
    if (composes(event) || event.ctrlKey || event.metaKey || !isEnter(event)) return;
    event.preventDefault();
    event.stopPropagation();
    if (!event.repeat) work(event);
  });
}

function digitOf(code) {
  const match = /^(?:Digit|Numpad)(\d)$/.exec(code);
  return match ? Number(match[1]) : null;
}

// The place that a key stands for: 0 to 9 by a digit, 10 to 19 with Shift, from 20 on by Shift and a letter; or null.
function slotOf(code, shift) {
  const digit = digitOf(code);
  if (digit !== null) return ((digit + 9) % DIGITS) + (shift ? DIGITS : 0);
  const letter = shift ? LETTERS.indexOf(/^Key(\w)$/.exec(code)?.[1] ?? "-") : -1;
  return letter < 0 ? null : 2 * DIGITS + letter;
}

// What the key of a place is called; empty for one without.
export function slotName(slot) {
  if (slot < 0) return "";
  if (slot < 2 * DIGITS) return `${slot < DIGITS ? "" : "⇧"}${(slot + 1) % DIGITS}`;
  const letter = LETTERS[slot - 2 * DIGITS];
  return letter ? `⇧${letter}` : "";
}

// Write on every key of a place what it is called.
export function nameSlots(root) {
  for (const key of root.querySelectorAll("kbd[data-nth]")) key.textContent = slotName(Number(key.dataset.nth));
}

// Returns {name, digit, slot, shift} or null if the key belongs to the browser, to the input method, or to a field.
export function commandOf(event) {
  const { code, shiftKey: shift } = event;
  if (event.altKey) return null;
  const target = event.target;
  if (event.ctrlKey || event.metaKey) {
    // While a syllable is being composed, Enter ends it; the same press comes again without isComposing.
    const enter = isEnter(event) && !(takesText(target) && event.isComposing);
    return enter && !event.repeat ? { name: "approve", shift } : null;
  }
  if (takesText(target)) {
    if (composes(event) || event.repeat) return null;
    // In a field of the form that is empty a new line says nothing: this is the key that approves it so.
    if (shift && isEnter(event) && target.closest("[data-form]")) return { name: "empty", shift };
    return code === "Escape" ? { name: "escape", shift } : null;
  }
  const name = commandName(code, shift);
  if (name === null) return null;
  if (event.repeat && !REPEATS.has(name)) return { name: "nothing", shift };
  // A button or link reached with Tab answers to Enter and Space itself, a radio button or check box to Space.
  if (name === "approve" && reached(target, "button, a, summary")) return null;
  if (name === "skip" && reached(target, "button, a, summary, input")) return null;
  return { name, digit: digitOf(code), slot: slotOf(code, shift), shift };
}

function commandName(code, shift) {
  if (code === "Slash" || code === "NumpadDivide") return shift ? "keys" : "filter";
  if (slotOf(code, shift) !== null) return "digit";
  return COMMANDS[code] ?? null;
}

// Whether the focus was moved with Tab. A dialog that Escape closed leaves it on a button as well, where nobody put it.
let tabbed = false;
addEventListener("keydown", (event) => {
  if (event.code === "Tab") tabbed = true;
  else if (event.code === "Escape") tabbed = false;
}, true);
addEventListener("pointerdown", () => { tabbed = false; }, true);

function reached(target, kinds) {
  return tabbed && target instanceof Element && target.matches(kinds) && target.matches(":focus-visible");
}
