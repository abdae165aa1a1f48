// What changed between two short texts, word by word: [["same" | "del" | "ins", text], ...].
export function diff(before, after) {
  const a = before.match(/\s+|[^\s]+/gu) ?? [];
  const b = after.match(/\s+|[^\s]+/gu) ?? [];
  if (a.length * b.length > 250000) return [["del", before], ["ins", after]];
  const width = b.length + 1;
  const longest = new Uint32Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      longest[i * width + j] = a[i] === b[j]
        ? longest[(i + 1) * width + j + 1] + 1
        : Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
    }
  }
  const found = [];
  const add = (kind, text) => {
    if (found.length && found.at(-1)[0] === kind) found.at(-1)[1] += text;
    else found.push([kind, text]);
  };
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      add("same", a[i]);
      i += 1;
      j += 1;
    } else if (i < a.length && (j >= b.length || longest[(i + 1) * width + j] >= longest[i * width + j + 1])) {
      add("del", a[i]);
      i += 1;
    } else {
      add("ins", b[j]);
      j += 1;
    }
  }
  return found;
}

// Put the difference into `element` as <del> and <ins>; nothing if the texts are equal.
export function showDiff(element, before, after) {
  if (before === after) return element.replaceChildren();
  element.replaceChildren(
    ...diff(before, after).map(([kind, text]) => {
      if (kind === "same") return document.createTextNode(text);
      const part = document.createElement(kind);
      part.textContent = text;
      return part;
    }),
  );
}
