// Which command a key press is. Only the physical key counts (event.code): with a Hangul input method on, event.key
// is a jamo or "Process", keyCode is 229, and isComposing may be true although no text field has the focus.
import { takesText } from "./words.js";

// What the page says of the keys of this person: the command of each press, the press of each place of a form, and what
// they are called.
const holder = document.getElementById("desk-keys");
const { commands = {}, slots = [], slotNames = [], names = {} } = holder ? JSON.parse(holder.dataset.keys) : {};
const places = new Map(slots.map((press, slot) => [press, slot]));
// What a key that is held down may do again; a decision never.
const REPEATS = new Set(["left", "right", "up", "down", "home", "end"]);
// Keys of the number pad that are another way to press the same.
const PAD = { Enter: "Enter", Decimal: "Period", Subtract: "Minus", Divide: "Slash", Equal: "Equal" };
const DIGITS = 10;

// How a press is written: Shift+KeyA. The place on the keyboard counts alone, a command key of a Mac as Ctrl.
export function pressOf({ code, ctrlKey, metaKey, altKey, shiftKey }) {
  const pad = /^Numpad(\w+)$/.exec(code)?.[1];
  const held = [(ctrlKey || metaKey) && "Ctrl", altKey && "Alt", shiftKey && "Shift"].filter(Boolean);
  return [...held, pad ? (PAD[pad] ?? `Digit${pad}`) : code].join("+");
}

// What the key of a command is called.
export function keyName(command) {
  return names[command] ?? "";
}

// Whether a press belongs to the input method: Enter that ends a syllable, an arrow among its candidates. Safari has
// ended the syllable by then, and only keyCode tells.
export function composes(event) {
  return event.isComposing || event.keyCode === 229;
}

export function isEnter({ code }) {
  return code === "Enter" || code === "NumpadEnter";
}

// Call `work(event, empty)` at Enter in a field of one line; `empty`: pressed as what approves an empty form.
export function onEnter(field, work) {
  field.addEventListener("keydown", (event) => {
    if (composes(event) || event.ctrlKey || event.metaKey || event.altKey || !isEnter(event)) return;
    event.preventDefault();
    event.stopPropagation();
    if (!event.repeat) work(event, commands[pressOf(event)] === "empty");
  });
}

// The place that a press stands for: 0 to 9 by a digit, 10 to 19 with Shift, or by a key of the person's own; or null.
function slotOf(press) {
  const [, shift, digit] = /^(Shift\+)?Digit(\d)$/.exec(press) ?? [];
  if (digit === undefined) return places.get(press) ?? null;
  return ((Number(digit) + DIGITS - 1) % DIGITS) + (shift ? DIGITS : 0);
}

// What the key of a place is called; empty for one without.
export function slotName(slot) {
  return slotNames[slot] ?? "";
}

// Write on every key of a place what it is called.
export function nameSlots(root) {
  for (const key of root.querySelectorAll("kbd[data-nth]")) key.textContent = slotName(Number(key.dataset.nth));
}

// Returns {name, digit, slot, shift} or null if the key belongs to the browser, to the input method, or to a field.
export function commandOf(event) {
  const { shiftKey: shift, target } = event;
  const press = pressOf(event);
  if (takesText(target)) return typingCommand(event, press);
  const slot = slotOf(press);
  const name = commands[press] ?? (press === "Escape" ? "escape" : slot === null ? null : "digit");
  if (name === null) return null;
  if (event.repeat && !REPEATS.has(name)) return { name: "nothing", shift };
  // A button or link reached with Tab answers to Enter and Space itself, a radio button or check box to Space.
  if (isEnter(event) && reached(target, "button, a, summary")) return null;
  if (event.code === "Space" && reached(target, "button, a, summary, input")) return null;
  return { name, digit: slot !== null && slot < 2 * DIGITS ? (slot + 1) % DIGITS : null, slot, shift };
}

// In a field only Escape and what is pressed with Enter can be commands: everything else is typed.
function typingCommand(event, press) {
  // While a syllable is being composed, Enter ends it; the same press comes again without isComposing.
  const held = event.ctrlKey || event.metaKey || event.altKey;
  if (event.repeat || (held ? event.isComposing : composes(event))) return null;
  if (press === "Escape") return { name: "escape" };
  const name = (isEnter(event) && commands[press]) || null;
  if (held) return name && { name, shift: event.shiftKey };
  // In a field of the form that is empty a new line says nothing: this is the key that approves it so.
  return name === "empty" && event.target.closest("[data-form]") ? { name, shift: true } : null;
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
