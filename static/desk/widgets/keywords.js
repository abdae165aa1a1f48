// Phrases that stand verbatim in the text: drag, double click, type, or walk with the arrows.
export { mountPhrases as mount } from "../phrases.js";
