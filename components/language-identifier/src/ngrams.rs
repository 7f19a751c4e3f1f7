//! The features of a text: counts of character n-grams, hashed into buckets. `models/ngrams.py` computes the
//! same.

/// Number of buckets.
pub(crate) const BUCKETS: u32 = 4096;
/// Maximum length of an n-gram, in characters.
const MAX_LENGTH: usize = 3;

/// Counts the n-grams of 1 to [`MAX_LENGTH`] characters of each word, with a space before and after the word.
/// `counts`: one per bucket.
pub(crate) fn count(text: &str, counts: &mut [f32]) {
    // The last characters of the current word.
    let mut end = Vec::with_capacity(MAX_LENGTH);
    let lower = text.chars().flat_map(char::to_lowercase);
    for letter in lower.chain([' ']) {
        let between = is_between_words(letter);
        if end.is_empty() {
            if between {
                continue;
            }
            end.push(' ');
        }
        end.push(if between { ' ' } else { letter });
        count_suffixes(&end, counts);
        if between {
            end.clear();
        } else if end.len() == MAX_LENGTH {
            end.remove(0);
        }
    }
}

/// Counts the n-grams at the end of `end`.
fn count_suffixes(end: &[char], counts: &mut [f32]) {
    for ngram in (0..end.len()).map(|start| &end[start..]).filter(|ngram| *ngram != [' ']) {
        let mut hash = Fnv1a::new();
        ngram.iter().for_each(|&letter| hash.add(letter));
        counts[hash.bucket()] += 1.0;
    }
}

/// Whether a character separates words: all below U+00C0 except a to z, the signs of multiplication and
/// division, and the blocks of general, CJK and full-width punctuation. By code point, since Unicode's tables of
/// letters change.
fn is_between_words(letter: char) -> bool {
    match letter {
        'a'..='z' => false,
        '\0'..='\u{bf}' | '\u{d7}' | '\u{f7}' => true,
        '\u{2000}'..='\u{206f}' | '\u{3000}'..='\u{303f}' | '\u{ff00}'..='\u{ff0f}' => true,
        _ => false,
    }
}

/// Fowler, Noll and Vo's hash 1a, of 32 bits: <http://www.isthe.com/chongo/tech/comp/fnv/>
struct Fnv1a(u32);

impl Fnv1a {
    fn new() -> Self {
        Self(0x811c_9dc5)
    }

    /// Adds the UTF-8 of a letter.
    fn add(&mut self, letter: char) {
        for &byte in letter.encode_utf8(&mut [0; 4]).as_bytes() {
            self.0 = (self.0 ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        }
    }

    fn bucket(&self) -> usize {
        (self.0 % BUCKETS) as usize
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn counted(text: &str) -> BTreeMap<usize, f32> {
        let mut counts = vec![0.0; BUCKETS as usize];
        count(text, &mut counts);
        counts.into_iter().enumerate().filter(|(_, count)| *count > 0.0).collect()
    }

    fn bucket(ngram: &str) -> usize {
        let mut hash = Fnv1a::new();
        ngram.chars().for_each(|letter| hash.add(letter));
        hash.bucket()
    }

    /// The published values: <http://www.isthe.com/chongo/src/fnv/test_fnv.c>
    #[test]
    fn hash_is_fnv_1a() {
        for (text, hash) in [("", 0x811c_9dc5_u32), ("a", 0xe40c_292c), ("foobar", 0xbf9c_f968)] {
            let mut fnv = Fnv1a::new();
            text.chars().for_each(|letter| fnv.add(letter));
            assert_eq!(fnv.0, hash, "{text}");
        }
    }

    #[test]
    fn ngrams_of_a_word() {
        let mut expected = BTreeMap::new();
        for ngram in ["a", "b", " a", "ab", "b ", " ab", "ab "] {
            *expected.entry(bucket(ngram)).or_default() += 1.0;
        }
        for text in ["ab", "AB", " 1ab! ", "×ab÷"] {
            assert_eq!(counted(text), expected, "{text}");
        }
        for text in ["", "12 + 3 = 15?", "。、"] {
            assert!(counted(text).is_empty(), "{text}");
        }
    }

    /// Golden values that the training script wrote.
    #[test]
    fn counts_equal_those_of_the_training() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/language-identifier");
        let golden = std::fs::read(root.join("1/ngrams.json")).unwrap();
        let golden: Vec<Value> = serde_json::from_slice(&golden).unwrap();
        assert!(golden.len() >= 20, "the golden file is complete");
        for case in golden {
            let expected: BTreeMap<usize, f32> =
                serde_json::from_value::<Vec<_>>(case["buckets"].clone())
                    .unwrap()
                    .into_iter()
                    .collect();
            assert_eq!(counted(case["text"].as_str().unwrap()), expected, "{}", case["text"]);
        }
    }

    proptest! {
        /// A word of `n` letters has `n` unigrams, `n + 1` bigrams and `n` trigrams.
        #[test]
        fn all_ngrams_are_counted(words in prop::collection::vec("[a-zé-öα-ωक-ह一-鿿]{1,12}", 0..8), any: String) {
            let ngrams: usize = words.iter().map(|word| 3 * word.chars().count() + 1).sum();
            let counted: f32 = counted(&words.join(" ")).values().sum();
            #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
            let ngrams = ngrams as f32;
            prop_assert!((counted - ngrams).abs() < 0.5);
            count(&any, &mut [0.0; BUCKETS as usize]);
        }
    }
}
