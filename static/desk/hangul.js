// The initial consonants of Korean words, by which a label is found before its name is typed out.

const INITIALS = "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ";
const FIRST = 0xac00;
// How many syllables begin with one consonant.
const OF_ONE = 588;
// Two consonants that an input method makes one of: they cannot begin a syllable.
const PAIRS = { ㄳ: "ㄱㅅ", ㄵ: "ㄴㅈ", ㄶ: "ㄴㅎ", ㄺ: "ㄹㄱ", ㄻ: "ㄹㅁ", ㄼ: "ㄹㅂ", ㄽ: "ㄹㅅ", ㄾ: "ㄹㅌ", ㄿ: "ㄹㅍ", ㅀ: "ㄹㅎ", ㅄ: "ㅂㅅ" };

// Returns the text with the initial consonant in place of each syllable.
export function initials(text) {
  return text.replace(/[가-힣]/gu, (syllable) => INITIALS[Math.floor((syllable.codePointAt(0) - FIRST) / OF_ONE)]);
}

// Returns typed words with their consonants one by one.
export function spread(words) {
  return words.replace(/[ㄱ-ㅎ]/gu, (consonant) => PAIRS[consonant] ?? consonant);
}
