//! What every storage does; a Redis is tested end to end, where there is one.

use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::*;

const MIB: u64 = 1 << 20;

fn memory(max_size: u64) -> Store {
    Store { label: "a".into(), storage: Box::new(Memory::new(max_size)) }
}

fn sqlite(path: &Path, label: &str, max_size: u64) -> Store {
    let database = Arc::new(Database::open(path, max_size).unwrap());
    let label = label.to_owned();
    Store { label: label.clone(), storage: Box::new(Sqlite { database, label }) }
}

/// Each kind of store, empty, with what it is in.
fn stores(max_size: u64) -> (tempfile::TempDir, [Store; 2]) {
    let dir = tempfile::tempdir().unwrap();
    let file = sqlite(&dir.path().join("made/here.db"), "a", max_size);
    (dir, [memory(max_size), file])
}

fn entry(key: &str, value: &str) -> (String, Vec<u8>) {
    (key.into(), value.into())
}

#[tokio::test]
async fn what_is_set_is_there_until_it_is_deleted() {
    let (_dir, stores) = stores(MIB);
    for store in stores {
        assert_eq!(store.get("k".into()).await, Ok(None));
        store.set("k".into(), b"1".to_vec()).await.unwrap();
        store.set("k".into(), b"2".to_vec()).await.unwrap();
        assert_eq!(store.get("k".into()).await, Ok(Some(b"2".to_vec())));
        store
            .set_many(vec![entry("", "empty"), entry("l", ""), entry("l", "twice")])
            .await
            .unwrap();
        let keys = ["l", "none", "", "l"].map(String::from).to_vec();
        let twice = || Some(b"twice".to_vec());
        let expected = vec![twice(), None, Some(b"empty".to_vec()), twice()];
        assert_eq!(store.get_many(keys).await, Ok(expected));
        assert_eq!(store.all_keys().await, Ok(["", "k", "l"].map(String::from).to_vec()));
        store.delete_many(["k", "none"].map(String::from).to_vec()).await.unwrap();
        assert_eq!(store.exists("k".into()).await, Ok(false));
        assert_eq!(store.exists("l".into()).await, Ok(true));
        for nothing in [store.set_many(vec![]).await, store.delete_many(vec![]).await] {
            assert_eq!(nothing, Ok(()));
        }
        assert_eq!(store.get_many(vec![]).await, Ok(vec![]));
    }
}

#[tokio::test]
async fn a_number_is_added_to_as_spin_keeps_it() {
    let (_dir, stores) = stores(MIB);
    for store in stores {
        assert_eq!(store.increment("n".into(), 5).await, Ok(5));
        assert_eq!(store.increment("n".into(), -7).await, Ok(-2));
        assert_eq!(store.get("n".into()).await, Ok(Some((-2_i64).to_le_bytes().to_vec())));
        let Error(problem) = store.increment("n".into(), i64::MIN).await.unwrap_err();
        assert!(problem.contains("64 bits"), "{problem}");
        store.set("n".into(), b"12".to_vec()).await.unwrap();
        let Error(problem) = store.increment("n".into(), 1).await.unwrap_err();
        assert!(problem.contains("2 bytes is not a number"), "{problem}");
    }
}

#[tokio::test]
async fn a_value_is_swapped_only_if_it_is_the_one_seen() {
    let (_dir, stores) = stores(MIB);
    for store in stores {
        let swap = |seen: Option<&str>, value: &str| {
            store.swap("k".into(), seen.map(Into::into), value.into())
        };
        assert_eq!(swap(Some("1"), "2").await, Ok(false));
        assert_eq!(swap(None, "1").await, Ok(true));
        assert_eq!(swap(None, "2").await, Ok(false));
        assert_eq!(swap(Some("1"), "2").await, Ok(true));
        assert_eq!(store.get("k".into()).await, Ok(Some(b"2".to_vec())));
    }
}

#[tokio::test]
async fn keys_come_in_pages_and_each_once() {
    let (_dir, stores) = stores(64 * MIB);
    for store in stores {
        let long = "k".repeat(KEY_MOST - 4);
        let keys: Vec<_> = (0..3000).map(|i| format!("{long}{i:04}")).collect();
        store.set_many(keys.iter().map(|key| entry(key, "")).collect()).await.unwrap();
        let first = store.keys(None).await.unwrap();
        assert!(first.next.is_some() && (1000..1100).contains(&first.keys.len()));
        assert_eq!(store.all_keys().await, Ok(keys));
    }
}

#[tokio::test]
async fn what_is_too_long_or_too_much_is_refused() {
    let (_dir, stores) = stores(64 * MIB);
    for store in stores {
        let refused = |answer: Answer<()>, part: &str| {
            let Error(problem) = answer.unwrap_err();
            assert!(problem.contains(part), "{problem}");
        };
        let long = "k".repeat(KEY_MOST + 1);
        refused(store.set(long.clone(), vec![]).await, "a key of 1025 bytes");
        refused(store.exists(long.clone()).await.map(drop), "a key of 1025 bytes");
        refused(store.get(long).await.map(drop), "a key of 1025 bytes");
        let most = vec![7; VALUE_MOST];
        store.set("k".repeat(KEY_MOST), most.clone()).await.unwrap();
        assert_eq!(store.get("k".repeat(KEY_MOST)).await, Ok(Some(most)));
        refused(store.set("k".into(), vec![7; VALUE_MOST + KEY_MOST]).await, "more than 16777216");
        store.set("k".into(), vec![7; VALUE_MOST / 2]).await.unwrap();
        let thrice = vec!["k".to_owned(); 3];
        refused(store.get_many(thrice).await.map(drop), "more than 16777216");
    }
}

#[tokio::test]
async fn a_full_store_says_so_and_takes_what_fits() {
    let (_dir, stores) = stores(MIB);
    for store in stores {
        let quarter = || vec![7; 1 << 18];
        for key in 0.. {
            let Err(Error(problem)) = store.set(format!("k{key}"), quarter()).await else {
                continue;
            };
            assert!(problem.contains("full") && problem.contains("max_size"), "{problem}");
            assert!((2..=4).contains(&key), "{key} quarters in one");
            break;
        }
        // A batch that does not fit leaves nothing behind.
        let batch = vec![("small".to_owned(), vec![1]), ("large".to_owned(), quarter())];
        assert!(store.set_many(batch).await.is_err());
        assert_eq!(store.exists("small".into()).await, Ok(false));
        store.delete_many(vec!["k0".into()]).await.unwrap();
        store.set("k".into(), vec![7; 1000]).await.unwrap();
        // In place of itself there is room for as much.
        store.set("k1".into(), quarter()).await.unwrap();
    }
}

#[tokio::test]
async fn a_file_is_there_for_the_next_and_each_label_has_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kv.db");
    sqlite(&path, "a", MIB).set("k".into(), b"a".to_vec()).await.unwrap();
    // Of another process, or the next.
    let (a, b) = (sqlite(&path, "a", MIB), sqlite(&path, "b", MIB));
    assert_eq!(a.get("k".into()).await, Ok(Some(b"a".to_vec())));
    assert_eq!(b.get("k".into()).await, Ok(None));
    b.set("k".into(), b"b".to_vec()).await.unwrap();
    assert_eq!(a.get("k".into()).await, Ok(Some(b"a".to_vec())));
}

#[tokio::test]
async fn a_store_is_opened_by_what_its_label_is_bound_to() {
    let dir = tempfile::tempdir().unwrap();
    let connections = Connections::new(1, None).unwrap();
    let mut bindings = Bindings { folder: dir.path().join("state"), ..Bindings::default() };
    let memory = StoreConfig::Memory { max_size: MIB };
    bindings.stores.insert("fast".into(), memory);
    let labels = ["default", "fast", "default"].map(String::from);
    let stores = bindings.open(labels.iter(), &connections).unwrap();
    assert_eq!(stores.len(), 2);
    assert!(dir.path().join("state").join(SQLITE_FILE).is_file());
    let error = bindings.open(["cache".to_owned()].iter(), &connections).unwrap_err();
    assert!(error.to_string().contains("write [key_value_store.cache]"), "{error}");
    // A file where no file can be.
    std::fs::write(dir.path().join("text"), "").unwrap();
    bindings.folder = dir.path().join("text");
    let error = format!("{:#}", bindings.open(labels.iter(), &connections).unwrap_err());
    assert!(error.contains("[key_value_store.default]") && error.contains("path"), "{error}");
}

/// What one of three components may do to a store.
#[derive(Clone, Debug)]
enum Step {
    Set(String, Vec<u8>),
    Delete(String),
    Swap(String, Option<Vec<u8>>, Vec<u8>),
    Increment(String, i64),
}

fn step() -> impl Strategy<Value = Step> {
    let key = || "[a-c]{0,1}|ä";
    let value = || proptest::collection::vec(0_u8..3, 0..10);
    prop_oneof![
        (key(), value()).prop_map(|(key, value)| Step::Set(key, value)),
        key().prop_map(Step::Delete),
        (key(), proptest::option::of(value()), value())
            .prop_map(|(key, seen, value)| Step::Swap(key, seen, value)),
        (key(), any::<i64>()).prop_map(|(key, delta)| Step::Increment(key, delta)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Memory and file answer the same to whatever is asked, and hold the same in the end.
    #[test]
    fn every_storage_does_the_same(steps in proptest::collection::vec(step(), 0..40)) {
        Runtime::new().unwrap().block_on(async {
            let (_dir, [memory, file]) = stores(MIB);
            for step in steps {
                match step {
                    Step::Set(key, value) => {
                        let expected = memory.set(key.clone(), value.clone()).await;
                        prop_assert_eq!(file.set(key, value).await, expected);
                    }
                    Step::Delete(key) => {
                        let expected = memory.delete_many(vec![key.clone()]).await;
                        prop_assert_eq!(file.delete_many(vec![key]).await, expected);
                    }
                    Step::Swap(key, seen, value) => {
                        let expected = memory.swap(key.clone(), seen.clone(), value.clone()).await;
                        prop_assert_eq!(file.swap(key, seen, value).await, expected);
                    }
                    Step::Increment(key, delta) => {
                        let expected = memory.increment(key.clone(), delta).await;
                        prop_assert_eq!(file.increment(key, delta).await, expected);
                    }
                }
            }
            let keys = memory.all_keys().await.unwrap();
            prop_assert_eq!(file.all_keys().await, Ok(keys.clone()));
            prop_assert_eq!(file.get_many(keys.clone()).await, memory.get_many(keys).await);
            Ok(())
        })?;
    }
}
