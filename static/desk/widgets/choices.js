// A set of labels: chips that keys toggle. In a tree a digit opens a category and the next chooses in it.
import { initials, spread } from "../hangul.js";
import { composes, onEnter } from "../keys.js";
import { say, titleOf } from "../words.js";

export function mount(element, schema, value, onChange, context) {
  const inputs = [...element.querySelectorAll('input[type="checkbox"]')];
  const groups = [...element.querySelectorAll(".group")].map((group) => ({
    element: group, inputs: [...group.querySelectorAll('input[type="checkbox"]')],
  }));
  // The label of each key: the order in which they stand is another one.
  const byKey = new Map(inputs.map((input) => [Number(input.parentElement.querySelector("kbd").dataset.nth), input]));
  const filter = element.querySelector('.filter input[type="search"]');
  const bounds = element.querySelector("[data-bounds]");
  let open = null;
  let found = [];
  let at = 0;

  const chosen = () => inputs.filter((input) => input.checked);
  const openGroup = (group) => {
    open = group;
    element.classList.toggle("is-open", group !== null);
    for (const other of groups) other.element.classList.toggle("open", other === group);
  };
  const showBounds = () => {
    if (bounds) bounds.textContent = schema.maximum ? `${chosen().length} / ${schema.maximum}` : chosen().length ? String(chosen().length) : "";
  };

  // Keeps the rules after `input` was switched; what is switched on last wins.
  function settle(input) {
    if (input.checked && schema.exclusive) {
      for (const other of inputs) {
        if (other !== input && (input.value === schema.exclusive || other.value === schema.exclusive)) other.checked = false;
      }
    }
    if (input.checked && schema.maximum && chosen().length > schema.maximum) {
      if (schema.maximum === 1) for (const other of inputs) other.checked = other === input;
      else {
        input.checked = false;
        context.complain(say("atMost", { n: schema.maximum }));
        return;
      }
    }
    showBounds();
    onChange();
  }

  function toggle(input) {
    input.checked = !input.checked;
    settle(input);
    input.parentElement.scrollIntoView({ block: "nearest" });
  }

  const namesOf = (input) => [input.parentElement.querySelector(".title").textContent, input.value].map((name) => name.toLowerCase());

  function search() {
    const words = filter.value.trim().toLowerCase();
    const first = spread(words);
    found = [];
    for (const input of inputs) {
      const option = input.parentElement;
      const shown = `${option.textContent} ${input.value} ${option.title}`.toLowerCase();
      const hit = !words || shown.includes(words) || namesOf(input).some((name) => initials(name).includes(first));
      option.classList.toggle("dim", !hit);
      if (words && hit) found.push(input);
    }
    // Those whose name begins with the words come first.
    const begins = (input) => (namesOf(input).some((name) => name.startsWith(words) || initials(name).startsWith(first)) ? 0 : 1);
    found.sort((a, b) => begins(a) - begins(b));
    at = 0;
    aim();
  }

  function aim() {
    for (const input of inputs) input.parentElement.classList.toggle("aimed", input === found[at]);
    found[at]?.parentElement.scrollIntoView({ block: "nearest" });
  }

  element.addEventListener("change", (event) => {
    if (inputs.includes(event.target)) settle(event.target);
  });
  filter?.addEventListener("input", search);
  filter?.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.code];
    if (!step || !found.length || composes(event) || event.ctrlKey || event.metaKey) return;
    at = (at + step + found.length) % found.length;
    aim();
    event.preventDefault();
  });
  if (filter) onEnter(filter, (event, empty) => {
    if (found[at]) {
      toggle(found[at]);
      filter.value = "";
      search();
    } else if (!filter.value) context.approve(event, empty);
  });

  const widget = {
    value: () => chosen().map((input) => input.value),
    lines: (labels) => labels.map((label) => titleOf(schema, label, context.language)),
    setValue(next) {
      const names = new Set(next ?? []);
      for (const input of inputs) input.checked = names.has(input.value);
      openGroup(null);
      showBounds();
      if (filter?.value) {
        filter.value = "";
        search();
      }
    },
    suggest(next) {
      const names = new Set(next ?? []);
      for (const input of inputs) input.parentElement.classList.toggle("was-suggested", names.has(input.value));
    },
    focus: () => (filter ?? inputs[0])?.focus(),
    onSlot(slot) {
      if (groups.length && open === null) {
        const group = groups[slot];
        if (!group) return false;
        if (group.inputs.length === 1) toggle(group.inputs[0]);
        else openGroup(group);
        return true;
      }
      const input = open ? open.inputs[slot] : byKey.get(slot);
      if (!input) return false;
      toggle(input);
      openGroup(null);
      return true;
    },
    onCommand(name) {
      if (name === "filter" && filter) filter.focus();
      else if (name === "delete" && chosen().length) {
        widget.setValue(null);
        onChange();
      }
      else if (name === "escape" && open) openGroup(null);
      else return false;
      return true;
    },
    // Where no more may be chosen nothing follows; otherwise one more might.
    complete: () => Boolean(schema.maximum) && chosen().length === schema.maximum,
    problem() {
      const n = chosen().length;
      if (n < schema.minimum) return { name: "atLeast", values: { n: schema.minimum } };
      return schema.maximum && n > schema.maximum ? { name: "atMost", values: { n: schema.maximum } } : null;
    },
  };
  widget.setValue(value);
  return widget;
}
