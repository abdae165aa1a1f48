// The record's text: shows marks in it, and knows what of it is selected, in code points.
import { codePointAt, positions, tidy } from "./offsets.js";
import { make } from "./words.js";

export class TextPane {
  constructor(element) {
    this.element = element;
    this.owners = [];
    this.owner = null;
    this.text = "";
    this.unseen = [];
    this.parts = [];
    this.sentences = [];
    // The number of the sentence that is in hand, or null.
    this.inHand = null;
    this.unfinished = null;
    // On a busy page the next press is heard before the end of a click or drag: that comes first all the same.
    for (const press of ["keydown", "pointerdown"]) document.addEventListener(press, () => this.#finish(), true);
    element.addEventListener("pointerup", (event) => this.#released(event));
    document.addEventListener("selectionchange", () => this.owner?.onSelection(this.selection()));
  }

  // Give a widget its share of the text: `onSelect(range)`, `onMark(index)`, `onSelection(range or null)`. Of several
  // (in Fields) the one that had the focus last gets what is selected. Returns its draw function.
  join(element, owner) {
    owner.marks = [];
    this.owners.push(owner);
    this.owner ??= owner;
    element.addEventListener("focusin", () => (this.owner = owner));
    element.addEventListener("pointerdown", () => (this.owner = owner));
    return (marks) => {
      owner.marks = marks.map((mark, index) => ({ ...mark, owner, index }));
      this.#show();
    };
  }

  // Take over what the server rendered: the text, with its invisible characters in marked spans.
  load(slot) {
    this.element.replaceChildren(...slot.childNodes);
    this.element.lang = slot.lang;
    this.text = this.element.textContent;
    this.at = positions(this.text);
    this.unseen = [];
    for (const owner of this.owners) owner.marks = [];
    let position = 0;
    for (const node of this.element.childNodes) {
      if (node.nodeType === Node.ELEMENT_NODE) {
        this.unseen.push({ start: position, end: position + node.textContent.length, mark: node.dataset.mark });
      }
      position += node.textContent.length;
    }
    // Named parts stand in panes; the titles are no text, so that places stay what they are.
    const sides = JSON.parse(slot.dataset.sides ?? "[]");
    this.parts = JSON.parse(slot.dataset.parts ?? "[]").map(([title, start, end]) => ({
      title, start: this.at[start], end: this.at[end], side: sides.includes(title),
    }));
    this.sentences = JSON.parse(slot.dataset.sentences ?? "[]").map(([start, end]) => ({ start, end }));
    this.inHand = null;
    this.element.classList.toggle("has-parts", this.parts.length > 0);
    if (this.parts.length) this.#draw([]);
  }

  slice(start, end) {
    return this.text.slice(this.at[start], this.at[end]);
  }

  // The words of the sentence in hand; empty if there is none.
  get sentence() {
    const { start, end } = this.sentences[this.inHand] ?? {};
    return start === undefined ? "" : this.slice(start, end);
  }

  // Take the next sentence in hand, the one before (`step` -1), or none (0).
  walk(step) {
    const last = this.sentences.length - 1;
    const from = this.inHand ?? (step > 0 ? -1 : last + 1);
    this.inHand = step && last >= 0 ? Math.min(Math.max(from + step, 0), last) : null;
    this.#show();
    this.element.querySelector(".cursor")?.scrollIntoView({ block: "nearest" });
  }

  #show() {
    const marks = this.owners.flatMap((owner) => owner.marks);
    this.#draw(this.inHand === null ? marks : [...marks, { ...this.sentences[this.inHand], kind: "cursor" }]);
  }

  // Show marks: [{start, end, color, kind, key}], in code points; they may overlap. `key` stands over the first letter.
  #draw(marks) {
    const ranges = (this.drawn = marks.map((mark, n) => ({ ...mark, n, from: this.at[mark.start], to: this.at[mark.end] })));
    const borders = new Set([0, this.text.length]);
    for (const { from, to } of ranges) borders.add(from).add(to);
    for (const { start, end } of this.unseen) borders.add(start).add(end);
    for (const { start, end } of this.parts) borders.add(start).add(end);
    const cuts = [...borders].sort((a, b) => a - b);
    const fragment = document.createDocumentFragment();
    let pane = null;
    for (let n = 0; n + 1 < cuts.length; n += 1) {
      const [from, to] = [cuts[n], cuts[n + 1]];
      let node = document.createTextNode(this.text.slice(from, to));
      const unseen = this.unseen.find((piece) => piece.start === from);
      if (unseen) node = make("span", { class: "unseen", title: unseen.mark, data: { mark: unseen.mark } }, node);
      for (const range of ranges) if (range.from <= from && to <= range.to) node = this.#wrap(node, range, from, to);
      const part = this.parts.find((one) => one.start <= from && to <= one.end);
      if (part && part !== pane?.part) {
        pane = { part, element: make("section", { class: part.side ? "pane side-by-side" : "pane", data: { title: part.title } }) };
        fragment.append(pane.element);
      }
      if (part) pane.element.append(node);
      else fragment.append(this.parts.length ? make("span", { class: "between" }, node) : node);
    }
    this.element.replaceChildren(fragment);
  }

  #wrap(node, range, from, to) {
    const element = make(range.kind ? "span" : "mark", { class: range.kind ?? "mark" }, node);
    element.classList.toggle("first", range.from === from);
    element.classList.toggle("last", range.to === to);
    if (!range.kind) element.dataset.n = range.n;
    if (range.key && range.from === from) element.dataset.key = range.key;
    if (range.color) element.style.setProperty("--label", range.color);
    return element;
  }

  // Returns {start, end} in code points of what is selected in the text, or null.
  selection() {
    const selection = getSelection();
    if (!selection || selection.isCollapsed || !selection.rangeCount || !this.text) return null;
    const range = selection.getRangeAt(0);
    if (!range.intersectsNode(this.element)) return null;
    const inside = document.createRange();
    inside.selectNodeContents(this.element);
    if (range.compareBoundaryPoints(Range.START_TO_START, inside) > 0) inside.setStart(range.startContainer, range.startOffset);
    if (range.compareBoundaryPoints(Range.END_TO_END, inside) < 0) inside.setEnd(range.endContainer, range.endOffset);
    const before = document.createRange();
    before.selectNodeContents(this.element);
    before.setEnd(inside.startContainer, inside.startOffset);
    const from = before.toString().length;
    const [start, end] = tidy(this.text, from, from + inside.toString().length);
    return start < end ? { start: codePointAt(this.at, start), end: codePointAt(this.at, end) } : null;
  }

  #released(event) {
    if (event.button !== 0) return;
    const mark = event.target instanceof Element ? event.target.closest("mark") : null;
    this.unfinished = () => {
      const selected = this.selection();
      if (selected) {
        // A finger adjusts its selection with handles; it marks with the button.
        if (event.pointerType !== "touch" && this.owner) {
          getSelection().removeAllRanges();
          this.owner.onSelect(selected);
        }
      } else if (mark) {
        const { owner, index } = this.drawn[Number(mark.dataset.n)];
        owner.onMark(index);
      }
    };
    // The browser sets the selection of a click after this event.
    setTimeout(() => this.#finish());
  }

  #finish() {
    const work = this.unfinished;
    this.unfinished = null;
    work?.();
  }
}
