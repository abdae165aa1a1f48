// What came up by itself must not be answered by a press that was meant for what stood there before. A busy page paints
// late and hears of presses later still: what counts is when the key went down and when the news could be seen.

// A browser whose events run on another clock than the page must not make the keys dead for good.
const LATEST = 2000;
// Milliseconds after which nobody waits for a frame any more.
const UNPAINTED = 100;

// Resolves when what was changed just now is painted; a hidden page paints nothing, and goes on soon.
export function painted() {
  return new Promise((resolve) => {
    requestAnimationFrame(() => setTimeout(resolve));
    setTimeout(resolve, UNPAINTED);
  });
}

export class Seen {
  // `pause`: milliseconds from the paint until a press can be an answer. `element` then gets the attribute data-ready.
  constructor(element, pause) {
    this.element = element;
    this.pause = pause;
    this.from = Infinity;
    this.shown = 0;
  }

  // Something new came up: nobody has seen it yet.
  begin() {
    const shown = (this.shown += 1);
    const later = (work, milliseconds) => setTimeout(() => shown === this.shown && work(), milliseconds);
    this.from = Infinity;
    delete this.element.dataset.ready;
    // The frame is painted after its callbacks; what waits in line behind it runs when it can be seen.
    requestAnimationFrame(() => later(() => {
      this.from = performance.now() + this.pause;
      later(() => (this.element.dataset.ready = ""), this.pause + 1);
    }));
  }

  // Whether the press of this event can have been an answer to what is shown now.
  answers(event) {
    const now = performance.now();
    return Math.min(Math.max(event.timeStamp, now - LATEST), now) >= this.from;
  }
}
