// Labelled stretches of the text: as keywords, with the label that a digit chose.
export { mountPhrases as mount } from "../phrases.js";
