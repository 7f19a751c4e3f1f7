//! Where a unit falls: GrowthBook's hash, version 2, so that an assignment can be recomputed by any
//! of its SDKs.

/// Parts a hash tells apart: a unit falls into one of them.
pub const BUCKETS: u32 = 10_000;

/// The bucket of `unit` in an experiment, below [`BUCKETS`]. GrowthBook calls `bucket / BUCKETS` the
/// hash of `unit` with `seed`.
#[must_use]
pub fn bucket(seed: &str, unit: &[u8]) -> u32 {
    let first = fnv1a(fnv1a(OFFSET, seed.as_bytes()), unit);
    fnv1a(OFFSET, first.to_string().as_bytes()) % BUCKETS
}

const OFFSET: u32 = 0x811c_9dc5;
const PRIME: u32 = 0x0100_0193;

/// FNV-1a with 32 bits, going on from `hash`.
fn fnv1a(hash: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of GrowthBook's test cases (specification 0.7.1), those of version 2: seed, unit, hash.
    const VECTORS: [(&str, &str, u32); 7] = [
        ("seed", "a", 505),
        ("seed", "b", 2696),
        ("foo", "ab", 2575),
        ("foo", "def", 2019),
        ("89123klj", "8952klfjas09ujkasdf", 1240),
        ("90850943850283058242805", "123", 7516),
        ("()**(%$##$%#$#", "___)((*\":&", 128),
    ];

    #[test]
    fn hashes_are_growthbooks() {
        for (seed, unit, expected) in VECTORS {
            assert_eq!(bucket(seed, unit.as_bytes()), expected, "{seed} {unit}");
        }
    }

    /// The whole published file, where it is at hand.
    #[test]
    fn hashes_are_those_of_the_published_file() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let Ok(text) =
            std::fs::read_to_string(root.join("../shared/data/growthbook-hash-cases.json"))
        else {
            // The constants above are its cases of version 2.
            eprintln!("skipped: the published file is not beside the repository");
            return;
        };
        let cases: serde_json::Value = serde_json::from_str(&text).unwrap();
        let hashes = cases["hash"].as_array().unwrap();
        let mut compared = 0;
        for case in hashes.iter().filter(|case| case[2] == 2) {
            let (seed, unit) = (case[0].as_str().unwrap(), case[1].as_str().unwrap());
            let hash = f64::from(bucket(seed, unit.as_bytes())) / f64::from(BUCKETS);
            assert_eq!(Some(hash), case[3].as_f64(), "{case}");
            compared += 1;
        }
        assert!(compared >= VECTORS.len());
    }
}
