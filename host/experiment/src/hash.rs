//! The hash of units: version 2 of GrowthBook's, so that any of its SDKs can recompute an
//! assignment.

/// Number of buckets that units are hashed to.
pub const BUCKETS: u32 = 10_000;

/// The bucket of `unit`, below [`BUCKETS`]. GrowthBook's hash of `unit` with `seed` is
/// `bucket / BUCKETS`.
#[must_use]
pub fn bucket(seed: &str, unit: &[u8]) -> u32 {
    let first = fnv1a(fnv1a(OFFSET, seed.as_bytes()), unit);
    fnv1a(OFFSET, first.to_string().as_bytes()) % BUCKETS
}

/// Offset basis of FNV-1a.
const OFFSET: u32 = 0x811c_9dc5;
/// Prime of FNV-1a.
const PRIME: u32 = 0x0100_0193;

/// 32-bit FNV-1a, continued from `hash`.
fn fnv1a(hash: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seed, unit and hash of GrowthBook's test cases of version 2 (specification 0.7.1).
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

    /// All cases of the published file, where it is available.
    #[test]
    fn hashes_are_those_of_the_published_file() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let Ok(text) =
            std::fs::read_to_string(root.join("../shared/data/growthbook-hash-cases.json"))
        else {
            // The constants above are its cases of version 2.
            eprintln!("skipped: the published file is not available");
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
