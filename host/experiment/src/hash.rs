//! The hashes of units: GrowthBook's, so that any of its SDKs can recompute an assignment. Version 2
//! assigns to variants, and version 1 to the parts of a namespace.

/// Number of buckets that units are hashed to.
pub const BUCKETS: u32 = 10_000;

/// The bucket of `unit`, below [`BUCKETS`]. GrowthBook's hash of `unit` with `seed` is
/// `bucket / BUCKETS`.
#[must_use]
pub fn bucket(seed: &str, unit: &[u8]) -> u32 {
    let first = fnv1a(fnv1a(OFFSET, seed.as_bytes()), unit);
    fnv1a(OFFSET, first.to_string().as_bytes()) % BUCKETS
}

/// Number of parts that a namespace is divided into.
pub const NAMESPACE_BUCKETS: u32 = 1000;

/// The place of `unit` in the namespace `name`, below [`NAMESPACE_BUCKETS`]. GrowthBook's hash, of
/// version 1, is `place / NAMESPACE_BUCKETS`.
#[must_use]
pub fn namespace_bucket(name: &str, unit: &[u8]) -> u32 {
    let hash = [b"__", name.as_bytes()].into_iter().fold(fnv1a(OFFSET, unit), fnv1a);
    hash % NAMESPACE_BUCKETS
}

/// 64-bit FNV-1a: tells apart texts of the operator.
pub(crate) fn digest(text: &[u8]) -> u64 {
    text.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
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

    /// Unit, namespace, and whether the unit is in the parts 0 to 0.4 and 0.4 to 1: GrowthBook's test
    /// cases of namespaces (specification 0.7.1).
    const NAMESPACES: [(&str, &str, [bool; 2]); 8] = [
        ("1", "namespace1", [false, true]),
        ("1", "namespace2", [false, true]),
        ("2", "namespace1", [false, true]),
        ("2", "namespace2", [false, true]),
        ("3", "namespace1", [false, true]),
        ("3", "namespace2", [true, false]),
        ("4", "namespace1", [false, true]),
        ("4", "namespace2", [true, false]),
    ];

    #[test]
    fn places_in_namespaces_are_growthbooks() {
        for (unit, name, expected) in NAMESPACES {
            let place = namespace_bucket(name, unit.as_bytes());
            assert_eq!([place < 400, place >= 400], expected, "{unit} in {name}: {place}");
        }
    }

    /// Seed, unit and thousandths of GrowthBook's test cases of version 1.
    #[test]
    fn hashes_of_version_1_are_growthbooks() {
        for (seed, unit, expected) in [
            ("", "a", 220),
            ("", "b", 77),
            ("b", "a", 946),
            ("ef", "d", 652),
            ("asdf", "8952klfjas09ujk", 549),
            ("", "123", 11),
            ("", "___)((*\":&", 563),
        ] {
            let hash = fnv1a(fnv1a(OFFSET, unit.as_bytes()), seed.as_bytes());
            assert_eq!(hash % NAMESPACE_BUCKETS, expected, "{seed} {unit}");
        }
    }

    /// Test vectors of FNV-1a (draft-eastlake-fnv, appendix C).
    #[test]
    fn digest_is_fnv_1a() {
        assert_eq!(digest(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(digest(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(digest(b"foobar"), 0x8594_4171_f739_67e8);
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
