// The table of records: completion in the search field, and rows by keyboard. Without it the page works all the same.

const field = document.querySelector("[data-typing]");
if (field) completing(field, JSON.parse(field.dataset.typing).fields);
for (const table of document.querySelectorAll("table.records")) walking(table);
const act = document.getElementById("act");
if (act) choosing(act, document.querySelector("table.records"));

// The term that the cursor stands in: where it begins, its field and what of the value is typed.
function termAt(text, cursor) {
  const before = text.slice(0, cursor);
  const open = (before.match(/"/g) || []).length % 2 === 1;
  const start = open ? before.lastIndexOf('"') : before.search(/[^\s]*$/);
  const term = open ? before.slice(before.slice(0, start).search(/[^\s]*$/)) : before.slice(start);
  const begins = cursor - term.length;
  const minus = term.startsWith("-") ? 1 : 0;
  const found = term.slice(minus).match(/^([^\s":<>=]+)(<=|>=|<|>|:|=)(.*)$/);
  if (!found) return { begins: begins + minus, typed: term.slice(minus), field: null };
  const value = found[3].slice(found[3].lastIndexOf(",") + 1);
  return { begins: cursor - value.length, typed: value.replace(/^"/, ""), field: found[1] };
}

function completing(input, fields) {
  const list = document.createElement("ul");
  list.id = "typing-list";
  list.className = "typing-list";
  list.setAttribute("role", "listbox");
  list.hidden = true;
  input.after(list);
  for (const [name, value] of Object.entries({ role: "combobox", "aria-autocomplete": "list", "aria-controls": list.id, "aria-expanded": "false" })) {
    input.setAttribute(name, value);
  }
  let shown = [];
  let chosen = -1;

  function close() {
    list.hidden = true;
    shown = [];
    chosen = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  }

  function mark(place) {
    chosen = place;
    [...list.children].forEach((item, n) => item.setAttribute("aria-selected", String(n === place)));
    if (place < 0) input.removeAttribute("aria-activedescendant");
    else {
      input.setAttribute("aria-activedescendant", list.children[place].id);
      list.children[place].scrollIntoView({ block: "nearest" });
    }
  }

  function fitting(asked) {
    const { term } = { term: termAt(input.value, input.selectionStart) };
    const typed = term.typed.toLowerCase();
    if (term.field === null) {
      if (!typed && !asked) return [];
      return fields
        .filter((one) => one.name.toLowerCase().startsWith(typed) || one.other.startsWith(typed))
        .map((one) => ({ text: one.name + (one.compared ? "" : ":"), title: one.help, begins: term.begins, goesOn: true }));
    }
    const field = fields.find((one) => one.name === term.field || one.other === term.field);
    return (field ? field.values : [])
      .filter((one) => one.value.toLowerCase().includes(typed) || one.title.toLowerCase().includes(typed))
      .map((one) => ({ text: one.value, title: one.title, begins: term.begins, goesOn: false }));
  }

  function open(asked) {
    const found = fitting(asked).slice(0, 30);
    // What is there already needs no completion.
    if (!found.length || (found.length === 1 && input.value.slice(found[0].begins, input.selectionStart) === found[0].text)) return close();
    shown = found;
    list.replaceChildren(
      ...found.map((one, n) => {
        const item = document.createElement("li");
        item.id = `typing-${n}`;
        item.setAttribute("role", "option");
        const name = document.createElement("b");
        name.textContent = one.text;
        const title = document.createElement("small");
        title.textContent = one.title;
        item.append(name, " ", title);
        item.addEventListener("pointerdown", (event) => {
          event.preventDefault();
          take(n);
        });
        return item;
      }),
    );
    list.hidden = false;
    input.setAttribute("aria-expanded", "true");
    mark(-1);
  }

  function take(place) {
    const one = shown[place];
    const end = input.selectionStart;
    input.setRangeText(one.text + (one.goesOn ? "" : " "), one.begins, end, "end");
    close();
    if (one.goesOn) open(false);
  }

  input.addEventListener("input", () => open(false));
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "ArrowDown" && list.hidden) {
      open(true);
      event.preventDefault();
    } else if (list.hidden) {
      return;
    } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      const step = event.key === "ArrowDown" ? 1 : -1;
      mark((chosen + step + shown.length) % shown.length);
      event.preventDefault();
    } else if (event.key === "Escape") {
      close();
      event.preventDefault();
    } else if ((event.key === "Enter" || event.key === "Tab") && chosen >= 0) {
      take(chosen);
      event.preventDefault();
    }
  });
}

// Down and up go from row to row, Enter opens the record.
function walking(table) {
  const links = [...table.querySelectorAll("a.clamped")];
  table.addEventListener("keydown", (event) => {
    const place = links.indexOf(document.activeElement);
    const step = { ArrowDown: 1, ArrowUp: -1, KeyJ: 1, KeyK: -1 }[event.code];
    if (place < 0 || !step || event.ctrlKey || event.metaKey || event.altKey) return;
    links[Math.min(Math.max(place + step, 0), links.length - 1)].focus();
    event.preventDefault();
  });
}

// Ticks: one, from one to another with Shift, all on the page. What is not needed for an act is not shown.
function choosing(form, table) {
  const boxes = [...table.querySelectorAll("input[name=record]")];
  const all = table.querySelector("[data-all]");
  const fields = [...form.querySelectorAll("[data-for-kind]")];
  let last = -1;

  function show() {
    const n = boxes.filter((box) => box.checked).length;
    form.querySelector("[data-chosen]").textContent = n ? `✓ ${n}` : "";
    all.checked = n === boxes.length;
    all.indeterminate = n > 0 && n < boxes.length;
    for (const field of fields) field.hidden = !field.dataset.forKind.split(" ").includes(form.elements.kind.value);
    form.querySelector("button").disabled = form.elements.scope.value === "chosen" && n === 0;
  }

  table.addEventListener("click", (event) => {
    const place = boxes.indexOf(event.target);
    if (place < 0) return;
    if (event.shiftKey && last >= 0) {
      for (const box of boxes.slice(Math.min(last, place), Math.max(last, place) + 1)) box.checked = event.target.checked;
    }
    last = place;
    show();
  });
  all.addEventListener("change", () => {
    for (const box of boxes) box.checked = all.checked;
    show();
  });
  // X ticks the row that has the focus.
  table.addEventListener("keydown", (event) => {
    const box = event.target.closest("tr")?.querySelector("input[name=record]");
    if (event.code !== "KeyX" || !box || event.ctrlKey || event.metaKey || event.altKey) return;
    box.checked = !box.checked;
    last = boxes.indexOf(box);
    show();
    event.preventDefault();
  });
  form.addEventListener("change", show);
  show();
}
