// Offsets: JavaScript counts UTF-16 units, Labeler counts code points. An emoji is two of the one and one of the other.

// Returns the UTF-16 position of every code point of `text`, and of its end.
export function positions(text) {
  const found = [];
  for (let at = 0; at < text.length; at += text.codePointAt(at) > 0xffff ? 2 : 1) found.push(at);
  found.push(text.length);
  return found;
}

// Returns the code point that begins at, or contains, the UTF-16 position `at`.
export function codePointAt(all, at) {
  let low = 0;
  let high = all.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (all[middle] <= at) low = middle;
    else high = middle - 1;
  }
  return low;
}

const graphemes = typeof Intl.Segmenter === "function" ? new Intl.Segmenter(undefined, { granularity: "grapheme" }) : null;

// Widens a UTF-16 range to whole characters as people see them (no half emoji) and takes white space off its ends.
export function tidy(text, start, end) {
  if (graphemes) {
    const segments = graphemes.segment(text);
    const first = segments.containing(start);
    if (first) start = first.index;
    const last = end > start ? segments.containing(end - 1) : null;
    if (last) end = last.index + last.segment.length;
  }
  while (start < end && /\s/u.test(text[start])) start += 1;
  while (end > start && /\s/u.test(text[end - 1])) end -= 1;
  return [start, end];
}

// Returns the words of `text` as UTF-16 ranges: what stands between white space, without punctuation around it.
export function wordsOf(text) {
  const found = [];
  for (const match of text.matchAll(/\S+/gu)) {
    const core = /^(\p{P}*)(.*?)(\p{P}*)$/su.exec(match[0]);
    const start = match.index + (core[2] ? core[1].length : 0);
    found.push([start, core[2] ? start + core[2].length : match.index + match[0].length]);
  }
  return found;
}
